"""The e-detector: its ratios have mean 1 before a change, its alarms keep the budget, and no cut of the stream decides a bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import exp, log, pi, sqrt

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.detectors import EDetector, create
from stream_monitor.core.detectors.e_detector import BLOCK, SCALES, SHIFT_WEIGHTS, SHIFTS, SUSPECT, TILT_WEIGHTS, TILTS
from stream_monitor.core.settings import DetectorSettings

TINY = 1e-12  # a budget that raises no alarm by itself


def growth(count: int, ones: int, p: float) -> list[float]:
    """L_j of a block of bits: what a budget that came in before it has become, but for its weight."""
    detector = EDetector()
    detector.take_bits(count, ones, p, TINY)
    return [m / TINY / w for m, w in zip(detector.m[:6], TILT_WEIGHTS, strict=True)]


def choose(n: int, k: int) -> float:
    result = 1.0
    for i in range(k):
        result *= (n - i) / (i + 1)
    return result


def test_the_weights_of_each_kind_add_up_to_one() -> None:
    assert sum(TILT_WEIGHTS) == pytest.approx(1)
    assert 2 * sum(SHIFT_WEIGHTS) == pytest.approx(1)
    assert len(SHIFTS) + len(SCALES) // 2 == len(SHIFT_WEIGHTS)


@given(p=st.floats(1e-6, 1 - 1e-6), count=st.integers(1, BLOCK))
def test_a_block_of_bits_has_mean_one_at_the_true_share(p: float, count: int) -> None:
    law = [choose(count, ones) * p**ones * (1 - p) ** (count - ones) for ones in range(count + 1)]
    for j in range(len(TILTS)):
        mean = sum(law[ones] * growth(count, ones, p)[j] for ones in range(count + 1))
        assert mean == pytest.approx(1, rel=1e-9)


def test_a_score_has_mean_one_under_the_normal_law() -> None:
    step = 0.001
    means = [0.0] * 8
    for i in range(-12_000, 12_001):
        z = i * step
        detector = EDetector()
        detector.take_scores(1, z, z * z, TINY)
        density = exp(-z * z / 2) / sqrt(2 * pi) * step
        means = [mean + density * m / TINY for mean, m in zip(means, detector.m, strict=True)]
    weights = [w for w in SHIFT_WEIGHTS[:3] for _ in range(2)] + [SHIFT_WEIGHTS[3]] * 2
    assert [mean / w for mean, w in zip(means, weights, strict=True)] == pytest.approx([1] * 8, rel=1e-6)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=BLOCK), st.floats(0, 1e-3))
def test_a_block_of_scores_is_the_product_of_its_values(scores: list[float], c: float) -> None:
    whole, single = EDetector(), EDetector()
    whole.take_scores(len(scores), sum(scores), sum(z * z for z in scores), c)
    for i, z in enumerate(scores):
        single.take_scores(1, z, z * z, c if i == 0 else 0.0)
    assert whole.m == pytest.approx(single.m, rel=1e-9)


def test_without_a_budget_there_is_no_alarm_whatever_comes() -> None:
    detector = EDetector()
    assert not any(detector.take_scores(1, 8.0, 64.0, 0.0) for _ in range(1_000))
    assert not any(detector.take_bits(1, 1, 1e-9, 0.0) for _ in range(1_000))


def test_it_looks_at_every_value_as_soon_as_something_is_suspected() -> None:
    detector = EDetector()
    while not detector.take_scores(1, 1.0, 1.0, 1e-9):
        assert (detector.due == 1) == (sum(detector.m) >= SUSPECT)
    detector.reset()
    assert detector.due == BLOCK


@pytest.mark.parametrize(("shift", "spread"), [(0.7, 1), (-0.7, 1), (0, 1.8), (0, 0.5)])
def test_shifts_and_spreads_of_scores_are_seen_in_both_directions(shift: float, spread: float) -> None:
    rng = random.Random(1)
    detector = EDetector()
    values = [rng.gauss(0, 1) for _ in range(3_000)] + [rng.gauss(shift, spread) for _ in range(500)]
    at = next(i for i, z in enumerate(values) if detector.update(z))
    assert 3_000 < at < 3_150


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.3), (0.3, 0.1), (0.01, 0.1), (0.99, 0.9), (0.5, 0.9)])
def test_a_share_that_rises_or_falls_is_seen(before: float, after: float) -> None:
    rng = random.Random(1)
    detector = EDetector()
    seen = ones = 0
    for i in range(4_000):
        x = int(rng.random() < (before if i < 3_000 else after))
        if detector.take_bits(1, x, (ones + 0.5) / (seen + 1), 1e-6):
            break
        seen, ones = seen + 1, ones + x
    assert 3_000 < i < 3_300


def scores(count: int, seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    return (rng.gauss(0, 1) for _ in range(count))


def test_false_alarms_keep_to_the_budget_on_scores() -> None:
    """200,000 values at a budget of 1 in 2,000: 100 are allowed, and a theorem says that no more come on average."""
    detector = EDetector(per_value=5e-4)
    alarms = 0
    for z in scores(200_000, 3):
        if detector.update(z):
            alarms += 1
            detector.reset()
    assert 60 < alarms < 100 + 2.5 * 10


@pytest.mark.parametrize("p", [0.5, 0.1, 0.01, 0.002])
def test_false_alarms_keep_to_the_budget_on_bits_of_any_share(p: float) -> None:
    """Streams of 10,000 bits, judged from the 1,000th on: 36 alarms are allowed."""
    rng = random.Random(7)
    alarms = 0
    for _ in range(10):
        detector, seen, ones, held, held_ones = EDetector(), 0, 0, 0, 0
        for i in range(10_000):
            held, held_ones = held + 1, held_ones + (rng.random() < p)
            if i >= 1_000 and held < detector.due:
                continue
            if i >= 1_000 and detector.take_bits(held, held_ones, (ones + 0.5) / (seen + 1), held * 4e-4):
                alarms += 1
                detector.reset()
            seen, ones, held, held_ones = seen + held, ones + held_ones, 0, 0
    assert alarms < 36 + 2.5 * 6


@given(cut=st.integers(0, 400))
def test_saved_and_restored_anywhere_it_goes_on_as_it_was(cut: int) -> None:
    values = [z + (0.8 if i > 200 else 0) for i, z in enumerate(scores(400, 5))]
    one, other = EDetector(), EDetector()
    for z in values[:cut]:
        one.update(z)
    other.restore(orjson.loads(orjson.dumps(one.state())))
    assert [one.update(z) for z in values[cut:]] == [other.update(z) for z in values[cut:]]
    assert one.state() == other.state()


def test_a_budget_of_its_own_is_a_parameter_and_not_covered_by_the_common_one() -> None:
    detector = create(DetectorSettings("e_detector", {"per_value": 1e-4}))
    assert (detector.budgeted, detector.assurance, dict(detector.parameters)) == (False, "uncalibrated", {"per_value": 1e-4})
    with pytest.raises(ValueError, match="per_value is 2"):
        create(DetectorSettings("e_detector", {"per_value": 2}))


def test_the_evidence_grows_by_what_the_likelihood_says() -> None:
    detector = EDetector()
    detector.take_bits(1, 1, 0.5, 1.0)
    expected = sum(w * exp(t) / (0.5 + 0.5 * exp(t)) for t, w in zip(TILTS, TILT_WEIGHTS, strict=True))
    assert sum(detector.m) == pytest.approx(expected, rel=1e-12)
    assert log(expected) > 0


def test_who_heeds_less_is_told_from_there_on_and_nothing_else_changes() -> None:
    rng, told = random.Random(1), []
    one, other = EDetector(), EDetector()
    other.heed = 0.01
    for _ in range(400):
        z = rng.gauss(0.5, 1)
        told.append((one.take_scores(1, z, z * z, 1e-6), other.take_scores(1, z, z * z, 1e-6)))
        assert (one.m, one.due, one.total()) == (other.m, other.due, other.total())
        assert told[-1] == (one.total() >= 1, one.total() >= 0.01)
        if told[-1][0]:
            break
    assert (False, True) in told
    assert told[-1] == (True, True)
