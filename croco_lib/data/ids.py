"""What may be an id: text, or whole numbers, exactly as they were written."""

from pathlib import Path

import polars as pl

from ..errors import DataError
from .tables import row_at

WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"  # a whole number as it is usually written, within 64 bits
ROUNDED = 20  # different long ids that all end in zeros: by chance one time in 10^20
MEASURED = r"^-?[0-9]*\.[0-9]{4,}$"  # a number that was measured or computed, not a code
# What a spreadsheet or a floating-point column makes of a long number: 1.08775E+14, 1,08775E+14, 1.2000000000000724e+18
SPOILED = r"^-?[0-9]([.,][0-9]+)?[eE]\+[0-9]+$"


def as_ids(values: pl.Series, where: str | Path) -> pl.Series:
    """An id column as text or whole numbers: two ids are one only where they are written alike, so 007 is not 7.

    Floats pass only where they hold whole numbers (ids read as 3.0), and their NaN is a gap. Raises DataError for ids
    that a spreadsheet has spoiled, for fractions, and for values that cannot be ids.
    """
    values = values.fill_nan(None) if values.dtype.is_float() else values
    if values.dtype.is_decimal() and (values != values.floor()).any():
        values = values.cast(pl.Float64)  # so that fractions are refused below
    bits = 11 if values.dtype == pl.Float16 else 24 if values.dtype == pl.Float32 else 53  # of a whole number
    if values.dtype.is_float() and (values.is_finite() & (values.abs() >= 2.0**bits)).any():
        raise DataError(
            f"{where}: column {values.name!r} holds ids of 2^{bits} or more as floating-point numbers, where "
            "neighbours can no longer be told apart. Read it as whole numbers or as text."
        )
    if values.dtype.is_float() and not (values.is_finite() & (values == values.floor())).all():
        raise DataError(
            f"{where}: column {values.name!r} holds fractions or infinities, and a field must be categorical. "
            f"Cut it into classes first, e.g. with polars: pl.col({values.name!r}).qcut(20)."
        )
    if values.dtype == pl.Object:  # Python's own whole numbers beyond 64 bits, or values of several types
        values = pl.Series(values.name, [None if v is None else str(v) for v in values], pl.String)
    whole = pl.UInt64 if values.dtype == pl.UInt64 else pl.Int64
    try:
        if values.dtype.is_nested():  # of a struct polars would make text
            raise pl.exceptions.InvalidOperationError
        ids = values.cast(whole if values.dtype.is_numeric() else pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"{where}: column {values.name!r} holds {values.dtype} values that cannot be ids. "
            "Turn them into text or into whole numbers below 2^63 first."
        ) from None
    if ids.dtype == pl.String and (spoiled := ids.str.contains(SPOILED).fill_null(False)).any():
        row = spoiled.arg_max() or 0
        raise DataError(
            f"{where}: column {values.name!r} holds {ids[row]!r} in {row_at(where, row)}, as a "
            f"spreadsheet writes a long number that it has rounded ({int(spoiled.sum())} of {len(ids)} rows): the ids "
            "behind it are lost. Take the column from where it came from, as text."
        )
    not_rounded(ids, where)
    return ids


def not_rounded(ids: pl.Series, where: str | Path) -> None:
    """Raise DataError where all long ids end in zeros from the sixteenth digit on: a spreadsheet keeps fifteen."""
    if ids.dtype.is_integer() and not (ids.abs() >= 10**15).any():
        return
    long = ids.cast(pl.String).filter(ids.cast(pl.String).str.contains(r"^-?[0-9]{16,}$")).unique()
    if len(long) >= ROUNDED and long.str.contains(r"^-?[0-9]{15}0+$").all():
        raise DataError(
            f"{where}: all {len(long)} ids of 16 digits and more in column {ids.name!r}, such as "
            f"{long[0]}, end in zeros from the sixteenth digit on, as a spreadsheet rounds them: the ids "
            "behind them are lost. Take the column from where it came from, as text."
        )


def usual_numbers(values: pl.Series) -> pl.Series:
    """Text of a CSV as numbers where every value is a whole number in its usual form: the same ids, faster to code.

    Measured numbers (four decimals or more) become floats, which `as_ids` refuses; 2.1 and 2.10 may be two versions.
    """
    if values.dtype != pl.String or values.null_count() == len(values):
        return values
    if values.str.contains(WHOLE).all():
        return values.cast(pl.Int64)
    numbers = values.cast(pl.Float64, strict=False)
    measured = values.str.contains(MEASURED).any() and numbers.null_count() == values.null_count()
    return numbers if measured else values
