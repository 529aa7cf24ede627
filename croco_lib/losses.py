"""The covariance loss, the regularisers that stand beside it, and the two objectives.

Only CovLoss is given by the paper. Of the others it names five; their forms here are ours, each from its source. The
form of the sixth, Trans5, is not known, so it is left out.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_covariance(experts: Tensor) -> Tensor:
    """The covariance of every output dimension of every expert with every other: [M, N, d] → [M·d, M·d].

    Block (p, q) is (O^(p) − Ō^(p))ᵀ (O^(q) − Ō^(q)) / (N − 1). One row has no covariance: zeros.
    """
    M, N, d = experts.shape
    with torch.autocast(experts.device.type, enabled=False):  # a covariance is a small difference of large sums
        experts = experts.float() if experts.dtype.itemsize < 4 else experts
        centred = experts - experts.mean(1, keepdim=True)
        flat = centred.transpose(0, 1).reshape(N, M * d)  # [N, M·d]
        return flat.T @ flat / max(N - 1, 1)


class _CovLoss(torch.autograd.Function):
    """CovLoss with its gradient written out: half of C forward and one product back, where autograd needs four.

    With X [N, M·d] the centred outputs side by side, C = XᵀX / (N − 1) and G the sign of C in the blocks p > q and 0
    elsewhere, L = Σ_{p>q} |C_pq| / d² has ∂L/∂X = X (G + Gᵀ) / ((N − 1) d²). X's columns sum to 0, so the gradient's do
    too, and taking the mean off changes nothing: ∂L/∂O = ∂L/∂X.
    """

    @staticmethod
    def forward(ctx, experts: Tensor) -> Tensor:
        M, N, d = experts.shape
        with torch.autocast(experts.device.type, enabled=False):  # a covariance is a small difference of large sums
            X = torch.cat(tuple(experts), 1)  # [N, M·d]
            X = X.float() if X.dtype.itemsize < 4 else X
            X -= X.mean(0)
            C = X.new_zeros(M * d, M * d)  # times N − 1
            for p in range(d, M * d, d):  # an expert's dimensions with those of the experts before it
                torch.mm(X[:, p : p + d].T, X[:, :p], out=C[p : p + d, :p])
            total = C.abs().sum()
            G = C.sign_()
        ctx.save_for_backward(X, G + G.T)
        ctx.scale, ctx.d, ctx.dtype = 1 / (max(N - 1, 1) * d**2), d, experts.dtype
        return total * ctx.scale

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        X, both = ctx.saved_tensors
        with torch.autocast(X.device.type, enabled=False):
            flat = X @ (both * (gradient * ctx.scale))  # [N, M·d]
        return flat.unflatten(1, (-1, ctx.d)).transpose(0, 1).to(ctx.dtype)  # [M, N, d]


def covariance_loss(experts: Tensor) -> Tensor:
    """CovLoss, arXiv 2405.12706: L_cov = 1/d² · Σ_{p>q} ‖ (O^(p) − Ō^(p))ᵀ (O^(q) − Ō^(q)) ‖₁ / (N − 1).

    experts [M, N, d] → scalar. The division by N − 1 is ours: it frees α of the batch size, so our α is the paper's
    times N − 1. Pairs of different experts only, p > q. One row has no covariance: 0.
    """
    return _CovLoss.apply(experts)


def pairs(experts: Tensor) -> tuple[Tensor, Tensor]:
    """Both members of every pair p > q: [M, N, d] → two of [M(M−1)/2, N, d]."""
    p, q = torch.tril_indices(len(experts), len(experts), offset=-1, device=experts.device)
    return experts[p], experts[q]


def correlation_loss(experts: Tensor) -> Tensor:
    """CovLoss on correlations, squared in the manner of Barlow Twins (Zbontar et al., ICML 2021): free of scale.

    1/d² · Σ_{p>q} ‖ corr(O^(p), O^(q)) ‖²_F.
    """
    d = experts.shape[2]
    centred = experts - experts.mean(1, keepdim=True)
    p, q = pairs(centred / (centred.norm(dim=1, keepdim=True) + 1e-8))
    return torch.einsum("pnd,pne->pde", p, q).square().sum() / d**2


def dot_loss(experts: Tensor) -> Tensor:
    """Dot: Σ_{p>q} mean over rows of |⟨O^(p), O^(q)⟩| / d."""
    p, q = pairs(experts)
    return (p * q).sum(-1).abs().mean(1).sum() / experts.shape[2]


def cosine_loss(experts: Tensor) -> Tensor:
    """Cos: Σ_{p>q} mean over rows of |cos(O^(p), O^(q))|."""
    return F.cosine_similarity(*pairs(experts), dim=-1).abs().mean(1).sum()


def distances(experts: Tensor) -> Tensor:
    """Euclidean distances between an expert's rows: [M, N, d] → [M, N, N]. Rows that coincide get no gradient."""
    square = (experts[:, :, None] - experts[:, None]).square().sum(-1)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def double_centred(matrix: Tensor) -> Tensor:
    """Row and column means taken off [M, N, N]."""
    return matrix - matrix.mean(1, keepdim=True) - matrix.mean(2, keepdim=True) + matrix.mean((1, 2), keepdim=True)


