"""Where raw files lie, and how they are fetched."""

import os
from pathlib import Path

from ..errors import ROOT, DataError


def roots() -> list[Path]:
    """Where raw data may lie: in $CROCO_DATA where it is set; else data/raw and a folder beside the project."""
    given = os.environ.get("CROCO_DATA")
    return [Path(given)] if given else [ROOT / "data" / "raw", ROOT.parent / "shared" / "data"]


def fetch(name: str, archive: str, url: str, md5: str, otherwise: str) -> Path:
    """Fetch `url`, check its md5, unpack it (zip or tar) under data/raw/NAME; a DataError ends with `otherwise`."""
    import pooch

    target = ROOT / "data" / "raw" / name
    unpack = pooch.Unzip if archive.endswith(".zip") else pooch.Untar
    try:
        pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=archive,
            path=target,
            processor=unpack(extract_dir="."),
            progressbar=True,
        )
    except Exception as error:  # pooch passes on whatever requests, ssl, tarfile or zipfile raise
        reason = str(error).splitlines()[0]
        raise DataError(f"Could not fetch {archive}: {reason}\nWithout the network: {otherwise}") from error
    return target
