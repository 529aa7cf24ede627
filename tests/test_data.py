import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pooch
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy.special import expit
from small import ROLES, clicks

import croco_lib
from croco_lib import CrocoError, DataError, from_frame
from croco_lib.data.world import oracle, shares
from croco_lib.datasets import kuairand
from croco_lib.datasets import kuairand_files as raw
from croco_lib.datasets import raw as places
from croco_lib.errors import ROOT
from croco_lib.metrics import evaluate_scores
from croco_lib.schema import SPLITS, Bag
from croco_lib.study.raw import write_kuairand


def holed(values, row, hole=None):
    values = list(values)
    values[row] = hole
    return values


def load_table(frame, **options):
    return from_frame(frame, **{**ROLES, "fields": ["kind"], **options})


def field(data, name):
    return next(i for i, f in enumerate(data.fields) if f.name == name)


# ------------------------------------------------------------------------------------------------ world


def tiny_world(**options):
    return croco_lib.load("world", **{"rows": 3_000, "users": 100, "items": 100, **options})


def test_world_follows_its_seed():
    assert tiny_world().fingerprint == tiny_world().fingerprint
    assert tiny_world().fingerprint != tiny_world(seed=1).fingerprint


def test_world_truth_equals_the_formula(small_world):
    split, world = small_world.test, small_world.world
    user, item, s = split.features[:, 0] - 1, split.features[:, 3] - 1, split.domain
    for n in range(0, len(split), 200):
        logit = world.bias[s[n]] + sum(
            world.weights[s[n], k] * world.users[k, user[n]] @ world.items[k, item[n]] for k in range(4)
        )
        expected = 0.95 * expit(logit) + 0.05 * world.rates[s[n]]
        assert split.truth[n] == pytest.approx(expected)


def test_world_ids_lie_within_their_fields(small_world):
    for split in (getattr(small_world, s) for s in SPLITS):
        assert (split.features >= 1).all()
        assert (split.features < [f.size for f in small_world.fields]).all()
        assert (split.features[:, small_world.column("domain")] == split.domain + 1).all()
        assert (split.features[:, small_world.column("user")] == split.user + 1).all()


def test_world_click_rates_are_those_of_the_domains(small_world):
    described = small_world.describe()
    slack = 4 * np.sqrt(0.25 / described["rows"])
    assert (abs(described.click_rate - small_world.world.rates) < slack).all()
    assert described["rows"].sum() == 20_000
    np.testing.assert_allclose(described.share, shares(1), atol=1e-3)


def test_conflict_turns_equal_weights_into_unrelated_ones():
    same, unlike = tiny_world(conflict=0).world.weights, tiny_world(conflict=1).world.weights
    np.testing.assert_allclose(same, np.broadcast_to(same[0], same.shape))
    assert np.abs(unlike - unlike[0])[1:].max(1).min() > 0.1
    for weights in (same, unlike):
        np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 2)


def test_without_tail_the_domains_are_alike():
    np.testing.assert_allclose(shares(0), 0.2)
    assert set(tiny_world(tail=0).describe()["rows"]) == {600}


def test_pure_noise_leaves_only_the_domain_rate():
    data = tiny_world(noise=1)
    np.testing.assert_allclose(data.train.truth, data.world.rates[data.train.domain])


def test_oracle_is_the_auc_of_the_true_probability(small_world):
    split = small_world.train
    table = oracle(split)
    assert list(table.columns) == ["domain", "metric", "value"]
    assert list(table.domain) == ["all", *small_world.domains]
    assert set(table.metric) == {"auc"}
    p = split.truth[split.domain == 1]
    order = np.argsort(p)  # expected AUC of p: a click at p[i] beats a non-click at any smaller p[j]
    below = np.cumsum(1 - p[order]) - (1 - p[order])
    expected = (p[order] * below).sum() / (p.sum() * (1 - p).sum())
    assert table.set_index("domain").value["tab 1"] == pytest.approx(expected, abs=0.02)
    shuffled = np.random.default_rng(0).permutation(split.truth)
    chance = evaluate_scores(split.label, shuffled, split.domain, split.user, split.domains)
    assert chance.value[0] < 0.55 < table.value[0]


def test_oracle_bears_certain_clicks():
    assert oracle(tiny_world(noise=0, strength=10, rows=20_000).train).value[0] > 0.9


