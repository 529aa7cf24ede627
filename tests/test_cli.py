import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import small
import torch

import croco_lib
from croco_lib.online import serving

OF_A_FILE = "--label click --domain place --user who --item what --fields kind"
COLUMNS = OF_A_FILE.split()
CLICKS = small.clicks(600, sizes=(20, 20, 4))


def test_data_says_what_is_here_and_where_to_get_the_rest(croco, monkeypatch, tmp_path):
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    (tmp_path / "log_standard_4_08_to_4_21_1k.csv").write_text("user_id\n")
    code, out, err = croco("data")
    assert (code, err) == (0, "") and "world: made on the spot" in out
    assert f"kuairand-1k: here, in {tmp_path}\n    log_standard_4_08_to_4_21_1k.csv  0.0 MB" in out
    assert "kuairand-27k: missing." in out and "zenodo.org/records/10439422" in out


def test_the_version_is_said_and_no_command_is_the_help(croco):
    code, out, err = croco("--version")
    assert (code, err) == (0, "") and out.startswith(f"croco-lib {croco_lib.__version__}, torch {torch.__version__}")
    assert "croco [OPTIONS]" in "".join(croco()[1:])


def test_fit_prints_one_json_object_of_what_is_measured_on_test_rows(croco):
    code, out, err = croco("fit shared-bottom --data world --option rows=5000 --epochs 1 --threads 1 --json")
    assert code == 0 and out.count("\n") == 1, err
    result, data = json.loads(out, parse_constant=pytest.fail), croco_lib.load("world", rows=5000)
    assert (result["rows"], result["train_rows"]) == (500, 4000) and result["seconds"] > 0
    assert list(result["domains"]) == ["tab 0", "tab 1", "tab 2", "tab 4", "tab 6"]
    assert sum(d["rows"] for d in result["domains"].values()) == 500
    run = croco_lib.fit(croco_lib.build("shared-bottom", data), data, epochs=1, progress=False)
    table = croco_lib.evaluate(run.model, data.test).set_index(["domain", "metric"]).value
    for domain, part in {"all": result, **result["domains"]}.items():
        for metric in ("auc", "gauc", "logloss"):
            if np.isnan(expected := table[domain, metric]):
                assert part[metric] is None and part["notes"][metric].startswith(("not defined", "not measured"))
            else:
                assert part[metric] == pytest.approx(expected, abs=1e-6)
    assert result["settings"]["model"] == "shared-bottom" and result["data_notes"]["options"]["conflict"] == 0.7


