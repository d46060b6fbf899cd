"""The life cycle of one stream's alert, and what it says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import orjson
import pytest

from stream_monitor.core.alerting import TRANSITIONS, Event, State, Subject, about, safe
from stream_monitor.core.events import Alert, Kind, Severity, Slice, Status
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream
from tests.support.observations import begun_and_ended, desk

ALL = DetectSettings().default.detectors
START = 1_709_640_000_000


def stream(numeric: bool = False, minimum: float = 0.1, critical: float = 0.5, warmup: int = 1_000) -> Stream:
    subject = Subject.of("credit", "v3", Slice("country", "DE"), "error", Kind.CONCEPT_DRIFT, minimum, critical)
    build = NumericStream if numeric else BinaryStream
    return build(subject, ALL, DetectSettings(warmup=warmup), desk())


def feed(to: Stream, values: Iterable[float], start: int = 0) -> list[Alert]:
    for offset, x in enumerate(values, start):
        to.desk.move(START + offset * 1_000)
        to.push(x, random.Random(offset).getrandbits(64), START + offset * 1_000, offset)
    return begun_and_ended(to.desk.out)


def bits(count: int, p: float, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [int(rng.random() < p) for _ in range(count)]


def test_a_lasting_change_is_one_alert_with_levels_place_and_time() -> None:
    [alert] = feed(stream(), bits(5_000, 0.1) + bits(20_000, 0.3, seed=2))
    assert alert.status is Status.FIRING
    assert alert.direction == "up"
    assert abs(alert.before.value - 0.1) < 0.02
    assert abs(alert.after.value - 0.3) < 3 * (0.3 * 0.7 / alert.after.count) ** 0.5, "as near as so few values can tell"
    assert 5_000 < alert.position.offset < 5_300
    assert abs(alert.first_position.offset - 5_000) <= 100, "four marks"
    assert alert.first_seen == START + alert.first_position.offset * 1_000
    assert alert.detected_at == START + alert.position.offset * 1_000
    assert alert.statistic > 0 < alert.threshold
    assert alert.severity is Severity.CRITICAL
    assert alert.summary.startswith("credit v3: error for country=DE rose from 0.")
    assert alert.summary.endswith("(since 2024-03-05 13:23 UTC)") or "(since 2024-03-05 13:2" in alert.summary


def test_it_resolves_when_the_level_is_back_and_can_fire_again() -> None:
    out = feed(stream(), bits(5_000, 0.1) + bits(3_000, 0.3, 2) + bits(10_000, 0.1, 3) + bits(3_000, 0.3, 4))
    assert [a.status for a in out] == [Status.FIRING, Status.RESOLVED, Status.FIRING]
    first, resolved, again = out
    assert resolved.id == first.id != again.id
    assert first.fingerprint == resolved.fingerprint == again.fingerprint
    assert len({a.event_id for a in out}) == 3
    assert 8_000 < resolved.position.offset < 9_000
    assert resolved.details == {"reason": "recovered"}
    assert abs(resolved.after.value - 0.1) < 0.05
    assert "is back at" in resolved.summary


@pytest.mark.parametrize("numeric", [False, True])
def test_while_it_fires_it_is_known_at_any_time_how_far_the_level_is_by_now(numeric: bool) -> None:
    """Also right after a mean is complete, when the next one has no value yet."""
    of = stream(numeric)
    feed(of, [random.Random(i).gauss(0, 1) for i in range(3_000)] if numeric else bits(3_000, 0.1))
    later = [random.Random(i).gauss(3, 1) for i in range(900)] if numeric else bits(900, 0.9)
    away, complete = [], 0
    for i, x in enumerate(later, 3_000):
        feed(of, [x], i)
        if (episode := of.episode) is not None:
            complete += episode.count == 0 and episode.last[0] > 0
            away.append(episode.away(episode.center if numeric else episode.alert.before.value, raw=not numeric))
    assert complete >= 2
    assert min(away[50:]) > 0.5


def test_a_further_change_while_it_fires_is_no_second_alert() -> None:
    out = feed(stream(), bits(5_000, 0.1) + bits(3_000, 0.3, 2) + bits(5_000, 0.6, 3))
    assert [a.status for a in out] == [Status.FIRING]


def test_nothing_fires_before_the_warm_up_is_over() -> None:
    assert feed(stream(warmup=2_000), bits(500, 0.1) + bits(500, 0.9, 2) + bits(900, 0.1, 3)) == []


def test_a_change_below_the_minimum_effect_is_no_alert() -> None:
    values = bits(5_000, 0.1) + bits(10_000, 0.2, 5)  # a third of a standard deviation
    assert feed(stream(minimum=0.5), values) == []
    assert feed(stream(minimum=0.2), values)[0].status is Status.FIRING


def test_severity_goes_by_the_size_of_the_effect() -> None:
    values = bits(5_000, 0.1) + bits(5_000, 0.2, 5)
    assert feed(stream(critical=0.6), values)[0].severity is Severity.WARNING
    assert feed(stream(critical=0.2), values)[0].severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("metric", "said", "before", "after"),
    [("label_delay", "label delay", "2 h", "3 h"), ("latency", "latency", "2 h", "3 h"), ("brier", "Brier score", "7,", "10,")],
)
def test_times_are_told_in_units_that_people_read(metric: str, said: str, before: str, after: str) -> None:
    rng = random.Random(5)
    values = [rng.gauss(10_800_000 if 3_000 <= i < 6_000 else 7_200_000, 1_000) for i in range(9_000)]
    subject = Subject.of("credit", "v3", None, metric, Kind.DATA_QUALITY, 0.1, 0.5)
    fired, resolved = feed(NumericStream(subject, ALL, DetectSettings(), desk()), values)
    assert re.match(f"credit v3: {said} rose from {before}.* to {after}", fired.summary)
    assert re.match(f"credit v3: {said} is back at {before}.* \\(was {after}.*, before {before}", resolved.summary)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_a_numeric_change_is_found_at_any_scale_and_resolves(scale: float) -> None:
    rng = random.Random(5)
    values = [scale * rng.lognormvariate(1.0 if 5_000 <= i < 9_000 else 0.0, 1.0) for i in range(15_000)]
    fired, resolved = feed(stream(numeric=True), values)
    assert fired.direction == "up"
    assert abs(fired.details["effect"] - 0.9) < 0.4
    assert 5_000 < fired.position.offset < 5_200
    assert resolved.status is Status.RESOLVED
    assert 9_000 < resolved.position.offset < 10_000


def test_a_constant_that_changes_is_found() -> None:
    [alert] = feed(stream(numeric=True), [1.0] * 3_000 + [2.0] * 1_000)
    assert (alert.before.value, alert.direction) == (1.0, "up")


def test_a_share_that_was_never_seen_before_is_found() -> None:
    [alert] = feed(stream(), [0] * 5_000 + [1] * 500)
    assert alert.position.offset < 5_100


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("cut", [0, 10, 999, 1_000, 4_999, 5_100, 7_000, 8_500, 12_000])
def test_a_restored_stream_goes_on_as_the_saved_one(numeric: bool, cut: int) -> None:
    values = bits(5_000, 0.1) + bits(3_000, 0.4, 2) + bits(5_000, 0.1, 3) + bits(3_000, 0.4, 4)
    one, other = stream(numeric), stream(numeric)
    feed(one, values[:cut])
    other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
    other.restore(orjson.loads(orjson.dumps(one.state())))
    one.desk.out.clear()
    assert feed(other, values[cut:], cut) == feed(one, values[cut:], cut) != []
    assert other.desk.out == one.desk.out
    assert other.state() == one.state()


@pytest.mark.parametrize("event", [Event.SILENT, Event.EVICTED, Event.OPERATOR])
def test_an_alert_ends_for_reasons_outside_its_values_and_the_new_level_stays_the_reference(event: Event) -> None:
    of = stream()
    feed(of, bits(5_000, 0.1) + bits(3_000, 0.3, 2))
    of.end(event, 8_000)
    of.end(event, 8_001)
    fired, resolved = begun_and_ended(of.desk.out)
    assert (resolved.status, resolved.id, resolved.details) == (Status.RESOLVED, fired.id, {"reason": event.value})
    assert len(feed(of, bits(10_000, 0.3, 3), 9_000)) == 2


def test_an_alert_that_fires_goes_on_by_more_drift_what_is_learned_and_operators_and_every_other_event_resolves_it() -> None:
    stays = {
        Event.DRIFT: (State.FIRING, None),
        Event.LEARNED: (State.FIRING, Status.UPDATED),
        Event.ACKNOWLEDGED: (State.FIRING, Status.ACKNOWLEDGED),
        Event.SILENCED: (State.FIRING, Status.SILENCED),
        Event.HEARD: (State.FIRING, Status.UPDATED),
    }
    for event in set(Event) - {Event.SUSPECTED, Event.FADED}:
        assert TRANSITIONS[State.FIRING, event] == stays.get(event, (State.RESOLVED, Status.RESOLVED))


def test_a_warning_comes_to_fire_by_drift_stays_one_by_operators_and_every_other_event_resolves_it() -> None:
    known = {
        Event.DRIFT: (State.FIRING, Status.FIRING),
        Event.ACKNOWLEDGED: (State.WARNING, Status.ACKNOWLEDGED),
        Event.SILENCED: (State.WARNING, Status.SILENCED),
        Event.HEARD: (State.WARNING, Status.WARNING),
    }
    for event in set(Event) - {Event.SUSPECTED, Event.LEARNED, Event.RECOVERED}:
        assert TRANSITIONS[State.WARNING, event] == known.get(event, (State.RESOLVED, Status.RESOLVED))


def test_nothing_else_can_happen_to_an_alert() -> None:
    begins = {(State.NONE, Event.SUSPECTED), (State.NONE, Event.DRIFT)}
    never = {(State.FIRING, Event.SUSPECTED), (State.FIRING, Event.FADED)}
    never |= {(State.WARNING, event) for event in (Event.SUSPECTED, Event.LEARNED, Event.RECOVERED)}
    assert set(TRANSITIONS) == begins | {(state, event) for state in (State.WARNING, State.FIRING) for event in Event} - never


def test_fingerprints_tell_model_version_slice_and_metric_apart() -> None:
    def of(model: str, version: str, metric: str, part: Slice | None = None) -> str:
        return Subject.of(model, version, part, metric, Kind.CONCEPT_DRIFT, 0, 0).fingerprint

    different = [
        of("a", "b", "c"),
        of("ab", "", "c"),
        of("a", "b", "d"),
        of("a", "b", "c", part=Slice("k", "v")),
        of("a", "b", "c", part=Slice("kv", "")),
    ]
    assert len(set(different)) == len(different)


def test_hostile_names_are_made_safe_for_a_line() -> None:
    hostile = "x\n\x1b[31m\u202e\ud800" + "y" * 10_000
    line = safe(hostile)
    assert line.isprintable()
    assert len(line) < 200
    assert safe("plain ünïcode=1") == "plain ünïcode=1"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("feature:debt_ratio", "feature debt_ratio"),
        ("missing:price_gap", "missing share of price_gap"),
        ("missing:country=DE", "missing share of country=DE"),
        ("out_of_range:country=DE", "share of country=DE out of range"),
        ("feature:country=DE", "share of country=DE"),
        ("selection_rate_gap", "selection rate gap"),
        ("recall=loan_gap", "recall of loan_gap"),
        ("error", "error"),
        ("weighted_error", "error weighted by importance"),
        ("bias", "bias (prediction minus label)"),
        ("log_loss", "log loss"),
        ("brier", "Brier score"),
        ("label_delay", "label delay"),
        ("feature:bias", "feature bias"),
        ("missing:brier", "missing share of brier"),
        ("prediction=bias", "share of prediction=bias"),
    ],
)
def test_a_metric_is_called_as_people_call_it_and_a_feature_by_its_own_name(metric: str, said: str) -> None:
    assert about(Subject.of("credit", "v3", None, metric, Kind.DATA_DRIFT, 0.1, 0.5)) == f"credit v3: {said}"


def regressive(count: int, mean: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    z, values = rng.gauss(0, 1), []
    for _ in range(count):
        z = 0.5 * z + 0.75**0.5 * rng.gauss(0, 1)
        values.append(z + mean)
    return values


def assurances(of: Stream) -> dict[str, str]:
    return {detector.name: of._assurance(detector) for detector in of.detectors}


def test_only_the_e_detector_on_numbers_that_do_not_depend_on_each_other_is_called_guaranteed() -> None:
    rng = random.Random(1)
    independent, share, dependent = stream(numeric=True), stream(), stream(numeric=True)
    feed(independent, [rng.gauss(0, 1) for _ in range(1_100)])
    feed(share, bits(1_100, 0.1))
    feed(dependent, regressive(1_100, 0, 1))
    both = {"adwin": "calibrated", "page_hinkley": "calibrated"}
    assert assurances(independent) == {"e_detector": "guaranteed", **both}
    assert assurances(share) == assurances(dependent) == {"e_detector": "calibrated", **both}


def test_an_alert_about_values_that_depend_on_each_other_says_so() -> None:
    [alert] = feed(stream(numeric=True), regressive(4_000, 0, 1) + regressive(1_000, 1.0, 2))
    assert 4_000 < alert.position.offset < 4_300
    assert alert.assurance == "calibrated"
    assert alert.details["autocorrelation"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("numeric", [False, True])
def test_values_that_depend_on_each_other_do_not_flood(numeric: bool) -> None:
    """At a budget of one in a week, of which this is a third: a detector that took them for independent would cry wolf at once."""
    of = stream(numeric=numeric)
    values = regressive(20_000, 0, 3)
    assert feed(of, values if numeric else [int(z > 1) for z in values]) == []
    assert of.past is not None
    assert of.past.rho == pytest.approx(0.5 if numeric else 0.3, abs=0.12)
    assert of.account.alarms == 0


def test_a_dependent_stream_that_is_restored_goes_on_as_the_saved_one() -> None:
    for numeric in (False, True):
        values = regressive(3_000, 0, 1) + regressive(3_000, 1, 2)
        values = values if numeric else [int(z > 1) for z in values]
        one, other = stream(numeric), stream(numeric)
        feed(one, values[:2_500])
        other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
        other.restore(orjson.loads(orjson.dumps(one.state())))
        assert feed(other, values[2_500:], 2_500) == feed(one, values[2_500:], 2_500) != []
        assert other.state() == one.state()


def test_a_spread_that_changes_while_the_mean_stays_is_an_alert_about_the_spread_and_resolves() -> None:
    rng = random.Random(4)
    values = [rng.gauss(10, 2.0 if 4_000 <= i < 7_000 else 1.0) for i in range(12_000)]
    fired, resolved = feed(stream(numeric=True), values)
    assert (fired.detector, fired.direction, fired.details["of"]) == ("e_detector", "up", "spread")
    assert 4_000 < fired.position.offset < 4_100
    assert abs(fired.first_position.offset - 4_000) <= 50
    assert fired.before.value == pytest.approx(1, abs=0.1)
    assert fired.after.value == pytest.approx(2, abs=0.7)
    assert fired.details["effect"] == pytest.approx(1, abs=0.7)
    assert fired.summary.startswith("credit v3: spread of error for country=DE rose from ")
    assert (resolved.status, resolved.details) == (Status.RESOLVED, {"reason": "recovered"})
    assert 7_000 < resolved.position.offset < 8_000
    assert resolved.after.value == pytest.approx(1, abs=0.2)
    assert resolved.summary.startswith("credit v3: spread of error for country=DE is back at ")


def test_an_alert_below_the_limit_of_a_warning_is_for_information() -> None:
    def severity(effect: float) -> Severity:
        return Subject.of("m", "v", None, "error", Kind.CONCEPT_DRIFT, 0.1, 0.8, warning_effect=0.4).severity(effect)

    assert [severity(effect) for effect in (0.39, 0.4, -0.5, 0.8, -2.0)] == ["info", "warning", "warning", "critical", "critical"]
    assert stream().subject.severity(0.0) is Severity.WARNING, "by default there is none"
