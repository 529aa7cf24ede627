"""Tables as people have them: ids stay what was written, in every dress of a file, from training to the scores."""

import csv
import gzip
import os
import shutil
from decimal import Decimal
from unittest.mock import patch

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import ROLES, clicks

import croco_lib
from croco_lib.data import tables, vocabulary
from croco_lib.data.ids import as_ids, usual_numbers
from croco_lib.data.tables import read_table
from croco_lib.data.vocabulary import Counts, Vocabulary
from croco_lib.errors import DataError, write_text, write_whole
from croco_lib.look.report import first_look
from croco_lib.online import serving
from croco_lib.study.raw import write_kuairand


def table(items=str) -> pd.DataFrame:
    """A table of clicks whose places and items are text."""
    frame = clicks(sizes=(20, 12, 1))
    return frame.assign(place=frame.place.map({0: "a", 1: "b"}), what=frame.what.map(items))


def load(source, **options):
    return croco_lib.from_frame(source, **ROLES, min_count=0, **options)


def known_items(data) -> set[str]:
    return set(map(str, data.fields[data.column("item")].values))


@pytest.mark.parametrize(
    "items",
    [
        lambda v: f"{v:04d}",
        lambda v: ["7", "007"][v % 2] + str(v // 2),
        lambda v: str(2**63 + int(v)),
        lambda v: f"97831614841{v:02d}" if v % 3 else f"X{v}",
        lambda v: f"2.{v}0",
        lambda v: ["True", "False", "x"][v % 3],
        lambda v: f"2022-04-{v + 1:02d}",
    ],
    ids=["leading zeros", "padded and not", "beyond 2^63", "ISBNs among codes", "versions", "booleans", "dates"],
)
def test_ids_stay_what_was_written(items, tmp_path):
    frame = table(items=items)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    from_csv, from_parquet = load(tmp_path / "a.csv"), load(tmp_path / "a.parquet")
    assert known_items(from_csv) == known_items(from_parquet) == set(frame.what)
    (tmp_path / "model").mkdir()
    serving.save_schema(from_parquet, tmp_path / "model")
    schema = serving.load_schema(tmp_path / "model")
    at = schema.column("item")
    for kind in ("csv", "parquet"):
        X, _, counts = serving.encode(schema, read_table(tmp_path / f"a.{kind}", text=True))
        assert not counts[["unknown", "missing"]].to_numpy().any()
        assert [str(from_parquet.fields[at].values[i - 1]) for i in X[:, at]] == list(frame.what)


@pytest.mark.parametrize(("rows", "seen"), [([0, 1, 2], 0), ([0], 0), ([3], 1)])
def test_a_file_of_other_rows_reads_the_same_ids(rows, seen, tmp_path):
    """Which rows a file happens to hold decides nothing: 7 alone looks like a number, and is still the id 7."""
    raw = pl.Series("what", [["7", "007", "x", "70"][r] for r in rows])
    ids = Vocabulary(pl.Series(["007", "7", "x"])).match(raw)
    assert ids.tolist() == [{"007": 1, "7": 2, "x": 3}.get(v, 0) for v in raw] and (ids == 0).sum() == seen


def test_what_tools_write_in_several_ways_still_matches():
    raw, saved = pl.Series("what", ["007", "3.0", "3", "True", None, "9"]), Vocabulary(pl.Series(["7", "3", "true"]))
    assert saved.match(raw).tolist() == [0, 2, 2, 3, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-50, 50), st.sampled_from([-(2**63), -(2**62), 2**62, 2**63 - 1])), unique=True),
    st.lists(st.one_of(st.none(), st.integers(-60, 60), st.integers(-(2**63), 2**63 - 1))),
    st.booleans(),
)
def test_an_id_is_the_place_in_the_vocabulary(kept, values, text):
    """Whatever the values' type, their order, and how far apart the numbers lie."""
    kept_as = pl.Series(kept, dtype=pl.Int64).cast(pl.String if text else pl.Int64)
    values_as = pl.Series([*values, *kept], dtype=pl.Int64).cast(kept_as.dtype)
    ids = Vocabulary(kept_as).code(values_as)
    assert ids.dtype == np.int32
    assert ids.tolist() == [kept.index(v) + 1 if v in kept else 0 for v in [*values, *kept]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=20), min_size=1), st.integers(0, 5))
