"""The monitor as a specification: which alerts a log gives, and that it is the log alone that decides."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Alert, Kind, Position, Severity, Slice, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DAY, DetectorSettings, DetectSettings, MonitorSettings
from tests.support.observations import START, STEP, by_arrival, cohort, control, judged, outcome, predicted, prediction, run, story

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = DetectSettings(maturity_ms=0)
BY_COUNTRY = DetectSettings(maturity_ms=0, monitors=(MonitorSettings(slices=("country",)),))
QUICK = DetectSettings(maturity_ms=0, warmup=200)
ERROR = MonitorSettings(metrics=("error",))
ERROR_AS_A_WHOLE = MonitorSettings(metrics=("error",), slices=())
COUNTRIES = "DE", "FR", "US", "BR"


def slices_of(alerts: list[Alert]) -> set[str | None]:
    return {alert.slice and f"{alert.slice.key}={alert.slice.value}" for alert in alerts}


def predictions(count: int, fields: Callable[[int, random.Random], dict[str, Any]], seed: int = 1) -> Iterator[bytes]:
    rng = random.Random(seed)
    for i in range(count):
        yield predicted(prediction(i, **fields(i, rng)))


def sudden(i: int, country: str) -> float:
    """A tenth of all answers is wrong, in Germany from the 6,000th prediction on half of them."""
    return 0.5 if i >= 6_000 and country == "DE" else 0.1


def test_concept_drift_in_one_slice_is_an_alert_for_that_slice() -> None:
    _, alerts = story(BY_COUNTRY, judged(9_000, sudden))
    fired = [alert for alert in alerts if alert.status is Status.FIRING and alert.slice]
    assert [alert.slice for alert in fired] == [Slice("country", "DE")]
    (alert,) = fired
    assert (alert.model, alert.model_version, alert.metric) == ("credit", "v3", "error")
    assert (alert.kind, alert.direction) == (Kind.CONCEPT_DRIFT, "up")
    assert alert.before.value == pytest.approx(0.1, abs=0.03)
    assert alert.after.value == pytest.approx(0.5, abs=0.15)
    assert (alert.position.topic, alert.position.partition) == ("observations", 0)
    assert 6_000 < alert.position.offset < 6_800
    assert alert.first_position.offset == pytest.approx(6_000, abs=300)
    assert alert.first_seen == START + alert.first_position.offset * STEP
    assert alert.detected_at == START + alert.position.offset * STEP
    assert alert.summary.startswith("credit v3: error for country=DE rose from ")
    assert alert.first_position <= alert.position


def test_concept_drift_in_one_slice_is_none_of_the_other_slices() -> None:
    _, alerts = story(BY_COUNTRY, judged(9_000, sudden))
    assert slices_of(alerts) - {None} == {"country=DE"}


def test_a_change_that_lasts_is_one_alert_and_one_that_ends_is_resolved() -> None:
    def error(i: int, country: str) -> float:
        return 0.5 if 4_000 <= i < 12_000 else 0.1

    _, alerts = story(DetectSettings(maturity_ms=0, default=ERROR_AS_A_WHOLE), judged(20_000, error))
    assert [alert.status for alert in alerts] == [Status.FIRING, Status.RESOLVED]
    fired, resolved = alerts
    assert fired.id == resolved.id
    assert fired.event_id != resolved.event_id
    assert resolved.details == {"reason": "recovered"}
    assert resolved.position.offset > 12_000


def test_data_drift_in_a_number_is_an_alert_about_that_feature() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        return {"features": {"income": rng.lognormvariate(0.8 if i >= 3_000 else 0, 1), "age": rng.gauss(40, 10)}}

    _, alerts = story(AT_ONCE, predictions(5_000, fields))
    assert [(a.metric, a.kind, a.direction, a.slice) for a in alerts] == [("feature:income", Kind.DATA_DRIFT, "up", None)]
    assert 3_000 < alerts[0].position.offset < 3_300
    assert alerts[0].summary.startswith("credit v3: feature income rose from ")


def test_data_drift_in_a_category_is_an_alert_about_its_share() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        weights = (1, 1, 6) if i >= 3_000 else (4, 3, 1)
        return {"features": {"town": rng.choices("ABC", weights)[0], "device": rng.choice(("phone", "desktop"))}}

    _, alerts = story(AT_ONCE, predictions(5_000, fields))
    assert {alert.metric for alert in alerts} <= {"feature:town=A", "feature:town=B", "feature:town=C"}
    assert {alert.kind for alert in alerts} == {Kind.DATA_DRIFT}
    (alert,) = (a for a in alerts if a.metric == "feature:town=C")
    assert alert.direction == "up"
    assert alert.summary.startswith("credit v3: share of town=C rose from ")


def test_drift_of_the_answers_and_missing_features_have_kinds_of_their_own() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        late = i >= 3_000
        age = None if rng.random() < (0.4 if late else 0.02) else rng.gauss(40, 10)
        return {"prediction": "yes" if rng.random() < (0.6 if late else 0.2) else "no", "features": {"age": age}}

    _, alerts = story(AT_ONCE, predictions(5_000, fields))
    assert {(a.metric, a.kind) for a in alerts} == {
        ("prediction=yes", Kind.PREDICTION_DRIFT),
        ("missing:age", Kind.DATA_QUALITY),
    }


SCALES: dict[str, Callable[[random.Random], float]] = {
    "tiny": lambda rng: rng.gauss(1, 1) * 1e-9,
    "lognormal": lambda rng: rng.lognormvariate(0, 2),
    "huge": lambda rng: rng.gauss(1, 0.1) * 1e9,
}


@pytest.mark.parametrize("scale", SCALES)
def test_what_does_not_change_raises_no_alert_at_any_scale(scale: str) -> None:
    """One false alarm in about a million values is the design: over these three logs one may be expected in about 17 seeds."""

    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        return {"features": {"x": SCALES[scale](rng)}}

    assert run(DetectSettings(), predictions(20_000, fields))[1] == []


def test_stationary_errors_raise_no_alert() -> None:
    assert run(DetectSettings(), judged(20_000, lambda i, country: 0.1))[1] == []


def test_wrong_answers_that_are_labelled_sooner_are_not_drift() -> None:
    """Labels of wrong answers come after a minute, of right ones after five, and the traffic stops for a while now and then."""
    rng = random.Random(1)
    log = []
    for i in range(12_000):
        wrong = rng.random() < 0.1
        event = prediction(i, timestamp=START + i * STEP + (i // 3_000) * 600_000)
        log.append((event, "no" if wrong else "yes", 60_000 if wrong else 300_000))
    records = by_arrival(log)
    plain = MonitorSettings(slices=())
    monitor, alerts = run(DetectSettings(monitors=(plain,)), records)
    assert alerts == []
    assert monitor.counters["matured"] > 8_000
    _, by_label = run(DetectSettings(maturity_ms=0, monitors=(plain,)), records)
    assert by_label, "in the order of arrival the same log looks like drift"


def mixed(count: int = 3_000) -> list[bytes]:
    """Labels after up to 20 s, errors that rise and fall again, features of both types, decisions and nonsense."""
    rng = random.Random(5)
    log: list[tuple[int, bytes]] = []
    for i in range(count):
        bad = count // 3 <= i < 2 * count // 3
        features = {"x": rng.gauss(2 if bad else 0, 1), "town": rng.choice("AAB" if bad else "ABC"), "y": rng.choice((None, 1.0))}
        event = prediction(
            i, slices={"country": rng.choice(COUNTRIES), "user": f"u{rng.randrange(40)}"}, features=features, score=rng.random()
        )
        time, delay = event["timestamp"], rng.randrange(20_000)
        log.append((time, predicted(event)))
        log.append((time + delay, outcome(event, "no" if rng.random() < (0.6 if bad else 0.1) else "yes", delay)))
        if i % 500 == 0:
            log.append((time, b"?"))
            log.append((time, control("nothing")))
    return [value for _, value in sorted(log, key=lambda entry: entry[0])]


CUT = DetectSettings(warmup=100, maturity_sample=50, max_slices=20, max_waiting=150)


def published(alerts: list[Alert]) -> list[Any]:
    return [publish(alert) for alert in alerts]


@pytest.mark.parametrize("waiting", [True, False])
def test_cut_anywhere_and_restored_the_alerts_are_the_same_bytes(waiting: bool) -> None:
    records = mixed()
    whole, alerts = run(CUT, records)
    assert {alert.status for alert in alerts} >= {Status.FIRING, Status.RESOLVED}
    cuts = {0, 1, 50, 130, 400, *random.Random(2).sample(range(len(records)), 30)}
    monitor, again = Monitor(CUT, "observations", 0), list[Alert]()
    for offset, value in enumerate(records):
        if offset in cuts:
            monitor = stopped_and_restored(monitor, records, waiting)
        again += monitor.step(offset, value)
    monitor = stopped_and_restored(monitor, records, waiting)
    assert published(again) == published(alerts)
    assert monitor.snapshot() == whole.snapshot()
    assert monitor.counters == whole.counters


def stopped_and_restored(monitor: Monitor, records: list[bytes], waiting: bool) -> Monitor:
    """The monitor from its own snapshot, as a process that starts would have it."""
    data = orjson.loads(orjson.dumps(monitor.snapshot(waiting)))
    restored = Monitor.restore(CUT, "observations", 0, data)
    assert restored.at == monitor.at
    if data["refill_from"] is not None:
        for offset in range(data["refill_from"], restored.at):
            restored.refill(offset, records[offset])
    assert restored.snapshot() == monitor.snapshot()
    return restored


def test_a_snapshot_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="snapshot of format 0; this program reads format"):
        Monitor.restore(CUT, "observations", 0, {"format": 0})


PROGRAM = """
from stream_monitor.core.publishing import publish
from tests.core.test_monitor import CUT, mixed
from tests.support.observations import run
for alert in run(CUT, mixed(1_500))[1]:
    print(publish(alert))
