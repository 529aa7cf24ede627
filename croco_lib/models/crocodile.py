"""Crocodile (arXiv 2405.12706): M embedding sets and experts, all shared; CovLoss keeps them apart; PEG mixes them."""

from torch import Tensor, nn

from ..layers import DomainGate, Experts, MultiEmbedding, PriorGate, Towers, mix
from ..losses import REGULARISERS
from ..schema import MultiDomainData, known
from .output import Output

GATES = ("peg", "expert", "domain")


class Crocodile(nn.Module):
    """α weighs CovLoss (ours is the paper's times N − 1, see `covariance_loss`); `sets` is M.

    For the ablations: another `regulariser` by name, on the first `sample` rows of the (shuffled) batch; `gate` "peg",
    "expert" (from the prior, one weight an expert) or "domain" (MMoE's, reading the mean of the sets [ours]);
    `multi_embedding` false: all experts read one set.
    """

    def __init__(self, data: MultiDomainData, sets: int = 5, alpha: float = 0.1, dim: int = 16,
                 expert: tuple = (64, 32), tower: tuple = (16,), regulariser: str = "cov", sample: int | None = None,
                 gate: str = "peg", multi_embedding: bool = True):
        super().__init__()
        inputs = len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, sets if multi_embedding else 1, dim)
        self.experts = Experts(sets, inputs, expert)
        self.by_prior = known("gate", gate, GATES) != "domain"
        self.gate = (PriorGate(data.fields, dim, sets, expert[-1] if gate == "peg" else 1) if self.by_prior
                     else DomainGate(len(data.domains), inputs, sets))
        self.towers = Towers(len(data.domains), expert[-1], tower)
        self.alpha, self.sample = alpha, sample
        self.regulariser = REGULARISERS[known("regulariser", regulariser, REGULARISERS)]

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [M, N, F·e]
        O = self.experts(x)  # [M, N, d]
        g = self.gate(features) if self.by_prior else self.gate(x.mean(0), domain)  # [M, N, d] or [M, N, 1]
        penalty = 0.0
        if self.alpha and self.training:
            penalty = self.alpha * self.regulariser(O[:, :self.sample], g[:, :self.sample])
        return Output(self.towers(mix(g, O), domain), O, g, penalty)
