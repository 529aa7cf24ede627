"""Training and evaluation, on CPU or GPU through one path."""

import json
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import metrics
from .losses import OBJECTIVES, covariance_loss
from .models import Output
from .schema import CrocoError, MultiDomainData, Split, known, write_whole

PROBE_ROWS = 4096  # random validation rows on which the measures of disentanglement are taken
EVAL_BATCH = 1 << 16


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


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def outputs(model: nn.Module, split: Split, batch_size: int = EVAL_BATCH) -> Iterator[Output]:
    """The model's outputs over the split, batch by batch in order, without gradients."""
    device = _device_of(model)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            rows = slice(start, start + batch_size)
            yield model(torch.from_numpy(split.features[rows]).to(device),
                        torch.from_numpy(split.domain[rows]).to(device))


def predict(model: nn.Module, split: Split) -> np.ndarray:
    """Logits float32 [N] of every row."""
    return torch.cat([out.logits for out in outputs(model, split)]).float().cpu().numpy()


def evaluate(model: nn.Module, split: Split) -> pd.DataFrame:
    """AUC, gAUC and log loss, overall and per domain: a tidy frame with domain, metric, value, rows, note."""
    return metrics.evaluate_scores(split.label, predict(model, split), split.domain, split.user, split.domains)


def _need_experts(model: nn.Module) -> None:
    if not hasattr(model, "towers"):  # STAR, PEPNet and AdaSparse
        raise CrocoError(f"{model.name} has no experts.")


def expert_outputs(model: nn.Module, split: Split) -> np.ndarray:
    """O^(m) of every row: float [M, N, d]. Raises CrocoError for a model without experts."""
    _need_experts(model)
    return torch.cat([out.experts for out in outputs(model, split)], 1).float().cpu().numpy()


