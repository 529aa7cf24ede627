"""MMoE (Ma et al., KDD 2018): one embedding set, M shared experts, a softmax gate and a tower per domain."""

from torch import Tensor, nn

from ..layers import DomainGate, Experts, MultiEmbedding, Towers, mix
from ..schema import MultiDomainData
from .output import Output


class MMoE(nn.Module):
    def __init__(self, data: MultiDomainData, experts: int = 5, dim: int = 16, expert: tuple = (64, 32),
                 tower: tuple = (16,)):
        super().__init__()
        inputs = len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.experts = Experts(experts, inputs, expert)
        self.gate = DomainGate(len(data.domains), inputs, experts)
        self.towers = Towers(len(data.domains), expert[-1], tower)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [1, N, F·e]
        O = self.experts(x)  # [M, N, d]
        g = self.gate(x[0], domain)  # [M, N, 1]
        return Output(self.towers(mix(g, O), domain), O, g)
