"""What is measured inside a model: at equal rows, beside the untrained model, and beside what the experts know."""

import ast
import json
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from sklearn.metrics import roc_auc_score
from torch import nn

from croco_lib import build, evaluation, inside, metrics
from croco_lib.errors import ROOT
from croco_lib.models import MODELS
from croco_lib.study.jobs import load_with_fresh, make_job, run_job

DATA = "world:rows=10000,users=100,items=200"
WITH_EXPERTS = [name for name in MODELS if name not in ("star", "pepnet", "adasparse")]


def table(values):
    frame = pd.DataFrame(values, columns=["split", "part", "metric", "value"])
    assert not frame.duplicated(["split", "part", "metric"]).any()
    return frame.set_index(["split", "part", "metric"]).value


PACKAGE = ROOT / "croco_lib"
ROOMS = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for p in PACKAGE.rglob("*.py")
}
LESSONS = {f"{path.parent.name}/{path.stem}": path for path in (ROOT / "notebooks").rglob("*.ipynb")}


@pytest.mark.parametrize("name", sorted(LESSONS))
def test_whatever_a_lesson_takes_from_a_room_is_there(name):
    cells = json.loads(LESSONS[name].read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = ast.parse(TransformerManager().transform_cell(source))  # magics and shell commands are no Python
    imports = [node for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("croco_lib")]
    bound = {a.asname or a.name: f"{n.module}.{a.name}".removeprefix("croco_lib.") for n in ours for a in n.names}
    rooms = {name: room for name, room in bound.items() if room in ROOMS}
    wanted = {
        (rooms[node.value.id], node.attr)
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms
    }
    wanted |= {
        (room, alias.name)
        for node in ours
        for alias in node.names
        if (room := node.module.removeprefix("croco_lib.")) in ROOMS and f"{room}.{alias.name}" not in ROOMS
    }
    assert not [(room, attr) for room, attr in wanted if not hasattr(import_module(f"croco_lib.{room}"), attr)]


def test_abundance_is_on_the_same_rows_for_every_model(small_world):
    item = small_world.column("item")
    smallest = np.bincount(small_world.train.domain).argmin()
    items = np.unique(small_world.train.features[small_world.train.domain == smallest, item])
    for name in ("shared-bottom", "crocodile", "star"):
        model = build(name, small_world)
        tables = evaluation.embedding_sets(model, small_world, small_world.fields[item].name)
        assert inside.abundance(model, small_world) == pytest.approx(
            np.mean([metrics.information_abundance(E[items]) for E in tables])
        )


@pytest.mark.parametrize(("name", "options"), [("sdem", {}), ("me-ple", {"per_stream": 2})])
def test_own_tables_are_compared_at_equal_rows(small_world, name, options):
    """Before training all tables are alike: over all of its items, the largest domain's looks richer all the same."""
    item = small_world.column("item")
    model = build(name, small_world, **options)
    items = [np.unique(small_world.train.features[small_world.train.domain == s, item]) for s in range(5)]
    tables = evaluation.embedding_sets(model, small_world, small_world.fields[item].name)
    each = options.get("per_stream", 1)
    at_all = [
        np.mean([metrics.information_abundance(E[items[s]]) for E in tables[each * s : each * (s + 1)]])
        for s in range(5)
    ]
    fewest = min(map(len, items))
    own = inside.own_abundance(model, small_world)
    assert list(own) == list(small_world.domains)
    for s, value in enumerate(own.values()):
        assert value == pytest.approx(
            np.mean([metrics.information_abundance_at(E[items[s]], fewest) for E in tables[each * s : each * (s + 1)]])
        )
    assert np.ptp(at_all) > 1.5 > 1 > np.ptp(list(own.values()))
    assert inside.own_abundance(build("crocodile", small_world), small_world) == {}
    assert inside.own_abundance(nn.Linear(2, 2), small_world) == {}  # a model of the reader's own


def test_an_experts_auc_is_on_the_rows_that_read_it():
    rng = np.random.default_rng(0)
    scores, label = rng.normal(size=(3, 60)), rng.integers(0, 2, 60)
    read = rng.random((3, 60)) < 0.6
    read[2] = label == 1
    aucs = inside.expert_aucs(scores, read, label)
    for m in range(2):
        assert aucs[m] == pytest.approx(roc_auc_score(label[read[m]], scores[m, read[m]]))
    assert np.isnan(aucs[2])


@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_every_model_with_experts_is_measured_before_and_after(name):
    options = {"epochs": 2, "batch_size": 200, "dim": 4, "lr": 0.01}
    result, _ = run_job(make_job(DATA, name, 3, options, True, inside=True))
    assert result["status"] == "done", result["error"]
    assert result["best_step"] > 0
    values, (data, _) = table(result["values"]), load_with_fresh(DATA)
    model = build(name, data, seed=3, dim=4)
    scores, read = evaluation.expert_scores(model, data.test)
    each = inside.expert_aucs(scores, read, data.test.label)
    pairs = metrics.user_pairs(data.test.user, data.test.domain, inside.TRIPLES)
    assert values["test", "all", "diversity_index_start"] == metrics.diversity_index(scores, pairs, read)
    assert values["test", "all", "expert_auc_start"] == pytest.approx(np.nanmean(each))
    assert values["test", "all", "expert_auc"] != values["test", "all", "expert_auc_start"]
    if name == "shared-bottom":  # its one expert is the model
        assert values["test", "all", "expert_auc"] == pytest.approx(values["test", "all", "auc"])
    for m, auc in enumerate(each, 1):
        np.testing.assert_allclose(values["test", f"set {m}", "expert_auc_start"], auc)
        assert ("test", f"set {m}", "expert_auc") in values.index
    before = {metric: v for part, metric, v in evaluation.probe(model, data.valid) if part == "all"}
    np.testing.assert_allclose(values["valid", "all", "correlation_start"], before["correlation"])
    assert values["train", "all", "abundance_start"] == inside.abundance(model, data)
    assert values["train", "all", "abundance"] != values["train", "all", "abundance_start"]
    for domain, own in inside.own_abundance(model, data).items():
        np.testing.assert_allclose(values["train", domain, "own_table_abundance_start"], own)
        assert ("train", domain, "own_table_abundance") in values.index
    assert (values["test", "all", "diversity_index"] > 0) == (name not in ("shared-bottom", "single-domain"))


def test_a_model_without_experts_has_an_abundance_and_no_diversity():
    result, _ = run_job(make_job(DATA, "star", 0, {"epochs": 1}, final=True, inside=True))
    metric = set(table(result["values"]).index.get_level_values("metric"))
    assert {"abundance", "abundance_start"} <= metric and not {"diversity_index", "expert_auc"} & metric


def test_measuring_changes_no_result():
    with_, without = (run_job(make_job(DATA, "crocodile", 0, {"epochs": 1}, True, i))[0] for i in (True, False))
    assert table(without["values"]).equals(table(with_["values"])[: len(without["values"])])
    assert with_["valid_auc"] == without["valid_auc"]


@pytest.mark.parametrize("name", ["shared-bottom", "crocodile"])
def test_the_tables_of_a_field_are_what_its_ids_read(small_world, name):
    model, X = build(name, small_world, dim=3), small_world.test.features
    x = model.embedding(torch.from_numpy(X)).detach().numpy()  # [M, N, F·e]
    for f, field in enumerate(small_world.fields):
        E = evaluation.embedding_sets(model, small_world, field.name)
        assert E.shape[1] == field.size
        np.testing.assert_array_equal(E[:, X[:, f]], x[:, :, 3 * f : 3 * f + 3])
