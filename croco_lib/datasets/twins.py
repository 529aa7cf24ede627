"""Twins: rows that log one showing twice. They are found by 64-bit hashes, in bounded memory.

The hash is written out here, not taken from a library, whose next version may hash otherwise: a preparation that was
interrupted goes on with the parts that are there, and their hashes must still find their twins.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

BUCKET = 50_000_000  # rows among which twins are looked for at a time


def hash_rows(table: pl.DataFrame, columns: list[str], start: np.ndarray) -> np.ndarray:
    """64 bits of `start` and these columns of each row: uint64 [N]. Each step of splitmix64 mixes one column in."""
    mixed = start.copy()
    for column in columns:
        mixed += table[column].to_numpy().view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(odd)
    return mixed


def mark(row: np.ndarray, whole: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of N rows by their hashes, uint64 [N]: which are the first of those equal as a `whole`, which the first of those
    equal in what makes a `row`, and which of the former have another label than their row's first. bool [3, N]."""

    def buckets(values: np.ndarray) -> Iterator[tuple[np.ndarray, pl.Series]]:
        """The rows in pieces of about BUCKET, and their values; equal values stand in one piece, in order."""
        count = 1 + len(values) // BUCKET
        for b in range(count):
            rows = np.flatnonzero(values % np.uint64(count) == b)
            yield rows, pl.Series(values[rows])

    marks = distinct, first, odd = np.empty((3, len(row)), bool)
    for rows, values in buckets(whole):
        distinct[rows] = values.is_first_distinct().to_numpy()
    for rows, values in buckets(row):
        first[rows] = values.is_first_distinct().to_numpy()
        both = pl.DataFrame({"row": values, "label": label[rows]})
        odd[rows] = both.select(pl.col("label") != pl.col("label").first().over("row")).to_series().to_numpy()
    odd &= distinct
    return marks


def notes(read: np.ndarray, distinct: np.ndarray, rows: np.ndarray, odd: np.ndarray) -> dict[str, dict[str, int]]:
    """The notes on twins, from numbers of rows [2], of all tabs and of the five."""
    counts = {
        "exact duplicates dropped": read - distinct,
        "further twins dropped": distinct - rows,
        "further twins of another label": odd,
    }
    return {what: dict(zip(("all tabs", "the five tabs"), n.tolist(), strict=True)) for what, n in counts.items()}
