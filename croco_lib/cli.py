"""The command line `croco`: the long work behind the lessons."""

import json
import math
import platform
import sys
import time
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from .errors import ROOT, CrocoError, DataError, known, parse_value, write_whole
from .options import TrainOptions
from .study import commands

app = typer.Typer(help="Crocodile, step by step: multi-domain click models from raw data to tables.",
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _pairs(pairs: list[str], flag: str, form: str) -> list[tuple[str, str]]:
    for pair in pairs:
        if "=" not in pair:
            raise CrocoError(f"{flag} takes {form}, not {pair!r}.")
    return [tuple(pair.split("=", 1)) for pair in pairs]


def _options(pairs: list[str]) -> dict:
    return {key: parse_value(value) for key, value in _pairs(pairs, "--option", "KEY=VALUE")}


def _load(data: str, label, domain, user, item, fields, option):
    """A data set by name, or a CSV or Parquet file with its columns named."""
    from .data import DATASETS, from_frame, load
    from .data.tables import is_table

    options = _options(option)
    if not is_table(data) and not Path(data).is_dir():
        return load(data, **options)
    columns = dict(label=label, domain=domain, user=user, item=item)
    if absent := [f"--{name}" for name, column in columns.items() if column is None]:
        raise DataError(f"{data} is a file, so {', '.join(absent)} must name its columns "
                        f"(a data set by name is one of: {', '.join(DATASETS)}).")
    for name in options:
        known("option of a file", name, ("domains", "split", "time", "min_count", "missing", "seed", "separator"))
    listed = [f.strip() for f in fields.split(",") if f.strip()] if fields else []
    return from_frame(data, **columns, fields=listed, name=Path(data).stem, **options)


data = typer.Typer(help="Which data is here, what is missing; fetch it, prepare it.", invoke_without_command=True)
app.add_typer(data, name="data")


@data.callback()
def data_here(
    context: typer.Context,
    get: Annotated[str | None, typer.Option(help="The same as `croco data get`.")] = None,
) -> None:
    """Say which data is here, what is missing, where to get it and its checksum."""
    from .data import DATASETS, PREPARE, RAW, find, how_to_get
    from .data.prepare import home

    if get:
        data_get(get)
    if get or context.invoked_subcommand:
        return
    for name in DATASETS:
        if name not in RAW:
            typer.echo(f"{name}: made on the spot, nothing to fetch")
        elif folder := find(name):
            typer.echo(f"{name}: here, in {folder}")
            for path in sorted((*folder.glob("*.csv"), *folder.glob("*.dat"))):
                typer.echo(f"    {path.name}  {path.stat().st_size / 1e6:.1f} MB")
        else:
            typer.echo(f"{name}: missing. {how_to_get(name)}")
        if name in PREPARE and (home(name) / "manifest.json").is_file():
            typer.echo(f"    prepared, in {home(name)}")


@data.command("get")
def data_get(name: str) -> None:
    """Fetch a data set from its publisher."""
    from .data import download

    typer.echo(f"{name}: unpacked in {download(name)}")


@data.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="kuairand-pure, kuairand-1k, kuairand-27k or ali-ccp.")],
    min_count: Annotated[int, typer.Option(min=0, help="Values seen less often in train get the unknown id.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    max_bad_share: Annotated[float, typer.Option(min=0, help="Stop when more of a file's lines are bad.")] = 0.001,
    split: Annotated[str | None, typer.Option(help="KuaiRand: random (the default) or time.")] = None,
    multi: Annotated[str | None, typer.Option(help="Ali-CCP's multi-valued fields: last (default) or mean.")] = None,
) -> None:
    """Raw files of any size to memory-mapped columns; killed and started again, it goes on with the next part."""
    from .data import load, prepare

    options = {k: v for k, v in dict(split=split, multi=multi).items() if v is not None}
    options |= dict(min_count=min_count, seed=seed)
    start = time.perf_counter()
    folder = prepare(name, max_bad_share=max_bad_share, **options)
    made = load(name, **options)
    for key, value in made.notes.items():
        typer.echo(f"# {key}: {value}")
    typer.echo(f"{name}: prepared in {folder}, {time.perf_counter() - start:.0f} s, fingerprint {made.fingerprint}")


@app.command()
def look(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, or a folder of Parquet files.")],
    label: Annotated[str | None, typer.Option(help="The column of 0 or 1, where the guess is wrong.")] = None,
    domain: Annotated[str | None, typer.Option(help="… of domains.")] = None,
    user: Annotated[str | None, typer.Option(help="… of users.")] = None,
    item: Annotated[str | None, typer.Option(help="… of items.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Look at a table before any training: its columns, what is wrong with it, and the command to go on with."""
    import pandas as pd

    from .data.first_look import first_look

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
    if "domains" in about:
        typer.echo(f"\n{pd.DataFrame(about['domains']).T.rename(columns=lambda c: c.replace('_', ' ')).to_string()}")
    for warning in about["warnings"]:
        typer.echo(f"! {warning}")
    typer.echo(f"\nnext: {about['next']}")


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="A model's name, e.g. crocodile or ple; a wrong one lists all.")],
    data: Annotated[str, typer.Option(help="A data set's name (see `croco data`), or a CSV or Parquet file")] = "world",
    alpha: Annotated[float | None, typer.Option(help="Weight of CovLoss (crocodile).")] = None,
    sets: Annotated[int | None, typer.Option(help="Embedding sets and experts M (crocodile).")] = None,
    seed: Annotated[int, typer.Option(
        min=0, help="Fixes the weights and the rows' order, never the split.")] = TrainOptions.seed,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = TrainOptions.epochs,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = TrainOptions.batch_size,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = TrainOptions.lr,
    weight_decay: Annotated[float, typer.Option(help="Adam's L2 regularisation.")] = TrainOptions.weight_decay,
    objective: Annotated[str, typer.Option(
        help="sample (plain mean) or domain (per-domain means summed).")] = TrainOptions.objective,
    patience: Annotated[int, typer.Option(help="Validations without gain until it stops.")] = TrainOptions.patience,
    eval_every: Annotated[int | None, typer.Option(help="Steps between validations (default: an epoch).")] = None,
    lazy: Annotated[bool | None, typer.Option(help="Lazy Adam for the tables (default: for many ids).")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep checkpoints here; an interrupted run goes on.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; the same number gives the same figures.")] = 2,
    label: Annotated[str | None, typer.Option(help="For a file: the column of 0 or 1.")] = None,
    domain: Annotated[str | None, typer.Option(help="For a file: the column of domains.")] = None,
    user: Annotated[str | None, typer.Option(help="For a file: the column of users.")] = None,
    item: Annotated[str | None, typer.Option(help="For a file: the column of items.")] = None,
    fields: Annotated[str | None, typer.Option(help="For a file: further columns, comma-separated.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="KEY=VALUE for the model, e.g. dim=8.")] = [],  # noqa: B006
    option: Annotated[list[str], typer.Option(help="KEY=VALUE for the data, e.g. conflict=0, split=time.")] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Train one model and print its test metrics, a line a domain."""
    import torch
    from accelerate import PartialState

    from .evaluation import evaluate
    from .models import build, options_of
    from .serving import save_schema
    from .training import train

    if threads < 1:
        raise CrocoError(f"--threads must be 1 or more, not {threads}.")
    torch.set_num_threads(threads)
    chosen = {k: v for k, v in (("alpha", alpha), ("sets", sets)) if v is not None}
    chosen |= {k: parse_value(v) for k, v in _pairs(set_, "--set", "KEY=VALUE")}
    options_of(model)  # an unknown model is named before the data is read
    loaded = _load(data, label, domain, user, item, fields, option)
    options = TrainOptions(epochs, batch_size, lr, weight_decay, objective, patience, eval_every, lazy, seed)
    run = train(build(model, loaded, seed=seed, **chosen), loaded, options, folder,
                progress=not json_ and sys.stderr.isatty())
    table = evaluate(run.model, loaded.test)
    is_main = PartialState().is_main_process
    PartialState().destroy_process_group()
    if not is_main:  # of several processes one writes and prints
        return
    if folder:
        save_schema(loaded, folder)
    if json_:
        typer.echo(json.dumps(as_json(run, table, loaded)))
    else:
        _print_run(run, table, loaded)


def _print_run(run, table, data) -> None:
    """How the data was made and the run ended, then the metrics, a line a domain, and why one is missing."""
    for key, value in data.notes.items():
        typer.echo(f"# {key}: {value}")
    typer.echo(f"# {run.settings['model']}, seed {run.settings['seed']}: {run.stopped}, best at step {run.best_step}, "
               f"{run.seconds:.1f} s, {run.rows_per_second:,.0f} training rows a second")
    wide = table.pivot(index="domain", columns="metric", values="value").loc[["all", *data.domains]]
    wide.insert(0, "rows", table.drop_duplicates("domain").set_index("domain").rows)
    typer.echo(wide.to_string(float_format="{:.5f}".format, na_rep="–"))
    for row in table[table.note != ""].itertuples():
        typer.echo(f"# {row.domain} {row.metric}: {row.note}")


@app.command()
def benchmark(
    study: Annotated[str | None, typer.Option(help="A committed study (data/results/studies.toml), or all.")] = None,
    data: Annotated[str | None, typer.Option(help="NAME or NAME:key=value,…; several apart by a blank.")] = None,
    models: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[int, typer.Option(help="Runs of each, seeds 0, 1, …")] = 6,
    trials: Annotated[int, typer.Option(help="Settings searched for each model; 0: its defaults.")] = 0,
    grid: Annotated[list[str], typer.Option(help="KEY=V1;V2;… every combination, e.g. alpha=0;1.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="What to call the tables of an own study.")] = "own",
    folder: Annotated[Path, typer.Option(help="For runs and tables; it goes on there.")] = ROOT / "build/benchmark",
    workers: Annotated[int, typer.Option(help="Processes, one thread each.")] = 2,
) -> None:
    """Run models × data × seeds × options; killed at any moment and started again, it ends with the same tables."""
    import pandas as pd

    from .benchmark import against, parse_data, results, run_study, select, studies
    from .data import present
    from .models import MODELS

    if (study is None) == (data is None):
        raise CrocoError("benchmark takes either --study NAME or --data NAME.")
    if study is not None:
        known("study", study, ["all", *studies()])
        chosen = {n: s for n, s in studies().items() if study in ("all", n)}
    else:
        if seeds < 1 or workers < 1 or trials < 0:
            raise CrocoError("benchmark: --seeds and --workers must be 1 or more, --trials 0 or more.")
        if name in studies():
            raise CrocoError(f"{name!r} is a committed study; give the own study another --name.")
        listed = list(MODELS) if models == "all" else [known("model", m, MODELS) for m in models.split(",")]
        values = {k: [parse_value(v) for v in text.split(";")] for k, text in _pairs(grid, "--grid", "KEY=V1;V2")}
        chosen = {name: dict(data=data.split(), models=listed, seeds=seeds, trials=trials, grid=values)}
    for spec in dict.fromkeys(chain(*(s["data"] for s in chosen.values()))):
        present(parse_data(spec)[0])  # data that cannot be had ends it before the first run
    done = 0
    for n, s in chosen.items():
        run_study(n, s, folder, workers)
        frame = results(n, folder)
        frame["run"] = frame.model.where(frame.variant == "", frame.model + ", " + frame.variant)
        for d in s["data"]:
            for metric in ("auc", "gauc"):
                part = select(frame, d, metric)
                if part.value.isna().all():  # none, or not measured
                    continue
                best = part.groupby("run").value.mean().idxmax()
                typer.echo(f"\n{n}: test {metric} on {d}, each against the best")
                typer.echo(against(part, best, "run").to_string(index=False, float_format="{:.4f}".format, na_rep="–"))
        typer.echo(f"tables: {folder}/{n}.runs.csv, .values.csv, .costs.csv")
        runs = pd.read_csv(folder / f"{n}.runs.csv", keep_default_na=False)
        done += int((runs.status == "done").sum())
        for bad in runs[runs.status == "failed"].itertuples():
            typer.echo(f"failed: {bad.model} on {bad.data}, seed {bad.seed}: {bad.error}", err=True)
    if not done:
        raise CrocoError(f"benchmark: every run failed; the reasons stand above and in {folder}.")


@app.command()
def speed(
    size: Annotated[str, typer.Option(help="full (some minutes) or fast (a smaller version of each figure).")] = "full",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure what training, preparation and metrics cost here, beside the bare matrix products of the same step."""
    import pandas as pd
    import torch

    from .speed import measure, tables

    known("size", size, ("full", "fast"))
    torch.set_num_threads(threads)
    rows = []
    for row in measure(size):
        rows.append(row)
        typer.echo(f"{row[0]}: {row[1]} …", err=True)
    figures = pd.DataFrame(rows, columns=["table", "row", "column", "value"])
    if json_:
        typer.echo(json.dumps({"figures": figures.to_dict("records"), "size": size, "threads": threads, **made_with()}))
        return
    for name, table in tables(figures):
        typer.echo(f"\n{name}\n{table.to_string(float_format='{:,.3g}'.format, na_rep='')}")


@app.command()
def claims(
    run: Annotated[str | None, typer.Option(help="fast: recompute a small version of each claim first.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every check with its interval, rule and command.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Read the results here instead of data/results.")] = None,
    workers: Annotated[int, typer.Option(help="Processes for --run, one thread each.")] = 2,
    json_: Annotated[bool, typer.Option("--json", help="Every check as one JSON list.")] = False,
) -> None:
    """Print the scorecard: the paper's thirteen claims, what was measured, and whether it held."""
    from .benchmark import RESULTS, run_study, studies
    from .claims import CLAIMS, FAST_DATA, Results, fast_studies, judge, scorecard

    source, own = folder or RESULTS, ROOT / "build" / "claims-fast"
    if run is not None:
        known("size of --run", run, ["fast"])
        for name, study in fast_studies(studies()).items():
            run_study(name, study, own, workers)
    table = judge(source)
    if json_:
        typer.echo(table.to_json(orient="records", force_ascii=False))
        return
    card = scorecard(table)
    if run is not None:
        again = scorecard(judge(own)).verdict
        card["fast"] = again
        card["agree"] = (again == card.verdict).map({True: "yes", False: "NO"}).where(card.number != 13, "–")
    typer.echo(card.to_string(index=False, max_colwidth=70))
    if run is not None:
        typer.echo(f"\nfast: {FAST_DATA}, 3 seeds, default settings: smaller data and wider intervals than the "
                   "committed results, so a claim that holds narrowly there may not show here.")
    if full:
        for claim in CLAIMS:
            typer.echo(f"\n{claim.number}. {claim.text}\n   the paper: {claim.reported}\n   our rule: {claim.rule}")
            for c in table[(table.number == claim.number) & (table.what != "")].itertuples():
                typer.echo(f"   {'holds' if c.holds else 'no   '}  {c.data}: {c.what}: {c.value:+.4f} "
                           f"[{c.low:+.4f}, {c.high:+.4f}]")
            for name in claim.studies:
                typer.echo(f"   made by: {Results(source).made_by(name)}")
            if claim.simulated and (made := Results(source).online()) is not None:
                typer.echo(f"   made by: {made[1]['command']} ({made[1]['requests']:,} requests, {made[1]['date']}, "
                           f"{', '.join(f'{k}: {v}' for k, v in made[1]['versions'].items())})")
    else:
        typer.echo("\ncroco claims --full shows every check with its interval, its rule and the command that made it.")


@app.command()
def online(
    folder: Annotated[Path, typer.Option(help="For the tables online.*.csv.")] = ROOT / "build/online",
    requests: Annotated[int, typer.Option(min=10_000, help="Requests that both arms serve.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the models, the traffic and the users' arms.")] = 0,
) -> None:
    """Simulate the online test (minutes): A/B and A/A, calibration, day by day, faults with and without tolerance."""
    import pandas as pd
    import torch

    from .claims import BASELINES
    from .market import online as simulate

    torch.set_num_threads(1)
    simulate(folder, BASELINES, count=requests, seed=seed, say=typer.echo)
    typer.echo(pd.read_csv(folder / "online.csv").query("domain == 'all'").to_string(index=False))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A folder that `croco fit --folder` left.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the exported model.")] = Path("model"),
) -> None:
    """Write a run's best weights as a model that needs no training code: ONNX, torch.export, vocabularies, schema."""
    from .serving import export_run

    typer.echo(f"exported to {export_run(run, out)}: {', '.join(sorted(p.name for p in out.iterdir()))}")


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A folder that `croco export` wrote.")],
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the model's fields as columns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The same rows with their scores.")] = Path("scores.csv"),
) -> None:
    """Score a table; values that the model does not know get the unknown id, and are counted."""
    import polars as pl

    from .data.tables import read_table
    from .serving import score as probabilities

    table, parquet = read_table(file, text=True), out.name.lower().endswith(".parquet")
    nested = [name for name, kind in table.schema.items() if kind.is_nested()]
    if nested and not parquet:
        raise DataError(f"{file}: {', '.join(nested)} hold lists or structs, which a CSV cannot; "
                        "write the scores as Parquet: -o scores.parquet.")
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


@app.command()
def lessons(
    only: Annotated[str, typer.Option(help="Only the lessons whose file name starts so, e.g. 03.")] = "",
    html: Annotated[Path | None, typer.Option(help="Leave a site to read offline in this folder.")] = None,
    save: Annotated[bool, typer.Option(help="Save the run notebooks, tidied, in their place.")] = False,
    profile: Annotated[str, typer.Option(help="tiny (for tests), fast (two minutes a lesson) or full.")] = "fast",
    as_saved: Annotated[bool, typer.Option("--as-saved", help="For --html: as saved, none is run.")] = False,
) -> None:
    """Run the lessons in order, a line each; --html leaves a site to read offline."""
    from .lessons import paths, run_all, site

    if as_saved:
        if html is None:
            raise CrocoError("--as-saved runs nothing and only serves --html DIR; give it a folder.")
        typer.echo(f"To read: {site(html, {})}")
        return
    known("profile", profile, ("tiny", "fast", "full"))
    total = sum(p.name.startswith(only) for p in paths())
    if not total:
        raise CrocoError(f"No lesson's name starts with {only!r}. Known: {', '.join(p.stem for p in paths())}.")
    typer.echo(f"running {total} lessons …")
    done = 0
    for name, seconds in run_all(only, save, html, profile):
        if seconds is None:
            typer.echo(f"[{done + 1}/{total}] {name} …")
        else:
            done += 1
            typer.echo(f"[{done}/{total}] {name}  {seconds:.0f} s")
    if html:
        typer.echo(f"To read: {html}/index.html")


app.command()(commands.study)
app.command()(commands.verdicts)


def as_json(run, table, data) -> dict:
    """The evaluation as one object: metrics overall and per domain (null: not defined), rows, seconds, versions."""
    def values(domain: str) -> dict:
        part = table[table.domain == domain]
        metrics = {r.metric: None if math.isnan(r.value) else r.value for r in part.itertuples()}
        notes = {r.metric: r.note for r in part.itertuples() if r.note}
        return {**metrics, "rows": int(part.rows.iloc[0]), **({"notes": notes} if notes else {})}

    return {**values("all"), "domains": {d: values(d) for d in data.domains}, "seconds": round(run.seconds, 3),
            "rows_per_second": round(run.rows_per_second), "train_rows": len(data.train), "best_step": run.best_step,
            "stopped": run.stopped, "settings": run.settings, "data_notes": data.notes,
            **made_with()}


def made_with() -> dict:
    """The versions and the date that a figure is printed with."""
    return {"versions": {"python": platform.python_version(),
                         **{p: version(p) for p in ("croco-lib", "torch", "numpy", "polars")}},
            "date": time.strftime("%Y-%m-%d")}


def extra_of(module: str) -> str:
    """Which extra of pyproject.toml brings what is missing, in words."""
    extra = "serving" if module.startswith("onnx") else "lessons"
    return f"Its extra brings it: pip install 'croco-lib[{extra}]'"


def main() -> None:
    """Run the command line; a user's error is one clear line and exit status 1."""
    for stream in (sys.stdout, sys.stderr):  # a redirected output may be cp1252, which has no α
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except ModuleNotFoundError as error:
        typer.echo(f"croco: {error.name} is not installed. {extra_of(error.name)}", err=True)
        sys.exit(1)
    except CrocoError as error:
        typer.echo(f"croco: {error}", err=True)
        sys.exit(1)
