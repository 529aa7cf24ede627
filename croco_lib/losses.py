"""The covariance loss and the two objectives."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_covariance(experts: Tensor) -> Tensor:
    """The covariance of every output dimension of every expert with every other: [M, N, d] → [M·d, M·d].

    Block (p, q) is (O^(p) − Ō^(p))ᵀ (O^(q) − Ō^(q)) / (N − 1). One row has no covariance: zeros.
    """
    M, N, d = experts.shape
    centred = experts - experts.mean(1, keepdim=True)
    flat = centred.transpose(0, 1).reshape(N, M * d)  # [N, M·d]
    return flat.T @ flat / max(N - 1, 1)


def covariance_loss(experts: Tensor) -> Tensor:
    """CovLoss, arXiv 2405.12706: L_cov = 1/d² · Σ_{p>q} ‖ (O^(p) − Ō^(p))ᵀ (O^(q) − Ō^(q)) ‖₁ / (N − 1).

    experts [M, N, d] → scalar. The division by N − 1 is ours: it frees α of the batch size, so our α is the paper's
    times N − 1. Pairs of different experts only, p > q.
    """
    M, _, d = experts.shape
    expert = torch.arange(M, device=experts.device).repeat_interleave(d)
    below = expert[:, None] > expert[None, :]  # [M·d, M·d], the blocks p > q
    return (cross_covariance(experts).abs() * below).sum() / d**2


def domain_objective(logits: Tensor, label: Tensor, domain: Tensor) -> Tensor:
    """Σ_s (1/N_s) Σ_{k in s} BCE(ŷ_k, y_k): each domain's mean counts alike; a domain with no rows counts nothing."""
    bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    rows = domain.bincount()
    return (bce / rows[domain]).sum()


def sample_objective(logits: Tensor, label: Tensor, domain: Tensor) -> Tensor:
    """(1/N) Σ_k BCE(ŷ_k, y_k): every row counts alike."""
    return F.binary_cross_entropy_with_logits(logits, label)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "domain": domain_objective,
    "sample": sample_objective,
}
