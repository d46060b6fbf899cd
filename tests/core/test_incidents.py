"""Which alerts belong together."""

from __future__ import annotations

import orjson

from stream_monitor.core.events import Status
from stream_monitor.core.incidents import Incidents
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from tests.support.observations import control, judged, run

WHOLE = DetectSettings(maturity_ms=0, warmup=300, monitors=(MonitorSettings(slices=(), metrics=("error", "precision=*", "recall=*")),))


def joined(*alerts: tuple[str, int, int]) -> list[str]:
    """The incidents of alerts (id, first_seen, detected_at) of one model, in the order in which they fire."""
    incidents = Incidents()
    return [incidents.join("m", *alert) for alert in alerts]


def test_an_alert_about_a_change_that_an_incident_covers_joins_it() -> None:
    assert joined(("a", 100, 200), ("b", 150, 900), ("c", 800, 950)) == ["a", "a", "a"]


def test_an_alert_about_an_earlier_change_that_was_noticed_later_joins_it() -> None:
    assert joined(("a", 100, 200), ("b", 0, 900)) == ["a", "a"]


def test_a_change_after_it_begins_another_but_for_as_long_as_the_first_alert_took_to_be_noticed() -> None:
    assert joined(("a", 100, 200), ("b", 300, 310), ("c", 411, 420)) == ["a", "a", "c"]


def test_incidents_do_not_grow_by_what_comes_after_each_other() -> None:
    """The grace is that of the first alert: a slow one that joins does not stretch it."""
    assert joined(("a", 100, 110), ("b", 105, 1_000), ("c", 1_011, 1_100)) == ["a", "a", "c"]


def test_of_two_incidents_it_joins_the_one_that_began_nearest_to_it() -> None:
    alerts = ("a", 100, 200), ("b", 900, 950)
    assert joined(*alerts, ("c", 120, 990)) == ["a", "b", "a"]
    assert joined(*alerts, ("c", 880, 990)) == ["a", "b", "b"]


def test_models_have_incidents_of_their_own() -> None:
    incidents = Incidents()
    assert [incidents.join(model, model, 0, 10) for model in ("m", "n", "m")] == ["m", "n", "m"]


def test_an_incident_ends_with_its_last_alert_and_leaves_nothing_behind() -> None:
    incidents = Incidents()
    for id_ in "ab":
        incidents.join("m", id_, 0, 10)
    incidents.leave("m", "a", "a")
    assert incidents.join("m", "c", 5, 20) == "a", "b still fires"
    for id_ in ("b", "c", "unknown"):
        incidents.leave("m", "a", id_)
    incidents.leave("another", "x", "y")
    assert (len(incidents), incidents.state()) == (0, [])
    assert incidents.join("m", "d", 5, 20) == "d"


def test_restored_incidents_go_on_as_the_saved_ones() -> None:
    one, other = Incidents(), Incidents()
    for id_, first, detected in (("a", 100, 200), ("b", 900, 950), ("c", 120, 990)):
        one.join("m", id_, first, detected)
    one.leave("m", "b", "b")
    other.restore(orjson.loads(orjson.dumps(one.state())))
    assert other.state() == one.state()
    assert other.join("m", "d", 980, 999) == one.join("m", "d", 980, 999) == "a"


def drift(i: int, country: str) -> float:
    return 0.5 if 3_000 <= i < 6_000 or i >= 9_000 else 0.1


def test_the_alerts_of_one_drift_are_one_incident_and_those_of_the_next_another() -> None:
    monitor, alerts = run(WHOLE, judged(11_000, drift))
    first = [alert for alert in alerts if alert.status is Status.FIRING and alert.position.offset < 6_000]
    second = [alert for alert in alerts if alert.status is Status.FIRING and alert.position.offset >= 9_000]
    assert len(first) > 1 < len(second)
    assert {alert.incident for alert in first} == {first[0].id}
    assert {alert.incident for alert in second} == {second[0].id}
    for resolved in (alert for alert in alerts if alert.status is Status.RESOLVED):
        assert resolved.incident == next(alert.incident for alert in alerts if alert.id == resolved.id)
    assert monitor.counters["incidents"] == 1
    run(WHOLE, [control(alert.id) for alert in second], monitor)
    assert monitor.counters["incidents"] == 0


def test_a_restored_monitor_keeps_its_incidents() -> None:
    records = list(judged(4_000, drift))
    whole, alerts = run(WHOLE, records)
    fired = [alert for alert in alerts if alert.status is Status.FIRING]
    between = fired[0].position.offset + 1
    assert between < fired[-1].position.offset
    one, first = run(WHOLE, records[:between])
    other = Monitor.restore(WHOLE, "observations", 0, orjson.loads(orjson.dumps(one.snapshot())))
    assert run(WHOLE, records[between:], other)[1] == alerts[len(first) :]
    assert other.snapshot() == whole.snapshot()


def test_what_is_carried_over_keeps_the_incident_that_is_known() -> None:
    monitor, alerts = run(WHOLE, judged(4_000, drift))
    fired = [alert for alert in alerts if alert.status is Status.FIRING]
    known = Monitor(WHOLE, "observations", 0)
    known_alerts = run(WHOLE, judged(4_000, drift, start=0, seed=2), known)[1]
    told = [alert for alert in known_alerts if alert.status is Status.FIRING and alert.fingerprint == fired[0].fingerprint]
    assert len(told) == 1
    assert len(fired) > 1
    monitor.carry_over(told, monitor.at)
    ends = run(WHOLE, [control(alert.id) for alert in [*told, *fired[1:]]], monitor)[1]
    assert {alert.incident for alert in ends} == {told[0].incident}, "what fires here only goes with it"
    assert len(ends) == len(fired)
    assert monitor.counters["incidents"] == 0
