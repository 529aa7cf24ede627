"""What is refused: data/README.md lists each refusal with its reason, and each is provoked here."""

import ast
import gzip
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from small import ROLES, clicks

from croco_lib import CrocoError, from_frame
from croco_lib.data.tables import read_table
from croco_lib.errors import ROOT
from croco_lib.look.report import first_look

HEAD, LINE = "click,place,who,what\n", "1,0,3,4\n"
MODULES = ("data/tables.py", "data/frame.py", "data/ids.py", "look/report.py", "schema.py")


def file(text, name="a.csv"):
    """A refusal of a file that holds these bytes or this text."""

    def provoke(folder, read=lambda path: from_frame(path, **ROLES)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        read(folder / name)

    return provoke


def frame(frame=None, **options):
    return lambda folder: from_frame(clicks() if frame is None else frame, **{**ROLES, **options})


def column(name, values, **options):
    return frame(clicks(**{name: values}), **options)


def looked(text):
    return lambda folder: file(text)(folder, first_look)


def broken(**changes):
    """Data put together by hand, its train split changed."""

    def provoke(folder):
        data = from_frame(clicks(), **ROLES)
        replace(data, train=replace(data.train, **{k: getattr(data.train, k) + v for k, v in changes.items()}))

    return provoke


def one_value_more(folder):
    """Data put together by hand, whose fields name more values than they have ids."""
    data = from_frame(clicks(), **ROLES)
    replace(data, fields=tuple(replace(field, values=np.arange(field.size)) for field in data.fields))


ROUNDED = [int(v) * 1000 for v in np.random.default_rng(0).integers(10**14, 10**15, 400)]
PROVOKED = {
    "is not UTF-8, and other lines are": file(HEAD.encode() + "1,é,3,4\n".encode() + b"1,\xe9,3,4\n"),
    "not text (it begins with": file(b"ARROW1\0\0" + bytes(99)),
    "the file is empty": file(""),
    "packed with gzip, and damaged or cut short": file(gzip.compress((HEAD + LINE).encode())[:-9], "a.csv.gz"),
    "a separator is one character": lambda folder: file(HEAD)(folder, lambda p: read_table(p, separator="##")),
    "Remove what stands above the line that names the columns": file("Export of May\n" + HEAD + LINE),
    "there is no such file": lambda folder: from_frame(folder / "b.csv", **ROLES),
    "this is a folder, and holds no Parquet files": lambda folder: from_frame(folder, **ROLES),
    "not text in": file((HEAD + LINE).encode("utf-16") + b"1"),
    "Mend or remove this line": file(HEAD + LINE + "1,2\n"),
    "two columns have the same name": file("click,place,who,who\n" + LINE),
    "not a readable Parquet file": file(HEAD, "a.parquet"),
    "Unknown column": frame(user="whom"),
    "missing values (null or NaN)": column("who", [None, 1] * 200),
    "not a plain table": column("who", pd.Series(["a", 1] * 200, dtype=object)),
    "give a pandas or polars table": frame([1, 2]),
    "must be a whole number of 0 or more": frame(min_count=True),
    "is the label, so it cannot also be a field": frame(fields=["click"]),
    "must be three different columns": frame(item="who"),
    "the table has no rows": file(HEAD),
    "not the numbers 0 and 1": column("click", ["yes", "no"] * 200),
    "must be 0 or 1": column("click", [0, 2] * 200),
    "fields takes a list of columns": frame(fields="hour"),
    "domains takes a list of values or a mapping": frame(domains="all"),
    "do not fit column": frame(domains=["shop"]),
    "unknown domain": frame(domains=[0]),
    "give both or neither": frame(split="time"),
    "is a time of day, without its date": column(
        "at", pd.to_datetime(np.arange(400), unit="m").time, split="time", time="at"
    ),
    "not numbers or dates, so its order is not known": column("at", ["now"] * 400, split="time", time="at"),
    "or more as floating-point numbers": column("who", np.array([2**24, 2.0] * 200, np.float32)),
    "holds fractions": column("who", np.linspace(0, 1, 400)),
    "values that cannot be ids": frame(pl.from_pandas(clicks()).with_columns(who=pl.struct("who", "what"))),
    "writes a long number that it has rounded": file(HEAD + "1,a,2,1.08775E+14\n"),
    "as a spreadsheet rounds them": column("who", ROUNDED),
    "not text in the encoding that it begins with": looked((HEAD + LINE).encode("utf-16") + b"1"),
    "says at which line": looked(HEAD + LINE + "1,2\n"),
    "domains need different names": frame(domains={0: "a", 1: "a"}),
    "split is empty": frame(clicks(3, place=[0, 0, 0])),
    "has no rows in the": column("place", [0] * 399 + [1]),
    "has only one class of label": column("click", [0] * 400),
    "labels that are not 0 or 1": broken(label=1),
    "has users of another number than its rows": broken(domains=("shop",)),
    "needs whole numbers, [N, F] features": broken(domain=0.5),
    "ids beyond the size of their field": broken(features=1000),
    "has values or bags that do not fit": one_value_more,
}


def listed() -> list[str]:
    """The words of each refusal in the first column of the list in data/README.md."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8").partition("What is refused, and why")[2]
    return re.findall(r"^\| …([^|]+)… \|", text, re.MULTILINE)


@pytest.mark.parametrize("words", PROVOKED)
def test_each_listed_refusal_is_given(words, tmp_path):
    with pytest.raises(CrocoError, match=re.escape(words)):
        PROVOKED[words](tmp_path)


def test_the_list_is_that_of_the_code():
    """Every refusal provoked here is listed, and every `raise` of these modules has a line in the list."""
    assert listed() == list(PROVOKED)
    for module in MODULES:
        for node in ast.walk(ast.parse((ROOT / "croco_lib" / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                said = "".join(
                    c.value for c in ast.walk(node.exc) if isinstance(c, ast.Constant) and isinstance(c.value, str)
                )
                plain = said.strip(": ")
                assert not plain or any(words in said for words in PROVOKED), (module, node.lineno, said)
