"""Several processes that fail as one: an error on any of them is raised on all, and the first process reports it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist
import typer
from accelerate import Accelerator
from torch.distributed import HashStore

from ..errors import CrocoError
from ..training import ON_CPUS

T = TypeVar("T")


def start() -> None:
    """Bring the processes together; TorchRec wants a group even of a single one."""
    for name in ("torchrec", "torch.fx._symbolic_trace"):  # their warnings are for whoever writes with TorchRec
        logging.getLogger(name).setLevel(logging.ERROR)
    Accelerator(cpu=ON_CPUS)  # as the training does
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)


def gathered(value: object) -> list:
    """The value of every process, in order of their ranks."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_every_process(action: Callable[[], T]) -> T:
    """Do it on every process. Where it fails on one of them, all raise the CrocoError of the first that failed."""
    fault = None
    try:
        result = action()
    except (CrocoError, OSError) as error:
        fault = str(error)
    faults = gathered(fault)
    for rank, said in enumerate(faults):
        if said is not None:
            raise CrocoError(said if len(faults) == 1 else f"process {rank}: {said}")
    return result


@contextmanager
def one_voice() -> Iterator[None]:
    """Start the processes, and end them all with status 1 where they raise a CrocoError, which the first one says."""
    start()
    try:
        yield
    except CrocoError as error:
        if dist.get_rank() == 0:
            typer.echo(f"croco: {error}", err=True)
        dist.barrier()  # a launcher ends all processes as soon as one has ended: not before the first has spoken
        raise typer.Exit(1) from error
