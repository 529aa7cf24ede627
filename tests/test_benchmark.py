"""The benchmark goes on where it was killed, records failures, and its statistics are scipy's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from croco_lib import CrocoError
from croco_lib.cli import app
from croco_lib.lessons.comparison import against, interval
from croco_lib.models import MODELS, options_of
from croco_lib.study.first.benchmark import (
    COMMON,
    DEFAULT_FIT,
    FIT,
    NO_OWN,
    OWN,
    make_job,
    run_job,
    run_study,
    studies,
    trials,
)
from croco_lib.study.first.results import results, select
from croco_lib.study.jobs import key_of, parse_data

DATA = "world:rows=4000,users=100,items=200"
STUDY = dict(data=[DATA], models=["shared-bottom", "crocodile"], trials=2, seeds=2, fixed={"epochs": 1})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    run_study("small", STUDY, folder, workers=1, progress=False)
    return folder


def tables(folder):
    return [(folder / f"small.{kind}.csv").read_bytes() for kind in ("runs", "values")]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(finished, tmp_path):
    code = (
        "from croco_lib.study.first.benchmark import run_study; from pathlib import Path; import json, sys; "
        "run_study('small', json.loads(sys.argv[1]), Path(sys.argv[2]), 1, False)"
    )
    command = [sys.executable, "-c", code, json.dumps(STUDY), str(tmp_path)]
    for wanted in (1, 4):  # killed once in the search and once among the seeds
        process = subprocess.Popen(command, start_new_session=True)
        while len(list(tmp_path.glob("runs/*.json"))) < wanted and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (tmp_path / "runs" / "torn.123.tmp").write_text('{"half": ')  # what a kill within a write leaves
    assert not (tmp_path / "small.runs.csv").exists()
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*.json")}
    run_study("small", STUDY, tmp_path, workers=2, progress=False)
    assert tables(tmp_path) == tables(finished)
    assert len(before) >= 4 and all((tmp_path / "runs" / n).stat().st_mtime_ns == t for n, t in before.items())
    assert not list(tmp_path.glob("runs/*.tmp"))


def test_a_failed_run_is_recorded_and_the_rest_goes_on(tmp_path):
    study = dict(
        data=[DATA], models=["shared-bottom"], seeds=1, variants=[{"alpha": 0.1, "epochs": 1}, {"dim": 4, "epochs": 1}]
    )
    run_study("bad", study, tmp_path, progress=False)
    runs = pd.read_csv(tmp_path / "bad.runs.csv", keep_default_na=False)
    assert runs.status.tolist() == ["failed", "done"]
    assert "option of shared-bottom 'alpha'" in runs.error[0]
    assert set(results("bad", tmp_path).variant) == {"dim: 4, epochs: 1"}


def test_trials_are_equal_for_every_model():
    for model in MODELS:
        drawn = trials(model, 5)
        assert len(drawn) == 5 and drawn[0] == {}
        for mine, others in zip(drawn, trials("shared-bottom", 5), strict=True):
            own, values = OWN.get(model, NO_OWN)
            assert mine == {} == others or mine.pop(own) in values and others.pop(NO_OWN[0]) and mine == others
    for name, (knob, values) in [*OWN.items(), (None, NO_OWN)]:
        assert len(set(values)) == 3  # so every space is as large
        assert name is None or options_of(name)[knob] == values[0]
    assert DEFAULT_FIT[NO_OWN[0]] == NO_OWN[1][0]
    assert options_of("crocodile")["dim"] == COMMON["dim"][0] and options_of("mmoe")["tower"] == COMMON["tower"][0]


def test_a_trial_never_sees_the_test_split(finished):
    runs = pd.read_csv(finished / "small.runs.csv", keep_default_na=False)
    values = pd.read_csv(finished / "small.values.csv")
    search = set(runs.key[runs.stage == "search"])
    assert len(search) == 4 and not search & set(values.key)
    final = runs[(runs.stage == "final") & (runs.model == "crocodile")]
    best = runs[(runs.stage == "search") & (runs.model == "crocodile")].sort_values("valid_auc").iloc[-1]
    assert set(final.settings) == {best.settings}


def test_a_run_is_what_fit_and_evaluate_say(finished):
    from croco_lib import build, evaluate, fit
    from croco_lib.datasets.registry import load

    name, options = parse_data(DATA)
    data = load(name, **options)
    job = make_job(DATA, "mmoe", 3, {"dim": 4, "epochs": 1, "lr": 0.01}, final=True)
    result = run_job(job)
    run = fit(
        build("mmoe", data, seed=3, dim=4), data, seed=3, progress=False, **{**job["fit"], "epochs": 1, "lr": 0.01}
    )
    expected = evaluate(run.model, data.test)
    got = pd.DataFrame(result["values"], columns=["split", "part", "metric", "value"])
    means = got[(got.split == "test") & (got.part == "mean of domains")]
    assert means.metric.tolist() == ["auc", "gauc"]
    for r in means.itertuples():
        by_domain = expected.query("metric == @r.metric and domain != 'all'").value
        np.testing.assert_allclose(r.value, by_domain.mean())
    got = got[(got.split == "test") & (got.part != "mean of domains")]
    np.testing.assert_array_equal(got.value.to_numpy(), expected.value.to_numpy())
    assert result["fingerprint"] == data.fingerprint


def test_a_key_changes_with_whatever_fixes_the_outcome():
    job = make_job(DATA, "mmoe", 0, {}, final=True)
    others = [
        make_job(DATA, "mmoe", 1, {}, True),
        make_job(DATA, "mmoe", 0, {"lr": 0.01}, True),
        make_job("world", "mmoe", 0, {}, True),
        make_job(DATA, "mmoe", 0, {}, False),
        {**job, "versions": {"torch": "0"}},
    ]
    assert len({key_of(j) for j in [job, *others]}) == 6 and key_of(job) == key_of(json.loads(json.dumps(job)))


def test_statistics_are_scipys():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(seed, model, rng.normal(mean)) for seed in range(6) for model, mean in (("a", 0.0), ("b", 1.0), ("c", 5.0))],
        columns=["seed", "model", "value"],
    )
    table = against(frame, "a").set_index("model")
    wide = frame.pivot(index="seed", columns="model", values="value")
    for other in "bc":
        test = stats.ttest_rel(wide[other], wide["a"])
        low, high = test.confidence_interval(0.95)
        np.testing.assert_allclose(table.loc[other, ["p", "low", "high"]].astype(float), [test.pvalue, low, high])
        gap = wide[other] - wide["a"]
        assert np.isclose(table.loc[other, "d"], gap.mean() / gap.std())
    p = table.loc[["b", "c"], "p"]
    np.testing.assert_allclose(table.loc[["b", "c"], "p_corrected"], stats.false_discovery_control(p))
    assert table.loc["a", "difference"] == 0 and np.isnan(table.loc["a", "p"])
    assert interval(np.array([1.0]))[1:] == (-np.inf, np.inf)


def test_data_specs():
    assert parse_data("world") == ("world", {})
    assert parse_data("kuairand-pure:split=time,min_count=20") == ("kuairand-pure", {"split": "time", "min_count": 20})
    with pytest.raises(CrocoError, match="'conflict' has no value"):
        parse_data("world:conflict")


def test_the_committed_studies_name_what_exists():
    for study in studies().values():
        assert set(study["models"]) <= set(MODELS) and study["seeds"] >= 3
        for settings in [*study.get("variants", []), study.get("grid", {})]:
            for option in settings:
                assert option in options_of("crocodile") or option in FIT


@pytest.mark.slow
def test_the_command_prints_the_tables(tmp_path):
    out = CliRunner().invoke(
        app,
        [
            "benchmark",
            "--data",
            DATA,
            "--models",
            "crocodile",
            "--seeds",
            "2",
            "--grid",
            "alpha=0;0.1",
            "--grid",
            "epochs=1",
            "--folder",
            str(tmp_path),
            "--workers",
            "1",
        ],
    )
    assert out.exit_code == 0, out.output
    assert "crocodile, alpha: 0.1, epochs: 1" in out.output and "own.runs.csv" in out.output
    frame = results("own", tmp_path)
    assert len(select(frame, DATA, "auc")) == 4
    for arguments, message in (
        (["benchmark"], "either --study NAME or --data"),
        (["benchmark", "--data", DATA, "--name", "main"], "committed study"),
        (["benchmark", "--data", DATA, "--models", "mmo"], "Did you mean 'mmoe'"),
        (["benchmark", "--data", DATA, "--grid", "alpha"], "KEY=V1;V2"),
    ):
        with pytest.raises(CrocoError, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(CrocoError, match="croco benchmark --study absent"):
        results("absent", Path(tmp_path))
