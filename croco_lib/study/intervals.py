"""A difference between two models, with an interval that covers other seeds and other test users."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats


class Gap(NamedTuple):
    """A difference: its mean over seeds, its standard error and degrees of freedom, and its 95 % interval."""

    value: float
    low: float
    high: float
    error: float
    df: float
    seeds: int

    def interval(self, level: float) -> tuple[float, float]:
        """The two-sided interval at this level."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.error
        return self.value - half, self.value + half

    def tail(self, bound: float) -> float:
        """How likely a value as low as this one, or lower, is where the true difference is `bound`."""
        return (
            float(stats.t.cdf((self.value - bound) / self.error, self.df))
            if self.error > 0
            else float(self.value >= bound)
        )


UNKNOWN_GAP = Gap(np.nan, -np.inf, np.inf, np.inf, np.nan, 0)


def gap(differences: pd.Series, users_error: float = 0.0) -> Gap:
    """The gap from one difference per seed, and the standard error that comes from the choice of the test users.

    The two variances are added. The seeds' is estimated from n − 1 degrees of freedom, the users' from a bootstrap and
    taken as known; Welch and Satterthwaite's formula says how many the sum has.
    """
    d = differences.dropna().to_numpy()
    n = len(d)
    if n < 2:
        return UNKNOWN_GAP._replace(value=float(d.mean()) if n else np.nan, seeds=n)
    seeds_error = float(stats.sem(d))
    error = float(np.hypot(seeds_error, users_error))
    df = (n - 1) * (error / seeds_error) ** 4 if seeds_error > 0 else np.inf
    half = stats.t.ppf(0.975, df) * error
    return Gap(float(d.mean()), float(d.mean() - half), float(d.mean() + half), error, float(min(df, 1e6)), n)


def detectable(error: float, df: float, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true distance from a bound that a two-sided t test of this standard error sees with this power."""
    if not 0 < error < np.inf:
        return float("nan")
    critical = stats.t.ppf(1 - level / 2, df)
    seen = optimize.brentq(lambda d: stats.nct.sf(critical, df, d) - power, 0, 100)
    return float(seen * error)
