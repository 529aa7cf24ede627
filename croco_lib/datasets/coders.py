"""How each field of a raw data set is counted and coded, block by block.

A field stands in the rows themselves (`RowField`), or in a table whose key stands in the rows (`TableField`); a
multi-valued one (`bags`) in either. Each is a `Coder`. Ids are int32 [rows of the block].
"""

from typing import NamedTuple, Protocol

import numpy as np
import polars as pl

from ..data.ids import as_ids
from ..data.vocabulary import Counts, Vocabulary


class Block(NamedTuple):
    """Some rows of the raw set: their `frame`, their `split` (0, 1 or 2) int8 [n], and for each table the place of
    their key in it, from 1 on, int32 [n] (0: no such key)."""

    frame: pl.DataFrame
    split: np.ndarray
    at: dict[str, np.ndarray]


class Table:
    """A table whose first column is its sorted key. `seen` int64 [2, rows + 1] counts the rows of train, and all rows,
    by their key's place; place 0 stands for keys that the table lacks. `where` begins the words of an error."""

    def __init__(self, frame: pl.DataFrame, where: str):
        self.frame, self.key, self.where = frame, frame.columns[0], where
        self.keys = Vocabulary(frame[self.key])
        self.seen = np.zeros((2, self.keys.size), np.int64)

    def count(self, block: Block) -> None:
        place = block.at[self.key]
        for seen, rows in zip(self.seen, (place[block.split == 0], place), strict=True):
            seen += np.bincount(rows, minlength=self.keys.size)

    def gaps(self, column: str) -> int:
        """How many rows find nothing in this column."""
        return int(self.seen[1, 0] + self.seen[1, 1:][self.frame[column].is_null().to_numpy()].sum())


class Coder(Protocol):
    """What counts and codes one field, its methods called in this order. `gaps` is how many rows have no value."""

    vocabulary: Vocabulary
    gaps: int

    def count(self, block: Block) -> None:
        """For every block: count its values of train, and its gaps."""

    def keep(self, min_count: int) -> None:
        """Once, after all blocks: set `vocabulary` from what was counted, and `gaps` if `count` has not."""

    def code(self, block: Block) -> np.ndarray:
        """For every block again: its ids, or the numbers of its bags."""

    def close(self) -> None:
        """Once, at the end: close what coding has written."""


class RowField:
    """A field that stands in the rows as a whole number. `every`: all rows are counted, not only those of train."""

    def __init__(self, name: str, every: bool = False, fixed: list[int] | None = None):
        self.name, self.every, self.fixed = name, every, fixed
        self.counts, self.gaps = Counts(), 0

    def count(self, block: Block) -> None:
        values = block.frame[self.name]
        if self.fixed is None:
            self.counts.add(values if self.every else values.filter(pl.Series(block.split == 0)))
        self.gaps += values.null_count()

    def keep(self, min_count: int) -> None:
        """Set the vocabulary: the `fixed` values where they are given, else those met `min_count` times."""
        self.vocabulary = self.counts.keep(min_count) if self.fixed is None else Vocabulary(pl.Series(self.fixed))

    def code(self, block: Block) -> np.ndarray:
        return self.vocabulary.code(block.frame[self.name])

    def close(self) -> None:
        """Nothing: the field writes no file of its own."""


class TableField:
    """A field of a table. It is counted by the table's rows: once a key, not once a row."""

    def __init__(self, name: str, table: Table, every: bool = False):
        self.name, self.table, self.every = name, table, every

    def count(self, block: Block) -> None:
        """Nothing: `Table.count` does it for all fields of the table."""

    def keep(self, min_count: int) -> None:
        values = as_ids(self.table.frame[self.name], self.table.where)
        self.vocabulary = Counts().add(values, self.table.seen[int(self.every), 1:]).keep(min_count)
        self.ids = np.append(np.int32(0), self.vocabulary.code(values))  # by the key's place
        self.gaps = self.table.gaps(self.name)

    def code(self, block: Block) -> np.ndarray:
        return self.ids[block.at[self.table.key]]

    def close(self) -> None:
        """Nothing: the field writes no file of its own."""
