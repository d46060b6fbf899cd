"""What the reference never showed: new categories and numbers out of range open a signal, and cost nothing before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Kind, Status
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.signals import Scope
from stream_monitor.core.streams import Stream
from tests.core.test_signals import feed, metrics, scope
from tests.support.observations import predicted, prediction, run, story

NEW = MonitorSettings(metrics=("new_category:*", "out_of_range:*"))


def towns(text: str) -> list[dict[str, Any]]:
    return [{"features": {"town": letter}} for letter in text]


def numbers(*values: float) -> list[dict[str, Any]]:
    return [{"features": {"age": value}} for value in values]


def signals(of: Scope) -> dict[str, tuple[int, float]]:
    """Values and ones of each."""
    return {stream.subject.metric: (stream.count, stream.total) for stream in of.streams()}


def test_a_category_that_the_reference_had_not_opens_its_signal_with_the_values_since() -> None:
    of = scope()
    feed(of, towns("A" * 150))
    assert metrics(of) == []
    feed(of, towns("ZAZ"))
    assert signals(of) == {"new_category:town": (53, 2)}


def test_a_rare_category_is_not_new() -> None:
    of = scope(NEW)
    feed(of, towns("A" * 94 + "BBCCDD" + "A" * 50 + "BCD"))
    assert signals(of) == {}
    feed(of, towns("Z"))
    assert signals(of) == {"new_category:town": (54, 1)}


def test_where_most_categories_are_met_once_a_new_one_says_nothing() -> None:
    of = scope(NEW)
    feed(of, [{"features": {"user": f"u{i}"}} for i in range(300)])
    assert signals(of) == {}


def test_booleans_are_categories_too() -> None:
    of = scope(NEW)
    feed(of, [{"features": {"car": i >= 150}} for i in range(200)])
    assert signals(of) == {"new_category:car": (100, 50)}


@pytest.mark.parametrize(
    ("reference", "inside", "outside"),
    [
        ((-10, 10), (-29, 29.5, 0), (-31, 30.5)),  # its width more on either side
        ((20, 80), (0, 139), (-0.5, 141)),  # but not below zero
        ((-80, -20), (-139, 0), (0.5,)),
        ((7, 7), (7,), (7.1, 6.9)),
        ((1e-300, 1e308), (1e290,), (-1.0,)),
    ],
)
def test_a_number_is_out_of_range_beyond_the_width_of_the_reference(
    reference: tuple[float, float], inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    of = scope(NEW)
    feed(of, numbers(*reference * 50))
    feed(of, numbers(*inside))
    assert signals(of) == {}
    feed(of, numbers(*outside))
    assert signals(of) == {"out_of_range:age": (len(inside) + len(outside), len(outside))}


def test_a_share_of_the_range_is_seen_beside_the_feature_itself() -> None:
    of = scope(MonitorSettings())
    feed(of, numbers(*range(100), 500))
    assert signals(of)["out_of_range:age"] == (1, 1)
    assert signals(of)["feature:age"][0] == 101


CHANGES: dict[str, Callable[[bool, random.Random], dict[str, Any]]] = {
    "out_of_range:age": lambda now, rng: {"age": -999 if now and rng.random() < 0.03 else rng.gauss(40, 10)},
    "new_category:town": lambda now, rng: {"town": "Z" if now and rng.random() < 0.03 else rng.choices("ABCD", (50, 48, 1, 1))[0]},
}


@pytest.mark.parametrize("metric", CHANGES)
def test_a_few_values_of_a_kind_that_never_came_raise_an_alert(metric: str) -> None:
    def records() -> Iterator[bytes]:
        rng = random.Random(1)
        for i in range(8_000):
            yield predicted(prediction(i, features=CHANGES[metric](i >= 5_000, rng)))

    _, alerts = story(DetectSettings(), records())
    noticed = [alert for alert in alerts if alert.metric == metric]
    assert [(a.status, a.direction, a.kind) for a in noticed] == [(Status.FIRING, "up", Kind.DATA_QUALITY)]
    assert 5_000 <= noticed[0].position.offset < 5_800


LAWS: dict[str, Callable[[random.Random], Any]] = {
    "uniform": lambda rng: rng.random(),
    "normal": lambda rng: rng.gauss(0, 1),
    "lognormal": lambda rng: rng.lognormvariate(0, 1),
    "Cauchy": lambda rng: rng.gauss(0, 1) / rng.gauss(0, 1),
    "power law of categories": lambda rng: f"c{int(rng.paretovariate(1.5))}",
}


@pytest.mark.parametrize("law", LAWS)
def test_what_the_reference_happened_not_to_show_raises_no_alert(law: str) -> None:
    rng = random.Random(3)
    records = [predicted(prediction(i, features={"x": LAWS[law](rng)})) for i in range(15_000)]
    monitor, alerts = run(DetectSettings(default=NEW), records)
    assert alerts == []
    assert monitor.counters["streams"] == (law in ("lognormal", "Cauchy", "power law of categories"))


def test_what_was_saved_goes_on_the_same() -> None:
    rng = random.Random(4)
    events = [
        {"features": {"town": rng.choice("AAAAAAAB") if i < 150 else rng.choice("AAZ"), "age": rng.gauss(0, 1 if i < 150 else 3)}}
        for i in range(300)
    ]
    for cut in (0, 1, 99, 100, 101, 149, 160, 299):
        whole = scope()
        feed(whole, events[:cut])
        again = Scope(whole.plan, None)
        again.restore(orjson.loads(orjson.dumps(whole.state())))
        for of in (whole, again):
            feed(of, events[cut:])
        assert again.state() == whole.state()
        assert sum(isinstance(stream, Stream) for stream in again.streams()) == 4
