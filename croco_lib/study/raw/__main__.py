"""`python -m croco_lib.study.raw NAME --folder FOLDER`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import write_aliccp, write_kuairand


def main(
    name: Literal["kuairand-pure", "kuairand-1k", "kuairand-27k", "ali-ccp"],
    folder: Annotated[Path, typer.Option()],
    rows: Annotated[int, typer.Option(min=1)] = 10_000,
    users: Annotated[int, typer.Option(min=1, help="Users, or Ali-CCP's profiles.")] = 1_000,
    items: Annotated[int, typer.Option(min=1, help="Videos or items.")] = 5_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write raw files of the layout NAME into --folder."""
    if name == "ali-ccp":
        write_aliccp(folder, rows, users, items, seed)
    else:
        write_kuairand(folder, name, rows, users, items, seed)


if __name__ == "__main__":
    typer.run(main)
