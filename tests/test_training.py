"""Training: one seed fixes everything, the best weights are kept, an interruption changes nothing."""

import inspect
import json
from dataclasses import FrozenInstanceError, asdict, fields, replace
from functools import partial
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small import in_bf16

from croco_lib import CrocoError, batches, build, checkpoint, evaluate, evaluation, fit, load, metrics, training
from croco_lib.checkpoint import RunState, load_weights
from croco_lib.data.world import oracle
from croco_lib.evaluation import embedding_sets, expert_outputs, expert_scores, predict, probe
from croco_lib.losses import covariance_loss, domain_objective, sample_objective
from croco_lib.models import Output
from croco_lib.online import serving
from croco_lib.optimizers import adam
from croco_lib.options import TrainOptions
from croco_lib.study.steps import shaped

FAST = dict(epochs=3, batch_size=1000, progress=False)
ONCE = dict(FAST, epochs=1)


def diversity(model, split, triples):
    """The diversity index of the model's experts on this split."""
    scores, read = expert_scores(model, split)
    return metrics.diversity_index(scores, metrics.user_pairs(split.user, split.domain, triples), read)


def value(frame, metric, part="all"):
    column = "part" if "part" in frame else "domain"
    return frame[(frame.metric == metric) & (frame[column] == part)].value.to_numpy()


def test_the_same_seed_gives_the_same_run(small_world):
    one, again = (fit(build("crocodile", small_world, seed=3), small_world, seed=3, **ONCE) for _ in range(2))
    pd.testing.assert_frame_equal(one.history, again.history)
    other = fit(build("crocodile", small_world, seed=3), small_world, seed=4, **ONCE)
    assert not np.array_equal(value(one.history, "loss"), value(other.history, "loss"))


@pytest.mark.parametrize(("epochs", "patience"), [(3, 9), (30, 1)])
def test_the_best_weights_are_kept_however_it_ends(small_world, epochs, patience):
    options = dict(epochs=epochs, patience=patience, batch_size=500, lr=0.01, progress=False)
    run = fit(build("shared-bottom", small_world), small_world, **options)
    aucs = value(run.history, "auc")
    assert value(evaluate(run.model, small_world.valid), "auc")[0] == aucs.max()
    assert ("epochs done" in run.stopped) == (patience == 9)
    if patience == 1:
        assert aucs.argmax() == len(aucs) - 2 and len(aucs) < 31


def test_the_bar_speaks_once_a_second(monkeypatch, capsys):
    # A kernel drops messages when a thousand of them wait, and then a notebook's cell never ends for its reader.
    clock = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with training._progress_bar("a", 0, 1_000, silent=False) as bar:
        for _ in range(1_000):  # ten seconds
            clock[0] += 0.01
            bar.update()
    assert 2 <= capsys.readouterr().err.count("\r") <= 13


def test_the_history_holds_what_every_plot_needs(small_world, monkeypatch):
    losses, really = [], training.train_step
    monkeypatch.setattr(training, "train_step", lambda *a: losses.append(really(*a)) or losses[-1])
    run = fit(build("crocodile", small_world, sets=3), small_world, **FAST)
    start = run.history.query("step == 0")
    measures = "auc gauc logloss covariance correlation gate_entropy information_abundance"
    assert set(measures.split()) <= set(start.metric)
    assert set(start.query("metric == 'auc'").part) == {"all", *small_world.domains}
    assert set(start.query("metric == 'information_abundance'").part) == {"set 1", "set 2", "set 3"}
    np.testing.assert_allclose(value(run.history, "loss"), torch.stack(losses).reshape(3, -1).mean(1), rtol=1e-5)
    assert run.history.epoch.max() == 3


