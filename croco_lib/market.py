"""A simulated market on the made world: an A/B test, continual training, and faults in a domain's feed. All [ours].

A request has a domain (by its share of the rows), a user and some candidate ads, as that domain shows them. An arm
ranks the ads by bid × predicted click and shows the first. A click comes with the world's true probability, a
purchase after a click with the ad's own rate. *Revenue* is the bid of every click (first price), *GMV* the value of
what was bought. Two arms meet the same requests and the same uniform draws (common random numbers).
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file
from scipy import stats
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from .benchmark import DEFAULT_FIT, FIT, RESULTS, VERSIONS, select
from .benchmark import results as of_study
from .data import load
from .errors import CrocoError, DataError, write_text, write_whole
from .metrics import grouped_auc, log_losses
from .models import build
from .options import TrainOptions
from .schema import MultiDomainData, Split
from .serving import export, latency
from .training import fit, predict, train

METRICS = ("ctr", "revenue", "gmv")  # each a sum over requests, divided by the number of requests
DAILY = TrainOptions(epochs=2, batch_size=1024, lr=0.01, patience=2)  # a day's training


@dataclass(frozen=True)
class Market:
    """Every ad's `bid` for a click, `value` when bought and `bought` rate after a click [I]; domains' `share` [S]."""

    data: MultiDomainData
    bid: np.ndarray
    value: np.ndarray
    bought: np.ndarray
    share: np.ndarray

    @property
    def users(self) -> int:
        return len(self.data.world.user_ids)


class Requests(NamedTuple):
    """N requests in order of arrival: `day`, `domain`, `user` [N], `ads` [N, C] (0-based), uniform `draws` [2, N]."""

    day: np.ndarray
    domain: np.ndarray
    user: np.ndarray
    ads: np.ndarray
    draws: np.ndarray


def market(data: MultiDomainData, seed: int = 0) -> Market:
    """The market over the world behind `data`; bids lie around half of what a click is worth on average."""
    if data.world is None:
        raise CrocoError(f"A market draws clicks from the truth, and that of {data.name} is not known. Load 'world'.")
    rng, ads = np.random.default_rng([seed, 2]), len(data.world.item_ids)
    value, bought = rng.lognormal(3, 0.4, ads), rng.beta(8, 152, ads)
    share = np.bincount(data.train.domain, minlength=len(data.domains)) / len(data.train)
    return Market(data, 0.5 * value * bought * rng.lognormal(0, 0.3, ads), value, bought, share)


def requests(market: Market, count: int, candidates: int = 20, days: int = 1, seed: int = 0) -> Requests:
    """`count` requests over equally long days, domains by their long-tailed share."""
    world, rng = market.data.world, np.random.default_rng([seed, 3])
    domain = rng.choice(len(market.share), count, p=market.share)
    user, ads = np.empty(count, np.int64), np.empty((count, candidates), np.int32)
    for s in range(len(market.share)):
        here = np.flatnonzero(domain == s)
        user[here] = rng.choice(market.users, len(here), p=world.user_p[s])
        ads[here] = rng.choice(len(world.item_ids), (len(here), candidates), p=world.item_p[s])
    return Requests(np.arange(count) * days // count, domain, user, ads, rng.random((2, count)))


def rows_of(market: Market, user, ad, domain, label=None) -> Split:
    """Coded rows of 0-based users and ads, with the truth."""
    world = market.data.world
    features = np.column_stack([world.user_ids[user], world.item_ids[ad], domain + 1]).astype(np.int32)
    label = np.zeros(len(user), np.float32) if label is None else label.astype(np.float32)
    return Split(features, domain, label, user, market.data.domains, world.probability(user, ad, domain))


def predicted(model, market: Market, asked: Requests) -> np.ndarray:
    """The model's click probability of every candidate, float32 [N, C]; each (domain, user, ad) is scored once."""
    ads = len(market.bid)
    key = (asked.domain * market.users + asked.user)[:, None] * ads + asked.ads
    key, where = np.unique(key, return_inverse=True)
    pair, ad = np.divmod(key, ads)
    domain, user = np.divmod(pair, market.users)
    parts = [predict(model, rows_of(market, *(a[i:i + (1 << 20)] for a in (user, ad, domain))))
             for i in range(0, len(key), 1 << 20)]
    return expit(np.concatenate(parts))[where].reshape(asked.ads.shape)


