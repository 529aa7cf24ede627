"""Comparing what was measured with several seeds: means, differences paired by seed, and their intervals."""

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import known


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % t interval; the interval is infinite for one value."""
    values = np.asarray(values, float)
    mean = values.mean()
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def against(frame: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each model against the reference, paired by seed: other minus reference.

    `frame` holds one metric's values: seed, value and model. Returns mean, std and seeds of each, the difference with
    its 95 % t interval, Cohen's d of the paired differences, p of the paired t test, and p corrected for the many
    comparisons (Benjamini–Hochberg), best mean first. Interval and p know the luck of the seeds alone, not that of the
    test rows.
    """
    known("model", reference, wide := frame.pivot(index="seed", columns="model", values="value"))
    rows = []
    for name in wide:
        gap = (wide[name] - wide[reference]).dropna().to_numpy()
        mean, low, high = interval(gap) if len(gap) else (np.nan,) * 3
        spread = gap.std(ddof=1) if len(gap) > 1 else np.nan
        p = stats.ttest_1samp(gap, 0).pvalue if spread > 0 else np.nan
        rows.append(
            (
                name,
                wide[name].mean(),
                wide[name].std(),
                wide[name].count(),
                mean,
                low,
                high,
                mean / spread if spread > 0 else np.nan,
                p,
            )
        )
    table = pd.DataFrame(rows, columns=["model", "mean", "std", "seeds", "difference", "low", "high", "d", "p"])
    tested = table.p.notna()
    table["p_corrected"] = np.nan
    if tested.any():
        table.loc[tested, "p_corrected"] = stats.false_discovery_control(table.p[tested])
    return table.sort_values("mean", ascending=False, ignore_index=True)
