"""From any table of clicks to MultiDomainData: check it, split it, code its ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from ..errors import CrocoError, DataError, known
from ..schema import SPLITS, UNKNOWN, Field, MultiDomainData, Split
from .tables import need, no_gaps, read_table, row_at

FRACTIONS = (0.8, 0.1, 0.1)  # train, valid, test [ours: the paper does not say]


WHOLE = r"^(0|-?[1-9]\d{0,17})$"  # a whole number as it is usually written, within 64 bits
ROUNDED = 20  # different long ids that all end in zeros: by chance one time in 10^20
MEASURED = r"^-?\d*\.\d{4,}$"  # a number that was measured or computed, not a code
SPOILED = r"^-?\d(\.\d+)?E\+\d+$"  # what a spreadsheet makes of a long number: 1.08775E+14


def whole(values: pl.Series, where: str | Path) -> pl.Series:
    """An id column as text or whole numbers: two ids are one only where they are written alike, so 007 is not 7.

    Floats pass only where they hold whole numbers (ids read as 3.0). Raises DataError for ids that a
    spreadsheet has spoiled, for fractions, and for values that cannot be ids.
    """
    if values.dtype == pl.UInt64:
        return values
    if values.dtype.is_float() and (values.is_finite() & (values.abs() >= 2**53)).any():
        raise DataError(f"{where}: column {values.name!r} holds ids of 2^53 or more as floating-point numbers, where "
                        "neighbours can no longer be told apart. Read it as whole numbers or as text.")
    if values.dtype.is_float() and not (values.is_finite() & (values == values.floor())).all():
        raise DataError(
            f"{where}: column {values.name!r} holds fractions, and a field must be categorical. "
            f"Cut it into classes first, e.g. with polars: pl.col({values.name!r}).qcut(20)."
        )
    if values.dtype == pl.Object:  # Python's own whole numbers beyond 64 bits, or values of several types
        values = pl.Series(values.name, [None if v is None else str(v) for v in values], pl.String)
    try:
        text = values.cast(pl.Int64 if values.dtype.is_float() or values.dtype.is_integer() else pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(f"{where}: column {values.name!r} holds {values.dtype} values that cannot be ids. "
                        "Turn them into text or into whole numbers below 2^63 first.") from None
    if text.dtype != pl.String:
        not_rounded(text, where)
        return text
    if (spoiled := text.str.contains(SPOILED).fill_null(False)).any():
        row = int(spoiled.arg_max())
        raise DataError(f"{where}: column {values.name!r} holds {text[row]!r} in {row_at(where, row)}, as a "
                        f"spreadsheet writes a long number that it has rounded ({int(spoiled.sum())} rows): the ids "
                        "behind it are lost. Take the column from where it came from, as text.")
    not_rounded(text, where)
    return text


def not_rounded(ids: pl.Series, where: str | Path) -> None:
    """Raise DataError where all long ids end in zeros from the sixteenth digit on: a spreadsheet keeps fifteen."""
    if ids.dtype.is_integer() and not (ids.abs() >= 10**15).any():
        return
    long = ids.cast(pl.String).filter(ids.cast(pl.String).str.contains(r"^-?\d{16,}$")).unique()
    if len(long) >= ROUNDED and long.str.contains(r"^-?\d{15}0+$").all():
        raise DataError(f"{where}: all {len(long)} ids of 16 digits and more in column {ids.name!r}, such as "
                        f"{long[0]}, end in zeros from the sixteenth digit on, as a spreadsheet rounds them: the ids "
                        "behind them are lost. Take the column from where it came from, as text.")


def usual_numbers(values: pl.Series) -> pl.Series:
    """Text of a CSV as numbers where every value is a whole number in its usual form: the same ids, faster to code.

    So are measured numbers, with four decimals or more, which `whole` then refuses; 2.1 and 2.10 are two versions.
    """
    if values.dtype != pl.String or values.null_count() == len(values):
        return values
    if values.str.contains(WHOLE).all():
        return values.cast(pl.Int64)
    numbers = values.cast(pl.Float64, strict=False)
    measured = values.str.contains(MEASURED).any() and numbers.null_count() == values.null_count()
    return numbers if measured else values


def split_random(rows: int, seed: int) -> np.ndarray:
    """0 (train), 1 (valid) or 2 (test) for each row, at random. The seed is the data's own, never the model's."""
    order = np.random.default_rng(seed).permutation(rows)
    cuts = np.cumsum([round(rows * f) for f in FRACTIONS[:2]])
    part = np.full(rows, 2, np.int8)
    part[order[: cuts[1]]] = 1
    part[order[: cuts[0]]] = 0
    return part


def split_time(time: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each row by its time: the last tenth is the test, the tenth before it validation.

    Rows of one moment stay together.
    """
    edges = np.quantile(time, np.cumsum(FRACTIONS[:2]), method="lower")
    return np.searchsorted(edges, time, side="left").astype(np.int8)


