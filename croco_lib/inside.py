"""What a model gives and holds: its outputs, its experts' own scores, its embedding sets, and the measures of them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from . import metrics
from .losses import covariance_loss
from .models import Output
from .schema import CrocoError, MultiDomainData, Split, known

PROBE_ROWS = 4096  # random validation rows on which the measures of disentanglement are taken
EVAL_BATCH = 1 << 16


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def outputs(model: nn.Module, split: Split, batch_size: int = EVAL_BATCH) -> Iterator[Output]:
    """The model's outputs over the split, batch by batch in order, without gradients."""
    device = _device_of(model)
    model.eval()
    with torch.inference_mode():
        for start in range(0, max(len(split), 1), batch_size):  # no rows: one empty output
            rows = slice(start, start + batch_size)
            yield model(torch.from_numpy(np.array(split.features[rows])).to(device),
                        torch.from_numpy(np.array(split.domain[rows])).to(device).long())


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
