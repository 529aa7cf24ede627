"""How the paper's claims are judged. Written and committed before the results, which store the hash of the rules.

A claim is a list of checks on each data set, each a difference with a 95 % interval over seeds and test users. A check
*holds* when its interval lies on the claimed side of its bound, is *contradicted* when the interval lies wholly on the
other side, and is else *too noisy*. On each data set a claim is *reproduced* when all its checks hold. It is
*contradicted* when one of them is, at a level divided by the number of checks (Bonferroni), since one of many may
fall on the wrong side by luck; else it is *too noisy to say*. Where a data set cannot show what a claim speaks of, or
nothing can be measured there, it *cannot be tested here*.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from .intervals import Gap, detectable, gap
from .space import label_of
from .tables import Tables

BASELINES = ("shared-bottom", "mmoe", "ple", "star", "hinet", "pepnet", "adasparse", "me-ple", "sdem", "me-mmoe")
SINGLE_EMBEDDING = ("mmoe", "ple", "hinet")  # of one table and several experts
MULTI_EMBEDDING = ("me-mmoe", "me-ple", "sdem")  # the other models of several tables
OTHERS = ("correlation", "dot", "cos", "dcorr", "hsic", "ole", "importance")  # regularisers beside CovLoss
WITHOUT = "crocodile without CovLoss"
SCARCE = 10  # the largest domain has as many times the smallest's rows, where a claim speaks of scarce data [ours]
AS_ABLE = 0.005  # of AUC: experts that lose as much may differ by their noise alone [ours]
ALPHAS = (0.1, 0.3, 1.0, 3.0)  # each is held against the one that is best on validation
RANGE = {"auc": 0.00093, "gauc": 0.00199}  # the paper: within so much of the best lies every safe α
LEVEL = 0.025  # of one side, a claim
HOLDS, CONTRADICTED, NOISY, UNMEASURED = "holds", "contradicted", "too noisy", "not measured"


class Check(NamedTuple):
    """One difference and how it came out. `paper` is the paper's figure in the same unit, where it gives one.

    `against` is how likely a value as far on the wrong side is if the truth lay on the bound.
    """

    what: str
    value: float
    low: float
    high: float
    detectable: float
    seeds: int
    paper: float
    outcome: str
    against: float


def above(what: str, g: Gap, paper: float = np.nan, bound: float = 0.0, level: float = 0.95) -> Check:
    """Claimed: the difference is above the bound."""
    if not np.isfinite(g.error):
        return Check(what, g.value, g.low, g.high, np.nan, g.seeds, paper, NOISY, 1.0)
    low, high = g.interval(level)
    outcome = HOLDS if low > bound else CONTRADICTED if high < bound else NOISY
    return Check(
        what, g.value, low, high, detectable(g.error, g.df, level=1 - level), g.seeds, paper, outcome, g.tail(bound)
    )


def not_worse(what: str, g: Gap, margin: float, paper: float = np.nan) -> Check:
    """Claimed: the first is not worse than the second by the margin or more. One-sided at 5 %: a 90 % interval."""
    return above(what, g, paper, -margin, 0.90)


def unmeasured(what: str) -> Check:
    """What the claim speaks of and this data set does not have: it says so, and does not count."""
    return Check(what, np.nan, np.nan, np.nan, np.nan, 0, np.nan, UNMEASURED, 1.0)


def diversity(T: Tables) -> Iterator[Check]:
    ratio = T.over_start("diversity_index")
    best = str(ratio[[n for n in SINGLE_EMBEDDING if n in ratio]].mean().idxmax())  # the hardest to beat
    yield above(
        f"DI over that before training: crocodile minus {best}, the most diverse of one table",
        gap(ratio["crocodile"] - ratio[best]),
    )
    yield not_worse(
        f"… and its experts' own AUC minus {best}'s: DI is high for experts that know nothing",
        T.gap("crocodile", best, "expert_auc"),
        AS_ABLE,
    )


def collapse(T: Tables) -> Iterator[Check]:
    rows = T.domains()
    if T.ratio() < SCARCE:
        return
    for model in ("me-ple", "sdem"):
        kept = pd.DataFrame({part: T.over_start("own_table_abundance", part, "train")[model] for part in rows.index})
        trend = kept.apply(lambda row: stats.spearmanr(rows, row[rows.index]).statistic, axis=1)
        yield above(
            f"rank correlation of a domain's rows with the IA of {model}'s own item table there, at equal "
            "rows, over the same before training",
            gap(trend),
        )
        smallest = rows.idxmin()
        others = kept.drop(columns=smallest).mean(axis=1)
        yield above(f"… the other domains' mean minus {smallest}'s, the smallest", gap(others - kept[smallest]))


def own_tables_hurt(T: Tables) -> Iterator[Check]:
    if T.ratio() < SCARCE:
        return
    small, large = T.smallest(), T.smallest() | {"part": T.domains().idxmax()}
    yield above("AUC of ple minus me-ple, overall", T.gap("ple", "me-ple"), 0.0007)
    yield above(f"AUC of ple minus me-ple, {small['part']}", T.gap("ple", "me-ple", **small), 0.003)
    here, there = (T.side("ple", **where) - T.side("me-ple", **where) for where in (small, large))
    yield above(f"… the same, {small['part']} minus {large['part']}", (here - there).gap())


def best_overall(T: Tables) -> Iterator[Check]:
    best, paper = T.best_on_validation(BASELINES), {"auc": 0.0009, "gauc": 0.0019}  # on KuaiRand-1K
    for metric, reported in paper.items():
        yield above(
            f"{metric} of crocodile minus {best}'s, the baseline that is best on validation",
            T.gap("crocodile", best, metric),
            reported,
        )


def best_where_scarce(T: Tables) -> Iterator[Check]:
    if T.ratio() < SCARCE:
        return
    small = T.smallest()
    paper = {("me-ple", "auc"): 0.0068, ("me-ple", "gauc"): 0.018, ("sdem", "auc"): 0.0037, ("sdem", "gauc"): 0.0098}
    for (other, metric), reported in paper.items():
        what = f"{metric} on {small['part']}, crocodile minus {other}"
        if metric == "gauc" and T.metric("gauc", **small).isna().all(axis=None):
            yield unmeasured(f"{what}: too few of its users have both classes")
            continue
        yield above(what, T.gap("crocodile", other, metric, **small), reported)


def disentangles(T: Tables) -> Iterator[Check]:
    cov = np.log10(T.metric("covariance", split="valid"))
    yield above(
        f"log10 of how many times lower the covariance is with CovLoss (chosen α = {T.chosen_alpha()})",
        gap(cov[WITHOUT] - cov["crocodile"]),
        np.log10(3e3),
    )
    r = T.metric("correlation", split="valid")
    yield above("mean |correlation| without minus with CovLoss", gap(r[WITHOUT] - r["crocodile"]))


def beats_regularisers(T: Tables) -> Iterator[Check]:
    main, cov = T.beside("main"), {"regulariser": "cov"}
    yield above("AUC of CovLoss minus no regulariser", (T.side(cov) - main.side(WITHOUT)).gap(), 0.0007)
    others = {label_of({"regulariser": name}): name for name in OTHERS}
    best = others[T.best_on_validation(others, by="variant")]
    paper = 0.0006 if best == "dcorr" else np.nan  # known of dCorr alone
    yield above(
        f"AUC of CovLoss minus {best}, the other that is best on validation", T.gap(cov, {"regulariser": best}), paper
    )


def each_part_needed(T: Tables) -> Iterator[Check]:
    main = T.beside("main")
    yield above(f"AUC lost without CovLoss (with it α = {main.chosen_alpha()})", main.gap("crocodile", WITHOUT), 0.0007)
    for part, model in {
        "PEG (a domain gate instead)": "crocodile with a domain gate",
        "several embeddings": "crocodile with one set",
    }.items():
        yield above(f"AUC lost without {part}", (main.side("crocodile") - T.side(model)).gap())


def alpha_safe(T: Tables) -> Iterator[Check]:
    variants = {label_of({"alpha": alpha}): {"alpha": alpha} for alpha in ALPHAS}
    best = T.best_on_validation(variants, by="variant")
    for metric, margin in RANGE.items():
        for name, variant in variants.items():
            if name != best:
                yield not_worse(
                    f"{metric} at {name} minus that at {best}, the best on validation",
                    T.gap(variant, variants[best], metric),
                    margin,
                    -margin,
                )


def two_sets_enough(T: Tables) -> Iterator[Check]:
    main = T.beside("main")
    for metric in ("auc", "gauc"):
        for other in MULTI_EMBEDDING:
            yield above(
                f"{metric} with two sets minus {other}",
                (T.side({"sets": 2}, metric) - main.side(other, metric)).gap(),
            )


def sampled_as_good(T: Tables) -> Iterator[Check]:
    none, full, some = {"alpha": 0.0}, {"alpha": 0.1}, {"alpha": 0.1, "sample": 32}
    gain = T.gap(full, none)
    if not gain.low > 0:
        yield unmeasured("AUC that CovLoss gains on all rows is not above 0, so there is nothing to lose on 32")
        return
    yield above("AUC of CovLoss on 32 rows minus no CovLoss", T.gap(some, none))
    yield not_worse(
        "AUC of CovLoss on 32 rows minus on all, against losing half of its gain", T.gap(some, full), gain.value / 2
    )


def cheap(cost: pd.DataFrame) -> Iterator[Check]:
    """Of no study on data: `cost` is what `croco study cost` measured, one row per shape and repeat."""
    for shape, here in cost.groupby("shape", sort=False):
        for rows in ("all", "32"):
            count = float(here[f"products, {rows} rows"].iloc[0] / here["products, experts"].iloc[0])
            yield below_one(f"{shape}: CovLoss's products on {rows} rows over the experts'", count, count, count, 1)
            share = here[f"ms, {rows} rows"] / here["ms, experts"]
            low, mid, high = share.quantile([0.025, 0.5, 0.975])
            yield below_one(f"{shape}: its time on {rows} rows over the experts'", low, mid, high, len(share))


def below_one(what: str, low: float, mid: float, high: float, repeats: int) -> Check:
    """Claimed: the ratio is below one."""
    outcome = HOLDS if high < 1 else CONTRADICTED if low > 1 else NOISY
    return Check(what, mid, low, high, np.nan, repeats, np.nan, outcome, 0.0 if low > 1 else 1.0)


def verdict(checks: list[Check]) -> str:
    """The rule at the head of this file, for one data set."""
    counted = [c for c in checks if c.outcome != UNMEASURED]
    if not counted:
        return "cannot be tested here"
    if min(c.against for c in counted) * len(counted) < LEVEL:
        return "contradicted"
    return "reproduced" if all(c.outcome == HOLDS for c in counted) else "too noisy to say"
