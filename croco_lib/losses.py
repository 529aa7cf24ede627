"""The covariance loss, the regularisers that stand beside it, and the two objectives.

Only CovLoss is given by the paper. It names six others: five are here in forms of ours, three of them after a source;
the form of the sixth, Trans5, is not known, so it is left out. The losses `correlation` and `hsic` are our additions.

Shapes: N rows, M experts, d the experts' output width, S domains. O^(m) [N, d] are the outputs of expert m.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

QUADRATIC_ROWS = 256  # rows of a batch that the two losses read whose cost grows with the square of them [ours]


class _CovLoss(torch.autograd.Function):
    """CovLoss with its gradient written out: half of C forward and one product back, where autograd needs three.

    With X [N, M·d] the centred outputs side by side, C = XᵀX / (N − 1) and G the sign of C in the blocks p > q and 0
    elsewhere, L = Σ_{p>q} |C_pq| / d² has ∂L/∂X = X (G + Gᵀ) / ((N − 1) d²). X's columns sum to 0, so the gradient's do
    too, and taking the mean off changes nothing: ∂L/∂O = ∂L/∂X.
    """

    @staticmethod
    def forward(ctx: Any, experts: Tensor) -> Tensor:
        """experts [M, N, d] → scalar."""
        M, N, d = experts.shape
        # A covariance is a small difference of large sums, which half precision would lose: single precision at least.
        with torch.autocast(experts.device.type, enabled=False):
            X = torch.cat(tuple(experts), 1)  # [N, M·d], a copy, so the outputs stay as they are
            X = X.float() if X.dtype.itemsize < 4 else X
            X -= X.mean(0)
            C = X.new_zeros(M * d, M * d)  # (N − 1) times the covariances; the blocks p ≤ q stay 0
            for p in range(d, M * d, d):  # an expert's dimensions with those of the experts before it
                torch.mm(X[:, p : p + d].T, X[:, :p], out=C[p : p + d, :p])
            total = C.abs().sum()
            G = C.sign_()  # in place: only the signs are needed from here on
        # Both X_p and X_q get a gradient from |C_pq|, hence the sum with the transpose.
        ctx.save_for_backward(X, G + G.T)
        ctx.scale, ctx.d, ctx.dtype = 1 / (max(N - 1, 1) * d**2), d, experts.dtype
        return total * ctx.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient of the scalar → that of the experts, [M, N, d]."""
        X, both = ctx.saved_tensors
        with torch.autocast(X.device.type, enabled=False):
            flat = X @ (both * (gradient * ctx.scale))  # [N, M·d]
        return flat.unflatten(1, (-1, ctx.d)).transpose(0, 1).to(ctx.dtype)  # [M, N, d]


def covariance_loss(experts: Tensor) -> Tensor:
    """CovLoss, arXiv 2405.12706: L_cov = 1/d² · Σ_{p>q} ‖ (O^(p) − Ō^(p))ᵀ (O^(q) − Ō^(q)) ‖₁ / (N − 1).

    experts [M, N, d] → scalar. ‖·‖₁ is the sum of the absolute entries: it pulls small covariances to 0 as hard as
    large ones, where squares would let the small ones be. The division by N − 1 is ours: it frees α of the batch size
    (but for covariances that are chance, which fall as 1/√N), so our α is the paper's times N − 1. Only pairs of
    different experts count, p > q [ours; the summary's sum has p ≥ q]. For one row the loss is 0.
    """
    return _CovLoss.apply(experts)


def pairs(experts: Tensor) -> tuple[Tensor, Tensor]:
    """Both members of every pair p > q, side by side: [M, N, d] → twice [M(M−1)/2, N, d]."""
    p, q = torch.tril_indices(len(experts), len(experts), offset=-1, device=experts.device)
    return experts[p], experts[q]


def correlation_loss(experts: Tensor) -> Tensor:
    """CovLoss on correlations, squared in the manner of Barlow Twins (Zbontar et al., ICML 2021).

    1/d² · Σ_{p>q} ‖ corr(O^(p), O^(q)) ‖²_F, experts [M, N, d] → scalar. Unlike a covariance, a correlation cannot be
    lowered by making the outputs smaller.
    """
    d = experts.shape[2]
    centred = experts - experts.mean(1, keepdim=True)
    # Columns of length one; 1e-8 is for a dimension that is the same in every row and has no correlation.
    p, q = pairs(centred / (centred.norm(dim=1, keepdim=True) + 1e-8))
    return torch.einsum("pnd,pne->pde", p, q).square().sum() / d**2


def dot_loss(experts: Tensor) -> Tensor:
    """Dot: Σ_{p>q} mean over rows of |⟨O^(p), O^(q)⟩| / d. [M, N, d] → scalar."""
    p, q = pairs(experts)
    return (p * q).sum(-1).abs().mean(1).sum() / experts.shape[2]


def cosine_loss(experts: Tensor) -> Tensor:
    """Cos: Σ_{p>q} mean over rows of |cos(O^(p), O^(q))|. [M, N, d] → scalar."""
    return F.cosine_similarity(*pairs(experts), dim=-1).abs().mean(1).sum()


