import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from croco_lib import CrocoError, metrics
from croco_lib.errors import ROOT
from croco_lib.study.resampling import auc_of_weights

SCORES = st.sampled_from([-1e30, -2.5, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0, 3.0, 1e30])
DTYPES = st.sampled_from([np.float32, np.float64])
ROWS = st.lists(
    st.tuples(st.integers(0, 1), SCORES | st.floats(-5, 5, width=32), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


def arrays(rows, dtype=np.float64):
    label, score, user, domain = (np.array(column) for column in zip(*rows, strict=True))
    return label, score.astype(dtype), user, domain


def loop_auc(label, score):
    return roc_auc_score(label, score) if 0 < label.sum() < len(label) else np.nan


def loop_gauc(label, score, user):
    total = weight = 0.0
    for u in np.unique(user):
        own = user == u
        auc = loop_auc(label[own], score[own])
        if not np.isnan(auc):
            total, weight = total + auc * own.sum(), weight + own.sum()
    return total / weight if weight else np.nan


def value(table, domain, metric):
    return table.set_index(["domain", "metric"]).value[domain, metric]


@settings(max_examples=80, deadline=None)
@given(ROWS, DTYPES)
def test_grouped_auc_equals_scikit_learn_group_by_group(rows, dtype):
    label, score, group, _ = arrays(rows, dtype)
    auc, count = metrics.grouped_auc(label, score, group)
    assert len(auc) == group.max() + 1
    for g in range(len(auc)):
        own = group == g
        assert count[g] == own.sum()
        np.testing.assert_allclose(auc[g], loop_auc(label[own], score[own]), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(ROWS, DTYPES)
def test_evaluate_scores_equals_plain_loops(rows, dtype):
    label, score, user, domain = arrays(rows, dtype)
    score = np.clip(score, -20, 20)
    names = ("a", "b", "c")
    table = metrics.evaluate_scores(label, score, domain, user * 7 - 3, names, min_users=1)
    assert list(table.columns) == ["domain", "metric", "value", "rows", "note"]
    assert len(table) == 12
    for name, here in [("all", np.full(len(label), True)), *((n, domain == s) for s, n in enumerate(names))]:
        one, two = label[here], score[here]
        np.testing.assert_allclose(value(table, name, "auc"), loop_auc(one, two), rtol=1e-12)
        np.testing.assert_allclose(value(table, name, "gauc"), loop_gauc(one, two, user[here]), rtol=1e-12)
        assert (table[table.domain == name].rows == here.sum()).all()
    assert (table.value.isna() == table.note.str.startswith("not defined")).all()


@settings(max_examples=60, deadline=None)
@given(ROWS, DTYPES)
def test_log_loss_equals_scikit_learn(rows, dtype):
    label, logit, _, _ = arrays(rows, dtype)
    assume(0 < label.sum() < len(label))
    logit = np.clip(logit, -15, 15)
    expected = sklearn_log_loss(label, 1 / (1 + np.exp(-logit.astype(np.float64))))
    assert metrics.log_loss(label, logit) == pytest.approx(expected, rel=1e-6)


def test_log_losses_are_those_of_the_rows_in_the_logits_own_precision():
    label, logit = np.array([0, 1, 1, 0], np.float32), np.array([0.0, 2.0, -1.0, 3.0], np.float32)
    p = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(metrics.log_losses(label, logit), -np.log(np.where(label == 1, p, 1 - p)), rtol=1e-6)
    assert metrics.log_losses(label, logit).dtype == np.float32
    assert np.isnan(metrics.log_loss(label[:0], logit[:0]))
    assert metrics.log_loss(np.array([0, 1]), np.array([800.0, -800.0])) == 800  # exact where exp would overflow


def test_both_zeros_are_a_tie():
    for dtype in (np.float32, np.float64):
        auc, _ = metrics.grouped_auc(np.array([0, 1]), np.array([-0.0, 0.0], dtype), np.zeros(2, int))
        assert auc[0] == 0.5


def test_domain_with_one_class_has_nan_and_a_note():
    table = metrics.evaluate_scores([0, 1, 1, 1], np.arange(4.0), [0, 0, 1, 1], [0, 0, 1, 1], ("a", "b", "c"))
    by = table.set_index(["domain", "metric"])
    assert by.value["a", "auc"] == 1
    for place, note in (
        (("b", "auc"), "not defined: one class"),
        (("c", "logloss"), "not defined: no rows"),
        (("b", "gauc"), "not defined: no user with both classes"),
    ):
        assert np.isnan(by.value[place])
        assert by.note[place] == note
    assert np.isfinite(by.value["b", "logloss"])


def test_gauc_of_few_users_is_not_measured():
    """Domain a has one user with both classes more than b; the third has a user with both, and many with one."""
    users = metrics.MIN_USERS
    user = np.repeat(np.arange(users), 2)
    parts = [(user, 0), (user[:-2], 1), (np.array([0, 0]), 2)]
    domain = np.concatenate([np.full(len(u), s) for u, s in parts])
    user = np.concatenate([u for u, _ in parts])
    label = np.tile([0, 1], len(user) // 2)
    alone = np.arange(40) + 1_000  # users with one class: they do not count
    user, label = np.concatenate([user, alone]), np.concatenate([label, np.zeros(40, int)])
    domain = np.concatenate([domain, np.full(40, 2)])
    table = metrics.evaluate_scores(label, label + 0.0, domain, user, ("a", "b", "c"))
    by = table.set_index(["domain", "metric"])
    assert by.value["all", "gauc"] == by.value["a", "gauc"] == 1 and by.note["a", "gauc"] == ""
    assert np.isnan(by.value["b", "gauc"]) and np.isnan(by.value["c", "gauc"])
    assert by.note["b", "gauc"] == f"not measured: only {users - 1} users with both classes ({users} needed)"
    assert by.note["c", "gauc"] == f"not measured: only 1 user with both classes ({users} needed)"
    assert by.value["b", "auc"] == by.value["c", "auc"] == 1
    few = metrics.evaluate_scores(label[:4], label[:4] + 0.0, domain[:4], user[:4], ("a",)).set_index("metric")
    assert np.isnan(few.value["gauc"]).all() and few.note["gauc"].str.startswith("not measured: only 2 users").all()


def test_domain_mean_counts_domains_alike_and_says_how_many():
    label, domain = np.array([0, 1] * 50 + [1, 0] + [1, 1]), np.array([0] * 100 + [1, 1] + [2, 2])
    score = np.arange(104.0)
    table = metrics.evaluate_scores(label, score, domain, np.zeros(104, int), ("a", "b", "one class"))
    mean, note = metrics.domain_mean(table)
    assert mean == pytest.approx((value(table, "a", "auc") + 0) / 2)
    assert note == "mean of 2 of 3 domains"
    assert metrics.domain_mean(table, "logloss")[1] == "mean of 3 of 3 domains"
    mean, note = metrics.domain_mean(table, "gauc")
    assert np.isnan(mean) and note == "mean of 0 of 3 domains"


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_pair_shares_equal_brute_force(rows):
    label, score, _, domain = arrays(rows)
    within, across = metrics.pair_shares(label, domain)
    pairs = [(domain[i], domain[j]) for i in range(len(label)) for j in range(len(label)) if label[i] > label[j]]
    if not pairs:
        assert np.isnan(within).all() and np.isnan(across)
        return
    for s in range(len(within)):
        assert within[s] == pytest.approx(sum(p == q == s for p, q in pairs) / len(pairs))
    assert across == pytest.approx(sum(p != q for p, q in pairs) / len(pairs), abs=1e-12)


def test_of_no_rows_and_of_one_expert_there_is_no_metric():
    table = metrics.evaluate_scores([], np.empty(0), np.empty(0, int), np.empty(0, int), ("a",))
    assert table.value.isna().all()
    assert (table.note == "not defined: no rows").all()
    assert np.isnan(metrics.pair_shares(np.empty(0, int), np.empty(0, int))[1])
    assert np.isnan(metrics.cross_correlation(np.random.default_rng(0).normal(size=(1, 9, 2))))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_raise(bad):
    with pytest.raises(CrocoError, match="1 scores are NaN or infinite"):
        metrics.evaluate_scores([0, 1], np.array([0.0, bad], np.float32), [0, 0], [0, 1], ("a",))


@pytest.mark.parametrize(
    ("label", "group", "words"),
    [
        ([0, 2], [0, 0], "labels must be 0 or 1"),
        ([0, 1, 1], [0, 0], "not one each"),
        ([0, 1], [-1, 0], "numbered from 0"),
    ],
)
def test_grouped_auc_refuses_bad_input(label, group, words):
    with pytest.raises(CrocoError, match=words):
        metrics.grouped_auc(label, np.zeros(2), np.array(group))


def test_covariance_and_correlation_equal_numpy():
    experts = np.random.default_rng(0).normal(size=(3, 50, 4)).astype(np.float32)
    flat = np.concatenate(experts, axis=1)
    np.testing.assert_allclose(metrics.covariance_matrix(experts), np.cov(flat, rowvar=False), rtol=1e-6)
    np.testing.assert_allclose(metrics.correlation_matrix(experts), np.corrcoef(flat, rowvar=False), atol=1e-6)
    blocks = [
        np.corrcoef(flat, rowvar=False)[4 * p : 4 * p + 4, 4 * q : 4 * q + 4] for p, q in ((1, 0), (2, 0), (2, 1))
    ]
    assert metrics.cross_correlation(experts) == pytest.approx(np.abs(blocks).mean(), rel=1e-5)


def test_constant_dimension_correlates_with_nothing():
    experts = np.random.default_rng(0).normal(size=(2, 50, 2))
    experts[0, :, 1] = 3
    correlation = metrics.correlation_matrix(experts)
    assert (correlation[1] == 0).all()
    assert correlation[0, 0] == pytest.approx(1)


def test_correlation_does_not_depend_on_the_outputs_size_and_shows_what_is_not_a_number():
    experts = np.random.default_rng(0).normal(size=(2, 50, 2))
    expected = metrics.cross_correlation(experts)
    assert metrics.cross_correlation(experts * 1e-8) == pytest.approx(expected)
    experts[1, 7, 0] = np.nan
    assert np.isnan(metrics.cross_correlation(experts))


def test_information_abundance_equals_singular_values():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 8)) * np.arange(1, 9)
    values = np.linalg.svd(table, compute_uv=False)
    np.testing.assert_allclose(metrics.singular_values(table), values, rtol=1e-9)
    assert metrics.information_abundance(table) == pytest.approx(values.sum() / values[0])
    one_direction = np.outer(rng.normal(size=50), rng.normal(size=4))
    assert metrics.information_abundance(one_direction) == pytest.approx(1, abs=1e-5)
    assert metrics.information_abundance(np.eye(6)) == pytest.approx(6)
    assert np.isnan(metrics.information_abundance(np.zeros((5, 2))))


def test_information_abundance_at_equal_rows():
    """A random table of many rows looks richer than one of few; at equal rows they are alike."""
    rng = np.random.default_rng(0)
    large, small = rng.normal(size=(3000, 16)), rng.normal(size=(150, 16))
    assert metrics.information_abundance(large) - metrics.information_abundance(small) > 1.5
    at = metrics.information_abundance_at(large, 150)
    assert at == pytest.approx(metrics.information_abundance(small), abs=0.5)
    assert at == metrics.information_abundance_at(large, 150) != metrics.information_abundance_at(large, 150, seed=1)
    assert metrics.information_abundance_at(small, 150, repeats=3) == metrics.information_abundance(small)
    draws = np.random.default_rng(3)
    subsets = [draws.choice(3000, 40, replace=False) for _ in range(2)]
    assert metrics.information_abundance_at(large, 40, 2, seed=3) == pytest.approx(
        np.mean([metrics.information_abundance(large[rows]) for rows in subsets])
    )
    for rows in (0, 151):
        with pytest.raises(CrocoError, match=f"at {rows} rows: the table has 150"):
            metrics.information_abundance_at(small, rows)


def test_gate_entropy_is_one_for_equal_weights_and_zero_for_one_expert_alone():
    assert metrics.gate_entropy(np.full((4, 10, 1), 0.25)) == pytest.approx(1)
    assert metrics.gate_entropy(np.eye(3)[:, :, None]) == pytest.approx(0, abs=1e-9)


def test_user_pairs_are_two_rows_of_one_user_in_one_domain():
    rng = np.random.default_rng(0)
    user, domain = rng.integers(0, 40, 300), rng.integers(0, 5, 300)
    a, b = metrics.user_pairs(user, domain, 5_000)
    assert len(a) == 5_000
    assert (a != b).all()
    assert (user[a] == user[b]).all()
    assert (domain[a] == domain[b]).all()
    pairable = {i for i in range(300) if ((user == user[i]) & (domain == domain[i])).sum() > 1}
    assert set(a) == pairable == set(b)


def test_user_pairs_need_a_user_with_two_rows():
    with pytest.raises(CrocoError, match="two rows in one domain"):
        metrics.user_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), 10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_diversity_index_equals_a_slow_loop(experts, seed):
    rng = np.random.default_rng(seed)
    scores, pairs = rng.integers(0, 3, (experts, 12)).astype(float), rng.integers(0, 12, (2, 30))
    read = rng.random((experts, 12)) < 0.7
    for mask in (np.ones_like(read), read):
        conflicts = [
            (scores[p, a] - scores[p, b]) * (scores[q, a] - scores[q, b]) < 0
            for p in range(experts)
            for q in range(p)
            for a, b in pairs.T
            if mask[p, a] and mask[p, b] and mask[q, a] and mask[q, b]
        ]
        assert metrics.diversity_index(scores, pairs, mask) == pytest.approx(np.mean(conflicts) if conflicts else 0)
    assert metrics.diversity_index(scores, pairs) == metrics.diversity_index(scores, pairs, np.ones_like(read))


def test_recovery_finds_planted_facets():
    rng = np.random.default_rng(0)
    facets = rng.normal(size=(3, 300, 2))
    planted = (facets @ rng.normal(size=(3, 2, 2)))[[2, 0, 1]] + 0.05 * rng.normal(size=(3, 300, 2))
    table, score = metrics.recovery(planted, facets)
    best = table.loc[table.groupby("set").r2.idxmax()]
    assert list(best.facet) == ["facet 3", "facet 1", "facet 2"]
    assert best.r2.min() > 0.9
    assert score > 0.9
    mixed = np.einsum("mk,knr->mnr", rng.normal(size=(3, 3)), facets)
    table, mixed_score = metrics.recovery(mixed, facets)
    r2 = table.r2.to_numpy().reshape(3, 3)
    best = max(sum(r2[m, k] for m, k in enumerate(order)) for order in permutations(range(3)))
    assert mixed_score == pytest.approx(best / 3 - (r2.sum() - best) / 6)
    assert mixed_score < score - 0.2
    noise = rng.normal(size=(3, 300, 2))
    assert abs(metrics.recovery(noise, facets)[1]) < 0.1
    pairs = table[table.matched]
    assert sorted(pairs.set) == ["set 1", "set 2", "set 3"] and pairs.facet.nunique() == 3
    assert pairs.r2.sum() == pytest.approx(best) and list(table) == ["set", "facet", "r2", "matched"]
    alone, score = metrics.recovery(facets[:1], facets[:1])  # nothing is left to be the rest
    assert score == pytest.approx(alone.r2.item()) and alone.matched.item()


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 1000))
def test_weighted_auc_equals_scikit_learn(rows, seed):
    label, score, _, _ = arrays(rows)
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(label))).astype(float)
    got = auc_of_weights(label, score)(weights)
    assert got.shape == (5,)
    for auc, weight in zip(got, weights, strict=True):
        kept = weight > 0
        if 0 < label[kept].sum() < kept.sum():
            assert auc == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-12)
        else:
            assert np.isnan(auc)
    np.testing.assert_array_equal(auc_of_weights(label, score)(weights[0]), got[0])


