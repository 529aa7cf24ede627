"""The A/B test: lifts with their intervals, A/A runs, peeking, power. Users are the unit that varies. [ours]"""

import numpy as np
import pandas as pd
from scipy import stats

from .market import METRICS, Market

LEVEL, WANTED = 0.05, 0.8  # chance of a false alarm, and of seeing a difference that is there
Z = stats.norm.ppf(1 - LEVEL / 2)
PATHS = 200_000  # drawn to find the bounds of O'Brien and Fleming


def ratio(y: np.ndarray, n: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log(Σy / Σn) over the chosen users, and its variance by the delta method, users being the unit that varies.

    `y` and `n` [U] are each user's sum and number of requests; `chosen` bool [..., U], a row an assignment. Each
    user's share of the variance is raised by 1 / (1 − n / Σn)², as the jackknife does: a few users bring much of the
    traffic, and pull the ratio their way.
    """
    Y, N = chosen @ y, chosen @ n
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing happened there is no ratio: infinite or NaN
        pull = (y - (Y / N)[..., None] * n) / Y[..., None] / (1 - n / N[..., None])
        # `where`, for a user outside with as many requests as all within has an infinite pull, and 0 · ∞ is NaN.
        return np.log(Y / N), np.where(chosen, pull**2, 0).sum(-1)


def _sums(frame: pd.DataFrame, metric: str, users: int) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(frame.user, frame[metric], users), np.bincount(frame.user, minlength=users).astype(float)


def assign(users: int, runs: int | None = None, seed: int = 0) -> np.ndarray:
    """Who is in the test arm, bool [U] or [runs, U]: each user at random, once and for all their requests."""
    return np.random.default_rng([seed, 4]).random((users,) if runs is None else (runs, users)) < 0.5


def compare(a: pd.DataFrame, b: pd.DataFrame, market: Market, test: np.ndarray | None = None) -> pd.DataFrame:
    """Lift of arm b over arm a: domain, metric, a, b, lift, low, high (its 95 % interval), se.

    The interval is symmetric about log(1 + lift), the scale of `aa_z_scores`, so it leaves out zero just where |z| > Z.
    With `test` [U], as an A/B test sees it: users in it are served by b, the others by a. Without, both arms served
    every request and *expected* outcomes are compared, pair by pair: the true lift on this traffic.
    """
    rows = []
    for s, name in enumerate(("all", *market.data.domains), start=-1):
        fa, fb = (f if s < 0 else f[f.domain == s] for f in (a, b))
        for metric in METRICS:
            column = metric if test is not None else f"true_{metric}"
            (ya, n), (yb, _) = (_sums(f, column, market.users) for f in (fa, fb))
            if test is not None:
                (la, va), (lb, vb) = ratio(ya, n, ~test), ratio(yb, n, test)
                variance = va + vb
            else:  # both arms have every user, so what a user's visits have in common cancels
                la, lb = np.log(ya.sum() / n.sum()), np.log(yb.sum() / n.sum())
                variance = np.square(yb / yb.sum() - ya / ya.sum()).sum()
            error = np.sqrt(variance)
            with np.errstate(invalid="ignore"):  # where nothing happened in either arm there is no lift: NaN
                lift, low, high = (np.expm1(lb - la + z * error) for z in (0, -Z, Z))
            rows.append((name, metric, np.exp(la), np.exp(lb), lift, low, high, (1 + lift) * error))
    return pd.DataFrame(rows, columns=["domain", "metric", "a", "b", "lift", "low", "high", "se"])


def aa_z_scores(
    frame: pd.DataFrame, market: Market, metric: str = "ctr", runs: int = 1000, seed: int = 0
) -> np.ndarray:
    """A/A tests of one arm against itself: z after each day so far [days, runs], users assigned anew in every run."""
    test, z = assign(market.users, runs=runs, seed=seed), []
    for day in range(frame.day.max() + 1):
        y, n = _sums(frame[frame.day <= day], metric, market.users)
        (la, va), (lb, vb) = ratio(y, n, ~test), ratio(y, n, test)
        z.append((lb - la) / np.sqrt(va + vb))
    return np.array(z)


def boundary(days: int) -> np.ndarray:
    """O'Brien and Fleming's bounds (Biometrics 1979): |z| beyond them on any of `days` looks happens at LEVEL."""
    walk = np.random.default_rng(0).normal(size=(PATHS, days)).cumsum(1) / np.sqrt(days)  # = z_d √(d / days)
    return np.quantile(np.abs(walk).max(1), 1 - LEVEL) * np.sqrt(days / np.arange(1, days + 1))


def false_positives(z: np.ndarray) -> pd.DataFrame:
    """Share of A/A runs [days, runs] called a difference by three rules, with its 95 % interval."""
    rules = {
        "one look at the end": np.abs(z[-1]) > Z,
        "a look each day": (np.abs(z) > Z).any(0),
        "a look each day, O'Brien–Fleming": (np.abs(z) > boundary(len(z))[:, None]).any(0),
    }
    tests = {rule: stats.binomtest(int(hit.sum()), len(hit)) for rule, hit in rules.items()}
    return pd.DataFrame(
        [(rule, t.statistic, *t.proportion_ci(method="wilson")) for rule, t in tests.items()],
        columns=["rule", "false_positives", "low", "high"],
    )


def power(lift: float, se: float) -> float:
    """Chance that a test whose lift has this standard error calls a true `lift` a difference (normal approximation)."""
    return float(stats.norm.sf(Z - lift / se) + stats.norm.cdf(-Z - lift / se))


def users_needed(lift: float, se: float, users: int) -> int:
    """Users that give a true `lift` a power of WANTED, where `users` of the same kind give the error `se`."""
    return int(np.ceil(users * ((Z + stats.norm.ppf(WANTED)) * se / lift) ** 2))