def test_the_probe_is_the_loss_and_the_measures_themselves(small_world):
    model = build("crocodile", small_world)
    probed = {(part, metric): v for part, metric, v in probe(model, small_world.valid)}
    O = expert_outputs(model, small_world.valid)
    assert probed["all", "covariance"] == pytest.approx(float(covariance_loss(torch.from_numpy(O))), rel=1e-5)
    table = embedding_sets(model, small_world)[1]
    values = np.linalg.svd(table, compute_uv=False)
    assert probed["set 2", "information_abundance"] == pytest.approx(values.sum() / values[0], rel=1e-4)


OFTEN = dict(FAST, eval_every=7, patience=9)  # 16 steps an epoch: evaluations fall inside epochs


@pytest.fixture(scope="module")
def whole(small_world, tmp_path_factory):
    """A run that nothing interrupts."""
    return fit(build("crocodile", small_world), small_world, folder=tmp_path_factory.mktemp("whole"), **OFTEN)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(small_world, tmp_path, monkeypatch, whole, at):
    calls, real = [], training.evaluate

    def interrupt(model, split):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt
        return real(model, split)

    monkeypatch.setattr(training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(build("crocodile", small_world), small_world, folder=tmp_path / "cut", **OFTEN)
    monkeypatch.setattr(training, "evaluate", real)
    resumed = fit(build("crocodile", small_world), small_world, folder=tmp_path / "cut", **OFTEN)
    pd.testing.assert_frame_equal(resumed.history, whole.history)
    pd.testing.assert_frame_equal(evaluate(resumed.model, small_world.test), evaluate(whole.model, small_world.test))
    assert resumed.best_step == whole.best_step
    again = fit(build("crocodile", small_world), small_world, folder=tmp_path / "cut", **OFTEN)
    pd.testing.assert_frame_equal(again.history, whole.history)


def test_saved_weights_give_the_same_predictions(small_world, tmp_path):
    run = fit(build("mmoe", small_world), small_world, folder=tmp_path, **ONCE)
    loaded = load_weights(build("mmoe", small_world, seed=5), tmp_path)
    expected = predict(run.model, small_world.test)
    np.testing.assert_array_equal(predict(loaded, small_world.test), expected)
    with pytest.raises(CrocoError, match="does not fit"):
        load_weights(build("crocodile", small_world), tmp_path)
    with pytest.raises(CrocoError, match="no such file"):
        load_weights(loaded, tmp_path / "nowhere")


def test_a_loss_that_is_not_finite_is_an_error(small_world):
    model = build("shared-bottom", small_world)
    original = model.forward
    model.forward = lambda f, d: original(f, d)._replace(penalty=torch.tensor(float("nan")))
    with pytest.raises(CrocoError, match="smaller lr"):
        fit(model, small_world, **FAST)


def test_training_leaves_the_data_alone(small_world):
    before = small_world.fingerprint
    model = build("sdem", small_world)
    fit(model, small_world, **ONCE)
    fit(model, small_world, **ONCE)
    assert small_world.fingerprint == before


def test_covloss_decorrelates_experts(small_world):
    runs = [fit(build("crocodile", small_world, alpha=a), small_world, **FAST) for a in (0.0, 1.0)]
    kept = [expert_outputs(run.model, small_world.test) for run in runs]
    assert metrics.cross_correlation(kept[1]) < metrics.cross_correlation(kept[0]) / 2


def test_an_expert_alone_is_scored_by_its_rows_tower(small_world):
    model = build("mmoe", small_world, experts=2)
    scores, _ = expert_scores(model, small_world.test)
    O = torch.from_numpy(expert_outputs(model, small_world.test))
    s = small_world.test.domain[5]
    expected = [model.towers.towers[s](O[m, 5]).item() for m in range(2)]
    np.testing.assert_allclose(scores[:, 5], expected, atol=1e-5)


def test_the_probe_looks_at_all_domains(monkeypatch, small_world):
    seen, real = [], evaluation.outputs
    monkeypatch.setattr(evaluation, "PROBE_ROWS", 400)
    monkeypatch.setattr(evaluation, "outputs", lambda model, rows, size: seen.append(rows) or real(model, rows, size))
    probe(build("crocodile", small_world), small_world.valid)  # whose rows stand in order of their domains
    assert len(seen[0]) == 400 and len(np.unique(seen[0].domain)) == 5


def test_diversity_counts_only_experts_that_the_tower_reads(small_world):
    """PLE's tower of domain s reads two experts, its own and the shared one; the others must not count."""
    model = build("ple", small_world)
    before = diversity(model, small_world.test, 2000)
    s0 = small_world.test.take(np.flatnonzero(small_world.test.domain == 0))
    alone = diversity(model, s0, 2000)
    with torch.no_grad():
        model.levels[0].experts.layers[0].weight[1:5] *= -1.0  # the other domains' experts
    assert diversity(model, s0, 2000) == alone > 0
    assert diversity(model, small_world.test, 2000) != before


def test_a_folder_of_another_start_or_a_damaged_one_is_refused(small_world, tmp_path):
    fit(build("shared-bottom", small_world), small_world, folder=tmp_path, **ONCE)
    with pytest.raises(CrocoError, match="another weights_from_seed \\(0, now 7\\)"):
        fit(build("shared-bottom", small_world, seed=7), small_world, folder=tmp_path, **ONCE)
    model = build("shared-bottom", small_world)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for write in (partial(torch.save, {"model": 1}), partial(torch.save, [1, 2]), lambda p: p.write_text("hello")):
        write(path)
        with pytest.raises(CrocoError, match="damaged, or no checkpoint of `fit`"):
            fit(model, small_world, folder=tmp_path, **ONCE)
    path.write_bytes(whole)
    goes_on = partial(fit, model, small_world, folder=tmp_path, **ONCE)
    for name, act in (("checkpoint.pt", goes_on), ("best.safetensors", partial(load_weights, model, tmp_path))):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CrocoError, match=f"{name} is damaged"):
            act()
    with pytest.raises(CrocoError, match="is a file"):
        fit(build("shared-bottom", small_world), small_world, folder=tmp_path / "history.csv", **ONCE)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *((name, 0, "a whole number of 1") for name in ("epochs", "batch_size", "patience", "eval_every")),
        *((name, 1.5, "a whole number") for name in ("epochs", "batch_size")),
        *((name, -1, "") for name in ("seed", "weight_decay")),
        *(("lr", value, "") for value in (0, "a")),
        *(("lr", value, "above 0 and below 10") for value in (10, float("nan"))),
        *(("weight_decay", value, "at least 0 and below 10") for value in (10, float("inf"))),
        ("weight_decay", True, ""),
        ("lazy", "false", "true, false or None"),
    ],
)
def test_settings_out_of_range_or_of_the_wrong_kind_are_named(small_world, name, value, words):
    with pytest.raises(CrocoError, match=f"fit: {name} must be {words}"):
        fit(build("shared-bottom", small_world), small_world, **{name: value})


