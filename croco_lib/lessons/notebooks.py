"""Run the lessons, save them tidied, and build from them a site to read offline."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from html import escape, unescape
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

import nbformat
from bs4 import BeautifulSoup
from joblib import Parallel, delayed
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from latex2mathml.converter import convert
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from traitlets import default

from ..errors import ROOT, CrocoError, in_checkout, write_text

FOLDER = ROOT / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"
LONG = ("00", "02", "03", "04", "05", "11")  # run before the others, so that in the end no core waits for one of them
API = "api/index.html"  # the pages of the functions, where `make html` has made them
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)
STYLE = """main {max-width: 64rem; margin: auto; padding: 0 1rem} math {font-size: 115%}
nav {font: 14px sans-serif; padding: 1em 5px} nav a {margin-right: 2em}"""


def paths() -> list[Path]:
    """The lessons, in order. Raises CrocoError outside a checkout of the repository."""
    return sorted(in_checkout(FOLDER).glob("[0-9][0-9]_*.ipynb"))


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between two clean runs or needs a kernel: widget state and views, progress bars, timings."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "jupyter")}
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
        CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)  # a busy kernel sends one text in several pieces
    return notebook


class OwnPython(AsyncKernelManager):
    """Kernels of the Python that runs this, whatever kernel of that name stands elsewhere on Jupyter's paths."""

    @default("kernel_spec_manager")
    def _own_spec_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # none to look in: so ipykernel's own, of this Python

    @default("transport")
    def _unseen_by_others(self) -> str:
        return "ipc" if os.name == "posix" else "tcp"  # over TCP every kernel warns that it is not encrypted

    @default("ip")
    def _socket(self) -> str:
        """With ipc the sockets' path: an absolute one, for kernel and client work in different folders."""
        return str(Path(gettempdir(), f"croco-{uuid4().hex[:12]}")) if self.transport == "ipc" else "127.0.0.1"


def run(path: Path, timeout: int = 1800) -> nbformat.NotebookNode:
    """The lesson run from top to bottom in a fresh kernel. Raises CrocoError that names the failing cell."""
    notebook = nbformat.read(path, as_version=4)
    try:
        NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            kernel_manager_class=OwnPython,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    except NoSuchKernel:
        raise CrocoError("There is no Jupyter kernel 'python3' here; `make setup` installs it.") from None
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:  # the last: for want of memory, likely
        raise CrocoError(f"{path.name} stopped at a cell:\n{error}") from error
    return notebook


def formula(tex: re.Match) -> str:
    """A `$…$` or `$$…$$` in HTML as MathML, which browsers draw without a script."""
    body = unescape(tex["block"] or tex["inline"])
    for command, sign in ((r"\\mathbb *\{?R\}?", "ℝ"), (r"\\[lr]Vert", "‖")):  # MathML Core has no bold style
        body = re.sub(command, sign, body)
    return convert(body, display="block" if tex["block"] else "inline")


