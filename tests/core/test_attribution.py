"""What explains an alert: slices, a shift of the mix, features, or nothing in particular."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

from stream_monitor.core.attribution import discovered, specificity
from stream_monitor.core.events import Alert, Status
from stream_monitor.core.monitor import EXPLAINED, Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DetectorSettings, DetectSettings, MonitorSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream
from tests.core.test_alerting import START as STREAM_START
from tests.core.test_alerting import bits, feed, stream
from tests.support import observations
from tests.support.observations import by_arrival, outcome, predicted, prediction, without_shapes

BY = ("country", "device", "country x device")
ERROR = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",), slices=BY))
INPUTS = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error", "feature:*", "missing:*"), slices=("country",)))
CHANGE = 3_000


def run(settings: DetectSettings, records: Iterable[bytes], monitor: Monitor | None = None) -> tuple[Monitor, list[Alert]]:
    """The monitor after the records, and the alerts, but for what they looked like."""
    monitor, alerts = observations.run(settings, records, monitor)
    return monitor, without_shapes(alerts)


def log(
    error: Callable[[int, dict[str, str]], float],
    count: int = 5_000,
    features: Callable[[int, random.Random], dict[str, Any]] | None = None,
    countries: Callable[[int], str] = lambda i: ("DE", "DE", "FR", "US", "BR")[i % 5],
) -> list[bytes]:
    rng = random.Random(7)
    records = []
    for i in range(count):
        slices = {"country": countries(rng.randrange(10) + (100 if i >= CHANGE else 0)), "device": rng.choice(("phone", "desktop"))}
        event = prediction(i, slices=slices)
        if features is not None:
            event["features"] = features(i, rng)
            records.append(predicted(event))
        records.append(outcome(event, "no" if rng.random() < error(i, slices) else "yes"))
    return records


def last(alerts: list[Alert], metric: str = "error") -> Alert:
    """The last event of the first alert about the whole."""
    first = next(alert for alert in alerts if alert.metric == metric and alert.slice is None)
    return [alert for alert in alerts if alert.id == first.id][-1]


def test_the_slice_that_makes_up_the_change_is_named_with_its_share_and_its_levels() -> None:
    _, alerts = run(ERROR, log(lambda i, s: 0.5 if i >= CHANGE and s["country"] == "DE" else 0.1))
    alert = last(alerts)
    [entry] = alert.details["attribution"]
    assert (entry["slice"], entry["metric"]) == ({"key": "country", "value": "DE"}, "error")
    assert entry["share"] == pytest.approx(1, abs=0.2)
    assert entry["traffic"] == pytest.approx(0.4, abs=0.1)
    assert entry["before"]["value"] == pytest.approx(0.1, abs=0.03)
    assert entry["after"]["value"] == pytest.approx(0.5, abs=0.12)
    assert entry["before"]["count"] == pytest.approx(0.4 * CHANGE, rel=0.1)
    assert "country=DE explains " in alert.summary
    assert " of the change in all traffic" in alert.summary
    assert "inputs" not in alert.summary, "they are not watched"


def test_outcomes_that_waited_for_maturity_are_explained_too() -> None:
    settings = DetectSettings(maturity_sample=200, default=MonitorSettings(metrics=("error",), slices=BY))
    rng = random.Random(5)
    made = []
    for i in range(6_000):
        slices = {"country": rng.choice(("DE", "FR", "US")), "device": rng.choice(("phone", "desktop"))}
        wrong = rng.random() < (0.5 if i >= CHANGE and slices["country"] == "DE" else 0.1)
        made.append((prediction(i, slices=slices), "no" if wrong else "yes", rng.randrange(60_000)))
    _, alerts = run(settings, by_arrival(made))
    assert all("attribution" in alert.details for alert in alerts)
    [entry] = last(alerts).details["attribution"]
    assert entry["slice"] == {"key": "country", "value": "DE"}


def test_what_explains_an_alert_later_stands_at_the_value_after_which_it_was_asked_for() -> None:
    settings = DetectSettings(maturity_ms=60_000, default=MonitorSettings(metrics=("error",), slices=BY))
    monitor, waited = Monitor(settings, "observations", 0), 60_000 // observations.STEP
    told = []
    for i, record in enumerate(log(lambda i, s: 0.5 if i >= CHANGE and s["country"] == "DE" else 0.1, 6_000)):
        told += [(i, alert) for alert in monitor.step(i, record)]
    assert any("attribution" in alert.details for _, alert in told if alert.status is Status.UPDATED)
    waits = {at - alert.position.offset for at, alert in told}
    assert waits == {waited}, "at the record that was read, an event could stand where a later one of the same alert will"


def test_of_slices_that_lie_in_each_other_the_one_that_moved_is_named() -> None:
    _, alerts = run(ERROR, log(lambda i, s: 0.7 if i >= CHANGE and (s["country"], s["device"]) == ("DE", "phone") else 0.1))
    [entry] = last(alerts).details["attribution"]
    assert entry["slice"] == {"key": "country x device", "value": "DE x phone"}


def test_several_slices_that_moved_are_named_together() -> None:
    _, alerts = run(ERROR, log(lambda i, s: 0.5 if i >= CHANGE and s["country"] in ("FR", "US") else 0.1, 7_000))
    entries = last(alerts).details["attribution"]
    assert {entry["slice"]["value"] for entry in entries} == {"FR", "US"}
    assert "country=FR, country=US explain" in last(alerts).summary or "country=US, country=FR explain" in last(alerts).summary


def test_where_all_slices_moved_alike_none_is_named() -> None:
    _, alerts = run(ERROR, log(lambda i, s: 0.3 if i >= CHANGE else 0.1))
    assert [alert.details["attribution"] for alert in alerts if alert.status is not Status.RESOLVED] != []
    assert all(alert.details["attribution"] == [] for alert in alerts if "attribution" in alert.details)
    assert "explain" not in last(alerts).summary


def test_a_shift_of_the_mix_is_said_as_that_and_no_slice_is_called_worse() -> None:
    def countries(i: int) -> str:
        return "BR" if i % 10 < (6 if i >= 100 else 1) else "DE"

    _, alerts = run(ERROR, log(lambda i, s: 0.5 if s["country"] == "BR" else 0.1, countries=countries))
    alert = last(alerts)
    [entry] = alert.details["attribution"]
    assert (entry["mix"], entry["slice"]) == ("country", {"key": "country", "value": "BR"})
    assert entry["share"] == pytest.approx(1, abs=0.4)
    assert entry["traffic"] - entry["traffic_before"] == pytest.approx(0.5, abs=0.12)
    assert "the mix of country changed (" in alert.summary


def test_a_slice_that_is_new_and_bad_is_a_shift_of_the_mix() -> None:
    def countries(i: int) -> str:
        return "NG" if i >= 100 and i % 10 < 4 else "DE"

    _, alerts = run(ERROR, log(lambda i, s: 0.6 if s["country"] == "NG" else 0.1, countries=countries))
    [entry] = last(alerts).details["attribution"]
    assert (entry["mix"], entry["slice"]["value"], entry["traffic_before"]) == ("country", "NG", 0)
    assert entry["share"] == pytest.approx(1, abs=0.3)


def drifting(i: int, rng: random.Random) -> dict[str, Any]:
    return {"income": rng.gauss(1.0 if i >= CHANGE else 0.0, 1), "age": rng.gauss(0, 1), "town": rng.choice("ABC")}


def test_a_feature_that_moved_with_it_is_named_and_the_inputs_are_said_to_have_moved() -> None:
    _, alerts = run(INPUTS, log(lambda i, s: 0.4 if i >= CHANGE else 0.1, features=drifting))
    alert = last(alerts)
    assert alert.details["inputs"] == "moved"
    [entry] = alert.details["attribution"]
    assert (entry["feature"], entry["metric"]) == ("income", "feature:income")
    assert entry["effect"] == pytest.approx(1, abs=0.5)
    assert entry["after"]["value"] > entry["before"]["value"] + 0.5
    assert "; inputs moved too: income" in alert.summary


def test_concept_drift_under_stable_inputs_says_so() -> None:
    _, alerts = run(INPUTS, log(lambda i, s: 0.4 if i >= CHANGE else 0.1, features=lambda i, rng: drifting(0, rng)))
    alert = last(alerts)
    assert (alert.details["inputs"], alert.details["attribution"]) == ("stable", [])
    assert "; inputs are stable" in alert.summary


def test_an_alert_about_a_feature_is_not_explained_by_itself() -> None:
    _, alerts = run(INPUTS, log(lambda i, s: 0.1, features=drifting))
    assert {alert.metric for alert in alerts} == {"feature:income"}
    assert not any("attribution" in alert.details for alert in alerts)


def test_what_is_found_later_is_an_update_of_the_same_alert_and_only_once() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",), slices=("country",), slice_metrics=()))
    updates = 0
    for share in (0.25, 0.3, 0.4):
        _, alerts = run(ERROR, log(lambda i, s, p=share: p if i >= CHANGE and s["country"] == "DE" else 0.1, 7_000))  # type: ignore[misc]
        later = [alert for alert in alerts if alert.status is Status.UPDATED and "shape" not in alert.details]
        for alert in later:
            updates += 1
            fired = next(one for one in alerts if one.id == alert.id and one.status is Status.FIRING)
            assert alert.event_id != fired.event_id
            assert alert.position.offset > fired.position.offset
            assert (alert.first_seen, alert.before, alert.incident) == (fired.first_seen, fired.before, fired.incident)
            assert alert.after.count >= 3 * fired.after.count
        assert len({alert.id for alert in later}) == len(later)
    assert updates > 0
    _, alerts = run(settings, log(lambda i, s: 0.5 if i >= CHANGE else 0.1))
    assert all("shape" in alert.details for alert in alerts if alert.status is not Status.FIRING), "nothing new was found"


def test_only_the_first_alerts_of_an_incident_are_explained() -> None:
    wide = DetectSettings(maturity_ms=0, max_streams=200, default=MonitorSettings(metrics=("error",), slices=("city",)))
    rng = random.Random(3)
    records = []
    for i in range(40_000):
        event = prediction(i, slices={"city": f"c{rng.randrange(15)}"})
        records.append(outcome(event, "no" if rng.random() < (0.6 if i >= 30_000 else 0.1) else "yes"))
    _, alerts = run(wide, records)
    fired = [alert for alert in alerts if alert.status is Status.FIRING]
    assert len(fired) > EXPLAINED
    assert [("attribution" in alert.details) for alert in fired] == [True] * EXPLAINED + [False] * (len(fired) - EXPLAINED)


def test_a_monitor_that_is_restored_between_alarm_and_update_gives_the_same_update() -> None:
    records = log(lambda i, s: 0.3 if i >= CHANGE and s["country"] == "DE" else 0.1, 7_000)
    whole, alerts = observations.run(ERROR, records)
    fired = next(alert for alert in alerts if alert.status is Status.FIRING)
    assert any(alert.status is Status.UPDATED for alert in alerts)
    for cut in (fired.position.offset, fired.position.offset + 1, fired.position.offset + 60):
        one, first = observations.run(ERROR, records[:cut])
        other = Monitor.restore(ERROR, "observations", 0, orjson.loads(orjson.dumps(one.snapshot())))
        assert first + observations.run(ERROR, records[cut:], other)[1] == alerts
        assert other.snapshot() == whole.snapshot()


class Watched:
    """A stream with this much evidence."""

    def __init__(self, evidence: float) -> None:
        self.e = object()
        self._evidence = evidence

    def evidence(self) -> float:
        return self._evidence


@pytest.mark.parametrize(
    ("evidence", "named"),
    [
        ([], 0),
        ([9.9], 0),
        ([10.0], 1),
        ([40.0, 1, 1, 1], 1),
        ([39.0, 1, 1, 1], 0),
        ([20.0, 20, 1, 1], 2),  # each would be too little alone
        ([14.0, 14, 14, 1], 3),
        ([1000.0, 11, 11, 10], 4),
    ],
)
def test_e_bh_names_the_most_streams_whose_least_evidence_stands_for_them_all(evidence: list[float], named: int) -> None:
    streams: list[Any] = [Watched(e) for e in evidence]
    assert discovered(streams) == streams[:named]


@pytest.mark.parametrize("numeric", [False, True])
def test_a_stream_tells_its_levels_around_any_moment_whether_it_fired_or_not(numeric: bool) -> None:
    rng = random.Random(1)
    quiet = _stream(numeric)
    values = [rng.gauss(10, 1) for _ in range(4_000)] + [rng.gauss(12, 1) for _ in range(400)]
    feed(quiet, values if numeric else bits(4_000, 0.1) + bits(400, 0.6, 2))
    around = quiet.around(STREAM_START + 4_000 * 1_000)
    assert around is not None
    assert quiet.episode is not None or around.effect
    levels = (10, 12) if numeric else (0.1, 0.6)
    assert around.before.value == pytest.approx(levels[0], abs=0.1)
    assert around.after.value == pytest.approx(levels[1], abs=0.2)
    assert around.after.count == pytest.approx(400, abs=60)
    assert around.rate == pytest.approx(1 / 1_000, rel=0.05)


def _stream(numeric: bool) -> Stream:
    of = stream(numeric)
    return (NumericStream if numeric else BinaryStream)(of.subject, (DetectorSettings("e_detector"),), DetectSettings(), of.desk)


def test_nothing_is_told_of_a_moment_before_the_first_value_or_after_the_last() -> None:
    of = _stream(False)
    assert of.around(STREAM_START) is None
    feed(of, bits(100, 0.1))
    assert of.around(STREAM_START - 1) is None
    assert of.around(STREAM_START + 10**9) is None
    quarter = of.around(STREAM_START + 40_000)
    assert quarter is not None
    assert (quarter.before.count, quarter.after.count) == (40, 60)


@pytest.mark.parametrize("numeric", [False, True])
def test_a_level_that_comes_back_is_said_to_be_a_known_one_once_it_is_known_well(numeric: bool) -> None:
    metric = "error" if not numeric else "latency"
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=(metric,), slices=()))
    rng = random.Random(11)
    records = []
    for i in range(24_000):
        level = (0.1, 0.4, 0.1, 0.9, 0.1, 0.4, 0.1, 0.4)[i // 3_000]
        if numeric:
            records.append(predicted(prediction(i, latency_ms=rng.gauss(10 * level, 1))))
        else:
            records.append(outcome(prediction(i), "no" if rng.random() < level else "yes"))
    alerts = run(settings, records)[1]
    fired = [alert for alert in alerts if alert.status is Status.FIRING]
    first, other, second, third = ([one for one in alerts if one.id == alert.id and one.status is not Status.RESOLVED] for alert in fired)
    assert not any("recurring" in one.details for one in (*first, *other)), "neither was seen before"
    since = fired[0].first_seen
    assert [second[i].details.get("recurring") for i in (0, -1)] == [None, {"since": since, "times": 2}]
    assert [third[i].details.get("recurring") for i in (0, -1)] == [None, {"since": since, "times": 3}]
    assert "; a level it had before, 3 times since 2024-03-05" in third[-1].summary


@pytest.mark.parametrize("error", [1e300, 1e-300, 5.0])
@pytest.mark.parametrize("everywhere", [True, False])
def test_errors_of_numbers_are_explained_whatever_their_size(error: float, everywhere: bool) -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",), slices=("country",)))
    rng = random.Random(9)
    records = []
    for i in range(5_000):
        country = rng.choice(("DE", "FR", "US"))
        moved = i >= CHANGE and (everywhere or country == "DE")
        noise = 0.0 if error != 5.0 else rng.gauss(0, 1)
        records.append(outcome(prediction(i, prediction=0.0, slices={"country": country}), noise + (error if moved else 0.0)))
    _, alerts = run(settings, records)
    assert alerts
    for alert in alerts:
        body = orjson.loads(publish(alert)[1])
        for entry in body["details"].get("attribution", []):
            assert isinstance(entry["share"], float | int)
    of_means = [alert for alert in alerts if "of" not in alert.details]
    named = {entry["slice"]["value"] for alert in of_means for entry in alert.details.get("attribution", [])}
    if error == 5.0:
        assert of_means
        assert named == (set() if everywhere else {"DE"})


def slices(key: str, *shares: float) -> list[dict[str, Any]]:
    return [{"slice": {"key": key, "value": str(i)}, "share": share} for i, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (slices("country x device", 0.85), slices("country", 1.0)),
        (slices("country", 0.9), slices("country x device", 0.6)),  # a part of the truth is no cause, however narrow
        (slices("country", 0.3, 0.5), slices("country", 0.7)),
        (slices("country", 0.85), slices("country", 0.5, 0.5)),
        (slices("country", 0.9), slices("device", 0.85)),
        (slices("country", 0.81), [{**slices("country", 0.99)[0], "mix": "country"}]),
        ([{**slices("country", 0.9)[0], "mix": "country"}], slices("country", 0.5)),
        (slices("country", 0.3), [{"feature": "income"}]),
        ([{"feature": "income"}], [{"feature": "income"}, {"feature": "age"}]),
        ([*slices("country", 0.9), {"feature": "income"}], slices("country", 0.85)),
    ],
)
def test_of_two_explanations_the_one_that_makes_up_most_and_then_the_narrower_is_more_specific(
    better: list[dict[str, Any]], worse: list[dict[str, Any]]
) -> None:
    one, other = specificity(better), specificity(worse)
    assert one is not None
    assert other is not None
    assert one < other


def test_more_than_the_whole_change_is_no_better_than_the_whole() -> None:
    assert specificity(slices("country", 1.3)) == specificity(slices("country", 1.0))


def test_what_nothing_in_particular_explains_has_no_specificity() -> None:
    assert specificity([]) is None