def test_the_defaults_of_a_training_stand_once():
    given = inspect.signature(fit).parameters
    assert {f.name: given[f.name].default for f in fields(TrainOptions)} == asdict(TrainOptions())
    with pytest.raises(FrozenInstanceError):
        TrainOptions().lr = 1.0
    for wrong, words in (({"lr": -1.0}, "fit: lr must be above 0"), ({"objective": "domian"}, "Did you mean 'domain'")):
        with pytest.raises(CrocoError, match=words):
            replace(TrainOptions(), **wrong)


def test_a_step_goes_down_the_gradient_of_the_batchs_loss(small_world):
    model = build("crocodile", small_world)
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    batch = next(batches.feed(small_world.train, 300, 0, 0, 54, torch.device("cpu")))
    out = model(batch.features, batch.domain)
    loss = domain_objective(out.logits, batch.label, batch.domain) + out.penalty
    gradients = dict(zip(weights, torch.autograd.grad(loss, model.parameters()), strict=True))
    model.embedding.table.weight.grad = torch.ones_like(model.embedding.table.weight)  # left over: it must not count
    model.eval()  # in which there would be no penalty
    returned = training.train_step(model, [torch.optim.SGD(model.parameters(), lr=0.5)], domain_objective, batch)
    assert torch.equal(returned, loss.detach()) and not returned.requires_grad
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, weights[name] - 0.5 * gradients[name], atol=1e-7), name


