"""PEPNet (Chang et al., KDD 2023): EPNet gates the embedding by the domain, PPNet every layer by user, item and author.

The author stands in the prior where a field bears one of the names in AUTHOR; else the prior is user and item.
A gate unit is 2 σ(W' ReLU(W z + b) + b'). No gate's input but its prior gets a gradient from it. One tower for all
domains, as published for one task: the domain speaks through EPNet.
"""

import torch
from torch import Tensor, nn

from ..layers import MultiEmbedding, mlp
from ..schema import Layout
from .base import MultiDomainModel, Output

AUTHOR = ("author_id", "author")  # a field of one of these names is the author: no role says so [ours]


class PEPNet(MultiDomainModel):
    """`hidden` is the width of the gate units' hidden layer [ours: 32]."""

    def __init__(self, data: Layout, hidden: int = 32, dim: int = 16, expert: tuple = (64, 32), tower: tuple = (16,)):
        super().__init__()
        sizes = [len(data.fields) * dim, *expert, *tower]
        author = [i for i, f in enumerate(data.fields) if f.name in AUTHOR and not f.role][:1]
        self.domain, self.priors = data.column("domain"), [data.column("user"), data.column("item"), *author]
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.epnet = mlp([dim + sizes[0], hidden, sizes[0]])
        self.ppnet = nn.ModuleList(mlp([len(self.priors) * dim + sizes[0], hidden, width]) for width in sizes)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, [*sizes[1:], 1], strict=True))

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)[0]  # [N, F·e]
        e = x.unflatten(1, (features.shape[1], -1))  # [N, F, e]
        e_s, r = e[:, self.domain], e[:, self.priors].flatten(1)  # [N, e], [N, P·e]; P = 2, or 3 with the author
        # Twice a sigmoid lies around one: a gate that knows nothing leaves its input as it is.
        x = 2 * self.epnet(torch.cat([e_s, x.detach()], 1)).sigmoid() * x  # EPNet
        # Detached, as published: the gates are to follow the representation and not to bend it.
        prior = torch.cat([r, x.detach()], 1)  # [N, P·e + F·e]
        h = x
        for i, (gate, layer) in enumerate(zip(self.ppnet, self.layers, strict=True)):  # PPNet
            h = torch.relu(h) if i else h
            h = layer(2 * gate(prior).sigmoid() * h)
        return Output(h.squeeze(-1))
