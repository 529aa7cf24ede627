"""The search space: for every model as many settings to choose from, and as many tries. [ours]"""

import json
from math import prod

import numpy as np

from ..errors import CrocoError, known
from ..models import MODELS

# A model in a study is a model of the library, or one with an option fixed.
FIXED: dict[str, tuple[str, dict]] = {
    "crocodile without CovLoss": ("crocodile", {"alpha": 0.0}),
    "crocodile with a domain gate": ("crocodile", {"gate": "domain"}),
    "crocodile with one set": ("crocodile", {"multi_embedding": False}),
    "crocodile with Cos": ("crocodile", {"regulariser": "cos"}),
}

# The studies' default comes first everywhere: the first trial of every search is the defaults.
COMMON = {
    "lr": (3e-3, 1e-3, 2e-3, 5e-3, 1e-2),
    "weight_decay": (0.0, 1e-6, 1e-5, 1e-4),
    "dim": (16, 8, 32),
    "expert": ((64, 32), (32, 16), (128, 64)),
}
# Two knobs more, of three and of four values: the model's own where it has them, else batch size and tower.
BATCH, TOWER = ("batch_size", (2048, 1024, 4096)), ("tower", ((16,), (32,), (32, 16), (64,)))
OWN = {
    "mmoe": (("experts", (5, 3, 8)), TOWER),
    "me-mmoe": (("experts", (5, 3, 8)), TOWER),
    "ple": (("per_stream", (1, 2, 3)), TOWER),
    "me-ple": (("per_stream", (1, 2, 3)), TOWER),
    "hinet": (("per_stream", (2, 1, 3)), TOWER),
    "pepnet": (("hidden", (32, 16, 64)), TOWER),
    "adasparse": (("epsilon", (0.25, 0.1, 0.4)), TOWER),
    "crocodile": (("sets", (5, 3, 8)), ("alpha", (0.1, 0.001, 0.01, 1.0))),
    "crocodile without CovLoss": (("sets", (5, 3, 8)), TOWER),
    "crocodile with Cos": (("sets", (5, 3, 8)), ("alpha", (0.1, 0.0003, 0.003, 0.03))),
}
OWN |= {name: OWN["crocodile"] for name in ("crocodile with a domain gate", "crocodile with one set")}


def registered(name: str) -> tuple[str, dict]:
    """The library's model behind a study's, and what is fixed of it. Raises CrocoError for an unknown name."""
    return FIXED.get(name) or (known("model", name, [*MODELS, *FIXED]), {})


def knobs_of(name: str) -> dict[str, tuple]:
    """The knobs of this model and their values: 5 · 4 · 3 · 3 · 3 · 4 = 2,160 settings for every model."""
    registered(name)
    return COMMON | dict(OWN.get(name, (BATCH, TOWER)))


def trials(name: str, count: int) -> list[dict]:
    """`count` different settings: the defaults, then random draws. What is common to all models is drawn alike.

    Raises CrocoError where the space holds fewer.
    """
    if count > (size := prod(map(len, knobs_of(name).values()))):
        raise CrocoError(f"The space of {name} holds {size:,} settings, so {count:,} of them cannot be tried.")
    rng = np.random.default_rng(0)
    drawn: list[dict] = [{}]
    while len(drawn) < count:
        setting = {knob: values[rng.integers(len(values))] for knob, values in knobs_of(name).items()}
        drawn += [setting] if setting not in drawn else []
    return drawn[:count]


def label_of(settings: dict) -> str:
    """Settings as a variant's name: "alpha: 0.1, sets: 2"."""
    return json.dumps(settings, sort_keys=True).replace('"', "")[1:-1]