WRONG = (
    "rows=999 users=3 items=3 facets=0 conflict=-0.1 conflict=1.1 conflict=NaN tail=-1 noise=1.5 strength=-1 seed=-1"
)


@pytest.mark.parametrize("wrong", WRONG.split())
def test_world_refuses_values_out_of_range(wrong):
    option, value = wrong.split("=")
    with pytest.raises(CrocoError, match=f"world: {option} must lie between"):
        croco_lib.load("world", **{option: json.loads(value)})


# ------------------------------------------------------------------------------------------------ tables


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 8), st.booleans())
def test_ids_follow_the_train_counts(seed, min_count, text):
    frame = clicks(120, seed, row=range(120))
    if text:
        frame["who"] = "u" + frame["who"].astype(str)
    columns = ["who", "what", "kind"]
    try:
        data = load_table(frame, user="row", item="what", fields=columns, min_count=min_count, seed=seed)
    except DataError as error:  # twelve validation rows can all be of one domain
        assert "has no rows in the" in str(error)
        reject()
    rows = {s: getattr(data, s).user for s in SPLITS}  # the user's number is the row here
    assert sorted(np.concatenate(list(rows.values()))) == list(range(120))
    for column in columns:
        f = field(data, column)
        counts = Counter(frame[column][rows["train"]])
        kept = sorted(v for v, n in counts.items() if n >= min_count)
        assert list(data.fields[f].values) == kept
        assert data.fields[f].size == len(kept) + 1
        ids = {v: i + 1 for i, v in enumerate(kept)}
        for split in SPLITS:
            assert list(getattr(data, split).features[:, f]) == [ids.get(v, 0) for v in frame[column][rows[split]]]
    for split in SPLITS:
        assert list(getattr(data, split).label) == list(frame.click[rows[split]])
        assert list(getattr(data, split).domain) == list(frame.place[rows[split]])


def test_roles_fields_and_unknown_shares():
    frame = clicks()
    data = load_table(frame, min_count=14)
    assert [(f.name, f.role, f.prior) for f in data.fields] == [
        ("who", "user", True),
        ("what", "item", True),
        ("place", "domain", True),
        ("kind", "", False),
    ]
    assert data.domains == ("0", "1")
    assert data.fields[2].size == 3
    assert 0 < data.notes["share of unknown ids"]["train"]["who"] < 1
    for split in SPLITS:
        part = getattr(data, split)
        assert data.notes["share of unknown ids"][split]["who"] == pytest.approx(
            (part.features[:, 0] == 0).mean(), abs=1e-4
        )
        assert part.features.dtype == np.int32
        assert part.label.dtype == np.float32
    rare = data.train.features[:, 0] == 0
    assert len(np.unique(data.train.user[rare])) > 1  # gAUC keeps rare users apart


def test_random_split_has_the_given_sizes_and_its_own_seed():
    frame = clicks(1000)
    one, other = load_table(frame), load_table(frame, seed=1)
    assert [len(getattr(one, s)) for s in SPLITS] == [800, 100, 100]
    assert one.fingerprint != other.fingerprint
    croco_lib.build("shared-bottom", one, seed=5)
    np.random.seed(5)  # noqa: NPY002
    assert load_table(frame).fingerprint == one.fingerprint


@pytest.mark.parametrize("ties", [1, 7])
@pytest.mark.parametrize("dates", [False, True])
def test_time_split_is_ordered_and_keeps_moments_together(ties, dates):
    moment = np.random.default_rng(0).permutation(1000) // ties
    when = pd.to_datetime(moment, unit="h") if dates else moment
    data = load_table(clicks(1000, moment=moment, when=when), split="time", time="when", fields=["moment"], min_count=0)
    values = data.fields[3].values
    latest_train = values.max()
    assert latest_train == np.unique(moment)[len(values) - 1]
    assert (data.train.features[:, 3] > 0).all()
    assert (data.valid.features[:, 3] == 0).all()
    assert (data.test.features[:, 3] == 0).all()
    assert abs(len(data.train) - 800) < ties
    assert abs(len(data.test) - 100) < ties
    assert len(data.train) == (moment <= latest_train).sum()


