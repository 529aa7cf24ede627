"""The picture of a model is what the model does: who trains a box, who reads it, and in which shape."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from croco_lib import build
from croco_lib.lessons.diagrams import parts, wiring
from croco_lib.models import MODELS

matplotlib.use("Agg")
DOMAINS = [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "sets", "experts", "gates"),
    [
        ("shared-bottom", [None], [None], None),
        ("mmoe", [None], [None] * 5, DOMAINS),
        ("ple", [None], [*DOMAINS, None], DOMAINS),
        ("me-ple", [*DOMAINS, None], [*DOMAINS, None], DOMAINS),
        ("sdem", [*DOMAINS, None], [*DOMAINS, None], DOMAINS),
        ("single-domain", DOMAINS, DOMAINS, None),
        ("crocodile", [None] * 5, [None] * 5, [None]),
    ],
)
def test_a_box_belongs_to_the_domains_that_train_it(small_world, name, sets, experts, gates):
    embedding, *middle, towers = parts(build(name, small_world), small_world)
    assert embedding.owners == sets and middle[0].owners == experts and towers.owners == DOMAINS
    assert [gate.owners for gate in middle[1:]] == ([] if gates is None else [gates])
    assert len(sets) == 1 or (middle[0].lines == 2 * np.eye(len(sets))).all()  # each expert reads its own set


def test_lines_say_who_trains_and_who_only_reads(small_world):
    own_and_shared = np.vstack([2 * np.eye(5), np.full(5, 2)])
    assert (parts(build("ple", small_world), small_world)[2].lines == own_and_shared).all()
    assert (parts(build("sdem", small_world), small_world)[2].lines == np.maximum(own_and_shared, 1)).all()


def test_what_the_gates_read_stands_below_them(small_world):
    embeddings, prior = "each reads the embeddings", "its own table of the prior fields"
    reads = dict(mmoe=embeddings, ple=embeddings, sdem=embeddings, crocodile=prior, hinet="")
    assert {name: parts(build(name, small_world), small_world)[2].aside for name in reads} == reads
    assert parts(build("crocodile", small_world, gate="domain"), small_world)[2].aside == embeddings
    assert parts(build("ple", small_world, levels=2), small_world)[2].aside == ""  # they read the level below


def test_shapes_are_those_of_the_options(small_world):
    model = build("crocodile", small_world, sets=3, dim=4, expert=(8, 6), gate="peg-domain")
    assert [part.shape for part in parts(model, small_world)] == ["[3, N, 28]", "[3, N, 6]", "[N, 6]", "[N]"]
    assert parts(model, small_world)[2].owners == DOMAINS


@pytest.mark.parametrize("name", MODELS)
def test_drawing_leaves_the_model_as_it_was(small_world, name):
    model = build(name, small_world).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    texts = {text.get_text() for text in wiring(model, small_world).axes[0].texts}
    plt.close("all")
    assert {"embedding sets", "logits"} < texts and model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules()) and all(p.grad is None for p in model.parameters())
