"""Prepared sets: a folder of memory-mapped .npy columns, and the manifest that is written last.

Without its manifest no folder looks finished, so an interruption leaves nothing that could be mistaken for a set.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ROOT
from ..schema import SPLITS, Bag, Field, MultiDomainData, Split

DTYPES = {"features": np.int32, "domain": np.int64, "label": np.float32, "user": np.int64}
BAG_DTYPES = {"offsets": np.int64, "ids": np.int32, "weights": np.float32}


def home(name: str) -> Path:
    """Where the prepared set is kept: under $CROCO_PREPARED, else data/prepared."""
    return Path(os.environ.get("CROCO_PREPARED", ROOT / "data" / "prepared")) / name


def sizes(files: list[Path]) -> dict[str, int]:
    """Bytes of each file by its name: what says whether a raw or a prepared set is still the same."""
    return {path.name: path.stat().st_size for path in files}


def prepared(name: str, options: dict, raw: list[Path], version: int = 1) -> MultiDomainData | str:
    """The prepared set, memory-mapped; or, in words, why it cannot stand for these options and raw files.

    `version` is that of the rules by which raw lines become rows.
    """
    folder = home(name)
    if not (folder / "manifest.json").is_file():
        return f"{name} is not prepared in {folder}."
    stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if changed := [k for k, v in options.items() if stored["options"].get(k) != v]:
        return f"{folder} was prepared with {changed[0]}={stored['options'].get(changed[0])}."
    if stored.get("version", 1) != version:
        return f"{folder} was prepared by other rules, of another version of this program."
    if raw and sizes(raw) != stored["raw"]:
        return f"{folder} was prepared from other raw files."
    files = [folder / file for file in stored["files"]]
    if not all(map(Path.is_file, files)) or sizes(files) != stored["files"]:
        return f"{folder} has lost a file, or one is cut short."

    def array(file: str) -> np.ndarray:
        return np.load(folder / f"{file}.npy", mmap_mode="r")

    bags = {f: Bag(*(array(f"bag.{f}.{part}") for part in BAG_DTYPES)) for f in stored["bags"]}
    fields = tuple(Field(**f, values=array(f"field.{f['name']}"), bag=bags.get(f["name"])) for f in stored["fields"])
    domains = tuple(stored["domains"])
    splits = (Split(*(array(f"{s}.{column}") for column in DTYPES), domains) for s in SPLITS)
    return MultiDomainData(name, fields, domains, *splits, stored["notes"], stored=stored)


def create(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file open for its data. Written as a stream, so that its pages never count as the process's own."""
    file = path.open("wb")
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )
    return file


def data_of(path: Path) -> Iterator[bytes]:
    """The bytes of a .npy file after its header."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(1 << 24):
            yield block
