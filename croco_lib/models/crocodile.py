"""Crocodile (arXiv 2405.12706): M embedding sets and experts, all shared; CovLoss keeps them apart; PEG mixes them."""

from torch import Tensor

from ..errors import known
from ..layers import DomainGate, Experts, MultiEmbedding, PriorGate, Towers, mix
from ..losses import REGULARISERS
from ..schema import Layout
from .base import MultiDomainModel, Output

GATES = ("peg", "peg-domain", "expert", "domain")


class Crocodile(MultiDomainModel):
    """α weighs CovLoss (ours is the paper's times N − 1, see `covariance_loss`); `sets` is M.

    `gate` is "peg", one W_g for all domains [ours], or "peg-domain", one for each (see `PriorGate`). For the ablations:
    "expert" (from the prior, one weight an expert) or "domain" (MMoE's, reading the mean of the sets [ours]); another
    `regulariser` by name, on the first `sample` rows of the (shuffled) batch; `multi_embedding` false: all experts read
    one set.
    """

    def __init__(
        self,
        data: Layout,
        sets: int = 5,
        alpha: float = 0.1,
        dim: int = 16,
        expert: tuple = (64, 32),
        tower: tuple = (16,),
        regulariser: str = "cov",
        sample: int | None = None,
        gate: str = "peg",
        multi_embedding: bool = True,
    ):
        super().__init__()
        S, inputs = len(data.domains), len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, sets if multi_embedding else 1, dim)
        self.experts = Experts(sets, inputs, expert)
        # MMoE's gate reads the experts' input, all others the prior's own table: their forwards differ.
        self.by_prior = known("gate", gate, GATES) != "domain"
        width = 1 if gate == "expert" else expert[-1]
        self.gate = (
            PriorGate(data.fields, dim, sets, width, S if gate == "peg-domain" else 1)
            if self.by_prior
            else DomainGate(S, inputs, sets)
        )
        self.towers = Towers(S, expert[-1], tower)
        self.alpha, self.sample = alpha, sample
        self.regulariser = known("regulariser", regulariser, REGULARISERS)

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [M, N, F·e]
        O = self.experts(x)  # [M, N, d]
        g = self.gate(features, domain) if self.by_prior else self.gate(x.mean(0), domain)  # [M, N, d] or [M, N, 1]
        penalty: Tensor | float = 0.0
        if self.alpha and self.training:  # in evaluation nobody reads the penalty
            penalty = self.alpha * REGULARISERS[self.regulariser](O[:, : self.sample], g[:, : self.sample])
        return Output(self.towers(mix(g, O), domain), O, g, penalty)
