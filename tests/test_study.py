"""The verdicts' protocol: equal searches, the same bytes after an interruption, rules that can come out either way."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from croco_lib import CrocoError, build, cli
from croco_lib.study import cost, figures, jobs, resampling, rules, space, tables, verdicts
from croco_lib.study import studies as room

DATA = "world:rows=20000,users=200,items=200"
SMALL = dict(
    models=["crocodile", "crocodile without CovLoss", "shared-bottom"],
    search=4,
    seeds=2,
    more_seeds=3,
    inside=True,
    fixed={"epochs": 1},
)

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


def test_a_search_on_a_share_of_the_users_reads_all_their_rows_and_the_finals_read_everything(tmp_path):
    study = dict(models=["shared-bottom"], search=2, search_share={DATA: 0.5}, seeds=1, fixed={"epochs": 1})
    room.run_study("main", study, DATA, tmp_path, progress=False)
    T = tables.Tables("main", DATA, tmp_path)  # two prints of data, and not refused
    assert dict(T.runs.groupby("stage").data.first()) == {"final": DATA, "search": f"{DATA},search_share=0.5"}
    whole, half = jobs.load_with_fresh(DATA)[0], jobs.load_with_fresh(f"{DATA},search_share=0.5")[0]
    assert dict(T.runs.groupby("stage").fingerprint.first()) == {
        "final": whole.fingerprint,
        "search": half.fingerprint,
    }
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
def test_a_killed_study_ends_with_the_same_bytes(folder, tmp_path):
    script = (
        f"from croco_lib.study.studies import run_study; import pathlib\n"
        f"run_study('main', {SMALL!r}, {DATA!r}, pathlib.Path({str(tmp_path)!r}), progress=False)"
    )
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
    drawn = T.users.query("part == 'all' and split == 'test'").pivot(index="draw", columns="model", values=metric)
    users = (drawn["crocodile"] - drawn["shared-bottom"]).std()
    assert users > 0 and g.error == pytest.approx(np.hypot(stats.sem(d.dropna()), users))
    assert (drawn.mean() - wide.mean()).abs().max() < 0.02  # the draws lie around what was measured


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
    assert np.isnan(
        resampling._under_draws(label, score, user % 20, draws[:, :20])[1]
    ).all()  # fewer than 30: not measured


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


def test_the_scorecard_says_what_is_not_run(tmp_path):
    card = verdicts.scorecard(verdicts.judge(tmp_path))
    assert len(card) == 13 and (card.loc[card.number < 12, "kuairand-pure"] == verdicts.NOT_RUN).all()
    assert card.loc[card.number == 13, "elsewhere"].item() == "cannot be tested here"


def test_costs_are_counted_as_the_paper_does():
    table = cost.cost(repeats=3)
    assert table["products, all rows"].iloc[0] == 10 * 32**2 * 4096
    assert table["products, experts"].iloc[0] == 4096 * 5 * (112 * 64 + 64 * 32)
    assert (table[["ms, experts", "ms, all rows", "ms, 32 rows"]] > 0).all().all()
    assert len(list(rules.cheap(table))) == 4 * len(cost.SHAPES)


def test_costs_of_other_rules_are_refused(tmp_path):
    cost.cost(repeats=2).assign(rules="0" * 16).to_csv(tmp_path / "cost.csv", index=False)
    with pytest.raises(CrocoError, match="under other rules.*croco study cost"):
        verdicts.judge(tmp_path)


def test_a_grid_is_widened_until_its_best_is_inside(tmp_path, monkeypatch):
    """Validation is best at 0.004, beyond the first grid."""
    at = room.Runner(tmp_path, 1, False)
    monkeypatch.setattr(at, "run", lambda jobs, label: None)
    monkeypatch.setattr(at, "valid", lambda job: -abs(np.log(job["options"]["alpha"] / 0.004)))
    chosen, tried = at.choose_value(DATA, "crocodile", {"sets": 3}, "alpha", [0.1, 1.0, 10.0], "t")
    assert chosen == {"sets": 3, "alpha": 0.01} or chosen["alpha"] == pytest.approx(0.001, rel=9)
    values = sorted({job["options"]["alpha"] for job in tried})
    assert values[0] < chosen["alpha"] < values[-1]


@pytest.mark.parametrize("model", room.studies()["capacity"]["models"])
def test_models_of_equal_capacity_have_as_many_embedding_parameters(model):
    dim, crocodile = jobs.dim_of(DATA, model, "crocodile"), build("crocodile", jobs.load_with_fresh(DATA)[0])
    held = jobs.embedding_parameters(DATA, model, {"dim": dim})
    aim = sum(p.numel() for name, p in crocodile.named_parameters() if name.endswith("table.weight"))
    assert held == pytest.approx(aim, rel=0.05)
    assert (dim == 16) == ("crocodile" in model)


@pytest.mark.parametrize("name", room.studies())
def test_every_model_of_a_study_can_be_built_in_every_variant(name):
    study, small = room.studies()[name], jobs.load_with_fresh(DATA)[0]
    assert all(jobs.parse_data(data) for data in study["data"])
    for model in study["models"]:
        for variant in room.variants_of(study):
            settings = {knob: value[0] if isinstance(value, list) else value for knob, value in variant.items()}
            assert jobs.built(jobs.make_job(DATA, model, 0, settings, False), small)


def test_the_claims_read_studies_that_are_planned():
    assert {c.study for c in rules.CLAIMS if c.judge} <= set(room.studies())


def test_bad_words_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "studies.toml").write_text("[main]\nseedz = 3\n")
    with pytest.raises(CrocoError, match="Unknown word of study main 'seedz'. Did you mean 'seeds'"):
        room.studies(tmp_path / "studies.toml")
    monkeypatch.setattr("sys.argv", ["croco", "study", "mian"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "Did you mean 'main'" in capsys.readouterr().err
