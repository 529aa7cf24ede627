"""The rules on tables whose truth is planted: every claim can come out either way, and noise alone decides nothing."""

import inspect
import json
import shutil
from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity

from croco_lib import CrocoError
from croco_lib.console import VERSIONS
from croco_lib.data.world import TABS, begin_world, make_world
from croco_lib.errors import ROOT
from croco_lib.models import options_of
from croco_lib.study import cost, intervals, jobs, rules, stamp, verdicts
from croco_lib.study import studies as room
from croco_lib.study.rules import CONTRADICTED, HOLDS, NOISY, UNMEASURED
from croco_lib.study.space import knobs_of, label_of
from croco_lib.study.tables import Tables as read_tables
from croco_lib.study.verdicts import p_value

EIGHT = "notebooks/08_what_it_depends_on.ipynb"
SEVEN = "notebooks/07_ablations.ipynb"
DATA = ("kuairand-pure", "world", "movielens-1m")  # the columns of the README's table
ROWS = {"a": 10_000, "b": 5_000, "c": 2_000, "d": 500}  # of the domains, in training
STUDIES = ("main", "ablations", "alpha", "sets", "sample", "regularisers")
FULL = ("crocodile", "")


def sign_of(study, model, variant):
    """How good a run is where the paper is right: 1 for what it says wins, −1 for what loses."""
    if study == "alpha":
        return 0
    wins = {"sets": True, "sample": variant != "alpha: 0.0", "regularisers": variant == "regulariser: cov"}
    return 1 if wins.get(study, (model, variant) == FULL) else -3 if model in ("me-ple", "sdem") else -1


def plant(folder, data, truth, noise=5e-4, users=3e-4, rows=ROWS, seeds=6, drop_alpha=0.0):
    """Tables of all studies on one data set: `truth` times 0.01 is the AUC that tells winners from losers."""
    rng, parts = np.random.default_rng(0), ["all", *rows]
    plain = dict(stage="final", data=data, settings="{}", status="done", error="", fingerprint="f")
    plain |= {"versions": label_of(VERSIONS), "rules": stamp.RULES_HASH}
    for study in STUDIES:
        planned, runs, values, resampled, costs = room.read_studies()[study], [], [], [], []
        for model, variant in product(planned["models"], room.variants_of(planned)):
            label = label_of({k: v for k, v in variant.items() if not isinstance(v, list)})
            good = truth * sign_of(study, model, label)
            starved = "d" if model in ("me-ple", "sdem") else None
            own = {part: 0.78 + 0.01 * good * (2 if part == starved else 1) for part in parts}
            if study == "alpha" and label == "alpha: 3.0":
                own = {part: value - drop_alpha for part, value in own.items()}
            luck = {part: rng.normal(0, users / 2**0.5) for part in parts}  # the test users that were drawn
            for seed in range(seeds):
                key = f"{study}{model}{label}{seed}"
                run = dict(key=key, model=model, variant=label, seed=seed, valid_auc=own["all"])
                runs.append(plain | run)
                costs.append((key, model, 1, 1, "2026-01-01"))
                values += [
                    (key, "test", part, metric, own[part] + luck[part] + rng.normal(0, noise))
                    for part in parts
                    for metric in ("auc", "gauc")
                ]
                values += inside(key, model, label, truth, rows, rng)
            resampled += [
                ("test", part, model, label, seeds, draw, *rng.normal(0.78, users / 2**0.5, 2))
                for part in parts
                for draw in range(200)
            ]
        for kind, columns, table in (
            ("runs", None, runs),
            ("values", ["key", "split", "part", "metric", "value"], values),
            ("users", ["split", "part", "model", "variant", "seeds", "draw", "auc", "gauc"], resampled),
            ("costs", ["key", "model", "seconds", "rows_per_second", "date"], costs),
        ):
            pd.DataFrame(table, columns=columns).to_csv(room.file_of(study, data, kind, folder), index=False)


def inside(key, model, label, truth, rows, rng):
    """What is measured inside a model: diverse and uncorrelated with CovLoss, own tables poor in small domains."""
    croc = truth if model == "crocodile" else -truth
    values = [(key, "train", part, "rows", count) for part, count in rows.items()]
    values += [
        (key, "test", "all", "diversity_index", 0.3 + 0.1 * croc + rng.normal(0, 0.01)),
        (key, "test", "all", "diversity_index_start", 0.5),
        (key, "test", "all", "expert_auc", 0.7),
        (key, "valid", "all", "covariance", 10.0 ** (-croc + rng.normal(0, 0.1))),
        (key, "valid", "all", "correlation", 0.3 - 0.2 * croc + rng.normal(0, 0.01)),
    ]
    if model in ("me-ple", "sdem"):
        for place, part in enumerate(rows):
            values += [
                (key, "train", part, "own_table_abundance", 8 - truth * place + rng.normal(0, 0.1)),
                (key, "train", part, "own_table_abundance_start", 12.0),
            ]
    return values


Tables = cache(read_tables)  # of the committed studies, which no test here changes
judged = cache(verdicts.judge)  # of the committed tables


def verdict_of(folder, data="world"):
    table = verdicts.judge(folder)
    return table[table.data == data].drop_duplicates("number").set_index("number").verdict


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """The tables of a made world in which the paper is right."""
    folder = tmp_path_factory.mktemp("right")
    plant(folder, "world", truth=1)
    return folder


def test_every_claim_is_reproduced_where_it_is_planted(right):
    said = verdict_of(right)
    assert set(said) == {"reproduced"} and len(said) == 11


def test_every_claim_is_contradicted_where_the_reverse_is_planted(tmp_path):
    plant(tmp_path, "world", truth=-1, drop_alpha=0.02)
    said = verdict_of(tmp_path)
    assert set(said.drop(11)) == {"contradicted"}
    assert said[11] == "cannot be tested here"  # CovLoss gains nothing there, so 32 rows can lose nothing


def test_noise_alone_decides_next_to_nothing(tmp_path):
    plant(tmp_path, "world", truth=0, users=2e-3)
    said = verdict_of(tmp_path).drop([9, 11])
    assert (said != "reproduced").all() and (said == "contradicted").sum() <= 1  # 1 in 40 a claim, by luck


def test_what_speaks_of_scarce_data_is_tested_where_data_is_scarce(tmp_path):
    plant(tmp_path, "movielens-1m", truth=1, rows={"a": 300, "b": 200, "c": 150, "d": 100})
    said = verdict_of(tmp_path, "movielens-1m")
    assert (said[[2, 3, 5]] == "cannot be tested here").all() and (said.drop([2, 3, 5]) == "reproduced").all()


def test_a_failed_run_never_counts_for_anyone(right, tmp_path):
    shutil.copytree(right, tmp_path, dirs_exist_ok=True)
    path = room.file_of("main", "world", "runs", tmp_path)
    runs = pd.read_csv(path, dtype=str, keep_default_na=False)
    runs.loc[runs.model == "star", ["status", "error"]] = "failed", "diverged"
    runs.to_csv(path, index=False)
    with pytest.raises(CrocoError, match=r"lack runs that failed: star \(diverged\)"):
        verdicts.judge(tmp_path)


def test_other_data_or_settings_than_those_of_main_are_refused(right, tmp_path):
    shutil.copytree(right, tmp_path, dirs_exist_ok=True)
    path = room.file_of("alpha", "world", "runs", tmp_path)
    text = path.read_text()
    path.write_text(text.replace(",f,", ",other,"))
    with pytest.raises(CrocoError, match="'alpha' on world were made with other data"):
        verdicts.judge(tmp_path)
    path.write_text(text.replace("{}", '"{""lr"": 9}"'))
    with pytest.raises(CrocoError, match="other settings of crocodile than the search of 'main' chose"):
        verdicts.judge(tmp_path)


