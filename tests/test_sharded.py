"""Tables sharded by TorchRec: the same model on one, two and four processes, checkpoints between them, and faults."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from launched import launch
from safetensors.torch import load_file

from croco_lib import build, evaluate, load
from croco_lib.checkpoint import load_weights, save_weights
from croco_lib.errors import ROOT, CrocoError
from croco_lib.fitting.saved_schema import load_schema
from croco_lib.options import TrainOptions
from croco_lib.schema import Field

pytest.importorskip("torchrec", reason="TorchRec is not installed: see `distributed` in pyproject.toml")
from croco_lib.sharded import checkpoint  # noqa: E402
from croco_lib.sharded.plan import COLUMNS, SIZES, plan_rows, traffic  # noqa: E402
from croco_lib.sharded.tables import LR_RATIO, collection  # noqa: E402

WORKER = str(Path(__file__).with_name("sharded_worker.py"))
WORLD = dict(rows=20_000, users=300, items=400)
LR = 0.003


def work(processes: int, *words) -> None:
    done = launch(processes, WORKER, *words)
    assert done.returncode == 0, done.stderr[-3000:]


EVERY = """
from croco_lib import load
from croco_lib.models import MODELS
from croco_lib.sharded.tables import build, layers_of
from croco_lib.sharded.together import start
start()
data = load("world", rows=2_000, users=60, items=50)
for name in MODELS:
    model = build(name, data, lr=0.003, batch_size=1_000)
    assert layers_of(model) and model.sizes == [field.size for field in data.fields], name
