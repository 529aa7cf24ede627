"""The data sets by name."""

import inspect
from functools import partial

from ..schema import CrocoError, MultiDomainData, known
from .frame import from_frame
from .kuairand import ARCHIVES, download, find, how_to_get, kuairand
from .world import world

DATASETS = {"world": world, **{name: partial(kuairand, name) for name in ARCHIVES}}

__all__ = ["DATASETS", "download", "find", "from_frame", "how_to_get", "load"]


def load(name: str, **options) -> MultiDomainData:
    """The data set of this name. Options: see `croco_lib.data.world.world` and `croco_lib.data.kuairand.kuairand`.

    Raises CrocoError for an unknown name or option, DataError where files are missing or malformed.
    """
    maker = DATASETS[known("data set", name, DATASETS)]
    allowed = list(inspect.signature(maker).parameters)
    for option in options:
        known(f"option of {name}", option, allowed)
    try:
        return maker(**options)
    except TypeError as error:
        raise CrocoError(f"{name}: an option has the wrong type ({error}).") from error
