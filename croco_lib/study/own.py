"""A comparison of one's own, checked before its first run: what it asks for, and what lies in its folder already."""

from pathlib import Path

import pandas as pd

from ..errors import CrocoError, known
from ..models import options_of
from .jobs import FIT, load_with_fresh, read_outcome
from .space import label_of
from .spec import parse_data
from .studies import file_of, variants_of


def check_knobs(models: list[str], grid: dict) -> None:
    """Raise CrocoError for a knob of the grid that none of the models has."""
    knobs = dict.fromkeys([*FIT, "start", *(knob for model in models for knob in options_of(model))])
    for knob in grid:
        known(f"knob of {', '.join(models)}", knob, knobs)


def check_data(spec: str, folder: Path) -> None:
    """Read the data before any run does. Raises DataError where it cannot be used, CrocoError where runs in the folder
    have read it as it was before a change."""
    load_with_fresh.cache_clear()  # what is read here serves the runs and the bootstrap of this process, too
    now = load_with_fresh(spec)[0].fingerprint
    runs = [read_outcome(file) for file in folder.glob("*.json")]
    if {run["fingerprint"] for run in runs if run["job"]["data"] == spec and run["status"] == "done"} - {now}:
        raise CrocoError(
            f"{parse_data(spec)[0]} has changed since it was read for the runs in {folder}. Give another --folder."
        )


def refuse_to_lose(name: str, spec: str, folder: Path, study: dict) -> None:
    """Raise CrocoError where tables of this name hold runs that the study does not ask for: they would be replaced."""
    if not (path := file_of(name, spec, "runs", folder)).is_file():
        return
    runs = pd.read_csv(path, keep_default_na=False).query("stage == 'final'")
    asked = {(m, label_of(v), s) for m in study["models"] for v in variants_of(study) for s in range(study["seeds"])}
    if lost := sorted(set(zip(runs.model, runs.variant, runs.seed, strict=True)) - asked):
        model, variant, seed = lost[0]
        raise CrocoError(
            f"{path} holds {len(lost)} runs that are not asked for now, among them {model}"
            f"{f' ({variant})' if variant else ''} at seed {seed}. Give the new tables another --name."
        )