@pytest.mark.parametrize("objective", [domain_objective, sample_objective])
def test_the_shares_of_a_batch_have_the_objective_of_the_whole(small_world, objective):
    batch = next(batches.feed(small_world.train, 301, 0, 0, 54, torch.device("cpu")))
    logits = torch.randn(301, generator=torch.Generator().manual_seed(0))
    whole = objective(logits, batch.label, batch.domain)
    assert torch.equal(objective(logits, batch.label, batch.domain, batch.counts), whole)
    parts = [batch.share(rank, 3) for rank in range(3)]  # of 101, 100 and 100 rows
    assert sum(len(part.label) for part in parts) == 301
    each = [objective(logits[rank::3], part.label, part.domain, part.counts) for rank, part in enumerate(parts)]
    assert torch.isclose(sum(each) / 3, whole, rtol=1e-6)  # as processes average their gradients


@pytest.mark.parametrize(("rows", "processes", "steps"), [(100, 1, 10), (101, 1, 11), (101, 2, 10), (102, 2, 11)])
def test_a_last_batch_that_gives_not_every_process_a_row_is_left_out(rows, processes, steps):
    assert batches.steps_per_epoch(rows, 10, processes) == steps


def test_rows_too_few_for_a_batch_of_all_processes_are_refused():
    for rows, size in ((1, 10), (10, 1)):
        with pytest.raises(CrocoError, match=f"{rows} rows in batches of {size} do not give each of 2 processes a row"):
            batches.steps_per_epoch(rows, size, 2)


def test_the_feed_goes_on_in_the_next_epoch_and_at_any_step(small_world):
    rows, cpu = len(small_world.train), torch.device("cpu")
    steps = batches.steps_per_epoch(rows, 1_000, 1)
    two = list(islice(batches.feed(small_world.train, 1_000, 4, 0, steps, cpu), 2 * steps))
    expected = [b for epoch in (0, 1) for b in batches.epoch_batches(small_world.train, 1_000, 4, epoch, 0, cpu)]
    later = list(islice(batches.feed(small_world.train, 1_000, 4, steps + 3, steps, cpu), steps - 3))
    for one, other in (*zip(two, expected, strict=True), *zip(later, two[steps + 3 :], strict=True)):
        assert torch.equal(one.features, other.features) and torch.equal(one.label, other.label)
        assert torch.equal(one.counts, one.domain.bincount())


def test_a_model_of_other_data_is_refused(small_world):
    other = load("world", rows=5_000, users=100, items=200)
    with pytest.raises(CrocoError, match="built for other data"):
        fit(build("shared-bottom", other), small_world)


def test_watch_sees_the_model_at_every_evaluation_and_changes_nothing(small_world):
    seen = []

    def watch(step, model):
        seen.append((step, metrics.cross_correlation(expert_outputs(model, small_world.valid))))

    run = fit(build("crocodile", small_world, sets=2), small_world, **FAST, watch=watch)
    expected = run.history.query("metric == 'correlation'")
    assert [step for step, _ in seen] == expected.step.tolist()
    np.testing.assert_allclose([r for _, r in seen], expected.value, rtol=1e-4)  # 2,000 rows: the probe takes them all
    unwatched = fit(build("crocodile", small_world, sets=2), small_world, **FAST)
    pd.testing.assert_frame_equal(run.history, unwatched.history)


