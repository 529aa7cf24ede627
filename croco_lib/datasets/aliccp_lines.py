"""Ali-CCP's lines as typed rows.

A skeleton line is `sample_id,click,conversion,common_feature_index,feature_num,feature_list`, a common line its last
three; feature_list is `field\\x02id\\x03value` joined by \\x01, in no fixed order.
"""

import io
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from .parts import DROPPED, lines_of

NONE = np.iinfo(np.int64).min  # stands for a missing id
HEADS = {
    "sample_id": r"^[0-9]+$",
    "click": "^[01]$",
    "conversion": "^[01]$",
    "index": "^[0-9a-f]{16}$",
    "feature_num": r"^[0-9]+$",
}


class Features(NamedTuple):
    """The features of some lines, one after the other, each array [all features].

    `row` is a feature's line, `place` its field's place among those asked for (-1: another field), `ids` int64 and
    `weights` float32 its id and value. `broken` bool [lines]: one of the line's features is not field, id and value.
    """

    row: np.ndarray
    place: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    broken: np.ndarray


def read_lines(
    text: bytes,
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
    lines, names, fields = lines_of(text), [*columns, "index", "feature_num", "list"], [*single, *many]
    head = lines.str.splitn(",", len(names)).struct.rename_fields(names).struct.unnest()
    features = split_at_once(head["list"], fields) or split_one_by_one(head["list"], fields)
    own = {c: head[c].cast(pl.Int8, strict=False) for c in columns if c != "sample_id"}
    index = head["index"].str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()
    own["index"] = pl.Series(((index & ~np.uint64(1)) | np.uint64(half)).view(np.int64))
    table = pl.DataFrame(own | values_of(features, single, many, len(lines)))
    why = faults(head, features)
    if columns:
        why = pl.select(pl.coalesce(why, *left_out(table))).to_series()
    return table.filter(why.is_null()), why


def split_at_once(lists: pl.Series, fields: list[str]) -> Features | None:
    """The features of every list, parsed as a CSV of three columns; None where one may not be field, id and value."""
    if lists.null_count() or not len(lists):
        return None
    text = lists.str.join("\x01").item().encode()
    marks = text.translate(None, b"0123456789.-_\x01")
    if marks != b"\x02\x03" * (len(marks) // 2):  # nor may anything pass that the parser takes for a number: 0x1F, nan
        return None
    types = {"field": pa.dictionary(pa.int32(), pa.string()), "id": pa.int64(), "value": pa.float32()}
    try:
        table = pa_csv.read_csv(
            io.BytesIO(text.translate(bytes.maketrans(b"\x01\x02\x03", b"\n,,")) + b"\n"),
            pa_csv.ReadOptions(column_names=list(types)),
            pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa_csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    field = table["field"].combine_chunks()
    places = np.array([fields.index(f) if f in fields else -1 for f in field.dictionary.to_pylist()])
    ids, weights = table["id"].to_numpy(), table["value"].to_numpy()
    if not np.isfinite(weights).all():
        return None
    row = np.repeat(np.arange(len(lists)), lists.str.count_matches("\x01", literal=True).to_numpy() + 1)
    return Features(row, places[field.indices.to_numpy()], ids, weights, np.zeros(len(lists), bool))


def split_one_by_one(lists: pl.Series, fields: list[str]) -> Features:
    """The features of every list, whatever is wrong with them."""
    feature = pl.DataFrame({"f": lists.str.split("\x01")}).with_row_index("row").explode("f")
    feature = feature.with_columns(pl.col("f").str.splitn("\x02", 2).struct.rename_fields(["field", "rest"]))
    feature = (
        feature.unnest("f")
        .with_columns(pl.col("rest").str.splitn("\x03", 2).struct.rename_fields(["id", "value"]))
        .unnest("rest")
        .with_columns(pl.col("id").cast(pl.Int64, strict=False), pl.col("value").cast(pl.Float32, strict=False))
    )
    place = feature["field"].replace_strict({f: i for i, f in enumerate(fields)}, default=-1)
    row, ids, weights = (feature[c].fill_null(0).to_numpy() for c in ("row", "id", "value"))
    broken = np.zeros(len(lists), bool)
    broken[row[(feature["id"].is_null() | ~feature["value"].is_finite().fill_null(False)).to_numpy()]] = True
    return Features(row, place.to_numpy(), ids, weights, broken)


def values_of(features: Features, single: list[str], many: list[str], lines: int) -> dict[str, pl.Series]:
    """The columns of the fields: an id or null a line, or a list of ids and one of weights."""
    table = {}
    for i, f in enumerate(single):
        here = np.flatnonzero(features.place == i)
        values = np.full(lines, NONE)
        values[features.row[here]] = features.ids[here]
        table[f] = pl.Series(values).replace(NONE, None)
    for i, f in enumerate(many, len(single)):
        here = np.flatnonzero(features.place == i)
        length = np.bincount(features.row[here], minlength=lines)
        ends = pa.array(np.append(0, length.cumsum()), pa.int64())
        for column, values in ((f, features.ids[here]), (f"{f}.weight", features.weights[here])):
            table[column] = pl.Series(pa.LargeListArray.from_arrays(ends, pa.array(values), mask=pa.array(length == 0)))
    return table


def faults(head: pl.DataFrame, features: Features) -> pl.Series:
    """What is wrong with each line, or null: its columns, the number of its features, one of them."""
    names, counts = head.columns, np.bincount(features.row, minlength=len(head))
    wrong = [pl.when(~pl.col(c).str.contains(HEADS[c])).then(pl.lit(f"{c} is not as it should be")) for c in names[:-1]]
    return head.select(
        pl.coalesce(
            pl.when(pl.col("list").is_null()).then(pl.lit(f"fewer than {len(names)} columns")),
            *wrong,
            pl.when(pl.col("feature_num").cast(pl.Int64, strict=False) != pl.Series(counts)).then(
                pl.lit("feature_num is not the number of features: cut short?")
            ),
            pl.when(pl.Series(features.broken)).then(pl.lit("a feature is not field, id and value")),
        )
    ).to_series()


def left_out(table: pl.DataFrame) -> list[pl.Expr]:
    """Why a skeleton line is dropped, well-formed as it may be; null where it is kept."""
    return [
        pl.when((table["click"] == 0) & (table["conversion"] == 1)).then(pl.lit(DROPPED + "click 0 and conversion 1")),
        pl.when(table["301"].is_null()).then(pl.lit(DROPPED + "no domain (field 301)")),
    ]
