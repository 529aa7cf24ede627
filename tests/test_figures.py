"""Explorers redraw, show errors in words and carry a still; heat maps are signed and centred."""

import base64
import io
from itertools import product

import ipywidgets as W
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from croco_lib import CrocoError, plots
from croco_lib.lessons import figures, widgets

matplotlib.use("Agg")


def draw(n):
    if n == 3:
        raise ValueError("three is too many")
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.bar(range(n), range(1, n + 1))
    return figure


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_explorer_redraws_when_a_control_moves(shown):
    box = widgets.explore(draw, n=W.IntSlider(1, 1, 5))
    first = box.image.value
    box.controls["n"].value = 2
    assert box.image.value != first and box.message.value == ""


def test_every_control_is_labelled(shown):
    box = widgets.explore(lambda n, two_words: draw(n), n=W.IntSlider(1, 1, 2), two_words=W.Checkbox(description=""))
    assert {name: c.description for name, c in box.controls.items()} == {"n": "n", "two_words": "two words"}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_explorer_shows_a_still_of_its_first_drawing(shown):
    box = widgets.explore(draw, n=W.IntSlider(1, 1, 5))
    np.testing.assert_array_equal(pixels(base64.b64decode(shown[0]["image/png"])), pixels(box.image.value))
    assert "application/vnd.jupyter.widget-view+json" in shown[0]


def test_explorer_shows_the_stills_that_it_is_given(shown):
    widgets.explore(draw, [dict(n=2), {}], n=W.IntSlider(1, 1, 5))
    still = pixels(base64.b64decode(shown[0]["image/png"]))
    np.testing.assert_array_equal(still, np.hstack([pixels(widgets.png(draw(n))) for n in (2, 1)]))
    with pytest.raises(ValueError, match="three is too many"):
        widgets.explore(draw, [dict(n=3)], n=W.IntSlider(1, 1, 5))


def test_a_sheet_begins_a_new_row_where_its_width_ends():
    pictures = [widgets.png(draw(n)) for n in (1, 2, 4)]
    one, two, three = map(pixels, pictures)
    page = pixels(widgets.sheet(pictures, width=2 * one.shape[1] + 1))
    rows = np.hstack([one, two]), np.hstack([three, np.full_like(one, 255)])
    np.testing.assert_array_equal(page, np.vstack(rows))


def test_explorer_says_what_went_wrong_and_recovers(shown):
    box = widgets.explore(draw, n=W.IntSlider(1, 1, 5))
    box.controls["n"].value = 3
    assert "three is too many" in box.message.value
    box.controls["n"].value = 2
    assert box.message.value == ""


def test_explorer_whose_first_drawing_fails_raises(shown):
    with pytest.raises(ValueError, match="three is too many"):
        widgets.explore(draw, n=W.IntSlider(3, 1, 5))


def test_covariances_step_through_what_they_were_given(shown, monkeypatch):
    rng = np.random.default_rng(0)
    films = {run: {step: np.corrcoef(rng.normal(size=(6, 50))) for step in (0, 10, 20)} for run in ("a", "b")}
    drawn, real = [], widgets.covariance_heatmaps
    monkeypatch.setattr(
        widgets, "covariance_heatmaps", lambda given, *a, **k: drawn.append(given) or real(given, *a, **k)
    )
    films["a"][10] = np.ones((6, 6))  # all agree
    box = widgets.covariances(films, experts=3)
    stills = [next(iter(given.values())) for given in drawn[1:]]  # after the first drawing
    assert all(C is films[run][step] for C, (step, run) in zip(stills, product((0, 10, 20), "ab"), strict=True))
    box.controls["step"].value, box.controls["run"].value = 10, "b"
    assert box.message.value == "" and any(C is films["b"][10] for C in drawn[-1].values())
    with pytest.raises(CrocoError, match="same columns"):
        widgets.covariances({"a": films["a"], "b": {0: films["b"][0]}}, experts=3)


def test_projections_light_the_nearest_of_the_chosen_set(shown, monkeypatch):
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(2, 20, 4))
    lit = []
    real = widgets.linked
    monkeypatch.setattr(widgets, "linked", lambda *a: lit.append(a[2]) or real(*a))
    box = widgets.projections(tables, [f"item {i}" for i in range(20)], colour=list("ab" * 10), neighbours=3)
    box.controls["nearest_in"].value = 2
    box.controls["dimensions"].value = 3
    assert box.message.value == ""
    for E, got in ((tables[0], lit[0]), (tables[1], lit[-1])):
        cosine = E @ E[0] / np.linalg.norm(E, axis=1) / np.linalg.norm(E[0])
        assert set(got) == set(np.argsort(-cosine)[1:4])


def test_heat_map_is_centred_at_zero_and_shared_by_all_panels():
    rng = np.random.default_rng(0)
    figure = figures.covariance_heatmaps({"a": rng.normal(size=(6, 6)), "b": 5 * rng.normal(size=(6, 6))}, experts=3)
    limits = [ax.images[0].get_clim() for ax in figure.axes if ax.images]
    assert limits[0] == limits[1] and limits[0][0] == -limits[0][1]
    plt.close(figure)


def test_models_and_domains_never_share_a_colour():
    domains = [matplotlib.colors.to_rgb(c) for n in range(1, 7) for c in plots.domain_palette("abcdef"[:n]).values()]
    models = {matplotlib.colors.to_rgb(c) for c in plots.MODELS.values()}
    assert len(models) == len(plots.MODELS) and len(set(plots.domain_palette("abcde").values())) == 5
    assert min(np.linalg.norm(np.subtract(d, m)) for d in domains for m in models) > 0.15