def test_what_cannot_be_measured_saved_or_chosen_says_why(small_world, tmp_path):
    one_class = replace(small_world.valid, label=np.ones_like(small_world.valid.label))
    for act, words in (
        (lambda: expert_outputs(build("star", small_world), small_world.test), "star has no experts"),
        (lambda: expert_scores(build("pepnet", small_world), small_world.test), "pepnet has no experts"),
        (lambda: embedding_sets(build("mmoe", small_world), small_world, "itme"), "Did you mean 'item'"),
        (lambda: oracle(replace(small_world.test, truth=None)), "true click probability of these rows is not known"),
        (lambda: serving.save_schema(shaped(1_000), tmp_path), "are not known, so no raw row could be scored"),
        (lambda: fit(build("mmoe", small_world), replace(small_world, valid=one_class), **FAST), "AUC is not defined"),
        (lambda: evaluate(build("mmoe", small_world), small_world), "such as data.test, not MultiDomainData"),
    ):
        with pytest.raises(CrocoError, match=words):
            act()
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_longer_with_other_threads_and_on_another_device(small_world, tmp_path):
    given = dict(FAST, patience=99, folder=tmp_path)
    first = fit(build("shared-bottom", small_world), small_world, **given | {"epochs": 1})
    saved = torch.load(tmp_path / "checkpoint.pt")
    other = json.loads(saved["settings"]) | {"threads": 99, "device": "cuda"}
    torch.save(saved | {"settings": json.dumps(other)}, tmp_path / "checkpoint.pt")
    longer = fit(build("shared-bottom", small_world), small_world, **given | {"epochs": 2})
    assert longer.history.step.max() == 2 * first.history.step.max()
    with pytest.raises(CrocoError, match="a run of 2 epochs; epochs=1 cannot make it shorter"):
        fit(build("shared-bottom", small_world), small_world, **given | {"epochs": 1})
    saved = torch.load(tmp_path / "checkpoint.pt")
    other = json.loads(saved["settings"]) | {"processes": 2}
    torch.save(saved | {"settings": json.dumps(other)}, tmp_path / "checkpoint.pt")
    with pytest.raises(CrocoError, match=r"another processes \(2, now 1\)"):
        fit(build("shared-bottom", small_world), small_world, **given | {"epochs": 2})
    pd.testing.assert_frame_equal(longer.history.head(len(first.history)), first.history)


def test_a_run_goes_on_only_with_all_its_options_and_its_data(small_world, tmp_path):
    model = build("shared-bottom", small_world, dim=4, expert=(8, 4))
    fit(model, small_world, folder=tmp_path, **ONCE)
    others = dict(batch_size=500, lr=0.1, weight_decay=0.1, objective="domain", eval_every=3, lazy=True, seed=7)
    assert set(others) == {field.name for field in fields(TrainOptions)} - {"epochs", "patience"}
    for name, other in others.items():
        with pytest.raises(CrocoError, match=rf"holds a run with another {name} \(.*, now {other!r}\)\. Give another"):
            fit(model, small_world, folder=tmp_path, **ONCE | {name: other})
    turned = replace(small_world.train, label=1 - small_world.train.label)  # of the same name and sizes
    with pytest.raises(CrocoError, match="holds a run with another fingerprint"):
        fit(model, replace(small_world, train=turned), folder=tmp_path, **ONCE)


def test_a_resumed_run_counts_all_its_time_and_its_steps_in_epochs(small_world, tmp_path, monkeypatch):
    clock = count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    given = dict(batch_size=1000, eval_every=7, patience=99, folder=tmp_path, progress=False)
    first, again = (fit(build("shared-bottom", small_world), small_world, epochs=n, **given) for n in (1, 2))
    assert sorted(set(again.history.step)) == [0, 7, 14, 16, 21, 28, 32]
    np.testing.assert_allclose(again.history.epoch, again.history.step / 16)
    assert again.seconds > 1.9 * first.seconds > 0 and again.rows_per_second == first.rows_per_second == 1000


