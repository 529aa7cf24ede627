"""The made world on disk: drawn in pieces into memory-mapped columns, so that its rows may outgrow memory. [ours]

Its rows, ids and fingerprint are those that `make_world` has in memory with the same options.
"""

import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..data.splits import split_random
from ..data.world import TABS, World, begin_world, make_world, notes_on
from ..errors import CrocoError, write_text, write_whole
from ..schema import SPLITS, MultiDomainData, Split, check_domains
from .columns import Totals, described, save_array
from .store import DTYPES, NotPrepared, create_splits, folder_of, prepared, writing

PIECE = 1 << 18  # rows in work at a time
COLUMNS = DTYPES | {"truth": np.float64}
TRUTH = [f.name for f in fields(World)]
# Raise it when the same options come to give another world; what was prepared before is then not taken for it.
VERSION = 1


def in_full(options: dict) -> dict:
    """All options of the world, with its defaults and their types, so that 1 and 1.0 name the same folder.

    Raises CrocoError for half a row, user or item. What is no number at all is left for `make_world` to refuse.
    """
    signature = inspect.signature(make_world)
    bound = signature.bind(**options)  # a TypeError for an unknown one
    bound.apply_defaults()
    full = {}
    for name, value in bound.arguments.items():
        kind = type(signature.parameters[name].default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if kind is int and value % 1:  # NaN for NaN and infinity, so they are refused too
                raise CrocoError(f"world: {name} must be a whole number, not {value}.")
            value = kind(value)
        full[name] = value
    return full


# `wraps` lends it the options' names, by which the registry checks them; the docstring stays its own.
@wraps(make_world, assigned=("__annotations__",))
def load(**options) -> MultiDomainData:
    """The made world: mapped where `prepare` has left it for these options, else drawn into memory by `make_world`.

    Raises CrocoError for an option out of its range, and where what was prepared is damaged or of an older version.
    """
    full = in_full(options)
    folder = folder_of("world", full)
    if not (folder / "manifest.json").is_file():
        return make_world(**full)
    try:
        data = prepared("world", full, [], VERSION)
    except NotPrepared as why:  # it was prepared for its size, so it is not drawn into memory instead
        raise CrocoError(f"{why} Delete that folder, or prepare it again with `croco data prepare world`.") from why
    truth = World(**{name: mapped(folder / f"truth.{name}.npy") for name in TRUTH})
    splits = {s: replace(getattr(data, s), truth=mapped(folder / f"{s}.truth.npy")) for s in SPLITS}
    return replace(data, world=truth, **splits)


def mapped(path: Path) -> Any:
    """The array, memory-mapped, or the one number that it holds."""
    array = np.load(path, mmap_mode="r")
    return array if array.ndim else float(array)


@wraps(make_world, assigned=())
def prepare(**options) -> Path:
    """Draw the world into memory-mapped columns, which `load` takes for these options; returns their folder.

    In memory stand the truth, whose size is that of users and items, and while it runs nine bytes a row, for the split.
    """
    options = in_full(options)
    folder = folder_of("world", options)
    with writing("world"):
        with suppress(NotPrepared):  # it is there, and another process may have it mapped
            prepared("world", options, [], VERSION)
            return folder
        truth, counts, rng = begin_world(**options)
        part = split_random(options["rows"], options["seed"])
        shutil.rmtree(folder, ignore_errors=True)  # what another process still maps lives on until it lets go
        folder.mkdir(parents=True)
        totals = write_rows(folder, truth, part, draw_pieces(truth, counts, rng, PIECE))
        check_domains("world", tuple(TABS), totals.rows, totals.clicks)
        for name in TRUTH:
            write_whole(folder / f"truth.{name}.npy", partial(save_array, np.asarray(getattr(truth, name))))
        for field in truth.fields:
            write_whole(folder / f"field.{field.name}.npy", partial(save_array, np.asarray(field.values)))
        manifest = {"version": VERSION, "options": options, "raw": {}, "notes": notes_on(**options)}
        manifest |= described(folder, truth.fields, tuple(TABS), [], totals)
        write_text(folder / "manifest.json", json.dumps(manifest, indent=1, default=np.generic.item))
    return folder


def draw_pieces(truth: World, counts: np.ndarray, rng: np.random.Generator, size: int) -> Iterator[Split]:
    """The rows of `truth.draw(counts, rng)`, at most `size` at a time.

    A draw takes one number from the stream of `rng` for each user of a domain, then one for each of its items, and so
    on by domain; those of the clicks come last. So each of the three can be read from where it begins.
    """
    done, total = 0, int(counts.sum())
    for s, n in enumerate(counts.tolist()):
        who, what, luck = (ahead(rng, steps) for steps in (2 * done, 2 * done + n, 2 * total + done))
        for at in range(0, n, size):
            piece = min(size, n - at)
            user, item = truth.pairs(s, piece, who, what)
            yield truth.rows(np.full(piece, s), user, item, luck.random(piece))
        done += n


def ahead(rng: np.random.Generator, steps: int) -> np.random.Generator:
    """The same generator after `steps` further numbers have been drawn from it."""
    bits = deepcopy(rng.bit_generator)
    assert isinstance(bits, np.random.PCG64)  # as `default_rng` gives it: it can jump
    return np.random.Generator(bits.advance(steps))


def write_rows(folder: Path, truth: World, part: np.ndarray, pieces: Iterator[Split]) -> Totals:
    """The pieces into the columns of the three splits, `part` int8 [N] being theirs; returns what was counted."""
    totals = Totals(len(TABS), len(truth.fields), len(truth.user_ids), len(truth.item_ids) + 1)
    item_at = [field.role for field in truth.fields].index("item")
    files, done = create_splits(folder, np.bincount(part, minlength=3).tolist(), len(truth.fields), COLUMNS), 0
    with tqdm(
        total=len(part), desc="world: drawing", unit="row", unit_scale=True, disable=not sys.stderr.isatty()
    ) as bar:
        for piece in pieces:
            columns = {name: np.asarray(getattr(piece, name), dtype) for name, dtype in COLUMNS.items()}
            totals.write(files, part[done : done + len(piece)], columns, item_at)
            done += len(piece)
            bar.update(len(piece))
    for file in files.values():
        file.close()
    return totals
