"""The command line `croco`: the long work behind the lessons."""

import json
import math
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from .schema import CrocoError, DataError, known

app = typer.Typer(help="Crocodile, step by step: multi-domain click models from raw data to tables.",
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _value(text: str):
    """A command-line value: a number, true/false, a list, or text as it stands."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _options(pairs: list[str]) -> dict:
    for pair in pairs:
        if "=" not in pair:
            raise CrocoError(f"--option takes KEY=VALUE, not {pair!r}.")
    return {key: _value(value) for key, value in (pair.split("=", 1) for pair in pairs)}


def _load(data: str, label, domain, user, item, fields, option):
    """A data set by name, or a CSV or Parquet file with its columns named."""
    from .data import DATASETS, from_frame, load

    options = _options(option)
    if Path(data).suffix not in (".csv", ".parquet"):
        return load(data, **options)
    columns = dict(label=label, domain=domain, user=user, item=item)
    if absent := [f"--{name}" for name, column in columns.items() if column is None]:
        raise DataError(f"{data} is a file, so {', '.join(absent)} must name its columns "
                        f"(a data set by name is one of: {', '.join(DATASETS)}).")
    for name in options:
        known("option of a file", name, ("domains", "split", "time", "min_count", "missing", "seed"))
    listed = [f.strip() for f in fields.split(",") if f.strip()] if fields else []
    return from_frame(data, **columns, fields=listed, name=Path(data).stem, **options)


@app.command()
def data(get: Annotated[str | None, typer.Option(help="Fetch this data set from its publisher.")] = None) -> None:
    """Say which data is here, what is missing, where to get it and its checksum."""
    from .data import ARCHIVES, DATASETS, download, find, how_to_get

    if get:
        known("data set to fetch", get, ARCHIVES)
        typer.echo(f"{get}: unpacked in {download(get)}")
        return
    for name in DATASETS:
        if name not in ARCHIVES:
            typer.echo(f"{name}: made on the spot, nothing to fetch")
        elif folder := find(name):
            typer.echo(f"{name}: here, in {folder}")
            for path in sorted(folder.glob("*.csv")):
                typer.echo(f"    {path.name}  {path.stat().st_size / 1e6:.1f} MB")
        else:
            typer.echo(f"{name}: missing. {how_to_get(name)}")


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="shared-bottom, mmoe, ple, me-ple, sdem or crocodile")],
    data: Annotated[str, typer.Option(help="A data set's name (see `croco data`), or a CSV or Parquet file")] = "world",
    alpha: Annotated[float | None, typer.Option(help="Weight of CovLoss (crocodile).")] = None,
    sets: Annotated[int | None, typer.Option(help="Embedding sets and experts M (crocodile).")] = None,
    seed: Annotated[int, typer.Option(help="Fixes the weights and the order of the rows, never the split.")] = 0,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = 4096,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(help="Adam's L2 regularisation.")] = 0.0,
    objective: Annotated[str, typer.Option(help="domain (per-domain means summed) or sample (plain mean).")] = "domain",
    patience: Annotated[int, typer.Option(help="Stop after so many validations without a better AUC.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Keep checkpoints here; an interrupted run goes on.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; the same number gives the same figures.")] = 2,
    label: Annotated[str | None, typer.Option(help="For a file: the column of 0 or 1.")] = None,
    domain: Annotated[str | None, typer.Option(help="For a file: the column of domains.")] = None,
    user: Annotated[str | None, typer.Option(help="For a file: the column of users.")] = None,
    item: Annotated[str | None, typer.Option(help="For a file: the column of items.")] = None,
    fields: Annotated[str | None, typer.Option(help="For a file: further columns, comma-separated.")] = None,
    option: Annotated[list[str], typer.Option(help="KEY=VALUE for the data, e.g. conflict=0, split=time.")] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Train one model and print its test metrics, a line a domain."""
    import torch

    from .models import build, options_of
    from .training import evaluate
    from .training import fit as train

    if threads < 1:
        raise CrocoError(f"--threads must be 1 or more, not {threads}.")
    torch.set_num_threads(threads)
    chosen = {k: v for k, v in (("alpha", alpha), ("sets", sets)) if v is not None}
    options_of(model)  # an unknown model is named before the data is read
    loaded = _load(data, label, domain, user, item, fields, option)
    run = train(build(model, loaded, seed=seed, **chosen), loaded, epochs=epochs, batch_size=batch_size, lr=lr,
                weight_decay=weight_decay, objective=objective, patience=patience, seed=seed, folder=folder,
                progress=not json_ and sys.stderr.isatty())
    table = evaluate(run.model, loaded.test)
    if json_:
        typer.echo(json.dumps(as_json(run, table, loaded)))
        return
    for key, value in loaded.notes.items():
        typer.echo(f"# {key}: {value}")
    typer.echo(f"# {model}, seed {seed}: {run.stopped}, best at step {run.best_step}, {run.seconds:.1f} s, "
               f"{run.rows_per_second:,.0f} training rows a second")
    wide = table.pivot(index="domain", columns="metric", values="value").loc[["all", *loaded.domains]]
    wide.insert(0, "rows", table.drop_duplicates("domain").set_index("domain").rows)
    typer.echo(wide.to_string(float_format="{:.5f}".format, na_rep="not defined"))
    for row in table[table.note != ""].itertuples():
        typer.echo(f"# {row.domain} {row.metric}: {row.note}")


@app.command()
def lessons(
    only: Annotated[str, typer.Option(help="Only the lessons whose file name starts so, e.g. 03.")] = "",
    html: Annotated[Path | None, typer.Option(help="Leave readable HTML in this folder.")] = None,
    save: Annotated[bool, typer.Option(help="Save the run notebooks, tidied, in their place.")] = False,
    profile: Annotated[str, typer.Option(help="fast (two minutes a lesson) or full (the default sizes).")] = "fast",
) -> None:
    """Run the lessons in order, a line each."""
    from .lessons import paths, run_all

    known("profile", profile, ("fast", "full"))
    total = sum(p.name.startswith(only) for p in paths())
    if not total:
        raise CrocoError(f"No lesson's name starts with {only!r}. Known: {', '.join(p.stem for p in paths())}.")
    typer.echo(f"running {total} lessons …")
    for i, (name, seconds) in enumerate(run_all(only, save, html, profile), 1):
        typer.echo(f"[{i}/{total}] {name}  {seconds:.0f} s")
    if html:
        typer.echo(f"To read: {html}/00_start_here.html")


def as_json(run, table: pd.DataFrame, data) -> dict:
    """The evaluation as one object: metrics overall and per domain (null: not defined), rows, seconds, versions."""
    def values(domain: str) -> dict:
        part = table[table.domain == domain]
        metrics = {r.metric: None if math.isnan(r.value) else r.value for r in part.itertuples()}
        notes = {r.metric: r.note for r in part.itertuples() if r.note}
        return {**metrics, "rows": int(part.rows.iloc[0]), **({"notes": notes} if notes else {})}

    return {**values("all"), "domains": {d: values(d) for d in data.domains}, "seconds": round(run.seconds, 3),
            "rows_per_second": round(run.rows_per_second), "train_rows": len(data.train), "best_step": run.best_step,
            "stopped": run.stopped, "settings": run.settings, "data_notes": data.notes,
            "versions": {"python": platform.python_version(),
                         **{p: version(p) for p in ("croco-lib", "torch", "numpy", "polars")}},
            "date": time.strftime("%Y-%m-%d")}


def main() -> None:
    """Run the command line; a user's error is one clear line and exit status 1."""
    try:
        app()
    except CrocoError as error:
        typer.echo(f"croco: {error}", err=True)
        sys.exit(1)
