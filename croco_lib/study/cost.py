"""What CovLoss costs beside the experts that it keeps apart: by count of products, and by time, in one run."""

import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from ..console import VERSIONS
from ..layers import Experts
from ..losses import covariance_loss
from ..models import options_of
from .space import label_of
from .stamp import RULES_HASH

ROWS, FIELDS = 4096, 7
USUAL = options_of("crocodile")
# (M, embedding size, expert widths): our defaults, and the setting of the search at which CovLoss weighs most.
SHAPES = {"defaults": (USUAL["sets"], USUAL["dim"], USUAL["expert"]), "widest of the search": (8, 8, (128, 64))}


def products(sets: int, dim: int, widths: tuple[int, ...]) -> dict[str, int]:
    """Multiplications forward: the experts' N · M · Σ i · o; the paper's M(M−1)/2 · d² · N on all rows and on 32."""
    sizes, d = (FIELDS * dim, *widths), widths[-1]
    pairs = sets * (sets - 1) // 2 * d**2
    return {
        "products, experts": ROWS * sets * sum(i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)),
        "products, all rows": pairs * ROWS,
        "products, 32 rows": pairs * 32,
    }


def milliseconds(part: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The time of the part's forward pass and of its backward pass down to the input."""
    x = x.clone().requires_grad_()
    start = time.perf_counter()
    part(x).sum().backward()
    return 1000 * (time.perf_counter() - start)


def measure_cost(repeats: int = 100) -> pd.DataFrame:
    """One row per shape and repeat: products, and milliseconds forward and backward of the experts and of CovLoss.

    On one thread; the three are timed in turn within each repeat, so that what slows the machine slows all of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for shape, (sets, dim, widths) in SHAPES.items():
        experts = Experts(sets, FIELDS * dim, widths)
        x = torch.randn(sets, ROWS, FIELDS * dim)
        O = experts(x).detach()  # [M, N, d]
        some, counts = O[:, :32], products(sets, dim, widths)
        for _ in range(repeats + 5):
            rows.append(
                {
                    "shape": shape,
                    **counts,
                    "ms, experts": milliseconds(experts, x),
                    "ms, all rows": milliseconds(covariance_loss, O),
                    "ms, 32 rows": milliseconds(covariance_loss, some),
                }
            )
        del rows[-repeats - 5 : -repeats]  # the first five only warm it up
    torch.set_num_threads(threads)
    return pd.DataFrame(rows).round(4).assign(versions=label_of(VERSIONS), rules=RULES_HASH)
