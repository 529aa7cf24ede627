"""What goes wrong around a run is one line, and nothing is lost or taken silently."""

import errno
import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from polars.exceptions import ComputeError
from safetensors import SafetensorError
from small import in_bf16

from croco_lib import CrocoError, build, fit
from croco_lib.datasets import aliccp
from croco_lib.datasets.registry import present
from croco_lib.errors import DataError, write_text, write_whole
from croco_lib.lessons import notebooks as lessons
from croco_lib.sharded import together as room
from croco_lib.study.studies import run_study


def test_a_full_disk_is_one_line_and_keeps_what_stood_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "α")

    def full(temporary: Path):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CrocoError, match="a.txt could not be written .*No space left on device"):
        write_whole(path, full)
    assert path.read_bytes() == "α".encode() and list(tmp_path.iterdir()) == [path]


def test_a_run_says_its_precision_and_refuses_another(small_world, tmp_path, monkeypatch):
    given = dict(epochs=1, batch_size=1000, folder=tmp_path, progress=False)
    run = fit(build("shared-bottom", small_world), small_world, **given)
    assert run.settings["mixed_precision"] == "no" and run.settings["threads"] >= 1 and run.settings["device"] == "cpu"
    saved = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert saved == run.settings
    with in_bf16(monkeypatch), pytest.raises(CrocoError, match="another mixed_precision .'no', now 'bf16'"):
        fit(build("shared-bottom", small_world), small_world, **given)


def test_a_benchmark_of_absent_data_or_failed_runs_does_not_end_well(tmp_path, monkeypatch, croco):
    assert croco("benchmark --data clicks.csv --folder", tmp_path)[0] == 1 and not list(tmp_path.iterdir())
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    monkeypatch.setenv("CROCO_PREPARED", str(tmp_path))
    with pytest.raises(DataError, match="kuairand-1k is not here"):
        present("kuairand-1k")
    assert croco("benchmark --data world:rows=3 --models mmoe --seeds 2 --workers 1 --folder", tmp_path)[0] == 1
    with pytest.raises(CrocoError, match="rows must lie between 1000 and inf, not 3"):
        run_study("own", dict(models=["mmoe"], seeds=1), "world:rows=3", tmp_path, progress=False)


@pytest.mark.parametrize("place", ["ali-ccp", "Ali-CCP", "ali-ccp-2018/sample_{}", "."])
def test_ali_ccp_lies_as_it_was_unpacked(place, tmp_path, monkeypatch):
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    for name in aliccp.NAMES:
        path = tmp_path / place.format(name.rpartition("_")[2].removesuffix(".csv")) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.name for path in aliccp.files()] == aliccp.NAMES
    path.unlink()
    assert not aliccp.files() and f"lacks {path.name}." in aliccp.how_to_get()


def test_lessons_run_in_this_python(tmp_path, monkeypatch):
    """A kernel of the same name elsewhere on Jupyter's paths is another Python: it is not taken."""
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(argv=["/no/such/python"], display_name="other", language="python")))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert lessons.OwnPython(kernel_name="python3").kernel_spec.argv[0] == sys.executable


@pytest.mark.skipif(os.name != "posix", reason="kernels speak over TCP here, and warn of it")
def test_a_lesson_runs_without_a_word_about_its_transport(tmp_path, capfd):
    path = tmp_path / "00_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")]), path)
    assert lessons.run(path).cells[0].outputs[0].text == "42\n"
    assert "TCP" not in "".join(capfd.readouterr())


def test_what_fails_on_one_process_is_raised_on_all(monkeypatch):
    def fails():
        raise OSError("full")

    monkeypatch.setattr(room, "gathered", lambda fault: [fault])
    assert room.on_every_process(lambda: 3) == 3
    with pytest.raises(CrocoError, match="^full$"):
        room.on_every_process(fails)
    monkeypatch.setattr(room, "gathered", lambda fault: [fault, "no space"])
    with pytest.raises(CrocoError, match="^process 1: no space$"):
        room.on_every_process(lambda: 3)


def test_what_torch_safetensors_and_polars_say_of_a_full_disk_is_one_line_and_other_errors_are_their_own(tmp_path):
    def fails(error):
        raise error

    of_writing = RuntimeError("PytorchStreamWriter failed\nat …"), SafetensorError("I/O error"), ComputeError("full")
    for error in of_writing:
        with pytest.raises(CrocoError, match="a could not be written") as told:
            write_whole(tmp_path / "a", lambda path, error=error: fails(error))
        assert "\n" not in str(told.value)
    for error in (KeyError("own"), KeyboardInterrupt()):

        def stops(path, error=error):
            path.write_text("half")
            fails(error)

        with pytest.raises(type(error)):
            write_whole(tmp_path / "a", stops)
    assert not list(tmp_path.iterdir())
