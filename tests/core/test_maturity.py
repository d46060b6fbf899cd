"""Outcomes are handed on in the order of their predictions, when these are mature; late ones are counted."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.core.maturity import AWAITED, Clock, LabelClock, Maturity
from stream_monitor.core.outcome import Outcome

HOUR = 3_600_000


def one(time: int, offset: int) -> Outcome:
    return Outcome(time, offset, "yes", "no", f"r{offset}", None)


def make(wait: int | None = 100, sample: int = 500, limit: int = 1_000) -> Maturity:
    return Maturity(wait, 0.95, sample, limit, LabelClock(HOUR))


def feed(maturity: Maturity, arrivals: list[tuple[int, int]]) -> list[Outcome]:
    """Arrivals are (prediction time, feedback time) in the order of the log."""
    out: list[Outcome] = []
    for offset, (time, labelled) in enumerate(arrivals):
        out += maturity.take(one(time, offset), labelled)
    return out


def test_an_outcome_waits_until_the_clock_has_passed_its_maturity() -> None:
    maturity = make(wait=100)
    assert maturity.take(one(1_000, 0), 1_010) == []
    assert maturity.take(one(1_090, 1), 1_099) == []
    assert [o.offset for o in maturity.take(one(1_095, 2), 1_100)] == [0]


def test_outcomes_leave_in_the_order_of_their_predictions() -> None:
    rng = random.Random(1)
    arrivals = [(t * 10, t * 10 + rng.randrange(90)) for t in range(2_000)]
    arrivals.sort(key=lambda a: a[1])
    out = feed(make(wait=100), arrivals)
    assert len(out) > 1_900
    assert [o.time for o in out] == sorted(o.time for o in out)


def test_what_comes_after_its_turn_is_counted_and_not_handed_on() -> None:
    maturity = make(wait=100)
    out = feed(maturity, [(1_000, 1_010), (2_000, 2_010), (1_500, 2_020)])
    assert [o.offset for o in out] == [0]
    assert maturity.late == 1


def test_with_a_constant_delay_nothing_is_late() -> None:
    maturity = make(wait=None)
    out = feed(maturity, [(t * 10, t * 10 + 3_000) for t in range(5_000)])
    assert maturity.wait == 3_000
    assert maturity.late == 0
    assert len(out) == 5_000


def test_the_wait_is_the_quantile_of_the_first_delays_and_then_stays() -> None:
    rng = random.Random(2)
    maturity = make(wait=None)
    feed(maturity, sorted(((t * 100, t * 100 + rng.randrange(1_000)) for t in range(500)), key=lambda a: a[1]))
    learnt = maturity.wait
    assert learnt is not None
    assert 900 < learnt < 1_000
    feed(maturity, [(60_000 + t * 100, 60_000 + t * 100 + 5) for t in range(2_000)])
    assert maturity.wait == learnt


def test_the_short_delays_that_are_seen_first_do_not_settle_the_wait() -> None:
    rng = random.Random(3)
    month = 30 * 24 * HOUR
    arrivals = [(t * month // 10_000, t * month // 10_000 + rng.randrange(month)) for t in range(40_000)]
    arrivals.sort(key=lambda a: a[1])
    maturity = make(wait=None, limit=100_000)
    feed(maturity, arrivals)
    assert maturity.wait is not None
    assert 0.8 * month < maturity.wait <= month
    assert maturity.late < 0.2 * len(arrivals)


def test_a_wait_that_has_become_too_short_is_learnt_anew() -> None:
    maturity = make(wait=None)
    fast = [(t * 10, t * 10 + 100) for t in range(2_000)]
    slow = sorted(((20_000 + t * 10, 20_000 + t * 10 + (5_000 if t % 4 else 0)) for t in range(6_000)), key=lambda a: a[1])
    feed(maturity, fast + slow)
    assert maturity.wait == 5_000
    assert maturity.late < 1_000


def test_past_the_bound_the_oldest_go_first_and_stay_in_order() -> None:
    maturity = make(wait=10**9, limit=10)
    out = feed(maturity, [(t, t) for t in range(100)])
    assert [o.time for o in out] == list(range(90))
    assert maturity.early == 90
    assert maturity.take(one(5, 100), 100) == []
    assert maturity.late == 1


def test_a_wait_of_zero_takes_outcomes_as_they_come() -> None:
    maturity = make(wait=0)
    assert [o.offset for o in feed(maturity, [(1_000, 5_000), (500, 600), (2_000, 2_000)])] == [0, 1, 2]
    assert maturity.late == 0


arrivals_ = st.lists(
    st.tuples(st.integers(0, 3_000), st.integers(-50, 800), st.integers(0, 2), st.booleans()), max_size=120
)  # prediction time, delay, partition of the journal, whether it is of another version, which has the same label clock


@given(arrivals_, st.sampled_from([None, 0, 50, 300]), st.integers(1, 60), st.integers(1, 30), st.integers(0, 120), st.booleans())
def test_cut_anywhere_and_restored_nothing_changes(
    pairs: list[tuple[int, int, int, bool]], wait: int | None, limit: int, sample: int, cut: int, waiting: bool
) -> None:
    arrivals = [
        (offset, time, max(0, time + delay), (partition, 3), others) for offset, (time, delay, partition, others) in enumerate(pairs)
    ]

    def outcomes(maturity: Maturity, start: int, end: int) -> Any:
        out = []
        for offset, time, labelled, origin, others in arrivals[start:end]:
            if others:
                maturity.clock.move(labelled, origin)
            else:
                out.append(maturity.take(one(time, offset), labelled, origin))
        return out

    with patch("stream_monitor.core.maturity.AWAITED", 20):  # so that partitions fall silent, and are heard of again
        whole, first = make(wait, sample, limit), make(wait, sample, limit)
        outcomes(whole, 0, cut)
        outcomes(first, 0, cut)
        second = make(wait, sample, limit)
        second.clock.restore(orjson.loads(orjson.dumps(first.clock.state())))
        second.restore(orjson.loads(orjson.dumps(first.state(waiting))))
        if not waiting:
            for offset, time, _, _, others in arrivals[:cut]:
                if not others:
                    second.refill(one(time, offset))
        assert sorted(second.waiting) == sorted(whole.waiting)
        assert outcomes(second, cut, len(arrivals)) == outcomes(whole, cut, len(arrivals))
        assert second.state(True) == whole.state(True)


def test_what_waits_although_another_version_has_moved_the_clock_is_put_back() -> None:
    first = make(wait=100)
    first.take(one(1_000, 0), 1_050)
    first.clock.move(2_000)
    second = make(wait=100)
    second.clock.restore(first.clock.state())
    second.restore(first.state(waiting=False))
    second.refill(one(1_000, 0))
    assert list(second.waiting) == list(first.waiting) == [one(1_000, 0)]


def test_the_clock_never_goes_back_and_once_settled_moves_a_step_a_record() -> None:
    clock = Clock(HOUR)
    assert clock.move(10**12) == 10**12
    assert clock.move(10**12 - 5) == 10**12
    for _ in range(200):
        clock.move(10**12)
    assert clock.move(10**13) == 10**12 + HOUR


def test_one_wrong_time_at_the_start_does_not_hold_the_clock_back() -> None:
    clock = Clock(HOUR)
    clock.move(0)
    assert clock.move(10**12) == 10**12


@pytest.mark.parametrize("wait", [None, 100])
def test_labels_dated_before_their_predictions_do_no_harm(wait: int | None) -> None:
    out = feed(make(wait, sample=10), [(t * 10, t * 10 - 50) for t in range(1, 200)])
    assert len(out) > 100


def test_an_hour_of_one_partition_may_come_before_the_same_hour_of_the_next_and_nothing_is_late() -> None:
    maturity = make(wait=None, limit=10_000)
    out: list[Outcome] = []
    pieces = [(start, partition) for start in range(0, 20_000, 2_000) for partition in range(4)]
    offset = 0
    for start, partition in pieces:
        for t in range(start, start + 2_000):
            out += maturity.take(one(t * 10, offset), t * 10 + 3_000, (partition, 4))
            offset += 1
    assert maturity.wait == 3_000
    assert (maturity.late, maturity.early) == (0, 0)
    assert len(out) > 70_000
    assert [o.time for o in out] == sorted(o.time for o in out)


def test_the_label_clock_is_that_of_the_partition_furthest_behind_and_tells_nothing_before_all_were_heard_of() -> None:
    clock = LabelClock(HOUR)
    assert clock.move(500, (1, 2)) == 500
    assert clock.now == 0
    clock.move(200, (0, 2))
    assert clock.now == 200
    clock.move(900, (0, 2))
    assert clock.now == 500


def test_a_partition_that_has_fallen_silent_is_not_waited_for_for_ever() -> None:
    clock = LabelClock(HOUR)
    clock.move(10, (0, 2))
    for i in range(AWAITED):
        clock.move(1_000 + i, (1, 2))
    assert clock.now == 1_000 + AWAITED - 1
    clock.move(20, (0, 2))
    assert clock.now == 20


def test_a_restored_label_clock_goes_on_as_the_saved_one() -> None:
    rng = random.Random(3)
    clock, again = LabelClock(HOUR), LabelClock(HOUR)
    for _ in range(300):
        clock.move(rng.randrange(10**6), (rng.randrange(3), 4))
    again.restore(orjson.loads(orjson.dumps(clock.state())))
    for _ in range(300):
        time, origin = rng.randrange(10**7), (rng.randrange(4), 4)
        assert (clock.move(time, origin), clock.now) == (again.move(time, origin), again.now)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3), st.sampled_from([1, 3, 3, 3, 3, 4])), max_size=80))
def test_the_label_clock_shows_the_least_of_the_clocks_that_count(moves: list[tuple[int, int, int]]) -> None:
    clock, clocks, heard = LabelClock(10), dict[int, Clock](), dict[int, int]()
    with patch("stream_monitor.core.maturity.AWAITED", 8):
        for seen, (time, partition, partitions) in enumerate(moves, 1):
            own = clocks.setdefault(partition, Clock(10)).move(time)
            heard[partition] = seen
            counting = [one.now for p, one in clocks.items() if seen <= 8 or seen - heard[p] < 8]
            assert clock.move(time, (partition, partitions)) == own
            assert clock.now == (min(counting) if seen > 8 or len(clocks) >= partitions else 0)
