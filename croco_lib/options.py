"""The options of a training, checked as soon as they are given."""

from dataclasses import dataclass
from numbers import Integral, Real

from .errors import CrocoError, known


@dataclass(frozen=True)
class TrainOptions:
    """Everything that can be chosen about a training. The defaults stand here and nowhere else.

    epochs: how often the training rows are passed through at most.
    batch_size: rows of one step. Of several processes each takes its share of them.
    lr: Adam's learning rate.
    weight_decay: the λ of an L2 penalty on all weights, but of the embedding tables only on the vectors that a batch
        trains (see `optimizers.decay`).
    objective: "sample" is the plain mean over rows. "domain" is the literal reading of the paper's formula, the sum of
        the domains' means, in which the few rows of a small domain weigh as much as the many of a large one.
    patience: training stops when the validation AUC has not improved so many times in a row.
    eval_every: steps between two evaluations; None means once an epoch.
    lazy: whether the embedding tables are trained by lazy Adam, which moves only the rows that a batch reads, so that a
        step costs the same however many ids there are; None means from `optimizers.LAZY_FROM` ids on.
    seed: fixes the order of the rows.

    Raises CrocoError for a value out of range.
    """

    epochs: int = 10
    batch_size: int = 4096
    lr: float = 3e-3
    weight_decay: float = 0.0
    objective: str = "sample"
    patience: int = 2
    eval_every: int | None = None
    lazy: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        from .losses import OBJECTIVES  # only here: it loads torch, and the command line's help must do without

        known("objective", self.objective, OBJECTIVES)
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("eval_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if name == "eval_every" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise CrocoError(f"fit: {name} must be a whole number of {least} or more, not {value!r}.")
        if self.lazy not in (None, True, False):
            raise CrocoError(f"fit: lazy must be true, false or None, not {self.lazy!r}.")
        # From a rate of 10 on nothing was ever learnt; such a value is a slip of the hand.
        if isinstance(self.lr, bool) or not isinstance(self.lr, Real) or not 0 < self.lr < 10:
            raise CrocoError(f"fit: lr must be above 0 and below 10, not {self.lr!r}.")
        decay = self.weight_decay
        if isinstance(decay, bool) or not isinstance(decay, Real) or not 0 <= decay < 10:
            raise CrocoError(f"fit: weight_decay must be at least 0 and below 10, not {decay!r}.")
