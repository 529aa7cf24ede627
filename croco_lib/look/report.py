"""A first look at a table of clicks, before any model: what its columns are, and what is wrong with it. [ours]"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from tqdm.auto import tqdm

from ..data.ids import SPOILED
from ..data.tables import BLOCK, GAPS, cp1252_or_refuse, dialect, need, open_bytes, parts_of
from ..errors import DataError, known
from .advice import next_command, warnings_of
from .suspects import above_zero, alone, giant, near_twins

SAMPLE = 200_000  # rows on which leaks and users are looked at
COUNTED = 200  # different values up to which each is counted
DISTINCT = 1_000_000  # … and up to which their number is known
ROLES = {  # patterns of what a column of this role is usually called, the surest first
    "label": r"^is_click(ed)?$ ^click(ed|s)?$ ^label$ ^y$ ^target$ click",
    "domain": r"domain scenario scene ^tab$ place channel surface site market country",
    "user": r"user_?id ^uid$ user member customer visitor account client",
    "item": r"(item|video|product|article|movie|content)_?id ^iid$ ^sku$ item video product article movie sku goods "
    r"content ^ad(_?id)?$ listing song track",
    "time": r"timestamp ^ts$ (^|_)time (^|_)date time",
}
LABELS = {"0", "1", "true", "false", "0.0", "1.0"}


@dataclass
class Column:
    """What is counted of one column while the file is read piece by piece."""

    gaps: int = 0
    whole: int = 0  # values that are whole numbers in their usual form
    numbers: int = 0
    leading_zeros: int = 0
    scientific: int = 0
    counts: dict[str, int] | None = field(default_factory=dict)  # None: more than COUNTED
    values: pl.Series | None = field(default_factory=lambda: pl.Series([], dtype=pl.String))  # None: more than DISTINCT

    def add(self, text: pl.Series) -> None:
        """Take in the values of one more piece of the table."""
        self.gaps += text.null_count()
        text = text.drop_nulls()
        self.whole += int(text.str.contains(r"^-?[0-9]+(\.0+)?$").sum())  # also hashes of 64 bits, and ids read as 3.0
        points = text.str.replace(r"^(-?[0-9]+),([0-9]+)$", "$1.$2")  # a comma for the decimal point
        self.numbers += len(text) - points.cast(pl.Float64, strict=False).null_count()
        self.leading_zeros += int(text.str.contains(r"^0\d+$").sum())
        self.scientific += int(text.str.contains(SPOILED).sum())
        if self.counts is not None:
            for value, count in text.rename("").value_counts(name="n").iter_rows():  # the column may itself be "n"
                self.counts[value] = self.counts.get(value, 0) + count
            self.counts = self.counts if len(self.counts) <= COUNTED else None
        if self.values is not None:
            self.values = pl.concat([self.values, text.rename("")]).unique()
            self.values = self.values if len(self.values) <= DISTINCT else None

    def kind(self, rows: int) -> str:
        """What the column holds, in words: empty, 0 or 1, whole numbers, numbers or text."""
        if (filled := rows - self.gaps) == 0:
            return "empty"
        if self.counts is not None and {v.lower() for v in self.counts} <= LABELS:
            return "0 or 1"
        if self.leading_zeros:
            return "text"
        return "whole numbers" if self.whole == filled else "numbers" if self.numbers == filled else "text"


class NotUtf8(DataError):
    """A letter that is not UTF-8 stands further down than `dialect` reads."""


def has_text(column: pl.Series) -> bool:
    """Whether its values can be written as text; of a struct polars would make some."""
    try:
        column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return False
    return not column.dtype.is_nested()


def text_batches(path: Path, progress: bool, known_encoding: str = "") -> Iterator[pl.DataFrame]:
    """The table in pieces, every value as text, without columns that have none (lists, durations). Raises DataError."""
    parts, is_csv = parts_of(path)
    plain: list[str] = []  # the columns of the first part: others may order them otherwise
    bar = tqdm(
        total=sum(p.stat().st_size for p in parts), desc=path.name, unit="B", unit_scale=True, disable=not progress
    )
    try:
        for part in parts:
            if is_csv:
                encoding, separator, names = dialect(part)
                need(names, (), path)
                with part.open("rb") as raw, open_bytes(part, raw) as source:
                    reader = pa_csv.open_csv(
                        source,
                        pa_csv.ReadOptions(encoding=known_encoding or encoding, block_size=BLOCK),
                        pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                        pa_csv.ConvertOptions(
                            column_types=dict.fromkeys(names, pa.string()), null_values=GAPS, strings_can_be_null=True
                        ),
                    )
                    for batch in reader:
                        yield pl.DataFrame(pa.table(batch)).cast(pl.String)  # a column of gaps alone has no type
                        bar.update(raw.tell() - bar.n)
            else:
                for batch in pa_parquet.ParquetFile(part).iter_batches(1 << 16):
                    frame = pl.DataFrame(pa.table(batch)).with_columns(cs.float().fill_nan(None))
                    plain = plain or [c.name for c in frame if has_text(c)]
                    yield frame.select(pl.col(plain).cast(pl.String))
                bar.update(part.stat().st_size)
    except UnicodeError as error:
        raise DataError(f"{path}: not text in the encoding that it begins with ({error}). Save it as UTF-8.") from error
    except (pa.ArrowInvalid, pl.exceptions.PolarsError) as error:
        if is_csv and "UTF8" in str(error):
            raise NotUtf8 from error
        raise DataError(
            f"{path}: {str(error).splitlines()[0].rstrip('.')}. "
            + ("`croco fit` says at which line." if is_csv else "Is it Parquet, and whole? Write it again.")
        ) from error
    finally:
        bar.close()


def called(role: str, columns: Iterable[str]) -> list[str]:
    """The columns whose names say that they play this role, whatever they hold, the surest first."""
    names = [n for pattern in ROLES[role].split() for n in columns if re.search(pattern, n.lower())]
    return list(dict.fromkeys(names))


def guess(columns: dict[str, Column], rows: int, given: dict[str, str]) -> dict[str, str]:
    """Which column is the label, the domain, the user, the item and the time, by kind and name; `given` ones stand."""
    found = {known("role", role, ROLES): known("column", name, columns) for role, name in given.items()}

    def suits(role: str, c: Column) -> bool:
        count = len(c.counts) if c.counts is not None else None
        if role == "label":
            return c.kind(rows) == "0 or 1" and count == 2
        if role == "domain":
            return count is not None and 2 <= count <= 50
        return c.gaps < rows and (role == "time" or count is None or count > 2)

    for role in ROLES:
        free = [n for n, c in columns.items() if n not in found.values() and suits(role, c)]
        named = called(role, free)
        # A flag of 0 and 1 is not the label where another column bears its name: that one holds yes and no, say.
        only = role == "label" and len(free) == 1 and not called(role, columns)
        if role not in found and (named or only):
            found[role] = (named or free)[0]
    return found


def thinned(frames: Iterator[pl.DataFrame], columns: dict[str, Column], hashes: list) -> tuple[int, pl.DataFrame]:
    """Read all pieces into `columns` and `hashes`; the number of rows, and a random sample of SAMPLE rows at most."""
    rng, share, sample, rows = np.random.default_rng(0), 1.0, [], 0
    for frame in frames:
        rows += len(frame)
        for name in frame.columns:
            columns.setdefault(name, Column()).add(frame[name])
        hashes.append(frame.hash_rows(seed=0).to_numpy())
        sample.append(frame.filter(pl.Series(rng.random(len(frame)) < share)))
        while sum(map(len, sample)) > SAMPLE:
            share, sample = share / 2, [f.filter(pl.Series(rng.random(len(f)) < 0.5)) for f in sample]
    return rows, pl.concat(sample) if sample else pl.DataFrame()


def first_look(path: str | Path, progress: bool = False, **given: str) -> dict:
    """What a CSV or Parquet file holds, read once in bounded memory (8 bytes a row, and the different ids).

    `given` names the columns of roles (label, domain, user, item, time) that the guess would miss. Returns one plain
    dict: file, rows, repeated rows, columns (kind, gaps, distinct, …), roles, near twins, a giant user, what each
    column tells alone and where it is above 0, domains, users, warnings, and the `croco fit` line to go on with. Raises
    DataError for a file that cannot be read.
    """
    path = Path(path)
    columns: dict[str, Column] = {}
    hashes: list[np.ndarray] = []
    encoding = ""
    try:
        rows, sample = thinned(text_batches(path, progress), columns, hashes)
    except NotUtf8:
        columns, hashes, encoding = {}, [], cp1252_or_refuse(path)
        rows, sample = thinned(text_batches(path, progress, encoding), columns, hashes)
    if not rows:
        raise DataError(f"{path}: the table has no rows.")
    repeated = rows - pl.Series(np.concatenate(hashes)).n_unique()
    roles = guess(columns, rows, given)
    about = dict(
        file=str(path),
        rows=rows,
        repeated_rows=repeated,
        rows_sampled=len(sample),
        columns={
            name: dict(
                kind=c.kind(rows),
                gaps=c.gaps,
                distinct=None if c.values is None else len(c.values),
                leading_zeros=c.leading_zeros,
                scientific=c.scientific,
            )
            for name, c in columns.items()
        },
        roles=roles,
        named_label=[] if "label" in roles else called("label", columns),
    )
    if parts_of(path)[1]:
        found, about["separator"], _ = dialect(parts_of(path)[0][0])
        about["encoding"] = encoding or found
    about["near_twins"] = near_twins(sample, roles)
    about["giant"] = giant(sample[roles["user"]]) if "user" in roles else {}
    binary = "label" in roles and columns[roles["label"]].kind(rows) == "0 or 1"
    about |= _with_label(sample, columns, roles, rows) if binary else {}
    about["warnings"] = list(warnings_of(about))
    about["next"] = next_command(about)
    return about


def _with_label(sample: pl.DataFrame, columns: dict[str, Column], roles: dict[str, str], rows: int) -> dict:
    """What the label makes known: what each column tells alone, rows and clicks by domain, users with both labels."""
    sample = sample.filter(sample[roles["label"]].is_not_null())
    label = sample[roles["label"]].str.to_lowercase().is_in(["1", "true", "1.0"]).to_numpy().astype(float)
    made: dict[str, Any] = dict(click_rate=round(float(label.mean()), 4))
    if 0 < label.mean() < 1:
        made["alone"] = {c: round(alone(sample[c], label), 3) for c in sample.columns if c != roles["label"]}
        made["above_zero"] = {c: round(above_zero(sample[c], label), 3) for c in made["alone"]}
    scale = rows / max(len(sample), 1)
    if "domain" in roles:
        # Under names of our own: the column may itself be called y, or n.
        of_domain = pl.DataFrame({"domain": sample[roles["domain"]], "y": label}).group_by("domain")
        by = of_domain.agg(clicks=pl.col("y").sum(), n=pl.len())
        rare = {d: min(c, n - c) * scale / 10 for d, c, n in by.iter_rows()}
        counts = columns[roles["domain"]].counts or {}
        made["domains"] = {
            d: dict(rows=n, rarer_label_in_test=round(rare.get(d, 0)))
            for d, n in sorted(counts.items(), key=lambda dn: -dn[1])
        }
    if "user" in roles:
        of_user = pl.DataFrame({"user": sample[roles["user"]], "y": label}).group_by("user")
        two = of_user.agg(pl.col("y").n_unique() == 2)
        made["users_with_both_labels"] = int(two["y"].sum())
    return made
