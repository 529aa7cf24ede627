"""From the first protocol's tables to its scorecard, and a small version of it that anyone can run again."""

from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import CrocoError
from .claims import CLAIMS, Check
from .results import RESULTS, Results


def verdict(checks: list[Check]) -> str:
    """The claim's verdict by the rule at the head of claims.py. Raises CrocoError where a check has no interval."""
    if not checks:
        return "cannot be tested here"
    for c in checks:
        if not np.isfinite([c.value, c.low, c.high]).all():
            raise CrocoError(f"There is no interval for {c.what!r} on {c.data}: runs failed, or too few seeds.")
    held = [c.holds for c in checks]
    return "reproduced" if all(held) else "partly" if any(held) else "not reproduced"


def describe_simulation(R: Results) -> str:
    """The lifts of CTR and GMV with their intervals, as the simulated A/B test saw them."""
    if (online := R.online()) is None:
        return verdict([])
    lifts = online[0].query("domain == 'all' and measured == 'A/B test'").set_index("metric").loc[["ctr", "gmv"]]
    return "simulated: " + "; ".join(f"{r.Index.upper()} {r.lift:+.1%} [{r.low:+.1%}, {r.high:+.1%}]"
                                     for r in lifts.itertuples())


def judge(folder: Path = RESULTS) -> pd.DataFrame:
    """Every check of every claim, tidy: number, claim, reported, rule, verdict, data, what, value, low, high, holds."""
    R, rows = Results(folder), []
    for claim in CLAIMS:
        checks = list(claim.judge(R)) if claim.judge else []
        said = describe_simulation(R) if claim.simulated else verdict(checks)
        head = (claim.number, claim.text, claim.reported, claim.rule, said)
        rows += [(*head, *check) for check in checks] or [(*head, "", "", np.nan, np.nan, np.nan, False)]
    return pd.DataFrame(rows, columns=["number", "claim", "reported", "rule", "verdict", *Check._fields])


def scorecard(table: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: number, claim, reported, ours (checks that hold, of how many), verdict."""
    by = table.groupby("number", sort=True)
    card = by[["claim", "reported", "verdict"]].first()
    held = by.holds.sum().astype(str) + " of " + by.holds.size().astype(str)
    card.insert(2, "checks that hold", held.where(~card.verdict.str.startswith(("cannot", "simulated")), "–"))
    return card.reset_index()


FAST_DATA = "world:rows=60000,users=400,items=600"


def fast_studies(studies: dict[str, dict]) -> dict[str, dict]:
    """A small version of every study that a claim reads: a small made world, three seeds, the default settings."""
    wanted = dict.fromkeys(name for claim in CLAIMS for name in claim.studies)
    return {name: {**{k: v for k, v in studies[name].items() if k not in ("trials", "choose")},
                   "data": [FAST_DATA], "seeds": 3, "fixed": {"epochs": 6}} for name in wanted}