@pytest.mark.parametrize("users", [0.5, 1])  # where both kinds of luck count, the formula is hardest
@pytest.mark.parametrize(("seeds", "short"), [(3, 0.035), (6, 0.015)])
def test_an_interval_covers_the_truth_as_often_as_it_says(users, seeds, short):
    rng = np.random.default_rng(0)
    at = users / seeds**0.5  # the users' error in units of the seeds'
    gaps = [intervals.gap(pd.Series(rng.normal(rng.normal(0, at), 1, seeds)), at) for _ in range(2000)]
    assert np.mean([g.low <= 0 <= g.high for g in gaps]) == pytest.approx(0.95, abs=short)


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_the_detectable_effect_is_seen_four_times_in_five(seeds):
    rng = np.random.default_rng(0)
    error = 1 / np.sqrt(seeds)
    effect = intervals.detectable(error, seeds - 1)
    d = rng.normal(effect, 1, (4000, seeds))
    assert abs((stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean() - 0.8) < 0.03


@pytest.mark.parametrize(
    ("values", "outcome"),
    [([0.01, 0.011, 0.012], HOLDS), ([-0.01, -0.011, -0.012], CONTRADICTED), ([0.01, -0.01, 0.002], NOISY)],
)
def test_a_sign_is_never_hidden(values, outcome):
    check = rules.above("x", intervals.gap(pd.Series(values)))
    assert check.outcome == outcome
    words = {HOLDS: "reproduced", CONTRADICTED: "contradicted", NOISY: "too noisy to say"}
    assert rules.verdict([check]) == words[outcome]
    good = rules.above("y", intervals.gap(pd.Series([1, 1.1, 0.9])))
    assert (rules.verdict([good, check]) == "contradicted") == (outcome == CONTRADICTED)
    assert rules.verdict([rules.unmeasured("z")]) == rules.verdict([]) == "cannot be tested here"
    assert rules.unmeasured("z").outcome == UNMEASURED


def test_many_checks_of_no_difference_are_seldom_a_contradiction(monkeypatch):
    monkeypatch.setattr(rules, "detectable", lambda *_, **__: np.nan)  # slow, and it decides nothing
    rng = np.random.default_rng(0)
    said = [
        rules.verdict([rules.above("", intervals.gap(pd.Series(rng.normal(size=6)))) for _ in range(6)])
        for _ in range(400)
    ]
    assert np.mean([s == "contradicted" for s in said]) < 0.04


def prose_of(name):
    """A page, or the markdown of a lesson, in one line."""
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return " ".join(text.split())


def in_readme(gap):
    """A difference and its interval as the README writes them."""
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def in_lesson(value, digits=4, sign=""):
    """A number as the lessons write it: .0023, −.0041."""
    return f"{value:{sign}.{digits}f}".replace("-", "−").replace("0.", ".", 1)


def with_interval(gap):
    """A difference and its interval as the lessons write them."""
    return "{} [{}, {}]".format(*map(in_lesson, gap[:3]))


def turned(gap):
    """The same difference the other way round."""
    return gap._replace(value=-gap.value, low=-gap.high, high=-gap.low)


def test_the_readme_counts_the_verdicts():
    card, text = verdicts.scorecard(judged()), prose_of("README.md")
    count = {data: card[data].value_counts() for data in DATA}
    words = "no one two three four five six seven eight nine ten eleven".split()
    made = [words[count["world"][said]] for said in ("reproduced", "contradicted")]
    assert "on the made world {} are reproduced and {} are contradicted".format(*made) in text
    real = [words[count["kuairand-pure"][said]] for said in ("reproduced", "too noisy to say")]
    assert "on the real days {} is reproduced (the loss is cheap) and {} are too noisy".format(*real) in text
    order = ("reproduced", "contradicted", "too noisy to say", "cannot be tested here")
    rated = [words[count["movielens-1m"].get(said, 0)] for said in order]
    form = "{} are reproduced, {} contradicted, {} too noisy to say, and {} cannot be tested."
    assert f"On MovieLens-1M {form.format(*rated)}" in text
    assert "Two cannot be tested on either." in text
    assert card[list(DATA[:2])].eq("cannot be tested here").all(axis=1).sum() == 2


def test_the_readme_says_what_the_tables_say():
    """A row a claim: its number and words, its verdict on each data set."""
    table = judged()
    card = verdicts.scorecard(table).set_index("number")
    text, lines = (ROOT / "README.md").read_text(), []
    for number, row in card.iterrows():
        lines.append(f"| {number} | {row.claim} | {' | '.join(row[data] for data in DATA)} |")
    assert all(line in text for line in lines), "the README's table should have these rows:\n" + "\n".join(lines)
    trends = table[(table.number == 2) & (table.data == "world") & table.what.str.startswith("rank")].value
    assert f"its rank correlations of {' and '.join(in_lesson(v, 2) for v in trends)} over five" in prose_of(
        "README.md"
    )


def test_what_the_readme_says_of_the_real_days_follows_from_the_tables():
    text = prose_of("README.md")
    table = judged().query("data == 'kuairand-pure'")
    lead = table[table.number == 4].iloc[0]
    assert lead.what.startswith("auc of crocodile minus shared-bottom's") and lead.outcome == NOISY
    assert f"Crocodile against Shared-Bottom stands at {lead.value:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}]" in text
    runs = pd.read_csv(room.file_of("main", "kuairand-pure", "runs"), keep_default_na=False)
    alpha = room.chosen_settings(runs, "crocodile")["alpha"]
    assert f"weight on offer, {alpha:g}, at which nothing of this is seen" in text and alpha == min(
        knobs_of("crocodile")["alpha"]
    )
    assert (table[table.number == 6].outcome == NOISY).all()  # covariance and correlation alike
    assert lead.high < 0.0009 and "this leaves no room for a lead of 0.0009" in text
    alone = Tables("main", "kuairand-pure").gap("single-domain", "shared-bottom")
    assert f"stands at {alone.value:+.4f} [{alone.low:+.4f}, {alone.high:+.4f}] from Shared-Bottom" in text
    assert 12 * p_value(alone) < 0.05  # "after allowing for twelve comparisons"


def test_what_the_readme_says_of_the_made_world_follows_from_the_tables():
    text, T, without = prose_of("README.md"), Tables("main", "world"), "crocodile without CovLoss"

    def said(one, other, **where):
        return in_readme(T.gap(one, other, **where))

    scarce = dict(part="tab 6", split="fresh")
    in_tab_6 = T.metric("auc", **scarce).mean()
    shared, own = (f"{in_tab_6[model]:.3f}" for model in ("shared-bottom", "me-ple"))
    assert f"AUC is {shared} for Shared-Bottom, {own} for ME-PLE and SDEM" in text and f"{in_tab_6['sdem']:.3f}" == own
    assert f"and {in_tab_6['single-domain']:.3f} for single-domain" in text
    assert T.domains().idxmin() == "tab 6" and round(T.domains().sum(), -4) == 320_000
    overall = T.metric("auc").mean()
    best = T.best_on_validation(model for model in overall.index if not model.startswith("crocodile"))
    assert best == "hinet" and overall.idxmax() == without
    lead = T.gap(without, best)
    assert f"stands at {said(without, best)} from HiNet" in text
    assert f"p times 12 is {12 * p_value(lead):.2f}" in text
    assert f"as searched, it stands at {said('crocodile', best)}" in text
    assert f"Crocodile is {T.gap('crocodile', 'me-ple', **scarce).value:.3f} ahead of ME-PLE" in text
    assert f"Shared-Bottom is ahead of Crocodile by {said('shared-bottom', 'crocodile', **scarce)}" in text
    assert f"and of Crocodile without CovLoss by {said('shared-bottom', without, **scarce)}" in text
    for tab in ("tab 0", "tab 2", "tab 4", "tab 6"):  # "the best mean in every domain but the largest"
        assert T.metric("auc", tab, "fresh").mean().idxmax() == "shared-bottom"

    def differs(one, other):
        return in_readme((one - other).gap())

    M, A, none = Tables("sets", "world"), Tables("alpha", "world"), Tables("sample", "world").side({"alpha": 0.0})
    weights = {T.chosen_alpha(): T.side("crocodile"), **{a: A.side({"alpha": a}) for a in (0.1, 0.3, 1.0, 3.0)}}
    assert all((side - none).gap().value < 0 for side in weights.values()) and len(weights) == 5
    light, heavy = (differs(weights[a], none) for a in (0.1, 1.0))
    assert f"At α = 0.1 the difference is {light}; at 1 it is {heavy}" in text
    two, five = (M.side({"sets": sets}, "auc", "tab 1", "fresh") for sets in (2, 5))
    assert f"five against two stand at {differs(five, two)} there" in text
    one = Tables("ablations", "world").side("crocodile with one set", "auc", "tab 1", "fresh")
    assert f"no loss is seen there: {differs(one, T.side('crocodile', 'auc', 'tab 1', 'fresh'))}.)" in text
    for where in (("all", "test"), *((domain, "fresh") for domain in T.domains().index)):
        sides = {m: M.side({"sets": m}, "auc", *where) for m in (2, 5)} | {3: T.side("crocodile", "auc", *where)}
        for one, other in combinations(sorted(sides), 2):
            is_largest = (one, other, *where) == (2, 5, "tab 1", "fresh")
            assert (18 * p_value((sides[other] - sides[one]).gap()) < 0.05) == is_largest
    control = Tables("control", "world:conflict=0")
    lead = differs(control.side("crocodile"), control.side("shared-bottom"))
    assert f"Crocodile stands at {lead} from Shared" in text
    assert f"and ME-MMoE at {in_readme(control.gap('me-mmoe', 'mmoe'))} from MMoE, which differs from it" in text
    knows, six = T.gap("crocodile", "mmoe", "expert_auc"), prose_of("notebooks/06_benchmark.ipynb")
    assert f"(an expert's own AUC is {-knows.value:.3f} lower)" in text and knows.high < -rules.AS_ABLE
    assert "an expert's own AUC stands at {} [{}, {}]. Held".format(*(in_lesson(x, 3) for x in knows[:3])) in six
    B, whole = Tables("ablations", "world"), T.side("crocodile")
    assert f"differs by {differs(T.side(without), whole)} without CovLoss" in text
    for model, words in (("a domain gate", "with MMoE's gate"), ("one set", "with one embedding set")):
        assert f"by {differs(B.side(f'crocodile with {model}'), whole)} {words}" in text
    assert T.chosen_alpha() == 0.01 and f"except α it is {differs(none, whole)}" in text
    equal = Tables("capacity", "world")
    said = [in_readme(equal.gap(model, "shared-bottom")) for model in ("hinet", "adasparse", "crocodile")]
    assert "stand at {} and {} from Shared-Bottom, Crocodile at {}.".format(*said) in text
    usual = Tables("start", "world").gap(*((model, {"start": 0.1}) for model in ("crocodile", "shared-bottom")))
    assert f"a sixth as wide, Crocodile stands at {in_readme(usual)}." in text
    assert f"HiNet minus Crocodile is {in_readme(equal.gap('hinet', 'crocodile'))}.)" in text
    millions = equal.runs.groupby("model").parameters.mean() / 1e6
    assert millions[["hinet", "adasparse", "crocodile"]].round(1).tolist() == [1.2, 1.2, 0.7]
    scarce = T.metric("auc", "tab 6", "fresh").mean()
    assert f"STAR, of one shared table, has {scarce['star']:.3f}, PLE {scarce['ple']:.3f};" in text


def test_what_the_readme_says_of_the_papers_opening_figure_follows_from_the_tables():
    text, T = prose_of("README.md"), Tables("main", "kuairand-pure")
    inside = T.values[T.values.part == "all"].pivot_table(index="model", columns="metric", values="value")
    diversity, fullness = (inside[m] / inside[f"{m}_start"] for m in ("diversity_index", "abundance"))
    shown = diversity.dropna().index
    assert "the eight models whose experts can be compared" in text and len(shown) == 8
    assert "it lies low on both, SDEM alone is high on both" in text
    for axis in (diversity[shown], fullness[shown]):
        assert axis.idxmax() == "sdem" and axis["crocodile"] < axis.median()
    assert "SDEM's gAUC is among the lowest" in text and T.metric("gauc").mean().rank()["sdem"] == 3


@pytest.mark.slow
def test_half_of_the_items_whose_abundance_is_measured_are_unknown_in_three_tabs(kuairand):
    """As README and lesson 06 say of SDEM's abundance on the real days."""
    assert "In each of tabs 0, 2 and 4 about half of the items that are measured have no training row;" in prose_of(
        "README.md"
    )
    assert "about half have no training row in tabs 0, 2 and 4" in prose_of("notebooks/06_benchmark.ipynb")
    train, item = kuairand.train, kuairand.column("item")
    items = [np.unique(train.features[train.domain == s, item]) for s in range(len(kuairand.domains))]
    measured = min(items, key=len)
    known = [np.isin(measured, of).mean() for of in items]
    unknown = {tab: 1 - share for tab, share in zip(kuairand.domains, known, strict=True) if share < 0.9}
    assert list(unknown) == ["tab 0", "tab 2", "tab 4"] and all(0.45 < u < 0.6 for u in unknown.values())


def test_what_the_readme_says_of_the_objective_follows_from_the_tables():
    text = prose_of("README.md")
    T = Tables("objective", "kuairand-pure")
    plain, literal = ({"objective": name} for name in ("sample", "domain"))

    def said(model):
        return in_readme(T.gap((model, plain), (model, literal)))

    assert f"that costs Shared-Bottom {said('shared-bottom')} of AUC and single-domain {said('single-domain')}" in text
    made = Tables("objective", "world")
    costs = [in_readme(made.gap((model, plain), (model, literal))) for model in ("shared-bottom", "single-domain")]
    assert "it costs Shared-Bottom {} of AUC on the test rows and single-domain {}, at".format(*costs) in text
    in_tab_6 = made.gap(("shared-bottom", plain), ("shared-bottom", literal), "auc", "tab 6", "fresh")
    assert f"Shared-Bottom's AUC there is lower by {in_readme(in_tab_6)}." in text
    assert T.gap(("shared-bottom", plain), ("single-domain", plain)).low > 0
    assert T.gap(("shared-bottom", literal), ("single-domain", literal)).high < 0


def test_what_is_said_of_the_models_on_movielens_follows_from_the_tables():
    readme, six = prose_of("README.md"), prose_of("notebooks/06_benchmark.ipynb")
    T, without = Tables("main", "movielens-1m"), "crocodile without CovLoss"
    auc, table = T.metric("auc").mean(), judged().query("data == 'movielens-1m'")
    order = list(auc.sort_values(ascending=False).index)
    assert order[:5] == ["mmoe", "me-mmoe", without, "shared-bottom", "crocodile"]
    assert f"The five best lie within {in_lesson(auc[order[0]] - auc[order[4]])}" in six
    best = T.best_on_validation(m for m in auc.index if not m.startswith("crocodile"))
    assert best == order[0] == "mmoe" and f"has the best mean ({auc['mmoe']:.4f})" in readme
    behind, within = T.gap("crocodile", best), T.gap("crocodile", best, "gauc")
    assert f"stands at {in_readme(behind)} by AUC and at {in_readme(within)} by gAUC" in readme
    both = with_interval(behind), with_interval(within)
    assert "Crocodile stands at {} from it by AUC and at {} by gAUC.".format(*both) in six
    paper = table[table.number == 4].paper
    assert (paper.to_numpy() == [0.0009, 0.0019]).all() and behind.high < 0.0009 and within.high < 0.0019
    assert f"(p times 12 is {in_lesson(12 * p_value(behind), 2)})" in six and "is not established (p times 12" in readme
    tables = T.gap("mmoe", "me-mmoe")  # one table, or one an expert
    assert f"stands at {with_interval(tables)} from ME-MMoE" in six and tables.low < 0 < tables.high
    said = [in_readme(T.gap("me-mmoe", "mmoe", metric)) for metric in ("auc", "gauc")]
    assert "stands at {} from it, and by gAUC, where ME-MMoE has the best mean, at {}.".format(*said) in readme
    within_users = T.metric("gauc").mean()
    assert within_users.idxmax() == "me-mmoe"
    both = in_lesson(within_users["me-mmoe"]), in_lesson(within_users["mmoe"])
    assert "ME-MMoE has the best mean ({} against MMoE's {})".format(*both) in six
    for one, other, form, text in (
        ("single-domain", "shared-bottom", "shares nothing at all, stands at {} from Shared-Bottom", readme),
        ("me-ple", "ple", "ME-PLE at {} from PLE", readme),
        ("sdem", "mmoe", "SDEM at {} from MMoE", readme),
        ("shared-bottom", "single-domain", "Shared-Bottom is {} ahead of single-domain", six),
        ("ple", "me-ple", "PLE {} ahead of ME-PLE", six),
        ("mmoe", "sdem", "MMoE {} ahead of SDEM", six),
    ):
        gap = T.gap(one, other)
        assert form.format(in_readme(gap) if text is readme else with_interval(gap)) in text
        assert 78 * p_value(gap) < 0.05  # "after any allowance"
        assert all(T.gap(one, other, "auc", part).value * gap.value > 0 for part in T.domains().index)
        assert all(p_value(T.gap(one, other, "auc", part)) < 0.05 for part in T.domains().index)
    twin = T.gap(without, "crocodile")
    assert f"stands at {in_readme(twin)} from Crocodile by AUC" in readme
    ahead = {m for m in auc.index if T.gap(m, "crocodile").low > 0}
    assert ahead == {"mmoe", "me-mmoe", without} and "three lines lie wholly above zero" in six
    assert not any(T.gap(m, "crocodile", "gauc").low > 0 for m in auc.index)
    assert not any(T.gap(m, "crocodile", "auc", "under 25").low > 0 for m in auc.index)
    assert 12 * p_value(twin) < 0.05 < 78 * p_value(twin) and "(p times 12 is .04; not one for all 78 pairs)" in six
    assert T.settings_of("crocodile") == {} and T.settings_of(without)["dim"] == 2 * options_of("crocodile")["dim"]
    knows = T.metric("expert_auc").mean()
    words = "is {}, against {} without CovLoss and {} in MMoE, from which it stands at {} [{}, {}]."
    lower = [in_lesson(x, 3) for x in T.gap("crocodile", "mmoe", "expert_auc")[:3]]
    assert words.format(*(in_lesson(knows[m], 2) for m in ("crocodile", without, "mmoe")), *lower) in six
    diverse = table[table.number == 1].iloc[0]
    assert "diversity holds, {} [{}, {}].".format(*(in_lesson(x, 2) for x in diverse[["value", "low", "high"]])) in six
    against = table[table.number == 4].against.iloc[0]
    assert f"one-sided p of {in_lesson(against)} just misses the .0125" in six and 0.0125 < against < 0.025
    tab_6 = dict(part="tab 6", split="fresh")
    pairs = (("shared-bottom", "single-domain"), ("ple", "me-ple"), ("mmoe", "sdem"))
    wide = [in_lesson(Tables("main", "world").gap(*pair, "auc", **tab_6).value, 2) for pair in pairs]
    assert "in tab 6 the same three gaps were {}, {} and {}.".format(*wide) in six
    times = table[table.number == 6].value.iloc[0]
    assert f"{10**times:.0f} times lower" in readme and f"{10**times:.0f} times lower" in six
    held = [T.side(m, "correlation", split="valid").seeds.mean() for m in ("crocodile", without)]
    assert "|correlation| {:.2f}, not {:.2f}.".format(*held) in readme
    kept = T.over_start("diversity_index").mean()
    assert (
        f"keeps {in_lesson(kept['crocodile'], 2)} of its index before training" in six and kept.idxmax() == "crocodile"
    )
    said = "without CovLoss Crocodile keeps {}, ME-MMoE {} and ME-PLE {}, but SDEM {}."
    assert said.format(*(in_lesson(kept[m], 2) for m in (without, "me-mmoe", "me-ple", "sdem"))) in six
    full = T.over_start("abundance", split="train").mean()
    assert list(full.nlargest(2).index) == ["me-ple", "star"] and (order[-1], order[-3]) == ("me-ple", "star")
    usual = Tables("objective", "movielens-1m")
    lost = {}
    for model in auc.index.drop(without):
        plain = usual.side((model, {"objective": "sample"})).seeds
        lost[model] = (T.side(model).seeds - plain).dropna().mean()
    assert sum(x < -1e-9 for x in lost.values()) == 7 and "seven of the twelve models have a lower mean" in six
    said = [in_lesson(-lost[m]) for m in ("me-ple", "star", "mmoe")]
    assert "ME-PLE by {}, STAR by {} and even MMoE by {}.".format(*said) in six
    usually = [usual.side((m, {"objective": "sample"})).seeds.mean() for m in ("ple", "me-ple")]
    assert f"the two means differ by {usually[0] - usually[1]:.4f}" in readme
    assert {T.settings_of(m).get("weight_decay") for m in ("me-ple", "star")} == {max(knobs_of("ple")["weight_decay"])}


def test_what_is_said_of_the_dials_on_movielens_follows_from_the_tables():
    readme, seven = prose_of("README.md"), prose_of("notebooks/07_ablations.ipynb")
    T, A, M, S = (Tables(name, "movielens-1m") for name in ("main", "alpha", "sets", "sample"))
    zero, tenth = S.side({"alpha": 0.0}), S.gap({"alpha": 0.1}, {"alpha": 0.0})
    assert f"the AUC at α = 0.1 differs by {in_readme(tenth)} from that at 0" in readme and tenth.high < 0.0007
    assert f"CovLoss at .1 is worth {with_interval(tenth)} of AUC against α = 0" in seven
    assert f"At Crocodile's own settings CovLoss is worth {with_interval(tenth)}" in seven
    for part in T.domains().index:
        gap = S.gap({"alpha": 0.1}, {"alpha": 0.0}, "auc", part)
        assert gap.low < 0 < gap.high
    cost = {a: (A.side({"alpha": a}) - zero).gap() for a in (0.1, 0.3, 1.0, 3.0)}
    assert [g.value for g in cost.values()] == sorted((g.value for g in cost.values()), reverse=True)
    p = in_lesson(4 * p_value(cost[3.0]), 2)
    assert f"at 3 by {with_interval(turned(cost[3.0]))} from that at 0 (p times 4 is {p})" in seven
    assert f"five sets stand at {with_interval(M.gap({'sets': 5}, {'sets': 2}))} from two" in seven
    ahead = (T.side("me-mmoe") - M.side({"sets": 2})).gap()
    assert f"but ME-MMoE is {with_interval(ahead)} ahead of it" in seven
    assert T.settings_of("me-mmoe")["dim"] == 2 * options_of("crocodile")["dim"]
    few = S.gap({"alpha": 0.1, "sample": 32}, {"alpha": 0.1})
    assert f"on 32 rows the AUC is {with_interval(few)} *higher*" in seven
    said = judged().query("data == 'movielens-1m'").drop_duplicates("number").set_index("number").verdict
    assert (said[9], said[10], said[11]) == ("too noisy to say", "contradicted", "cannot be tested here")


def test_what_is_said_of_the_weight_that_claim_9_leaves_out_follows_from_the_tables():
    readme, seven = prose_of("README.md"), prose_of("notebooks/07_ablations.ipynb")
    main, A = Tables("main", "kuairand-pure"), Tables("alpha", "kuairand-pure")
    assert main.chosen_alpha() < min(rules.ALPHAS) and f"The {main.chosen_alpha()} that the search chose" in readme
    least = (A.side({"alpha": 0.1}) - main.side("crocodile")).gap()
    low = least.interval(0.9)[0]
    assert low < -rules.RANGE["auc"] and "not even 0.1 is shown to be within the paper's range of it" in readme
    assert f"90 % interval of its {in_lesson(least.value)} AUC reaches to {in_lesson(low)}.)" in seven


def test_what_is_said_of_the_parts_on_movielens_follows_from_the_tables():
    readme, six, seven = (prose_of(name) for name in ("README.md", "notebooks/06_benchmark.ipynb", SEVEN))
    M, B = Tables("main", "movielens-1m"), Tables("ablations", "movielens-1m")
    whole = M.side("crocodile")
    without, gate, one = (
        (side - whole).gap()
        for side in (
            M.side("crocodile without CovLoss"),
            *(B.side(f"crocodile with {part}") for part in ("a domain gate", "one set")),
        )
    )
    table = judged().query("number == 8 and data == 'movielens-1m'")
    assert set(table.verdict) == {"contradicted"} and list(table.outcome) == [CONTRADICTED, HOLDS, NOISY]
    assert (judged().query("number == 8").outcome == HOLDS).sum() == 1 and len(judged().query("number == 8")) == 9
    lost = with_interval(turned(gate))
    assert f"the AUC is {lost} lower, in each" in seven and f"Without PEG, {lost} is lost, which holds" in six
    for metric, part in (("gauc", "all"), *(("auc", part) for part in M.domains().index)):
        there = B.side("crocodile with a domain gate", metric, part) - M.side("crocodile", metric, part)
        assert there.gap().high < 0
    better = with_interval(without)
    assert f"the AUC is {better} **higher**" in seven and f"the model is {better} better" in six
    assert f"without it, and with a search of its own, the model is {better} better" in seven
    p = table.against.iloc[0]
    assert f"(the one-sided p, {in_lesson(p)}, times three checks is {in_lesson(3 * p, 3)})" in seven
    assert one.low < 0 < one.high and "With one embedding set no loss is seen" in seven
    assert f"Crocodile stands at {in_readme(gate)} from" in readme and f"set at {in_readme(one)}." in readme
    same = (M.side("me-mmoe") - B.side("crocodile with a domain gate")).gap()
    assert f"Its search took it {with_interval(same)} above the gate by domain" in seven
    assert f"and it stands at {in_readme(same)} from it" in readme
    gate_alone = (M.side("me-mmoe") - M.side("crocodile without CovLoss")).gap()
    chosen = [dict(M.settings_of(m)) for m in ("me-mmoe", "crocodile without CovLoss")]
    assert chosen[0].pop("experts") == chosen[1].pop("sets") and chosen[0] == chosen[1] and gate_alone.seeds == 10
    assert f"ME-MMoE stands at +{with_interval(gate_alone)} from the other (ten seeds each)" in seven
    assert f"differ in the gate alone, ME-MMoE stands at {in_readme(gate_alone)}" in readme
    assert M.side("me-mmoe").seeds.mean() > whole.seeds.mean()  # "above Crocodile by its mean"
    theirs, ours = B.settings_of("crocodile with a domain gate"), M.settings_of("me-mmoe")
    usual = options_of("crocodile")["dim"]
    assert (theirs["lr"], theirs["dim"], ours["lr"], ours["dim"]) == (0.01, usual / 2, 0.002, 2 * usual)
    assert 0 not in knobs_of("crocodile with a domain gate")["alpha"]  # its search could not leave CovLoss out


def test_what_is_said_of_the_regularisers_on_movielens_follows_from_the_tables():
    readme, six, seven = (prose_of(name) for name in ("README.md", "notebooks/06_benchmark.ipynb", SEVEN))
    R, M = Tables("regularisers", "movielens-1m"), Tables("main", "movielens-1m")
    names = ("cov", *rules.OTHERS)

    def with_(name, metric="auc", **where):
        return R.side({"regulariser": name}, metric, **where)

    def minus(name, other, metric="auc"):
        return (with_(name, metric) - (with_ if other in names else M.side)(other, metric)).gap()

    gaps = {name: minus(name, rules.WITHOUT) for name in names}
    assert [name for name, g in gaps.items() if g.low > 0 or g.high < 0] == ["cos", "hsic"]
    assert R.best_on_validation([f"regulariser: {n}" for n in names], by="variant") == "regulariser: cos"
    cos, cov, behind = gaps["cos"], gaps["cov"], minus("cov", "cos")
    by_gauc = with_interval(minus("cos", rules.WITHOUT, "gauc"))
    p = in_lesson(8 * p_value(cos), 3)
    assert f"the AUC is {with_interval(cos)} higher than with no regulariser (p times 8 is {p})" in seven
    assert f"by gAUC {by_gauc}; its lowest run lies above" in seven
    runs = R.metric("auc", by="variant")
    assert runs.pop("regulariser: cos").min() > runs.max(axis=None)
    words = f"stands at {with_interval(cov)} from no regulariser and at {with_interval(behind)} from Cos"
    assert words in seven and minus("cos", "mmoe").seeds == 6
    p = in_lesson(8 * p_value(gaps["hsic"]), 2)
    assert f"HSIC costs {with_interval(turned(gaps['hsic']))} (p times 8 is {p})" in seven
    ahead = [minus("cos", "mmoe"), minus("cos", "mmoe", "gauc"), minus("cos", "me-mmoe")]
    assert "by {} of AUC and {} of gAUC, and of ME-MMoE by {}.".format(*map(with_interval, ahead)) in seven
    eight, twelve = (in_lesson(n * p_value(ahead[0]), 2) for n in (8, 12))
    apart = unpaired(with_("cos"), M.side("mmoe"))
    words = (
        f"a p that times 8 is {eight}, and times 12 {twelve}; over all of MMoE's ten runs, without pairing, the lead"
    )
    assert f"{words} is {with_interval(apart)})" in seven
    assert f"by AUC p times 8 is 0{eight}, and times 12 0{twelve})" in readme and 12 * p_value(ahead[0]) > 0.05
    usual = Tables("objective", "movielens-1m").side(("mmoe", {"objective": "sample"})).seeds
    assert usual.mean() > M.side("mmoe").seeds[:3].mean() and len(usual) == 3  # "better at its defaults"
    near = (with_("cos").seeds[:3] - usual).mean()
    assert f"Cos is ahead of it by {in_lesson(near)} of AUC only" in seven and f"it is ahead by {near:.4f};" in readme
    assert M.best_on_validation(rules.BASELINES) == "mmoe"
    tried = R.runs[(R.runs.stage == "search") & R.runs.settings.str.contains('"regulariser": "cos"')]
    assert len(tried) == 11 and "in eleven trainings" in seven and "eleven trainings more" in readme
    searched = M.runs[M.runs.stage == "search"].groupby("model").size()
    assert set(searched) == {26} and "the twenty-six that every model's search had" in seven
    elsewhere = [
        (Tables("regularisers", data).side({"regulariser": "cos"}) - Tables("main", data).side(rules.WITHOUT)).gap()
        for data in ("kuairand-pure", "world")
    ]
    assert "not seen to gain ({} and {})".format(*map(with_interval, elsewhere)) in seven
    assert all(g.low < 0 < g.high for g in elsewhere)

    def of_six(side):
        return side.seeds[:6].mean()  # over the seeds that both have

    alike = {name: of_six(with_(name, "correlation", split="valid")) for name in ("cov", "dcorr", "cos")}
    alike["none"] = of_six(M.side(rules.WITHOUT, "correlation", split="valid"))
    assert {name: round(value, 2) for name, value in alike.items()} == dict(cov=0.09, dcorr=0.05, cos=0.2, none=0.27)
    assert (
        "compared here; .26 over ten). CovLoss brings it to .09 and dCorr to .05" in seven and "Cos leaves .20" in seven
    )
    assert "takes the mean |correlation| from 0.27 (the same six seeds) to 0.09, Cos to 0.20 only" in readme
    knows = [of_six(side) for side in (M.side(rules.WITHOUT, "expert_auc"), with_("cos", "expert_auc"))]
    assert [round(auc, 2) for auc in knows] == [0.73, 0.6] and "of AUC .73 without a regulariser, has .60" in seven
    in_short = f"in CovLoss's place the AUC is {with_interval(cos)} higher than with none"
    assert in_short in seven and f"{with_interval(turned(behind))} behind Cos" in six
    assert f"Cos stands at {in_readme(cos)} from no regulariser, CovLoss at {in_readme(cov)}, and" in readme
    assert f"and at {in_readme(behind)} from Cos." in readme
    assert f"stands at {in_readme(ahead[0])} from MMoE by AUC and at {in_readme(ahead[1])} by gAUC" in readme


def test_what_is_said_of_the_planned_studies_of_cos_follows_from_the_tables():
    pages = ("README.md", "notebooks/06_benchmark.ipynb", SEVEN, EIGHT)
    readme, six, seven, eight = map(prose_of, pages)
    C, M, R = ({data: Tables(study, data) for data in DATA} for study in ("cos", "main", "regularisers"))
    searched = {data: C[data].side("crocodile with Cos") for data in DATA}
    beside = {data: (searched[data] - M[data].side(rules.WITHOUT)).gap() for data in DATA}
    best = {data: M[data].best_on_validation(rules.BASELINES) for data in DATA}
    ahead = {data: (searched[data] - M[data].side(best[data])).gap() for data in DATA}
    assert all(g.value < 0 for g in [*beside.values(), *ahead.values()])
    rated, made, real = (beside[data] for data in ("movielens-1m", "world", "kuairand-pure"))
    p = [in_lesson(3 * p_value(g), 3) for g in (rated, made)]
    assert (
        f"on MovieLens-1M it stands at {with_interval(rated)} from it, on the made world at {with_interval(made)} "
        f"(p times three is {p[0]} and {p[1]}), and on the real days at {with_interval(real)}" in seven
    )
    assert (rated.seeds, made.seeds, real.seeds) == (10, 6, 10) and real.low < 0 < real.high
    assert (
        best["movielens-1m"] == "mmoe"
        and f"below MMoE on MovieLens-1M by {with_interval(turned(ahead['movielens-1m']))}" in seven
    )
    p = in_lesson(3 * p_value(ahead["movielens-1m"]), 3)
    assert f"(p times three is {p})" in seven and all(3 * p_value(ahead[data]) > 0.05 for data in DATA[:2])
    chosen = C["movielens-1m"].settings_of("crocodile with Cos")
    assert (chosen["dim"], chosen["alpha"]) == (8, max(knobs_of("crocodile with Cos")["alpha"])) == (8, 0.1)
    behind = (R["movielens-1m"].side({"regulariser": "cos"}) - searched["movielens-1m"]).gap()
    assert f"the model is {with_interval(behind)} behind the one with Cos in the table further above" in seven
    tried = C["movielens-1m"].runs.query("stage == 'search'")
    means = tried.groupby("settings").valid_auc.agg(["mean", "size"]).query("size == 3")["mean"].sort_values()
    second, near = json.loads(means.index[-2]), M["movielens-1m"].settings_of(rules.WITHOUT)
    assert second["alpha"] == 0.03 and near.pop("tower") == [64] and near.items() <= second.items()

    A = Tables("cos-seeds", "movielens-1m")
    with_cos = {"regulariser": "cos", "alpha": 0.06}
    gain = A.side(with_cos) - A.side({"alpha": 0.0})
    new = intervals.gap(gain.seeds[6:])
    assert new.seeds == 12 and f"the twelve new seeds give {with_interval(new)}" in seven
    assert f"all eighteen, with the luck of the test users, {with_interval(gain.gap())}" in seven
    assert (gain.seeds > 0).all() and len(gain.seeds) == 18 and "in none of the eighteen is the AUC lower" in seven
    ten = {k: (A.side(with_cos, k) - M["movielens-1m"].side("mmoe", k)).gap() for k in ("auc", "gauc")}
    assert {g.seeds for g in ten.values()} == {10}
    p = in_lesson(12 * p_value(ten["auc"]), 2)
    assert (
        f"by {with_interval(ten['auc'])} of AUC (p times twelve is {p}), and by {with_interval(ten['gauc'])} of"
        in seven
    )
    assert f"new seeds gain {in_readme(new)} ([cos-seeds]; this interval is over the seeds alone" in readme
    assert f"with the test users all eighteen give {in_readme(gain.gap())})" in readme
    four = intervals.gap((A.side(with_cos) - M["movielens-1m"].side("mmoe")).seeds[6:])
    assert four.seeds == 4 and f"the four new ones alone give {with_interval(four)} of AUC" in seven
    assert f"the four new ones give {in_readme(four)})" in readme
    assert f"at {in_readme(ten['auc'])} from MMoE as searched (p times 12 is 0{p};" in readme
    over_mmoe, words = ahead["movielens-1m"], "from Crocodile without CovLoss, as searched"
    assert f"stands at {in_readme(rated)} {words}, and at {in_readme(over_mmoe)} from MMoE" in readme
    assert {round(3 * p_value(g), 3) for g in (rated, over_mmoe)} == {0.013} and "is 0.013 for both" in readme
    assert f"at {in_readme(real)} on KuaiRand-Pure and at {in_readme(made)} on the made world" in readme
    assert "{:.4f} [{:.4f}, {:.4f}] behind the settings where Cos had gained".format(*behind[:3]) in readme
    assert f"with a search of its own Crocodile with Cos stands at {with_interval(rated)}" in seven
    assert f"though, it stands at {with_interval(rated)} from no regulariser" in six
    assert f"or, with a search of its own, {in_lesson(-over_mmoe.value)} below it" in six
    assert "gains on MovieLens-1M at one setting, and not with a search of its own" in eight


def test_what_is_said_of_six_other_worlds_follows_from_the_tables():
    readme, eight = prose_of("README.md"), prose_of(EIGHT)
    W = {data: Tables("worlds", data) for data in room.read_studies()["worlds"]["data"]}
    one_table = ("shared-bottom", "mmoe", "ple", "hinet")
    assert len(W) == 6 and {T.best_on_validation(one_table) for T in W.values()} == {"hinet"}
    assert {T.domains().idxmin() for T in W.values()} == {"tab 6"}

    def over_worlds(one, other, *where):
        """The mean of the worlds' differences, each the mean of its two seeds, and the worlds above zero."""
        each = pd.Series(
            {d: T.side(one, "auc", *where).seeds - T.side(other, "auc", *where).seeds for d, T in W.items()}
        )
        assert all(len(seeds) == 2 for seeds in each)
        means = each.map(np.mean).astype(float)
        low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
        return intervals.gap(means)._replace(low=low, high=high), int((means > 0).sum())

    smallest = ("tab 6", "fresh")
    beside, above = over_worlds("crocodile", "hinet")
    without, once = over_worlds(rules.WITHOUT, "hinet")
    loss, gains = over_worlds("crocodile", rules.WITHOUT)
    sdem, everywhere = over_worlds("shared-bottom", "sdem", *smallest)
    ple, five = over_worlds("ple", "me-ple", *smallest)
    assert f"it stands at {with_interval(beside)}, without CovLoss at {with_interval(without)}, and" in eight
    assert (above, once, gains, everywhere, five) == (1, 1, 3, 6, 5) and "the higher one in a single world" in eight
    assert f"worth {with_interval(loss)}: in three worlds the mean is higher with it, in three lower" in eight
    p = [in_lesson(5 * p_value(g), 3) for g in (sdem, ple)]
    assert f"above SDEM in every world, by {with_interval(sdem)} (p times five is {p[0]})" in eight
    assert f"in five of six, by {with_interval(ple)}; with p times five at {p[1]} this is not" in eight
    assert 5 * p_value(sdem) < 0.05 < 5 * p_value(ple) and all(p_value(g) > 0.3 for g in (beside, without, loss))
    room_for = in_lesson(beside.high)
    assert beside.high > 0.0009 and f"six exclude a mean lead above {room_for} (without" in eight
    odd = W["world:seed=5"].metric("auc", *smallest).mean()
    assert (in_lesson(odd.min(), 2), in_lesson(odd.max(), 2)) == (".54", ".57") and "of .54 to .57" in eight
    O, plain = Tables("objective", "world"), {"objective": "sample"}
    first = O.gap(("crocodile", plain), ("hinet", plain))
    assert f"Crocodile's mean was {with_interval(first)} *above* HiNet's" in eight
    assert f"where Crocodile stands at {with_interval(beside)} from it" in eight
    assert (
        f"not seen ahead of it ({in_readme(beside)} of AUC, over worlds), nor CovLoss to gain ({in_readme(loss)})"
        in readme
    )
    assert f"SDEM stands at {in_readme(turned(sdem))} from Shared-Bottom" in readme
    assert f"ME-PLE, at {in_readme(turned(ple))} from PLE, is not seen behind" in readme
    means = pd.DataFrame({data: T.metric("auc").mean() for data, T in W.items()})
    assert dict(means.idxmax().value_counts()) == {"hinet": 4, "me-mmoe": 1, rules.WITHOUT: 1}
    assert "HiNet comes first of the nine in four worlds, ME-MMoE in one and Crocodile without CovLoss in one" in eight
    best = [T.metric("auc", *smallest).mean().max() for data, T in W.items() if data != "world:seed=5"]
    assert (in_lesson(min(best), 2), in_lesson(max(best), 2)) == (".65", ".73") and "has .65 to .73" in eight


def test_what_is_said_of_the_objective_on_movielens_follows_from_the_tables():
    text, readme, plain = (
        prose_of(EIGHT),
        prose_of("README.md"),
        {"objective": "sample"},
    )
    T = Tables("objective", "movielens-1m")
    models = T.runs.model.unique()
    cost = {m: T.gap((m, plain), (m, {"objective": "domain"})) for m in models}
    most = max(cost, key=lambda m: cost[m].value)
    assert len(models) == 12 and f"No mean loss is above {in_lesson(cost[most].value)}" in text
    assert f"no model more than {cost[most].value:.4f}" in readme
    assert f"it costs Shared-Bottom {in_readme(cost['shared-bottom'])} of AUC" in readme
    assert [m for m, g in cost.items() if 12 * p_value(g) < 0.05] == ["pepnet"]
    assert f"PEPNet's {with_interval(cost['pepnet'])}" in text
    ratios = [Tables("objective", data).ratio() for data in ("movielens-1m", "kuairand-pure", "world")]
    assert f"weighs only {ratios[0]:.1f} times" in text and f"has {ratios[0]:.1f} times as many rows" in readme
    assert "in KuaiRand-Pure it is {:.1f} times, in the made world {:.1f}.".format(*ratios[1:]) in readme

    stands = {m: T.gap((m, plain), ("shared-bottom", plain)) for m in models if m != "shared-bottom"}
    own = ["me-ple", "sdem", "single-domain"]
    words = "ME-PLE stands at {} from Shared-Bottom, SDEM at {} and single-domain at {}, although"
    assert words.format(*(in_readme(stands[m]) for m in own)) in readme
    assert sorted(stands, key=lambda m: stands[m].value)[:3] == own[::-1]
    assert [m for m in stands if 11 * p_value(stands[m]) < 0.05] == [own[2], own[0], own[1]]
    means = {m: T.side((m, plain)).seeds.mean() for m in models}
    assert sorted(means, key=means.get)[::-1][:3] == ["mmoe", "hinet", "crocodile"]
    assert f"Crocodile stands at {in_readme(stands['crocodile'])} from Shared-Bottom, which is" in readme
    assert (
        f"which is {means['shared-bottom']:.4f}." in readme and stands["crocodile"].low < 0 < stands["crocodile"].high
    )
    assert f"MMoE leads ({with_interval(stands['mmoe'])} above Shared-Bottom, not established" in text
    rows = T.domains()
    assert rows.idxmin() == "under 25" and f"{rows.min():,.0f} training rows" in text and f"{rows.min():,.0f}" in readme
    lost = [T.gap(("shared-bottom", plain), ("single-domain", plain), "auc", part) for part in rows.index]
    words = f"single-domain {with_interval(lost[0])}, against {in_lesson(lost[1].value)} and {in_lesson(lost[2].value)}"
    assert words in text
    for model in own:  # "They lose most in just that one"
        parts = [T.gap((model, plain), ("shared-bottom", plain), "auc", part).value for part in rows.index]
        assert parts[0] == min(parts)


def test_what_the_readme_says_of_covloss_and_the_gates_follows_from_the_tables():
    text = prose_of("README.md")
    T = Tables("gates", "kuairand-pure")
    none, some, much = ({"gate": "peg", "alpha": a} for a in (0.0, 0.1, 1.0))
    covariance, correlation = (
        [T.side(who, metric, split="valid").seeds.mean() for who in (none, some)]
        for metric in ("covariance", "correlation")
    )
    assert f"is {covariance[0] / covariance[1]:.0f} times lower" in text
    assert f"mean |correlation| {correlation[1]:.2f}, not {correlation[0]:.2f}" in text
    assert "from {} to {}). What that is worth".format(*(in_lesson(value, 2) for value in correlation)) in text

    assert f"the AUC differs by {in_readme(T.gap(some, none))} from that without" in text
    assert f"at α = 1 by {in_readme(T.gap(much, none))}" in text
    for a in (0.1, 1.0):  # "beside MMoE's gate, too, the mean AUCs are lower with CovLoss than without"
        gap = T.gap({"gate": "domain", "alpha": a}, {"gate": "domain", "alpha": 0.0})
        assert gap.value < 0 < gap.high
    chosen, heavier = Tables("main", "kuairand-pure").side("crocodile"), Tables("alpha", "kuairand-pure")
    assert f"differs by {in_readme((heavier.side({'alpha': 0.1}) - chosen).gap())} from that at the chosen α" in text
    assert f"PEG minus MMoE's gate is {in_readme(T.gap(none, {'gate': 'domain', 'alpha': 0.0}))}" in text
    pairs = [
        T.gap({"gate": one, "alpha": a}, {"gate": other, "alpha": a})
        for a in (0.0, 0.01, 0.1, 1.0)
        for one, other in combinations(("peg", "peg-domain", "expert", "domain"), 2)
    ]
    assert len(pairs) == 24 and sum(gap.low > 0 or gap.high < 0 for gap in pairs) == 1
    assert "of the 24 pairs one interval misses zero" in text
    parts = judged().query("number == 8 and data == 'kuairand-pure'")
    assert "lies within 0.0004 of Crocodile's" in text and parts.value.abs().max() < 0.0004
    assert "room for a loss of more than 0.0008" in text and parts.high.max() < 0.00085


def test_what_the_readme_says_of_the_regularisers_follows_from_the_tables():
    text = prose_of("README.md")
    R, none = Tables("regularisers", "kuairand-pure"), Tables("main", "kuairand-pure").side("crocodile without CovLoss")
    final = R.runs[R.runs.stage == "final"].drop_duplicates("variant").set_index("variant")
    weight = json.loads(final.settings["regulariser: cov"])["alpha"]
    assert f"it chose {float(f'{weight:.0e}'):.5f} for CovLoss" in text and len(final) == 8
    gaps = [(R.side({"regulariser": name.split(": ")[1]}) - none).gap() for name in final.index]
    assert all(gap.low < 0 < gap.high for gap in gaps) and "none is seen to gain anything" in text
    tried = R.runs[R.runs.settings.str.contains('"regulariser": "cov"')].settings.map(
        lambda text: json.loads(text)["alpha"]
    )
    assert f"from {tried.max():.0f} down to {tried.min():.6f}" in text


def test_what_is_said_of_the_regularisers_on_the_made_world_follows_from_the_tables():
    text, readme = prose_of("notebooks/07_ablations.ipynb"), prose_of("README.md")
    R, M = Tables("regularisers", "world"), Tables("main", "world")
    names = ("cov", *rules.OTHERS)

    def minus_none(name, *where):
        return (R.side({"regulariser": name}, *where) - M.side(rules.WITHOUT, *where)).gap()

    gaps = {name: minus_none(name) for name in names}
    assert [name for name, g in gaps.items() if g.low > 0 or g.high < 0] == ["cov"]  # "the only one beside zero"
    assert f"p times 8 is {in_lesson(8 * p_value(gaps['cov']), 2)}" in text and 8 * p_value(gaps["cov"]) > 0.05
    best = R.best_on_validation([f"regulariser: {name}" for name in rules.OTHERS], by="variant")
    behind = R.gap({"regulariser": "cov"}, {"regulariser": "ole"})
    assert best == "regulariser: ole" and f"with no regulariser ({with_interval(gaps['cov'])}), and" in text
    assert f"best on validation ({with_interval(behind)}). So by the rule" in text
    assert f"stands at {in_readme(gaps['cov'])} from no regulariser and at {in_readme(behind)} from OLE" in readme

    inside = {name: R.side({"regulariser": name}, "correlation", split="valid").seeds.mean() for name in names}
    alone = M.side(rules.WITHOUT, "correlation", split="valid").seeds[:6].mean()  # over the seeds that both have
    assert f"falls from {in_lesson(alone, 2)} to {in_lesson(inside['cov'], 2)}" in text
    assert 0.45 < inside["cov"] / alone < 0.55  # "halves"
    assert abs(inside["ole"] - alone) < 0.005  # "as alike as they were"
    assert f"brings the correlation to {in_lesson(inside['hsic'], 2)}," in text

    def tried(T, **given):
        """The mean validation AUC, on a quarter of the users, of the trials with these settings."""
        search = T.runs[T.runs.stage == "search"]
        fits = search.settings.map(lambda text: given.items() <= json.loads(text).items())
        return search[fits].valid_auc.mean()

    none = tried(M, **M.settings_of(rules.WITHOUT), alpha=0.0)
    chosen = tried(R, regulariser="cov", alpha=0.006)
    assert f".006 had a mean of {in_lesson(chosen)} and no regulariser {in_lesson(none)}:" in text
    by_domain = {(n, d): minus_none(n, "auc", d, "fresh") for n, d in product(names, M.domains().index)}
    least = min(by_domain, key=lambda pair: p_value(by_domain[pair]))
    assert least == ("dot", "tab 6") == max(by_domain, key=lambda pair: by_domain[pair].value)
    assert f"lead of {with_interval(by_domain[least])} in tab 6" in text
    assert f"p times 40 is {in_lesson(40 * p_value(by_domain[least]), 2)}" in text


def test_what_the_readme_says_of_the_cost_follows_from_the_table():
    text = prose_of("README.md")
    table = verdicts.read_cost(room.RESULTS)
    share = {rows: table[f"ms, {rows} rows"] / table["ms, experts"] for rows in ("all", "32")}
    default, widest = share["all"].groupby(table["shape"], sort=False).median()
    said = (
        f"and backward, {default:.2f} at our defaults, {widest:.2f} at the setting of the search where it weighs most"
    )
    assert said in text
    assert "0.05 or less when it reads 32 rows" in text and share["32"].groupby(table["shape"]).median().max() < 0.055


def test_what_lesson_06_says_beside_its_cells_follows_from_the_tables():
    T, O = Tables("main", "kuairand-pure"), Tables("objective", "kuairand-pure")
    text = prose_of("notebooks/06_benchmark.ipynb")
    plain = {"objective": "sample"}
    at_defaults = O.gap(("crocodile", plain), ("shared-bottom", plain))
    signed = "{} [{}, {}]".format(*(in_lesson(x, sign="+") for x in at_defaults[:3]))
    assert f"the other way round: Crocodile stands at {signed}." in text
    models = T.metric("auc").columns.drop("crocodile")
    sides = {metric: [T.side(m, metric) - T.side("crocodile", metric) for m in models] for metric in ("auc", "gauc")}
    lines = [T.gap(m, "crocodile", "auc", part) for part in ("all", *T.domains().index) for m in models]
    missing = sum(gap.low > 0 or gap.high < 0 for gap in lines)
    assert "models make 72 lines" in text and "Thirteen do" in text and (len(lines), missing) == (72, 13)
    between = [np.corrcoef(a.draws, g.draws)[0, 1] for a, g in zip(*sides.values(), strict=True)]
    assert "correlate at .4 at most" in text and 0.35 < max(between) < 0.45
    in_tab_1 = T.gap("me-ple", "crocodile", "auc", "tab 1")
    assert "ME-PLE's .0014" in text and p_value(in_tab_1) < 0.00145
    search = T.runs[(T.runs.stage == "search") & (T.runs.model == "crocodile")]
    best = search.assign(auc=search.valid_auc.astype(float)).groupby("settings").auc.agg(["mean", "size"])
    first, second = best[best["size"] == 3]["mean"].nlargest(2)
    assert "α = .01, lies .0001 behind" in text and 0.00005 < first - second < 0.00015
    gap = T.gap("crocodile", "shared-bottom", "gauc")
    power = stats.nct.sf(stats.t.ppf(0.975, gap.df), gap.df, 0.0019 / gap.error)
    assert "seen one time in five" in text and power == pytest.approx(0.2, abs=0.02)


def test_what_lesson_06_says_of_the_made_world_follows_from_the_tables():
    T, without = Tables("main", "world"), "crocodile without CovLoss"
    text = prose_of("notebooks/06_benchmark.ipynb")

    def said(gap):
        return f"{in_lesson(gap.value)} [{in_lesson(gap.low)}, {'+' * (gap.low < 0)}{in_lesson(gap.high)}]"

    scarce, large = (T.metric("auc", part, "fresh").mean() for part in ("tab 6", "tab 1"))
    runs = T.metric("auc")["crocodile"].to_numpy()
    for part in (
        f"tab 6, with {T.domains()['tab 6']:,.0f} training rows, single-domain ({in_lesson(scarce['single-domain'])})",
        f"leads with {in_lesson(scarce['shared-bottom'])}",
        f"{said(T.gap(without, 'hinet'))} above HiNet",
        f"as its search chose it, stands at {said(T.gap('crocodile', 'hinet'))}",
        f"{said(T.gap('shared-bottom', 'crocodile', part='tab 6', split='fresh'))} ahead of",
        "nine of its ten lie between {1} and {2}, and one at {0}".format(*map(in_lesson, np.sort(runs)[[0, 1, -1]])),
        f"**Crocodile without CovLoss** ({in_lesson(large[without])}), ME-MMoE and ME-PLE, ahead of HiNet",
        f"first is {said(T.gap(without, 'shared-bottom', part='tab 1', split='fresh'))} above Shared-Bottom",
        f"cost {said(T.gap(without, 'crocodile'))}, the gap between the two Crocodiles",
    ):
        assert part in text, part
    assert f"STAR, with one table, has {in_lesson(scarce['star'])}" in text
    assert list(large.nlargest(5).index) == [without, "me-mmoe", "me-ple", "hinet", "shared-bottom"]
    assert all(round(scarce[model], 2) == 0.6 for model in ("me-ple", "sdem"))
    gaps = {model: T.gap(model, "hinet") for model in T.metric("auc").columns.drop("hinet")}
    below = [m for m, g in gaps.items() if g.value < 0 and 12 * p_value(g) < 0.05]
    assert "Seven models stay below HiNet after the same allowance" in text and len(below) == 7 and "star" in below
    spread = T.metric("auc").std()
    assert "this model's runs scatter most" in text and spread.idxmax() == "crocodile"
    search = T.runs.query("stage == 'search' and model == 'crocodile'")
    by_settings = search.assign(auc=search.valid_auc.astype(float)).groupby("settings").auc
    tried = by_settings.agg(["size", "mean", "min", "max"]).query("size == 3")
    alphas = sorted(json.loads(settings)["alpha"] for settings in tried.index)
    assert "whose α is .01, .001 and 1" in text and alphas == [0.001, 0.01, 1.0]
    assert "lie within .001 of each other" in text and np.ptp(tried["mean"]) < 0.001
    assert "differ by up to .011" in text and in_lesson((tried["max"] - tried["min"]).max(), 3) == ".011"
    di, ia = T.over_start("diversity_index", split="test").mean(), T.over_start("abundance", split="train").mean()
    one, several = ["mmoe", "ple", "hinet"], ["me-ple", "me-mmoe", "sdem", "crocodile", without]

    def span(values):
        return f"{in_lesson(values.min(), 2)} to {in_lesson(values.max(), 2)}"

    assert f"diversity index of {span(di[one])} of that before training" in text
    assert f"those with several {span(di[several])}" in text
    assert f"{span(ia[several])} against" in text and f"against {span(ia[one])}" in text
    gauc = T.metric("gauc").mean()
    assert gauc.nsmallest(2).index[1] == "sdem" and gauc["crocodile"] < min(gauc[["hinet", "mmoe"]])
    sides = [
        [T.side(model, m, split="valid") for model in (without, "crocodile")] for m in ("covariance", "correlation")
    ]
    (high, low), alike = ([side.seeds.mean() for side in pair] for pair in sides)
    assert "seven times lower" in text and 6.5 < high / low < 7.5
    assert "pairs, is .04, not .12" in text and [f"{value:.2f}" for value in alike] == ["0.12", "0.04"]
    kept = {tab: T.over_start("own_table_abundance", tab, "train").mean() for tab in ("tab 0", "tab 6")}
    keeps = [in_lesson(mean[model], 2) for model in ("me-ple", "sdem") for mean in kept.values()]
    assert "(ME-PLE keeps {} there and {} in tab 6, SDEM {} and {})".format(*keeps) in text


def test_what_lesson_07_says_of_the_made_world_follows_from_the_tables():
    text = prose_of("notebooks/07_ablations.ipynb")
    T, A, M, S = (Tables(name, "world") for name in ("main", "alpha", "sets", "sample"))

    def said(gap):
        value, low, high = (in_lesson(x, sign="+") for x in gap[:3])
        return f"{value} [{low if gap.low < 0 else low[1:]}, {high if gap.low < 0 else high[1:]}]"

    none = S.side({"alpha": 0.0})
    gaps = {a: (A.side({"alpha": a}) - none).gap() for a in (0.1, 0.3, 1.0, 3.0)}
    gaps[T.chosen_alpha()] = (T.side("crocodile") - none).gap()
    assert "by .0008 (α = 1) to .0028 (α = .1)" in text
    assert [round(f(g.value for g in gaps.values()), 4) for f in (max, min)] == [-0.0008, -0.0028]
    assert {a for a, g in gaps.items() if g.high < 0} == {
        0.1,
        0.3,
    } and "at .1 and .3 so does the whole interval" in text
    p = [p_value(gaps[a]) for a in (0.1, 0.3)]
    assert "each p, .006, times five is .03" in text and [round(x, 3) for x in p] == [0.006, 0.006]
    by_tab = {tab: S.gap({"alpha": 0.1}, {"alpha": 0.0}, "auc", tab, "fresh") for tab in T.domains().index}
    assert all(g.value < 0 for g in by_tab.values())  # "has the lower mean everywhere"
    assert "in tabs 0 and 2 with the whole interval" in text
    assert {tab for tab, g in by_tab.items() if g.high < 0} == {"tab 0", "tab 2"}
    stands = {tab for tab, g in by_tab.items() if 5 * p_value(g) < 0.05}
    assert "after an allowance for five domains only tab 0 stands" in text and stands == {"tab 0"}
    assert "the interval is .02 wide" in text and round(by_tab["tab 6"].high - by_tab["tab 6"].low, 2) == 0.02
    assert "at 1 and 3 the intervals leave room for a gain of the paper's size, .0007" in text
    assert {a for a, g in gaps.items() if g.high > 0.0007} == {1.0, 3.0}
    alike = T.side("crocodile without CovLoss", "correlation", split="valid").seeds.mean()
    assert "they correlate at .12, not .6" in text and f"{alike:.2f}" == "0.12"
    sets = M.gap({"sets": 5}, {"sets": 2}, "auc", "tab 1", "fresh")
    assert f"five sets are {said(sets)[1:]} ahead of two" in text
    assert "(p times 15 is below .01)" in text and sets.value > 0 and 15 * p_value(sets) < 0.01
    smaller = {tab: M.gap({"sets": 5}, {"sets": 2}, "auc", tab, "fresh") for tab in T.domains().index.drop("tab 1")}
    assert "in tab 4 with the whole interval, but not after such an allowance" in text
    assert all(g.value < 0 for g in smaller.values()) and {t for t, g in smaller.items() if g.high < 0} == {"tab 4"}
    assert 15 * p_value(smaller["tab 4"]) > 0.05
    for model, name in (("me-ple", "ME-PLE"), ("sdem", "of SDEM"), ("me-mmoe", "of ME-MMoE")):
        gap = (M.side({"sets": 2}) - T.side(model)).gap()
        assert f"{name} ({said(gap)})" in text
    few = S.gap({"alpha": 0.1, "sample": 32}, {"alpha": 0.1})
    assert f"the AUC is {said(few)[1:]} *higher*" in text


def test_what_lesson_08_says_of_the_control_follows_from_the_tables():
    text, K = prose_of(EIGHT), Tables("control", "world:conflict=0")
    means = K.metric("auc").mean()
    gaps = {model: K.gap(model, "shared-bottom") for model in means.index.drop("shared-bottom")}

    for model, words in (
        ("crocodile", "leads by {} [{}, {}] over Shared-Bottom"),
        ("me-mmoe", "by {} [{}, {}]; both stand"),
    ):
        gap = gaps[model]
        assert words.format(*map(in_lesson, gap[:3])) in text
        assert gap.value > 0 and 11 * p_value(gap) < 0.05 and len(gaps) == 11
    searched = Tables("main", "world").metric("auc").mean()
    assert "(.0035 at most, lesson 06)" in text and round(searched.max() - searched["shared-bottom"], 4) == 0.0035
    own = ["me-ple", "sdem", "single-domain"]
    said = "ME-PLE ({}), SDEM ({}) and single-domain ({})".format(*(in_lesson(gaps[model].value) for model in own))
    assert f"{said} have the three lowest means" in text and set(means.nsmallest(3).index) == set(own)
    assert means.idxmax() == "crocodile" == K.metric("auc", "tab 6", "fresh").mean().idxmax()


def test_what_lessons_06_and_07_say_of_the_made_worlds_parts_follows_from_the_tables():
    texts = [prose_of(f"notebooks/{name}.ipynb") for name in ("06_benchmark", "07_ablations")]
    M, B = Tables("main", "world"), Tables("ablations", "world")

    def less(*where):
        sides = {"CovLoss": M.side("crocodile without CovLoss", "auc", *where)}
        sides |= {model: B.side(f"crocodile with {model}", "auc", *where) for model in ("a domain gate", "one set")}
        return {name: (side - M.side("crocodile", "auc", *where)).gap() for name, side in sides.items()}

    gaps = less()
    covloss, gate, one_set = (with_interval(gap) for gap in gaps.values())
    assert f"{covloss} better" in texts[0] and f"{covloss} **higher**" in texts[1]
    assert f"by {gate} and {one_set}, neither of which" in texts[1]
    assert gaps["CovLoss"].low > 0 and all(gaps[model].low < 0 < gaps[model].high for model in list(gaps)[1:])
    table = judged().query("number == 8 and data == 'world'")
    assert set(table.verdict) == {"contradicted"} and (table.outcome == "contradicted").sum() == 1
    alone = less("tab 6", "fresh")["one set"]
    assert f"In tab 6 one embedding set is {with_interval(alone)} ahead" in texts[1] and alone.low > 0
    alone = (Tables("sample", "world").side({"alpha": 0.0}) - M.side("crocodile")).gap()
    assert f"to 0, the difference is {with_interval(alone)} (the figure" in texts[1] and alone.low < 0
    assert f"higher*, of which changing α alone makes {in_lesson(alone.value)}" in texts[1]
    assert alone.value < gaps["CovLoss"].value / 2
    assert M.chosen_alpha() == 0.01 and M.settings_of("crocodile without CovLoss")["sets"] == 5
    runs = M.side("crocodile").seeds.sort_values()
    assert "a point of AUC below the mean of the others" in texts[1] and runs.index[0] < 6
    assert len(runs) == 10 and round(runs.iloc[1:].mean() - runs.iloc[0], 2) == 0.01


def test_what_lesson_08_says_of_the_start_on_the_made_world_follows_from_the_tables():
    text, S, E = (
        prose_of(EIGHT),
        Tables("start", "world"),
        Tables("capacity", "world"),
    )
    models = ("shared-bottom", "mmoe", "crocodile", "crocodile without CovLoss")
    gains = {model: S.gap((model, {"start": 0.1}), (model, {"start": 0.001})) for model in models}

    said = "Shared-Bottom's by {}, MMoE's by {}, Crocodile's by {} and that of Crocodile without CovLoss by {}."
    assert said.format(*map(with_interval, gains.values())) in text
    assert [model for model, gap in gains.items() if 4 * p_value(gap) < 0.05] == [models[0], models[3]]
    assert min(gains[m].value for m in models[:2]) > max(gains[m].value for m in models[2:])  # "gain more"
    wide, narrow = (S.gap(("crocodile", {"start": s}), ("shared-bottom", {"start": s})) for s in (0.1, 0.001))
    assert f"Shared-Bottom is {with_interval(narrow)} from .001 and {with_interval(wide)} from .1" in text
    at_size = E.gap("crocodile", "shared-bottom")
    assert f"The {in_lesson(wide.value)} is over a table of 16" in text
    assert f"Crocodile's lead was {in_lesson(at_size.value)}." in text and 0.4 < at_size.value / wide.value < 0.6


def test_what_is_said_of_more_data_follows_from_the_tables():
    text, readme = prose_of(EIGHT), prose_of("README.md")
    beside, plain = ("shared-bottom", "mmoe", "ple", "me-ple"), {"objective": "sample"}
    drawn = ("rows=100000,users=1000,items=2000", "rows=1600000,users=8000,items=16000")
    small, middle, large = (Tables("size", f"world:{o}") for o in (*drawn, "rows=6400000,users=32000,items=64000"))
    usual, start = Tables("objective", "world"), Tables("start", "world")
    full = Tables("full", "world:rows=11648000,users=1000,items=4370000")
    here = [small, middle, large, full]
    for T in here:  # "at every size"
        assert T.best_on_validation(beside) == "mmoe"
    runs = usual.runs[(usual.runs.variant == label_of(plain)) & usual.runs.model.isin(beside)]
    assert runs.groupby("model").valid_auc.mean().idxmax() == "mmoe"

    leads = [T.gap("crocodile", "mmoe") for T in here]
    before = usual.gap(("crocodile", plain), ("mmoe", plain))
    said = "is {} at 100,000 rows, {} at 400,000, {} at 1.6 million, {} at 6.4 million and {} in one pass over"
    first, second = map(in_lesson, (leads[0].value, before.value))
    assert said.format(first, second, *map(with_interval, leads[1:])) in text
    assert [5 * p_value(g) < 0.05 for g in (leads[0], before, *leads[1:])] == [False, False, True, False, True]
    places = ("at 100,000 rows", "at 1.6 million", "at 6.4 million", "after one pass over 11.6 million")
    for words, g in zip(places, leads, strict=True):
        assert f"{in_readme(g)} {words}" in readme
    assert f"at {in_readme(before)} at 400,000" in readme
    best = usual.gap(("crocodile", plain), ("hinet", plain))
    assert f"HiNet is better still, and Crocodile {with_interval(best)} ahead of it" in text
    alone = [T.gap("crocodile without CovLoss", "mmoe") for T in here]
    assert f"{in_lesson(alone[3].value)}, at 1.6 million {with_interval(alone[1])}." in text
    assert f"stands at {in_readme(alone[1])} from MMoE at 1.6 million" in readme

    rows = middle.domains()
    by_domain = {part: middle.gap("crocodile", "mmoe", "auc", part, "fresh") for part in rows.index}
    fresh = {part: g.value for part, g in by_domain.items()}
    largest, others = fresh.pop(rows.idxmax()), fresh.values()
    said = "by {} in the largest and by {} to {} in the others"
    assert said.format(*map(in_lesson, (largest, min(others), max(others)))) in text and min(largest, *others) > 0
    assert [part for part, g in by_domain.items() if 5 * p_value(g) < 0.05] == ["tab 0", "tab 4"]
    assert by_domain["tab 6"].low < 0
    level = {part: large.gap("crocodile", "mmoe", "auc", part, "fresh") for part in rows.index}
    assert all(g.low < 0 < g.high for g in level.values()) and leads[2].high < 0.0009

    fall, error = leads[1].value - leads[2].value, np.hypot(leads[1].error, leads[2].error)
    df = error**4 / sum(g.error**4 / g.df for g in leads[1:3])  # Welch and Satterthwaite
    half = stats.t.ppf(0.975, df) * error
    by_seed = [T.side("crocodile").seeds - T.side("mmoe").seeds for T in (middle, full)]
    if_alike = by_seed[1].mean() / by_seed[0].std() * np.sqrt(2)
    assert f"p times 5 would be {in_lesson(10 * stats.t.sf(if_alike, 2), 2)}.)" in text and leads[3].seeds == 2
    assert f"the lead falls by {in_lesson(fall)} [{in_lesson(fall - half)}, {in_lesson(fall + half)}], which" in text
    assert 10 * 2 * stats.t.sf(fall / error, df) < 0.05  # "all ten pairs" of five sizes

    without = "crocodile without CovLoss"
    pays = [T.gap("crocodile", without) for T in here]
    assert f"at 6.4 million it is {with_interval(pays[2])}, with no room" in text and pays[2].high < 0.0007
    assert f"{in_readme(pays[2])} at 6.4 million and {in_readme(pays[3])} at 11.6 million" in readme
    pays.append(start.gap(("crocodile", {"start": 0.1}), (without, {"start": 0.1})))
    assert not any(g.low > 0 for g in pays)  # "no gain is established at any size"
    assert f"its mean gain is {with_interval(pays[1])}" in text and f"without is {in_readme(pays[1])} at 1.6" in readme
    in_users = middle.gap("crocodile", without, "gauc")
    assert f"by gAUC {with_interval(in_users)} (not shown;" in text and f"by gAUC {in_readme(in_users)}," in readme
    assert p_value(in_users) < 0.05 < 5 * p_value(in_users)
    assert f"its mean cost is {in_lesson(-pays[3].value)}" in text
    assert "[{}, {}], is too short".format(*map(in_lesson, pays[3][1:3])) in text
    assert f"the lead at 11.6 million is {in_lesson(full.gap(without, 'mmoe').value)}" in text

    own = [usual.gap(("ple", plain), ("me-ple", plain)), *(T.gap("ple", "me-ple") for T in (large, full))]
    said = "is {} at 400,000 rows, still {} at 6.4 million, and {} after the one pass"
    assert said.format(*map(with_interval, own)) in text
    few, many = (T.domains() for T in (usual, large))
    assert f"at 400,000 rows, where that domain has {few.min():,.0f} training rows" in text
    assert (
        f"at 6.4 million, where it has {many.min():,.0f} (fresh" in text
        and f"has {many.min():,.0f} training rows" in readme
    )
    an_item = [list((rows / items)[["tab 6", "tab 0"]].round(1)) for rows, items in ((few, 4_000), (many, 64_000))]
    assert an_item == [[1.3, 16.5]] * 2 and "still reads about 1.3 rows for each" in text
    own_of, gaps = ("ple", "me-ple"), {}
    for tab in ("tab 6", "tab 0"):
        at = ("auc", tab, "fresh")
        gaps[tab] = usual.gap(*((m, plain) for m in own_of), *at), large.gap(*own_of, *at)
    assert "PLE is {} ahead at 400,000 rows".format(with_interval(gaps["tab 6"][0])) in text
    assert "and {} at 6.4 million, where it".format(with_interval(gaps["tab 6"][1])) in text
    assert "by {} at 400,000 rows and by {} at 6.4 million".format(*map(in_readme, gaps["tab 6"])) in readme
    at = ("auc", "tab 6", "fresh")
    others = [T.gap(*own_of, *at) for T in (small, middle, full)]
    assert all(g.low < 0 < g.high for g in others)
    said = "{} at 100,000 rows, {} at 1.6 million and {} at 11.6 million."
    assert said.format(*map(with_interval, others)) in text
    said = "{} at 100,000 rows, {} at 1.6 million and, with two seeds, {} at 11.6 million."
    assert said.format(*map(in_readme, others)) in readme
    their = [T.metric(*at).mean()["me-ple"] for T in (small, middle, large, full)]
    their.insert(1, usual.side(("me-ple", plain), *at).seeds.mean())
    assert their == sorted(their)  # "rises with every size"
    assert f"from {in_lesson(their[0], 2)} to {in_lesson(their[-1], 2)}.)" in text
    assert f"from {their[0]:.2f} to {their[-1]:.2f};" in readme
    assert "falls from {} to {}.".format(*(in_lesson(g.value) for g in gaps["tab 0"])) in text
    assert "the lead falls from {:.4f} to {:.4f}.".format(*(g.value for g in gaps["tab 0"])) in readme
    still = full.gap("ple", "me-ple", "auc", "tab 0", "fresh")
    assert f"with 1.9 million rows, they still hurt after that pass: {with_interval(still)} on" in text
    assert round(full.domains()["tab 0"], -5) == 1.9e6 and 5 * p_value(still) < 0.05


def test_what_is_said_of_more_data_at_equal_size_follows_from_the_tables():
    text, readme = prose_of(EIGHT), prose_of("README.md")
    world = "world:rows=1600000,users=8000,items=16000"
    wide, usual = Tables("size-capacity", world), Tables("size", world)
    one_table = ("shared-bottom", "mmoe", "hinet", "adasparse")
    assert wide.best_on_validation(one_table) == "hinet"
    assert {json.loads(s)["dim"] for s in wide.runs.settings} == {16, 95} and "vectors of 95 numbers" in text
    lead = {model: wide.gap("crocodile", model) for model in one_table}
    assert f"MMoE is still {with_interval(lead['mmoe'])} behind" in text
    assert f"AdaSparse {with_interval(lead['adasparse'])}; both stand" in text
    assert {m for m, g in lead.items() if 4 * p_value(g) < 0.05} == {"mmoe", "adasparse"}
    assert f"HiNet, now the best of the four on validation, is {with_interval(lead['hinet'])} behind" in text
    assert lead["hinet"].low < 0 < 0.0009 < lead["hinet"].high
    assert f"stands at {in_readme(lead['mmoe'])} from MMoE, so its lead there is more than size" in readme
    assert f"Crocodile stands at {in_readme(lead['hinet'])} from it." in readme
    pays = wide.gap("crocodile", "crocodile without CovLoss")
    assert f"With CovLoss the AUC is {with_interval(pays)} higher" in text and pays.low < 0
    before = usual.gap("crocodile", "mmoe")
    both = f"it is {with_interval(before)} at 1.6 million, {with_interval(lead['mmoe'])} where both have as many"
    assert both in text


def test_what_lesson_08_says_in_short_follows_from_the_tables():
    text, readings = (
        prose_of(EIGHT),
        ({"objective": "sample"}, {"objective": "domain"}),
    )
    plain, literal = readings
    made = Tables("objective", "world")
    real, rated = Tables("objective", "kuairand-pure"), Tables("objective", "movielens-1m")
    cost = [T.gap(*(("shared-bottom", reading) for reading in readings)) for T in (real, made, rated)]
    said = "costs Shared-Bottom {} of AUC on the real days and {} on the made world, and single-domain nothing,"
    assert said.format(*(in_lesson(g.value) for g in cost[:2])) in text
    assert "on MovieLens-1M, no cost to it is seen." in text and cost[2].low < 0 < cost[2].high

    agree, size = Tables("control", "world:conflict=0"), Tables("capacity", "world")
    conditions = {"plain": (made, plain), "agree": (agree, {}), "size": (size, {}), "literal": (made, literal)}
    models = set(made.runs.model) - {"shared-bottom"}
    above, below = {}, {}
    for name, (study, variant) in conditions.items():
        for where in ((), ("tab 6", "fresh")):
            gaps = {m: study.gap((m, variant), ("shared-bottom", variant), "auc", *where) for m in models}
            above[name, where] = {model for model, g in gaps.items() if g.low > 0}
            below[name, where] = {model for model, g in gaps.items() if g.high < 0}
    own = {"single-domain", "sdem", "me-ple"}
    assert all(own <= found for (name, _), found in below.items() if name != "literal")
    assert above["agree", ()] == {"crocodile", "me-mmoe", "mmoe", "hinet"}
    assert above["size", ()] == {"hinet", "adasparse"}
    assert above["plain", ()] == {"hinet"} and "adasparse" in below["plain", ()]
    four = list(conditions)  # "only HiNet lies wholly on one side ... in tab 6 only single-domain, below"
    assert set.intersection(*(above[name, ()] for name in four)) == {"hinet"}
    assert not set.intersection(*(below[name, ()] for name in four))
    assert set.intersection(*(below[name, ("tab 6", "fresh")] for name in four)) == {"single-domain"}
    assert not set.intersection(*(above[name, ("tab 6", "fresh")] for name in four))
    assert len(above["literal", ()]) == 9 and "single-domain" in above["literal", ()]

    pair = ("crocodile", "crocodile without CovLoss")
    gaps = [Tables("capacity", data).gap(*pair) for data in ("world", "kuairand-pure")]
    for data, start in product(("world", "kuairand-pure"), (0.1, 0.001)):
        gaps.append(Tables("start", data).gap(*((model, {"start": start}) for model in pair)))
    assert not any(g.low > 0 for g in gaps)  # "no gain by CovLoss is established", besides the sizes


def test_what_lesson_08_says_the_number_of_rows_is_mixed_with():
    text, readme = prose_of(EIGHT), prose_of("README.md")
    usual = {k: p.default for k, p in inspect.signature(make_world).parameters.items() if k not in ("users", "items")}
    at, near = [list(TABS).index(domain) for domain in ("tab 1", "tab 6")], []
    for rows, users, items in ((400_000, 2_000, 4_000), (1_600_000, 8_000, 16_000), (6_400_000, 32_000, 64_000)):
        truth, *_ = begin_world(**(usual | {"rows": rows}), users=users, items=items)
        near.append(cosine_similarity(truth.weights)[*at])
    said = "a cosine of {} at 400,000 rows, of {} at 1.6 million and of {} at 6.4 million"
    assert said.format(*(in_lesson(v, 2) for v in near)) in text

    middle = Tables("size", "world:rows=1600000,users=8000,items=16000")
    held = {m: jobs.embedding_parameters("world", m, {}) for m in ("crocodile", "me-ple", "mmoe")}
    assert [round(numbers / held["mmoe"]) for numbers in held.values()] == [6, 6, 1]
    sets, dim = (options_of("crocodile")[option] for option in ("sets", "dim"))
    assert f"hold {(sets + 1) * dim} numbers a user or item and MMoE's {options_of('mmoe')['dim']} " in text
    assert "hold six times as many numbers as MMoE's" in readme
    epoch = len(range(0, int(middle.domains().sum()), jobs.DEFAULTS.batch_size))
    passes = {m: set(np.ceil(steps / epoch)) for m, steps in middle.runs.groupby("model").best_step}
    assert passes["crocodile"] == {2} and passes["mmoe"] == {3, 4}
    large = Tables("size", "world:rows=6400000,users=32000,items=64000")
    epoch = len(range(0, int(large.domains().sum()), jobs.DEFAULTS.batch_size))
    assert set(np.ceil(large.runs.best_step / epoch)) == {2}  # "at 6.4 million each was best after two"
    full = Tables("full", "world:rows=11648000,users=1000,items=4370000").runs
    assert (full.best_step == full.steps).all()  # "none had finished"
    assert round(11_648_000 / 4_370_000, 1) == 2.7 and "only 2.7 rows per item" in text


def test_what_lesson_08_says_of_equal_sizes_follows_from_the_tables():
    text, E, C = (
        prose_of(EIGHT),
        Tables("capacity", "world"),
        Tables("capacity", "kuairand-pure"),
    )
    others = E.metric("auc").columns.drop("shared-bottom")
    there, here = ({model: T.gap(model, "shared-bottom") for model in others} for T in (E, C))

    said = {model: with_interval(gap) for model, gap in there.items()}
    assert f"HiNet by {said['hinet']} and AdaSparse by {said['adasparse']}, both after" in text
    assert {m for m, g in there.items() if g.value > 0 and 12 * p_value(g) < 0.05} == {"hinet", "adasparse"}
    assert f"Crocodile's {said['crocodile']} and ME-MMoE's {in_lesson(there['me-mmoe'].value)}, cannot" in text
    several = ("crocodile", "crocodile without CovLoss", "me-mmoe")
    assert all(there[model].low < 0 < there[model].value for model in several)
    millions = (E.runs.query("stage == 'final'").groupby("model").parameters.first() / 1e6).round(1)
    assert "HiNet and AdaSparse have 1.2 million parameters, Crocodile and Shared-Bottom .7" in text
    assert millions[["hinet", "adasparse", "crocodile", "shared-bottom"]].tolist() == [1.2, 1.2, 0.7, 0.7]
    tab_1 = {model: E.gap(model, "shared-bottom", "auc", "tab 1", "fresh") for model in (*several[1:], "adasparse")}
    said = {model: with_interval(gap) for model, gap in tab_1.items()}
    assert f"without CovLoss by {said[several[1]]}, ME-MMoE by {said['me-mmoe']}, and this" in text
    assert all(60 * p_value(gap) < 0.05 for gap in tab_1.values())
    assert f"of one table, is ahead by {in_lesson(tab_1['adasparse'].value)} as well" in text
    for tab in ("tab 0", "tab 2", "tab 4", "tab 6"):  # "the means of all three lie below Shared-Bottom's"
        assert all(E.gap(model, "shared-bottom", "auc", tab, "fresh").value < 0 for model in tab_1)
    assert f"ME-PLE stands at {in_lesson(there['me-ple'].value)}, SDEM at {in_lesson(there['sdem'].value)}" in text
    assert not any(gap.low > 0 for gap in here.values())  # "On the real days no model is seen above Shared-Bottom"
    below = [in_lesson(here[model].value) for model in ("me-ple", "single-domain")]
    assert "ME-PLE ({}) and single-domain ({}) lie below it".format(*below) in text
    assert {m for m, g in here.items() if 12 * p_value(g) < 0.05} == {"me-ple", "single-domain"}
    dims = [json.loads(one)["dim"] for one in {*E.runs.settings, *C.runs.settings}]
    assert set(dims) == {92, 95, 15, 16, 18, 19} and "92 numbers (real days) or 95 (made world)" in text


def test_what_is_said_of_equal_sizes_on_movielens_follows_from_the_tables():
    text, readme, T = prose_of(EIGHT), prose_of("README.md"), Tables("capacity", "movielens-1m")
    gaps = {m: T.gap(m, "shared-bottom") for m in T.metric("auc").columns.drop("shared-bottom")}
    behind = T.gap("crocodile", "hinet")
    above = [with_interval(g) for g in (gaps["hinet"], turned(behind))]
    assert "HiNet's lies {} above Shared-Bottom's and {} above Crocodile's".format(*above) in text
    p = [in_lesson(12 * p_value(g), 2) for g in (gaps["hinet"], behind)]
    assert "(p times 12 is {} and {})".format(*p) in text and f"(p times 12 is 0{p[1]})" in readme
    assert min(12 * p_value(g) for g in (gaps["hinet"], behind)) > 0.05
    assert T.metric("auc").mean().idxmax() == "hinet"
    several = ("crocodile", "crocodile without CovLoss", "me-mmoe")
    assert all(gaps[m].low < 0 < gaps[m].high for m in several)
    worth = T.gap("crocodile", "crocodile without CovLoss")
    assert (
        f"Crocodile stands at {with_interval(gaps['crocodile'])} from it, and CovLoss is worth {with_interval(worth)}."
        in text
    )
    own = [in_lesson(-gaps[m].value) for m in ("single-domain", "me-ple", "sdem", "ple")]
    assert "single-domain by {}, ME-PLE by {} and SDEM by {}, each".format(*own[:3]) in text
    assert {m for m, g in gaps.items() if g.value < 0 and 12 * p_value(g) < 0.05} == {
        "single-domain",
        "me-ple",
        "sdem",
        "ple",
    }
    assert f"PLE by {own[3]}, narrowly" in text and 12 * p_value(gaps["ple"]) > 0.03
    words = (
        f"Crocodile stands at {in_readme(behind)} from it (p times 12 is 0{p[1]}) and at {in_readme(gaps['crocodile'])}"
    )
    assert words in readme
    dims = {json.loads(one)["dim"] for one in T.runs.settings}
    assert dims == {92, 16, 18, 23, 31} and "92 numbers in one table, 16 to 31 in several" in text


def test_what_lessons_05_and_07_say_of_the_made_worlds_gates_follows_from_the_tables():
    texts = {n[:2]: prose_of(f"notebooks/{n}.ipynb") for n in ("05_gates_and_domains", "07_ablations")}
    readme, G = prose_of("README.md"), Tables("gates", "world")
    gates, alphas, small = ("peg", "peg-domain", "expert", "domain"), (0.01, 0.1, 1.0), ("tab 2", "tab 4", "tab 6")

    def gap(one, other, *where):
        return G.gap(*({"gate": gate, "alpha": alpha} for gate, alpha in (one, other)), "auc", *where)

    leads = {g: {d: gap(("peg", 0.0), (g, 0.0), d, "fresh") for d in G.domains().index} for g in gates[1:]}
    mmoe, expert = ([in_lesson(leads[g][d].value) for d in small] for g in ("domain", "expert"))
    said = "PEG is ahead of MMoE's gate by {} in tab 2, {} in tab 4 and {} in tab 6, and of the gate that weighs each"
    assert said.format(*mmoe) + " expert as a whole by {}, {} and {}".format(*expert) in texts["07"]
    rounded = [f"{leads[g][d].value:.3f}" for g in ("domain", "expert") for d in small]
    assert "by {}, {} and {} of AUC, and of `expert` by {}, {} and {};".format(*rounded) in texts["05"]
    assert all(leads[g]["tab 1"].low < 0 < leads[g]["tab 1"].high for g in ("domain", "expert"))
    stand = [(g, d) for g in gates[1:] for d in leads[g] if 18 * p_value(leads[g][d]) < 0.05]
    assert stand == [("expert", "tab 4"), ("expert", "tab 6"), ("domain", "tab 2"), ("domain", "tab 6")]
    over_all = gap(("peg", 0.0), ("domain", 0.0))
    assert "is {} [{}, {}], which does not".format(*map(in_lesson, over_all[:3])) in texts["07"]
    assert over_all.low > 0 and 18 * p_value(over_all) > 0.05
    assert all(gap(("peg", 0.0), ("peg-domain", 0.0), d, "fresh").low < 0 < leads["peg-domain"][d].high for d in small)

    worth = {(g, a): gap((g, a), (g, 0.0)) for g in gates for a in alphas}
    assert not [one for one in worth.values() if one.low > 0]
    assert "six of the twelve intervals leave room for the paper's gain" in texts["07"]
    assert sum(one.high > 0.0007 for one in worth.values()) == 6
    assert {pair for pair, one in worth.items() if one.high < 0} == {(g, 1.0) for g in gates[1:]}
    assert [pair for pair, one in worth.items() if 12 * p_value(one) < 0.05] == [("peg-domain", 1.0)]
    helped = [gap(("domain", 0.1), ("domain", 0.0), *where) for where in ((), ("tab 6", "fresh"))]
    for words, one in zip(("by {} [{}, {}] over the test rows", "by {} [{}, {}] in tab 6"), helped, strict=True):
        assert words.format(*map(in_lesson, one[:3])) in texts["07"]
    assert helped[1].low > 0 and 60 * p_value(helped[1]) > 0.05
    assert f"the interval reaches to {in_lesson(worth['peg', 0.1].high)}" in texts["07"]
    means = G.metric("correlation", split="valid", by="variant").mean()
    assert means.filter(like="alpha: 0.0,").between(0.08, 0.09).all()
    assert ".08 at the step that validation" in texts["07"]

    for domain in small:
        assert in_readme(leads["domain"][domain]) in readme
    ahead = [leads["expert"][domain].value for domain in small]
    assert f"at {min(ahead):+.3f} to {max(ahead):+.3f} from a gate that reads" in readme


def test_what_is_said_of_searches_defaults_and_allowances_follows_from_the_tables():
    """What decides a sentence must stand beside it: whether models were searched, and among how many one is picked."""
    six, readme, plain = prose_of("notebooks/06_benchmark.ipynb"), prose_of("README.md"), {"objective": "sample"}
    M, O = Tables("main", "world"), Tables("objective", "world")
    usual, scarce = (
        {m: O.side((m, plain), *where).seeds.mean() for m in O.runs.model.unique()}
        for where in (("auc",), ("auc", "tab 6", "fresh"))
    )
    searched = M.metric("auc").mean()
    gained = {m: searched[m] - value for m, value in usual.items()}
    words = (
        "it has {} on the test rows; as its search chose it, {}. The other eleven models of that study gained .003 to"
    )
    assert words.format(in_lesson(usual["crocodile"]), in_lesson(searched["crocodile"])) + " .013" in six
    assert min(gained, key=gained.get) == "crocodile" and gained.pop("crocodile") < 0 and len(gained) == 11
    assert [round(f(gained.values()), 3) for f in (min, max)] == [0.003, 0.013]
    assert max(usual, key=usual.get) == "crocodile" and scarce["crocodile"] > scarce["shared-bottom"]
    both = [in_lesson(scarce[m]) for m in ("crocodile", "shared-bottom", "star")]
    assert "in tab 6 {} against Shared-Bottom's {}.".format(*both) in six
    assert f"at the default settings it has {both[2]} there, and Shared-Bottom {both[1]}.)" in six
    assert f"in tab 6 Crocodile has {scarce['crocodile']:.3f}, Shared-Bottom {scarce['shared-bottom']:.3f}.)" in readme
    assert f"at the defaults STAR has {scarce['star']:.3f} there" in readme
    for tab in O.domains().index:  # "it leads in none"
        means = {m: O.side((m, plain), "auc", tab, "fresh").seeds.mean() for m in usual}
        assert max(means, key=means.get) != "shared-bottom"
    assert M.settings_of("shared-bottom")["batch_size"] == 1024 and "batch_size" not in knobs_of("crocodile")

    tables = {"real": Tables("main", "kuairand-pure"), "made": M}
    for data, best, lost in (
        ("real", "shared-bottom", {"me-ple", "pepnet", "hinet"}),
        ("made", "hinet", {"star", "ple"}),
    ):
        gaps = {m: tables[data].gap(m, best) for m in tables[data].metric("auc").columns.drop(best)}
        twelve, all_pairs = ({m for m, g in gaps.items() if g.value < 0 and n * p_value(g) < 0.05} for n in (12, 78))
        assert twelve - all_pairs == lost
        if data == "real":
            assert all_pairs == {"single-domain"}
            p = {m: 78 * p_value(gaps[m]) for m in ("single-domain", *lost)}
            assert f"p times 78 is {in_lesson(p.pop('single-domain'), 2)} there" in six
            assert f"at least {in_lesson(min(p.values()), 2)} for the other three" in six
    firsts = [
        M.gap("shared-bottom", m, "auc", "tab 6", "fresh") for m in ("mmoe", "crocodile", "crocodile without CovLoss")
    ]
    assert f"({with_interval(firsts[0])} above MMoE, a lead that an allowance for twelve" in six
    assert 12 * p_value(firsts[0]) > 0.05 and f"{with_interval(firsts[1])} above Crocodile and" in six
    assert f"and {with_interval(firsts[2])} above Crocodile without CovLoss" in six
    assert "(p times 12 is .03) and the first, whose interval is wider, just not (.052; over all" in six
    assert [round(12 * p_value(g), 3) for g in firsts[1:]] == [0.052, 0.032]


def unpaired(a, b):
    """The gap of two sides over all their runs, seed by seed independent (Welch), and its one-sided p."""
    both = [side.seeds.dropna() for side in (a, b)]
    parts = [seeds.var() / len(seeds) for seeds in both]
    users = (a.resampled[max(a.resampled.columns)] - b.resampled[max(b.resampled.columns)]).var()
    error = (sum(parts) + users) ** 0.5
    df = error**4 / sum(part**2 / (len(seeds) - 1) for part, seeds in zip(parts, both, strict=True))
    value, half = both[0].mean() - both[1].mean(), stats.t.ppf(0.975, df) * error
    return intervals.Gap(value, value - half, value + half, error, df, len(both[0]))


def test_what_is_said_of_runs_without_a_partner_follows_from_the_tables():
    """On the made world Crocodile ran ten seeds, and HiNet six: the rule compares the six that both have."""
    readme, six, seven = (prose_of(name) for name in ("README.md", "notebooks/06_benchmark.ipynb", SEVEN))
    M, B, without = Tables("main", "world"), Tables("ablations", "world"), rules.WITHOUT
    ran = M.metric("auc").notna().sum()
    assert set(ran[["hinet", "shared-bottom", without]]) == {6} and ran["crocodile"] == 10
    runs = M.metric("auc")["crocodile"]
    assert runs.idxmin() < 6 and "is among the six that are compared" in six
    lags = [unpaired(M.side("crocodile", metric), M.side("hinet", metric)) for metric in ("auc", "gauc")]
    words = "Crocodile stands at {} by AUC and at {} by gAUC."
    assert words.format(*map(with_interval, lags)) in six
    assert f"of which HiNet has six, and without pairing them, at {in_readme(lags[0])}." in readme
    behind = ["{:.4f} [{:.4f}, {:.4f}]".format(*turned(lag)[:3]) for lag in lags]
    assert "behind HiNet by {} of AUC and by {} of gAUC".format(*behind) in readme
    p = [lag.tail(0) for lag in lags]
    assert "with one-sided p of {} and {}, where .0125".format(*(in_lesson(x, 3) for x in p)) in six
    assert max(p) < rules.LEVEL / 2 == 0.0125  # the claim has two checks
    assert set(judged().query("number == 4 and data == 'world'").verdict) == {"too noisy to say"}
    tab_6 = dict(metric="auc", part="tab 6", split="fresh")
    ahead = unpaired(M.side("shared-bottom", **tab_6), M.side("crocodile", **tab_6))
    assert f"({with_interval(ahead)} over all of its ten runs)" in six and 12 * p_value(ahead) < 0.05
    assert f"without pairing, it is {in_readme(ahead)}, and established." in readme
    better = unpaired(M.side(without), M.side("crocodile"))
    assert f"the first difference is {with_interval(better)}; in the other two the means differ by .0002" in seven
    for part in ("a domain gate", "one set"):
        other = unpaired(B.side(f"crocodile with {part}"), M.side("crocodile"))
        assert abs(round(other.value, 4)) <= 0.0002 and other.high - other.value == pytest.approx(0.003, abs=0.0003)


def test_what_is_said_of_the_covariance_of_a_pair_follows_from_the_table():
    """The measure is a sum over the pairs of experts, of which the two models have 3 and 10."""
    T, six = Tables("main", "world"), prose_of("notebooks/06_benchmark.ipynb")
    cov = np.log10(T.metric("covariance", split="valid"))
    sets = [T.settings_of(model)["sets"] for model in ("crocodile", rules.WITHOUT)]
    assert sets == [3, 5] and "has five experts and ten pairs, this one three of each" in six
    lower = 10 ** (cov[rules.WITHOUT] - cov["crocodile"]).dropna().mean()
    assert "is seven times lower" in six and round(lower) == 7
    assert "for each pair it is about half as large" in six and round(lower / (10 / 3)) == 2
    assert "for each pair it is about half." in prose_of("README.md")


def test_what_is_said_of_luck_that_is_counted_twice_follows_from_the_tables():
    """What a seed owes to particular users shrinks with the seeds, and so shows in the draws over six and over ten."""
    six, readme = prose_of("notebooks/06_benchmark.ipynb"), prose_of("data/verdicts/README.md")

    def twice(T, metric):
        """Over all pairs of models with ten seeds: its share of the users' variance, and how much too wide they are."""
        ran = T.metric(metric).notna().sum()
        pairs = [T.side(a, metric) - T.side(b, metric) for a, b in combinations(ran[ran == 10].index, 2)]
        of_6, of_10 = (np.mean([side.resampled[n].var() for side in pairs]) for n in (6, 10))
        inside = (of_6 - of_10) / (1 / 6 - 1 / 10) / 10
        whole = np.mean([side.seeds.var() / 10 for side in pairs]) + of_10
        return inside / of_10, (whole / (whole - inside)) ** 0.5 - 1

    T = Tables("main", "kuairand-pure")
    for metric, lead, found, chance in (("auc", 0.0009, ".0011", ".6"), ("gauc", 0.0019, ".0038", ".3")):
        side = T.side("crocodile", metric) - T.side("shared-bottom", metric)
        seeds, users = side.seeds.var(), side.draws.var() * (1 - twice(T, metric)[0])

        def error(n, seeds=seeds, users=users):
            whole = (seeds / n + users) ** 0.5
            return whole, (n - 1) * (whole**2 / (seeds / n)) ** 2

        assert (
            in_lesson(intervals.detectable(*error(10))) == found and f"{found} by {metric.replace('auc', 'AUC')}" in six
        )
        whole, df = error(10)
        assert in_lesson(stats.nct.sf(stats.t.ppf(0.975, df), df, lead / whole), 1) == chance
        if metric == "auc":
            assert in_lesson(intervals.detectable(*error(100))) == ".0007" and "a hundred .0007 by AUC" in six
    assert "the paper's leads have chances of .6 and .3" in six
    wide = {data: [twice(Tables("main", data), metric)[1] for metric in ("auc", "gauc")] for data in DATA}
    assert "by a sixth and a quarter on KuaiRand-Pure" in readme
    assert wide["kuairand-pure"] == pytest.approx([1 / 6, 1 / 4], abs=0.04)
    assert "by a tenth on MovieLens-1M" in readme and wide["movielens-1m"] == pytest.approx([0.1, 0.1], abs=0.04)
    assert "by less on the made world" in readme and max(wide["world"]) < 0.1
    rated = Tables("main", "movielens-1m")
    lag = rated.side("crocodile") - rated.side("mmoe")
    apart = (lag.seeds.var() / 10 + lag.draws.var() * (1 - twice(rated, "auc")[0])) ** 0.5
    p = stats.t.cdf(lag.seeds.mean() / apart, 9 * (apart**2 / (lag.seeds.var() / 10)) ** 2)
    assert in_lesson(p, 3) == ".012" and p < 0.0125 and "it would be about .012, just on the other side" in six


def test_what_lessons_07_and_08_say_of_searches_and_defaults_follows_from_the_tables():
    seven, plain, small = prose_of("notebooks/07_ablations.ipynb"), {"objective": "sample"}, ("tab 2", "tab 4", "tab 6")
    M, O, B, G, C, S = (Tables(n, "world") for n in ("main", "objective", "ablations", "gates", "capacity", "start"))

    settings = {"gate": "peg", "alpha": 0.1}
    over = (G.side(settings) - M.side("crocodile")).gap()
    assert (
        f"has {in_lesson(G.side(settings).seeds.mean())} over the test rows, {with_interval(over)} more than" in seven
    )
    rest = (M.side("crocodile without CovLoss") - Tables("sample", "world").side({"alpha": 0.0})).gap()
    assert f"The rest, {with_interval(rest)}, comes with the other settings" in seven
    gate = [
        (M.side("crocodile", "auc", d, "fresh") - B.side("crocodile with a domain gate", "auc", d, "fresh")).gap()
        for d in small
    ]
    for tab, gap in zip(small, gate, strict=True):
        signed = "{} [{}, {}]".format(*(in_lesson(x, sign="+") for x in gap[:3]))
        assert f"at {signed} in {tab}" in seven
        default = G.gap({"gate": "peg", "alpha": 0.0}, {"gate": "domain", "alpha": 0.0}, "auc", tab, "fresh").value
        assert gap.low < 0 < gap.high < default  # "each interval leaves out one as large"
    one_set = (
        B.side("crocodile with one set", "auc", "tab 6", "fresh") - M.side("crocodile", "auc", "tab 6", "fresh")
    ).gap()
    p = p_value(one_set)
    assert f"its p, {in_lesson(p, 3)}, times nine is {in_lesson(9 * p, 2)}" in seven
    p = p_value(M.gap("crocodile without CovLoss", "crocodile")) / 2
    assert f"(the one-sided p, {in_lesson(p)}, times three checks is {in_lesson(3 * p, 3)}, and" in seven
    with_it = G.gap({"gate": "peg", "alpha": 0.1}, {"gate": "domain", "alpha": 0.1}, "auc", "tab 6", "fresh")
    assert f"in tab 6 is smaller, {with_interval(with_it)} at α = .1" in seven
    tab_0 = Tables("sample", "world").gap({"alpha": 0.1}, {"alpha": 0.0}, "auc", "tab 0", "fresh")
    assert f"p times 25 is still {in_lesson(25 * p_value(tab_0), 3)}" in seven
    hinet, wider = (
        O.gap(("hinet", plain), ("shared-bottom", plain)),
        (C.side("shared-bottom") - S.side(("shared-bottom", {"start": 0.1}))).gap(),
    )
    eight = prose_of(EIGHT)
    assert f"default width ({with_interval(hinet)}, the plain mean" in eight
    assert f"gain for Shared-Bottom, {with_interval(wider)}, may be nothing" in eight
    leads = {s: S.side(("crocodile", {"start": s})) - S.side(("shared-bottom", {"start": s})) for s in (0.001, 0.1)}
    assert f"the difference of the two, {with_interval((leads[0.001] - leads[0.1]).gap())}, may be luck" in eight


@pytest.mark.parametrize(
    ("times", "said"), [((0.5, 0.6), "reproduced"), ((1.5, 1.6), "contradicted"), ((0.5, 1.5), "too noisy to say")]
)
def test_the_cost_is_judged_either_way(tmp_path, times, said):
    rows = [
        cost.products(*shape)
        | {"shape": name, "rules": stamp.RULES_HASH, "versions": label_of(VERSIONS)}
        | {"ms, experts": 1.0, "ms, all rows": ms, "ms, 32 rows": ms}
        for name, shape in cost.SHAPES.items()
        for ms in times
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "cost.csv", index=False)
    table = verdicts.judge(tmp_path)
    assert set(table[table.number == 12].verdict) == {said}


def test_what_lesson_08_says_of_the_objective_on_the_made_world_follows_from_the_tables():
    text, plain, literal = (
        prose_of(EIGHT),
        {"objective": "sample"},
        {"objective": "domain"},
    )
    real, made = Tables("objective", "kuairand-pure"), Tables("objective", "world")
    cost = {m: real.side((m, plain)) - real.side((m, literal)) for m in ("me-mmoe", "ple")}
    more = (cost["me-mmoe"] - cost["ple"]).gap()
    assert f"ME-MMoE loses {with_interval(more)} more than PLE" in text

    def lost(study, model, *where):
        return study.gap((model, plain), (model, literal), "auc", *where)

    models = list(made.runs.model.unique())
    order = [sorted(models, key=lambda m: -lost(study, m).value) for study in (real, made)]  # noqa: B023
    groups = [[set(names[:4]), set(names[4:8]), set(names[8:11]), names[11]] for names in order]
    assert "The same four groups come in the same order" in text and groups[0] == groups[1]
    assert all(lost(made, m).value > 2 * lost(real, m).value for m in models if m != "single-domain")
    assert order[1][-1] == "single-domain" and lost(made, "single-domain").low < 0 < lost(made, "single-domain").high
    names = {"Shared-Bottom loses": "shared-bottom", "Crocodile": "crocodile", "PLE": "ple"}
    for word, model in names.items():
        of = " of AUC on the test rows" if model == "shared-bottom" else ""
        gap = lost(made, model)
        assert f"{word} {in_lesson(gap.value)} [{in_lesson(gap.low)}, {in_lesson(gap.high)}]{of}" in text
    means = [
        made.metric("auc", by=["model", "variant"]).mean().unstack()[f"objective: {o}"] for o in ("sample", "domain")
    ]
    assert means[0].idxmin() == "single-domain" and list(means[1].nlargest(2).index) == ["ple", "single-domain"]
    in_tab_6 = [lost(made, m, "tab 6", "fresh") for m in models]
    assert "ten of the twelve models lose, each with its whole interval" in text
    assert sum(gap.low > 0 for gap in in_tab_6) == 10
    falls = [made.side(("shared-bottom", o), "auc", "tab 6", "fresh").seeds.mean() for o in (plain, literal)]
    assert "falls from {} to {},".format(*map(in_lesson, falls)) in text
    weight = made.domains()["tab 1"] / made.domains()["tab 6"]
    assert f"weighs {weight:.1f} times as much" in text
