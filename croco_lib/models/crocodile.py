"""Crocodile (arXiv 2405.12706): M embedding sets and experts, all shared; CovLoss keeps them apart; PEG mixes them."""

from torch import Tensor, nn

from ..layers import Experts, MultiEmbedding, PriorGate, Towers, mix
from ..losses import covariance_loss
from ..schema import MultiDomainData
from .output import Output


class Crocodile(nn.Module):
    """α weighs CovLoss (ours is the paper's times N − 1, see `covariance_loss`); `sets` is M."""

    def __init__(self, data: MultiDomainData, sets: int = 5, alpha: float = 0.1, dim: int = 16,
                 expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        self.embedding = MultiEmbedding(data.fields, sets, dim)
        self.experts = Experts(sets, len(data.fields) * dim, expert)
        self.gate = PriorGate(data.fields, dim, sets, expert[-1])
        self.towers = Towers(len(data.domains), expert[-1], tower)
        self.alpha = alpha

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [M, N, F·e]
        O = self.experts(x)  # [M, N, d]
        g = self.gate(features)  # [M, N, d]
        return Output(self.towers(mix(g, O), domain), O, g, self.alpha * covariance_loss(O))
