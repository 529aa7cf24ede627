"""From raw files to memory-mapped columns: equal to a plain reading of the raw lines, and whole or not there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter, defaultdict
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import killed_at_each_write

import croco_lib
from croco_lib import CrocoError, DataError, build, fit, load
from croco_lib.data.splits import split_random
from croco_lib.data.world import begin_world, make_world, oracle
from croco_lib.datasets import aliccp, aliccp_lines, columns, kuairand, kuairand_files, made, parts, store, twins
from croco_lib.datasets.registry import PREPARE, find, prepare
from croco_lib.errors import ROOT
from croco_lib.schema import SPLITS
from croco_lib.study.raw import write_aliccp, write_kuairand

REAL = ROOT.parent / "shared" / "data" / "ali-ccp-format"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("CROCO_DATA", str(tmp_path / "raw"))
    monkeypatch.setenv("CROCO_PREPARED", str(tmp_path / "prepared"))
    return tmp_path / "raw"


def small_aliccp(raw, **options):
    usual = dict(rows=6_000, profiles=100, items=50, values=0.2, shares=(0.4, 0.2, 0.4))
    return write_aliccp(raw / "ali-ccp", **usual | options)


def text_of(lines):
    return "".join(f"{line}\n" for line in lines).encode()


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# ------------------------------------------------------------------------------------------------ KuaiRand


def plain_kuairand(folder, **options):
    """KuaiRand's files read the short way, through memory and by `from_frame`, and the notes on what was dropped."""
    overrides = {"tag": pl.String, "video_duration": pl.Float64}
    logs = [pl.read_csv(path) for path in sorted(folder.glob("log_standard_*_pure.csv"))]
    users, videos = (
        pl.read_csv(folder / f"{kind}_pure.csv", schema_overrides=overrides, infer_schema_length=None)
        for kind in ("user_features", "video_features_basic")
    )
    log, seen, whole, told = pl.concat(logs), {}, set(), defaultdict(Counter)
    kept = np.zeros(len(log), bool)
    for i, row in enumerate(log.iter_rows(named=True)):
        key, places = tuple(row[c] for c in kuairand_files.ROW), ["all tabs"]
        places += ["the five tabs"] if row["tab"] in kuairand.TABS else []
        if (values := tuple(row.values())) in whole:
            told["exact duplicates dropped"].update(places)
        elif key in seen:
            told["further twins dropped"].update(places)
            told["further twins of another label"].update(places if row["is_click"] != seen[key] else [])
        else:
            kept[i] = len(places) == 2
            told["rows of other tabs dropped"].update(["all tabs"] if len(places) == 1 else [])
        whole.add(values)
        seen.setdefault(key, row["is_click"])
    log = log.filter(pl.Series(kept)).with_columns(hour=pl.col("hourmin") // 100)
    videos = videos.with_columns(
        pl.col("tag").str.split(",").list.first(),
        duration_class=(pl.col("video_duration").clip(lower_bound=1).log(2) * 2).floor(),
    )
    for table, key in ((users, "user_id"), (videos, "video_id")):
        log = log.join(table, on=key, how="left", maintain_order="left")
    data = croco_lib.from_frame(
        log,
        label="is_click",
        domain="tab",
        user="user_id",
        item="video_id",
        fields=kuairand.FEATURES,
        domains={tab: f"tab {tab}" for tab in kuairand.TABS},
        time="time_ms" if "split" in options else None,
        missing="unknown",
        name="kuairand-pure",
        **options,
    )
    others = told.pop("rows of other tabs dropped", Counter())["all tabs"]
    rest = {"rows read": len(kept), "rows of other tabs dropped": others}
    return data, rest | {what: dict(n) for what, n in told.items()}


def check_equal(mapped, plain):
    assert mapped.stored and isinstance(mapped.train.features, np.memmap)
    assert mapped.train.features.flags.c_contiguous
    for split in SPLITS:
        for column in ("features", "domain", "label", "user"):
            a, b = getattr(getattr(plain, split), column), getattr(getattr(mapped, split), column)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert mapped.fingerprint == plain.fingerprint
    assert (mapped.fields, mapped.domains) == (plain.fields, plain.domains)
    for a, b in zip(plain.fields, mapped.fields, strict=True):
        assert a.values.tolist() == b.values.tolist()
    for note in set(plain.notes) - {"rows that repeat another in the columns read, kept"}:
        assert mapped.notes[note] == plain.notes[note], note
    a, b = plain.describe().set_index("domain"), mapped.describe().set_index("domain")
    np.testing.assert_allclose(a.to_numpy(float), b.to_numpy(float), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, dict(split="time", min_count=2), dict(min_count=0, seed=3)])
