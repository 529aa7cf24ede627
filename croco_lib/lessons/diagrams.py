"""A model's wiring as a picture, found by running the model: embedding sets → experts → gate → towers.

Only the names of the parts are written down here. The shapes come from a batch that goes through the model, the lines
and the owners of the boxes from the gradients that come back.
"""

from typing import Any, NamedTuple, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from ..models import name_of
from ..plots import domain_palette
from ..schema import MultiDomainData

STEP, HALF = 2.5, 0.5  # from column to column, and half a box, in the units of the picture
GREY = (0.85, 0.85, 0.85)
ROWS = 61  # of each domain in the batch: times the number of domains, this is no other size of a model
OWN = ("towers", "maps", "norms", "own", "gates")  # what a part calls the things that it has one a domain of
NAMES = {
    "embedding": "embedding sets",
    "levels": "experts",
    "PriorGate": "PEG",
    "DomainGate": "gates",
    "norm": "norm",
    "epnet": "EPNet",
    "StarLayer": "layers W ⊙ W$_s$",
    "within": "gates, attention",
    "auxiliary": "auxiliary network adds to the logit",
    "pruners": "a pruner before each layer",
    "ppnet": "PPNet before each layer",
    "prior": "its own table of the prior fields",
    "embeddings": "each reads the embeddings",
}
ASIDE = ("auxiliary", "pruners", "ppnet")  # parts that join the chain from its side, at its last column


class Part(NamedTuple):
    """A column of boxes: `owners` has the domain whose rows alone train a box, or None where all domains do.

    `shape` is what the part hands on, N the rows. `lines` [boxes of the column before, boxes] is 2 where a box reads
    and trains the one before, 1 where it only reads it, 0 where it does neither. `aside` is what joins from the side.
    """

    name: str
    owners: list[int | None]
    shape: str
    lines: np.ndarray
    aside: str = ""


def batch(model: nn.Module, data: MultiDomainData) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor | None]:
    """What each part gives for ROWS rows of each domain, what the towers are given, and domain, logits and gate."""
    seen, hooks = {}, []
    for name, part in model.named_children():

        def keep(_, given, output, name=name):
            seen[name] = output[0] if isinstance(output, tuple) else output
            seen[f"into {name}"] = given[0]

        hooks.append((part[-1] if isinstance(part, nn.ModuleList) else part).register_forward_hook(keep))
    rows = np.concatenate([np.resize(np.flatnonzero(data.train.domain == s), ROWS) for s in range(len(data.domains))])
    features, domain = (torch.from_numpy(np.array(a[rows])) for a in (data.train.features, data.train.domain))
    training = model.training
    out = model.eval()(features, domain.long())
    model.train(training)
    for hook in hooks:
        hook.remove()
    return seen, domain, out.logits, out.gate


def reached(results: list[Tensor], t: Tensor) -> np.ndarray:
    """Whether a gradient goes from each result into copy m of t [M, N, …]: bool [M, results]."""
    grads = [torch.autograd.grad(r.sum(), t, retain_graph=True)[0] for r in results]
    return np.stack([g.abs().sum((1, 2)).numpy() > 0 for g in grads], 1)


def one_each(part: nn.Module) -> bool:
    """Whether the part has something for each domain apart."""
    return any(hasattr(module, name) for module in part.modules() for name in OWN)


def what_it_reads(gate: nn.Module) -> str:
    """What stands below the gates: PEG reads a table of its own, the others the embeddings or a level of experts."""
    above = isinstance(gate, nn.ModuleList) and len(gate) > 1
    return NAMES["prior"] if hasattr(gate, "prior") else "" if above else NAMES["embeddings"]