def test_only_a_higher_auc_is_better_and_then_patience_begins_anew(monkeypatch):
    state, aucs, seen = RunState(), [0.5, 0.6, 0.55, 0.7, 0.7, 0.65], []

    def evaluated(model, rows):
        return pd.DataFrame({"domain": ["all"], "metric": ["auc"], "value": [aucs[state.step]]})

    monkeypatch.setattr(training, "evaluate", evaluated)
    monkeypatch.setattr(training, "probe", lambda model, rows: [])
    for step in range(len(aucs)):
        state.step = step
        better = training.evaluate_and_record(torch.nn.Linear(1, 1), None, state, 0.0, 0.0)
        seen.append((better, state.waited, state.best_step))
    assert seen == [(True, 0, 0), (True, 0, 1), (False, 1, 1), (True, 0, 3), (False, 1, 3), (False, 2, 3)]


def test_numpys_numbers_are_settings(small_world):
    seed = np.arange(2)[1]
    run = fit(build("shared-bottom", small_world, seed=seed, dim=np.int64(4)), small_world, seed=seed, **ONCE)
    assert run.settings["seed"] == 1 and run.settings["options"]["dim"] == 4
    with pytest.raises(CrocoError, match="fit: epochs must be a whole number"):
        fit(build("shared-bottom", small_world), small_world, epochs=True)


def test_an_error_between_two_batches_leaves_gradients_on(small_world):
    for batch in evaluation.outputs(build("star", small_world), small_world.test, batch_size=100):
        assert torch.is_grad_enabled() and not batch.logits.requires_grad  # none are kept, and the caller's mode stays
    with pytest.raises(CrocoError, match="no experts") as kept:
        expert_outputs(build("star", small_world), small_world.test)
    assert kept.tb and torch.is_grad_enabled()


