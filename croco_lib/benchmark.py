"""Models × data × seeds × options: as many trials for each model, then its seeds, and the tables they make.

A *study* says what to run (`data/results/studies.toml`, or the command line). It becomes jobs; a job says everything
that fixes its outcome but the code itself (after a change of the code, give a fresh folder), and its key is the hash
of that. Each finished job is one file, written at once and whole, so a benchmark that was killed goes on where it
stopped and two studies that share a job run it once.
"""

import hashlib
import json
import time
import tomllib
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from .errors import ROOT, CrocoError, known, parse_value, write_text, write_whole

RESULTS = ROOT / "data" / "results"
VERSIONS = {name: version(name) for name in ("croco-lib", "torch", "numpy")}
TUNING_SEED = 1_000  # of every trial; the final seeds count from 0
FRESH_ROWS = 20_000  # new rows a domain on the made world, so that the smallest is measured as well as the largest

# The search space [ours]: 108 settings common to all models, times three of one knob more. It is the model's own
# where it has one, else the batch size, so that every space is as large.
COMMON = {"lr": (3e-3, 1e-3, 1e-2), "weight_decay": (0.0, 1e-6, 1e-5), "dim": (16, 8),
          "expert": ((64, 32), (32, 16)), "tower": ((16,), (32,), (32, 16))}
OWN = {"crocodile": ("alpha", (0.1, 0.01, 1.0)), "mmoe": ("experts", (5, 3, 8)), "ple": ("per_stream", (1, 2, 3)),
       "me-ple": ("per_stream", (1, 2, 3)), "hinet": ("per_stream", (2, 1, 3)), "pepnet": ("hidden", (32, 16, 64)),
       "me-mmoe": ("experts", (5, 3, 8)),
       "adasparse": ("epsilon", (0.25, 0.1, 0.4))}  # the default first, as everywhere
NO_OWN = ("batch_size", (2048, 1024, 4096))
FIT = ("lr", "weight_decay", "batch_size", "epochs", "patience", "eval_every", "objective")
DEFAULT_FIT = dict(lr=3e-3, weight_decay=0.0, batch_size=2048, epochs=10, patience=3, eval_every=80,
                   objective="domain")


def trials(model: str, count: int) -> list[dict]:
    """`count` settings of the search space: the defaults, then random draws.

    Trial t has the same common settings for every model; only the one knob more differs.
    """
    rng = np.random.default_rng(0)
    knob, values = OWN.get(model, NO_OWN)
    drawn: list[dict] = [{}]
    while len(drawn) < count:
        drawn.append({name: options[rng.integers(len(options))]
                      for name, options in [*COMMON.items(), (knob, values)]})
    return drawn[:count]


def parse_data(spec: str) -> tuple[str, dict]:
    """"world:conflict=0,tail=2" → ("world", {"conflict": 0, "tail": 2})."""
    name, _, options = spec.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise CrocoError(f"--data takes NAME or NAME:key=value,key=value; {bad[0]!r} has no value.")
    return name, {key: parse_value(text) for key, _, text in pairs}


def make_job(data: str, model: str, seed: int, settings: dict, final: bool, inside: bool = False) -> dict:
    """Everything that fixes a run's outcome. `settings` go to `fit` by their names, else to the model."""
    return json.loads(json.dumps(dict(
        data=data, model=model, seed=seed, final=final, versions=VERSIONS, **({"inside": True} if inside else {}),
        options={k: v for k, v in settings.items() if k not in FIT},
        fit={**DEFAULT_FIT, **{k: v for k, v in settings.items() if k in FIT}})))


