"""Twins: rows that log one showing twice. They are found by 64-bit hashes, in bounded memory.

The hash is written out here, not taken from a library, whose next version may hash otherwise: a preparation that was
interrupted goes on with the parts that are there, and their hashes must still find their twins.
"""

import numpy as np
import polars as pl

BUCKET = 50_000_000  # rows among which twins are looked for at a time
BLOCK = 1 << 14  # rows hashed at a time: what is in work then stays in the processor's cache


def hash_rows(table: pl.DataFrame, columns: list[str], start: np.ndarray) -> np.ndarray:
    """64 bits of `start` and these columns of each row: uint64 [N]. Each step of splitmix64 mixes one column in."""
    values = [table[column].to_numpy().view(np.uint64) for column in columns]
    mixed, shifted = start.copy(), np.empty(BLOCK, np.uint64)
    for first in range(0, len(mixed), BLOCK):
        block = mixed[first : first + BLOCK]
        for column in values:
            block += column[first : first + BLOCK]
            block += np.uint64(0x9E3779B97F4A7C15)
            for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                block ^= np.right_shift(block, np.uint64(shift), out=shifted[: len(block)])
                block *= np.uint64(odd)
    return mixed


def mark(row: np.ndarray, whole: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of N rows by their hashes, uint64 [N]: which are the first of those equal as a `whole`, which the first of those
    equal in what makes a `row`, and which of the former have another label than their row's first. bool [3, N]."""
    distinct, first, odd = marks = np.ones((3, len(row)), bool)
    odd[:] = False
    count = 1 + len(row) // BUCKET
    for b in range(count):
        rows = np.flatnonzero(row % np.uint64(count) == b) if count > 1 else np.arange(len(row))
        values = pl.Series(row[rows])
        first[rows] = values.is_first_distinct().to_numpy()
        # Rows equal as a whole are equal in what makes a row, so the rest is told by the few that have a twin.
        rows = rows[values.is_in(values.filter(pl.Series(~first[rows])).unique().implode()).to_numpy()]
        twins = pl.DataFrame({"row": row[rows], "whole": whole[rows], "label": label[rows]})
        distinct[rows] = twins["whole"].is_first_distinct().to_numpy()
        other = twins.select(pl.col("label") != pl.col("label").first().over("row")).to_series().to_numpy()
        odd[rows] = other & distinct[rows]
    return marks


def notes(read: np.ndarray, distinct: np.ndarray, rows: np.ndarray, odd: np.ndarray) -> dict[str, dict[str, int]]:
    """The notes on twins, from numbers of rows [2], of all tabs and of the five."""
    counts = {
        "exact duplicates dropped": read - distinct,
        "further twins dropped": distinct - rows,
        "further twins of another label": odd,
    }
    return {what: dict(zip(("all tabs", "the five tabs"), n.tolist(), strict=True)) for what, n in counts.items()}
