"""A categorical quantity as a whole, as a specification: which changes of its shares are seen, what is told of them, what is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any

import orjson
import pytest

from stream_monitor.core.alerting import Desk, Event
from stream_monitor.core.categories import category_of
from stream_monitor.core.events import Alert, Kind, Status
from stream_monitor.core.mixes import Mix, MixStream
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import AlertBudget, DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room
from tests.support.observations import START, STEP, desk, predicted, prediction, run

NAMES = "abcdefghijklmnopqrst"
SETTINGS = DetectSettings(alert_budget=AlertBudget(3, 86_400_000))


class Watched:
    """A mix with the warm-up before it."""

    def __init__(self, at: Desk, name: str = "device") -> None:
        plan = Plan("credit", "v3", MonitorSettings(), SETTINGS, at, Room(10))
        self.at = at
        self.mix = Mix(partial(plan.numeric_of, MixStream, None, f"feature:{name}", Kind.DATA_DRIFT))
        self.tally: dict[Any, int] = {}
        self.count = 0
        self.lives = True

    def take(self, value: Any, unit: int, i: int) -> None:
        key = category_of(value)
        self.count += 1
        if self.count > SETTINGS.warmup:
            if self.lives:
                self.mix.take(key, unit, START + i * STEP, i)
            return
        self.tally[key] = self.tally.get(key, 0) + 1
        if self.count == SETTINGS.warmup:
            self.lives = self.mix.settle(self.tally, self.count)

    def feed(self, values: Sequence[Any]) -> list[Alert]:
        """The alerts."""
        for i, value in enumerate(values, self.count):
            self.at.move(START + i * STEP)
            self.take(value, random.Random(i).getrandbits(64), i)
        out, self.at.out = self.at.out, []
        return out


def watched() -> Watched:
    return Watched(desk(SETTINGS.alert_budget))


def drawn(count: int, weights: Sequence[float], seed: int, names: Sequence[Any] = NAMES) -> list[Any]:
    return random.Random(seed).choices(names, weights, k=count)


EVEN = [1.0] * 20
SPREAD = [1.3 if i % 2 else 0.7 for i in range(20)]
SWAP = [1.0] * 18 + [2.0, 0.0]


def test_a_shift_that_is_small_for_each_category_is_told_with_the_shares_that_moved_most() -> None:
    [alert] = watched().feed(drawn(12_000, EVEN, 1) + drawn(4_000, SPREAD, 2))
    assert alert.status is Status.FIRING
    assert (alert.metric, alert.kind, alert.slice, alert.assurance) == ("feature:device", Kind.DATA_DRIFT, None, "calibrated")
    assert 12_000 < alert.position.offset < 14_500
    assert alert.first_position.offset == pytest.approx(12_000, abs=600)
    assert alert.details["effect"] == pytest.approx(0.3, abs=0.12), "w is .3"
    shares = alert.details["shares"]
    assert len(shares) == 5
    moves = [one["after"] - one["before"] for one in shares]
    assert moves == sorted(moves, key=abs, reverse=True)
    for one in shares:
        assert one["before"] == pytest.approx(0.05, abs=0.008)
        assert (one["after"] > one["before"]) == bool(NAMES.index(one["category"]) % 2)
    said = ", ".join(f"{one['category']} {one['before']:.3g} -> {one['after']:.3g}" for one in shares[:3])
    assert alert.summary == f"credit v3: feature device: shares moved: {said} (since 2024-03-05 12:20 UTC)"


def test_effects_are_those_of_all_categories() -> None:
    alerts = watched().feed(drawn(12_000, EVEN, 1) + drawn(12_000, SPREAD, 2))
    fired, updated = alerts
    assert (fired.status, updated.status) == (Status.FIRING, Status.UPDATED)
    for alert in alerts:
        effects = alert.details["effects"]
        assert effects["psi"] > 2 * effects["psi_by_chance"]
        assert effects["bins"] == 20
        assert effects["reference_count"] + effects["count"] <= 24_000
    exact = sum(0.05 * (s - 1) * (sqrt(s) - 1) * 2 for s in SPREAD)  # (q - p) log(q/p), about
    assert updated.details["effects"]["psi"] == pytest.approx(exact, abs=0.03)
    assert updated.details["shape"] == "sudden"
    assert updated.details["effect"] == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("weights", "names"),
    [(SWAP, NAMES), ([1.0] * 20 + [1.0], NAMES + "z"), ([2.0] * 3 + [1.0] * 17, NAMES)],
    ids=["a swap between two equally frequent", "one that is new", "some grow"],
)
def test_whatever_the_direction_it_is_seen(weights: list[float], names: str) -> None:
    alerts = watched().feed(drawn(12_000, EVEN, 1) + drawn(5_000, weights, 2, names))
    assert [alert.status for alert in alerts] == [Status.FIRING]
    assert alerts[0].position.offset > 12_000


def test_it_lasts_as_long_as_the_change_and_is_over_with_it() -> None:
    alerts = watched().feed(drawn(10_000, EVEN, 1) + drawn(20_000, SPREAD, 2) + drawn(6_000, EVEN, 3))
    assert [alert.status for alert in alerts] == [Status.FIRING, Status.UPDATED, Status.RESOLVED]
    assert 30_000 < alerts[-1].position.offset < 33_500
    assert alerts[-1].summary.startswith("credit v3: feature device: shares are as they were before (had moved: ")


def test_false_alerts_keep_to_the_budget() -> None:
    """30 features of 3 to 20 categories, alike and not, 25,000 values each; 8 false alerts are allowed."""
    at = desk(AlertBudget(8, 25_000 * STEP))
    rng = random.Random(4)
    mixes = [Watched(at, str(i)) for i in range(30)]
    values = [drawn(25_000, [1 / (1 + (i % 3) * j) for j in range(k)], i, NAMES[:k]) for i, k in enumerate(rng.choices(range(3, 21), k=30))]
    for i in range(25_000):
        at.move(START + i * STEP)
        for one, codes in zip(mixes, values, strict=True):
            one.take(codes[i], rng.getrandbits(53), i)
    fired = [alert for alert in at.out if alert.status is Status.FIRING]
    assert len(fired) <= 8 + 2.5 * 8**0.5
    assert all(stream.judged or stream.episode for one in mixes for stream in one.mix.streams())


@pytest.mark.parametrize(
    "values",
    [[True, False] * 2_500, [f"user {i}" for i in range(5_000)], ["a"] * 5_000],
    ids=["two categories", "as many as values", "one"],
)
def test_where_there_are_fewer_than_three_categories_that_count_there_is_no_such_stream(values: list[Any]) -> None:
    of = watched()
    assert of.feed(values) == []
    assert list(of.mix.streams()) == []
    assert len(orjson.dumps(of.mix.state())) < 200


def test_what_it_keeps_does_not_grow_with_the_number_of_categories() -> None:
    of = watched()
    of.feed([f"user {i}" if i % 2 else NAMES[i // 2 % 20] for i in range(2_000)])
    [stream] = of.mix.streams()
    assert sorted(stream.names) == [*NAMES[:15], "other", *NAMES[15:]]
    of.feed([f"user {i}" for i in range(20_000)])
    before = len(orjson.dumps(of.mix.state()))
    of.feed([f"user {i}" for i in range(20_000, 60_000)])
    assert len(orjson.dumps(of.mix.state())) < 1.5 * before


def test_what_an_operator_ends_is_the_reference_from_then_on() -> None:
    of = watched()
    assert len(of.feed(drawn(12_000, EVEN, 1) + drawn(4_000, SPREAD, 2))) == 1
    [stream] = of.mix.streams()
    stream.end(Event.OPERATOR, of.count)
    assert [alert.status for alert in of.feed(drawn(20_000, SPREAD, 3))] == [Status.RESOLVED]
    assert stream.judged
    [alert] = of.feed(drawn(4_000, EVEN, 4))
    assert alert.details["effect"] == pytest.approx(0.3, abs=0.12)


@pytest.fixture(scope="module")
def story() -> tuple[DetectSettings, list[bytes], list[bytes]]:
    """Settings, a log in which shares move and come back, and the alerts of it."""
    values = [*drawn(10_000, EVEN, 1), *drawn(11_000, SPREAD, 2), *drawn(4_000, EVEN, 3)]
    some = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("feature:device",), detectors=SETTINGS.default.detectors[:1]))
    alerts = run(some, log(values))[1]
    assert {alert.status for alert in alerts if alert.metric == "feature:device"} == {Status.FIRING, Status.UPDATED, Status.RESOLVED}
    return some, log(values), [publish(alert)[1] for alert in alerts]


@pytest.mark.parametrize("cut", [1_000, 5_025, 10_700, 22_000])
def test_a_restored_one_goes_on_as_the_saved_one(cut: int, story: tuple[DetectSettings, list[bytes], list[bytes]]) -> None:
    some, whole, expected = story
    monitor, before = run(some, whole[:cut])
    restored = Monitor.restore(some, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
    assert restored.snapshot() == monitor.snapshot()
    _, after = run(some, whole[cut:], restored)
    assert [publish(alert)[1] for alert in before + after] == expected


def log(values: Sequence[Any], version: Callable[[int], str] = lambda i: "v3") -> list[bytes]:
    return [predicted(prediction(i, features={"device": value}, model_version=version(i))) for i, value in enumerate(values)]


def test_classes_are_watched_as_a_whole_too() -> None:
    answers = drawn(10_000, EVEN, 1) + drawn(4_000, SPREAD, 2)
    some = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("prediction",)))
    _, alerts = run(some, [predicted(prediction(i, prediction=answer)) for i, answer in enumerate(answers)])
    [alert] = [a for a in alerts if a.metric == "prediction"]
    assert alert.kind is Kind.PREDICTION_DRIFT
    assert alert.summary.startswith("credit v3: prediction: shares moved: ")


def test_a_new_version_may_begin_with_the_reference_of_the_one_before() -> None:
    """It is judged from its first window on, against shares that it never had."""
    values = drawn(12_000, EVEN, 1) + drawn(2_500, SPREAD, 2)
    own, previous = (
        DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("feature:device",), new_version=new)) for new in ("own", "previous")
    )
    records = log(values, lambda i: "v3" if i < 12_000 else "v4")
    assert [a for a in run(own, records)[1] if a.metric == "feature:device"] == []
    [alert] = [a for a in run(previous, records)[1] if a.metric == "feature:device"]
    assert (alert.model_version, alert.details["reference"]) == ("v4", "version v3")
    assert all(one["before"] == pytest.approx(0.05, abs=0.008) for one in alert.details["shares"])


def test_names_of_categories_do_no_harm() -> None:
    names = ["\x00", "\x1b[2J", "=", "other", '"other"', "1", "x" * 10_000, "\u202e"]
    [alert, *_] = watched().feed(drawn(9_000, [1] * 8, 1, names) + drawn(3_000, [3, 1, 1, 3, 1, 1, 3, 1], 2, names))
    assert alert.summary.isprintable()
    assert len(alert.summary) < 500
    assert orjson.loads(publish(alert)[1])["details"]["shares"] == alert.details["shares"]
