"""The promises of the repository: versions in one place, notebooks saved run and tidy, links that lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import nbformat
import pandas as pd
import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from croco_lib import CrocoError, cli
from croco_lib.errors import ROOT
from croco_lib.layers import INIT_STD
from croco_lib.lessons import notebooks
from croco_lib.lessons.notebooks import VIEW, paths, tidy
from croco_lib.models import MODELS, options_of
from croco_lib.options import TrainOptions

# Printed in bold in a lesson and no term.
EMPHASIS = {"predict", "several", "all", "and", "before training", "own vectors", "score", "finding 1", "finding 2"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [pin for pins in (PROJECT["dependencies"], *EXTRAS.values()) for pin in pins if not pin.startswith("croco-lib[")]
LESSONS = {path.name: nbformat.read(path, as_version=4) for path in paths()}


def explorers(book) -> int:
    """How many explorers the lesson's cells make."""
    return sum(len(re.findall(r"= (?:explore|covariances|projections)\(", cell.source)) for cell in book.cells)


def test_every_version_is_pinned_in_pyproject_and_installed():
    """… those of the extras that `test` does not bring, for sharded tables, only where they are installed."""
    brought = {"test", *re.findall(r"\w+", EXTRAS["test"][0].removeprefix("croco-lib"))}
    for pin in PINS:
        name, exact = pin.split("==")
        try:
            found = version(name)
        except PackageNotFoundError:
            assert any(pin in EXTRAS[extra] for extra in set(EXTRAS) - brought), f"{name} is not installed"
            continue
        assert found.split("+")[0] == exact


