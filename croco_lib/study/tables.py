"""Reading the studies' tables: one metric a seed and a model, differences with an interval, and what could be seen."""

import json
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

from ..console import VERSIONS
from ..errors import CrocoError
from .studies import RESULTS, file_of, label_of, studies

CHECKED = ("torch", "numpy")  # versions under which results count as today's


class Gap(NamedTuple):
    """A difference: its mean over seeds, 95 % interval over seeds and test users, and what the design could see."""

    value: float
    low: float
    high: float
    detectable: float  # the smallest true difference seen at 80 % power
    seeds: int


def detectable(error: float, seeds: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that a two-sided t test with this standard error sees with this power."""
    df, critical = seeds - 1, stats.t.ppf(1 - level / 2, seeds - 1)
    if not 0 < error < np.inf or seeds < 2:
        return float("nan")
    seen = optimize.brentq(lambda d: stats.nct.sf(critical, df, d) - power, 0, 100)
    return float(seen * error)


def gap(differences: pd.Series, users_error: float = 0.0) -> Gap:
    """The mean of the seeds' differences; its error adds the seeds' variance and the test users'. t with n − 1 df."""
    d = differences.dropna().to_numpy()
    n = len(d)
    if n < 2:
        return Gap(float(d.mean()) if n else np.nan, -np.inf, np.inf, np.nan, n)
    error = float(np.hypot(stats.sem(d), users_error))
    half = stats.t.ppf(0.975, n - 1) * error
    return Gap(float(d.mean()), float(d.mean() - half), float(d.mean() + half), detectable(error, n), n)


class Tables:
    """The tables of one study on one data set. Raises CrocoError where they are absent or not today's."""

    def __init__(self, study: str, data: str, folder: Path = RESULTS):
        from .rules import RULES_HASH

        self.study, self.data, self.folder = study, data, folder
        again = f"Make them again: croco study {study} --data {data}"
        for kind in ("runs", "values", "users", "costs"):
            if not file_of(study, data, kind, folder).is_file():
                raise CrocoError(f"There are no results of the study {study!r} on {data} in {folder}. {again}")
        self.runs = pd.read_csv(file_of(study, data, "runs", folder), keep_default_na=False)
        if set(self.runs.rules) != {RULES_HASH}:
            raise CrocoError(f"The results of {study!r} on {data} were made under other rules. {again}")
        made = dict(part.split(": ") for part in self.runs.versions.iloc[0].split(", "))
        release = lambda text: (text or "").partition("+")[0]  # noqa: E731  2.13.0+cpu and 2.13.0 are one release
        if other := [f"{p} {made.get(p)}" for p in CHECKED if release(made.get(p)) != release(VERSIONS[p])]:
            raise CrocoError(f"The results of {study!r} on {data} were made with {', '.join(other)}. {again}")

    @cached_property
    def values(self) -> pd.DataFrame:
        """The final runs, tidy: model, variant, seed, split, part, metric, value."""
        done = self.runs[(self.runs.stage == "final") & (self.runs.status == "done")]
        values = pd.read_csv(file_of(self.study, self.data, "values", self.folder))
        return done[["key", "model", "variant", "seed"]].merge(values, on="key").drop(columns="key")

    @cached_property
    def users(self) -> pd.DataFrame:
        path = file_of(self.study, self.data, "users", self.folder)
        return pd.read_csv(path, keep_default_na=False, na_values={"auc": [""]})  # "" is also a variant's name

    def metric(self, metric: str, part: str = "all", split: str = "test", by: str = "model") -> pd.DataFrame:
        """A row a seed, a column a model (or variant)."""
        rows = self.values.query("metric == @metric and part == @part and split == @split")
        return rows.pivot(index="seed", columns=by, values="value")

    def domains(self) -> pd.Series:
        """Training rows of each domain, in the data's order."""
        rows = self.values.query("split == 'train' and metric == 'rows'").drop_duplicates("part")
        return rows.set_index("part").value

    def smallest(self) -> dict:
        """Where the smallest domain is measured best: part and split."""
        return dict(part=self.domains().idxmin(), split="fresh" if (self.values.split == "fresh").any() else "test")

    def gap(self, one: str | dict, other: str | dict, metric: str = "auc", part: str = "all",
            split: str = "test") -> Gap:
        """One model (a name) or variant (its settings) minus another. AUC's interval covers the test users as well."""
        by = "variant" if isinstance(one, dict) else "model"
        a, b = (label_of(x) if isinstance(x, dict) else x for x in (one, other))
        wide = self.metric(metric, part, split, by)
        if missing := [x for x in (a, b) if x not in wide]:
            if metric not in self.values.metric.values:
                raise CrocoError(f"The study {self.study!r} on {self.data} has no {', '.join(map(repr, missing))}.")
            return Gap(np.nan, np.nan, np.nan, np.nan, 0)  # the study measures it, only not of these two
        error = 0.0
        if metric == "auc":
            drawn = self.users.query("part == @part and split == @split").pivot(index="draw", columns=by, values="auc")
            error = float((drawn[a] - drawn[b]).std())
        return gap(wide[a] - wide[b], error)

    def made_by(self) -> str:
        """The command, runs, seeds, date, versions and rules behind it."""
        costs = pd.read_csv(file_of(self.study, self.data, "costs", self.folder))
        final = self.runs[self.runs.stage == "final"]
        return (f"croco study {self.study} --data {self.data} ({len(self.runs)} runs, "
                f"{final.groupby(['model', 'variant']).seed.nunique().max()} seeds, {costs.date.max()}, "
                f"{self.runs.versions.iloc[0]})")


def whole(folder: Path = RESULTS) -> list[tuple[str, str]]:
    """(study, data) of all that is committed, in the order of studies.toml."""
    return [(name, data) for name, study in studies().items() for data in study["data"]
            if file_of(name, data, "runs", folder).is_file()]


def settings_of(tables: Tables, model: str) -> dict:
    """What the search chose for the model."""
    return json.loads(tables.runs.query("model == @model and stage == 'final'").settings.iloc[0])
