"""A comparison of one's own, checked before its first run: what it asks for, and what lies in its folder already."""

from pathlib import Path

import pandas as pd

from ..errors import CrocoError, known
from ..models import options_of
from .jobs import FIT
from .space import label_of
from .studies import TUNING_SEEDS, file_of, variants_of


def check_knobs(models: list[str], grid: dict) -> None:
    """Raise CrocoError for a knob of the grid that one of the models lacks: all of its runs would fail."""
    for model in models:
        for knob in grid:
            known(f"knob of {model}", knob, [*FIT, "start", *options_of(model)])


def refuse_to_lose(name: str, spec: str, folder: Path, study: dict) -> None:
    """Raise CrocoError where tables of this name hold runs that the study does not ask for: they would be replaced."""
    if not (path := file_of(name, spec, "runs", folder)).is_file():
        return
    every = pd.read_csv(path, keep_default_na=False)
    tried = max(every.query(f"stage == 'search' and seed == {TUNING_SEEDS[0]}").model.value_counts(), default=0)
    if tried != study.get("search", 0):
        how = f"a search of {tried} settings" if tried else "no search"
        raise CrocoError(f"{path} was made with {how}. Give the new tables another --name.")
    runs = every.query("stage == 'final'")
    planned = {(m, label_of(v), s) for m in study["models"] for v in variants_of(study) for s in range(study["seeds"])}
    if lost := sorted(set(zip(runs.model, runs.variant, runs.seed, strict=True)) - planned):
        model, variant, seed = lost[0]
        raise CrocoError(
            f"{path} holds {len(lost)} runs that are not asked for now, among them {model}"
            f"{f' ({variant})' if variant else ''} at seed {seed}. Give the new tables another --name."
        )
