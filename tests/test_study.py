"""The verdicts' protocol: equal searches, the same bytes after an interruption, rules that can come out either way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from croco_lib import CrocoError, build, cli, evaluate, fit
from croco_lib.lessons.comparison import against, interval
from croco_lib.models import options_of
from croco_lib.optimizers import tables_of
from croco_lib.study import (
    cost,
    figures,
    intervals,
    jobs,
    resampling,
    rules,
    space,
    spec,
    speed,
    stamp,
    tables,
    verdicts,
)
from croco_lib.study import studies as room
from croco_lib.study.claims import CLAIMS

COMMITTED = [
    (name, data)
    for name, study in room.read_studies().items()
    for data in study["data"]
    if room.file_of(name, data, "runs").is_file()
]

DATA = "world:rows=20000,users=200,items=200"
SMALL = dict(search=4, seeds=2, more_seeds=3, inside=True, fixed={"epochs": 1})
SMALL["models"] = ["crocodile", "crocodile without CovLoss", "shared-bottom"]
KEYS = ["217efa657a0eaea5", "e91860203c10908e", "36307bbf04682a56"]  # written down when the first jobs were run


def test_the_keys_of_jobs_stay_so_that_finished_ones_are_found():
    given = [
        ("world", "crocodile", 0, {}, True),
        ("movielens-1m", "sdem", 1_000, {"patience": 3, "start": 0.01}, False),
        ("kuairand-pure", "crocodile without CovLoss", 3, {"lr": 1e-3, "expert": (32, 16)}, True, True),
    ]
    made = [{**jobs.make_job(*job), "versions": {}} for job in given]
    assert [jobs.key_of(job) for job in made] == KEYS


@pytest.mark.parametrize("name", [*space.MODELS, *space.FIXED])
def test_every_search_is_as_large(name):
    assert np.prod([len(values) for values in space.knobs_of(name).values()]) == 2160
    drawn = space.trials(name, 20)
    assert drawn[0] == {} and len({json.dumps(t, sort_keys=True) for t in drawn}) == 20
    options = jobs.make_job(DATA, name, 0, drawn[1], False)
    assert {**options["options"], **options["fit"]}.keys() >= drawn[1].keys()


def test_what_is_common_is_drawn_alike():
    for one, other in zip(space.trials("mmoe", 20), space.trials("crocodile", 20), strict=True):
        assert all(one.get(k) == other.get(k) for k in space.COMMON)


def test_alpha_zero_is_never_searched_for_crocodile():
    assert 0 not in space.knobs_of("crocodile")["alpha"]


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(CrocoError, match="Unknown model 'crocodil'. Did you mean 'crocodile'"):
        space.registered("crocodil")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("verdicts")
    room.run_study("main", SMALL, DATA, made, progress=False)
    return made


def test_a_search_on_a_share_of_the_users_reads_all_their_rows_and_the_finals_read_everything(tmp_path):
    study = dict(models=["shared-bottom"], search=2, search_share={DATA: 0.5}, seeds=1, fixed={"epochs": 1})
    room.run_study("main", study, DATA, tmp_path, progress=False)
    T = tables.Tables("main", DATA, tmp_path)  # two prints of data, and not refused
    assert dict(T.runs.groupby("stage").data.first()) == {"final": DATA, "search": f"{DATA},search_share=0.5"}
    whole, half = jobs.load_with_fresh(DATA)[0], jobs.load_with_fresh(f"{DATA},search_share=0.5")[0]
    prints = T.runs.groupby("stage").fingerprint.first()
    assert dict(prints) == {"final": whole.fingerprint, "search": half.fingerprint}
    users = np.unique(half.train.user)
    assert 0.4 < len(users) / len(np.unique(whole.train.user)) < 0.6
    for split in ("train", "valid", "test"):
        mine, all_ = getattr(half, split), getattr(whole, split)
        rows = np.isin(all_.user, users)
        np.testing.assert_array_equal(mine.features, all_.features[rows])
        np.testing.assert_array_equal(mine.label, all_.label[rows])


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.csv") if ".costs." not in p.name}


@pytest.mark.slow
def test_a_killed_study_ends_with_the_same_bytes(tmp_path):
    data = "world:rows=5000,users=60,items=50"
    study = dict(models=["shared-bottom", "mmoe"], search=2, seeds=2, fixed={"epochs": 1})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    room.run_study("main", study, data, whole, progress=False)
    script = (
        f"from croco_lib.study.studies import run_study; from croco_lib.study import jobs; import pathlib\n"
        f"jobs.FRESH_ROWS = {jobs.FRESH_ROWS}\n"
        f"run_study('main', {study!r}, {data!r}, pathlib.Path({str(cut)!r}), progress=False)"
    )
    killed = 0
    while killed < 3:
        process = subprocess.Popen([sys.executable, "-c", script])
        before = len(list(cut.glob("runs/*.json")))
        while process.poll() is None and len(list(cut.glob("runs/*.json"))) < before + 2:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run([sys.executable, "-c", script], check=True)
    assert killed and contents(cut) == contents(whole)


def test_the_tables_hold_what_was_planned(folder):
    T = tables.Tables("main", DATA, folder)
    counts = T.runs.groupby(["model", "stage"]).size().unstack()
    assert (counts["search"] == 4 + 3 * 2).all()  # four trials; three of them with two seeds more
    assert set(counts["final"]) <= {2, 3}
    chosen = T.settings_of("crocodile")
    searched = T.runs[(T.runs.stage == "search") & (T.runs.model == "crocodile")]
    mean = searched.assign(auc=searched.valid_auc.astype(float)).groupby("settings").auc.agg(["mean", "size"])
    best = json.loads(mean[mean["size"] == 3]["mean"].idxmax())
    assert all(best.get(k) == v for k, v in chosen.items() if k != "epochs")
    assert {"auc", "gauc", "logloss", "rows", "diversity_index", "expert_auc", "covariance"} <= set(T.values.metric)
    assert T.metric("auc", "mean of domains").loc[:1].notna().all().all()


@pytest.mark.parametrize("metric", resampling.RESAMPLED)
def test_a_gap_is_the_seeds_mean_and_its_error_that_of_seeds_and_users(folder, metric):
    T = tables.Tables("main", DATA, folder)
    g, wide = T.gap("crocodile", "shared-bottom", metric), T.metric(metric)
    d = wide["crocodile"] - wide["shared-bottom"]
    assert g.value == pytest.approx(d.mean())
    drawn = T.users.query("part == 'all' and split == 'test' and seeds == @g.seeds")
    drawn = drawn.pivot(index="draw", columns="model", values=metric)
    users = (drawn["crocodile"] - drawn["shared-bottom"]).std()
    assert users > 0 and g.error == pytest.approx(np.hypot(stats.sem(d.dropna()), users))
    assert (drawn.mean() - wide.mean()).abs().max() < 0.02  # the draws lie around what was measured


def test_a_difference_of_ten_seeds_from_six_has_draws_over_the_same_six():
    rng = np.random.default_rng(0)
    seeds, luck = pd.Series(rng.normal(size=10)), rng.normal(size=(200, 10))  # of the users, a seed each

    def side(count, own=0.0):
        means = {n: luck[:, :n].mean(1) + own for n in (6, 10) if n <= count}
        return tables.Side(seeds[:count] + own, pd.DataFrame(means))

    six = side(10) - side(6, own=0.01)
    assert six.draws.std() < 1e-12 and len(six.seeds) == 6 and six.gap().error < 1e-12  # all that they share cancels
    assert side(10).draws.equals(side(10).resampled[10]) and len((side(10) - side(10)).seeds) == 10
    with pytest.raises(CrocoError, match="no draws of the test users over the same 3 seeds"):
        (side(10) - tables.Side(seeds[:3], pd.DataFrame({3: luck[:, :3].mean(1)}))).gap()


def test_a_run_that_failed_is_in_no_mean_of_the_draws(tmp_path):
    (loaded, fresh), rng, made = jobs.load_with_fresh(DATA), np.random.default_rng(0), []
    (tmp_path / "runs").mkdir()
    for model, done in (("ple", (0, 1, 2)), ("mmoe", (0, 1))):  # the last run of mmoe failed, and left no logits
        for seed in range(3):
            made.append((model, {}, {}, job := jobs.make_job(DATA, model, seed, {}, True)))
            if seed in done:
                logits = {"test": rng.normal(size=len(loaded.test)), "fresh": rng.normal(size=len(fresh))}
                np.savez(tmp_path / "runs" / f"{jobs.key_of(job)}.npz", **logits)
    users = resampling.resampled_users(DATA, made, tmp_path)
    assert {m: set(n) for m, n in users.groupby("model").seeds} == {"ple": {2, 3}, "mmoe": {2}}
    assert users[users.part == "all"].notna().all(axis=None)
    # Also over as many seeds as models have in the study that this one is held against.
    beside = resampling.resampled_users(DATA, made, tmp_path, beside={1, 2, 9})
    assert {m: set(n) for m, n in beside.groupby("model").seeds} == {"ple": {1, 2, 3}, "mmoe": {1, 2}}
    assert beside[beside.seeds > 1].reset_index(drop=True).equals(users)


def test_a_study_of_more_seeds_than_main_has_can_be_held_against_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "both")
    few = tables.Tables("main", DATA, tmp_path / "both").side("crocodile").seeds.index.max() + 1
    plan = {"models": ["crocodile"], "seeds": int(few) + 1}
    room.run_study("more", plan, DATA, tmp_path / "both", progress=False)
    more = tables.Tables("more", DATA, tmp_path / "both")
    assert (more.side("crocodile") - more.beside("main").side("crocodile")).gap().seeds == few


def test_a_final_run_without_its_logits_is_run_again(tmp_path):
    for final, again in ((True, True), (False, False)):
        job = jobs.make_job(DATA, "ple", 0, {}, final)
        path = tmp_path / f"{jobs.key_of(job)}.json"
        path.write_text(json.dumps({"status": "done"}))
        assert (jobs.read(job, tmp_path) == {}) == again
        path.with_suffix(".npz").touch()
        assert jobs.read(job, tmp_path) == {"status": "done"}


def test_logits_of_an_earlier_run_are_gone_when_a_run_fails(tmp_path):
    job = jobs.make_job(DATA, "shared-bottom", 0, {"alpha": 0.1}, final=True)  # which it does not have
    left = tmp_path / f"{jobs.key_of(job)}.npz"
    left.touch()
    jobs.run_jobs([job], tmp_path, progress=False)
    assert jobs.read(job, tmp_path)["status"] == "failed" and not left.exists()


def test_values_that_lack_a_run_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old", ignore=shutil.ignore_patterns("runs"))
    path = tables.file_of("main", DATA, "values", tmp_path / "old")
    values = pd.read_csv(path, keep_default_na=False)
    values[values.key != values.key[0]].to_csv(path, index=False)
    with pytest.raises(CrocoError, match="lacks runs that the table of runs beside it has. Make them again"):
        tables.Tables("main", DATA, tmp_path / "old").domains()


def test_a_difference_without_an_error_has_no_p():
    same, one = pd.Series([0.25, 0.25, 0.25]), pd.Series([0.25])
    assert all(np.isnan(verdicts.p_value(intervals.gap(values))) for values in (same, one))
    some = np.random.default_rng(0).normal(0.3, 1, 9)
    assert verdicts.p_value(intervals.gap(pd.Series(some))) == pytest.approx(stats.ttest_1samp(some, 0).pvalue)


def test_draws_of_an_older_version_are_refused_with_the_command(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old", ignore=shutil.ignore_patterns("runs"))
    path = tables.file_of("main", DATA, "users", tmp_path / "old")
    pd.read_csv(path).drop(columns="seeds").to_csv(path, index=False)
    with pytest.raises(CrocoError, match="older version. Make them again: croco study main --data world"):
        tables.Tables("main", DATA, tmp_path / "old").gap("crocodile", "shared-bottom")


def test_the_draws_are_means_over_the_first_seeds(folder):
    T, (loaded, _) = tables.Tables("main", DATA, folder), jobs.load_with_fresh(DATA)
    user = np.unique(loaded.test.user, return_inverse=True)[1]
    draws = np.random.default_rng(0).multinomial(user.max() + 1, np.full(user.max() + 1, 1 / (user.max() + 1)), 200)
    final = T.runs[(T.runs.stage == "final") & (T.runs.model == "crocodile")]
    each = {}
    for run in final.itertuples():
        score = np.load(folder / "runs" / f"{run.key}.npz")["test"]
        each[run.seed] = resampling._under_draws(loaded.test.label, score, user, draws)[0]
    means = T.users.query("model == 'crocodile' and part == 'all' and split == 'test'")
    for n, group in means.groupby("seeds"):
        np.testing.assert_allclose(group.auc, np.mean([auc for seed, auc in each.items() if seed < n], 0), atol=1e-9)
    assert set(means.seeds) == {2, len(each)}


def test_the_resampled_gauc_is_that_of_the_users_that_were_drawn():
    rng = np.random.default_rng(0)
    user, label, score = rng.integers(0, 60, 3000), rng.integers(0, 2, 3000), rng.normal(size=3000).astype(np.float32)
    draws = rng.multinomial(60, np.full(60, 1 / 60), 3)
    auc, gauc = resampling._under_draws(label, score, user, draws)
    for draw, one, other in zip(draws, auc, gauc, strict=True):
        rows = np.repeat(np.arange(3000), draw[user])
        assert one == pytest.approx(roc_auc_score(label[rows], score[rows]))
        weights = draw * np.bincount(user, minlength=60)
        own = [roc_auc_score(label[user == u], score[user == u]) for u in range(60)]
        assert other == pytest.approx(np.average(own, weights=weights))
    few = resampling._under_draws(label, score, user % 20, draws[:, :20])[1]
    assert np.isnan(few).all()  # fewer than 30: not measured


def test_the_opening_figure_shows_each_model_where_its_table_puts_it(folder):
    T = tables.Tables("main", DATA, folder)
    left, right = figures.opening(T).axes
    names = [text.get_text().strip() for text in left.texts]
    assert set(names) == {"crocodile", "crocodile without CovLoss"}  # one expert alone has no diversity
    marks = {tuple(line.get_xydata()[0]) for line in left.lines if line.get_marker() in ("*", "o")}
    for model in names:
        di = (T.metric("diversity_index")[model] / T.metric("diversity_index_start")[model]).mean()
        ia = (T.metric("abundance", split="train")[model] / T.metric("abundance_start", split="train")[model]).mean()
        assert any(mark == pytest.approx((di, ia)) for mark in marks)
    best = T.metric("gauc").mean().idxmax()
    assert right.get_yticklabels()[0].get_text() == best


def test_the_cost_of_the_literal_reading_is_a_difference_a_seed(tmp_path):
    models = ["shared-bottom", "mmoe"]
    study = dict(models=models, seeds=2, fixed={"epochs": 1}, grid={"objective": ["sample", "domain"]})
    room.run_study("objective", study, DATA, tmp_path, progress=False)
    T = tables.Tables("objective", DATA, tmp_path)
    left, right = figures.literal_reading(T).axes

    def gain(model, part):
        sides = [T.side((model, {"objective": name}), "auc", part).seeds for name in ("sample", "domain")]
        return (sides[0] - sides[1]).to_numpy()

    order = [tick.get_text() for tick in left.get_yticklabels()]
    assert order == sorted(models, key=lambda model: -gain(model, "all").mean())
    dots = np.concatenate([c.get_offsets() for c in left.collections])
    assert set(dots[:, 1]) == set(range(len(order)))  # on its line, so that two drawings are the same
    for at, model in enumerate(order):
        drawn = np.sort(dots[np.abs(dots[:, 1] - at) < 0.5, 0])
        np.testing.assert_allclose(drawn, np.sort(gain(model, "all")))
    tabs = [tick.get_text() for tick in right.get_xticklabels()]
    said = np.array([float(cell.get_text()) for cell in right.texts]).reshape(len(order), len(tabs))
    expected = [[100 * gain(model, tab).mean() for tab in tabs] for model in order]
    np.testing.assert_allclose(said, expected, atol=0.051)


def test_other_rules_versions_or_absent_tables_are_refused(folder, tmp_path):
    again = "croco study main --data " + DATA
    with pytest.raises(CrocoError, match="no results of the study 'main'.*croco study main"):
        tables.Tables("main", DATA, tmp_path)
    for path in folder.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = room.file_of("main", DATA, "runs", tmp_path)
    text = path.read_text()
    path.write_text(text.replace(stamp.RULES_HASH, "0" * 16))
    with pytest.raises(CrocoError, match="made under other rules") as error:
        tables.Tables("main", DATA, tmp_path)
    assert again in str(error.value)
    path.write_text(text.replace(f"torch: {jobs.VERSIONS['torch']}", "torch: 1.0"))
    with pytest.raises(CrocoError, match="made with torch 1.0"):
        tables.Tables("main", DATA, tmp_path)


def test_the_committed_tables_are_of_these_rules(monkeypatch):
    for name, data in COMMITTED:
        assert tables.Tables(name, data).values.value.notna().any()
    verdicts.judge()
    monkeypatch.setattr(stamp, "RULES_HASH", "0" * 16)  # as after a change to a rule
    for name, data in COMMITTED:
        with pytest.raises(CrocoError, match="made under other rules"):
            tables.Tables(name, data)


def test_an_empty_table_is_of_no_rules(folder, tmp_path):
    for path in folder.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = room.file_of("main", DATA, "runs", tmp_path)
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(CrocoError, match="made under other rules"):
        tables.Tables("main", DATA, tmp_path)


def test_the_scorecard_says_what_is_not_run(tmp_path):
    card = verdicts.scorecard(verdicts.judge(tmp_path))
    assert len(card) == 13 and (card.loc[card.number < 12, "kuairand-pure"] == verdicts.NOT_RUN).all()
    assert (card.loc[card.number == 12, "world"] == verdicts.NOT_RUN).all()
    assert (card.loc[card.number == 13, ["kuairand-pure", "movielens-1m"]] == "cannot be tested here").all(axis=None)


def test_costs_are_counted_as_the_paper_does():
    table = cost.measure_cost(repeats=3)
    assert table["products, all rows"].iloc[0] == 10 * 32**2 * 4096
    assert table["products, experts"].iloc[0] == 4096 * 5 * (112 * 64 + 64 * 32)
    assert (table[["ms, experts", "ms, all rows", "ms, 32 rows"]] > 0).all().all()
    assert len(list(rules.cheap(table))) == 4 * len(cost.SHAPES)


@pytest.mark.parametrize(
    ("column", "other", "said"),
    [("rules", "0" * 16, "under other rules"), ("versions", "croco-lib: 0, numpy: 2, torch: 1.0", "with torch 1.0")],
)
def test_costs_of_other_rules_or_versions_are_refused(tmp_path, column, other, said):
    cost.measure_cost(repeats=2).assign(**{column: other}).to_csv(tmp_path / "cost.csv", index=False)
    with pytest.raises(CrocoError, match=f"{said}.*croco study cost"):
        verdicts.judge(tmp_path)


@pytest.mark.parametrize(
    ("best", "chosen", "least", "most"), [(0.004, 0.01, 0.001, 10), (40, 100, 0.1, 1_000), (1e9, 10_000, 0.1, 10_000)]
)
def test_a_grid_is_widened_until_its_best_is_inside_or_three_times(tmp_path, monkeypatch, best, chosen, least, most):
    """Validation is best at a value beyond the first grid."""
    at = room.Runner(tmp_path, 1, False)
    monkeypatch.setattr(at, "run", lambda jobs, label: None)
    monkeypatch.setattr(at, "valid", lambda job: -abs(np.log(job["options"]["alpha"] / best)))
    found, tried = at.choose_value(DATA, "crocodile", {"sets": 3}, "alpha", [0.1, 1.0, 10.0], "t")
    values = [job["options"]["alpha"] for job in tried]
    assert found == {"sets": 3, "alpha": pytest.approx(chosen)}
    assert (min(values), max(values)) == pytest.approx((least, most))
    for bad in ([0.1], [0.0, 0.1], [1.0, 0.1]):
        with pytest.raises(CrocoError, match="two values or more, above 0 and in order"):
            at.choose_value(DATA, "crocodile", {}, "alpha", bad, "t")


def test_the_mean_of_three_finalists_chooses(tmp_path, monkeypatch):
    at = room.Runner(tmp_path, 1, False)
    auc = {0.1: (0.70, 0.60, 0.60), 0.2: (0.69, 0.69, 0.69), 0.3: (0.68, 0.68, 0.68), 0.4: (0.67, 0.99, 0.99)}
    monkeypatch.setattr(at, "run", lambda jobs, label: None)
    monkeypatch.setattr(at, "valid", lambda job: auc[job["options"]["alpha"]][job["seed"] - room.TUNING_SEEDS[0]])
    chosen, tried = at.choose(DATA, "crocodile", [{"alpha": a} for a in auc], "t")
    assert chosen == {"alpha": 0.2}
    assert {j["seed"] for j in tried if j["options"]["alpha"] == 0.4} == {room.TUNING_SEEDS[0]}


def test_models_close_to_crocodile_run_more_seeds_and_so_does_crocodile(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(room.Runner, "run", lambda *_: None)
    monkeypatch.setattr(room, "write_tables", lambda name, data, runs, tried, folder: made.append(runs))
    auc = {"crocodile": 0.7, "mmoe": 0.7009, "ple": 0.6992, "star": 0.7011}
    for valid, expected in ((auc, [3, 3, 3, 2]), (dict.fromkeys(auc, 0.6) | {"crocodile": 0.7}, [2] * 4)):
        monkeypatch.setattr(room.Runner, "valid", lambda self, job, valid=valid: valid[job["model"]])
        room.run_study("main", dict(models=list(auc), seeds=2, more_seeds=3), DATA, tmp_path, progress=False)
        assert [1 + max(job["seed"] for m, *_, job in made[-1] if m == name) for name in auc] == expected
    study = dict(models=["shared-bottom"], seeds=1, as_large_as="crocodile")
    room.run_study("x", study, DATA, tmp_path, progress=False)
    dim = made[-1][0][-1]["options"]["dim"]
    assert dim == jobs.dim_of(DATA, "shared-bottom", "crocodile") != 16


def test_a_study_that_lacks_what_it_starts_from_says_so(tmp_path, monkeypatch):
    with pytest.raises(CrocoError, match="settings are needed first: croco study main --data world"):
        study = dict(models=["crocodile"], settings="main", seeds=2)
        room.run_study("alpha", study, "world", tmp_path, progress=False)
    monkeypatch.setattr(room.Runner, "run", lambda *_: None)
    with pytest.raises(CrocoError, match="Every trial of mmoe on world failed"):
        room.run_study("own", dict(models=["mmoe"], search=2, seeds=2), "world", tmp_path, progress=False)


def test_failed_jobs_are_tried_again_and_finished_ones_left_alone(tmp_path, monkeypatch):
    ran = []

    def outcome(job):
        ran.append(job["seed"])
        return {"status": "done" if job["seed"] == 0 or ran.count(1) == 2 else "failed"}, {}

    monkeypatch.setattr(jobs, "run_job", outcome)
    both = [jobs.make_job(DATA, "mmoe", seed, {}, False) for seed in (0, 1, 0)]
    for _ in range(3):
        jobs.run_jobs(both, tmp_path, progress=False)
    assert ran == [0, 1, 1] and not list(tmp_path.glob("*.tmp"))
    (tmp_path / f"{jobs.key_of(both[0])}.json").write_text("{")
    with pytest.raises(CrocoError, match="is damaged; delete it"):
        jobs.run_jobs(both, tmp_path, progress=False)


@pytest.mark.parametrize("start", [{}, {"start": 0.001}])
def test_start_is_the_standard_deviation_of_every_table(start):
    model = jobs.built(jobs.make_job(DATA, "crocodile", 0, start, False), jobs.load_with_fresh(DATA)[0])
    for table in tables_of(model):
        assert float(table.weight.detach().std()) == pytest.approx(start.get("start", 0.1), rel=0.05)


@pytest.mark.parametrize("name", [*space.MODELS, *space.FIXED])
def test_the_first_value_of_every_knob_is_its_default(name):
    default = asdict(jobs.DEFAULTS) | options_of(space.registered(name)[0])
    known = {knob: value for knob, value in default.items() if knob not in space.FIXED.get(name, {})}
    values = {knob: values[0] for knob, values in space.knobs_of(name).items()}
    assert {knob: known[knob] for knob in values} == values


def test_builds_of_one_release_count_as_one(monkeypatch):
    monkeypatch.setitem(stamp.VERSIONS, "torch", jobs.VERSIONS["torch"].partition("+")[0] + "+cu130")
    assert len(tables.Tables("main", "kuairand-pure").runs)


def test_what_is_timed_goes_forward_and_back():
    went = []

    def part(x):
        went.append("forward")
        x.register_hook(lambda gradient: went.append("backward"))
        return 2 * x

    assert cost.milliseconds(part, torch.ones(3)) > 0 and went == ["forward", "backward"]


def test_speed_on_a_gpu_says_that_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def said(*words):
        with pytest.raises(CrocoError) as error:
            CliRunner().invoke(cli.app, ["speed", "--gpu", *words], catch_exceptions=False)
        return str(error.value)

    assert "no CUDA device" in said()
    assert "one at a time" in said("--peer", "torch-rechub")


def test_what_a_reader_waits_for_is_measured_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(speed, "STARTS", {"slow": ("-c", "import time; time.sleep(0.3)"), "quick": ("-c", "")})
    told = dict(speed.reader_seconds(1))
    assert told["slow"] > 0.3 and told["slow"] > told["quick"] > 0 and len(told) == 3
    assert 0 < told["a step of lesson 04's slider"] < 30
    with pytest.raises(CrocoError, match="croco speed: a start failed: .*no_such_module"):
        speed.python("a start", "-c", "raise SystemExit('no_such_module')")


def test_speed_prints_what_was_measured(monkeypatch):
    rows = [("models", "mmoe", "step ms", 4.0), ("models", "ple", "step ms", 5.0), ("metrics", "AUC", "seconds", 0.5)]
    monkeypatch.setattr(speed, "measure", lambda size: iter(rows))

    def croco(*words):
        return CliRunner().invoke(cli.app, ["speed", "--size", "fast", *words], catch_exceptions=False).stdout

    told = json.loads(croco("--json"))
    assert [tuple(f.values()) for f in told["figures"]] == rows and (told["size"], told["threads"]) == ("fast", 1)
    assert all(word in croco() for word in ("models", "mmoe", "metrics"))
    with pytest.raises(CrocoError, match="Unknown peer 'other'"):
        croco("--peer", "other")


@pytest.mark.parametrize("model", room.read_studies()["capacity"]["models"])
def test_models_of_equal_capacity_have_as_many_embedding_parameters(model):
    dim, crocodile = jobs.dim_of(DATA, model, "crocodile"), build("crocodile", jobs.load_with_fresh(DATA)[0])
    held = jobs.embedding_parameters(DATA, model, {"dim": dim})
    aim = sum(p.numel() for name, p in crocodile.named_parameters() if name.endswith("table.weight"))
    assert held == pytest.approx(aim, rel=0.05)
    assert (dim == 16) == ("crocodile" in model)


@pytest.mark.parametrize("name", room.read_studies())
def test_every_model_of_a_study_can_be_built_in_every_variant(name):
    study, small = room.read_studies()[name], jobs.load_with_fresh(DATA)[0]
    assert all(jobs.parse_data(data) for data in study["data"])
    for model in study["models"]:
        for variant in room.variants_of(study):
            settings = {knob: value[0] if isinstance(value, list) else value for knob, value in variant.items()}
            assert jobs.built(jobs.make_job(DATA, model, 0, settings, False), small)


def test_the_claims_read_studies_that_are_planned():
    assert {c.study for c in CLAIMS if c.judge} <= set(room.read_studies())


def test_a_trial_never_sees_the_test_rows(folder):
    runs = tables.Tables("main", DATA, folder).runs
    for key, stage in zip(runs.key, runs.stage, strict=True):
        measured = {row[0] for row in json.loads((folder / "runs" / f"{key}.json").read_text())["values"]}
        assert ("test" in measured) == (folder / "runs" / f"{key}.npz").exists() == (stage == "final")


def test_a_run_is_what_fit_and_evaluate_say():
    job = jobs.make_job(DATA, "mmoe", 3, {"dim": 4, "epochs": 1, "lr": 0.01}, final=True)
    result, logits = jobs.run_job(job)
    data, fresh = jobs.load_with_fresh(DATA)
    every = max(1, round(len(data.train) / jobs.VALIDATIONS / job["fit"]["batch_size"]))
    run = fit(build("mmoe", data, seed=3, dim=4), data, seed=3, progress=False, eval_every=every, **job["fit"])
    got = pd.DataFrame(result["values"], columns=["split", "part", "metric", "value"])
    for split, rows in (("test", data.test), ("fresh", fresh)):
        expected = evaluate(run.model, rows)
        mine = got[(got.split == split) & (got.part != "mean of domains")]
        np.testing.assert_array_equal(mine.value.to_numpy(), expected.value.to_numpy())
        for metric in ("auc", "gauc"):
            of_domains = expected[(expected.metric == metric) & (expected.domain != "all")].value
            mean = got[(got.split == split) & (got.part == "mean of domains") & (got.metric == metric)].value.item()
            np.testing.assert_allclose(mean, of_domains.mean())
        assert roc_auc_score(rows.label, logits[split]) == pytest.approx(
            expected.query("domain == 'all' and metric == 'auc'").value.item()
        )


def test_a_key_changes_with_whatever_fixes_the_outcome():
    job = jobs.make_job(DATA, "mmoe", 0, {}, final=True)
    others = [
        jobs.make_job(DATA, "mmoe", 1, {}, True),
        jobs.make_job(DATA, "mmoe", 0, {"lr": 0.01}, True),
        jobs.make_job("world", "mmoe", 0, {}, True),
        jobs.make_job(DATA, "mmoe", 0, {}, False),
        {**job, "versions": {"torch": "0"}},
    ]
    assert len({jobs.key_of(j) for j in [job, *others]}) == 6
    assert jobs.key_of(job) == jobs.key_of(json.loads(json.dumps(job)))


def test_data_specs():
    assert jobs.parse_data("world") == ("world", {})
    assert spec.spec_of("world", {"rows": 4000, "tail": 0.5}) == "world:rows=4000,tail=0.5"
    assert spec.spec_of("kuairand-pure", {"split": "time"}) == "kuairand-pure:split=time"
    for given in (("world", {"conflict": 0}), ("a:b, c.csv", {"label": "y", "fields": ["d=e", "f,g"]}), ("world", {})):
        assert jobs.parse_data(spec.spec_of(*given)) == given
    assert jobs.parse_data(spec.spec_of("world:conflict=0", {"tail": 2})) == ("world", {"conflict": 0, "tail": 2})
    given = ("kuairand-pure", {"split": "time", "min_count": 20})
    assert jobs.parse_data("kuairand-pure:split=time,min_count=20") == given
    for lost in ({"tabs": "a,b=c"}, {"day": "5"}):
        with pytest.raises(CrocoError, match="An option of world is a number or a word"):
            spec.spec_of("world", lost)
    with pytest.raises(CrocoError, match="'conflict' has no value"):
        jobs.parse_data("world:conflict")
    with pytest.raises(CrocoError, match="the options of clicks.csv are not a JSON object"):
        jobs.parse_data('clicks.csv:{"label"')


def test_the_statistics_of_the_lessons_are_scipys():
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


def test_a_benchmark_of_ones_own_prints_its_tables(tmp_path):
    words = ["benchmark", "--folder", str(tmp_path), "--workers", "1", "--data", "world:rows=4000,users=100,items=200"]
    given = ["--models", "crocodile", "--seeds", "2", "--grid", "alpha=0;0.1", "--grid", "epochs=1"]
    out = CliRunner().invoke(cli.app, words + given, catch_exceptions=False)
    assert out.exit_code == 0 and "own.world-rows-4000-users-100-items-200." in out.output
    T = tables.Tables("own", words[-1], tmp_path)
    best = T.against_best("auc")
    assert set(best.run) == {"crocodile, alpha: 0, epochs: 1", "crocodile, alpha: 0.1, epochs: 1"}
    assert best.difference[0] == 0 and best["mean"].is_monotonic_decreasing
    one, other = ("crocodile", {"alpha": 0, "epochs": 1}), {"alpha": 0.1, "epochs": 1}
    gap = T.gap(one, other)
    assert abs(gap.value) == pytest.approx(-best.difference[1])
    assert best.high[1] - best.low[1] == pytest.approx(gap.high - gap.low)  # of one pair: no allowance
    lines = out.output.splitlines()
    for run, mean in zip(best.run, best["mean"], strict=True):
        assert any(run in line and f"{mean:.4f}" in line for line in lines)
    with pytest.raises(CrocoError, match="has 'crocodile' in several variants; name one"):
        T.side("crocodile")  # two variants are not one side
    for wrong, message in (
        (["--models", "mmo"], "Did you mean 'mmoe'"),
        (["--grid", "alpha"], "KEY=V1;V2"),
        (["--folder", str(room.RESULTS)], "committed studies"),
        (["--data", "world:search_share=0.1"], "no option of a data set"),
        (["--search", "3000", "--name", "other"], "holds 2,160 settings"),
        (["--name", "a/b"], "letters and no slash"),
        (["--name", ""], "letters and no slash"),
        (["--search", "2"], r"own\..*runs\.csv was made with no search.*another --name"),
        (["--models", "ple,mmoe", "--grid", "sets=2"], "Unknown knob of ple 'sets'"),
        (["--models", "ple,crocodile", "--grid", "sets=2"], "Unknown knob of ple 'sets'"),
        (["--models", "mmoe"], r"own\..*runs\.csv holds 4 runs that are not asked for now.*another --name"),
        ([*given, "--seeds", "3", "--label", "click"], "--label: for a file only"),
    ):
        with pytest.raises(CrocoError, match=message):
            CliRunner().invoke(cli.app, words + wrong, catch_exceptions=False)


def test_runs_of_data_that_has_changed_since_are_not_gone_on_with(tmp_path):
    job = jobs.make_job(DATA, "mmoe", 0, {}, final=True)
    run = dict(job=job, status="done", fingerprint=jobs.load_with_fresh(DATA)[0].fingerprint)
    path = tmp_path / f"{jobs.key_of(job)}.json"
    path.write_text(json.dumps(run))
    room.check_data([DATA], tmp_path)
    old = run | {"fingerprint": "0" * 16, "job": job | {"versions": {"torch": "0"}}}
    path.write_text(json.dumps(old))  # of another version: it is not gone on with
    room.check_data([DATA], tmp_path)
    path.write_text(json.dumps(run | {"fingerprint": "0" * 16}))
    with pytest.raises(CrocoError, match="world has changed since it was read for the runs in"):
        room.check_data([DATA], tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.move(path, tmp_path / "runs")
    with pytest.raises(CrocoError, match="world has changed since"):  # any study, not a benchmark alone
        room.run_study("any", dict(models=["mmoe"], seeds=1), DATA, tmp_path, progress=False)


def killed(*_):
    """What a worker does whose memory the system wants back."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_was_killed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "_to_file", killed)
    given = [jobs.make_job(DATA, "mmoe", seed, {}, final=True) for seed in (0, 1)]
    with pytest.raises(CrocoError, match="study: a process was killed, likely for lack of memory.*fewer --workers"):
        jobs.run_jobs(given, tmp_path, workers=2, progress=False)


