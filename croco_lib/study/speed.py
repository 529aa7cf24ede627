"""What a training step costs and what bounds it, measured in one run: ratios travel between machines, times do not.

The limit of a model is the time of the bare matrix products that its own step does, forward and backward, on the
same operands and nothing else.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..batches import Batch
from ..errors import ROOT
from ..losses import domain_objective
from ..metrics import grouped_auc
from ..models import MODELS, build
from ..optimizers import adam
from ..schema import Field, MultiDomainData, Split
from ..training import fit, train_step
from .raw import write_aliccp, write_kuairand

MOVIELENS = {"user": 6_040, "item": 3_706, "gender": 2, "age": 7, "occupation": 21, "zip": 3_439, "domain": 3}
BATCH = 4096


def shaped(rows: int, seed: int = 0, **sizes: int) -> MultiDomainData:
    """Random rows in a table of MovieLens-1M's shape, ids long-tailed, labels by chance; `sizes` may change a field."""
    rng, sizes = np.random.default_rng(seed), {**MOVIELENS, **sizes}
    roles = {name: name if name in ("user", "item", "domain") else "" for name in sizes}
    fields = tuple(Field(name, size + 1, roles[name]) for name, size in sizes.items())

    def split(count: int) -> Split:
        ids = [1 + (size * rng.random(count) ** 3).astype(np.int32) for size in sizes.values()]  # 0 is the unknown id
        ids[-1] = rng.integers(1, sizes["domain"] + 1, count, dtype=np.int32)
        label = (rng.random(count) < 0.5).astype(np.float32)
        domains = tuple(f"domain {s + 1}" for s in range(sizes["domain"]))
        return Split(np.column_stack(ids), ids[-1].astype(np.int64) - 1, label, ids[0].astype(np.int64), domains)

    train, held = split(rows), split(2 * BATCH)
    return MultiDomainData("movielens-shaped", fields, train.domains, train, held, held)


class Products(TorchDispatchMode):
    """Notes the operands of every matrix product done within it."""

    PRODUCTS = {torch.ops.aten.mm: 0, torch.ops.aten.bmm: 0, torch.ops.aten.addmm: 1, torch.ops.aten.baddbmm: 1}

    def __init__(self):
        super().__init__()
        self.operands = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if (first := self.PRODUCTS.get(function.overloadpacket)) is not None:
            self.operands.append([a.detach() for a in arguments[first : first + 2]])
        return function(*arguments, **(named or {}))


class Stepper:
    """One model and its optimisers on batches of its own; `step()` returns seconds forward, backward, optimiser."""

    def __init__(self, model: nn.Module, data: MultiDomainData, lazy: bool):
        self.model, self.optimizers, self.at = model.train(), adam(model, lazy, 1e-3), 0
        self.rows = [torch.from_numpy(a) for a in (data.train.features, data.train.domain, data.train.label)]

    def step(self) -> tuple[float, ...]:
        part = slice(self.at, self.at + BATCH)
        self.at = (self.at + BATCH) % (len(self.rows[0]) - BATCH)
        features, domain, label = (a[part] for a in self.rows)
        batch, clock = Batch(features, domain, label, domain.bincount()), [time.perf_counter()]

        def backward(loss: Tensor) -> None:
            clock.append(time.perf_counter())
            loss.backward()
            clock.append(time.perf_counter())

        train_step(self.model, self.optimizers, domain_objective, batch, backward)
        clock.append(time.perf_counter())
        return tuple(np.diff(clock))


def bare(operands: list) -> float:
    """Seconds of these products alone."""
    start = time.perf_counter()
    for a, b in operands:
        a @ b
    return time.perf_counter() - start


def step_costs(name: str, data: MultiDomainData, steps: int, lazy: bool = False, **options) -> dict:
    """Median milliseconds of a step's parts and of its bare products, step by step in turn, and their ratio."""
    stepper = Stepper(build(name, data, **options), data, lazy)
    with Products() as products:
        stepper.step()
    times = np.array([(*stepper.step(), bare(products.operands)) for _ in range(steps + 3)])[3:]
    forward, backward, optimizer, products_alone = 1e3 * np.median(times, 0)
    total = 1e3 * np.median(times[:, :3].sum(1))
    return {
        "rows a second": BATCH / total * 1e3,
        "forward ms": forward,
        "backward ms": backward,
        "optimiser ms": optimizer,
        "step ms": total,
        "products ms": products_alone,
        "share of the limit": products_alone / total,
    }


