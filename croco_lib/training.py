"""Training and evaluation, on CPU or GPU through one path."""

import json
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather, pad_across_processes
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from . import metrics
from .errors import CrocoError, known, write_text, write_whole
from .inside import diversity, embedding_sets, expert_outputs, expert_scores, outputs, probe  # noqa: F401 (old names)
from .losses import OBJECTIVES
from .schema import MultiDomainData, Split

BLOCK, BUFFER = 1 << 10, 1 << 20  # rows read in one piece; rows held in memory and shuffled together
MAY_CHANGE = ("device", "threads")  # noted, but a run may go on with others: the last digits then differ
LAZY_FROM = 1 << 18  # ids: from here on a dense step over the tables costs more than all else


@dataclass
class Run:
    """A finished training. `model` holds the best weights; `history` is tidy: step, epoch, split, part, metric, value.

    `part` is "all", a domain, or "set m". `settings` is everything that made the run; `rows_per_second` counts
    training steps only, without evaluation; `stopped` says why it ended.
    """

    model: nn.Module
    history: pd.DataFrame
    settings: dict
    best_step: int
    seconds: float
    rows_per_second: float
    stopped: str


def predict(model: nn.Module, split: Split) -> np.ndarray:
    """Logits float32 [N] of every row; of several processes each scores its share, and all get the whole."""
    N, P, rank = len(split), PartialState().num_processes, PartialState().process_index
    share = -(-N // P)
    mine = split if P == 1 else split.take(slice(rank * share, (rank + 1) * share))
    logits = torch.cat([out.logits for out in outputs(model, mine)]).float()
    return (gather(pad_across_processes(logits)) if P > 1 else logits)[:N].cpu().numpy()


def evaluate(model: nn.Module, split: Split) -> pd.DataFrame:
    """AUC, gAUC and log loss, overall and per domain: a tidy frame with domain, metric, value, rows, note."""
    return metrics.evaluate_scores(split.label, predict(model, split), split.domain, split.user, split.domains)


def buffer_rows(rows: int, at: int, count: int, seed: int, epoch: int) -> np.ndarray:
    """Rows `at` … `at + count` of the epoch's shuffle, the same for the same seed and epoch wherever a run resumes.

    A split that fits one buffer is shuffled whole. A larger one is shuffled in blocks: the order of its blocks of
    BLOCK rows is random, and so is that of the rows within a buffer of many blocks; the reads stay sequential and what
    is held in memory stays one buffer.
    """
    if rows <= count:
        return np.random.default_rng([seed, epoch]).permutation(rows)
    first = np.random.default_rng([seed, epoch]).permutation(-(-rows // BLOCK)) * BLOCK  # of each block
    size = np.minimum(BLOCK, rows - first)
    end = size.cumsum()
    here = slice(np.searchsorted(end, at, "right"), np.searchsorted(end, at + count - 1, "right") + 1)
    held = np.concatenate([np.arange(f, f + n) for f, n in zip(first[here], size[here], strict=True)])
    skip = at - (end - size)[here.start]
    return np.random.default_rng([seed, epoch, at]).permutation(held[skip:skip + count])


def batches(split: Split, batch_size: int, seed: int, epoch: int, start: int, device: torch.device) -> Iterator[tuple]:
    """(features, domain, label) of the epoch's batches from the `start`-th on, slices of shuffled buffers."""
    count = batch_size * max(1, BUFFER // batch_size)
    for at in range(start * batch_size // count * count, len(split), count):
        rows = buffer_rows(len(split), at, count, seed, epoch)
        features, domain, label = (torch.from_numpy(np.asarray(a[rows])).to(device)
                                   for a in (split.features, split.domain, split.label))
        for low in range(max(0, start * batch_size - at), len(rows), batch_size):
            part = slice(low, low + batch_size)
            yield features[part], domain[part].long(), label[part].float()


def tables_of(model: nn.Module) -> list[nn.Embedding]:
    """The embedding tables of the model, the gate's among them."""
    return [m for m in model.modules() if isinstance(m, nn.Embedding)]


def adam(model: nn.Module, lazy: bool, lr: float) -> list[torch.optim.Optimizer]:
    """Adam for all weights; or, where `lazy`, for all but the tables, and lazy Adam for these, on sparse gradients."""
    tables = tables_of(model)
    for table in tables:
        table.sparse = lazy
    wide = {id(table.weight) for table in tables if lazy}
    dense = [p for p in model.parameters() if id(p) not in wide]
    optimizers = [torch.optim.Adam(dense, lr=lr, fused=True)]
    return optimizers + ([torch.optim.SparseAdam([t.weight for t in tables], lr=lr)] if lazy else [])


def decay(model: nn.Module, weight_decay: float) -> None:
    """L2: add λ w to every gradient; in the tables to that of the vectors that the batch trains, and of no others.

    Adam's steps do not depend on the size of a gradient, so a vector whose only gradient is λ w would fall to 0 at any
    λ. A vector is trained where its gradient is not 0: of a row that is read, the sets that have a say in the loss.
    """
    tables = {id(table.weight) for table in tables_of(model)}
    for p in model.parameters():
        if p.grad is None:
            continue
        grad, weight = p.grad, p.detach()
        if grad.is_sparse:
            p.grad = grad.coalesce()
            grad, weight = p.grad.values(), weight[p.grad.indices()[0]]
        if id(p) not in tables:
            grad.add_(weight, alpha=weight_decay)
            continue
        for g, w in zip(grad.split(1 << 12), weight.split(1 << 12), strict=True):  # pieces that the cache holds
            g.add_(torch.where(g == 0, 0, w), alpha=weight_decay)


def fit(
    model: nn.Module,
    data: MultiDomainData,
    *,
    epochs: int = 10,
    batch_size: int = 4096,
    lr: float = 3e-3,
    weight_decay: float = 0.0,
    objective: str = "sample",
    patience: int = 2,
    eval_every: int | None = None,
    lazy: bool | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[int, nn.Module], object] | None = None,
) -> Run:
    """Train with Adam, keep the weights that are best on validation (overall AUC), and return the run.

    `objective`: "sample", the plain mean over rows, or "domain", the literal reading of the paper's formula: per-domain
    means summed: the few rows of a small domain then weigh as much as all of a large one. Validation comes every
    `eval_every` steps (default: once an epoch); training stops when it has not improved `patience` times in a row.
    `lazy`: the embedding tables by lazy Adam, which moves only the rows that a batch reads, so that a step costs the
    same however many ids there are (default: from LAZY_FROM ids on). `weight_decay` is L2 on all weights, but of the
    tables only on what the batch trains, lazy or not, so that it means the same at every size (see `decay`).
    With `folder`, every evaluation leaves a checkpoint there, the best weights (best.safetensors), the history and the
    settings; called again with the same settings, an interrupted run goes on from it to the same figures. At every
    evaluation `watch(step, model)` may look at the model as it stands.

    Started by `accelerate launch`, each process takes its share of every batch, and `batch_size` stays the whole
    batch's: the objective is that of one process; CovLoss is the mean of the processes' own.

    Raises CrocoError for settings out of range, a folder that holds another run, or a loss that is not finite.
    """
    loss_of = OBJECTIVES[known("objective", objective, OBJECTIVES)]
    for name, value, low in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("patience", patience, 1),
                             ("eval_every", 1 if eval_every is None else eval_every, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or value < low:
            raise CrocoError(f"fit: {name} must be a whole number of {low} or more, not {value!r}.")
    for name, value, fits in (("lr", lr, lambda v: 0 < v < 10), ("weight_decay", weight_decay, lambda v: 0 <= v < 10)):
        if not isinstance(value, Real) or not fits(value):
            low = "above 0" if name == "lr" else "at least 0"
            raise CrocoError(f"fit: {name} must be {low} and below 10, not {value!r}.")
    if getattr(model, "sizes", None) not in (None, [f.size for f in data.fields]):
        raise CrocoError(f"fit: this {model.name} was built for other data than {data.name}; build it anew.")
    lazy = sum(f.size for f in data.fields) >= LAZY_FROM if lazy is None else lazy
    # What a resumed run must share with the run it continues. (Epochs may be raised; the evaluation at the earlier end
    # then stays in the history.)
    settings = dict(model=getattr(model, "name", type(model).__name__), options=getattr(model, "options", {}),
                    weights_from_seed=getattr(model, "seed", None),
                    data=data.name, fingerprint=data.fingerprint, batch_size=batch_size, lr=lr,
                    weight_decay=weight_decay, decayed="what a batch trains" if weight_decay else "nothing",
                    objective=objective, eval_every=eval_every, lazy=lazy, seed=seed)
    accelerator = Accelerator()  # takes its precision from the environment, where `accelerate config` left one
    settings |= dict(mixed_precision=accelerator.mixed_precision, device=accelerator.device.type,
                     threads=torch.get_num_threads())
    settings = json.loads(json.dumps(settings))  # as a file gives it back
    P, rank = accelerator.num_processes, accelerator.process_index
    if batch_size < P:
        raise CrocoError(f"fit: batch_size must give each of the {P} processes a row, not be {batch_size}.")
    net = model  # as it is, without what several processes wrap around it
    model, *optimizers = accelerator.prepare(model, *adam(model, lazy, lr))
    device = accelerator.device
    steps = -(-len(data.train) // batch_size)  # in an epoch
    if P > 1 and len(data.train) % batch_size in range(1, P):
        steps -= 1  # a last batch that does not give every process a row is left out
    every = eval_every or steps

    state = dict(step=0, best=-np.inf, best_step=0, waited=0, seconds=0.0, trained=0.0, rows=0, history=[])
    folder = None if folder is None else Path(folder)
    if folder is not None and (folder / "checkpoint.pt").is_file():
        try:
            saved = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise CrocoError(f"{folder / 'checkpoint.pt'} is damaged; delete it to start again.") from error
        old = json.loads(saved["settings"])
        old = {"mixed_precision": "no", "decayed": "all" if old["weight_decay"] else "nothing",
               **old}  # a checkpoint from before they were noted
        if changed := [k for k in settings if k not in MAY_CHANGE and settings[k] != old.get(k)]:
            raise CrocoError(f"{folder} holds a run with another {', '.join(changed)} "
                             f"({old.get(changed[0])!r}, now {settings[changed[0]]!r}). Give another folder.")
        net.load_state_dict(saved["model"])
        for optimizer, values in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        state = json.loads(saved["state"])
        del saved
    elif folder is not None:
        if folder.is_file():
            raise CrocoError(f"{folder} is a file; folder= takes a folder.")
        folder.mkdir(parents=True, exist_ok=True)

    def look(train_loss: float) -> None:
        """Evaluate, note it all in the history, keep the best weights, write the checkpoint."""
        step, epoch = state["step"], state["step"] / steps
        table = evaluate(net, data.valid)
        rows = [("valid", r.domain, r.metric, r.value) for r in table.itertuples()]
        rows += [("valid", *triple) for triple in probe(net, data.valid)]
        if step:
            rows.append(("train", "all", "loss", train_loss))
        state["history"] += [(step, epoch, *row) for row in rows]
        if watch is not None:
            watch(step, net)
        auc = float(table.query("domain == 'all' and metric == 'auc'").value.iloc[0])
        if np.isnan(auc):
            raise CrocoError("fit: the validation AUC is not defined (one class of label), so no model can be chosen.")
        state["waited"] += 1
        better = auc > state["best"]
        if better:
            state.update(best=auc, best_step=step, waited=0)
        if not accelerator.is_main_process:
            return
        if better:  # written before the checkpoint: a run killed in between comes to the same step and weights again
            weights = {k: v.contiguous() for k, v in net.state_dict().items()}
            write_whole(kept / "best.safetensors", lambda p: save_file(weights, p))
        if folder is not None:
            state["seconds"] = before + time.perf_counter() - started
            write_whole(folder / "checkpoint.pt", lambda p: torch.save(
                dict(model=net.state_dict(), optimizers=[o.state_dict() for o in optimizers],
                     state=json.dumps(state), settings=json.dumps(settings)), p))
            write_whole(folder / "history.csv", lambda p: _tidy(state["history"]).to_csv(p, index=False))
            write_text(folder / "settings.json", json.dumps(settings, indent=1))

    started, before = time.perf_counter(), state["seconds"]
    bar = tqdm(total=epochs * steps, initial=state["step"], desc=settings["model"], unit="step",
               disable=not progress or not accelerator.is_main_process)
    feed, of_epoch, losses = iter(()), -1, []
    with TemporaryDirectory() if folder is None else nullcontext(folder) as kept:  # where the best weights lie
        kept = Path(kept)
        if not state["history"]:
            look(float("nan"))  # before the first step, so that every curve starts at the start
        while state["step"] < epochs * steps and state["waited"] < patience:
            epoch, at = divmod(state["step"], steps)
            tick = time.perf_counter()
            if epoch != of_epoch:
                feed, of_epoch = batches(data.train, batch_size, seed, epoch, at, device), epoch
            features, domain, label = next(feed)
            mine = slice(rank, None, P)
            model.train()
            out = model(features[mine], domain[mine])
            loss = loss_of(out.logits, label[mine], domain[mine], domain.bincount() / P) + out.penalty
            for optimizer in optimizers:
                optimizer.zero_grad()
            accelerator.backward(loss)
            if weight_decay:
                accelerator.unscale_gradients()  # as half precision left them
                decay(net, weight_decay)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(loss.detach())
            state["step"] += 1
            state["rows"] += len(label)
            state["trained"] += time.perf_counter() - tick
            bar.update()
            if state["step"] % every == 0 or state["step"] == epochs * steps:
                mean = float(accelerator.reduce(torch.stack(losses).mean(), "mean"))
                if not np.isfinite(mean):
                    raise CrocoError(f"fit: the loss is {mean} at step {state['step']}; try a smaller lr than {lr}.")
                losses = []
                look(mean)
                bar.set_postfix_str(f"best valid AUC {state['best']:.4f}")
        bar.close()
        accelerator.wait_for_everyone()
        if P > 1 and folder is None:
            kept = Path(broadcast_object_list([str(kept)])[0])
        load_weights(net, kept)
        accelerator.wait_for_everyone()  # before the best weights' folder may go
    stopped = (f"no better for {patience} evaluations" if state["waited"] >= patience
               else f"all {epochs} epochs done")
    return Run(net, _tidy(state["history"]), settings, state["best_step"], before + time.perf_counter() - started,
               state["rows"] / max(state["trained"], 1e-9), stopped)


def _tidy(history: list) -> pd.DataFrame:
    return pd.DataFrame(history, columns=["step", "epoch", "split", "part", "metric", "value"])


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
