"""Training on CPU or GPU, in one process or several, through one path."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import checkpoint
from .batches import Batch, feed, steps_per_epoch
from .checkpoint import RunState
from .errors import CrocoError
from .evaluation import evaluate, probe
from .losses import OBJECTIVES
from .models import name_of
from .optimizers import LAZY_FROM, adam, decay
from .options import TrainOptions
from .schema import MultiDomainData, Split

# Processes that a launcher has started form one group; without CUDA accelerate forms it only if told `cpu=True`.
ON_CPUS = "WORLD_SIZE" in os.environ and not torch.cuda.is_available()


@dataclass
class Run:
    """A finished training. `model` holds the best weights; `history` is tidy: step, epoch, split, part, metric, value.

    `part` is "all", a domain, or "set m". `settings` is everything that made the run, where the model was new.
    `rows_per_second` counts training steps only, without evaluation; `stopped` says why it ended.
    """

    model: nn.Module
    history: pd.DataFrame
    settings: dict
    best_step: int
    seconds: float
    rows_per_second: float
    stopped: str


def fit(
    model: nn.Module,
    data: MultiDomainData,
    *,
    epochs: int = TrainOptions.epochs,
    batch_size: int = TrainOptions.batch_size,
    lr: float = TrainOptions.lr,
    weight_decay: float = TrainOptions.weight_decay,
    objective: str = TrainOptions.objective,
    patience: int = TrainOptions.patience,
    eval_every: int | None = TrainOptions.eval_every,
    lazy: bool | None = TrainOptions.lazy,
    seed: int = TrainOptions.seed,
    folder: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[int, nn.Module], object] | None = None,
) -> Run:
    """Train with Adam, keep the weights that are best on validation (overall AUC), and return the run.

    The options up to `seed` are explained at `TrainOptions`. With `folder`, every evaluation leaves a checkpoint there,
    the best weights (best.safetensors), the history and the settings; called again with the same settings, an
    interrupted run goes on from it to the same figures. `progress` shows a bar. At every evaluation
    `watch(step, model)` may look at the model as it stands.

    Started by `accelerate launch`, each process takes its share of every batch, and `batch_size` stays the whole
    batch's: the objective is that of one process; CovLoss and AdaSparse's penalty are the mean of the processes' own,
    and STAR normalises each share by itself. In bf16 the model is trained and validated in it, and given back in full.

    Raises CrocoError for settings out of range, a folder that holds another run, or a loss that is not finite.
    """
    options = TrainOptions(epochs, batch_size, lr, weight_decay, objective, patience, eval_every, lazy, seed)
    return train(model, data, options, folder, progress, watch)


def train_step(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    objective: Callable[..., Tensor],
    batch: Batch,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """One step of every optimiser down the gradient of the batch's loss; returns that loss, without its graph."""
    model.train()
    out = model(batch.features, batch.domain)
    loss = objective(out.logits, batch.label, batch.domain, batch.counts) + out.penalty
    for optimizer in optimizers:
        optimizer.zero_grad()
    backward(loss)
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


def evaluate_and_record(model: nn.Module, valid: Split, state: RunState, epoch: float, train_loss: float) -> bool:
    """Add an evaluation to the state's history; returns whether the model is better than it has been so far.

    Raises CrocoError where the validation rows define no AUC.
    """
    table = evaluate(model, valid)
    rows = [("valid", r.domain, r.metric, r.value) for r in table.itertuples()]
    rows += [("valid", *triple) for triple in probe(model, valid)]
    if state.step:  # before the first step there is no training loss
        rows.append(("train", "all", "loss", train_loss))
    state.history += [(state.step, epoch, *row) for row in rows]
    auc = float(table.query("domain == 'all' and metric == 'auc'").value.iloc[0])
    if np.isnan(auc):
        raise CrocoError("fit: the validation AUC is not defined (one class of label), so no model can be chosen.")
    better = auc > state.best
    if better:
        state.best, state.best_step = auc, state.step
    state.waited = 0 if better else state.waited + 1
    return better


def _mean_over_processes(losses: list[Tensor], accelerator: Accelerator, step: int, lr: float) -> float:
    mean = float(accelerator.reduce(torch.stack(losses).mean(), "mean"))
    if not np.isfinite(mean):
        raise CrocoError(f"fit: the loss is {mean} at step {step}; try a smaller lr than {lr}.")
    return mean


