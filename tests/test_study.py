"""The verdicts' protocol: equal searches, the same bytes after an interruption, rules that can come out either way."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from croco_lib import CrocoError, build, cli
from croco_lib.study import cost, figures, jobs, rules, space, tables, verdicts
from croco_lib.study import studies as room
from croco_lib.study.rules import CONTRADICTED, HOLDS, NOISY

DATA = "world:rows=20000,users=200,items=200"
SMALL = dict(models=["crocodile", "crocodile without CovLoss", "shared-bottom"], search=4, seeds=2, more_seeds=3,
             inside=True, fixed={"epochs": 1})

KEYS = ["217efa657a0eaea5", "e91860203c10908e", "36307bbf04682a56"]  # written down when the first jobs were run


def test_the_keys_of_jobs_stay_so_that_finished_ones_are_found():
    given = [("world", "crocodile", 0, {}, True),
             ("movielens-1m", "sdem", 1_000, {"patience": 3, "start": 0.01}, False),
             ("kuairand-pure", "crocodile without CovLoss", 3, {"lr": 1e-3, "expert": (32, 16)}, True, True)]
    made = [{**jobs.make_job(*job), "versions": {}} for job in given]
    assert [jobs.key_of(job) for job in made] == KEYS


@pytest.mark.parametrize("name", [*space.MODELS, *space.FIXED])
def test_every_search_is_as_large(name):
    assert np.prod([len(values) for values in space.space(name).values()]) == 2160
    drawn = space.trials(name, 20)
    assert drawn[0] == {} and len({json.dumps(t, sort_keys=True) for t in drawn}) == 20
    options = jobs.make_job(DATA, name, 0, drawn[1], False)
    assert {**options["options"], **options["fit"]}.keys() >= drawn[1].keys()


def test_what_is_common_is_drawn_alike():
    for one, other in zip(space.trials("mmoe", 20), space.trials("crocodile", 20), strict=True):
        assert all(one.get(k) == other.get(k) for k in space.COMMON)


def test_alpha_zero_is_never_searched_for_crocodile():
    assert 0 not in space.space("crocodile")["alpha"]


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(CrocoError, match="Unknown model 'crocodil'. Did you mean 'crocodile'"):
        space.registered("crocodil")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("verdicts")
    room.run_study("main", SMALL, DATA, made, progress=False)
    return made


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.csv") if ".costs." not in p.name}


def test_a_killed_study_ends_with_the_same_bytes(folder, tmp_path):
    script = (f"from croco_lib.study.studies import run_study; import pathlib\n"
              f"run_study('main', {SMALL!r}, {DATA!r}, pathlib.Path({str(tmp_path)!r}), progress=False)")
    killed = 0
    while killed < 3:
        process = subprocess.Popen([sys.executable, "-c", script])
        before = len(list(tmp_path.glob("runs/*.json")))
        while process.poll() is None and len(list(tmp_path.glob("runs/*.json"))) < before + 2:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run([sys.executable, "-c", script], check=True)
    assert killed and contents(tmp_path) == contents(folder)


def test_the_tables_hold_what_was_planned(folder):
    T = tables.Tables("main", DATA, folder)
    counts = T.runs.groupby(["model", "stage"]).size().unstack()
    assert (counts["search"] == 4 + 3 * 2).all()  # four trials; three of them with two seeds more
    assert set(counts["final"]) <= {2, 3}
    chosen = tables.settings_of(T, "crocodile")
    searched = T.runs[(T.runs.stage == "search") & (T.runs.model == "crocodile")]
    mean = searched.assign(auc=searched.valid_auc.astype(float)).groupby("settings").auc.agg(["mean", "size"])
    best = json.loads(mean[mean["size"] == 3]["mean"].idxmax())
    assert all(best.get(k) == v for k, v in chosen.items() if k != "epochs")
    assert {"auc", "gauc", "logloss", "rows", "diversity_index", "expert_auc", "covariance"} <= set(T.values.metric)
    assert T.metric("auc", "mean of domains").loc[:1].notna().all().all()


def test_a_gap_is_the_seeds_mean_and_at_least_the_users_error_wide(folder):
    T = tables.Tables("main", DATA, folder)
    g, wide = T.gap("crocodile", "shared-bottom"), T.metric("auc")
    assert g.value == pytest.approx((wide.crocodile - wide["shared-bottom"]).mean())
    drawn = T.users.query("part == 'all' and split == 'test'").pivot(index="draw", columns="model", values="auc")
    users = (drawn.crocodile - drawn["shared-bottom"]).std()
    assert g.high - g.value >= stats.t.ppf(0.975, g.seeds - 1) * users * 0.999
    assert (drawn.mean() - wide.mean()).abs().max() < 0.02  # the draws lie around what was measured


def test_the_opening_figure_shows_each_model_where_its_table_puts_it(folder):
    T = tables.Tables("main", DATA, folder)
    left, right = figures.opening(T).axes
    names = [text.get_text().strip() for text in left.texts[1:]]
    assert set(names) == {"crocodile", "crocodile without CovLoss"}  # one expert alone has no diversity
    marks = {tuple(line.get_xydata()[0]) for line in left.lines if line.get_marker() in ("*", "o")}
    for model in names:
        di = (T.metric("diversity_index")[model] / T.metric("diversity_index_start")[model]).mean()
        ia = (T.metric("abundance", split="train")[model] / T.metric("abundance_start", split="train")[model]).mean()
        assert any(mark == pytest.approx((di, ia)) for mark in marks)
    best = T.metric("gauc").mean().idxmax()
    assert right.get_yticklabels()[0].get_text() == best


def test_the_cost_of_the_literal_reading_is_a_difference_a_seed(tmp_path):
    study = dict(models=["shared-bottom"], seeds=2, fixed={"epochs": 1}, grid={"objective": ["sample", "domain"]})
    room.run_study("objective", study, DATA, tmp_path, progress=False)
    T = tables.Tables("objective", DATA, tmp_path)
    (ax,) = figures.literal_reading(T).axes
    drawn = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    auc = T.metric("auc", by="variant")
    expected = auc["objective: sample"] - auc["objective: domain"]
    assert all(np.isclose(drawn, gain).any() for gain in expected)


def test_other_rules_versions_or_absent_tables_are_refused(folder, tmp_path):
    again = "croco study main --data " + DATA
    with pytest.raises(CrocoError, match="no results of the study 'main'.*croco study main"):
        tables.Tables("main", DATA, tmp_path)
    for path in folder.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = room.file_of("main", DATA, "runs", tmp_path)
    text = path.read_text()
    path.write_text(text.replace(rules.RULES_HASH, "0" * 16))
    with pytest.raises(CrocoError, match="made under other rules") as error:
        tables.Tables("main", DATA, tmp_path)
    assert again in str(error.value)
    path.write_text(text.replace(f"torch: {jobs.VERSIONS['torch']}", "torch: 1.0"))
    with pytest.raises(CrocoError, match="made with torch 1.0"):
        tables.Tables("main", DATA, tmp_path)


def test_the_committed_tables_are_of_these_rules():
    for name, data in tables.whole():
        assert tables.Tables(name, data).values.value.notna().any()
    verdicts.judge()


@pytest.mark.parametrize(("values", "outcome"), [([0.01, 0.011, 0.012], HOLDS), ([-0.01, -0.011, -0.012], CONTRADICTED),
                                                 ([0.01, -0.01, 0.002], NOISY)])
def test_a_sign_is_never_hidden(values, outcome):
    check = rules.above_zero("x", tables.gap(pd.Series(values)))
    assert check.outcome == outcome
    words = {HOLDS: "reproduced", CONTRADICTED: "contradicted", NOISY: "too noisy to say"}
    assert rules.verdict([check]) == words[outcome]
    good = rules.above_zero("y", tables.gap(pd.Series([1, 1.1, 0.9])))
    assert (rules.verdict([good, check]) == "contradicted") == (outcome == CONTRADICTED)
    assert rules.verdict([]) == "cannot be tested here"


def test_identical_alphas_pass_and_a_delicate_one_fails():
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(200):
        d = pd.DataFrame(0.78 + rng.normal(0, 0.0005, (6, 4)))
        passed.append(all(rules.as_good("", tables.gap(d[c] - d.mean(axis=1))).outcome == HOLDS for c in d))
    assert np.mean(passed) > 0.95
    d[3] -= 0.02
    assert rules.as_good("", tables.gap(d[3] - d.mean(axis=1))).outcome == CONTRADICTED


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_the_detectable_effect_is_seen_four_times_in_five(seeds):
    rng = np.random.default_rng(0)
    effect = tables.detectable(1 / np.sqrt(seeds), seeds)
    d = rng.normal(effect, 1, (4000, seeds))
    assert abs((stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean() - 0.8) < 0.03


def test_the_scorecard_says_what_is_not_run(tmp_path):
    card = verdicts.scorecard(verdicts.judge(tmp_path))
    assert len(card) == 13 and (card.loc[card.number < 12, "kuairand-pure"] == verdicts.NOT_RUN).all()
    assert card.loc[card.number == 13, "elsewhere"].item() == "cannot be tested here"


def test_costs_are_counted_as_the_paper_does():
    table = cost.cost(repeats=3)
    assert table["products, all rows"].iloc[0] == 10 * 32**2 * 4096
    assert table["products, experts"].iloc[0] == 4096 * 5 * (112 * 64 + 64 * 32)
    assert (table[["ms, experts", "ms, all rows", "ms, 32 rows"]] > 0).all().all()
    assert len(list(rules.cheap(table))) == 4


@pytest.mark.parametrize("model", room.studies()["capacity"]["models"])
def test_models_of_equal_capacity_have_as_many_embedding_parameters(model):
    dim, crocodile = jobs.dim_of(DATA, model, "crocodile"), build("crocodile", jobs.load_with_fresh(DATA)[0])
    held = jobs.embedding_parameters(DATA, model, {"dim": dim})
    aim = sum(p.numel() for name, p in crocodile.named_parameters() if name.endswith("table.weight"))
    assert held == pytest.approx(aim, rel=0.05)
    assert (dim == 16) == ("crocodile" in model)


def test_the_studies_are_known_words_models_and_data():
    for name, study in room.studies().items():
        assert all(space.registered(m) for m in study["models"]), name
        assert [jobs.parse_data(d) for d in study["data"]]
    assert {c.study for c in rules.CLAIMS if c.judge} <= set(room.studies())


def test_bad_words_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "studies.toml").write_text("[main]\nseedz = 3\n")
    with pytest.raises(CrocoError, match="Unknown word of study main 'seedz'. Did you mean 'seeds'"):
        room.studies(tmp_path / "studies.toml")
    monkeypatch.setattr("sys.argv", ["croco", "study", "mian"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "Did you mean 'main'" in capsys.readouterr().err
