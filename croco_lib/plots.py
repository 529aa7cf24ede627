"""The house style of all figures: their look; the colours of models, domains and signs. Needs the extra `lessons`."""

from collections.abc import Sequence

import seaborn as sns

SIGNED = "vlag"  # the diverging map for anything signed, always centred at 0
# Models, domains and signs have colours of their own, so that none is taken for another; Crocodile's is the strongest.
MODELS = {
    "crocodile": "#b0005c",
    "crocodile without CovLoss": "#e08ab8",
    "shared-bottom": "#0055ff",
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


def domain_palette(domains: Sequence[str]) -> dict:
    """The same colour for the same domain in every figure."""
    return dict(zip(domains, sns.color_palette("mako", len(domains)), strict=True))
