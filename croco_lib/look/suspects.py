"""What a model must not learn from: columns that were written after the click, and rows that stand twice. [ours]"""

import numpy as np
import polars as pl

from ..metrics import grouped_auc

CLASSES = 100  # quantiles into which a column of many numbers is cut before it is judged alone
# A user with more than this part of all rows, and this many times an equal share, probably stands for all unknown ones.
PART, GIANT = 0.01, 50
SURE_ROWS = 30  # rows above 0 from which their click rate says something


def alone(values: pl.Series, label: np.ndarray) -> float:
    """How well a column alone tells the label: AUC, on one half of the rows, of its values' rates on the other.

    The rates are smoothed by ten rows of the mean; a value that the other half lacks gets the mean. A column of many
    numbers, whose single values are too rare for that, is judged by its quantiles as well, and the larger AUC stands.
    """
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() == values.null_count() and numbers.n_unique() > 2 * CLASSES:
        return max(_alone(values, label), _alone(numbers.rank() * CLASSES // (len(values) + 1), label))
    return _alone(values, label)


def _alone(values: pl.Series, label: np.ndarray) -> float:
    half = np.random.default_rng(0).random(len(label)) < 0.5
    mean = label[half].mean()
    rates = (
        pl.DataFrame({"v": values.filter(pl.Series(half)), "y": label[half]})
        .group_by("v")
        .agg(rate=(pl.col("y").sum() + 10 * mean) / (pl.len() + 10))
    )
    score = (
        pl.DataFrame({"v": values.filter(pl.Series(~half))})
        .join(rates, on="v", how="left", nulls_equal=True, maintain_order="left")["rate"]
        .fill_null(mean)
        .to_numpy()
    )
    auc = float(grouped_auc(label[~half].astype(int), score, np.zeros(len(score), int), 1)[0][0])
    return 0.5 if np.isnan(auc) else auc  # where one label alone is there, nothing is told


def above_zero(values: pl.Series, label: np.ndarray) -> float:
    """The click rate of the rows whose number here is above 0; 0.0 where they are few or the column is no number.

    This finds what AUC does not: a reaction (is_like, seconds in the comments) is rare, so that it orders few pairs of
    rows, but where there is one there was a click.
    """
    numbers = values.str.to_lowercase().replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
    there = (numbers > 0).fill_null(False).to_numpy()
    if numbers.null_count() > values.null_count() or there.sum() < SURE_ROWS:
        return 0.0
    return float(label[there].mean())


def giant(users: pl.Series) -> dict[str, float]:
    """The user of most rows and its share of them, where that is GIANT times an equal share and a PART of all rows."""
    table = users.drop_nulls().rename("").value_counts(sort=True, name="n")
    if table.is_empty():
        return {}
    value, n = table.row(0)
    share = n / len(users)
    return {value: round(share, 4)} if share >= max(PART, GIANT / len(table)) else {}


def near_twins(sample: pl.DataFrame, roles: dict[str, str]) -> dict[str, int]:
    """By column, how many rows of the sample equal another in all columns but this one; exact repeats do not count.

    Only where there is a time: without one, a user who meets an item twice leaves such rows rightly.
    """
    if "time" not in roles:
        return {}
    rows = sample.unique()
    hashes = {name: rows[name].hash(seed=i).to_numpy() for i, name in enumerate(rows.columns)}
    whole = sum(hashes.values())  # uint64 [N], modulo 2^64; less one column's hash, it is that of all the others
    what = [c for c in rows.columns if c not in (roles.get("user"), roles.get("item"), roles["time"])]
    counts = {c: len(rows) - len(np.unique(whole - hashes[c])) for c in what}
    return {c: n for c, n in counts.items() if n}
