"""The committed simulation of the online test: two arms, and every table that lesson 11 reads. [ours]

Each arm is trained with several seeds: an interval over users knows nothing of how a lift varies with the training.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.special import expit
from torch import nn

from ..console import VERSIONS
from ..datasets.registry import load
from ..errors import ROOT, write_text, write_whole
from ..evaluation import predict
from ..models import build
from ..schema import MultiDomainData
from ..study.jobs import built, make_job, train_as
from ..study.rules import BASELINES
from ..study.studies import chosen_settings, file_of
from .abtest import aa_z_scores, assign, compare, false_positives, power, users_needed
from .calibration import distort, platt, reliability
from .faults import FAULTS, simulate_fault
from .market import METRICS, Market, Requests, draw_requests, make_market, predict_candidates, serve, train_continually
from .serving import export, latency

RESULTS = ROOT / "data" / "results"
SEARCHED = file_of("main", "world", "runs")  # where the arms' settings were searched
TRAININGS = 3  # of each arm, with seeds of their own
LIFT = 0.0072  # of CTR, as the paper reports it


def choose_arms(searched: Path = SEARCHED) -> dict[str, dict]:
    """The baseline that is best on the made world's validation, and Crocodile, each with the settings of its search.

    Where the study [main] has not been run on the made world: Shared-Bottom and Crocodile, with their defaults.
    """
    if not searched.is_file():
        return {"shared-bottom": {}, "crocodile": {}}
    runs = pd.read_csv(searched, keep_default_na=False).query("stage == 'final' and status == 'done'")
    auc = runs.valid_auc.astype(float).groupby(runs.model).mean()
    baselines = auc[auc.index.isin(BASELINES)]
    return {model: chosen_settings(runs, model) for model in (str(baselines.idxmax()), "crocodile")}


def train_arm(
    name: str, settings: Mapping, data: MultiDomainData, seed: int = 0, folder: Path | None = None
) -> nn.Module:
    """The model with these settings, trained on `data` as a study trains it; `folder` as for `fit`."""
    job = make_job("world", name, seed, dict(settings), final=True)
    return train_as(job, built(job, data), data, folder).model


def simulate(
    folder: Path,
    data: Mapping | None = None,
    count: int = 1_000_000,
    candidates: int = 20,
    days: int = 14,
    seed: int = 0,
    trainings: int = TRAININGS,
    say: Callable[[str], object] = print,
) -> None:
    """Run it all; write online.csv (the lifts), online.X.csv (one for each further table) and online.json.

    The lifts are those of every training; the further tables are of the first. `folder`/runs keeps the trained arms, so
    what was interrupted goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "online.json").unlink(missing_ok=True)  # written last: without it the tables may be of two simulations
    world, arms = load("world", **(data or {})), choose_arms()
    market = make_market(world, seed)
    requests = draw_requests(market, count, candidates, days, seed)

    def arms_of(training: int) -> tuple[dict[str, nn.Module], dict[str, np.ndarray], dict[str, pd.DataFrame]]:
        models, scores = {}, {}
        for m, settings in arms.items():
            models[m] = train_arm(m, settings, world, training, folder / "runs" / f"{m}.{training}")
            say(f"training {training}: {m} is trained")
            scores[m] = predict_candidates(models[m], market, requests)
            say(f"training {training}: {m} has served {count:,} requests")
        return models, scores, {m: serve(market, requests, p) for m, p in scores.items()}

    models, scores, shown = arms_of(seed)
    served = chain([shown], (arms_of(training)[2] for training in range(seed + 1, seed + trainings)))
    lifts = pd.concat([measure_lifts(market, each, seed).assign(training=seed + k) for k, each in enumerate(served)])
    for name, table in measure(models, market, requests, scores, shown, lifts, seed):
        write_whole(folder / name, partial(table.to_csv, index=False, float_format="%.6g"))
        say(f"{name} written")
    command = f"croco online --folder {shlex.quote(str(folder))} --requests {count} --seed {seed}"
    about = dict(
        command=command,
        data=world.name,
        options=world.notes["options"],
        fingerprint=world.fingerprint,
        requests=count,
        candidates=candidates,
        days=days,
        seed=seed,
        trainings=trainings,
        arms=arms,
        versions=VERSIONS,
        date=time.strftime("%Y-%m-%d"),
    )
    write_text(folder / "online.json", json.dumps(about, indent=1))