"""


def test_every_model_can_be_sharded():
    done = launch(1, "-c", EVERY)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_step_of_one_and_of_two_processes_is_the_step_of_the_whole_model(tmp_path):
    """α = 0, for CovLoss is each process's own. A field of bags is among the seven."""
    import sharded_worker as worker

    from croco_lib.batches import feed
    from croco_lib.losses import sample_objective

    data = worker.bags(load("world", **WORLD))
    model = build("crocodile", data, alpha=0.0, sets=2)
    save_weights(model, tmp_path)
    before = load_file(tmp_path / "best.safetensors")
    batch = next(feed(data.train, worker.BATCH, 0, 0, 10, torch.device("cpu")))
    out = model(batch.features, batch.domain)
    sample_objective(out.logits, batch.label, batch.domain).backward()
    dense = [p for name, p in model.named_parameters() if not name.endswith("table.weight")]
    torch.optim.Adam(dense, lr=LR, fused=True).step()
    expected, sums = dict(model.state_dict()), {}
    for name in ("embedding", "gate.prior"):
        w, g = before[f"{name}.table.weight"], model.get_submodule(name).table.weight.grad
        sums[name] = g.square().mean(1)  # row-wise Adagrad keeps one number a row
        expected[f"{name}.table.weight"] = w - LR * LR_RATIO * g / (sums[name].sqrt()[:, None] + 1e-8)
        assert (g != 0).any(1).sum() > 300
    for processes in (1, 2):
        work(processes, "step", tmp_path)
        after = tmp_path / f"after-{processes}"
        found = load_file(after / "best.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
            trained = (value != before[name]).any()
            assert trained and (found[name] != before[name]).any(), f"{name} got no gradient"
        for name, values in sums.items():
            files = sorted(after.glob(f"{name}.0*.npy"))
            held = np.concatenate([np.load(file).ravel() for file in files])
            np.testing.assert_allclose(held, values, rtol=1e-3, atol=1e-12)
            assert processes == 1 or len(files) > len(data.fields) - 4 * (name == "gate.prior")  # some lie on both


def trained(folder: Path, *stages: tuple) -> dict:
    """What a run told that went through these stages: processes, and the step at which they were stopped."""
    for stage in stages:
        work(stage[0], "train", folder, *stage[1:])
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """What a run of one process told."""
    return trained(tmp_path_factory.mktemp("one"), (1,))


def same_within(told: dict, other: dict) -> None:
    """The two runs' test metrics within 0.005.

    CovLoss, α = 0.1, is of the whole batch with one process and the mean of the shares' with several: that and rounding
    are all the difference there is.
    """
    assert told["auc"] > 0.65 and told["auc"] == pytest.approx(other["auc"], abs=0.005)
    assert told["logloss"] == pytest.approx(other["logloss"], abs=0.005)
    assert told["valid"]["step"] == other["valid"]["step"]  # what was done before a stop is not done again


def test_two_processes_train_to_the_metrics_of_one(tmp_path, one_process):
    same_within(trained(tmp_path, (2,)), one_process)
    # The gathered weights are those of an ordinary model, and every test row was scored once.
    data = load("world", **WORLD)
    whole = load_weights(build("crocodile", data, sets=2), tmp_path)
    table = evaluate(whole, data.test).query("domain == 'all'").set_index("metric").value
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert table.auc == pytest.approx(told["auc"], abs=1e-6)
    assert table.logloss == pytest.approx(told["logloss"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path, one_process, after):
    same_within(trained(tmp_path, (2, 15), (after,)), one_process)


# ---------------------------------------------------------------------------------------------- what goes wrong


FIT = ["-m", "croco_lib", "fit", "crocodile", "--shard", "--threads", "1", "--epochs", "1", "--batch-size", "1000"]
FIT += ["--option", "rows=20000", "--option", "users=300", "--option", "items=400", "--set", "sets=2", "--json"]
OF_ONE = """
import os, resource, signal, sys
from croco_lib.cli import main
if os.environ["RANK"] == "1":
    sys.argv += os.environ.get("MORE", "").split()
    if "LIMIT" in os.environ:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(os.environ["LIMIT"]),))
main()
"""


NO_ROOM = """
from croco_lib.cli import main
from croco_lib.sharded import tables
small = tables.HardwareConfig(hbm_cap_bytes=1_000, ddr_cap_bytes=1_000)
tables.HardwareConfig = lambda **_: small
main()
"""
OTHER_TABLES = """
import sys
from croco_lib import CrocoError, load
from croco_lib.sharded.checkpoint import load_weights, save_weights
from croco_lib.sharded.tables import build
from croco_lib.sharded.together import start
start()
many, few = (build("mmoe", load("world", rows=2_000, users=60, items=n), lr=0.003, batch_size=1_000) for n in (50, 40))
save_weights(many, sys.argv[1])
try:
    load_weights(few, sys.argv[1])
except CrocoError as error:
    assert "does not fit this model" in str(error) and "values" in str(error), error
else:
    sys.exit("another table was read")
"""


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line by which two processes say why they stopped."""
    assert done.returncode != 0 and '"auc"' not in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("croco: ")]
    return line


@pytest.mark.slow
def test_what_goes_wrong_on_one_process_is_one_line_and_loses_nothing(tmp_path):
    script, run = tmp_path / "of_one.py", tmp_path / "run"
    script.write_text(OF_ONE)
    words = [script, *FIT[2:], "--folder", run]
    # Other data on one of the processes, before there is any run.
    assert "process 1 has another fingerprint" in refused(launch(2, *words, MORE="--option seed=7"))
    done = launch(2, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    files = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    # A disk that is full for one of them; the run is made longer, so that there is something to write.
    line = refused(launch(2, *words, "--epochs", "3", LIMIT="4096"))
    assert "could not be written" in line and "process 1" in line
    assert {
        path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }.items() >= files.items()
    # The schema stands beside a run from its first step on, so that one which was cut short can be exported.
    assert "could not be written" in refused(launch(2, *words[:-1], tmp_path / "cut", LIMIT="4096"))
    assert load_schema(tmp_path / "cut").domains
    # A shard that is gone; then it comes back, and the run goes on where it stood.
    (shard,) = run.glob("tables-*/__1_0.distcp")
    shard.rename(tmp_path / "aside")
    assert "a shard is missing or damaged" in refused(launch(2, *words, "--epochs", "2"))
    (tmp_path / "aside").rename(shard)
    done = launch(2, *words, "--epochs", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a row" in refused(launch(2, *words[:-2], "--batch-size", "1"))
    # Tables that fit nowhere: the one process that plans says so, and no other waits for its plan.
    script.write_text(NO_ROOM)
    assert "the tables do not fit 2 devices" in refused(launch(2, *words[:-2]))


def test_weights_of_other_tables_are_refused(tmp_path):
    done = subprocess.run([sys.executable, "-c", OTHER_TABLES, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_options_that_do_nothing_with_sharded_tables_are_refused():
    for options, lazy in ((TrainOptions(weight_decay=0.1), False), (TrainOptions(), True)):
        with pytest.raises(CrocoError, match="neither --lazy nor --weight-decay"):
            checkpoint.settings_of(torch.nn.Linear(1, 1), None, options, lazy, None)
    with pytest.raises(CrocoError, match="multiple of 4, not 6"):
        collection([Field("user", 5)], 6)


# ---------------------------------------------------------------------------------------------- the plan


def test_the_committed_plan_is_the_planners():
    table = pd.read_csv(ROOT / "data" / "results" / "plan.csv")
    for name, devices in (("kuairand-27k", 8), ("a billion ids", 1), ("a billion ids", 64)):
        made = pd.DataFrame(plan_rows(name, SIZES[name], devices, 65_536), columns=COLUMNS).round(4)
        kept = table[(table.data == name) & (table.devices == devices)].reset_index(drop=True)
        pd.testing.assert_frame_equal(made, kept, check_dtype=False)
        fits = name != "a billion ids" or devices > 1
        assert (made["where"] != "does not fit").all() == fits
        if fits:  # rows in float32, and row-wise Adagrad's one number for each
            weights = sum((ids + 1) * 4 * (5 * 16 + 16 + 2) for ids in SIZES[name].values()) / 2**30 / devices
            assert weights * 0.95 < made["GiB a device"].sum() < weights + 1
    assert traffic(80, 1, 1_000) == 0 and traffic(80, 2, 1_000) == 250 * (8 + 640)
