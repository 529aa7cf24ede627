"""The losses against their formulas written out in NumPy."""

import numpy as np
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


def test_covariance_loss_gradient_against_finite_differences():
    O = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 2))).requires_grad_()
    assert torch.autograd.gradcheck(losses.covariance_loss, O)


def test_covariance_loss_ignores_constants_and_batch_size():
    O = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 4000, 4)))
    loss = losses.covariance_loss(O)
    assert torch.isclose(losses.covariance_loss(O + torch.tensor([1.0, 5.0, -3.0])[:, None, None]), loss)
    assert torch.isclose(losses.covariance_loss(torch.cat([O, O], 1)), loss, rtol=1e-3)


def test_blocks_of_cross_covariance_are_numpys():
    O = np.random.default_rng(2).normal(size=(3, 20, 2))
    expected = np.cov(np.moveaxis(O, 0, 1).reshape(20, 6), rowvar=False)
    np.testing.assert_allclose(losses.cross_covariance(torch.from_numpy(O)).numpy(), expected)


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
