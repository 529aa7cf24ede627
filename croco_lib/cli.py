"""The command line `croco`: the long work behind the lessons."""

import io
import sys
from typing import Annotated

import typer

from .console import VERSIONS
from .datasets import commands as datasets
from .errors import CrocoError
from .fitting import commands as fitting
from .lessons import commands as lessons
from .look import commands as look
from .online import commands as online
from .sharded import commands as sharded
from .study import commands as study

app = typer.Typer(
    help="Crocodile, step by step: multi-domain click models from raw data to tables.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes half of the time in which `croco --help` answers
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of croco-lib and of what it uses.")
    ] = False,
) -> None:
    if version:
        typer.echo(", ".join(f"{name} {number}" for name, number in VERSIONS.items()))
        raise typer.Exit


app.add_typer(datasets.app, name="data")
for command in (
    *fitting.COMMANDS,
    *look.COMMANDS,
    *study.COMMANDS,
    *online.COMMANDS,
    *sharded.COMMANDS,
    *lessons.COMMANDS,
):
    app.command()(command)


def extra_of(module: str) -> str:
    """Which extra of pyproject.toml brings what is missing, in words."""
    if module.startswith(("torchrec", "fbgemm", "iopath", "pyre_extensions", "tensordict", "torchmetrics")):
        cpu = "'croco-lib[distributed-cpu]' && pip install --no-deps torchrec==1.8.0"
        return f"On GPUs its extra brings it: pip install 'croco-lib[distributed]'; without: pip install {cpu}"
    extra = "serving" if module.startswith("onnx") else "peer" if module.startswith("torch_rechub") else "lessons"
    return f"Its extra brings it: pip install 'croco-lib[{extra}]'"


def main() -> None:
    """Run the command line; a user's error is one clear line and exit status 1."""
    for stream in (sys.stdout, sys.stderr):  # a redirected output may be cp1252, which has no α
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except (ModuleNotFoundError, CrocoError, OSError) as error:  # the system's own name the file
        said = str(error)
        if isinstance(error, ModuleNotFoundError):
            said = f"{error.name} is not installed. {extra_of(error.name or '')}"
        typer.echo(f"croco: {said}", err=True)
        sys.exit(1)
