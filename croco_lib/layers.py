"""The four parts that every model is wired from: embedding sets → experts → gate → towers.

Shapes: N rows, F fields, M sets or experts, e the embedding size, d the experts' output width, S domains, V ids of all
fields together.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .schema import UNKNOWN, Field

INIT_STD = 0.1  # of the embeddings [ours]: the world is learnt slowly from 0.01 and well from 0.1


def sets_first(wide: Tensor, sets: int) -> Tensor:
    """The M vectors that stand side by side in each of the rows looked up, apart: [N, F, M·e] → [M, N, F·e]."""
    split = wide.unflatten(-1, (sets, -1))  # [N, F, M, e]
    # The sets come first, so that the experts' M products are one batched product.
    return split.permute(2, 0, 1, 3).flatten(2)  # [M, N, F·e]


class MultiEmbedding(nn.Module):
    """M embedding tables a field, held as one wide table [V, M·e] over all fields: one lookup serves them all.

    Crocodile (arXiv 2405.12706), the multi-embedding layer. Set m feeds expert m.
    """

    offset: Tensor  # int [F]: where each field's ids begin in the table

    def __init__(self, fields: Sequence[Field], sets: int, dim: int):
        super().__init__()
        sizes = torch.tensor([field.size for field in fields])
        self.fields, self.sets, self.dim = tuple(fields), sets, dim
        self.bags = {i: field.bag for i, field in enumerate(fields) if field.bag is not None}
        # Not saved: the data gives it, and old weights stay readable.
        self.register_buffer("offset", (sizes.cumsum(0) - sizes).int(), persistent=False)
        self.table = nn.Embedding(int(sizes.sum()), sets * dim)
        nn.init.normal_(self.table.weight, std=INIT_STD)

    def forward(self, features: Tensor) -> Tensor:
        """features int [N, F] → [M, N, F·e]."""
        if self.bags:
            numbers, features = features, features.clone()
            # A bag's number is no id and may lie outside the table; the bag's mean takes this slot below.
            features[:, list(self.bags)] = UNKNOWN
        wide = self.table(features + self.offset)  # [N, F, M·e]
        if self.bags:
            columns = list(wide.unbind(1))
            for i in self.bags:
                columns[i] = self.bag_mean(i, numbers[:, i])
            wide = torch.stack(columns, 1)
        return sets_first(wide, self.sets)

    def bag_mean(self, i: int, numbers: Tensor) -> Tensor:
        """Multi-valued field i: the weighted mean of the vectors in each row's bag, Σ w e / Σ w. [N] → [N, M·e]."""
        read = self.bags[i].read(numbers.cpu().numpy())  # the bags may be a mapped file, so they are read by NumPy
        ids, start, weight = (torch.from_numpy(a).to(numbers.device) for a in read)
        rows, table = ids + self.offset[i], self.table
        # embedding_bag adds up within each bag without holding every value's vector at once.
        return F.embedding_bag(
            rows, table.weight, start.to(ids.dtype), mode="sum", per_sample_weights=weight, sparse=table.sparse
        )

    def weights(self) -> Tensor:
        """The M tables apart: [M, V, e]."""
        return self.table.weight.unflatten(1, (self.sets, self.dim)).transpose(0, 1)