def test_kuairand_equals_a_plain_reading_of_its_lines(raw, monkeypatch, options):
    write_kuairand(raw, rows=8_000, users=60, videos=300)
    monkeypatch.setattr(parts, "CHUNK", 50_000)
    monkeypatch.setattr(twins, "BUCKET", 3_000)
    mapped = croco_lib.load("kuairand-pure", **options)
    plain, told = plain_kuairand(raw, **options)
    check_equal(mapped, plain)
    assert mapped.domains == ("tab 0", "tab 1", "tab 2", "tab 4", "tab 6")
    assert {note: mapped.notes[note] for note in told} == told
    twice = [n for what, n in told.items() if "duplicates" in what or "twins" in what]
    assert len(twice) == 3 and all(n["all tabs"] > n["the five tabs"] > 0 for n in twice)
    assert not mapped.notes["bad lines"] and not mapped.notes["rows dropped"]


def test_real_kuairand_equals_a_plain_reading_of_its_lines(kuairand):
    plain, told = plain_kuairand(find("kuairand-pure"))
    check_equal(kuairand, plain)
    assert {note: kuairand.notes[note] for note in told} == told


def test_a_set_is_prepared_once_for_each_set_of_options_and_anew_for_other_raw_files(raw, monkeypatch):
    made, really = [], kuairand._write
    monkeypatch.setattr(kuairand, "_write", lambda *a, **k: made.append(a) or really(*a, **k))
    write_kuairand(raw, rows=4_000, users=40, videos=100)
    for split in ("random", "time", "random", "time"):
        first = croco_lib.load("kuairand-pure", split=split)
        assert first.notes["split"].startswith(("by time", "random")[split == "random"])
    assert len(made) == 2
    again = croco_lib.load("kuairand-pure", split="time")
    assert len(made) == 2
    log = next(raw.glob("log_standard_*"))
    about = log.stat()
    text = log.read_text()
    log.write_text(text.replace(",1\n", ",2\n", 1))  # another tab: as many bytes, only the time of change is another
    os.utime(log, ns=(about.st_atime_ns, about.st_mtime_ns + 10**9))  # file systems round

    other = croco_lib.load("kuairand-pure", split="time")
    assert len(made) == 3 and other.fingerprint != again.fingerprint == first.fingerprint
    assert again.train.features.sum() > 0  # what was mapped before is still there


def test_without_its_raw_files_a_prepared_set_is_still_loaded(raw, monkeypatch):
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    data = croco_lib.load("kuairand-pure")
    monkeypatch.setenv("CROCO_DATA", str(raw / "elsewhere"))
    assert croco_lib.load("kuairand-pure").fingerprint == data.fingerprint
    with pytest.raises(DataError, match="kuairand-pure is not here"):
        croco_lib.load("kuairand-pure", seed=1)
    assert croco_lib.datasets.registry.present("kuairand-pure") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(split="tme"), "Did you mean 'time'"),
        (dict(min_count=-1), "min_count must be"),
        (dict(seed=0.5), "seed must"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_is_written(raw, options, words):
    write_kuairand(raw, rows=1_000)
    for do in (croco_lib.load, prepare):
        with pytest.raises(croco_lib.CrocoError, match=words):
            do("kuairand-pure", **options)
    assert not (raw.parent / "prepared").exists()


def test_numpys_numbers_are_options_too(raw):
    """Not only until the manifest is written, after all the work."""
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    for name, options in (("kuairand-pure", {"min_count": 2}), ("world", {"rows": 3_000, "users": 60, "items": 50})):
        given = {key: np.int64(value) for key, value in options.items()}
        made = prepare(name, **given)
        assert made == prepare(name, **options) and croco_lib.load(name, **options).stored is not None


def test_a_process_that_is_killed_while_it_reads_is_told_in_words(raw, monkeypatch):
    def killed(*_, **__):
        raise BrokenProcessPool("a process was terminated abruptly")

    write_kuairand(raw, rows=1_000)
    monkeypatch.setattr(kuairand, "read_raw", killed)
    with pytest.raises(CrocoError, match="could not be prepared.*Fewer --workers take less memory"):
        prepare("kuairand-pure", workers=2)


TWO = """
import sys, time
from pathlib import Path
from croco_lib import load
from croco_lib.datasets import kuairand
here, mine, made, really = Path(sys.argv[1]), sys.argv[2], [], kuairand._write
def when_both_are_under_way(*given, **options):
    while len(list(here.glob("started.*"))) < 2:
        time.sleep(0.05)
    made.append(1)
    return really(*given, **options)
kuairand._write = when_both_are_under_way
(here / f"started.{mine}").touch()
print(load("kuairand-pure").fingerprint, len(made))
"""


def test_two_processes_that_load_first_at_one_time_prepare_it_once(raw, tmp_path):
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path), n], env=env, stdout=subprocess.PIPE, text=True)
        for n in "ab"
    ]
    try:
        told = [process.communicate(timeout=120)[0].split() for process in both]
    finally:
        for process in both:  # one waits for the other, which may have died
            process.kill()
    assert sorted(n for _, n in told) == ["0", "1"]
    assert {f for f, _ in told} == {croco_lib.load("kuairand-pure").fingerprint}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_000, 150_000])  # bytes of a file: not enough for a part; enough, but not for rows
