"""The command of this wing: `croco plan`. Its other half is `croco fit --shard`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import write_whole


def plan(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the table.")] = Path("build/plan.csv"),
    batch_size: Annotated[int, typer.Option(min=64, help="Rows a step, of all devices together.")] = 65_536,
) -> None:
    """Plan where large embedding tables would lie on several GPUs.

    Those of KuaiRand-1K, of KuaiRand-27K and of a billion ids, on 1, 8 and 64 GPUs; it needs none.
    """
    from .plan import plans

    table = plans(batch_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda path: table.round(4).to_csv(path, index=False))
    typer.echo(table.round(3).to_string(index=False))


COMMANDS = (plan,)
