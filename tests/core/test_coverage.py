"""Which share of the predictions had their label when their maturity passed: noticed where labels stop, silent where they go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from math import exp
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.coverage import SLOTS, Coverage, Reading
from stream_monitor.core.events import Alert, Kind, Slice, Status
from stream_monitor.core.maturity import LabelClock, Maturity
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.rare import Rare
from stream_monitor.core.settings import HOUR, MINUTE, DetectSettings, MonitorSettings
from tests.support.observations import START, STEP, begun_and_ended, desk, outcome, predicted, prediction, run

WATCHED = MonitorSettings(metrics=("unlabelled",), slices=("country",))
SETTINGS = DetectSettings(maturity_ms=10 * MINUTE, silent_ms=20 * MINUTE, default=WATCHED)


def log(count: int, delay: Callable[[int, random.Random, str], int | None], seed: int = 1) -> Iterator[bytes]:
    """Predictions with labels so long (ms) after them, or never (None), in the order in which they come."""
    rng = random.Random(seed)
    entries: list[tuple[int, int, bytes]] = []
    for i in range(count):
        country = rng.choice(("DE", "FR"))
        event = prediction(i, slices={"country": country})
        entries.append((event["timestamp"], i, predicted(event)))
        after = delay(i, rng, country)
        if after is not None:
            entries.append((event["timestamp"] + after, i, outcome(event, "yes", after)))
    for _, _, record in sorted(entries):
        yield record


def levels(monitor: Monitor) -> dict[Any, tuple[int, float]]:
    """Values and their mean, of each stream of coverage."""
    [version] = monitor._versions.values()
    scopes = [scope for scope in version.scopes() if scope.coverage is not None]
    streams = [(scope.part, scope.coverage.rare.stream) for scope in scopes if scope.coverage is not None]
    return {part: (stream.count, stream.raw / stream.count) for part, stream in streams if stream is not None}


def told(alerts: list[Alert]) -> list[tuple[str, Status, str | None, Slice | None]]:
    return [(a.metric, a.status, a.direction, a.slice) for a in begun_and_ended(alerts)]


def test_the_share_of_predictions_that_never_get_a_label_is_what_it_says() -> None:
    monitor, alerts = run(SETTINGS, log(20_000, lambda i, rng, _: None if rng.random() < 0.2 else rng.randrange(5 * MINUTE)))
    assert alerts == []
    count, share = levels(monitor)[None]
    assert count > 2_000
    assert share == pytest.approx(0.2, abs=0.03)


def test_a_label_dated_after_its_maturity_came_too_late() -> None:
    def delay(i: int, rng: random.Random, _: str) -> int:
        return 12 * MINUTE if rng.random() < 0.3 else MINUTE

    _, share = levels(run(SETTINGS, log(20_000, delay))[0])[None]
    assert share == pytest.approx(0.3, abs=0.04)


def test_where_every_label_comes_in_time_there_is_no_stream() -> None:
    monitor, _ = run(SETTINGS, log(20_000, lambda i, rng, _: rng.randrange(10 * MINUTE)))
    assert monitor.counters["streams"] == 0
    [version] = monitor._versions.values()
    assert version.whole.coverage is not None
    assert version.whole.coverage.rare.zeros > 1_000


def test_labels_that_come_less_often_raise_an_alert() -> None:
    def delay(i: int, rng: random.Random, _: str) -> int | None:
        return None if rng.random() < (0.5 if i >= 15_000 else 0.1) else rng.randrange(5 * MINUTE)

    _, alerts = run(SETTINGS, log(35_000, delay))
    assert told(alerts) == [("unlabelled", Status.FIRING, "up", None)]
    assert alerts[0].kind is Kind.DATA_QUALITY
    assert alerts[0].summary.startswith("credit v3: share of answers without a label in time rose from 0.")
    assert abs(alerts[0].first_seen - (START + 15_000 * STEP)) < 5 * MINUTE
    assert alerts[0].first_position.offset <= alerts[0].position.offset


def test_labels_that_stop_altogether_raise_an_alert_although_the_label_clock_stands_still() -> None:
    _, alerts = run(SETTINGS, log(55_000, lambda i, rng, _: None if i >= 20_000 else rng.randrange(5 * MINUTE)))
    assert told(alerts) == [("unlabelled", Status.FIRING, "up", None)]
    stopped = START + 20_000 * STEP
    assert alerts[0].detected_at - stopped < 10 * MINUTE + 20 * MINUTE + 15 * MINUTE, "maturity, patience, and what the detectors need"


def test_labels_that_are_read_long_after_the_predictions_are_not_missed() -> None:
    """In a backlog the predictions of some minutes may be read before their labels."""
    by_time = sorted(log(20_000, lambda i, rng, _: rng.randrange(5 * MINUTE)), key=lambda r: orjson.loads(r)["prediction"]["timestamp"])
    pieces = [by_time[i : i + 10_000] for i in range(0, len(by_time), 10_000)]
    records = [r for piece in pieces for r in sorted(piece, key=lambda r: r.startswith(b'{"record":"outcome"'))]
    monitor, alerts = run(SETTINGS, records)
    assert alerts == []
    assert monitor.counters["streams"] == 0


def test_a_slice_whose_labels_stop_is_told_apart() -> None:
    watched = MonitorSettings(metrics=("unlabelled",), slices=("country",), slice_metrics=("unlabelled",))
    settings = DetectSettings(maturity_ms=10 * MINUTE, default=watched)

    def delay(i: int, rng: random.Random, country: str) -> int | None:
        return None if country == "DE" and i >= 15_000 else rng.randrange(5 * MINUTE)

    _, alerts = run(settings, log(30_000, delay))
    assert {(a.slice, a.direction) for a in alerts} == {(None, "up"), (Slice("country", "DE"), "up")}


def test_a_learnt_maturity_leaves_its_share_unlabelled_and_that_is_no_drift() -> None:
    settings = DetectSettings(default=MonitorSettings(metrics=("unlabelled",), slices=()))
    monitor, alerts = run(settings, log(20_000, lambda i, rng, _: round(rng.expovariate(1 / 5_000))))
    assert alerts == []
    [version] = monitor._versions.values()
    assert version.maturity.wait is not None
    assert levels(monitor)[None][1] == pytest.approx(exp(-version.maturity.wait / 5_000), abs=0.03)


@pytest.mark.parametrize("maturity", [0, None])
def test_without_a_maturity_nothing_can_be_said(maturity: int | None) -> None:
    settings = DetectSettings(maturity_ms=maturity, default=WATCHED)
    monitor, _ = run(settings, log(2_000, lambda i, rng, _: MINUTE if i < 50 else None))
    assert monitor.counters["streams"] == 0


def coverage(wait: int | None = 1_000) -> tuple[Coverage, Reading]:
    maturity = Maturity(wait, 0.95, 500, 1_000, LabelClock(HOUR))
    return Coverage(Rare(lambda: None, desk().ledger)), Reading(maturity, desk(), HOUR)


moments = st.one_of(st.integers(0, 5_000), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.tuples(moments, st.booleans()), max_size=300), st.integers(0, 300))
def test_whatever_times_come_memory_is_bounded_and_what_was_saved_goes_on_the_same(events: list[tuple[int, bool]], cut: int) -> None:
    def take(one: Coverage, reading: Reading, part: list[tuple[int, bool]], start: int) -> None:
        for offset, (time, labelled) in enumerate(part, start):
            reading._desk.clock = offset
            one.made(time, offset, 1_000, reading)
            if labelled:
                one.labelled(time)
            assert len(one.slots) == len(one.order) <= SLOTS

    whole, reading = coverage()
    take(whole, reading, events[:cut], 0)
    again, other = coverage()
    again.restore(orjson.loads(orjson.dumps(whole.state())))
    take(whole, reading, events[cut:], cut)
    take(again, other, events[cut:], cut)
    assert again.state() == whole.state()