def test_a_full_disk_or_a_folder_that_cannot_be_written_is_one_line(raw, tmp_path, limit):
    resource = pytest.importorskip("resource")
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    command = [sys.executable, "-m", "croco_lib", "data", "prepare", "kuairand-pure"]

    def run(most=None, **places):
        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        env = os.environ | {"PYTHONPATH": str(ROOT), **places}
        before = None if most is None else small_files  # in the child alone
        return subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=before)

    full = run(limit)
    assert full.returncode == 1 and full.stderr.count("\n") == 1 and "Is the disk full" in full.stderr, full.stderr
    assert not store.finished("kuairand-pure")
    assert len(list(store.home("kuairand-pure").glob("parts/*.parquet"))) == (limit > 100_000)
    (tmp_path / "file").touch()
    refused = run(CROCO_PREPARED=str(tmp_path / "file"))
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    assert "CROCO_PREPARED may name another" in refused.stderr
    whole = run()
    assert whole.returncode == 0 and len(store.finished("kuairand-pure")) == 1, whole.stderr


def test_load_lets_no_bad_line_pass_and_prepare_a_few_that_it_counts(raw):
    """A bad line is damage to a published file: nobody asked `load` to overlook it; `prepare` is told how many may."""
    write_kuairand(raw, rows=4_000, users=40, videos=100, bad={1_000: "nonsense", 2_000: ""})
    with pytest.raises(DataError, match=r"1 of 4000 lines are bad.*--max-bad-share.* line 1002: .*'nonsense'"):
        croco_lib.load("kuairand-pure")
    assert not store.finished("kuairand-pure")
    prepare("kuairand-pure")
    notes = croco_lib.load("kuairand-pure").notes
    assert sum(notes["bad lines"].values()) == 1 and notes["rows dropped"] == {"blank lines": 1}
    assert notes["rows read"] == 3_999


def test_a_set_prepared_by_older_rules_is_made_anew(raw, monkeypatch):
    write_kuairand(raw, rows=4_000, users=40, videos=100)
    with monkeypatch.context() as before:
        before.setattr(kuairand, "ROW_VERSION", 1)
        folder = prepare("kuairand-pure")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["version"]  # as older ones have none
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = {p.name: p.stat().st_mtime_ns for p in (folder.parent / "parts").iterdir()}
    options = dict(split="random", min_count=5, seed=0)
    with pytest.raises(store.NotPrepared, match="other rules"):
        store.prepared("kuairand-pure", options, [], kuairand.ROW_VERSION)
    assert croco_lib.load("kuairand-pure").stored["version"] == kuairand.ROW_VERSION == 2
    assert all(p.stat().st_mtime_ns > made[p.name] for p in (folder.parent / "parts").iterdir())


# ------------------------------------------------------------------------------------------------ Ali-CCP


def by_hand(lines):
    """Raw lines read the slow way: head columns, and every field's ids and weights."""
    for line in lines:
        *head, features = line.split(",")
        fields = defaultdict(list)
        for text in features.split("\x01"):
            field, rest = text.split("\x02")
            key, value = rest.split("\x03")
            fields[field].append((int(key), float(value)))
        yield head, fields


def check_read(lines, columns, single, many):
    table, why = aliccp_lines.read_lines(text_of(lines), columns, single, many, 0)
    assert why.null_count() == len(lines) == len(table)
    for row, (head, fields) in zip(table.iter_rows(named=True), by_hand(lines), strict=True):
        assert row["index"] == np.uint64(int(head[-2], 16) & ~1).astype(np.int64)
        for f in single:
            assert row[f] == (fields[f][-1][0] if f in fields else None)
        for f in many:
            assert (row[f] or []) == [key for key, _ in fields.get(f, [])]
            np.testing.assert_allclose(row[f"{f}.weight"] or [], [w for _, w in fields.get(f, [])], rtol=1e-6)


