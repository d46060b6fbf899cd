"""An alert on the topic: JSON in a fixed order, CloudEvents headers, whatever the names are."""

from __future__ import annotations

from dataclasses import fields, replace

import orjson
import pytest

from stream_monitor.core.events import Alert, Kind, Level, Position, Severity, Slice, Status
from stream_monitor.core.publishing import publish

ALERT = Alert(
    id="a" * 32,
    event_id="b" * 32,
    fingerprint="c" * 32,
    incident="d" * 32,
    status=Status.FIRING,
    severity=Severity.CRITICAL,
    kind=Kind.CONCEPT_DRIFT,
    model="credit",
    model_version="v3",
    slice=Slice("country", "DE"),
    metric="error",
    direction="up",
    before=Level(0.12, 5_000),
    after=Level(0.31, 180),
    statistic=0.19,
    threshold=0.11,
    detector="adwin",
    parameters={"delta": 0.002, "clock": 32},
    assurance="calibrated",
    first_seen=1_709_640_000_000,
    detected_at=1_709_640_123_456,
    first_position=Position("observations", 0, 5_000),
    position=Position("observations", 0, 5_180),
    summary="credit v3: error for country=DE rose from 0.12 to 0.31 (since 2024-03-05 12:00 UTC)",
)


def test_the_value_holds_every_field_in_the_order_of_the_event() -> None:
    key, value, _ = publish(ALERT)
    body = orjson.loads(value)
    assert key == b"credit"
    assert list(body) == [field.name for field in fields(Alert)]
    assert body["slice"] == {"key": "country", "value": "DE"}
    assert body["position"] == {"topic": "observations", "partition": 0, "offset": 5_180}
    assert body["before"] == {"value": 0.12, "count": 5_000, "low": None, "high": None}
    assert (body["status"], body["kind"], body["severity"]) == ("firing", "concept_drift", "critical")


def test_the_headers_are_a_cloudevent() -> None:
    assert publish(ALERT)[2] == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"b" * 32),
        ("ce_source", b"/stream-monitor/observations/0"),
        ("ce_type", b"io.stream-monitor.alert.firing"),
        ("ce_subject", b"credit/v3/country=DE/error"),
        ("ce_time", b"2024-03-05T12:02:03.456Z"),
        ("ce_incident", b"d" * 32),
        ("content-type", b"application/json"),
    ]


def test_an_alert_about_the_whole_has_no_slice() -> None:
    _, value, headers = publish(replace(ALERT, slice=None, status=Status.RESOLVED))
    assert orjson.loads(value)["slice"] is None
    assert dict(headers)["ce_subject"] == b"credit/v3/-/error"
    assert dict(headers)["ce_type"] == b"io.stream-monitor.alert.resolved"


@pytest.mark.parametrize("name", ["a/b\n\x00\x1b[31m", "ü" * 10_000, "\u202e", "=%2F/"])
def test_hostile_names_give_a_subject_of_four_safe_parts(name: str) -> None:
    headers = dict(publish(replace(ALERT, model=name, slice=Slice(name, name), metric=name))[2])
    assert headers["ce_subject"].decode("ascii").isprintable()
    assert headers["ce_subject"].count(b"/") == 3
    assert headers["ce_subject"].count(b"=") == 1


@pytest.mark.parametrize("time", [-1, 0, 2**53, 10**30])
def test_times_out_of_range_are_still_rfc_3339(time: int) -> None:
    alert = replace(ALERT, detected_at=time)
    assert dict(publish(replace(alert, detected_at=min(time, 2**53)))[2])["ce_time"].endswith(b"Z")


def test_a_level_that_is_not_finite_is_null() -> None:
    body = orjson.loads(publish(replace(ALERT, after=Level(float("inf"), 1)))[1])
    assert body["after"]["value"] is None
