"""Controls beside a figure, in any notebook, with a still picture where no kernel runs."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as W
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .. import metrics
from ..errors import CrocoError
from .figures import covariance_heatmaps, linked, principal


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the figure is closed."""
    buffer = io.BytesIO()
    # `savefig` draws a figure with a layout twice: a slider's step would take a sixth longer
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def sheet(pictures: list[bytes], width: int = 1100) -> bytes:
    """PNGs on one white page, as many beside each other as its width allows."""
    images = [Image.open(io.BytesIO(picture)) for picture in pictures]
    wide, high = max(image.width for image in images), max(image.height for image in images)
    across = min(len(images), max(1, width // wide))
    page = Image.new("RGB", (across * wide, -(-len(images) // across) * high), "white")
    for i, image in enumerate(images):
        page.paste(image, (i % across * wide, i // across * high))
    buffer = io.BytesIO()
    page.save(buffer, format="png")
    return buffer.getvalue()


def explore(draw: Callable[..., Figure], stills: Sequence[Mapping] = ({},), **controls: W.Widget) -> W.VBox:
    """Show `draw(**values)` under its controls and draw again when one changes.

    Displays the widget and a PNG in one bundle, so that a viewer without a kernel shows the picture: the first drawing,
    or one for each of `stills`, the values of controls that differ from the first. An error in a later drawing is shown
    under the figure in words; one in these raises. Returns the box; `box.controls` holds the controls by name and
    `box.message` the last error.
    """
    picture, message = W.Image(format="png", layout=W.Layout(max_width="100%", align_self="flex-start")), W.HTML()
    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
        control.style.description_width = "initial"

    def drawn(**other) -> bytes:
        return png(draw(**{name: control.value for name, control in controls.items()} | other))

    def redraw(change: object) -> None:
        try:
            picture.value = drawn()
            message.value = ""
        except Exception as error:  # shown to the reader: a callback's traceback would be lost
            message.value = f"<b>This choice cannot be drawn:</b> {error}"

    picture.value = drawn()  # what fails here is the author's, and raises
    for control in controls.values():
        control.observe(redraw, names="value")
    row = W.HBox(list(controls.values()), layout=W.Layout(flex_flow="row wrap"))
    box = W.VBox([row, picture, message])
    box.controls, box.message, box.image = controls, message, picture
    bundle = box._repr_mimebundle_()
    bundle["image/png"] = base64.b64encode(
        sheet([drawn(**other) if other else picture.value for other in stills])
    ).decode()
    bundle["text/plain"] = "An explorer: run the notebook to move its controls."
    display(bundle, raw=True)
    return box


def covariances(snapshots: Mapping[str, Mapping], experts: int, **names: str) -> W.VBox:
    """Step through correlations [M·d, M·d]: `snapshots[row][column]`, a menu over rows and a slider over columns.

    For example a row a run and a column a step of its training. `names` may rename the controls: run=…, step=…. The
    title gives the mean |correlation| between different experts. All pictures share one scale. The stills are the first
    column, the one in which the experts are most alike, and the last.
    """
    columns = list(next(iter(snapshots.values())))
    if any(list(row) != columns for row in snapshots.values()):
        raise CrocoError("covariances: every row of snapshots needs the same columns.")
    between = {
        (run, step): np.abs(metrics.cross_blocks(C, experts))
        for run, row in snapshots.items()
        for step, C in row.items()
    }
    top = float(np.quantile(np.concatenate(list(between.values())), 0.995))
    most_alike = max(columns, key=lambda step: sum(between[run, step].mean() for run in snapshots))

    def draw(run, step) -> Figure:
        mean = between[run, step].mean()
        title = f"{run}, {names.get('step', 'step')} {step}\nmean |correlation| between experts {mean:.3f}"
        return covariance_heatmaps({title: snapshots[run][step]}, experts, "correlation", top)

    stills = dict.fromkeys((columns[0], most_alike, columns[-1]))
    return explore(
        draw,
        [dict(run=run, step=step) for step in stills for run in snapshots],
        run=W.Dropdown(options=list(snapshots), description=names.get("run", "run")),
        step=W.SelectionSlider(options=columns, value=columns[-1], description=names.get("step", "step")),
    )


def projections(tables: np.ndarray, names: list[str], colour: list | None = None, neighbours: int = 5) -> W.VBox:
    """The same ids under each embedding set, linked: the chosen one and its nearest are lit in all of them.

    `tables` [M, V, e], `names` of the V rows, `colour` a category of each. Points are the first two or three principal
    components of a set; *near* is by cosine in all e dimensions. The nearest are those of the set that is chosen.
    """
    flat = [principal(E) for E in tables]  # M times [V, 3]
    unit = tables / np.maximum(np.linalg.norm(tables, axis=2, keepdims=True), 1e-12)

    def draw(chosen, nearest_in, dimensions) -> Figure:
        near = unit[nearest_in - 1] @ unit[nearest_in - 1, chosen]  # [V]
        near[chosen] = -np.inf
        lit = np.argsort(-near)[:neighbours]
        return linked(flat, chosen, lit, names, colour, dimensions, nearest_in)

    return explore(
        draw,
        [{}, dict(nearest_in=len(tables))],
        chosen=W.Dropdown(options=[(name, i) for i, name in enumerate(names)]),
        nearest_in=W.IntSlider(1, 1, len(tables), description="nearest in set"),
        dimensions=W.ToggleButtons(options=[2, 3]),
    )
