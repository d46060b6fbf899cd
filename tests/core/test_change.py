"""Where a change began: the most likely marks, and as many around them as it takes."""

from __future__ import annotations

import random
from itertools import accumulate
from math import exp

import pytest

from stream_monitor.core.change import likely, of_bits, of_shift, of_spread
from stream_monitor.core.events import Alert
from tests.core.test_alerting import START, bits, feed, stream


def test_the_likelihood_of_bits_adds_up_to_one_over_all_sequences() -> None:
    ways = [1, 4, 6, 4, 1]
    assert sum(n * exp(of_bits(4, ones)) for ones, n in enumerate(ways)) == pytest.approx(1)


def test_scores_speak_for_a_shift_where_their_mean_is_far_from_nothing_and_against_it_where_it_is_near() -> None:
    assert of_shift(100, 50) > 9 > 0 > of_shift(100, 5)
    assert of_shift(100, 50) == of_shift(100, -50)


def test_scores_speak_for_a_spread_where_their_variance_is_not_one() -> None:
    assert of_spread(100, 250) > 15 > 0 > of_spread(100, 105)
    assert of_spread(100, 20) > 15
    assert of_spread(100, 0) > 0, "no spread at all, not an error"


def test_what_is_clear_is_known_to_the_neighbouring_marks() -> None:
    assert likely([100, 125, 150, 175, 200], [0, 0, 100, 0, 0], 210) == (1, 3)


def test_marks_that_say_the_same_count_by_the_values_they_stand_for() -> None:
    assert likely([0, 900, 1_000], [0, 0, 0], 1_001) == (0, 2), "the last mark stands for few values"
    assert likely([0, 25, 50], [0, 0, 0], 10_000) == (1, 3), "and here for nearly all of them"


def test_a_change_after_the_last_mark_lies_between_it_and_the_end() -> None:
    assert likely([25, 50, 75], [-50, -20, 0], 80) == (1, 3)


def test_a_single_mark_leaves_everything_after_it_open() -> None:
    assert likely([1_000], [0], 1_010) == (0, 1)


@pytest.mark.parametrize("numeric", [False, True])
def test_nine_in_ten_intervals_hold_the_truth(numeric: bool) -> None:
    """40 streams of 1,200 values and a change at a place of its own; benchmarks/detection/change.py counts more of them."""
    held, widths = [], []
    for seed in range(40):
        at = 1_200 + seed
        rng = random.Random(seed)
        values = [rng.gauss(0.6 * (i >= at), 1) if numeric else int(rng.random() < (0.4 if i >= at else 0.1)) for i in range(at + 600)]
        alert = feed(stream(numeric), values)[0]
        assert alert.change is not None
        held.append(alert.change.earliest_offset <= at <= alert.change.latest_offset)
        widths.append(alert.change.latest_offset - alert.change.earliest_offset)
    assert sum(held) >= 34
    assert sum(widths) <= 40 * 150, "it says something"


def first(values: list[float]) -> Alert:
    return feed(stream(), values)[0]


def test_the_interval_is_given_in_event_time_and_offsets_around_the_most_likely_place() -> None:
    alert = first(bits(5_000, 0.1) + bits(5_000, 0.3, seed=2))
    span = alert.change
    assert span is not None
    assert span.earliest_offset <= alert.first_position.offset <= span.latest_offset <= alert.position.offset
    assert (span.earliest, span.latest) == (START + span.earliest_offset * 1_000, START + span.latest_offset * 1_000)
    assert span.latest_offset - span.earliest_offset <= 300


def test_values_whose_offsets_are_not_in_order_give_the_lowest_and_the_highest() -> None:
    """Label signals come in the order of the predictions, with the offsets of the records that brought the labels."""
    of = stream()
    values = bits(5_000, 0.1) + bits(5_000, 0.3, seed=2)
    shuffled = [i + random.Random(i).randrange(2_000) for i in range(len(values))]
    for i, (x, offset) in enumerate(zip(values, shuffled, strict=True)):
        of.desk.move(START + i * 1_000)
        of.push(x, random.Random(i).getrandbits(64), START + i * 1_000, offset)
    span = of.desk.out[0].change
    assert span is not None
    assert span.earliest_offset < span.latest_offset
    assert span.earliest <= of.desk.out[0].first_seen <= span.latest


def test_values_that_depend_on_each_other_say_less_so_the_interval_is_wider() -> None:
    def widths(rho: float) -> int:
        total = 0
        for seed in range(6):
            rng = random.Random(seed)
            noise = accumulate((rng.gauss(0, 1) for _ in range(3_000)), lambda z, e: rho * z + (1 - rho * rho) ** 0.5 * e)
            span = feed(stream(numeric=True), [z + 0.8 * (i >= 2_000) for i, z in enumerate(noise)])[0].change
            assert span is not None
            total += span.latest_offset - span.earliest_offset
        return total

    assert widths(0.6) > 2 * widths(0.0)
