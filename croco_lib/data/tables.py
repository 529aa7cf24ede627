"""Reading tables as people have them: CSV in any of its dresses, or Parquet."""

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ..errors import CrocoError, DataError, known

SEPARATORS = ",\t;|"
ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")  # in any case of letters
GAPS = ["", "NULL", "null", r"\N", "NaN", "nan"]  # how MySQL, Hive, pandas and others write that there is no value
BLOCK = 1 << 24  # bytes that are parsed together; a quoted value with line breaks must fit in one
csv.field_size_limit(BLOCK)


def is_table(path: str | Path) -> bool:
    """Whether the name ends as a table's does (see ENDINGS)."""
    return str(path).lower().endswith(ENDINGS)


@contextmanager
def open_bytes(path: Path, file: BinaryIO | None = None) -> Iterator[BinaryIO]:
    """The bytes of a file, or of the open `file`, unpacked where gzip packed them; DataError if it is damaged."""
    with nullcontext(file) if file else path.open("rb") as source:
        packed = source.read(2) == b"\x1f\x8b"
        source.seek(0)
        try:
            yield gzip.open(source) if packed else source  # type: ignore[misc]  # noqa: SIM115
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: packed with gzip, and damaged or cut short ({error}). Fetch it again.") from error


def cp1252_or_refuse(path: Path) -> str:
    """The encoding of a file that is not UTF-8: Windows-1252. Raises DataError where only some of its lines are not."""
    first, others = 0, False
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                others |= not line.decode().isascii()
            except UnicodeDecodeError:
                first = first or number
    if others:
        raise DataError(
            f"{path}: line {first} is not UTF-8, and other lines are. Mend that line, or save the whole file as UTF-8."
        )
    return "cp1252"