def test_times_may_be_decimals_and_ids_objects():
    frame = pl.from_pandas(clicks(1000))
    expected = load_table(frame, split="time", time="when")
    decimal = frame.with_columns(pl.col("when").cast(pl.Decimal(12, 2)))
    assert load_table(decimal, split="time", time="when").fingerprint == expected.fingerprint
    beyond = frame.with_columns(pl.Series("who", [2**70 + v for v in frame["who"]], pl.Object))
    assert (
        load_table(beyond).notes["rows that repeat another in the columns read, kept"]
        == load_table(frame).notes["rows that repeat another in the columns read, kept"]
    )


def test_time_split_tests_on_the_latest_rows():
    frame = clicks(1000).sort_values("when", ignore_index=True)
    frame["click"] = np.where(frame.when >= 900, 1, frame.click)
    data = load_table(frame.sample(frac=1, random_state=0), split="time", time="when")
    assert data.test.label.mean() == 1
    assert data.valid.label.mean() < 0.7


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({}, {"user": "whom"}, "Unknown column 'whom'. Did you mean 'who'"),
        ({}, {"fields": ["kinds"]}, "Did you mean 'kind'"),
        ({}, {"split": "time", "time": "wen"}, "Did you mean 'when'"),
        ({}, {"time": "when"}, "give both or neither"),
        ({"when": holed(range(400), 3, np.nan)}, {"split": "time", "time": "when"}, "'when' has 1 missing values"),
        ({"click": holed([0, 1] * 200, 5, 2)}, {}, "must be 0 or 1, but data row 6 has 2; 1 rows"),
        ({"click": holed([0.0, 1.0] * 200, 5, np.nan)}, {}, "column 'click' has 1 missing values .* data row 6"),
        ({"click": ["no", "yes"] * 200}, {}, r"the label 'click' is String \(no, yes\), not the numbers 0 and 1"),
        ({"who": holed([1.0, 2.0] * 200, 9, np.nan)}, {"missing": "unknown"}, "'who' has 1 missing .* data row 10"),
        ({"kind": holed(["a", "b"] * 200, 2)}, {}, "'kind' has 1 missing values .* data row 3"),
        ({"kind": pd.Series(holed(["a", "b"] * 200, 2, np.nan), dtype=object)}, {}, "'kind' has 1 missing values"),
        ({"kind": [[1, 2]] * 400}, {}, "'kind' holds List.* cannot be ids"),
        ({"kind": np.linspace(0, 1, 400)}, {}, "'kind' holds fractions .* categorical"),
        ({"kind": [1.0, np.inf] * 200}, {}, "'kind' holds fractions"),
        ({"kind": [1e300, 2.0] * 200}, {}, r"'kind' holds ids of 2\^53 or more as floating-point"),
        ({}, {"domains": [0]}, "unknown domain 1 in column 'place'"),
        (
            {"place": [1, 1, 7] + [0, 1] * 198 + [7]},
            {"domains": [0, 1]},
            "unknown domain 7 .* row 3; 2 rows are like that",
        ),
        ({}, {"domains": ["shop"]}, "domains=.'shop'. do not fit column 'place'"),
        ({}, {"domains": [0, 1, 2]}, "domain 2 has no rows in the train split"),
        ({"place": [0, 1] * 200, "click": [1, 0, 1, 0, 0, 0, 1, 0] * 50}, {}, "domain 1 has only one class"),
        ({"place": [0, 1] * 200, "click": [1, 1, 1, 0, 1, 0, 1, 1] * 50}, {}, "domain 0 has only one class"),
        ({"place": ["all", "b"] * 200}, {}, "none of them empty or 'all'"),
        ({}, {"domains": 1}, "a list of values or a mapping"),
        ({}, {"domains": [0.5, 1.5]}, "fractions"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(columns, options, words):
    with pytest.raises(DataError, match=words):
        load_table(clicks(**columns), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "randon"}, "Unknown split 'randon'. Did you mean 'random'"),
        ({"missing": "drop"}, "Unknown rule for missing values 'drop'"),
        ({"seed": -1}, "seed must be a whole number of 0 or more"),
    ],
)
def test_an_option_that_cannot_be_used_says_why(options, words):
    with pytest.raises(CrocoError, match=words):
        load_table(clicks(), **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frame", [{"click": [1]}, [1, 2], None, 3])
def test_what_is_no_table_is_refused(frame):
    with pytest.raises(DataError, match="give a pandas or polars table or a file's path"):
        load_table(frame)


def test_two_columns_of_one_name_are_refused():
    frame = clicks()
    frame.columns = ["click", "place", "who", "what", "kind", "kind"]
    with pytest.raises(DataError, match="own name"):
        load_table(frame)


def test_missing_values_can_get_the_unknown_id():
    frame = clicks(kind=holed(holed([1.0, 2.0] * 200, 0, np.nan), 7, np.nan), size=holed(["s", "l"] * 200, 3))
    frame["words"] = pd.Series(holed(["s", "l"] * 200, 5, np.nan), dtype=object)
    data = load_table(frame, fields=["kind", "size", "words"], missing="unknown")
    assert data.notes["missing values given the unknown id"] == {"kind": 2, "size": 1, "words": 1}
    assert sum((getattr(data, s).features == 0).sum() for s in SPLITS) == 4
    assert list(data.fields[3].values) == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(kind=pd.Categorical(f.kind.astype(str))),
        lambda f: f.assign(kind=f.kind.astype(str)),
        lambda f: f.assign(kind=f.kind.astype(str).astype(object)),
        lambda f: f.assign(kind=f.kind.astype(float)),
        lambda f: f.assign(kind=f.kind.astype("uint64") + 2**63),
        lambda f: f.assign(click=f.click == 1),
        lambda f: f.assign(click=f.click.astype(np.float32)),
        lambda f: f.set_index(f.index[::-1]),
        pl.from_pandas,
    ],
)
def test_one_table_in_other_dtypes_gives_the_same_data(change):
    assert load_table(change(clicks())).fingerprint == load_table(clicks()).fingerprint


