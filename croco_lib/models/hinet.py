"""HiNet (Zhou et al., ICDE 2023), its scenario layer: shared, own and other domains' experts, side by side.

S + 1 streams of `per_stream` sub-experts on one embedding set: stream s < S is domain s's own, stream S shared; a gate
weighs the sub-experts within a stream. The tower reads [shared; own; others], where the others' streams are weighed by
the scenario-aware attention. Only one task here, so there is no task layer.
"""

import torch
from torch import Tensor, nn

from ..errors import CrocoError
from ..layers import Experts, Linears, MultiEmbedding, Towers
from ..schema import Layout
from .base import MultiDomainModel, Output


class HiNet(MultiDomainModel):
    def __init__(
        self, data: Layout, per_stream: int = 2, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)
    ):
        super().__init__()
        S, inputs = len(data.domains), len(data.fields) * dim
        if S < 2:
            raise CrocoError("hinet weighs the other domains' experts, so it needs two domains or more.")
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.experts = Experts((S + 1) * per_stream, inputs, expert)
        self.within = Linears(S + 1, inputs, per_stream)
        self.attention = nn.Linear(dim, S)
        self.towers = Towers(S, 3 * expert[-1], tower)
        self.column = data.column("domain")

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [1, N, F·e]
        O = self.experts(x)  # [M, N, d]
        within = self.within(x.expand(len(self.within.weight), -1, -1)).softmax(-1)  # [S + 1, N, k]
        streams, N, k = within.shape
        S = streams - 1
        e_s = x[0].unflatten(1, (features.shape[1], -1))[:, self.column]  # [N, e], the domain's embedding
        # The own stream stands beside the others and must not be counted among them, hence the mask.
        own = torch.arange(S, device=domain.device) == domain[:, None]  # [N, S]
        others = self.attention(e_s).masked_fill(own, -torch.inf).softmax(-1)  # [N, S]
        # The three inputs of the tower as weights of all S + 1 streams, so that one product makes all three.
        none = torch.zeros_like(others[:, :1])  # [N, 1]
        by_stream = torch.stack(
            [
                torch.cat([torch.zeros_like(others), none + 1], 1),  # the shared stream
                torch.cat([own.to(x.dtype), none], 1),  # the domain's own
                torch.cat([others, none], 1),  # the others
            ]
        )  # [3, N, S + 1]
        g = (by_stream[..., None] * within.transpose(0, 1)).flatten(2)  # [3, N, M]
        t = torch.einsum("bnm,mnd->nbd", g, O).flatten(1)  # [N, 3·d]
        gate = g.mean(0).T.unsqueeze(-1)  # [M, N, 1]: each expert's mean weight in the tower's three inputs
        return Output(self.towers(t, domain), O, gate)
