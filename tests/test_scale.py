"""Training at full size: fair shuffles in blocks, lazy Adam, a kill at any moment, several processes."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from launched import launch
from scipy import stats
from small import killed_at_each_write

from croco_lib import CrocoError, batches, build, checkpoint, evaluate, fit, losses, optimizers, training
from croco_lib.layers import MultiEmbedding
from croco_lib.schema import Bag, Field, Split
from croco_lib.study import steps


def order(rows, count, seed=0, epoch=0, block=batches.BLOCK):
    return np.concatenate([batches.buffer_rows(rows, at, count, seed, epoch, block) for at in range(0, rows, count)])


@given(rows=st.integers(1, 20_000), count=st.integers(1, 9_000), seed=st.integers(0, 9), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_row_comes_once_an_epoch(rows, count, seed, epoch):
    assert np.array_equal(np.sort(order(rows, count, seed, epoch)), np.arange(rows))


@pytest.mark.parametrize("rows", [5_000, 64_017])  # one buffer, and ten
def test_every_epoch_and_every_seed_has_an_order_of_its_own(rows):
    size = 6_400
    orders = [order(rows, size, seed, epoch, block=64) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for one, other in combinations(orders, 2):
        assert (one != other).mean() > 0.99
        if rows > size:  # nor do the same blocks make up a buffer
            assert len(np.intersect1d(one[:size], other[:size])) < 0.3 * size


def test_the_shuffle_in_blocks_is_fair():
    rows, count = 64 * 1_000 + 17, 6_400
    # Where each row comes, by epoch.
    draws = np.stack([np.argsort(order(rows, count, epoch=e, block=64)) for e in range(20)])
    # A row's place tells nothing of its number, and every place is as likely: no part of the file comes first.
    assert abs(np.mean([stats.spearmanr(np.arange(rows), place).statistic for place in draws])) < 0.02
    thirds = np.stack([np.bincount(place[: rows // 3] * 3 // rows, minlength=3) for place in draws]).sum(0)
    assert np.ptp(thirds) / thirds.mean() < 0.1
    assert (draws[0] != draws[1]).mean() > 0.99
    # Neighbours share a buffer, so they meet in one batch more often than chance, but not always in blocks.
    batch = draws // 640
    together = (batch[:, 1:] == batch[:, :-1]).mean()
    assert 640 / rows < together < 1.2 * 640 / count


def test_blocks_read_from_a_mapped_file_give_the_rows_of_the_plain_array(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BUFFER", 2_000)
    data = steps.shaped(7_300)
    np.save(tmp_path / "features.npy", data.train.features)
    mapped = replace(data.train, features=np.load(tmp_path / "features.npy", mmap_mode="r"))
    device = torch.device("cpu")
    for start in (0, 3, 11):
        one, other = (list(batches.epoch_batches(s, 500, 1, 2, start, device)) for s in (data.train, mapped))
        assert len(one) == 15 - start and sum(len(batch.label) for batch in one) == 7_300 - start * 500
        assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
    whole = list(batches.epoch_batches(data.train, 500, 1, 2, 0, device))
    assert torch.equal(whole[11][0], next(batches.epoch_batches(data.train, 500, 1, 2, 11, device))[0])


def test_an_interrupted_run_over_many_buffers_ends_like_an_uninterrupted_one(small_world, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BUFFER", 4_000)
    given = dict(batch_size=1_000, eval_every=5, patience=99, lazy=True, progress=False)
    whole = fit(build("crocodile", small_world), small_world, epochs=2, **given)

    def stop(step, model):
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build("crocodile", small_world), small_world, epochs=2, folder=tmp_path, watch=stop, **given)
    again = fit(build("crocodile", small_world), small_world, epochs=2, folder=tmp_path, **given)
    pd.testing.assert_frame_equal(whole.history, again.history)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------------- lazy Adam


def test_lazy_adam_moves_the_rows_of_the_batch_and_no_other(small_world):
    """Not even those that the batch before has read, which Adam's momentum would move on."""
    model = build("crocodile", small_world)
    adam = optimizers.adam(model, lazy=True, lr=0.01)
    for rows in (slice(0, 50), slice(50, 100)):
        before = model.embedding.table.weight.detach().clone()
        features, domain = (torch.from_numpy(a[rows]) for a in (small_world.train.features, small_world.train.domain))
        model.zero_grad()
        model(features, domain).logits.square().sum().backward()
        for optimizer in adam:
            optimizer.step()
        read = torch.zeros(len(before), dtype=bool)
        read[(features + model.embedding.offset).long().flatten()] = True
        assert torch.equal((model.embedding.table.weight != before).any(1), read)


