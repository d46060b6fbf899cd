"""Which share of the labels never met its prediction: told slot by slot when they are all of one age, owner by owner, bucket by bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.cohorts import MOST, SLOTS, Cohorts
from stream_monitor.core.events import Alert, Kind, Slice, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.rare import SAMPLE, Rare
from stream_monitor.core.settings import DAY, MINUTE, DetectSettings, MonitorSettings
from tests.support.observations import START, begun_and_ended, cohort, desk, outcome, predicted, prediction, run

WATCHED = MonitorSettings(metrics=("feedback_orphan",), slices=("country",), slice_metrics=("feedback_orphan",))
SETTINGS = DetectSettings(maturity_ms=0, default=WATCHED)
SLOT = 10 * MINUTE
LEVELS = {"DE": 0.02, "FR": 0.2, "US": 0.08}


def log(
    slots: int, levels: dict[str, float] = LEVELS, surge: float | None = None, versions: tuple[str, ...] = ("v3", "v4"), seed: int = 1
) -> Iterator[bytes]:
    """Cohorts of countries whose labels have levels of their own, beside a prediction of each; DE of v4 surges from the middle on."""
    rng = random.Random(seed)
    for slot in range(slots):
        for version in versions:
            for country, level in levels.items():
                event = prediction(slot, model_version=version, slices={"country": country}, timestamp=START + slot * SLOT)
                yield outcome(event, "yes")
                surges = surge is not None and slot >= slots // 2 and (version, country) == ("v4", "DE")
                labels = max(1, round(rng.gauss(100, 10)))
                orphans = sum(rng.random() < (surge if surges and surge is not None else level) for _ in range(labels))
                yield cohort(START + slot * SLOT, labels, orphans, event)


def told(alerts: list[Alert]) -> list[tuple[str, str, Slice | None, str | None, Status]]:
    return [(a.metric, a.model_version, a.slice, a.direction, a.status) for a in begun_and_ended(alerts)]


def counted(monitor: Monitor, part: Slice | None = None) -> tuple[int, float]:
    """Values of the only version, and ones among them."""
    [version] = monitor._versions.values()
    scope = version.scope(part)
    assert scope is not None
    assert scope.orphan is not None
    stream = scope.orphan.rare.stream
    return (scope.orphan.rare.zeros, 0.0) if stream is None else (stream.count, stream.total)


@pytest.mark.parametrize("quiet", [0.0, 0.02])
def test_a_surge_after_a_quiet_time_raises_one_alert_for_its_version_and_its_slice(quiet: float) -> None:
    _, alerts = run(SETTINGS, log(200, dict.fromkeys(LEVELS, quiet), surge=0.3))
    assert sorted(told(alerts), key=repr) == [
        ("feedback_orphan", "v4", None, "up", Status.FIRING),
        ("feedback_orphan", "v4", Slice("country", "DE"), "up", Status.FIRING),
    ]
    for alert in alerts:
        assert alert.kind is Kind.DATA_QUALITY
        assert abs(alert.first_seen - (START + 100 * SLOT)) <= 5 * SLOT
        assert publish(alert)
    assert alerts[0].summary.startswith("credit v4: share of labels that never met their prediction")


def test_of_slices_nothing_is_told_where_nobody_asks() -> None:
    watched = MonitorSettings(metrics=("*",), slices=("country",))
    _, alerts = run(DetectSettings(maturity_ms=0, default=watched), log(200, dict.fromkeys(LEVELS, 0.0), surge=0.3))
    assert told(alerts) == [("feedback_orphan", "v4", None, "up", Status.FIRING)]


@pytest.mark.parametrize("seed", range(3))
def test_owners_that_are_told_by_turns_with_levels_of_their_own_are_no_change(seed: int) -> None:
    monitor, alerts = run(SETTINGS, log(300, versions=("v3",), seed=seed))
    assert alerts == []
    count, ones = counted(monitor)
    assert count == (300 - SLOTS) * SAMPLE
    assert ones / count == pytest.approx(0.1, abs=0.01)


def test_where_every_label_meets_its_prediction_there_is_no_stream() -> None:
    monitor, alerts = run(SETTINGS, log(100, dict.fromkeys(LEVELS, 0.0)))
    assert alerts == []
    assert monitor.counters["streams"] == 0
    assert monitor.counters["feedback_cohorts"] == 600


def test_what_buckets_tell_of_a_slot_in_between_each_other_is_put_together() -> None:
    event = prediction(0)
    records = [outcome(event, "yes")]
    for slot in range(3, 40):
        records += [cohort(START + (slot - behind) * SLOT, 40, 10, event) for behind in (0, 2, 0, 1, 2)]
    monitor, _ = run(SETTINGS, records)
    whole = 37 - 2 - (SLOTS - 2)  # slots told by all, but for those that are open
    assert counted(monitor)[0] >= whole * SAMPLE
    assert counted(monitor)[0] < (37 + 2) * SAMPLE


def test_a_slice_that_no_prediction_named_is_told_to_the_version_alone() -> None:
    event = prediction(0, slices={"country": "DE"})
    monitor, _ = run(
        SETTINGS, [outcome(event, "yes"), *(cohort(START + i, 10, 10, prediction(0, slices={"country": "XX"})) for i in range(9))]
    )
    assert counted(monitor)[0] == 10 * (9 - SLOTS)
    assert monitor.counters["slices"] == 1


@pytest.mark.parametrize("slices", [None, [], "DE", {"country": 7}])
def test_slices_that_are_none_are_left_out(slices: Any) -> None:
    event = prediction(0, slices={"country": "DE"})
    records = [outcome(event, "yes"), *(cohort(START + i, 10, 10, event, slices=slices) for i in range(9))]
    monitor, _ = run(SETTINGS, records)
    assert counted(monitor)[0] == 10 * (9 - SLOTS)
    assert counted(monitor, Slice("country", "DE")) == (0, 0.0)


def test_what_is_told_of_a_version_that_is_not_known_is_counted_and_makes_it_no_more_known() -> None:
    monitor, _ = run(SETTINGS, [cohort(START + i, 10, 10, prediction(0)) for i in range(9)])
    assert monitor.counters["feedback_cohorts_of_nobody"] == 9
    assert monitor.versions() == []


def test_what_labels_say_of_all_versions_together_is_told_to_nobody() -> None:
    watched = MonitorSettings(metrics=("*", "volume"), slices=())
    event = prediction(0)
    records = [predicted(event), *(cohort(START + i, 10, 10, prediction(0, model_version="*")) for i in range(9))]
    monitor, _ = run(DetectSettings(maturity_ms=0, default=watched), records)
    assert ("credit", "*") in {(version["model"], version["model_version"]) for version in monitor.versions()}
    assert monitor.counters["feedback_cohorts_of_nobody"] == 9


def test_a_version_is_not_heard_of_by_what_is_told_of_labels_that_came_long_ago() -> None:
    records = [outcome(prediction(0), "yes"), outcome(prediction(1, model_version="v4"), "yes")]
    monitor, _ = run(SETTINGS, records)
    heard = [version["heard"] for version in monitor.versions()]
    run(SETTINGS, [cohort(START + 9 * DAY, 10, 0, prediction(0))], monitor)
    assert [version["heard"] for version in monitor.versions()] == heard


def test_in_a_log_that_is_read_in_a_hurry_nothing_is_told_from_the_future() -> None:
    def later(record: bytes) -> bytes:
        one = orjson.loads(record)
        return record if one["record"] == "outcome" else orjson.dumps({**one, "since": START + 400 * DAY + one["since"] // 100})

    monitor, alerts = run(SETTINGS, map(later, log(200, dict.fromkeys(LEVELS, 0.02), surge=0.3)))
    assert {alert.model_version for alert in alerts} == {"v4"}
    assert monitor.snapshot()["clock"][0] == START + 199 * SLOT
    for alert in alerts:
        assert abs(alert.first_seen - (START + 100 * SLOT)) <= 10 * SLOT
        assert alert.first_seen <= alert.detected_at


@pytest.mark.parametrize("size", [1, 7, 250])
def test_however_it_is_read_the_same_log_gives_the_same_to_the_last_byte(size: int) -> None:
    records = list(log(120, dict.fromkeys(LEVELS, 0.01), surge=0.4))
    whole, alerts = run(SETTINGS, records)
    monitor, again = Monitor(SETTINGS, "observations", 0), list[Alert]()
    for start in range(0, len(records), size):
        monitor, more = run(SETTINGS, records[start : start + size], monitor)
        again += more
        if start // size % 40 == 0:
            saved = msgpack.unpackb(msgpack.packb(monitor.snapshot()), strict_map_key=False)
            monitor = Monitor.restore(SETTINGS, "observations", 0, saved)
    assert alerts
    assert [publish(alert) for alert in again] == [publish(alert) for alert in alerts]
    assert monitor.snapshot() == whole.snapshot()


numbers = st.integers(1, 300) | st.integers(1, MOST)


@given(st.lists(st.tuples(st.integers(0, 9) | st.integers(0, MOST), numbers, st.floats(0, 1)), max_size=100), st.integers(0, 100))
def test_whatever_comes_memory_and_numbers_are_bounded_and_what_was_saved_goes_on_the_same(
    told: list[tuple[int, int, float]], cut: int
) -> None:
    def take(one: Cohorts, start: int, end: int) -> None:
        for offset, (since, labels, share) in enumerate(told[start:end], start):
            one.take(since, labels, min(int(share * labels), labels), START, offset)
            assert len(one.slots) <= SLOTS
            assert all(0 <= orphans <= labels <= MOST for labels, orphans, _ in one.slots.values())

    whole, again = (Cohorts(Rare(lambda: None, desk().ledger)) for _ in range(2))
    take(whole, 0, cut)
    again.restore(msgpack.unpackb(msgpack.packb(whole.state())))
    take(whole, cut, len(told))
    take(again, cut, len(told))
    assert again.state() == whole.state()
