"""STAR (Sheng et al., CIKM 2021): partitioned normalisation, star-topology layers and an auxiliary network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Linears, MultiEmbedding, by_domain, mlp
from ..schema import Layout
from .base import MultiDomainModel, Output


class PartitionedNorm(nn.Module):
    """Batch normalisation by domain: z' = (γ γ_s) ⊙ (z − μ_s)/√(σ_s² + ε) + (β + β_s), [N, i] → [N, i].

    In evaluation μ_s and σ_s are the domain's running means, so a row's prediction depends on the row alone; so it is
    for a domain with one row in a training batch.
    """

    def __init__(self, domains: int, width: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for _ in range(domains))
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.scales = nn.Parameter(torch.ones(domains, width))
        self.shifts = nn.Parameter(torch.zeros(domains, width))

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """z [N, i], domain int [N] → [N, i]."""

        def normal(norm: Any) -> Callable[[Tensor], Tensor]:
            # One row has no variance of its own, so it is normalised by the running one, in training too.
            return lambda rows: norm(rows) if len(rows) > 1 else F.batch_norm(rows, norm.running_mean, norm.running_var)

        z = by_domain([normal(norm) for norm in self.norms], z, domain)
        return self.scale * self.scales[domain] * z + self.shift + self.shifts[domain]


class StarLayer(nn.Module):
    """x (W ⊙ W_s) + b + b_s: the shared map times the domain's own, which starts at one [ours]."""

    def __init__(self, domains: int, inputs: int, outputs: int):
        super().__init__()
        self.shared = Linears(1, inputs, outputs)
        self.own = nn.Parameter(torch.ones(domains, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(domains, outputs))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """x [N, i], domain int [N] → [N, o]."""
        W, b = self.shared.weight * self.own, self.shared.bias[0] + self.bias  # [S, i, o], [S, o]
        return by_domain([partial(torch.addmm, b_s, mat2=W_s) for b_s, W_s in zip(b, W, strict=True)], x, domain)


class STAR(MultiDomainModel):
    def __init__(self, data: Layout, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        S, inputs = len(data.domains), len(data.fields) * dim
        sizes = [inputs, *expert, *tower, 1]
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.norm = PartitionedNorm(S, inputs)
        self.layers = nn.ModuleList(StarLayer(S, i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True))
        self.auxiliary = mlp([inputs, *tower, 1])  # the domain is one of the fields that it reads

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)[0]  # [N, F·e]
        h = self.norm(x, domain)  # [N, F·e]
        for i, layer in enumerate(self.layers):
            h = layer(torch.relu(h) if i else h, domain)
        # The logits of the two networks are added, as published.
        return Output((h + self.auxiliary(x)).squeeze(-1))
