"""Partitions that are read in large pieces leave side by side in time, each in its own order, and nothing waits for ever."""

from __future__ import annotations

import random

import msgspec
import pytest

from stream_monitor.core.alignment import RUN, Alignment, Place, by_time
from stream_monitor.core.records import Record

A, B = ("t", 0), ("t", 1)


def records(start: int, count: int, time: int = 0, step: int = 1) -> list[Record]:
    return [Record(start + i, time + i * step, b"", b"") for i in range(count)]


def alignment(*places: Place) -> Alignment:
    made = Alignment(lambda topic, record: record.time, grace=1, patience=10)
    for place in places:
        made.add(place)
    return made


def test_a_partition_that_is_ahead_waits_for_the_others() -> None:
    of = alignment(A, B)
    of.put(A, records(0, 100, time=0), 0)
    assert of.take(1_000, 2) == []
    of.put(B, records(0, 100, time=50), 0)
    taken = of.take(1_000, 2)
    assert [run.time for run in taken] == sorted(run.time for run in taken)
    assert {run.place for run in taken} == {A, B}
    assert of.held == 200 - sum(len(run.records) for run in taken)


def test_a_partition_at_its_end_keeps_nobody_waiting() -> None:
    of = alignment(A, B)
    of.put(A, records(0, 100), 0)
    of.end(A, 103, 0)
    of.end(B, 7, 0)
    taken = of.take(1_000, 2)
    assert sum(len(run.records) for run in taken) == 100
    assert {run.place: run.end for run in taken} == {A: 103, B: 7}, "transaction markers at the end are passed"


def test_a_partition_at_its_end_is_waited_for_a_moment_because_it_may_just_not_have_shown_its_new_records() -> None:
    of = alignment(A, B)
    of.end(A, 0, 0)
    of.end(B, 0, 0)
    of.take(1_000, 1)
    of.put(A, records(0, 100), 2)
    assert of.take(1_000, 2.5) == []
    of.put(B, records(0, 100), 2.5)
    assert {run.place for run in of.take(1_000, 2.6)} == {A, B}
    of.put(A, records(100, 100), 3)
    of.end(B, 100, 3)
    assert A in {run.place for run in of.take(1_000, 4)}


def test_nothing_waits_longer_than_the_patience_for_a_partition_that_gives_nothing() -> None:
    of = alignment(A, B)
    of.put(A, records(0, 100), 0)
    assert sum(len(run.records) for run in of.take(1_000, 10)) == 100


def test_it_suffices_where_all_partitions_that_may_have_more_to_give_hold_their_part() -> None:
    of = alignment(A, B)
    of.put(A, records(0, 100), 0)
    assert not of.suffices(100), "nothing of the other, which has to be waited for"
    of.put(B, records(0, 50), 0)
    assert of.suffices(100)
    assert not of.suffices(101)
    of.end(B, 50, 0)
    assert of.suffices(100), "what is read to its end gives no more"
    of.end(A, 100, 0)
    assert of.suffices(150)
    of.take(120, 2)
    assert not of.suffices(100)


def test_no_more_is_handed_out_than_asked_for_but_for_the_rest_of_a_run() -> None:
    of = alignment(A)
    of.put(A, records(0, 1_000), 0)
    assert 100 <= sum(len(run.records) for run in of.take(100, 0)) < 100 + RUN


@pytest.mark.parametrize("seed", range(20))
def test_each_partition_keeps_its_order_and_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    places = [("t", p) for p in range(4)]
    of = alignment(*places)
    given: dict[Place, list[int]] = {place: [] for place in places}
    got: dict[Place, list[int]] = {place: [] for place in places}
    for step in range(200):
        now = step / 20
        place = rng.choice(places)
        if rng.random() < 0.7:
            new = records(len(given[place]), rng.randrange(1, 100), time=rng.randrange(1_000))
            of.put(place, new, now)
            given[place] += [r.offset for r in new]
        else:
            of.end(place, len(given[place]), now)
        for run in of.take(rng.randrange(1, 300), now):
            got[run.place] += [r.offset for r in run.records]
    while of.held:
        for run in of.take(300, 1_000):
            got[run.place] += [r.offset for r in run.records]
    assert got == given


def test_a_partition_that_is_dropped_takes_what_it_held_with_it() -> None:
    of = alignment(A, B)
    of.put(A, records(0, 100), 0)
    of.put(B, records(0, 10), 0)
    of.drop(A)
    of.put(A, records(0, 10), 0)
    assert of.held == 10
    assert {run.place for run in of.take(1_000, 2)} == {B}


def test_it_knows_how_many_bytes_it_holds() -> None:
    of = alignment(A, B)
    of.put(A, [Record(i, i, b"", b"x" * 10) for i in range(100)], 0)
    of.put(B, [Record(i, i, b"", b"x" * 1_000) for i in range(50)], 0)
    assert of.weight == 100 * 10 + 50 * 1_000
    taken = of.take(40, 100)
    assert of.weight == 51_000 - sum(len(record.value) for run in taken for record in run.records)
    of.drop(B)
    of.take(1_000, 100)
    assert (of.held, of.weight) == (0, 0)


def test_what_was_handed_out_together_is_interleaved_by_time() -> None:
    a, b = records(0, 4), records(0, 2)
    assert by_time([(a, [(0, 2), (9, 2)]), (b, [(5, 2)])]) == [(0, a[:2]), (1, b), (0, a[2:])]
    assert by_time([(a, ()), ([], ())]) == [(0, a)]


def test_one_wrong_time_does_not_hold_a_partition_back() -> None:
    of = alignment(A, B)
    wrong = records(0, 320)
    wrong[64] = msgspec.structs.replace(wrong[64], time=10**13)
    of.put(A, wrong, 0)
    of.put(B, records(0, 320), 0)
    times = [run.time for run in of.take(600, 0)]
    assert times == sorted(times)
    assert max(times) < 320


def test_records_without_a_time_go_with_those_before_them() -> None:
    of = alignment(A)
    of.put(A, records(0, RUN, time=500, step=0), 0)
    of.put(A, records(RUN, RUN, time=0, step=0), 0)
    assert [run.time for run in of.take(1_000, 0)] == [500, 500]


def test_a_partition_keeps_its_order_even_where_its_times_go_back() -> None:
    a, b = records(0, 4), records(0, 2)
    assert by_time([(a, [(9, 2), (0, 2)]), (b, [(5, 2)])]) == [(1, b), (0, a[:2]), (0, a[2:])]
