"""The four parts that every model is wired from: embedding sets → experts → gate → towers.

Shapes: N rows, F fields, M sets or experts, e the embedding size, d the experts' output width, S domains.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .schema import UNKNOWN, Field

INIT_STD = 0.1  # of the embeddings [ours]: the world is learnt slowly from 0.01 and well from 0.1


class MultiEmbedding(nn.Module):
    """M embedding tables a field, held as one wide table [V, M·e] over all fields: one lookup serves them all.

    Crocodile (arXiv 2405.12706), the multi-embedding layer. Set m feeds expert m.
    """

    def __init__(self, fields: Sequence[Field], sets: int, dim: int):
        super().__init__()
        sizes = torch.tensor([f.size for f in fields])
        self.sets, self.dim = sets, dim
        self.bags = {i: f.bag for i, f in enumerate(fields) if f.bag is not None}
        self.register_buffer("offset", (sizes.cumsum(0) - sizes).int(), persistent=False)  # [F]
        self.table = nn.Embedding(int(sizes.sum()), sets * dim)
        nn.init.normal_(self.table.weight, std=INIT_STD)

    def forward(self, features: Tensor) -> Tensor:
        """features int [N, F] → [M, N, F·e]."""
        if self.bags:
            numbers, features = features, features.clone()
            features[:, list(self.bags)] = UNKNOWN  # the slot that the bag's mean then fills
        wide = self.table(features + self.offset)  # [N, F, M·e]
        if self.bags:
            columns = list(wide.unbind(1))
            for i in self.bags:
                columns[i] = self.mean(i, numbers[:, i])
            wide = torch.stack(columns, 1)
        split = wide.unflatten(-1, (self.sets, self.dim))  # [N, F, M, e]
        return split.permute(2, 0, 1, 3).flatten(2)  # [M, N, F·e]

    def mean(self, i: int, numbers: Tensor) -> Tensor:
        """Multi-valued field i: the weighted mean of the vectors in each row's bag, Σ w e / Σ w. [N] → [N, M·e]."""
        bag, b = self.bags[i], numbers.cpu().numpy()
        size = bag.offsets[b + 1] - bag.offsets[b]  # [N], never 0
        start = size.cumsum() - size
        at = np.repeat(bag.offsets[b] - start, size) + np.arange(size.sum())
        weight = bag.weights[at]
        weight = weight / np.maximum(np.add.reduceat(weight, start), 1e-12).repeat(size)
        ids, start, weight = (torch.from_numpy(a).to(numbers.device) for a in (bag.ids[at], start, weight))
        return F.embedding_bag(ids + self.offset[i], self.table.weight, start.to(ids.dtype), mode="sum",
                               per_sample_weights=weight, sparse=self.table.sparse)

    def weights(self) -> Tensor:
        """The M tables apart: [M, V, e]."""
        return self.table.weight.unflatten(1, (self.sets, self.dim)).transpose(0, 1)


class Linears(nn.Module):
    """M linear maps side by side: [M, N, i] → [M, N, o], one batched product."""

    def __init__(self, count: int, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Experts(nn.Module):
    """M experts, each an MLP with ReLU between its layers and a linear output: O^(m) = MLP^(m)(x^(m)), [M, N, d]."""

    def __init__(self, count: int, inputs: int, widths: Sequence[int]):
        super().__init__()
        sizes = [inputs, *widths]
        self.count = count
        self.layers = nn.ModuleList(Linears(count, i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """x [M, N, i], or [1, N, i] where all experts read the same."""
        x = x.expand(self.count, -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x)
        return x


def by_domain(modules: Sequence[Callable[[Tensor], Tensor]], x: Tensor, domain: Tensor) -> Tensor:
    """Each row through its own domain's module only: rows sorted by domain, a slice each, and back. [N, i] → [N, o]."""
    order = domain.argsort(stable=True)
    sizes = domain.bincount(minlength=len(modules)).tolist()
    parts = [module(rows) for module, rows in zip(modules, x[order].split(sizes), strict=True)]
    return torch.cat(parts)[order.argsort()]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes, inputs first, with ReLU between them and a linear output."""
    layers = [m for i, o in zip(sizes[:-1], sizes[1:], strict=True) for m in (nn.ReLU(), nn.Linear(i, o))]
    return nn.Sequential(*layers[1:])


class Towers(nn.Module):
    """One MLP per domain, ending in a logit: ŷ^(s) = σ(MLP_s(t)). Rows see only their own domain's tower."""

    def __init__(self, domains: int, inputs: int, widths: Sequence[int]):
        super().__init__()
        self.inputs = inputs
        self.towers = nn.ModuleList(mlp([inputs, *widths, 1]) for _ in range(domains))

    def forward(self, t: Tensor, domain: Tensor) -> Tensor:
        """t [N, d], domain int [N] → logits [N]."""
        return by_domain(self.towers, t, domain).squeeze(-1)


class DomainGate(nn.Module):
    """One softmax gate per domain, one weight an expert: g = softmax(x W_s), [M, N, 1] (Ma et al., MMoE, KDD 2018)."""

    def __init__(self, domains: int, inputs: int, experts: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(inputs, experts) for _ in range(domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        gate = by_domain(self.maps, x, domain).softmax(-1)  # [N, M]
        return gate.T.unsqueeze(-1)  # [M, N, 1]


class PriorGate(nn.Module):
    """PEG, the prior-informed element-wise gate: g = softmax over the M experts of (r W_g), [M, N, d].

    r is the row's embedding of the prior fields (user, item, domain), in a table of its own. Crocodile,
    arXiv 2405.12706. The paper writes W_g with an index s, one for each domain, yet gives as its motive that a gate's
    parameters swell with the domains. So both are offered: with `domains` S each row is mapped by its own domain's
    W_g^s; one W_g for all is the default [ours].
    """

    def __init__(self, fields: Sequence[Field], dim: int, experts: int, width: int, domains: int = 1):
        super().__init__()
        columns = [i for i, f in enumerate(fields) if f.prior]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.prior = MultiEmbedding([fields[i] for i in columns], 1, dim)
        sizes = len(columns) * dim, experts * width
        if domains > 1:
            self.maps = nn.ModuleList(nn.Linear(*sizes) for _ in range(domains))
        else:
            self.map = nn.Linear(*sizes)
        self.experts, self.domains = experts, domains

    def forward(self, features: Tensor, domain: Tensor | None = None) -> Tensor:
        """`domain` int [N] is read where each domain has its own map."""
        r = self.prior(features[:, self.columns])[0]  # [N, P·e]
        scores = by_domain(self.maps, r, domain) if self.domains > 1 else self.map(r)  # [N, M·d]
        scores = scores.unflatten(-1, (self.experts, -1))  # [N, M, d]
        return scores.softmax(1).transpose(0, 1)  # [M, N, d]


def mix(gate: Tensor, experts: Tensor) -> Tensor:
    """t = Σ_m g^(m) ⊙ O^(m): gate [M, N, d] or [M, N, 1], experts [M, N, d] → [N, d]."""
    return (gate * experts).sum(0)