def key_of(job: dict) -> str:
    """The job's name: a hash of all it says."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _data(spec: str):
    from .data import load

    name, options = parse_data(spec)
    loaded = load(name, **options)
    fresh = loaded.world.fresh(FRESH_ROWS) if loaded.world is not None else None
    return loaded, fresh


def run_job(job: dict) -> dict:
    """Train and measure one job, on one thread. A failure is recorded, never raised.

    A trial knows validation only; a final run adds the test metrics and, where asked, what goes on inside the model.
    """
    import torch

    from .inside import measures, measures_at_start
    from .metrics import domain_mean
    from .models import build
    from .training import evaluate, fit

    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        data, fresh = _data(job["data"])
        model = build(job["model"], data, seed=job["seed"], **job["options"])
        at_start = measures_at_start(model, data) if job.get("inside") else []
        run = fit(model, data, seed=job["seed"], progress=False, **job["fit"])
        values = []  # split, part, metric, value
        if job["final"]:
            for split, rows in (("test", data.test), ("fresh", fresh)):
                if rows is not None:
                    table = evaluate(run.model, rows)
                    values += [(split, r.domain, r.metric, r.value) for r in table.itertuples()]
                    values += [(split, "mean of domains", m, domain_mean(table, m)[0]) for m in ("auc", "gauc")]
            values += [("train", name, "rows", n) for name, n in zip(
                data.domains, np.bincount(data.train.domain).tolist(), strict=True)]
        if job.get("inside"):
            values += [*measures(run.model, data), *at_start]
        valid = run.history.query("split == 'valid' and part == 'all' and metric == 'auc'").value.max()
        outcome = dict(status="done", error="", valid_auc=valid, best_step=run.best_step,
                       steps=int(run.history.step.max()), fingerprint=data.fingerprint,
                       parameters=sum(p.numel() for p in model.parameters()), values=values,
                       rows_per_second=run.rows_per_second)
    except Exception as error:  # whatever it is, the other runs go on; the table shows it
        outcome = dict(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0], values=[])
    return {**outcome, "job": job, "seconds": time.perf_counter() - start, "date": time.strftime("%Y-%m-%d")}


def _run_to_file(job: dict, folder: Path) -> None:
    result = json.dumps(run_job(job))
    write_text(folder / f"{key_of(job)}.json", result)


def read(job: dict, folder: Path) -> dict | None:
    """The finished job's file, or None."""
    path = folder / f"{key_of(job)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except json.JSONDecodeError:
        raise CrocoError(f"{path} is damaged; delete it, and the benchmark makes it again.") from None


def run_jobs(jobs: list[dict], folder: Path, workers: int = 1, progress: bool = True, label: str = "benchmark") -> None:
    """Run what is not yet in `folder`; failed jobs are tried again."""
    from joblib import Parallel, delayed

    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.tmp"):
        stale.unlink()
    unique = list({key_of(job): job for job in jobs}.values())
    open_ = [job for job in unique if (r := read(job, folder)) is None or r["status"] == "failed"]
    bar = tqdm(total=len(unique), initial=len(unique) - len(open_), desc=label, unit="run", disable=not progress)
    done = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers)(
        delayed(_run_to_file)(job, folder) for job in open_)
    for _ in done:
        bar.update()
    bar.close()


# ---------------------------------------------------------------------------------------------- studies


def studies() -> dict[str, dict]:
    """The committed studies by name. See `data/results/README.md` for what each field says."""
    return tomllib.loads((RESULTS / "studies.toml").read_text(encoding="utf-8"))


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
    done = [(r["valid_auc"], -i) for i, job in enumerate(jobs) if (r := read(job, folder)) and r["status"] == "done"]
    if not done:
        raise CrocoError(f"Every trial of {jobs[0]['model']} on {jobs[0]['data']} failed: "
                         f"{(read(jobs[0], folder) or {}).get('error', 'not run')}")
    best = jobs[-max(done)[1]]
    return {**best["options"], **best["fit"]}


def run_study(name: str, study: dict, folder: Path, workers: int = 1, progress: bool = True) -> None:
    """Run a study: the search of each model on each data set, then the seeds of each variant of the chosen settings.

    A study has `data`, `models`, `seeds`, and may have `trials` (of the search), `variants` or `grid` (settings put on
    top of the chosen ones), `fixed` (settings of every run, trials too), `choose` (a knob for which each variant's
    value is chosen on validation), and `inside` (true: also measure what goes on inside the models).
    """
    runs, fixed = folder / "runs", study.get("fixed", {})
    searches = {(d, m): [_trial(d, m, {**setting, **fixed}) for setting in trials(m, study.get("trials", 0))]
                for d in study["data"] for m in study["models"]}
    run_jobs(list(chain(*searches.values())), runs, workers, progress, f"{name}, search")
    planned = [(d, m, {**(_best(jobs, runs) if jobs else fixed), **variant}, variant)
               for (d, m), jobs in searches.items() for variant in _variants(study)]
    choices = [[_trial(d, m, {**settings, knob: value}) for knob, values in study.get("choose", {}).items()
                for value in values] for d, m, settings, _ in planned]
    run_jobs(list(chain(*choices)), runs, workers, progress, f"{name}, choice")
    inside = study.get("inside", False)
    final = [(variant, make_job(d, m, seed, _best(jobs, runs) if jobs else settings, True, inside))
             for (d, m, settings, variant), jobs in zip(planned, choices, strict=True)
             for seed in range(study["seeds"])]
    run_jobs([job for _, job in final], runs, workers, progress, name)
    _write(name, [*final, *(({}, job) for job in chain(*searches.values(), *choices))], folder)


