"""croco_lib: the thin library behind the Crocodile lessons (arXiv 2405.12706)."""

from .data import from_frame, load
from .models import build
from .schema import CrocoError, DataError, MultiDomainData
from .training import Run, evaluate, fit

__all__ = ["CrocoError", "DataError", "MultiDomainData", "Run", "build", "evaluate", "fit", "from_frame", "load"]
