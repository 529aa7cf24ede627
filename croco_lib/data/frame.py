"""From any table of clicks to MultiDomainData: check it, split it, code its ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from ..errors import CrocoError, DataError, known
from ..schema import SPLITS, UNKNOWN, Field, MultiDomainData, Split
from .ids import as_ids, usual_numbers
from .splits import split_random, split_time
from .tables import need, no_gaps, read_table, row_at
from .vocabulary import Counts, Vocabulary


def as_table(frame: object, where: str | Path, ids: list[str], separator: str | None) -> pl.DataFrame:
    """A pandas or polars table, or the file at the path `frame`, as polars. Of a CSV the columns `ids` stay as written.

    Raises DataError for what is no table.
    """
    if isinstance(frame, (str, Path)):
        table = read_table(frame, text=ids, separator=separator)
        return table.with_columns(usual_numbers(table[c]) for c in ids if c in table.columns)
    try:
        given = pl.from_pandas(plain_columns(frame), nan_to_null=False) if isinstance(frame, pd.DataFrame) else frame
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{where}: not a plain table ({str(error).splitlines()[0]}). "
            "Give every column its own name and values of one type."
        ) from error
    if not isinstance(given, pl.DataFrame):
        raise DataError(f"{where}: give a pandas or polars table or a file's path, not {type(frame).__name__}.")
    return given


def plain_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its columns of Python objects as polars takes them: gaps as None, and whole numbers beyond 64
    bits as text."""
    objects = [c for c in frame if isinstance(frame[c], pd.Series) and frame[c].dtype == object]
    # pandas' gap in a column of text is a NaN among the strings.
    frame = frame.assign(**{c: frame[c].astype(object).where(frame[c].notna(), None) for c in objects})
    wide = [
        c
        for c in objects
        if pd.api.types.infer_dtype(frame[c], skipna=True) == "integer" and frame[c].dropna().abs().max() >= 2**63
    ]
    return frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in wide})