def anchor_of(title: str) -> str:
    """What code hosts call a heading in links to it; nbconvert gives it another name."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def site(folder: Path, fresh: Mapping[Path, nbformat.NotebookNode]) -> Path:
    """Write README and its pages, lessons, solutions, guide and glossary as a site without scripts; returns its index.

    A lesson in `fresh` is written as given, all others as saved.
    """
    guide, glossary, lessons = FOLDER / "TEACHING.md", FOLDER / "GLOSSARY.md", paths()
    pages = {
        ROOT / "README.md": "index.html",
        ROOT / "data/README.md": "data.html",
        ROOT / "data/verdicts/README.md": "verdicts.html",
        ROOT / "CONTRIBUTING.md": "contributing.html",
        guide: "teaching.html",
        glossary: "glossary.html",
    }
    pages |= {path: f"{path.stem}.html" for path in lessons}
    pages |= {path: f"solutions_{path.stem}.html" for path in sorted(FOLDER.glob("solutions/*.ipynb"))}
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in pages.items():
        near = [("contents", ROOT / "README.md")]
        if path in lessons:
            i = lessons.index(path)
            near += [(f"← before: {p.stem[:2]}", p) for p in lessons[max(i - 1, 0) : i]]  # none before the first
            near += [(f"next →: {p.stem[:2]}", p) for p in lessons[i + 1 : i + 2]]  # … nor after the last
            near += [("solutions", p) for p in pages if p.parent.name == "solutions" and p.stem[:2] == path.stem[:2]]
        near += [("glossary", glossary), ("for teachers", guide)]
        links = [(word, pages[p]) for word, p in near]
        if (folder / API).is_file():
            links.append(("functions", API))
        nav = " ".join(f'<a href="{target}">{word}</a>' for word, target in links)
        write_text(folder / name, page(path, fresh.get(path), pages, f"<nav>{nav}</nav>"))
    return folder / "index.html"


def fold_hidden(soup: Any, notebook: nbformat.NotebookNode) -> None:
    """Fold up the code of the cells that JupyterLab hides, such as the checks of exercises: nbconvert shows it."""
    hidden = {cell.id for cell in notebook.cells if cell.metadata.get("jupyter", {}).get("source_hidden")}
    for cell in soup.select(".jp-CodeCell"):
        if cell.get("id", "").removeprefix("cell-id=") in hidden:
            box = cell.select_one(".jp-Cell-inputWrapper").wrap(soup.new_tag("details"))
            box.insert(0, BeautifulSoup("<summary>the code of this cell</summary>", "html.parser"))


def page(path: Path, notebook: nbformat.NotebookNode | None, pages: Mapping[Path, str], nav: str) -> str:
    """One page of the site: no scripts, formulas as MathML, links to pages, figures named after their section."""
    if path.suffix == ".md":
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))])
    notebook = notebook or nbformat.read(path, as_version=4)
    html, _ = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True).from_notebook_node(
        notebook, {"metadata": {"name": path.stem, "path": str(path.parent)}}
    )
    soup: Any = BeautifulSoup(html, "html.parser")  # nbconvert's template has every tag that is used here
    for script in soup("script"):
        script.decompose()
    soup.title.string = soup.h1.get_text().removesuffix("¶")
    soup.head.append(BeautifulSoup(f"<style>{STYLE}</style>", "html.parser"))
    fold_hidden(soup, notebook)
    for text in soup.find_all(string=FORMULA):
        if text.find_parent(class_="jp-MarkdownOutput") and not text.find_parent(["code", "pre"]):
            text.replace_with(BeautifulSoup(FORMULA.sub(formula, escape(text)), "html.parser"))
    ids = {
        anchor_of(title.get_text().removesuffix("¶")): title["id"] for title in soup.select("h1[id], h2[id], h3[id]")
    }
    for link in soup.select("a[href]"):
        target, hash_, anchor = link["href"].partition("#")
        if not target:
            link["href"] = hash_ + ids.get(anchor, anchor)
        elif (path.parent / target).resolve() in pages:
            link["href"] = pages[(path.parent / target).resolve()] + hash_ + anchor
    for image in soup.select(".jp-OutputArea img"):
        image["alt"] = f"Figure: {image.find_previous(['h1', 'h2', 'h3']).get_text().removesuffix('¶')}"
    for at in (0, len(soup.main.contents) + 1):
        soup.main.insert(at, BeautifulSoup(nav, "html.parser"))
    return str(soup)


def run_timed(path: Path) -> tuple[Path, nbformat.NotebookNode, float]:
    """The lesson run and tidied, and the seconds that it took."""
    start = time.perf_counter()
    return path, tidy(run(path)), time.perf_counter() - start


def run_all(only: str, save: bool, html: Path | None, profile: str, at_once: int) -> Iterator[tuple[str, float]]:
    """Run every lesson whose name starts with `only`, so many `at_once`; yields name and seconds of each when done."""
    os.environ["CROCO_PROFILE"] = profile
    if at_once > 1:  # the cores are taken: a lesson trains one model after the other
        os.environ["CROCO_JOBS"] = "1"
    fresh = {}
    chosen = [path for path in paths() if path.name.startswith(only)]
    if at_once > 1:
        chosen.sort(key=lambda path: path.stem[:2] not in LONG)
    running = Parallel(at_once, prefer="threads", return_as="generator_unordered")  # each has a kernel of its own
    for path, notebook, seconds in running(delayed(run_timed)(path) for path in chosen):
        fresh[path] = notebook
        if save:
            write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")  # whole, if it is killed meanwhile
        yield path.name, seconds
    if html:
        site(html, fresh)
