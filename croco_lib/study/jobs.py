"""A job is one training with all that fixes its outcome but the code and the data's rows; its key is the hash of that.

Each finished job is a file, written whole, so studies that were killed go on, and two that share a job run it once.
"""

import hashlib
import json
import os
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..console import VERSIONS
from ..errors import CrocoError, write_text, write_whole
from ..options import TrainOptions
from ..schema import SPLITS, MultiDomainData, Split
from .space import registered
from .spec import parse_data

if TYPE_CHECKING:
    from torch import nn

    from ..training import Run

FIT = ("lr", "weight_decay", "batch_size", "epochs", "patience", "objective")
DEFAULTS = TrainOptions(batch_size=2048, patience=6)  # of every model, where a search has chosen nothing else
VALIDATIONS = 4  # in an epoch, whatever the batch size: the best step comes early, and patience is 1.5 epochs
# Without it glibc returns large blocks at once, then faults them in: two thirds of a step with HSIC's N × N kernels.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
FRESH_ROWS = 20_000  # new rows a domain of the made world, so that its smallest is measured as well as its largest


def make_job(data: str, model: str, seed: int, settings: dict, final: bool, inside: bool = False) -> dict:
    """One training with all that fixes its outcome.

    A setting that `fit` knows goes to `fit`, `start` is the embeddings' standard deviation, all others go to the model.
    """
    name, fixed = registered(model)
    settings = {**settings, **fixed}
    default = {name: getattr(DEFAULTS, name) for name in FIT}  # those that a job may choose, in the order of its key
    return json.loads(
        json.dumps(
            dict(
                data=data,
                model=name,
                seed=seed,
                final=final,
                inside=inside,
                versions=VERSIONS,
                options={k: v for k, v in settings.items() if k not in FIT},
                fit={**default, **{k: v for k, v in settings.items() if k in FIT}},
            )
        )
    )


def key_of(job: dict) -> str:
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]


def of_users(data: MultiDomainData, share: float) -> MultiDomainData:
    """The rows of this share of the users, drawn once for all: enough to search on. A user's rows stay together.

    Raises CrocoError for a share that is not above 0 and at most 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise CrocoError(f"search_share is above 0 and at most 1, not {share!r}.")
    users = np.unique(np.concatenate([getattr(data, split).user for split in SPLITS]))
    drawn = users[np.random.default_rng(0).random(len(users)) < share]
    splits = {split: getattr(data, split) for split in SPLITS}
    return replace(data, stored=None, **{k: split.take(np.isin(split.user, drawn)) for k, split in splits.items()})


@lru_cache(maxsize=1)
def load_with_fresh(spec: str) -> tuple[MultiDomainData, Split | None]:
    """The data, or with the option `search_share` the rows of a share of its users; fresh rows of a made world."""
    from ..datasets.registry import load

    name, options = parse_data(spec)
    share = options.pop("search_share", None)
    loaded = load(name, **options)
    loaded = loaded if share is None else of_users(loaded, share)
    return loaded, None if loaded.world is None else loaded.world.fresh(FRESH_ROWS)


def built(job: dict, data: MultiDomainData) -> "nn.Module":
    """The job's model as it starts."""
    import torch

    from ..layers import INIT_STD
    from ..models import build
    from ..optimizers import tables_of

    options = dict(job["options"])
    start = options.pop("start", INIT_STD)
    model = build(job["model"], data, seed=job["seed"], **options)
    with torch.no_grad():
        for table in tables_of(model):
            table.weight.mul_(start / INIT_STD)
    return model


def train_as(job: dict, model: "nn.Module", data: MultiDomainData, folder: Path | None = None) -> "Run":
    """Train `model` as the job says, in silence; `folder` as for `fit`."""
    from ..training import fit

    every = max(1, round(len(data.train) / VALIDATIONS / job["fit"]["batch_size"]))
    return fit(model, data, seed=job["seed"], folder=folder, progress=False, eval_every=every, **job["fit"])


def embedding_parameters(data: str, model: str, settings: dict) -> int:
    """How many numbers the model's embedding tables hold, the gate's among them."""
    from ..optimizers import tables_of

    made = built(make_job(data, model, 0, settings, final=False), load_with_fresh(data)[0])
    return sum(table.weight.numel() for table in tables_of(made))


def dim_of(data: str, model: str, like: str) -> int:
    """The embedding size at which this model has about as many embedding parameters as `like` has by default."""
    return round(8 * embedding_parameters(data, like, {}) / embedding_parameters(data, model, {"dim": 8}))