def test_fit_prints_a_table_with_a_line_a_domain(croco):
    code, out, err = croco("fit mmoe --option rows=5000 --option conflict=0 --epochs 1 --threads 1")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line[0] not in "#!"]
    assert [line.split("  ")[0] for line in lines[-6:]] == ["all", "tab 0", "tab 1", "tab 2", "tab 4", "tab 6"]
    assert lines[0].split() == ["metric", "rows", "auc", "gauc", "logloss"]
    assert "conflict 0" in out


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_fit_reads_a_file(croco, tmp_path, kind):
    path = tmp_path / f"clicks.{kind}"
    CLICKS.to_csv(path, index=False) if kind == "csv" else CLICKS.to_parquet(path)
    asked = "fit shared-bottom --epochs 1 --threads 1 --option split=time --option time=when --json --data"
    code, out, err = croco(asked, path, *COLUMNS, "--option", "domains=[1, 0]")
    assert code == 0, err
    result = json.loads(out)
    assert list(result["domains"]) == ["1", "0"]
    assert result["data_notes"]["split"] == "by when: first 80 % train, last 10 % test"
    assert result["settings"]["data"] == "clicks"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit sharedbottom", "Unknown model 'sharedbottom'. Did you mean 'shared-bottom'"),
        ("fit mmoe --data wrld", "Unknown data set 'wrld'. Did you mean 'world'"),
        ("fit mmoe --option rowz=1", "Unknown option of world 'rowz'. Did you mean 'rows'"),
        ("fit mmoe --data kuairand-pure --option conflict=1", "Unknown option of kuairand-pure 'conflict'"),
        ("fit mmoe --option rows", "--option takes KEY=VALUE, not 'rows'"),
        ("fit mmoe --option rows=many", "an option is missing, or has the wrong type"),
        ("fit mmoe --option seed=-1", "seed must lie between"),
        ("fit mmoe --option name=x", "Unknown option of world 'name'"),
        ("fit mmoe --option rows=NaN", "rows must be a whole number"),
        ("fit mmoe --option rows=Infinity", "rows must be a whole number"),
        ("fit mmoe --set seed=1", "Unknown option of mmoe 'seed'"),
        ("fit mmoe --set dim=8 --set dim=4", "--set has a key twice"),
        ("fit mmoe --set sets=2 --set sets=3", "--set has a key twice"),
        ("fit mmoe --label click --fields a", "--label, --fields: for a file only"),
        ("fit mmoe --data a.csv --domain d --user u", "--label, --item must name its columns"),
        (f"fit mmoe --data no-such.csv {OF_A_FILE}", "no-such.csv: there is no such file"),
        (f"fit mmoe --data no-such.csv {OF_A_FILE} --option splt=time", "Did you mean 'split'"),
        ("data get world", "Unknown data set to fetch 'world'"),
        ("data prepare world --option workers=2", "workers is given twice, or has a flag of its own"),
        ("data prepare world --option seed=4 --seed 3", "seed is given twice"),
        ("data prepare world --option seed=4 --option seed=5", "--option has a key twice: seed=4, seed=5"),
        ("data prepare world --workers 2", "workers"),
        ("data prepare world --option rows=9", "rows must lie between 1000"),
        ("study mian", "Did you mean 'main'"),
    ],
)
def test_a_users_error_is_one_line_and_status_1(croco, line, message):
    code, out, err = croco(line)
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith("croco: ") and message in err, err


def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "croco_lib", "fit", "sharedbottom"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("croco: Unknown model") and run.stderr.count("\n") == 1


def test_a_benchmark_reads_a_file_as_fit_does(croco, tmp_path):
    path = tmp_path / "my clicks, 1.csv"  # what stands in a path must not matter
    CLICKS.to_csv(path, index=False)
    words = ["benchmark", "--folder", tmp_path / "b", "--workers", 1, "--data", path, "--seeds", 2]
    words += ["--models", "shared-bottom,ple", "--grid", "epochs=1"]
    code, out, err = croco(*words, *COLUMNS)
    assert code == 0 and f"test auc on {path}, each against the best" in out, err
    (file,) = (tmp_path / "b").glob("own.my-clicks--1.csv.*.runs.csv")
    runs, data = pd.read_csv(file), croco_lib.from_frame(path, **small.ROLES, fields=["kind"])
    assert set(runs.fingerprint) == {data.fingerprint} and len(runs) == 4
    for wrong, message in (
        (["--label", "click"], "table of your own, so --domain, --user, --item must name"),
        ([*COLUMNS, "--option", "min_cout=2"], "Did you mean 'min_count'"),
        ([*COLUMNS, "--option", "label=kind"], "label has a flag of its own: use --label, once"),
        ([*COLUMNS, "--domain", "plase"], "Did you mean 'place'"),
    ):
        code, _, err = croco(*words, *wrong)
        assert code == 1 and message in err and "Traceback" not in err, err
    CLICKS.iloc[:-1].to_csv(path, index=False)
    code, _, err = croco(*words, *COLUMNS)
    assert code == 1 and "has changed since it was read for the runs in" in err, err
    damaged = next((tmp_path / "b/runs").glob("*.json"))
    damaged.write_text("{")
    code, _, err = croco(*words, *COLUMNS)
    assert code == 1 and f"{damaged} is damaged; delete it" in err, err


def test_names_with_blanks_and_a_folder_that_is_a_file(croco, tmp_path):
    (tmp_path / "a.csv").write_text(CLICKS.to_csv(index=False).replace(",", ", "))
    words = ["fit", "mmoe", "--data", tmp_path / "a.csv", "--epochs", 1, "--threads", 1]
    columns = [f" {word}" if not word.startswith("--") and word != "click" else word for word in COLUMNS]
    code, _, err = croco(*words, *columns)
    assert code == 0, err
    code, _, err = croco(*words, *columns, "--folder", tmp_path / "a.csv" / "run")
    assert code == 1 and err.startswith("croco: ") and "a.csv" in err and "Traceback" not in err, err