"""


def test_the_seed_of_pythons_hashes_does_not_matter() -> None:
    def start(seed: str) -> subprocess.Popen[bytes]:
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=subprocess.PIPE)

    with start("1") as one, start("2") as other:
        outputs = [process.communicate()[0] for process in (one, other)]
    assert one.returncode == other.returncode == 0
    assert outputs[0].count(b"\n") > 2
    assert outputs[0] == outputs[1]


def test_the_number_of_slices_is_bounded_whatever_comes() -> None:
    settings = DetectSettings(maturity_ms=0, max_slices=100, default=ERROR)
    records = (outcome(prediction(i, slices={"user": f"u{i}"}), "yes") for i in range(20_000))
    monitor, alerts = run(settings, records)
    assert alerts == []
    assert monitor.counters["slices"] == 100
    assert monitor.counters["slices_evicted"] == 19_900
    assert monitor.counters["streams"] == 101


def test_the_number_of_streams_is_bounded_whatever_comes() -> None:
    settings = DetectSettings(maturity_ms=0, max_streams=50, max_features=30)
    records = (predicted(prediction(i, model=f"m{i % 9}", features={f"f{i}": 1.0, f"g{i}": "a"})) for i in range(2_000))
    monitor, _ = run(settings, records)
    assert monitor.counters["streams"] <= 50
    assert monitor.counters["streams_refused"] > 0


def test_the_number_of_versions_is_bounded_whatever_comes() -> None:
    settings = DetectSettings(maturity_ms=0, max_versions=10, default=ERROR)
    monitor, _ = run(settings, (outcome(prediction(i, model_version=f"v{i}"), "yes") for i in range(500)))
    assert monitor.counters["versions"] == monitor.counters["streams"] == 10
    assert monitor.counters["versions_evicted"] == 490


def test_the_number_of_outcomes_that_wait_is_bounded() -> None:
    monitor, _ = run(DetectSettings(maturity_ms=DAY, max_waiting=100), judged(1_000, lambda i, country: 0.1))
    assert monitor.counters["waiting"] == 100
    assert monitor.counters["before_maturity"] == 900


def test_a_slice_that_makes_room_has_its_alert_resolved() -> None:
    settings = DetectSettings(maturity_ms=0, max_slices=1, monitors=(MonitorSettings(slices=("country",)),))

    def rising(count: int) -> Iterator[bytes]:
        rng = random.Random(1)
        for i in range(count):
            yield outcome(prediction(i, slices={"country": "DE"}), "no" if rng.random() < (0.6 if i > 2_000 else 0.1) else "yes")

    monitor, alerts = run(settings, rising(3_000))
    assert Slice("country", "DE") in [alert.slice for alert in alerts]
    _, more = run(settings, [outcome(prediction(3_000, slices={"country": "FR"}), "yes")], monitor)
    assert [(alert.slice, alert.status, alert.details) for alert in more] == [
        (Slice("country", "DE"), Status.RESOLVED, {"reason": "evicted"}),
    ]


def test_what_ends_with_a_slice_that_makes_room_ends_at_the_record_that_was_read_then() -> None:
    settings = DetectSettings(maturity_ms=60_000, max_slices=1, monitors=(MonitorSettings(slices=("country",)),))
    rng, monitor = random.Random(1), Monitor(settings, "observations", 0)
    told: list[tuple[int, Alert]] = []
    for i in range(4_000):
        slices = {"country": "DE" if i < 3_000 else "FR"}
        label = "no" if rng.random() < (0.6 if i > 2_000 else 0.1) else "yes"
        told += [(monitor.at, alert) for alert in monitor.step(i, outcome(prediction(i, slices=slices), label))]
    [(at, ended)] = [one for one in told if one[1].slice == Slice("country", "DE") and one[1].status is Status.RESOLVED]
    assert ended.details == {"reason": "evicted"}
    assert ended.position.offset == at - 1 >= 3_000 + 600, "the outcome that made it go had waited for 600 others"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00\xff",
        b"not JSON",
        b"null",
        b"[]",
        b'"record"',
        b"{}",
        b'{"record":null}',
        b'{"record":"news"}',
        b'{"record":[]}',
        b'{"record":"prediction"}',
        b'{"record":"prediction","prediction":[]}',
        b'{"record":"prediction","prediction":{"model":1}}',
        predicted(prediction(0, timestamp="now")),
        predicted(prediction(0, timestamp=True)),
        predicted(prediction(0, model=None)),
        predicted(prediction(0, prediction=[])),
        b'{"record":"outcome"}',
        b'{"record":"outcome","prediction":1,"feedback":2}',
        outcome(prediction(0), None),
        outcome(prediction(0), {"a": 1}),
        outcome(prediction(0, request_id=5), "yes"),
        b'{"record":"feedback_issue","issue":"lost"}',
        predicted(prediction(0, timestamp=2**53)),
        predicted(prediction(0, timestamp=-1)),
        outcome(prediction(0, timestamp=2**63), "yes"),
        outcome(prediction(0, timestamp=2**64 - 2), "yes", 1),
        cohort(START, 0, 0, prediction(0)),
        cohort(START, -1, -1, prediction(0)),
        cohort(START, 2, 3, prediction(0)),
        cohort(START, 2, -1, prediction(0)),
        cohort(START, 2**53, 1, prediction(0)),
        cohort(-1, 2, 1, prediction(0)),
        cohort(2**53, 2, 1, prediction(0)),
        cohort(START, 2, 1, prediction(0), since=None),
        cohort(START, 2, 1, prediction(0), labels=2.0),
        cohort(START, 2, 1, prediction(0), orphans=True),
        cohort(START, 2, 1, prediction(0), model=7),
        cohort(START, 2, 1, {"model": "credit"}),
        b'{"record":"feedback_cohort"}',
        b'{"record":"control","action":"shout"}',
        b'{"record":"control","action":[]}',
        b"[" * 5_000,
    ],
)
def test_what_makes_no_sense_is_counted_and_changes_nothing_else(value: bytes) -> None:
    monitor, alerts = run(QUICK, [value])
    assert alerts == []
    assert monitor.at == 1
    assert {name: n for name, n in monitor.counters.items() if n} == {"not_understood": 1}


def test_a_number_too_large_for_a_double_in_a_field_that_nobody_reads_does_no_harm() -> None:
    monitor = Monitor(AT_ONCE, "observations", 0)
    value = predicted(prediction(1)).replace(b'"request_id"', b'"trace":1e999,"request_id"')
    assert b"1e999" in value
    monitor.step(0, value)
    assert monitor.counters["predictions"] == 1
    assert "not_understood" not in monitor.counters


def test_what_came_is_counted() -> None:
    event = prediction(0)
    issues = [b'{"record":"feedback_issue","issue":"%b","model":"credit","feedback":null}' % one for one in (b"late", b"conflicting")]
    monitor, _ = run(QUICK, [predicted(event), outcome(event, "yes"), *issues, control("a", "acknowledge"), control("a", "silence"), b"?"])
    expected = {"predictions": 1, "outcomes": 1, "matured": 1, "feedback_late": 1, "feedback_conflicting": 1, "not_understood": 1}
    assert monitor.counters.items() >= (expected | {"control_acknowledge": 1, "control_silence": 1}).items()


def test_control_characters_and_long_names_come_through() -> None:
    nasty = "a\x00\n\x1b[31m\u202e" + "x" * 5_000
    rng = random.Random(1)
    records = []
    for i in range(1_500):
        wrong = rng.random() < (0.8 if i > 800 else 0.1)
        event = prediction(i, model=nasty, model_version=nasty, slices={nasty: nasty}, features={nasty: nasty, "": "", "=": ":"})
        records += [predicted(event), outcome(event, "no" if wrong else "yes")]
    monitor, alerts = run(QUICK, records)
    assert {alert.slice is None for alert in alerts} == {True, False}
    for alert in alerts:
        assert alert.model == nasty
        assert alert.summary.isprintable()
        assert orjson.loads(publish(alert)[1])["id"] == alert.id
    assert "not_understood" not in monitor.counters


def test_a_label_of_another_type_is_a_wrong_class_and_counted() -> None:
    rng = random.Random(1)
    labels = [1 if i >= 2_000 and rng.random() < 0.9 else "yes" for i in range(2_500)]
    monitor, alerts = story(QUICK, [outcome(prediction(i), label) for i, label in enumerate(labels)])
    assert {(alert.metric, alert.direction) for alert in alerts} == {("error", "up"), ("precision=yes", "down")}
    assert monitor.counters["labels_of_another_type"] == labels.count(1)


@pytest.mark.parametrize(
    ("said", "label", "other"),
    [
        ("1", 1, True),
        (1, "1", True),
        (1, True, True),
        (True, 1, True),
        ("1", "2", False),
        (1, 2.5, False),
        (1, 1.0, False),
    ],
)
@pytest.mark.parametrize("metrics", [("error",), ("*",)])
def test_a_class_is_of_another_type_where_json_has_two_for_it(said: Any, label: Any, other: bool, metrics: tuple[str, ...]) -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(task="classification", metrics=metrics))
    monitor, _ = run(settings, [outcome(prediction(0, prediction=said), label)])
    assert monitor.counters["matured"] == 1
    assert monitor.counters.get("labels_of_another_type", 0) == other


def test_a_label_of_another_type_tells_nothing_about_an_estimate() -> None:
    records = [outcome(prediction(i, prediction=1.5), "yes" if i % 2 else 2) for i in range(100)]
    monitor, alerts = run(QUICK, records)
    assert alerts == []
    assert monitor.counters["labels_of_another_type"] == 50


def test_a_constant_feature_is_no_drift_and_its_change_is() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        return {"features": {"x": 7, "town": "A"} if i < 3_000 else {"x": 8, "town": "B"}}

    records = list(predictions(4_000, fields))
    monitor, alerts = run(QUICK, records[:3_000])
    assert alerts == []
    _, alerts = story(QUICK, records[3_000:], monitor)
    assert [alert.metric for alert in alerts].count("feature:x") == 1
    assert {alert.metric for alert in alerts} == {"feature:x", "out_of_range:x", "new_category:town"}


def test_all_features_may_be_missing() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        if i < 1_500:
            return {"features": {"x": rng.random(), "town": rng.choice("AB")}}
        return ({"features": None}, {"features": {}}, {}, {"features": {"x": None}})[i % 4]

    _, alerts = story(QUICK, predictions(3_000, fields))
    assert {(alert.metric, alert.kind) for alert in alerts} == {
        ("missing:x", Kind.DATA_QUALITY),
        ("missing:town", Kind.DATA_QUALITY),
    }
    assert run(QUICK, predictions(1_000, lambda i, rng: {"features": {"x": None}}))[1] == []


def test_a_class_never_seen_before_is_prediction_drift() -> None:
    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        return {"prediction": "maybe" if i >= 2_000 and rng.random() < 0.3 else rng.choice(("yes", "no"))}

    _, alerts = story(QUICK, predictions(4_000, fields))
    assert ("prediction=other", "up") in [(alert.metric, alert.direction) for alert in alerts]
    assert {alert.kind for alert in alerts} == {Kind.PREDICTION_DRIFT}


@pytest.mark.parametrize("huge", [1e308, -1e308, 2**63 - 1, 5e-324])
def test_huge_numbers_in_a_regression_give_finite_alerts(huge: float) -> None:
    rng = random.Random(1)
    records = []
    for i in range(2_500):
        value = huge if i >= 1_500 else rng.gauss(0, 1)
        event = prediction(i, prediction=float(rng.gauss(0, 1)), features={"x": value}, score=value)
        records += [predicted(event), outcome(event, value)]
    monitor, alerts = run(QUICK, records)
    assert alerts
    for alert in alerts:
        published_ = orjson.loads(publish(alert)[1])
        numbers = [
            published_["before"]["value"],
            published_["after"]["value"],
            published_["statistic"],
            published_["details"].get("effect", 0),
        ]
        assert all(isinstance(number, float | int) for number in numbers), alert.summary
    orjson.dumps(monitor.snapshot())


def drifted() -> tuple[Monitor, Alert]:
    """A monitor in which one alert fires, about the error as a whole."""
    settings = DetectSettings(maturity_ms=0, default=ERROR_AS_A_WHOLE)
    monitor, alerts = story(settings, judged(4_000, lambda i, country: 0.6 if i >= 2_000 else 0.1))
    (alert,) = alerts
    return monitor, alert


def test_an_operators_decision_resolves_the_alert() -> None:
    monitor, fired = drifted()
    assert monitor.step(4_000, control("another alert")) == []
    (resolved,) = monitor.step(4_002, control(fired.id))
    assert (resolved.id, resolved.status, resolved.details) == (fired.id, Status.RESOLVED, {"reason": "operator"})
    assert resolved.position == Position("observations", 0, 4_002)
    assert resolved.summary == "credit v3: error: resolved, an operator resolved it"
    assert monitor.step(4_003, control(fired.id)) == []


def test_a_version_that_falls_silent_while_another_predicts_has_its_alert_resolved() -> None:
    monitor, fired = drifted()
    end = START + 4_000 * STEP
    hours = [outcome(prediction(0, model_version="v4", timestamp=end + hour * DAY // 24), "yes") for hour in range(30)]
    _, alerts = story(DetectSettings(), hours, monitor)
    assert [(alert.id, alert.status, alert.details) for alert in alerts] == [(fired.id, Status.RESOLVED, {"reason": "silent"})]
    assert DAY <= alerts[0].detected_at - end <= DAY + DAY // 12
    assert alerts[0].summary == "credit v3: error: resolved, the version is no longer heard of"


def test_the_silence_of_a_whole_model_resolves_nothing() -> None:
    monitor, _ = drifted()
    end = START + 4_000 * STEP
    hours = [outcome(prediction(0, model="other", timestamp=end + hour * DAY // 24), "yes") for hour in range(60)]
    assert story(DetectSettings(), hours, monitor)[1] == []


def test_one_wrong_time_does_not_end_a_day() -> None:
    monitor, _ = drifted()
    far = outcome(prediction(0, model_version="v4", timestamp=START + 1_000 * DAY), "yes")
    assert run(DetectSettings(), [far, outcome(prediction(4_001), "yes")], monitor)[1] == []


def test_where_only_the_error_is_asked_for_predictions_are_not_read() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",)))
    monitor, _ = run(settings, [predicted(prediction(0)), b'{"record":"prediction",whatever', outcome(prediction(0), "yes")])
    assert monitor.counters["predictions"] == 2
    assert (monitor.counters["versions"], monitor.counters["streams"]) == (1, 1)


def test_the_first_monitor_whose_patterns_match_applies() -> None:
    monitors = (MonitorSettings("a", ("cred*",), metrics=("error",)), MonitorSettings("b", metrics=("score",)))
    records = [predicted(prediction(i, model=model, score=0.5)) for i, model in enumerate(("credit", "fraud"))]
    monitor, _ = run(DetectSettings(maturity_ms=0, monitors=monitors), records)
    assert monitor.counters["streams"] == 1
    monitor, _ = run(DetectSettings(maturity_ms=0, monitors=monitors[:1]), [*records, outcome(prediction(2), "yes")])
    assert monitor.counters["streams"] == 2


def test_a_detector_that_does_not_exist_is_refused_before_the_first_value() -> None:
    with pytest.raises(ValueError, match="there is no detector 'kswim'"):
        Monitor(DetectSettings(default=MonitorSettings(detectors=(DetectorSettings("kswim"),))), "observations", 0)


def test_what_waited_when_its_version_was_evicted_is_not_put_back_for_the_next_of_its_name() -> None:
    settings = DetectSettings(maturity_ms=DAY, max_versions=2)
    names = ["a", "b", "a", "c", "b", "a", "b"]  # "c" evicts "b", "b" evicts "a" and so on
    records = [outcome(prediction(i, model_version=name), "yes", 1_000) for i, name in enumerate(names)]
    whole, _ = run(settings, records)
    restored = Monitor.restore(settings, "observations", 0, whole.snapshot(waiting=False))
    for offset, value in enumerate(records):
        restored.refill(offset, value)
    assert restored.snapshot() == whole.snapshot()


@pytest.mark.parametrize(
    "value", [b"", b"?", b"[]", b'{"record":"outcome",', b'{"record":"outcome","prediction":1}', b'{"record":"control"}']
)
def test_what_makes_no_sense_is_not_put_back(value: bytes) -> None:
    monitor, _ = run(QUICK, [outcome(prediction(0), "yes")])
    before = monitor.snapshot()
    monitor.refill(0, value)
    assert monitor.snapshot() == before


def test_an_alert_that_fires_in_a_rebuilt_state_too_goes_on_under_the_id_that_is_known() -> None:
    monitor, fired = drifted()
    known = replace(fired, id="a" * 32, severity=Severity.WARNING)
    assert monitor.carry_over([known], monitor.at) == []
    assert monitor.step(4_000, control(fired.id)) == []
    (resolved,) = monitor.step(4_001, control(known.id))
    assert (resolved.id, resolved.status, resolved.severity) == (known.id, Status.RESOLVED, Severity.WARNING)


def test_an_alert_that_does_not_fire_in_a_rebuilt_state_is_resolved() -> None:
    monitor, fired = drifted()
    others = [replace(fired, id="b" * 32, fingerprint="b"), replace(fired, id="c" * 32, fingerprint="c")]
    resolved = monitor.carry_over([fired, *others], 4_000)
    assert [(a.id, a.status, a.details) for a in resolved] == [(a.id, Status.RESOLVED, {"reason": "rebuilt"}) for a in others]
    assert {a.position for a in resolved} == {Position("observations", 0, 4_000)}
    assert len({a.event_id for a in resolved}) == 2
    assert "does not fire in the state that was rebuilt" in resolved[0].summary
    assert monitor.carry_over([fired], 4_000) == [], "what fires as before stays as it is"
    (end,) = monitor.step(4_000, control(fired.id))
    assert end.id == fired.id


def test_only_what_decides_is_in_the_digest() -> None:
    one, other = (DetectSettings(monitors=(MonitorSettings(name, ("m",)),)) for name in ("a", "b"))
    assert one.digest() == other.digest()
    assert one.digest() != replace(one, warmup=999).digest()
    assert one.digest() != replace(one, default=MonitorSettings(minimum_effect=0.2)).digest()
