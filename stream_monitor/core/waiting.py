"""What waits for maturity, in order: a queue by prediction time, then offset.

Tens of thousands wait, dated all over the time that labels take, and each is put in once and taken out once. A heap compares each with
some fifteen others that lie anywhere in memory. So the time is cut into pages, as in a calendar (Brown, 1988): what comes is put on its
page, in no order, and a page is sorted when its turn comes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Final

from stream_monitor.core.outcome import Outcome

_TAKEN: Final = 1_000  # outcomes that a page still holds after they were taken, about


class Waiting:
    """The outcomes that wait. `width`: ms a page; any gives the same order, and one that holds a hundred or so is the quickest."""

    __slots__ = ("_at", "_count", "_first", "_order", "_page", "_pages", "width")

    def __init__(self, width: int, outcomes: Iterable[Outcome] = ()) -> None:
        self.width = width
        self._first: list[Outcome] = []  # the page whose turn it is, sorted; with all that came later and belongs before the others
        self._at = 0  # how many of these have been taken
        self._page: int | None = None  # which it is
        self._pages: dict[int, list[Outcome]] = {}  # those after it
        self._order: list[int] = []  # a heap of these
        self._count = 0
        for one in outcomes:
            self.add(one)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Outcome]:
        """All, in no order."""
        yield from self._first[self._at :]
        for page in self._pages.values():
            yield from page

    def add(self, one: Outcome) -> None:
        """One more waits, whenever it is dated."""
        self._count += 1
        page = one.time // self.width
        if self._page is not None and page <= self._page:
            insort(self._first, one, self._at)
        elif page in self._pages:
            self._pages[page].append(one)
        else:
            self._pages[page] = [one]
            heappush(self._order, page)

    def until(self, time: int) -> list[Outcome]:
        """Takes those dated up to `time` (ms), in order."""
        taken: list[Outcome] = []
        while True:
            first, at = self._first, self._at
            while at < len(first) and first[at].time <= time:
                taken.append(first[at])
                at += 1
            if at > _TAKEN:
                del first[:at]
                at = 0
            self._at = at
            if at < len(first) or not self._order or self._order[0] * self.width > time:
                self._count -= len(taken)
                return taken
            self._turn()

    def first(self) -> Outcome:
        """Takes the first of all. Raises IndexError where none waits."""
        if self._at == len(self._first):
            self._turn()
        self._at += 1
        self._count -= 1
        return self._first[self._at - 1]

    def _turn(self) -> None:
        """The page is used up; the next one."""
        self._page = heappop(self._order)
        self._first, self._at = self._pages.pop(self._page), 0
        self._first.sort()
