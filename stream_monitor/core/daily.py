"""Values that depend on the time of day: a daily cycle, noticed from day to day, and taken into account from then on.

A level that goes up and down by a quarter of a standard deviation each day is drift to a detector: some 30 times the alert budget. But
it is alike on different days, which a shift, a ramp or a night of trouble is not. So that is what `Days` looks for. Each day of event
time (UTC) has a pattern, the means of its eight parts against its own mean, in standard deviations; it is held against the patterns
of the days before:

    T = sum over days of u . A      u: the day's pattern, A: the sum of those before, both fading

Where values are independent its mean is 0, and its variance V the number of pairs of days times that of parts less one. Where a level
wanders patterns are larger, but differ from one day to the next, by |u - u'|^2 / 2 for each part: if that is above 1, T is so much less.
Above `LIMIT` sqrt(V) there is a cycle, and the stream begins anew with a `Day`, which says what the slot of the day explains: 24
slots, or 144 where there are many values.

    numbers   w = (z - m) / (s sqrt(1 + 1/n)), m the mean of the n scores that the slot had: recursive residuals (Brown, Durbin, Evans
              1975), independent N(0, 1) whatever the means are, however few values they come from; s that of the slot, drawn to that of all
    bits      the share of ones in the slot, drawn to that of the slot before

Nothing is said before two days have been seen. A stream whose warm-up takes a day or so is judged once they have, or later while they leave
it in doubt; a fast one is judged at once, and may raise alerts that are its cycle's until then. Weeks are not covered.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from stream_monitor.core.settings import DAY

PARTS = 8  # of a day: few, so that chance has few ways to look like a cycle
WHOLE = 6  # parts with values that make a day
LIMIT = 3.0  # standard deviations
DOUBT = 0.5  # more for each day after the second: chance fades, and a cycle does not
PATIENCE = 6  # days at most that doubt lasts
FADE = 0.9  # a day
FAR = 2.5  # a single part says no more
REACH = 1.25  # of the way between the highest and the lowest part: the ends lie within them
STEPS = 8  # from one block to the next, at least, that the standard deviation is known by

SLOTS, MANY_SLOTS = 24, 144
MANY = 5_000  # values a day
BLOCK, SMALL_BLOCK = 25, 5  # values; small where 25 take more than two hours

KNOWN = 25.0  # values that the standard deviation of all is worth to that of a slot
SHARE = 10.0  # bits that the share of the slot before is worth to that of a slot


class Days:
    """Looks for a cycle in the blocks of values between the marks of a stream.

    `offset`: what scores are to be moved by so that they mean what they did before the last alerts; `normal`: the same before those that
    fire. `rate`: values on the last day; `reach`: as far as a change on it may have gone. `whole`: days that were whole. `found`: there is
    a cycle. `seen`: time, values and sum of the stream at the last look, `step` values before the next.
    """

    __slots__ = (
        "_apart", "_chance", "_counts", "_day", "_last", "_likeness", "_pairs", "_pattern", "_steps", "_totals", "_varies", "_weight",
        "_yesterday", "found", "normal", "offset", "rate", "reach", "seen",
        "standing", "step", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.offset = self.normal = 0.0
        self.rate = self.whole = 0
        self.reach = 0.0
        self.found = False
        self.seen: list[float] | None = None
        self.step = BLOCK
        self.standing = 0.0  # T in standard deviations at the end of the last day
        self._day: int | None = None
        self._counts, self._totals = [0] * PARTS, [0.0] * PARTS  # of this day
        self._last: list[float] | None = None  # the last block: values, mean
        self._steps = self._varies = 0.0  # blocks, and the sum of what a value's variance looks like between two of them
        self._pattern = [0.0] * PARTS
        self._yesterday: list[float] | None = None
        self._apart = self._pairs = 0.0  # how far patterns were from the ones of the days before, and of how many
        self._likeness = self._chance = self._weight = 0.0  # T, V, and what the days before are worth in it

    @property
    def doubtful(self) -> bool:
        """Whether the days so far leave it open, so that another one should be seen before anything is judged."""
        return self.whole == 1 or (1 < self.whole <= PATIENCE and self.standing > DOUBT * (self.whole - 2))

    def look(self, time: int, count: int, total: float) -> None:
        """Takes what a stream has more than at the last look, which has `count` values with this sum by this time (ms)."""
        if self.seen is not None:
            began, before, sum_before = self.seen
            more = count - int(before)
            self.take(int(began), time, more, total - sum_before + self.offset * more)
            pace = (time - began) / max(more, 1)
            if pace * BLOCK > DAY / 12:
                self.step = SMALL_BLOCK
            elif pace * BLOCK < DAY / 24:
                self.step = BLOCK
        self.seen = [time, count, total]

    def take(self, began: int, time: int, count: int, total: float) -> None:
        """`count` values with this sum that came between two times (ms)."""
        if not count or not 0 <= time - began < DAY // 2:
            return
        middle = (began + time) // 2
        day, part = middle // DAY, middle % DAY * PARTS // DAY
        if self._day is None:
            self._day = day
        elif day > self._day:
            self._end()
            self._day = day
        self._counts[part] += count
        self._totals[part] += total
        mean = total / count
        if self._last is not None:
            before, level = self._last
            self._steps += 1
            self._varies += (mean - level) ** 2 / (1 / count + 1 / before)
        self._last = [count, mean]

    def shift(self, by: float, first: bool) -> None:
        """Scores will be by so much lower, since the reference is another one. `first`: since an alert began."""
        if first:
            self.normal = self.offset
        self.offset += by

    def come_back(self) -> None:
        """The reference is the one from before the alert that fires."""
        self.offset = self.normal

    def _end(self) -> None:
        """The day is over."""
        counts, totals, variance = self._counts, self._totals, self._varies / max(self._steps, 1.0)
        self._counts, self._totals = [0] * PARTS, [0.0] * PARTS
        self.rate = sum(counts)
        filled = sum(n > 0 for n in counts)
        means = [t / n for n, t in zip(counts, totals, strict=True) if n]
        self.reach = REACH * (max(means, default=0.0) - min(means, default=0.0))
        if filled < 2 or self._steps < STEPS or not variance > 0:
            return
        mean, sd = sum(totals) / self.rate, sqrt(variance)
        today = [max(-FAR, min((t - n * mean) / sqrt(n) / sd, FAR)) if n else 0.0 for n, t in zip(counts, totals, strict=True)]
        free = filled - 1
        self._likeness = FADE * self._likeness + sum(u * a for u, a in zip(today, self._pattern, strict=True))
        self._chance = FADE * FADE * self._chance + free * self._weight
        self._weight = FADE * FADE * self._weight + 1
        self._pattern = [FADE * a + u for a, u in zip(self._pattern, today, strict=True)]
        if self._yesterday is not None:
            apart = sum((u - v) ** 2 for u, v in zip(today, self._yesterday, strict=True)) / (2 * free)
            self._apart, self._pairs = FADE * self._apart + apart, FADE * self._pairs + 1
        self._yesterday = today
        self._steps, self._varies = FADE * self._steps, FADE * self._varies
        self.whole += filled >= WHOLE
        if self._pairs:
            self.standing = self._likeness / sqrt(self._chance) / max(1.0, self._apart / self._pairs)
        self.found = self.standing > LIMIT

    def state(self) -> Any:
        """Plain data."""
        return [
            self.offset, self.normal, self.rate, self.reach, self.whole, self.found, self.standing,
            self._day, list(self._counts), list(self._totals), self._last and list(self._last),
            self._steps, self._varies, list(self._pattern), self._yesterday and list(self._yesterday),
            self._apart, self._pairs, self._likeness, self._chance, self._weight, self.seen and list(self.seen), self.step,
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Days:
        """The one that gave `state`."""
        days = cls()
        days.offset, days.normal, days.rate, days.reach, days.whole, days.found, days.standing, days._day, *rest = state
        counts, totals, last, days._steps, days._varies, pattern, yesterday, *sums = rest
        days._apart, days._pairs, days._likeness, days._chance, days._weight, seen, days.step = sums
        days.seen = seen and list(seen)
        days._yesterday = yesterday and list(yesterday)
        days._counts, days._totals, days._pattern = list(counts), list(totals), list(pattern)
        days._last = last and list(last)
        return days


class Day:
    """What the time of day says of the next value. For numbers, or for bits, not for both."""

    __slots__ = ("_at", "_counts", "_known", "_last", "_squares", "_sums", "_variance", "slots")

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots = slots
        self._known = self._variance = KNOWN  # residuals of numbers, and the sum of their squares, to begin with as if so many had been 1
        self._counts, self._sums, self._squares = [0] * slots, [0.0] * slots, [0.0] * slots
        self._at, self._last = -1, 0.0  # of bits: the slot of the last one; the level before

    @classmethod
    def of(cls, rate: int) -> Day:
        """For so many values a day."""
        return cls(SLOTS if rate < MANY else MANY_SLOTS)

    def unexplained(self, z: float, time: int) -> float:
        """What the time of day does not explain of a score; then it is one of those that are known."""
        at = time % DAY * self.slots // DAY
        n = self._counts[at]
        if not n:  # for want of anything better, as at the slot before: worth one value
            n, self._sums[at] = 1, self._last
        rest = (z - self._sums[at] / n) * sqrt(n / (n + 1))
        w = rest / self._deviation(at, n)
        square = rest * rest
        self._counts[at] = n + 1
        self._sums[at] += z
        self._squares[at] += square
        self._known += 1
        self._variance += square
        self._last = self._sums[at] / (n + 1)
        return w

    def beside(self, z: float, time: int) -> float:
        """The score against what is known of the time of day, which stays as it is."""
        at = time % DAY * self.slots // DAY
        n = self._counts[at]
        return (z - (self._sums[at] / n if n else self._last)) / self._deviation(at, max(n, 1))

    def _deviation(self, at: int, n: int) -> float:
        """Of the slot's scores, after `n` of them: the first leaves nothing to know it by."""
        return sqrt((self._squares[at] + KNOWN * self._variance / self._known) / (n - 1 + KNOWN)) or 1.0

    def bit(self, x: float, time: int, share: float) -> tuple[float, float]:
        """Takes a bit; answers how many values and ones the slot had before, `SHARE` values as at the slot before among them, or, where
        there is none, with the `share` of all."""
        at = time % DAY * self.slots // DAY
        if at != self._at:
            if self._at >= 0:
                n, ones = self._counts[self._at], self._sums[self._at]
                self._last = (ones + SHARE * self._last) / (n + SHARE)
            else:
                self._last = share
            self._at = at
        seen, ones = self._counts[at], self._sums[at]
        self._counts[at] = seen + 1
        self._sums[at] = ones + x
        return seen + SHARE, min(ones + SHARE * self._last, seen + SHARE)

    def bit_beside(self, x: float, time: int, share: float) -> float:
        """The bit against the share of the slot, in standard deviations; what is known stays as it is."""
        at = time % DAY * self.slots // DAY
        return standard(x, self._counts[at] + SHARE, self._sums[at] + SHARE * share)

    def forget(self) -> None:
        """The level is another one."""
        self._counts, self._sums, self._squares = [0] * self.slots, [0.0] * self.slots, [0.0] * self.slots
        self._at, self._last = -1, 0.0

    def state(self) -> Any:
        """Plain data."""
        return [self.slots, list(self._counts), list(self._sums), list(self._squares), self._at, self._last, self._known, self._variance]

    @classmethod
    def restored(cls, state: Any) -> Day:
        """The one that gave `state`."""
        day = cls(state[0])
        _, counts, sums, squares, day._at, day._last, day._known, day._variance = state
        day._counts, day._sums, day._squares = list(counts), list(sums), list(squares)
        return day


def standard(x: float, seen: float, ones: float) -> float:
    """A bit against the share of `ones` among so many `seen`: mean 0, variance 1."""
    p = (ones + 0.5) / (seen + 1)
    return (x - p) / sqrt(p * (1 - p))