def test_a_run_whose_users_are_all_rare_is_saved_with_its_schema(croco, tmp_path):
    CLICKS.assign(who=range(len(CLICKS))).to_csv(tmp_path / "a.csv", index=False)
    words = ["fit", "mmoe", "--data", tmp_path / "a.csv", *COLUMNS, "--epochs", 1, "--threads", 1]
    code, out, err = croco(*words, "--folder", tmp_path / "run")
    assert code == 0 and "logloss" in out, err
    assert serving.load_schema(tmp_path / "run").fields[0].size == 1


def test_an_untrained_best_is_said_and_a_file_of_any_name_is_a_file(croco, tmp_path):
    """A rate at which nothing is learnt; and -h is help."""
    CLICKS.to_csv(tmp_path / "clicks.log", index=False)
    asked = "fit mmoe --lr 9 --epochs 3 --patience 1 --data"
    code, out, err = croco(asked, tmp_path / "clicks.log", *COLUMNS)
    assert code == 0 and "no better for 1 evaluations" in out, err
    assert "! best at step 0: these are the figures of the untrained model" in out
    assert croco("fit -h")[0] == 0


def test_export_and_score_a_run(croco, tmp_path):
    code, _, err = croco("fit shared-bottom --option rows=5000 --epochs 1 --threads 1 --folder", tmp_path / "run")
    assert code == 0, err
    code, out, err = croco("export", tmp_path / "run", "-o", tmp_path / "model")
    assert code == 0 and "model.onnx" in out and err == "", err
    pd.DataFrame({"user": [1, 99_999], "item": [5, 6], "domain": ["tab 1", "tab 6"]}).to_csv(tmp_path / "t.csv")
    code, out, err = croco("score", tmp_path / "model", tmp_path / "t.csv", "-o", tmp_path / "s.csv")
    assert code == 0 and "# user: 1 unknown, 0 missing\n# group: 0 unknown, 2 missing" in out, err
    assert "! group:" in err and "t.csv has no such column; every score is made without it" in err
    assert "! user" not in err
    assert pd.read_csv(tmp_path / "s.csv").score.between(0, 1).all()
    code, _, err = croco("score", tmp_path, tmp_path / "t.csv")
    assert code == 1 and "holds no model.onnx" in err
    for words, said in (
        (["score", tmp_path / "run", tmp_path / "t.csv"], f"It is a run: `croco export {tmp_path / 'run'} -o model`"),
        (["score", tmp_path / "model", tmp_path / "t.csv", "-o", tmp_path / "t.csv"], "which would be lost"),
        (["score", tmp_path / "model", tmp_path, "-o", tmp_path / "s.parquet"], "which would be lost"),
        (["score", tmp_path / "model", tmp_path / "t.csv", "-o", tmp_path / "s.csv.gz"], "ends in .csv or .parquet"),
        (["export", tmp_path / "run", "-o", tmp_path / "run"], "holds a run, whose schema would be lost"),
        (["export", tmp_path / "run", "-o", tmp_path / "t.csv"], "is a file; give the exported model a folder"),
        (["fit", "mmoe", "--option", "rows=5000", "--folder", tmp_path / "model"], "holds an exported model"),
        (["fit", "mmoe", "--shard", "--folder", tmp_path / "model"], "holds an exported model"),
    ):
        code, _, err = croco(*words)
        assert code == 1 and said in err, err
    assert pd.read_csv(tmp_path / "t.csv").item.tolist() == [5, 6]
    pd.DataFrame({"user": [1, 2], "item": [5, 6], "domain": ["tab 1", "Tab 6"]}).to_csv(tmp_path / "t.csv")
    code, _, err = croco("score", tmp_path / "model", tmp_path / "t.csv", "-o", tmp_path / "s.csv")
    assert code == 1 and "the first data row 2 ('Tab 6')" in err


