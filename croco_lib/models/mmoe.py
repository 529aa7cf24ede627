"""MMoE (Ma et al., KDD 2018) and ME-MMoE, the same with one embedding set an expert.

M experts shared by all domains, a softmax gate and a tower per domain.
"""

from torch import Tensor

from ..layers import DomainGate, Experts, MultiEmbedding, Towers, mix
from ..schema import Layout
from .base import MultiDomainModel, Output


class MMoE(MultiDomainModel):
    """All `experts` read one embedding set."""

    multi_embedding = False

    def __init__(self, data: Layout, experts: int = 5, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        inputs = len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, experts if self.multi_embedding else 1, dim)
        self.experts = Experts(experts, inputs, expert)
        self.gate = DomainGate(len(data.domains), inputs, experts)
        self.towers = Towers(len(data.domains), expert[-1], tower)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [M or 1, N, F·e]
        O = self.experts(x)  # [M, N, d]
        g = self.gate(x.mean(0), domain)  # [M, N, 1]; the mean of the sets [ours, for ME-MMoE]
        return Output(self.towers(mix(g, O), domain), O, g)


class MEMMoE(MMoE):
    """ME-MMoE: MMoE whose experts each have their own embedding set. All sets are shared by all domains."""

    multi_embedding = True
