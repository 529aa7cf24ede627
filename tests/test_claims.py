"""The scorecard follows from the results: rules on made figures, and a doctored result changes its verdict."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from croco_lib import CrocoError
from croco_lib.cli import app
from croco_lib.errors import ROOT
from croco_lib.losses import covariance_loss
from croco_lib.study import cost, jobs
from croco_lib.study.first import claims
from croco_lib.study.first.benchmark import run_study, studies
from croco_lib.study.first.claims import MARGIN, Check, check
from croco_lib.study.first.results import RESULTS, Results, results
from croco_lib.study.first.scorecard import CLAIMS, describe_simulation, fast_studies, judge, scorecard, verdict

committed = pytest.mark.skipif(not (RESULTS / "main.values.csv").is_file(), reason="no committed results")


def test_the_rule_looks_at_the_interval_not_at_the_mean():
    assert check("d", "w", [0.01, 0.012, 0.011]).holds
    assert not check("d", "w", [0.03, -0.01, 0.01]).holds  # the mean is above zero, the interval is not
    assert not check("d", "w", [-0.01, -0.012, -0.011]).holds
    assert check("d", "w", [0.0001, -0.0001, 0.0], MARGIN).holds
    assert not check("d", "w", [0.003, -0.003, 0.0], MARGIN).holds  # not shown to be as good


def test_verdicts():
    def checks(*holds):
        return [Check("d", "w", 1.0, 0.5, 1.5, h) for h in holds]

    assert [verdict(checks(*h)) for h in ((True, True), (True, False), (False, False), ())] == [
        "reproduced",
        "partly",
        "not reproduced",
        "cannot be tested here",
    ]
    with pytest.raises(CrocoError, match="too few seeds"):
        verdict([check("d", "w", [0.1])])


def test_covloss_share_is_the_time_of_covloss_in_that_of_the_whole(monkeypatch):
    def slow(O):
        time.sleep(0.3)  # as long as a dozen steps on so few rows
        return covariance_loss(O)

    share = cost.covloss_share(rows=64, repeats=5)
    monkeypatch.setattr(cost, "covariance_loss", slow)
    slowed = cost.covloss_share(rows=64, repeats=5)
    assert len(share) == 3 and np.median(share) < 0.5 < np.median(slowed) < 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Every study a claim reads, at a toy size."""
    folder = tmp_path_factory.mktemp("claims")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(jobs, "FRESH_ROWS", 2_000)  # gAUC needs its users in every domain
    for name, study in fast_studies(studies()).items():
        models = [m for m in study["models"] if m in ("crocodile", "mmoe", "ple", "me-ple", "sdem", "shared-bottom")]
        toy = {
            **study,
            "models": models,
            "data": ["world:rows=3000,users=100,items=200"],
            "seeds": 2,
            "fixed": {"epochs": 1},
        }
        run_study(name, toy, folder, workers=1, progress=False)
    monkeypatch.undo()
    return folder


@pytest.fixture
def doctored(small, tmp_path, monkeypatch):
    """A copy of the results, and a function that adds to a metric of a model or variant in it."""
    monkeypatch.setattr(claims, "covloss_share", lambda: np.array([0.01, 0.011, 0.012]))
    folder = shutil.copytree(small, tmp_path / "results")

    def doctor(study, metric, add, **of):
        runs = pd.read_csv(folder / f"{study}.runs.csv", keep_default_na=False)
        values = pd.read_csv(folder / f"{study}.values.csv")
        mine = (runs.stage == "final") & np.logical_and.reduce([runs[k] == v for k, v in of.items()])
        values.loc[values.key.isin(runs.key[mine]) & (values.metric == metric), "value"] += add
        values.to_csv(folder / f"{study}.values.csv", index=False)
        return judge(folder)

    return doctor


def test_every_claim_is_judged(small):
    card = scorecard(judge(small))
    assert card.number.tolist() == list(range(1, 14)) and len(CLAIMS) == 13
    assert card.verdict.iloc[-1] == "cannot be tested here"