def test_repeated_ids_of_a_sparse_gradient_are_added_up():
    table, ids = torch.nn.Embedding(50, 3, sparse=True), torch.tensor([7, 3, 7, 49, 7, 0])
    torch.manual_seed(0)
    (table(ids) * torch.randn(6, 3)).sum().backward()
    expected = table.weight.grad.coalesce()
    optimizers.sum_repeats([table])
    grad = table.weight.grad
    assert grad.is_coalesced() and grad.indices().tolist() == [[0, 3, 7, 49]]
    assert torch.equal(grad.indices(), expected.indices()) and torch.allclose(grad.values(), expected.values())
    assert grad.shape == expected.shape


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("weight_decay", [1e-6, 1.0])
def test_weight_decay_leaves_rows_alone_that_no_batch_reads(small_world, lazy, weight_decay):
    model, seen = build("crocodile", small_world), []

    def watch(step, model):
        seen.append([table.weight.detach().clone() for table in optimizers.tables_of(model)])

    options = dict(epochs=1, batch_size=2_000, lazy=lazy, weight_decay=weight_decay, progress=False)
    fit(model, small_world, watch=watch, **options)
    assert len(seen) == 2
    for first, last, columns, layer in zip(
        seen[0], seen[-1], [slice(None), model.gate.columns], [model.embedding, model.gate.prior], strict=True
    ):
        read = np.zeros(len(first), bool)
        read[np.unique(small_world.train.features[:, columns] + layer.offset.numpy())] = True
        assert 0 < read.sum() < len(read)
        assert torch.equal(last[~read], first[~read]) and (last != first)[read].any(1).all()


@pytest.mark.parametrize("name", ["crocodile", "sdem"])
def test_decay_adds_to_the_same_gradients_dense_and_lazy(small_world, name, monkeypatch):
    """λ w to every weight, but in the tables to the vectors of a row and set that the batch trains only."""
    monkeypatch.setattr(optimizers, "PIECE", 64)  # several pieces
    grads = []
    for lazy in (False, True):
        model = build(name, small_world)
        optimizers.adam(model, lazy=lazy, lr=0.01)
        features, domain = (torch.from_numpy(a[:40]) for a in (small_world.train.features, small_world.train.domain))
        model(features, domain * 0).logits.square().sum().backward()
        before = {n: p.grad.to_dense().clone() for n, p in model.named_parameters() if p.grad is not None}
        optimizers.decay(model, 0.5)
        tables = {id(t.weight) for t in optimizers.tables_of(model)}
        for n, p in model.named_parameters():
            if p.grad is None:
                continue
            trained = before[n] != 0 if id(p) in tables else torch.ones_like(p, dtype=torch.bool)
            assert torch.allclose(p.grad.to_dense(), before[n] + 0.5 * p.detach() * trained, atol=1e-6), n
        grads.append(model.embedding.table.weight.grad.to_dense())
    assert torch.allclose(*grads, atol=1e-6) and not grads[0].all()
    if name == "sdem":  # of a row that only domain 0 read, the sets of domains 1 to 4 are left alone
        assert not grads[0].unflatten(1, (6, -1))[:, 1:5].any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_first_lazy_step_is_dense_adams(small_world, weight_decay):
    """Also where a gradient is as small as ε: in a mean over a batch most are."""
    after = []
    for lazy in (False, True):
        model = build("mmoe", small_world)
        before = model.embedding.table.weight.detach().clone()
        adam = optimizers.adam(model, lazy=lazy, lr=0.01)
        out = model(*(torch.from_numpy(a[:500]) for a in (small_world.train.features, small_world.train.domain)))
        out.logits.square().mean().backward()
        optimizers.decay(model, weight_decay)
        for optimizer in adam:
            optimizer.step()
        after.append(model.embedding.table.weight.detach())
    assert torch.allclose(*after, rtol=0, atol=1e-6) and not torch.equal(after[0], before)


@pytest.mark.slow
def test_lazy_adam_is_as_accurate_as_the_dense_reference(small_world):
    given, aucs = dict(epochs=6, batch_size=500, lr=0.01, progress=False), {}
    for lazy in (False, True):
        runs = [fit(build("crocodile", small_world, seed=s), small_world, lazy=lazy, seed=s, **given) for s in range(3)]
        aucs[lazy] = [evaluate(run.model, small_world.test).value[0] for run in runs]
    assert min(map(min, aucs.values())) > 0.6
    assert abs(np.mean(aucs[True]) - np.mean(aucs[False])) < 0.02