def test_real_common_lines_are_read_whole():
    if not REAL.is_dir():
        pytest.skip("Ali-CCP's real raw lines are not here")
    lines = (REAL / "common_features_train.first2.csv").read_text().splitlines()
    check_read(lines, [], aliccp.USER, aliccp.USER_MANY)
    assert [len(fields["150_14"]) > 50 for _, fields in by_hand(lines)] == [True, True]


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_skeleton_lines_are_read(split):
    if not REAL.is_dir():
        pytest.skip("Ali-CCP's real raw lines are not here")
    lines = (REAL / f"sample_skeleton_{split}.head5.feature_list_cut.csv").read_text().splitlines()
    heads = ["sample_id", "click", "conversion"]
    _, why = aliccp_lines.read_lines(text_of(lines), heads, aliccp.ITEM, aliccp.ITEM_MANY, 0)
    assert why.str.contains("cut short").all()  # these real lines are, and that must be seen
    cut = [line.split(",") for line in lines]  # so mend their count of features, and give all a domain
    mended = [",".join([*c[:4], str(c[5].count("\x01") + 2), f"{c[5]}\x01301\x029351665\x031.0"]) for c in cut]
    check_read(mended, heads, aliccp.ITEM, aliccp.ITEM_MANY)


features = st.lists(
    st.tuples(st.sampled_from([*aliccp.ITEM, *aliccp.ITEM_MANY]), st.integers(0, 10**7), st.floats(0, 9, width=32)),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(features, min_size=1, max_size=6), st.integers(0, 2**64 - 1))
def test_any_list_of_features_is_read(rows, key):
    lines = []
    for listed in rows:
        listed = [*listed, ("301", 9351665, 1.0)]
        text = "\x01".join(f"{f}\x02{i}\x03{w}" for f, i, w in listed)
        lines.append(f"7,1,0,{key:016x},{len(listed)},{text}")
    check_read(lines, ["sample_id", "click", "conversion"], aliccp.ITEM, aliccp.ITEM_MANY)


@pytest.mark.parametrize("multi", ["last", "mean"])
def test_prepared_aliccp_equals_the_raw_lines(raw, monkeypatch, multi):
    folder = small_aliccp(raw)
    monkeypatch.setattr(parts, "CHUNK", 40_000)
    prepare("ali-ccp", min_count=0, multi=multi)
    data = croco_lib.load("ali-ccp", min_count=0, multi=multi)
    names = [f.name for f in data.fields]
    bags = {f.name: f.bag for f in data.fields if f.bag is not None}
    assert set(bags) == (set(aliccp.USER_MANY + aliccp.ITEM_MANY) if multi == "mean" else set())

    def coded(split):
        """Every row's fields as raw values: a number or None, or a bag's ids and weights (None: unknown in train)."""
        part, rows = getattr(data, split), []
        raw_value = {f.name: [None, *f.values.tolist()] for f in data.fields}
        for line, label in zip(part.features, part.label, strict=True):
            row = {}
            for name, i in zip(names, line, strict=True):
                if name in bags:
                    bag = bags[name]
                    here = slice(bag.offsets[i], bag.offsets[i + 1])
                    row[name] = [
                        (raw_value[name][j], round(float(w), 4))
                        for j, w in zip(bag.ids[here], bag.weights[here], strict=True)
                    ]
                else:
                    row[name] = raw_value[name][i]
            rows.append((row, int(label)))
        return rows

    lost = 0
    known = {f.name: set(f.values.tolist()) for f in data.fields}
    for file, splits in (("train", ("train", "valid")), ("test", ("test",))):
        users = {head[0]: fields for head, fields in by_hand((folder / f"common_features_{file}.csv").open())}
        expected = []
        for head, fields in by_hand((folder / f"sample_skeleton_{file}.csv").open()):
            if head[1:3] == ["0", "1"]:
                lost += 1
                continue
            fields = fields | users.get(head[3], {})
            row = {}
            for name in names:
                found = [
                    (i if i in known[name] else None, round(float(np.float32(w)), 4)) for i, w in fields.get(name, [])
                ]
                row[name] = (found or [(None, 1.0)]) if name in bags else found[-1][0] if found else None
            expected.append((row, int(head[1])))
        got = sum((coded(s) for s in splits), [])
        assert sorted(map(repr, got)) == sorted(map(repr, expected))
    assert data.notes["rows dropped"] == {"click 0 and conversion 1": lost} and lost > 0
    assert data.notes["rows whose key is not in its table"]["index"] > 0