@pytest.mark.parametrize(
    ("number", "study", "metric", "of", "all_up", "all_down"),
    [
        (1, "main", "diversity_index", dict(model="crocodile"), "reproduced", "not reproduced"),
        (3, "main", "auc", dict(model="ple"), "reproduced", "not reproduced"),
        (4, "main", "auc", dict(model="crocodile"), "any", "any"),  # gAUC is left as it is
        (6, "ablations", "correlation", dict(variant="alpha: 0.0"), "any", "any"),
        (5, "main", "gauc", dict(model="crocodile"), "any", "any"),
        (7, "regularisers", "auc", dict(variant="regulariser: cov"), "reproduced", "not reproduced"),
        (8, "ablations", "auc", dict(variant=""), "reproduced", "not reproduced"),
        (10, "sets", "auc", dict(variant="sets: 2"), "reproduced", "not reproduced"),
    ],
)
def test_a_doctored_result_changes_the_verdict(doctored, number, study, metric, of, all_up, all_down):
    high = doctored(study, metric, 30.0, **of)
    low = doctored(study, metric, -60.0, **of)
    held_high, held_low = (table.loc[table.number == number, "holds"].sum() for table in (high, low))
    assert held_high > held_low == 0 or (all_up == "any" and held_high > held_low)
    if all_up != "any":
        assert scorecard(high).set_index("number").verdict[number] == all_up
        assert scorecard(low).set_index("number").verdict[number] == all_down


class Stub:
    """Results of one data set "d": one frame of values, whatever is asked for; domains large (1) and small (0)."""

    def __init__(self, frame, **parts):
        self.frame, self.parts = pd.DataFrame(frame), parts

    def data(self, study):
        return ["d"]

    def domains(self, data, study="main"):
        return pd.Series({"large": 10, "small": 1})

    def values(self, study, data, metric, part="all", split="test", by="model"):
        return self.frame + self.parts.get(part, 0.0)


NEAR, FAR = [0.5, 0.5001, 0.4999], [0.6, 0.601, 0.602]


@pytest.mark.parametrize(
    ("judge_", "results_", "expected"),
    [
        (claims.collapse, Stub({"me-ple": NEAR, "sdem": FAR}, large=[0.1, 0.11, 0.1]), "reproduced"),
        (claims.collapse, Stub({"me-ple": NEAR, "sdem": FAR}, small=[0.1, 0.11, 0.1]), "not reproduced"),
        (claims.alpha_robust, Stub({"alpha: 1": NEAR, "alpha: 2": NEAR[::-1]}), "reproduced"),
        (claims.alpha_robust, Stub({"alpha: 1": NEAR, "alpha: 2": FAR}), "not reproduced"),
        (claims.sampled_as_good, Stub({"": NEAR, "sample: 32": NEAR[::-1]}), "reproduced"),
        (claims.sampled_as_good, Stub({"": FAR, "sample: 32": NEAR}), "not reproduced"),
    ],
)
def test_rules_read_both_ways(judge_, results_, expected, monkeypatch):
    if judge_ is claims.collapse:  # parts are shifts of the frame here
        results_.parts = {k: np.array(v)[:, None] for k, v in results_.parts.items()}
    assert verdict(list(judge_(results_))) == expected


def test_what_is_not_measured_is_nocheck():
    """gAUC on too few users is NaN in every run: no check, and no error."""

    class Unmeasured(Stub):
        def values(self, study, data, metric, part="all", split="test", by="model"):
            return self.frame * (np.nan if metric == "gauc" else 1.0)

        def smallest(self, data):
            return {"part": "small"}

    R = Unmeasured({"crocodile": FAR, "me-ple": NEAR, "sdem": NEAR})
    assert [c.what.split()[0] for c in claims.best_overall(R)] == ["auc"]
    assert [c.what.split()[0] for c in claims.best_where_scarce(R)] == ["auc", "auc"]


def test_cheap_is_below_the_bound(monkeypatch):
    for share, expected in (([0.01, 0.011], "reproduced"), ([0.2, 0.21], "not reproduced")):
        monkeypatch.setattr(claims, "covloss_share", lambda share=share: np.array(share))
        assert verdict(list(claims.cheap(None))) == expected