def test_fit_says_where_a_batch_is_too_large_and_a_field_tells_nothing(croco, tmp_path):
    CLICKS.assign(kind=[f"{n},5" for n in range(600)]).to_csv(tmp_path / "clicks.csv", index=False, sep=";")
    words = ["fit", "shared-bottom", "--data", tmp_path / "clicks.csv", *COLUMNS, "--epochs", "1"]
    code, out, err = croco(*words, "--option", "min_count=2")
    assert code == 0 and "! only 1 steps an epoch: from so few rows a smaller --batch-size" in out, err
    assert "! kind: hardly a value is seen often enough to have an id" in out and "! who" not in out


def test_scores_of_a_killed_run_go_back_where_they_came_from(croco, tmp_path, monkeypatch):
    """The user's own columns stay as they were written; the folder is made; Parquet for .parquet; lists are named."""
    from croco_lib import training

    def killed(*_):
        raise KeyboardInterrupt

    frame = small.clicks(sizes=(20, 9, 5)).drop(columns="when").rename(columns={"kind": "score"})
    frame = frame.assign(place=frame.place.map({0: "a", 1: "b"}), what=frame.what.map("{:03d}".format), amount="1.50")
    frame.to_csv(tmp_path / "a.csv", index=False)
    asked = "fit shared-bottom --epochs 1 --label click --domain place --user who --item what --data"
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", killed)
        assert croco(asked, tmp_path / "a.csv", "--folder", tmp_path / "run")[0] != 0
    assert croco("export", tmp_path / "run", "-o", tmp_path / "model")[0] == 0

    def score(file: str, out: str):
        return croco("score", tmp_path / "model", tmp_path / file, "-o", tmp_path / out)

    status, said, _ = score("a.csv", "new/folder/scores.csv")
    assert status == 0 and "column model_score" in said
    scored = pd.read_csv(tmp_path / "new/folder/scores.csv", dtype=str)
    pd.testing.assert_frame_equal(scored[list(frame)], pd.read_csv(tmp_path / "a.csv", dtype=str))
    expected, _ = serving.score(tmp_path / "model", tmp_path / "a.csv")
    assert len(set(expected.tolist())) > 9
    np.testing.assert_allclose(scored.model_score.astype(float), expected, rtol=1e-5)  # each beside its own row
    frame.assign(words=[["x", "y"]] * 400).to_parquet(tmp_path / "a.parquet")
    assert score("a.parquet", "s.parquet")[0] == 0
    assert pd.read_parquet(tmp_path / "s.parquet").words[0].tolist() == ["x", "y"]
    for no_text in (["x", "y"], b"\xff", pd.Timedelta("1s")):
        frame.assign(words=[no_text] * 400).to_parquet(tmp_path / "a.parquet")
        status, _, error = score("a.parquet", "s.csv")
        assert status == 1 and "words hold lists, structs, durations or bytes, which a CSV cannot" in error


def test_every_option_reaches_the_run(croco):
    sizes = "--set alpha=0.5 --set sets=2 --set dim=4 --set expert=[8,4]"
    steps = "--lr 0.01 --weight-decay 1e-5 --objective domain --batch-size 2000 --lazy --eval-every 1"
    code, out, err = croco(f"fit crocodile --option rows=5000 --epochs 1 --threads 1 --json --seed 3 {sizes} {steps}")
    assert code == 0, err
    s = json.loads(out)["settings"]
    made = {k: s["options"][k] for k in ("alpha", "sets", "dim", "expert")}
    assert made == dict(alpha=0.5, sets=2, dim=4, expert=[8, 4])
    assert (s["seed"], s["weights_from_seed"], s["lr"], s["weight_decay"]) == (3, 3, 0.01, 1e-5)
    assert (s["objective"], s["batch_size"], s["lazy"], s["eval_every"]) == ("domain", 2000, True, 1)


def test_a_folder_named_like_a_data_set_is_not_taken_for_a_table(croco, tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = croco("fit shared-bottom --option rows=5000 --epochs 1 --threads 1")
    assert code == 0, err
