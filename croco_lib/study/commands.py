"""The commands of this wing: `croco study`, `benchmark`, `claims` and `speed`."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..console import made_with, split_pairs
from ..datasets import commands as datasets
from ..errors import ROOT, CrocoError, in_checkout, known, parse_value, write_whole


def study(
    name: Annotated[str, typer.Argument(help="A study of studies.toml, cost, or all.")],
    data: Annotated[str | None, typer.Option(help="One of its data sets; without it, all of them in turn.")] = None,
    folder: Annotated[Path, typer.Option(help="For tables and runs, to go on from.")] = ROOT / "data/verdicts",
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Run a study of the claims.

    Killed at any moment and started again, it ends with the same tables.
    """
    in_checkout(ROOT / "data/verdicts/studies.toml")  # before what takes seconds to import
    from .cost import measure_cost
    from .spec import need_data
    from .studies import read_studies, run_study

    made = read_studies()
    known("study", name, [*made, "cost", "all"])
    plan = [(n, s, one) for n, s in made.items() if name in (n, "all") for one in s["data"]]
    if data is not None:
        known(f"data set of study {name}", data, dict.fromkeys(one for *_, one in plan))
        plan = [run for run in plan if run[2] == data]
    for *_, one in plan:
        need_data(one)  # what is not here ends it before the first run
    folder.mkdir(parents=True, exist_ok=True)
    failed = False
    for n, s, one in plan:
        run_study(n, s, one, folder, workers)
        failed |= _say_what_failed(n, one, folder)
    if name == "cost" or (name == "all" and data is None):  # it is of no data set
        write_whole(folder / "cost.csv", partial(measure_cost().to_csv, index=False))
        typer.echo(f"table: {folder / 'cost.csv'}")
    if failed:  # `croco claims` will refuse what it has left
        raise typer.Exit(1)


def _say_what_failed(name: str, data: str, folder: Path) -> bool:
    """Where the tables are, and each failed run with its reason; whether any did. Raises CrocoError if all."""
    import pandas as pd

    from .studies import file_of

    runs = pd.read_csv(file_of(name, data, "runs", folder), keep_default_na=False)
    for bad in runs[runs.status == "failed"].itertuples():
        what = ", ".join(filter(None, (bad.model, bad.variant, f"seed {bad.seed}")))
        typer.echo(f"failed: {what}: {bad.error}", err=True)
    if not (runs.status == "done").any():
        raise CrocoError(f"{name} on {data}: every run failed; the reasons are above and in {folder}.")
    typer.echo(f"tables: {file_of(name, data, '*', folder)}")
    return bool((runs.status == "failed").any())