def test_a_value_of_a_bag_is_known_where_enough_rows_of_train_have_it(raw):
    """Counted by hand from the raw lines: a profile's values count once for each row of train that has the profile."""
    folder, least = small_aliccp(raw, values=0.05), 40
    prepare("ali-ccp", min_count=least, multi="mean")
    data = croco_lib.load("ali-ccp", min_count=least, multi="mean")
    users = {head[0]: fields for head, fields in by_hand((folder / "common_features_train.csv").open())}
    kept = [
        (head[3], fields)
        for head, fields in by_hand((folder / "sample_skeleton_train.csv").open())
        if head[1:3] != ["0", "1"]
    ]
    train = np.random.default_rng(0).random(len(kept)) >= 0.1
    counts = defaultdict(Counter)
    for (key, fields), here in zip(kept, train, strict=True):
        for name, listed in (fields | users.get(key, {})).items():
            counts[name].update(i for i, _ in listed if here)
    for field in data.fields:
        if field.bag is not None:
            expected = sorted(i for i, n in counts[field.name].items() if n >= least)
            assert field.values.tolist() == expected and 0 < len(expected) < len(counts[field.name])


def test_a_prepared_set_passes_every_check_of_its_rows(raw):
    """Built anew from its arrays, it is validated, fingerprinted and described as any other data is."""
    small_aliccp(raw)
    prepare("ali-ccp", multi="mean")
    data = croco_lib.load("ali-ccp", multi="mean")
    anew = replace(data, stored=None)
    assert anew.fingerprint == data.fingerprint
    a, b = anew.describe().set_index("domain"), data.describe().set_index("domain")
    np.testing.assert_allclose(a.to_numpy(float), b.to_numpy(float), rtol=1e-5)


def test_an_unprepared_or_otherwise_prepared_aliccp_says_what_to_do(raw):
    with pytest.raises(DataError, match="tianchi.aliyun.com/dataset/408"):
        croco_lib.load("ali-ccp")
    small_aliccp(raw)
    folder = prepare("ali-ccp")
    with pytest.raises(
        DataError, match="not prepared with multi=mean,min.* Run `croco data prepare ali-ccp --multi mean"
    ):
        croco_lib.load("ali-ccp", multi="mean")
    (folder / "test.label.npy").write_bytes(b"")
    with pytest.raises(DataError, match="has lost a file, or one is cut short"):
        croco_lib.load("ali-ccp")


# ------------------------------------------------------------------------------- at once, and one by one


def damaged(lines, signs):
    """Some of these lines, each with up to three of its characters lost, doubled or made one of `signs`."""
    edit = st.tuples(st.integers(0, 10**6), st.sampled_from(["", None, *signs]))

    def damage(given):
        line, edits = given
        for at, sign in edits:
            at %= len(line) + 1
            line = line[:at] + (line[at : at + 1] * 2 if sign is None else sign) + line[at + 1 :]
        return line.replace("\n", "")

    return st.lists(st.tuples(st.sampled_from(lines), st.lists(edit, max_size=3)).map(damage), min_size=1, max_size=6)


def check_alone_and_together(read, lines, hopeless):
    """Whether lines are read at once or, since a hopeless one stands below, one by one: the same rows and reasons."""
    table, why = read(text_of(lines))
    again, reasons = read(text_of([*lines, hopeless]))
    assert reasons[:-1].to_list() == why.to_list() and reasons[-1] is not None
    assert again.equals(table, null_equal=True) and again.schema == table.schema
    return table, why


LOG_LINES = [",".join([str(7 * i), "12", "20220425", "-5", "1651707727974", "1", *"0" * 12, "1"]) for i in range(3)]


