"""Models × data × seeds × options: as many trials for each model, then its seeds, and the tables they make.

A *study* says what to run (`data/results/studies.toml`, or the command line). It becomes jobs; a job says everything
that fixes its outcome but the code itself (after a change of the code, give a fresh folder), and its key is the hash
of that. Each finished job is one file, written at once and whole, so a benchmark that was killed goes on where it
stopped and two studies that share a job run it once.
"""

import json
import time
import tomllib
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd

from ...console import VERSIONS
from ...errors import CrocoError, in_checkout, write_text, write_whole
from ..jobs import key_of, load_with_fresh, measured, outcome_of, read, run_jobs
from ..space import label_of
from .results import RESULTS

TUNING_SEED = 1_000  # of every trial; the final seeds count from 0

# The search space [ours]: 108 settings common to all models, times three of one knob more. It is the model's own
# where it has one, else the batch size, so that every space is as large.
COMMON = {
    "lr": (3e-3, 1e-3, 1e-2),
    "weight_decay": (0.0, 1e-6, 1e-5),
    "dim": (16, 8),
    "expert": ((64, 32), (32, 16)),
    "tower": ((16,), (32,), (32, 16)),
}
OWN = {
    "crocodile": ("alpha", (0.1, 0.01, 1.0)),
    "mmoe": ("experts", (5, 3, 8)),
    "ple": ("per_stream", (1, 2, 3)),
    "me-ple": ("per_stream", (1, 2, 3)),
    "hinet": ("per_stream", (2, 1, 3)),
    "pepnet": ("hidden", (32, 16, 64)),
    "me-mmoe": ("experts", (5, 3, 8)),
    "adasparse": ("epsilon", (0.25, 0.1, 0.4)),
}  # the default first, as everywhere
NO_OWN = ("batch_size", (2048, 1024, 4096))
FIT = ("lr", "weight_decay", "batch_size", "epochs", "patience", "eval_every", "objective")
DEFAULT_FIT = dict(lr=3e-3, weight_decay=0.0, batch_size=2048, epochs=10, patience=3, eval_every=80, objective="domain")


def trials(model: str, count: int) -> list[dict]:
    """`count` settings of the search space: the defaults, then random draws.

    Trial t has the same common settings for every model; only the one knob more differs.
    """
    rng = np.random.default_rng(0)
    knob, values = OWN.get(model, NO_OWN)
    drawn: list[dict] = [{}]
    while len(drawn) < count:
        drawn.append({name: options[rng.integers(len(options))] for name, options in [*COMMON.items(), (knob, values)]})
    return drawn[:count]


def make_job(data: str, model: str, seed: int, settings: dict, final: bool, inside: bool = False) -> dict:
    """Everything that fixes a run's outcome. `settings` go to `fit` by their names, else to the model."""
    return json.loads(
        json.dumps(
            dict(
                data=data,
                model=model,
                seed=seed,
                final=final,
                versions=VERSIONS,
                **({"inside": True} if inside else {}),
                options={k: v for k, v in settings.items() if k not in FIT},
                fit={**DEFAULT_FIT, **{k: v for k, v in settings.items() if k in FIT}},
            )
        )
    )


def run_job(job: dict) -> dict:
    """Train and measure one job, on one thread. A failure is recorded, never raised.

    A trial knows validation only; a final run adds the test metrics and, where asked, what goes on inside the model.
    """
    import torch

    from ...inside import measures, measures_at_start
    from ...models import build
    from ...training import fit

    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        data, fresh = load_with_fresh(job["data"])
        model = build(job["model"], data, seed=job["seed"], **job["options"])
        at_start = measures_at_start(model, data) if job.get("inside") else []
        run = fit(model, data, seed=job["seed"], progress=False, **job["fit"])
        values = measured(run.model, data, fresh)[0] if job["final"] else []
        values.sort(key=lambda row: row[0] == "train")  # the training rows stand last in these tables
        if job.get("inside"):
            values += [*measures(run.model, data), *at_start]
        outcome = outcome_of(run, data, values)
    except Exception as error:  # whatever it is, the other runs go on; the table shows it
        outcome = dict(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0], values=[])
    return {**outcome, "job": job, "seconds": time.perf_counter() - start, "date": time.strftime("%Y-%m-%d")}


def _to_file(job: dict, folder: Path) -> None:
    write_text(folder / f"{key_of(job)}.json", json.dumps(run_job(job)))


def _run(jobs: list[dict], folder: Path, workers: int, progress: bool, label: str) -> None:
    run_jobs(jobs, folder, workers, progress, label, _to_file)