def test_values_seen_often_enough_are_kept_in_order(pieces, min_count):
    met = [v for piece in pieces for v in piece if v is not None]
    for merge_from in (vocabulary.MERGE_FROM, -10):  # the pieces as they came, and merged each time
        counts = Counts()
        with patch.object(vocabulary, "MERGE_FROM", merge_from):
            for piece in pieces:
                counts.add(pl.Series(piece, dtype=pl.Int64))
        assert counts.keep(min_count).values.to_list() == sorted(v for v in set(met) if met.count(v) >= min_count)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n")).filter(
            lambda value: value not in tables.GAPS
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(",;\t|"),
)
def test_text_in_text_out(tmp_path_factory, values, separator):
    path = tmp_path_factory.mktemp("text") / "a.csv"
    frame = pl.DataFrame({"a": values, "b": ["1"] * len(values), "c": ["x"] * len(values)})
    frame.write_csv(path, separator=separator)
    assert read_table(path, text=True).equals(frame)


SEPARATOR = dict(tabs="\t", semicolons=";", bars="|")


def dressed(path, how):
    """The plain CSV at the path, packed, in another encoding, with other separators or ends of lines, quoted or in
    capitals; returns where it lies now, and the plain one is gone."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    path.unlink()
    quoting = csv.QUOTE_ALL if how == "quoted" else csv.QUOTE_MINIMAL
    text = rows.to_csv(index=False, sep=SEPARATOR.get(how, ","), quoting=quoting)
    text = text.replace("\n", "\r\n") if how == "crlf" else text.replace("\n", "\n\n", 5) if how == "blank" else text
    data = text.encode({"bom": "utf-8-sig", "utf-16": "utf-16"}.get(how, "utf-8"))
    there = (
        path.with_name(path.name + ".gz") if how == "gz" else path.with_suffix(".CSV" if how == "capitals" else ".csv")
    )
    there.write_bytes(gzip.compress(data) if how == "gz" else data)
    return there


@pytest.mark.parametrize("how", "gz tabs semicolons bars crlf blank quoted capitals bom utf-16".split())
def test_files_in_every_dress(how, tmp_path):
    table().to_csv(tmp_path / "a.csv", index=False)
    plain = load(tmp_path / "a.csv")
    assert load(dressed(tmp_path / "a.csv", how)).fingerprint == plain.fingerprint


def test_windows_1252(tmp_path):
    (tmp_path / "a.csv").write_bytes("a,b\nCafé,1\n".encode("cp1252"))
    with pytest.warns(UserWarning, match="Windows-1252"):
        assert read_table(tmp_path / "a.csv")["a"].to_list() == ["Café"]


def test_one_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("a,b\nCafé,1\nBar,2\n".encode() + b"Caf\xe9,3\n")
    with pytest.raises(DataError, match="line 4 is not UTF-8, and other lines are"):
        read_table(tmp_path / "a.csv")


def test_a_long_cell_above_a_broken_line(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "x" * 200_000 + ",1\n1,2,3\n")
    with pytest.raises(DataError, match="line 3: Expected 2 columns, got 3"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("text", [(), True])  # of a type that is guessed, or asked for as `from_frame` does
def test_a_letter_far_down_that_is_not_utf8(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"x,1\n" * 100_000 + "Café,2\n".encode("cp1252"))
    with pytest.warns(UserWarning, match="Windows-1252"):
        assert read_table(tmp_path / "a.csv", text=text)["a"][-1] == "Café"


def test_a_letter_that_the_first_piece_cuts_in_two_is_still_utf8(tmp_path):
    """The dialect is found from the first 2^18 bytes; here a letter stands across their end."""
    data = b"ab\n" + ("é" * 50 + "x\n").encode() * 3_000
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        data[: 1 << 18].decode()
    (tmp_path / "a.csv").write_bytes(data)
    assert set(read_table(tmp_path / "a.csv")["ab"]) == {"é" * 50 + "x"}


def test_quoted_line_breaks_may_stand_where_two_pieces_of_a_file_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 1 << 12)  # some nine rows
    frame = pd.DataFrame({"a": range(600), "b": ["how\nto " + "x" * 400 + "\n\nplease"] * 600})
    frame.to_csv(tmp_path / "a.csv", index=False)
    read = read_table(tmp_path / "a.csv")
    assert read["a"].to_list() == list(range(600)) and set(read["b"]) == set(frame.b)


def test_a_folder_of_parquet_files(tmp_path):
    frame = table()
    (tmp_path / "clicks").mkdir()
    for i, part in enumerate((frame[:100], frame[100:])):
        part.to_parquet(tmp_path / "clicks" / f"part-{i:05d}.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert load(tmp_path / "clicks").fingerprint == load(tmp_path / "a.csv").fingerprint


def test_a_line_number_is_the_files(tmp_path):
    (tmp_path / "a.csv").write_text('click,place,who,what,q\n\n1,a,1,2,"two\nlines"\n\n0,a,1,2,x\n2,a,1,2,x\n')
    with pytest.raises(DataError, match=r"data row 3 \(line 7 of the file\) has 2"):
        load(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("a,b\n\n1,2\n\n1,2,3\n")
    with pytest.raises(DataError, match="line 5: Expected 2 columns, got 3"):
        read_table(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Export\nclick,place\n1,a\n", "Remove what stands above the line that names the columns"),
        ("click,place,who,what\n1,a,2,1.08775E+14\n", r"'what' holds '1.08775E\+14' in data row 1 .* spreadsheet"),
        ("click,place,who,what\n1,a,2,0.1234\n", "'what' holds fractions"),
    ],
)
def test_what_cannot_be_read_is_said(text, words, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "a.csv")


def test_whole_numbers_beyond_64_bits_from_pandas():
    frame = table()
    frame["who"] = [10**20 + int(v) for v in frame.who]
    assert len(load(frame).fields[0].values) == 20


@pytest.mark.parametrize("how", ["gz", "quoted", "semicolons", "bom", "utf-16", "capitals"])
def test_what_fit_reads_prepare_reads(how, tmp_path, monkeypatch):
    """KuaiRand's raw files in every dress, prepared: the figures of the plain ones."""
    raw, dressed_ = tmp_path / "raw", tmp_path / "dressed"
    write_kuairand(raw, rows=3000, users=60, videos=40)
    monkeypatch.setenv("CROCO_DATA", str(raw))
    monkeypatch.setenv("CROCO_PREPARED", str(tmp_path / "prepared"))
    expected = croco_lib.load("kuairand-pure").fingerprint
    shutil.copytree(raw, dressed_)
    for path in sorted(dressed_.glob("*.csv")):
        dressed(path, how)
    monkeypatch.setenv("CROCO_DATA", str(dressed_))
    assert croco_lib.load("kuairand-pure").fingerprint == expected


