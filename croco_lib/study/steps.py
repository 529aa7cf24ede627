"""What a training step costs and what bounds it, measured in one run: ratios travel between machines, times do not.

The limit of a model is the time of the bare matrix products that its own step does, forward and backward, on the
same operands and nothing else.
"""

import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..batches import Batch
from ..losses import domain_objective
from ..models import build
from ..optimizers import adam
from ..schema import Field, MultiDomainData, Split
from ..training import train_step

MOVIELENS = {"user": 6_040, "item": 3_706, "gender": 2, "age": 7, "occupation": 21, "zip": 3_439, "domain": 3}
BATCH = 4096


def shaped(rows: int, shape: dict[str, int] = MOVIELENS, **sizes: int) -> MultiDomainData:
    """Random rows, ids long-tailed, labels by chance, in a table of MovieLens-1M's shape or another.

    `shape` has each field's ids, the domain last; `sizes` may change a field.
    """
    rng, sizes = np.random.default_rng(0), {**shape, **sizes}
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

    def __init__(self, model: nn.Module, data: MultiDomainData, lazy: bool, size: int = BATCH, device: str = "cpu"):
        self.model, self.size, self.at = model.to(device).train(), size, 0
        self.optimizers = adam(model, lazy, 1e-3)
        columns = data.train.features, data.train.domain, data.train.label
        self.rows = [torch.from_numpy(a).to(device) for a in columns]

    def batch(self) -> Batch:
        """The next rows."""
        part = slice(self.at, self.at + self.size)
        self.at = (self.at + self.size) % (len(self.rows[0]) - self.size)
        features, domain, label = (a[part] for a in self.rows)
        return Batch(features, domain, label, domain.bincount())

    def step(self) -> tuple[float, ...]:
        """One training step: its seconds forward, backward and of the optimiser."""
        batch, clock = self.batch(), [time.perf_counter()]

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


PARTS = {  # of a step, by the operators that PyTorch's profiler names
    "products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"),
    "gradient of the tables": ("aten::embedding_dense_backward",),
    "copies": ("aten::copy_", "aten::cat"),
    "Adam": ("aten::_fused_adam_",),
    "lookup": ("aten::index_select",),
}


def profile(name: str, data: MultiDomainData, steps: int) -> dict[str, float]:
    """The share of a step's time that each of its parts takes: what stands between a step and its limit."""
    stepper = Stepper(build(name, data), data, lazy=False)
    stepper.step()
    with torch.autograd.profiler.profile() as seen:
        for _ in range(steps):
            stepper.step()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    shares = {part: sum(times.get(key, 0) for key in keys) / sum(times.values()) for part, keys in PARTS.items()}
    return {**shares, "all else": 1 - sum(shares.values())}


def other_ways(name: str, data: MultiDomainData, steps: int) -> dict[str, float]:
    """How many times as fast a step is when `torch.compile` has made it, or in bf16, the three ways in turn.

    Compiling needs a C++ compiler; where that fails its figures are NaN.
    """
    plain, compiled, half = (Stepper(build(name, data), data, lazy=False) for _ in range(3))
    compiled.model.compile()
    start, works = time.perf_counter(), True
    try:
        with torch.compiler.config.patch(force_disable_caches=True):  # type: ignore[attr-defined]  # of earlier runs
            for _ in range(3):  # the second step compiles once more, for the sizes that have turned out to vary
                compiled.step()
    except RuntimeError as error:
        warnings.warn(f"torch.compile fails for {name}: {error}", stacklevel=2)
        works = False
    seconds = time.perf_counter() - start if works else np.nan
    times = []
    for _ in range(steps + 3):
        with torch.autocast("cpu", torch.bfloat16):
            in_half = sum(half.step())
        times.append((sum(plain.step()), sum(compiled.step()) if works else np.nan, in_half))
    usual, faster, lower = np.median(times[3:], axis=0)
    return {"compiled": usual / faster, "seconds to compile": seconds, "in bf16": usual / lower}


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
