"""The made world: multi-domain clicks whose truth is known.

Users and items have K independent interest *facets*, vectors u_k and v_k. A domain s weighs the facets its own way:

    logit_s(u, v) = b_s + strength · Σ_k w_sk ⟨u_k, v_k⟩,     P(click) = (1 − noise) · σ(logit_s) + noise · rate_s

so two domains can order the same items differently for the same user. The weights turn from common to unrelated:
w_s = cos(conflict · π/2) · w_0 + sin(conflict · π/2) · w̃_s, all of unit length. All of this is ours, not the paper's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from ..errors import CrocoError
from ..metrics import evaluate_scores
from ..schema import Field, MultiDomainData, Split
from .splits import split_random

# KuaiRand: tab, its rows in KuaiRand-1K, its click rate in the last 14 days of KuaiRand-Pure.
TABS = {
    "tab 0": (2_407_352, 0.0857),
    "tab 1": (7_760_237, 0.4939),
    "tab 2": (895_385, 0.4805),
    "tab 4": (402_366, 0.5960),
    "tab 6": (183_403, 0.1486),
}
FACET_DIM = 2  # length of u_k and v_k
BETWEEN = 0.7  # share of the facets' variance that lies between user groups, and between authors
GROUPS, CATEGORIES, ITEMS_PER_AUTHOR = 50, 20, 10
RANGES = {  # what `make_world` takes, both ends included
    "rows": (1_000, np.inf),
    "users": (GROUPS, np.inf),
    "items": (ITEMS_PER_AUTHOR, np.inf),
    "facets": (1, 64),
    "conflict": (0, 1),
    "tail": (0, 3),
    "noise": (0, 1),
    "strength": (0, 10),
    "seed": (0, np.inf),
}


@dataclass(frozen=True)
class World:
    """The truth: `users` [K, U, r] and `items` [K, I, r] facets, `weights` [S, K] (strength · w_s), `bias` and click
    `rates` [S].

    Row j of `users` and `items` is id j + 1 in the coded data. `user_ids` [U, 3] and `item_ids` [I, 3] are the coded
    fields of each; `user_p` [S, U] and `item_p` [S, I] say how often a domain shows them.
    """

    users: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    rates: np.ndarray
    noise: float
    user_ids: np.ndarray
    item_ids: np.ndarray
    user_p: np.ndarray
    item_p: np.ndarray

    @property
    def fields(self) -> tuple[Field, ...]:
        """The seven fields of the rows: three of the user, three of the item, and the domain."""
        of_user = {"user": len(self.user_ids), "group": GROUPS, "activity": 10}
        of_item = {"item": len(self.item_ids), "author": int(self.item_ids[:, 1].max()), "category": CATEGORIES}
        sizes = (of_user | of_item).items()
        known = [Field(n, size + 1, n if n in ("user", "item") else "", np.arange(size)) for n, size in sizes]
        return (*known, Field("domain", len(TABS) + 1, "domain", np.array(list(TABS))))

    def affinity(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """⟨u_k, v_k⟩ for pairs of 0-based rows; float [K, N], about unit variance."""
        return np.einsum("knr,knr->kn", self.users[:, user], self.items[:, item])

    def probability(self, user: np.ndarray, item: np.ndarray, domain: np.ndarray) -> np.ndarray:
        """The true click probability, float [N]."""
        logit = self.bias[domain] + (self.weights[domain].T * self.affinity(user, item)).sum(0)
        return (1 - self.noise) * expit(logit) + self.noise * self.rates[domain]

    def pairs(self, s: int, count: int, who: np.random.Generator, what: np.random.Generator) -> tuple[np.ndarray, ...]:
        """`count` users and items as domain s shows them, 0-based: users drawn from `who`, then items from `what`."""
        user = who.choice(len(self.user_ids), count, p=self.user_p[s])
        return user, what.choice(len(self.item_ids), count, p=self.item_p[s])

    def rows(self, s: np.ndarray, user: np.ndarray, item: np.ndarray, luck: np.ndarray) -> Split:
        """Rows of 0-based users and items in the domains `s`, clicked where `luck` is below the truth. All [N]."""
        p = self.probability(user, item, s)
        features = np.column_stack([self.user_ids[user], self.item_ids[item], s + 1]).astype(np.int32)  # [N, 7]
        return Split(features, s, (luck < p).astype(np.float32), user, tuple(TABS), p)

    def draw(self, counts: np.ndarray, rng: np.random.Generator) -> Split:
        """New rows, `counts[s]` in domain s, clicks drawn from the truth."""
        user, item = np.concatenate([self.pairs(s, n, rng, rng) for s, n in enumerate(counts)], 1)
        return self.rows(np.repeat(np.arange(len(counts)), counts), user, item, rng.random(counts.sum()))

    def fresh(self, rows: int = 5_000, seed: int = 0) -> Split:
        """A new test set with as many rows in every domain, so that a small domain is measured as well as a large."""
        return self.draw(np.full(len(self.weights), rows), np.random.default_rng([seed, 1]))


def shares(tail: float) -> np.ndarray:
    """Domain shares: KuaiRand's to the power `tail`, summing to 1. 0: all alike; 1: KuaiRand's; 2: longer still."""
    raw = np.array([rows for rows, _ in TABS.values()], float) ** tail
    return raw / raw.sum()


def oracle(split: Split) -> pd.DataFrame:
    """The AUC that the true click probability reaches, overall and per domain: domain, metric, value."""
    if split.truth is None:
        raise CrocoError("oracle: the true click probability of these rows is not known; the made world has it.")
    table = evaluate_scores(split.label, split.truth, split.domain, split.user, split.domains)
    return table.loc[table.metric == "auc", ["domain", "metric", "value"]].reset_index(drop=True)


def unit(w: np.ndarray) -> np.ndarray:
    """The vectors along the last axis at length 1."""
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


def draw_facets(rng: np.random.Generator, users: int, items: int, facets: int) -> tuple[np.ndarray, ...]:
    """U [K, U, r] and V [K, I, r], the group of each user, and the author and category of each item.

    Users come in groups and items from authors, so that those fields tell something of the facets too.
    """
    group = rng.integers(GROUPS, size=users)
    author = rng.integers(max(1, items // ITEMS_PER_AUTHOR), size=items)
    between, within, r = np.sqrt(BETWEEN), np.sqrt(1 - BETWEEN), FACET_DIM
    U = between * rng.normal(size=(facets, GROUPS, r))[:, group] + within * rng.normal(size=(facets, users, r))
    V = between * rng.normal(size=(facets, author.max() + 1, r))[:, author]
    V = (V + within * rng.normal(size=(facets, items, r))) / np.sqrt(r)  # so that ⟨u_k, v_k⟩ has unit variance
    prototypes = V[:, rng.choice(items, CATEGORIES)]
    return U, V, group, author, np.einsum("kir,kcr->ic", V, prototypes).argmax(1)


def draw_world(
    rng: np.random.Generator,
    rows: int,
    users: int,
    items: int,
    facets: int,
    conflict: float,
    noise: float,
    strength: float,
) -> World:
    """The truth behind a world: its facets, the domains' weights, who comes and what is shown, and the biases."""
    from scipy.optimize import brentq  # here, for reading a log needs none of it

    S = len(TABS)
    U, V, group, author, category = draw_facets(rng, users, items, facets)
    angle = conflict * np.pi / 2
    common, own = unit(rng.normal(size=facets)), unit(rng.normal(size=(S, facets)))
    weights = strength * unit(np.cos(angle) * common + np.sin(angle) * own)

    # Who comes and what is shown: long tails, tilted by domain, so that users and items overlap only in part.
    def popularity(count: int, exponent: float) -> np.ndarray:
        p = rng.permutation(np.arange(1.0, count + 1) ** -exponent) * rng.lognormal(sigma=1.0, size=(S, count))
        return p / p.sum(1, keepdims=True)

    user_p, item_p = popularity(users, 0.6), popularity(items, 0.8)
    activity = np.minimum(9, np.log2(1 + rows * user_p.mean(0))).astype(int)
    user_ids = np.column_stack([np.arange(users), group, activity]) + 1  # [U, 3]
    item_ids = np.column_stack([np.arange(items), author, category]) + 1  # [I, 3]
    rates = np.array([rate for _, rate in TABS.values()])
    truth = World(U, V, weights, np.zeros(S), rates, noise, user_ids, item_ids, user_p, item_p)
    for s in range(S):  # the bias that gives the domain its click rate
        z = weights[s] @ truth.affinity(*truth.pairs(s, 50_000, rng, rng))
        truth.bias[s] = brentq(lambda b, z=z, s=s: expit(b + z).mean() - rates[s], -20, 20)
    return truth


