"""croco_lib: the thin library behind the Crocodile lessons (arXiv 2405.12706)."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data.frame import from_frame
    from .datasets.registry import load
    from .errors import CrocoError, DataError
    from .evaluation import evaluate
    from .models import build
    from .schema import MultiDomainData
    from .training import Run, fit

__all__ = ["CrocoError", "DataError", "MultiDomainData", "Run", "build", "evaluate", "fit", "from_frame", "load"]
__version__ = version("croco-lib")

_ROOMS = {
    "from_frame": "data.frame",
    "load": "datasets.registry",
    "build": "models",
    "CrocoError": "errors",
    "DataError": "errors",
    "MultiDomainData": "schema",
    "Run": "training",
    "evaluate": "evaluation",
    "fit": "training",
}


def __getattr__(name: str):
    """Each name is fetched when it is first used: the command line answers without loading torch."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'croco_lib' has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_ROOMS]
