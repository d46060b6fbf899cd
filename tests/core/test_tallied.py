"""A stream with a tally, as a specification: the sums before and since a change are those of the values before and since it."""

from __future__ import annotations

import random
from math import pi, sin
from typing import Any

import orjson
import pytest

from stream_monitor.core.alerting import Subject
from stream_monitor.core.events import Alert, Kind, Status
from stream_monitor.core.settings import DAY, AlertBudget, DetectSettings
from stream_monitor.core.tallied import TalliedStream, Tally
from tests.support.observations import START, STEP, desk

SETTINGS = DetectSettings(alert_budget=AlertBudget(3, 86_400_000))


class Told(TalliedStream):
    """Says all that it is given."""

    def told(self, before: Tally, after: Tally) -> dict[str, Any]:
        return {"told": [[tally.n, tally.raw, list(tally.sums)] for tally in (before, after)]}


def stream() -> Told:
    subject = Subject.of("credit", "v3", None, "gap", Kind.FAIRNESS, 0.1, 0.5)
    return Told(subject, SETTINGS.default.detectors, SETTINGS, desk(SETTINGS.alert_budget))


def values(count: int, mean: float, seed: int) -> list[tuple[float, tuple[int, int]]]:
    rng = random.Random(seed)
    return [(float(round(rng.gauss(mean, 1) * 64) / 64), (rng.randrange(2), rng.randrange(5))) for _ in range(count)]


def feed(of: Told, some: list[tuple[float, tuple[int, int]]], start: int = 0) -> list[Alert]:
    for i, (x, tally) in enumerate(some, start):
        of.desk.move(START + i * STEP)
        of.take(x, tally, random.Random(i).getrandbits(53), START + i * STEP, i)
    out, of.desk.out = of.desk.out, []
    return out


def total(some: list[tuple[float, tuple[int, int]]]) -> list[Any]:
    return [len(some), sum(x for x, _ in some), [sum(tally[i] for _, tally in some) for i in range(2)]]


def test_at_the_alarm_it_tells_of_all_values_before_the_change_and_since() -> None:
    some = values(6_000, 0, 1) + values(150, 1, 2)
    [alert] = feed(stream(), some)
    assert alert.status is Status.FIRING
    at, end = alert.before.count, alert.position.offset + 1
    assert alert.details["told"] == [total(some[:at]), total(some[at:end])]
    assert at == pytest.approx(6_000, abs=50)


def test_later_it_tells_of_the_values_after_the_alarm() -> None:
    some = values(6_000, 0, 1) + values(3_000, 1, 2)
    fired, updated = feed(stream(), some)
    assert updated.status is Status.UPDATED
    before, since = updated.details["told"]
    assert before == fired.details["told"][0]
    assert since == total(some[fired.position.offset + 1 : updated.position.offset + 1])


def test_sums_are_kept_at_the_marks_alone() -> None:
    of = stream()
    feed(of, values(20_000, 0, 1))
    assert list(of.at_mark) == [int(count) for count in of.marks[::6]]
    assert len(of.at_mark) < 100


@pytest.mark.parametrize("cut", [0, 700, 6_010, 6_400, 9_500])
def test_a_restored_one_goes_on_as_the_saved_one(cut: int) -> None:
    some = values(6_000, 0, 1) + values(3_000, 1, 2) + values(2_000, 0, 3)
    one, other = stream(), stream()
    before = feed(one, some[:cut])
    other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
    other.restore(orjson.loads(orjson.dumps(one.state())))
    assert other.state() == one.state()
    after = feed(other, some[cut:], cut)
    assert [alert.details for alert in before + after] == [alert.details for alert in feed(stream(), some)]


def test_a_cycle_that_is_found_begins_a_new_tally_with_the_new_reference() -> None:
    of, a_day = stream(), 2_000
    for i, (x, _) in enumerate(values(6 * a_day, 0, 1)):
        time = START + i * DAY // a_day
        of.desk.move(time)
        of.take(x + 0.5 * sin(2 * pi * i / a_day), (1, 2), random.Random(i).getrandbits(53), time, i)
    assert of.past is not None, "each day goes up and down alike"
    assert of.count < 6 * a_day
    assert of.sums == [of.count, 2 * of.count]