def benchmark(
    data: Annotated[str, typer.Option(help="A data set's name, NAME:key=value,key=value, or a CSV or Parquet file")],
    models: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each, seeds 0, 1, …")] = 6,
    search: Annotated[int, typer.Option(min=0, help="Settings tried for each model; 0: its defaults.")] = 0,
    grid: Annotated[list[str], typer.Option(help="KEY=V1;V2;… of all the models; every combination.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="What to call the tables.")] = "own",
    folder: Annotated[Path, typer.Option(help="For tables and runs, to go on from.")] = Path("runs/benchmark"),
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    label: datasets.LabelColumn = None,
    domain: datasets.DomainColumn = None,
    user: datasets.UserColumn = None,
    item: datasets.ItemColumn = None,
    fields: datasets.FurtherColumns = None,
    option: datasets.DataOptions = [],  # noqa: B006
) -> None:
    """Compare models, or one model's settings, on a data set.

    Runs, seeds and intervals are those of the claims.
    """
    from ..models import MODELS
    from .own import check_knobs, refuse_to_lose
    from .spec import need_data, spec_of
    from .studies import RESULTS, run_study
    from .tables import Tables

    if folder.resolve() == RESULTS:
        raise CrocoError(f"{folder} holds the committed studies; give your own tables another --folder.")
    if name in ("", ".", "..") or Path(name).name != name:
        raise CrocoError(f"--name {name!r} begins the names of files, so it has letters and no slash.")
    columns = dict(label=label, domain=domain, user=user, item=item, fields=fields)
    spec = spec_of(data, datasets.options_given(data, columns, option))
    need_data(spec)
    pairs = split_pairs(grid, "--grid", "KEY=V1;V2")
    for key, text in pairs:
        if "," in text and not text.startswith("["):
            raise CrocoError(f"--grid {key}={text}: values are separated by semicolons, as in {key}=0;1.")
    values = {key: [_fixed(parse_value(v)) for v in text.split(";")] for key, text in pairs}
    listed = list(MODELS) if models == "all" else [known("model", m, MODELS) for m in models.split(",")]
    check_knobs(listed, values)
    own = dict(models=listed, seeds=seeds, grid=values, **({"search": search} if search else {}))
    refuse_to_lose(name, spec, folder, own)
    run_study(name, own, spec, folder, workers)
    failed = _say_what_failed(name, spec, folder)
    for metric in ("auc", "gauc"):
        table = Tables(name, spec, folder, own=True).against_best(metric)
        if not table.empty:  # else not measured
            typer.echo(
                f"\ntest {metric} on {data}, each against the best; intervals over seeds and test users, "
                "at 95 % for all pairs together, since the same values choose the best"
            )
            typer.echo(table.to_string(index=False, float_format="{:.4f}".format))
    if failed:
        raise typer.Exit(1)


def _fixed(value: object) -> object:
    """A list as a tuple: a study would choose one of a list's values on validation."""
    return tuple(value) if isinstance(value, list) else value


def claims(
    full: Annotated[bool, typer.Option("--full", help="Every check with its interval, rule and command.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the tables lie.")] = ROOT / "data/verdicts",
    json_: Annotated[bool, typer.Option("--json", help="Every check as one JSON list.")] = False,
) -> None:
    """Judge the paper's claims by the committed tables.

    Each is reproduced, contradicted, too noisy to say, or not testable here.
    """
    in_checkout(ROOT / "data/verdicts/studies.toml")  # before what takes seconds to import
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from .claims import CLAIMS
    from .tables import Tables
    from .verdicts import judge, runs_of, scorecard

    table = judge(folder)
    if not any(folder.glob("*.csv")):
        raise CrocoError(f"There are no tables in {folder}. Make them: croco study all --folder {folder}")
    if json_:
        typer.echo(table.to_json(orient="records", force_ascii=False))
        return
    card = scorecard(table)
    shown = Table(*card.columns)
    for row in card.itertuples(index=False):
        shown.add_row(*map(str, row))
    Console().print(shown)
    for claim in CLAIMS if full else ():
        typer.echo(f"\n{claim.number}. {claim.text}\n   the paper: {claim.reported}\n   our rule: {claim.rule}")
        for c in table[(table.number == claim.number) & (table.what != "")].itertuples():
            paper = f"; the paper {c.paper:+.4g}" if pd.notna(c.paper) else ""
            if pd.isna(c.value):  # what this data does not have
                typer.echo(f"   {c.data}: {c.what}: {c.outcome}")
                continue
            power = f", 80 % power from {c.detectable:.4f}" if pd.notna(c.detectable) else ""
            typer.echo(
                f"   {c.data}: {c.what}: {c.value:+.4f} [{c.low:+.4f}, {c.high:+.4f}], "
                f"{c.seeds} {'repeats' if c.data == 'cost' else 'seeds'}{power}{paper}: {c.outcome}"
            )
        for data in table[table.number == claim.number].data.unique():
            if claim.judge and runs_of(claim, data, folder):
                typer.echo(f"   made by {Tables(claim.study, data, folder).made_by()}")
            elif claim.study == "cost" and (folder / "cost.csv").is_file():
                typer.echo("   made by croco study cost")


def speed(
    size: Annotated[str, typer.Option(help="full (some minutes) or fast (a smaller version of each figure).")] = "full",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    peer: Annotated[
        str | None, typer.Option(help="torch-rechub: only our speed beside its, on 1 and 2 threads.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Only the steps of two models on a CUDA device.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure what training, preparation and metrics cost here.

    A training step stands beside the bare matrix products of the same step.
    """
    import pandas as pd
    import torch

    from ..datasets.registry import load
    from .gpu import measure_gpu
    from .peer import measure_peer
    from .speed import measure, tables
    from .steps import shaped

    known("size", size, ("full", "fast"))
    if peer is not None and threads != 1:
        raise CrocoError("croco speed: --peer measures on 1 and on 2 threads; leave --threads out.")
    torch.set_num_threads(threads)
    if gpu:
        if peer is not None:
            raise CrocoError("croco speed: --gpu and --peer are two measurements; ask for one at a time.")
        costs = measure_gpu(9 if size == "full" else 3)
    elif peer is None:
        costs = measure(size)
    else:
        known("peer", peer, ("torch-rechub",))
        costs = measure_peer(load("movielens-1m")) if size == "full" else measure_peer(shaped(60_000), 3, 3)
    rows = []
    for row in costs:
        rows.append(row)
        typer.echo(f"{row[0]}: {row[1]} …", err=True)
    figures = pd.DataFrame(rows, columns=["table", "row", "column", "value"])
    on = {"gpu": torch.cuda.get_device_name()} if gpu else {}
    if json_:
        typer.echo(
            json.dumps({"figures": figures.to_dict("records"), "size": size, "threads": threads, **on, **made_with()})
        )
        return
    for name, table in tables(figures):
        typer.echo(f"\n{name}\n{table.to_string(float_format='{:,.3g}'.format, na_rep='')}")


COMMANDS = (study, benchmark, claims, speed)
