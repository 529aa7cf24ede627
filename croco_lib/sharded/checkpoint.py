"""A run's folder where tables are sharded: `croco_lib.checkpoint` for the rest, and beside it the tables in shards.

`tables-STEP/` holds the shards of the checkpoint that is at this step, with their optimiser's state, as
torch.distributed.checkpoint writes them: any number of processes can go on from them. The best weights are one
best.safetensors, as of any run; each process writes and reads its own rows of it, so none ever holds a whole table. All
processes must see the folder.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import nn

from .. import checkpoint
from ..checkpoint import MAY_CHANGE, RunState
from ..errors import CrocoError
from ..options import TrainOptions
from ..schema import MultiDomainData
from .tables import LR_RATIO, OPTIMIZER, layers_of
from .together import gathered, on_every_process

ALL_WRITE = True  # every process writes the rows that it holds
PIECE = 1 << 16  # rows of a table that are on their way to the file at once
TABLE = "{}.table.weight"  # what an unsharded model calls a layer's table


def settings_of(
    model: nn.Module, data: MultiDomainData, options: TrainOptions, lazy: bool, accelerator: Accelerator
) -> dict:
    """As `croco_lib.checkpoint.settings_of`, and how the tables are trained.

    Raises CrocoError where the processes have other data or other settings, or an option does nothing here.
    """
    if options.weight_decay or lazy:
        raise CrocoError(
            "--shard goes with neither --lazy nor --weight-decay: TorchRec trains the tables, in its own way."
        )
    settings = checkpoint.settings_of(model, data, options, lazy, accelerator)
    del settings["processes"]  # the shards can be given to any number; the batches and CovLoss then come out otherwise
    settings["tables"] = f"sharded, {OPTIMIZER} of {LR_RATIO} times the lr"
    first, *others = gathered(settings)
    for rank, other in enumerate(others, 1):
        if changed := [key for key in first if key not in MAY_CHANGE and other[key] != first[key]]:
            raise CrocoError(f"fit: process {rank} has another {', '.join(changed)} than process 0; give all the same.")
    return settings


def content(model: nn.Module) -> dict:
    """The tables of every sharded layer and the state of their optimiser, in shards."""
    return {
        path: {"tables": layer.tables.state_dict(), "optimizer": layer.tables.fused_optimizer.state_dict()}
        for path, layer in layers_of(model).items()
    }


def resume(folder: Path, settings: dict, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> RunState:
    """Bring model, tables and optimisers to where the run in the folder stands; as `croco_lib.checkpoint.resume`.

    Raises CrocoError as that does, and where a shard is missing or damaged.
    """
    state = on_every_process(lambda: checkpoint.resume(folder, settings, model, optimizers))
    if state.history:
        place, held = folder / f"tables-{state.step}", content(model)
        try:
            dcp.load(held, checkpoint_id=place)
        except dcp.CheckpointException as error:
            raise CrocoError(
                f"{place}: a shard is missing or damaged ({reason(error)}); "
                f"delete {folder / 'checkpoint.pt'} to start again."
            ) from error
        for path, layer in layers_of(model).items():
            layer.tables.load_state_dict(held[path]["tables"])
            layer.tables.fused_optimizer.load_state_dict(held[path]["optimizer"])
    return state


def reason(error: dcp.CheckpointException) -> str:
    """The process that failed, and why, in one line."""
    rank, (cause, _) = next(iter(error.failures.items()))
    said = str(cause).splitlines()  # empty for a bare assert
    return f"process {rank}: {said[0] if said else type(cause).__name__}"


def save(
    folder: Path, settings: dict, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: RunState
) -> None:
    """Write the shards, then the checkpoint, which says by its step which shards are its own; the old ones go last."""
    place, is_main = folder / f"tables-{state.step}", PartialState().is_main_process
    # What a run that was killed here had begun to write.
    on_every_process(lambda: shutil.rmtree(place, ignore_errors=True) if is_main else None)
    try:
        dcp.save(content(model), checkpoint_id=place)
    except dcp.CheckpointException as error:
        raise CrocoError(
            f"{place} could not be written ({reason(error)}). Is the disk full, or the folder not writable? "
            "The checkpoint before it is whole."
        ) from error
    on_every_process(lambda: checkpoint.save(folder, settings, model, optimizers, state) if is_main else None)
    for old in folder.glob("tables-*") if is_main else ():
        if old != place:
            shutil.rmtree(old, ignore_errors=True)


def layout(model: nn.Module) -> tuple[bytes, dict[str, int]]:
    """How best.safetensors begins, its header and all but the tables; and the byte where each layer's table begins."""
    rest = as_bytes({name: value.contiguous() for name, value in model.state_dict().items()})
    size = int.from_bytes(rest[:8], "little")  # the format: the header's length in 8 bytes, the header, the values
    header, values = json.loads(rest[8 : 8 + size]), rest[8 + size :]
    end, starts = len(values), {}
    for path, layer in layers_of(model).items():
        shape = layer.shape
        starts[path], end = end, end + 4 * shape[0] * shape[1]
        header[TABLE.format(path)] = {"dtype": "F32", "shape": shape, "data_offsets": [starts[path], end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = len(text).to_bytes(8, "little") + text + values
    shift = len(begin) - len(values)
    return begin, {path: start + shift for path, start in starts.items()}


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the model's weights as best.safetensors in the first process's folder, each process its own rows."""
    path = Path(broadcast_object_list([str(folder)])[0]) / "best.safetensors"
    temporary, is_main = path.with_name(path.name + ".tmp"), PartialState().is_main_process
    begin, starts = layout(model)

    def write_rows() -> None:
        with temporary.open("r+b") as file:
            for layer_path, layer in layers_of(model).items():
                for start, rows in layer.shards():
                    file.seek(starts[layer_path] + 4 * start * rows.shape[1])
                    for piece in rows.split(PIECE):
                        file.write(piece.cpu().numpy().tobytes())

    try:
        on_every_process(lambda: temporary.write_bytes(begin) if is_main else None)
        on_every_process(write_rows)
        on_every_process(lambda: os.replace(temporary, path) if is_main else None)
    except CrocoError as error:
        if is_main:
            temporary.unlink(missing_ok=True)
        raise CrocoError(
            f"{path} could not be written ({error}). Is the disk full, or the folder not writable? "
            "What stood there before is whole."
        ) from error


def load_weights(model: nn.Module, folder: str | Path) -> nn.Module:
    """The model with the best weights of the run in `folder`; each process reads its own rows alone.

    Raises CrocoError where there are none that fit.
    """

    def read() -> None:
        path, tables = Path(folder) / "best.safetensors", layers_of(model)
        try:
            with safe_open(path, "pt") as file:
                names = {TABLE.format(place) for place in tables}
                model.load_state_dict({name: file.get_tensor(name) for name in set(file.keys()) - names})
                for place, layer in tables.items():
                    table = file.get_slice(TABLE.format(place))
                    if tuple(table.get_shape()) != tuple(layer.shape):
                        raise CrocoError(f"{path} does not fit this model: {place} has {table.get_shape()} values.")
                    for start, rows in layer.shards():
                        rows.copy_(table[start : start + len(rows)])
        except (SafetensorError, RuntimeError) as error:
            said = str(error).splitlines()[-1]
            raise CrocoError(f"{path} is damaged or does not fit this model: {said}") from error

    on_every_process(read)
    return model
