"""What every model's forward returns."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """`logits` [N]; `experts` [M, N, d]; `gate` [M, N, d] or [M, N, 1] or None; `penalty`, to add to the loss."""

    logits: Tensor
    experts: Tensor | None = None
    gate: Tensor | None = None
    penalty: Tensor | float = 0.0
