"""Shared-Bottom (Caruana 1997): one embedding set, one shared expert, a tower per domain."""

from torch import Tensor

from ..layers import Experts, MultiEmbedding, Towers
from ..schema import Layout
from .base import MultiDomainModel, Output


class SharedBottom(MultiDomainModel):
    """The domains share everything but their towers."""

    def __init__(self, data: Layout, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.experts = Experts(1, len(data.fields) * dim, expert)
        self.towers = Towers(len(data.domains), expert[-1], tower)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [1, N, F·e]
        O = self.experts(x)  # [1, N, d]
        return Output(self.towers(O[0], domain), O)
