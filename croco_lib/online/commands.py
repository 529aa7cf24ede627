"""The commands of this wing: `croco online`, `croco export` and `croco score`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CrocoError, DataError, write_whole


def online(
    folder: Annotated[Path, typer.Option(help="The folder for the tables online.*.csv.")] = Path("build/online"),
    requests: Annotated[int, typer.Option(min=10_000, help="Requests that both arms serve.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first training, the traffic and the users' arms.")] = 0,
) -> None:
    """Simulate the online test (an hour).

    Each arm is trained three times: A/B and A/A tests, calibration, day by day, faults.
    """
    import pandas as pd
    import torch

    from .simulation import simulate

    torch.set_num_threads(1)
    simulate(folder, count=requests, seed=seed, say=typer.echo)
    typer.echo(pd.read_csv(folder / "online.csv").query("domain == 'all'").to_string(index=False))


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `croco fit --folder` left.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the exported model.")] = Path("model"),
) -> None:
    """Write a run's best weights as a model for serving.

    It needs no training code: ONNX, torch.export, vocabularies and schema.
    """
    from .serving import EXPORTED, export_run

    export_run(run, out)
    typer.echo(f"exported to {out}: {', '.join(name for name in EXPORTED if (out / name).exists())}")


def score(
    model: Annotated[Path, typer.Argument(help="A folder that `croco export` wrote.")],
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the model's fields as columns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The same rows with their scores.")] = Path("scores.csv"),
) -> None:
    """Score a table with an exported model.

    Values that the model does not know get the unknown id, and are counted.
    """
    import polars as pl

    from ..data.tables import read_table
    from .serving import score as probabilities

    if file.resolve() in (out.resolve(), *out.resolve().parents):
        raise CrocoError(f"{out} is, or lies in, what is to be scored, which would be lost. Give another -o.")
    if (ending := out.suffix.lower()) not in (".csv", ".parquet"):
        raise CrocoError(f"{out}: scores are written as CSV or Parquet; give -o a name that ends in .csv or .parquet.")
    table, parquet = read_table(file, text=True), ending == ".parquet"
    nested = [name for name, kind in table.schema.items() if kind.is_nested() or kind in (pl.Duration, pl.Binary)]
    if nested and not parquet:
        raise DataError(
            f"{file}: {', '.join(nested)} hold lists, structs, durations or bytes, which a CSV cannot; "
            "write the scores as Parquet: -o scores.parquet."
        )
    name = "score"
    while name in table.columns:  # the user's own column stays as it is
        name = f"model_{name}"
    p, counts = probabilities(model, table, file)
    out.parent.mkdir(parents=True, exist_ok=True)
    scored = table.with_columns(pl.Series(name, p))
    write_whole(out, scored.write_parquet if parquet else scored.write_csv)
    typer.echo(f"{len(p)} rows scored, in {out}, column {name}")
    for row in counts[(counts.unknown > 0) | (counts.missing > 0)].itertuples():
        typer.echo(f"# {row.field}: {row.unknown} unknown, {row.missing} missing")
        if row.unknown + row.missing == len(p):
            why = (
                "has no such column" if row.field not in table.columns else "holds no value of it that the model knows"
            )
            typer.echo(f"! {row.field}: {file} {why}; every score is made without it.", err=True)


COMMANDS = (online, export, score)
