"""Prepared sets: for each set of options a folder of memory-mapped .npy columns, and the manifest that is written last.

Without its manifest no folder looks finished, so an interruption leaves nothing that could be mistaken for a set. A
folder for each set of options, not one that is made anew: what a process has mapped is never overwritten.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from ..errors import CrocoError, DataError
from ..schema import SPLITS, Bag, Field, MultiDomainData, Split
from .raw import BASE

DTYPES = {"features": np.int32, "domain": np.int64, "label": np.float32, "user": np.int64}
BAG_DTYPES = {"offsets": np.int64, "ids": np.int32, "weights": np.float32}


class NotPrepared(DataError):
    """No prepared set stands for these options and raw files; the message says why."""


def home(name: str) -> Path:
    """Where a data set's prepared folders and parts are kept: under $CROCO_PREPARED, else data/prepared."""
    return Path(os.environ.get("CROCO_PREPARED") or BASE / "data" / "prepared") / name


def folder_of(name: str, options: dict) -> Path:
    """The folder of the set that is prepared with these options."""
    return home(name) / ",".join(f"{option}={value}" for option, value in options.items())


def finished(name: str) -> list[Path]:
    """The folders of this data set that are prepared, whatever their options."""
    return sorted(manifest.parent for manifest in home(name).glob("*/manifest.json"))


def sizes(files: list[Path]) -> dict[str, int]:
    """Bytes of each file by its name: what says whether a prepared set is still whole."""
    return {path.name: path.stat().st_size for path in files}


def state(files: list[Path]) -> dict[str, list[int]]:
    """Bytes and time of change of each file by its name: what says whether raw files are still the same."""
    return {path.name: [(about := path.stat()).st_size, about.st_mtime_ns] for path in files}


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Where the data set is kept, while no other process writes there; they wait for each other.

    Raises CrocoError where it cannot be written, the disk is full, or a process that reads for it was killed.
    """
    try:
        home(name).mkdir(parents=True, exist_ok=True)
        with FileLock(home(name) / ".lock"):
            yield
    except (OSError, BrokenProcessPool) as error:  # of processes, for want of memory one may be killed
        raise CrocoError(
            f"{name} could not be prepared in {home(name)} ({error}). Is the disk full, or the folder not writable? "
            "CROCO_PREPARED may name another. Was a process killed? Fewer --workers take less memory."
        ) from error


def prepared(name: str, options: dict, raw: list[Path], version: int = 1) -> MultiDomainData:
    """The prepared set, memory-mapped. Raises NotPrepared where none stands for these options and raw files.

    `version` is that of the rules by which raw lines become rows. Without `raw` any raw files will do.
    """
    folder = folder_of(name, options)
    if not (folder / "manifest.json").is_file():
        raise NotPrepared(f"{name} is not prepared with {folder.name} in {folder.parent}.")
    stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if stored.get("version", 1) != version:
        raise NotPrepared(f"{folder} was prepared by other rules, of another version of this program.")
    if raw and state(raw) != stored["raw"]:
        raise NotPrepared(f"{folder} was prepared from other raw files.")
    files = [folder / file for file in stored["files"]]
    if not all(map(Path.is_file, files)) or sizes(files) != stored["files"]:
        raise NotPrepared(f"{folder} has lost a file, or one is cut short.")

    def array(file: str) -> np.ndarray:
        return np.load(folder / f"{file}.npy", mmap_mode="r")

    bags = {f: Bag(*(array(f"bag.{f}.{part}") for part in BAG_DTYPES)) for f in stored["bags"]}
    fields = tuple(Field(**f, values=array(f"field.{f['name']}"), bag=bags.get(f["name"])) for f in stored["fields"])
    domains = tuple(stored["domains"])
    train, valid, test = (
        Split(**{column: array(f"{split}.{column}") for column in DTYPES}, domains=domains) for split in SPLITS
    )
    return MultiDomainData(name, fields, domains, train, valid, test, stored["notes"], stored=stored)


def create(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file open for its data. Written as a stream, so that its pages never count as the process's own."""
    file = path.open("wb")
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )
    return file


def create_splits(
    folder: Path, lengths: Sequence[int], width: int, dtypes: Mapping[str, type]
) -> dict[tuple[int, str], BinaryIO]:
    """The columns of the three splits open for their data, by number of the split and name; `width` ids to a row."""
    return {
        (s, column): create(
            folder / f"{split}.{column}.npy", dtype, (lengths[s], width) if column == "features" else (lengths[s],)
        )
        for s, split in enumerate(SPLITS)
        for column, dtype in dtypes.items()
    }


def data_of(path: Path) -> Iterator[bytes]:
    """The bytes of a .npy file after its header."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(1 << 24):
            yield block
