"""What a run keeps of its data, schema.json and vocabulary.parquet: enough to code raw values as training did."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ..data.ids import as_ids
from ..data.vocabulary import Vocabulary
from ..errors import CrocoError, write_text, write_whole
from ..schema import Field, Layout, MultiDomainData


@dataclass(frozen=True)
class Schema(Layout):
    """What a model must know of its data, without the rows: enough for `build`, and to code raw values."""

    name: str
    fields: tuple[Field, ...]
    domains: tuple[str, ...]


def save_vocabularies(vocabularies: Mapping[str, np.ndarray], path: Path, where: str) -> None:
    """The values of each field as one Parquet file of field, id, value as text. `where` begins an error's words."""
    write_whole(
        path,
        pl.concat(
            pl.DataFrame(
                {
                    "field": [name] * len(values),
                    "id": np.arange(1, len(values) + 1),
                    "value": as_ids(pl.Series("value", values), where).cast(pl.String),
                },
                schema_overrides={"field": pl.String},  # also where no value was met often enough
            )
            for name, values in vocabularies.items()
        ).write_parquet,
    )


def load_vocabularies(path: Path, fields: Iterable[str]) -> dict[str, Vocabulary]:
    """The vocabularies of these fields, as text, from the file that `save_vocabularies` left."""
    table = pl.read_parquet(path, glob=False)
    return {name: Vocabulary(table.filter(pl.col("field") == name)["value"]) for name in fields}


def save_schema(data: MultiDomainData | Schema, folder: str | Path) -> None:
    """schema.json and vocabulary.parquet (field, id, value as text) of the data, into the folder."""
    folder = Path(folder)
    about = dict(
        name=data.name,
        domains=list(data.domains),
        many=[f.name for f in data.fields if f.bag is not None],
        fields=[dict(name=f.name, size=f.size, role=f.role) for f in data.fields],
    )
    values = {f.name: f.values for f in data.fields if f.values is not None}
    if nameless := [f.name for f in data.fields if f.name not in values]:
        raise CrocoError(
            f"{data.name}: the values behind the ids of {', '.join(nameless)} are not known, so no raw row could be "
            "scored. Make the data by `from_frame`, or give its fields their `values`."
        )
    write_text(folder / "schema.json", json.dumps(about, indent=1))
    save_vocabularies(values, folder / "vocabulary.parquet", data.name)


def load_schema(folder: str | Path) -> Schema:
    """The schema that `save_schema` left in the folder. Raises CrocoError where there is none."""
    folder = Path(folder)
    if not (folder / "schema.json").is_file() or not (folder / "vocabulary.parquet").is_file():
        raise CrocoError(
            f"{folder} holds no schema.json and vocabulary.parquet. `croco fit … --folder {folder}` leaves "
            "them there; after `fit` in Python, croco_lib.fitting.saved_schema.save_schema(data, folder) does."
        )
    about = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    if about["many"]:
        raise CrocoError(
            f"{folder}: the fields {', '.join(about['many'])} hold several values a row, which an "
            "exported model cannot take; prepare the data with --multi last and train on that."
        )
    vocabularies = load_vocabularies(folder / "vocabulary.parquet", [f["name"] for f in about["fields"]])
    fields = tuple(Field(**f, values=vocabularies[f["name"]].values.to_numpy()) for f in about["fields"])
    return Schema(about["name"], fields, tuple(about["domains"]))
