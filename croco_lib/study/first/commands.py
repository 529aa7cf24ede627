"""The commands of the first protocol: `croco benchmark` and `croco claims`."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import split_pairs
from ...errors import ROOT, CrocoError, in_checkout, known, parse_value

if TYPE_CHECKING:
    import pandas as pd


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
    from ...datasets.registry import present
    from ...models import MODELS
    from ..jobs import parse_data
    from .benchmark import run_study, studies

    if study is not None and data is None:
        known("study", study, ["all", *studies()])
        chosen = {n: s for n, s in studies().items() if study in ("all", n)}
    elif data is not None and study is None:
        if seeds < 1 or workers < 1 or trials < 0:
            raise CrocoError("benchmark: --seeds and --workers must be 1 or more, --trials 0 or more.")
        if name in studies():
            raise CrocoError(f"{name!r} is a committed study; give the own study another --name.")
        listed = list(MODELS) if models == "all" else [known("model", m, MODELS) for m in models.split(",")]
        values = {k: [parse_value(v) for v in text.split(";")] for k, text in split_pairs(grid, "--grid", "KEY=V1;V2")}
        chosen = {name: dict(data=data.split(), models=listed, seeds=seeds, trials=trials, grid=values)}
    else:
        raise CrocoError("benchmark takes either --study NAME or --data NAME.")
    for spec in dict.fromkeys(chain(*(s["data"] for s in chosen.values()))):
        present(parse_data(spec)[0])  # data that cannot be had ends it before the first run
    done = 0
    for n, s in chosen.items():
        run_study(n, s, folder, workers)
        done += _print_study(n, s["data"], folder)
    if not done:
        raise CrocoError(f"benchmark: every run failed; the reasons stand above and in {folder}.")


def _print_study(name: str, data: list[str], folder: Path) -> int:
    """Print a study's comparisons and failures; returns how many of its runs are done."""
    import pandas as pd

    from ...lessons.comparison import against
    from .results import results, select

    frame = results(name, folder)
    frame["run"] = frame.model.where(frame.variant == "", frame.model + ", " + frame.variant)
    for one in data:
        for metric in ("auc", "gauc"):
            part = select(frame, one, metric)
            if part.value.isna().all():  # none, or not measured
                continue
            best = part.groupby("run").value.mean().idxmax()
            typer.echo(f"\n{name}: test {metric} on {one}, each against the best")
            typer.echo(against(part, best, "run").to_string(index=False, float_format="{:.4f}".format, na_rep="–"))
    typer.echo(f"tables: {folder}/{name}.runs.csv, .values.csv, .costs.csv")
    runs = pd.read_csv(folder / f"{name}.runs.csv", keep_default_na=False)
    for failed in runs[runs.status == "failed"].itertuples():
        typer.echo(f"failed: {failed.model} on {failed.data}, seed {failed.seed}: {failed.error}", err=True)
    return int((runs.status == "done").sum())


def claims(
    run: Annotated[str | None, typer.Option(help="fast: recompute a small version of each claim first.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every check with its interval, rule and command.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Read the results here instead of data/results.")] = None,
    workers: Annotated[int, typer.Option(help="Processes for --run, one thread each.")] = 2,
    json_: Annotated[bool, typer.Option("--json", help="Every check as one JSON list.")] = False,
) -> None:
    """Print the scorecard: the paper's thirteen claims, what was measured, and whether it held."""
    from .benchmark import run_study, studies
    from .results import RESULTS
    from .scorecard import FAST_DATA, fast_studies, judge, scorecard

    source, own = folder or in_checkout(RESULTS), ROOT / "build" / "claims-fast"
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
        typer.echo(
            f"\nfast: {FAST_DATA}, 3 seeds, default settings: smaller data and wider intervals than the "
            "committed results, so a claim that holds narrowly there may not show here."
        )
    if full:
        _print_checks(table, source)
    else:
        typer.echo("\ncroco claims --full shows every check with its interval, its rule and the command that made it.")


def _print_checks(table: "pd.DataFrame", source: Path) -> None:
    """Each claim with what the paper says, our rule, every check with its interval, and the commands behind them."""
    from .results import Results
    from .scorecard import CLAIMS

    R = Results(source)
    for claim in CLAIMS:
        typer.echo(f"\n{claim.number}. {claim.text}\n   the paper: {claim.reported}\n   our rule: {claim.rule}")
        for c in table[(table.number == claim.number) & (table.what != "")].itertuples():
            typer.echo(
                f"   {'holds' if c.holds else 'no   '}  {c.data}: {c.what}: {c.value:+.4f} "
                f"[{c.low:+.4f}, {c.high:+.4f}]"
            )
        for name in claim.studies:
            typer.echo(f"   made by: {R.made_by(name)}")
        if claim.simulated and (online := R.online()) is not None:
            made = online[1]
            typer.echo(
                f"   made by: {made['command']} ({made['requests']:,} requests, {made['date']}, "
                f"{', '.join(f'{k}: {v}' for k, v in made['versions'].items())})"
            )


COMMANDS = (benchmark, claims)
