"""The losses against their formulas written out in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from croco_lib import losses


def formula(O):
    """L_cov = 1/d² Σ_{p>q} ‖(O^p − Ō^p)ᵀ (O^q − Ō^q)‖₁ / (N − 1), one entry at a time."""
    M, N, d = O.shape
    total = 0.0
    for p in range(M):
        for q in range(p):
            for i in range(d):
                for j in range(d):
                    a, b = O[p, :, i] - O[p, :, i].mean(), O[q, :, j] - O[q, :, j].mean()
                    total += abs(sum(a * b)) / max(N - 1, 1)
    return total / d**2


shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(0, 10_000))


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_covariance_loss_is_its_formula(shape):
    *size, seed = shape
    O = np.random.default_rng(seed).normal(size=size)
    np.testing.assert_allclose(losses.covariance_loss(torch.from_numpy(O)).item(), formula(O), atol=1e-12)


def by_autograd(O):
    """The same from the covariance of every dimension with every other, its gradient left to autograd."""
    M, N, d = O.shape
    C = torch.cov(O.transpose(0, 1).flatten(1).T, correction=min(1, N - 1)).reshape(M, d, M, d)
    return sum(C[p, :, q].abs().sum() for p in range(M) for q in range(p)) / d**2


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_covariance_loss_gradient_is_autograds(shape):
    *size, seed = shape
    O = torch.from_numpy(np.random.default_rng(seed).normal(size=size) + 7).requires_grad_()
    (ours,) = torch.autograd.grad(-3 * losses.covariance_loss(O), O)
    theirs = torch.zeros_like(O) if len(O) == 1 else torch.autograd.grad(-3 * by_autograd(O), O)[0]
    assert ours.shape == O.shape and torch.allclose(ours, theirs, atol=1e-12)
    assert ours.mean(1).abs().max() < 1e-12
    if O.shape[1] == 1:
        assert not ours.any()


def test_covariance_loss_is_one_node_and_keeps_the_outputs_as_they_are():
    O = torch.randn(3, 8, 2, requires_grad=True)
    before = O.detach().clone()
    loss = losses.covariance_loss(O)
    ((node, _),) = loss.grad_fn.next_functions
    assert type(node).__name__ == "AccumulateGrad" and torch.equal(O, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_covariance_loss_adds_up_in_single_precision_or_better(dtype):
    O = (torch.from_numpy(np.random.default_rng(3).normal(size=(3, 500, 4))) + 20).to(dtype).requires_grad_()
    exact = O.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.covariance_loss(O)
        loss.backward()
    losses.covariance_loss(exact).backward()
    assert loss.dtype == (dtype if dtype == torch.float64 else torch.float32) and O.grad.dtype == dtype
    assert abs(loss.item() - losses.covariance_loss(exact).item()) < 1e-5 * loss.item()
    assert (O.grad - exact.grad).abs().max() < (0.01 if dtype == torch.bfloat16 else 1e-4) * exact.grad.abs().max()


def bce(z, y):
    p = 1 / (1 + np.exp(-z))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 10_000))
def test_objectives_are_their_formulas(N, seed):
    rng = np.random.default_rng(seed)
    z, y, s = rng.normal(size=N), rng.integers(2, size=N).astype(float), rng.choice([0, 2, 3], N)  # domain 1 is absent
    torches = torch.from_numpy(z), torch.from_numpy(y), torch.from_numpy(s)
    by_domain = sum(bce(z[s == k], y[s == k]).mean() for k in np.unique(s))
    np.testing.assert_allclose(losses.domain_objective(*torches).item(), by_domain)
    np.testing.assert_allclose(losses.sample_objective(*torches).item(), bce(z, y).mean())


# -------------------------------------------------------------------------------------------- regularisers


def pairs_of(O):
    return [(O[p], O[q]) for p in range(len(O)) for q in range(p)]


def centred_distances(X):
    D = np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))
    return D, D - D.mean(0) - D.mean(1)[:, None] + D.mean()


def dcor(X, Y):
    (_, A), (_, B) = centred_distances(X), centred_distances(Y)
    return np.sqrt((A * B).mean() / np.sqrt((A * A).mean() * (B * B).mean()))


def median_distance(X):
    D = centred_distances(X)[0]
    return np.sort(D.ravel())[(D.size - 1) // 2]


def hsic(X, Y, widths=None):
    """`widths` of the two kernels; without them, the median distances."""
    N = len(X)
    H = np.eye(N) - 1 / N
    K, L = (
        np.exp(-((centred_distances(Z)[0] / width) ** 2) / 2)
        for Z, width in zip((X, Y), widths or (median_distance(X), median_distance(Y)), strict=True)
    )
    return np.trace(K @ H @ L @ H) / (N - 1) ** 2


def corr(X, Y):
    d = X.shape[1]
    return (np.corrcoef(X.T, Y.T)[:d, d:] ** 2).sum() / d**2


def nuclear(X):
    return np.linalg.svd(X, compute_uv=False).sum()


FORMULAS = {
    "cov": formula,
    "correlation": lambda O: sum(corr(X, Y) for X, Y in pairs_of(O)),
    "dot": lambda O: sum(abs((X * Y).sum(1)).mean() / X.shape[1] for X, Y in pairs_of(O)),
    "cos": lambda O: sum(
        abs((X * Y).sum(1) / np.linalg.norm(X, axis=1) / np.linalg.norm(Y, axis=1)).mean() for X, Y in pairs_of(O)
    ),
    "dcorr": lambda O: sum(dcor(X, Y) for X, Y in pairs_of(O)),
    "hsic": lambda O: sum(hsic(X, Y) for X, Y in pairs_of(O)),
    "ole": lambda O: (sum(max(1, nuclear(X)) for X in O) - nuclear(np.concatenate(O))) / O.shape[1],
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shape", [(3, 12, 4), (2, 30, 1), (5, 9, 3)])
def test_regulariser_is_its_formula(name, shape):
    O = np.random.default_rng(5).normal(size=shape)
    value = losses.REGULARISERS[name](torch.from_numpy(O), None).item()
    np.testing.assert_allclose(value, FORMULAS[name](O), rtol=1e-6)


@pytest.mark.parametrize("name", sorted({*FORMULAS} - {"hsic"}))
def test_regulariser_gradient_against_finite_differences(name):
    O = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 7, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda O: losses.REGULARISERS[name](O, None), O)


def test_hsic_gradient_against_finite_differences_of_kernels_of_fixed_width():
    """The median distance counts as given: the gradient is that of the formula whose widths do not move with O."""
    O = np.random.default_rng(0).normal(size=(2, 7, 2))
    widths, h = [median_distance(X) for X in O], 1e-6
    steps = h * np.eye(O.size).reshape(-1, *O.shape)
    fixed, whole = ([(hsic(*(O + e), w) - hsic(*(O - e), w)) / (2 * h) for e in steps] for w in (widths, None))
    leaf = torch.from_numpy(O).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.hsic_loss(leaf), leaf)
    np.testing.assert_allclose(gradient.numpy().ravel(), fixed, atol=1e-8)
    # With widths that move, the formula has another gradient: the check can tell the two.
    assert np.abs(np.subtract(whole, fixed)).max() > 1e-4


@pytest.mark.parametrize("name", FORMULAS)
def test_a_step_down_the_gradient_lowers_the_regulariser(name):
    O = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 50, 4)))
    O = (O + O[0]).requires_grad_()  # experts that share something
    before = losses.REGULARISERS[name](O, None)
    (gradient,) = torch.autograd.grad(before, O)
    after = losses.REGULARISERS[name](O.detach() - 1e-3 * gradient / gradient.norm(), None)
    assert torch.isfinite(gradient).all() and after < before


@pytest.mark.parametrize("name", ["dcorr", "hsic"])
def test_rows_that_coincide_have_finite_gradients(name):
    O = torch.ones(2, 6, 3, dtype=torch.float64)
    O[:, 3:] = torch.randn(2, 3, 3, dtype=torch.float64)
    losses.REGULARISERS[name](O.requires_grad_(), None).backward()
    assert torch.isfinite(O.grad).all()


def test_importance_is_the_squared_coefficient_of_variation():
    g = np.random.default_rng(0).dirichlet(np.ones(4), size=(20, 3)).transpose(2, 0, 1)  # [M, N, d]
    total = g.sum((1, 2))
    value = losses.REGULARISERS["importance"](None, torch.from_numpy(g)).item()
    np.testing.assert_allclose(value, total.var() / total.mean() ** 2)
    assert losses.importance_loss(torch.ones(4, 5, 2)) == 0


def test_ole_counts_an_expert_of_small_outputs_as_one():
    O = np.random.default_rng(5).normal(size=(3, 12, 4))
    O[1] *= 1e-3
    assert nuclear(O[1]) < 1 < nuclear(O[0])
    np.testing.assert_allclose(losses.ole_loss(torch.from_numpy(O)).item(), FORMULAS["ole"](O))


@pytest.mark.parametrize("name", ["dcorr", "hsic"])
def test_losses_of_quadratic_cost_read_the_first_rows_only(name):
    O = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2 * losses.QUADRATIC_ROWS, 3)))
    read = losses.REGULARISERS[name]
    assert torch.equal(read(O, None), read(O[:, : losses.QUADRATIC_ROWS], None))


@pytest.mark.parametrize("name", losses.REGULARISERS)
def test_one_row_and_outputs_that_do_not_vary_have_a_loss_and_a_gradient(name):
    constant = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 20, 2)))
    constant[0, :, 1] = 2
    for O in (constant[:, :1].clone(), constant):
        g = torch.full((3, O.shape[1], 1), 1 / 3, dtype=O.dtype, requires_grad=True)
        loss = losses.REGULARISERS[name](O.requires_grad_(), g)
        (gradient,) = torch.autograd.grad(loss, g if name == "importance" else O)
        assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("name", ["correlation", "cos", "dcorr", "hsic"])
def test_a_loss_that_is_free_of_scale_is_so_down_to_small_outputs(name):
    O = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 40, 4)))
    usual, small = (losses.REGULARISERS[name](O * scale, None).item() for scale in (1, 0.01))
    assert small == pytest.approx(usual, rel=1e-4) and usual > 0