def expert_scores(model: nn.Module, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """What each expert alone would have the row's tower say: logits [M, N] with O^(m) in place of every mixture.

    And, bool [M, N], whether the row's tower reads the expert at all. Raises CrocoError for a model without experts.
    """
    _need_experts(model)
    device, scores, read, start = _device_of(model), [], [], 0
    for out in outputs(model, split):
        rows = slice(start, start + out.experts.shape[1])
        domain = torch.from_numpy(split.domain[rows]).to(device)
        with torch.inference_mode():
            scores.append(torch.stack([model.towers(O.repeat(1, model.towers.inputs // O.shape[1]), domain)
                                       for O in out.experts]))
        read.append(torch.ones_like(scores[-1], dtype=torch.bool) if out.gate is None else (out.gate > 0).any(-1))
        start = rows.stop
    return torch.cat(scores, 1).float().cpu().numpy(), torch.cat(read, 1).cpu().numpy()


def diversity(model: nn.Module, split: Split, triples: int = 100_000, seed: int = 0) -> float:
    """The diversity index of the model's experts on this split (see `metrics.diversity_index`)."""
    pairs = metrics.user_pairs(split.user, split.domain, triples, seed)
    scores, read = expert_scores(model, split)
    return metrics.diversity_index(scores, pairs, read)


def embedding_sets(model: nn.Module, data: MultiDomainData, field: str | None = None) -> np.ndarray:
    """The model's embedding tables, float [M, V, e]: of one field, or of all fields one below the other."""
    tables = model.embedding.weights().detach().float().cpu().numpy()
    if field is None:
        return tables
    known("field", field, names := [f.name for f in data.fields])
    start = sum(f.size for f in data.fields[: names.index(field)])
    return tables[:, start:start + data.fields[names.index(field)].size]


def probe(model: nn.Module, split: Split) -> list[tuple[str, str, float]]:
    """(part, metric, value) of what goes on inside: covariance, correlation, gate entropy, IA of each set."""
    some = np.random.default_rng(0).permutation(len(split))[:PROBE_ROWS]  # of all domains: the rows may be in order
    out = next(outputs(model, split.take(np.sort(some)), PROBE_ROWS))
    values = []
    if out.experts is not None:
        experts = out.experts.float().cpu().numpy()
        values = [("all", "covariance", float(covariance_loss(out.experts)) if len(experts) > 1 else float("nan")),
                  ("all", "correlation", metrics.cross_correlation(experts))]
    if out.gate is not None:
        values.append(("all", "gate_entropy", metrics.gate_entropy(out.gate.float().cpu().numpy())))
    tables = model.embedding.weights().detach().float().cpu().numpy()
    return values + [(f"set {m + 1}", "information_abundance", metrics.information_abundance(E))
                     for m, E in enumerate(tables)]


def fit(
    model: nn.Module,
    data: MultiDomainData,
    *,
    epochs: int = 10,
    batch_size: int = 4096,
    lr: float = 3e-3,
    weight_decay: float = 0.0,
    objective: str = "domain",
    patience: int = 2,
    eval_every: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[int, nn.Module], object] | None = None,
) -> Run:
    """Train with Adam, keep the weights that are best on validation (overall AUC), and return the run.

    `objective`: "domain" (per-domain means summed, the paper's) or "sample" (plain mean). Validation comes every
    `eval_every` steps (default: once an epoch); training stops when it has not improved `patience` times in a row.
    With `folder`, every evaluation leaves a checkpoint there, the best weights (best.safetensors), the history and the
    settings; called again with the same settings, an interrupted run goes on from it to the same figures. At every
    evaluation `watch(step, model)` may look at the model as it stands.

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
    # What a resumed run must share with the run it continues. (Epochs may be raised; the evaluation at the earlier end
    # then stays in the history.)
    settings = dict(model=getattr(model, "name", type(model).__name__), options=getattr(model, "options", {}),
                    weights_from_seed=getattr(model, "seed", None),
                    data=data.name, fingerprint=data.fingerprint, batch_size=batch_size, lr=lr,
                    weight_decay=weight_decay, objective=objective, eval_every=eval_every, seed=seed)
    settings = json.loads(json.dumps(settings))  # as a file gives it back
    accelerator = Accelerator()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    device = accelerator.device
    features = torch.from_numpy(data.train.features).to(device)
    domain = torch.from_numpy(data.train.domain).to(device)
    label = torch.from_numpy(data.train.label).to(device)
    steps = -(-len(label) // batch_size)  # in an epoch
    every = eval_every or steps

    state = dict(step=0, best=-np.inf, best_step=0, waited=0, seconds=0.0, trained=0.0, rows=0, history=[])
    best_weights: dict[str, Tensor] = {}
    folder = None if folder is None else Path(folder)
    if folder is not None and (folder / "checkpoint.pt").is_file():
        try:
            saved = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise CrocoError(f"{folder / 'checkpoint.pt'} is damaged; delete it to start again.") from error
        old = json.loads(saved["settings"])
        if changed := [k for k in settings if settings[k] != old.get(k)]:
            raise CrocoError(f"{folder} holds a run with another {', '.join(changed)} "
                             f"({old.get(changed[0])!r}, now {settings[changed[0]]!r}). Give another folder.")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        best_weights, state = saved["best_weights"], json.loads(saved["state"])
    elif folder is not None:
        if folder.is_file():
            raise CrocoError(f"{folder} is a file; folder= takes a folder.")
        folder.mkdir(parents=True, exist_ok=True)

    def look(train_loss: float) -> None:
        """Evaluate, note it all in the history, keep the best weights, write the checkpoint."""
        step, epoch = state["step"], state["step"] / steps
        table = evaluate(model, data.valid)
        rows = [("valid", r.domain, r.metric, r.value) for r in table.itertuples()]
        rows += [("valid", *triple) for triple in probe(model, data.valid)]
        if step:
            rows.append(("train", "all", "loss", train_loss))
        state["history"] += [(step, epoch, *row) for row in rows]
        if watch is not None:
            watch(step, model)
        auc = float(table.query("domain == 'all' and metric == 'auc'").value.iloc[0])
        if np.isnan(auc):
            raise CrocoError("fit: the validation AUC is not defined (one class of label), so no model can be chosen.")
        state["waited"] += 1
        if auc > state["best"]:
            state.update(best=auc, best_step=step, waited=0)
            best_weights.update({k: v.detach().cpu().clone() for k, v in model.state_dict().items()})
        if folder is not None:
            state["seconds"] = before + time.perf_counter() - started
            write_whole(folder / "checkpoint.pt", lambda p: torch.save(
                dict(model=model.state_dict(), optimizer=optimizer.state_dict(), best_weights=best_weights,
                     state=json.dumps(state), settings=json.dumps(settings)), p))
            write_whole(folder / "best.safetensors", lambda p: save_file(best_weights, p))
            write_whole(folder / "history.csv", lambda p: _tidy(state["history"]).to_csv(p, index=False))
            write_whole(folder / "settings.json", lambda p: p.write_text(json.dumps(settings, indent=1)))

    started, before = time.perf_counter(), state["seconds"]
    if not state["history"]:
        look(float("nan"))  # before the first step, so that every curve starts at the start
    bar = tqdm(total=epochs * steps, initial=state["step"], desc=settings["model"], unit="step", disable=not progress)
    order, of_epoch, losses = None, -1, []
    while state["step"] < epochs * steps and state["waited"] < patience:
        epoch, at = divmod(state["step"], steps)
        tick = time.perf_counter()
        if epoch != of_epoch:  # a fresh shuffle, from the seed and the epoch alone: a resumed run has the same
            shuffle = np.random.default_rng([seed, epoch]).permutation(len(label))
            order, of_epoch = torch.from_numpy(shuffle).to(device), epoch
        rows = order[at * batch_size:(at + 1) * batch_size]
        model.train()
        out = model(features[rows], domain[rows])
        loss = loss_of(out.logits, label[rows], domain[rows]) + out.penalty
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.detach())
        state["step"] += 1
        state["rows"] += len(rows)
        state["trained"] += time.perf_counter() - tick
        bar.update()
        if state["step"] % every == 0 or state["step"] == epochs * steps:
            mean = float(torch.stack(losses).mean())
            if not np.isfinite(mean):
                raise CrocoError(f"fit: the loss is {mean} at step {state['step']}; try a smaller lr than {lr}.")
            losses = []
            look(mean)
            bar.set_postfix_str(f"best valid AUC {state['best']:.4f}")
    bar.close()
    model = accelerator.unwrap_model(model)
    model.load_state_dict(best_weights)
    stopped = (f"no better for {patience} evaluations" if state["waited"] >= patience
               else f"all {epochs} epochs done")
    return Run(model, _tidy(state["history"]), settings, state["best_step"], before + time.perf_counter() - started,
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
