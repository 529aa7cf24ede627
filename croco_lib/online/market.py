"""A simulated market on the made world. All [ours].

A request has a domain (by its share of the rows), a user and some candidate ads, as that domain shows them. An arm
ranks the ads by bid × predicted click and shows the first. A click comes with the world's true probability, a
purchase after a click with the ad's own rate. *Revenue* is the bid of every click (first price), *GMV* the value of
what was bought. Two arms meet the same requests and the same uniform draws (common random numbers).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from torch import nn

from ..data.world import World
from ..errors import CrocoError, DataError
from ..evaluation import predict
from ..options import TrainOptions
from ..schema import MultiDomainData, Split
from ..training import train

METRICS = ("ctr", "revenue", "gmv")  # each a sum over requests, divided by the number of requests
DAILY = TrainOptions(epochs=2, batch_size=1024, lr=0.01, patience=2)  # a day's training


@dataclass(frozen=True)
class Market:
    """Every ad's `bid` for a click, `value` when bought and `bought` rate after a click [I]; domains' `share` [S]."""

    data: MultiDomainData
    world: World
    bid: np.ndarray
    value: np.ndarray
    bought: np.ndarray
    share: np.ndarray

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.world.user_ids)


class Requests(NamedTuple):
    """N requests in order of arrival: `day`, `domain`, `user` [N], `ads` [N, C] (0-based), uniform `draws` [2, N]."""

    day: np.ndarray
    domain: np.ndarray
    user: np.ndarray
    ads: np.ndarray
    draws: np.ndarray

    def take(self, which: np.ndarray | slice) -> "Requests":
        """These requests only."""
        return Requests(self.day[which], self.domain[which], self.user[which], self.ads[which], self.draws[:, which])


def make_market(data: MultiDomainData, seed: int = 0) -> Market:
    """The market over the world behind `data`; bids lie around half of what a click is worth on average."""
    if data.world is None:
        raise CrocoError(f"A market draws clicks from the truth, and that of {data.name} is not known. Load 'world'.")
    rng, ads = np.random.default_rng([seed, 2]), len(data.world.item_ids)
    value, bought = rng.lognormal(3, 0.4, ads), rng.beta(8, 152, ads)
    share = np.bincount(data.train.domain, minlength=len(data.domains)) / len(data.train)
    return Market(data, data.world, 0.5 * value * bought * rng.lognormal(0, 0.3, ads), value, bought, share)


def draw_requests(market: Market, count: int, candidates: int = 20, days: int = 1, seed: int = 0) -> Requests:
    """`count` requests over equally long days, domains by their long-tailed share."""
    world, rng = market.world, np.random.default_rng([seed, 3])
    domain = rng.choice(len(market.share), count, p=market.share)
    user, ads = np.empty(count, np.int64), np.empty((count, candidates), np.int32)
    for s in range(len(market.share)):
        here = np.flatnonzero(domain == s)
        user[here] = rng.choice(market.users, len(here), p=world.user_p[s])
        ads[here] = rng.choice(len(world.item_ids), (len(here), candidates), p=world.item_p[s])
    return Requests(np.arange(count) * days // count, domain, user, ads, rng.random((2, count)))


def code_rows(
    market: Market, user: np.ndarray, ad: np.ndarray, domain: np.ndarray, label: np.ndarray | None = None
) -> Split:
    """Coded rows of 0-based users and ads, with the truth."""
    rows = market.world.rows(domain, user, ad, np.ones(len(user)))  # a luck of 1: no row is clicked
    return rows if label is None else replace(rows, label=label.astype(np.float32))


def predict_candidates(model: nn.Module, market: Market, requests: Requests) -> np.ndarray:
    """The model's click probability of every candidate, float32 [N, C]; each (domain, user, ad) is scored once."""
    ads = len(market.bid)
    key = (requests.domain * market.users + requests.user)[:, None] * ads + requests.ads
    key, where = np.unique(key, return_inverse=True)
    pair, ad = np.divmod(key, ads)
    domain, user = np.divmod(pair, market.users)
    parts = [
        predict(model, code_rows(market, *(a[i : i + (1 << 20)] for a in (user, ad, domain))))
        for i in range(0, len(key), 1 << 20)
    ]
    return expit(np.concatenate(parts))[where]  # [N, C], the shape of what `unique` was given


def serve(market: Market, requests: Requests, p: np.ndarray) -> pd.DataFrame:
    """What an arm with these predictions gets from each request: the ad shown, what was predicted, what happened.

    ctr, revenue and gmv as drawn; true_ctr, true_revenue, true_gmv as expected.
    """
    rows = np.arange(len(p))
    best = (market.bid[requests.ads] * p).argmax(1)
    ad = requests.ads[rows, best]
    truth = market.world.probability(requests.user, ad, requests.domain)
    click = requests.draws[0] < truth
    buy = click & (requests.draws[1] < market.bought[ad])
    return pd.DataFrame(
        dict(
            day=requests.day,
            domain=requests.domain,
            user=requests.user,
            ad=ad,
            predicted=p[rows, best],
            ctr=click.astype(float),
            revenue=click * market.bid[ad],
            gmv=buy * market.value[ad],
            true_ctr=truth,
            true_revenue=truth * market.bid[ad],
            true_gmv=truth * market.bought[ad] * market.value[ad],
        )
    )


def day_data(data: MultiDomainData, rows: Split, seed: int = 0) -> MultiDomainData:
    """A day's rows as training data; a fifth of each domain's, at random, is validation."""
    order = np.random.default_rng([seed, 5]).permutation(len(rows))
    order = order[np.argsort(rows.domain[order], kind="stable")]
    rank = np.arange(len(rows)) - np.searchsorted(rows.domain[order], rows.domain[order])
    valid = rows.take(order[rank % 5 == 0])
    return replace(data, name="day", train=rows.take(order[rank % 5 > 0]), valid=valid, test=valid, stored=None)


def train_continually(models: Mapping[str, nn.Module], market: Market, requests: Requests) -> dict[str, pd.DataFrame]:
    """Each arm serves a day, then learns from the clicks on what it showed itself, and so on: outcomes by arm.

    The models are trained in place. From the second day on, logs come from the arm's own ranking and no longer from
    the policy that both were first trained on.
    """
    outcomes = {}
    for name, model in models.items():
        days = []
        for day in range(requests.day.max() + 1):
            today = requests.take(requests.day == day)
            days.append(shown := serve(market, today, predict_candidates(model, market, today)))
            log = code_rows(market, *(shown[c].to_numpy() for c in ("user", "ad", "domain", "ctr")))
            with suppress(DataError):  # a domain without a click, or with nothing else: the model stays as it is
                train(model, day_data(market.data, log, day), replace(DAILY, seed=day), progress=False)
        outcomes[name] = pd.concat(days, ignore_index=True)
    return outcomes
