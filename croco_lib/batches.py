"""The order in which training reads its rows, and the batches cut from it."""

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import CrocoError
from .schema import Split

BLOCK = 1 << 10  # rows that are read in one piece
BUFFER = 1 << 20  # rows that are held in memory and shuffled together


class Batch(NamedTuple):
    """B rows of one step: `features` int [B, F], `domain` int [B], `label` float [B].

    `counts` [S] is what a domain's sum of losses is divided by for its mean.
    """

    features: Tensor
    domain: Tensor
    label: Tensor
    counts: Tensor

    def share(self, rank: int, processes: int) -> "Batch":
        """The rows of process `rank`. The gradients of the processes are averaged, hence the smaller counts."""
        mine = slice(rank, None, processes)
        return Batch(self.features[mine], self.domain[mine], self.label[mine], self.counts / processes)


def buffer_rows(rows: int, at: int, size: int, seed: int, epoch: int, block: int = BLOCK) -> np.ndarray:
    """Rows `at` … `at + size` of the epoch's shuffle, the same for the same seed and epoch wherever a run resumes.

    A split that fits one buffer is shuffled whole. A larger one is shuffled in blocks: the order of its blocks of
    `block` rows is random, and so is that of the rows within a buffer of many blocks. So reads from a disk stay
    sequential, and no more than two buffers are in memory.
    """
    if rows <= size:
        return np.random.default_rng([seed, epoch]).permutation(rows)
    first = np.random.default_rng([seed, epoch]).permutation(-(-rows // block)) * block  # each block's first row
    length = np.minimum(block, rows - first)  # the last block of the file may be shorter
    end = length.cumsum()
    inside = slice(np.searchsorted(end, at, "right"), np.searchsorted(end, at + size - 1, "right") + 1)
    held = np.concatenate([np.arange(f, f + n) for f, n in zip(first[inside], length[inside], strict=True)])
    skip = at - (end - length)[inside.start]  # rows of the first block that the buffer before has had
    return np.random.default_rng([seed, epoch, at]).permutation(held[skip : skip + size])


def epoch_batches(
    split: Split, batch_size: int, seed: int, epoch: int, start: int, device: torch.device
) -> Iterator[Batch]:
    """The epoch's batches from number `start` on, slices of shuffled buffers."""
    size = batch_size * max(1, BUFFER // batch_size)  # whole batches, so that none spans two buffers
    for at in range(start * batch_size // size * size, len(split), size):
        rows = buffer_rows(len(split), at, size, seed, epoch)
        features, domain, label = (
            torch.from_numpy(np.asarray(column[rows])).to(device)
            for column in (split.features, split.domain, split.label)
        )
        for low in range(max(0, start * batch_size - at), len(rows), batch_size):
            part = slice(low, low + batch_size)
            here = domain[part].long()
            yield Batch(features[part], here, label[part].float(), here.bincount())


def steps_per_epoch(rows: int, batch_size: int, processes: int) -> int:
    """The batches of an epoch. A last one that cannot give every process a row is left out.

    Raises CrocoError where no batch can.
    """
    if min(batch_size, rows) < processes:
        raise CrocoError(
            f"fit: {rows} rows in batches of {batch_size} do not give each of {processes} processes a row."
        )
    whole, rest = divmod(rows, batch_size)
    return whole + (rest >= processes)


def feed(split: Split, batch_size: int, seed: int, step: int, steps: int, device: torch.device) -> Iterator[Batch]:
    """Batches from step number `step` on, epoch after epoch of `steps` each, without an end."""
    first, start = divmod(step, steps)
    for epoch in count(first):
        yield from islice(epoch_batches(split, batch_size, seed, epoch, start, device), steps - start)
        start = 0