def test_a_missing_study_names_its_command(tmp_path):
    with pytest.raises(CrocoError, match="croco benchmark --study main"):
        judge(tmp_path)


@committed
def test_committed_results_are_whole_and_say_what_made_them():
    R = Results()
    for name, study in studies().items():
        runs = pd.read_csv(RESULTS / f"{name}.runs.csv", keep_default_na=False)
        assert (runs.status == "done").all() and set(runs.data) == set(study["data"])
        final = runs[runs.stage == "final"]
        assert (final.groupby(["data", "model", "variant"]).seed.nunique() == study["seeds"]).all()
        assert runs.groupby("data").fingerprint.nunique().max() == 1
        assert f"croco benchmark --study {name}" in R.made_by(name)
        for trial in runs[runs.stage == "search"].groupby(["data", "model"]).size():
            assert trial >= study.get("trials", 0)
        overall = results(name).query("part == 'all' and metric in ('auc', 'gauc', 'logloss')")
        assert len(overall) and not overall.value.isna().any()


@committed
def test_the_readme_says_what_the_results_say():
    lines = (ROOT / "README.md").read_text().splitlines()
    for row in scorecard(judge(RESULTS)).itertuples():  # the last column is the first protocol's
        assert any(line.startswith(f"| {row.number} | ") and line.endswith(f"| {row.verdict} |") for line in lines)


@committed
def test_the_readmes_one_sentence_follows_from_the_results():
    text, R = " ".join((ROOT / "README.md").read_text().split()), Results()
    assert "best in the smallest domain of the made world" in text and "where ME-PLE is ahead" in text
    auc = R.values("main", "world", "auc", **R.smallest("world"))
    assert (
        all(
            (auc.crocodile - auc[m]).mean() > 0 and check("", "", auc.crocodile - auc[m]).holds
            for m in ("me-ple", "sdem")
        )
        and auc.mean().idxmax() == "crocodile"
    )
    assert {R.values("main", data, "auc").mean().idxmax() for data in R.data("main")} == {"me-ple"}


@committed
def test_the_command_prints_the_committed_scorecard():
    out = CliRunner().invoke(app, ["claims", "--full"], catch_exceptions=False)
    card = scorecard(judge(RESULTS))
    assert out.exit_code == 0 and "made by: croco benchmark --study main" in out.output
    for row in card[card.number != 12].itertuples():  # 12 is measured anew each time
        assert any(
            line.split()[0] == str(row.number) and row.verdict in line
            for line in out.output.splitlines()
            if line.strip()
        )


def test_a_simulated_claim_never_says_reproduced(tmp_path, monkeypatch):
    rows = [
        ("all", m, 0.01, 0.005, 0.015, how, "me-ple", "crocodile")
        for how in ("A/B test", "true, on this traffic")
        for m in ("ctr", "revenue", "gmv")
    ]
    pd.DataFrame(rows, columns="domain metric lift low high measured baseline test".split()).to_csv(
        tmp_path / "online.csv", index=False
    )
    assert describe_simulation(Results(tmp_path / "nowhere")) == "cannot be tested here"
    (tmp_path / "online.json").write_text("{}")
    R = Results(tmp_path)
    checks = list(claims.online_lift(R))
    assert len(checks) == 4 and all(c.holds for c in checks)
    assert describe_simulation(R) == "simulated: CTR +1.0% [+0.5%, +1.5%]; GMV +1.0% [+0.5%, +1.5%]"
    assert CLAIMS[-1].simulated


@committed
def test_the_committed_online_test_is_simulated_and_says_what_made_it():
    row = scorecard(judge(RESULTS)).set_index("number").loc[13]
    assert row.verdict.startswith("simulated: CTR") and "reproduced" not in row.verdict
    table, made = Results().online()
    assert made["command"].startswith("croco online") and {"seed", "versions", "date", "fingerprint"} <= set(made)
    assert set(table.test) == {"crocodile"} and set(table.baseline) <= set(claims.BASELINES)