def run_job(job: dict) -> tuple[dict, dict[str, np.ndarray]]:
    """Train and measure one job on one thread: its outcome, and a final run's logits by split.

    A failure is recorded, never raised. A trial knows validation only; a final run adds the metrics on test rows and,
    where asked, what goes on inside the model.
    """
    import torch

    from ..inside import measures, measures_at_start

    threads, start = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    logits: dict[str, np.ndarray] = {}
    try:
        data, fresh = load_with_fresh(job["data"])
        model = built(job, data)
        at_start = measures_at_start(model, data) if job["inside"] else []
        run = train_as(job, model, data)
        values: list[tuple] = []
        if job["final"]:
            values, logits = measured(run.model, data, fresh)
        if job["inside"]:
            values += [*measures(run.model, data), *at_start]
        outcome = outcome_of(run, data, values)
    except Exception as error:  # whatever it is, the other runs go on; the table shows it
        outcome = dict(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0], values=[])
    torch.set_num_threads(threads)  # one worker is the caller's own process
    return {**outcome, "job": job, "seconds": time.perf_counter() - start, "date": time.strftime("%Y-%m-%d")}, logits


def outcome_of(run: "Run", data: MultiDomainData, values: list[tuple]) -> dict:
    """What is kept of a run that ended well."""
    valid = run.history.query("split == 'valid' and part == 'all' and metric == 'auc'").value.max()
    return dict(
        status="done",
        error="",
        valid_auc=valid,
        best_step=run.best_step,
        steps=int(run.history.step.max()),
        fingerprint=data.fingerprint,
        parameters=sum(p.numel() for p in run.model.parameters()),
        values=values,
        rows_per_second=run.rows_per_second,
    )


def measured(
    model: "nn.Module", data: MultiDomainData, fresh: Split | None
) -> tuple[list[tuple], dict[str, np.ndarray]]:
    """(split, part, metric, value) on test and fresh rows, and the logits that they come from."""
    from ..evaluation import predict
    from ..metrics import domain_mean, evaluate_scores

    values = [
        ("train", name, "rows", n)
        for name, n in zip(data.domains, np.bincount(data.train.domain).tolist(), strict=True)
    ]
    logits = {}
    for split, rows in (("test", data.test), ("fresh", fresh)):
        if rows is None:
            continue
        logits[split] = predict(model, rows)
        table = evaluate_scores(rows.label, logits[split], rows.domain, rows.user, rows.domains)
        values += [(split, r.domain, r.metric, r.value) for r in table.itertuples()]
        values += [(split, "mean of domains", metric, domain_mean(table, metric)[0]) for metric in ("auc", "gauc")]
    return values, logits


def _save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:  # a name of a path would get another ending
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _to_file(job: dict, folder: Path) -> None:
    arrays = folder / f"{key_of(job)}.npz"
    arrays.unlink(missing_ok=True)  # of an earlier run: this one may fail
    result, logits = run_job(job)
    if logits:  # before the outcome: where that is, these are
        write_whole(arrays, partial(_save_arrays, logits))
    write_text(arrays.with_suffix(".json"), json.dumps(result))


def read_outcome(path: Path) -> dict:
    """What the file of a finished job says. Raises CrocoError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text at all
        raise CrocoError(f"{path} is damaged; delete it, and the study makes it again.") from None


def read(job: dict, folder: Path) -> dict:
    """The finished job's outcome; empty where it has not been run. Raises CrocoError for a damaged file."""
    path = folder / f"{key_of(job)}.json"
    outcome = read_outcome(path) if path.is_file() else {}
    # The logits of a final run may have been left behind where its outcome was copied from; then it is run again.
    lost = job["final"] and outcome.get("status") == "done" and not path.with_suffix(".npz").is_file()
    return {} if lost else outcome


def run_jobs(jobs: list[dict], folder: Path, workers: int = 1, progress: bool = True, label: str = "study") -> None:
    """Run what is not yet in `folder`; failed jobs are tried again."""
    from joblib import Parallel, delayed

    folder.mkdir(parents=True, exist_ok=True)
    unique = list({key_of(job): job for job in jobs}.values())
    open_ = [job for job in unique if read(job, folder).get("status") != "done"]
    for name, threshold in KEEP_MEMORY.items():  # the workers read it as they start; one worker is this process
        os.environ.setdefault(name, threshold)
    bar = tqdm(total=len(unique), initial=len(unique) - len(open_), desc=label, unit="run", disable=not progress)
    done = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers)(
        delayed(_to_file)(job, folder) for job in open_
    )
    try:
        for _ in done:
            bar.update()
    except BrokenProcessPool as error:  # joblib's own is one
        raise CrocoError(
            f"{label}: a process was killed, likely for lack of memory. What is done is kept; take fewer --workers."
        ) from error
    finally:
        bar.close()