def test_true_and_false_are_a_field():
    data = load_table(clicks(kind=[True, False] * 200))
    assert list(data.fields[3].values) == ["false", "true"]


def test_any_column_name_will_do():
    names = {"who": "id", "what": "count", "kind": "value", "click": "label", "place": "domain"}
    roles = {role: names[column] for role, column in ROLES.items()}
    data = from_frame(clicks().rename(columns=names), **roles, fields=["value"])
    plain = load_table(clicks())
    for split in SPLITS:
        np.testing.assert_array_equal(getattr(data, split).features, getattr(plain, split).features)


def test_listed_domains_keep_their_order():
    data = load_table(clicks(), domains=[1, 0, 0])
    assert data.domains == ("1", "0")
    np.testing.assert_array_equal(data.train.domain, 1 - load_table(clicks()).train.domain)


def test_describe_counts_each_domain():
    frame = clicks()
    described = load_table(frame, min_count=0).describe()
    counts = frame.groupby("place")
    assert list(described["rows"]) == list(counts.size())
    np.testing.assert_allclose(described.click_rate, counts.click.mean(), rtol=1e-6)
    assert list(described.users) == list(counts.who.nunique())


def test_take_keeps_rows_in_order(small_world):
    part = small_world.test.take(np.array([5, 2]))
    assert len(part) == 2
    np.testing.assert_array_equal(part.features, small_world.test.features[[5, 2]])
    np.testing.assert_array_equal(part.truth, small_world.test.truth[[5, 2]])


# ------------------------------------------------------------------------------------------------ files


def test_csv_and_parquet_equal_the_table(tmp_path):
    frame = clicks()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    expected = load_table(frame).fingerprint
    assert load_table(tmp_path / "a.csv").fingerprint == expected
    assert load_table(str(tmp_path / "a.parquet")).fingerprint == expected


HEAD = "click,place,who,what,kind\n"
LINE = "1,0,3,4,5\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + LINE * 3 + "1,0,3\n" + LINE, "line 5: Expected 5 columns, got 3"),
        (HEAD + LINE * 3 + "1,0,3,4,5,6\n", "line 5: Expected 5 columns, got 6"),
        (HEAD + LINE * 3 + "x,0,3,4,5\n", "the label 'click' is String"),
        (HEAD + LINE * 3 + "1,0,,4,5\n", r"'who' has 1 missing values .* \(line 5 of the file\)"),
        (HEAD + LINE * 3 + "2,0,3,4,5\n", r"\(line 5 of the file\) has 2"),
        ("click,place,who,that,kind\n" + LINE, "Unknown column 'what'. Did you mean 'that'"),
    ],
)
def test_a_broken_csv_says_where(tmp_path, text, words):
    path = tmp_path / "clicks.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as error:
        load_table(path)
    assert str(path) in str(error.value)