def distance_correlation_loss(experts: Tensor) -> Tensor:
    """dCorr (Székely et al., 2007): Σ_{p>q} dCor(O^(p), O^(q)), on at most QUADRATIC_ROWS rows.

    Free of scale down to outputs of about 1e-3, below which they count as constant.
    """
    A = double_centred(distances(experts[:, :QUADRATIC_ROWS]))  # [M, N, N]
    variance = A.square().mean((1, 2))  # [M]
    p, q = pairs(A)
    v, w = pairs(variance[:, None, None])
    covariance = (p * q).mean((1, 2)).clamp_min(1e-12)
    return (covariance / (v * w).clamp_min(1e-12).sqrt().flatten()).sqrt().sum()


def hsic_loss(experts: Tensor) -> Tensor:
    """HSIC (Gretton et al., 2005): Σ_{p>q} tr(K_p H K_q H) / (N − 1)², on at most QUADRATIC_ROWS rows.

    Gaussian kernels, their width the median distance between the expert's rows, held fixed in the gradient.
    """
    D = distances(experts[:, :QUADRATIC_ROWS])  # [M, N, N]
    N = D.shape[1]
    width = D.detach().flatten(1).median(1).values.clamp_min(1e-6)[:, None, None]
    p, q = pairs(double_centred(torch.exp(-(D / width).square() / 2)))
    return (p * q).sum() / max(N - 1, 1) ** 2


def ole_loss(experts: Tensor) -> Tensor:
    """OLE (Lezama et al., CVPR 2018), experts as classes: (Σ_m max(1, ‖O^(m)‖_*) − ‖[O^(1); …; O^(M)]‖_*) / N.

    The nuclear norm of each expert's rows falls and that of all rows together rises: experts in orthogonal subspaces.
    """
    M, N, d = experts.shape
    each = torch.linalg.svdvals(experts).sum(-1)  # [M]
    return (each.clamp_min(1).sum() - torch.linalg.svdvals(experts.reshape(M * N, d)).sum()) / N


def importance_loss(gate: Tensor) -> Tensor:
    """Importance (Shazeer et al., ICLR 2017): squared coefficient of variation of the experts' summed weights."""
    importance = gate.sum((1, 2))  # [M]
    return importance.var(correction=0) / importance.mean().square()


QUADRATIC_ROWS = 256  # of a batch, for the two whose cost grows with its square [ours]

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

    `counts` [S] stands for N_s where the rows are one process's share of a batch.
    """
    bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    counts = domain.bincount() if counts is None else counts
    return (bce / counts[domain]).sum()


def sample_objective(logits: Tensor, label: Tensor, domain: Tensor, counts: Tensor | None = None) -> Tensor:
    """(1/N) Σ_k BCE(ŷ_k, y_k): every row counts alike."""
    return F.binary_cross_entropy_with_logits(logits, label)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "domain": domain_objective,
    "sample": sample_objective,
}
