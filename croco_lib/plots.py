"""The lessons' house style, and the few figures that more than one lesson draws. Frames and arrays in, Axes out."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from .metrics import cross_blocks

SIGNED = "vlag"  # the diverging map for anything signed, always centred at 0
# Models, domains and signs have colours of their own, so that none is taken for another; Crocodile's is the strongest.
MODELS = {
    "crocodile": "#b0005c",
    "crocodile, α = 0": "#e08ab8",
    "crocodile without CovLoss": "#e08ab8",
    "shared-bottom": "#0173b2",
    "mmoe": "#de8f05",
    "ple": "#029e73",
    "me-ple": "#d55e00",
    "sdem": "#9467bd",
    "me-mmoe": "#c9b037",
    "star": "#56b4e9",
    "hinet": "#8c564b",
    "pepnet": "#7f7f00",
    "adasparse": "#595959",
    "single-domain": "#a6a6a6",
}


def style() -> None:
    """The house style for every figure. Call it once, at the top of a notebook."""
    sns.set_theme(
        style="whitegrid",
        palette="colorblind",
        rc={
            "figure.dpi": 96,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.5,
        },
    )


def domain_palette(domains) -> dict:
    """The same colour for the same domain in every figure."""
    return dict(zip(domains, sns.color_palette("mako", len(domains)), strict=True))


def covariance_heatmaps(
    matrices: Mapping[str, np.ndarray], experts: int, label: str = "covariance", top: float | None = None
) -> Figure:
    """Matrices [M·d, M·d] side by side on one signed scale, with lines between the experts' blocks.

    The scale ends at `top`, by default the 99.5th percentile of the cross-expert entries: the blocks on the diagonal
    may saturate.
    """
    expert = np.arange(experts).repeat(len(next(iter(matrices.values()))) // experts)
    top = top or max(np.quantile(np.abs(cross_blocks(C, experts)), 0.995) for C in matrices.values())
    figure, axes = plt.subplots(1, len(matrices), figsize=(4.4 * len(matrices) + 0.6, 4.4), squeeze=False)
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
    figure.colorbar(image, ax=axes, shrink=0.8, label=label, extend="both")
    return figure
