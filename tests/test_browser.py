"""The lessons in a real browser: each explorer's picture follows the mouse and the keyboard, and nothing fails.

JupyterLab and Voilà serve a copy of the lessons at the tiny profile, with settings of their own; what was seen is kept
in build/screenshots.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from test_project import LESSONS, explorers

from croco_lib.errors import ROOT
from croco_lib.lessons.notebooks import FOLDER

pytestmark = pytest.mark.slow
EXPLORERS = {name: explorers(book) for name, book in LESSONS.items()}
SEEN = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the lessons, and the environment that keeps Jupyter within it."""
    shutil.rmtree(SEEN, ignore_errors=True)  # what is there afterwards was seen in this run
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(FOLDER, home / "notebooks")
    names = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR"
    places = {name: str(home / name) for name in (*names.split(), "IPYTHONDIR")}
    settings = home / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab"
    for plugin, values in (
        ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
        ("notebook-extension/tracker", {"windowingMode": "none"}),
    ):
        path = settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return home, {**os.environ, **places, "CROCO_PROFILE": "tiny"}


@contextlib.contextmanager
def serving(home, env, *command):
    """Run a server on a free port of the loopback until it answers; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / f"{command[0]}.log"
    with open(log, "w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, f"--port={port}", "--no-browser"],
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=home / "notebooks",
        )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/"):
                break
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def lab(copy):
    flags = "--ip=127.0.0.1 --IdentityProvider.token= --LabApp.expose_app_in_browser=True --ServerApp.port_retries=0"
    with serving(*copy, "jupyterlab", *flags.split(), "--allow-root") as address:
        yield address


def use(page, box):
    """Move every control of an explorer, mouse and keyboard; each must change its picture."""
    image = box.locator("img.widget-image")
    before = image.get_attribute("src")

    def changed(what):
        nonlocal before
        page.wait_for_function("([img, was]) => img.src !== was", arg=[image.element_handle(), before], timeout=60_000)
        while page.wait_for_timeout(300) or image.get_attribute("src") != before:  # a drag passes several values
            before = image.get_attribute("src")
        image.evaluate("img => img.decode()")  # fails where the picture is broken
        done.append(what)

    done = []
    for slider in box.locator(".widget-slider").all():
        handle = slider.locator(".noUi-handle")
        handle.scroll_into_view_if_needed()
        track, at = slider.locator(".noUi-target").bounding_box(), handle.bounding_box()
        left = at["x"] - track["x"] > track["width"] / 2
        page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        page.mouse.down()
        page.mouse.move(track["x"] + track["width"] * (0.02 if left else 0.98), at["y"] + at["height"] / 2, steps=4)
        page.mouse.up()
        changed("mouse")
        stood = handle.get_attribute("aria-valuenow")
        handle.press("ArrowRight" if left else "ArrowLeft")
        changed("keyboard")
        assert handle.get_attribute("aria-valuenow") != stood
    for menu in box.locator(".widget-dropdown select:has(option:nth-of-type(2))").all():  # of two choices or more
        menu.select_option(index=1 if menu.evaluate("m => m.selectedIndex") == 0 else 0)
        changed("menu")
    for button in box.locator(".widget-toggle-button:not(.mod-active)").all():
        button.press("Enter")
        changed("button")
    assert done and box.get_by_text("This choice cannot be drawn").count() == 0
    return done


@pytest.mark.parametrize("name", ["09_your_own_data.ipynb"])  # the other controls are moved in test_solutions.py
def test_explorers_follow_mouse_and_keyboard(name, lab, chromium):
    page, errors = chromium.new_page(viewport={"width": 1400, "height": 1000}), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}/doc/tree/{name}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(
        "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
    )
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
    cells = [c for c in cells if c["cell_type"] == "code"]
    failed = [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    assert not failed, "\n".join(failed[0]["traceback"])
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    boxes = page.locator(".jp-OutputArea-output .widget-vbox:has(> .widget-image)")
    boxes.last.wait_for()
    assert boxes.count() == EXPLORERS[name]
    SEEN.mkdir(parents=True, exist_ok=True)
    for number, box in enumerate(boxes.all(), 1):
        assert {"mouse", "keyboard"} <= set(use(page, box)) or not box.locator(".widget-slider").count()
        page.wait_for_timeout(500)
        box.screenshot(path=SEEN / f"{name.removesuffix('.ipynb')}_{number}.png")
    assert not errors
    page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
    page.close()


def test_dashboard_shows_a_slider_that_redraws_and_no_code(copy, chromium):
    with serving(*copy, "voila", "05_gates_and_domains.ipynb", "--Voila.ip=127.0.0.1") as address:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address, timeout=120_000)
        box = page.locator(".widget-vbox:has(> .widget-image):has(.widget-slider)")
        box.wait_for(timeout=60_000)
        assert {"mouse", "keyboard", "menu"} <= set(use(page, box))
        shown = page.inner_text("body")
        assert "import" not in shown and "Traceback" not in shown and page.locator(".jp-InputArea-editor").count() == 0
        assert "Gates and domains" in shown
        assert shown.count("To be answered in the notebook.") == 3 and "replace the ..." not in shown
        page.screenshot(path=SEEN / "dashboard.png", full_page=True)
        page.close()
