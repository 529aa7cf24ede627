"""The data sets by name: load, prepare, find, fetch."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..data.frame import from_frame
from ..data.tables import is_table, parts_of
from ..errors import CrocoError, DataError, known
from ..schema import MultiDomainData
from . import aliccp, kuairand, made, movielens
from .store import finished

_KUAIRAND = tuple(kuairand.ARCHIVES)
DATASETS: dict[str, Callable[..., MultiDomainData]] = {
    "world": made.load,
    **{name: partial(kuairand.load, name) for name in _KUAIRAND},
    "movielens-1m": movielens.load,
    "ali-ccp": aliccp.load,
}
PREPARE: dict[str, Callable[..., Path]] = {
    "world": made.prepare,
    **{name: partial(kuairand.prepare, name) for name in _KUAIRAND},
    "ali-ccp": aliccp.prepare,
}
DOWNLOAD: dict[str, Callable[[], Path]] = {
    **{name: partial(kuairand.download, name) for name in _KUAIRAND},
    "movielens-1m": movielens.download,
}
# Sets that are read from raw files: where they are, and how to get them in words.
RAW: dict[str, tuple[Callable[[], Path | None], Callable[[], str]]] = {
    **{name: (partial(kuairand.find, name), partial(kuairand.how_to_get, name)) for name in _KUAIRAND},
    "movielens-1m": (movielens.find, movielens.how_to_get),
    "ali-ccp": (lambda: next((path.parent for path in aliccp.files()), None), aliccp.how_to_get),
}


def is_own(name: str) -> bool:
    """Whether this is the path of a table of one's own, and no data set's name."""
    return name not in DATASETS and (is_table(name) or Path(name).exists())


def load(name: str, /, **options) -> MultiDomainData:
    """The data set of this name, or the CSV or Parquet file at this path.

    Options: see the functions in `DATASETS`, e.g. `kuairand.load`; those of a file are `from_frame`'s. Raises
    CrocoError for an unknown name or option, DataError where files are missing or malformed.
    """
    if is_own(name):
        return _call(partial(from_frame, name), name, {"name": Path(name).stem, **options})
    return _call(DATASETS[known("data set", name, DATASETS)], name, options)


def prepare(name: str, /, **options) -> Path:
    """Make the memory-mapped columns of a data set; returns their folder. Options: see `kuairand.prepare`,
    `aliccp.prepare` and `make_world`. Raises as `load` does."""
    return _call(PREPARE[known("data set to prepare", name, PREPARE)], name, options)


def find(name: str) -> Path | None:
    """The folder that holds the raw files of `name`, or None. Raises CrocoError for a name without raw files."""
    return RAW[known("data set of raw files", name, RAW)][0]()


def present(name: str) -> None:
    """Raise CrocoError for an unknown data set, DataError for one, or a file, that is neither here nor prepared."""
    if is_own(name):
        parts_of(Path(name))
    elif known("data set", name, DATASETS) in RAW and find(name) is None and not (name in PREPARE and finished(name)):
        raise DataError(how_to_get(name))


def how_to_get(name: str) -> str:
    """Where to get the data set and where to put it, in words."""
    return RAW[known("data set of raw files", name, RAW)][1]()


def download(name: str) -> Path:
    """Fetch a data set from its publisher, check its md5, unpack it under data/raw/NAME, and return that folder.

    Raises CrocoError for a set that cannot be fetched so, DataError where fetching fails or the md5 is another.
    """
    return DOWNLOAD[known("data set to fetch", name, DOWNLOAD)]()


def _call(maker: Callable, name: str, options: dict):
    allowed = list(inspect.signature(maker).parameters)
    for option in options:
        known(f"option of {name}", option, allowed)
    try:
        return maker(**options)
    except TypeError as error:
        raise CrocoError(f"{name}: an option is missing, or has the wrong type ({error}).") from error
