"""Reading the studies' tables: one metric a seed and a model, and what is compared of them."""

import json
import shlex
from collections.abc import Hashable, Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from ..errors import CrocoError
from ..models import options_of
from .intervals import Gap
from .resampling import RESAMPLED
from .sides import Side
from .space import label_of
from .stamp import refuse_others
from .studies import RESULTS, chosen_settings, file_of, read_studies, starts_from, variants_of

Who = str | dict | tuple[str, dict]  # a model by name, a variant by its settings, or a variant of a model


class Tables:
    """The tables of one study on one data set. Raises CrocoError where they are absent or not today's.

    Those of `croco benchmark` are the user's `own`: failed runs are left out, and no study [main] need agree with them.
    """

    def __init__(self, study: str, data: str, folder: Path = RESULTS, own: bool = False):
        self.study, self.data, self.folder = study, data, folder
        command = f"{f'benchmark --name {study}' if own else f'study {study}'} --data {shlex.quote(data)}"
        self.again = (
            f"Make them again: croco {command}{'' if folder == RESULTS else f' --folder {shlex.quote(str(folder))}'}"
        )
        for kind in ("runs", "values", "users", "costs"):
            if not file_of(study, data, kind, folder).is_file():
                raise CrocoError(f"There are no results of the study {study!r} on {data} in {folder}. {self.again}")
        self._sides: dict[tuple, Side] = {}  # each is made once, for a judgement asks for it many times
        self.runs = pd.read_csv(file_of(study, data, "runs", folder), keep_default_na=False)
        refuse_others(self.runs, f"The results of {study!r} on {data}", self.again)
        if not own:
            self._refuse_parts()

    def _refuse_parts(self) -> None:
        """Raise CrocoError for runs that failed, and for results of other data or settings than those of [main]."""
        subject = f"The results of {self.study!r} on {self.data}"
        final = self.runs[self.runs.stage == "final"]
        if failed := sorted({f"{r.model} ({r.error})" for r in final.itertuples() if r.status != "done"}):
            raise CrocoError(
                f"{subject} lack runs that failed: {'; '.join(failed)}. A model that fails at some seeds "
                f"cannot be judged by the others. {self.again}"
            )
        prints = set(final.fingerprint)
        if self.study != "main" and file_of("main", self.data, "runs", self.folder).is_file():
            main = pd.read_csv(file_of("main", self.data, "runs", self.folder), keep_default_na=False)
            prints |= set(main[(main.stage == "final") & (main.status == "done")].fingerprint)
            self._refuse_other_settings(main, final)
        if len(prints) > 1:
            raise CrocoError(
                f"{subject} were made with other data than those of the study 'main', or of several. {self.again}"
            )

    def _refuse_other_settings(self, main: pd.DataFrame, final: pd.DataFrame) -> None:
        """Raise CrocoError where the settings were taken from a search of [main] that has been made anew since."""
        study = read_studies().get(self.study, {})
        for model in final.model.unique() if "settings" in study else ():
            base = chosen_settings(main, starts_from(study, model))
            put_on_top = {knob for variant in variants_of(study) for knob in variant}
            for text in final[final.model == model].settings.unique():
                theirs = {k: v for k, v in json.loads(text).items() if k not in put_on_top}
                if theirs != {k: v for k, v in base.items() if k not in put_on_top}:
                    raise CrocoError(
                        f"The results of {self.study!r} on {self.data} have other settings of {model} "
                        f"than the search of 'main' chose. {self.again}"
                    )

    @cached_property
    def values(self) -> pd.DataFrame:
        """The final runs, tidy: model, variant, seed, split, part, metric, value."""
        done = self.runs[(self.runs.stage == "final") & (self.runs.status == "done")]
        path = file_of(self.study, self.data, "values", self.folder)
        values = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})  # "NA" may be a domain
        if set(done.key) - set(values.key):
            raise CrocoError(f"{path} lacks runs that the table of runs beside it has. {self.again}")
        return done[["key", "model", "variant", "seed"]].merge(values, on="key").drop(columns="key")

    @cached_property
    def users(self) -> pd.DataFrame:
        """The AUC and gAUC of the final runs on resampled test users."""
        path = file_of(self.study, self.data, "users", self.folder)
        # Only a metric may be missing: "" is also the name of a variant.
        users = pd.read_csv(path, keep_default_na=False, na_values={metric: [""] for metric in RESAMPLED})
        if "seeds" not in users:
            raise CrocoError(
                f"{path} was written by an older version. {self.again}; runs that are kept stay as they are."
            )
        return users

    @cached_property
    def _by_metric(self) -> dict[Hashable, pd.DataFrame]:
        return dict(iter(self.values.groupby(["metric", "part", "split"])))

    @cached_property
    def _by_part(self) -> dict[Hashable, pd.DataFrame]:
        return dict(iter(self.users.groupby(["part", "split"])))

    def _measured(self, metric: str, part: str, split: str) -> pd.DataFrame:
        """The values of one metric on one part of a split: a judgement asks for hundreds, so they are sorted once."""
        return self._by_metric.get((metric, part, split), self.values.iloc[:0])

    def metric(self, metric: str, part: str = "all", split: str = "test", by: str = "model") -> pd.DataFrame:
        """One row per seed, one column per model (or variant)."""
        return self._measured(metric, part, split).pivot(index="seed", columns=by, values="value")

    def domains(self) -> pd.Series:
        """Training rows of each domain, in the data's order."""
        rows = self.values.query("split == 'train' and metric == 'rows'").drop_duplicates("part")
        return rows.set_index("part").value

    def smallest(self) -> dict:
        """Where the smallest domain is measured best: part and split."""
        return dict(part=self.domains().idxmin(), split="fresh" if (self.values.split == "fresh").any() else "test")

    def ratio(self) -> float:
        """How many times as many training rows the largest domain has as the smallest."""
        return float(self.domains().max() / self.domains().min())

    def over_start(self, metric: str, part: str = "all", split: str = "test") -> pd.DataFrame:
        """A measure over its own value before training: a row a seed, a column a model."""
        return self.metric(metric, part, split) / self.metric(f"{metric}_start", part, split)

    def best_on_validation(self, names: Iterable[str], by: str = "model") -> str:
        """Which of these models (or variants) has the best mean validation AUC: chosen without a look at test rows."""
        final = self.runs[(self.runs.stage == "final") & self.runs[by].isin(list(names))]
        return str(final.valid_auc.astype(float).groupby(final[by]).mean().idxmax())

    def side(self, who: Who, metric: str = "auc", part: str = "all", split: str = "test") -> Side:
        """One model (a name), variant (its settings) or variant of a model (both) of the study.

        Raises CrocoError for one that is not in it.
        """
        model, settings = who if isinstance(who, tuple) else (who, None) if isinstance(who, str) else (None, who)
        wanted = {} if model is None else {"model": model}
        wanted |= {} if settings is None else {"variant": label_of(settings)}
        return self._side(wanted, metric, part, split)

    def _side(self, wanted: dict[str, str], metric: str, part: str = "all", split: str = "test") -> Side:
        """The side of all runs with this `model`, `variant` or both."""
        key = (*wanted.items(), metric, part, split)
        if key not in self._sides:
            self._sides[key] = self._made_side(wanted, metric, part, split)
        return self._sides[key]

    def _made_side(self, wanted: dict[str, str], metric: str, part: str, split: str) -> Side:
        def chosen(frame: pd.DataFrame) -> pd.DataFrame:
            for column, name in wanted.items():
                frame = frame[frame[column] == name]
            return frame

        if chosen(self.runs).empty:
            raise CrocoError(f"The study {self.study!r} on {self.data} has no {', '.join(wanted.values())!r}.")
        measured = chosen(self._measured(metric, part, split))
        seeds = measured.set_index("seed").value
        if not seeds.index.is_unique:
            what, several = ", ".join(wanted.values()), "models" if "model" not in wanted else "variants"
            raise CrocoError(f"The study {self.study!r} on {self.data} has {what!r} in several {several}; name one.")
        if metric not in RESAMPLED:
            return Side(seeds, None)
        drawn = chosen(self._by_part.get((part, split), self.users.iloc[:0]))
        if drawn.empty:
            return Side(seeds, None)
        return Side(seeds, drawn.pivot(index="draw", columns="seeds", values=metric))

    def gap(self, one: Who, other: Who, metric: str = "auc", part: str = "all", split: str = "test") -> Gap:
        """One model or variant of this study minus another."""
        return (self.side(one, metric, part, split) - self.side(other, metric, part, split)).gap()

    def against_best(self, metric: str) -> pd.DataFrame:
        """Every model in every variant, best mean on top: mean, difference from the best, an interval for all pairs."""
        done = (self.runs.stage == "final") & (self.runs.status == "done")
        sides = {
            ", ".join(filter(None, (p.model, p.variant))): self._side({"model": p.model, "variant": p.variant}, metric)
            for p in self.runs[done].drop_duplicates(["model", "variant"]).itertuples()
        }
        sides = {name: side for name, side in sides.items() if side.seeds.notna().any()}
        order = sorted(sides, key=lambda name: -sides[name].seeds.mean())
        # The same values choose the best, so Bonferroni's correction counts all pairs.
        level = 1 - 0.05 / max(1, len(order) * (len(order) - 1) // 2)
        gaps = {name: (sides[name] - sides[order[0]]).gap() for name in order}
        rows = [(name, sides[name].seeds.mean(), g.value, *g.interval(level)) for name, g in gaps.items()]
        return pd.DataFrame(rows, columns=["run", "mean", "difference", "low", "high"])

    def beside(self, study: str) -> "Tables":
        """Another study's tables on the same data, from the same folder."""
        return Tables(study, self.data, self.folder)

    def settings_of(self, model: str) -> dict:
        """What the search chose for the model."""
        return chosen_settings(self.runs, model)

    def chosen_alpha(self) -> float:
        """The weight of CovLoss that the search chose; a setting that it left alone has its default."""
        return self.settings_of("crocodile").get("alpha", options_of("crocodile")["alpha"])

    def made_by(self) -> str:
        """The command, the numbers of runs and seeds, the date and the versions behind it."""
        costs = pd.read_csv(file_of(self.study, self.data, "costs", self.folder))
        final = self.runs[self.runs.stage == "final"]
        return (
            f"croco study {self.study} --data {self.data} ({len(self.runs)} runs, "
            f"{final.groupby(['model', 'variant']).seed.nunique().max()} seeds, {costs.date.max()}, "
            f"{self.runs.versions.iloc[0]})"
        )
