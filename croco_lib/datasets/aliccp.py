"""Ali-CCP from its raw files, tianchi.aliyun.com/dataset/408: clicks of a shop, field 301 as the domain."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..data.frame import check_options
from ..data.vocabulary import Vocabulary
from ..errors import DataError, known
from ..schema import MultiDomainData
from .aliccp_lines import read_lines
from .columns import KeptRows, write_columns
from .parts import Reader, read_raw
from .raw import find_file, folders, plain
from .store import NotPrepared, home, prepared, writing

NAMES = [f"{kind}_{split}.csv" for kind in ("common_features", "sample_skeleton") for split in ("train", "test")]
USER = "101 121 122 124 125 126 127 128 129".split()
USER_MANY = "109_14 110_14 127_14 150_14".split()
ITEM = "205 206 207 216 508 509 702 853 301".split()
ITEM_MANY = ["210"]
FIELDS = ["101", "205", "301", *USER[1:], *USER_MANY, *(f for f in ITEM if f not in ("205", "301")), *ITEM_MANY]
ROLES = {"101": "user", "205": "item", "301": "domain"}
MULTI = {"last": 1, "mean": 2}  # what is made of multi-valued fields, and the version of that rule: see `prepared`


def files() -> list[Path]:
    """The four raw files, or none: the two of common features, then the two skeletons.

    They lie together, or as the publisher's archives unpack them, in sample_train and sample_test.
    """
    for folder in folders("ali-ccp"):
        found = [path for name in NAMES if (path := located(folder, name))]
        if len(found) == len(NAMES):
            return found
    return []


def located(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder, or in its archive's own folder."""
    split = name.removesuffix(".csv").rpartition("_")[2]
    places = [folder, *(p for p in folder.iterdir() if p.is_dir() and p.name.lower() == f"sample_{split}")]
    return next(filter(None, (find_file(place, name) for place in places)), None)


def missing(folder: Path) -> list[str]:
    """The names of the raw files that the folder lacks."""
    return [name for name in NAMES if located(folder, name) is None]


def how_to_get() -> str:
    """What is missing of Ali-CCP here, and where to get it."""
    parts = [(folder, lacks) for folder in folders("ali-ccp") if 0 < len(lacks := missing(folder)) < len(NAMES)]
    here = f"{parts[0][0]} lacks {', '.join(parts[0][1])}" if parts else "ali-ccp is not here"
    return (
        f"{here}. Fetch it from https://tianchi.aliyun.com/dataset/408 (log in there first) and unpack "
        "its four files common_features_*.csv and sample_skeleton_*.csv into data/raw/ali-ccp/."
    )


def load(multi: str = "last", min_count: int = 5, seed: int = 0) -> MultiDomainData:
    """Ali-CCP as `croco data prepare ali-ccp` left it, memory-mapped: label click, domains the values of field 301.

    Raises DataError where it was not prepared, or with other options.
    """
    known("rule for multi-valued fields", multi, MULTI)
    check_options("random", min_count, seed, "ali-ccp")
    try:
        return prepared("ali-ccp", dict(multi=multi, min_count=min_count, seed=seed), files(), MULTI[multi])
    except NotPrepared as error:
        raise DataError(
            f"{error} Run `croco data prepare ali-ccp --multi {multi} --min-count {min_count} "
            f"--seed {seed}` first." + ("" if files() else f" {how_to_get()}")
        ) from None


def prepare(
    multi: str = "last", min_count: int = 5, seed: int = 0, max_bad_share: float = 0.001, workers: int = 1
) -> Path:
    """Raw files to memory-mapped columns; returns their folder. Valid is a random tenth of the train file [ours].

    `multi`, of the five multi-valued fields: "last", the last value as an ordinary id – the default, since other
    projects do so and a row costs one lookup for each, not hundreds; "mean", every value with its weight, in bags.
    A value seen in fewer than `min_count` rows of train gets the unknown id. Rows with click 0 and conversion 1, or
    without a domain, are dropped and counted. Rows of no known user (field 101) share one group for gAUC.
    `workers` processes read the files.
    """
    known("rule for multi-valued fields", multi, MULTI)
    check_options("random", min_count, seed, "ali-ccp")
    if not (raw := files()):
        raise DataError(how_to_get())
    with writing("ali-ccp"):
        (common_0, common_1, *skeletons), notes = read_raw("ali-ccp", _sources(raw), max_bad_share, workers=workers)
        heights = [pl.scan_parquet(group, glob=False).select(pl.len()).collect().item() for group in skeletons]
        valid = np.random.default_rng(seed).random(heights[0]) < 0.1
        part = np.append(valid.astype(np.int8), np.full(heights[1], 2, np.int8))
        profiles, repeated = _profiles(common_0 + common_1, multi)
        notes |= {
            "common lines that repeat an index, left out": repeated,
            "split": "the publisher's train and test files; valid: a random tenth of train",
            "files": [path.name for path in raw],
        }
        rows = partial(_rows, sum(skeletons, []), multi)
        domains = sorted(set().union(*(frame["301"].unique() for frame in rows(["301"]))))
        many = {f: partial(_lists, common_0 + common_1, Vocabulary(profiles["index"]), f) for f in USER_MANY}
        kept = KeptRows(
            "ali-ccp",
            rows,
            part,
            {f: ROLES.get(f, "") for f in FIELDS},
            [profiles],
            "click",
            {int(d): str(d) for d in domains},
            many | {"210": None} if multi == "mean" else {},
        )
        return write_columns(kept, notes, dict(multi=multi, min_count=min_count, seed=seed), raw, MULTI[multi])


def _sources(raw: list[Path]) -> list[tuple[Path, Reader]]:
    """The four files, each with the reader of its lines."""
    common: dict[str, Any] = dict(columns=[], single=USER, many=USER_MANY)
    skeleton: dict[str, Any] = dict(columns=["sample_id", "click", "conversion"], single=ITEM, many=ITEM_MANY)
    return [
        (plain(path, home("ali-ccp") / "raw"), partial(read_lines, **layout, half=half))
        for path, (layout, half) in zip(raw, product((common, skeleton), (0, 1)), strict=True)
    ]


def _rows(parts: list[Path], multi: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of the skeletons, part by part, all their columns or these."""
    for path in parts:
        frame = pl.read_parquet(path, columns=columns, glob=False)
        yield frame.with_columns(pl.col("210").list.last()) if multi == "last" and not columns else frame


def _profiles(parts: list[Path], multi: str) -> tuple[pl.DataFrame, int]:
    """The common lines as a table sorted by index, each index once, and how many repeat another.

    Of a multi-valued field it holds the last value, or the number of the line's bag (null: it has none).
    """
    lists = pl.col(USER_MANY)
    held = lists.list.last() if multi == "last" else lists.is_not_null()
    columns = ["index", *USER, *USER_MANY]
    table = pl.concat([pl.read_parquet(part, columns=columns, glob=False).with_columns(held) for part in parts])
    if multi == "mean":
        table = table.with_columns(pl.when(lists).then(lists.cum_sum()).name.keep())
    unique = table.unique("index", keep="first").sort("index")
    return unique, len(table) - len(unique)


def _lists(parts: list[Path], keys: Vocabulary, field: str) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
    """A multi-valued field of the common lines: the places of their indices, and their lists of ids and weights."""
    for path in parts:
        frame = pl.read_parquet(path, columns=["index", field, f"{field}.weight"], glob=False)
        yield keys.code(frame["index"]) - 1, frame
