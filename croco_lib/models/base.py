"""What all models have in common: what their forward returns, and what they know of how they were made."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..schema import Field


class Output(NamedTuple):
    """`logits` [N]; `experts` [M, N, d], `gate` [M, N, d] or [M, N, 1], or None; `penalty`, to add to the loss."""

    logits: Tensor
    experts: Tensor | None = None
    gate: Tensor | None = None
    penalty: Tensor | float = 0.0


class MultiDomainModel(nn.Module):
    """A model whose `forward(features int [N, F], domain int [N])` returns an `Output`.

    `build` notes on it the `name`, `options` and `seed` that it was made with, and the `sizes` of its fields: enough to
    make the model again, and to tell a run from another. `own_sets` counts the embedding sets that each domain has of
    its own beside shared ones; these come first, in order of the domains.
    """

    own_sets = 0
    name: str
    options: dict
    seed: int
    sizes: list[int]

    def made_as(self, name: str, options: dict, seed: int, fields: Sequence[Field]) -> "MultiDomainModel":
        """Note how the model was made; returns it."""
        self.name, self.options, self.seed, self.sizes = name, options, seed, [field.size for field in fields]
        return self


def name_of(model: nn.Module) -> str:
    """The model's name in the registry, or that of its class for a module of the reader's own."""
    return getattr(model, "name", type(model).__name__)
