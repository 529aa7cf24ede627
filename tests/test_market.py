"""The market: true lifts are found, A/A runs are calibrated, sound feeds pass and each fault is caught."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit
from small import ROLES, clicks

from croco_lib import CrocoError, DataError, build, fit, from_frame, load
from croco_lib.evaluation import predict
from croco_lib.online import abtest, calibration, faults, market, simulation


@pytest.fixture(scope="module")
def place(small_world):
    return market.make_market(small_world)


@pytest.fixture(scope="module")
def model(small_world):
    given = dict(epochs=4, batch_size=512, lr=0.01, progress=False)
    return fit(build("shared-bottom", small_world), small_world, **given).model


@pytest.fixture(scope="module")
def asked(place):
    return market.draw_requests(place, 30_000, candidates=8, days=5)


@pytest.fixture(scope="module")
def truth(place, asked):
    flat = [np.repeat(a, 8) for a in (asked.user, asked.domain)]
    return place.data.world.probability(flat[0], asked.ads.ravel(), flat[1]).reshape(asked.ads.shape)


@pytest.fixture(scope="module")
def arm(place, asked, model):
    return market.serve(place, asked, market.predict_candidates(model, place, asked))


@pytest.fixture(scope="module")
def best(place, asked, truth):
    return market.serve(place, asked, truth)


def test_requests_are_long_tailed_and_seeded(place, asked):
    share = np.bincount(asked.domain, minlength=5) / len(asked.domain)
    assert np.allclose(share, place.share, atol=0.01) and len(asked.day) == 30_000 and set(asked.day) == set(range(5))
    for s in range(5):  # each domain has its own users and ads
        here = asked.domain == s
        for ids, p in ((asked.user[here], place.world.user_p), (asked.ads[here].ravel(), place.world.item_p)):
            seen = np.bincount(ids, minlength=p.shape[1]) / len(ids)
            assert np.abs(seen - p).sum(1).argmin() == s
    again = market.draw_requests(place, 30_000, candidates=8, days=5)
    assert all((a == b).all() for a, b in zip(asked, again, strict=True))
    assert (market.draw_requests(place, 30_000, candidates=8, seed=1).user != asked.user).any()


def test_every_candidate_gets_the_models_own_score(place, asked, model):
    few = asked.take(slice(50))
    rows = market.code_rows(place, np.repeat(few.user, 8), few.ads.ravel(), np.repeat(few.domain, 8))
    assert np.allclose(market.predict_candidates(model, place, few).ravel(), expit(predict(model, rows)), atol=1e-6)


def test_outcomes_are_drawn_from_the_truth(place, arm):
    for metric in market.METRICS:
        gap = arm[metric] - arm[f"true_{metric}"]
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
    assert ((arm.gmv > 0) <= (arm.ctr > 0)).all()


def test_the_truth_earns_the_most_and_the_same_arm_nothing_more(place, arm, best):
    table = abtest.compare(arm, best, place).set_index(["domain", "metric"])
    assert table.low["all", "revenue"] > 0
    assert (abtest.compare(arm, arm, place).lift == 0).all()


def test_the_ad_shown_has_the_highest_bid_times_prediction(place, asked, truth):
    few = asked.take(slice(200))
    p = np.random.default_rng(0).random(few.ads.shape)
    shown = market.serve(place, few, p)
    for i, row in enumerate(shown.itertuples()):
        best = max(range(8), key=lambda c, i=i: place.bid[few.ads[i, c]] * p[i, c])
        ad, click = few.ads[i, best], few.draws[0, i] < truth[i, best]
        bought = click and few.draws[1, i] < place.bought[ad]
        assert (row.ad, row.predicted, row.ctr) == (ad, p[i, best], click)
        assert (row.revenue, row.gmv) == (click * place.bid[ad], bought * place.value[ad])


def test_the_paired_error_is_that_of_other_users(place, arm, best):
    """The error of a true lift, against drawing the users again."""
    se = abtest.compare(arm, best, place).set_index(["domain", "metric"]).se["all", "revenue"]
    ours, theirs = (np.bincount(frame.user, frame.true_revenue, place.users) for frame in (arm, best))
    weights = np.random.default_rng(0).multinomial(place.users, np.full(place.users, 1 / place.users), 1000)
    assert np.std((weights @ theirs) / (weights @ ours)) == pytest.approx(se, rel=0.15)


def test_an_interval_excludes_zero_just_where_the_test_finds_a_difference(place, arm):
    """Of A/A tests, the twenty nearest to the limit: the interval of `compare` beside the z of `aa_z_scores`."""
    z = abtest.aa_z_scores(arm, place, "gmv", runs=3_000)[-1]
    assigned = abtest.assign(place.users, runs=3_000)
    nearest = np.argsort(np.abs(np.abs(z) - 1.959964))[:20]
    found = [abtest.compare(arm, arm, place, assigned[i]).set_index(["domain", "metric"]) for i in nearest]
    low, high = (np.array([frame[end]["all", "gmv"] for frame in found]) for end in ("low", "high"))
    called = np.abs(z[nearest]) > 1.959964
    np.testing.assert_array_equal((low > 0) | (high < 0), called)
    assert 0 < called.sum() < 20


def test_a_true_lifts_interval_is_symmetric_about_its_logarithm(place, arm, best):
    frame = abtest.compare(arm, best, place)
    for end, sign in ((frame.low, -1), (frame.high, 1)):
        np.testing.assert_allclose(
            np.log1p(end) - np.log(frame.b / frame.a), sign * 1.959964 * frame.se / (1 + frame.lift), rtol=1e-6
        )


def test_a_user_outside_who_asks_as_often_as_all_within_makes_no_error_nan():
    own = np.array([False, True, True])
    assert abtest.ratio(np.array([1.0, 1, 1]), np.array([2.0, 1, 1]), own)[1] == 0


@pytest.mark.slow
def test_the_ab_test_covers_the_true_lift(place, arm, best):
    def revenue(*assigned):
        return abtest.compare(arm, best, place, *assigned).set_index(["domain", "metric"]).loc[("all", "revenue")]

    true, seen = revenue().lift, [revenue(abtest.assign(place.users, seed=s)) for s in range(200)]
    assert np.mean([t.low < true < t.high for t in seen]) > 0.88


def test_aa_runs_are_calibrated_and_peeking_is_not(place, arm):
    z = abtest.aa_z_scores(arm, place, "gmv", runs=3_000)
    found = abtest.false_positives(z).set_index("rule").false_positives
    assert 0.035 < found["one look at the end"] < 0.065
    assert found["a look each day"] > found["one look at the end"] + 0.02
    assert found["a look each day, O'Brien–Fleming"] < 0.065


def test_boundary_holds_its_level_where_days_are_independent():
    walk = np.random.default_rng(1).normal(size=(50_000, 5)).cumsum(1) / np.sqrt(np.arange(1, 6))
    assert (np.abs(walk) > abtest.boundary(5)).any(1).mean() == pytest.approx(0.05, abs=0.004)
    assert abtest.boundary(5)[-1] == pytest.approx(2.04, abs=0.02)  # the published constant


def test_power_and_sample_size_agree():
    users = abtest.users_needed(0.0072, se=0.02, users=1000)
    assert abtest.power(0.0072, 0.02 * np.sqrt(1000 / users)) == pytest.approx(0.8, abs=0.001)
    assert abtest.power(0.0, 0.02) == pytest.approx(0.05)


def test_calibration_sees_a_distortion_and_platt_mends_it(small_world, model):
    fresh = small_world.world.fresh(4_000)
    p = expit(predict(model, fresh))
    sure = calibration.reliability(fresh.label, calibration.distort(p, 3), fresh.domain, fresh.domains)
    slope, shift = calibration.platt(model, fresh)[fresh.domain].T
    mended = calibration.reliability(fresh.label, calibration.distort(p, slope, shift), fresh.domain, fresh.domains)
    assert (mended.groupby("domain").ece.first() < sure.groupby("domain").ece.first()).all()
    assert mended.ece.max() < 0.06
    assert np.allclose(calibration.distort(p, 2, 1), expit(2 * logit(p) + 1), atol=1e-4)


def test_continual_training_learns_from_the_arms_own_ranking(place, small_world, monkeypatch):
    asked = market.draw_requests(place, 6_000, candidates=5, days=2)
    new, own = (build("shared-bottom", small_world) for _ in range(2))
    seen, really = [], market.train
    monkeypatch.setattr(market, "train", lambda m, data, *a, **k: seen.append(data.train) or really(m, data, *a, **k))
    out = market.train_continually({"a": own}, place, asked)["a"]
    assert len(out) == 6_000 and out.day.max() == 1 and len(seen) == 2
    today = asked.take(asked.day == 0)
    first = market.serve(place, today, market.predict_candidates(new, place, today))
    log = market.code_rows(place, *(first[c].to_numpy() for c in ("user", "ad", "domain", "ctr")))
    day = market.day_data(place.data, log, 0).train
    assert np.array_equal(seen[0].features, day.features) and np.array_equal(seen[0].label, day.label)
    assert any((v != own.state_dict()[k]).any() for k, v in new.state_dict().items())


@pytest.fixture(scope="module")
def few(place):
    return market.draw_requests(place, 500)


@pytest.fixture(scope="module")
def good_days(place, model):
    rng, decided = np.random.default_rng(3), faults.decided_by_ids(place.data)
    days = [faults.draw_day(place, 4_000, rng) for _ in range(90)]
    return days, [[faults.daily_statistics(model, day[s], decided) for day in days] for s in range(5)], decided


def test_sound_days_raise_no_more_alarms_than_stated(good_days):
    _, history, _ = good_days
    alarms = [bool(faults.failed_tests(h[t], h[t - 10 : t], level=0.05)) for h in history for t in range(10, 90)]
    assert 0 < np.mean(alarms) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(alarms))


@pytest.mark.parametrize("fault", [fault for fault in faults.FAULTS if fault != "feed missing"])  # that has no rows
def test_each_fault_is_caught(good_days, place, model, fault):
    days, history, decided = good_days
    broken = faults.FAULTS[fault](days[20][0], np.random.default_rng(0), place.data)
    assert faults.failed_tests(faults.daily_statistics(model, broken, decided), history[0][10:20])


def test_fields_that_an_id_decides_are_found(place):
    names = [f.name for f in place.data.fields]
    pairs = [(names[k], names[c]) for k, c, _ in faults.decided_by_ids(place.data)]
    assert pairs == [("user", "group"), ("user", "activity"), ("item", "author"), ("item", "category")]


@pytest.mark.parametrize(("tolerance", "harm"), [(False, True), (True, False)])
def test_with_tolerance_a_flipped_domain_does_no_harm(place, model, few, tolerance, harm):
    options = dict(requests=few, tolerance=tolerance, domain=0, days=5, when=range(1, 4), rows=6_000)
    days = faults.simulate_fault(deepcopy(model), place, "labels flipped", **options)
    assert days.alarm[1:4].str.contains("tab 0").all() == tolerance
    assert not days.alarm[4:].str.contains("tab 0").any()  # taken back
    assert (days.auc_faulty[3] < days.auc_faulty[0] - 0.1) == harm


def test_a_missing_feed_stops_training_only_without_tolerance(place, model, few):
    given = dict(requests=few, days=2, when=range(1, 2), rows=6_000)
    runs = [faults.simulate_fault(deepcopy(model), place, "feed missing", tolerance=t, **given) for t in (False, True)]
    done = [run.done[1] for run in runs]
    assert done[0] == "lost" and "without tab 2" in done[1]


def test_a_day_that_slips_through_is_rolled_back(place, model, few, monkeypatch):
    monkeypatch.setattr(faults, "failed_tests", lambda *a: [])
    monkeypatch.setattr(faults, "is_worse", lambda *a: True)
    days = faults.simulate_fault(deepcopy(model), place, None, requests=few, tolerance=True, days=1, rows=6_000)
    assert days.done[0] == "rolled back, tab 1 only"


def test_a_roll_back_starts_again_from_the_weights_before(place, model, monkeypatch):
    mine, starts, fed = deepcopy(model), [], []
    before = {k: v.clone() for k, v in mine.state_dict().items()}

    def spoil(model, data, feed, day):
        starts.append(all(torch.equal(v, before[k]) for k, v in model.state_dict().items()))
        fed.append(list(feed))
        with torch.no_grad():
            [p.add_(1) for p in model.parameters()]
        return data

    monkeypatch.setattr(faults, "train_day", spoil)
    monkeypatch.setattr(faults, "is_worse", lambda *_: True)
    rng = np.random.default_rng(0)
    feed, good = faults.draw_day(place, 2_000, rng), faults.draw_day(place, 2_000, rng)
    new = list(feed)
    assert faults.train_or_roll_back(mine, place.data, feed, good, 0) and starts == [True, True]
    assert all(fed[1][s] is (new if s == faults.MAIN else good)[s] for s in range(5))


def test_worse_is_seen_and_the_weights_stay(model, small_world):
    checkpoint = model.state_dict()
    spoilt = build("shared-bottom", small_world)
    before = {k: v.clone() for k, v in spoilt.state_dict().items()}
    assert faults.is_worse(spoilt, checkpoint, small_world.valid)
    assert all((spoilt.state_dict()[k] == v).all() for k, v in before.items())
    assert not faults.is_worse(model, checkpoint, small_world.valid)


def test_a_market_needs_a_truth():
    with pytest.raises(CrocoError, match="Load 'world'"):
        market.make_market(from_frame(clicks(), **ROLES))


def test_the_arms_are_the_best_baseline_on_validation_and_crocodile_as_searched(tmp_path):
    rows = [
        ("search", "ple", 0.99, "{}", "done"),
        ("final", "ple", 0.80, '{"dim": 8}', "done"),
        ("final", "mmoe", 0.82, '{"lr": 0.01}', "done"),
        ("final", "star", "", "{}", "failed"),
        ("final", "single-domain", 0.95, "{}", "done"),
        ("final", "crocodile", 0.70, '{"sets": 3}', "done"),
        ("final", "crocodile without CovLoss", 0.97, "{}", "done"),
    ]
    path = tmp_path / "main.world.runs.csv"
    frame = pd.DataFrame(rows, columns=["stage", "model", "valid_auc", "settings", "status"])
    frame.to_csv(path, index=False)
    assert simulation.choose_arms(path) == {"mmoe": {"lr": 0.01}, "crocodile": {"sets": 3}}
    assert simulation.choose_arms(tmp_path / "absent.csv") == {"shared-bottom": {}, "crocodile": {}}


def test_an_arm_is_trained_as_a_study_trains_it(small_world):
    arm = simulation.train_arm("mmoe", {"experts": 3, "lr": 0.01, "epochs": 1}, small_world, seed=2)
    every = max(1, round(len(small_world.train) / 4 / 2048))
    options = dict(lr=0.01, epochs=1, batch_size=2048, patience=6, eval_every=every, progress=False)
    same = fit(build("mmoe", small_world, seed=2, experts=3), small_world, seed=2, **options).model
    assert all(torch.equal(a, b) for a, b in zip(arm.parameters(), same.parameters(), strict=True))


@pytest.fixture
def settings(monkeypatch):
    """Those of two arms of one epoch, of whose simulation only the lifts are written."""
    settings = {"epochs": 1, "lr": 0.01}
    monkeypatch.setattr(simulation, "choose_arms", lambda: {"shared-bottom": settings, "crocodile": settings})
    monkeypatch.setattr(simulation, "measure", lambda *given: iter([("online.csv", given[-2])]))
    return settings


def test_every_training_of_the_arms_has_its_lifts(tmp_path, settings):
    world = dict(rows=5_000, users=200, items=100)
    simulation.simulate(tmp_path, world, count=2_000, seed=4, trainings=2, say=lambda text: None)
    true = pd.read_csv(tmp_path / "online.csv").query("domain == 'all' and metric == 'ctr' and measured != 'A/B test'")
    assert true.training.tolist() == [4, 5] and true.lift.nunique() == 2
    place = market.make_market(load("world", **world), seed=4)
    requests = market.draw_requests(place, 2_000, candidates=20, days=14, seed=4)
    arms = [simulation.train_arm(name, settings, place.data, seed=5) for name in ("shared-bottom", "crocodile")]
    shown = [market.serve(place, requests, market.predict_candidates(arm, place, requests)) for arm in arms]
    assert true.lift.iloc[1] == pytest.approx(shown[1].true_ctr.sum() / shown[0].true_ctr.sum() - 1, rel=1e-5)


def test_a_simulation_that_was_interrupted_goes_on_with_the_arms_it_has_trained(tmp_path, settings, monkeypatch):
    options = dict(data=dict(rows=5_000, users=200, items=100), count=2_000, trainings=1, say=lambda text: None)
    simulation.simulate(tmp_path / "whole", **options)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(simulation, "predict_candidates", stop)
        simulation.simulate(tmp_path / "cut", **options)
    trained = tmp_path / "cut" / "runs" / "shared-bottom.0" / "best.safetensors"
    written = trained.stat().st_mtime_ns
    simulation.simulate(tmp_path / "cut", **options)
    assert trained.stat().st_mtime_ns == written
    assert (tmp_path / "cut" / "online.csv").read_bytes() == (tmp_path / "whole" / "online.csv").read_bytes()


def test_every_table_of_the_simulation_can_be_made(place, model, small_world, monkeypatch):
    arms = {"shared-bottom": model, "crocodile": build("crocodile", small_world)}
    requests = market.draw_requests(place, 20_000, candidates=4, days=2)
    scores = {m: market.predict_candidates(arm, place, requests) for m, arm in arms.items()}
    shown = {m: market.serve(place, requests, p) for m, p in scores.items()}
    lifts = simulation.measure_lifts(place, shown, 0).assign(training=0)
    asked = []

    def note(arm, at, fault, **options):
        asked.append((fault, options["tolerance"]))
        return pd.DataFrame({"day": [0]})

    monkeypatch.setattr(simulation, "simulate_fault", note)
    monkeypatch.setattr(simulation, "export", lambda *_: "")
    monkeypatch.setattr(simulation, "latency", lambda _: (1.0, 2.0))
    made = dict(simulation.measure(arms, place, requests, scores, shown, lifts, 0))
    kinds = ("", ".aa", ".power", ".calibration", ".gmv", ".daily", ".faults", ".latency")
    assert list(made) == [f"online{kind}.csv" for kind in kinds]
    assert asked == [(fault, tolerance) for fault in (None, *faults.FAULTS) for tolerance in (False, True)]
    gmv = made["online.gmv.csv"].set_index(["model", "predictions"]).revenue
    assert gmv["shared-bottom", "as trained"] == pytest.approx(shown["shared-bottom"].true_revenue.mean())
    assert set(made["online.daily.csv"].day) == set(range(7))
    assert (made["online.power.csv"].users_for_80_percent > 0).all()


def test_a_days_rows_are_checked_also_on_a_world_that_is_prepared(place):
    stored = replace(place.data, stored={"fingerprint": "of the whole"})
    log = place.data.train.take(np.flatnonzero(place.data.train.domain != 2)[:3_000])
    with pytest.raises(DataError, match="has no rows in the train split"):
        market.day_data(stored, log)


def test_a_fault_that_is_none_is_named_before_the_first_day(place, model, few):
    with pytest.raises(CrocoError, match="Unknown fault 'labels fliped'. Did you mean 'labels flipped'"):
        faults.simulate_fault(model, place, "labels fliped", requests=few, tolerance=True, when=range(0))
