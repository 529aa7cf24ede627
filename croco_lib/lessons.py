"""Run the lessons in order, save them tidied, and leave readable HTML."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from .schema import ROOT, CrocoError

FOLDER = ROOT / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"


def paths() -> list[Path]:
    """The lessons, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between two clean runs or needs a kernel: widget state and views, progress bars, timings."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            data = output.get("data", {})
            if data.pop(VIEW, None) is not None and "image/png" not in data:
                continue  # a progress bar
            if "image/png" in data:
                output.metadata = {}
            kept.append(output)
        cell.outputs = kept
    return notebook


def run(path: Path, timeout: int = 1800) -> nbformat.NotebookNode:
    """The lesson run from top to bottom in a fresh kernel. Raises CrocoError that names the failing cell."""
    notebook = nbformat.read(path, as_version=4)
    try:
        NotebookClient(notebook, timeout=timeout, kernel_name="python3",
                       resources={"metadata": {"path": str(path.parent)}}).execute()
    except NoSuchKernel:
        raise CrocoError("There is no Jupyter kernel 'python3' here; `make setup` installs it.") from None
    except CellExecutionError as error:
        raise CrocoError(f"{path.name} stopped at a cell:\n{error}") from error
    return notebook


def run_all(only: str, save: bool, html: Path | None, profile: str) -> Iterator[tuple[str, float | None]]:
    """Run every lesson whose name starts with `only`; yields its name with None, then with its seconds."""
    os.environ["CROCO_PROFILE"] = profile
    if html:
        html.mkdir(parents=True, exist_ok=True)
    for path in paths():
        if not path.name.startswith(only):
            continue
        yield path.name, None
        start = time.perf_counter()
        notebook = tidy(run(path))
        if save:
            nbformat.write(notebook, path)
        if html:
            page, _ = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(
                notebook, {"metadata": {"name": path.stem}})
            (html / f"{path.stem}.html").write_text(page.replace(".ipynb\"", ".html\""))
        yield path.name, time.perf_counter() - start
