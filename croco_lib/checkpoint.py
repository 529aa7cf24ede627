"""A run's folder: the checkpoint that an interrupted run goes on from, its history, its settings, its best weights."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .errors import CrocoError, write_text, write_whole
from .models import name_of
from .options import TrainOptions
from .schema import MultiDomainData

ALL_WRITE = False  # of several processes the first alone writes a run's folder
MAY_CHANGE = ("device", "threads")  # noted, but a run may go on with others: only the last digits then differ
MAY_GROW = ("epochs", "patience")  # not among a run's settings: it may be made longer


@dataclass
class RunState:
    """How far a run has come.

    `best` is the highest validation AUC so far and `waited` the number of evaluations since; `seconds` is all the time
    spent and `trained` that of the training steps alone, on `rows` rows.
    """

    step: int = 0
    best: float = -np.inf
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0
    trained: float = 0.0
    rows: int = 0
    history: list = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The history as a tidy frame."""
        return pd.DataFrame(self.history, columns=["step", "epoch", "split", "part", "metric", "value"])


def settings_of(
    model: nn.Module, data: MultiDomainData, options: TrainOptions, lazy: bool, accelerator: Accelerator
) -> dict:
    """What a resumed run must share with the run it continues, as a file gives it back.

    What is in MAY_GROW is not among it; where a run is made longer, the evaluation at its earlier end stays in the
    history. `lazy` is what the option has come to. Raises CrocoError for a model that was built for other data, and
    for what could not be resumed exactly or not be trained at all.
    """
    sizes = [field.size for field in data.fields]
    if getattr(model, "sizes", None) not in (None, sizes):  # a reader's own model may have none
        raise CrocoError(f"fit: this {name_of(model)} was built for other data than {data.name}; build it anew.")
    if accelerator.mixed_precision == "fp16":  # its loss scale is no part of a checkpoint
        raise CrocoError("fit: in fp16 a run could not be resumed exactly; use ACCELERATE_MIXED_PRECISION=bf16.")
    if lazy and accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        raise CrocoError("fit: GPUs cannot add up lazy Adam's sparse gradients (NCCL); use --shard, or --no-lazy.")
    settings = dict(
        model=name_of(model),
        options=getattr(model, "options", None) or repr(model),  # a reader's own model is known by its layers
        weights_from_seed=getattr(model, "seed", None),
        data=data.name,
        fingerprint=data.fingerprint,
        **{name: value for name, value in {**vars(options), "lazy": lazy}.items() if name not in MAY_GROW},
        mixed_precision=accelerator.mixed_precision,
        device=accelerator.device.type,
        processes=accelerator.num_processes,
        threads=torch.get_num_threads(),
    )
    return json.loads(json.dumps(settings, default=lambda number: number.item()))  # NumPy's numbers as Python's


def resume(folder: Path, settings: dict, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> RunState:
    """Bring model and optimisers to where the run in the folder stands, and return its state: a new one if it is empty.

    Raises CrocoError where the checkpoint is damaged or belongs to a run with other settings, or the folder is a file.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        if folder.is_file():
            raise CrocoError(f"{folder} is a file; folder= takes a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        return RunState()
    try:
        # On the plain CPU: accelerate calls a process's own "cpu:1", which torch.load does not know.
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        old = json.loads(saved["settings"])
    except (RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise CrocoError(f"{path} is damaged, or no checkpoint of `fit`; delete it to start again.") from error
    # The model's options one by one, so that those are told that differ; a reader's own model has its layers there.
    was, now = ({**s, **s["options"], "options": ""} if type(s["options"]) is dict else s for s in (old, settings))
    if changed := [k for k in {**was, **now} if k not in MAY_CHANGE and now.get(k) != was.get(k)]:
        pairs = ", ".join(f"{key} ({was.get(key)!r}, now {now.get(key)!r})" for key in changed)
        raise CrocoError(f"{folder} holds a run with another {pairs}. Give another folder.")
    model.load_state_dict(saved["model"])
    torch.set_rng_state(saved.get("rng", torch.get_rng_state()))  # for a reader's own model with dropout, on a CPU
    for optimizer, values in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    return RunState(**json.loads(saved["state"]))


def save(
    folder: Path, settings: dict, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: RunState
) -> None:
    """Write the checkpoint, and for readers the history and the settings beside it."""
    content = dict(
        model=model.state_dict(),
        optimizers=[optimizer.state_dict() for optimizer in optimizers],
        state=json.dumps(vars(state)),
        rng=torch.get_rng_state(),
        settings=json.dumps(settings),
    )
    write_whole(folder / "checkpoint.pt", lambda path: torch.save(content, path))
    write_whole(folder / "history.csv", lambda path: state.table().to_csv(path, index=False))
    write_text(folder / "settings.json", json.dumps(settings, indent=1))


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the model's weights as the folder's best."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / "best.safetensors", lambda path: save_file(weights, path))


def load_weights(model: nn.Module, folder: str | Path) -> nn.Module:
    """The model with the best weights of the run in `folder`. Raises CrocoError where there are none that fit."""
    path = Path(folder) / "best.safetensors"
    if not path.is_file():
        raise CrocoError(f"{path}: there is no such file; did a run with this folder reach its first evaluation?")
    try:
        model.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise CrocoError(f"{path} is damaged: {error}.") from error
    except RuntimeError as error:
        raise CrocoError(f"{path} does not fit this model: {str(error).splitlines()[-1].strip()}") from error
    return model
