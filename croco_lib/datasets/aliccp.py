"""Ali-CCP from its raw files, tianchi.aliyun.com/dataset/408: clicks of a shop, field 301 as the domain.

A skeleton line is `sample_id,click,conversion,common_feature_index,feature_num,feature_list`, a common line its last
three; feature_list is `field\\x02id\\x03value` joined by \\x01, in no fixed order.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ..data.vocabulary import Vocabulary
from ..errors import DataError, known
from ..schema import MultiDomainData
from .columns import KeptRows, write_columns
from .parts import DROPPED, read_raw
from .raw import find_file, plain, roots
from .store import home, prepared

NAMES = [f"{kind}_{split}.csv" for kind in ("common_features", "sample_skeleton") for split in ("train", "test")]
USER = "101 121 122 124 125 126 127 128 129".split()
USER_MANY = "109_14 110_14 127_14 150_14".split()
ITEM = "205 206 207 216 508 509 702 853 301".split()
ITEM_MANY = ["210"]
FIELDS = ["101", "205", "301", *USER[1:], *USER_MANY, *(f for f in ITEM if f not in ("205", "301")), *ITEM_MANY]
ROLES = {"101": "user", "205": "item", "301": "domain"}
MULTI = {"last": 1, "mean": 2}  # what is made of multi-valued fields, and the version of that rule: see `prepared`
NONE = np.iinfo(np.int64).min  # stands for a missing id
HEADS = {
    "sample_id": r"^\d+$",
    "click": "^[01]$",
    "conversion": "^[01]$",
    "index": "^[0-9a-f]{16}$",
    "feature_num": r"^\d+$",
}


def read_lines(
    lines: pl.Series,
    columns: list[str],
    single: list[str],
    many: list[str],
    half: int,
) -> tuple[pl.DataFrame, pl.Series]:
    """Lines whose last three columns are index, feature_num and feature_list → table, and a reason or null a line.

    Ids are whole numbers, null where a field is missing. A field in `many` becomes a list of ids and one of weights. Of
    a field in `single` that comes twice the last stands; its weight is left out, and so are fields not named at all.
    The index is a number with `half` (0 train, 1 test) in its lowest bit: either file has indices of its own.
    """
    names = [*columns, "index", "feature_num", "list"]
    head = lines.str.splitn(",", len(names)).struct.rename_fields(names).struct.unnest()
    feature = head.select(f=pl.col("list").str.split("\x01")).with_row_index("row").explode("f")
    feature = feature.with_columns(pl.col("f").str.splitn("\x02", 2).struct.rename_fields(["field", "rest"]))
    feature = (
        feature.unnest("f")
        .with_columns(pl.col("rest").str.splitn("\x03", 2).struct.rename_fields(["id", "value"]))
        .unnest("rest")
        .with_columns(pl.col("id").cast(pl.Int64, strict=False), pl.col("value").cast(pl.Float32, strict=False))
    )
    row, ids, weight = (feature[c].fill_null(0).to_numpy() for c in ("row", "id", "value"))
    broken = np.zeros(len(lines), bool)
    broken[row[(feature["id"].is_null() | ~feature["value"].is_finite().fill_null(False)).to_numpy()]] = True
    count = pl.Series(np.bincount(row, minlength=len(lines)))
    wrong = [pl.when(~pl.col(c).str.contains(HEADS[c])).then(pl.lit(f"{c} is not as it should be")) for c in names[:-1]]
    why = head.select(
        pl.coalesce(
            pl.when(pl.col("list").is_null()).then(pl.lit(f"fewer than {len(names)} columns")),
            *wrong,
            pl.when(pl.col("feature_num").cast(pl.Int64, strict=False) != count).then(
                pl.lit("feature_num is not the number of features: cut short?")
            ),
            pl.when(pl.Series(broken)).then(pl.lit("a feature is not field, id and value")),
        )
    ).to_series()

    place = feature["field"].replace_strict({f: i for i, f in enumerate([*single, *many])}, default=-1).to_numpy()
    table = {c: head[c].cast(pl.Int8, strict=False) for c in columns if c != "sample_id"}
    index = head["index"].str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()
    table["index"] = ((index & ~np.uint64(1)) | np.uint64(half)).view(np.int64)
    for i, f in enumerate(single):
        here = np.flatnonzero(place == i)
        values = np.full(len(lines), NONE)
        values[row[here]] = ids[here]
        table[f] = pl.Series(values).replace(NONE, None)
    for i, f in enumerate(many, len(single)):
        here = np.flatnonzero(place == i)
        length = np.bincount(row[here], minlength=len(lines))
        ends = np.append(0, length.cumsum())
        for column, values in ((f, ids[here]), (f"{f}.weight", weight[here])):
            table[column] = pl.from_arrow(
                pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(values), mask=pa.array(length == 0))
            )
    table = pl.DataFrame(table)
    if columns:
        why = pl.select(
            pl.coalesce(
                why,
                pl.when((table["click"] == 0) & (table["conversion"] == 1)).then(
                    pl.lit(DROPPED + "click 0 and conversion 1")
                ),
                pl.when(table["301"].is_null()).then(pl.lit(DROPPED + "no domain (field 301)")),
            )
        ).to_series()
    return table.filter(why.is_null()), why


def files() -> list[Path]:
    """The four raw files, or none: the two of common features, then the two skeletons.

    They lie together, or as the publisher's archives unpack them, in sample_train and sample_test.
    """
    for folder in folders():
        if not missing(folder):
            return [located(folder, name) for name in NAMES]
    return []


def folders() -> list[Path]:
    """Where the files may lie: in each root, a folder whose name begins with ali-ccp in any case, or the root."""
    return [
        folder
        for root in filter(Path.is_dir, roots())
        for folder in (*sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower().startswith("ali-ccp")), root)
    ]


def located(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder, or in its archive's own folder."""
    split = name.removesuffix(".csv").rpartition("_")[2]
    places = [folder, *(p for p in folder.iterdir() if p.is_dir() and p.name.lower() == f"sample_{split}")]
    return next(filter(None, (find_file(place, name) for place in places)), None)


