"""The measures of what a model holds: how rich its embedding sets are, how diverse and how able its experts."""

import numpy as np
from torch import nn

from . import metrics
from .evaluation import embedding_sets, expert_scores, has_experts, probe
from .schema import MultiDomainData

TRIPLES = 100_000  # (user, a, b) drawn for the diversity index: its sampling error is then below .002
AT_START = ("correlation", "diversity_index", "expert_auc", "abundance", "own_table_abundance")


def _items_read(data: MultiDomainData) -> list[np.ndarray]:
    """The items (as ids of the item field) that each domain has in train. Other rows of a table are as at the start."""
    item = data.column("item")
    return [np.unique(data.train.features[data.train.domain == s, item]) for s in range(len(data.domains))]


def _item_tables(model: nn.Module, data: MultiDomainData) -> np.ndarray:
    return embedding_sets(model, data, data.fields[data.column("item")].name)


def abundance(model: nn.Module, data: MultiDomainData) -> float:
    """IA of the model's embedding sets, mean over the sets: on the items that the smallest domain has in train.

    The rows are the same for every model of the data, whatever it shares, so models compare. But those of a domain's
    own table that the domain never reads are as at the start, which raises IA. At most it is the embedding size.
    """
    items = _items_read(data)[np.bincount(data.train.domain).argmin()]
    return float(np.mean([metrics.information_abundance(table[items]) for table in _item_tables(model, data)]))


def own_abundance(model: nn.Module, data: MultiDomainData) -> dict[str, float]:
    """IA of each domain's own item tables, by domain; empty for a model without a domain's own beside shared ones.

    Each is over the items that its domain has in train, and at equal rows, as many as the domain with the fewest has,
    for IA grows with the rows.
    """
    each = getattr(model, "own_sets", 0)
    if not each:
        return {}
    tables, items = _item_tables(model, data), _items_read(data)
    fewest = min(map(len, items))
    own = {}
    for s, (name, read) in enumerate(zip(data.domains, items, strict=True)):
        sets = tables[s * each : (s + 1) * each]
        own[name] = float(np.mean([metrics.information_abundance_at(table[read], fewest) for table in sets]))
    return own


def expert_aucs(scores: np.ndarray, read: np.ndarray, label: np.ndarray) -> np.ndarray:
    """AUC [M] of each expert's own score on the rows whose tower reads it; NaN where these have one class.

    Compare only experts that the same rows read: across domains click rates help a score, within one they do not.
    `scores` [M, N] and `read` bool [M, N] as `expert_scores` returns them, `label` 0/1 [N].
    """
    return np.array(
        [
            metrics.grouped_auc(label[rows], score[rows], np.zeros(rows.sum(), int), 1)[0][0]
            for score, rows in zip(scores, read, strict=True)
        ]
    )


def measures(model: nn.Module, data: MultiDomainData) -> list[tuple[str, str, str, float]]:
    """(split, part, metric, value) of all that is measured inside a model, as it stands.

    The probe of the validation rows; IA of all sets on the smallest domain's items (`abundance`) and of the
    domains' own tables at equal rows (`own_table_abundance`); and, for a model with experts, the diversity index on the
    test rows beside the AUC of each expert's own score there (`expert_auc`; part "all" is their mean), for experts that
    know nothing differ most.
    """
    values = [("valid", *triple) for triple in probe(model, data.valid)]
    values.append(("train", "all", "abundance", abundance(model, data)))
    values += [("train", name, "own_table_abundance", value) for name, value in own_abundance(model, data).items()]
    if not has_experts(model):
        return values
    scores, read = expert_scores(model, data.test)
    pairs = metrics.user_pairs(data.test.user, data.test.domain, TRIPLES)
    aucs = expert_aucs(scores, read, data.test.label)
    defined = aucs[np.isfinite(aucs)]
    values += [
        ("test", "all", "diversity_index", metrics.diversity_index(scores, pairs, read)),
        ("test", "all", "expert_auc", float(defined.mean()) if len(defined) else float("nan")),
    ]
    return values + [("test", f"set {m + 1}", "expert_auc", float(auc)) for m, auc in enumerate(aucs)]


def measures_at_start(model: nn.Module, data: MultiDomainData) -> list[tuple[str, str, str, float]]:
    """Of an untrained model, the measures without which a trained one's say little, each named metric + "_start"."""
    found = measures(model, data)
    return [(split, part, f"{metric}_start", value) for split, part, metric, value in found if metric in AT_START]