def dialect(path: Path, separator: str | None = None) -> tuple[str, str, list[str]]:
    """(encoding, separator, column names) of a CSV file, packed with gzip or not, from its first lines.

    The separator, where it is not given, is the one of SEPARATORS that cuts the first line into most columns.
    Raises DataError for an empty file and for a first line of one column above one of several, as a title is.
    """
    with open_bytes(path) as file:
        head = file.read(1 << 18)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        head.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and error.start < len(head) - 4:  # not a letter that the end of the piece cuts in two
            encoding = cp1252_or_refuse(path)
    if encoding == "utf-8" and b"\0" in head:
        raise DataError(f"{path}: not text (it begins with {head[:6]!r}). Give a CSV, or Parquet in a file so named.")
    text = head.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    lines = [line for line in io.StringIO(text, newline="") if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty. Its first line must name the columns.")
    cut = {s: next(csv.reader(lines, delimiter=s)) for s in SEPARATORS}
    if separator is not None:
        if len(separator) != 1 or separator in '"\r\n':
            raise DataError(f"{path}: a separator is one character, not {separator!r}.")
        return encoding, separator, next(csv.reader(lines, delimiter=separator))
    separator = max(SEPARATORS, key=lambda s: len(cut[s]))
    names = cut[separator]
    if len(names) == 1 and len(lines) > 1:
        below = {s: len(next(csv.reader(lines[1:2], delimiter=s))) for s in SEPARATORS}
        if (columns := max(below.values())) > 2 or below[","] > 1:
            raise DataError(
                f"{path}: the first line, {lines[0].strip()[:60]!r}, is one column, the next "
                f"has {columns}. Remove what stands above the line that names the columns."
            )
    return encoding, separator, names


def parts_of(path: Path) -> tuple[list[Path], bool]:
    """The files of a table, and whether they are CSV: one file, or a folder of Parquet files as Spark leaves it."""
    if path.is_dir() and (parts := sorted(path.glob("*.parquet"))):
        return parts, False
    if not path.is_file():
        folder = "this is a folder, and holds no Parquet files. Join its CSV files, or those of its subfolders, in one"
        raise DataError(f"{path}: {folder if path.is_dir() else 'there is no such file'}.")
    return [path], not path.name.lower().endswith(".parquet")


def line_of(path: Path, row: int) -> int:
    """The line of the file at which data row `row` (from 0) begins; blank lines and quoted line breaks are counted."""
    try:
        encoding, separator, _ = dialect(path)
    except DataError:  # with a separator of the caller's own the header may look like a title
        return row + 2
    with open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
        records, begins, seen = csv.reader(text, delimiter=separator), 1, -2
        for record in records:
            seen += bool(record)  # a blank line is no row
            if seen == row:
                return begins
            begins = records.line_num + 1
    return row + 2


def row_at(where: str | Path, row: int) -> str:
    """Where a data row stands, in words: its number, and its line where `where` is a CSV file."""
    in_csv = isinstance(where, Path) and where.is_file() and not where.name.lower().endswith(".parquet")
    return f"data row {row + 1} (line {line_of(Path(where), row)} of the file)" if in_csv else f"data row {row + 1}"


def read_table(
    path: str | Path,
    integers: Sequence[str] = (),
    numbers: Sequence[str] = (),
    text: Sequence[str] | bool = (),
    separator: str | None = None,
    columns: Sequence[str] = (),
) -> pl.DataFrame:
    """A CSV or Parquet file as a table. Of a CSV, columns in `integers` must hold whole numbers, in `numbers` any.

    Columns named in `text` (true: all) stay as they are written in a CSV, so that 007 is not 7. Where `columns` are
    given, a CSV must have them, and is read for them alone. It may be packed with gzip, separated by comma, tab,
    semicolon or bar (or by `separator`), in UTF-8, UTF-16 or, with a warning, Windows-1252; quoted values may hold line
    breaks. Raises DataError with file, line and column for a missing file, a row cut short or a wrong type.
    """
    path = Path(path)
    parts, is_csv = parts_of(path)
    if not is_csv:
        return _parquet(path, parts)
    encoding, separator, names = dialect(path, separator)
    need(names, columns, path)
    types = dict.fromkeys(names if text is True else text or (), pa.string())
    types |= dict.fromkeys(integers, pa.int64()) | dict.fromkeys(numbers, pa.float64())
    convert = pa_csv.ConvertOptions(column_types=types, null_values=GAPS, strings_can_be_null=True)
    convert.include_columns = list(columns)  # none: all
    parse = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True)

    def read(encoding: str, threads: bool) -> pa.Table:
        read = pa_csv.ReadOptions(encoding=encoding, use_threads=threads, block_size=BLOCK)
        with open_bytes(path) as source:
            return pa_csv.read_csv(source, read, parse, convert)

    try:
        try:
            table = read(encoding, True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise
            table = None
        if encoding != "utf-16" and (table is None or any(pa.types.is_binary(t) for t in table.schema.types)):
            table = read(encoding := cp1252_or_refuse(path), True)  # the first letter that is not UTF-8 stands far down
        if encoding == "cp1252":
            warnings.warn(
                f"{path}: not UTF-8, read as Windows-1252 (cp1252). Save it as UTF-8 if letters look wrong.",
                stacklevel=2,
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeError):
        try:  # once more on one thread: only then does the reader know the row's number
            read(encoding, False)
        except UnicodeError as error:
            raise DataError(f"{path}: not text in {encoding} as it begins ({error}). Save it as UTF-8.") from error
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            what = re.sub(r"Row #(\d+)", lambda m: f"line {line_of(path, int(m[1]) - 2)}", str(error).splitlines()[0])
            raise DataError(f"{path}: {what}.{' Mend or remove this line.' if 'line ' in what else ''}") from error
        raise
    return pl.DataFrame(table)


def _parquet(path: Path, parts: list[Path]) -> pl.DataFrame:
    try:
        return pl.read_parquet(parts, glob=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).") from error


def need(names: Sequence[str], columns: Sequence[str], where: str | Path) -> None:
    """Raise DataError for the first of `columns` that is not among a table's `names`, and for two equal names."""
    for column in columns:
        try:
            known("column", column, names)
        except CrocoError as error:
            raise DataError(f"{where}: {error}") from None
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two columns have the same name. The first line must name each column once.")


def no_gaps(table: pl.DataFrame, columns: Sequence[str], where: str | Path) -> None:
    """Raise DataError for a missing value or NaN in `columns`, with the number of them and the first row."""
    for column in columns:
        values = table[column]
        gaps = values.is_null() | (values.is_nan() if values.dtype.is_float() else False)
        if count := int(gaps.sum()):
            raise DataError(
                f"{where}: column {column!r} has {count} missing values (null or NaN), the first in "
                f"{row_at(where, gaps.arg_max() or 0)}. Fill them in or leave those rows out; in a field they pass "
                "with missing=unknown."
            )
