"""A first look at a file names what is wrong with it, and its last line can be run as it stands."""

import json
import shlex

import numpy as np
import pandas as pd
import polars as pl
import pytest

from croco_lib import CrocoError, DataError
from croco_lib.look import report as room
from croco_lib.look.report import first_look


def clicks(rows: int = 6000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 60, rows), rng.integers(0, 40, rows)
    p = 1 / (1 + np.exp(-np.random.default_rng(1).normal(size=60)[user]))
    click = (rng.random(rows) < p).astype(int)
    frame = pd.DataFrame(
        {
            "member": user,
            "sku": [f"{v:05d}" for v in item],
            "ts": 1_650_000_000 + np.arange(rows),
            "place": rng.choice(["feed", "search", "tiny"], rows, p=[0.7, 0.29, 0.01]),
            "hour": rng.integers(0, 24, rows),
            "watched": click * 9,
            "empty": None,
            "click": click,
        }
    )
    return pd.concat([frame, frame[:70]])


def written(frame, path):
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def file(tmp_path):
    return written(clicks(), tmp_path / "my clicks.csv")


def test_it_names_roles_kinds_and_faults(file):
    about = first_look(file)
    assert about["roles"] == dict(label="click", domain="place", user="member", item="sku", time="ts")
    assert about["rows"] == 6070 and about["repeated_rows"] == 70 and about["separator"] == ","
    assert about["columns"]["sku"] == dict(kind="text", gaps=0, distinct=40, leading_zeros=6070, scientific=0)
    assert about["columns"]["empty"] == dict(kind="empty", gaps=6070, distinct=0, leading_zeros=0, scientific=0)
    assert about["alone"]["watched"] == 1.0 and 0.6 < about["alone"]["member"] < 0.9 and about["alone"]["hour"] < 0.6
    frame = clicks()
    assert {d: v["rows"] for d, v in about["domains"].items()} == frame.place.value_counts().to_dict()
    assert about["users_with_both_labels"] == (frame.groupby("member").click.nunique() == 2).sum()
    said = "\n".join(about["warnings"])
    assert "sku: 6070 values with leading zeros" in said and "70 rows repeat" in said
    assert "watched: alone it tells the label" in said and "too small to measure well: search, tiny" in said
    assert "watched" not in about["next"] and "empty" not in about["next"]


@pytest.mark.parametrize("name", ["n", "y", "clicks"])
def test_a_column_of_any_name_is_counted(tmp_path, name):
    """As a domain, a user and a number."""
    plain = first_look(written(clicks(), tmp_path / "plain.csv"))
    for column, role in (("place", "domain"), ("member", "user"), ("hour", None)):
        path = written(clicks().rename(columns={column: name}), tmp_path / f"{role}.csv")
        about = first_look(path, **({role: name} if role else {}))
        assert about["domains"] == plain["domains"] and about["roles"][role or "label"] == (name if role else "click")
        assert about["users_with_both_labels"] == plain["users_with_both_labels"]


def test_a_role_that_is_none_is_named(file):
    with pytest.raises(CrocoError, match="Unknown role 'labl'. Did you mean 'label'"):
        first_look(file, labl="click")


def test_csv_and_parquet_look_alike_in_any_pieces(file, tmp_path, monkeypatch):
    clicks().to_parquet(tmp_path / "a.parquet", index=False)
    one, two = first_look(file), first_look(tmp_path / "a.parquet")
    monkeypatch.setattr(room, "BLOCK", 5_000)
    three = first_look(file)
    for other in (two, three):
        for key in ("rows", "repeated_rows", "columns", "roles", "domains", "alone"):
            assert other[key] == one[key], key


def test_a_sample_stands_for_a_large_file(file, monkeypatch):
    monkeypatch.setattr(room, "SAMPLE", 2_000)
    monkeypatch.setattr(room, "BLOCK", 20_000)
    about = first_look(file)
    assert about["rows"] == 6070 and 500 < about["rows_sampled"] <= 2_000
    assert about["alone"]["watched"] > 0.99 and abs(about["click_rate"] - clicks().click.mean()) < 0.05


def test_a_spoiled_column_is_named(tmp_path):
    for spoiled in ("1.08775E+14", "1.2000000000000724e+18"):
        clicks().assign(sku=spoiled).to_csv(tmp_path / "a.csv", index=False)
        assert any("sku: 6070 values like 1.2E+14" in w for w in first_look(tmp_path / "a.csv")["warnings"])


def people(**changed):
    """A plain log, some of its columns changed, added or (None) left out."""
    frame = clicks()[["member", "sku", "ts", "place", "hour", "click"]].iloc[:6000].assign(**changed)
    return frame.drop(columns=[name for name, values in changed.items() if values is None])


def looked(folder, **changed):
    people(**changed).to_csv(folder / "a.csv", index=False)
    return first_look(folder / "a.csv")


