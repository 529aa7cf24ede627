import gc
import os
import shutil

import pytest
from xdist.scheduler import LoadFileScheduling

import croco_lib
from croco_lib import cli

# What takes longest comes first, so that at the end no process has a long file left while the others wait.
LONG = {
    f"test_{name}.py": place
    for place, name in enumerate(
        "solutions study scale site browser verdicts prepare inside training market serving project cli round_trip data"
        " peer models robust".split()
    )
}


def pytest_collection_modifyitems(items):
    import torch  # not above: the process that only hands out the tests needs none

    torch.set_num_threads(1)
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", LONG.get(item.path.name, len(LONG))))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what the imports have left lives to the end, so no later collection looks at it


class ByFile(LoadFileScheduling):
    """A file stays in one process, so that what its tests share is made once; but each lesson's solutions go singly."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "test_solutions.py" in nodeid else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log) if config.getvalue("dist") == "load" else None  # "load" is what -n alone means


@pytest.fixture(scope="session", autouse=True)
def prepared_sets(tmp_path_factory):
    """What tests prepare lies in a folder of their own, one for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
        patch.setenv("CROCO_PREPARED", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def few_fresh_rows():
    """A study scores 20,000 new rows in each domain of the made world; what is tested here does not need so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("croco_lib.study.jobs.FRESH_ROWS", 1_000)
        yield


@pytest.fixture
def croco(monkeypatch, capfd):
    """Run the command line, the first words given as one line; returns exit status, standard output and error."""

    def run(line: str = "", *words):
        monkeypatch.setattr("sys.argv", ["croco", *line.split(), *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def small_world():
    return croco_lib.load("world", rows=20_000, users=300, items=400)


@pytest.fixture(scope="session")
def kuairand(prepared_sets):
    from croco_lib.datasets.registry import find

    if find("kuairand-pure") is None:
        pytest.skip("KuaiRand-Pure is not here; run `croco data get kuairand-pure`")
    return croco_lib.load("kuairand-pure")


@pytest.fixture(scope="module")  # no longer: while playwright runs, nothing else may start an event loop
def chromium():
    """Headless Chromium; without it the test is skipped, saying what to install."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def one_thread_again():
    """`croco fit` without --threads takes all: the tests that follow in this process have one again."""
    yield
    import torch

    torch.set_num_threads(1)
