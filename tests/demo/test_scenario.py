"""What the demo plays, and which alerts it takes for true."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from stream_monitor.demo.scenario import SPAN_MS, TRAINING_ROWS, Event, Scenario

END = 1_800_000_000_000


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(seed=7, predictions=5_000, end_ms=END)


@pytest.fixture(scope="module")
def events(scenario: Scenario) -> list[Event]:
    return list(scenario.events())


def alert(scenario: Scenario, number: int, kind: str, metric: str, part: tuple[str, str] | None = None) -> dict[str, Any]:
    """An alert that fires once `number` predictions were made."""
    place = {"key": part[0], "value": part[1]} if part else None
    return {"kind": kind, "metric": metric, "slice": place, "detected_at": scenario.time_of(number)}


def test_the_same_seed_gives_the_same_events_and_another_seed_gives_others(events: list[Event]) -> None:
    again = list(Scenario(seed=7, predictions=5_000, end_ms=END).events())
    other = list(Scenario(seed=8, predictions=5_000, end_ms=END).events())
    assert again == events
    assert other != events


def test_the_frozen_model_learns_from_the_training_rows_and_from_nothing_after(scenario: Scenario, events: list[Event]) -> None:
    untouched = Scenario(seed=7, predictions=5_000, end_ms=END).model
    assert scenario.model.learned == untouched.learned == TRAINING_ROWS
    for event in events[:500]:
        try:
            prediction = orjson.loads(event.value)
        except orjson.JSONDecodeError:
            continue
        if event.topic == "predictions" and "features" in prediction:
            assert round(untouched.score(prediction["features"]), 6) == prediction["score"]
    x = {
        "salary": 60_000.0,
        "commission": 20_000.0,
        "age": 30,
        "elevel": 4,
        "car": 3,
        "zipcode": 2,
        "hvalue": 5e5,
        "hyears": 4,
        "loan": 1e5,
    }
    assert scenario.model.score(x) == untouched.score(x)


def test_labels_come_late_and_out_of_order_some_twice_and_some_never(events: list[Event]) -> None:
    predictions = {event.key for event in events if event.topic == "predictions"}
    labels = [event.key for event in events if event.topic == "feedback"]
    assert labels != sorted(labels)
    assert len(set(labels)) < len(labels)
    assert 0.9 < len(set(labels)) / len(predictions) < 0.99


def test_no_event_lies_in_the_future(events: list[Event]) -> None:
    times = []
    for event in events:
        try:
            times.append(orjson.loads(event.value)["timestamp"])
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue
    assert max(times) <= END
    assert max(times) - min(times) >= SPAN_MS * 0.99


def test_an_alert_is_false_before_the_drift_and_true_after_it(scenario: Scenario) -> None:
    at = scenario.concept.at
    part = ("country", "DE")
    assert scenario.cause(alert(scenario, at - 10, "concept_drift", "error", part)) is None
    assert scenario.cause(alert(scenario, at + 10, "concept_drift", "error", part)) is scenario.concept


@pytest.mark.parametrize(
    ("kind", "metric", "part", "cause"),
    [
        ("concept_drift", "error", None, "concept"),
        ("concept_drift", "error", ("age_group", "40-to-59"), "concept"),
        ("concept_drift", "error", ("country", "FR"), None),
        ("data_drift", "feature:loan", None, "data"),
        ("data_drift", "feature:age", None, None),
        ("prediction_drift", "prediction=default", None, "data"),
        ("data_quality", "missing:loan", None, None),
    ],
)
def test_an_alert_is_true_where_a_drift_explains_it(
    scenario: Scenario, kind: str, metric: str, part: tuple[str, str] | None, cause: str | None
) -> None:
    late = alert(scenario, scenario.predictions, kind, metric, part)
    assert scenario.cause(late) is (getattr(scenario, cause) if cause else None)


def test_a_drift_is_shown_only_by_an_alert_that_names_what_moved(scenario: Scenario) -> None:
    late = scenario.predictions
    assert scenario.concept.shown_by(alert(scenario, late, "concept_drift", "error", ("country", "DE")))
    assert not scenario.concept.shown_by(alert(scenario, late, "concept_drift", "error"))
    assert not scenario.data.shown_by(alert(scenario, late, "prediction_drift", "score"))
