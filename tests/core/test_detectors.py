"""Every detector behind the protocol: it sees a change, keeps quiet without one, and survives being saved."""

from __future__ import annotations

import random
from math import isfinite

import orjson
import pytest
from river.drift import PageHinkley as River

from stream_monitor.core.detectors import create, names
from stream_monitor.core.detectors.page_hinkley import PageHinkley
from stream_monitor.core.events import Level
from stream_monitor.core.settings import DetectorSettings
from stream_monitor.testing import alarms

ALL = "adwin", "e_detector", "page_hinkley"  # river's others: test_river_detectors.py
WATCHES_MEANS = [name for name in ALL if name != "e_detector"]  # that one minds a variance that changes, too


def first_alarm(name: str, values: list[float]) -> int | None:
    detector = create(DetectorSettings(name))
    return next((i for i, x in enumerate(values) if detector.update(x)), None)


def normal(count: int, mean: float = 0.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, 1) for _ in range(count)]


def test_they_are_known_by_name() -> None:
    assert set(ALL) <= set(names())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shift", [0.7, -0.7])
def test_a_shift_is_seen_soon_in_both_directions(name: str, shift: float) -> None:
    at = first_alarm(name, normal(3_000) + normal(1_000, shift, seed=2))
    assert at is not None
    assert 3_000 < at < 3_250


@pytest.mark.parametrize("name", ALL)
def test_a_hundred_thousand_stationary_values_raise_no_alarm(name: str) -> None:
    assert first_alarm(name, normal(100_000)) is None


@pytest.mark.parametrize("name", WATCHES_MEANS)
def test_a_constant_raises_no_alarm(name: str) -> None:
    assert first_alarm(name, [0.0] * 10_000) is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cut", [0, 1, 29, 31, 1_000, 3_010])
def test_a_restored_detector_goes_on_as_the_saved_one(name: str, cut: int) -> None:
    values = normal(3_000) + normal(1_000, 1.0, seed=2) + normal(2_000, -1.0, seed=3)
    one = create(DetectorSettings(name))

    alarms(one, values[:cut])
    other = create(DetectorSettings(name))
    other.restore(orjson.loads(orjson.dumps(one.state())))
    assert alarms(other, values[cut:]) == alarms(one, values[cut:]) != []
    assert other.state() == one.state()


@pytest.mark.parametrize("name", ALL)
def test_after_a_reset_nothing_of_the_past_is_left(name: str) -> None:
    used, fresh = create(DetectorSettings(name)), create(DetectorSettings(name))
    for x in normal(500, 3.0):
        used.update(x)
    used.reset()
    assert used.state() == fresh.state()


@pytest.mark.parametrize("name", ALL)
def test_the_evidence_of_a_clear_change_passes_its_threshold(name: str) -> None:
    detector = create(DetectorSettings(name))
    values = normal(3_000) + normal(1_000, 1.0, seed=2)
    at = next(i for i, x in enumerate(values) if detector.update(x))
    after = values[3_000 : at + 1]
    evidence = detector.evidence(Level(sum(values[:3_000]) / 3_000, 3_000), Level(sum(after) / len(after), len(after)))
    assert evidence.statistic > evidence.threshold > 0


