"""What marks say of a stream's past at an alarm."""

from __future__ import annotations

from array import array
from math import inf
from typing import Any

import pytest

from stream_monitor.core.history import WIDTH, History
from stream_monitor.core.laws import BITS, SCORES, Law
from stream_monitor.core.streams import MARK_EVERY


def history(values: list[float], law: Law = BITS, part: float = 1.0, every: int = MARK_EVERY) -> History:
    """Of values a second apart, with a mark before each 25th."""
    marks, total, squares = array("d"), 0.0, 0.0
    for i, x in enumerate(values):
        if i % every == 0:
            marks.extend((i, total, total, 1_000 * i, i, squares))
        total, squares = total + x, squares + x * x
    return History(law, marks, len(values), total, total, squares, part)


STEP = [0.0, 0, 0, 0, 1] * 100 + [0.0, 1] * 50
LOUD = [1.0, -1] * 250 + [3.0, -3] * 50


def test_the_change_is_at_the_mark_after_which_values_are_different() -> None:
    past = history(STEP)
    split = past.split(False)
    assert split is not None
    assert past.marks[split] == 500
    before, after = past.means(split)
    assert ((before.value, before.count), (after.value, after.count)) == ((0.2, 500), (0.5, 100))
    assert past.since(split) == (100, 50)
    assert past.pace(split) == 1e-3
    change = past.change(split, False, 600_000, 600)
    assert (change.time, change.offset, change.before.value, change.after.value) == (500_000, 500, 0.2, 0.5)
    assert change.effect == pytest.approx(0.3 / 0.4, rel=0.01)
    assert change.span is not None
    assert change.span.earliest_offset <= 500 <= change.span.latest_offset < 600


def test_a_spread_changes_where_squares_do() -> None:
    past = history(LOUD, SCORES)
    split = past.split(True)
    assert split is not None
    assert past.marks[split] == 500
    change = past.change(split, True, 600_000, 600)
    assert (change.before.value, change.after.value, change.effect, change.spread) == (1.0, 3.0, 2.0, True)
    assert past.noise(split, True) == (2.0, 2 * 9.0**2)


def test_the_first_mark_has_nothing_before_it_and_no_marks_say_nothing() -> None:
    assert history(STEP).evidence(False)[0] == -inf
    assert history([0] * 20).split(False) is None
    assert history([]).split(True) is None


def test_values_that_depend_on_each_other_say_less() -> None:
    whole, part = history(STEP).evidence(False), history(STEP, part=0.5).evidence(False)
    assert part[1:] == [one / 2 for one in whole[1:]]


def test_blocks_lie_between_the_marks_and_hold_all_values() -> None:
    past = history(STEP)
    blocks = past.blocks(False)
    assert len(blocks) == len(past.marks) // WIDTH + 1
    assert (sum(block.size for block in blocks), sum(block.total for block in blocks)) == (past.count, past.total)
    split = past.split(False)
    assert split is not None
    assert blocks[past.block(split)].offset == past.marks[split + 4]


def test_evidence_is_taken_once_for_the_mean_and_once_for_the_spread() -> None:
    class Counted(type(SCORES)):  # type: ignore[misc]
        asked = 0

        def likelihood(self, count: float, total: float) -> float:
            Counted.asked += 1
            return super().likelihood(count, total)  # type: ignore[no-any-return]

    law: Any = Counted()
    past = history(LOUD, law)
    split = past.split(False)
    asked = Counted.asked
    assert split is not None
    assert asked > 0
    past.change(split, False, 600_000, 600)
    past.split(True)
    past.change(split, True, 600_000, 600)
    assert Counted.asked == asked
