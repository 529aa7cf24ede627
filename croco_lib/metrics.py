"""Measures of ranking (AUC, gAUC, log loss) and of disentanglement (covariance, correlation, IA, DI, recovery)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from .errors import CrocoError

# gAUC is not measured on fewer users with both classes [ours]: the AUC of a user with a handful of rows is little more
# than a coin, with a standard deviation of .3 to .5, so that the mean of 30 of them still has one of .05 to .09, about
# what tells a model from chance; on one or two users it is 0, ½ or 1 by luck.
MIN_USERS = 30

# ---------------------------------------------------------------------------------------------- ranking


def grouped_auc(label: np.ndarray, score: np.ndarray, group: np.ndarray,
                groups: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """AUC within each group. `label` 0/1 [N], `score` [N], `group` int [N] from 0, below `groups`.

    Returns the AUC [G], NaN (not defined) where a group has one class, and its rows [G]. Ties count a half. One sort:
    group, score and label are packed in 64 bits, which orders 10 M rows in about a second.
    """
    label, score, group = np.asarray(label), np.asarray(score), np.asarray(group)
    if not len(label) == len(score) == len(group):
        raise CrocoError(f"AUC: {len(label)} labels, {len(score)} scores and {len(group)} groups are not one each.")
    if not np.isfinite(score).all():
        raise CrocoError(f"AUC: {np.count_nonzero(~np.isfinite(score))} scores are NaN or infinite; "
                         "training diverged, try a smaller learning rate.")
    if not np.isin(label, (0, 1)).all():
        raise CrocoError("AUC: labels must be 0 or 1.")
    groups = groups or (int(group.max()) + 1 if len(group) else 0)
    if not len(label):
        return np.full(groups, np.nan), np.zeros(groups, np.int64)
    if score.dtype == np.float32:
        bits = (score + np.float32(0)).view(np.uint32)  # + 0 makes −0 equal 0
        order = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # orders as the floats do
    else:
        order = np.unique(score, return_inverse=True)[1].astype(np.uint32)
    if group.min() < 0 or group.max() >= groups or groups > 1 << 31:
        raise CrocoError("AUC: groups must be numbered from 0, below `groups`, and be fewer than 2^31.")
    key = np.sort(group.astype(np.uint64) << 33 | order.astype(np.uint64) << 1 | label.astype(np.uint64))
    positive = (key & 1).astype(np.int64)
    tie_end = np.flatnonzero(np.append(key[1:] >> 1 != key[:-1] >> 1, True))  # a run of equal (group, score) ends here
    seen = np.diff(np.cumsum(positive)[tie_end], prepend=0)  # positives in each run
    size = np.diff(tie_end, prepend=-1)
    of = (key[tie_end] >> 33).astype(np.int64)  # the run's group
    first = np.flatnonzero(np.diff(of, prepend=-1))  # the first run of each group
    negatives = np.cumsum(size - seen)
    before = negatives - (size - seen)  # negatives in all runs before
    before -= np.repeat(before[first], np.diff(np.append(first, len(of))))  # … of the same group
    wins = np.add.reduceat(seen * (before + 0.5 * (size - seen)), first)
    P, rows = np.add.reduceat(seen, first), np.add.reduceat(size, first)
    auc, count = np.full(groups, np.nan), np.zeros(groups, np.int64)
    defined = (P > 0) & (rows > P)
    auc[of[first[defined]]] = wins[defined] / (P * (rows - P))[defined]
    count[of[first]] = rows
    return auc, count


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, from logits."""
    logit = np.asarray(logit, np.float64)
    return float((np.logaddexp(0, logit) - label * logit).mean()) if len(logit) else float("nan")


def evaluate_scores(label, logit, domain, user, domains: tuple[str, ...], min_users: int = MIN_USERS) -> pd.DataFrame:
    """AUC, gAUC and log loss, overall and per domain, as a tidy frame: domain, metric, value, rows, note.

    gAUC: AUC within each user, averaged with the user's rows as weight, users with one class left out; not measured on
    fewer than `min_users` users with both. Where a metric is not defined or not measured its value is NaN and `note`
    says why.
    """
    label, logit, domain = np.asarray(label), np.asarray(logit), np.asarray(domain)
    user = np.unique(user, return_inverse=True)[1]
    users, S = int(user.max()) + 1 if len(user) else 0, len(domains)

    def weighted(auc: np.ndarray, rows: np.ndarray) -> tuple[float, str]:
        """gAUC, and why there is none."""
        two = ~np.isnan(auc)
        if not two.any():
            return float("nan"), "not defined: no user with both classes"
        if (count := int(two.sum())) < min_users:
            users = "1 user" if count == 1 else f"{count} users"
            return float("nan"), f"not measured: only {users} with both classes ({min_users} needed)"
        return float(np.average(auc[two], weights=rows[two])), ""

    zero = np.zeros(len(label), int)
    overall = grouped_auc(label, logit, zero)[0]
    by_domain = grouped_auc(label, logit, domain, S)[0]
    in_user, in_rows = grouped_auc(label, logit, domain.astype(np.int64) * users + user, S * users)
    records = []
    for s, name in enumerate(("all", *domains), start=-1):
        here = slice(None) if s < 0 else domain == s
        rows = len(label) if s < 0 else int(here.sum())
        auc = (overall[0] if rows else float("nan")) if s < 0 else by_domain[s]
        gauc, why = (weighted(*grouped_auc(label, logit, user)) if s < 0
                     else weighted(in_user[s * users:(s + 1) * users], in_rows[s * users:(s + 1) * users]))
        for metric, value, note in (("auc", auc, "not defined: one class"), ("gauc", gauc, why),
                                    ("logloss", log_loss(label[here], logit[here]), "")):
            note = "" if np.isfinite(value) else note if rows else "not defined: no rows"
            records.append((name, metric, float(value), rows, note))
    return pd.DataFrame(records, columns=["domain", "metric", "value", "rows", "note"])


