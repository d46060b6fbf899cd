"""What comes after an alarm: an episode is followed to its end, and its level and end are remembered."""

from __future__ import annotations

import random

import orjson
import pytest

from stream_monitor.core.aftermath import FEW, LEVELS, Aftermath
from stream_monitor.core.alerting import Subject
from stream_monitor.core.events import Kind, Status
from stream_monitor.core.laws import BITS
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.streams import BinaryStream, Stream
from tests.core.test_alerting import ALL, bits, feed, stream
from tests.support.observations import desk


def cooling(cool_down: int) -> Stream:
    subject = Subject.of("credit", "v3", None, "error", Kind.CONCEPT_DRIFT, 0.1, 0.5, cool_down=cool_down)
    return BinaryStream(subject, ALL, DetectSettings(), desk())


def test_after_an_alert_is_resolved_there_is_no_other_one_before_the_cool_down_is_over() -> None:
    values = bits(5_000, 0.1) + bits(3_000, 0.3, 2) + bits(2_000, 0.1, 3) + bits(1_000, 0.3, 4) + bits(3_000, 0.1, 5)
    assert [a.status for a in feed(cooling(0), values)] == [Status.FIRING, Status.RESOLVED] * 2
    of = cooling(4_000_000)
    first, resolved, *later = feed(of, values)
    assert (first.status, resolved.status) == (Status.FIRING, Status.RESOLVED)
    assert all(alert.detected_at >= resolved.detected_at + 4_000_000 for alert in later)
    assert of.desk.counts["alerts_cooled_down"] > 0


def test_what_lasts_longer_than_the_cool_down_is_told_when_that_is_over() -> None:
    of = cooling(1_500_000)  # 1,500 values
    values = bits(5_000, 0.1) + bits(3_000, 0.3, 2) + bits(1_000, 0.1, 3) + bits(4_000, 0.3, 4)
    _, resolved, again = feed(of, values)
    assert 0 <= again.detected_at - resolved.detected_at - 1_500_000 < 1_000_000
    assert again.status is Status.FIRING


def test_no_more_than_a_few_levels_are_remembered_and_they_outlive_a_restart() -> None:
    of, rng = stream(numeric=True), random.Random(1)
    for i, level in enumerate((0, 10, 0, -20, 0, 40, 0, -80, 0, 160, 0)):
        feed(of, [rng.gauss(level, 1) for _ in range(3_000)], i * 3_000)
    assert len(of.aftermath.levels) == LEVELS
    other = stream(numeric=True)
    other.restore(orjson.loads(orjson.dumps(of.state())))
    assert other.aftermath.levels == of.aftermath.levels


@pytest.mark.parametrize(
    ("count", "ones", "known"),
    [
        (FEW - 1, 8, None),
        (100, 12, None),
        (100, 28, {"since": 7, "times": 3}),
        (100, 60, None),
    ],
    ids=["too few values", "on its way back", "a level of before", "a new level"],
)
def test_a_level_is_known_again_once_there_are_enough_values_and_it_is_near(count: int, ones: int, known: dict[str, int] | None) -> None:
    of = stream()
    feed(of, bits(5_000, 0.1) + bits(500, 0.3, 2))
    assert of.episode is not None
    of.aftermath.levels = [[0.3, 7, 2, False], [0.3, 1, 9, True]]
    assert of.aftermath.settle(of.episode, count, ones) == known


def test_only_distributions_are_compared() -> None:
    def compares(kind: Kind) -> bool:
        return Aftermath(Subject.of("m", "v", None, "x", kind, 0.1, 0.5), BITS, DetectSettings(), desk()).compares

    assert [kind for kind in Kind if compares(kind)] == [Kind.DATA_DRIFT, Kind.PREDICTION_DRIFT]
