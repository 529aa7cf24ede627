"""`python -m croco_lib.study.raw NAME --folder FOLDER`."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import known
from . import write_aliccp, write_kuairand


def main(
    name: str,
    folder: Annotated[Path, typer.Option()],
    rows: Annotated[str, typer.Option()] = "10_000",
    users: Annotated[str, typer.Option(help="Users, or Ali-CCP's profiles.")] = "1_000",
    items: Annotated[str, typer.Option(help="Videos or items.")] = "5_000",
    seed: int = 0,
) -> None:
    """Write raw files of the layout NAME (kuairand-pure, -1k, -27k or ali-ccp) into --folder."""
    known("layout", name, ("kuairand-pure", "kuairand-1k", "kuairand-27k", "ali-ccp"))
    if name == "ali-ccp":
        write_aliccp(folder, int(rows), int(users), int(items), seed)
    else:
        write_kuairand(folder, name, int(rows), int(users), int(items), seed)


if __name__ == "__main__":
    typer.run(main)
