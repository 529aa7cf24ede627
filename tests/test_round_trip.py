"""Any table, trained on, exported and scored as a file, has the scores of the training path: text in, text out."""

from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import ROLES

import croco_lib
from croco_lib.data.splits import split_random
from croco_lib.data.tables import GAPS
from croco_lib.data.vocabulary import loose
from croco_lib.evaluation import predict
from croco_lib.online import serving
from croco_lib.schema import SPLITS, Split

ROWS = 90
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=6)
# As people have them: leading zeros, versions and prices as text, truth values, codes, any letters.
WRITTEN = st.one_of(
    st.integers(0, 99).map("{:04d}".format),
    st.integers(0, 99).map(str),
    WORDS,
    st.sampled_from(
        [*'2.10|2.1|-7|+7|True|FALSE|x,y|say "hi"| 7|1e5|N/A|é|ß|日本|=1+1'.split("|"), str(2**63 + 5), "9" * 30]
    ),
)


def apart(text: list[str]) -> bool:
    """Whether no two are one id but for the way in which tools write it: in scoring 3.0 stands for 3, where training
    tells them apart; and none is what a CSV cannot tell from a gap, or a spreadsheet has spoiled."""
    bare = loose(pl.Series(text, dtype=pl.String))
    return bare.n_unique() == len(text) and not any("E+" in t or t in GAPS for t in text)


# Whole numbers stay below 2^53: with gaps, pandas makes floats of them, and larger ones are then refused.
COLUMNS = st.one_of(
    st.lists(WRITTEN, min_size=2, max_size=8, unique=True).filter(apart),
    st.lists(st.integers(-(2**52), 2**52), min_size=2, max_size=8, unique=True),
    st.lists(st.integers(0, 2**40).map(float), min_size=2, max_size=8, unique=True),
    st.just([True, False]),
    st.just(list(pd.date_range("2022-04-01", periods=4))),
)


class Twin:
    """Stands for onnxruntime's session: the trained model itself. That both say the same is test_serving's matter."""

    def __init__(self, model):
        self.model = model

    def run(self, _, given):
        features, domain = given["features"], given["domain"]
        labels = np.zeros(len(domain), np.float32)
        return [1 / (1 + np.exp(-predict(self.model, Split(features, domain, labels, domain, ()))))]


def check(folder, values, places, seed, min_count, how, exported):
    """Train on a table of these values and score its rows, read as CSV and as Parquet."""
    rng = np.random.default_rng(seed)
    who, what, kind = (pd.Series(v)[rng.integers(0, len(v), ROWS)].reset_index(drop=True) for v in values)
    kind = kind.astype(object).where(rng.random(ROWS) > 0.2, None)
    place, click = np.array(places, object)[np.arange(ROWS) % 2], np.arange(ROWS) % 4 // 2
    frame = pd.DataFrame(dict(click=click, place=place, who=who, what=what, kind=kind.infer_objects()))
    frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
    frame.to_csv(folder / "rows.csv", index=False)
    frame.to_parquet(folder / "rows.parquet")
    source = frame if how == "pandas" else folder / f"rows.{how}"
    try:
        data = croco_lib.from_frame(source, **ROLES, fields=["kind"], missing="unknown", min_count=min_count, seed=seed)
    except croco_lib.DataError as error:  # nine rows of validation can be of one place
        assert "has no rows in the" in str(error) or "only one class" in str(error)
        return
    model = croco_lib.fit(croco_lib.build("shared-bottom", data, dim=2), data, epochs=1, progress=False).model
    if exported:
        serving.export(model, data, folder)
    else:
        serving.save_schema(data, folder)
    part = split_random(ROWS, seed)
    for rows in ("rows.csv", "rows.parquet"):
        with nullcontext() if exported else patch.object(serving, "session", lambda _: Twin(model)):
            scores, counts = serving.score(folder, folder / rows)
        for s, split in enumerate(SPLITS):
            expected = 1 / (1 + np.exp(-predict(model, getattr(data, split))))
            assert scores[part == s] == pytest.approx(expected, abs=1e-5)
        gaps = counts.set_index("field").missing
        assert gaps["kind"] == data.notes["missing values given the unknown id"].get("kind", 0)
        unknown = sum((getattr(data, s).features == 0).sum() for s in SPLITS)
        assert counts[["unknown", "missing"]].to_numpy().sum() == unknown


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(COLUMNS, min_size=3, max_size=3),
    st.lists(WORDS, min_size=2, max_size=2, unique=True).filter(lambda p: apart(p) and "all" not in p),
    st.integers(0, 9),
    st.sampled_from([0, 3]),
    st.sampled_from(["csv", "parquet", "pandas"]),
)
def test_any_table_scores_as_in_training(tmp_path_factory, values, places, seed, min_count, how):
    check(tmp_path_factory.mktemp("any"), values, places, seed, min_count, how, exported=False)


@pytest.mark.parametrize(("how", "exported"), [("csv", True), ("pandas", False)])
def test_a_table_of_awkward_values_scores_as_in_training(tmp_path, how, exported):
    values = [["0007", "7", "2.10", "2.1", "日本", "x,y"], [True, False], [3.0, 2.0**40, 11.0]]
    check(tmp_path, values, ["é", "b"], 0, 0, how, exported)
