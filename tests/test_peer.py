"""The peer trains on the same rows with models of the same sizes, and each row by the tower of its own domain."""

import numpy as np
import pytest
import torch

from croco_lib import build
from croco_lib.study import peer, steps

pytest.importorskip("torch_rechub", reason="torch-rechub is not installed; the extra 'peer' brings it")
DATA = steps.shaped(2 * peer.BATCH + 100)


def count(model):
    """Weights of a model, without the batch normalisation that the peer's layers have and ours have not."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    return sum(p.numel() for p in model.parameters()) - sum(p.numel() for m in norms for p in m.parameters())


@pytest.mark.parametrize("name", peer.NAMES)
def test_the_peers_models_have_our_sizes(name):
    ours, theirs = count(build(name, DATA)), count(peer.peer_model(name, DATA))
    S, inputs = len(DATA.domains), 16 * len(DATA.fields)
    # Our PLE's gates have a row, masked, for the experts of the other domains too.
    assert ours - theirs == (S * (S - 1) * (inputs + 1) if name == "ple" else 0)


@pytest.mark.parametrize("batches", [peer.at_once, peer.as_shipped])
def test_both_feeds_give_whole_batches_of_rows_as_they_stand(batches):
    rows = {tuple(row) for row in np.column_stack([DATA.train.features, DATA.train.domain, DATA.train.label]).tolist()}
    fed, first = batches(DATA, 0), []
    for _ in range(3):  # the third begins a second epoch, which is drawn and fetched anew
        batch = next(fed)
        first.append(batch["user"].tolist())
        got = torch.stack([batch[name].double() for name in (*(f.name for f in DATA.fields), "task", "label")], 1)
        assert got.shape == (peer.BATCH, len(DATA.fields) + 2) and {tuple(r) for r in got.tolist()} <= rows
    assert first[2] != first[0]


def test_a_row_trains_and_is_scored_by_its_own_tower():
    only = np.flatnonzero(DATA.train.domain == 1)
    columns = peer.columns(DATA, DATA.train).items()
    one = {name: torch.from_numpy(column[only][: peer.BATCH]) for name, column in columns}
    step, score = peer.peer_trainer("shared-bottom", DATA, iter([one] * 5))
    before = score(DATA.test)
    step()
    after = score(DATA.test)
    assert before.shape == after.shape == (len(DATA.test),) and ((after > 0) & (after < 1)).all()
    torch.manual_seed(0)
    model = peer.peer_model("shared-bottom", DATA).eval()
    rows = {name: torch.from_numpy(column) for name, column in peer.columns(DATA, DATA.test).items()}
    with torch.no_grad():
        every = model(rows)
    assert np.allclose(before, every[torch.arange(len(DATA.test)), rows["task"]])


def test_every_figure_of_the_comparison_is_there():
    figures = list(peer.measure_peer(DATA, steps=1, rounds=2, threads=(1,)))
    assert len({key[:3] for key in figures}) == len(figures) == len(peer.NAMES) * (3 + 2 + 6 + 3)
    for table, row, column, value in figures:
        assert 0 < value < (1.01 if "AUC" in table else np.inf), (table, row, column)


def test_times_as_fast_is_their_seconds_over_ours(monkeypatch):
    def pair(takes):
        def step(): ...

        step.takes = takes
        return step, lambda split: split.label

    theirs = iter([4.0, 20.0])
    monkeypatch.setattr(peer, "NAMES", ("mmoe",))
    monkeypatch.setattr(peer, "trainer", lambda *_: pair(2.0))
    monkeypatch.setattr(peer, "peer_trainer", lambda *_: pair(next(theirs)))
    monkeypatch.setattr(peer, "seconds", lambda work, times: getattr(work, "takes", 1.0))
    told = {(row, column): value for _, row, column, value in peer.measure_peer(DATA, 10, 3, (1,))}
    medians = [told["mmoe, 1 thread", f"{side}, median"] for side in ("theirs, fed at once", "theirs as shipped")]
    assert sorted(medians) == [2, 10]
