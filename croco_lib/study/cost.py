"""What CovLoss costs beside the experts that it keeps apart: by count of products, and by time, in one run."""

import time

import numpy as np
import pandas as pd
import torch

from ..batches import Batch
from ..data import load
from ..layers import Experts
from ..losses import covariance_loss, domain_objective
from ..models import build
from ..training import adam, train_step

ROWS, SETS, INPUTS, WIDTHS = 4096, 5, 7 * 16, (64, 32)  # the defaults, seven fields


def products() -> dict[str, int]:
    """Multiplications forward: the experts' N · M · Σ i · o; the paper's M(M−1)/2 · d² · N on all rows and on 32."""
    sizes, d = (INPUTS, *WIDTHS), WIDTHS[-1]
    pairs = SETS * (SETS - 1) // 2 * d**2
    return {"products, experts": ROWS * SETS * sum(i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)),
            "products, all rows": pairs * ROWS, "products, 32 rows": pairs * 32}


def cost(repeats: int = 100) -> pd.DataFrame:
    """A row a repeat: products, and milliseconds forward and backward of the experts and of CovLoss, on one thread.

    The three are timed in turn within each repeat, so that what slows the machine slows all of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    experts, x = Experts(SETS, INPUTS, WIDTHS), torch.randn(SETS, ROWS, INPUTS, requires_grad=True)
    O = experts(x).detach()

    def timed(run) -> float:
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)

    def loss(rows: int):
        return lambda: covariance_loss(O[:, :rows].clone().requires_grad_()).backward()

    rows = []
    for _ in range(repeats + 5):
        rows.append({**products(), "ms, experts": timed(lambda: experts(x).sum().backward()),
                     "ms, all rows": timed(loss(ROWS)), "ms, 32 rows": timed(loss(32))})
    torch.set_num_threads(threads)
    return pd.DataFrame(rows[5:]).astype(dict.fromkeys(products(), np.int64)).round(4)


def covloss_share(rows: int = 4096, repeats: int = 12) -> np.ndarray:
    """The share of a training step's time that CovLoss takes, forward and backward: measured now, on one thread.

    Crocodile at its defaults (M = 5, d = 32); by the paper's count M(M−1)/2 · d² products a row.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load("world", rows=20_000, users=300, items=400)
    model = build("crocodile", data, alpha=0.0)
    part = data.train.take(np.arange(rows) % len(data.train))
    features, domain, label = map(torch.from_numpy, (part.features, part.domain, part.label))
    batch, optimizers = Batch(features, domain, label, domain.bincount()), adam(model, lazy=False, lr=1e-3)
    outputs = model(features, domain).experts.detach()
    shares = []
    for _ in range(repeats):
        start = time.perf_counter()
        train_step(model, optimizers, domain_objective, batch)
        middle = time.perf_counter()
        covariance_loss(outputs.clone().requires_grad_()).backward()
        end = time.perf_counter()
        shares.append((end - middle) / (end - start))
    torch.set_num_threads(threads)
    return np.array(shares[2:])