def test_what_is_known_only_after_the_click_is_found(tmp_path):
    """Rare reactions, a view that most clicks have, and seconds of which hardly two rows have the same."""
    rng, click = np.random.default_rng(2), people().click.to_numpy()
    chance = rng.random(6000)
    about = looked(
        tmp_path,
        is_like=(click == 1) & (chance < 0.03),
        long_view=((click == 1) & (chance < 0.6)).astype(int),
        play_time=np.where(click == 1, 5_000, 100) + rng.permutation(6000),
        noise=rng.integers(0, 2, 6000),
        score=rng.permutation(6000),
        **{"size, cm": rng.integers(0, 9, 6000)},  # --fields could not name it
    )
    assert about["alone"]["is_like"] < 0.6 and about["alone"]["long_view"] < 0.9  # so it is not AUC that finds them
    asked = {w.partition(":")[0] for w in about["warnings"] if "after the click" in w}
    assert asked == {"is_like", "long_view", "play_time"}
    fields = set(about["next"].partition("--fields ")[2].split(","))
    assert "noise" in fields and not {"is_like", "long_view", "play_time", "score"} & fields
    assert not any("cm" in field for field in fields)


def test_twins_that_differ_in_one_column_are_found(tmp_path):
    frame = people()
    twins = frame.iloc[:50].assign(hour=99)
    other = frame.iloc[50:70].assign(hour=99, place="elsewhere")  # differ in two
    pd.concat([frame, twins, other, frame.iloc[:9]]).to_csv(tmp_path / "a.csv", index=False)
    about = first_look(tmp_path / "a.csv")
    assert about["near_twins"] == {"hour": 50} and about["repeated_rows"] == 9
    assert any("50 of 6079 rows equal another in every column but hour" in w for w in about["warnings"])
    pd.concat([frame, twins]).drop(columns="ts").to_csv(tmp_path / "b.csv", index=False)
    assert first_look(tmp_path / "b.csv")["near_twins"] == {}