def check_options(split: str, min_count: int, seed: int, where: str | Path, missing: str = "error") -> None:
    """Raise CrocoError for an option of `from_frame` that is none of its values."""
    known("split", split, ("random", "time"))
    known("rule for missing values", missing, ("error", "unknown"))
    for option, value in (("min_count", min_count), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise CrocoError(f"{where}: {option} must be a whole number of 0 or more, not {value!r}.")


def check_columns(
    table: pl.DataFrame, label: str, roles: Sequence[str], fields: Sequence[str], time: str | None, where: str | Path
) -> None:
    """Raise DataError where a column is not there, one stands for two of user, item and domain, or there is no row."""
    need(table.columns, [label, *roles, *fields, *([time] if time else [])], where)
    if label in (*roles, *fields):
        raise DataError(f"{where}: column {label!r} is the label, so it cannot also be a field.")
    if len(set(roles)) < len(roles):
        raise DataError(f"{where}: user, item and domain must be three different columns.")
    if not len(table):
        raise DataError(f"{where}: the table has no rows.")


def check_label(label: pl.Series, where: str | Path) -> np.ndarray:
    """The label as float32 [N]. Raises DataError, with the first row, where it is not 0 or 1."""
    if not (label.dtype.is_numeric() or label.dtype == pl.Boolean):
        held = ", ".join(list(dict.fromkeys(map(str, label.drop_nulls().head(1_000))))[:5])
        raise DataError(f"{where}: the label {label.name!r} is {label.dtype} ({held}), not the numbers 0 and 1.")
    number = label.cast(pl.Float64)
    if (bad := (number != 0) & (number != 1)).any():
        row = bad.arg_max() or 0
        raise DataError(
            f"{where}: the label {label.name!r} must be 0 or 1, but {row_at(where, row)} has "
            f"{label[row]!r}; {int(bad.sum())} rows are like that."
        )
    return label.cast(pl.Float32).to_numpy()


def code_domains(
    ids: pl.Series, domains: Sequence | Mapping | None, where: str | Path
) -> tuple[np.ndarray, pl.Series, tuple[str, ...]]:
    """The domain's ids, in the order of `domains`: int32 [N] from 1 on, the S values behind them and their S names.

    Raises DataError for `domains` that are no list or mapping or do not fit the column, and for a row of another
    domain.
    """
    if domains is not None and (isinstance(domains, str) or not isinstance(domains, (Sequence, Mapping, np.ndarray))):
        raise DataError(f"{where}: domains takes a list of values or a mapping of values to names, not {domains!r}.")
    listed = sorted(ids.unique()) if domains is None else list(dict.fromkeys(domains))
    try:
        allowed = as_ids(pl.Series(ids.name, listed), where).cast(ids.dtype)
    except (TypeError, pl.exceptions.PolarsError):
        raise DataError(
            f"{where}: domains={listed!r} do not fit column {ids.name!r}, which holds {ids.dtype} values."
        ) from None
    if (strange := (coded := Vocabulary(allowed).code(ids)) == UNKNOWN).any():
        row = int(strange.argmax())
        raise DataError(
            f"{where}: unknown domain {ids[row]!r} in column {ids.name!r}, data row {row + 1}; "
            f"{int(strange.sum())} rows are like that. Known: {', '.join(map(str, allowed))}."
        )
    return coded, allowed, tuple(map(str, domains.values() if isinstance(domains, Mapping) else allowed))


def choose_split(table: pl.DataFrame, split: str, time: str | None, seed: int, where: str | Path) -> np.ndarray:
    """0 (train), 1 (valid) or 2 (test) for each row, int8 [N]. Raises DataError where times cannot be put in order."""
    if (split == "time") != (time is not None):
        raise DataError(f"{where}: split='time' and time='…', the column of times, go together; give both or neither.")
    if time is None:
        return split_random(len(table), seed)
    no_gaps(table, [time], where)
    if table[time].dtype in (pl.Time, pl.Duration):
        raise DataError(f"{where}: the time {time!r} is a time of day, without its date. Join the two in one column.")
    if not (table[time].dtype.is_numeric() or table[time].dtype.is_temporal()):
        raise DataError(
            f"{where}: the time {time!r} is {table[time].dtype}, not numbers or dates, so its order is "
            f"not known. With polars: pl.col({time!r}).str.to_datetime()."
        )
    return split_time(table[time].rank("dense").to_numpy())


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
    there that is known only after the click. `domains` lists those that are allowed, or maps them to names.
    `split`: "random" (80/10/10, by `seed`) or "time" (by the column `time`: the latest 10 % are the test).
    A value seen fewer than `min_count` times in train, or only after it, gets the unknown id 0.
    `missing`: "error", or "unknown" to give gaps in `fields` the unknown id; they are counted in `notes`.
    `separator` of a CSV where it is not found by itself.

    Raises DataError where the table cannot be used, saying which column and row.
    """
    where = Path(frame) if isinstance(frame, (str, Path)) else name
    if isinstance(fields, str):
        raise DataError(f"{where}: fields takes a list of columns: fields=[{fields!r}].")
    columns = list(dict.fromkeys([user, item, domain, *fields]))
    table = as_table(frame, where, columns, separator)
    check_options(split, min_count, seed, where, missing)
    check_columns(table, label, (user, item, domain), fields, time, where)
    no_gaps(table, [label, user, item, domain, *(columns if missing == "error" else [])], where)
    clicked = check_label(table[label], where)
    ids = {c: as_ids(table[c], where) for c in columns}
    coded_domain, allowed, names = code_domains(ids[domain], domains, where)
    part = choose_split(table, split, time, seed, where)

    train = pl.Series(part == 0)
    vocabularies = {c: Counts().add(ids[c].filter(train)).keep(min_count) for c in columns if c != domain}
    vocabularies[domain] = Vocabulary(allowed)  # as a field the domain is never rare, so it skips `min_count`
    features = np.column_stack([coded_domain if c == domain else vocabularies[c].code(ids[c]) for c in columns])
    roles = {user: "user", item: "item", domain: "domain"}
    made = [Field(c, vocabularies[c].size, roles.get(c, ""), vocabularies[c].values.to_numpy()) for c in columns]
    person = ids[user].rank("dense").to_numpy().astype(np.int64) - 1
    rows = [np.flatnonzero(part == p) for p in range(len(SPLITS))]
    splits = [Split(features[r], coded_domain[r].astype(np.int64) - 1, clicked[r], person[r], names) for r in rows]
    repeated = len(table) - table.with_columns(*ids.values()).select({label, *columns, time} - {None}).n_unique()
    notes = {
        "rows": len(table),
        "rows that repeat another in the columns read, kept": repeated,
        "split": "random 80/10/10" if split == "random" else f"by {time}: first 80 % train, last 10 % test",
        "unknown id 0": f"values seen fewer than {min_count} times in train, or not at all",
        "missing values given the unknown id": {c: n for c in columns if (n := ids[c].null_count())},
        "share of unknown ids": {s: unknown_shares(p, columns) for s, p in zip(SPLITS, splits, strict=True)},
    }
    return MultiDomainData(name, tuple(made), names, splits[0], splits[1], splits[2], notes)


def unknown_shares(split: Split, columns: list[str]) -> dict[str, float]:
    """The share of rows that have the unknown id, by field. A split without rows is refused later, so here it has 0."""
    unknown = (split.features == UNKNOWN).sum(0) / max(1, len(split))
    return dict(zip(columns, unknown.round(4).tolist(), strict=True))
