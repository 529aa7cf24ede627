"""The part of a difference that comes from the choice of the test users: metrics under bootstrap draws of them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ..metrics import MIN_USERS, grouped_auc
from .jobs import key_of, load_with_fresh
from .space import label_of

DRAWS = 200  # bootstrap draws of the test users
RESAMPLED = ("auc", "gauc")  # under the bootstrap draws


def resampled_users(data: str, made: list[tuple], folder: Path, beside: Iterable[int] = ()) -> pd.DataFrame:
    """AUC and gAUC under each bootstrap draw of the test users: split, part, model, variant, seeds, draw, ….

    Users are drawn with replacement, the same draws for every model, so that any two can be compared draw by draw. The
    values are means over the first so many `seeds` of a model: all of its own, and as many as any other model has, here
    or in a study `beside` this one, so that a model of ten seeds can be held against one of six over the same six. A
    run that failed is in no mean.
    """
    files: dict[tuple[str, str], dict[int, Path]] = {}  # (model, variant) → seed → its logits
    for model, variant, _, job in made:
        path = folder / "runs" / f"{key_of(job)}.npz"
        if path.is_file():  # a failed run has left none
            files.setdefault((model, label_of(variant)), {})[job["seed"]] = path
    counts = sorted({*beside, *(max(seeds) + 1 for seeds in files.values())})
    loaded, fresh = load_with_fresh(data)
    rows: list[tuple] = []
    for split, held in (("test", loaded.test), ("fresh", fresh)):
        if held is None:
            continue
        user = np.unique(held.user, return_inverse=True)[1]
        count = int(user.max()) + 1
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS).astype(np.int16)
        parts = {"all": slice(None), **{name: held.domain == s for s, name in enumerate(loaded.domains)}}
        for (model, variant), paths in files.items():
            logits = {seed: np.load(path)[split] for seed, path in sorted(paths.items())}
            for part, here in parts.items():
                each = [_under_draws(held.label[here], score[here], user[here], draws) for score in logits.values()]
                for n in (n for n in counts if n <= max(logits) + 1):
                    first = [values for seed, values in zip(logits, each, strict=True) if seed < n]
                    mean = np.mean(first, 0) if first else np.full((2, DRAWS), np.nan)
                    rows += [(split, part, model, variant, n, draw, *values) for draw, values in enumerate(mean.T)]
    return pd.DataFrame(rows, columns=["split", "part", "model", "variant", "seeds", "draw", *RESAMPLED])


def _under_draws(label: np.ndarray, score: np.ndarray, user: np.ndarray, draws: np.ndarray) -> tuple:
    """AUC and gAUC, [draws] each, where user u counts draws[:, u] times; gAUC is NaN where it is not measured."""
    weighted = auc_of_weights(label, score)
    auc = np.array([weighted(weight[user]) for weight in draws])
    own, rows = grouped_auc(label, score, user, draws.shape[1])
    both = np.isfinite(own)  # users with both classes
    if both.sum() < MIN_USERS:
        return auc, np.full(len(draws), np.nan)
    weight = draws[:, both] * rows[both]
    return auc, weight @ own[both] / weight.sum(1)


def auc_of_weights(label: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The AUC as a function of the rows' weights: weights [..., N] → AUC [...], NaN without weight on both classes.

    `label` 0/1 [N], `score` [N]. Sorts once, however many weightings follow. Ties count a half. As scikit-learn's
    `roc_auc_score(label, score, sample_weight=weights)`.
    """
    order = np.argsort(score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(np.asarray(score)[order]) != 0, True))[: len(order)]  # … of runs of ties
    positive_row = np.asarray(label)[order] == 1

    def auc(weight: np.ndarray) -> np.ndarray:
        weight = np.asarray(weight, float)[..., order]
        positive = np.cumsum(weight * positive_row, -1)[..., ends]  # up to the end of each run
        negative = np.cumsum(weight * ~positive_row, -1)[..., ends]
        below = negative - np.diff(negative, prepend=0.0) / 2  # half of the run's own
        wins = (np.diff(positive, prepend=0.0) * below).sum(-1)
        pairs = positive[..., -1] * negative[..., -1]
        return np.divide(wins, pairs, out=np.full(np.shape(pairs), np.nan), where=np.asarray(pairs > 0))

    return auc
