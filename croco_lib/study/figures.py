"""Figures that are drawn from the committed tables alone: lessons and README show the same."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plots import MODELS, SIGNED
from .intervals import gap
from .space import label_of
from .tables import Tables


def opening(T: Tables) -> Figure:
    """The paper's opening figure on one data set: every model in the plane DI × IA, and its gAUC beside it.

    Both measures are divided by their own value before training [ours]: the diversity index is highest for experts that
    know nothing, and information abundance grows with the embedding size, which the search chooses for each model.
    Models without several experts have no diversity index and stand in the right panel only.
    """
    plane = pd.DataFrame(
        {
            name: T.over_start(metric, split=split).mean()
            for name, metric, split in (("DI", "diversity_index", "test"), ("IA", "abundance", "train"))
        }
    )
    plane = plane.dropna().query("DI > 0").sort_values("IA")
    gauc = T.metric("gauc")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), width_ratios=[3, 2])
    _draw_plane(left, plane)
    order = gauc.mean().sort_values(ascending=False).index
    sns.pointplot(
        gauc.melt(),
        x="value",
        y="model",
        order=order,
        hue="model",
        palette=MODELS,
        errorbar=lambda values: gap(values)[1:3],  # Student's t; a bootstrap of six values is too narrow
        linestyle="none",
        ax=right,
        legend=False,
    )
    right.set(xlabel="test gAUC, 95 % interval over seeds", ylabel="", title="What each model is worth")
    right.locator_params(axis="x", nbins=4)
    return figure


def _draw_plane(ax: Axes, plane: pd.DataFrame) -> None:
    """The models in the plane DI × IA, lowest IA first, each name beside its point."""
    room = (min(plane.DI.min(), 1) - 0.15, max(plane.DI.max(), 1) + 0.25)
    aside = 0.02 * (room[1] - room[0])
    apart = 0.06 * np.ptp(plane.IA)
    levels: list[float] = []  # as high as its point, but never on the name below
    for at in plane.IA:
        levels.append(max(at, levels[-1] + apart) if levels else at)
    ax.axvline(1, color="0.6", linestyle=":")
    for (model, at), level in zip(plane.iterrows(), levels, strict=True):
        colour = MODELS[model]
        beyond = (plane.DI - at.DI).between(aside / 2, 6 * aside) & ((plane.IA - level).abs() < apart / 2)
        side = -aside if beyond.any() else aside  # to the left, where a point would lie under the name
        ax.plot([at.DI, at.DI + side], [at.IA, level], color="0.6", linewidth=0.6, zorder=1)
        ax.plot(
            at.DI,
            at.IA,
            "*" if model == "crocodile" else "o",
            markersize=15 if model == "crocodile" else 8,
            color=colour,
            markeredgecolor="white",
        )
        weight = "bold" if model == "crocodile" else None
        ha = "right" if side < 0 else "left"
        behind = dict(facecolor="white", edgecolor="none", pad=0.5, alpha=0.8)  # for the dotted line runs below some
        ax.text(at.DI + side, level, f" {model} ", va="center", ha=ha, fontsize=8, fontweight=weight, bbox=behind)
    ax.set_xlim(room)
    ax.set(
        xlabel="diversity index over that before training (dotted: unchanged)",
        title="How much the experts differ, and how full the tables are",
        ylabel="information abundance over that before training",
    )


def literal_reading(T: Tables) -> Figure:
    """What the paper's objective costs when it is read literally: the plain mean's AUC minus its.

    On the left over all rows, one dot per seed; on the right by domain, the mean over the seeds, in points (.01).
    """
    domains = list(T.domains().sort_values(ascending=False).index)
    wide = T.values.query("metric == 'auc' and split == 'test'").pivot(
        index=["part", "seed", "model"], columns="variant", values="value"
    )
    gain = wide[label_of({"objective": "sample"})] - wide[label_of({"objective": "domain"})]
    order = gain["all"].groupby("model").mean().sort_values(ascending=False).index
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), width_ratios=[3, 4])
    sns.stripplot(
        x=gain["all"].to_numpy(),
        y=gain["all"].index.get_level_values("model"),
        order=order,
        hue=gain["all"].index.get_level_values("model"),
        palette=MODELS,
        legend=False,
        jitter=False,  # three dots a line need none, and it would differ from run to run
        ax=left,
    )
    left.axvline(0, color="black", linewidth=0.8)
    left.set(xlabel="AUC by the plain mean − AUC by the literal reading", ylabel="", title="All rows, one dot per seed")
    left.set_ylim(len(order) - 0.5, -0.5)  # as high a line a model as in the table beside it
    points = (100 * gain.groupby(["model", "part"]).mean()).round(1).unstack().loc[order, domains] + 0.0  # no -0.0
    top = points.abs().to_numpy().max()
    sns.heatmap(points, annot=True, fmt=".1f", cmap=SIGNED, vmin=-top, vmax=top, cbar=False, ax=right)
    right.set(
        xlabel="largest domain first", ylabel="", title="Points of AUC lost by the literal reading (below 0: gained)"
    )
    right.tick_params(left=False, labelleft=False)
    return figure
