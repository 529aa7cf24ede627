"""The commands of this wing: `croco data`, `croco data get`, `croco data prepare`."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from ..console import parse_pairs
from ..errors import CrocoError, DataError

# How a command that reads any data set is told which: its options, and the columns of a table of one's own.
LabelColumn = Annotated[str | None, typer.Option("--label", help="For a file: the column that holds 0 or 1.")]
DomainColumn = Annotated[str | None, typer.Option("--domain", help="For a file: the column of domains.")]
UserColumn = Annotated[str | None, typer.Option("--user", help="For a file: the column of users.")]
ItemColumn = Annotated[str | None, typer.Option("--item", help="For a file: the column of items.")]
FurtherColumns = Annotated[str | None, typer.Option("--fields", help="For a file: further columns, comma-separated.")]
DataOptions = Annotated[
    list[str],
    typer.Option(
        "--option",
        help="KEY=VALUE for the data, e.g. conflict=0 for the world; a file has split, time, min_count, missing, "
        "domains, seed, separator.",
    ),
]

app = typer.Typer(help="Which data is here, what is missing; fetch it, prepare it.", invoke_without_command=True)


@app.callback()
def here(context: typer.Context) -> None:
    """Say which data is here, what is missing, where to get it and its checksum."""
    from .registry import DATASETS, PREPARE, RAW, find, how_to_get
    from .store import finished

    if context.invoked_subcommand:
        return
    for name in DATASETS:
        if name not in RAW:
            typer.echo(f"{name}: made on the spot, nothing to fetch")
        elif folder := find(name):
            typer.echo(f"{name}: here, in {folder}")
            for path in sorted(p for kind in ("csv", "dat", "csv.gz", "dat.gz") for p in folder.glob(f"*.{kind}")):
                typer.echo(f"    {path.name}  {path.stat().st_size / 1e6:.1f} MB")
        else:
            typer.echo(f"{name}: missing. {how_to_get(name)}")
        for folder in finished(name) if name in PREPARE else ():
            typer.echo(f"    prepared, in {folder}")


def options_given(data: str, columns: dict[str, str | None], pairs: list[str]) -> dict:
    """What `load` takes beside the name or path `data`: `columns` are those of a file, `pairs` KEY=VALUE.

    Raises CrocoError for columns of a data set by name, DataError for a file without those that it needs.
    """
    from .registry import DATASETS, is_own

    named = {key: column for key, column in columns.items() if column is not None}
    options = parse_pairs(pairs, "--option")
    if not is_own(data):
        if named and data.partition(":")[0] in DATASETS:
            flags = ", ".join(f"--{key}" for key in named)
            raise CrocoError(f"{flags}: for a file only; the data set {data} has columns of its own.")
        return options
    if flagged := options.keys() & columns.keys():
        raise CrocoError(f"{min(flagged)} has a flag of its own: use --{min(flagged)}, once.")
    if absent := [f"--{key}" for key in columns if key not in named and key != "fields"]:
        raise DataError(
            f"{data} is a table of your own, so {', '.join(absent)} must name its columns "
            f"(a data set by name is one of: {', '.join(DATASETS)})."
        )
    fields = [field for field in named.pop("fields", "").split(",") if field]
    return {**named, "fields": fields, **options}


def lines_of(notes: Mapping) -> Iterator[str]:
    """The notes on how data was made, a line each: a mapping's pairs, or "none" where there are none or all are 0."""
    for key, value in notes.items():
        if not isinstance(value, Mapping):
            yield f"{key}: {', '.join(map(str, value)) or 'none' if isinstance(value, list) else value}"
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            yield from lines_of({f"{key}, {part}": inner for part, inner in value.items()})
        else:
            yield f"{key}: {', '.join(f'{k} {v}' for k, v in value.items()) if any(value.values()) else 'none'}"


@app.command("get")
def get(name: str) -> None:
    """Fetch a data set from its publisher."""
    from .registry import download

    typer.echo(f"{name}: unpacked in {download(name)}")


@app.command("prepare")
def prepare_columns(
    name: Annotated[str, typer.Argument(help="kuairand-pure, kuairand-1k, kuairand-27k, ali-ccp or world.")],
    min_count: Annotated[
        int | None, typer.Option(min=0, help="Values seen less often in train get the unknown id (default: 5).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the split (default: 0); of all draws of the world.")
    ] = None,
    max_bad_share: Annotated[
        float | None, typer.Option(min=0, help="Stop when more of a file's lines are bad (default: 0.001).")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read the raw files (default: 1).")] = None,
    split: Annotated[str | None, typer.Option(help="KuaiRand: random (the default) or time.")] = None,
    multi: Annotated[str | None, typer.Option(help="Ali-CCP's multi-valued fields: last (default) or mean.")] = None,
    option: Annotated[list[str], typer.Option(help="KEY=VALUE for the world, e.g. rows=30000000.")] = [],  # noqa: B006
) -> None:
    """Turn data of any size into memory-mapped columns.

    A reading of raw files that was killed goes on with its next part.
    """
    from .registry import load, prepare

    given = dict(split=split, multi=multi, min_count=min_count, seed=seed)
    options = {key: value for key, value in given.items() if value is not None}
    pairs = parse_pairs(option, "--option")
    reading = {k: v for k, v in dict(max_bad_share=max_bad_share, workers=workers).items() if v is not None}
    if twice := (options.keys() | {"max_bad_share", "workers"}) & pairs.keys():
        raise CrocoError(f"{min(twice)} is given twice, or has a flag of its own: use the flag, once.")
    options |= pairs
    start = time.perf_counter()
    folder = prepare(name, **reading, **options)
    made = load(name, **options)
    for line in lines_of(made.notes):
        typer.echo(f"# {line}")
    typer.echo(f"{name}: prepared in {folder}, {time.perf_counter() - start:.0f} s, fingerprint {made.fingerprint}")
