"""PLE (Tang et al., RecSys 2020) and ME-PLE, the same with one embedding set an expert.

Experts stand in S + 1 streams: stream s < S is domain s's own, stream S is shared. A domain's gate weighs its own and
the shared experts; between levels the shared stream's gate weighs all of them.
"""

import torch
from torch import Tensor, nn

from ..layers import Experts, Linears, MultiEmbedding, Towers
from ..schema import Layout
from .base import MultiDomainModel, Output


class Level(nn.Module):
    """One level: `per_stream` experts in each of S + 1 streams, and a gate for each of the `gates` first streams."""

    stream: Tensor  # int [M]: the stream of each expert
    closed: Tensor  # bool [T, 1, M]: what each of the T gates does not read, for all rows alike

    def __init__(self, domains: int, per_stream: int, inputs: int, widths: tuple, gates: int):
        super().__init__()
        stream = torch.arange(domains + 1).repeat_interleave(per_stream)
        reader = torch.arange(gates)[:, None]
        self.register_buffer("stream", stream, persistent=False)
        allowed = (stream == reader) | (stream == domains) | (reader == domains)  # [gates, M]
        self.register_buffer("closed", ~allowed[:, None, :], persistent=False)
        self.experts = Experts(len(stream), inputs, widths)
        self.gates = Linears(gates, inputs, len(stream))

    def forward(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """x [M or 1, N, i] for the experts, states [streams, N, i] for the gates → O [M, N, d], gates [T, N, M]."""
        gates = self.gates(states[: len(self.closed)])  # [T, N, M], T the gates
        # A softmax over −∞ gives exactly 0, and no gradient: an expert of another domain is not read at all.
        return self.experts(x), gates.masked_fill(self.closed, -torch.inf).softmax(-1)


class PLE(MultiDomainModel):
    """`per_stream` experts in each stream, `levels` of them one above the other; all read one embedding set."""

    multi_embedding = False

    def __init__(
        self,
        data: Layout,
        per_stream: int = 1,
        levels: int = 1,
        dim: int = 16,
        expert: tuple = (64, 32),
        tower: tuple = (16,),
    ):
        super().__init__()
        S, inputs = len(data.domains), len(data.fields) * dim
        self.embedding = MultiEmbedding(data.fields, (S + 1) * per_stream if self.multi_embedding else 1, dim)
        # The last level needs no gate for the shared stream: no tower reads it.
        self.levels = nn.ModuleList(
            Level(S, per_stream, expert[-1] if i else inputs, expert, S if i == levels - 1 else S + 1)
            for i in range(levels)
        )
        self.towers = Towers(S, expert[-1], tower)
        self.per_stream, self.streams, self.own_sets = per_stream, S + 1, per_stream * self.multi_embedding

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)  # [M or 1, N, F·e]
        # A stream's gate reads what the stream's first expert reads [ours, for ME-PLE].
        states = x[:: self.per_stream].expand(self.streams, -1, -1)  # [S + 1, N, F·e]
        for i, level in enumerate(self.levels):
            O, gates = level(states[level.stream] if i else x, states)  # [M, N, d], [T, N, M]
            states = torch.einsum("tnm,mnd->tnd", gates, O)  # [T, N, d]
        rows = torch.arange(len(domain), device=domain.device)
        # Every domain's mixture of every row is there; the row's own is picked, for the towers and for the gate.
        g = gates[domain, rows].T.unsqueeze(-1)  # [M, N, 1]
        return Output(self.towers(states[domain, rows], domain), O, g)


class MEPLE(PLE):
    """ME-PLE: PLE whose experts each have their own embedding set, so a domain's own set learns from it alone."""

    multi_embedding = True