def test_many_ids_are_trained_lazily_and_few_are_not(small_world, monkeypatch):
    given = dict(epochs=1, batch_size=8_000, progress=False)
    assert fit(build("ple", small_world), small_world, **given).settings["lazy"] is False
    monkeypatch.setattr(training, "LAZY_FROM", 100)
    assert fit(build("ple", small_world), small_world, **given).settings["lazy"] is True


# ---------------------------------------------------------------------------------------------- bags


@pytest.mark.parametrize("lazy", [False, True])
def test_a_bag_is_the_weighted_mean_of_its_vectors(lazy):
    bag = Bag(np.array([0, 1, 3, 6]), np.array([0, 2, 4, 1, 1, 3], np.int32), np.array([1, 1, 3, 2, 1, 1], np.float32))
    fields = (Field("a", 4, "user"), Field("words", 5, bag=bag), Field("c", 3, "item"))
    layer = MultiEmbedding(fields, 2, 3)
    layer.table.sparse = lazy
    features = torch.tensor([[1, 2, 2], [3, 0, 0], [0, 1, 1], [1, 2, 0]], dtype=torch.int32)
    E = layer.weights().detach().numpy()  # [M, V, e]
    rows = []
    for a, b, c in features.numpy():
        ids, w = (x[bag.offsets[b] : bag.offsets[b + 1]] for x in (bag.ids, bag.weights))
        mean = (w[:, None] * E[:, 4 + ids]).sum(1) / w.sum()
        rows.append(np.concatenate([E[:, a], mean, E[:, 9 + c]], 1))
    got = layer(features)
    assert np.allclose(got.detach().numpy(), np.stack(rows, 1), atol=1e-6)
    got.square().sum().backward()
    grad = layer.table.weight.grad.to_dense()
    W = layer.table.weight.detach().clone().requires_grad_()
    torch.func.functional_call(layer, {"table.weight": W}, features).square().sum().backward()
    assert grad[4:9].abs().sum() > 0 and torch.allclose(grad, W.grad.to_dense(), atol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_bags_number_is_no_id(lazy):
    """There may be more bags than ids, and behind the last field there is nothing that could be read by mistake."""
    bag = Bag(np.arange(51), (np.arange(50) % 3).astype(np.int32), np.ones(50, np.float32))
    layer = MultiEmbedding((Field("a", 4, "user"), Field("words", 3, bag=bag)), 2, 3)
    layer.table.sparse = lazy
    out, E = layer(torch.tensor([[1, 49], [2, 0], [3, 7]], dtype=torch.int32)), layer.weights().detach()
    assert torch.allclose(out[:, :, 3:], E[:, [4 + 49 % 3, 4, 4 + 7 % 3]], atol=1e-6)
    out.square().sum().backward()
    trained = (layer.table.weight.grad.to_dense() != 0).any(1)
    assert trained.tolist() == [False, True, True, True, True, True, False]


def test_a_bag_whose_weights_are_all_zero_is_a_zero_vector():
    bag = Bag(np.array([0, 1, 3]), np.array([0, 1, 2], np.int32), np.array([1, 0, 0], np.float32))
    layer = MultiEmbedding((Field("words", 3, bag=bag),), 1, 4)
    out = layer(torch.tensor([[1], [0]], dtype=torch.int32))[0]
    assert torch.equal(out[0], torch.zeros(4)) and torch.equal(out[1], layer.weights()[0, 0])


# ---------------------------------------------------------------------------------------------- kills, processes

FIT = (
    "-m croco_lib fit crocodile --option rows=20000 --option users=300 --option items=400 "
    "--batch-size 500 --threads 1 --lr 0.01 --json"
)


def test_a_run_killed_at_any_write_goes_on(small_world, tmp_path):
    given = dict(epochs=1, batch_size=1_000, eval_every=8, patience=99, progress=False)

    def run(folder=None):
        return fit(build("shared-bottom", small_world), small_world, folder=folder, **given).history

    whole = run()
    for kills in killed_at_each_write(lambda n: run(tmp_path / str(n)), checkpoint):
        pd.testing.assert_frame_equal(run(tmp_path / str(kills)), whole)
    assert kills >= 8


def printed_by(processes: int, *words) -> str:
    """What so many processes print that run Python on these words."""
    done = launch(processes, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_train_to_the_metrics_of_one_and_go_on_where_they_stopped(small_world, tmp_path):
    """Tolerance: 0.01 of AUC. The batches and the objective are the same; CovLoss is estimated on each half."""

    def two(*words):
        said = printed_by(2, *FIT.split(), *words)
        (line,) = [line for line in said.splitlines() if line.startswith("{")]  # one process speaks
        return json.loads(line)

    two("--epochs", 2, "--lazy", "--folder", tmp_path)
    first = pd.read_csv(tmp_path / "history.csv")
    longer = two("--epochs", 4, "--lazy", "--folder", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv").head(len(first)), first)
    for lazy, told in ((True, longer), (False, two("--epochs", 4, "--no-lazy"))):
        model = build("crocodile", small_world)
        run = fit(model, small_world, epochs=4, batch_size=500, lr=0.01, lazy=lazy, progress=False)
        one = evaluate(run.model, small_world.test).query("domain == 'all'").set_index("metric").value
        assert one.auc > 0.6 and told["rows"] == len(small_world.test)
        assert (told["auc"], told["logloss"]) == pytest.approx((one.auc, one.logloss), abs=0.01)


GATHER = """
import numpy as np, torch
from accelerate import Accelerator
from croco_lib import evaluation
from croco_lib.models import Output
from croco_lib.schema import Split
class Echo(torch.nn.Module):
    def __init__(self):
        super().__init__(); self.w = torch.nn.Parameter(torch.ones(1))
        # As STAR's running means, it is another on each process; the first one's is kept, so all are scored by it.
        self.register_buffer("own", torch.tensor(float(accelerator.process_index)))
    def forward(self, features, domain):
        return Output(features[:, 0] * self.w + self.own)
accelerator = Accelerator(cpu=True)
for n in (1, 2, 7, 1000):
    rows = np.arange(n, dtype=np.int32)[:, None]
    zeros = np.zeros(n, np.int64)
    got = evaluation.predict(Echo(), Split(rows, zeros, zeros.astype(np.float32), zeros, ("a",)))
    assert np.array_equal(got, np.arange(n)), (n, got)
accelerator.end_training()
"""


def test_evaluation_gathers_each_row_once_and_in_order(tmp_path):
    (tmp_path / "gather.py").write_text(GATHER)
    printed_by(3, tmp_path / "gather.py")


def test_a_batch_smaller_than_the_processes_is_refused(small_world, monkeypatch):
    class Many(training.Accelerator):
        num_processes = property(lambda self: 8)

    monkeypatch.setattr(training, "Accelerator", Many)
    with pytest.raises(CrocoError, match="8 processes"):
        fit(build("ple", small_world), small_world, batch_size=4, progress=False)


def test_each_process_trains_on_its_own_share(small_world, monkeypatch):
    class Second(training.Accelerator):
        num_processes, process_index = property(lambda self: 2), property(lambda self: 1)

    class Enough(Exception):
        pass

    def step(model, optimizers, objective, batch, backward):
        taken.append(batch)
        raise Enough

    taken = []
    monkeypatch.setattr(training, "Accelerator", Second)
    monkeypatch.setattr(training, "train_step", step)
    with pytest.raises(Enough):
        fit(build("ple", small_world), small_world, batch_size=500, progress=False)
    whole = next(batches.feed(small_world.train, 500, 0, 0, 32, torch.device("cpu")))
    assert torch.equal(taken[0].features, whole.features[1::2]) and torch.equal(taken[0].counts, whole.counts / 2)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("objective", ["sample", "domain"])
def test_fit_takes_the_step_that_its_options_name(small_world, lazy, objective):
    rows, seen = len(small_world.train), []

    def watch(step, model):
        seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})

    options = dict(epochs=1, batch_size=rows, lr=0.01, weight_decay=0.1, lazy=lazy, objective=objective, progress=False)
    fit(build("mmoe", small_world), small_world, watch=watch, **options)
    model = build("mmoe", small_world)
    adam = optimizers.adam(model, lazy, 0.01)

    def backward(loss):
        loss.backward()
        optimizers.decay(model, 0.1)

    batch = next(batches.feed(small_world.train, rows, 0, 0, 1, torch.device("cpu")))
    training.train_step(model, adam, losses.OBJECTIVES[objective], batch, backward)
    for name, weight in model.named_parameters():
        assert torch.allclose(seen[1][name], weight, atol=1e-7), name


# ---------------------------------------------------------------------------------------------- speed


def test_the_bare_products_are_those_of_the_step():
    data = steps.shaped(3 * steps.BATCH)
    stepper = steps.Stepper(build("shared-bottom", data), data, lazy=False)
    with steps.Products() as products:
        stepper.step()
    flops = sum(2 * np.prod(a.shape) * b.shape[-1] for a, b in products.operands)
    inputs, widths = 7 * 16, (64, 32)
    forward = steps.BATCH * (inputs * widths[0] + widths[0] * widths[1] + widths[1] * 16 + 16)  # expert, then tower
    assert flops == 2 * 3 * forward  # one product forward, two backward


class Timed:
    """A stepper whose steps take what we say: 1, 2 and 1 milliseconds, and as many again forward with CovLoss."""

    def __init__(self, model, data, lazy):
        self.covloss = bool(getattr(model, "alpha", 0))

    def step(self):
        return (0.002 if self.covloss else 0.001), 0.002, 0.001


def test_the_costs_of_a_step_follow_from_its_times(monkeypatch):
    monkeypatch.setattr(steps, "Stepper", Timed)
    monkeypatch.setattr(steps, "bare", lambda operands: 0.003)
    costs = steps.step_costs("shared-bottom", data := steps.shaped(1_000), steps=2)
    ms = dict(zip("forward backward optimiser step products".split(), (1, 2, 1, 4, 3), strict=True))
    rates = {"rows a second": steps.BATCH / 0.004, "share of the limit": 3 / 4}
    assert costs == pytest.approx({f"{part} ms": n for part, n in ms.items()} | rates)
    shares = steps.covloss_costs(data, 3)
    assert shares == pytest.approx({"share of a step": 1 / 5, "share of its bare products": 0})


def test_the_parts_of_a_step_make_the_whole():
    shares = steps.profile("shared-bottom", steps.shaped(3 * steps.BATCH), steps=2)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[part] > 0 for part in steps.PARTS)  # an operator that goes by another name would be missed


