"""A numeric stream whose values come with a tally: more numbers, whose sums before and since a change its alerts can tell.

The gap of two rates comes with what the group counts (core/fairness.py), the distance of two mixes with how often each category came
(core/mixes.py). Sums are kept for the reference and at each mark (core/streams.py), and nowhere else: they tell and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.settings import DetectorSettings, DetectSettings
from stream_monitor.core.streams import NumericStream


class Tally(NamedTuple):
    """Of `n` values: the sum in the signal's units, and the sums of what came with them."""

    n: int
    raw: float
    sums: tuple[float, ...]


class TalliedStream(NumericStream):
    """`take` is the way in. `sums`: since the reference began; `at_mark`: the same at each mark, by its count of values; `before`: the
    tally from before the change of the last alert."""

    __slots__ = ("at_mark", "before", "sums")

    def __init__(
        self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk, weight: int = 1
    ) -> None:
        super().__init__(subject, detectors, settings, desk, weight)
        self.sums: list[float] = []
        self.at_mark: dict[int, tuple[float, ...]] = {}
        self.before = Tally(0, 0.0, ())
        self.aftermath.learned = self._learned

    def take(self, x: float, tally: Sequence[float], unit: int, time: int, offset: int) -> None:
        """The next value with its tally, which is of the same length each time. Otherwise as `push`."""
        if not self.left:
            self._mark(time, offset)
        self.sums = [a + b for a, b in zip(self.sums or [0.0] * len(tally), tally, strict=True)]
        self.push(x, unit, time, offset)

    def told(self, before: Tally, after: Tally) -> Mapping[str, Any]:
        """What an alert says of a change from the one to the other, as details."""
        raise NotImplementedError

    def _around(self, split: int) -> tuple[Tally, Tally]:
        """Of the values before the mark and since."""
        count, raw = int(self.marks[split]), self.marks[split + 2]
        before = self.at_mark[count]
        since = tuple(a - b for a, b in zip(self.sums, before, strict=True))
        return Tally(count, raw, before), Tally(self.count - count, self.raw - raw, since)

    def _more(self, split: int) -> Mapping[str, Any]:
        return {**super()._more(split), **self.told(*self._around(split))}

    def _learned(self) -> Mapping[str, Any]:
        return self.told(self.before, Tally(self.count, self.raw, tuple(self.sums)))

    def _put_aside(self, split: int) -> Any:
        self.before, _ = self._around(split)
        return super()._put_aside(split)

    def _mark(self, time: int, offset: int) -> None:
        self.at_mark[self.count] = tuple(self.sums)
        super()._mark(time, offset)

    def _thin(self) -> None:
        super()._thin()
        self.at_mark = {count: self.at_mark[count] for count in self._marked()}

    def _forget(self) -> None:
        super()._forget()
        self.at_mark = {self.count: tuple(self.sums)}

    def _reference(self) -> Any:
        return [*super()._reference(), list(self.sums)]

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self.sums = [0.0] * len(self.sums)

    def _take_up(self, old: Any) -> None:
        *reference, self.sums = old
        super()._take_up(reference)

    def state(self) -> Any:
        marks = [[count, list(sums)] for count, sums in self.at_mark.items()]
        n, raw, sums = self.before
        return [*super().state(), list(self.sums), marks, [n, raw, list(sums)], self.old and list(self.old[5])]

    def restore(self, state: Any) -> None:
        *plain, sums, marks, before, old = state
        super().restore(plain)
        self.sums = list(sums)
        self.at_mark = {count: tuple(known) for count, known in marks}
        self.before = Tally(before[0], before[1], tuple(before[2]))
        if self.old:
            self.old = [*self.old, list(old)]
