"""What differs between bits and scores."""

from __future__ import annotations

import pytest

from stream_monitor.core.change import of_bits, of_shift
from stream_monitor.core.intervals import LUCK, Blocks, of_share
from stream_monitor.core.laws import BITS, SCORES
from tests.core.test_history import LOUD, STEP, history


def test_bits_vary_as_much_as_their_share_says_and_scores_by_one() -> None:
    assert BITS.deviation(99, 49.5) == pytest.approx(0.5)
    assert 0 < BITS.deviation(100, 0) < 0.1, "none yet is not never"
    assert SCORES.deviation(100, 7.0) == 1.0


def test_each_has_its_likelihood() -> None:
    assert (BITS.likelihood(10, 3), SCORES.likelihood(10, 3)) == (of_bits(10, 3), of_shift(10, 3))


def test_of_a_change_the_larger_spread_of_the_two_sides_counts() -> None:
    past = history(STEP)
    split = 20 * 6
    assert BITS.spread(past, split) == 0.5 > BITS.deviation(500, 100)


def test_levels_of_bits_have_wilsons_interval_and_those_of_scores_one_from_their_blocks() -> None:
    past = history(STEP)
    assert BITS.levels(past, 20 * 6) == (of_share(100, 500), of_share(50, 100, LUCK))
    before, after = SCORES.levels(history([x + i % 25 for i, x in enumerate(LOUD)], SCORES), 20 * 6)
    for level in (before, after):
        assert level.low is not None
        assert level.high is not None
        assert level.low <= level.value <= level.high
    assert (before.count, after.count) == (500, 100)


def test_the_level_of_a_spread_is_a_root() -> None:
    blocks = Blocks.of([(100, 900.0)])
    assert SCORES.level_of(blocks, True).value == 3.0
    assert SCORES.level_of(blocks, False).value == 9.0
