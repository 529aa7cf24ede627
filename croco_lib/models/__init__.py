"""The models by name. Each is a wiring of the four parts of `croco_lib.layers`."""

import inspect

import torch
from torch import nn

from ..schema import CrocoError, MultiDomainData, known
from .crocodile import Crocodile
from .mmoe import MMoE
from .output import Output
from .ple import MEPLE, PLE
from .sdem import SDEM
from .shared_bottom import SharedBottom

MODELS: dict[str, type[nn.Module]] = {
    "shared-bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": PLE,
    "me-ple": MEPLE,
    "sdem": SDEM,
    "crocodile": Crocodile,
}

__all__ = ["MODELS", "Output", "build", "options_of"]


def options_of(name: str) -> dict:
    """The options of this model and their defaults."""
    parameters = inspect.signature(MODELS[known("model", name, MODELS)]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "data"}


def build(name: str, data: MultiDomainData, *, seed: int = 0, **options) -> nn.Module:
    """The model of this name for this data, its weights drawn from `seed` alone.

    forward(features int [N, F], domain int [N]) returns an `Output`. Raises CrocoError for an unknown name or option,
    or a size below 1.
    """
    defaults = options_of(name)
    for option, value in options.items():
        known(f"option of {name}", option, defaults)
        sizes = value if isinstance(value, (tuple, list)) else [value]
        if option == "alpha":
            if not value >= 0:
                raise CrocoError(f"{name}: alpha must be 0 or more, not {value}.")
        elif not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise CrocoError(f"{name}: {option} takes whole numbers of 1 or more, not {value!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](data, **options)
    model.name, model.options = name, {**defaults, **options}
    return model