def _write(name: str, jobs: list[tuple[dict, dict]], folder: Path) -> None:
    """Tables of the jobs, each with its variant.

    NAME.runs.csv, NAME.values.csv: the same bytes however often the study was interrupted. NAME.costs.csv: times.
    """
    runs, values, costs = [], [], []
    for variant, job in jobs:
        result = read(job, folder / "runs")
        key = key_of(job)
        runs.append(dict(key=key, stage="final" if job["final"] else "search", data=job["data"], model=job["model"],
                         variant=short(variant), seed=job["seed"],
                         settings=json.dumps({**job["options"], **job["fit"]}, sort_keys=True),
                         **{c: result.get(c) for c in ("status", "error", "valid_auc", "best_step", "steps",
                                                       "parameters", "fingerprint")},
                         versions=short(job["versions"])))
        values += [(key, *row) for row in result["values"]] if job["final"] else []
        costs.append((key, job["model"], round(result["seconds"], 2), round(result.get("rows_per_second", 0)),
                      result["date"]))
    frames = {"runs": pd.DataFrame(runs).drop_duplicates(["key", "variant"]),
              "values": pd.DataFrame(values, columns=["key", "split", "part", "metric", "value"]).drop_duplicates(),
              "costs": pd.DataFrame(costs, columns=["key", "model", "seconds", "rows_per_second", "date"])
              .drop_duplicates()}
    for kind, frame in frames.items():
        write_whole(folder / f"{name}.{kind}.csv", partial(frame.to_csv, index=False))


def short(settings: dict) -> str:
    """Settings as a label: "alpha: 0.1, sets: 2"."""
    return json.dumps(settings, sort_keys=True).replace('"', "")[1:-1]


# ---------------------------------------------------------------------------------------------- tables


def results(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """The study's final runs, tidy: data, model, variant, seed, split, part, metric, value.

    Raises CrocoError where they are absent.
    """
    for kind in ("runs", "values"):
        if not (folder / f"{name}.{kind}.csv").is_file():
            raise CrocoError(f"There are no results of the study {name!r} in {folder}. "
                             f"Make them: croco benchmark --study {name}")
    runs = pd.read_csv(folder / f"{name}.runs.csv", keep_default_na=False)
    runs = runs.loc[(runs.stage == "final") & (runs.status == "done"), ["key", "data", "model", "variant", "seed"]]
    return runs.merge(pd.read_csv(folder / f"{name}.values.csv"), on="key").drop(columns="key")


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its t interval; the interval is infinite for one value."""
    values = np.asarray(values, float)
    mean = values.mean()
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def against(frame: pd.DataFrame, reference: str, by: str = "model") -> pd.DataFrame:
    """Each model (or variant) against the reference, paired by seed: other minus reference.

    `frame` holds one metric's values: seed, value and `by`. Returns mean, std and seeds of each, the difference with
    its 95 % t interval, Cohen's d of the paired differences, p of the paired t test, and p corrected for the many
    comparisons (Benjamini–Hochberg), best mean first.
    """
    known(by, reference, wide := frame.pivot(index="seed", columns=by, values="value"))
    rows = []
    for name in wide:
        gap = (wide[name] - wide[reference]).dropna().to_numpy()
        mean, low, high = interval(gap) if len(gap) else (np.nan,) * 3
        spread = gap.std(ddof=1) if len(gap) > 1 else np.nan
        p = stats.ttest_1samp(gap, 0).pvalue if spread > 0 else np.nan
        rows.append((name, wide[name].mean(), wide[name].std(), wide[name].count(), mean, low, high,
                     mean / spread if spread > 0 else np.nan, p))
    table = pd.DataFrame(rows, columns=[by, "mean", "std", "seeds", "difference", "low", "high", "d", "p"])
    tested = table.p.notna()
    table["p_corrected"] = np.nan
    if tested.any():
        table.loc[tested, "p_corrected"] = stats.false_discovery_control(table.p[tested])
    return table.sort_values("mean", ascending=False, ignore_index=True)


def select(frame: pd.DataFrame, data: str, metric: str, part: str = "all", split: str = "test") -> pd.DataFrame:
    """One metric's rows of `results`."""
    return frame.query("data == @data and metric == @metric and part == @part and split == @split")

