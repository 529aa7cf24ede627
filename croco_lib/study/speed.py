"""All that `croco speed` measures in one run: steps, their limit, preparing and metrics."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ROOT, CrocoError
from ..metrics import grouped_auc
from ..models import MODELS, build
from ..training import fit
from .raw import write_aliccp, write_kuairand
from .steps import BATCH, covloss_costs, other_ways, profile, shaped, step_costs, vocabulary

PREPARE = """
import resource, sys, time
from pathlib import Path
from croco_lib.datasets.registry import prepare
start = time.perf_counter()
prepare(sys.argv[1])
print(time.perf_counter() - start)
status = Path("/proc/self/status")  # where there is one: a child's ru_maxrss begins at its parent's
print(int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 1024 if status.is_file()
      else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # macOS, which has none, counts bytes
"""
STARTS = {"import croco_lib": ("-c", "import croco_lib"), "croco --help": ("-m", "croco_lib", "--help")}
SLIDER = """
import time
import numpy as np
from croco_lib import plots
from croco_lib.lessons.figures import covariance_heatmaps
from croco_lib.lessons.widgets import png
plots.style()
matrix, seconds = np.random.default_rng(0).normal(size=(160, 160)), []
for step in range(9):
    start = time.perf_counter()
    png(covariance_heatmaps({f"step {step}": matrix}, experts=5, top=3.0))
    seconds.append(time.perf_counter() - start)
print(np.median(seconds))
"""


def python(what: str, *words: str, **places: str) -> str:
    """What a new Python prints for these words, with `places` in its environment; `what` begins an error's words."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **places}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)
    if done.returncode:
        raise CrocoError(f"croco speed: {what} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def reader_seconds(repeats: int) -> Iterator[tuple[str, float]]:
    """What a reader waits for: a process that starts (the median of so many), and a step of a heat map's slider."""
    for name, words in STARTS.items():
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            python(name, *words)
            seconds.append(time.perf_counter() - start)
        yield name, float(np.median(seconds))
    if find_spec("ipywidgets"):  # of the extra `lessons`
        what = "a step of lesson 04's slider"
        yield what, float(python(what, "-c", SLIDER))


def prepare_costs(name: str, rows: int) -> dict:
    """Rows a second and peak MiB of `croco data prepare`, on made raw files of `rows` rows.

    In a process of its own; its start and its imports, a second or two, are not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        if name == "ali-ccp":
            write_aliccp(Path(folder, "raw"), rows, profiles=1_000, items=5_000)
        else:
            write_kuairand(Path(folder, "raw"), name, rows, users=1_000, videos=5_000)
        places = {"CROCO_DATA": f"{folder}/raw", "CROCO_PREPARED": f"{folder}/prepared"}
        seconds, peak = map(float, python(f"preparing {name}", "-c", PREPARE, name, **places).split()[-2:])
        disk = sum(path.stat().st_size for path in Path(folder, "prepared").rglob("*.npy")) / 2**20
        return {
            "seconds": seconds,
            "rows a second": rows / seconds,
            "peak MiB": peak,
            "disk MiB": disk,
        }


def metric_seconds(rows: int) -> float:
    """Seconds for AUC and gAUC of so many rows, ten a user."""
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, rows).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    user = rng.integers(0, max(1, rows // 10), rows)
    start = time.perf_counter()
    grouped_auc(label, score, np.zeros(rows, int))
    grouped_auc(label, score, user)
    return time.perf_counter() - start


def measure(size: str = "full") -> Iterator[tuple[str, str, str, float]]:
    """Every figure as (table, row, column, value), as they come. `size` "fast" is a smaller version of each."""
    full = size == "full"
    steps, rows = (30, 800_000) if full else (5, 60_000)
    data = shaped(rows)
    model = build("shared-bottom", data, expert=(128,), tower=(8,))
    run = fit(model, data, epochs=1, eval_every=1 << 30, progress=False)
    yield "goal", "shared-bottom, 128–8, fetch included", "rows a second", run.rows_per_second
    for name in MODELS:
        for column, value in step_costs(name, data, steps).items():
            yield "models", name, column, value
    for name in MODELS if full else ("shared-bottom",):
        for column, value in profile(name, data, steps).items():
            yield "profile", name, column, value
        for column, value in other_ways(name, data, steps // 3).items():
            yield "other ways", name, column, value
    for sample in (None, 32):
        for column, value in covloss_costs(data, steps, sample).items():
            yield "covloss", f"on {sample or BATCH} rows", column, value
    yield from vocabulary((10**4, 10**5, 10**6, 4 * 10**6) if full else (10**4, 10**5), steps)
    raw = product(("kuairand-1k", "ali-ccp"), (100_000, 300_000, 1_000_000)) if full else (("ali-ccp", 5_000),)
    for name, count in raw:
        for column, value in prepare_costs(name, count).items():
            yield "prepare", f"{name}, {count:,} rows", column, value
    yield "metrics", "AUC and gAUC", "seconds", metric_seconds(10**7 if full else 10**5)
    for what, seconds in reader_seconds(7 if full else 1):
        yield "reader", what, "seconds", seconds


def tables(figures: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tidy figures as one wide table for each kind."""
    for name, part in figures.groupby("table", sort=False):
        wide = part.pivot(index="row", columns="column", values="value")
        yield name, wide.loc[part.row.unique(), part.column.unique()]
