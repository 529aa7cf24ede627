"""The one way from a value to its id: values seen often enough in train have ids 1 … V, all else has id 0.

Tables in memory, prepared folders and new rows to be scored are all coded here. Values of a vocabulary are whole
numbers (Int64) or text; what is saved is text, and text is what `match` takes.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ..schema import UNKNOWN

MERGE_FROM = 1_000_000  # values in the pieces of a count, below which merging them is not worth its time


@dataclass(frozen=True)
class Vocabulary:
    """The values that have an id, each of them once: `values[i]` has id i + 1, anything else, and a gap, has id 0."""

    values: pl.Series

    @property
    def size(self) -> int:
        """The number of ids, the unknown id 0 among them."""
        return len(self.values) + 1

    def code(self, values: pl.Series) -> np.ndarray:
        """Ids int32 [N] of values [N] of the vocabulary's own type, each exactly as it is."""
        if self.values.dtype == pl.Int64 and not self.values.null_count():
            return self._code_numbers(values)
        ids = pl.DataFrame({"value": self.values, "id": np.arange(1, self.size, dtype=np.int32)})
        joined = values.alias("value").to_frame().join(ids, on="value", how="left", maintain_order="left")
        return joined["id"].fill_null(UNKNOWN).to_numpy()

    def _code_numbers(self, values: pl.Series) -> np.ndarray:
        """`code` of whole numbers: read off a table where they lie close together, else by binary search.

        A join gives the same ids; over the blocks of a large data set it was measured to take more than twice as long.
        """
        keys, numbers = self.values.to_numpy(), values.cast(pl.Int64).fill_null(0).to_numpy()
        if not len(keys):
            return np.full(len(numbers), UNKNOWN, np.int32)
        low, high = keys.min(), keys.max()
        span = int(high) - int(low) + 1
        if span <= 4 * len(keys) + 1024:
            table = np.full(span + 1, UNKNOWN, np.int32)  # its last place stands for all numbers outside the span
            table[keys - low] = np.arange(1, self.size)
            found = table[np.where((numbers >= low) & (numbers <= high), numbers - low, span)]
        else:
            order = np.argsort(keys, kind="stable")
            at = order[np.minimum(np.searchsorted(keys, numbers, sorter=order), len(keys) - 1)]
            found = np.where(keys[at] == numbers, at + 1, UNKNOWN).astype(np.int32)
        if values.null_count():
            found[values.is_null().to_numpy()] = UNKNOWN
        return found

    def match(self, text: pl.Series) -> np.ndarray:
        """Ids int32 [N] of text [N] by a vocabulary of text: as written; else, where one value alone can be meant,
        loosely (see `loose`)."""
        bare = loose(self.values)
        one = bare.is_unique()
        place = np.append(UNKNOWN, one.arg_true().to_numpy() + 1).astype(np.int32)  # id among the unique → id
        exact, again = self.code(text), Vocabulary(bare.filter(one)).code(loose(text))
        return np.where(exact != UNKNOWN, exact, place[again])


def loose(text: pl.Series) -> pl.Series:
    """What is left of an id when the way in which tools write it is taken off: 3.0 → 3, True → true.

    A date is one whether it is written as a day, as CSVs have it, or as its midnight, as Parquet's timestamps are.
    """
    bare = text.str.replace(r"\.0+$", "")
    bare = bare.str.replace(r"^(\d{4}-\d\d-\d\d)T", "$1 ").str.replace(r"^(\d{4}-\d\d-\d\d) 00:00:00$", "$1")
    return pl.select(
        pl.when(bare.str.to_lowercase().is_in(["true", "false"])).then(bare.str.to_lowercase()).otherwise(bare)
    ).to_series()


class Counts:
    """How often each value was met, added piece by piece; pieces are merged whenever they outgrow their sum."""

    def __init__(self) -> None:
        self.pieces: list[pl.DataFrame] = []  # each value once in a piece, n its count

    def add(self, values: pl.Series, times: np.ndarray | None = None) -> "Counts":
        """Count values [N], each once or so many `times` [N]; gaps are not counted."""
        table = pl.DataFrame({"value": values, "n": np.ones(len(values), np.int64) if times is None else times})
        self.pieces.append(table.drop_nulls("value").group_by("value").agg(pl.col("n").sum()))
        if sum(map(len, self.pieces)) > 2 * len(self.pieces[0]) + MERGE_FROM:
            self.pieces = [self._sum()]
        return self

    def _sum(self) -> pl.DataFrame:
        return pl.concat(self.pieces).group_by("value").agg(pl.col("n").sum())

    def keep(self, min_count: int) -> Vocabulary:
        """The values met at least once and at least `min_count` times, in order."""
        return Vocabulary(self._sum().filter(pl.col("n") >= max(1, min_count))["value"].sort())
