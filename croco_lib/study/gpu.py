"""What a training step costs on a GPU, and what bounds it: `croco speed --gpu`. Nothing else needs one."""

import copy
import time
from collections.abc import Callable, Iterator
from itertools import product
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from ..batches import Batch
from ..errors import CrocoError
from ..losses import domain_objective
from ..models import build
from ..schema import MultiDomainData
from ..training import fit, train_step
from .steps import MOVIELENS, Products, Stepper, bare, shaped

BATCH = 65_536
ROWS = 20 * BATCH
OPERATORS = 8  # of a profile, those that take most
NAMES = ("shared-bottom", "crocodile")
KUAIRAND = {  # KuaiRand-1K: its users and videos as published, the other fields as large as in KuaiRand-Pure
    "user": 1_000, "item": 4_369_953, "hour": 24, "degree": 9, "streamer": 2, "video author": 2, "follows": 8,
    "fans": 9, "registered": 8, "feature 1": 7, "feature 2": 44, "feature 3": 1_187, "author": 3_613,
    "video type": 2, "upload type": 11, "music type": 5, "tag": 42, "duration": 17, "domain": 5,
}  # fmt: skip


def seconds_each(step: Callable[[], object], times: int) -> float:
    """Seconds a step takes, of so many one after the other: a GPU works on while the next is prepared."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def in_bf16(step: Callable[[], object]) -> Callable[[], None]:
    """The step with its products in bf16, as ACCELERATE_MIXED_PRECISION has it."""

    def lower() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            step()

    return lower


def in_tf32(step: Callable[[], object]) -> Callable[[], None]:
    """The step with its products in TF32: the inputs' mantissas are cut to ten bits."""

    def lower() -> None:
        torch.set_float32_matmul_precision("high")
        step()
        torch.set_float32_matmul_precision("highest")

    return lower


def as_graph(stepper: Stepper) -> Callable[[], None]:
    """The whole step as one CUDA graph, launched at once.

    It cannot hold slices whose length depends on the batch, so each domain's tower reads all rows, as in an
    exported model; and the tables' Adam must be dense.
    """
    (optimizer,) = stepper.optimizers
    for group in optimizer.param_groups:
        group["capturable"] = True
    fixed = Batch(*map(torch.clone, stepper.batch()))  # written over at each launch

    def step() -> None:
        with mock.patch("torch.compiler.is_exporting", return_value=True):
            train_step(stepper.model, stepper.optimizers, domain_objective, fixed)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made once, as Adam's moments, is made before the capture
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay() -> None:
        for held, new in zip(fixed, stepper.batch(), strict=True):
            held.copy_(new)
        graph.replay()

    return replay


def ways(name: str, data: MultiDomainData, lazy: bool) -> dict[str, Callable[[], object]]:
    """A step of this model by each way that PyTorch offers."""
    model = build(name, data)

    def stepper(lazy: bool = lazy, compiled: bool = False, model: nn.Module = model) -> Stepper:
        made = Stepper(copy.deepcopy(model), data, lazy, BATCH, "cuda")
        if compiled:
            made.model.compile()
        return made

    plain = stepper()
    with Products() as products:
        plain.step()
    every = {
        "as it is": plain.step,
        "its products alone": lambda: bare(products.operands),
        "in TF32": in_tf32(stepper().step),
        "in bf16": in_bf16(stepper().step),
    }
    if lazy:  # what compiles a step, and what captures one, knows no sparse gradients
        every["with dense Adam"] = stepper(lazy=False).step
    else:
        every["compiled"] = stepper(compiled=True).step
        every["compiled, in bf16"] = in_bf16(stepper(compiled=True).step)
        every["as one CUDA graph"] = as_graph(stepper())
    if name == "crocodile":
        every["without CovLoss"] = stepper(model=build(name, data, alpha=0.0)).step
    return every


def step_times(name: str, data: MultiDomainData, lazy: bool, rounds: int) -> Iterator[tuple[str, str, float]]:
    """Milliseconds of a step by each way, in turn: the median of the rounds, and half the range of its middle half."""
    every = ways(name, data, lazy)
    for step in every.values():
        seconds_each(step, 5)  # compiles
    times = 1e3 * np.array([[seconds_each(step, 10) for step in every.values()] for _ in range(rounds)])
    low, middle, high = np.percentile(times, (25, 50, 75), axis=0)
    for i, way in enumerate(every):
        yield way, "step ms", middle[i]
        yield way, "±", (high[i] - low[i]) / 2
        yield way, "rows a second", BATCH / middle[i] * 1e3


def bounds(name: str, data: MultiDomainData, lazy: bool) -> Iterator[tuple[str, float]]:
    """What bounds a step: its launches, the share of its time that the GPU works, and the operators it works on."""
    stepper, steps = Stepper(build(name, data), data, lazy, BATCH, "cuda"), 10
    seconds_each(stepper.step, 5)
    torch.cuda.reset_peak_memory_stats()
    whole = seconds_each(stepper.step, steps)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        seconds_each(stepper.step, steps)
    on_gpu = [e for e in seen.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    busy = sum(event.self_device_time_total for event in on_gpu)  # microseconds
    yield "peak GiB", torch.cuda.max_memory_allocated() / 2**30
    yield "launches a step", len(on_gpu) / steps
    yield "share of the time that the GPU works", busy / 1e6 / steps / whole
    operators = [e for e in seen.key_averages() if e.device_type == DeviceType.CPU]
    for event in sorted(operators, key=lambda e: -e.self_device_time_total)[:OPERATORS]:
        yield f"of which {event.key}", event.self_device_time_total / busy


def measure_gpu(rounds: int = 9) -> Iterator[tuple[str, str, str, float]]:
    """Every figure as (table, row, column, value), as they come. Raises CrocoError without a GPU."""
    if not torch.cuda.is_available():
        raise CrocoError("croco speed --gpu: there is no CUDA device here.")
    shapes = {"MovieLens-1M": (MOVIELENS, False), "KuaiRand-1K": (KUAIRAND, True)}
    for (shape, (sizes, lazy)), name in product(shapes.items(), NAMES):
        data, table = shaped(ROWS, shape=sizes), f"{shape}, {name}"
        run = fit(build(name, data), data, epochs=3, batch_size=BATCH, lazy=lazy, eval_every=1 << 30, progress=False)
        yield table, "fit, its batches fetched", "rows a second", run.rows_per_second
        for way, column, value in step_times(name, data, lazy, rounds):
            yield table, way, column, value
        for figure, value in bounds(name, data, lazy):
            yield f"{table}: what bounds it", figure, "as it is", value
