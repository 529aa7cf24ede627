"""SDEM: STEM (Su et al., AAAI 2024) carried over from tasks to domains, as arXiv 2405.12706 does.

S + 1 embedding sets, one of each domain's own and one shared, an expert on each. Every tower reads all experts, but a
row's gradient reaches only its own domain's expert and table and the shared ones: all forward, domain-specific
backward. As in STEM it is stopped at the other experts' outputs, and a domain's gate reads the sum of the row's own and
shared embeddings. STEM's gates are MLPs; ours are linear, as MMoE's here are [ours].
"""

import torch
from torch import Tensor

from ..layers import DomainGate, Experts, MultiEmbedding, Towers, mix
from ..schema import Layout
from .base import MultiDomainModel, Output


class SDEM(MultiDomainModel):
    own_sets = 1

    def __init__(self, data: Layout, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        S, inputs = len(data.domains), len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, S + 1, dim)  # set s < S is domain s's own, set S is shared
        self.experts = Experts(S + 1, inputs, expert)
        self.gate = DomainGate(S, inputs, S + 1)
        self.towers = Towers(S, expert[-1], tower)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [S + 1, N, F·e]
        O = self.experts(x)  # [S + 1, N, d]
        shared = len(x) - 1
        stream = torch.arange(len(x), device=x.device)[:, None]  # [S + 1, 1]
        learns = (stream == domain) | (stream == shared)  # [S + 1, N]
        # The values stay, the gradient goes: a row of one domain must not train what is another domain's own.
        O = torch.where(learns[..., None], O, O.detach())  # [S + 1, N, d]
        own = x[domain, torch.arange(len(domain), device=x.device)]  # [N, F·e]
        g = self.gate(own + x[shared], domain)  # [S + 1, N, 1]
        return Output(self.towers(mix(g, O), domain), O, g)
