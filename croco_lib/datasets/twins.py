"""Twins: rows that log one showing twice. They are found by 64-bit hashes, in bounded memory.

The hash is written out here, not taken from a library, whose next version may hash otherwise: a preparation that was
interrupted goes on with the parts that are there, and their hashes must still find their twins.
"""

from pathlib import Path

import numpy as np
import polars as pl

BUCKET = 1 << 23  # rows among which twins are looked for at a time
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


def first_of_twins(parts: list[Path], here: pl.Expr, label: pl.Expr) -> tuple[np.ndarray, np.ndarray]:
    """Which of the parts' N rows are `here` and the first of their twins, bool [N]; and what `notes` tells of them.

    The latter are numbers of rows [4, 2], everywhere and `here`: all; those equal to an earlier one as a `whole`; those
    equal to an earlier one in what makes a `row`; and those equal in that alone, with another label than the first. The
    parts hold hashes of both. Twins fall into one bucket, and every bucket is read from the parts anew, so that the
    hashes are never whole in memory.
    """
    log = pl.scan_parquet(parts, row_index_name="at", glob=False).select("at", "row", "whole", here=here, label=label)
    keep = np.zeros(log.select(pl.len()).collect().item(), bool)
    buckets = 1 + len(keep) // BUCKET
    counts = np.zeros((4, 2), int)
    for b in range(buckets):
        rows = log.filter(pl.col("row") % pl.lit(buckets, pl.UInt64) == b).collect()
        first = rows["row"].is_first_distinct()
        keep[rows.filter(first & rows["here"])["at"].to_numpy()] = True
        # Rows equal as a whole are equal in what makes a row, so the rest is told by the few that have a twin.
        twins = rows.filter(rows["row"].is_in(rows.filter(~first)["row"].unique().implode()))
        repeated = twins.filter(~pl.col("whole").is_first_distinct())
        odd = twins.filter(
            pl.col("whole").is_first_distinct() & (pl.col("label") != pl.col("label").first().over("row"))
        )
        counts += [(len(group), group["here"].sum()) for group in (rows, repeated, rows.filter(~first), odd)]
    return keep, counts


def notes(counts: np.ndarray) -> dict[str, dict[str, int]]:
    """The notes on twins, from the numbers that `first_of_twins` gives, of all tabs and of the five."""
    _, whole, row, odd = counts
    told = {
        "exact duplicates dropped": whole,
        "further twins dropped": row - whole,
        "further twins of another label": odd,
    }
    return {what: dict(zip(("all tabs", "the five tabs"), n.tolist(), strict=True)) for what, n in told.items()}