def code(values: pl.Series, train: np.ndarray, min_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids 1 … V for the values seen at least `min_count` times in train, in sorted order; 0 for all others.

    Returns the ids int32 [N] and the V raw values.
    """
    values = values.alias("value")
    counts = values.filter(pl.Series(train)).drop_nulls().value_counts(name="count")
    kept = counts.filter(pl.col("count") >= min_count)["value"].sort()
    ids = pl.DataFrame({"value": kept, "id": np.arange(1, len(kept) + 1, dtype=np.int32)})
    joined = values.to_frame().join(ids, on="value", how="left", maintain_order="left")
    return joined["id"].fill_null(UNKNOWN).to_numpy(), kept.to_numpy()


def from_frame(
    frame: pd.DataFrame | pl.DataFrame | str | Path,
    *,
    label: str,
    domain: str,
    user: str,
    item: str,
    fields: Sequence[str] = (),
    domains: Sequence | Mapping | None = None,
    split: str = "random",
    time: str | None = None,
    min_count: int = 5,
    missing: str = "error",
    seed: int = 0,
    separator: str | None = None,
    name: str = "table",
) -> MultiDomainData:
    """MultiDomainData from a table (pandas, polars, or the path of a CSV or Parquet file) with one row an impression.

    `label` holds 0 or 1. The model reads `user`, `item`, `domain` and the further categorical `fields`; name no column
    there that is known only after the click. `domains` lists the allowed domains, or maps them to names
    (default: those found).
    `split`: "random" (80/10/10, by `seed`) or "time" (by the column `time`: the latest 10 % are the test).
    A value seen fewer than `min_count` times in train, or only after it, gets the unknown id 0.
    `missing`: "error", or "unknown" to give gaps in `fields` the unknown id; they are counted in `notes`.

    `separator` of a CSV where it is not found by itself.

    Raises DataError where the table cannot be used, saying which column and row.
    """
    where = name
    if isinstance(frame, (str, Path)):
        where = Path(frame)
        ids = [user, item, domain, *fields]
        frame = read_table(where, text=ids, separator=separator)
        frame = frame.with_columns(usual_numbers(frame[c]) for c in dict.fromkeys(ids) if c in frame.columns)
    try:
        if isinstance(frame, pd.DataFrame):  # pandas' gap in a column of text is a NaN among the strings
            text = [c for c in frame if isinstance(frame[c], pd.Series) and frame[c].dtype == object]
            frame = frame.assign(**{c: frame[c].astype(object).where(frame[c].notna(), None) for c in text})
            wide = [c for c in text if pd.api.types.infer_dtype(frame[c], skipna=True) == "integer"
                    and frame[c].dropna().abs().max() >= 2**63]  # beyond 64 bits: as text
            frame = frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in wide})
        table = pl.from_pandas(frame, nan_to_null=False) if isinstance(frame, pd.DataFrame) else frame
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(f"{where}: not a plain table ({str(error).splitlines()[0]}). "
                        "Give every column its own name and values of one type.") from error
    if not isinstance(table, pl.DataFrame):
        raise DataError(f"{where}: give a pandas or polars table or a file's path, not {type(frame).__name__}.")
    known("split", split, ("random", "time"))
    known("rule for missing values", missing, ("error", "unknown"))
    for option, value in (("min_count", min_count), ("seed", seed)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise CrocoError(f"{where}: {option} must be a whole number of 0 or more, not {value!r}.")
    columns = list(dict.fromkeys([user, item, domain, *fields]))
    need(table, [label, *columns, *([time] if time else [])], where)
    if label in columns:
        raise DataError(f"{where}: column {label!r} is the label, so it cannot also be a field.")
    if len({user, item, domain}) < 3:
        raise DataError(f"{where}: user, item and domain must be three different columns.")
    if not len(table):
        raise DataError(f"{where}: the table has no rows.")
    no_gaps(table, [label, user, item, domain], where)
    if missing == "error":
        no_gaps(table, columns, where)

    if not (table[label].dtype.is_numeric() or table[label].dtype == pl.Boolean):
        raise DataError(f"{where}: the label {label!r} is {table[label].dtype}, not the numbers 0 and 1.")
    number = table[label].cast(pl.Float64)
    if (bad := (number != 0) & (number != 1)).any():
        row = int(bad.arg_max())
        raise DataError(f"{where}: the label {label!r} must be 0 or 1, but {row_at(where, row)} has "
                        f"{table[label][row]!r}; {int(bad.sum())} rows are like that.")

    coded = {c: whole(table[c].fill_nan(None) if table[c].dtype.is_float() else table[c], where) for c in columns}
    if domains is not None and (isinstance(domains, str) or not isinstance(domains, (Sequence, Mapping, np.ndarray))):
        raise DataError(f"{where}: domains takes a list of values or a mapping of values to names, not {domains!r}.")
    listed = sorted(coded[domain].unique()) if domains is None else list(dict.fromkeys(domains))
    try:
        allowed = pl.Series(domain, listed).cast(coded[domain].dtype)
    except (TypeError, pl.exceptions.PolarsError):
        raise DataError(f"{where}: domains={listed!r} do not fit column {domain!r}, which holds "
                        f"{coded[domain].dtype} values.") from None
    strange = ~coded[domain].is_in(allowed.implode())
    if strange.any():
        row = int(strange.arg_max())
        raise DataError(f"{where}: unknown domain {coded[domain][row]!r} in column {domain!r}, data row {row + 1}; "
                        f"{int(strange.sum())} rows are like that. Known: {', '.join(map(str, allowed))}.")
    if split == "time" and time is None:
        raise DataError(f"{where}: a time split needs the column of times: time='…'.")
    if split == "time":
        no_gaps(table, [time], where)
        if not (table[time].dtype.is_numeric() or table[time].dtype.is_temporal()):
            raise DataError(f"{where}: the time {time!r} is {table[time].dtype}, not numbers or dates, so its order is "
                            f"not known. With polars: pl.col({time!r}).str.to_datetime().")
        part = split_time(table[time].to_physical().to_numpy())
    else:
        part = split_random(len(table), seed)

    # Domain codes follow `allowed`; as a field the domain is never rare, so it skips `min_count`.
    place = {value: i for i, value in enumerate(allowed)}
    domain_code = coded[domain].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    roles = {user: "user", item: "item", domain: "domain"}
    made, matrix = [], np.empty((len(table), len(columns)), np.int32)
    for f, column in enumerate(columns):
        if column == domain:
            matrix[:, f], values = domain_code + 1, allowed.to_numpy()
        else:
            matrix[:, f], values = code(coded[column], part == 0, min_count)
        made.append(Field(column, len(values) + 1, roles.get(column, ""), values))
    user_code = coded[user].rank("dense").to_numpy().astype(np.int64) - 1
    label_array = table[label].cast(pl.Float32).to_numpy()
    names = tuple(map(str, domains.values() if isinstance(domains, Mapping) else allowed))

    def rows_of(p: int) -> Split:
        rows = np.flatnonzero(part == p)
        return Split(matrix[rows], domain_code[rows], label_array[rows], user_code[rows], names)

    notes = {
        "rows": len(table),
        "rows that repeat another, kept": len(table) - table.select(label, *columns, *filter(None, [time])).n_unique(),
        "split": "random 80/10/10" if split == "random" else f"by {time}: first 80 % train, last 10 % test",
        "unknown id 0": f"values seen fewer than {min_count} times in train, or not at all",
        "missing values given the unknown id": {c: n for c in columns if (n := coded[c].null_count())},
    }
    data = MultiDomainData(name, tuple(made), names, rows_of(0), rows_of(1), rows_of(2), notes)
    notes["share of unknown ids"] = {
        s: dict(zip(columns, (getattr(data, s).features == UNKNOWN).mean(0).round(4).tolist(), strict=True))
        for s in SPLITS
    }
    return data
