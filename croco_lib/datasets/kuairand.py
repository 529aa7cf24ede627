"""KuaiRand (Pure, 1K, 27K) from its published CSV files. Gao et al., CIKM 2022, kuairand.com, CC BY-SA 4.0."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ..data.frame import check_options
from ..data.splits import split_random, split_time
from ..errors import DataError
from ..schema import MultiDomainData
from . import twins
from .columns import KeptRows, write_columns
from .kuairand_files import USER, VIDEO, find, header_of, logs, raw_files, read_log, tables
from .parts import read_raw
from .raw import fetch, plain
from .store import NotPrepared, home, prepared, writing

TABS = (0, 1, 2, 4, 6)  # the paper's five domains
RECORD = "https://zenodo.org/records/10439422"
ARCHIVES = {  # name: (archive, md5 as published; None where we do not know it)
    "kuairand-pure": ("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7"),
    "kuairand-1k": ("KuaiRand-1K.tar.gz", "6b0b9c8222d67fcd4c676218edca3f1f"),
    "kuairand-27k": ("KuaiRand-27K.tar.gz", None),
}
# The rules by which lines become rows. Raise it with them: what was prepared by older ones is then made anew.
ROW_VERSION = 2
FEATURES = ["hour", *USER, *VIDEO]
ROLES = {"user_id": "user", "video_id": "item", "tab": "domain"}


def load(name: str, split: str = "random", min_count: int = 5, seed: int = 0) -> MultiDomainData:
    """KuaiRand as MultiDomainData: the standard log, label `is_click`, domains the tabs 0, 1, 2, 4 and 6.

    Of twins, rows equal in user, video, time_ms and tab, the first is kept. `notes` counts those that were equal in all
    19 columns, the further twins, and how many of these have another label than the row kept; and rows of other tabs.
    `split`: "random" 80/10/10 or "time" (the latest 10 % are the test). A value seen fewer than `min_count` times in
    train gets the unknown id 0, and so does a missing one.

    The first call with these options prepares the set as `prepare` does, and every later one maps what that left, while
    the raw files are the same. Raises DataError where files are missing, or malformed even in a single line: to let
    some pass is for `prepare` to be told. Raises CrocoError where the set cannot be written.
    """
    check_options(split, min_count, seed, name)
    options = dict(split=split, min_count=min_count, seed=seed)
    folder = find(name)
    raw = raw_files(folder, name) if folder else []
    with suppress(NotPrepared):
        return prepared(name, options, raw, ROW_VERSION)
    if folder is None:
        raise DataError(how_to_get(name))
    with writing(name):
        with suppress(NotPrepared):  # another process may have prepared it while this one waited
            return prepared(name, options, raw, ROW_VERSION)
        _write(name, folder, options, max_bad_share=0)
    return prepared(name, options, raw, ROW_VERSION)


def prepare(
    name: str,
    split: str = "random",
    min_count: int = 5,
    seed: int = 0,
    max_bad_share: float = 0.001,
    workers: int = 1,
) -> Path:
    """Raw files of any size to memory-mapped columns, those that `load` maps; returns their folder.

    A line of a log that is not 19 whole numbers, or whose label is not 0 or 1, is left out and counted; more than
    `max_bad_share` of them in a file is a DataError. Twins are found by 64-bit hashes. `workers` processes read the
    logs; however many they are, the columns are the same.
    """
    check_options(split, min_count, seed, name)
    folder = find(name)
    if folder is None:
        raise DataError(how_to_get(name))
    with writing(name):
        return _write(name, folder, dict(split=split, min_count=min_count, seed=seed), max_bad_share, workers)


def _write(name: str, folder: Path, options: dict, max_bad_share: float, workers: int = 1) -> Path:
    """`prepare` from the raw files in `folder`, in a process that is alone in writing there."""
    files = logs(folder, name)
    sources = [(plain(log, home(name) / "raw"), partial(read_log, header=header_of(log))) for log in files]
    known_of = tables(folder, name)
    groups, notes = read_raw(name, sources, max_bad_share, header=1, version=ROW_VERSION, workers=workers)
    parts = sum(groups, [])
    keep, told = _distinct(parts)
    by_chance = options["split"] == "random"
    part = split_random(int(keep.sum()), options["seed"]) if by_chance else split_time(_column(parts, "time_ms")[keep])

    def rows() -> Iterator[pl.DataFrame]:
        done = 0
        for path in parts:
            frame = pl.read_parquet(path, columns=[*ROLES, "hour", "is_click"], glob=False)
            done += len(frame)
            yield frame.filter(pl.Series(keep[done - len(frame) : done]))

    notes |= {
        "rows read": sum(notes["rows read"].values()) - sum(notes["rows dropped"].values()),
        "files": [log.name for log in files],
        **told,
        "split": "random 80/10/10" if by_chance else "by time_ms: first 80 % train, last 10 % test",
    }
    kept = KeptRows(
        name,
        rows,
        part,
        ROLES | dict.fromkeys(FEATURES, ""),
        list(known_of),
        "is_click",
        {tab: f"tab {tab}" for tab in TABS},
    )
    return write_columns(kept, notes, options, raw_files(folder, name), ROW_VERSION)


def _column(parts: list[Path], name: str) -> np.ndarray:
    """One column of all parts."""
    return np.concatenate([pl.read_parquet(part, columns=[name], glob=False)[name].to_numpy() for part in parts])


def _distinct(parts: list[Path]) -> tuple[np.ndarray, dict]:
    """Which rows are kept, bool [rows of all parts]: of the five tabs, the first of its twins. And the notes on it."""
    keep, counts = twins.first_of_twins(parts, pl.col("tab").is_in(TABS), pl.col("is_click"))
    everywhere, here = (counts[0] - counts[2]).tolist()
    return keep, {**twins.notes(counts), "rows of other tabs dropped": everywhere - here}


def how_to_get(name: str) -> str:
    """Where to get the data set and where to put it, in words."""
    archive, md5 = ARCHIVES[name]
    check = f" (md5 {md5})" if md5 else " (check the md5 on that page)"
    first = f"Run `croco data get {name}`, or fetch" if md5 else "Fetch"
    return (
        f"{name} is not here. {first} {archive}{check} from {RECORD} and unpack it "
        f"into data/raw/{name}/, or let CROCO_DATA name the folder that holds it."
    )


def download(name: str) -> Path:
    """Fetch the published archive with pooch, check its md5, unpack it under data/raw/NAME, and return that folder."""
    archive, md5 = ARCHIVES[name]
    if md5 is None:
        raise DataError(f"The md5 of {archive} is not known here, so it is not fetched unchecked. {how_to_get(name)}")
    return fetch(name, archive, f"{RECORD}/files/{archive}?download=1", md5, how_to_get(name))