@pytest.mark.parametrize("start", ["main", "crocodile without CovLoss"])
def test_a_study_starts_from_what_the_search_chose(folder, monkeypatch, start):
    made, T = [], tables.Tables("main", DATA, folder)
    monkeypatch.setattr(room.Runner, "run", lambda *_: None)
    monkeypatch.setattr(room, "write_tables", lambda name, data, runs, tried, folder: made.extend(runs))
    study = dict(models=["crocodile"], settings=start, seeds=1, grid={"alpha": [0.3]})
    room.run_study("alpha", study, DATA, folder, progress=False)
    assert made[0][2] == T.settings_of("crocodile" if start == "main" else start) | {"alpha": 0.3}


def test_a_benchmarks_intervals_allow_for_all_pairs(folder):
    T = tables.Tables("main", DATA, folder, own=True)
    best = T.against_best("auc")
    for run, low, high in zip(best.run[1:], best.low[1:], best.high[1:], strict=True):
        assert (low, high) == pytest.approx(T.gap(run, best.run[0]).interval(1 - 0.05 / 3))
    assert len(best) == 3


def test_a_failed_run_of_a_benchmark_is_named_and_the_others_are_compared(tmp_path):
    words = ["benchmark", "--folder", str(tmp_path), "--workers", "1", "--data", DATA, "--models", "ple,crocodile"]
    given = ["--seeds", "2", "--grid", "lr=0.01", "--grid", "epochs=1", "--grid", "expert=[8];[8,4];8"]
    out = CliRunner().invoke(cli.app, words + given, catch_exceptions=False)
    assert out.exit_code == 1 and "failed: ple, " in out.output and "takes a list of widths" in out.output
    best = tables.Tables("own", DATA, tmp_path, own=True).against_best("auc")  # a list on a grid is one value
    pairs = product(("ple", "crocodile"), ("[8]", "[8, 4]"))
    assert set(best.run) == {f"{model}, epochs: 1, expert: {e}, lr: 0.01" for model, e in pairs}
    given[3] = "lr=0,1"
    wrong = CliRunner().invoke(cli.app, words + given)
    assert wrong.exit_code == 1 and "values are separated by semicolons, as in lr=0;1" in str(wrong.exception)