def domain_mean(table: pd.DataFrame, metric: str = "auc") -> tuple[float, str]:
    """Mean of the metric over the domains, each counting alike, and a note of how many entered.

    `table` as `evaluate_scores` returns it. Domains without a value are left out; which they are depends on the rows,
    not on the model, so models measured on the same rows compare. NaN where no domain has one.
    """
    values = table.loc[(table.metric == metric) & (table.domain != "all"), "value"].to_numpy(float)
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan"), f"mean of {len(there)} of {len(values)} domains"


def pair_shares(label: np.ndarray, domain: np.ndarray) -> tuple[np.ndarray, float]:
    """Of all pairs of a positive and a negative row: the share within each domain [S], and the share across domains.

    The overall AUC is the mean over these pairs, so the last share of it says how domains are ordered, not rows within
    one. `label` 0/1 [N], `domain` int [N] from 0. NaN where there is no such pair.
    """
    label, domain = np.asarray(label), np.asarray(domain)
    positive = np.bincount(domain, weights=label)
    negative = np.bincount(domain, weights=1.0 - label)
    pairs = positive.sum() * negative.sum()
    within = positive * negative / pairs if pairs else np.full(len(positive), np.nan)
    return within, float(1 - within.sum())


def auc_of_weights(label: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The AUC as a function of the rows' weights: weights [..., N] → AUC [...], NaN without weight on both classes.

    `label` 0/1 [N], `score` [N]. Sorts once, however many weightings follow. Ties count a half. As scikit-learn's
    `roc_auc_score(label, score, sample_weight=weights)`.
    """
    order = np.argsort(score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(np.asarray(score)[order]) != 0, True))[:len(order)]  # … of runs of ties
    positive_row = np.asarray(label)[order] == 1

    def auc(weight: np.ndarray) -> np.ndarray:
        weight = np.asarray(weight, float)[..., order]
        positive = np.cumsum(weight * positive_row, -1)[..., ends]  # up to the end of each run
        negative = np.cumsum(weight * ~positive_row, -1)[..., ends]
        below = negative - np.diff(negative, prepend=0.0) / 2  # half of the run's own
        wins = (np.diff(positive, prepend=0.0) * below).sum(-1)
        pairs = positive[..., -1] * negative[..., -1]
        return np.divide(wins, pairs, out=np.full(np.shape(pairs), np.nan), where=np.asarray(pairs > 0))

    return auc


# ---------------------------------------------------------------------------------------------- disentanglement


def covariance_matrix(experts: np.ndarray) -> np.ndarray:
    """Covariance of all output dimensions of all experts: [M, N, d] → [M·d, M·d]."""
    M, N, d = experts.shape
    return np.cov(np.moveaxis(experts, 0, 1).reshape(N, M * d), rowvar=False).reshape(M * d, M * d)


def correlation_matrix(experts: np.ndarray) -> np.ndarray:
    """Correlation of all output dimensions of all experts: [M, N, d] → [M·d, M·d]; 0 where a dimension is constant."""
    C = covariance_matrix(experts)
    std = np.sqrt(np.diag(C))
    scale = np.outer(std, std)
    return np.divide(C, scale, out=np.zeros_like(C), where=scale > 1e-12)


def cross_blocks(matrix: np.ndarray, experts: int) -> np.ndarray:
    """The entries of [M·d, M·d] that belong to pairs of different experts p > q, flat; empty for one expert."""
    expert = np.arange(experts).repeat(len(matrix) // experts)
    return matrix[expert[:, None] > expert[None, :]]


def cross_correlation(experts: np.ndarray) -> float:
    """Mean absolute correlation between dimensions of different experts; NaN for one expert."""
    blocks = cross_blocks(correlation_matrix(experts), len(experts))
    return float(np.abs(blocks).mean()) if blocks.size else float("nan")


def singular_values(table: np.ndarray) -> np.ndarray:
    """Singular values of [V, e], largest first, by way of the small e × e product, so that V may be millions."""
    table = np.asarray(table, np.float64)
    return np.sqrt(np.clip(np.linalg.eigvalsh(table.T @ table)[::-1], 0, None))


def information_abundance(table: np.ndarray) -> float:
    """IA(E) = Σ singular values / the largest one, between 1 (one dimension) and e (Guo et al., ICML 2024)."""
    values = singular_values(table)
    return float(values.sum() / values[0]) if values[0] > 0 else float("nan")


def information_abundance_at(table: np.ndarray, rows: int, repeats: int = 20, seed: int = 0) -> float:
    """Mean IA over `repeats` random subsets of `rows` rows of [V, e], each drawn without replacement.

    IA grows with a table's rows, even a random one's, so tables of unlike size are compared at equal rows. Raises
    CrocoError for more rows than the table has, or fewer than one.
    """
    if not 1 <= rows <= len(table):
        raise CrocoError(f"information abundance at {rows} rows of a table of {len(table)}: from 1 to all of them.")
    if rows == len(table):
        return information_abundance(table)
    rng = np.random.default_rng(seed)
    return float(np.mean([information_abundance(table[rng.choice(len(table), rows, replace=False)])
                          for _ in range(repeats)]))


def gate_entropy(gate: np.ndarray) -> float:
    """Mean entropy of the gate's weights over the experts, in shares of log M: 1, all alike; 0, one expert only."""
    if len(gate) == 1:
        return float("nan")
    return float(-(gate * np.log(np.maximum(gate, 1e-12))).sum(0).mean() / np.log(len(gate)))


def user_pairs(user: np.ndarray, domain: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` pairs of different rows with the same user and domain, drawn with replacement: int [2, count]."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((domain, user))
    change = (np.diff(user[order]) != 0) | (np.diff(domain[order]) != 0)
    block = np.concatenate([[0], np.cumsum(change)])
    size = np.bincount(block)[block]  # rows in each row's block
    start = np.searchsorted(block, block)
    many = np.flatnonzero(size > 1)
    if not len(many):
        raise CrocoError("No user has two rows in one domain, so preference conflicts are not defined.")
    a = rng.choice(many, count)
    b = start[a] + (a - start[a] + rng.integers(1, size[a])) % size[a]
    return order[np.stack([a, b])]


def diversity_index(scores: np.ndarray, pairs: np.ndarray, read: np.ndarray | None = None) -> float:
    """DI [ours: the paper's exact form is not known]: how often two experts disagree on a triple (user, a, b).

    `scores` [M, N] is each expert's own score of each row, `pairs` [2, T] rows of one user in one domain. Experts p and
    q conflict when p puts a above b and q puts b above a. The share of conflicts is over all triples and all pairs
    of experts, so it does not grow with M; two that toss coins have ½. With `read` [M, N], only experts that the row's
    tower reads count. 0 where no tower reads two.
    """
    sign = np.sign(scores[:, pairs[0]] - scores[:, pairs[1]]).astype(np.int8)  # [M, T]
    open_ = np.ones_like(sign, bool) if read is None else read[:, pairs[0]] & read[:, pairs[1]]
    conflicts = counted = 0
    for p in range(len(sign)):
        for q in range(p):
            both = open_[p] & open_[q]
            counted += int(both.sum())
            conflicts += int(((sign[p] * sign[q] < 0) & both).sum())
    return conflicts / counted if counted else 0.0


def recovery(sets: np.ndarray, facets: np.ndarray) -> tuple[pd.DataFrame, float]:
    """Which representation holds which true facet: `sets` [M, I, e], `facets` [K, I, r] of the same I items or rows.

    Returns a tidy frame (set, facet, r2: how well a linear map of the set predicts the facet, five-fold
    cross-validated, not below 0; matched: whether the best one-to-one matching pairs the two) and a score: the mean r2
    of the matched pairs minus the mean of the rest.
    """
    r2 = np.array([[max(0.0, cross_val_score(LinearRegression(), E, facet, cv=5, scoring="r2").mean())
                    for facet in facets] for E in sets])
    rows, columns = linear_sum_assignment(-r2)
    matched = np.zeros_like(r2, bool)
    matched[rows, columns] = True
    rest = r2[~matched].mean() if (~matched).any() else 0.0
    frame = pd.DataFrame([(f"set {m + 1}", f"facet {k + 1}", r2[m, k], matched[m, k]) for m in range(len(sets))
                          for k in range(len(facets))], columns=["set", "facet", "r2", "matched"])
    return frame, float(r2[matched].mean() - rest)
