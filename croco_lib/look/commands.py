"""The command of this wing: `croco look`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def look(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, or a folder of Parquet files.")],
    label: Annotated[str | None, typer.Option(help="The column of 0 or 1, where the guess is wrong.")] = None,
    domain: Annotated[str | None, typer.Option(help="The column of domains.")] = None,
    user: Annotated[str | None, typer.Option(help="The column of users.")] = None,
    item: Annotated[str | None, typer.Option(help="The column of items.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Look at a table before any training.

    Prints its columns, what is wrong with it, and the command to go on with.
    """
    import pandas as pd

    from .report import first_look

    given = {k: v for k, v in dict(label=label, domain=domain, user=user, item=item).items() if v is not None}
    about = first_look(file, progress=not json_ and sys.stderr.isatty(), **given)
    if json_:
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    form = f", {about['encoding']}, separator {about['separator']!r}" if "encoding" in about else ""
    typer.echo(f"{file}: {about['rows']:,} rows, {len(about['columns'])} columns{form}")
    columns = pd.DataFrame(about["columns"]).T[["kind", "distinct", "gaps"]]
    columns.insert(0, "role", pd.Series({name: role for role, name in about["roles"].items()}))
    columns["tells the label alone (AUC)"] = pd.Series({c: f"{v:.3f}" for c, v in about.get("alone", {}).items()})
    columns["distinct"] = columns.distinct.map(lambda n: "many" if n is None else f"{n:,}")
    typer.echo(columns.fillna("").to_string())
    if about.get("domains"):  # of very many none is counted
        typer.echo(f"\n{pd.DataFrame(about['domains']).T.rename(columns=lambda c: c.replace('_', ' ')).to_string()}")
    for warning in about["warnings"]:
        typer.echo(f"! {warning}")
    typer.echo(f"\nnext: {about['next']}")


COMMANDS = (look,)