# ------------------------------------------------------------------------------------------------ KuaiRand

LOG_FILE, USER_FILE = "log_standard_4_22_to_5_08_pure.csv", "user_features_pure.csv"
VIDEO_FILE = "video_features_basic_pure.csv"


def raw_logs(rows=300):
    """Log rows as dicts of text: 50 for each of the tabs 0, 1, 2, 4, 6 and the foreign tab 3."""
    rng = np.random.default_rng(0)
    return [
        dict.fromkeys(raw.LOG, "0")
        | {
            "user_id": str(n % 11),
            "video_id": str(n % 7),
            "date": "20220425",
            "hourmin": str(100 * (n % 24)),
            "time_ms": str(1_650_000_000_000 + n),
            "is_click": str(rng.integers(2)),
            "play_time_ms": str(n),
            "tab": str([0, 1, 2, 4, 6, 3][n % 6]),
        }
        for n in range(rows)
    ]


def write(path, rows):
    path.write_text("".join(",".join(line) + "\n" for line in [raw.LOG, *(row.values() for row in rows)]))


@pytest.fixture
def raw_folder(tmp_path, monkeypatch):
    """KuaiRand's files of 11 users and 7 videos, the log that of `raw_logs`."""
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    monkeypatch.setenv("CROCO_PREPARED", str(tmp_path / "prepared"))
    write_kuairand(tmp_path, rows=1, users=11, videos=7)
    write(tmp_path / LOG_FILE, raw_logs())
    return tmp_path


def test_kuairands_generated_columns_are_the_published_ones(tmp_path):
    write_kuairand(tmp_path, rows=1)
    heads = {name: (tmp_path / name).open().readline().strip() for name in (LOG_FILE, USER_FILE, VIDEO_FILE)}
    assert [len(head.split(",")) for head in heads.values()] == [19, 31, 12] and heads[LOG_FILE] == ",".join(raw.LOG)
    if (folder := raw.find("kuairand-pure")) is None:
        pytest.skip("KuaiRand-Pure is not here")
    for name, head in heads.items():
        paths = list(folder.rglob("log_standard_*" if name == LOG_FILE else name))
        assert paths and {path.open().readline().strip() for path in paths} == {head}


def test_kuairand_drops_and_counts_twins_and_other_tabs(raw_folder):
    clean = croco_lib.load("kuairand-pure")
    rows = raw_logs()
    twin, odd = rows[4] | {"hourmin": "2300"}, rows[4] | {"is_click": str(1 - int(rows[4]["is_click"]))}
    others = [rows[4] | {c: "77"} for c in ("user_id", "video_id", "time_ms")] + [rows[4] | {"tab": "0"}]
    foreign = rows[5] | {"play_time_ms": "9"}  # in tab 3
    write(raw_folder / LOG_FILE, [*rows, rows[4], rows[4], rows[10], rows[5], twin, odd, odd, twin, foreign])
    data = croco_lib.load("kuairand-pure")
    assert data.notes["rows read"] == 309
    assert data.notes["exact duplicates dropped"] == {"all tabs": 6, "the five tabs": 5}
    assert data.notes["further twins dropped"] == {"all tabs": 3, "the five tabs": 2}
    assert data.notes["further twins of another label"] == {"all tabs": 1, "the five tabs": 1}
    assert data.notes["rows of other tabs dropped"] == 50
    assert data.fingerprint == clean.fingerprint  # the first of twins is kept
    write(raw_folder / LOG_FILE, [*rows, *others])  # not twins: another user, video, time or tab
    assert croco_lib.load("kuairand-pure").notes["rows"] == clean.notes["rows"] + 4


def test_a_log_without_a_row_of_the_five_tabs_is_named(raw_folder):
    write(raw_folder / LOG_FILE, [row | {"tab": "3"} for row in raw_logs()])
    with pytest.raises(DataError, match="kuairand-pure: no row is left of the domains tab 0, tab 1"):
        croco_lib.load("kuairand-pure")