def serve(market: Market, asked: Requests, p: np.ndarray) -> pd.DataFrame:
    """What an arm with these predictions gets from each request: the ad shown, what was predicted, what happened.

    ctr, revenue and gmv as drawn; true_ctr, true_revenue, true_gmv as expected.
    """
    rows = np.arange(len(p))
    best = (market.bid[asked.ads] * p).argmax(1)
    ad = asked.ads[rows, best]
    truth = market.data.world.probability(asked.user, ad, asked.domain)
    click = asked.draws[0] < truth
    buy = click & (asked.draws[1] < market.bought[ad])
    return pd.DataFrame(dict(
        day=asked.day, domain=asked.domain, user=asked.user, ad=ad, predicted=p[rows, best],
        ctr=click.astype(float), revenue=click * market.bid[ad], gmv=buy * market.value[ad],
        true_ctr=truth, true_revenue=truth * market.bid[ad], true_gmv=truth * market.bought[ad] * market.value[ad]))


# ---------------------------------------------------------------------------------------------- the A/B test


def ratio(y: np.ndarray, n: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log(Σy / Σn) over the chosen users, and its variance by the delta method, users being the unit that varies.

    `y` and `n` [U] are each user's sum and number of requests; `chosen` bool [..., U], a row an assignment. Each
    user's share of the variance is raised by 1 / (1 − n / Σn)², as the jackknife does: a few users bring much of the
    traffic, and pull the ratio their way.
    """
    Y, N = chosen @ y, chosen @ n
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing happened there is no ratio: infinite or NaN
        pull = (y - (Y / N)[..., None] * n) / Y[..., None] / (1 - n / N[..., None])
        return np.log(Y / N), (chosen * pull**2).sum(-1)


def _sums(frame: pd.DataFrame, metric: str, users: int) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(frame.user, frame[metric], users), np.bincount(frame.user, minlength=users).astype(float)


def assign(users: int, share: float = 0.5, runs: int | None = None, seed: int = 0) -> np.ndarray:
    """Who is in the test arm, bool [U] or [runs, U]: each user at random, once and for all their requests."""
    return np.random.default_rng([seed, 4]).random((users,) if runs is None else (runs, users)) < share


def compare(a: pd.DataFrame, b: pd.DataFrame, market: Market, test: np.ndarray | None = None,
            level: float = 0.05) -> pd.DataFrame:
    """Lift of arm b over arm a: domain, metric, a, b, lift, low, high, se.

    With `test` [U], as an A/B test sees it: users in it are served by b, the others by a. Without, both arms served
    every request and *expected* outcomes are compared, pair by pair: the true lift on this traffic.
    """
    z, rows = stats.norm.ppf(1 - level / 2), []
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
            lift, se = np.expm1(lb - la), np.exp(lb - la) * np.sqrt(variance)
            rows.append((name, metric, np.exp(la), np.exp(lb), lift, lift - z * se, lift + z * se, se))
    return pd.DataFrame(rows, columns=["domain", "metric", "a", "b", "lift", "low", "high", "se"])


def looks(frame: pd.DataFrame, market: Market, metric: str = "ctr", runs: int = 1000, seed: int = 0) -> np.ndarray:
    """A/A tests of one arm against itself: z after each day so far [days, runs], users assigned anew in every run."""
    test, z = assign(market.users, runs=runs, seed=seed), []
    for day in range(frame.day.max() + 1):
        y, n = _sums(frame[frame.day <= day], metric, market.users)
        (la, va), (lb, vb) = ratio(y, n, ~test), ratio(y, n, test)
        z.append((lb - la) / np.sqrt(va + vb))
    return np.array(z)


def boundary(days: int, level: float = 0.05, paths: int = 200_000) -> np.ndarray:
    """O'Brien and Fleming's bounds (Biometrics 1979): |z| beyond them on any of `days` looks happens at `level`."""
    walk = np.random.default_rng(0).normal(size=(paths, days)).cumsum(1) / np.sqrt(days)  # = z_d √(d / days)
    return np.quantile(np.abs(walk).max(1), 1 - level) * np.sqrt(days / np.arange(1, days + 1))


def false_positives(z: np.ndarray, level: float = 0.05) -> pd.DataFrame:
    """Share of A/A runs [days, runs] called a difference by three rules, with its 95 % interval."""
    plain = stats.norm.ppf(1 - level / 2)
    rules = {"one look at the end": np.abs(z[-1]) > plain, "a look each day": (np.abs(z) > plain).any(0),
             "a look each day, O'Brien–Fleming": (np.abs(z) > boundary(len(z), level)[:, None]).any(0)}
    tests = {rule: stats.binomtest(int(hit.sum()), len(hit)) for rule, hit in rules.items()}
    return pd.DataFrame([(rule, t.statistic, *t.proportion_ci(method="wilson")) for rule, t in tests.items()],
                        columns=["rule", "false_positives", "low", "high"])


def power(lift: float, se: float, level: float = 0.05) -> float:
    """Chance that a test whose lift has this standard error calls a true `lift` a difference (normal approximation)."""
    z = stats.norm.ppf(1 - level / 2)
    return float(stats.norm.sf(z - lift / se) + stats.norm.cdf(-z - lift / se))


def users_needed(lift: float, se: float, users: int, level: float = 0.05, wanted: float = 0.8) -> int:
    """Users that give a true `lift` the `wanted` power, where `users` of the same kind give the error `se`."""
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(wanted)
    return int(np.ceil(users * (z * se / lift) ** 2))


# ---------------------------------------------------------------------------------------------- calibration


def reliability(label, p, domain, domains: tuple[str, ...], bins: int = 10) -> pd.DataFrame:
    """Mean prediction and click rate in equally full bins, by domain: domain, predicted, observed, ece.

    ece, the expected calibration error: the mean gap between the two.
    """
    frames = []
    for s, name in enumerate(domains):
        observed, mean = calibration_curve(label[domain == s], p[domain == s], n_bins=bins, strategy="quantile")
        frames.append(pd.DataFrame(dict(domain=name, predicted=mean, observed=observed,
                                        ece=np.abs(observed - mean).mean())))
    return pd.concat(frames, ignore_index=True)


def platt(model, split: Split) -> np.ndarray:
    """Slope and shift [S, 2] that calibrate the model's logits in each domain (Platt 1999), fitted on this split."""
    z = predict(model, split)
    fits = [LogisticRegression(C=1e6).fit(z[split.domain == s, None], split.label[split.domain == s])
            for s in range(len(split.domains))]
    return np.array([(f.coef_[0, 0], f.intercept_[0]) for f in fits])


def distort(p: np.ndarray, slope=1.0, shift=0.0) -> np.ndarray:
    """σ(slope · logit p + shift): slope 2 is too sure of itself, ½ too timid; the order of predictions stays."""
    return expit(slope * logit(np.clip(p, 1e-6, 1 - 1e-6)) + shift)


# ---------------------------------------------------------------------------------------------- day by day


def day_data(data: MultiDomainData, rows: Split, seed: int = 0) -> MultiDomainData:
    """A day's rows as training data; a fifth of each domain's, at random, is validation."""
    order = np.random.default_rng([seed, 5]).permutation(len(rows))
    order = order[np.argsort(rows.domain[order], kind="stable")]
    rank = np.arange(len(rows)) - np.searchsorted(rows.domain[order], rows.domain[order])
    valid = rows.take(order[rank % 5 == 0])
    return replace(data, name="day", train=rows.take(order[rank % 5 > 0]), valid=valid, test=valid)


def main_auc(model, split: Split, s: int) -> float:
    """AUC of one domain's rows, against the clicks that were drawn."""
    part = split.take(np.flatnonzero(split.domain == s))
    return float(grouped_auc(part.label, predict(model, part), np.zeros(len(part), int))[0][0])


def continual(models: Mapping, market: Market, asked: Requests,
              daily: TrainOptions = DAILY) -> dict[str, pd.DataFrame]:
    """Each arm serves a day, then learns from the clicks on what it showed itself, and so on: outcomes by arm.

    The models are trained in place. From the second day on, logs come from the arm's own ranking and no longer from
    the policy that both were first trained on.
    """
    outcomes = {}
    for name, model in models.items():
        days = []
        for day in range(asked.day.max() + 1):
            here = asked.day == day
            today = Requests(*(a[here] for a in asked[:4]), asked.draws[:, here])
            days.append(shown := serve(market, today, predicted(model, market, today)))
            log = rows_of(market, *(shown[c].to_numpy() for c in ("user", "ad", "domain", "ctr")))
            with suppress(DataError):  # a domain without a click, or with nothing else: the model stays as it is
                train(model, day_data(market.data, log, day), replace(daily, seed=day), progress=False)
        outcomes[name] = pd.concat(days, ignore_index=True)
    return outcomes


# ---------------------------------------------------------------------------------------------- false tolerance


def _shifted(rows: Split, rng, data: MultiDomainData) -> Split:
    features, item = rows.features.copy(), data.column("item")
    features[:, item] = features[:, item] % (data.fields[item].size - 1) + 1
    return replace(rows, features=features)


def _late(rows: Split, rng, data: MultiDomainData) -> Split:
    some = rows.take(np.sort(rng.permutation(len(rows))[:len(rows) // 3]))
    return replace(some, label=some.label * (rng.random(len(some)) < 1 / 3))


# What a day's feed of one domain becomes: (rows, rng, data) → rows.
FAULTS: dict[str, Callable] = {
    "labels flipped": lambda rows, rng, data: replace(rows, label=1 - rows.label),
    "labels all zero": lambda rows, rng, data: replace(rows, label=0 * rows.label),
    "rows duplicated": lambda rows, rng, data: rows.take(np.arange(3 * len(rows)) // 3),
    "item ids shifted by one": _shifted,
    "feed delayed": _late,  # a third of the rows and of their clicks has come in
    "feed missing": lambda rows, rng, data: rows.take(np.arange(0)),
    "click rate jumps": lambda rows, rng, data: replace(
        rows, label=np.maximum(rows.label, rng.random(len(rows)) < 0.5).astype(np.float32)),
}
TESTS = ("rows", "click rate", "repeated rows", "contradicting ids", "log loss of the released model")


def draw_day(market: Market, rows: int, rng: np.random.Generator, wobble: float = 0.05) -> list[Split]:
    """About `rows` rows of the logging policy, by domain; traffic and click odds vary by `wobble` from day to day."""
    world, S = market.data.world, len(market.share)
    counts = np.maximum(20, rng.poisson(rows * market.share * rng.lognormal(0, wobble, S)))
    drawn = world.draw(counts, rng)
    p = expit(logit(drawn.truth) + wobble * rng.normal(size=S)[drawn.domain])
    drawn = replace(drawn, label=(rng.random(len(p)) < p).astype(np.float32), domains=market.data.domains)
    return [drawn.take(np.flatnonzero(drawn.domain == s)) for s in range(S)]


def companions(data: MultiDomainData) -> list[tuple[int, int, np.ndarray]]:
    """Fields that the user's or the item's id decides in the training rows: (id's column, column, value by id)."""
    found, X = [], data.train.features
    for key in (data.column("user"), data.column("item")):
        for column in range(X.shape[1]):
            value = np.zeros(data.fields[key].size, X.dtype)
            value[X[:, key]] = X[:, column]
            if column != key and (value[X[:, key]] == X[:, column]).all():
                found.append((key, column, value))
    return found


def health(model, rows: Split, known_by: list) -> np.ndarray:
    """TESTS of one domain's day, [5, 2]: the value, and its variance by sampling alone."""
    n, X = max(len(rows), 1), rows.features
    loss = log_losses(rows.label, predict(model, rows)) if len(rows) else np.zeros(1)
    wrong = np.zeros(len(rows), bool)
    for key, column, value in known_by:
        wrong |= (value[X[:, key]] != X[:, column]) & (value[X[:, key]] > 0)
    repeated = len(rows) - len(np.unique(np.column_stack([X, rows.label]), axis=0)) if len(rows) else 0
    shares = np.array([rows.label.sum(), repeated, wrong.sum()]) / n
    smooth = (shares * n + 1) / (n + 2)
    return np.array([(np.log(n), 1 / n), *zip(shares, smooth * (1 - smooth) / n, strict=True),
                     (loss.mean(), loss.var() / n)])


def abnormal(today: np.ndarray, past: list[np.ndarray], level: float = 0.01) -> list[str]:
    """The TESTS that a domain's day fails beside its past good days; a good day fails any with at most this chance.

    Each value must lie in the t prediction interval of the past values, at level / 5 (Bonferroni); their spread counts
    as no smaller than sampling alone makes it.
    """
    value, sampling = np.moveaxis(np.array(past), 2, 0)  # each [days, 5]
    variance = np.maximum(np.maximum(value.var(0, ddof=1), sampling.mean(0)), today[:, 1]) * (1 + 1 / len(past))
    t = np.abs(today[:, 0] - value.mean(0)) / np.sqrt(variance)
    return [TESTS[i] for i in np.flatnonzero(t > stats.t.ppf(1 - level / 2 / len(TESTS), len(past) - 1))]


def live(model, market: Market, fault: str | None, *, tolerance: bool, domain: int = 2, main: int = 1, days: int = 10,
         when: range = range(3, 6), rows: int = 40_000, asked: Requests | None = None, level: float = 0.01,
         past: int = 10, seed: int = 0, daily: TrainOptions = DAILY) -> pd.DataFrame:
    """Train `model` day by day, in place, with a fault in the feed of `domain` on the days `when`.

    With tolerance a domain whose day is abnormal is left out: its last good day stands in for it. Should the main
    domain's log loss on held-out rows still get worse, the day is rolled back to the last good checkpoint and trained
    once more with the main domain's new rows only. A domain that is normal again comes back.
    The judge of all days is the model as it was released, before the first. Without, whatever
    comes in is trained on, and a day that cannot be trained on is lost.

    Tidy, a row a day: day, auc and gmv (expected, per request of `asked`) of the main domain, auc of the faulty one,
    what the tests said, what was done.
    """
    data, S, rng = market.data, len(market.share), np.random.default_rng([seed, 6])
    known_by, fresh = companions(data), data.world.fresh(20_000)
    asked = asked or requests(market, 5_000, seed=seed)
    before = [draw_day(market, rows, rng) for _ in range(past)]
    judge = deepcopy(model).eval()  # one yardstick for all days
    good, history = before[-1], [[health(judge, day[s], known_by) for day in before] for s in range(S)]
    table = []
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "good.safetensors"
        for day in range(days):
            feed, said, done = draw_day(market, rows, rng), {}, "trained"
            wrong = np.random.default_rng([seed, day, 7])  # of its own: the other rows are the same with every fault
            if fault is not None and day in when:
                feed[domain] = FAULTS[fault](feed[domain], wrong, data)
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, checkpoint)
            if tolerance:
                for s in range(S):
                    today = health(judge, feed[s], known_by)
                    if failed := abnormal(today, history[s], level) if len(feed[s]) else ["rows"]:
                        said[data.domains[s]], feed[s] = failed, good[s]
                    else:
                        history[s] = [*history[s][1 - 2 * past:], today]
                if said:
                    done = f"without {', '.join(said)}"
            try:
                trained = _train(model, data, feed, day, daily)
                if tolerance:
                    held = trained.valid.take(np.flatnonzero(trained.valid.domain == main))
                    if _worse(model, checkpoint, held, level):
                        model.load_state_dict(load_file(checkpoint))
                        feed = [feed[s] if s == main else good[s] for s in range(S)]
                        _train(model, data, feed, day, daily)
                        done = f"rolled back, {data.domains[main]} only"
            except DataError:
                done = "lost"
            good = feed if tolerance else good
            p = predicted(model, market, asked)
            shown = serve(market, asked, p)
            table.append((day, main_auc(model, fresh, main), shown.true_gmv[shown.domain == main].mean(),
                          main_auc(model, fresh, domain), "; ".join(f"{d}: {', '.join(f)}" for d, f in said.items()),
                          done))
    return pd.DataFrame(table, columns=["day", "auc", "gmv", "auc_faulty", "alarm", "done"]).assign(
        fault=fault or "none", tolerance=tolerance)


def _train(model, data: MultiDomainData, feed: list[Split], day: int,
           daily: TrainOptions) -> MultiDomainData:
    rows = Split(*(np.concatenate([getattr(f, c) for f in feed]) for c in ("features", "domain", "label", "user")),
                 data.domains)
    made = day_data(data, rows, day)
    train(model, made, replace(daily, seed=day), progress=False)
    return made


def _worse(model, checkpoint: Path, held: Split, level: float) -> bool:
    """Whether the log loss on `held` is worse than the checkpoint's: a one-sided paired z test."""
    now, weights = predict(model, held), {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(load_file(checkpoint))
    then = predict(model, held)
    model.load_state_dict(weights)
    more = log_losses(held.label, now) - log_losses(held.label, then)
    return bool(more.mean() > stats.norm.ppf(1 - level) * more.std() / np.sqrt(len(more)))


# ---------------------------------------------------------------------------------------------- the committed run


def arms(baselines, folder: Path = RESULTS) -> dict[str, dict]:
    """The best of these baselines on the made world by its committed test AUC, and Crocodile, with their settings."""
    auc = select(of_study("main", folder), "world", "auc").groupby("model").value.mean()
    runs = pd.read_csv(folder / "main.runs.csv", keep_default_na=False).query("data == 'world' and stage == 'final'")
    return {m: json.loads(runs[runs.model == m].settings.iloc[0]) for m in (auc[list(baselines)].idxmax(), "crocodile")}


def trained(name: str, settings: Mapping, data: MultiDomainData, seed: int = 0):
    """The model with these settings of the benchmark, trained on `data`."""
    model = build(name, data, seed=seed, **{k: v for k, v in settings.items() if k not in FIT})
    return fit(model, data, seed=seed, progress=False,
               **{**DEFAULT_FIT, **{k: v for k, v in settings.items() if k in FIT}}).model


def online(folder: Path, baselines, data: Mapping | None = None, count: int = 1_000_000, candidates: int = 20,
           days: int = 14, seed: int = 0, say: Callable = print) -> None:
    """Run it all; write online.csv (the lifts), online.X.csv (one for each further table) and online.json."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, table: pd.DataFrame) -> None:
        write_whole(folder / f"online{name}.csv", lambda p: table.to_csv(p, index=False, float_format="%.6g"))

    made = load("world", **(data or {}))
    place, chosen = market(made, seed), arms(baselines)
    (a, b), models = chosen, {m: trained(m, s, made, seed) for m, s in chosen.items()}
    say(f"trained {a} and {b}")
    asked = requests(place, count, candidates, days, seed)
    scores = {m: predicted(model, place, asked) for m, model in models.items()}
    shown = {m: serve(place, asked, p) for m, p in scores.items()}
    say(f"{count:,} requests served by both")
    test = assign(place.users, seed=seed)
    lifts = pd.concat([compare(shown[a], shown[b], place, who).assign(measured=how)
                       for how, who in (("A/B test", test), ("true, on this traffic", None))])
    write("", lifts.assign(baseline=a, test=b))
    aa = [false_positives(looks(shown[a], place, metric, 2_000, seed)).assign(metric=metric) for metric in METRICS]
    write(".aa", pd.concat(aa))
    errors = lifts.query("domain == 'all' and measured == 'A/B test'").set_index("metric").se
    write(".power", pd.DataFrame([(m, 0.0072, se, place.users, power(0.0072, se), users_needed(0.0072, se, place.users))
                                  for m, se in errors.items()],
                                 columns=["metric", "lift", "se", "users", "power", "users_for_80_percent"]))
    fresh, rows, tables = made.world.fresh(20_000), [], []
    for m, model in models.items():
        seen = {"random ads": (fresh.label, expit(predict(model, fresh)), fresh.domain),
                "ads shown": [shown[m][c].to_numpy() for c in ("ctr", "predicted", "domain")]}
        tables += [reliability(*v, made.domains).assign(model=m, on=on) for on, v in seen.items()]
        slope, shift = platt(model, made.valid)[asked.domain].T[..., None]
        for how, p in (("as trained", scores[m]), ("Platt by domain", distort(scores[m], slope, shift)),
                       ("logits × 2", distort(scores[m], 2)), ("logits × ½", distort(scores[m], 0.5))):
            rows.append((m, how, *serve(place, asked, p)[[f"true_{x}" for x in METRICS]].mean()))
    write(".calibration", pd.concat(tables))
    write(".gmv", pd.DataFrame(rows, columns=["model", "predictions", *METRICS]))
    say("calibration measured")
    few = Requests(*(x[:count // 5] for x in asked[:4]), asked.draws[:, :count // 5])
    few = few._replace(day=np.arange(len(few.day)) * 7 // len(few.day))
    daily = continual({m: deepcopy(model) for m, model in models.items()}, place, few)
    write(".daily", pd.concat([compare(*(daily[m][daily[m].day == d] for m in (a, b)), place).assign(day=d)
                               for d in range(7)]))
    say("continual training done")
    few = Requests(*(x[:20_000] for x in asked[:4]), asked.draws[:, :20_000])
    faults = [live(deepcopy(models[b]), place, fault, tolerance=tolerance, asked=few, seed=seed)
              for fault in (None, *FAULTS) for tolerance in (False, True)]
    write(".faults", pd.concat(faults))
    say("faults done")
    rows = []
    for m, options in (("shared-bottom", {}), *(("crocodile", dict(sets=k)) for k in (1, 2, 5, 8))):
        with TemporaryDirectory() as exported:
            model = build(m, made, **options)
            rows.append((m, options.get("sets", 1), sum(p.numel() for p in model.parameters()),
                         *latency(export(model, made, exported))))
    write(".latency", pd.DataFrame(rows, columns=["model", "sets", "parameters", "p50_ms", "p99_ms"]))
    command = f"croco online --folder data/results --requests {count} --seed {seed}"
    about = dict(command=command, data=made.name, options=made.notes["options"],
                 fingerprint=made.fingerprint, requests=count, candidates=candidates, days=days, seed=seed, arms=chosen,
                 versions=VERSIONS, date=time.strftime("%Y-%m-%d"))
    write_text(folder / "online.json", json.dumps(about, indent=1))
