"""What waits leaves by prediction time and offset, however wide the pages are that it lies on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.outcome import Outcome
from stream_monitor.core.waiting import Waiting

Step = tuple[str, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-5, 60)),
        st.tuples(st.just("until"), st.integers(-5, 60)),
        st.tuples(st.just("first"), st.just(0)),
    ),
    max_size=120,
)


def one(time: int, offset: int) -> Outcome:
    return Outcome(time, offset, "yes", "no", f"r{offset}", None)


@given(steps=steps, width=st.sampled_from((1, 7, 1_000, 1 << 63)))
def test_it_is_a_sorted_list(steps: list[Step], width: int) -> None:
    waiting, model = Waiting(width), list[Outcome]()
    for offset, (step, time) in enumerate(steps):
        if step == "add":
            waiting.add(one(time, offset))
            model = sorted([*model, one(time, offset)])
        elif step == "until":
            assert waiting.until(time) == [o for o in model if o.time <= time]
            model = [o for o in model if o.time > time]
        elif model:
            assert waiting.first() == model.pop(0)
        assert len(waiting) == len(model)
        assert sorted(waiting) == model


def test_where_none_waits_there_is_no_first() -> None:
    with pytest.raises(IndexError):
        Waiting(10).first()


@pytest.mark.parametrize("width", [1_000, 1 << 63])
def test_what_was_taken_is_let_go_of_before_its_page_is_used_up(width: int) -> None:
    waiting = Waiting(width)
    for offset in range(50_000):
        waiting.add(one(offset // 100, offset))
        assert len(waiting.until(offset // 100 - 2)) <= 100
    held: Any = waiting._first
    assert len(waiting) <= 300
    assert len(held) < 1_500


def test_it_begins_with_what_another_one_held() -> None:
    old = Waiting(1 << 63, (one(time, offset) for offset, time in enumerate((5, 3, 9, 4))))
    assert [o.time for o in old.until(3)] == [3]
    assert [o.time for o in Waiting(2, old).until(100)] == [4, 5, 9]
