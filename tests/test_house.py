"""The plan of the house: the core is small and stands without its wings; nothing is long; the library needs no test.

Lengths are those of the formatted source, so they do not depend on how tightly a line is written.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from croco_lib.errors import ROOT

LIBRARY = ROOT / "croco_lib"
# Each wing and the wings that it may stand on.
WINGS = {
    "datasets": (),
    "fitting": ("datasets", "sharded"),
    "look": (),
    "lessons": (),
    "study": ("datasets",),
    "online": ("datasets", "fitting", "study"),  # its arms are trained as a study trains them; it exports what fit kept
    "sharded": (),
}
DOORS = ("cli.py", "__main__.py", "__init__.py")  # what a user comes in by; cli.py mounts the wings' commands
CORE_LINES, MODULE_LINES, FUNCTION_LINES = 3_300, 250, 60


@pytest.fixture(scope="module")
def sources():
    """Every module's source by its path within the library, formatted as ruff formats it."""
    subprocess.run([sys.executable, "-m", "ruff", "format", "--check", "--quiet", LIBRARY], check=True)
    return {path.relative_to(LIBRARY): path.read_text(encoding="utf-8") for path in sorted(LIBRARY.rglob("*.py"))}


def imported_rooms(path: Path, source: str) -> set[str]:
    """The library's own top rooms that the module imports, anywhere in it: {"data", "models"}."""
    package, rooms = ("croco_lib", *path.parent.parts), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("croco_lib.")}
    return rooms


def test_imports_are_read_as_python_reads_them():
    text = "from . import a\nfrom .b import c\nimport croco_lib.d.e\ndef f():\n    from croco_lib import g\nimport os"
    assert imported_rooms(Path("x.py"), text) == {"a", "b", "d", "g"}
    assert imported_rooms(Path("study/x.py"), "from ..online import a\nfrom .jobs import b") == {"online", "study"}
    assert imported_rooms(Path("online/deep/x.py"), "from ... import data\nfrom ..jobs import y") == {"data", "online"}


def test_no_core_room_opens_a_wing(sources):
    for path, source in sources.items():
        if path.as_posix() not in DOORS:
            wings, own = imported_rooms(path, source) & set(WINGS), path.parts[0]
            assert wings <= {own, *WINGS.get(own, ())}, f"{path} imports the wings {wings}"


def test_the_core_imports_without_its_wings():
    rooms = sorted(path.stem for path in LIBRARY.glob("*.py") if path.name not in DOORS)
    script = (
        f"import importlib, sys\n"
        f"for room in {[*rooms, 'data.frame', 'data.world', 'models']!r}:\n"
        f"    importlib.import_module(f'croco_lib.{{room}}')\n"
        f"opened = [m for m in sys.modules for wing in {tuple(WINGS)!r} if m.startswith(f'croco_lib.{{wing}}')]\n"
        f"assert not opened, opened"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def lengths(sources: dict[Path, str]) -> dict[str, int]:
    """Lines of every module and function, and of the core as a whole, by name."""
    found = {
        "core": sum(
            len(source.splitlines())
            for path, source in sources.items()
            if path.parts[0] not in WINGS and path.as_posix() not in DOORS
        )
    }
    for path, source in sources.items():
        found[path.as_posix()] = len(source.splitlines())
        found |= {
            f"{path.as_posix()}:{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return found


def test_nothing_is_long(sources):
    def limit(name: str) -> int:
        return CORE_LINES if name == "core" else FUNCTION_LINES if ":" in name else MODULE_LINES

    long = {name: lines for name, lines in lengths(sources).items() if lines > limit(name)}
    assert not long, f"longer than it may be: {long}"


def test_every_relative_import_leads_somewhere(sources):
    for path, source in sources.items():
        package = ("croco_lib", *path.parent.parts)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                at = ROOT.joinpath(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
                assert at.with_suffix(".py").is_file() or (at / "__init__.py").is_file(), f"{path}:{node.lineno}"


def test_no_function_is_named_like_its_module(sources):
    for path, source in sources.items():
        defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert path.stem not in defined, path


def test_the_library_runs_nothing_of_the_tests():
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value != "tests" and "tests/" not in node.value, f"{path}:{node.lineno}"
