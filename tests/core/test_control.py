"""What operators decide: acknowledged, silenced for a while or for good, resolved; an alert or a whole incident."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_monitor.core.control import Decision, decide
from stream_monitor.core.events import Alert, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import HOUR, DetectSettings, MonitorSettings
from stream_monitor.core.silences import MAX_SILENCES
from tests.support.observations import START, STEP, judged, outcome, prediction, run, without_shapes

ERROR = DetectSettings(maturity_ms=0, warmup=300, default=MonitorSettings(metrics=("error",), slices=()))
CLASSES = DetectSettings(maturity_ms=0, warmup=300, default=MonitorSettings(metrics=("error", "precision=*"), slices=()))


def error(i: int, country: str) -> float:
    """Wrong from 1,000 to 2,000, and from 4,000 on."""
    return 0.6 if 1_000 <= i < 2_000 or i >= 4_000 else 0.1


def decision(action: str, alert: Alert | str, **fields: Any) -> bytes:
    id_ = alert if isinstance(alert, str) else alert.id
    record = {"record": "control", "action": action, "model": "credit", "alert": id_, "timestamp": START, **fields}
    return orjson.dumps(record)


def fired(settings: DetectSettings = ERROR, count: int = 1_200) -> tuple[Monitor, list[Alert]]:
    monitor, alerts = run(settings, judged(count, error))
    return monitor, [alert for alert in alerts if alert.status is Status.FIRING]


def at(i: int) -> int:
    """Event time of the i-th prediction."""
    return START + i * STEP


def heard(monitor: Monitor, start: int, stop: int, settings: DetectSettings = ERROR) -> list[Alert]:
    return run(settings, judged(stop - start, error, seed=start, start=start), monitor)[1]


def go_on(monitor: Monitor, start: int, stop: int, settings: DetectSettings = ERROR) -> list[Alert]:
    return without_shapes(heard(monitor, start, stop, settings))


def statuses(alerts: list[Alert]) -> list[str]:
    return [alert.status.value for alert in alerts]


def test_who_acknowledged_is_said_from_then_on_and_the_alert_goes_on() -> None:
    monitor, [alert] = fired()
    [said] = run(ERROR, [decision("acknowledge", alert, actor="ann", comment="looking")], monitor)[1]
    assert (said.status, said.id, said.position.offset) == (Status.ACKNOWLEDGED, alert.id, 1_200)
    assert said.details["acknowledged"] == {"at": START, "by": "ann", "comment": "looking"}
    assert said.summary == f"{alert.summary}; acknowledged by ann (looking)"
    later = heard(monitor, 1_200, 4_000)
    assert statuses(later) == ["updated", "resolved"]
    assert "; acknowledged by ann (looking)" in later[0].summary


def test_a_silenced_alert_is_not_heard_of_again_but_for_its_end() -> None:
    monitor, [alert] = fired()
    [said] = run(ERROR, [decision("silence", alert, until=at(100_000), actor="ann")], monitor)[1]
    assert (said.status, said.details["silenced"]["until"]) == (Status.SILENCED, at(100_000))
    assert said.summary.endswith("; silenced until 2024-03-05 14:46 UTC by ann")
    assert run(ERROR, [decision("acknowledge", alert)], monitor)[1] == []
    assert statuses(go_on(monitor, 1_200, 6_000)) == ["resolved"], "the next one is not told"


def test_what_still_fires_when_its_silence_is_over_is_told_at_that_time() -> None:
    monitor, [alert] = fired()
    run(ERROR, [decision("silence", alert, until=at(1_500))], monitor)
    [said] = heard(monitor, 1_200, 1_600)
    assert (said.status, said.id, said.detected_at) == (Status.UPDATED, alert.id, at(1_500))
    assert "silenced" not in said.details


def test_an_alert_that_began_in_silence_fires_when_it_is_over() -> None:
    monitor, [alert] = fired()
    run(ERROR, [decision("silence", alert, until=at(5_000))], monitor)
    assert statuses(go_on(monitor, 1_200, 4_900)) == ["resolved"]
    [said] = go_on(monitor, 4_900, 5_100)
    assert (said.status, said.fingerprint, said.detected_at) == (Status.FIRING, alert.fingerprint, at(5_000))
    assert at(3_900) < said.first_seen < at(4_200)
    [end] = run(ERROR, [decision("resolve", said)], monitor)[1]
    assert end.id == said.id != alert.id


def test_an_alert_that_began_and_ended_in_silence_is_not_told_at_all() -> None:
    monitor, [alert] = fired()
    run(ERROR, [decision("silence", alert)], monitor)
    go_on(monitor, 1_200, 4_900)
    known = [episode.alert for _, episode in monitor._open()]
    assert len(known) == 1
    assert run(ERROR, [decision("resolve", known[0])], monitor)[1] == []
    assert monitor._desk.silences.untold == set()


def test_a_silence_without_an_end_is_for_good_until_it_is_taken_back() -> None:
    monitor, [alert] = fired()
    [said] = run(ERROR, [decision("silence", alert)], monitor)[1]
    assert said.summary.endswith("; silenced for good")
    go_on(monitor, 1_200, 4_900)
    [told] = run(ERROR, [decision("silence", alert, until=START, fingerprint=alert.fingerprint)], monitor)[1]
    assert (told.status, told.fingerprint) == (Status.FIRING, alert.fingerprint)


def test_an_alert_that_is_over_can_be_silenced_by_its_fingerprint() -> None:
    monitor, [alert] = fired()
    go_on(monitor, 1_200, 3_900)
    assert run(ERROR, [decision("silence", alert, fingerprint=alert.fingerprint)], monitor)[1] == []
    assert go_on(monitor, 3_900, 6_000) == []


def test_an_incident_is_silenced_with_what_joins_it_and_no_longer_than_it_lasts() -> None:
    records = list(judged(3_900, error))
    everything = run(CLASSES, records)[1]
    first, second = (alert for alert in everything if alert.status is Status.FIRING)
    after = first.position.offset + 1
    assert after <= second.position.offset, "the second alert is yet to come"
    monitor, _ = run(CLASSES, records[:after])
    [said] = run(CLASSES, [decision("silence", first.incident, incident=True)], monitor)[1]
    assert said.status is Status.SILENCED
    assert statuses(run(CLASSES, records[after:], monitor)[1]) == ["resolved"]
    assert len(monitor._desk.silences.until) == 0
    assert statuses(go_on(monitor, 3_900, 6_000, CLASSES)).count("firing") == 2


@pytest.mark.parametrize(("until", "said"), [(None, ["resolved"]), (at(1_300), ["updated", "updated", "resolved"])])
def test_what_was_silenced_with_its_incident_stays_silenced_where_the_state_is_rebuilt(until: int | None, said: list[str]) -> None:
    """There the incident has another id, so the decision means nothing when it is read again."""
    monitor, [alert] = fired()
    [silenced] = run(ERROR, [decision("silence", alert.incident, incident=True, until=until)], monitor)[1]
    known = replace(silenced, id="a" * 32, incident="a" * 32)
    rebuilt, _ = fired()
    assert rebuilt.carry_over([known], rebuilt.at) == []
    later = heard(rebuilt, 1_200, 4_000)
    assert statuses(later) == said
    assert all("silenced" not in alert.details for alert in later)
    assert rebuilt._desk.silences.until == {}, "no longer than the incident lasts"


@pytest.mark.parametrize("action", ["acknowledge", "resolve"])
def test_a_decision_about_an_incident_is_one_about_each_of_its_alerts(action: str) -> None:
    monitor, alerts = fired(CLASSES)
    assert len(alerts) == 2
    said = run(CLASSES, [decision(action, alerts[0].incident, incident=True)], monitor)[1]
    assert {alert.id for alert in said} == {alert.id for alert in alerts}
    assert len(set(statuses(said))) == 1


def test_a_monitor_that_is_restored_keeps_what_was_decided() -> None:
    records = [*judged(1_200, error), decision("silence", "?", until=at(5_000)), *judged(4_500, error, 2, 1_200)]
    alert = fired()[1][0]
    records[1_200] = decision("silence", alert, until=at(5_000))
    whole, alerts = run(ERROR, records)
    assert statuses(alerts) == ["firing", "silenced", "resolved", "firing"]
    for cut in (1_201, 2_500, 4_800):
        one, first = run(ERROR, records[:cut])
        other = Monitor.restore(ERROR, "observations", 0, orjson.loads(orjson.dumps(one.snapshot())))
        assert first + run(ERROR, records[cut:], other)[1] == alerts
        assert other.snapshot() == whole.snapshot()


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "delete"}, {"alert": 7}, {"until": "soon"}, {"until": -1}, {"until": True}, {"until": 2**53}, {"until": 1.5},
    ],
)  # fmt: skip
def test_a_decision_that_makes_no_sense_changes_nothing(fields: dict[str, Any]) -> None:
    monitor, [alert] = fired()
    record = orjson.loads(decision("silence", alert)) | fields
    assert run(ERROR, [orjson.dumps(record)], monitor)[1] == []
    assert monitor.counters["not_understood"] == 1
    assert monitor._desk.silences.until == {}


def test_hostile_names_and_comments_are_cut_and_made_safe() -> None:
    monitor, [alert] = fired()
    [said] = run(ERROR, [decision("acknowledge", alert, actor="\x1b[31m" + "x" * 10_000, comment=7, timestamp="?")], monitor)[1]
    assert said.summary.isprintable()
    assert len(said.details["acknowledged"]["by"]) < 250
    assert said.details["acknowledged"]["comment"] is None


def test_silences_are_bounded() -> None:
    monitor, [alert] = fired()
    for i in range(MAX_SILENCES + 5):
        run(ERROR, [decision("silence", "?", fingerprint=f"f{i}")], monitor)
    assert len(monitor._desk.silences.until) == MAX_SILENCES
    assert monitor.counters["silences_refused"] == 5
    assert run(ERROR, [decision("silence", alert)], monitor)[1] == []


def test_a_silence_ends_with_event_time_not_with_the_next_look_for_silent_versions() -> None:
    monitor, [alert] = fired()
    run(ERROR, [decision("silence", alert, until=at(1_200) + HOUR // 2)], monitor)
    later = outcome(prediction(0, timestamp=at(1_200) + HOUR // 2 + 1), "yes")
    [said] = run(ERROR, [later], monitor)[1]
    assert said.status is Status.UPDATED


def test_what_is_written_is_what_is_read() -> None:
    alert = {"id": "a", "incident": "i", "fingerprint": "f", "model": "credit"}
    one = Decision.of(orjson.loads(decide("silence", alert, START, until=START + 1, by="ann", comment="known")))
    assert one == ("silence", "a", False, "f", START + 1, {"at": START, "until": START + 1, "by": "ann", "comment": "known"})
    whole = Decision.of(orjson.loads(decide("resolve", alert, START, incident=True)))
    assert whole == ("resolve", "i", True, None, None, {"at": START, "by": None, "comment": None})


def test_a_silence_by_the_id_of_an_alert_that_is_over_covers_the_one_that_fires_about_the_same() -> None:
    monitor, [alert] = fired()
    [again] = [one for one in go_on(monitor, 1_200, 4_500) if one.status is Status.FIRING]
    assert again.fingerprint == alert.fingerprint
    [said] = run(ERROR, [decision("silence", alert, fingerprint=alert.fingerprint)], monitor)[1]
    assert (said.status, said.id) == (Status.SILENCED, again.id)
