"""What a difference between two models is made of: their seeds, and the draws of the test users."""

from dataclasses import dataclass

import pandas as pd

from ..errors import CrocoError
from .intervals import Gap, gap


@dataclass(frozen=True)
class Side:
    """What a difference is made of: one value per seed and, if resampled, one per draw of the test users.

    One side minus another goes seed with seed and draw with draw; of one study, or of two on the same data with equal
    numbers of seeds. `resampled` has a row per bootstrap draw and a column for each number of first seeds that its
    means are over.
    """

    seeds: pd.Series
    resampled: pd.DataFrame | None

    def __sub__(self, other: "Side") -> "Side":
        resampled = None
        if self.resampled is not None and other.resampled is not None:
            both = self.resampled.columns.intersection(other.resampled.columns)
            resampled = self.resampled[both] - other.resampled[both]
        return Side((self.seeds - other.seeds).dropna(), resampled)

    @property
    def draws(self) -> pd.Series | None:
        """A mean a draw, over the seeds that stand in `seeds`. Raises CrocoError where the draws are over fewer."""
        if self.resampled is None or self.seeds.empty:
            return None
        needed = int(self.seeds.index.max()) + 1
        over = [n for n in self.resampled.columns if n >= needed]
        if not over:
            raise CrocoError(
                f"The two sides have no draws of the test users over the same {needed} seeds. Run both with as many."
            )
        return self.resampled[min(over)]

    def gap(self) -> Gap:
        """This difference with its interval."""
        return gap(self.seeds, 0.0 if self.draws is None else float(self.draws.std()))
