"""Labels that come too late or contradict each other: a share of the labels that come, per version, and per slice where that is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Alert, Kind, Slice, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from tests.support.observations import START, STEP, begun_and_ended, outcome, prediction, run

METRICS = ("feedback_late", "feedback_conflicting")
SETTINGS = DetectSettings(maturity_ms=0, warmup=200, default=MonitorSettings(metrics=METRICS, slices=("country",)))


def issue(kind: str, i: int, event: dict[str, Any] | None = None, label: Any = "yes", **fields: Any) -> bytes:
    """The record of a label that did not count; of what contradicts it says whose the prediction was."""
    feedback = {"request_id": f"req-{i}", "label": label, "timestamp": START + i * STEP}
    known = {name: event[name] for name in ("model_version", "slices")} if event and kind == "conflicting" else {}
    about = None if kind == "conflicting" else event
    of = {"record": "feedback_issue", "issue": kind, "model": "credit", **known, "prediction": about, "feedback": feedback}
    return orjson.dumps(of | fields)


def labels(
    count: int, kind: str, seed: int = 1, before: float = 0.01, after: float = 0.2, versions: tuple[str, ...] = ("v3", "v4")
) -> Iterator[bytes]:
    """Outcomes of two versions and issues, whose share changes after half of the labels, in one country of these versions."""
    rng = random.Random(seed)
    for i in range(count):
        country, version = rng.choice(("DE", "FR")), rng.choice(("v3", "v4"))
        event = prediction(i, model_version=version, slices={"country": country})
        bad = rng.random() < (after if i >= count // 2 and country == "DE" and version in versions else before)
        yield issue(kind, i, event) if bad else outcome(event, "yes")


def told(alerts: list[Alert]) -> set[Any]:
    return {(a.metric, a.model_version, a.slice, a.direction, a.status, a.kind) for a in begun_and_ended(alerts)}


SUMMARIES = {"late": "share of labels that came too late to be joined", "conflicting": "share of labels that contradict an earlier one"}


@pytest.mark.parametrize("kind", SUMMARIES)
@pytest.mark.parametrize("versions", [("v3", "v4"), ("v3",)])
def test_labels_that_are_late_or_contradict_raise_an_alert_for_their_version_and_no_other(kind: str, versions: tuple[str, ...]) -> None:
    _, alerts = run(SETTINGS, labels(12_000, kind, versions=versions))
    assert told(alerts) == {(f"feedback_{kind}", version, None, "up", Status.FIRING, Kind.DATA_QUALITY) for version in versions}
    assert f"{SUMMARIES[kind]} rose from 0.0" in alerts[0].summary
    assert publish(alerts[0])


@pytest.mark.parametrize("kind", SUMMARIES)
def test_and_for_a_slice_if_that_is_asked(kind: str) -> None:
    watched = MonitorSettings(metrics=("error", f"feedback_{kind}"), slices=("country",), slice_metrics=("error", f"feedback_{kind}"))
    _, alerts = run(DetectSettings(maturity_ms=0, warmup=200, default=watched), labels(12_000, kind))
    slices = {alert.slice for alert in alerts}
    assert slices >= {None, Slice("country", "DE")}
    assert Slice("country", "FR") not in slices


def test_a_contradiction_whose_slices_were_not_kept_is_told_to_its_version_alone() -> None:
    watched = MonitorSettings(metrics=("*",), slices=("country",), slice_metrics=("*",))
    kept = b'"slices":{"country":"DE"},"prediction":null'
    records = [value.replace(kept, b'"prediction":null') for value in labels(12_000, "conflicting")]
    _, alerts = run(DetectSettings(maturity_ms=0, warmup=200, default=watched), records)
    assert {(alert.model_version, alert.slice) for alert in alerts} == {("v3", None), ("v4", None)}


@pytest.mark.parametrize("kind", ["late", "conflicting"])
def test_the_share_is_of_all_labels_that_found_their_prediction(kind: str) -> None:
    records = list(labels(4_000, kind, before=0.05, after=0.05))
    monitor, alerts = run(SETTINGS, records)
    assert alerts == []
    streams = [s for v in monitor._versions.values() for scope in v.scopes() for s in scope.streams()]
    assert sum(stream.count for stream in streams) == 4_000
    assert sum(stream.total for stream in streams) == monitor.counters[f"feedback_{kind}"] > 100


@pytest.mark.parametrize("kind", ["late", "conflicting"])
def test_a_slice_knows_from_its_labels_that_there_was_nothing_before(kind: str) -> None:
    watched = MonitorSettings(metrics=(f"feedback_{kind}",), slices=("country",), slice_metrics=("feedback_*",))
    _, alerts = run(DetectSettings(maturity_ms=0, warmup=200, default=watched), labels(12_000, kind, before=0, versions=("v3",)))
    assert {(a.model_version, a.slice) for a in alerts} == {("v3", None), ("v3", Slice("country", "DE"))}


def test_a_slice_begins_with_the_labels_that_came_since_it_is_known_also_with_those_that_wait_for_their_maturity() -> None:
    watched = MonitorSettings(metrics=("feedback_late",), slices=("country",), slice_metrics=("feedback_late",))
    events = [prediction(i, slices={"country": "DE"}) for i in range(3_001)]
    records = [*(outcome(event, "yes") for event in events[:-1]), issue("late", 3_000, events[-1])]
    monitor, _ = run(DetectSettings(maturity_ms=1_000 * STEP, default=watched), records)
    assert monitor.counters["matured"] < 3_000
    [version] = monitor._versions.values()
    scopes = [version.whole, version.slices["country", "DE"]]
    assert [scope.late.stream.count for scope in scopes if scope.late is not None and scope.late.stream is not None] == [
        3_001,
        3_001 - 1_001,
    ]


def test_contradictions_of_a_version_that_is_not_known_are_counted_and_make_it_no_more_known() -> None:
    watched = DetectSettings(maturity_ms=0, max_versions=3, default=SETTINGS.default)
    known = [outcome(prediction(i, model_version=version), "yes") for i, version in enumerate(("v3", "v4", "v5"))]
    made_up = [issue("conflicting", i, prediction(i, model_version=f"typo-{i}", slices={})) for i in range(9)]
    monitor, _ = run(watched, [*known, *made_up])
    assert [version["model_version"] for version in monitor.versions()] == ["v3", "v4", "v5"]
    assert (monitor.counters["feedback_conflicting"], monitor.counters["feedback_conflicting_of_nobody"]) == (9, 9)


def test_where_all_labels_are_of_use_there_is_no_stream() -> None:
    monitor, _ = run(SETTINGS, labels(2_000, "late", before=0, after=0))
    assert (monitor.counters["streams"], monitor.counters["versions"]) == (0, 2)


def test_nothing_is_made_of_contradictions_that_nobody_asks_for() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",), slices=()))
    monitor, _ = run(settings, labels(2_000, "conflicting"))
    assert monitor.counters["versions"] == monitor.counters["streams"] == 2


@pytest.mark.parametrize(
    "record",
    [
        issue("late", 0),
        issue("late", 0, prediction(0, model=7)),
        issue("late", 0, prediction(0), label=[]),
        issue("late", 0, prediction(0, timestamp=2**53)),
        issue("late", 0, prediction(0), feedback={"label": "yes", "timestamp": 2**63}),
        issue("conflicting", 0, prediction(0, slices={}), feedback={"label": "yes", "timestamp": 2**64 - 1}),
        issue("late", 0, prediction(0), feedback={"label": "yes", "timestamp": "now"}),
        issue("conflicting", 0),
        issue("conflicting", 0, prediction(0, slices={}), model=None),
        issue("conflicting", 0, prediction(0, slices={}), model_version=7),
        issue("conflicting", 0, prediction(0, slices={}), feedback=[]),
    ],
)
def test_an_issue_that_does_not_say_whose_it_is_is_counted_only(record: bytes) -> None:
    monitor, alerts = run(SETTINGS, [record])
    assert alerts == []
    assert monitor.counters["versions"] == 0
    assert sum(monitor.counters.get(metric, 0) for metric in METRICS) == 1


@pytest.mark.parametrize("kind", ["late", "conflicting"])
def test_what_was_saved_goes_on_the_same(kind: str) -> None:
    records = list(labels(3_000, kind))
    whole, alerts = run(SETTINGS, records)
    monitor, again = Monitor(SETTINGS, "observations", 0), list[Alert]()
    for offset, record in enumerate(records):
        if offset % 200 == 7:
            monitor = Monitor.restore(SETTINGS, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
        again += monitor.step(offset, record)
    assert [publish(alert) for alert in again] == [publish(alert) for alert in alerts]
    assert monitor.snapshot() == whole.snapshot()
