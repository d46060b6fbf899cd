"""Far fewer or far more predictions than at the same time of the weeks before: noticed, whatever cycle the traffic has."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import cos, exp, pi
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Kind, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DAY, HOUR, MINUTE, WEEK, AlertBudget, DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room, Scope
from stream_monitor.core.volume import GRACE, LEARN, TICK, Volume
from tests.support.observations import START, begun_and_ended, desk, predicted, prediction, run

ASKED = MonitorSettings(metrics=("volume",), slices=())
SETTINGS = DetectSettings(warmup=100, default=ASKED)
A_WEEK = WEEK // TICK
FIRST = START // WEEK * A_WEEK  # a tick at which a week begins


def watched(settings: DetectSettings = SETTINGS, budget: AlertBudget | None = None) -> tuple[Volume, Any]:
    place = desk(budget)
    volume = Scope(Plan("credit", "*", ASKED, settings, place, Room(10)), None).volume
    assert volume is not None
    volume.made((FIRST - 1) * TICK)
    return volume, place


def feed(volume: Volume, place: Any, rate: Callable[[int], float], start: int, end: int, seed: int = 1) -> None:
    """Ticks with about `rate(tick)` predictions, by chance."""
    rng = random.Random(seed)
    for tick in range(FIRST + start, FIRST + end):
        mean = rate(tick - FIRST)
        volume.open[tick] = max(0, round(rng.gauss(mean, mean**0.5)))
        place.move(tick * TICK)
        volume.over(tick + 1, tick)


def office(tick: int) -> float:
    """Busy by day, next to nothing at night, a fifth at the weekend."""
    day = (1 - cos(2 * pi * tick / (DAY // TICK))) / 2
    return (2 + 200 * day**2) * (0.2 if tick // (DAY // TICK) % 7 in (5, 6) else 1)


def noisy(tick: int) -> float:
    """The same with a growth of 5% a week, and swings of 15% from one quarter of an hour to the next."""
    growth: float = 1.05 ** (tick / A_WEEK)
    return office(tick) * growth * exp(random.Random(tick // 15).gauss(0, 0.15))


@pytest.mark.parametrize("rate", [office, noisy, lambda tick: 5.0, lambda tick: 0.2])
def test_cycles_growth_and_noise_raise_no_alert(rate: Callable[[int], float]) -> None:
    """Ten times the default budget, and nothing is spent of it."""
    volume, place = watched(budget=AlertBudget(10))
    feed(volume, place, rate, 0, 6 * A_WEEK)
    assert place.out == []


@pytest.mark.parametrize(
    ("factor", "metric"),
    [(0.0, "volume=few"), (0.15, "volume=few"), (7.0, "volume=many")],
)
@pytest.mark.parametrize("rate", [office, noisy])
def test_an_outage_and_a_flood_raise_an_alert_within_the_hour(rate: Callable[[int], float], factor: float, metric: str) -> None:
    volume, place = watched()
    noon = 2 * A_WEEK + DAY // TICK // 2
    feed(volume, place, rate, 0, noon)
    feed(volume, place, lambda tick: factor * rate(tick), noon, noon + HOUR // TICK)
    [alert] = place.out
    assert (alert.metric, alert.direction, alert.kind, alert.model_version) == (metric, "up", Kind.DATA_QUALITY, "*")
    assert alert.first_seen >= (FIRST + noon - 25) * TICK
    assert alert.details["came"] == pytest.approx(factor * alert.details["usual"], rel=0.4)
    assert ("less than a third of" if metric == "volume=few" else "more than three times") in alert.summary


def test_an_outage_is_no_flood_a_week_later() -> None:
    volume, place = watched()
    noon = 2 * A_WEEK + DAY // TICK // 2
    feed(volume, place, office, 0, noon)
    feed(volume, place, lambda tick: 0.0, noon, noon + 180)
    feed(volume, place, office, noon + 180, 4 * A_WEEK)
    told = [(a.metric, a.status) for a in begun_and_ended(place.out)]
    assert told == [("volume=few", Status.FIRING), ("volume=few", Status.RESOLVED)]


def test_a_lasting_change_is_usual_after_some_weeks() -> None:
    volume, place = watched()
    feed(volume, place, lambda tick: 10.0, 0, A_WEEK)
    assert volume.usual[0] == pytest.approx(50, rel=0.5)
    feed(volume, place, lambda tick: 0.0, A_WEEK, 2 * A_WEEK)
    assert volume.usual[7] is not None
    assert volume.usual[7] < 1.5 * (1 - LEARN) * 50


def predictions(days: int, stops: int) -> list[bytes]:
    """Two models with a prediction every quarter of a minute each; one stops at the hour `stops`, its versions take turns."""
    records = []
    for i in range(days * DAY // 15_000):
        time = START + i * 15_000
        records.append(predicted(prediction(i, timestamp=time, model="steady")))
        if time < START + stops * HOUR:
            records.append(predicted(prediction(i, timestamp=time, model_version=f"v{i * 15_000 // DAY}")))
    return records


BRIEF = DetectSettings(warmup=50, default=ASKED)


def test_a_model_that_falls_silent_while_another_predicts_raises_an_alert_and_a_change_of_versions_none() -> None:
    records = predictions(9, 8 * 24 + 6)
    cut = len(records) - 2_000
    monitor, alerts = run(BRIEF, records[:cut])
    saved, before = orjson.dumps(monitor.snapshot()), list(alerts)
    alerts += run(BRIEF, records[cut:], monitor)[1]
    assert [(a.model, a.model_version, a.metric, a.status) for a in alerts] == [("credit", "*", "volume=few", Status.FIRING)]
    assert alerts[0].summary.startswith(
        "credit all versions: share of time with less than a third of the usual predictions rose from 0 to "
    )
    assert GRACE < alerts[0].detected_at - (START + (8 * 24 + 6) * HOUR) < 8 * HOUR
    restored, after = run(BRIEF, records[cut:], Monitor.restore(BRIEF, "observations", 0, orjson.loads(saved)))
    assert [publish(alert) for alert in before + after] == [publish(alert) for alert in alerts]
    assert restored.snapshot() == monitor.snapshot()


def test_it_is_watched_only_where_it_is_named() -> None:
    monitor, _ = run(DetectSettings(), predictions(1, 24)[:100])
    assert ("credit", "*") not in monitor._versions
    asked = DetectSettings(monitors=(MonitorSettings("a", ("credit",), metrics=("*", "volume")),))
    monitor, _ = run(asked, predictions(1, 24)[:100])
    assert [name for name in monitor._versions if name[1] == "*"] == [("credit", "*")]


@pytest.mark.parametrize("times", [[0, 2**53 - 1, 0, 1], [2**53 - 1, 0], [START, START + 400 * DAY, START], list(range(0, 60 * DAY, DAY))])
def test_times_of_any_kind_do_no_harm(times: list[int]) -> None:
    records = [predicted(prediction(i, timestamp=time)) for i, time in enumerate(times * 3)]
    monitor, alerts = run(SETTINGS, records)
    assert alerts == []
    [volume] = monitor._volumes.values()
    assert len(volume.open) < 2 * HOUR // MINUTE
    orjson.dumps(monitor.snapshot())
