"""The command of this wing: `croco lessons`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ROOT, CrocoError, in_checkout, known


def lessons(
    only: Annotated[str, typer.Option(help="Only the lessons whose file name starts so, e.g. 03.")] = "",
    html: Annotated[Path | None, typer.Option(help="Leave a site to read offline in this folder.")] = None,
    save: Annotated[bool, typer.Option(help="Save the run notebooks, tidied, in their place.")] = False,
    profile: Annotated[
        str, typer.Option(envvar="CROCO_PROFILE", help="tiny (for tests), fast (under a minute a lesson) or full.")
    ] = "fast",
    as_saved: Annotated[bool, typer.Option("--as-saved", help="For --html: as saved, none is run.")] = False,
) -> None:
    """Run the lessons, a line each.

    As many at a time as there are cores; with --save one at a time, since lessons 07 and 10 save what they time.
    """
    in_checkout(ROOT / "notebooks")  # before what takes seconds to import
    from joblib import cpu_count

    from .notebooks import paths, run_all, site

    if as_saved:
        if html is None:
            raise CrocoError("--as-saved runs nothing and only serves --html DIR; give it a folder.")
        if only or save:
            raise CrocoError("--as-saved takes every lesson as it stands; leave out --only and --save.")
        typer.echo(f"To read: {site(html, {})}")
        return
    known("profile", profile, ("tiny", "fast", "full"))
    if save and profile == "tiny":
        raise CrocoError("--save keeps what readers see, and --profile tiny is for tests: leave one of them out.")
    total = sum(p.name.startswith(only) for p in paths())
    if not total:
        raise CrocoError(f"No lesson's name starts with {only!r}. Known: {', '.join(p.stem for p in paths())}.")
    at_once = 1 if save else min(total, cpu_count())
    typer.echo(f"running {total} lessons, {at_once} at a time …" if total > 1 else "running one lesson …")
    for done, (name, seconds) in enumerate(run_all(only, save, html, profile, at_once), start=1):
        typer.echo(f"[{done}/{total}] {name}  {seconds:.0f} s")
    if html:
        typer.echo(f"To read: {html}/index.html")


COMMANDS = (lessons,)
