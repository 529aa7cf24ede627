"""The commands of this wing: `croco study`, `verdicts` and `speed`, and those of the first protocol."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..console import made_with
from ..errors import ROOT, CrocoError, known, write_whole
from .first import commands as first


def study(
    name: Annotated[str, typer.Argument(help="A study of studies.toml, or cost.")],
    data: Annotated[str | None, typer.Option(help="One of its data sets; without it, all of them in turn.")] = None,
    folder: Annotated[Path, typer.Option(help="For runs and tables; it goes on there.")] = ROOT / "data/verdicts",
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Run a study of the verdicts; killed at any moment and started again, it ends with the same tables."""
    from .cost import cost
    from .studies import file_of, find_data, run_study, studies

    known("study", name, [*studies(), "cost"])
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cost":
        write_whole(folder / "cost.csv", partial(cost().to_csv, index=False))
        typer.echo(f"table: {folder / 'cost.csv'}")
        return
    made = studies()[name]
    chosen = made["data"] if data is None else [known(f"data set of study {name}", data, made["data"])]
    for one in chosen:
        find_data(one)  # what is not here ends it before the first run
    for one in chosen:
        run_study(name, made, one, folder, workers)
        runs = _read(file_of(name, one, "runs", folder))
        for bad in runs[runs.status == "failed"].itertuples():
            typer.echo(f"failed: {bad.model} on {bad.data}, seed {bad.seed}: {bad.error}", err=True)
        if not (runs.status == "done").any():
            raise CrocoError(f"study {name} on {one}: every run failed.")
        typer.echo(f"tables: {file_of(name, one, '*', folder)}")


def verdicts(
    full: Annotated[bool, typer.Option("--full", help="Every check with its interval, rule and command.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the tables lie.")] = ROOT / "data/verdicts",
    json_: Annotated[bool, typer.Option("--json", help="Every check as one JSON list.")] = False,
) -> None:
    """Judge the paper's claims by the committed tables: reproduced, contradicted, too noisy to say, or not testable."""
    from .rules import CLAIMS
    from .tables import Tables
    from .verdicts import judge, runs_of, scorecard

    table = judge(folder)
    if json_:
        typer.echo(table.to_json(orient="records", force_ascii=False))
        return
    typer.echo(scorecard(table).to_string(index=False, max_colwidth=60))
    for claim in CLAIMS if full else ():
        typer.echo(f"\n{claim.number}. {claim.text}\n   the paper: {claim.reported}\n   our rule: {claim.rule}")
        for c in table[(table.number == claim.number) & (table.what != "")].itertuples():
            paper = f"; the paper {c.paper:+.4g}" if c.paper == c.paper else ""
            if c.value != c.value:
                typer.echo(f"   {c.data}: {c.what}: {c.outcome}")
                continue
            typer.echo(
                f"   {c.data}: {c.what}: {c.value:+.4f} [{c.low:+.4f}, {c.high:+.4f}], {c.seeds} seeds, "
                f"80 % power from {c.detectable:.4f}{paper}: {c.outcome}"
            )
        for data in table[table.number == claim.number].data:
            if claim.judge and runs_of(claim.study, data, folder):
                typer.echo(f"   made by {Tables(claim.study, data, folder).made_by()}")
                break


def _read(path: Path):
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False)


def speed(
    size: Annotated[str, typer.Option(help="full (some minutes) or fast (a smaller version of each figure).")] = "full",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    peer: Annotated[
        str | None, typer.Option(help="torch-rechub: only our speed beside its, on 1 and 2 threads.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure what training, preparation and metrics cost here, beside the bare matrix products of the same step."""
    import pandas as pd
    import torch

    from ..datasets.registry import load
    from .peer import measure_peer
    from .speed import measure, shaped, tables

    known("size", size, ("full", "fast"))
    torch.set_num_threads(threads)
    if peer is None:
        costs = measure(size)
    else:
        known("peer", peer, ("torch-rechub",))
        costs = measure_peer(load("movielens-1m")) if size == "full" else measure_peer(shaped(60_000), 3, 3)
    rows = []
    for row in costs:
        rows.append(row)
        typer.echo(f"{row[0]}: {row[1]} …", err=True)
    figures = pd.DataFrame(rows, columns=["table", "row", "column", "value"])
    if json_:
        typer.echo(json.dumps({"figures": figures.to_dict("records"), "size": size, "threads": threads, **made_with()}))
        return
    for name, table in tables(figures):
        typer.echo(f"\n{name}\n{table.to_string(float_format='{:,.3g}'.format, na_rep='')}")


COMMANDS = (study, verdicts, speed, *first.COMMANDS)
