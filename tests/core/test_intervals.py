"""The intervals of levels."""

from __future__ import annotations

import random

import pytest

from stream_monitor.core.events import Level
from stream_monitor.core.intervals import Blocks, mixed, of_mean, of_share, of_spread, student
from tests.core.test_alerting import bits, feed, stream


def within(level: Level, true: float) -> bool:
    return level.low is not None and level.high is not None and level.low <= true <= level.high


def blocks(values: list[float], size: int = 25) -> Blocks:
    return Blocks.of((len(part), sum(part)) for part in (values[i : i + size] for i in range(0, len(values), size)))


@pytest.mark.parametrize(("ones", "count"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 1_000), (500, 1_000)])
def test_a_share_lies_within_its_interval_and_that_within_zero_and_one(ones: int, count: int) -> None:
    level = of_share(ones, count)
    assert level.low is not None
    assert level.high is not None
    assert 0 <= level.low <= ones / count <= level.high <= 1
    assert level.low < level.high


@pytest.mark.parametrize(("p", "count"), [(0.02, 60), (0.1, 30), (0.5, 30), (0.3, 500)])
def test_nine_in_ten_intervals_of_a_share_hold_the_true_one(p: float, count: int) -> None:
    rng = random.Random(1)
    held = [within(of_share(sum(rng.random() < p for _ in range(count)), count), p) for _ in range(500)]
    assert 0.86 <= sum(held) / 500 <= 0.97


@pytest.mark.parametrize("size", [80, 1_000])
@pytest.mark.parametrize("law", ["normal", "lognormal", "autoregressive"])
def test_nine_in_ten_intervals_of_a_mean_hold_the_true_one(law: str, size: int) -> None:
    rng = random.Random(2)
    held = 0
    for _ in range(300):
        if law == "autoregressive":
            z, values = 0.0, []
            for _ in range(size):
                z = 0.5 * z + rng.gauss(0, 1)
                values.append(z)
        else:
            values = [rng.gauss(0, 1) if law == "normal" else rng.lognormvariate(0, 1) for _ in range(size)]
        held += within(of_mean(blocks(values)), 1.6487 if law == "lognormal" else 0)
    assert 0.82 <= held / 300 <= 0.95


def test_few_values_are_taken_to_vary_as_those_before_did() -> None:
    before = blocks([float(i % 2) for i in range(997)], size=3)
    after = of_mean(Blocks.of([(20, 100.0)]), before)
    assert after.low is not None
    assert after.high is not None
    assert 4.5 < after.low < after.value == 5.0 < after.high < 5.5
    assert of_mean(Blocks.of([(20, 100.0)])) == Level(5.0, 20), "one block by itself says nothing of it"


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_values_of_any_size_have_an_interval(scale: float) -> None:
    level = of_mean(Blocks.of([(2, 0.5 * scale), (2, 0.7 * scale), (2, 0.9 * scale)]))
    assert level.low is not None
    assert level.high is not None
    assert 0 < level.low < level.value < level.high < scale


def test_a_spread_lies_within_its_interval() -> None:
    level = of_spread(2.0, 50)
    assert level.low == pytest.approx(1.7, abs=0.02)
    assert level.high == pytest.approx(2.36, abs=0.02)


def test_values_of_before_among_those_after_mean_that_after_is_further_away() -> None:
    before, after = Level(0.0, 100), Level(1.0, 20, 0.8, 1.2)
    assert mixed(before, after, 10) == Level(1.0, 20, 0.8, 2.2)
    nearer = mixed(Level(2.0, 100), after, 10)
    assert nearer == Level(1.0, 20, nearer.low, 1.2)
    assert nearer.low == pytest.approx(-0.2)
    assert mixed(before, after, 0) == after == mixed(before, after, 20)


def test_students_t_is_that_of_the_tables() -> None:
    assert [round(student(n), 2) for n in (1, 2, 5, 9, 10, 20, 1_000)] == [6.31, 2.92, 2.02, 1.83, 1.81, 1.72, 1.65]


def test_an_alert_carries_the_intervals_of_its_levels() -> None:
    [alert] = feed(stream(), bits(5_000, 0.1) + bits(600, 0.3, seed=2))
    assert within(alert.before, 0.1)
    assert within(alert.after, 0.3)
    rng = random.Random(3)
    [alert] = feed(stream(numeric=True), [rng.gauss(50, 10) for _ in range(5_000)] + [rng.gauss(60, 10) for _ in range(200)])
    assert within(alert.before, 50)
    assert within(alert.after, 60)
    assert alert.before.high is not None
    assert alert.before.high - alert.before.value < 0.5