def begin_world(rows: int, tail: float, seed: int, **options: Any) -> tuple[World, np.ndarray, np.random.Generator]:
    """The truth, the number of rows in every domain [S], and the generator that is to draw them. See `make_world`."""
    for name, value in dict(options, rows=rows, tail=tail, seed=seed).items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise CrocoError(f"world: {name} must lie between {low} and {high}, not {value}.")
    rng = np.random.default_rng(seed)
    truth = draw_world(rng, rows, **options)
    counts = np.maximum(1, np.round(rows * shares(tail)).astype(int))
    counts[counts.argmax()] += rows - counts.sum()
    return truth, counts, rng


def notes_on(rows: int, **options: Any) -> dict[str, object]:
    """What a reader of the world is told of its rows."""
    return {
        "rows": rows,
        "split": "random 80/10/10",
        "unknown id 0": "never used: every id is known",
        "options": options,
    }


def make_world(
    rows: int = 400_000,
    users: int = 2_000,
    items: int = 4_000,
    facets: int = 4,
    conflict: float = 0.7,
    tail: float = 1.0,
    noise: float = 0.05,
    strength: float = 2.0,
    seed: int = 0,
) -> MultiDomainData:
    """The made world as MultiDomainData: seven fields, five domains with KuaiRand's shares and click rates.

    `conflict` in [0, 1]: 0, all domains weigh the facets alike; 1, unrelated weights. `tail` ≥ 0: how long-tailed the
    domain sizes are. `noise` in [0, 1]: the share of clicks that are the domain's coin toss. `strength`: the standard
    deviation of the logit within a domain. Raises CrocoError for a value out of its range.
    """
    options: dict[str, Any] = dict(
        users=users, items=items, facets=facets, conflict=conflict, tail=tail, noise=noise, strength=strength, seed=seed
    )
    truth, counts, rng = begin_world(rows, **options)
    everything, part = truth.draw(counts, rng), split_random(rows, seed)
    train, valid, test = (everything.take(np.flatnonzero(part == i)) for i in range(3))
    return MultiDomainData("world", truth.fields, tuple(TABS), train, valid, test, notes_on(rows, **options), truth)