def test_scoring_is_in_evaluation_mode_and_moves_nothing(small_world):
    """STAR's norms tell the two modes apart: in training a row's score depends on the rows scored beside it."""
    model, some = build("star", small_world), np.random.default_rng(0).permutation(len(small_world.train))[:600]
    rows = small_world.train.take(some)
    model(torch.from_numpy(rows.features), torch.from_numpy(rows.domain))  # moves its running means
    before = {key: value.clone() for key, value in model.state_dict().items()}
    whole, few = predict(model.train(), small_world.test), np.arange(3, len(small_world.test), 97)
    np.testing.assert_allclose(predict(model.train(), small_world.test.take(few)), whole[few], atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_hinets_tower_reads_the_expert_in_each_of_its_three_places(small_world):
    model = build("hinet", small_world)
    scores, _ = expert_scores(model, small_world.test)
    O, s = torch.from_numpy(expert_outputs(model, small_world.test)), small_world.test.domain[5]
    expected = [model.towers.towers[s](torch.cat([o[5], o[5], o[5]])).item() for o in O]
    np.testing.assert_allclose(scores[:, 5], expected, atol=1e-5)


def test_a_readers_own_model_needs_no_embedding_sets(small_world):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(small_world.fields[0].size, 1)

        def forward(self, features, domain):
            return Output(self.table(features[:, 0].long())[:, 0])

    run = fit(Flat(), small_world, **ONCE)
    assert not (run.history.metric == "information_abundance").any()
    fit(Flat(), small_world, lazy=True, **ONCE)  # all its weights are tables: nothing is left for the other Adam
    assert len(adam(torch.nn.EmbeddingBag(9, 2), lazy=True, lr=0.01)) == 1  # no table that lazy Adam knows
    with pytest.raises(CrocoError, match="Flat has no experts"):
        expert_outputs(run.model, small_world.test)
    with pytest.raises(CrocoError, match=r"Flat has no embedding sets \(`model\.embedding`, as `build` makes them\)"):
        embedding_sets(run.model, small_world)


def test_what_is_scored_in_batches_is_what_is_scored_at_once(small_world, monkeypatch):
    model, rows = build("crocodile", small_world), small_world.test

    def scored():
        return predict(model, rows), *expert_scores(model, rows), expert_outputs(model, rows)

    whole = scored()
    monkeypatch.setattr(evaluation.outputs.__wrapped__, "__defaults__", (300,))
    for one, other in zip(whole, scored(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_the_last_step_is_evaluated_and_only_steps_are_timed(small_world, monkeypatch):
    clock = count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    model = build("shared-bottom", small_world)
    run = fit(model, small_world, epochs=1, batch_size=1000, eval_every=7, patience=99, progress=False)
    assert sorted(set(run.history.step)) == [0, 7, 14, 16] and run.rows_per_second == 1000


def test_on_several_machines_a_folder_is_asked_for(monkeypatch, tmp_path):
    """Else the best weights would lie in a temporary folder of the first machine alone."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    training._check_folder(None, processes=2)
    training._check_folder(tmp_path, processes=4)
    with pytest.raises(CrocoError, match="on several machines, give a folder that all see"):
        training._check_folder(None, processes=4)


def test_half_precision_that_could_not_be_resumed_is_refused(small_world):
    accelerator = SimpleNamespace(mixed_precision="fp16")
    with pytest.raises(CrocoError, match="in fp16 a run could not be resumed exactly"):
        checkpoint.settings_of(torch.nn.Linear(1, 1), small_world, TrainOptions(), False, accelerator)


def test_lazy_adam_on_several_gpus_is_refused_before_its_first_step(small_world):
    gpu = SimpleNamespace(type="cuda")
    accelerator = SimpleNamespace(mixed_precision="no", num_processes=2, process_index=0, device=gpu)
    given = torch.nn.Linear(1, 1), small_world, TrainOptions()
    with pytest.raises(CrocoError, match="GPUs cannot add up lazy Adam's sparse gradients.*--shard.*--no-lazy"):
        checkpoint.settings_of(*given, True, accelerator)
    assert checkpoint.settings_of(*given, False, accelerator)["processes"] == 2


def test_a_readers_own_model_with_dropout_goes_on_as_if_it_had_not_stopped(small_world, tmp_path):
    class Forgetful(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = build("shared-bottom", small_world, dim=4, expert=(8, 4))

        def forward(self, features, domain):
            out = self.inside(features, domain)
            return Output(torch.nn.functional.dropout(out.logits, 0.3, self.training))

    def run(epochs, folder=None):
        torch.manual_seed(0)
        return fit(Forgetful(), small_world, epochs=epochs, batch_size=1000, folder=folder, progress=False).history

    run(1, tmp_path)
    pd.testing.assert_frame_equal(run(2, tmp_path), run(2))


def test_a_run_in_bf16_leaves_the_model_as_it_was(small_world, monkeypatch):
    model = build("shared-bottom", small_world, dim=4, expert=(8, 4))
    with in_bf16(monkeypatch):
        fit(model, small_world, **ONCE)
    plain = build("shared-bottom", small_world, dim=4, expert=(8, 4))
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(predict(model, small_world.test), predict(plain, small_world.test))


def test_of_another_run_in_the_folder_only_what_differs_is_told(small_world, tmp_path):
    given, options = dict(ONCE, folder=tmp_path), dict(sets=2, dim=4, expert=(8, 4))
    model, other = (build("crocodile", small_world, alpha=alpha, **options) for alpha in (0.1, 0.5))
    fit(model, small_world, **given)
    for another, changed, words in (
        (other, {}, r"holds a run with another alpha \(0\.1, now 0\.5\)\. Give another folder"),
        (model, {"lr": 0.1}, r"holds a run with another lr \(0\.003, now 0\.1\)\."),
        (build("ple", small_world), {}, "another model"),
    ):
        with pytest.raises(CrocoError, match=words):
            fit(another, small_world, **given, **changed)
