"""Studies: the search of each model on a data set, then its seeds in each variant, and the tables they leave.

`data/verdicts/studies.toml` says what is run. A study of one data set is whole or absent: its tables are written when
its last run is done.
"""

import hashlib
import json
import shlex
import tomllib
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..console import VERSIONS
from ..errors import ROOT, CrocoError, in_checkout, known, write_whole
from .jobs import dim_of, key_of, load_with_fresh, make_job, read, read_outcome, run_jobs
from .resampling import resampled_users
from .space import label_of, trials
from .spec import parse_data, spec_of
from .stamp import RULES_HASH

RESULTS = ROOT / "data" / "verdicts"
TUNING_SEEDS = (1_000, 1_001, 1_002)  # of the trials; the final seeds count from 0
FINALISTS = 3  # best settings on validation, which run the other tuning seeds too; the mean chooses
CLOSE = 0.001  # of validation AUC: models as near as this to Crocodile run `more_seeds`, and so does Crocodile
WIDER = 3  # how often a grid is widened where its best value is at an end
WORDS = (
    "data",
    "models",
    "seeds",
    "search",
    "search_share",
    "more_seeds",
    "settings",
    "variants",
    "grid",
    "inside",
    "fixed",
    "as_large_as",
)


def read_studies(path: Path = RESULTS / "studies.toml") -> dict[str, dict]:
    """The studies by name. Raises CrocoError for a word that none of them may use."""
    made = tomllib.loads(in_checkout(path).read_text(encoding="utf-8"))
    for name, study in made.items():
        for word in study:
            known(f"word of study {name}", word, WORDS)
        for data in study.get("search_share", {}):
            known(f"data set of study {name}'s search_share", data, study["data"])
    return made


def file_of(study: str, data: str, kind: str, folder: Path = RESULTS) -> Path:
    """main.kuairand-pure.runs.csv; what a file name cannot hold of the data's options becomes a dash.

    A table of one's own is named by its file and a hash of its path and options.
    """
    path, is_own, _ = data.partition(":{")
    if is_own:
        data = f"{Path(path).name}.{hashlib.sha256(data.encode()).hexdigest()[:8]}"
    return folder / f"{study}.{''.join(c if c.isalnum() or c in '-._' else '-' for c in data)}.{kind}.csv"


