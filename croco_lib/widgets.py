"""Controls beside a figure, in any notebook, with a still picture where no kernel runs."""

import base64
import io
from collections.abc import Callable

import ipywidgets as W
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def explore(draw: Callable[..., Figure], **controls: W.Widget) -> W.VBox:
    """Show `draw(**values)` under its controls and draw again when one changes.

    Displays the widget and a PNG of the first drawing in one bundle: a viewer without a kernel shows the picture. An
    error in `draw` is shown under the figure in words. Returns the box; `box.controls` holds the controls by name and
    `box.message` the last error.
    """
    image, message = W.Image(format="png", layout=W.Layout(max_width="100%")), W.HTML()
    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
        control.style.description_width = "initial"

    def redraw(_=None) -> None:
        try:
            image.value = png(draw(**{name: control.value for name, control in controls.items()}))
            message.value = ""
        except Exception as error:  # shown to the reader: a callback's traceback would be lost
            message.value = f"<b>This choice cannot be drawn:</b> {error}"

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    if message.value:
        raise ValueError(message.value)
    row = W.HBox(list(controls.values()), layout=W.Layout(flex_flow="row wrap"))
    box = W.VBox([row, image, message])
    box.controls, box.message, box.image = controls, message, image
    bundle = box._repr_mimebundle_()
    bundle["image/png"] = base64.b64encode(image.value).decode()
    bundle["text/plain"] = "An explorer: run the notebook to move its controls."
    display(bundle, raw=True)
    return box