def missing(folder: Path) -> list[str]:
    """The names of the raw files that the folder lacks."""
    return [name for name in NAMES if located(folder, name) is None]


def how_to_get() -> str:
    parts = [(folder, lacks) for folder in folders() if 0 < len(lacks := missing(folder)) < len(NAMES)]
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
    found = prepared("ali-ccp", dict(multi=multi, min_count=min_count, seed=seed), files(), MULTI[multi])
    if isinstance(found, str):
        raise DataError(
            f"{found} Run `croco data prepare ali-ccp --multi {multi} --min-count {min_count} "
            f"--seed {seed}` first." + ("" if files() else f" {how_to_get()}")
        )
    return found


def prepare(multi: str = "last", min_count: int = 5, seed: int = 0, max_bad_share: float = 0.001) -> Path:
    """Raw files to memory-mapped columns; returns their folder. Valid is a random tenth of the train file [ours].

    `multi`, of the five multi-valued fields: "last", the last value as an ordinary id – the default, since other
    projects do so and a row costs one lookup for each, not hundreds; "mean", every value with its weight, in bags.
    A value seen in fewer than `min_count` rows of train gets the unknown id. Rows with click 0 and conversion 1, or
    without a domain, are dropped and counted. Rows of no known user (field 101) share one group for gAUC.
    """
    known("rule for multi-valued fields", multi, MULTI)
    if not (raw := files()):
        raise DataError(how_to_get())
    lines = [plain(path, home("ali-ccp") / "raw") for path in raw]
    common = [
        (path, partial(read_lines, columns=[], single=USER, many=USER_MANY, half=i)) for i, path in enumerate(lines[:2])
    ]
    skeleton = [
        (path, partial(read_lines, columns=["sample_id", "click", "conversion"], single=ITEM, many=ITEM_MANY, half=i))
        for i, path in enumerate(lines[2:])
    ]
    (common_0, common_1, *rows_of), notes = read_raw("ali-ccp", common + skeleton, max_bad_share)
    commons = common_0 + common_1

    def rows(columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        for path in rows_of[0] + rows_of[1]:
            frame = pl.read_parquet(path, columns=columns)
            yield frame.with_columns(pl.col("210").list.last()) if multi == "last" and not columns else frame

    heights = [pl.scan_parquet(group).select(pl.len()).collect().item() for group in rows_of]
    part = np.append(
        (np.random.default_rng(seed).random(heights[0]) < 0.1).astype(np.int8), np.full(heights[1], 2, np.int8)
    )
    lists = pl.col(USER_MANY)
    table = pl.concat(
        [
            pl.read_parquet(p, columns=["index", *USER, *USER_MANY]).with_columns(
                lists.list.last() if multi == "last" else lists.is_not_null()
            )
            for p in commons
        ]
    )
    if multi == "mean":  # bag 0 stands for a missing field
        table = table.with_columns(pl.when(lists).then(lists.cum_sum()).name.keep())
    unique = table.unique("index", keep="first").sort("index")
    notes["common lines that repeat an index, left out"] = len(table) - len(unique)
    keys = Vocabulary(unique["index"])

    def bags(field: str) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
        for path in commons:
            frame = pl.read_parquet(path, columns=["index", field, f"{field}.weight"])
            yield keys.code(frame["index"]) - 1, frame

    many = {f: partial(bags, f) for f in USER_MANY} | {"210": None}
    domains = sorted(set().union(*(frame["301"].unique() for frame in rows(["301"]))))
    notes |= {
        "split": "the publisher's train and test files; valid: a random tenth of train",
        "files": [path.name for path in raw],
    }
    kept = KeptRows(
        "ali-ccp",
        rows,
        part,
        {f: ROLES.get(f, "") for f in FIELDS},
        [unique],
        "click",
        {int(d): str(d) for d in domains},
        many if multi == "mean" else {},
    )
    return write_columns(kept, min_count, notes, dict(multi=multi, min_count=min_count, seed=seed), raw, MULTI[multi])
