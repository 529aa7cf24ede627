"""A step of a slider until its new picture stands: at most 0.2 s, so that a film looks like one."""

import ipywidgets as W
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from croco_lib import plots
from croco_lib.lessons import widgets

matplotlib.use("Agg")
rng = np.random.default_rng(0)


def film():
    return widgets.covariances({"run": {s: np.corrcoef(rng.normal(size=(160, 500))) for s in range(8)}}, 5), "step"


def sets():
    names = [f"item {i}" for i in range(800)]
    return widgets.projections(rng.normal(size=(5, 800, 16)), names, list(rng.integers(0, 20, 800))), "nearest_in"


def sets_in_3d():
    box, slider = sets()
    box.controls["dimensions"].value = 3
    return box, slider


def bars():
    def draw(n):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
        axes[0].imshow(rng.normal(size=(160, 160)), cmap=plots.SIGNED)
        axes[1].bar(range(n), range(n))
        return figure

    return widgets.explore(draw, n=W.IntSlider(1, 1, 9)), "n"


@pytest.mark.parametrize("make", [film, sets, sets_in_3d, bars])
def test_a_step_of_a_slider(make, benchmark, monkeypatch):
    monkeypatch.setattr(widgets, "display", lambda *a, **k: None)
    plots.style()
    box, slider = make()
    control = box.controls[slider]
    values = [v for v in (control.options if hasattr(control, "options") else range(1, control.max + 1))]

    def step():
        control.value = values[(values.index(control.value) + 1) % len(values)]

    benchmark.pedantic(step, rounds=10)
    assert box.message.value == "" and benchmark.stats.stats.median < 0.2