@pytest.mark.parametrize("name", [*ALL, "ddm", "eddm", "hddm_a", "hddm_w"])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_evidence_is_a_number_where_all_values_are_the_same_from_some_value_on(name: str, end: float) -> None:
    """A model that fails altogether: variances of what is left come out as nothing, or by rounding as less."""
    for seed in range(60):
        rng, before = random.Random(seed), 100 + 15 * seed
        detector = create(DetectorSettings(name))
        for i in range(before + 400):
            if detector.update(float(rng.random() < 0.3) if i < before else end) and i >= before:
                evidence = detector.evidence(Level(0.3, before), Level(end, i + 1 - before))
                assert isfinite(evidence.statistic), seed
                assert isfinite(evidence.threshold), seed


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", ["AAAA", [1, 2], {"no": "state"}])
def test_a_state_that_is_none_is_refused(name: str, bad: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        create(DetectorSettings(name)).restore(bad)


def test_a_state_of_other_parameters_is_refused() -> None:
    saved = create(DetectorSettings("adwin", {"delta": 0.01})).state()
    with pytest.raises(ValueError, match="other parameters"):
        create(DetectorSettings("adwin", {"delta": 0.02})).restore(saved)
    with pytest.raises(ValueError, match="other parameters"):
        create(DetectorSettings("adwin", {"clock": 64})).restore(saved)


def test_a_number_of_values_is_a_whole_one() -> None:
    for wrong in (50.0, "many", -1):
        with pytest.raises((ValueError, TypeError)):  # what is compiled says it in words of its own
            create(DetectorSettings("page_hinkley", {"min_instances": wrong}))


def test_a_detector_with_a_threshold_of_its_own_is_not_covered_by_the_budget_and_says_so() -> None:
    covered = {"e_detector": "guaranteed", "adwin": "calibrated", "page_hinkley": "calibrated"}
    for name, assurance in covered.items():
        detector = create(DetectorSettings(name))
        assert (detector.budgeted, detector.assurance) == (True, assurance)
    for name, parameters in (("adwin", {"delta": 1e-4}), ("adwin", {"clock": 8}), ("page_hinkley", {"threshold": 50.0})):
        detector = create(DetectorSettings(name, parameters))
        assert (detector.budgeted, detector.assurance) == (False, "uncalibrated")
        before = detector.parameters
        detector.reset()
        assert detector.parameters == before
    assert create(DetectorSettings("page_hinkley", {"delta": 0.5})).budgeted, "the formula knows every allowance"


@pytest.mark.parametrize("name", ["adwin", "page_hinkley"])
def test_a_longer_run_length_asks_for_more_and_what_was_seen_is_kept(name: str) -> None:
    values = normal(3_000) + normal(1_000, 0.3, seed=2)
    alarms = []
    for run_length in (1e4, 1e7, 1e10):
        detector = create(DetectorSettings(name))
        for x in values[:2_000]:
            detector.update(x)
        detector.retune(run_length, None)
        alarms.append(next((i for i, x in enumerate(values[2_000:]) if detector.update(x)), 10**6))
        again = create(DetectorSettings(name))
        again.restore(orjson.loads(orjson.dumps(detector.state())))
        assert again.parameters == detector.parameters
    assert alarms == sorted(alarms)
    assert 1_000 < alarms[0] < alarms[1]


def test_an_unknown_name_or_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="adwin, ddm, e_detector, eddm, hddm_a, hddm_w, kswin, page_hinkley"):
        create(DetectorSettings("adwim"))
    with pytest.raises(ValueError, match="delta, clock"):
        create(DetectorSettings("adwin", {"detla": 0.1}))


@pytest.mark.parametrize("threshold", [3.0, 12.0, 40.0])
def test_page_hinkley_is_rivers_to_the_last_bit(threshold: float) -> None:
    ours, rivers = PageHinkley(0.25, threshold), River(min_instances=30, delta=0.25, threshold=threshold, alpha=1.0)
    rng = random.Random(7)
    alarms = 0
    for i in range(20_000):
        x = rng.gauss(0.5 * (i // 4_000 % 2), 1) if i % 997 else rng.choice((1e300, -1e9, 5e-324))
        rivers.update(x)  # type: ignore[no-untyped-call]
        assert ours.update(x) == rivers.drift_detected
        alarms += rivers.drift_detected
        known = (
            rivers._x_mean.n,
            rivers._x_mean._mean,
            rivers._sum_increase,
            rivers._sum_decrease,
            rivers._min_increase,
            rivers._max_decrease,
        )
        assert tuple(ours.state()[1:]) == known
    assert alarms