def test_an_evaluation_takes_the_memory_that_the_readme_says():
    """About 100 bytes a row, more where there are more users. The arrays that it is given do not count."""
    rows, rng = 300_000, np.random.default_rng(0)
    label, domain, user = rng.integers(0, 2, rows), rng.integers(0, 5, rows), rng.integers(0, 3_000, rows)
    given_ = label, rng.normal(size=rows).astype(np.float32), domain, user, tuple("abcde")
    tracemalloc.start()
    try:
        metrics.evaluate_scores(*given_)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "an evaluation adds about 100 bytes for each row" in " ".join((ROOT / "README.md").read_text().split())
    assert peak / rows == pytest.approx(100, rel=0.25)


def test_gate_entropy_is_the_mean_of_shannons_over_rows_and_dimensions():
    gate = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=(20, 3)).transpose(2, 0, 1)  # [M, N, d]
    gate[:, 0] = np.eye(4)[:, :3]  # a row in which one expert has all the weight
    assert metrics.gate_entropy(gate) == pytest.approx(entropy(gate, base=4).mean())
    assert metrics.gate_entropy(gate[:, :, :1]) == pytest.approx(entropy(gate[:, :, :1], base=4).mean())


def test_user_pairs_are_any_two_rows_of_a_user():
    user = np.repeat([0, 1], [5, 2])
    pairs = metrics.user_pairs(user, np.zeros(7, int), 5_000)
    assert {*zip(*pairs.tolist(), strict=True)} == {
        (a, b) for a in range(7) for b in range(7) if a != b and user[a] == user[b]
    }


def test_groups_beyond_their_number_are_refused():
    with pytest.raises(CrocoError, match="numbered from 0"):
        metrics.grouped_auc([0, 1], np.zeros(2), np.array([0, 2]), 2)
