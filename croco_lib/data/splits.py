"""Which rows are for training, validation and test."""

import numpy as np

FRACTIONS = (0.8, 0.1, 0.1)  # train, valid, test [ours: the paper does not say]


def split_random(rows: int, seed: int) -> np.ndarray:
    """0 (train), 1 (valid) or 2 (test) for each row, at random. The seed is the data's own, never the model's."""
    order = np.arange(rows, dtype=np.int32 if rows < 1 << 31 else np.int64)  # at 300 M rows the largest array held
    np.random.default_rng(seed).shuffle(order)
    cuts = np.cumsum([round(rows * f) for f in FRACTIONS[:2]])
    part = np.full(rows, 2, np.int8)
    part[order[: cuts[1]]] = 1
    part[order[: cuts[0]]] = 0
    return part


def split_time(time: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each row by its time: the last tenth is the test, the one before validation; ties stay together."""
    edges = np.quantile(time, np.cumsum(FRACTIONS[:2]), method="lower")
    return np.searchsorted(edges, time, side="left").astype(np.int8)