def test_kuairand_reads_every_standard_log_and_no_other(raw_folder):
    rows = raw_logs()
    write(raw_folder / LOG_FILE, rows[150:])
    write(raw_folder / "log_standard_4_08_to_4_21_pure.csv", rows[:150])
    write(raw_folder / "log_random_4_22_to_5_08_pure.csv", rows[:9])
    write(raw_folder / "log_standard_4_22_to_5_08_1k.csv", rows[:9])
    data = croco_lib.load("kuairand-pure")
    assert data.notes["files"] == ["log_standard_4_08_to_4_21_pure.csv", LOG_FILE]
    assert data.notes["rows read"] == 300


def test_kuairand_never_reads_what_comes_after_the_click(raw_folder):
    data = croco_lib.load("kuairand-pure", min_count=0)
    assert not {f.name for f in data.fields} & {*raw.LEAKS, "time_ms", "date", "is_rand", "duration_ms"}
    rows = [r | {c: str(n + 5) for c in raw.LEAKS if c != "is_click"} for n, r in enumerate(raw_logs())]
    write(raw_folder / LOG_FILE, rows)
    assert croco_lib.load("kuairand-pure", min_count=0).fingerprint == data.fingerprint


def edit(path, line, change):
    lines = path.read_text().splitlines()
    lines[line - 1] = change(lines[line - 1])
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "line", "change", "words"),
    [
        (LOG_FILE, 9, lambda s: s.rsplit(",", 3)[0], "line 9: not as many whole numbers as the header has"),
        (LOG_FILE, 9, lambda s: "me" + s, "line 9: not as many .*: 'me"),
        (LOG_FILE, 9, lambda s: s[:-1], "line 9: not as many whole numbers as the header has"),
        (LOG_FILE, 1, lambda s: s.replace("date", "tab"), "Unknown column 'date'"),
        (LOG_FILE, 1, lambda s: s + ",tab", "two columns have the same name"),
        (LOG_FILE, 1, lambda s: s.replace("hourmin", "hour_min"), "Unknown column 'hourmin'. Did you mean 'hour_min'"),
        (USER_FILE, 4, lambda s: s.rsplit(",", 2)[0], "line 4: Expected 31 columns, got 29"),
        (USER_FILE, 4, lambda s: "x" + s, "line 4: .* int64: invalid value 'x"),
        (USER_FILE, 4, lambda s: s.replace("2,", "1,", 1), "1 rows repeat a user_id"),
        (USER_FILE, 1, lambda s: s.replace("onehot_feat3", "other"), "Unknown column 'onehot_feat3'"),
        (VIDEO_FILE, 4, lambda s: s.replace("53119.0", "long"), "line 4: .* double: invalid value 'long'"),
        (VIDEO_FILE, 1, lambda s: s.replace("tag", "tags"), "Unknown column 'tag'. Did you mean 'tags'"),
    ],
)
def test_a_broken_kuairand_file_is_named_with_its_line(raw_folder, file, line, change, words):
    edit(raw_folder / file, line, change)
    with pytest.raises(DataError, match=words) as error:
        croco_lib.load("kuairand-pure")
    assert file in str(error.value)


@pytest.mark.parametrize("file", [USER_FILE, VIDEO_FILE])
def test_a_kuairand_feature_file_is_needed(raw_folder, file):
    (raw_folder / file).unlink()
    with pytest.raises(DataError, match=f"{file}: there is no such file"):
        croco_lib.load("kuairand-pure")


def test_kuairand_is_found_where_the_archive_unpacks(tmp_path, monkeypatch):
    place = tmp_path / "kuairand-1k" / "KuaiRand-1K" / "data"
    place.mkdir(parents=True)
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    monkeypatch.setattr(places, "BASE", tmp_path / "away" / "project")
    assert raw.find("kuairand-1k") is None
    with pytest.raises(DataError, match="kuairand-1k is not here. .*data/raw/kuairand-1k/.*CROCO_DATA"):
        croco_lib.load("kuairand-1k")
    (place / "log_standard_4_08_to_4_21_1k.csv").touch()
    assert raw.find("kuairand-1k") == place
    assert raw.find("kuairand-pure") is None


