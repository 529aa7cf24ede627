"""What several files of tests use: a small table of clicks, training in bf16, work killed at one of its writes."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from croco_lib import errors

ROLES = dict(label="click", domain="place", user="who", item="what")


def clicks(rows: int = 400, seed: int = 0, sizes: tuple = (30, 20, 5), **columns) -> pd.DataFrame:
    """A table of clicks of so many users, items and kinds; `columns` are added, or stand for those of their names."""
    rng = np.random.default_rng(seed)
    values = dict(zip(("click", "place", "who", "what", "kind"), (2, 2, *sizes), strict=True))
    drawn = {name: rng.integers(0, size, rows) for name, size in values.items()}
    return pd.DataFrame({**drawn, "when": rng.permutation(rows), **columns})


class Killed(BaseException):
    """What nobody catches, as a kill."""


def killed_at_each_write(work: Callable[[int], object], *modules: ModuleType) -> Iterator[int]:
    """Do `work(n)`, killed at its write number n, for n from 0 on, until it comes to its end; yields n after each kill.

    Of the write half a file is left. `modules` are those that have taken `write_whole` from `errors` by name.
    """
    really, left = errors.write_whole, 0

    def dies(path: Path, write: Callable) -> None:
        nonlocal left
        if not left:
            path.with_name(path.name + ".tmp").write_bytes(b"half")
            raise Killed
        left -= 1
        really(path, write)

    for kills in itertools.count():
        left = kills
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            for module in (errors, *modules):
                patch.setattr(module, "write_whole", dies)
            work(kills)
            return
        yield kills


@contextmanager
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings within run in bf16, as `accelerate launch` would have them. accelerate reads this once a process."""
    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    try:
        yield
    finally:
        AcceleratorState._reset_state(True)
