"""Measures of disentanglement: covariance, correlation, IA, DI and the recovery of true facets."""

import numpy as np
import pandas as pd

from ..errors import CrocoError


def covariance_matrix(experts: np.ndarray) -> np.ndarray:
    """Covariance of all output dimensions of all experts: [M, N, d] → [M·d, M·d]."""
    M, N, d = experts.shape
    return np.cov(np.moveaxis(experts, 0, 1).reshape(N, M * d), rowvar=False).reshape(M * d, M * d)


def correlation_matrix(experts: np.ndarray) -> np.ndarray:
    """Correlation of all output dimensions of all experts: [M, N, d] → [M·d, M·d]; 0 where a dimension is constant."""
    C = covariance_matrix(experts)
    std = np.sqrt(np.diag(C))
    varies = ~(std <= 1e-12)  # a NaN is to be seen, so it counts as varying
    return np.divide(C, np.outer(std, std), out=np.zeros_like(C), where=np.outer(varies, varies))


def cross_blocks(matrix: np.ndarray, experts: int) -> np.ndarray:
    """The entries of [M·d, M·d] that belong to pairs of different experts p > q, flat; empty for one expert."""
    expert = np.arange(experts).repeat(len(matrix) // experts)
    return matrix[expert[:, None] > expert[None, :]]


def cross_correlation(experts: np.ndarray) -> float:
    """Mean absolute correlation between dimensions of different experts; NaN for one expert."""
    blocks = cross_blocks(correlation_matrix(experts), len(experts))
    return float(np.abs(blocks).mean()) if blocks.size else float("nan")


def singular_values(table: np.ndarray) -> np.ndarray:
    """Singular values of [V, e], largest first, by way of the small e × e product, so that V may be millions.

    They are the roots of its eigenvalues; in double precision, for the product squares what is small.
    """
    table = np.asarray(table, np.float64)
    # Rounding may leave an eigenvalue a little below 0.
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
        raise CrocoError(f"information abundance at {rows} rows: the table has {len(table)}, so give from 1 to that.")
    if rows == len(table):
        return information_abundance(table)
    rng = np.random.default_rng(seed)
    some = (table[rng.choice(len(table), rows, replace=False)] for _ in range(repeats))
    return float(np.mean([information_abundance(part) for part in some]))


def gate_entropy(gate: np.ndarray) -> float:
    """Mean entropy of the gate's weights over the experts, as a share of log M. NaN for one expert.

    gate [M, N, d or 1]. It is 1 where all experts weigh alike, and 0 where one expert has all the weight.
    Experts that a gate never reads count in M, so PLE's can never reach 1.
    """
    if len(gate) == 1:
        return float("nan")
    return float(-(gate * np.log(np.maximum(gate, 1e-12))).sum(0).mean() / np.log(len(gate)))


def user_pairs(user: np.ndarray, domain: np.ndarray, count: int) -> np.ndarray:
    """`count` pairs of different rows with the same user and domain, drawn with replacement: int [2, count]."""
    rng = np.random.default_rng(0)  # of its own: the pairs are the same for every model of the data
    order = np.lexsort((domain, user))
    # Sorted by user and domain, the rows of one user in one domain stand together, as a block.
    change = (np.diff(user[order]) != 0) | (np.diff(domain[order]) != 0)
    block = np.concatenate([[0], np.cumsum(change)])
    size = np.bincount(block)[block]  # rows in each row's block
    start = np.searchsorted(block, block)
    many = np.flatnonzero(size > 1)
    if not len(many):
        raise CrocoError("No user has two rows in one domain, so preference conflicts are not defined.")
    a = rng.choice(many, count)
    # 1 … size − 1 places further in the block, round its end, so never the row itself.
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
    reads = np.ones_like(sign, bool) if read is None else read[:, pairs[0]] & read[:, pairs[1]]  # [M, T]
    conflicts = counted = 0
    for p in range(len(sign)):
        for q in range(p):
            both = reads[p] & reads[q]
            counted += int(both.sum())
            conflicts += int(((sign[p] * sign[q] < 0) & both).sum())
    return conflicts / counted if counted else 0.0


def recovery(sets: np.ndarray, facets: np.ndarray) -> tuple[pd.DataFrame, float]:
    """Which representation holds which true facet: `sets` [M, I, e], `facets` [K, I, r] of the same I items or rows.

    Returns a tidy frame (set, facet, r2: how well a linear map of the set predicts the facet, five-fold
    cross-validated, not below 0; matched: whether the best one-to-one matching pairs the two) and a score: the mean r2
    of the matched pairs minus the mean of the rest.
    """
    from scipy.optimize import linear_sum_assignment  # here, for all else in this package loads in half the time
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import cross_val_score

    r2 = np.array(
        [
            [max(0.0, cross_val_score(LinearRegression(), E, facet, cv=5, scoring="r2").mean()) for facet in facets]
            for E in sets
        ]
    )
    rows, columns = linear_sum_assignment(-r2)
    matched = np.zeros_like(r2, bool)
    matched[rows, columns] = True
    rest = r2[~matched].mean() if (~matched).any() else 0.0
    each = [(f"set {m + 1}", f"facet {k + 1}", r2[m, k], matched[m, k]) for m, k in np.ndindex(*r2.shape)]
    frame = pd.DataFrame(each, columns=["set", "facet", "r2", "matched"])
    return frame, float(r2[matched].mean() - rest)
