"""The models by name. Each is a wiring of the four parts of `croco_lib.layers`."""

import inspect
from collections.abc import Callable
from numbers import Integral, Real
from operator import index
from typing import Any

import torch

from ..errors import CrocoError, known
from ..schema import Layout
from .adasparse import AdaSparse
from .base import MultiDomainModel, Output, name_of
from .crocodile import Crocodile
from .hinet import HiNet
from .mmoe import MEMMoE, MMoE
from .pepnet import PEPNet
from .ple import MEPLE, PLE
from .sdem import SDEM
from .shared_bottom import SharedBottom
from .single_domain import SingleDomain
from .star import STAR

MODELS: dict[str, Callable[..., MultiDomainModel]] = {
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

__all__ = ["MODELS", "MultiDomainModel", "Output", "build", "name_of", "options_of"]


def options_of(name: str) -> dict:
    """The options of this model and their defaults."""
    parameters = inspect.signature(MODELS[known("model", name, MODELS)]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "data"}


def _fault(value: Any, default: Any) -> str:
    """What is wrong with an option's value, judged by the kind of its default; "" where nothing is."""
    if isinstance(default, bool):  # first, for Python's bool is an int
        return "" if isinstance(value, bool) else "is true or false"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "is a name"
    if isinstance(default, float):
        ok = isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < float("inf")
        return "" if ok else "must be 0 or more"
    if value is None and default is None:
        return ""
    if isinstance(default, tuple) and not isinstance(value, (tuple, list)):
        return "takes a list of widths"
    sizes = value if isinstance(default, tuple) else [value]
    ok = all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in sizes) and len(sizes) > 0
    return "" if ok else "takes whole numbers of 1 or more"


def build(name: str, data: Layout, *, seed: int = 0, **options: Any) -> MultiDomainModel:
    """The model of this name for this data, its weights drawn from `seed` alone.

    `options` are those of `options_of(name)`: `dim` is the embedding size, `expert` and `tower` are the widths of their
    layers. Raises CrocoError for an unknown name or option, or a value of the wrong kind.
    """
    defaults = options_of(name)
    for option, value in options.items():
        known(f"option of {name}", option, defaults)
        if fault := _fault(value, defaults[option]):
            raise CrocoError(f"{name}: {option} {fault}, not {value!r}.")
    with torch.random.fork_rng(devices=[]):  # so that building a model leaves the reader's own random numbers alone
        torch.default_generator.manual_seed(index(seed))  # a GPU keeps its own
        model = MODELS[name](data, **options)
    return model.made_as(name, {**defaults, **options}, seed, data.fields)