@settings(max_examples=200, deadline=None)
@given(st.text("ab\r\n", max_size=40), st.integers(1, 9), st.integers(0, 1))
def test_chunks_hold_every_line_once(text, chunk, header):
    """However short a chunk, lines longer than it, and lines that end as Windows ends them or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "raw")).write_bytes(text.encode())
        pieces = [parts.text_of(path, k, chunk, header) for k in range(-(-len(text) // chunk))]
    expected = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    assert [line for piece in pieces for line in parts.lines_of(piece)] == expected[header:]


@settings(max_examples=300, deadline=None)
@given(damaged(LOG_LINES, [*',-.+ x0_e"\r\t\xff', "0x1F", "9" * 17, "9" * 18, "0" * 30, "nan", ",,"]))
def test_a_damaged_log_is_read_alike_at_once_and_line_by_line(lines):
    table, why = check_alone_and_together(
        partial(kuairand_files.read_log, header=kuairand_files.LOG), lines, hopeless="?"
    )
    expected = []
    for line, reason in zip(lines, why, strict=True):
        cells = line.split(",")
        if fits := len(cells) == 19 and all(re.fullmatch("-?0*[0-9]{1,18}", cell) for cell in cells):
            expected += [[int(cell) for cell in cells]] if int(cells[5]) in (0, 1) else []
        words = "is_click" if fits else "not as many" if line else "dropped: blank"
        assert reason is None if fits and int(cells[5]) in (0, 1) else words in reason
    assert table.rows() == [
        (*(r[i] for i in (0, 1, 4, 18, 5)), r[3] // 100, *t[-2:]) for r, t in zip(expected, table.rows(), strict=True)
    ]


SKELETONS = [
    "1,0,0,00000000000000ab,2,205\x021\x031.0\x01301\x029351665\x030.69315",
    "2,1,0,00000000000000cd,4,210\x027\x031.5\x01205\x022\x031\x01210\x028\x03.25\x01301\x023\x03-2.",
    "3,0,0,00000000000000ef,3,301\x024\x031.0\x01210\x02-9\x0312345678.875\x01109_14\x025\x030.1",
]


@settings(max_examples=300, deadline=None)
@given(damaged(SKELETONS, [*',-.+ x0_e"\r\t\xff\x01\x02\x03', "0x1F", "nan", "inf", "e5", "9" * 19, "9" * 40, "1_0"]))
def test_a_damaged_skeleton_is_read_alike_at_once_and_line_by_line(lines):
    layout = dict(columns=["sample_id", "click", "conversion"], single=aliccp.ITEM, many=aliccp.ITEM_MANY, half=1)
    check_alone_and_together(partial(aliccp_lines.read_lines, **layout), lines, hopeless="?")


def test_whole_lines_are_read_at_once(raw, monkeypatch):
    """None of the lines that the generators write, gaps and lists and all, needs to be looked at one by one."""
    write_kuairand(raw, rows=2_000, users=40, videos=100)
    small_aliccp(raw)
    monkeypatch.setattr(aliccp_lines, "split_one_by_one", None)
    monkeypatch.setattr(kuairand_files, "lines_of", None)
    for name in ("kuairand-pure", "ali-ccp"):
        assert store.finished(name) == [] and prepare(name) in store.finished(name)


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("name", ["kuairand-pure", "ali-ccp"])
def test_killed_at_any_write_and_started_again_gives_the_same_bytes(raw, monkeypatch, name):
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    small_aliccp(raw, rows=3_000)
    monkeypatch.setattr(parts, "CHUNK", 100_000 if name == "kuairand-pure" else 300_000)
    made = prepare(name)
    whole, folder = contents(made), store.home(name)
    (made / "manifest.json").unlink()
    for part in (folder / "parts").iterdir():
        part.unlink()
    left = [store.finished(name) for _ in killed_at_each_write(lambda _: prepare(name), parts, columns)]
    assert len(left) >= 20 and not any(left)
    assert contents(made) == whole


@pytest.mark.parametrize("name", ["kuairand-pure", "ali-ccp"])
def test_a_set_that_is_made_again_stands_until_the_new_one_is_whole(raw, name):
    write_kuairand(raw, rows=3_000, users=40, videos=100)
    small_aliccp(raw, rows=3_000)
    made = prepare(name)
    whole = contents(made)
    left = [contents(made) == whole for _ in killed_at_each_write(lambda _: prepare(name), columns)]
    assert len(left) >= 10 and all(left[:-1])  # at the last write, the manifest's, the old set has just gone
    assert contents(made) == whole and list(made.parent.glob("*=*")) == [made]  # nothing is left beside it


def test_a_part_that_is_there_is_not_made_again(raw, monkeypatch):
    small_aliccp(raw)
    monkeypatch.setattr(parts, "CHUNK", 100_000)
    folder = prepare("ali-ccp")
    times = {p.name: p.stat().st_mtime_ns for p in (folder.parent / "parts").iterdir()}
    assert len(times) > 8
    prepare("ali-ccp", min_count=2)
    assert {p.name: p.stat().st_mtime_ns for p in (folder.parent / "parts").iterdir()} == times


GOOD = "1,0,0,00000000000000ab,2,205\x021\x031.0\x01301\x029351665\x031.0"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "fewer than 6 columns"),
        ("1,0,0,00000000000000ab", "fewer than 6 columns"),
        (GOOD.replace("ab,", "xy,"), "index is not as it should be"),
        (GOOD.replace("1,0,", "1,2,", 1), "click is not as it should be"),
        (GOOD[:-20], "cut short"),
        (GOOD[:-3], "a feature is not field, id and value"),
        (GOOD.replace("\x021\x03", "\x02one\x03"), "a feature is not field, id and value"),
        (GOOD.replace("301", "302"), "dropped: no domain"),
        ("\ufffd" + GOOD, "sample_id is not as it should be"),
    ],
)
def test_a_bad_line_is_named(line, reason):
    heads = ["sample_id", "click", "conversion"]
    table, why = aliccp_lines.read_lines(text_of([GOOD, line, GOOD]), heads, aliccp.ITEM, aliccp.ITEM_MANY, 0)
    assert len(table) == 2
    assert why[0] is None and reason in why[1] and why[2] is None


@pytest.mark.parametrize("name", ["kuairand-pure", "ali-ccp"])
def test_bad_lines_are_counted_and_quoted_up_to_the_share_that_may_pass(raw, monkeypatch, name):
    bad = {700: "nonsense", 2_000: "1,2,3", **({} if name == "ali-ccp" else {0: "9,9" + ",x" * 17})}
    write_kuairand(raw, rows=3_000, users=40, videos=100, bad=bad)
    small_aliccp(raw, bad=bad)
    monkeypatch.setattr(parts, "CHUNK", 60_000)
    header = name != "ali-ccp"
    with pytest.raises(DataError, match=rf"{len(bad)} of 3000 lines are bad.*line {701 + header}: .*'nonsense'"):
        prepare(name, max_bad_share=0.0001)
    assert not store.finished(name)
    prepare(name, max_bad_share=0.01)
    notes = croco_lib.load(name).notes
    assert sum(notes["bad lines"].values()) == len(bad) == len(notes["first bad lines"])
    assert f"line {2001 + header}: " in notes["first bad lines"][-1] and "'1,2,3'" in notes["first bad lines"][-1]
    assert notes["rows read"] == 3_000 if header else sum(notes["rows read"].values()) == 6_000 + 200


def test_the_values_of_a_repeated_common_line_count_for_nothing(raw):
    path = small_aliccp(raw) / "common_features_train.csv"
    text = path.read_text()
    first = next(line for line in text.splitlines() if "\x01127_14\x02" in line or ",127_14\x02" in line)
    known = []
    for again in ("", re.sub(r"127_14\x02\d+", "127_14\x02987654321", first) + "\n"):
        path.write_text(text + again)
        shutil.rmtree(raw.parent / "prepared", ignore_errors=True)
        prepare("ali-ccp", min_count=1, multi="mean")
        data = croco_lib.load("ali-ccp", min_count=1, multi="mean")
        known.append({f.name: f.values.tolist() for f in data.fields})
    assert data.notes["common lines that repeat an index, left out"] and known[0] == known[1]


@pytest.mark.parametrize("name", ["kuairand-pure", "ali-ccp"])
def test_any_number_of_processes_makes_the_same_parts_and_columns(raw, monkeypatch, name):
    write_kuairand(raw, rows=3_000, users=40, videos=100, bad={700: "nonsense"})
    small_aliccp(raw, rows=3_000, bad={700: "nonsense"})
    monkeypatch.setattr(parts, "CHUNK", 50_000 if name == "kuairand-pure" else 150_000)
    made = []
    for workers in (1, 2):
        folder = prepare(name, max_bad_share=0.01, workers=workers)
        made.append(contents(folder) | contents(folder.parent / "parts"))
        shutil.rmtree(folder.parent)
    assert made[0] == made[1] and sum(file.endswith(".parquet") for file in made[0]) > 4


def test_what_numpy_holds_does_not_grow_with_the_rows(raw, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 1 << 12)
    monkeypatch.setattr(parts, "CHUNK", 1 << 20)
    peak = []
    for rows in (10_000, 50_000):
        small_aliccp(raw, rows=rows)
        tracemalloc.start()
        prepare("ali-ccp")
        peak.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peak[1] - peak[0] < 2, peak  # the coded rows alone would be 4.3


@pytest.mark.parametrize("name", ["kuairand-pure", "ali-ccp"])
def test_by_default_one_line_in_a_thousand_may_be_bad(raw, name):
    for count in (3, 4):  # of 3,000
        bad = dict.fromkeys(range(700, 700 + count), "nonsense")
        write_kuairand(raw, rows=3_000, users=40, videos=100, bad=bad)
        small_aliccp(raw, bad=bad)
        with nullcontext() if count == 3 else pytest.raises(DataError, match="4 of 3000 lines are bad"):
            prepare(name)


def test_the_hash_of_twins_is_splitmix64s():
    z = int(twins.hash_rows(pl.DataFrame({"a": [0]}), ["a"], np.zeros(1, np.uint64))[0])
    assert z ^ (z >> 31) == 0xE220A8397B1DCDAF  # the first value of seed 0, published; its last step is left out


def test_croco_data_prepare_tells_what_it_did(raw, croco):
    small_aliccp(raw)
    (code, out, _), (status, listed, _) = croco("data prepare ali-ccp --multi mean --min-count 2"), croco("data")
    assert code == status == 0 and "# rows dropped: click 0 and conversion 1 " in out
    (folder,) = store.finished("ali-ccp")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert f"fingerprint {manifest['fingerprint']}" in out
    assert f"prepared, in {folder}" in listed
    assert find("ali-ccp") == Path(raw / "ali-ccp") and set(PREPARE) >= {"ali-ccp", "kuairand-27k"}


# ------------------------------------------------------------------------------------------------ the made world


@pytest.mark.parametrize("options", [{}, {"tail": 0, "conflict": 0}, {"facets": 1, "seed": 5, "noise": 0}])
@pytest.mark.parametrize("piece", [1, 997, 1 << 20])
def test_a_world_drawn_in_pieces_is_the_world_drawn_at_once(piece, options):
    options = dict(rows=2_000, users=60, items=40, **{"tail": 1.0, "seed": 0} | options)
    whole = make_world(**options)
    truth, counts, rng = begin_world(**made.in_full(options))
    pieces = list(made.draw_pieces(truth, counts, rng, piece))
    assert max(map(len, pieces)) <= piece and sum(map(len, pieces)) == 2_000
    part = split_random(2_000, options["seed"])
    for column in ("features", "domain", "label", "user", "truth"):
        drawn = np.concatenate([getattr(rows, column) for rows in pieces])
        for i, split in enumerate(SPLITS):
            np.testing.assert_array_equal(drawn[part == i], getattr(getattr(whole, split), column))


def test_a_prepared_world_is_the_same_data_and_knows_its_truth(raw):
    options = dict(rows=8_000, users=99, items=77, conflict=1)
    memory = load("world", **options)
    assert not isinstance(memory.train.features, np.memmap), "nothing is prepared yet"
    folder = prepare("world", **options)
    mapped = load("world", **options)
    assert isinstance(mapped.train.features, np.memmap) and isinstance(mapped.world.users, np.memmap)
    assert mapped.fingerprint == memory.fingerprint and mapped.notes == memory.notes
    assert mapped.fields == memory.fields and mapped.domains == memory.domains
    pd.testing.assert_frame_equal(mapped.describe(), memory.describe(), check_categorical=False, check_dtype=False)
    assert oracle(mapped.test).equals(oracle(memory.test))
    np.testing.assert_array_equal(mapped.world.fresh(100).label, memory.world.fresh(100).label)
    run = [fit(build("shared-bottom", d), d, epochs=1, batch_size=512, progress=False) for d in (memory, mapped)]
    assert torch.equal(*(r.model.embedding.table.weight for r in run))
    assert not isinstance(load("world", **options | {"seed": 1}).train.features, np.memmap), "another world"
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert prepare("world", **options | {"conflict": 1.0}) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written, "it was there already"
    (folder / "truth.users.npy").unlink()
    with pytest.raises(CrocoError, match="has lost a file.*croco data prepare world"):
        load("world", **options)
    prepare("world", **options)
    assert load("world", **options).fingerprint == memory.fingerprint
    (folder / "manifest.json").unlink()  # as after an interruption
    assert not isinstance(load("world", **options).train.features, np.memmap)


def test_a_prepared_world_is_not_taken_for_that_of_other_rules(raw, monkeypatch):
    options = dict(rows=8_000, users=99, items=77)
    assert prepare("world", **options) and made.VERSION == 1
    assert load("world", **options).fingerprint == "793d094fb3bf4f98", "another world needs another made.VERSION"
    monkeypatch.setattr(made, "VERSION", 2)
    with pytest.raises(CrocoError, match="prepared by other rules.*croco data prepare world"):
        load("world", **options)


@pytest.mark.parametrize("make", [load, prepare])
def test_options_of_a_world_are_numbers_of_their_kind(raw, make):
    for wrong, words in (({"conflict": "half"}, "wrong type"), ({"rows": 2_000.5}, "rows must be a whole number")):
        with pytest.raises(CrocoError, match=words):
            make("world", **wrong)
    small = dict(users=60, items=40)
    make("world", rows=4e3, **small)  # as a command line reads 4e3
    assert load("world", rows=4e3, **small).fingerprint == make_world(rows=4_000, **small).fingerprint


def test_the_command_prepares_a_world(raw, croco):
    code, said, _ = croco("data prepare world --option rows=3000 --option users=50 --option items=40 --seed 3")
    data = load("world", rows=3000, users=50, items=40, seed=3)
    assert code == 0 and data.fingerprint in said, said
    assert isinstance(data.train.features, np.memmap)
