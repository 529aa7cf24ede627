"""Measures of ranking: AUC, gAUC and log loss, overall and by domain."""

import numpy as np
import pandas as pd

from ..errors import CrocoError

# gAUC is not measured on fewer users with both classes [ours]: the AUC of a user with a handful of rows is little more
# than a coin, with a standard deviation of .3 to .5, so that the mean of 30 of them still has one of .05 to .09, about
# what tells a model from chance; on one or two users it is 0, ½ or 1 by luck.
MIN_USERS = 30


def grouped_auc(
    label: np.ndarray, score: np.ndarray, group: np.ndarray, groups: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUC within each group. `label` 0/1 [N], `score` [N], `group` int [N] from 0, below `groups`.

    Returns the AUC [G], NaN (not defined) where a group has one class, and its rows [G]. Ties count a half. Raises
    CrocoError for scores that are not finite, labels that are not 0 or 1, and groups out of range.
    """
    label, score, group = np.asarray(label), np.asarray(score), np.asarray(group)
    if not len(label) == len(score) == len(group):
        raise CrocoError(f"AUC: {len(label)} labels, {len(score)} scores and {len(group)} groups are not one each.")
    if not np.isfinite(score).all():
        raise CrocoError(
            f"AUC: {np.count_nonzero(~np.isfinite(score))} scores are NaN or infinite; "
            "training diverged, try a smaller learning rate."
        )
    if not np.isin(label, (0, 1)).all():
        raise CrocoError("AUC: labels must be 0 or 1.")
    groups = groups or (int(group.max()) + 1 if len(group) else 0)
    if not len(label):
        return np.full(groups, np.nan), np.zeros(groups, np.int64)
    if score.dtype == np.float32:
        # The bits of a float, its sign turned, order as the floats do. Adding 0 makes −0 equal to 0.
        bits = (score + np.float32(0)).view(np.uint32)
        order = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    else:
        order = np.unique(score, return_inverse=True)[1].astype(np.uint32)
    if group.min() < 0 or group.max() >= groups or groups > 1 << 31:
        raise CrocoError("AUC: groups must be numbered from 0, below `groups`, and be fewer than 2^31.")
    # One sort does it all: group, score and label packed in 64 bits order 10 M rows in about a second.
    key = np.sort(group.astype(np.uint64) << 33 | order.astype(np.uint64) << 1 | label.astype(np.uint64))
    positive = (key & 1).astype(np.int64)
    tie_end = np.flatnonzero(np.append(key[1:] >> 1 != key[:-1] >> 1, True))  # a run of equal (group, score) ends here
    positives = np.diff(np.cumsum(positive)[tie_end], prepend=0)  # in each run
    negatives = np.diff(tie_end, prepend=-1) - positives
    run_group = (key[tie_end] >> 33).astype(np.int64)
    first = np.flatnonzero(np.diff(run_group, prepend=-1))  # the first run of each group
    below = np.cumsum(negatives) - negatives  # negatives in all runs before
    below -= np.repeat(below[first], np.diff(np.append(first, len(run_group))))  # … of the same group
    # A positive wins over every negative below it, and ties are won by half.
    wins = np.add.reduceat(positives * (below + 0.5 * negatives), first)
    P, N = np.add.reduceat(positives, first), np.add.reduceat(negatives, first)
    auc, count = np.full(groups, np.nan), np.zeros(groups, np.int64)
    defined = (P > 0) & (N > 0)
    auc[run_group[first[defined]]] = wins[defined] / (P * N)[defined]
    count[run_group[first]] = P + N
    return auc, count


def log_losses(label: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each row in nats, from logits: log(1 + e^z) − y z, [N]; exact however large z is."""
    return np.logaddexp(0, logit) - label * logit


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, from logits [N]; NaN for no rows."""
    return float(log_losses(label, np.asarray(logit, np.float64)).mean()) if len(logit) else float("nan")


def _gauc(auc: np.ndarray, rows: np.ndarray, min_users: int) -> tuple[float, str]:
    """The mean of the users' AUC [U] weighed by their rows [U], and a note why there is none."""
    both = ~np.isnan(auc)  # users with both classes
    if not both.any():
        return float("nan"), "not defined: no user with both classes"
    if (count := int(both.sum())) < min_users:
        users = "1 user" if count == 1 else f"{count} users"
        return float("nan"), f"not measured: only {users} with both classes ({min_users} needed)"
    return float(np.average(auc[both], weights=rows[both])), ""


def evaluate_scores(
    label: np.ndarray,
    logit: np.ndarray,
    domain: np.ndarray,
    user: np.ndarray,
    domains: tuple[str, ...],
    min_users: int = MIN_USERS,
) -> pd.DataFrame:
    """AUC, gAUC and log loss, overall and per domain, as a tidy frame: domain, metric, value, rows, note.

    `label` 0/1, `logit`, `domain` int from 0 and `user`, all [N]. gAUC is the AUC within each user, averaged with the
    user's rows as weight; users with one class are left out, and it is not measured on fewer than `min_users` users
    with both. Where a metric is not defined or not measured its value is NaN and `note` says why.
    """
    label, logit, domain = np.asarray(label), np.asarray(logit), np.asarray(domain)
    user = np.unique(user, return_inverse=True)[1]
    users, S = int(user.max()) + 1 if len(user) else 0, len(domains)
    overall = grouped_auc(label, logit, np.zeros(len(label), int))[0]
    by_domain = grouped_auc(label, logit, domain, S)[0]
    # A group for each pair of a domain and a user, so that one sort serves all domains' gAUC.
    in_user, in_rows = grouped_auc(label, logit, domain.astype(np.int64) * users + user, S * users)
    records = []
    for s, name in enumerate(("all", *domains), start=-1):
        if s < 0:
            here, rows, auc = slice(None), len(label), overall[0] if len(label) else float("nan")
            gauc, why = _gauc(*grouped_auc(label, logit, user), min_users)
        else:
            here, own, auc = domain == s, slice(s * users, (s + 1) * users), by_domain[s]
            rows = int(here.sum())
            gauc, why = _gauc(in_user[own], in_rows[own], min_users)
        for metric, value, note in (
            ("auc", auc, "not defined: one class"),
            ("gauc", gauc, why),
            ("logloss", log_loss(label[here], logit[here]), ""),
        ):
            note = "" if np.isfinite(value) else note if rows else "not defined: no rows"
            records.append((name, metric, float(value), rows, note))
    return pd.DataFrame(records, columns=["domain", "metric", "value", "rows", "note"])


def domain_mean(table: pd.DataFrame, metric: str = "auc") -> tuple[float, str]:
    """Mean of the metric over the domains, each counting alike, and a note of how many domains have entered it.

    `table` as `evaluate_scores` returns it. Domains without a value are left out; which they are depends on the rows,
    not on the model, so models measured on the same rows compare. NaN where no domain has one.
    """
    values = table.loc[(table.metric == metric) & (table.domain != "all"), "value"].to_numpy(float)
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan"), f"mean of {len(defined)} of {len(values)} domains"


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
    return within, float(1 - within.sum()) if pairs else float("nan")
