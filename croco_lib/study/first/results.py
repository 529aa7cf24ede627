"""Reading the first protocol's tables."""

import json
from pathlib import Path

import pandas as pd

from ...errors import ROOT, CrocoError

RESULTS = ROOT / "data" / "results"


def results(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """The study's final runs, tidy: data, model, variant, seed, split, part, metric, value.

    Raises CrocoError where they are absent.
    """
    for kind in ("runs", "values"):
        if not (folder / f"{name}.{kind}.csv").is_file():
            raise CrocoError(
                f"There are no results of the study {name!r} in {folder}. Make them: croco benchmark --study {name}"
            )
    runs = pd.read_csv(folder / f"{name}.runs.csv", keep_default_na=False)
    runs = runs.loc[(runs.stage == "final") & (runs.status == "done"), ["key", "data", "model", "variant", "seed"]]
    return runs.merge(pd.read_csv(folder / f"{name}.values.csv"), on="key").drop(columns="key")


def select(frame: pd.DataFrame, data: str, metric: str, part: str = "all", split: str = "test") -> pd.DataFrame:
    """One metric's rows of `results`."""
    return frame.query("data == @data and metric == @metric and part == @part and split == @split")


class Results:
    """The committed (or any other) results of the studies, read when asked for."""

    def __init__(self, folder: Path = RESULTS):
        self.folder = folder
        self.read: dict[str, pd.DataFrame] = {}

    def __getitem__(self, study: str) -> pd.DataFrame:
        if study not in self.read:
            self.read[study] = results(study, self.folder)
        return self.read[study]

    def data(self, study: str) -> list[str]:
        """The study's data sets."""
        return list(self[study].data.unique())

    def values(
        self, study: str, data: str, metric: str, part: str = "all", split: str = "test", by: str = "model"
    ) -> pd.DataFrame:
        """One metric, a row a seed and a column a model (or variant)."""
        rows = select(self[study], data, metric, part, split)
        return rows.pivot(index="seed", columns=by, values="value")

    def domains(self, data: str, study: str = "main") -> pd.Series:
        """Training rows of each domain, in the data's order."""
        rows = self[study].query("data == @data and split == 'train' and metric == 'rows'")
        return rows.drop_duplicates("part").set_index("part").value

    def smallest(self, data: str) -> dict:
        """Where to look for the smallest domain: its name, and the split that measures it best."""
        fresh = (self["main"].query("data == @data").split == "fresh").any()
        return dict(part=self.domains(data).idxmin(), split="fresh" if fresh else "test")

    def online(self) -> tuple[pd.DataFrame, dict] | None:
        """The simulated online test, its lifts and what made it, where `croco online` left it."""
        if not (self.folder / "online.csv").is_file():
            return None
        made = json.loads((self.folder / "online.json").read_text(encoding="utf-8"))
        return pd.read_csv(self.folder / "online.csv"), made

    def made_by(self, study: str) -> str:
        """The command, date and versions behind a study."""
        runs = pd.read_csv(self.folder / f"{study}.runs.csv", keep_default_na=False)
        costs = pd.read_csv(self.folder / f"{study}.costs.csv")
        seeds = runs[runs.stage == "final"].groupby("variant").seed.nunique().max()
        return (
            f"croco benchmark --study {study} ({len(runs)} runs, {seeds} seeds, {costs.date.max()}, "
            f"{runs.versions.iloc[0]})"
        )