def variants_of(study: dict) -> list[dict]:
    """The study's own list of settings, or every combination of its grid; one empty setting where it has neither."""
    grid = study.get("grid", {})
    return study.get("variants") or [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


class Runner:
    """Runs jobs into a folder and reads them again: what every part of a study needs at hand."""

    def __init__(self, folder: Path, workers: int, progress: bool):
        self.runs, self.workers, self.progress = folder / "runs", workers, progress

    def run(self, jobs: list[dict], label: str) -> None:
        """Run those that have no outcome yet; `label` stands beside the bar."""
        run_jobs(jobs, self.runs, self.workers, self.progress, label)

    def valid(self, job: dict) -> float:
        """The job's best validation AUC; −inf where it failed."""
        result = read(job, self.runs)
        return result["valid_auc"] if result.get("status") == "done" else -np.inf

    def choose(self, data: str, model: str, settings: list[dict], label: str) -> tuple[dict, list[dict]]:
        """The settings that are best on validation by the mean of the tuning seeds, and all jobs run for it."""
        first = [make_job(data, model, TUNING_SEEDS[0], s, final=False) for s in settings]
        self.run(first, label)
        order = sorted(range(len(first)), key=lambda i: (-self.valid(first[i]), i))[:FINALISTS]
        again = {i: [make_job(data, model, seed, settings[i], final=False) for seed in TUNING_SEEDS] for i in order}
        tried = [*first, *(job for jobs in again.values() for job in jobs)]
        self.run(tried[len(first) :], f"{label}, finalists")
        mean = {i: np.mean([self.valid(job) for job in jobs]) for i, jobs in again.items()}
        if not np.isfinite(best := max(mean.values())):
            error = next((run["error"] for job in tried if (run := read(job, self.runs)).get("error")), None)
            raise CrocoError(f"Every trial of {model} on {data} failed: {error}")
        return settings[next(i for i in order if mean[i] == best)], tried

    def choose_value(
        self, data: str, model: str, settings: dict, knob: str, values: list[float], label: str
    ) -> tuple[dict, list[dict]]:
        """The value of a knob that is best on validation; its grid is widened while the best is at one of its ends."""
        if len(values) < 2 or values[0] <= 0 or values != sorted(values):
            raise CrocoError(f"{label}: a grid that may be widened needs two values or more, above 0 and in order.")
        tried: list[dict] = []
        for _ in range(1 + WIDER):
            chosen, jobs = self.choose(data, model, [{**settings, knob: v} for v in values], label)
            tried += jobs
            if values[0] < chosen[knob] < values[-1]:
                break
            low = chosen[knob] == values[0]
            wider = values[0] ** 2 / values[1] if low else values[-1] ** 2 / values[-2]
            values = [float(f"{wider:.3g}"), *values] if low else [*values, float(f"{wider:.3g}")]
        return chosen, tried


def chosen_in_main(data: str, model: str, folder: Path) -> dict:
    """The settings that [main]'s search chose, from its committed table."""
    path = file_of("main", data, "runs", folder)
    if not path.is_file():
        command = f"croco study main --data {shlex.quote(data)} --folder {shlex.quote(str(folder))}"
        raise CrocoError(f"{path} is not there; its settings are needed first: {command}")
    return chosen_settings(pd.read_csv(path, keep_default_na=False), model)


def chosen_settings(runs: pd.DataFrame, model: str) -> dict:
    """The settings of the model's final runs, from a study's table of runs."""
    return json.loads(runs[(runs.model == model) & (runs.stage == "final")].settings.iloc[0])


def starts_from(study: dict, model: str) -> str:
    """The model of [main] whose chosen settings this study takes for `model`."""
    return model if study["settings"] == "main" else study["settings"]


def search_data(data: str, share: float | None) -> str:
    """The data as a search reads it: whole, or the rows of a share of the users."""
    return data if share is None else spec_of(data, {"search_share": share})


def run_study(
    name: str, study: dict, data: str, folder: Path = RESULTS, workers: int = 1, progress: bool = True
) -> None:
    """Run one study on one data set and write its tables.

    `study` has `models`, `seeds`, and may have `search` (trials of the search; without it the defaults, or with
    settings = "main" what [main] chose for the model, or with the name of a model what it chose for that),
    `search_share` (data sets whose searches read a share of the users), `variants` or `grid` (put on top; of a list in
    a variant one value is chosen on validation), `fixed`, `as_large_as` (a model: `dim` is set so that every model has
    about as many embedding parameters as that one), `more_seeds`, `inside` (also measure what goes on inside the
    models). Raises CrocoError where every run of a search failed, or where the data has changed since runs read it.
    """
    runner, inside, fixed = Runner(folder, workers, progress), study.get("inside", False), study.get("fixed", {})
    tried, planned = [], []
    small = search_data(data, study.get("search_share", {}).get(data))
    check_data(list(dict.fromkeys((small, data))), folder / "runs")
    for model in study["models"]:
        base = {}
        if "settings" in study:
            base = chosen_in_main(data, starts_from(study, model), folder)
        if "search" in study:
            searched = [{**trial, **fixed} for trial in trials(model, study["search"])]
            base, jobs = runner.choose(small, model, searched, f"{name}, search of {model}")
            tried += [(model, job) for job in jobs]
        if "as_large_as" in study:
            base = {**base, "dim": dim_of(data, model, study["as_large_as"])}
        for variant in variants_of(study):
            grids = {knob: value for knob, value in variant.items() if isinstance(value, list)}
            variant = {knob: value for knob, value in variant.items() if knob not in grids}
            settings = {**base, **fixed, **variant}
            for knob, values in grids.items():
                settings, jobs = runner.choose_value(small, model, settings, knob, values, f"{name}, {knob}")
                tried += [(model, job) for job in jobs]
            planned.append((model, variant, settings))

    def finals(seeds: range, models: list[str]) -> list[tuple]:
        return [
            (model, variant, settings, make_job(data, model, seed, settings, True, inside))
            for model, variant, settings in planned
            if model in models
            for seed in seeds
        ]

    made = finals(range(study["seeds"]), study["models"])
    runner.run([job for *_, job in made], name)
    if "more_seeds" in study:
        mean = pd.DataFrame([(m, runner.valid(job)) for m, _, _, job in made]).groupby(0)[1].mean()
        close = [m for m in mean.index if abs(mean[m] - mean["crocodile"]) < CLOSE]
        more = finals(range(study["seeds"], study["more_seeds"]), close if len(close) > 1 else [])
        runner.run([job for *_, job in more], f"{name}, more seeds")
        made += more
    write_tables(name, data, made, tried, folder)


def write_tables(name: str, data: str, made: list[tuple], tried: list[tuple], folder: Path) -> None:
    """NAME.DATA.runs.csv, .values.csv and .users.csv, the same bytes however often interrupted, and .costs.csv."""
    runs, values, costs = [], [], []
    for model, variant, settings, job in [*made, *((m, {}, None, job) for m, job in tried)]:
        result, key = read(job, folder / "runs"), key_of(job)
        runs.append(
            dict(
                key=key,
                stage="final" if job["final"] else "search",
                data=job["data"],
                model=model,
                variant=label_of(variant),
                seed=job["seed"],
                settings=json.dumps(settings if job["final"] else {**job["options"], **job["fit"]}, sort_keys=True),
                **{
                    c: result.get(c)
                    for c in ("status", "error", "valid_auc", "best_step", "steps", "parameters", "fingerprint")
                },
                versions=label_of(job["versions"]),
                rules=RULES_HASH,
            )
        )
        values += [(key, *row) for row in result["values"]] if job["final"] else []
        costs.append((key, model, round(result["seconds"], 2), round(result.get("rows_per_second", 0)), result["date"]))
    main = file_of("main", data, "runs", folder)  # whose models those of other studies are held against
    there = name != "main" and main.is_file()
    beside = set(pd.read_csv(main).query("stage == 'final'").groupby("model").seed.max() + 1) if there else set()
    # The table of runs goes first and comes last: by it a study counts as run, so it never stands beside older tables.
    tables = {
        "values": pd.DataFrame(values, columns=["key", "split", "part", "metric", "value"]).drop_duplicates(),
        "users": resampled_users(data, made, folder, beside),
        "costs": pd.DataFrame(costs, columns=["key", "model", "seconds", "rows_per_second", "date"]).drop_duplicates(),
        "runs": pd.DataFrame(runs).drop_duplicates(["key", "model", "variant"]),
    }
    file_of(name, data, "runs", folder).unlink(missing_ok=True)
    for kind, frame in tables.items():
        write_whole(file_of(name, data, kind, folder), partial(frame.to_csv, index=False, float_format="%.10g"))


def check_data(specs: list[str], folder: Path) -> None:
    """Read the data before any run does. Raises DataError where it cannot be used, CrocoError where runs in the folder
    have read it as it was before a change."""
    load_with_fresh.cache_clear()  # the last that is read here serves the runs and the bootstrap of this process, too
    done = [run for run in map(read_outcome, folder.glob("*.json")) if run["status"] == "done"]
    today = [run for run in done if run["job"]["versions"] == VERSIONS]  # no other is gone on with
    for spec in specs:
        now = load_with_fresh(spec)[0].fingerprint
        if {run["fingerprint"] for run in today if run["job"]["data"] == spec} - {now}:
            raise CrocoError(
                f"{parse_data(spec)[0]} has changed since it was read for the runs in {folder}. Give another --folder."
            )