def loaded_by(code: str) -> set[str]:
    """The modules that a new Python has loaded after this code."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_the_command_line_answers_without_torch_or_pandas():
    loaded = loaded_by(
        "from croco_lib import cli; import typer.testing as t\n"
        "assert t.CliRunner().invoke(cli.app, ['--help']).exit_code == 0"
    )
    assert not {"torch", "pandas", "polars", "sklearn", "matplotlib", "rich.console"} & loaded, "slow to start"


def test_the_list_of_commands_cuts_no_sentence_off(croco):
    for code, out, _ in (croco("--help"), croco("data --help")):
        commands = out.partition("Commands:")[2]
        assert code == 0 and commands and "..." not in commands


def test_data_loads_and_models_train_without_what_one_measure_needs():
    slow = {"sklearn", "scipy.optimize", "scipy.stats", "matplotlib"}
    slow &= loaded_by("from croco_lib import build, fit, load, evaluate")
    assert not slow, f"{slow}: half of the time in which a lesson, or `croco data prepare`, starts"


def test_the_library_needs_no_extra():
    """What only lessons or serving need is imported by them alone."""
    extra = "bs4 IPython ipywidgets matplotlib nbclient nbconvert nbformat onnx onnxruntime seaborn torchrec".split()
    wings = "import croco_lib.study.verdicts, croco_lib.look.report"
    extra = loaded_by(f"from croco_lib import build, fit, load, evaluate, cli\n{wings}").intersection(extra)
    assert not extra, extra


@pytest.mark.parametrize(("module", "words"), [("onnxruntime", "[serving]'"), ("torchrec", "[distributed-cpu]'")])
def test_an_absent_extra_is_one_line(monkeypatch, croco, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(cli, "app", lambda: __import__(module))
    code, _, told = croco()
    assert code == 1 and told.count("\n") == 1 and f"pip install 'croco-lib{words}" in told


def test_environment_yml_only_brings_python_and_installs_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_here = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert pip == "pip" and from_here == {"pip": ["-e .[test]"]}
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, python.split("=")[1].split("."))) >= tuple(map(int, least.split(".")))


def test_makefile_installs_from_pyproject_and_checks_its_python():
    makefile = (ROOT / "Makefile").read_text()
    assert "--editable '.[test]'" in makefile
    least = PROJECT["requires-python"].removeprefix(">=").replace(".", ", ")
    assert f"sys.version_info < ({least})" in makefile


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_is_saved_run_and_compares_something(name):
    code = [cell for cell in LESSONS[name].cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    checked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked and all(cell.outputs for cell in checked)
    assert not [cell for cell in checked if "tqdm(" in cell.source], "a bar is an output that never repeats"


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_is_tidy_and_every_widget_has_a_still(name):
    assert tidy(nbformat.from_dict(LESSONS[name])) == LESSONS[name]
    outputs = [o for cell in LESSONS[name].cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if VIEW in o.get("data", {})]
    stills = [o for o in outputs if "An explorer" in o.get("data", {}).get("text/plain", "")]
    assert len(stills) == explorers(LESSONS[name]) and all("image/png" in o.data for o in stills)


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_tells_nothing_of_a_machine(name):
    text = re.sub(r'"image/png": "[^"]*"', "", nbformat.writes(LESSONS[name]))  # in whose letters anything may occur
    assert not re.search(r"/(home|root|work|Users|tmp)/", text)


@pytest.mark.parametrize("at_once", [1, 2])
def test_lessons_run_side_by_side_and_one_that_stops_is_named(tmp_path, monkeypatch, at_once):
    def write(name, code):
        cell = nbformat.v4.new_code_cell(code, id="a")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")

    write("00_well", "import os; print(os.environ['CROCO_PROFILE'], os.environ.get('CROCO_JOBS', 2))")
    write("01_well", "print('two')")
    monkeypatch.setattr(notebooks, "paths", lambda: sorted(tmp_path.glob("*.ipynb")))
    monkeypatch.setenv("CROCO_PROFILE", "full")
    monkeypatch.setenv("CROCO_JOBS", "2")  # so that what is set is taken back
    told = dict(notebooks.run_all("", True, None, "tiny", at_once))
    assert set(told) == {"00_well.ipynb", "01_well.ipynb"} and min(told.values()) > 0
    said = [nbformat.read(path, as_version=4).cells[0].outputs[0].text for path in notebooks.paths()]
    assert said == [f"tiny {3 - at_once}\n", "two\n"]
    write("02_bad", "1 / 0")
    with pytest.raises(CrocoError, match="02_bad.ipynb stopped at a cell"):
        list(notebooks.run_all("02", True, None, "tiny", at_once))
    assert not nbformat.read(tmp_path / "02_bad.ipynb", as_version=4).cells[0].outputs
    write("02_bad", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")  # as for want of memory
    with pytest.raises(CrocoError, match="02_bad.ipynb stopped at a cell"):
        list(notebooks.run_all("02", True, None, "tiny", at_once))


def test_what_runs_first_are_lessons():
    assert set(notebooks.LONG) < {path.stem[:2] for path in notebooks.paths()}


def test_tidy_drops_views_progress_bars_and_state():
    still = nbformat.v4.new_output("display_data", {VIEW: {"model_id": "a"}, "image/png": "b", "text/plain": "c"})
    bar = nbformat.v4.new_output("display_data", {VIEW: {"model_id": "a"}, "text/plain": "0%"})
    warning = nbformat.v4.new_output("stream", name="stderr", text="slow")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "1", outputs=[still, bar, warning], metadata={"execution": {"start": "now"}, "tags": ["t"]}
            )
        ]
    )
    notebook.metadata["widgets"] = {"state": {}}
    cell = tidy(notebook).cells[0]
    assert [set(o.data) for o in cell.outputs] == [{"image/png", "text/plain"}]
    assert cell.metadata == {"tags": ["t"]} and "widgets" not in notebook.metadata
    pieces = [nbformat.v4.new_output("stream", name=name, text="a") for name in ("stdout", "stderr", "stdout")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=pieces)])
    assert [o.text for o in tidy(notebook).cells[0].outputs] == ["aa"]  # whenever the kernel happened to flush


def test_lessons_begin_with_the_same_cell_that_installs_what_is_missing():
    first = {name: next(c for c in lesson.cells if c.cell_type == "code") for name, lesson in LESSONS.items()}
    begun = [cell for cell in first.values() if "install" in cell.metadata.get("tags", [])]
    assert len(begun) == len(LESSONS) and len({cell.source for cell in begun}) == 1
    assert not any(cell.outputs for cell in begun)


INSTALL = next(c.source for c in LESSONS["00_start_here.ipynb"].cells if "install" in c.metadata.get("tags", []))
# A kernel that has no croco_lib runs the first cell; what it would install is printed.
NO_LIBRARY = """
import os, sys
from IPython.core.interactiveshell import InteractiveShell
sys.modules["croco_lib"] = None
shell = InteractiveShell.instance()
shell.register_magic_function(lambda line: print("installs", line), magic_name="pip")
done = shell.run_cell(sys.stdin.read())
print(type(done.error_in_exec).__name__, done.error_in_exec, os.getcwd(), sys.path[0])
"""


@pytest.mark.parametrize("address", ["", "there", "nowhere"])
def test_a_lesson_opened_alone_clones_the_repository(tmp_path, address):
    alone, there = tmp_path / "alone", tmp_path / "there"
    (there / "notebooks").mkdir(parents=True)
    (there / "pyproject.toml").touch()
    (there / "notebooks/lesson.ipynb").touch()
    alone.mkdir()
    git = ["git", "-C", there, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=x"]):
        subprocess.run([*git, *words], check=True)
    told = subprocess.run(
        [sys.executable, "-c", NO_LIBRARY],
        input=INSTALL,
        cwd=alone,
        env=os.environ | {"CROCO_SOURCE": address and f"file://{tmp_path / address}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where git says what is wrong with an address
        text=True,
        check=True,
    ).stdout
    clone = (alone / "crocodile").resolve()
    if address == "there":
        assert 'installs install --quiet --editable "..[lessons,serving]"' in told
        assert told.endswith(f"NoneType None {clone / 'notebooks'} {clone}\n") and (clone / "pyproject.toml").exists()
    elif address:
        assert (
            "nowhere" in told and "FileNotFoundError" in told and not clone.exists() and "installs install" not in told
        )
    else:
        assert "SystemExit Put the address of the repository into SOURCE" in told and "installs install" not in told


def test_the_address_that_a_lesson_clones_is_the_projects():
    address = PROJECT.get("urls", {}).get("Repository", "")
    assert f'os.environ.get("CROCO_SOURCE", "{address}")' in INSTALL


def test_the_table_of_figures_names_sections_and_functions_that_exist():
    rows = re.findall(r"^\| .*\| \[.*$", (ROOT / "notebooks/TEACHING.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        _, where, what = (cell.strip() for cell in row.strip("|").split("|"))
        for name, section in re.findall(r"\]\(([^)]+ipynb)\), \*(.+?)\*", where):
            assert section in headings(name), f"{name} has no section {section!r}"
        for room, function in re.findall(r"`([\w.]+)\.(\w+)`", what):
            assert hasattr(import_module(f"croco_lib.{room}"), function), f"{room}.{function}"


def test_the_checks_of_exercises_are_collapsed():
    for name, lesson in LESSONS.items():
        for i, cell in enumerate(lesson.cells):
            if cell.cell_type == "code" and re.search("^check\\(", cell.source, re.MULTILINE):
                assert cell.metadata.get("jupyter", {}).get("source_hidden"), f"{name}, cell {i}: the answer shows"


def prose_of(name):
    return "\n".join(cell.source for cell in LESSONS[name].cells if cell.cell_type == "markdown")


def headings(name):
    found = re.findall(r"^#+ (.+)$", prose_of(name), re.MULTILINE)
    return [re.sub(r"^\d · | \[(?:[AS]|ours|, )+\]$", "", text) for text in found]


def test_the_glossary_explains_the_terms_of_the_lessons():
    """Each term stands in the lesson that it names, and what 00 to 05 print in bold to define it is a term."""
    glossary = (ROOT / "notebooks/GLOSSARY.md").read_text()
    lines = re.findall(r"^- \*\*(.+?)\*\* \(\[(\d\d)\]\((.+?)\)\): (.+)$", glossary, re.MULTILINE)
    prose = {
        name: " ".join(" ".join(c.source for c in lesson.cells if c.cell_type == "markdown").split()).lower()
        for name, lesson in LESSONS.items()
    }
    for term, number, name, text in lines:
        assert name.startswith(number) and term.lower() in prose[name] and text.endswith("."), term
    terms = {term.lower() for term, *_ in lines}
    for name in [n for n in LESSONS if n < "06"]:
        bold = re.findall(r"\*\*([\w²-]+(?: [\w-]+)?)\*\*", prose[name])
        unknown = {t for t in bold if not {t, t.removesuffix("s")} & terms} - EMPHASIS
        assert not unknown, f"{name}: {unknown}"


def dead_links(path, text):
    """The targets of the page's own links that are not there, or have no such heading."""
    for target, _, anchor in re.findall(r"\]\((?!http)([^)#]*)(#([^)]+))?\)", text):
        page = path.parent / target if target else path
        if not page.exists():
            yield target
        elif anchor and page.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            if anchor not in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}:
                yield f"{target}#{anchor}"


