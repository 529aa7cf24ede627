"""Every exercise is saved open, takes its solution for right, and says of a tempting answer what is wrong."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync
from test_project import explorers

from croco_lib.lessons.notebooks import OwnPython, paths

ODD = ("None", "'a word'", "-77", "(1.5,)", "(2.0, 1.0)", "{}", "['a', None]", "__import__('numpy').arange(3.0)")
LESSONS = [path for path in paths() if path.name[:2] != "00"]


ANEW = """
%reset -f
import gc, ipywidgets, matplotlib.pyplot, os
matplotlib.pyplot.close("all")
ipywidgets.Widget.close_all()
os.environ.update(PLACES)
gc.collect()
%reset -f
"""
MOVE = """
import ipywidgets as W_
boxes_ = [b for b in globals().values() if isinstance(b, W_.VBox) and hasattr(b, "controls")]
assert len(boxes_) == COUNT, len(boxes_)
for box_ in boxes_:
    for control_ in box_.controls.values():
        log_, ranged_ = isinstance(control_, W_.FloatLogSlider), hasattr(control_, "min")
        ends_ = (control_.min, control_.max) if ranged_ else control_._options_values
        for end_ in (ends_[0], ends_[-1]):
            control_.value = control_.base ** end_ if log_ else end_
            assert box_.message.value == "", box_.message.value
"""
STRANGE = """
import contextlib as c_, io as i_
for answer_ in ANSWERS:
    with c_.redirect_stdout(i_.StringIO()) as said_:
        exec(answer_)
        exec(CHECK)
    said_ = said_.getvalue()
    assert said_.startswith("Not yet: ") and "it stopped with" not in said_, (answer_, said_)
"""


def tagged(notebook, kind):
    """Code cells by exercise: {"01.1": [cells with the tag kind-01.1]}."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(f"{kind}-"):
                found.setdefault(tag.removeprefix(f"{kind}-"), []).append(cell)
    return found


def odd(source):
    """Answers of kinds that nobody asked for, to the exercise whose open cell this is."""
    name = re.match(r"(?:def )?(\w+)", source)[1]
    values = [f"{name} = {value}" for value in ODD]
    if not source.startswith("def "):
        return values
    return values + [f"def {name}(*_, **__):\n    return {value}" for value in ODD]


def text(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="session")
def kernel():
    """One for all lessons of this process, wiped between them: its start and imports take seconds. nbval wipes none."""
    manager = OwnPython(kernel_name="python3")
    yield manager
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


def exercises(path, pattern):
    """What `pattern` finds in the notebook's prose: {"01.1": the exercise's words}."""
    prose = "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    found = re.findall(pattern + r"(.*?)(?:\n\n|\Z)", prose, re.DOTALL)
    return {number: " ".join(re.sub(r"^> ?", "", words, flags=re.MULTILINE).split()) for number, words in found}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_solutions_quote_the_exercises_as_the_lessons_put_them(path):
    asked = exercises(path, r"\*\*(\d\d\.\d) \(\w+\)\.\*\* ")
    assert len(asked) >= 3
    assert exercises(path.parent / "solutions" / path.name, r"## (\d\d\.\d) \(\w+\)\n\n(?=>)") == asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in LESSONS if path.name[:2] in ("02", "03", "05", "07")], ids=lambda path: path.stem
)
def test_a_page_of_solutions_runs_on_its_own(path, monkeypatch):
    monkeypatch.setenv("CROCO_PROFILE", "tiny")
    page = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    folder = {"metadata": {"path": str(path.parent / "solutions")}}
    NotebookClient(page, timeout=300, kernel_name="python3", kernel_manager_class=OwnPython, resources=folder).execute()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_exercises_are_open_and_their_solutions_right(path, kernel, tmp_path):
    # As for a reader without KuaiRand; nbval runs the lessons with it.
    places = dict(CROCO_PROFILE="tiny", CROCO_DATA=str(tmp_path), CROCO_PREPARED=str(tmp_path / "prepared"))
    lesson = nbformat.read(path, as_version=4)
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    right, wrong = tagged(solutions, "exercise"), tagged(solutions, "wrong")
    assert list(wrong) == list(right) == list(tagged(lesson, "exercise")) and len(right) >= 3
    begin = nbformat.v4.new_code_cell(ANEW.replace("PLACES", repr(places)))
    cells, name, opened = [begin], None, tagged(lesson, "exercise")
    for cell in lesson.cells:
        cells.append(cell)
        name = next((t.removeprefix("exercise-") for t in cell.metadata.get("tags", []) if "exercise-" in t), name)
        if name and cell.cell_type == "code" and "check(" in cell.source:
            assert text(cell).startswith("Not answered yet"), f"{name} is not saved open"
            cell.metadata["says"] = "Not answered yet"
            strange = odd(opened[name][0].source)
            try_all = STRANGE.replace("ANSWERS", repr(strange)).replace("CHECK", repr(cell.source))
            cells.append(nbformat.v4.new_code_cell(try_all))
            for says, answers in (("Not yet: ", wrong.get(name, [])), ("Right.", right[name])):
                for answer in answers:  # after the open check, so that an answer can use what that has prepared
                    cells += [
                        nbformat.v4.new_code_cell(answer.source),
                        nbformat.v4.new_code_cell(cell.source, metadata={"says": says, "of": name}),
                    ]
            name = None
    lesson.cells = [*cells, nbformat.v4.new_code_cell(MOVE.replace("COUNT", str(explorers(lesson))))]
    here = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(lesson, km=kernel, timeout=300, kernel_name="python3", resources=here)
    try:
        client.execute()
    except BaseException:
        run_sync(kernel.shutdown_kernel)(now=True)  # the next lesson starts a new one
        raise
    finally:
        client.kc.stop_channels()
    for cell in lesson.cells:
        if "says" in cell.metadata:
            said = text(cell)
            assert said.startswith(cell.metadata.says), f"{cell.metadata.get('of')}: {said}"
            assert "it stopped with" not in said, f"{cell.metadata.get('of')}: {said}"
    assert len([c for c in lesson.cells if c.metadata.get("says") == "Right."]) == len(right)
