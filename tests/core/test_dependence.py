"""Dependence is noticed where there is some, seldom where there is none, and what remains after it is independent."""

from __future__ import annotations

import random
from math import sqrt

import orjson
import pytest

from stream_monitor.core.alerting import Subject
from stream_monitor.core.dependence import FOUND, SUSPECTED, Past, Probe, spendable
from stream_monitor.core.detectors.adwin import Adwin
from stream_monitor.core.events import Kind
from stream_monitor.core.settings import DetectorSettings, DetectSettings, MonitorSettings
from stream_monitor.core.streams import NumericStream
from tests.support.observations import desk, outcome, prediction, run

ALL = DetectSettings().default.detectors


def regressive(count: int, rho: float, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    z, values = rng.gauss(0, 1), []
    for _ in range(count):
        z = rho * z + sqrt(1 - rho * rho) * rng.gauss(0, 1)
        values.append(z)
    return values


def probed(values: list[float], limit: float = FOUND) -> float:
    probe = Probe(len(values))
    assert [probe.take(x) for x in values] == [False] * (len(values) - 1) + [True]
    return probe.autocorrelation(limit)


def test_independent_values_are_seldom_called_dependent() -> None:
    assert sum(probed(regressive(1_000, 0, seed)) > 0 for seed in range(300)) <= 15, "one in 40 is expected"


def test_a_weak_dependence_is_noticed_in_most_streams() -> None:
    assert sum(probed(regressive(1_000, 0.1, seed)) > 0 for seed in range(100)) >= 75


@pytest.mark.parametrize("rare", [1.0, 0.0])
def test_a_single_pair_of_rare_bits_is_no_dependence(rare: float) -> None:
    bits = [1.0 - rare] * 1_000
    for at in (100, 101, 300, 500, 700):
        bits[at] = rare
    assert probed(bits) == 0
    bits[301] = bits[701] = rare
    assert probed(bits) > 0.3, "three pairs are"


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_dependent_values_are_noticed_and_measured(rho: float) -> None:
    assert probed(regressive(1_000, rho)) == pytest.approx(rho, abs=0.1)


def test_a_suspected_dependence_leaves_a_stream_less_to_spend_and_says_nothing_else() -> None:
    subject = Subject.of("m", "v", None, "x", Kind.DATA_DRIFT, 0.0, 1.0)
    stream, other = (NumericStream(subject, ALL, DetectSettings(), desk()) for _ in range(2))
    values = regressive(1_001, 0, 49)
    rho = probed(values[:1_000], SUSPECTED)
    assert rho > 0 == probed(values[:1_000])
    for i, x in enumerate(values):
        stream.push(x, random.Random(i).getrandbits(64), i, i)
    assert stream.past is None
    assert stream.account.part == pytest.approx(spendable(rho), abs=0.1)
    assert stream.account.part < 1
    assert stream.account.portion == stream.account.part * stream.account.whole
    other.restore(orjson.loads(orjson.dumps(stream.state())))
    assert other.account.portion == stream.account.portion
    ledger = stream.account.ledger
    before = stream.account.received
    ledger.move(1)
    ledger.move(3_600_001)
    drawn = stream.account.draw()
    received = stream.account.received - before
    assert received > 0
    assert drawn * len(ALL) == pytest.approx(received * stream.account.part), "what it does not spend is received all the same"


def test_neighbours_that_differ_more_than_chance_do_no_harm_and_are_not_dependent() -> None:
    assert probed(regressive(1_000, -0.5)) == 0


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 100])
def test_where_nothing_can_be_said_nothing_is(values: list[float]) -> None:
    probe = Probe(len(values))
    for x in values:
        probe.take(x)
    assert probe.autocorrelation() == 0


def test_what_the_past_does_not_explain_is_independent_with_variance_one() -> None:
    past = Past(0.6)
    rest = [past.unexplained(z) for z in regressive(20_000, 0.6)]
    assert sum(w * w for w in rest) / len(rest) == pytest.approx(1, abs=0.05)
    assert probed(rest) == 0


def test_an_outlier_stays_within_what_detectors_can_take() -> None:
    past = Past(0.98)
    past.unexplained(-8.0)
    assert past.unexplained(8.0) == 8.0


def test_bits_are_counted_by_the_bit_before_them() -> None:
    past = Past(0.5)
    assert [past.bit(x) for x in (0, 1, 1, 0, 1)] == [(0, 0), (1, 0), (0, 0), (1, 1), (2, 1)]
    past.forget()
    assert past.bit(0) == (0, 0)


def test_both_survive_being_saved() -> None:
    values = regressive(100, 0.5)
    probe, past = Probe(100), Past(0.5)
    for x in values[:50]:
        probe.take(x)
        past.unexplained(x)
        past.bit(x > 0)
    again, other = (type(one).restored(orjson.loads(orjson.dumps(one.state()))) for one in (probe, past))
    for x in values[50:]:
        assert probe.take(x) == again.take(x)  # type: ignore[union-attr]
        assert past.unexplained(x) == other.unexplained(x)  # type: ignore[union-attr]
        assert past.bit(x > 0) == other.bit(x > 0)  # type: ignore[union-attr]
    assert probe.autocorrelation() == again.autocorrelation()  # type: ignore[union-attr]


def test_a_monitor_with_adwin_alone_draws_ranks_for_bits_that_depend_on_each_other() -> None:
    alone = MonitorSettings(metrics=("error",), slices=(), detectors=(DetectorSettings("adwin"),))
    rng, wrong, records = random.Random(4), 0, []
    for i in range(3_000):
        wrong = wrong if rng.random() < 0.5 else int(rng.random() < 0.2)
        records.append(outcome(prediction(i), "no" if wrong else "yes"))
    monitor, _ = run(DetectSettings(maturity_ms=0, default=alone), records)
    [version] = monitor._versions.values()
    [stream] = version.whole.streams()
    assert stream.past is not None, "it was seen to depend"
    [adwin] = stream.detectors
    assert isinstance(adwin, Adwin)
    assert adwin._helper.variance_in_window == pytest.approx(1, abs=0.2)
