"""From the first protocol's tables to its scorecard, and a small version of it that anyone can run again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import CrocoError
from . import claims
from .claims import CHEAP, MARGIN, Check
from .results import RESULTS, Results


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: its number and figure as reported, our rule, and the checks."""

    number: int
    text: str
    reported: str
    rule: str
    studies: tuple[str, ...] = ()
    judge: Callable[[Results], Iterator[Check]] | None = None
    simulated: bool = False  # what is measured stands in for what the paper measured, and can never reproduce it


CLAIMS = (
    Claim(
        1,
        "models of one embedding table keep little diversity",
        "lower DI",
        "the DI of Crocodile's experts is above that of the most diverse model of one table",
        ("main",),
        claims.diversity,
    ),
    Claim(
        2,
        "small domains' own tables collapse",
        "lower IA, least in the smallest domain",
        "the IA of the largest domain's own item table is above that of the smallest's",
        ("main",),
        claims.collapse,
    ),
    Claim(
        3,
        "own tables without sharing hurt, most in the smallest domain",
        "ME-PLE below PLE: −0.07 % AUC, −0.3 % on S6",
        "PLE's AUC is above ME-PLE's, overall and in the smallest domain",
        ("main",),
        claims.own_tables_hurt,
    ),
    Claim(
        4,
        "Crocodile is best overall",
        "+0.09 % AUC, +0.19 % gAUC (KuaiRand-1K); +0.138 %, +0.12 % (Ali-CCP)",
        "Crocodile is above the best of the paper's nine baselines",
        ("main",),
        claims.best_overall,
    ),
    Claim(
        5,
        "and much better where data is scarce",
        "on S6 +0.68 % AUC, +1.8 % gAUC over ME-PLE; +0.37 %, +0.98 % over SDEM",
        "Crocodile is above ME-PLE and SDEM in the smallest domain",
        ("main",),
        claims.best_where_scarce,
    ),
    Claim(
        6,
        "CovLoss disentangles",
        "covariance of experts 3 and 5 about 3·10³ times lower",
        "cross-expert covariance and correlation are lower with CovLoss",
        ("ablations",),
        claims.disentangles,
    ),
    Claim(
        7,
        "CovLoss beats the other regularisers",
        "CovLoss +0.07 % AUC over BCE alone; dCorr +0.01 %; Trans5 −0.06 %",
        "CovLoss is above no regulariser, and above the best other",
        ("regularisers", "ablations"),
        claims.beats_regularisers,
    ),
    Claim(
        8,
        "each of CovLoss, PEG and several embeddings is needed",
        "a significant drop without each",
        "AUC falls without each",
        ("ablations",),
        claims.each_part_needed,
    ),
    Claim(
        9,
        "α is not delicate",
        "any α ≥ 2·10⁻⁵ keeps AUC > 0.78590 (best 0.78683)",
        f"over five decades the worst α is within ±{MARGIN} AUC of the best",
        ("alpha",),
        claims.alpha_robust,
    ),
    Claim(
        10,
        "two embedding sets already beat five of the others",
        "AUC 0.78595 with M = 2",
        "M = 2 is above at least five of the nine baselines (the fifth is shown)",
        ("sets", "main"),
        claims.two_sets_enough,
    ),
    Claim(
        11,
        "CovLoss on 32 sampled rows is as good",
        "p > 0.1, 99.2 % of its cost saved",
        f"AUC within ±{MARGIN} of the full batch's",
        ("sample", "ablations"),
        claims.sampled_as_good,
    ),
    Claim(
        12,
        "CovLoss is cheap beside the experts",
        "M(M−1)/2 · d² · N",
        f"CovLoss takes less than {CHEAP:.0%} of a training step",
        (),
        claims.cheap,
    ),
    Claim(
        13,
        "online it earns more",
        "+0.72 % CTR, +0.73 % GMV in 5 % of one platform's traffic, March 2024",
        "none: needs that platform's traffic; simulated on the made world, where clicks are drawn from the truth",
        (),
        claims.online_lift,
        simulated=True,
    ),
)


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
    return "simulated: " + "; ".join(
        f"{r.Index.upper()} {r.lift:+.1%} [{r.low:+.1%}, {r.high:+.1%}]" for r in lifts.itertuples()
    )


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
    return {
        name: {
            **{k: v for k, v in studies[name].items() if k not in ("trials", "choose")},
            "data": [FAST_DATA],
            "seeds": 3,
            "fixed": {"epochs": 6},
        }
        for name in wanted
    }