def parts(model: nn.Module, data: MultiDomainData) -> list[Part]:
    """The columns of the picture, from the embedding sets to the towers."""
    S, children = len(data.domains), cast(dict[str, Any], dict(model.named_children()))
    seen, domain, logits, weights = batch(model, data)
    by_domain = [logits[domain == s] for s in range(S)]

    def name(key: str) -> str:
        part = children[key][-1] if isinstance(children[key], nn.ModuleList) else children[key]
        return NAMES.get(type(part).__name__, NAMES.get(key, key))

    def shape(t: Tensor) -> str:
        return f"[{', '.join('N' if n == len(domain) else str(n) for n in t.shape)}]"

    def owners(trained: np.ndarray) -> list[int | None]:  # bool [M, S]
        return [int(row.argmax()) if row.sum() == 1 < S else None for row in trained]

    def joined(before: int, after: int) -> np.ndarray:
        return 2 * (np.eye(after) if before == after else np.ones((before, after))).astype(int)

    x = seen["embedding"]
    columns = [Part(name("embedding"), owners(reached(by_domain, x)), shape(x), np.zeros((0, len(x)), int))]
    key = next((k for k in ("experts", "levels") if k in seen), None)
    if key:
        O = seen[key]
        trains = reached(by_domain, O)  # [M, S]
        columns.append(Part(name(key), owners(trains), shape(O), 2 * reached(list(O), x)))
        read = (
            trains
            if weights is None
            else np.stack([(weights[:, domain == s] > 0).flatten(1).any(1).numpy() for s in range(S)], 1)
        )  # [M, S]
        lines, into = trains.astype(int) + read, shape(seen["into towers"])
        gate = next((k for k in ("gate", "levels", "within") if k in children), None)
        if gate:
            own = gate != "within" and one_each(children[gate])
            columns.append(
                Part(
                    "gates" if gate == "levels" else name(gate),
                    [*range(S)] if own else [None],
                    into,
                    lines if own else joined(len(O), 1),
                    "" if gate == "within" else what_it_reads(children[gate]),
                )
            )
            lines = joined(len(columns[-1].owners), S)
        return [*columns, Part("towers", list(range(S)), shape(logits), lines)]
    aside = ", ".join(NAMES[k] for k in seen if k in ASIDE)
    chain = [k for k in seen if k in children and k != "embedding" and k not in ASIDE]
    for k in chain:
        boxes: list[int | None] = [*range(S)] if one_each(children[k]) else [None]
        columns.append(
            Part(
                name(k),
                boxes,
                shape(logits if k == chain[-1] else seen[k]),
                joined(len(columns[-1].owners), len(boxes)),
                aside if k == chain[-1] else "",
            )
        )
    return columns


def draw_part(ax: plt.Axes, part: Part, x: float, before: np.ndarray, domains: tuple[str, ...]) -> np.ndarray:
    """The part's boxes in a column at x and their lines from the boxes at heights `before`; returns their heights."""
    palette = list(domain_palette(domains).values())
    heights = (len(part.owners) - 1) / 2 - np.arange(len(part.owners))
    mixed = len(part.owners) == 1 or set(part.owners) != {None}
    for i, (owner, y) in enumerate(zip(part.owners, heights, strict=True)):
        colour, word = (GREY, "shared" if mixed else f"{i + 1}") if owner is None else (palette[owner], domains[owner])
        box = FancyBboxPatch((x - HALF, y - 0.32), 2 * HALF, 0.64, boxstyle="round,pad=0,rounding_size=0.15")
        box.set(facecolor=colour, edgecolor="none", zorder=2)
        ax.add_patch(box)
        dark = "black" if sum(colour) > 1.5 else "white"
        ax.text(x, y, word, ha="center", va="center_baseline", fontsize=8, zorder=3, color=dark)
        line: dict[str, Any] = dict(linewidth=0.9, zorder=1, color="0.7" if owner is None else colour)
        for start, kind in zip(before, part.lines[:, i], strict=True):
            ax.plot([x - STEP + HALF, x - HALF], [start, y], linestyle=("", ":", "-")[kind], **line)
    return heights


def wiring(model: nn.Module, data: MultiDomainData) -> Figure:
    """Draw the model as it is wired for this data: a column a part, a box a copy of it, the shapes above the arrows.

    Grey boxes are trained by the rows of several domains, coloured ones by those of one domain alone. What stands at
    the end of a dotted line is read, but gets no gradient.
    """
    columns = parts(model, data)
    tall = max(len(part.owners) for part in columns)
    figure, ax = plt.subplots(figsize=(9.2, 1.1 + 0.23 * tall))
    top = tall / 2 + 0.7
    centred: dict[str, Any] = dict(ha="center", va="center")
    arrow: dict[str, Any] = dict(arrowstyle="->", color="0.3", linewidth=0.9)
    heights: np.ndarray = np.zeros(0)
    for x, part in zip(STEP * np.arange(len(columns)), columns, strict=True):
        heights = draw_part(ax, part, x, heights, data.domains)
        ax.text(x, top, part.name, fontsize=9, weight="bold", **centred)
        ax.annotate("", (x + STEP - 0.85, top - 0.4), (x + 0.85, top - 0.4), arrowprops=arrow)
        ax.text(x + STEP / 2, top, part.shape, fontsize=8, color="0.3", **centred)
        if part.aside:
            below = (x, -tall / 2 - 0.5)
            ax.annotate(part.aside, (x, heights[-1] - 0.32), below, fontsize=8, arrowprops=arrow, **centred)
    ax.text(len(columns) * STEP, top, "logits", fontsize=9, weight="bold", **centred)
    ax.set(xlim=(-0.9, 4 * STEP + 0.45), ylim=(-tall / 2 - 0.8, top + 0.4))
    ax.set_title(name_of(model), pad=6)
    ax.axis("off")
    return figure