def test_real_kuairand_has_the_counted_rows(kuairand):
    if kuairand.notes["files"] != ["log_standard_4_25_to_5_08_pure.csv"]:
        pytest.skip("the counts below are those of 25 April to 8 May only")
    described = kuairand.describe().set_index("domain")
    assert described["rows"].tolist() == [20_239, 173_008, 6_909, 13_647, 5_659]  # of tabs 0, 1, 2, 4 and 6
    assert kuairand.notes["rows"] == 219_462
    assert kuairand.notes["rows read"] == 228_329
    assert kuairand.notes["exact duplicates dropped"]["the five tabs"] == 225_026 - 219_860
    assert kuairand.notes["further twins dropped"] == {"all tabs": 425, "the five tabs": 219_860 - 219_462}
    assert kuairand.notes["further twins of another label"] == {"all tabs": 1, "the five tabs": 1}
    assert described.users["tab 1"] == 23_569
    assert described.click_rate["tab 1"] == pytest.approx(0.4939, abs=1e-4)
    assert [len(getattr(kuairand, s)) for s in SPLITS] == [175_570, 21_946, 21_946]


def test_real_kuairand_has_no_leak(kuairand):
    assert not {f.name for f in kuairand.fields} & set(raw.LEAKS)
    for f, column in enumerate(kuairand.train.features.T):
        rate = pd.Series(kuairand.train.label).groupby(column).agg(["mean", "size"])
        common = rate[rate["size"] > 2000]
        assert common["mean"].between(0.01, 0.99).all(), kuairand.fields[f].name


# ------------------------------------------------------------------------------------------------ download


def refuse(*_, **__):
    raise OSError("the network is down\nand more")


def test_a_failed_download_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "BASE", tmp_path)
    monkeypatch.setattr("pooch.retrieve", refuse)
    with pytest.raises(DataError, match="the network is down\n") as error:
        kuairand.download("kuairand-pure")
    told = "KuaiRand-Pure.tar.gz 0820331067a3784d9691136f772b35a7 zenodo.org/records/10439422 data/raw/kuairand-pure/"
    for words in (*told.split(), "CROCO_DATA"):
        assert words in str(error.value)