def test_links_lead_somewhere(tmp_path):
    pages = [*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md"), *(ROOT / "data").rglob("*.md")]
    texts = {page: page.read_text() for page in pages}
    for path in paths():
        texts[path] = "\n".join(c.source for c in LESSONS[path.name].cells if c.cell_type == "markdown")
    dead = {path.name: found for path, text in texts.items() if (found := list(dead_links(path, text)))}
    assert not dead
    page = tmp_path / "a.md"
    page.write_text("# Two words\n[here](#two-words) [gone](#three) [no file](b.md) [out](https://example.org)")
    assert list(dead_links(page, page.read_text())) == ["#three", "b.md"]


def test_readme_and_command_line_name_every_model_and_lesson():
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in MODELS)
    assert all(f"notebooks/{name}" in readme for name in LESSONS)
    with pytest.raises(CrocoError) as refused:
        CliRunner().invoke(cli.app, ["fit", "nosuch"], catch_exceptions=False)
    assert all(name in str(refused.value) for name in MODELS)


def test_every_command_that_a_page_shows_is_one():
    """Each `croco …` names a command and options that there are, and each command is shown somewhere."""
    root, shown = get_command(cli.app), set()
    pages = {*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md"), *(ROOT / "data").rglob("*.md")}
    for page in pages - {ROOT / "CHANGELOG.md"}:  # which names what is gone
        for line in re.findall(r"(?:^|`|&& |-m )croco(?:_lib)? ([^`#&|\n]*)", page.read_text(), re.MULTILINE):
            words, command, path = line.split(), root, []
            while words and isinstance(command, TyperGroup) and words[0] in command.commands:
                path.append(words.pop(0))
                command = command.commands[path[-1]]
            assert path or not words or not re.fullmatch("[a-z]+", words[0]), f"{page.name}: croco {line}"
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
            unknown = {w.partition("=")[0] for w in words if w.startswith("--")} - known - {"--help"}
            assert not unknown, f"{page.name}: croco {line}"
            shown.add(path[0] if path else "")
    assert set(root.commands) <= shown


def speed_figures(name="speed"):
    """The committed figures of `croco speed`, of its peer or of a GPU: {(table, row, column): value}."""
    figures = json.loads((ROOT / "data" / "results" / f"{name}.json").read_text(encoding="utf-8"))["figures"]
    return {(f["table"], f["row"], f["column"]): f["value"] for f in figures}


def test_the_readmes_figures_of_speed_are_the_committed_ones():
    readme = " ".join((ROOT / "README.md").read_text().split())
    own, peer = speed_figures(), speed_figures("speed.peer")

    def times(model):
        row = ("peer: how many times as fast as theirs", f"{model}, 1 thread")
        return [f"{peer[(*row, f'theirs{side}, median')]:.1f}" for side in (" as shipped", ", fed at once")]

    shipped, fed = times("shared-bottom")
    assert f"Shared-Bottom trains {shipped} times as fast as torch-rechub's as shipped and {fed} times" in readme
    assert "MMoE {} and {} times".format(*times("mmoe")) in readme
    assert "PLE {} and {} times".format(*times("ple")) in readme
    for model in ("shared-bottom", "mmoe", "ple"):
        aucs = [value for (table, row, _), value in peer.items() if table == "peer: test AUC" and row == model]
        assert len(aucs) == 3 and max(aucs) - min(aucs) < 0.003
    assert f"step reaches {own['models', 'crocodile', 'share of the limit']:.2f} of the limit" in readme
    assert f"on the whole batch is {own['covloss', 'on 4096 rows', 'share of a step']:.2f} of the step" in readme


def test_what_was_aimed_at_stands_beside_what_the_figures_reach():
    peer, text = speed_figures("speed.peer"), (ROOT / "data/results/README.md").read_text(encoding="utf-8")

    def beside(side):
        times = "peer: how many times as fast as theirs"
        rows = [f"{model}, 1 thread" for model in ("shared-bottom", "mmoe", "ple")]
        return ", ".join(f"{peer[times, row, f'theirs{side}, median']:.1f}" for row in rows)

    def reached(own):
        def share(table, row, column="share of a step"):
            return f"{own[table, row, column]:.2f}".removeprefix("0")

        bare = own["covloss", "on 4096 rows", "share of its bare products"]
        bare *= own["models", "crocodile", "share of the limit"]
        many, usual = (own["vocabulary", f"{n} items, lazy Adam", "step ms"] for n in ("4,000,000", "10,000"))
        prepared = (own["prepare", f"{name}, 1,000,000 rows", "rows a second"] for name in ("kuairand-1k", "ali-ccp"))
        return [
            share("models", "crocodile", "share of the limit"),
            share("models", "shared-bottom", "share of the limit"),
            f"{share('covloss', 'on 4096 rows')} ({f'{bare:.2f}'.removeprefix('0')})",
            share("covloss", "on 32 rows"),
            f"{many / usual:.2f}",
            *(f"{round(rows, -3):,.0f}" for rows in prepared),
        ]

    once, again = speed_figures(), speed_figures("speed.again")
    seconds = [f"{value:.1f}" for (table, *_), value in again.items() if table == "reader"]
    told = re.findall(r"^\| .* \| .* \| (.*?) ?\| (.*?) ?\|$", text, re.MULTILINE)
    first = [beside(" as shipped"), beside(", fed at once"), *reached(once), "", "", ""]
    assert [row[0] for row in told] == ["reached", "---", *first]
    assert [row[1] for row in told] == ["again", "---", "", "", *reached(again), *seconds]

    full = pd.read_csv(ROOT / "data" / "results" / "full_size.csv")
    epoch = full[(full.data == "kuairand-1k") & (full["what"] == "crocodile")].iloc[0]
    minutes, left = divmod(round(epoch.seconds), 60)
    assert f"takes {minutes} min {left} s and {epoch['peak MiB'] / 1024:.1f} GiB" in " ".join(text.split())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{again['models', 'crocodile', 'share of the limit']:.2f} in a second run, a day later" in readme


def test_what_lesson_10_says_of_a_step_on_a_gpu_follows_from_it():
    text, found = " ".join(prose_of("10_full_size.ipynb").split()), speed_figures("speed.gpu")

    def ms(model, row="as it is", shape="MovieLens-1M"):
        return found[f"{shape}, {model}", row, "step ms"]

    def faster(model, row):
        return f"{ms(model) / ms(model, row):.1f} times"

    def bound(model, row):
        return f"{found[f'MovieLens-1M, {model}: what bounds it', row, 'as it is']:.2f}"

    def rates(model):
        """Millions of rows a second, of `fit` with its feed and of the step alone."""
        rows = ("fit, its batches fetched", "as it is")
        return [f"{found[f'MovieLens-1M, {model}', row, 'rows a second'] / 1e6:.1f}" for row in rows]

    def adams(model):
        return [f"{ms(model, row, 'KuaiRand-1K'):.1f}" for row in ("as it is", "with dense Adam")]

    works = "share of the time that the GPU works"
    for said in (
        f"the card works {bound('shared-bottom', works)} of the time",
        f"launched as one is {faster('shared-bottom', 'as one CUDA graph')} as fast",
        "{} of {} million rows a second are left".format(*rates("shared-bottom")),
        f"the card works {bound('crocodile', works)} of the time",
        f"and {bound('crocodile', 'of which aten::bmm')} of that work is batched products",
        f"as one CUDA graph its step is {faster('crocodile', 'as one CUDA graph')} as fast",
        "{} of {} million rows a second are left".format(*rates("crocodile")),
        f"makes its step {faster('crocodile', 'in TF32')} as fast, bf16 (16-bit numbers in the products) "
        f"{faster('crocodile', 'in bf16')}, and",
        f"with `torch.compile` {faster('crocodile', 'compiled, in bf16')}",
        f"CovLoss takes {1 - ms('crocodile', 'without CovLoss') / ms('crocodile'):.2f} of the step",
        "{} against {} ms; for Shared-Bottom, {} against {} ms".format(*adams("crocodile"), *adams("shared-bottom")),
    ):
        assert said in text, said


def test_what_lesson_11_says_of_the_committed_simulation_follows_from_it():
    text, results = " ".join(prose_of("11_online.ipynb").split()), ROOT / "data" / "results"
    daily = pd.read_csv(results / "online.aa.csv").query("rule == 'a look each day'")
    daily = daily.set_index("metric").false_positives
    assert f"it is {100 * daily.gmv:.3g} % for GMV and {100 * daily.ctr:.3g} % for CTR" in text
    users = pd.read_csv(results / "online.power.csv").query("metric == 'ctr'").users_for_80_percent.iloc[0]
    assert f"{round(users, -4):,.0f} would do: `online.power.csv`" in text
    p99 = pd.read_csv(results / "online.latency.csv").query("model == 'crocodile'").set_index("sets").p99_ms
    assert f"the p99 is {p99[2]:.1f} ms with two sets and {p99[5]:.1f} with five" in text
    earned = pd.read_csv(results / "online.gmv.csv").pivot(index="predictions", columns="model")
    platt = earned.loc["Platt by domain"] - earned.loc["as trained"]
    assert (
        "Platt scaling raises revenue in both arms; GMV falls slightly in one and rises slightly in the other" in text
    )
    assert (platt["revenue"] > 0).all() and platt["gmv"].min() < 0 < platt["gmv"].max()
    lifts = pd.read_csv(results / "online.csv").query("domain == 'all'")
    true = lifts[lifts.measured != "A/B test"].pivot(index="training", columns="metric", values="lift")
    fewer, more, most = (f"{100 * lift:+.1f}".replace("-", "−") for lift in true.ctr.sort_values())
    assert f"fewer clicks than HiNet ({fewer} %), with the two others more ({more} and {most} %)" in text
    assert true.ctr.idxmin() == 0 and (true[["revenue", "gmv"]] < 0).all(axis=None)
    seen = lifts[lifts.measured == "A/B test"].query("metric == 'ctr'").set_index("training")
    a, low, high = (f"{100 * seen[name].iloc[0]:+.1f}".replace("-", "−") for name in ("lift", "low", "high"))
    said = f"A/B test saw {a} % where the true lift was {fewer} %, and its interval reaches from {low} to {high} %"
    assert said in text
    assert (seen.low < 0).all() and (seen.high > 0).all()  # it could tell none of these from nothing
    assert (seen.baseline == "hinet").all() and json.loads((results / "online.json").read_text())["trainings"] == 3


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs `croco` of the package as a wheel installs it, in a folder of its own, far from the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # a copy, for building leaves folders behind
    shutil.copytree(ROOT / "croco_lib", source / "croco_lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", folder / "site", source], check=True
    )
    env, command = os.environ | {"PYTHONPATH": str(folder / "site")}, [sys.executable, "-m", "croco_lib"]
    return lambda words: subprocess.run(
        [*command, *words.split()], cwd=tmp_path_factory.mktemp("away"), text=True, capture_output=True, env=env
    )


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ("lessons", "notebooks"),
        pytest.param("lessons --html site --as-saved", "notebooks", marks=pytest.mark.slow),
        ("claims", "data/verdicts/studies.toml"),
        pytest.param("study main", "data/verdicts/studies.toml", marks=pytest.mark.slow),
    ],
)
def test_without_a_checkout_a_command_says_what_it_needs(installed, words, needs):
    done = installed(words)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"croco: This needs {needs} of the repository" in done.stderr


