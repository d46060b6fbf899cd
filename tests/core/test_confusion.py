"""Which class is answered for which: counted over time in bounded memory, and told in alerts about a class."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest

from stream_monitor.core.categories import category_of
from stream_monitor.core.confusion import Confusion
from stream_monitor.core.events import Status
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from tests.support.observations import outcome, prediction, run


def filled(pairs: list[tuple[Any, Any]], limit: int = 20, start: int = 0, known: Confusion | None = None) -> Confusion:
    known = known or Confusion(limit)
    for i, (said, true) in enumerate(pairs, start):
        known.take(category_of(said), category_of(true), i)
    return known


def counted(known: Confusion) -> Counter[tuple[str, str]]:
    """The pairs of all tables."""
    pairs = Counter[tuple[str, str]]()
    for table in known.report():
        for pair in table["pairs"]:
            pairs[pair["prediction"], pair["label"]] += pair["count"]
    return pairs


def test_each_pair_of_prediction_and_label_is_counted_once() -> None:
    rng = random.Random(1)
    pairs = [(rng.choice("ab"), rng.choice("abc")) for _ in range(12_345)]
    assert counted(filled(pairs)) == Counter(pairs)


def test_classes_of_other_types_keep_apart_and_those_past_the_bound_are_pooled() -> None:
    known = filled([(1, "1"), (True, 1.0), ("x", "y"), ("other", 1)], limit=3)
    assert counted(known) == {("1", '"1"'): 1, ("true", "1"): 1, ("other", "other"): 1, ("other", "1"): 1}


def test_tables_grow_with_their_age() -> None:
    tables = filled([("a", "b")] * 100_000).report()
    sizes = [table["outcomes"] for table in tables]
    assert sizes[-1] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert all(sizes.count(size) <= 3 for size in sizes)
    assert len(sizes) < 32
    assert [table["since"] for table in tables] == [sum(sizes[:i]) for i in range(len(sizes))]


@pytest.mark.parametrize(
    ("metric", "key", "expected"),
    [
        ("recall", "fraud", [{"class": "ok", "before": 0.1, "after": 0.3}, {"class": "odd", "before": 0.1, "after": 0.1}]),
        ("precision", "odd", [{"class": "fraud", "before": 1.0, "after": 1.0}]),
        ("precision", "fraud", []),
        ("recall", "unheard of", []),
    ],
)
def test_what_a_class_is_confused_with_is_told_before_and_since_the_change(metric: str, key: str, expected: list[Any]) -> None:
    before = [("fraud", "fraud")] * 8 + [("ok", "fraud"), ("odd", "fraud")] + [("ok", "ok")] * 90
    after = [("fraud", "fraud")] * 6 + [("ok", "fraud")] * 3 + [("odd", "fraud")] + [("ok", "ok")] * 90
    known = filled(before * 50 + after * 2)
    assert known.explain(metric, category_of(key), 5_000) == ({"confused_with": expected} if expected else {})


def test_an_alert_about_a_class_says_what_it_is_taken_for() -> None:
    rng = random.Random(1)
    records = []
    for i in range(30_000):
        true = rng.choices(("fraud", "ok", "odd"), (10, 80, 10))[0]
        wrong = rng.random() < (0.5 if i >= 15_000 else 0.1)
        said = rng.choice(("ok", "ok", "ok", "odd")) if true == "fraud" and wrong else true
        records.append(outcome(prediction(i, prediction=said), true))
    monitor, alerts = run(DetectSettings(maturity_ms=0, default=MonitorSettings(slices=())), records)
    [alert] = [alert for alert in alerts if alert.metric == "recall=fraud" and alert.status is Status.FIRING]
    ok, odd = alert.details["confused_with"]
    assert ok == {"class": "ok", "before": pytest.approx(0.075, abs=0.02), "after": pytest.approx(0.375, abs=0.25)}
    assert odd["class"] == "odd"
    [table] = monitor.confusion()
    assert (table["model"], table["model_version"]) == ("credit", "v3")
    assert sum(part["outcomes"] for part in table["tables"]) == 30_000


def test_an_estimate_confuses_no_classes() -> None:
    monitor, _ = run(DetectSettings(maturity_ms=0), [outcome(prediction(i, prediction=1.5), 2.5) for i in range(10)])
    assert monitor.confusion() == []


@pytest.mark.parametrize("cut", [0, 1, 99, 100, 101, 777])
def test_what_was_saved_goes_on_the_same(cut: int) -> None:
    rng = random.Random(2)
    pairs = [(rng.choice(["a", 1, True, "1"]), rng.choice(["a", 1.5, False])) for _ in range(1_000)]
    again = Confusion(4)
    again.restore(orjson.loads(orjson.dumps(filled(pairs[:cut], 4).state())))
    assert filled(pairs[cut:], 4, cut, again).state() == filled(pairs, 4).state()
