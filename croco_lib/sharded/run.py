"""`croco fit --shard`: the one training loop, with a sharded model and the room that keeps it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..options import TrainOptions
from ..schema import MultiDomainData
from ..training import Run, train
from . import checkpoint
from .tables import build
from .together import on_every_process, one_voice


def train_sharded(
    read: Callable[[], MultiDomainData],
    model: str,
    chosen: dict,
    options: TrainOptions,
    folder: Path | None,
    progress: bool,
    keep_schema: Callable[[MultiDomainData, int], object],
) -> tuple[MultiDomainData, Run]:
    """What `read` gives on every process, and the run of the model of this name and these options on it.

    Each process calls `keep_schema` with the data and the step at every evaluation. Where something fails, the first
    process says why and all end with status 1.
    """
    with one_voice():
        data = on_every_process(read)
        made = build(model, data, seed=options.seed, lr=options.lr, batch_size=options.batch_size, **chosen)
        options = replace(options, lazy=bool(options.lazy))  # by default, where the tables are large, they are sharded

        def watch(step: int, _: object) -> None:
            on_every_process(lambda: keep_schema(data, step))

        return data, train(made, data, options, folder, progress, watch, checkpoint)
