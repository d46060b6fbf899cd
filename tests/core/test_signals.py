"""From observations to named values: what is watched, under which names, within which bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stream_monitor.core.categories import category_name, shorten
from stream_monitor.core.events import Slice
from stream_monitor.core.judging import Judged
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room, Scope, is_wrong
from tests.support.observations import desk

SETTINGS = DetectSettings(warmup=100, max_features=5, max_categories=3)


def scope(monitor: MonitorSettings | None = None, settings: DetectSettings = SETTINGS, limit: int = 1_000) -> Scope:
    return Scope(Plan("credit", "v3", monitor or MonitorSettings(), settings, desk(), Room(limit)), None)


def feed(of: Scope, events: list[dict[str, Any]], task: Any = "classification") -> None:
    for i, event in enumerate(events):
        of.predicted({"prediction": "yes", **event}, task, random.Random(i).getrandbits(64), i, i)


def metrics(of: Scope) -> list[str]:
    return [stream.subject.metric for stream in of.streams()]


@pytest.mark.parametrize(
    ("prediction", "label", "wrong"),
    [("a", "a", 0), ("a", "b", 1), (1, 1, 0), (1, 1.0, 0), (1, "1", 1), (1, True, 1), (0, False, 1), ("true", True, 1), (True, True, 0)],
)
def test_classes_are_compared_with_their_type(prediction: Any, label: Any, wrong: int) -> None:
    assert is_wrong(prediction, label) == is_wrong(label, prediction) == wrong


def test_names_of_categories_keep_apart_what_is_different() -> None:
    keys: list[Any] = ["1", "true", "other", '"1"', "x", "", ("int", 1), ("bool", True), ("float", 1.5)]
    assert len({category_name(key) for key in keys}) == len(keys)
    assert category_name("DE") == "DE"
    assert "other" not in map(category_name, keys)


def test_long_names_are_cut_but_stay_apart() -> None:
    a, b = shorten("x" * 10_000 + "a"), shorten("x" * 10_000 + "b")
    assert a != b
    assert len(a) < 250
    assert shorten("short") == "short"


def test_a_number_is_one_signal_and_a_category_one_for_each_frequent_value_and_one_as_a_whole() -> None:
    rng, of = random.Random(1), scope()
    feed(of, [{"score": 0.5, "features": {"age": rng.random(), "town": rng.choice("ABC")}} for _ in range(150)])
    assert sorted(metrics(of)) == ["feature:age", "feature:town", "feature:town=A", "feature:town=B", "feature:town=C", "score"]


def test_of_two_categories_the_rarer_is_watched() -> None:
    of = scope()
    feed(of, [{"features": {"car": i % 4 == 0}} for i in range(150)])
    assert metrics(of) == ["feature:car=true"]


def test_rare_categories_are_pooled() -> None:
    of = scope()
    feed(of, [{"features": {"town": "ABCDEFG"[min(6, i % 20)]}} for i in range(150)])
    assert sorted(metrics(of)) == ["feature:town", "feature:town=A", "feature:town=B", "feature:town=G", "feature:town=other"]


def test_an_unseen_category_opens_the_pool_where_nobody_asks_for_new_ones() -> None:
    of = scope(MonitorSettings(metrics=("feature:*",)))
    feed(of, [{"features": {"town": "A"}}] * 150)
    assert metrics(of) == []
    feed(of, [{"features": {"town": "Z"}}])
    assert metrics(of) == ["feature:town=other"]
    other = next(of.streams())
    assert (other.count, other.total) == (151, 1)


@pytest.mark.parametrize("gap", [{}, {"age": None}, {"age": "old"}, {"age": True}])
def test_a_missing_value_opens_its_signal(gap: dict[str, Any]) -> None:
    of = scope()
    feed(of, [{"features": {"age": i % 50}} for i in range(150)] + [{"features": gap}] + [{"features": {"age": 1}}] * 2)
    assert metrics(of) == ["feature:age", "missing:age"]
    age, missing = of.streams()
    assert age.count == 152
    assert (missing.count, missing.total) == (153, 1)


def test_a_missing_value_is_noticed_where_nothing_else_is_asked_of_a_feature() -> None:
    of = scope(MonitorSettings(metrics=("missing:*",)))
    feed(of, [{"features": {"age": i, "town": "A"}} for i in range(150)] + [{"features": {}}])
    assert metrics(of) == ["missing:age", "missing:town"]


def test_features_that_were_never_there_are_not_missing() -> None:
    of = scope()
    feed(of, [{"features": {"age": None}}, {"features": None}, {}] * 50)
    assert metrics(of) == []


def test_a_constant_feature_is_watched_like_any_other() -> None:
    of = scope()
    feed(of, [{"features": {"age": 7}}] * 300)
    assert metrics(of) == ["feature:age"]


@pytest.mark.parametrize("value", [1e308, -1e308, 10**19, 5e-324])
def test_numbers_of_any_size_leave_the_sums_finite(value: float) -> None:
    of = scope()
    feed(of, [{"features": {"x": value}}] * 300)
    assert abs(next(of.streams()).raw) < float("inf")


def test_features_past_the_bound_are_not_watched_and_their_values_are_counted() -> None:
    of = scope()
    feed(of, [{"features": {f"f{i}": 1.0 for i in range(50)} | {"empty": None, "list": []}}] * 3)
    assert metrics(of) == [f"feature:f{i}" for i in range(5)]
    assert of.plan.desk.counts == {"features_refused": 3 * 45}


@pytest.mark.parametrize(
    ("asked", "count"),
    [("feature:f1*", 10), ("missing:f49", 1), ("out_of_range:f7", 1), ("new_category:*", 45), ("feature:f4", 0), ("score", 0)],
)
def test_a_feature_that_nobody_asks_for_is_not_refused(asked: str, count: int) -> None:
    of = scope(MonitorSettings(metrics=("error", asked)))
    feed(of, [{"features": {f"f{i}": 1.0 for i in range(50)}}])
    assert of.plan.desk.counts.get("features_refused", 0) == count


def test_what_is_refused_is_counted_once_however_many_slices_it_is_in() -> None:
    part = Scope(scope(MonitorSettings(slice_metrics=("*",))).plan, Slice("country", "DE"))
    feed(part, [{"features": {f"f{i}": 1.0 for i in range(50)}}])
    for i in range(10):
        part.judged(Judged(f"c{i}", f"c{i}", 0, False, 0, None, None), 1, 1, 1)
    assert part.plan.desk.counts == {}


def test_streams_past_the_bound_are_refused_and_counted() -> None:
    of = scope(limit=2)
    feed(of, [{"score": 0.5, "features": {f"f{i}": 1.0 for i in range(4)}}] * 3)
    assert len(metrics(of)) == 2
    assert of.plan.room.used == 2
    assert of.plan.room.refused == 3


def test_only_named_metrics_are_watched() -> None:
    of = scope(MonitorSettings(metrics=("feature:a*",)))
    feed(of, [{"score": 0.5, "features": {"age": 1.0, "loan": 2.0}}] * 150)
    of.judged(Judged("yes", "no", 1, False, 0, None, None), 1, 1, 1)
    assert metrics(of) == ["feature:age"]


def test_numeric_predictions_are_one_signal_in_a_regression() -> None:
    of = scope()
    feed(of, [{"prediction": i / 3} for i in range(150)], "regression")
    assert metrics(of) == ["prediction"]


def test_predicted_classes_keep_their_types_apart() -> None:
    of = scope()
    feed(of, [{"prediction": (1, "1", True)[i % 3]} for i in range(150)])
    assert sorted(metrics(of)) == ["prediction", 'prediction="1"', "prediction=1", "prediction=true"]
