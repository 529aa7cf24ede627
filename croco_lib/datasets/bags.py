"""Multi-valued fields of a prepared set: every value with its weight, in bags (see `schema.Bag`)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from ..data.vocabulary import Counts, Vocabulary
from .coders import Block, Table
from .store import BAG_DTYPES, create

Lists = Callable[[], Iterator[tuple[np.ndarray, pl.DataFrame]]]  # a table's rows, and their lists of ids and weights


class BagWriter:
    """The three files of a field, written as a stream. Bag 0 is the missing field: the unknown id with weight 1."""

    def __init__(self, folder: Path, name: str, vocabulary: Vocabulary, bags: int, entries: int):
        self.name, self.vocabulary, self.end = name, vocabulary, 1
        shapes = {"offsets": (bags + 2,), "ids": (entries + 1,), "weights": (entries + 1,)}
        self.files = [create(folder / f"bag.{name}.{n}.npy", t, shapes[n]) for n, t in BAG_DTYPES.items()]
        self._write(np.array([0, 1]), np.zeros(1), np.ones(1))

    def append(self, frame: pl.DataFrame) -> None:
        """Append the rows' bags; a row without the field has none."""
        frame = frame.filter(pl.col(self.name).is_not_null())
        ends = self.end + frame[self.name].list.len().to_numpy().astype(np.int64).cumsum()
        self.end = int(ends[-1]) if len(ends) else self.end
        self._write(
            ends, self.vocabulary.code(frame[self.name].explode()), frame[f"{self.name}.weight"].explode().to_numpy()
        )

    def _write(self, *arrays: np.ndarray) -> None:
        for file, array, dtype in zip(self.files, arrays, BAG_DTYPES.values(), strict=True):
            file.write(array.astype(dtype).tobytes())

    def close(self) -> None:
        for file in self.files:
            file.close()


class RowBags:
    """A multi-valued field that stands in the rows: each row that has it is a bag, in the rows' order."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.counts, self.rows, self.gaps, self.entries, self.bags = Counts(), 0, 0, 0, 0

    def count(self, block: Block) -> None:
        lists = block.frame[self.name]
        self.counts.add(lists.filter(pl.Series(block.split == 0)).explode())
        self.rows += len(lists)
        self.gaps += lists.null_count()
        self.entries += int(lists.list.len().sum() or 0)

    def keep(self, min_count: int) -> None:
        self.vocabulary = self.counts.keep(min_count)
        self.writer = BagWriter(self.folder, self.name, self.vocabulary, self.rows - self.gaps, self.entries)

    def code(self, block: Block) -> np.ndarray:
        """The numbers of the rows' bags, which are written on the way; 0 for a row without the field."""
        there = block.frame[self.name].is_not_null().to_numpy()
        number = np.where(there, self.bags + there.cumsum(), 0).astype(np.int32)
        self.bags += int(there.sum())
        self.writer.append(block.frame)
        return number

    def close(self) -> None:
        self.writer.close()


class TableBags:
    """A multi-valued field of a table, whose column there numbers the bags; `lists` streams the bags themselves."""

    def __init__(self, name: str, table: Table, lists: Lists, folder: Path):
        self.name, self.table, self.lists, self.folder = name, table, lists, folder

    def count(self, block: Block) -> None:
        """Nothing: `Table.count` does it for all fields of the table."""

    def keep(self, min_count: int) -> None:
        """Count the lists, each as often as its row is met in train, then write them."""
        counts, bags, entries = Counts(), 0, 0
        met = np.zeros(len(self.table.frame), bool)
        for place, frame in self.lists():
            length = frame[self.name].list.len().fill_null(0).to_numpy()
            # Of lines that repeat a key the table has the first alone, so the others' values are not met.
            again = met[place] | ~pl.Series(place).is_first_distinct().to_numpy()
            met[place] = True
            times_met = np.where(again, 0, self.table.seen[0, 1:][place])
            counts.add(frame[self.name].explode().drop_nulls(), np.repeat(times_met, length))
            bags, entries = bags + int((length > 0).sum()), entries + int(length.sum())
        self.vocabulary = counts.keep(min_count)
        self.numbers = np.append(0, self.table.frame[self.name].fill_null(0).to_numpy()).astype(np.int32)
        self.gaps = self.table.gaps(self.name)
        self.writer = BagWriter(self.folder, self.name, self.vocabulary, bags, entries)
        for _, frame in self.lists():
            self.writer.append(frame)

    def code(self, block: Block) -> np.ndarray:
        return self.numbers[block.at[self.table.key]]

    def close(self) -> None:
        self.writer.close()
