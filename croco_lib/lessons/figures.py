"""Figures that more than one lesson draws, and that the library itself does not need."""

from collections.abc import Collection, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from ..metrics import cross_blocks
from ..plots import MODELS, SIGNED

LIT = "white"  # the face of what is picked out among the other points; no model has it


def forest(
    table: pd.DataFrame,
    ax: plt.Axes | None = None,
    by: str = "model",
    strong: Collection[str] = ("crocodile",),
) -> plt.Axes:
    """Differences with their intervals, a line each, best on top: `table` as `comparison.against` returns it.

    The row that all others are held against has no interval and marks zero. Names stand at the axis, so the colour only
    picks out the `strong` ones.
    """
    ax = ax or plt.gca()
    for y, row in enumerate(table.iloc[::-1].itertuples()):
        colour = MODELS["crocodile"] if getattr(row, by) in strong else "0.45"
        if row.high > row.low:
            ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
        ax.plot(row.difference, y, "o" if row.high > row.low else "D", color=colour)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(table)), table[by].iloc[::-1])
    ax.set_ylim(-0.6, len(table) - 0.4)  # so that no line lies on the frame
    ax.grid(axis="y", visible=False)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="x", labelsize=8)
    return ax


def principal(table: np.ndarray) -> np.ndarray:
    """The first three principal components of [V, e], as [V, 3]."""
    return PCA(3, random_state=0).fit_transform(table)


def linked(
    points: list[np.ndarray],
    chosen: int,
    lit: np.ndarray,
    names: list[str],
    colour: list | None = None,
    dimensions: int = 2,
    home: int = 1,
) -> Figure:
    """One panel a set: all ids pale, the chosen one a star, the `lit` ones numbered; `points` M times [V, 3]."""
    figure = plt.figure(figsize=(2.9 * len(points), 3.4), layout="none")  # a film: a layout takes half of a step
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.03, top=0.82, wspace=0.05)
    groups = np.unique(colour, return_inverse=True)[1] if colour is not None else np.zeros(len(names), int)
    palette = "colorblind" if groups.max() < 8 else "viridis"  # both are told apart by the colour-blind
    shades = np.array(sns.color_palette(palette, groups.max() + 1)) if groups.max() else np.full((1, 3), 0.6)
    for m, X in enumerate(points):
        X = X[:, :dimensions]
        ax: Any = figure.add_subplot(1, len(points), m + 1, projection="3d" if dimensions == 3 else None)
        ax.scatter(*X.T, s=8, color=shades[groups], alpha=0.5, linewidths=0)
        ax.scatter(*X[lit].T, s=36, color=LIT, edgecolors="black", linewidths=0.6)
        ax.scatter(*X[[chosen]].T, s=120, marker="*", color="black", zorder=5)
        for i, at in enumerate(X[lit], 1):
            ax.text(*at, f" {i}", fontsize=8)
        ax.set_title(f"set {m + 1}" + (": nearest here" if m + 1 == home else ""))
        for axis in "xyz"[:dimensions]:
            getattr(ax, f"set_{axis}ticks")([])
    figure.suptitle(f"★ {names[chosen]};  " + ";  ".join(f"{i} {names[j]}" for i, j in enumerate(lit, 1)), fontsize=9)
    return figure


def covariance_heatmaps(
    matrices: Mapping[str, np.ndarray], experts: int, label: str = "covariance", top: float | None = None
) -> Figure:
    """Matrices [M·d, M·d] side by side on one signed scale, with lines between the experts' blocks.

    The scale ends at `top`, by default the 99.5th percentile of the cross-expert entries: the blocks on the diagonal
    may saturate.
    """
    expert = np.arange(experts).repeat(len(next(iter(matrices.values()))) // experts)
    top = top or max(np.quantile(np.abs(cross_blocks(C, experts)), 0.995) for C in matrices.values())
    size = 4.4 * len(matrices) + 0.6, 4.4
    figure, axes = plt.subplots(1, len(matrices), figsize=size, squeeze=False, layout="none")  # as in `linked`
    figure.subplots_adjust(left=0.9 / size[0], right=1 - 0.5 / size[0], bottom=0.14, top=0.88, wspace=0.3)
    width = len(expert) // experts
    for ax, (title, C) in zip(axes[0], matrices.items(), strict=True):
        image = ax.imshow(C, cmap=SIGNED, vmin=-top, vmax=top, interpolation="nearest")
        for edge in range(width, len(expert), width):
            ax.axhline(edge - 0.5, color="black", linewidth=0.8)
            ax.axvline(edge - 0.5, color="black", linewidth=0.8)
        centres = np.arange(experts) * width + width / 2 - 0.5
        ax.set_xticks(centres, [f"expert {m + 1}" for m in range(experts)], rotation=30)
        ax.set_yticks(centres, [f"expert {m + 1}" for m in range(experts)])
        ax.grid(False)
        ax.set_title(title)
    ends = "neither" if top == 1 else "both"  # no correlation is beyond 1
    figure.colorbar(image, ax=axes, shrink=0.8, label=label, extend=ends, fraction=0.12 / len(matrices), pad=0.03)
    return figure