class ThreeWays:
    """A stepper whose steps take 4 milliseconds, 2 once compiled, 8 in bf16; where `breaks`, none can be compiled."""

    breaks = False

    def __init__(self, model, data, lazy):
        self.model, self.compiled = self, False

    def compile(self):
        self.compiled = True

    def step(self):
        if self.compiled and self.breaks:
            raise RuntimeError("no compiler")
        return 0.002 if self.compiled else 0.008 if torch.is_autocast_enabled("cpu") else 0.004, 0.0, 0.0


def test_the_other_ways_to_take_a_step_are_held_against_the_usual_one(monkeypatch):
    monkeypatch.setattr(steps, "Stepper", ThreeWays)
    ways = steps.other_ways("shared-bottom", data := steps.shaped(1_000), steps=2)
    assert ways == pytest.approx({"compiled": 2, "in bf16": 0.5, "seconds to compile": 0}, abs=0.1)
    monkeypatch.setattr(ThreeWays, "breaks", True)
    with pytest.warns(UserWarning, match="torch.compile fails for shared-bottom: no compiler"):
        ways = steps.other_ways("shared-bottom", data, steps=2)
    assert ways == pytest.approx({"compiled": np.nan, "in bf16": 0.5, "seconds to compile": np.nan}, nan_ok=True)


@pytest.mark.slow
def test_a_traced_model_takes_the_same_steps(small_world):
    """What `torch.compile` sees of a model is the whole of it; to make C++ of that takes a minute and is PyTorch's."""
    traces = []
    for compiled in (False, True):
        model = build("crocodile", small_world, dim=4, expert=(8, 4))
        if compiled:
            model.compile(backend="aot_eager")
        adam = optimizers.adam(model, lazy=False, lr=0.01)
        feed = batches.feed(small_world.train, 256, 0, 0, 10, torch.device("cpu"))
        traces.append([float(training.train_step(model, adam, losses.sample_objective, next(feed))) for _ in range(3)])
    plain, fused = traces
    assert plain[-1] < plain[0]
    np.testing.assert_allclose(fused, plain, rtol=1e-4)


def test_made_rows_have_the_shape_asked_for():
    data = steps.shaped(1_000, item=50)
    assert [f.size for f in data.fields][1] == 51 and data.train.features[:, 1].max() <= 50
    assert isinstance(data.train, Split) and data.train.features.min() >= 1