def distances(experts: Tensor) -> Tensor:
    """Euclidean distances between an expert's rows: [M, N, d] → [M, N, N]. Rows that coincide get no gradient."""
    square = (experts[:, :, None] - experts[:, None]).square().sum(-1)  # [M, N, N]
    # The root's slope at 0 is infinite, and infinity times 0 is NaN in the gradient: there the root is taken of 1.
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def double_centred(matrix: Tensor) -> Tensor:
    """Each of the matrices [M, N, N] with its row and column means taken off, so that both are 0."""
    return matrix - matrix.mean(1, keepdim=True) - matrix.mean(2, keepdim=True) + matrix.mean((1, 2), keepdim=True)


def distance_correlation_loss(experts: Tensor) -> Tensor:
    """dCorr (Székely et al., 2007): Σ_{p>q} dCor(O^(p), O^(q)), on at most QUADRATIC_ROWS rows. [M, N, d] → scalar.

    It is 0 only for independent outputs, where a correlation sees straight lines alone. It is free of scale down to
    outputs of about 1e-3, below which they count as constant.
    """
    A = double_centred(distances(experts[:, :QUADRATIC_ROWS]))  # [M, N, N]
    variance = A.square().mean((1, 2))  # [M]
    p, q = pairs(A)  # twice [P, N, N], P pairs
    v, w = pairs(variance[:, None, None])  # twice [P, 1, 1]
    covariance = (p * q).mean((1, 2)).clamp_min(1e-12)  # [P]; above 0, for the root's sake as in `distances`
    return (covariance / (v * w).clamp_min(1e-12).sqrt().flatten()).sqrt().sum()


def hsic_loss(experts: Tensor) -> Tensor:
    """HSIC (Gretton et al., 2005): Σ_{p>q} tr(K_p H K_q H) / (N − 1)², on at most QUADRATIC_ROWS rows.

    experts [M, N, d] → scalar. K_p is the Gaussian kernel of the distances between expert p's rows, and H takes means
    off. Its width is the median distance, which makes the loss free of scale; it is held fixed in the gradient.
    """
    D = distances(experts[:, :QUADRATIC_ROWS])  # [M, N, N]
    N = D.shape[1]
    # Detached: a median jumps from one pair of rows to another, and all other distances should not move with that pair.
    width = D.detach().flatten(1).median(1).values.clamp_min(1e-6)[:, None, None]  # [M, 1, 1]
    # tr(K_p H K_q H) is the sum of the products, entry by entry, of the two kernels centred.
    p, q = pairs(double_centred(torch.exp(-(D / width).square() / 2)))
    return (p * q).sum() / max(N - 1, 1) ** 2


def ole_loss(experts: Tensor) -> Tensor:
    """OLE (Lezama et al., CVPR 2018), experts as classes: (Σ_m max(1, ‖O^(m)‖_*) − ‖[O^(1); …; O^(M)]‖_*) / N.

    experts [M, N, d] → scalar. The nuclear norm of each expert's rows falls and that of all rows together rises, which
    moves the experts to orthogonal subspaces.
    """
    M, N, d = experts.shape
    # The floor of 1 is the source's: without it the outputs could lower the loss by all falling to 0.
    each = torch.linalg.svdvals(experts).sum(-1)  # [M]
    return (each.clamp_min(1).sum() - torch.linalg.svdvals(experts.reshape(M * N, d)).sum()) / N  # [M·N, d] → scalar


def importance_loss(gate: Tensor) -> Tensor:
    """Importance (Shazeer et al., ICLR 2017): squared coefficient of variation of the experts' summed weights.

    gate [M, N, d or 1] → scalar, 0 where every expert has the same share.
    """
    importance = gate.sum((1, 2))  # [M]
    return importance.var(correction=0) / importance.mean().square()


# Each takes the experts' outputs O [M, N, d] and the gate g [M, N, d or 1].
REGULARISERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cov": lambda O, g: covariance_loss(O),
    "correlation": lambda O, g: correlation_loss(O),
    "dot": lambda O, g: dot_loss(O),
    "cos": lambda O, g: cosine_loss(O),
    "dcorr": lambda O, g: distance_correlation_loss(O),
    "hsic": lambda O, g: hsic_loss(O),
    "ole": lambda O, g: ole_loss(O),
    "importance": lambda O, g: importance_loss(g),
}


def domain_objective(logits: Tensor, label: Tensor, domain: Tensor, counts: Tensor | None = None) -> Tensor:
    """Σ_s (1/N_s) Σ_{k in s} BCE(ŷ_k, y_k): each domain's mean counts alike; a domain with no rows counts nothing.

    logits [N], label 0/1 [N], domain int [N] → scalar. `counts` [S] stands for N_s where the rows are one process's
    share of a batch.
    """
    bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    counts = domain.bincount() if counts is None else counts
    return (bce / counts[domain]).sum()


def sample_objective(logits: Tensor, label: Tensor, domain: Tensor, counts: Tensor | None = None) -> Tensor:
    """(1/N) Σ_k BCE(ŷ_k, y_k): every row counts alike. logits [N], label 0/1 [N] → scalar; `counts` as above."""
    return F.binary_cross_entropy_with_logits(logits, label) * (1 if counts is None else len(label) / counts.sum())


OBJECTIVES: dict[str, Callable[..., Tensor]] = {"domain": domain_objective, "sample": sample_objective}
