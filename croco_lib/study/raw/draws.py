"""What both writers draw: ids with a long tail, and clicks that a model can learn."""

import numpy as np

BLOCK = 500_000  # rows made at a time


def tail(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """`size` draws of 0 … count − 1, the small numbers far more often (about 1 / rank)."""
    return np.minimum(np.exp(rng.random(size) * np.log(count + 1)) - 1, count - 1).astype(np.int64)


def clicks(rng, user, item, domain, rates, seed) -> np.ndarray:
    """0 or 1 for each row: a domain's rate, tilted by hidden factors of user and item (hashed, so of any number)."""

    def factor(ids, k):
        x = (ids + 1_000_003 * (seed + 1)).astype(np.uint64) + np.asarray(k).astype(np.uint64) * np.uint64(1 << 40)
        for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(odd)
        return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1

    logit = np.log(rates / (1 - rates))[domain] + 1.5 * factor(user, 1) + 1.5 * factor(item, 2)
    logit += 3 * factor(user, 3 + domain % 2) * factor(item, 5)
    return (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
