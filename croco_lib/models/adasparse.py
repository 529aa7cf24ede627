"""AdaSparse (Yang et al., CIKM 2022): a pruner weighs every neuron by domain, and closes the weakest.

The fusion form: π = β σ(v) where σ(v) > ε, else 0, with v = W [e_s; h] + b, on the input of every layer.
"""

import torch
from torch import Tensor, nn

from ..layers import MultiEmbedding
from ..schema import Layout
from .base import MultiDomainModel, Output

BETA = 2.0  # published; so an undecided neuron, σ = ½, has weight one
SPARSITY = (0.15, 0.25)  # published range r_min, r_max of the share of closed neurons
WEIGHT = 0.01  # of the sparsity penalty [ours: fixed; the paper lets it grow]


class AdaSparse(MultiDomainModel):
    """`epsilon` is the threshold below which a neuron is closed.

    The share of closed neurons r of a layer is drawn into SPARSITY by WEIGHT · (r − 0.2)² where it lies outside (mean
    over layers). A count has no gradient: that of 1 − mean σ(v) stands in for it [ours]. The published annealing of α,
    which sharpens the pruner's σ(α v) through training, is left out, α = 1 [ours]: the threshold closes neurons without
    it, and its schedule would depend on the number of steps, which early stopping does not fix in advance.
    """

    def __init__(
        self,
        data: Layout,
        epsilon: float = 0.25,
        dim: int = 16,
        expert: tuple = (64, 32),
        tower: tuple = (16,),
    ):
        super().__init__()
        sizes = [len(data.fields) * dim, *expert, *tower]
        self.embedding = MultiEmbedding(data.fields, 1, dim)
        self.pruners = nn.ModuleList(nn.Linear(dim + width, width) for width in sizes)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, [*sizes[1:], 1], strict=True))
        self.column, self.epsilon = data.column("domain"), epsilon

    def forward(self, features: Tensor, domain: Tensor) -> Output:
        x = self.embedding(features)[0]  # [N, F·e]
        e_s = x.unflatten(1, (features.shape[1], -1))[:, self.column]  # [N, e]
        h, penalty = x, 0.0  # h [N, width of the layer]
        for i, (pruner, layer) in enumerate(zip(self.pruners, self.layers, strict=True)):
            h = torch.relu(h) if i else h  # the first input is the embedding, whose negative half must not be lost
            # What a neuron weighs depends on the domain: two domains share the neurons that both keep open.
            share = pruner(torch.cat([e_s, h], 1)).sigmoid()  # [N, width]
            open_ = share > self.epsilon
            h = layer(BETA * share * open_ * h)
            # The value is the share of closed neurons alone; the two means cancel, and leave the gradient of one.
            r = (~open_).float().mean() - share.mean() + share.mean().detach()
            outside = (r < SPARSITY[0]) | (r > SPARSITY[1])
            penalty = penalty + WEIGHT * outside * (r - sum(SPARSITY) / 2).square() / len(self.layers)
        return Output(h.squeeze(-1), penalty=penalty)
