"""What readers of the alert topic see together."""

from __future__ import annotations

from typing import Any

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
