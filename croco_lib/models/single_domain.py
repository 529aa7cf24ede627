"""Single-domain training, the floor: embedding set, expert and tower of its own for every domain, nothing shared.

One network a domain, trained side by side. Each gets the gradient that it would get alone, up to a factor to which
Adam is nearly blind, its share of the batch (weight decay is not blind to it: it weighs more beside a small domain's
small gradient). The step that is kept is chosen for all at once.
"""

import torch
from torch import Tensor

from ..layers import Experts, MultiEmbedding, Towers, mix
from ..schema import Layout
from .base import MultiDomainModel, Output


class SingleDomain(MultiDomainModel):
    def __init__(self, data: Layout, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        S = len(data.domains)
        self.embedding = MultiEmbedding(data.fields, S, dim)
        self.experts = Experts(S, len(data.fields) * dim, expert)
        self.towers = Towers(S, expert[-1], tower)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        # All S networks run on all rows, as one batched product; the gate below keeps the row's own.
        O = self.experts(self.embedding(features))  # [S, N, d]
        own = torch.arange(len(O), device=domain.device)[:, None] == domain  # [S, N]
        g = own.to(O.dtype).unsqueeze(-1)  # [S, N, 1]: the row's own expert and no other
        return Output(self.towers(mix(g, O), domain), O, g)
