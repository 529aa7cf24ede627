"""Serving: a trained model as files that need no training code, scores for a table, and what a request costs. [ours]

An exported folder holds model.onnx (run here, by onnxruntime), model.pt2 (torch.export), schema.json and
vocabulary.parquet; `score` reads raw values and looks them up as training did.
"""

import json
import logging
import os
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import polars as pl

from ..data.ids import as_ids
from ..data.tables import read_table
from ..data.vocabulary import Vocabulary
from ..errors import CrocoError, DataError, write_text
from ..fitting.saved_schema import Schema, load_schema, save_schema
from ..schema import UNKNOWN, MultiDomainData

README = """A click model, exported by `croco export`. Score a table with `croco score THIS_FOLDER FILE`, or feed
model.onnx (or model.pt2, with torch) yourself: `features` int32 [N, F], ids by vocabulary.parquet in the order of
schema.json, 0 where a value is not in it; `domain` int64 [N], the domain field's id − 1. The output is the click
probability [N].
"""
# In the order in which they are put there: by the schema a folder is known as a model's, by model.onnx rows are scored.
EXPORTED = ("schema.json", "vocabulary.parquet", "README.md", "model.pt2", "model.onnx.data", "model.onnx")
BATCH = 1 << 16  # rows scored at once


def export(model, schema: MultiDomainData | Schema, folder: str | Path) -> Path:
    """Write the model (it is moved to the CPU) and its schema into the folder, as one that needs nothing else.

    Raises CrocoError where a file of another origin, a README for example, would be replaced.
    """
    import torch

    class Probability(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, features, domain):
            return self.model(features, domain).logits.sigmoid()

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    standing = [name for name in EXPORTED if (folder / name).exists()]
    if standing and "schema.json" not in standing:
        raise CrocoError(f"{folder} has a {standing[0]} of its own, which would be lost. Give another folder.")
    example = (torch.zeros(3, len(schema.fields), dtype=torch.int32), torch.zeros(3, dtype=torch.int64))
    rows = {0: torch.export.Dim("rows", min=1)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of how torch itself is written
        shapes = {"features": rows, "domain": rows}
        program = torch.export.export(Probability().eval().cpu(), example, strict=True, dynamic_shapes=shapes)
        named = ["features", "domain"]
        onnx = torch.onnx.export(program, (), input_names=named, output_names=["probability"], verbose=False)
    with TemporaryDirectory(dir=folder) as new:  # what may fail is done before anything that stands there is replaced
        save_schema(schema, new)
        torch.export.save(program, Path(new, "model.pt2"))
        large = sum(p.numel() for p in model.parameters()) > 1 << 28  # a file of ONNX holds 2 GB
        onnx.save(Path(new, "model.onnx"), external_data=large)  # type: ignore[union-attr]  # None is of another exporter
        write_text(Path(new, "README.md"), README)
        for old in EXPORTED[3:]:  # what is left of another run would score wrong beside this schema
            (folder / old).unlink(missing_ok=True)
        for path in sorted(Path(new).iterdir(), key=lambda path: EXPORTED.index(path.name)):
            os.replace(path, folder / path.name)
    return folder


def export_run(run: str | Path, folder: str | Path) -> Path:
    """Export the best weights of the run that `croco fit --folder RUN` left, into a folder that holds no run."""
    from ..checkpoint import load_weights
    from ..models import build

    if Path(folder).is_file():
        raise CrocoError(f"{folder} is a file; give the exported model a folder.")
    if (Path(folder) / "settings.json").is_file():
        raise CrocoError(f"{folder} holds a run, whose schema would be lost. Give the exported model another folder.")
    if not (Path(run) / "settings.json").is_file():
        raise CrocoError(f"{run} holds no run (no settings.json). `croco fit … --folder {run}` makes one.")
    settings, schema = json.loads((Path(run) / "settings.json").read_text(encoding="utf-8")), load_schema(run)
    if not isinstance(settings["options"], dict):  # a reader's own model is known by its layers alone
        raise CrocoError(f"{run} holds your own {settings['model']}: use serving.export(model, data, folder).")
    model = build(settings["model"], schema, **settings["options"])
    return export(load_weights(model, run), schema, folder)


def session(folder: str | Path):
    """onnxruntime's session of an exported model, on one thread."""
    import onnxruntime

    path = Path(folder) / "model.onnx"
    if not path.is_file():
        how = f"`croco export RUN -o {folder}` makes one."
        if (Path(folder) / "settings.json").is_file():
            how = f"It is a run: `croco export {folder} -o model`."
        raise CrocoError(f"{folder} holds no model.onnx. {how}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def encode(
    schema: Schema, table: pl.DataFrame, where: str | Path = "table"
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Raw values as features int32 [N, F] and domain int64 [N], and what was not known: field, unknown, missing.

    As in training, a value that is not in the vocabulary has id 0; so has a missing one, and a column that is not
    there. The domain must be there and known: without it no tower can be chosen. Raises DataError.
    """
    X: np.ndarray = np.zeros((len(table), len(schema.fields)), np.int32)
    counts = []
    for f, field in enumerate(schema.fields):
        vocabulary = Vocabulary(pl.Series(field.values, dtype=pl.String))
        if field.name in table.columns:
            raw = as_ids(table[field.name], where).cast(pl.String)
            X[:, f] = vocabulary.match(raw)
            missing = raw.null_count()
        else:
            missing = len(table)
        counts.append((field.name, int((X[:, f] == UNKNOWN).sum()) - missing, missing))
        if field.role == "domain" and (bad := X[:, f] == UNKNOWN).any():
            row = int(bad.argmax())
            held = f"{raw[row]!r}" if field.name in table.columns else "no such column"
            raise DataError(
                f"{where}: the domain, column {field.name!r}, is missing or not one of "
                f"{', '.join(vocabulary.values)} in {bad.sum()} rows, the first data row {row + 1} ({held}). "
                "Leave those rows out."
            )
    return (
        X,
        X[:, schema.column("domain")].astype(np.int64) - 1,
        pd.DataFrame(counts, columns=["field", "unknown", "missing"]),
    )


def score(
    folder: str | Path, table: pl.DataFrame | str | Path, where: str | Path = "table"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Click probabilities float32 [N] of a table's rows by an exported model, and what was unknown (see `encode`)."""
    run = session(folder)
    if not isinstance(table, pl.DataFrame):
        where = Path(table)
        table = read_table(where, text=True)
    X, domain, counts = encode(load_schema(folder), table, where)
    parts = [
        run.run(None, {"features": X[i : i + BATCH], "domain": domain[i : i + BATCH]})[0]
        for i in range(0, len(X), BATCH)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), counts


def latency(folder: str | Path, candidates: int = 200, requests: int = 500) -> tuple[float, float]:
    """p50 and p99 in milliseconds of one request: one user, one domain, so many candidates, on one core."""
    schema, run, rng = load_schema(folder), session(folder), np.random.default_rng(0)
    times = []
    for i in range(requests + 20):
        X: np.ndarray = np.column_stack(
            [
                rng.integers(min(1, f.size - 1), f.size, candidates)
                if f.role not in ("user", "domain")
                else np.full(candidates, rng.integers(min(1, f.size - 1), f.size))
                for f in schema.fields
            ]
        ).astype(np.int32)
        domain = X[:, schema.column("domain")].astype(np.int64) - 1
        start = time.perf_counter()
        run.run(None, {"features": X, "domain": domain})
        if i >= 20:  # the first ones warm up
            times.append(time.perf_counter() - start)
    return tuple(1000 * np.quantile(times, (0.5, 0.99)))
