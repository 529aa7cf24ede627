"""An exported model says what the trained one says; what it does not know is counted."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from croco_lib import CrocoError, build, fit
from croco_lib.errors import DataError
from croco_lib.evaluation import predict
from croco_lib.models import MODELS
from croco_lib.online import serving
from croco_lib.schema import Bag


def raw(data, split, rows=300):
    """The raw values behind a split's first coded rows."""
    X = split.features[:rows]
    return pl.DataFrame({f.name: np.asarray(f.values)[X[:, i] - 1] for i, f in enumerate(data.fields)})


@pytest.fixture(scope="module")
def exported(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = build("crocodile", small_world).eval()
    return model, serving.export(model, small_world, folder)


FAST = ("shared-bottom", "ple", "crocodile")  # of every kind of tower and gate one; the others in make test-all


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_same_scores_as_in_training(name, small_world, tmp_path):
    model = build(name, small_world)
    some = small_world.train.take(np.arange(512))
    model(torch.from_numpy(some.features), torch.from_numpy(some.domain))  # moves STAR's running means
    serving.export(model, small_world, tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    for rows in (1, 2, 300):
        part = small_world.test.take(np.arange(rows))
        expected = 1 / (1 + np.exp(-predict(model, part)))
        got, counts = serving.score(tmp_path, raw(small_world, small_world.test, rows))
        assert np.abs(got - expected).max() < 1e-5 and not counts[["unknown", "missing"]].to_numpy().any()
        again = program(torch.from_numpy(part.features), torch.from_numpy(part.domain)).detach().numpy()
        assert np.abs(again - expected).max() < 1e-5


def test_unknown_and_missing_get_the_unknown_id_and_are_counted(small_world, exported):
    model, folder = exported
    table = raw(small_world, small_world.test, 10)
    table = table.with_columns(
        item=pl.when(pl.int_range(10) < 3).then(999_999).otherwise("item"),
        group=pl.when(pl.int_range(10) < 2).then(None).otherwise("group"),
    ).drop("author")
    got, counts = serving.score(folder, table)
    counts = counts.set_index("field")
    assert counts.loc[["item", "group", "author"]].to_numpy().tolist() == [[3, 0], [0, 2], [0, 10]]
    part = small_world.test.take(np.arange(10))
    part.features[:3, 3], part.features[:2, 1], part.features[:, 4] = 0, 0, 0
    assert np.abs(got - 1 / (1 + np.exp(-predict(model, part)))).max() < 1e-5


def test_a_domain_must_be_known(small_world, exported):
    table = raw(small_world, small_world.test, 5)
    with pytest.raises(DataError, match="'domain'.*tab 0.*5 rows"):
        serving.score(exported[1], table.drop("domain"))
    other = table.with_columns(domain=pl.when(pl.int_range(5) == 1).then(pl.lit("tab 9")).otherwise("domain"))
    with pytest.raises(DataError, match="1 rows, the first data row 2"):
        serving.score(exported[1], other)


def test_schema_comes_back(small_world, tmp_path):
    serving.save_schema(small_world, tmp_path)
    schema = serving.load_schema(tmp_path)
    assert schema.fields == small_world.fields and schema.domains == small_world.domains
    assert schema.column("item") == small_world.column("item")
    with pytest.raises(CrocoError, match="croco fit"):
        serving.load_schema(tmp_path / "other")


@pytest.mark.parametrize("failing", ["export", "save"])
def test_an_export_that_was_cut_short_leaves_the_one_before_it(small_world, tmp_path, monkeypatch, exported, failing):
    shutil.copytree(exported[1], tmp_path, dirs_exist_ok=True)
    rows = raw(small_world, small_world.test, 3)
    (before, _), there = serving.score(tmp_path, rows), sorted(tmp_path.iterdir())
    monkeypatch.setattr(torch.export, failing, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        serving.export(build("shared-bottom", small_world, dim=8), small_world, tmp_path)
    assert sorted(tmp_path.iterdir()) == there
    np.testing.assert_array_equal(serving.score(tmp_path, rows)[0], before)


def test_an_export_replaces_no_file_but_an_exports(small_world, tmp_path):
    (tmp_path / "README.md").write_text("of a project")
    with pytest.raises(CrocoError, match="has a README.md of its own, which would be lost"):
        serving.export(build("shared-bottom", small_world, dim=4), small_world, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "of a project"


def test_the_model_comes_after_what_its_scores_need(small_world, tmp_path, monkeypatch, exported):
    moved, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moved.append(Path(new).name), real(old, new)))
    serving.export(build("shared-bottom", small_world, dim=4), small_world, tmp_path / "out")
    inside = [name for name in moved if name in serving.EXPORTED]
    assert inside[-1] == "model.onnx" and inside.index("schema.json") < inside.index("README.md")
    assert set(inside) == {path.name for path in (tmp_path / "out").iterdir()}


def test_a_run_is_exported_with_its_best_weights(small_world, tmp_path):
    given = dict(epochs=1, folder=tmp_path / "run", progress=False)
    run = fit(build("shared-bottom", small_world, dim=4), small_world, **given)
    with pytest.raises(CrocoError, match="schema"):
        serving.export_run(tmp_path / "run", tmp_path / "out")
    (tmp_path / "out").mkdir()
    for name in ("schema.json", "model.onnx.data"):  # of a larger model that was exported there before
        (tmp_path / "out" / name).touch()
    serving.save_schema(small_world, tmp_path / "run")
    serving.export_run(tmp_path / "run", tmp_path / "out")
    got, _ = serving.score(tmp_path / "out", raw(small_world, small_world.test))
    assert np.abs(got - 1 / (1 + np.exp(-predict(run.model, small_world.test.take(np.arange(300)))))).max() < 1e-5
    assert json.loads((tmp_path / "out/schema.json").read_text())["domains"] == list(small_world.domains)
    assert not (tmp_path / "out/model.onnx.data").exists()
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    (tmp_path / "run/settings.json").write_text(json.dumps({**settings, "model": "Mine", "options": "Mine()"}))
    with pytest.raises(CrocoError, match="your own Mine: use serving.export"):
        serving.export_run(tmp_path / "run", tmp_path / "out")


def test_a_folder_without_a_model_is_named(tmp_path):
    for call in (serving.export_run, serving.score):
        with pytest.raises(CrocoError, match="holds no"):
            call(tmp_path, tmp_path)


def test_latency_is_the_median_and_the_99th_percentile_of_the_warm_requests(exported, small_world, monkeypatch):
    """The clock is ours: request i takes i milliseconds; each is one user and one domain with all its candidates."""
    clock, asked = [0.0], []

    class Session:
        def run(self, names, inputs):
            asked.append(inputs)
            clock[0] += len(asked) / 1000

    monkeypatch.setattr(serving, "session", lambda folder: Session())
    monkeypatch.setattr(serving.time, "perf_counter", lambda: clock[0])
    got = serving.latency(exported[1], candidates=30, requests=100)
    assert got == pytest.approx(np.quantile(np.arange(21, 121), (0.5, 0.99)))  # the first twenty warm up
    user, item, domain = (small_world.column(role) for role in ("user", "item", "domain"))
    for inputs in asked:
        X = inputs["features"]
        assert X.shape == (30, len(small_world.fields)) and (inputs["domain"] == X[0, domain] - 1).all()
        assert len(np.unique(X[:, user])) == len(np.unique(X[:, domain])) == 1 < len(np.unique(X[:, item]))


def test_fields_of_several_values_are_refused_in_words(small_world, tmp_path):
    bag = Bag(np.array([0, 1]), np.array([0], np.int32), np.ones(1, np.float32))
    fields = (replace(small_world.fields[0], bag=bag), *small_world.fields[1:])
    serving.save_schema(replace(small_world, fields=fields, stored={}), tmp_path)
    with pytest.raises(CrocoError, match=f"the fields {fields[0].name} hold several values"):
        serving.load_schema(tmp_path)
