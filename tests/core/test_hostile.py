"""Whatever comes through the gate: a defined result, bounded memory, no crash. What is refused at the gate: test_codec.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import orjson
import pytest

from stream_monitor.core.limits import parse
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from tests.support.observations import START, cohort, outcome, predicted, prediction, run

EVERYTHING = MonitorSettings(
    metrics=("*", "volume"),
    slices=("*", "country x device"),
    slice_metrics=("*",),
    limits=(parse("error <= 0.5"), parse("recall[yes] >= 0.5"), parse("feature:x <= 9 for 50%"), parse("missing:x <= 0.5")),
    limit_slices=("*",),
    protected=("country", "user"),
    fairness_limit=0.1,
    disparate_impact=0.8,
    minimum_group=20,
)
SETTINGS = DetectSettings(
    maturity_ms=200, warmup=100, max_slices=20, max_streams=2_000, max_features=20, max_categories=5, default=EVERYTHING
)


def both(events: Iterator[tuple[dict[str, Any], Any]], weigh: Callable[[int], Any] | None) -> Iterator[bytes]:
    """Each prediction, and its label at once, with a weight perhaps."""
    for i, (event, label) in enumerate(events):
        yield predicted(event)
        record = orjson.loads(outcome(event, label))
        if weigh is not None:
            record["feedback"]["weight"] = weigh(i)
        yield orjson.dumps(record)


def watch(
    make: Callable[[int, random.Random], tuple[dict[str, Any], Any]], count: int = 1_500, weigh: Callable[[int], Any] | None = None
) -> Monitor:
    """A monitor of everything after so many predictions with labels; every alert on the way can be written, and all can be saved."""
    rng = random.Random(1)
    monitor, alerts = run(SETTINGS, both((make(i, rng) for i in range(count)), weigh))
    for alert in alerts:
        assert alert.summary.isprintable()
        assert orjson.loads(publish(alert)[1])["id"] == alert.id
    restored = Monitor.restore(SETTINGS, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
    assert restored.snapshot() == monitor.snapshot()
    assert "not_understood" not in monitor.counters
    assert monitor.counters["streams"] <= 2_000
    assert monitor.counters["slices"] <= 20
    return monitor


def metrics(monitor: Monitor) -> set[str]:
    return {stream.subject.metric for version in monitor._versions.values() for stream in version.whole.streams()}


LABELS: dict[str, Callable[[int, random.Random], Any]] = {
    "of another type, by turns": lambda i, rng: ("yes", 1, True, 1.0, "1", "true")[i % 6],
    "a class that is never predicted": lambda i, rng: "martian" if i > 700 else "yes",
    "another class each time": lambda i, rng: f"class {i}",
    "empty, or with control characters": lambda i, rng: ("", "\x00", "\x1b[2J", "\u202e", "=", "a=b")[i % 6],
    "of 10 kB": lambda i, rng: "x" * 10_000 + str(i % 3),
    "huge numbers": lambda i, rng: (1e308, -1e308, 2**63 - 1, 5e-324)[i % 4],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("answer", ["yes", 7, 1.5, True])
def test_labels(kind: str, answer: Any) -> None:
    monitor = watch(lambda i, rng: (prediction(i, prediction=answer), LABELS[kind](i, rng)), 800)
    assert len([metric for metric in metrics(monitor) if metric.startswith("recall=")]) <= 5
    for version in monitor.confusion():
        assert len({pair["label"] for table in version["tables"] for pair in table["pairs"]}) <= 6


@pytest.mark.parametrize("kind", LABELS)
def test_predictions(kind: str) -> None:
    """The same as answers of a model."""
    monitor = watch(lambda i, rng: (prediction(i, prediction=LABELS[kind](i, rng), slices={"country": "DE"}), "yes"), 800)
    assert len([metric for metric in metrics(monitor) if metric.startswith("prediction=")]) <= 6
    assert len([metric for metric in metrics(monitor) if metric.startswith("precision=")]) <= 5


FEATURES: dict[str, Callable[[int, random.Random], Any]] = {
    "constant": lambda i, rng: {"x": 7, "town": "A", "car": True},
    "never there": lambda i, rng: (None, {}, {"x": None})[i % 3],
    "there now and then": lambda i, rng: {"x": rng.random(), "town": "A"} if i % 7 == 0 else None,
    "gone after the warm-up": lambda i, rng: {"x": rng.random()} if i < 300 else {},
    "of another type each time": lambda i, rng: {"x": (1, "1", True, 1.5, None)[i % 5]},
    "another one each time": lambda i, rng: {f"x{i}": i, f"town{i}": "A"},
    "another category each time": lambda i, rng: {"town": f"t{i}" if i > 200 else "A"},
    "numbers that grow without end": lambda i, rng: {"x": 2.0**i if i < 1_020 else -(2.0 ** (i % 1_020))},
    "with hostile names": lambda i, rng: dict.fromkeys(("", "=", ":", "x\x00", "\u202e", "y" * 10000), i % 9),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features(kind: str) -> None:
    monitor = watch(lambda i, rng: (prediction(i, features=FEATURES[kind](i, rng), slices={"country": "DE"}), "yes"))
    assert len([metric for metric in metrics(monitor) if metric.startswith("feature:")]) <= 20


WEIGHTS: dict[str, Callable[[int], Any]] = {
    "next to nothing": lambda i: 5e-324,
    "beyond measure": lambda i: 1e300,
    "one of each": lambda i: (5e-324, 1e300, 1)[i % 3],
    "none, or less than that": lambda i: (0, -1, 0.0, -1e300)[i % 4],  # the gate lets none of these in, but it is not the only way
    "of another type": lambda i: ("2", True, [], {})[i % 4],
    "beyond measure once": lambda i: 1e300 if i == 600 else 1 + i % 2,
    "now and then": lambda i: None if i % 2 else 3.5,
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("answer", ["yes", 1.5])
@pytest.mark.parametrize("of", ["prediction", "feedback"])
def test_weights(kind: str, answer: Any, of: str) -> None:
    def make(i: int, rng: random.Random) -> tuple[dict[str, Any], Any]:
        own = {"weight": WEIGHTS[kind](i)} if of == "prediction" else {}
        return prediction(i, prediction=answer, **own), rng.choice((answer, 2.5))

    watch(make, weigh=None if of == "prediction" else WEIGHTS[kind])


SLICES: dict[str, Callable[[int, random.Random], Any]] = {
    "of control characters": lambda i, rng: {"\x00\n": "\x1b[31m", "country": "\u202e\x07", "device": "\r\n"},
    "of 10 kB": lambda i, rng: {"k" * 10_000: "v" * 10_000 + str(i % 3), "country": "c" * 10_000, "device": "d" * 10_000},
    "another one each time": lambda i, rng: {"user": f"u{i}", "country": f"c{i}", "device": "phone"},
    "another key each time": lambda i, rng: {f"k{i}": "v"},
    "that look like crosses": lambda i, rng: {"country x device": "DE x phone", "country": "DE", "device": "phone", " x ": " x "},
    "that are none": lambda i, rng: (None, {}, {"": ""})[i % 3],
    "of another type": lambda i, rng: ([], ["country"], "country", 7, {"country": 5}, {"country": None}, {"country": {}})[i % 7],
}


@pytest.mark.parametrize("kind", SLICES)
def test_slices(kind: str) -> None:
    watch(lambda i, rng: (prediction(i, slices=SLICES[kind](i, rng), features={"x": rng.random()}), rng.choice(("yes", "no"))), 600)


SCORES: dict[str, Callable[[int], Any]] = {
    "of classes that there are not": lambda i: {f"class {i}": 1.0},
    "that are no probabilities": lambda i: ({"yes": 7.0}, {"yes": -1e300, "no": 1e300}, {"yes": 0, "no": 0})[i % 3],
    "of another type": lambda i: ([], "yes", 0.5, {"yes": "0.5"}, {"yes": None}, {"yes": []}, {"yes": True})[i % 7],
}


@pytest.mark.parametrize("kind", SCORES)
def test_scores(kind: str) -> None:
    def make(i: int, rng: random.Random) -> tuple[dict[str, Any], Any]:
        scores = SCORES[kind](i)
        return prediction(i, scores=scores, score=scores, latency_ms=scores, features=scores), rng.choice(("yes", "no"))

    watch(make, 600)


@pytest.mark.parametrize("time", [-(2**63), -1, 2**53, 2**63 - 1, 2**64 - 1])
def test_a_time_that_no_event_can_have_moves_nothing_so_that_all_can_be_saved(time: int) -> None:
    good, bad = prediction(0), prediction(1, timestamp=time)
    wrong = {"request_id": "req-0", "label": "yes", "timestamp": time}
    issue = {"record": "feedback_issue", "model": "credit", "model_version": "v3"}
    records: list[Any] = [
        {"record": "prediction", "prediction": bad},
        {"record": "outcome", "prediction": bad, "feedback": {**wrong, "timestamp": START}},
        {"record": "outcome", "prediction": good, "feedback": wrong},
        {**issue, "issue": "late", "prediction": good, "feedback": wrong},
        {**issue, "issue": "conflicting", "prediction": None, "feedback": wrong},
        {**orjson.loads(cohort(START, 10, 5, good)), "since": time},
    ]
    monitor, _ = run(SETTINGS, [predicted(good), outcome(good, "no")])
    before = monitor.snapshot()
    run(SETTINGS, map(orjson.dumps, records), monitor)
    msgpack.packb(monitor.snapshot())
    assert monitor.snapshot()["versions"] == before["versions"]
    assert monitor.snapshot()["clock"] == before["clock"]
    assert monitor.counters["not_understood"] == 4


def test_what_a_slice_keeps_does_not_grow_with_the_number_of_its_values() -> None:
    settings = DetectSettings(maturity_ms=0, max_slices=50, default=MonitorSettings(metrics=("error",)))

    def saved(count: int) -> int:
        events = ((prediction(i, slices={"user": f"{i:09d}"}), "yes") for i in range(count))
        return len(orjson.dumps(run(settings, (outcome(*event) for event in events))[0].snapshot()))

    assert saved(15_000) < 1.1 * saved(2_000)
