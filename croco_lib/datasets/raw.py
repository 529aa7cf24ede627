"""Where raw files lie, how they are fetched, and a plain copy of one that is packed or quoted."""

import csv
import io
import os
from codecs import BOM_UTF8
from pathlib import Path

from ..data.tables import dialect, open_bytes
from ..errors import ROOT, DataError, write_whole

# Where the folder `data` is: in the checkout; where the package is installed without one, where the user stands.
BASE = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()


def roots() -> list[Path]:
    """Where raw data may lie: in $CROCO_DATA where it is set; else data/raw and a folder beside the project."""
    given = os.environ.get("CROCO_DATA")
    return [Path(given)] if given else [BASE / "data" / "raw", BASE.parent / "shared" / "data"]


def folders(*beginnings: str) -> list[Path]:
    """Where a data set's files may lie: each of the `roots`, then its folders whose name begins with one of these."""
    places = []
    for root in filter(Path.is_dir, roots()):
        named = (p for p in root.iterdir() if p.is_dir() and p.name.lower().startswith(beginnings))
        places += [root, *sorted(named)]
    return places


def fetch(name: str, archive: str, url: str, md5: str, otherwise: str) -> Path:
    """Fetch `url`, check its md5, unpack it (zip or tar) in the folder NAME of the first of `roots`.

    Raises DataError, which ends with `otherwise`.
    """
    import pooch

    target = roots()[0] / name  # where `find` will look
    unpack = pooch.Unzip if archive.endswith(".zip") else pooch.Untar
    try:
        pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=archive,
            path=target,
            # "update": pooch leaves alone what is there, be it half of a file.
            processor=lambda file, _, pooch: unpack(extract_dir=".")(file, "update", pooch),
            progressbar=True,
        )
    except Exception as error:  # pooch passes on whatever requests, ssl, tarfile or zipfile raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"Could not fetch {archive}: {reason}\nWithout the network: {otherwise}") from error
    return target


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name, in any case of letters and packed with gzip or not; None where there is none."""
    wanted = (name.lower(), f"{name.lower()}.gz")
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() in wanted and p.is_file()), None)


def plain(path: Path, folder: Path) -> Path:
    """The CSV file itself where its lines can be cut as they stand: UTF-8, commas, no quotes, not packed.

    Else a copy of it in that form in `folder`, made once: by csv, so that quotes and other separators are understood.
    """
    encoding, separator, _ = dialect(path)
    with open_bytes(path) as file:
        head = file.read(1 << 18)
    with path.open("rb") as file:
        as_it_is = file.read(len(head)) == head
    if as_it_is and encoding == "utf-8" and separator == "," and b'"' not in head and not head.startswith(BOM_UTF8):
        return path
    about = path.stat()
    copy = folder / f"{path.name}.{about.st_size}.{about.st_mtime_ns}.plain.csv"
    if not copy.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(copy, lambda temporary: _rewrite(path, temporary, encoding, separator))
    return copy


def _rewrite(path: Path, to: Path, encoding: str, separator: str) -> None:
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    with (
        open_bytes(path) as packed,
        io.TextIOWrapper(packed, encoding=encoding, errors="replace", newline="") as file,
        to.open("w", encoding="utf-8", newline="") as made,
    ):
        csv.writer(made, lineterminator="\n").writerows(filter(None, csv.reader(file, delimiter=separator)))
