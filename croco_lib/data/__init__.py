"""The data sets by name."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..schema import CrocoError, MultiDomainData, known
from . import aliccp as _aliccp
from . import kuairand as _kuairand
from .frame import from_frame
from .kuairand import ARCHIVES, download
from .world import world

DATASETS = {"world": world, **{name: partial(_kuairand.kuairand, name) for name in ARCHIVES}, "ali-ccp": _aliccp.aliccp}
PREPARE = {**{name: partial(_kuairand.prepare, name) for name in ARCHIVES}, "ali-ccp": _aliccp.prepare}

__all__ = ["ARCHIVES", "DATASETS", "PREPARE", "download", "find", "from_frame", "how_to_get", "load", "prepare"]


def load(name: str, **options) -> MultiDomainData:
    """The data set of this name. Options: see `croco_lib.data.world.world` and `croco_lib.data.kuairand.kuairand`.

    Raises CrocoError for an unknown name or option, DataError where files are missing or malformed.
    """
    return _call(DATASETS[known("data set", name, DATASETS)], name, options)


def prepare(name: str, **options) -> Path:
    """Make the memory-mapped columns of a raw data set; returns their folder. Options: see `kuairand.prepare` and
    `aliccp.prepare`. Raises as `load` does."""
    return _call(PREPARE[known("data set to prepare", name, PREPARE)], name, options)


def find(name: str) -> Path | None:
    """The folder that holds the raw files of `name`, or None."""
    return next((p.parent for p in _aliccp.files()), None) if name == "ali-ccp" else _kuairand.find(name)


def how_to_get(name: str) -> str:
    """Where to get the data set and where to put it, in words."""
    return _aliccp.how_to_get() if name == "ali-ccp" else _kuairand.how_to_get(name)


def _call(maker: Callable, name: str, options: dict):
    allowed = list(inspect.signature(maker).parameters)
    for option in options:
        known(f"option of {name}", option, allowed)
    try:
        return maker(**options)
    except TypeError as error:
        raise CrocoError(f"{name}: an option has the wrong type ({error}).") from error
