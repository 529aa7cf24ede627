"""The models by name. Each is a wiring of the four parts of `croco_lib.layers`."""

import inspect
from numbers import Integral, Real

import torch
from torch import nn

from ..errors import CrocoError, known
from ..schema import MultiDomainData
from .adasparse import AdaSparse
from .crocodile import Crocodile
from .hinet import HiNet
from .mmoe import MEMMoE, MMoE
from .output import Output
from .pepnet import PEPNet
from .ple import MEPLE, PLE
from .sdem import SDEM
from .shared_bottom import SharedBottom
from .single_domain import SingleDomain
from .star import STAR

MODELS: dict[str, type[nn.Module]] = {
    "single-domain": SingleDomain,
    "shared-bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": PLE,
    "star": STAR,
    "hinet": HiNet,
    "pepnet": PEPNet,
    "adasparse": AdaSparse,
    "me-mmoe": MEMMoE,
    "me-ple": MEPLE,
    "sdem": SDEM,
    "crocodile": Crocodile,
}

__all__ = ["MODELS", "Output", "build", "options_of"]


def options_of(name: str) -> dict:
    """The options of this model and their defaults."""
    parameters = inspect.signature(MODELS[known("model", name, MODELS)]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "data"}


def _wanted(value, default) -> str:
    """What is wrong with an option's value, by the kind of its default; "" where nothing is."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "is true or false"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "is a name"
    if isinstance(default, float):
        ok = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < float("inf")
        return "" if ok else "must be 0 or more"
    if value is None and default is None:
        return ""
    if isinstance(default, tuple) and not isinstance(value, (tuple, list)):
        return "takes a list of widths"
    sizes = value if isinstance(default, tuple) else [value]
    ok = len(sizes) and all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in sizes)
    return "" if ok else "takes whole numbers of 1 or more"


def build(name: str, data: MultiDomainData, *, seed: int = 0, **options) -> nn.Module:
    """The model of this name for this data, its weights drawn from `seed` alone.

    forward(features int [N, F], domain int [N]) returns an `Output`. Raises CrocoError for an unknown name or option,
    or a size below 1.
    """
    defaults = options_of(name)
    for option, value in options.items():
        known(f"option of {name}", option, defaults)
        wanted = _wanted(value, defaults[option])
        if wanted:
            raise CrocoError(f"{name}: {option} {wanted}, not {value!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](data, **options)
    model.name, model.options, model.seed = name, {**defaults, **options}, seed
    model.sizes = [f.size for f in data.fields]
    return model
