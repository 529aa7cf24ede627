"""What a model gives: logits and metrics, its experts' outputs and scores, its embedding sets, a probe inside."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather
from torch import nn

from . import metrics
from .errors import CrocoError, known
from .losses import covariance_loss
from .models import Output, name_of
from .schema import MultiDomainData, Split

PROBE_ROWS = 4096  # random validation rows on which the probe is taken: a training batch of the default size
EVAL_BATCH = 1 << 16  # rows scored at once: enough to keep the processor busy, few enough for every model's memory


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


# On the function: a `with` around the loop would hold in the caller's code too, and stay where that raises between two
# batches. Not inference_mode, in which FBGEMM looks nothing up on a CPU.
@torch.no_grad()
def outputs(model: nn.Module, split: Split, batch_size: int = EVAL_BATCH) -> Iterator[Output]:
    """The model's outputs over the split, batch by batch in order, without gradients. It is left in evaluation mode."""
    device = device_of(model)
    model.eval()
    for start in range(0, max(len(split), 1), batch_size):  # a split without rows gives one empty output
        rows = slice(start, start + batch_size)
        # np.array copies: a memory-mapped split is read-only, and torch warns of tensors over such memory.
        yield model(
            torch.from_numpy(np.array(split.features[rows])).to(device),
            torch.from_numpy(np.array(split.domain[rows])).to(device).long(),
        )


def predict(model: nn.Module, split: Split) -> np.ndarray:
    """Logits float32 [N] of every row; of several processes each scores its share, and all get the whole."""
    N, processes, rank = len(split), PartialState().num_processes, PartialState().process_index
    share = -(-N // processes)
    # Of one size: so they can be gathered, and all make as many calls. Slices: a mapped split stays on disk.
    parts = [slice(at, at + share) for at in (min(r * share, N - share) for r in range(processes))]
    for buffer in model.buffers() if processes > 1 else ():
        broadcast(buffer)  # STAR's running means: since its last step each process has its own
    logits = torch.cat([out.logits for out in outputs(model, split.take(parts[rank]))]).float()
    whole = logits.new_empty(N)
    for part, scored in zip(parts, gather(logits).view(processes, share), strict=True):
        whole[part] = scored
    return whole.cpu().numpy()


def evaluate(model: nn.Module, split: Split) -> pd.DataFrame:
    """AUC, gAUC and log loss, overall and per domain: a tidy frame with domain, metric, value, rows, note."""
    if not isinstance(split, Split):
        raise CrocoError(f"evaluate takes rows, such as data.test, not {type(split).__name__}.")
    return metrics.evaluate_scores(split.label, predict(model, split), split.domain, split.user, split.domains)


def has_experts(model: nn.Module) -> bool:
    """Whether the model mixes experts for its towers; STAR, PEPNet and AdaSparse have neither."""
    return hasattr(model, "towers")


def _experts(model: nn.Module, out: Output) -> torch.Tensor:
    """O^(m) of a batch: [M, B, d]. Raises CrocoError for a model without experts."""
    if out.experts is None:
        raise CrocoError(f"{name_of(model)} has no experts.")
    return out.experts


def expert_outputs(model: nn.Module, split: Split) -> np.ndarray:
    """O^(m) of every row: float [M, N, d]. Raises CrocoError for a model without experts."""
    return torch.cat([_experts(model, out) for out in outputs(model, split)], 1).float().cpu().numpy()


def expert_scores(model: Any, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """What each expert alone would have the row's tower say: logits [M, N] with O^(m) in place of every mixture.

    The second array, bool [M, N], says whether the row's tower reads the expert at all. Raises CrocoError for a model
    without experts, or without `towers` that read them.
    """
    if not has_experts(model):
        raise CrocoError(f"{name_of(model)} has no experts, or no `towers` that read them.")
    device, scores, read, start = device_of(model), [], [], 0
    for out in outputs(model, split):
        O, rows = _experts(model, out), slice(start, start + len(out.logits))
        domain = torch.from_numpy(np.array(split.domain[rows])).to(device)
        with torch.inference_mode():
            # HiNet's towers read three mixtures side by side, so the expert's output takes all three places.
            scores.append(
                torch.stack([model.towers(o.repeat(1, model.towers.inputs // o.shape[1]), domain) for o in O])
            )
        read.append(torch.ones_like(scores[-1], dtype=torch.bool) if out.gate is None else (out.gate > 0).any(-1))
        start = rows.stop
    return torch.cat(scores, 1).float().cpu().numpy(), torch.cat(read, 1).cpu().numpy()


def _all_tables(model: Any) -> np.ndarray:
    """Float [M, V, e]; M is 0 where the tables are sharded, or a reader's own model has none."""
    sets = getattr(getattr(model, "embedding", None), "weights", None)
    return sets().detach().float().cpu().numpy() if sets else np.zeros((0, 0, 0), np.float32)


def embedding_sets(model: nn.Module, data: MultiDomainData, field: str | None = None) -> np.ndarray:
    """The model's embedding tables, float [M, V, e]: of one field, or of all fields one below the other."""
    if not len(tables := _all_tables(model)):
        raise CrocoError(f"{name_of(model)} has no embedding sets (`model.embedding`, as `build` makes them).")
    if field is None:
        return tables
    known("field", field, names := [f.name for f in data.fields])
    start = sum(f.size for f in data.fields[: names.index(field)])
    return tables[:, start : start + data.fields[names.index(field)].size]


def probe(model: nn.Module, split: Split) -> list[tuple[str, str, float]]:
    """(part, metric, value) of what goes on inside: covariance, correlation, gate entropy, IA of each set."""
    # Random rows, not the first: rows may stand in order of their domains. Sorted, for reads in order are fast.
    some = np.random.default_rng(0).permutation(len(split))[:PROBE_ROWS]
    out = next(outputs(model, split.take(np.sort(some)), PROBE_ROWS))
    values = []
    if out.experts is not None:
        experts = out.experts.float().cpu().numpy()
        values = [
            ("all", "covariance", float(covariance_loss(out.experts)) if len(experts) > 1 else float("nan")),
            ("all", "correlation", metrics.cross_correlation(experts)),
        ]
    if out.gate is not None:
        values.append(("all", "gate_entropy", metrics.gate_entropy(out.gate.float().cpu().numpy())))
    return values + [  # of no set where the tables are sharded, or in a reader's own model that has none
        (f"set {m + 1}", "information_abundance", metrics.information_abundance(table))
        for m, table in enumerate(_all_tables(model))
    ]
