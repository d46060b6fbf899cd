"""A stream's past as its marks tell it at an alarm: where a change lies, and what was before and after it.

    before              | mark | mark | mark |    now        six sums a mark (`WIDTH`): count, total, raw, time, offset, squares
    ....................|......|......|......|......

The evidence of a change at each mark (core/change.py) is taken once, for a change of the mean and for one of the spread, when it is first
asked for. Nothing of a stream is changed here, and nothing is kept beyond the alarm.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf, sqrt
from typing import TYPE_CHECKING

from stream_monitor.core import intervals
from stream_monitor.core.alerting import Change
from stream_monitor.core.change import likely, of_spread
from stream_monitor.core.events import Level, Span
from stream_monitor.core.intervals import LUCK
from stream_monitor.core.shape import Block

if TYPE_CHECKING:
    from array import array

    from stream_monitor.core.laws import Law

WIDTH = 6  # numbers a mark
QUICK = 8  # values after a change that hardly any alarm comes before


class History:
    """The `marks` of a stream that has `count` values with these sums (core/streams.py `Stream`). `part`: of a value that counts, where
    values depend on each other."""

    __slots__ = ("_found", "count", "law", "marks", "part", "raw", "squares", "total")

    def __init__(self, law: Law, marks: array[float], count: int, total: float, raw: float, squares: float, part: float = 1.0) -> None:
        self.law = law
        self.marks = marks
        self.count = count
        self.total = total
        self.raw = raw
        self.squares = squares
        self.part = part
        self._found: dict[bool, list[float]] = {}

    def evidence(self, spread: bool) -> list[float]:
        """Of a change at each mark, as a log likelihood. The first mark may have nothing before it."""
        found = self._found.get(spread)
        if found is None:
            found = self._found[spread] = self._evidence(spread)
        return found

    def _evidence(self, spread: bool) -> list[float]:
        marks, count, total, squares, likelihood = self.marks, self.count, self.total, self.squares, self.law.likelihood
        places = [i for i in range(0, len(marks), WIDTH) if marks[i] < count]
        if spread:
            found = [of_spread(count - marks[i], squares - marks[i + 5]) for i in places]
        else:
            found = [likelihood(marks[i], marks[i + 1]) + likelihood(count - marks[i], total - marks[i + 1]) for i in places]
        if self.part != 1.0:  # so much less do values say that depend on each other
            found = [one * self.part for one in found]
        return [-inf if marks[i] < 1 else one for i, one in zip(places, found, strict=True)]

    def split(self, spread: bool) -> int | None:
        """The mark at the most likely change point."""
        evidence = self.evidence(spread)
        best = max(evidence, default=-inf)
        return None if best == -inf else evidence.index(best) * WIDTH

    def span(self, spread: bool, time: int, offset: int) -> Span:
        """Where the change began with 90% confidence; `time` and `offset` are of the value that came last."""
        marks, evidence = self.marks, self.evidence(spread)
        low, high = likely(marks[: len(evidence) * WIDTH : WIDTH], evidence, self.count)
        part = marks[low * WIDTH : (high + 1) * WIDTH]
        times, offsets = [*map(int, part[3::WIDTH])], [*map(int, part[4::WIDTH])]
        if high * WIDTH >= len(marks):
            times.append(time)
            offsets.append(offset)
        return Span(min(times), max(times), min(offsets), max(offsets))

    def means(self, split: int) -> tuple[Level, Level]:
        """Before and after the mark, in what detectors read."""
        before, total = self.marks[split], self.marks[split + 1]
        after = self.count - before
        return Level(total / before, int(before)), Level((self.total - total) / after, int(after))

    def variances(self, split: int) -> tuple[Level, Level]:
        """The same of the squares: normal scores have mean 0, so this is their variance."""
        before, squares = self.marks[split], self.marks[split + 5]
        after = self.count - before
        return Level(squares / before, int(before)), Level((self.squares - squares) / after, int(after))

    def deviation(self, split: int) -> float:
        """The standard deviation before the mark, in what detectors read."""
        return self.law.deviation(self.marks[split], self.marks[split + 1])

    def change(self, split: int, spread: bool, now: int, at: int) -> Change:
        """The change at the mark `split`, as it looks at the value dated `now` at offset `at`."""
        time, offset = self.marks[split + 3 : split + 5]
        span = self.span(spread, now, at)
        if spread:
            before, after = self.variances(split)
            old = intervals.of_spread(sqrt(before.value), before.count)
            new = intervals.of_spread(sqrt(after.value), after.count, LUCK)
            return Change(old, new, new.value / max(old.value, 1e-9) - 1, int(time), int(offset), True, span)
        old, new = self.means(split)
        before, after = self.law.levels(self, split)
        after = intervals.mixed(before, after, self._strangers(split))
        return Change(before, after, (new.value - old.value) / self.deviation(split), int(time), int(offset), False, span)

    def _strangers(self, split: int) -> int:
        """How many of the values since the mark may have come before the change: half the way to the next mark, or all but few."""
        marks, following = self.marks, split + WIDTH
        since = int((marks[following] if following < len(marks) else self.count) - marks[split])
        return since // 2 if following < len(marks) else max(0, since - QUICK)

    def since(self, split: int) -> tuple[int, float]:
        """The values since the mark, and their sum in the signal's units."""
        return self.count - int(self.marks[split]), self.raw - self.marks[split + 2]

    def pace(self, split: int) -> float:
        """Values a millisecond before the mark."""
        marks = self.marks
        return (marks[split] - marks[0]) / max(1.0, marks[split + 3] - marks[3])

    def block(self, split: int) -> int:
        """Which of the `blocks` begins at the mark."""
        return 1 + split // WIDTH

    def blocks(self, spread: bool) -> list[Block]:
        """The values before the first mark, between the marks, and since the last one; of the squares if it is the `spread` that changed.

        What came before the first mark is mostly nothing: a version that began as another one inherited it.
        """
        end = (self.count, self.total, self.raw, 0, 0, self.squares)
        marks = [(0, 0, 0, *self.marks[3:5], 0), *zip(*(iter(self.marks),) * WIDTH, strict=True), end]
        value, raw = (5, 5) if spread else (1, 2)
        return [Block(b[0] - a[0], b[value] - a[value], b[raw] - a[raw], a[3], a[4]) for a, b in pairwise(marks)]

    def noise(self, split: int, spread: bool) -> tuple[float, float]:
        """The variances of what detectors read, before and after; of its squares if it is the spread that changed."""
        if spread:
            return 2.0, 2 * self.variances(split)[1].value ** 2
        return self.deviation(split) ** 2, self.law.spread(self, split) ** 2
