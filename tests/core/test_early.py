"""Early notice: warnings, which come to fire or fade, and their budget."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.core.alerting import Event, Subject
from stream_monitor.core.early import FADE, Early
from stream_monitor.core.events import Alert, Kind, Severity, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import HOUR, AlertBudget, DetectorSettings, DetectSettings, MonitorSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream
from tests.core.test_alerting import ALL, bits, feed
from tests.core.test_budget import numbers
from tests.core.test_control import at, decision, statuses
from tests.support.observations import desk, judged, outcome, prediction, run

BUDGET = AlertBudget(1.0)
WARNED = replace(BUDGET, alerts=20.0)
ERROR = DetectSettings(
    maturity_ms=0, warmup=300, alert_budget=BUDGET, warning_budget=WARNED, default=MonitorSettings(metrics=("error",), slices=())
)
DRIFT = bits(3_000, 0.1, 0) + bits(3_000, 0.2, 100)
BLIP = bits(3_000, 0.1, 0) + bits(400, 0.17, 100) + bits(3_000, 0.1, 200)


def stream(warnings: AlertBudget | None = WARNED, numeric: bool = False, minimum: float = 0.1, detectors: Any = ALL) -> Stream:
    subject = Subject.of("credit", "v3", None, "error", Kind.CONCEPT_DRIFT, minimum, 0.5)
    build = NumericStream if numeric else BinaryStream
    return build(subject, detectors, DetectSettings(alert_budget=BUDGET, warning_budget=warnings), desk(BUDGET))


def told(alerts: list[Alert]) -> list[Alert]:
    """Without what says more about them in between."""
    return [alert for alert in alerts if alert.status is not Status.UPDATED]


def test_the_way_from_fading_to_a_warning_is_what_the_budgets_allow_for_each_other() -> None:
    early = Early.of(DetectSettings(alert_budget=BUDGET, warning_budget=WARNED), 3)
    assert early is not None
    assert 1 / (early.warn - early.fade) == pytest.approx(60), "twenty for each alert, by one of three detectors"
    assert early.fade == FADE * early.warn


@pytest.mark.parametrize("alerts", [5e-324, 1e-300, 1e300])
def test_budgets_beyond_all_measure_make_few_warnings_or_none_and_no_trouble(alerts: float) -> None:
    subject = Subject.of("m", "v", None, "error", Kind.CONCEPT_DRIFT, 0.1, 0.5)
    allowed = AlertBudget(alerts)
    asked = DetectSettings(alert_budget=allowed, warning_budget=AlertBudget(1e301))
    of = BinaryStream(subject, ALL, asked, desk(allowed))
    feed(of, bits(3_000, 0.1))
    assert of.account.warnings <= 1


def test_without_a_budget_for_warnings_there_are_none() -> None:
    of = stream(None)
    assert Status.WARNING not in [alert.status for alert in feed(of, DRIFT)]
    assert (of.early, of.warning, of.account.warnings) == (None, None, 0)


def test_a_drift_is_warned_of_before_its_alert_fires_under_the_same_id() -> None:
    of = stream()
    warning, fired = told(feed(of, DRIFT))
    assert (warning.status, fired.status) == (Status.WARNING, Status.FIRING)
    assert warning.id == fired.id
    assert warning.event_id != fired.event_id
    assert 3_000 < warning.position.offset < fired.position.offset
    assert (warning.severity, warning.detector, warning.incident) == (Severity.INFO, "e_detector", warning.id)
    assert of.early is not None
    assert of.early.warn == warning.threshold <= warning.statistic < 1
    assert warning.summary.endswith("; an early notice, on less evidence than an alert asks for")
    assert (warning.details["early"], warning.details["warned"]) == (True, warning.detected_at)
    assert fired.details["warned"] == warning.detected_at
    assert "early" not in fired.details
    assert (of.warning, of.account.warnings, of.account.alarms) == (None, 1, 1)


@pytest.mark.parametrize("numeric", [False, True])
def test_warnings_change_nothing_about_alerts(numeric: bool) -> None:
    rng = random.Random(1)
    values = [rng.gauss(0.4 * (i // 3_000 % 2), 1) for i in range(12_000)] if numeric else DRIFT + BLIP + DRIFT
    with_, without = stream(numeric=numeric), stream(None, numeric)

    def alerts(of: Stream) -> list[Any]:
        heard = [one for one in feed(of, values) if "early" not in one.details]
        return [(one.status, one.position, one.first_seen, one.before, one.after, one.statistic, one.severity) for one in heard]

    assert alerts(with_) == alerts(without) != []
    assert with_.account.alarms == without.account.alarms
    assert with_.account.received == without.account.received


def test_a_warning_whose_evidence_fades_is_resolved_and_nothing_fired() -> None:
    of = stream()
    warning, resolved = feed(of, BLIP)
    assert (warning.status, resolved.status, resolved.id) == (Status.WARNING, Status.RESOLVED, warning.id)
    assert resolved.details == {"reason": "faded", "early": True}
    assert resolved.summary == "credit v3: error: resolved, the evidence faded"
    assert resolved.after.value < warning.after.value
    assert (of.warning, of.account.warnings, of.account.alarms) == (None, 1, 0)


def test_another_detector_may_make_it_fire() -> None:
    of = stream()
    warning, fired, *_ = feed(of, bits(3_000, 0.1, 2) + bits(400, 0.17, 107) + bits(3_000, 0.1, 201))
    assert (warning.detector, fired.detector) == ("e_detector", "adwin")
    assert (warning.status, fired.status, fired.id) == (Status.WARNING, Status.FIRING, warning.id)


def test_only_the_e_detector_warns_and_only_within_the_budget() -> None:
    for own in (DetectorSettings("adwin"), DetectorSettings("e_detector", {"per_value": 1e-4})):
        of = stream(detectors=(own,))
        assert [alert.status for alert in told(feed(of, DRIFT))] == [Status.FIRING]


def test_a_warning_below_the_minimum_effect_is_spent_untold() -> None:
    of = stream(minimum=9.0)
    assert feed(of, DRIFT) == []
    assert of.account.warnings >= 1
    assert of.warning is None


def test_while_an_alert_fires_there_is_no_warning() -> None:
    of = stream()
    more = feed(of, DRIFT + bits(2_000, 0.35, 5))
    assert [alert.status for alert in told(more)] == [Status.WARNING, Status.FIRING]
    assert of.account.alarms > 1


@pytest.mark.parametrize("event", [Event.SILENT, Event.EVICTED, Event.OPERATOR])
def test_what_ends_it_from_outside_ends_it_until_the_evidence_has_faded(event: Event) -> None:
    of = stream()
    feed(of, BLIP[:3_300])
    assert of.warning is not None
    of.end(event, 3_300)
    of.end(event, 3_301)
    assert [alert.status for alert in feed(of, BLIP[3_300:], 3_300)] == [Status.WARNING, Status.RESOLVED]
    assert of.desk.out[-1].details == {"reason": event.value, "early": True}


def test_a_restored_stream_goes_on_as_the_saved_one() -> None:
    whole = stream()
    expected = list(feed(whole, BLIP + DRIFT))
    assert {Status.WARNING, Status.RESOLVED, Status.FIRING} <= {alert.status for alert in expected}
    one, out = stream(), []
    for start in range(0, len(BLIP + DRIFT), 171):
        other = stream()
        other.desk.clock, other.desk.silences, other.desk.incidents = one.desk.clock, one.desk.silences, one.desk.incidents
        other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
        other.restore(orjson.loads(orjson.dumps(one.state())))
        out += feed(other, (BLIP + DRIFT)[start : start + 171], start)
        one = other
    assert out == expected
    assert one.state() == whole.state()


def error(i: int, country: str) -> float:
    """A blip that is warned of, then a drift."""
    return 0.17 if 1_500 <= i < 1_900 else 0.25 if i >= 4_000 else 0.1


LOG = list(judged(4_400, error, seed=2))
CUT = 4_120  # behind the second warning, before its alert


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(LOG)), max_size=6))
def test_wherever_a_monitor_is_cut_and_restored_its_warnings_are_the_same(cuts: list[int]) -> None:
    out = []
    monitor = Monitor(ERROR, "observations", 0)
    for offset, value in enumerate(LOG):
        if offset in cuts:
            monitor = Monitor.restore(ERROR, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
        out += monitor.step(offset, value)
    assert (out, monitor.snapshot()) == WHOLE


def _whole() -> tuple[list[Alert], Any]:
    monitor, alerts = run(ERROR, LOG)
    return alerts, monitor.snapshot()


WHOLE = _whole()


def test_a_monitor_counts_and_states_its_warnings() -> None:
    assert statuses(WHOLE[0])[:4] == ["warning", "resolved", "warning", "firing"]
    monitor, _ = run(ERROR, LOG)
    assert monitor.counters["alerts_warning"] == 2
    statement = monitor.budget()
    assert statement["warnings"] == sum(owner["warnings"] for owner in statement["owners"]) == 2


def test_warnings_of_streams_that_are_gone_are_still_counted() -> None:
    settings = replace(ERROR, max_versions=1)
    monitor, alerts = run(settings, LOG[:CUT])
    [ended] = run(settings, [outcome(prediction(9_000, model_version="v4"), "yes")], monitor)[1]
    assert (ended.id, ended.details) == (alerts[-1].id, {"reason": "evicted", "early": True})
    assert monitor.budget()["warnings"] == 2


def test_the_incidents_of_alerts_do_not_know_of_warnings() -> None:
    monitor, alerts = run(ERROR, LOG[:CUT])
    assert alerts[-1].status is Status.WARNING
    assert monitor.counters["incidents"] == 0
    _, later = run(ERROR, LOG[CUT:], monitor)
    assert later[0].incident == later[0].id == alerts[-1].id
    assert monitor.counters["incidents"] == 1


def test_what_operators_decide_about_a_warning_stays_with_the_alert() -> None:
    monitor, [*_, warning] = run(ERROR, LOG[:CUT])
    [said] = run(ERROR, [decision("acknowledge", warning, actor="ann")], monitor)[1]
    assert (said.status, said.details["early"]) == (Status.ACKNOWLEDGED, True)
    fired = run(ERROR, LOG[CUT:], monitor)[1][0]
    assert (fired.status, fired.details["acknowledged"]["by"]) == (Status.FIRING, "ann")


def test_an_alert_that_fires_while_its_warning_is_silenced_is_told_when_the_silence_is_over() -> None:
    monitor, [*_, warning] = run(ERROR, LOG[:CUT])
    [said] = run(ERROR, [decision("silence", warning, until=at(4_500))], monitor)[1]
    assert (said.status, said.id) == (Status.SILENCED, warning.id)
    assert run(ERROR, LOG[CUT:], monitor)[1] == []
    later = run(ERROR, judged(200, error, seed=9, start=4_400), monitor)[1]
    assert (later[0].status, later[0].id, later[0].detected_at) == (Status.FIRING, warning.id, at(4_500))
    assert not {"early", "silenced"} & set(later[0].details)


def test_the_end_of_an_alert_is_told_if_only_its_warning_was() -> None:
    monitor, [*_, warning] = run(ERROR, LOG[:CUT])
    run(ERROR, [decision("silence", warning)], monitor)
    assert run(ERROR, LOG[CUT:], monitor)[1] == []
    [end] = run(ERROR, [decision("resolve", warning)], monitor)[1]
    assert (end.status, end.id) == (Status.RESOLVED, warning.id)
    assert monitor._desk.silences.state()[1:] == [[], []]


def test_a_warning_that_begins_in_a_silence_is_told_as_one_when_that_is_over() -> None:
    warning = run(ERROR, LOG[:CUT])[1][-1]
    fresh, _ = run(ERROR, LOG[:3_900])
    until = warning.detected_at + 100
    run(ERROR, [decision("silence", "x", fingerprint=warning.fingerprint, until=until)], fresh)
    [heard] = run(ERROR, LOG[3_900 : warning.position.offset + 3], fresh)[1]
    assert (heard.status, heard.detected_at) == (Status.WARNING, until)


def test_who_silences_a_warning_as_an_incident_of_its_own_still_hears_that_it_fires_in_another() -> None:
    monitor, [*_, warning] = run(ERROR, LOG[:CUT])
    run(ERROR, [decision("silence", warning, incident=True)], monitor)
    monitor._desk.incidents.join("credit", "other", warning.first_seen, at(CUT))
    fired = run(ERROR, LOG[CUT:], monitor)[1][0]
    assert (fired.status, fired.incident) == (Status.FIRING, "other")
    assert monitor._desk.silences.until == {}


def test_a_warning_that_readers_know_goes_on_as_one_or_is_resolved_where_the_state_is_built_anew() -> None:
    monitor, [*_, warning] = run(ERROR, LOG[:CUT])
    known = replace(warning, id="f" * 32)
    assert monitor.carry_over([known], monitor.at) == []
    assert monitor.counters["incidents"] == 0
    assert run(ERROR, LOG[CUT:], monitor)[1][0].id == known.id
    [end] = monitor.carry_over([known], monitor.at)
    assert (end.status, end.details) == (Status.RESOLVED, {"reason": "rebuilt", "early": True}), "it fires here"
    none, _ = run(replace(ERROR, warning_budget=None), LOG[:CUT])
    assert [end.id for end in none.carry_over([warning], none.at)] == [warning.id], "warnings are no longer asked for"


def test_the_warnings_of_a_whole_monitor_keep_to_their_budget() -> None:
    """As the same test of alarms: streams of six signals without a change; some 5 false alarms and 50 warnings are allowed."""
    plain = MonitorSettings(detectors=(DetectorSettings("e_detector"), DetectorSettings("adwin")), minimum_effect=1e9)
    allowed = AlertBudget(0.1, HOUR)
    monitor, alerts = run(
        DetectSettings(warmup=200, alert_budget=allowed, warning_budget=replace(allowed, alerts=1.0), default=plain), numbers(24_000, 1)
    )
    assert alerts == []
    statement = monitor.budget()
    received = 10 * statement["received"]
    assert 25 < received < 60
    assert received / 4 <= statement["warnings"] <= received + 3 * received**0.5
