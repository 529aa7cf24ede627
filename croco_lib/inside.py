"""What a model gives and holds: its outputs, its experts' own scores, its embedding sets, and the measures of them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from . import metrics
from .errors import CrocoError, known
from .losses import covariance_loss
from .models import Output
from .schema import MultiDomainData, Split

PROBE_ROWS = 4096  # random validation rows on which the measures of disentanglement are taken
EVAL_BATCH = 1 << 16
TRIPLES = 100_000  # (user, a, b) drawn for the diversity index
AT_START = ("correlation", "diversity_index", "expert_auc", "abundance", "own_table_abundance")


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


def diversity(model: nn.Module, split: Split, triples: int = TRIPLES, seed: int = 0) -> float:
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


def _items_read(data: MultiDomainData) -> list[np.ndarray]:
    """The items (as ids of the item field) that each domain has in train. Other rows of a table are as at the start."""
    item = data.column("item")
    return [np.unique(data.train.features[data.train.domain == s, item]) for s in range(len(data.domains))]


def abundance(model: nn.Module, data: MultiDomainData) -> float:
    """IA of the model's embedding sets, mean over the sets: on the items that the smallest domain has in train.

    The same rows for every model of the data, whatever it shares, so models compare; up to the embedding size.
    """
    rows = np.bincount(data.train.domain, minlength=len(data.domains))
    items = _items_read(data)[int(np.where(rows > 0, rows, rows.max() + 1).argmin())]
    tables = embedding_sets(model, data, data.fields[data.column("item")].name)
    return float(np.mean([metrics.information_abundance(E[items]) for E in tables]))


def own_abundance(model: nn.Module, data: MultiDomainData) -> dict[str, float]:
    """IA of each domain's own item tables, by domain; empty for a model whose tables are not the domains' own.

    Each over the items that its domain has in train, at equal rows: as many as the domain with the fewest has. NaN for
    a domain without any.
    """
    if model.name not in ("me-ple", "sdem"):
        return {}
    tables, items = embedding_sets(model, data, data.fields[data.column("item")].name), _items_read(data)
    rows, each = min(len(i) for i in items if len(i)), model.options.get("per_stream", 1)
    return {name: float(np.mean([metrics.information_abundance_at(E[items[s]], rows)
                                 for E in tables[s * each:(s + 1) * each]])) if len(items[s]) else float("nan")
            for s, name in enumerate(data.domains)}


def expert_aucs(scores: np.ndarray, read: np.ndarray, label: np.ndarray) -> np.ndarray:
    """AUC [M] of each expert's own score on the rows whose tower reads it; NaN where these have one class.

    `scores` [M, N] and `read` bool [M, N] as `expert_scores` returns them, `label` 0/1 [N].
    """
    return np.array([metrics.grouped_auc(label[r], s[r], np.zeros(r.sum(), int), 1)[0][0]
                     for s, r in zip(scores, read, strict=True)])


def measures(model: nn.Module, data: MultiDomainData) -> list[tuple[str, str, str, float]]:
    """(split, part, metric, value) of all that is measured inside a model, as it stands.

    The probe of the validation rows; IA at equal rows of all sets (`abundance`) and of the domains' own tables
    (`own_table_abundance`); and, for a model with experts, the diversity index on the test rows beside the AUC of each
    expert's own score there (`expert_auc`; part "all": their mean), for experts that know nothing differ most.
    """
    values = [("valid", *triple) for triple in probe(model, data.valid)]
    values.append(("train", "all", "abundance", abundance(model, data)))
    values += [("train", name, "own_table_abundance", v) for name, v in own_abundance(model, data).items()]
    if not hasattr(model, "towers"):
        return values
    scores, read = expert_scores(model, data.test)
    pairs = metrics.user_pairs(data.test.user, data.test.domain, TRIPLES)
    aucs = expert_aucs(scores, read, data.test.label)
    there = aucs[np.isfinite(aucs)]
    values += [("test", "all", "diversity_index", metrics.diversity_index(scores, pairs, read)),
               ("test", "all", "expert_auc", float(there.mean()) if len(there) else float("nan"))]
    return values + [("test", f"set {m + 1}", "expert_auc", float(auc)) for m, auc in enumerate(aucs)]


def measures_at_start(model: nn.Module, data: MultiDomainData) -> list[tuple[str, str, str, float]]:
    """The measures that mean something only beside an untrained model's, of one not yet trained: metric + "_start"."""
    return [(split, part, f"{metric}_start", value) for split, part, metric, value in measures(model, data)
            if metric in AT_START]