def test_without_a_checkout_the_rest_works(installed):
    done = installed("data")
    assert done.returncode == 0 and "world: made on the spot" in done.stdout, done.stderr


def test_the_defaults_are_those_that_the_readme_states():
    made, run = options_of("crocodile"), TrainOptions()
    said = (
        f"five sets, embedding size {made['dim']}, experts {'–'.join(map(str, made['expert']))}, "
        f"towers {made['tower'][0]}, Adam {run.lr:g}, batch {run.batch_size}, at most {run.epochs} epochs, patience "
        f"{run.patience}, the step with the best validation AUC kept, L2 in the tables only for rows that a batch "
        f"reads, α = {made['alpha']:g}, embedding start {INIT_STD:g} |"
    )
    assert said in (ROOT / "README.md").read_text(encoding="utf-8") and made["sets"] == 5


def test_a_lesson_that_was_run_is_written_as_it_ran(tmp_path, monkeypatch):
    given, ran = {}, object()
    monkeypatch.setattr(notebooks, "page", lambda path, book, pages, nav: given.update({path: book}) or "")
    first, *others = paths()
    notebooks.site(tmp_path, {first: ran})
    assert given[first] is ran and all(given[path] is None for path in others)


def test_lessons_that_are_saved_run_one_at_a_time(monkeypatch):
    asked = []
    monkeypatch.setattr(notebooks, "run_all", lambda *a: asked.append(a[-1]) or iter(()))
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    for words in (["lessons", "--save"], ["lessons"]):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert asked == [1, 3]
    monkeypatch.setattr(notebooks, "run_all", lambda *a: asked.append(a[-2]) or iter(()))
    for words, profile in (([], "full"), (["--profile", "fast"], "fast")):  # what stands on the command line counts
        monkeypatch.setenv("CROCO_PROFILE", "full")
        CliRunner().invoke(cli.app, ["lessons", *words], catch_exceptions=False)
        assert asked[-1] == profile
    for words, message in (
        (["--save", "--profile", "tiny"], "--save keeps what readers see"),
        (["--only", "99"], "No lesson's name starts with '99'"),
        (["--as-saved"], "give it a folder"),
        (["--html", "x", "--as-saved", "--only", "04"], "leave out --only and --save"),
        (["--profile", "tny"], "Did you mean 'tiny'"),
    ):
        with pytest.raises(CrocoError, match=message):
            CliRunner().invoke(cli.app, ["lessons", *words], catch_exceptions=False)
