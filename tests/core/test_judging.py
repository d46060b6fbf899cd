"""What labels say: which signals there are, and what their values are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import log
from typing import Any

import pytest

from stream_monitor.core.events import Alert, Status
from stream_monitor.core.judging import Judged, Judging, losses
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.streams import Stream
from tests.support.observations import outcome, prediction, run, story

SETTINGS = DetectSettings(maturity_ms=0, warmup=200, default=MonitorSettings(slices=()))


def watched(monitor: Monitor) -> dict[str, Stream]:
    [version] = monitor._versions.values()
    return {stream.subject.metric: stream for stream in version.whole.streams()}


def after(records: list[bytes], settings: DetectSettings = SETTINGS) -> dict[str, Any]:
    """Count and mean of each signal."""
    monitor, _ = run(settings, records)
    return {metric: (stream.count, stream.raw / stream.count) for metric, stream in watched(monitor).items()}


def weighed(outcome_: bytes, weight: float) -> bytes:
    return outcome_.replace(b'"label":', b'"weight":%r,"label":' % weight)


def test_of_each_class_the_recall_and_the_precision_are_signals() -> None:
    pairs = [("spam", "spam")] * 3 + [("spam", "ham")] + [("ham", "spam")] * 2 + [("ham", "ham")] * 4
    signals = after([outcome(prediction(i, prediction=said), true) for i, (said, true) in enumerate(pairs)])
    assert signals["error"] == (10, 0.3)
    assert signals["recall=spam"] == (5, 0.6)
    assert signals["recall=ham"] == (5, 0.8)
    assert signals["precision=spam"] == (4, 0.75)
    assert signals["precision=ham"] == (6, pytest.approx(4 / 6))


def many_classes(metrics: tuple[str, ...]) -> Monitor:
    """A hundred classes, with room for three of them."""
    settings = DetectSettings(maturity_ms=0, max_categories=3, default=MonitorSettings(metrics=metrics, slices=()))
    monitor, _ = run(settings, [outcome(prediction(i, prediction=f"c{i}"), f"c{i}") for i in range(100)])
    return monitor


def test_classes_past_the_bound_have_no_recall_of_their_own_and_are_counted() -> None:
    monitor = many_classes(("*",))
    judged = sorted(metric for metric in watched(monitor) if metric.startswith(("recall", "precision")))
    assert judged == [f"{m}=c{i}" for m in ("precision", "recall") for i in range(3)]
    assert monitor.counters["classes_refused"] == 2 * 97


@pytest.mark.parametrize(("asked", "count"), [("recall=*", 97), ("precision=c99", 1), ("recall=c2", 0), ("brier", 0)])
def test_a_class_that_nobody_asks_for_is_not_refused(asked: str, count: int) -> None:
    assert many_classes((asked,)).counters.get("classes_refused", 0) == count


def test_a_rare_class_that_is_failed_is_noticed_where_the_error_hardly_moves() -> None:
    rng = random.Random(1)

    def records() -> Iterator[bytes]:
        for i in range(60_000):
            fraud = rng.random() < 0.03
            caught = rng.random() < (0.85 if i < 40_000 else 0.3)
            yield outcome(prediction(i, prediction="fraud" if fraud and caught else "fine"), "fraud" if fraud else "fine")

    _, alerts = story(SETTINGS, records())
    noticed = [alert for alert in alerts if alert.metric == "recall=fraud"]
    assert [(a.status, a.direction, a.kind) for a in noticed] == [(Status.FIRING, "down", "performance")]
    assert noticed[0].summary.startswith("credit v3: recall of fraud fell from 0.8")
    assert noticed[0].position.offset >= 40_000


@pytest.mark.parametrize(
    ("scores", "label", "log_loss", "brier"),
    [
        ({"a": 0.8, "b": 0.2}, "a", -log(0.8), 0.08),
        ({"a": 0.8, "b": 0.2}, "b", -log(0.2), 1.28),
        ({"a": 1.0}, "c", -log(1e-15), 2.0),
        ({"true": 0.5, "false": 0.5}, True, -log(0.5), 0.5),
        ({"1": 0.25, "2": 0.75}, 2.0, -log(0.75), 0.125),
    ],
)
def test_scores_are_held_against_the_label(scores: dict[str, float], label: Any, log_loss: float, brier: float) -> None:
    assert losses(scores, label) == pytest.approx((log_loss, brier))


@pytest.mark.parametrize("scores", [None, {}, [0.5]])
def test_without_scores_there_are_no_losses(scores: Any) -> None:
    assert losses(scores, "a") is None


def test_scores_and_label_delays_are_signals() -> None:
    signals = after([outcome(prediction(i, scores={"yes": 0.5, "no": 0.5}), "yes", delay=i) for i in range(101)])
    assert signals["log_loss"] == (101, pytest.approx(log(2)))
    assert signals["brier"] == (101, pytest.approx(0.5))
    assert signals["label_delay"] == (101, 50)


def test_a_label_that_came_after_its_turn_is_no_label_delay() -> None:
    settings = DetectSettings(maturity_ms=1_000, warmup=200, default=MonitorSettings(slices=()))
    records = [outcome(prediction(i), "yes", delay=5_000 if i == 0 else 500) for i in range(100)]
    # The other partition of the journal has told nothing yet, so the first label is not late, although it took long.
    records = [r.replace(b'"outcome",', b'"outcome","partition":%d,"partitions":2,' % (i > 0)) for i, r in enumerate(records)]
    signals = after(records, settings)
    assert signals["label_delay"][1] == 500
    assert signals["error"][0] == signals["label_delay"][0] + 1


def test_an_estimate_has_a_bias_beside_its_error() -> None:
    signals = after([outcome(prediction(i, prediction=1.5), 2) for i in range(10)])
    assert signals == {"error": (10, 0.5), "bias": (10, -0.5), "label_delay": (10, 0)}


def test_the_squared_error_of_an_estimate_is_there_for_who_names_it() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(slices=(), metrics=("squared_error", "*_delay")))
    signals = after([outcome(prediction(i, prediction=1.5), 4) for i in range(10)], settings)
    assert signals == {"squared_error": (10, 6.25), "label_delay": (10, 0)}


def test_the_square_of_an_error_beyond_all_measure_stays_finite() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(slices=(), metrics=("squared_error",)))
    [(_, mean)] = after([outcome(prediction(i, prediction=1e300), 4) for i in range(10)], settings).values()
    assert mean == pytest.approx(1e290)


def drift_of_the_heavy(weights: bool) -> list[Alert]:
    """One outcome in fifty weighs fifty times as much; from the 30,000th on, half of these are wrong instead of a tenth."""
    rng = random.Random(3)

    def records() -> Iterator[bytes]:
        for i in range(60_000):
            heavy = rng.random() < 0.02
            wrong = rng.random() < (0.5 if heavy and i >= 30_000 else 0.1)
            record = outcome(prediction(i), "no" if wrong else "yes")
            yield weighed(record, 50.0 if heavy else 1.0) if weights else record

    return run(DetectSettings(maturity_ms=0, default=MonitorSettings(slices=(), metrics=("error", "weighted_error"))), records())[1]


def test_the_examples_that_matter_most_raise_an_alert_that_the_average_hides() -> None:
    alerts = drift_of_the_heavy(weights=True)
    assert [(a.metric, a.direction, a.status) for a in alerts] == [("weighted_error", "up", Status.FIRING)]
    assert alerts[0].before.value == pytest.approx(0.1, abs=0.05)
    assert drift_of_the_heavy(weights=False) == []


def test_the_weighted_error_is_the_weighted_mean() -> None:
    rng = random.Random(5)
    weights = [rng.choice((1, 2, 5, 10)) for _ in range(20_000)]
    wrong = [rng.random() < (0.4 if weight == 10 else 0.1) for weight in weights]
    records = [weighed(outcome(prediction(i), "no" if wrong[i] else "yes"), weight) for i, weight in enumerate(weights)]
    count, mean = after(records)["weighted_error"]
    assert mean == pytest.approx(sum(w for w, bad in zip(weights, wrong, strict=True) if bad) / sum(weights), abs=0.02)
    assert count == pytest.approx(sum(weights[1_000:]) / 10, rel=0.05)


@pytest.mark.parametrize("weight", [1.0, 7.5])
def test_where_all_weights_are_the_same_they_tell_nothing(weight: float) -> None:
    assert "weighted_error" not in after([weighed(outcome(prediction(i), "yes"), weight) for i in range(3_000)])


@pytest.mark.parametrize("odd", [1e300, 1e-300])
def test_one_odd_weight_does_not_end_the_signal(odd: float) -> None:
    weights = [odd if i == 500 else 1 + i % 2 for i in range(6_000)]
    records = [weighed(outcome(prediction(i), "yes"), weight) for i, weight in enumerate(weights)]
    assert after(records)["weighted_error"][0] > 3_000


def test_what_was_saved_goes_on_the_same() -> None:
    rng = random.Random(2)

    def make(metric: str, kind: Any, numeric: bool) -> Stream | None:
        plan = next(iter(Monitor(SETTINGS, "observations", 0)._new(("m", "v")).scopes())).plan
        return None if metric == "brier" else plan.stream(None, metric, kind, numeric)

    def some() -> Judged:
        said, true = rng.choice("abc"), rng.choice("abc")
        return Judged(said, true, said != true, False, rng.randrange(9), rng.choice((None, 2.0, 3.0)), losses({"a": rng.random()}, true))

    whole = Judging(make, 2, 100)
    for i in range(1_500):
        whole.take(some(), rng.getrandbits(60), i, i)
    copy = Judging(make, 2, 100)
    copy.restore(whole.state())
    assert copy.state() == whole.state()
    for i in range(1_500, 1_800):
        one, unit = some(), rng.getrandbits(60)
        whole.take(one, unit, i, i)
        copy.take(one, unit, i, i)
    assert copy.state() == whole.state()
    assert [s.subject.metric for s in copy.streams()] == [s.subject.metric for s in whole.streams()]


def test_two_slices_may_be_watched_where_they_cross() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(slices=("country x device", "country")))
    slices = {"country": "DE", "device": "phone", "other": "x"}
    monitor, _ = run(settings, [outcome(prediction(i, slices=slices), "yes") for i in range(3)])
    [version] = monitor._versions.values()
    assert list(version.slices) == [("country", "DE"), ("country x device", "DE x phone")]
    monitor, _ = run(settings, [outcome(prediction(0, slices={"device": "phone"}), "yes")])
    [version] = monitor._versions.values()
    assert list(version.slices) == []


def test_metrics_of_classes_may_be_watched_per_slice_too() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(slices=("country",), slice_metrics=("recall=fraud",)))
    records = [outcome(prediction(i, prediction="fine", slices={"country": "DE"}), "fraud") for i in range(3)]
    monitor, _ = run(settings, records)
    [version] = monitor._versions.values()
    assert [stream.subject.metric for stream in version.slices["country", "DE"].streams()] == ["recall=fraud"]


def test_nothing_is_judged_before_it_is_known_what_an_error_is() -> None:
    settings = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("error",)))
    records = [outcome(prediction(i, prediction=100 if i < 3 else 100.5), 150.25) for i in range(60)]
    monitor, _ = run(settings, records)
    assert monitor.counters["task_not_known"] == 3
    (version,) = monitor.versions()
    assert version["task"] == "regression"
    again = Monitor.restore(settings, "observations", 0, monitor.snapshot())
    assert again.snapshot() == monitor.snapshot()