def test_a_failed_run_is_recorded_and_the_study_is_not_judged(tmp_path, monkeypatch):
    study = dict(models=["shared-bottom"], seeds=2, variants=[{"alpha": 0.1, "epochs": 1}, {"dim": 4, "epochs": 1}])
    room.run_study("bad", study, DATA, tmp_path, progress=False)
    runs = pd.read_csv(room.file_of("bad", DATA, "runs", tmp_path), keep_default_na=False)
    assert runs.status.tolist() == ["failed", "failed", "done", "done"]
    assert "option of shared-bottom 'alpha'" in runs.error[0]
    with pytest.raises(CrocoError, match="lack runs that failed: shared-bottom"):
        tables.Tables("bad", DATA, tmp_path)
    planned = {"bad": {**study, "data": [DATA]}}
    monkeypatch.setattr(room, "read_studies", lambda *_: planned)
    out = CliRunner().invoke(cli.app, ["study", "bad", "--data", DATA, "--folder", str(tmp_path), "--workers", "1"])
    assert out.exit_code == 1 and "failed: shared-bottom, alpha: 0.1" in out.output


def test_a_domain_may_be_called_na(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = room.file_of("main", DATA, "values", tmp_path)
    path.write_text(path.read_text().replace("tab 0", "NA"))
    assert "NA" in tables.Tables("main", DATA, tmp_path).domains().index


def test_a_study_whose_writing_is_interrupted_counts_as_not_run(tmp_path, monkeypatch):
    study = dict(models=["shared-bottom"], seeds=1, fixed={"epochs": 1})
    room.run_study("s", study, DATA, tmp_path, progress=False)
    really = room.write_whole

    def full(path, write):
        """The disk is full when all but one table is written."""
        if ".costs." in path.name:
            raise OSError("full")
        really(path, write)

    monkeypatch.setattr(room, "write_whole", full)
    with pytest.raises(OSError, match="full"):
        room.run_study("s", {**study, "seeds": 2}, DATA, tmp_path, progress=False)
    assert not room.file_of("s", DATA, "runs", tmp_path).exists()


@pytest.mark.parametrize("share", [0, -1, 2, True, "abc", None])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(CrocoError, match="search_share is above 0 and at most 1, not"):
        jobs.of_users(jobs.load_with_fresh(DATA)[0], share)


def test_all_studies_of_a_data_set_are_run_and_no_others(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(room, "run_study", lambda name, study, data, *rest: ran.append((name, data)))
    monkeypatch.setattr("croco_lib.study.commands._say_what_failed", lambda *words: False)
    given = ["study", "all", "--data", "world", "--folder", str(tmp_path)]
    assert CliRunner().invoke(cli.app, given, catch_exceptions=False).exit_code == 0
    assert ran == [(name, "world") for name, study in room.read_studies().items() if "world" in study["data"]]
    for words, message in (
        (["study", "all", "--data", "wold"], "Did you mean 'world'"),
        (["study", "cost", "--data", "world"], "Unknown data set of study cost 'world'"),
        (["claims", "--folder", str(tmp_path)], "There are no tables in .*croco study all"),
    ):
        with pytest.raises(CrocoError, match=message):
            CliRunner().invoke(cli.app, words, catch_exceptions=False)


@pytest.mark.parametrize(("name", "data"), COMMITTED)
def test_the_committed_tables_hold_what_their_study_plans(name, data):
    study, runs = room.read_studies()[name], tables.Tables(name, data).runs
    final = runs[runs.stage == "final"]
    assert set(final.model) == set(study["models"])
    planned = [{k: v for k, v in variant.items() if not isinstance(v, list)} for variant in room.variants_of(study)]
    assert set(final.variant) == {space.label_of(variant) for variant in planned}
    seeds = final.groupby(["model", "variant"]).seed.nunique()
    assert set(seeds) <= {study["seeds"], study.get("more_seeds", study["seeds"])}
    if "more_seeds" in study:
        first = final[final.seed < study["seeds"]]
        mean = first.valid_auc.astype(float).groupby(first.model).mean()
        close = set(mean.index[(mean - mean["crocodile"]).abs() < room.CLOSE])
        assert set(final[final.seed >= study["seeds"]].model) == (close if len(close) > 1 else set())
    search, share = runs[runs.stage == "search"], study.get("search_share", {}).get(data)
    assert set(search.data) <= {room.search_data(data, share)} and set(final.data) == {data}
    if "search" in study:
        counts = search.groupby("model").settings.nunique()
        assert set(counts.index) == set(study["models"]) and set(counts) == {study["search"]}


def test_claims_prints_the_committed_scorecard():
    out = CliRunner().invoke(cli.app, ["claims", "--full"], env={"COLUMNS": "200"}, catch_exceptions=False)
    table = verdicts.judge()
    assert out.exit_code == 0 and "made by croco study main --data kuairand-pure" in out.output
    card = {line.split()[1]: line for line in out.output.splitlines() if line.startswith("│")}
    assert all(r.verdict in card[str(r.number)] for r in table.itertuples())
    for check in table[table.value.notna()].itertuples():
        assert f"{check.data}: {check.what}: {check.value:+.4f} [{check.low:+.4f}, {check.high:+.4f}]" in out.output


def test_bad_words_are_named(tmp_path):
    (tmp_path / "studies.toml").write_text("[main]\nseedz = 3\n")
    with pytest.raises(CrocoError, match="Unknown word of study main 'seedz'. Did you mean 'seeds'"):
        room.read_studies(tmp_path / "studies.toml")
    (tmp_path / "studies.toml").write_text('[main]\ndata = ["world"]\nsearch_share = {wrld = 0.5}\n')
    with pytest.raises(CrocoError, match="search_share 'wrld'. Did you mean 'world'"):
        room.read_studies(tmp_path / "studies.toml")