def studies() -> dict[str, dict]:
    """The committed studies by name. See `data/results/README.md` for what each field says."""
    return tomllib.loads(in_checkout(RESULTS / "studies.toml").read_text(encoding="utf-8"))


def _variants(study: dict) -> list[dict]:
    """The study's own list of settings, or every combination of its grid; one empty setting where it has neither."""
    grid = study.get("grid", {})
    if "variants" in study:
        return study["variants"]
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _trial(data: str, model: str, settings: dict) -> dict:
    return make_job(data, model, TUNING_SEED, settings, final=False)


def _best(jobs: list[dict], folder: Path) -> dict:
    """The settings of the trial that is best on validation."""
    done = [(r["valid_auc"], -i) for i, job in enumerate(jobs) if (r := read(job, folder)).get("status") == "done"]
    if not done:
        raise CrocoError(
            f"Every trial of {jobs[0]['model']} on {jobs[0]['data']} failed: "
            f"{read(jobs[0], folder).get('error', 'not run')}"
        )
    best = jobs[-max(done)[1]]
    return {**best["options"], **best["fit"]}


def run_study(name: str, study: dict, folder: Path, workers: int = 1, progress: bool = True) -> None:
    """Run a study: the search of each model on each data set, then the seeds of each variant of the chosen settings.

    A study has `data`, `models`, `seeds`, and may have `trials` (of the search), `variants` or `grid` (settings put on
    top of the chosen ones), `fixed` (settings of every run, trials too), `choose` (a knob for which each variant's
    value is chosen on validation), and `inside` (true: also measure what goes on inside the models).
    """
    runs, fixed = folder / "runs", study.get("fixed", {})
    searches = {
        (d, m): [_trial(d, m, {**setting, **fixed}) for setting in trials(m, study.get("trials", 0))]
        for d in study["data"]
        for m in study["models"]
    }
    _run(list(chain(*searches.values())), runs, workers, progress, f"{name}, search")
    planned = [
        (d, m, {**(_best(jobs, runs) if jobs else fixed), **variant}, variant)
        for (d, m), jobs in searches.items()
        for variant in _variants(study)
    ]
    choices = [
        [
            _trial(d, m, {**settings, knob: value})
            for knob, values in study.get("choose", {}).items()
            for value in values
        ]
        for d, m, settings, _ in planned
    ]
    _run(list(chain(*choices)), runs, workers, progress, f"{name}, choice")
    inside = study.get("inside", False)
    final = [
        (variant, make_job(d, m, seed, _best(jobs, runs) if jobs else settings, True, inside))
        for (d, m, settings, variant), jobs in zip(planned, choices, strict=True)
        for seed in range(study["seeds"])
    ]
    _run([job for _, job in final], runs, workers, progress, name)
    _write(name, [*final, *(({}, job) for job in chain(*searches.values(), *choices))], folder)


def _write(name: str, jobs: list[tuple[dict, dict]], folder: Path) -> None:
    """Tables of the jobs, each with its variant.

    NAME.runs.csv, NAME.values.csv: the same bytes however often the study was interrupted. NAME.costs.csv: times.
    """
    runs, values, costs = [], [], []
    for variant, job in jobs:
        result = read(job, folder / "runs")
        key = key_of(job)
        runs.append(
            dict(
                key=key,
                stage="final" if job["final"] else "search",
                data=job["data"],
                model=job["model"],
                variant=label_of(variant),
                seed=job["seed"],
                settings=json.dumps({**job["options"], **job["fit"]}, sort_keys=True),
                **{
                    c: result.get(c)
                    for c in ("status", "error", "valid_auc", "best_step", "steps", "parameters", "fingerprint")
                },
                versions=label_of(job["versions"]),
            )
        )
        values += [(key, *row) for row in result["values"]] if job["final"] else []
        costs.append(
            (key, job["model"], round(result["seconds"], 2), round(result.get("rows_per_second", 0)), result["date"])
        )
    frames = {
        "runs": pd.DataFrame(runs).drop_duplicates(["key", "variant"]),
        "values": pd.DataFrame(values, columns=["key", "split", "part", "metric", "value"]).drop_duplicates(),
        "costs": pd.DataFrame(costs, columns=["key", "model", "seconds", "rows_per_second", "date"]).drop_duplicates(),
    }
    for kind, frame in frames.items():
        write_whole(folder / f"{name}.{kind}.csv", partial(frame.to_csv, index=False))
