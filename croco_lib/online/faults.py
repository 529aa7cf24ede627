"""Training day by day while one domain's feed is at fault: what tells it, and what tolerance does about it. [ours]"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from torch import Tensor, nn

from ..errors import DataError, known
from ..evaluation import predict
from ..metrics import grouped_auc, log_losses
from ..schema import MultiDomainData, Split
from ..training import train
from .market import DAILY, Market, Requests, day_data, predict_candidates, serve


def _shift_items(rows: Split, rng: np.random.Generator, data: MultiDomainData) -> Split:
    features, item = rows.features.copy(), data.column("item")
    features[:, item] = features[:, item] % (data.fields[item].size - 1) + 1
    return replace(rows, features=features)


def _delay(rows: Split, rng: np.random.Generator, data: MultiDomainData) -> Split:
    some = rows.take(np.sort(rng.permutation(len(rows))[: len(rows) // 3]))
    return replace(some, label=some.label * (rng.random(len(some)) < 1 / 3))


# What a day's feed of one domain becomes. Not every fault is drawn, and not every one reads the data.
FAULTS: dict[str, Callable[[Split, np.random.Generator, MultiDomainData], Split]] = {
    "labels flipped": lambda rows, rng, data: replace(rows, label=1 - rows.label),
    "labels all zero": lambda rows, rng, data: replace(rows, label=0 * rows.label),
    "rows duplicated": lambda rows, rng, data: rows.take(np.arange(3 * len(rows)) // 3),
    "item ids shifted by one": _shift_items,
    "feed delayed": _delay,  # a third of the rows and of their clicks has come in
    "feed missing": lambda rows, rng, data: rows.take(np.arange(0)),
    "click rate jumps": lambda rows, rng, data: replace(
        rows, label=np.maximum(rows.label, rng.random(len(rows)) < 0.5).astype(np.float32)
    ),
}
WOBBLE = 0.05  # standard deviation, from day to day, of a domain's log traffic and of its clicks' log odds [ours]
LEVEL = 0.01  # a good day fails a test with at most this chance
PAST = 10  # good days that a domain's first day is held against; later ones are held against twice as many at most
MAIN = 1  # the domain that must not get worse: the largest
TESTS = ("rows", "click rate", "repeated rows", "contradicting ids", "log loss of the released model")


def draw_day(market: Market, rows: int, rng: np.random.Generator) -> list[Split]:
    """About `rows` rows of the logging policy, by domain; traffic and click odds vary by WOBBLE from day to day."""
    world, S = market.world, len(market.share)
    counts = np.maximum(20, rng.poisson(rows * market.share * rng.lognormal(0, WOBBLE, S)))
    drawn = world.draw(counts, rng)
    p = expit(logit(drawn.truth) + WOBBLE * rng.normal(size=S)[drawn.domain])
    drawn = replace(drawn, label=(rng.random(len(p)) < p).astype(np.float32), domains=market.data.domains)
    return [drawn.take(np.flatnonzero(drawn.domain == s)) for s in range(S)]


def decided_by_ids(data: MultiDomainData) -> list[tuple[int, int, np.ndarray]]:
    """Fields that the user's or the item's id decides in the training rows: (id's column, column, value by id)."""
    found, X = [], data.train.features
    for key in (data.column("user"), data.column("item")):
        for column in range(X.shape[1]):
            value = np.zeros(data.fields[key].size, X.dtype)
            value[X[:, key]] = X[:, column]
            if column != key and (value[X[:, key]] == X[:, column]).all():
                found.append((key, column, value))
    return found


def daily_statistics(model: nn.Module, rows: Split, decided: list) -> np.ndarray:
    """TESTS of one domain's day, [5, 2]: the value, and its variance by sampling alone."""
    n, X = max(len(rows), 1), rows.features
    loss = log_losses(rows.label, predict(model, rows)) if len(rows) else np.zeros(1)
    wrong = np.zeros(len(rows), bool)
    for key, column, value in decided:
        wrong |= (value[X[:, key]] != X[:, column]) & (value[X[:, key]] > 0)
    repeated = len(rows) - len(np.unique(np.column_stack([X, rows.label]), axis=0)) if len(rows) else 0
    shares = np.array([rows.label.sum(), repeated, wrong.sum()]) / n
    smooth = (shares * n + 1) / (n + 2)
    return np.array(
        [(np.log(n), 1 / n), *zip(shares, smooth * (1 - smooth) / n, strict=True), (loss.mean(), loss.var() / n)]
    )


def failed_tests(today: np.ndarray, past: list[np.ndarray], level: float = LEVEL) -> list[str]:
    """The TESTS that a domain's day fails beside its past good days; a good day fails any with at most this chance.

    Each value must lie in the t prediction interval of the past values, at level / 5 (Bonferroni); their spread counts
    as no smaller than sampling alone makes it.
    """
    value, sampling = np.moveaxis(np.array(past), 2, 0)  # each [days, 5]
    variance = np.maximum(np.maximum(value.var(0, ddof=1), sampling.mean(0)), today[:, 1]) * (1 + 1 / len(past))
    t = np.abs(today[:, 0] - value.mean(0)) / np.sqrt(variance)
    return [TESTS[i] for i in np.flatnonzero(t > stats.t.ppf(1 - level / 2 / len(TESTS), len(past) - 1))]


def simulate_fault(
    model: nn.Module,
    market: Market,
    fault: str | None,
    *,
    requests: Requests,
    tolerance: bool,
    domain: int = 2,
    days: int = 10,
    when: range = range(3, 6),
    rows: int = 40_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Train `model` day by day, in place, with a fault in the feed of `domain` on the days `when`.

    With tolerance, a domain whose day is abnormal has its last good day stand in for it until it is normal again, and
    a day that makes the main domain worse all the same is rolled back. Without, whatever comes in is trained on, and a
    day that cannot be trained on is lost. The judge of all days is the model as it was released, before the first.

    Tidy, a row a day: day, auc and gmv (expected, per request of `requests`) of the main domain, auc of the faulty
    one, the tests that failed (alarm), what was done.
    """
    fault = fault and known("fault", fault, FAULTS)
    data, rng = market.data, np.random.default_rng([seed, 6])
    fresh, decided = market.world.fresh(20_000), decided_by_ids(data)
    before = [draw_day(market, rows, rng) for _ in range(PAST)]
    judge = deepcopy(model).eval()  # one yardstick for all days
    good = before[-1]
    history = [[daily_statistics(judge, day[s], decided) for day in before] for s in range(len(data.domains))]
    table = []
    for day in range(days):
        feed, done = draw_day(market, rows, rng), "trained"
        fault_rng = np.random.default_rng([seed, day, 7])  # of its own: the other rows are the same with every fault
        if fault is not None and day in when:
            feed[domain] = FAULTS[fault](feed[domain], fault_rng, data)
        alarms = replace_abnormal(feed, good, history, judge, decided) if tolerance else {}
        if alarms:
            done = f"without {', '.join(data.domains[s] for s in alarms)}"
        try:
            if not tolerance:
                train_day(model, data, feed, day)
            elif train_or_roll_back(model, data, feed, good, day):
                done = f"rolled back, {data.domains[MAIN]} only"
        except DataError:
            done = "lost"
        good = feed if tolerance else good
        shown = serve(market, requests, predict_candidates(model, market, requests))
        alarm = "; ".join(f"{data.domains[s]}: {', '.join(failed)}" for s, failed in alarms.items())
        table.append(
            dict(
                day=day,
                auc=domain_auc(model, fresh, MAIN),
                gmv=shown.true_gmv[shown.domain == MAIN].mean(),
                auc_faulty=domain_auc(model, fresh, domain),
                alarm=alarm,
                done=done,
            )
        )
    return pd.DataFrame(table).assign(fault=fault or "none", tolerance=tolerance)


def replace_abnormal(
    feed: list[Split], good: list[Split], history: list[list[np.ndarray]], judge: nn.Module, decided: list
) -> dict[int, list[str]]:
    """The TESTS that each domain's day fails, by domain, where it fails any.

    Changes `feed` and `history` in place: an abnormal day gives way to the domain's last good one, a normal day joins
    the domain's history, of which the last 2 · PAST days are kept.
    """
    alarms = {}
    for s in range(len(feed)):
        today = daily_statistics(judge, feed[s], decided)
        if failed := failed_tests(today, history[s]) if len(feed[s]) else ["rows"]:
            alarms[s], feed[s] = failed, good[s]
        else:
            history[s] = [*history[s][1 - 2 * PAST :], today]
    return alarms


def train_or_roll_back(model: nn.Module, data: MultiDomainData, feed: list[Split], good: list[Split], day: int) -> bool:
    """Train on the day, in place; where that makes the main domain worse, roll back. Returns whether it did.

    Rolled back, the model is trained again with the main domain's new rows and the others' last good day; `feed` is
    changed to that in place. Raises DataError as `fit` does.
    """
    checkpoint = deepcopy(model.state_dict())
    valid = train_day(model, data, feed, day).valid
    if not is_worse(model, checkpoint, valid.take(np.flatnonzero(valid.domain == MAIN))):
        return False
    model.load_state_dict(checkpoint)
    feed[:] = [feed[s] if s == MAIN else good[s] for s in range(len(feed))]
    train_day(model, data, feed, day)
    return True


def train_day(model: nn.Module, data: MultiDomainData, feed: list[Split], day: int) -> MultiDomainData:
    """Train the model on one day's rows of all domains, in place; returns them as training data."""

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(rows, name) for rows in feed])

    rows = Split(column("features"), column("domain"), column("label"), column("user"), data.domains)
    today = day_data(data, rows, day)
    train(model, today, replace(DAILY, seed=day), progress=False)
    return today


def is_worse(model: nn.Module, checkpoint: Mapping[str, Tensor], held: Split) -> bool:
    """Whether the log loss on `held` is worse than with the checkpoint's weights: a one-sided paired z test."""
    now, weights = predict(model, held), deepcopy(model.state_dict())
    model.load_state_dict(checkpoint)
    then = predict(model, held)
    model.load_state_dict(weights)
    more = log_losses(held.label, now) - log_losses(held.label, then)
    return bool(more.mean() > stats.norm.ppf(1 - LEVEL) * more.std() / np.sqrt(len(more)))


def domain_auc(model: nn.Module, split: Split, domain: int) -> float:
    """AUC of one domain's rows, against the clicks that were drawn."""
    part = split.take(np.flatnonzero(split.domain == domain))
    return float(grouped_auc(part.label, predict(model, part), np.zeros(len(part), int))[0][0])
