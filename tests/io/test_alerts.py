"""What readers of the alert topic see together."""

from __future__ import annotations

from typing import Any

import pytest

from stream_monitor.cli import _heading, _line
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


def explained(id_: str, at: int, key: str, value: str, share: float, status: str = "firing") -> dict[str, Any]:
    entry = {"slice": {"key": key, "value": value}, "metric": "error", "share": share, "traffic": 0.2}
    return {**event(id_, "a", at, status), "details": {"attribution": [entry]}}


def test_an_incident_is_headed_by_the_narrowest_slice_that_explains_most_of_it_and_its_alert_comes_first() -> None:
    read = [
        {**event("a", "a", 10), "details": {"attribution": []}},
        explained("b", 20, "country", "DE", 0.97),
        explained("c", 30, "country x device", "DE x phone", 0.92),
        explained("d", 40, "country x device", "DE x tablet", 0.4),
        event("c", "a", 50, "resolved"),
        event("b", "a", 60, "resolved"),
    ]
    [incident] = incidents(read)
    assert incident.explanation == "country x device=DE x phone explains 92% of the change of error in all traffic"
    assert [(one["id"], one["detected_at"]) for one in incident.events] == [
        ("c", 30),
        ("c", 50),
        ("a", 10),
        ("b", 20),
        ("d", 40),
        ("b", 60),
    ]
    assert _heading(incident) == f"incident a  credit: {incident.explanation}; 4 alerts, 2 of them not over"
    assert incidents(reversed(read)) == [incident]


def test_what_an_alert_said_last_of_its_explanation_counts() -> None:
    news = explained("b", 30, "country", "FR", 0.9, "updated"), {**event("c", "a", 30, "updated"), "details": {"attribution": []}}
    [incident] = incidents([explained("b", 10, "country", "DE", 0.9), explained("c", 20, "country x device", "DE x phone", 0.9), *news])
    assert incident.explanation.startswith("country=FR explains 90%")


def test_alerts_that_explain_an_incident_equally_well_are_told_in_the_order_of_time() -> None:
    [incident] = incidents([explained("b", 20, "country", "DE", 0.9), explained("a", 10, "country", "FR", 0.9)])
    assert [one["id"] for one in incident.events] == ["a", "b"]
    assert incident.explanation.startswith("country=FR")


def test_incidents_keep_the_order_in_which_they_began_whatever_alert_leads_them() -> None:
    late = explained("b", 40, "country", "DE", 0.9)
    assert [one.id for one in incidents([event("a", "a", 10), late, event("c", "c", 20)])] == ["a", "c"]


def test_a_shift_of_the_mix_and_features_head_an_incident_where_no_slice_does() -> None:
    mix = {
        "mix": "country",
        "metric": "error",
        "share": 0.95,
        "slice": {"key": "country", "value": "BR"},
        "traffic": 0.4,
        "traffic_before": 0.1,
    }
    of_inputs = {**event("a", "a", 10), "details": {"attribution": [{"feature": "income"}, {"feature": "age"}]}}
    assert incidents([of_inputs])[0].explanation == "inputs moved: income, age"
    [incident] = incidents([of_inputs, {**event("b", "a", 20), "details": {"attribution": [mix]}}])
    moved = "BR from 10% to 40% of the traffic"
    assert incident.explanation == f"the mix of country changed ({moved}), which explains 95% of the change of error"


def test_an_incident_that_nothing_in_particular_explains_has_its_counts_as_heading() -> None:
    [incident] = incidents([event("a", "a", 10), {**event("b", "a", 20, "resolved"), "details": {"attribution": []}}])
    assert _heading(incident) == "incident a  credit: 2 alerts, 1 of them not over"


@pytest.mark.parametrize(
    "details",
    [
        None,
        7,
        {"attribution": None},
        {"attribution": 7},
        {"attribution": [7]},
        {"attribution": [{"share": "much"}]},
        {"attribution": [{"share": 0.9}]},
        {"attribution": [{"share": 0.9, "metric": "error", "slice": {"key": ["country"], "value": 7}}]},
        {"attribution": [{"share": 0.9, "metric": "error", "slice": None}]},
    ],
)
def test_details_that_another_program_wrote_explain_nothing(details: Any) -> None:
    [incident] = incidents([{**event("a", "a", 10), "details": details}, event("b", "a", 20)])
    assert (incident.explanation, [one["id"] for one in incident.events]) == ("", ["a", "b"])