class Linears(nn.Module):
    """M linear maps side by side: [M, N, i] → [M, N, o], one batched product."""

    def __init__(self, count: int, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5  # as nn.Linear draws its weights; its biases are drawn too, ours start at 0
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x [M, N, i] → [M, N, o]."""
        return torch.baddbmm(self.bias, x, self.weight)


class Experts(nn.Module):
    """M experts, each an MLP with ReLU between its layers and a linear output: O^(m) = MLP^(m)(x^(m)), [M, N, d]."""

    def __init__(self, count: int, inputs: int, widths: Sequence[int]):
        super().__init__()
        sizes = [inputs, *widths]
        self.count = count
        self.layers = nn.ModuleList(Linears(count, i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """x [M, N, i], or [1, N, i] where all experts read the same → [M, N, d]."""
        x = x.expand(self.count, -1, -1)  # a view: the one set is not copied M times
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x)
        return x


def by_domain(modules: Sequence[Any] | nn.ModuleList, x: Tensor, domain: Tensor) -> Tensor:
    """Each row through its own domain's module only: module s for the rows with domain s. x [N, i] → [N, o].

    The rows are sorted by domain, so that each module gets one slice, and put back: the work is that of N rows, and
    not of N · S.
    """
    if torch.compiler.is_exporting():
        # Slices as long as the batch happens to need cannot stand in an exported graph: all modules do all rows there.
        every = torch.stack([module(x) for module in modules])  # [S, N, o]
        return every[domain, torch.arange(x.shape[0], device=x.device)]
    order = domain.argsort(stable=True)
    sizes = domain.bincount(minlength=len(modules)).tolist()
    parts = [module(rows) for module, rows in zip(modules, x[order].split(sizes), strict=True)]
    return torch.cat(parts)[order.argsort()]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes, inputs first, with ReLU between them and a linear output."""
    layers = [m for i, o in zip(sizes[:-1], sizes[1:], strict=True) for m in (nn.ReLU(), nn.Linear(i, o))]
    return nn.Sequential(*layers[1:])  # without the ReLU before the first


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
    """One softmax gate per domain, one weight an expert: g = softmax(x W_s + b_s), [M, N, 1] (MMoE, KDD 2018)."""

    def __init__(self, domains: int, inputs: int, experts: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(inputs, experts) for _ in range(domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """x [N, i], domain int [N] → [M, N, 1]."""
        gate = by_domain(self.maps, x, domain).softmax(-1)  # [N, M]
        return gate.T.unsqueeze(-1)  # [M, N, 1]: one weight for all dimensions of an expert


class PriorGate(nn.Module):
    """PEG, the prior-informed element-wise gate: g = softmax over the M experts of (r W_g + b), [M, N, d].

    r is the row's embedding of the prior fields (user, item, domain), in a table of its own. Crocodile,
    arXiv 2405.12706. The paper writes W_g with an index s, one for each domain, yet gives as its motive that a gate's
    parameters swell with the domains. So both are offered: with `domains` S each row is mapped by its own domain's
    W_g^s; one W_g for all is the default, and b [ours].
    """

    columns: Tensor  # int [P]: where the prior fields stand among all fields

    def __init__(self, fields: Sequence[Field], dim: int, experts: int, width: int, domains: int = 1):
        super().__init__()
        columns = [i for i, field in enumerate(fields) if field.prior]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        # A table of its own, so that the gate's gradient does not train what the experts read.
        self.prior = MultiEmbedding([fields[i] for i in columns], 1, dim)
        sizes = len(columns) * dim, experts * width
        if domains > 1:
            self.maps = nn.ModuleList(nn.Linear(*sizes) for _ in range(domains))
        else:
            self.map = nn.Linear(*sizes)
        self.experts, self.domains = experts, domains

    def forward(self, features: Tensor, domain: Tensor | None = None) -> Tensor:
        """features int [N, F] → [M, N, d]. `domain` int [N] is read where each domain has its own map."""
        r = self.prior(features[:, self.columns])[0]  # [N, P·e]
        scores = self.map(r) if self.domains == 1 or domain is None else by_domain(self.maps, r, domain)  # [N, M·d]
        scores = scores.unflatten(-1, (self.experts, -1))  # [N, M, d]
        # Over the experts and not the dimensions: in each dimension the experts' shares add up to one.
        return scores.softmax(1).transpose(0, 1)  # [M, N, d]


def mix(gate: Tensor, experts: Tensor) -> Tensor:
    """t = Σ_m g^(m) ⊙ O^(m): gate [M, N, d] or [M, N, 1], experts [M, N, d] → [N, d]."""
    return (gate * experts).sum(0)
