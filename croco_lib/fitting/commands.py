"""The command `croco fit`: read the data, train one model, and keep what serving needs beside it."""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import made_with, parse_pairs
from ..datasets import commands as datasets
from ..errors import CrocoError, known
from ..options import TrainOptions

if TYPE_CHECKING:  # read where they are needed, so that `croco --help` is quick
    from collections.abc import Callable

    import pandas as pd

    from ..schema import MultiDomainData
    from ..training import Run

FEW_STEPS = 10  # in an epoch, below which too large a batch is the likely reason where little is learnt [ours]


def fit(
    model: Annotated[str, typer.Argument(help="A model's name, e.g. crocodile or ple; a wrong one lists all.")],
    data: Annotated[str, typer.Option(help="A data set's name (see `croco data`), or a CSV or Parquet file")] = "world",
    seed: Annotated[
        int, typer.Option(min=0, help="Fixes the weights and the rows' order, never the split.")
    ] = TrainOptions.seed,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = TrainOptions.epochs,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = TrainOptions.batch_size,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = TrainOptions.lr,
    weight_decay: Annotated[float, typer.Option(help="Adam's L2 regularisation.")] = TrainOptions.weight_decay,
    objective: Annotated[
        str, typer.Option(help="sample (plain mean) or domain (per-domain means summed).")
    ] = TrainOptions.objective,
    patience: Annotated[int, typer.Option(help="Validations without gain until it stops.")] = TrainOptions.patience,
    eval_every: Annotated[int | None, typer.Option(help="Steps between validations (default: an epoch).")] = (
        TrainOptions.eval_every
    ),
    lazy: Annotated[bool | None, typer.Option(help="Lazy Adam for the tables (default: for many ids).")] = (
        TrainOptions.lazy
    ),
    shard: Annotated[bool, typer.Option("--shard", help="Spread the tables over the processes, by TorchRec.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Keep checkpoints here; an interrupted run goes on.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the same number gives the same figures.")] = 2,
    label: datasets.LabelColumn = None,
    domain: datasets.DomainColumn = None,
    user: datasets.UserColumn = None,
    item: datasets.ItemColumn = None,
    fields: datasets.FurtherColumns = None,
    set_: Annotated[list[str], typer.Option("--set", help="KEY=VALUE for the model, e.g. alpha=0.5.")] = [],  # noqa: B006
    option: datasets.DataOptions = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Train one model and print its test metrics, a line a domain."""
    import torch
    from accelerate import PartialState

    from ..datasets.registry import load
    from ..evaluation import evaluate
    from ..models import options_of
    from .saved_schema import save_schema

    torch.set_num_threads(threads)
    chosen, allowed = parse_pairs(set_, "--set"), options_of(model)
    for key in chosen:  # a wrong model or option is named before the data is read
        known(f"option of {model}", key, allowed)
    columns = dict(label=label, domain=domain, user=user, item=item, fields=fields)
    read = partial(load, data, **datasets.options_given(data, columns, option))
    options = TrainOptions(epochs, batch_size, lr, weight_decay, objective, patience, eval_every, lazy, seed)
    loaded, run = _train(shard, read, model, chosen, options, folder, not json_ and sys.stderr.isatty())
    table = evaluate(run.model, loaded.test)
    is_main = PartialState().is_main_process
    PartialState().destroy_process_group()
    if not is_main:  # of several processes one writes and prints
        return
    if folder and not (folder / "schema.json").is_file():  # else it stands there since the first step
        save_schema(loaded, folder)
    if json_:
        typer.echo(json.dumps(as_json(run, table, loaded)))
    else:
        _print_run(run, table, loaded)


def _train(
    shard: bool,
    read: "Callable[[], MultiDomainData]",
    model: str,
    chosen: dict,
    options: TrainOptions,
    folder: Path | None,
    progress: bool,
) -> "tuple[MultiDomainData, Run]":
    """The data that `read` gives, and the run on it, its tables whole or sharded."""
    if folder and (folder / "model.onnx").is_file():
        raise CrocoError(
            f"{folder} holds an exported model, which would no longer fit its schema. Give another --folder."
        )
    from accelerate import PartialState

    from .saved_schema import save_schema

    def keep_schema(loaded: "MultiDomainData", step: int) -> None:
        """Before the first step, so that a run that is killed can be exported, too."""
        if folder and step == 0 and PartialState().is_main_process:
            save_schema(loaded, folder)

    if shard:
        from ..sharded.run import train_sharded

        return train_sharded(read, model, chosen, options, folder, progress, keep_schema)
    from ..models import build
    from ..training import train

    loaded = read()
    made = build(model, loaded, seed=options.seed, **chosen)
    return loaded, train(made, loaded, options, folder, progress, lambda step, _: keep_schema(loaded, step))


def _print_run(run: "Run", table: "pd.DataFrame", data: "MultiDomainData") -> None:
    """How the data was made and the run ended, then the metrics, a line a domain, and why one is missing."""
    for line in datasets.lines_of(data.notes):
        typer.echo(f"# {line}")
    typer.echo(
        f"# {run.settings['model']}, seed {run.settings['seed']}: {run.stopped}, best at step {run.best_step}, "
        f"{run.seconds:.1f} s, {run.rows_per_second:,.0f} training rows a second"
    )
    if run.best_step == 0:
        typer.echo(
            "! best at step 0: these are the figures of the untrained model. "
            "Try more --patience, a smaller --batch-size, or another --lr."
        )
    if (steps := -(-len(data.train) // run.settings["batch_size"])) < FEW_STEPS:
        typer.echo(f"! only {steps} steps an epoch: from so few rows a smaller --batch-size learns more.")
    for name, share in data.notes.get("share of unknown ids", {}).get("train", {}).items():
        if share > 0.99:
            typer.echo(f"! {name}: hardly a value is seen often enough to have an id, so the field tells nothing.")
    wide = table.pivot(index="domain", columns="metric", values="value").loc[["all", *data.domains]]
    wide.insert(0, "rows", table.drop_duplicates("domain").set_index("domain").rows)
    typer.echo(wide.to_string(float_format="{:.5f}".format, na_rep="–"))
    for row in table[table.note != ""].itertuples():
        typer.echo(f"# {row.domain} {row.metric}: {row.note}")


def as_json(run: "Run", table: "pd.DataFrame", data: "MultiDomainData") -> dict:
    """The evaluation as one object: metrics overall and per domain (null: not defined), rows, seconds, versions."""

    def values(domain: str) -> dict:
        part = table[table.domain == domain]
        metrics = {r.metric: None if math.isnan(r.value) else r.value for r in part.itertuples()}
        notes = {r.metric: r.note for r in part.itertuples() if r.note}
        return {**metrics, "rows": int(part.rows.iloc[0]), **({"notes": notes} if notes else {})}

    return {
        **values("all"),
        "domains": {d: values(d) for d in data.domains},
        "seconds": round(run.seconds, 3),
        "rows_per_second": round(run.rows_per_second),
        "train_rows": len(data.train),
        "best_step": run.best_step,
        "stopped": run.stopped,
        "settings": run.settings,
        "data_notes": data.notes,
        **made_with(),
    }


COMMANDS = (fit,)