def test_a_separator_can_be_given(tmp_path):
    (tmp_path / "a.csv").write_text("a#b,c\n007#1,5\n")
    read = read_table(tmp_path / "a.csv", text=True, separator="#")
    assert read.to_dict(as_series=False) == {"a": ["007"], "b,c": ["1,5"]}


@pytest.mark.parametrize("kind", [str, int])
def test_ids_that_a_spreadsheet_has_rounded_are_named(kind):
    rng = np.random.default_rng(0)
    ids = rng.integers(10**16, 10**17, 40)
    frame = table().assign(what=[kind(v) for v in ids[rng.integers(0, 40, 400)]])
    assert len(load(frame).fields[1].values) == 40
    with pytest.raises(DataError, match="'what'.*as a spreadsheet rounds them"):
        load(frame.assign(what=[kind(int(v) // 100 * 100) for v in frame.what]))
    if kind is int:
        rounded = frame.assign(what=(frame.what // 100 * 100).astype("uint64"))
        with pytest.raises(DataError, match="'what'.*as a spreadsheet rounds them"):
            load(rounded)


def test_a_few_long_ids_may_end_in_zeros_by_chance():
    few, enough = ([str((10**14 + v) * 1000) for v in range(n)] for n in (19, 20))
    assert as_ids(pl.Series("who", few), "x").to_list() == few
    with pytest.raises(DataError, match="all 20 ids of 16 digits and more in column 'who'"):
        as_ids(pl.Series("who", enough), "x")


def test_an_id_that_a_spreadsheet_has_spoiled_is_named_with_its_line(tmp_path):
    frame = table()
    frame.loc[5, "what"] = "1.08775E+14"
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(
        DataError, match=r"'what' holds '1.08775E\+14' in data row 6 \(line 7 of the file\).*\(1 of 400 rows\)"
    ):
        load(tmp_path / "a.csv")


def test_of_the_columns_that_are_asked_for_each_must_be_there(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,b,c\n1,2,3,x\n")
    with pytest.raises(DataError, match="two columns have the same name"):
        read_table(path, columns=["a"])
    path.write_text("a,b,c\n1,2,x\n", encoding="utf-16")
    assert read_table(path, integers=["a"], columns=["c", "a"]).rows() == [("x", 1)]
    with pytest.raises(DataError, match="Unknown column 'd'"):
        read_table(path, columns=["a", "d"])
    path.write_text("  \na,b,c\n1,2,x\n")  # the line of blanks is the header for one reader and not for the other
    with pytest.raises(DataError, match="a.csv"):
        read_table(path, columns=["a"])


def test_a_packed_file_that_is_cut_short_is_one_line(tmp_path):
    text = "click,place,who,what\n" + "".join(f"{i % 2},{i % 3},{i % 7},{i * 7919 % 1009}\n" for i in range(40_000))
    packed = gzip.compress(text.encode())
    for cut in (len(packed) // 100, len(packed) - 5):  # within the first piece that is read, and far behind it
        (tmp_path / "a.csv.gz").write_bytes(packed[:cut])
        for use in (read_table, first_look):
            with pytest.raises(DataError, match="a.csv.gz: packed with gzip, and damaged or cut short"):
                use(tmp_path / "a.csv.gz")
    (tmp_path / "a.csv.gz").write_bytes(packed[:60] + b"damaged" + packed[67:])
    with pytest.raises(DataError, match="packed with gzip"):
        read_table(tmp_path / "a.csv.gz")


def test_a_line_break_in_a_columns_name_does_not_hide_the_columns_after_it(tmp_path):
    (tmp_path / "a.csv").write_text('"the\nlabel",who,what\n1,007,008\n0,07,08\n')
    table = read_table(tmp_path / "a.csv", text=True)
    assert table.columns == ["the\nlabel", "who", "what"] and table["who"].to_list() == ["007", "07"]


def test_a_folder_of_parquet_files_names_the_row_and_no_line(tmp_path):
    (tmp_path / "a").mkdir()
    table().assign(click=[2, 0, 1, 1] * 100).to_parquet(tmp_path / "a" / "part-0.parquet")
    with pytest.raises(DataError, match="data row 1 has 2"):
        load(tmp_path / "a")


@pytest.mark.parametrize("written", ["1,08775E+14", "1.08775E+14"])
def test_a_rounded_id_is_refused_whatever_the_decimal_sign(written):
    with pytest.raises(DataError, match="a spreadsheet writes a long number"):
        as_ids(pl.Series("what", [written, "7"]), "a")


def test_digits_of_other_scripts_are_text():
    full_width = pl.Series("what", ["1２", "3"])
    assert usual_numbers(full_width).to_list() == ["1２", "3"]


def test_a_name_with_brackets_is_a_name(tmp_path):
    """Not a pattern that another file fits."""
    for name, value in (("clicks1.parquet", 1), ("clicks[1].parquet", 2)):
        pl.DataFrame({"a": [value]}).write_parquet(tmp_path / name)
    assert read_table(tmp_path / "clicks[1].parquet")["a"].to_list() == [2]


def test_exact_decimals_are_ids_where_they_are_whole():
    whole = pl.Series("price", [Decimal(3), None, Decimal(7)], pl.Decimal(20, 2))
    assert as_ids(whole, "x").to_list() == [3, None, 7]
    for wrong, words in ((Decimal("1.25"), "fractions"), (Decimal(10**30), "cannot be ids")):
        with pytest.raises(DataError, match=words):
            as_ids(pl.Series("price", [Decimal(3), wrong], pl.Decimal(38, 2)), "x")


@pytest.mark.parametrize("word", ["NULL", "null", r"\N", "NaN", "nan"])
def test_what_databases_write_for_nothing_is_a_gap(tmp_path, word):
    """And neither a user nor an item of that name, who would have all those rows."""
    (tmp_path / "a.csv").write_text(f"click,place,who,what\n1,a,{word},3\n0,a,7,{word}\n")
    assert read_table(tmp_path / "a.csv", text=["who", "what"]).null_count().row(0) == (0, 0, 1, 1)
    assert first_look(tmp_path / "a.csv")["columns"]["who"]["gaps"] == 1
    with pytest.raises(DataError, match="column 'who' has 1 missing values"):
        load(tmp_path / "a.csv")


def test_two_processes_may_write_one_file(tmp_path, monkeypatch):
    def slowly(path):
        path.write_text("mine")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: -1)
            write_text(tmp_path / "a.json", "the other's")
        assert path.read_text() == "mine"

    write_whole(tmp_path / "a.json", slowly)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "mine")]
