"""Any bytes whatever: words or a result, never a traceback. CROCO_FUZZ_SEEDS=9000 for the long run."""

import os
import warnings

import numpy as np

import croco_lib
from croco_lib import CrocoError
from croco_lib.data.tables import read_table
from croco_lib.look.report import first_look

SEEDS = int(os.environ.get("CROCO_FUZZ_SEEDS", 60))
COLUMNS = dict(label="click", domain="place", user="who", item="what", fields=["q"])
WORDS = r"""\n \r\n \r , ; \t | " "" \x00 \xff\xfe \xef\xbb\xbf \xe9 007 1E+14 1.08775E+14 nan NULL - 1e999
9999999999999999999999999999999999999999 true \x20 0.1234567 \xc3\xa9 click =1+1 \x1f\x8b PAR1 place,place \n\n\n"""
PIECES = [word.encode().decode("unicode_escape").encode("latin-1") for word in WORDS.split()] + [b"x" * 300]


def table(rng: np.random.Generator) -> bytes:
    """A sound table of some dress."""
    rows, cut = int(rng.integers(3, 200)), rng.choice([",", ";", "\t", "|"])
    lines = [cut.join(["click", "place", "who", "what", "q"])]
    for _ in range(rows):
        click, place, who = rng.integers(0, 2), rng.choice(["a", "b"]), f"{rng.integers(0, 9):03d}"
        what, q = rng.integers(0, 9), rng.choice(['"two\nlines"', "x", "", '"a""b"'])
        lines.append(cut.join([str(click), place, who, str(what), q]))
    text = rng.choice(["\n", "\r\n"]).join(lines) + rng.choice(["", "\n"])
    return text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))


def spoiled(rng: np.random.Generator, data: bytes) -> bytes:
    """Some pieces put in, some bytes taken out or turned, perhaps cut short."""
    for _ in range(rng.integers(0, 6)):
        at = int(rng.integers(0, len(data) + 1))
        kind = rng.integers(0, 4)
        if kind == 0:
            data = data[:at] + PIECES[rng.integers(len(PIECES))] + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + int(rng.integers(1, 30)) :]
        elif kind == 2 and at < len(data):
            data = data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]
        else:
            data = data[:at] if rng.random() < 0.3 else data
    return data


def test_any_bytes_give_words_or_a_result(tmp_path):
    refused, read = 0, 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        path = tmp_path / rng.choice(
            ["a.csv", "a.tsv", "A.CSV", "a.csv.gz", "a.parquet"], p=[0.7, 0.1, 0.1, 0.05, 0.05]
        )
        path.write_bytes(spoiled(rng, table(rng)))
        for use in (
            lambda p: read_table(p, text=True),
            first_look,
            lambda p: croco_lib.from_frame(p, **COLUMNS, min_count=0, missing="unknown"),
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    use(path)
                read += 1
            except CrocoError as error:
                refused += 1
                assert str(error) and len(str(error)) < 2_000, seed
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert refused and read
