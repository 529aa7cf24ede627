"""Raw text of any size to typed parts: every CHUNK bytes of a file become one Parquet file, and are read once.

A part that is there is not made again, so an interrupted reading goes on, and other options need no second one.
"""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import polars as pl
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from ..errors import DataError, write_text, write_whole
from .store import home

CHUNK = 1 << 26  # bytes of raw text to a part
QUOTED = 5  # bad lines shown
DROPPED = "dropped: "  # begins the reason why a well-formed line is left out; any other reason makes a line bad

Reader = Callable[[bytes], tuple[pl.DataFrame, pl.Series]]  # text of lines → the rows kept; a reason or null a line


def text_of(path: Path, k: int, chunk: int, header: int) -> bytes:
    """The lines that begin in the k-th `chunk` bytes of the file, without its first `header` ones, as \\n ends them."""
    with path.open("rb") as file:
        if k:
            file.seek(k * chunk - 1)
        for _ in range(1 if k else header):
            file.readline()
        text = file.read(max(0, (k + 1) * chunk - file.tell()))
        if text and not text.endswith(b"\n"):
            text += file.readline().removesuffix(b"\n") + b"\n"
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def lines_of(text: bytes) -> pl.Series:
    """The lines of the text, without their ends; what is not UTF-8 is replaced."""
    if not text:
        return pl.Series("line", [], pl.String)
    return pl.Series("line", [text.removesuffix(b"\n").decode(errors="replace")]).str.split("\n").explode()


def write_part(part: Path, text: bytes, reader: Reader) -> None:
    """The rows of these lines as one Parquet file; what was wrong with the others stands in its metadata."""
    table, reason = reader(text)
    faulty = (reason.is_not_null() & ~reason.str.starts_with(DROPPED).fill_null(False)).arg_true()
    lines = lines_of(text) if len(faulty) else reason
    stats = {
        "lines": len(reason),
        "why": dict(sorted(reason.drop_nulls().value_counts().iter_rows())),
        "wrong": len(faulty),
        "bad": [(int(i), reason[i], lines[i][:160]) for i in faulty[:QUOTED]],
    }
    write_whole(part, lambda path: table.write_parquet(path, metadata={"stats": json.dumps(stats)}, compression="lz4"))


def begin(folder: Path, files: list[Path], version: int) -> None:
    """Empty the folder of parts that were made from other files, in other pieces or by other rules."""
    plan = json.dumps(
        {"format": version, "chunk": CHUNK, "raw": [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]}
    )
    if not (folder / "plan.json").is_file() or (folder / "plan.json").read_text(encoding="utf-8") != plan:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(folder / "plan.json", plan)


def made_part(part: Path, path: Path, k: int, chunk: int, header: int, reader: Reader) -> dict:
    """What the part's metadata say of its lines. The part is made where it is not there."""
    if not part.is_file():
        write_part(part, text_of(path, k, chunk, header), reader)
    return json.loads(pl.read_parquet_metadata(part)["stats"])


def read_raw(
    name: str,
    sources: Sequence[tuple[Path, Reader]],
    max_bad_share: float,
    header: int = 0,
    version: int = 1,
    workers: int = 1,
) -> tuple[list[list[Path]], dict]:
    """Every source as typed parts, and notes on the lines. A source is a file and a reader of its lines.

    The first `header` lines of a file are left out; `version` is that of the readers' rules; `workers` processes make
    the parts, each one at a time. Raises DataError when more than `max_bad_share` of a file's lines are bad.
    """
    folder = home(name) / "parts"
    begin(folder, [path for path, _ in sources], version)
    parts = [
        [folder / f"{path.name}.{k:05}.parquet" for k in range(-(-path.stat().st_size // CHUNK))] for path, _ in sources
    ]
    made = Parallel(workers, return_as="generator")(  # in order, however they come
        delayed(made_part)(part, path, k, CHUNK, header, reader)
        for (path, reader), group in zip(sources, parts, strict=True)
        for k, part in enumerate(group)
    )
    lines: Counter[str] = Counter()
    why: Counter[str] = Counter()
    bad: list[str] = []
    with tqdm(
        total=sum(p.stat().st_size for p, _ in sources),
        desc=f"{name}: reading",
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        for (path, _), group in zip(sources, parts, strict=True):
            wrong, size = 0, path.stat().st_size
            for k, stats in enumerate(islice(made, len(group))):
                bad += [
                    f"{path.name}, line {lines[path.name] + i + header + 1}: {reason}: {text!r}"
                    for i, reason, text in stats["bad"]
                ][: QUOTED - len(bad)]
                lines[path.name] += stats["lines"]
                why.update(stats["why"])
                wrong += stats["wrong"]
                bar.update(min(CHUNK, size - k * CHUNK))
                last = (k + 1) * CHUNK >= size
                if wrong > max_bad_share * lines[path.name] and (last or wrong > 1000 or not max_bad_share):
                    raise DataError(
                        f"{path}: {wrong} of {lines[path.name]} lines are bad, more than the share of "
                        f"{max_bad_share:g} that is let pass (`croco data prepare {name} --max-bad-share`). "
                        + "; ".join(bad)
                    )
            if not lines[path.name]:
                raise DataError(f"{path}: this file has no lines of data.")
    return parts, {
        "rows read": dict(lines),
        "bad lines": {r: n for r, n in why.items() if not r.startswith(DROPPED)},
        "rows dropped": {r.removeprefix(DROPPED): n for r, n in why.items() if r.startswith(DROPPED)},
        "first bad lines": bad,
    }