def measure(
    models: Mapping[str, nn.Module],
    market: Market,
    requests: Requests,
    scores: Mapping[str, np.ndarray],
    shown: Mapping[str, pd.DataFrame],
    lifts: pd.DataFrame,
    seed: int,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table under its file's name, as it is done. `scores` [N, C] and what was `shown` are each arm's."""
    baseline = next(iter(shown.values()))
    few = requests.take(slice(20_000))
    yield "online.csv", lifts
    yield (
        "online.aa.csv",
        pd.concat(
            [
                false_positives(aa_z_scores(baseline, market, metric, 2_000, seed)).assign(metric=metric)
                for metric in METRICS
            ]
        ),
    )
    yield "online.power.csv", measure_power(lifts.query("training == @seed"), market.users)
    yield "online.calibration.csv", measure_calibration(models, market, shown)
    yield "online.gmv.csv", measure_distortions(models, market, requests, scores)
    yield "online.daily.csv", measure_daily_lifts(models, market, requests.take(slice(len(requests.day) // 5)))
    yield (
        "online.faults.csv",
        pd.concat(
            [
                simulate_fault(
                    deepcopy(models["crocodile"]), market, fault, tolerance=tolerance, requests=few, seed=seed
                )
                for fault in (None, *FAULTS)
                for tolerance in (False, True)
            ]
        ),
    )
    yield "online.latency.csv", measure_latency(market.data)


def measure_lifts(market: Market, shown: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """The second arm's lift over the first, as an A/B test sees it and as it truly is on this traffic."""
    (a, first), (b, second) = shown.items()
    users = {"A/B test": assign(market.users, seed=seed), "true, on this traffic": None}
    return pd.concat([compare(first, second, market, who).assign(measured=how) for how, who in users.items()]).assign(
        baseline=a, test=b
    )


def measure_power(lifts: pd.DataFrame, users: int) -> pd.DataFrame:
    """For each metric, the chance that this A/B test sees the paper's lift, and the users that would see it."""
    errors = lifts.query("domain == 'all' and measured == 'A/B test'").set_index("metric").se
    return pd.DataFrame(
        [(metric, LIFT, se, users, power(LIFT, se), users_needed(LIFT, se, users)) for metric, se in errors.items()],
        columns=["metric", "lift", "se", "users", "power", "users_for_80_percent"],
    )


def measure_calibration(
    models: Mapping[str, nn.Module], market: Market, shown: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """`reliability` of each model on ads drawn at random, and on those that it has chosen itself."""
    fresh, tables = market.world.fresh(20_000), []
    for m, model in models.items():
        seen = {
            "random ads": (fresh.label, expit(predict(model, fresh)), fresh.domain),
            "ads shown": tuple(shown[m][c].to_numpy() for c in ("ctr", "predicted", "domain")),
        }
        tables += [
            reliability(label, p, domain, market.data.domains).assign(model=m, on=on)
            for on, (label, p, domain) in seen.items()
        ]
    return pd.concat(tables)


def measure_distortions(
    models: Mapping[str, nn.Module], market: Market, requests: Requests, scores: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """What each model earns, per request and in truth, with its predictions as they are, calibrated and distorted."""
    rows = []
    for m, model in models.items():
        slope, shift = platt(model, market.data.valid)[requests.domain].T[..., None]  # each [N, 1]
        for how, p in (
            ("as trained", scores[m]),
            ("Platt by domain", distort(scores[m], slope, shift)),
            ("logits × 2", distort(scores[m], 2)),
            ("logits × ½", distort(scores[m], 0.5)),
        ):
            rows.append((m, how, *serve(market, requests, p)[[f"true_{metric}" for metric in METRICS]].mean()))
    return pd.DataFrame(rows, columns=["model", "predictions", *METRICS])


def measure_daily_lifts(models: Mapping[str, nn.Module], market: Market, requests: Requests) -> pd.DataFrame:
    """The true lift on each of seven days, when both arms learn every day from what they have shown themselves."""
    requests = requests._replace(day=np.arange(len(requests.day)) * 7 // len(requests.day))
    first, second = train_continually({m: deepcopy(model) for m, model in models.items()}, market, requests).values()
    return pd.concat(
        [compare(first[first.day == day], second[second.day == day], market).assign(day=day) for day in range(7)]
    )


def measure_latency(world: MultiDomainData) -> pd.DataFrame:
    """p50 and p99 of one request to exported models, untrained: Shared-Bottom, and Crocodile by its embedding sets."""
    rows = []
    for name, options in (("shared-bottom", {}), *(("crocodile", dict(sets=sets)) for sets in (1, 2, 5, 8))):
        with TemporaryDirectory() as exported:
            model = build(name, world, **options)
            rows.append(
                (
                    name,
                    options.get("sets", 1),
                    sum(p.numel() for p in model.parameters()),
                    *latency(export(model, world, exported)),
                )
            )
    return pd.DataFrame(rows, columns=["model", "sets", "parameters", "p50_ms", "p99_ms"])
