"""What readers of the alert topic see together."""

from __future__ import annotations

from typing import Any

from stream_monitor.cli import _line
from stream_monitor.io.alerts import incident_of, incidents


def event(id_: str, incident: str, at: int, status: str = "firing") -> dict[str, Any]:
    return {"id": id_, "incident": incident, "model": "credit", "detected_at": at, "status": status, "summary": "s"}


def test_events_are_told_by_incident_in_the_order_of_time() -> None:
    read = [event("c", "c", 30), event("a", "a", 10), event("a", "a", 50, "resolved"), event("b", "a", 20)]
    first, second = incidents(read)
    assert [(one["id"], one["detected_at"]) for one in first.events] == [("a", 10), ("b", 20), ("a", 50)]
    assert (first.id, first.model, first.alerts, first.firing) == ("a", "credit", 2, 1)
    assert (second.id, second.alerts, second.firing) == ("c", 1, 1)


def test_an_incident_is_over_when_all_its_alerts_are_resolved() -> None:
    ends = [event("a", "a", 50, "resolved"), event("b", "a", 60, "resolved")]
    assert incidents([event("a", "a", 10), event("b", "a", 20), *ends])[0].firing == 0


def test_a_record_without_an_incident_or_a_time_stands_for_itself() -> None:
    old = {"id": "x", "status": "firing", "summary": "s", "detected_at": "?"}
    assert incident_of(old) == "x"
    assert [one.id for one in incidents([event("a", "a", 10), old])] == ["x", "a"]


def test_a_warning_is_told_with_the_incident_that_its_alert_joined() -> None:
    read = [event("a", "a", 10), event("b", "b", 15, "warning"), event("b", "a", 20), event("c", "c", 30, "warning")]
    first, second = incidents(read)
    assert [(one["id"], one["status"]) for one in first.events] == [("a", "firing"), ("b", "warning"), ("b", "firing")]
    assert (first.alerts, second.alerts, second.firing) == (2, 1, 1)


def test_an_early_notice_does_not_look_like_an_alert_of_the_severity_warning() -> None:
    early = _line({**event("a", "a", 10, "warning"), "severity": "info"})
    grave = _line({**event("a", "a", 10), "severity": "warning"})
    assert early.split()[2:4] == ["early", "s"]
    assert grave.split()[2:4] == ["warning", "s"]


def test_records_without_an_id_stay_with_their_incidents() -> None:
    read = [{"incident": one, "status": "firing", "summary": "s", "detected_at": 1} for one in ("a", "b")]
    assert [one.id for one in incidents(read)] == ["a", "b"]
