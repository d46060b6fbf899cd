"""Reads several partitions side by side in time: the one that is furthest behind goes first.

A reader that catches up gets its partitions in large pieces: a minute of one, then the same minute of the next. Handed on like that,
labels would seem to come late by whole pieces. So records wait in here until every partition has given some, and leave in the
order of their times. They wait `grace` seconds for partitions that were read to their end (what was written together becomes visible one
partition after the other), `patience` seconds for those that have more to give. It aligns and never decides: what leaves, leaves in
its partition's order, and never waits for ever.

To be cheap, a run of records has one time, the median of those of its first, middle and last record, so that no single wrong time
misleads; a record without a usable time says 0 and does not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

from stream_monitor.core.records import Record, pieces

RUN = 32  # records, or a few more: what has one offset leaves together

Place = tuple[str, int]


class Run(NamedTuple):
    """Consecutive records of one partition, up to the offset `end`. `time` in ms; `since`: when it came in, in seconds; `weight`: bytes."""

    time: int
    place: Place
    end: int
    records: Sequence[Record]
    since: float
    weight: int = 0


class Alignment:
    """The runs that wait. `held`, `weight`: how many records they hold, and bytes of values. `now` is in seconds, of a clock that never
    goes back."""

    def __init__(self, time_of: Callable[[str, Record], int], grace: float, patience: float) -> None:
        self.held = self.weight = 0
        self._grace = grace
        self._patience = patience
        self._time_of = time_of
        self._runs: dict[Place, deque[Run]] = {}
        self._times: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}  # records held of each
        self._open: set[Place] = set()  # may have more to give at once

    def add(self, place: Place) -> None:
        """A partition is read from now on."""
        self.drop(place)
        self._runs[place] = deque()
        self._times[place] = self._counts[place] = 0
        self._open.add(place)

    def drop(self, place: Place) -> None:
        """Forgets a partition and what it holds."""
        gone = self._runs.pop(place, ())
        self.held -= self._counts.pop(place, 0)
        self.weight -= sum(run.weight for run in gone)
        self._times.pop(place, None)
        self._open.discard(place)

    def put(self, place: Place, records: Sequence[Record], now: float) -> None:
        """The next records of a partition."""
        runs, time = self._runs.get(place), self._times.get(place, 0)
        if runs is None:
            return
        time_of, topic = self._time_of, place[0]
        for part in pieces(records, RUN):
            times = sorted(time_of(topic, part[i]) for i in (0, len(part) // 2, -1))
            time = times[1] or times[2] or time
            weight = sum([len(record.value or b"") for record in part])
            runs.append(Run(time, place, part[-1].offset + 1, part, now, weight))
            self.weight += weight
        self._times[place] = time
        self.held += len(records)
        self._counts[place] += len(records)
        self._open.add(place)

    def end(self, place: Place, offset: int, now: float) -> None:
        """The reader is at the end of a partition, whose next offset is `offset`."""
        runs = self._runs.get(place)
        if runs is not None:
            runs.append(Run(self._times[place], place, offset, (), now))
            self._open.discard(place)

    def suffices(self, most: int) -> bool:
        """Whether `take` would likely hand out so many as it is: the partitions that may have more to give all hold their part."""
        counts = [self._counts[place] for place in self._open]
        return min(counts) * len(counts) >= most if counts else self.held >= most

    def take(self, most: int, now: float) -> list[Run]:
        """Runs of `most` records or a few more, in the order of their times, as far as they need not wait."""
        came = [runs[0].since for runs in self._runs.values() if runs]
        if not came:
            return []
        age = now - min(came)
        awaited = self._runs.keys() if age < self._grace else self._open if age < self._patience else ()
        if any(not self._runs[place] for place in awaited):
            return []
        heads = [(runs[0].time, place) for place, runs in self._runs.items() if runs]
        heapify(heads)
        taken: list[Run] = []
        count = 0
        while heads and count < most:
            place = heads[0][1]
            runs = self._runs[place]
            run = runs.popleft()
            taken.append(run)
            count += len(run.records)
            self._counts[place] -= len(run.records)
            self.weight -= run.weight
            if runs:
                heapreplace(heads, (runs[0].time, place))
            else:
                heappop(heads)
                if place in awaited:
                    break
        self.held -= count
        return taken


def by_time(parts: Iterable[tuple[Sequence[Record], Sequence[tuple[int, int]]]]) -> list[tuple[int, Sequence[Record]]]:
    """What partitions handed out together, in the order of time: (index of the partition, records).

    Each is its records and its runs as (time, number of records); without runs it is one piece, which goes first.
    """
    pieces: list[tuple[int, int, Sequence[Record]]] = []
    for index, (records, runs) in enumerate(parts):
        at = time = 0
        for run_time, count in runs or ((0, len(records)),):
            time = max(time, run_time)  # a partition keeps its order
            if count:
                pieces.append((time, index, records[at : at + count]))
            at += count
    pieces.sort(key=_time)  # stable
    return [(index, records) for _, index, records in pieces]


def _time(piece: tuple[int, int, Sequence[Record]]) -> int:
    return piece[0]