def test_an_installed_package_keeps_its_data_where_the_user_stands(tmp_path):
    shutil.copytree(ROOT / "croco_lib", tmp_path / "site-packages" / "croco_lib")
    (tmp_path / "here").mkdir()
    script = "from croco_lib.datasets import raw, store; print(raw.roots()[0], store.home('x'))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CROCO_")}
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "here",
        env={**environment, "PYTHONPATH": str(tmp_path / "site-packages")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.split() == [str(tmp_path / "here/data/raw"), str(tmp_path / "here/data/prepared/x")]


def test_a_download_asks_for_the_published_archive_and_md5(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.delenv("CROCO_DATA", raising=False)
    monkeypatch.setattr(places, "BASE", tmp_path)
    monkeypatch.setattr("pooch.retrieve", lambda url, **rest: asked.update(rest, url=url))
    assert kuairand.download("kuairand-1k") == tmp_path / "data" / "raw" / "kuairand-1k" == asked["path"]
    assert asked["url"] == "https://zenodo.org/records/10439422/files/KuaiRand-1K.tar.gz?download=1"
    assert asked["known_hash"] == "md5:6b0b9c8222d67fcd4c676218edca3f1f"
    monkeypatch.setenv("CROCO_DATA", str(tmp_path / "mine"))  # where `load` will look for it
    assert kuairand.download("kuairand-1k") == tmp_path / "mine" / "kuairand-1k" == asked["path"]


def test_an_archive_that_was_half_unpacked_is_unpacked_again(monkeypatch, tmp_path):
    monkeypatch.setenv("CROCO_DATA", str(tmp_path / "data"))
    packed = tmp_path / "log.tar.gz"
    (tmp_path / "log.csv").write_text("user,item\n" * 1_000)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "log.csv", "log.csv")
    url, md5 = packed.as_uri(), pooch.file_hash(str(packed), alg="md5")
    monkeypatch.setattr("pooch.core.choose_downloader", lambda *_, **__: lambda url, to, _: shutil.copy(packed, to))

    def fetch():
        return places.fetch("log", packed.name, url, md5, "") / "log.csv"

    fetch().write_text("user,")  # as a kill leaves it
    assert fetch().read_text() == (tmp_path / "log.csv").read_text()


def test_an_archive_without_known_md5_is_not_fetched(monkeypatch):
    monkeypatch.setattr("pooch.retrieve", refuse)
    with pytest.raises(DataError, match="md5 of KuaiRand-27K.tar.gz is not known.*data/raw/kuairand-27k/"):
        kuairand.download("kuairand-27k")


def test_repeated_rows_are_counted():
    first, other = clicks(), clicks()[:9]
    frame = pd.concat([first, first[:30], other.assign(click=1 - other.click)])  # the last differ in the label
    data = from_frame(frame, **ROLES, fields=["kind"])
    read = frame[["click", "place", "who", "what", "kind"]]
    assert data.notes["rows that repeat another in the columns read, kept"] == read.duplicated().sum() >= 30


def test_a_log_of_a_header_alone_is_refused(raw_folder):
    write(raw_folder / LOG_FILE, [])
    with pytest.raises(DataError, match=f"{LOG_FILE}: this file has no lines of data"):
        croco_lib.load("kuairand-pure")


def test_a_time_that_is_also_a_field_splits_and_trains():
    data = load_table(clicks(when=np.arange(400) % 40), fields=["when"], split="time", time="when")
    assert "when" in [f.name for f in data.fields]
    when = [f.name for f in data.fields].index("when")
    first, last = (data.fields[when].values[split.features[:, when] - 1] for split in (data.train, data.valid))
    assert first.max() <= last.min()  # the test's times, all later, are unknown
    assert data.test.features[:, when].max() == 0 < data.train.features[:, when].min()
    croco_lib.fit(croco_lib.build("shared-bottom", data, dim=2), data, epochs=1, progress=False)


def test_rows_put_together_by_hand_are_checked(small_world):
    first, *others = small_world.fields
    bag = Bag(np.arange(first.size + 1), np.arange(first.size, dtype=np.int32), np.ones(first.size, np.float32))
    hollow = replace(bag, offsets=np.where(bag.offsets == 1, 2, bag.offsets))
    assert replace(small_world, fields=(replace(first, bag=bag), *others)).fields[0].bag is bag
    for change in (
        {"values": np.arange(first.size)},  # one more than there are ids
        {"bag": replace(bag, ids=bag.ids + 1)},  # the last is another field's
        {"bag": hollow},  # bag 1 holds nothing
    ):
        with pytest.raises(
            DataError, match=f"field '{first.name}' has values or bags that do not fit its {first.size} ids"
        ):
            replace(small_world, fields=(replace(first, **change), *others))
    wide = replace(small_world.train, features=small_world.train.features.astype(np.uint32))
    with pytest.raises(DataError, match="whole numbers"):
        replace(small_world, train=wide)
    with pytest.raises(CrocoError, match="Unknown role 'time'"):
        small_world.column("time")


def test_rows_put_together_by_hand_are_checked_one_by_one(small_world):
    train, (first, *others) = small_world.train, small_world.fields
    below = train.features.copy()
    below[5, 3] = -1
    bag = Bag(np.arange(first.size + 1), np.arange(first.size, dtype=np.int32) - 1, np.ones(first.size, np.float32))
    for change, words in (
        (dict(train=replace(train, features=below)), "train has ids beyond the size of their field"),
        (dict(train=replace(train, domain=train.domain - 1)), "train has ids beyond .*, or unlisted domains"),
        (dict(train=replace(train, domain=train.domain + 5)), "train has ids beyond .*, or unlisted domains"),
        (dict(train=replace(train, user=train.user[:-1])), "train has users of another number than its rows"),
        (dict(fields=(replace(first, bag=bag), *others)), f"field '{first.name}' has values or bags that do not fit"),
    ):
        with pytest.raises(DataError, match=words):
            replace(small_world, **change)


def test_fresh_rows_are_as_many_in_every_domain_and_follow_their_seed(small_world):
    one, again, other = (small_world.world.fresh(700, seed=seed) for seed in (3, 3, 4))
    assert np.bincount(one.domain).tolist() == [700] * 5 and np.array_equal(one.features, again.features)
    assert (one.features[:, 0] != other.features[:, 0]).mean() > 0.9 and (one.label != other.label).mean() > 0.2