def _load_best(model: nn.Module, best_in: Path, accelerator: Accelerator, keep: ModuleType) -> None:
    """Give the model of every process the weights that the main process has kept in its folder."""
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:  # each has a temporary folder of its own
        best_in = Path(broadcast_object_list([str(best_in)])[0])
    keep.load_weights(model, best_in)
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # `prepare` has put autocast around its forward
    accelerator.wait_for_everyone()  # before the folder may go


def _progress_bar(name: str, step: int, last: int, silent: bool) -> tqdm:
    # Once a second: a kernel drops messages when a thousand of them wait to be read, among them that a cell is done.
    return tqdm(total=last, initial=step, desc=name, unit="step", disable=silent, mininterval=1.0)


def _finished(model: nn.Module, state: RunState, settings: dict, options: TrainOptions) -> Run:
    if (done := state.history[-1][1]) > options.epochs:
        raise CrocoError(
            f"fit: the folder holds a run of {done:g} epochs; epochs={options.epochs} cannot make it shorter."
        )
    impatient = state.waited >= options.patience
    stopped = f"no better for {options.patience} evaluations" if impatient else f"all {options.epochs} epochs done"
    rate = state.rows / max(state.trained, 1e-9)
    return Run(model, state.table(), settings, state.best_step, state.seconds, rate, stopped)


def _check_folder(folder: str | Path | None, processes: int) -> None:
    if folder is None and processes > int(os.environ.get("LOCAL_WORLD_SIZE", processes)):
        raise CrocoError("fit: on several machines, give a folder that all see; the best weights are kept there.")


def train(
    model: nn.Module,
    data: MultiDomainData,
    options: TrainOptions,
    folder: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[int, nn.Module], object] | None = None,
    keep: ModuleType = checkpoint,
) -> Run:
    """What `fit` does, the options as one object. `keep` is the module that saves the run: another if sharded."""
    accelerator = Accelerator(cpu=ON_CPUS)  # its precision is the environment's, where `accelerate config` left one
    rank, processes = accelerator.process_index, accelerator.num_processes
    lazy = sum(field.size for field in data.fields) >= LAZY_FROM if options.lazy is None else options.lazy
    _check_folder(folder, processes)
    settings = keep.settings_of(model, data, options, lazy, accelerator)
    steps = steps_per_epoch(len(data.train), options.batch_size, processes)
    last, every = options.epochs * steps, options.eval_every or steps
    wrapped, *optimizers = accelerator.prepare(model, *adam(model, lazy, options.lr))  # `model` stays what was given
    state = RunState() if folder is None else keep.resume(Path(folder), settings, model, optimizers)
    started, before, losses = time.perf_counter(), state.seconds, []
    objective, silent = OBJECTIVES[options.objective], not (progress and accelerator.is_main_process)
    writes = accelerator.is_main_process or keep.ALL_WRITE

    def backward(loss: Tensor) -> None:
        accelerator.backward(loss)
        if options.weight_decay:
            decay(model, options.weight_decay)

    def record(train_loss: float) -> None:
        better = evaluate_and_record(model, data.valid, state, state.step / steps, train_loss)
        if watch is not None:
            watch(state.step, model)
        if better and writes:
            # Before the checkpoint: a run killed in between comes to the same step and weights again.
            keep.save_weights(model, Path(best_in))
        if folder is not None and writes:
            state.seconds = before + time.perf_counter() - started
            keep.save(Path(folder), settings, model, optimizers, state)

    with (
        TemporaryDirectory() if folder is None else nullcontext(folder) as best_in,  # where the best weights lie
        _progress_bar(name_of(model), state.step, last, silent) as bar,
    ):
        if not state.history:
            record(float("nan"))  # before the first step, so that every curve starts at the start
        batches = feed(data.train, options.batch_size, options.seed, state.step, steps, accelerator.device)
        while state.step < last and state.waited < options.patience:
            tick = time.perf_counter()
            batch = next(batches)
            losses.append(train_step(wrapped, optimizers, objective, batch.share(rank, processes), backward))
            state.step, state.rows = state.step + 1, state.rows + len(batch.label)
            state.trained += time.perf_counter() - tick
            bar.update()
            if state.step % every == 0 or state.step == last:
                record(_mean_over_processes(losses, accelerator, state.step, options.lr))
                losses = []
                bar.set_postfix_str(f"best valid AUC {state.best:.4f}", refresh=False)
        _load_best(model, Path(best_in), accelerator, keep)
    state.seconds = before + time.perf_counter() - started
    return _finished(model, state, settings, options)