def covloss_costs(data: MultiDomainData, steps: int, sample: int | None = None) -> dict:
    """CovLoss's share of a step and of the step's products: the same model with and without it, in turn."""
    pair = [Stepper(build("crocodile", data, alpha=a, sample=sample), data, False) for a in (0.1, 0.0)]
    operands = []
    for stepper in pair:
        with Products() as products:
            stepper.step()
        operands.append(products.operands)
    times = np.array(
        [[(sum(s.step()), bare(o)) for s, o in zip(pair, operands, strict=True)] for _ in range(steps + 3)]
    )[3:]  # [steps, with or without, step or products]
    share = np.median(1 - times[:, 1] / times[:, 0], axis=0)
    return {"share of a step": share[0], "share of its bare products": share[1]}


def vocabulary(sizes: tuple[int, ...], steps: int) -> Iterator[tuple[str, str, str, float]]:
    """Median milliseconds of Crocodile's step with so many items, dense Adam (up to a million) and lazy, in turn."""
    steppers = {}
    for ids in sizes:
        data = shaped(20 * BATCH, item=ids)
        for lazy in (False, True) if ids <= 10**6 else (True,):
            name = f"{ids:,} items, {'lazy' if lazy else 'dense'} Adam"
            steppers[name] = Stepper(build("crocodile", data), data, lazy)
    times = np.array([[sum(s.step()) for s in steppers.values()] for _ in range(steps + 3)])[3:]
    for name, value in zip(steppers, 1e3 * np.median(times, 0), strict=True):
        yield "vocabulary", name, "step ms", value


PREPARE = """
import resource, sys
from pathlib import Path
from croco_lib.datasets.registry import prepare
prepare(sys.argv[1])
status = Path("/proc/self/status")  # where there is one: a child's ru_maxrss begins at its parent's
print(int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 1024 if status.is_file()
      else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def prepare_costs(name: str, rows: int) -> dict:
    """Rows a second and peak MiB of `croco data prepare`, on made raw files of `rows` rows."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "ali-ccp":
            write_aliccp(Path(folder, "raw"), rows, profiles=1_000, items=5_000)
        else:
            write_kuairand(Path(folder, "raw"), name, rows, users=1_000, videos=5_000)
        places = {"CROCO_DATA": f"{folder}/raw", "CROCO_PREPARED": f"{folder}/prepared", "PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, name],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **places},
        )
        seconds = time.perf_counter() - start
        disk = sum(path.stat().st_size for path in Path(folder, "prepared").rglob("*.npy")) / 2**20
        return {
            "seconds": seconds,
            "rows a second": rows / seconds,
            "peak MiB": float(done.stdout.split()[-1]),
            "disk MiB": disk,
        }


def metric_seconds(rows: int) -> float:
    """Seconds for AUC and gAUC of so many rows, ten a user."""
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, rows).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    user = rng.integers(0, max(1, rows // 10), rows)
    start = time.perf_counter()
    grouped_auc(label, score, np.zeros(rows, int))
    grouped_auc(label, score, user)
    return time.perf_counter() - start


def measure(size: str = "full") -> Iterator[tuple[str, str, str, float]]:
    """Every figure as (table, row, column, value), as they come. `size` "fast" is a smaller version of each."""
    full = size == "full"
    steps, rows = (30, 800_000) if full else (5, 60_000)
    data = shaped(rows)
    model = build("shared-bottom", data, expert=(128,), tower=(8,))
    run = fit(model, data, epochs=1, eval_every=1 << 30, progress=False)
    yield "goal", "shared-bottom, 128–8, fetch included", "rows a second", run.rows_per_second
    for name in MODELS:
        for column, value in step_costs(name, data, steps).items():
            yield "models", name, column, value
    for sample in (None, 32):
        for column, value in covloss_costs(data, steps, sample).items():
            yield "covloss", f"on {sample or BATCH} rows", column, value
    yield from vocabulary((10**4, 10**5, 10**6, 4 * 10**6) if full else (10**4, 10**5), steps)
    raw = product(("kuairand-1k", "ali-ccp"), (100_000, 300_000, 1_000_000)) if full else (("ali-ccp", 5_000),)
    for name, count in raw:
        for column, value in prepare_costs(name, count).items():
            yield "prepare", f"{name}, {count:,} rows", column, value
    yield "metrics", "AUC and gAUC", "seconds", metric_seconds(10**7 if full else 10**5)


def tables(figures: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tidy figures as one wide table for each kind."""
    for name, part in figures.groupby("table", sort=False):
        wide = part.pivot(index="row", columns="column", values="value")
        yield name, wide.loc[part.row.unique(), part.column.unique()]