def test_what_is_not_found_is_asked_for(tmp_path):
    pd.DataFrame({"a": ["x", "y"], "b": ["1.5", "2.5"]}).to_csv(tmp_path / "a.csv", index=False)
    assert "no column looks like the label; name it with --label" in "".join(first_look(tmp_path / "a.csv")["warnings"])
    with pytest.raises(ValueError, match="Unknown column 'c'"):
        first_look(tmp_path / "a.csv", label="c")
    (tmp_path / "b.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="no rows"):
        first_look(tmp_path / "b.csv")


def test_a_label_of_words_is_asked_for_and_never_a_field(tmp_path):
    flag = np.random.default_rng(0).integers(0, 2, 6000)
    about = looked(tmp_path, is_clicked=np.where(clicks().click[:6000], "yes", "no"), click=None, is_member=flag)
    assert "label" not in about["roles"] and "--label LABEL" in about["next"] and "is_clicked" not in about["next"]
    assert "is_clicked: named like a label, but it does not hold 0 and 1. Make it these first." in about["warnings"]
    assert "is_member" in about["next"].partition("--fields")[2]
    assert looked(tmp_path, click=None, is_member=flag)["roles"]["label"] == "is_member"  # where it is the only one


def test_the_surest_name_is_taken_not_the_first(tmp_path):
    frame = people(member=None, sku=None, ts=None)
    rng = np.random.default_rng(0)
    for name, count in (("user_segment", 9), ("product_category", 9), ("update_channel", 9), ("ts", 5000)):
        frame[name] = rng.integers(0, count, len(frame))
    frame = frame.assign(user_id=rng.integers(0, 300, len(frame)), item_id=rng.integers(0, 90, len(frame)))
    frame.to_csv(tmp_path / "b.csv", index=False)
    roles = first_look(tmp_path / "b.csv")["roles"]
    assert (roles["user"], roles["item"], roles["time"]) == ("user_id", "item_id", "ts")


def test_kinds_are_those_of_the_values_however_they_are_written(tmp_path):
    rng = np.random.default_rng(0)
    about = looked(
        tmp_path,
        price=[f"{v:.4f}".replace(".", ",") for v in rng.random(6000)],
        campaign=rng.choice(2**62 + rng.integers(0, 2**50, 40), 6000),
        slot=rng.integers(0, 9, 6000).astype(float),
    )
    kinds = {name: about["columns"][name]["kind"] for name in ("price", "campaign", "slot")}
    assert kinds == {"price": "numbers", "campaign": "whole numbers", "slot": "whole numbers"}
    assert "campaign" in about["next"] and "slot" in about["next"] and "price" not in about["next"]


def test_gaps_and_spellings_are_told_and_the_command_lets_gaps_pass(tmp_path):
    place, hour, member = (people()[c].astype(object).to_numpy(copy=True) for c in ("place", "hour", "member"))
    place[:200], hour[:50], member[:7] = [str(v).upper() + " " for v in place[:200]], None, None
    about = looked(tmp_path, place=place, hour=hour, member=member)
    said = "\n".join(about["warnings"])
    assert "domains that differ only in capitals or blanks" in said
    assert "member: 7 gaps, which `croco fit` refuses in the user" in said
    assert about["next"].endswith("--option missing=unknown")
    assert "missing=unknown" not in looked(tmp_path)["next"] and "capitals" not in "".join(looked(tmp_path)["warnings"])


def test_a_user_that_stands_for_all_who_are_not_known_is_told(tmp_path):
    rng = np.random.default_rng(0)
    users = rng.integers(0, 2000, 6000)
    said = "\n".join(looked(tmp_path, member=np.where(rng.random(6000) < 0.12, 0, users))["warnings"])
    assert "member: 12% of the rows are of '0'; does it stand for all who are not known?" in said
    assert not looked(tmp_path, member=users)["giant"]
    assert not looked(tmp_path)["giant"]  # sixty users: each has many rows
    assert not looked(tmp_path, member=np.where(rng.random(6000) < 0.3, 0, users % 30))["giant"]  # a busy one of few


def test_nan_in_parquet_is_a_gap_and_parts_may_order_their_columns_otherwise(tmp_path):
    label = people().click.astype(float).to_numpy(copy=True)
    label[:10] = np.nan
    frame = pl.from_pandas(people(click=label), nan_to_null=False)
    frame.head(3000).write_parquet(tmp_path / "part-0.parquet")
    frame.tail(3000).select(frame.columns[::-1]).write_parquet(tmp_path / "part-1.parquet")
    about = first_look(tmp_path)
    assert about["rows"] == 6000 and about["columns"]["click"]["gaps"] == 10 and about["roles"]["label"] == "click"


def test_columns_that_have_no_text_are_left_out_and_the_others_looked_at(tmp_path):
    frame = pl.from_pandas(people())
    late = pl.lit(1, pl.Int64).cast(pl.Duration)
    odd = frame.with_columns(raw=pl.lit(b"\xff"), late=late, words=pl.concat_list("click", "click"))
    odd.write_parquet(tmp_path / "a.parquet")
    about = first_look(tmp_path / "a.parquet")
    assert list(about["columns"]) == frame.columns and about["rows"] == len(frame)


def test_so_few_clicks_that_no_column_can_be_judged_leave_the_fields_in_the_command(tmp_path):
    about = looked(tmp_path, click=(np.arange(6000) == 5).astype(int))
    assert set(about["alone"].values()) == {0.5} and about["next"].endswith("--fields hour")
    json.dumps(about, allow_nan=False)


def test_the_command_and_the_line_to_go_on_with(file, croco):
    status, said, _ = croco("look", file)
    assert status == 0 and "! watched: alone it tells the label" in said
    following = said.splitlines()[-1].removeprefix("next: croco ")
    about = json.loads(croco("look", file, "--json")[1])
    assert about["next"] == f"croco {following}"
    assert croco(*shlex.split(following), "--epochs", 1)[0] == 0


def test_a_column_of_gaps_under_a_name_of_two_lines_is_counted(tmp_path):
    (tmp_path / "a.csv").write_text('click|place|who|"two\nlines"\n0|a|008|\n1|b|7|\n')
    assert first_look(tmp_path / "a.csv")["columns"]["two\nlines"]["gaps"] == 2


def test_a_label_that_is_not_binary_or_a_name_that_stands_twice_is_named(tmp_path):
    rows = "".join(f"{i % 5 + 1},{i % 3},{i % 40},{i % 60}\n" for i in range(600))
    (tmp_path / "a.csv").write_text("rating,place,who,what\n" + rows)
    about = first_look(tmp_path / "a.csv", label="rating")
    assert "rating: a label must be 0 or 1" in about["warnings"][0] and "click_rate" not in about
    (tmp_path / "a.csv").write_text("who,place,who,what\n" + rows)
    with pytest.raises(DataError, match="two columns have the same name"):
        first_look(tmp_path / "a.csv")


def test_a_letter_of_windows_far_down_is_read_as_the_library_reads_it(tmp_path):
    path = tmp_path / "clicks.csv"
    rows = "".join(f"u{i % 50},i{i % 30},p{i % 2},{i % 3 % 2}\n" for i in range(40_000))
    path.write_bytes(b"user,item,place,click\n" + rows.encode() + "Ren\u00e9,i1,p1,1\n".encode("cp1252"))
    about = first_look(path)
    assert about["encoding"] == "cp1252" and about["rows"] == 40_001 and about["columns"]["user"]["distinct"] == 51
    path.write_bytes(path.read_bytes() + "Ren\u00e9,i1,p1,1\n".encode())
    with pytest.raises(DataError, match="line 40002 is not UTF-8, and other lines are"):
        first_look(path)


def test_quoted_line_breaks_may_stand_where_two_pieces_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "BLOCK", 5_000)
    path = written(clicks().assign(words="how\nto " + "x" * 400 + "\n\nplease"), tmp_path / "a.csv")
    about = first_look(path)
    assert about["rows"] == 6070 and about["columns"]["words"]["distinct"] == 1
