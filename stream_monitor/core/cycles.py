"""Values that depend on the time of day or of the week: a cycle, noticed from one period to the next, and taken into account from then on.

A level that goes up and down by a quarter of a standard deviation each day, or is as much higher at the weekend, is drift to a detector:
some 15 to 30 times the alert budget. But it is alike in different periods, which a shift, a ramp or a bad night is not. So that is what
`Search` looks for. Each day of event time (UTC) has a pattern, the means of its eight parts against its own mean, in standard deviations,
and so has each week, by its days. It is held against the patterns of the periods before (`Likeness`):

    T = sum over periods of u . A      u: the period's pattern, A: the sum of those before, both fading

Where values are independent its mean is 0, and its variance V the number of pairs of periods times that of parts less one. Where a level
wanders patterns are larger, but differ from one period to the next, by |u - u'|^2 / 2 for each part: if that is above 1, T is so much less,
and by more while few pairs tell it. A ramp that lasts for periods is alike in all of them, but leads from each to the next: what their
means tell of it is taken off their patterns. There is a cycle where T is above a limit that grows with the number of looks, so that a
stream without one seldom seems to have one in its whole life. Then it begins anew with a `Profile`, which says what the slot of the period
explains:

    numbers   w = (z - m) / (s sqrt(1 + 1/n)), m the mean of the n scores that the slot had: recursive residuals (Brown, Durbin, Evans
              1975), independent N(0, 1) whatever the means are, however few values they come from; s that of the slot, drawn to that of all
    bits      the share of ones in the slot

both drawn to the level of all slots and what the search has seen of this part of the period. Without that a shift in the first period would
be learned slot by slot, and seen in the second.

Nothing is said before two periods have been seen. A stream whose warm-up takes a day or so is judged once it has seen two days, or later
while they leave it in doubt; a fast one is judged at once. Until its cycle is found, what is judged may raise alerts that are its cycle's;
the surer it looks that there is one, the less of its share of the budget it spends. The slots of a week tell its hours apart, so once a
weekly cycle is found the daily one is part of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any, Final, NamedTuple

from stream_monitor.core.settings import DAY, WEEK

LIMIT: Final = 3.0  # standard deviations, before the first look
LOOKS: Final = 5.0  # periods: about as long as one look is like the next
FEW_PAIRS: Final = 1.0  # so much more counts by how much one pair of patterns is further apart than chance
DOUBT: Final = 0.5  # more for each day after the second: chance fades, and a cycle does not
SIGN, CAUTION, LEAST = 0.5, 1.0, 0.25  # standing from which a stream spends less, by how much, and what it spends at least
PATIENCE: Final = 6  # days at most that doubt lasts
WHOLE: Final = 6  # parts with values that make a day
FADE: Final = 0.9  # a period
MEMORY: Final = 10  # periods that a shape is the mean of
FAR: Final = 2.5  # a single part says no more
APART: Final = 5.0  # a single pair of patterns says no more: one bad week is not a level that wanders
REACH: Final = 1.25  # of the way between the highest and the lowest part: the ends lie within them
STEPS: Final = 8  # from one block to the next, at least, that the standard deviation is known by

BLOCK, SMALL_BLOCK = 25, 5  # values; small where 25 take more than two hours

KNOWN: Final = 25.0  # values that the standard deviation of all is worth to that of a slot
PRIOR: Final = 10  # values that the level of all slots and the part of the period are worth to a slot


class Cycle(NamedTuple):
    """What comes again after `period` (ms). It is looked for in `parts`: few, so that chance has few ways to look like a cycle.

    `slots`: how finely it is known then, as (slots, the least values a period for them), the finest first.
    """

    name: str
    period: int
    parts: int
    slots: tuple[tuple[int, int], ...]


DAILY: Final = Cycle("daily", DAY, 8, ((144, 5_000), (24, 0)))
WEEKLY: Final = Cycle("weekly", WEEK, 7, ((336, 35_000), (168, 1_680), (56, 0)))

_BY_NAME: Final = {cycle.name: cycle for cycle in (DAILY, WEEKLY)}


class Likeness:
    """Whether periods of so many `parts` are alike.

    `standing`: T in standard deviations after the last period; `found`: there is a cycle; `periods`: how many were seen; `values`: how many
    the last one had; `reach`: as far as a change in each of the last two may have gone; `shape`: how far each part is from the mean of all.
    """

    __slots__ = (
        "_apart", "_before", "_chance", "_filled", "_level", "_pairs", "_pattern", "_range", "_step", "_sum", "_times", "_weight",
        "found", "periods", "reach", "shape", "standing", "values",
    )  # fmt: skip

    def __init__(self, parts: int) -> None:
        self._begin(parts)

    def _begin(self, parts: int) -> None:
        self.standing = self.reach = 0.0
        self.found = False
        self.periods = self.values = 0
        self.shape, self._pattern = [0.0] * parts, [0.0] * parts
        self._times = [0] * parts  # periods in which each had values, at most MEMORY
        self._filled = 0  # parts of the last period that had values
        self._before: list[float] | None = None
        self._level: float | None = None  # of the period before
        self._step: float | None = None  # and by how much it was higher than that of the one before it
        self._range: float | None = None  # from its lowest to its highest part
        self._apart = self._pairs = 0.0  # how far patterns were from the ones before, and of how many
        self._sum = self._chance = self._weight = 0.0  # T, V, and what the periods before are worth in it

    def take(self, counts: Sequence[int], totals: Sequence[float], deviation: float) -> None:
        """A period is over, which had so many values with these sums in its parts; `deviation`: of a value."""
        means = [t / n for n, t in zip(counts, totals, strict=True) if n]
        if len(means) < 2 or not deviation > 0:
            return
        if self.periods == 1 and len(means) > self._filled:  # a stream seldom begins with a period
            self._begin(len(counts))
        self.periods, self.values, self._filled = self.periods + 1, sum(counts), len(means)
        level, reach = sum(totals) / self.values, max(means) - min(means)
        self.reach, self._range = REACH * min(reach, reach if self._range is None else self._range), reach
        slope, middle = self._slope_to(level) / len(counts), sum(i * n for i, n in enumerate(counts)) / self.values
        now = [0.0] * len(counts)
        for i, (n, total) in enumerate(zip(counts, totals, strict=True)):
            if n:
                apart = total / n - level
                self._times[i] = min(self._times[i] + 1, MEMORY)
                self.shape[i] += (apart - self.shape[i]) / self._times[i]
                now[i] = max(-FAR, min((apart - slope * (i - middle)) * sqrt(n) / deviation, FAR))
        self._compare(now, len(means) - 1)

    def _slope_to(self, level: float) -> float:
        """By how much the means of periods go up or down each time: a ramp does so twice in a row, a step does not."""
        before, self._level = self._level, level
        if before is None:
            return 0.0
        last, self._step = self._step, level - before
        if last is None:
            return self._step
        return min(last, self._step, key=abs) if last * self._step > 0 else 0.0

    def _compare(self, now: list[float], free: int) -> None:
        """Holds a pattern, with so many degrees of freedom, against those before."""
        self._sum = FADE * self._sum + sum(u * a for u, a in zip(now, self._pattern, strict=True))
        self._chance = FADE * FADE * self._chance + free * self._weight
        self._weight = FADE * FADE * self._weight + 1
        self._pattern = [FADE * a + u for a, u in zip(self._pattern, now, strict=True)]
        if self._before is not None:
            apart = min(APART, sum((u - v) ** 2 for u, v in zip(now, self._before, strict=True)) / (2 * free))
            self._apart, self._pairs = FADE * self._apart + apart, FADE * self._pairs + 1
            mean, raw = self._apart / self._pairs, self._sum / sqrt(self._chance)
            self.standing = raw / max(1.0, mean)
            limit = sqrt(LIMIT * LIMIT + 4 * log(1 + self.periods / LOOKS))  # chance goes down as its square
            self.found = raw > limit * (1 + max(0.0, mean - 1) * (1 + FEW_PAIRS / (self.periods - 1)))
        self._before = now

    def state(self) -> Any:
        """Plain data."""
        return [
            self.standing, self.found, self.periods, self.values, self._filled, self.reach,
            list(self.shape), list(self._times), list(self._pattern), self._before and list(self._before),
            self._level, self._step, self._range, self._apart, self._pairs, self._sum, self._chance, self._weight,
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Likeness:
        """The one that gave `state`."""
        one = cls(0)
        one.standing, one.found, one.periods, one.values, one._filled, one.reach, shape, times, pattern, before, *sums = state
        one.shape, one._times, one._pattern, one._before = list(shape), list(times), list(pattern), before and list(before)
        one._level, one._step, one._range, one._apart, one._pairs, one._sum, one._chance, one._weight = sums
        return one


class Search:
    """Looks for a cycle in the blocks of values between the marks of a stream.

    `offset`: what scores are to be moved by so that they mean what they did before the last alerts; `normal`: the same before those that
    fire. `whole`: days that were whole. `seen`: time, values and sum of the stream at the last look, `step` values before the next.
    """

    __slots__ = (
        "_counts", "_day", "_last", "_steps", "_totals", "_varies", "_week_counts", "_week_totals",
        "daily", "normal", "offset", "seen", "step", "weekly", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.offset = self.normal = 0.0
        self.whole = 0
        self.seen: list[float] | None = None
        self.step = BLOCK
        self.daily, self.weekly = Likeness(DAILY.parts), Likeness(WEEKLY.parts)
        self._day: int | None = None
        self._counts, self._totals = [0] * DAILY.parts, [0.0] * DAILY.parts  # of this day
        self._week_counts, self._week_totals = [0] * WEEKLY.parts, [0.0] * WEEKLY.parts  # of this week, by the days that are over
        self._last: list[float] | None = None  # the last block: values, mean
        self._steps = self._varies = 0.0  # blocks, and the sum of what a value's variance looks like between two of them

    @property
    def doubtful(self) -> bool:
        """Whether the days so far leave it open, so that another one should be seen before anything is judged."""
        return self.whole == 1 or (1 < self.whole <= PATIENCE and self.daily.standing > DOUBT * (self.whole - 2))

    def found(self, known: Cycle | None) -> Cycle | None:
        """The cycle that was found, if it says more than the one that is `known`."""
        if self.weekly.found:
            return WEEKLY
        return DAILY if known is None and self.daily.found else None

    def spendable(self, known: Cycle | None) -> float:
        """The part of its share by which a stream keeps to it though there may be a cycle beside the one that is `known`: 1 for no sign."""
        standing = max(self.weekly.standing, 0.0 if known else self.daily.standing)
        return max(LEAST, exp(CAUTION * (SIGN - standing))) if standing > SIGN else 1.0

    def likeness(self, cycle: Cycle) -> Likeness:
        return self.weekly if cycle is WEEKLY else self.daily

    def profile(self, cycle: Cycle) -> Profile:
        """What is known to begin with of a cycle that was found."""
        values = self.likeness(cycle).values
        slots = next(slots for slots, least in cycle.slots if values >= least)
        return Profile(cycle, slots, [self.daily.shape, self.weekly.shape][: 2 if cycle is WEEKLY else 1])

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
        day, part = middle // DAY, middle % DAY * DAILY.parts // DAY
        if self._day is None:
            self._day = day
        elif day > self._day:
            self._end(self._day, day)
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

    def _end(self, day: int, following: int) -> None:
        """The day is over, and what comes is of the `following` one."""
        counts, totals = self._counts, self._totals
        self._counts, self._totals = [0] * DAILY.parts, [0.0] * DAILY.parts
        self._week_counts[day % WEEKLY.parts] = sum(counts)
        self._week_totals[day % WEEKLY.parts] = sum(totals)
        deviation = sqrt(self._varies / self._steps) if self._steps >= STEPS else 0.0
        self.daily.take(counts, totals, deviation)
        self.whole += deviation > 0 and sum(n > 0 for n in counts) >= WHOLE
        if following // WEEKLY.parts > day // WEEKLY.parts:
            self.weekly.take(self._week_counts, self._week_totals, deviation)
            self._week_counts, self._week_totals = [0] * WEEKLY.parts, [0.0] * WEEKLY.parts
        if deviation:
            self._steps, self._varies = FADE * self._steps, FADE * self._varies

    def state(self) -> Any:
        """Plain data."""
        return [
            self.offset, self.normal, self.whole, self.seen and list(self.seen), self.step, self.daily.state(), self.weekly.state(),
            self._day, self._steps, self._varies, list(self._counts), list(self._totals), list(self._week_counts), list(self._week_totals),
            self._last and list(self._last),
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Search:
        """The one that gave `state`."""
        search = cls()
        search.offset, search.normal, search.whole, seen, search.step, daily, weekly, *sums = state
        search._day, search._steps, search._varies, counts, totals, week_counts, week_totals, last = sums
        search.seen, search._last = seen and list(seen), last and list(last)
        search.daily, search.weekly = Likeness.restored(daily), Likeness.restored(weekly)
        search._counts, search._totals = list(counts), list(totals)
        search._week_counts, search._week_totals = list(week_counts), list(week_totals)
        return search


class Profile:
    """What the slot of a cycle says of the next value. For numbers, or for bits, not for both. `taken`: the sum of the scores so far.

    `shapes`: how far the parts of a day, and where it is a cycle of weeks the days of a week, are from the level of all.
    """

    __slots__ = (
        "_counts", "_known", "_rest", "_seen", "_shape", "_shapes", "_squares", "_sums", "_variance", "cycle", "slots", "taken",
    )  # fmt: skip

    def __init__(self, cycle: Cycle, slots: int, shapes: Sequence[Sequence[float]] = ()) -> None:
        self.cycle = cycle
        self.slots = slots
        self.taken = 0.0
        self._known = self._variance = KNOWN  # residuals of numbers, and the sum of their squares, to begin with as if so many had been 1
        self._shapes = [list(shape) for shape in shapes]
        self._shape = [0.0] * slots
        for part, shape in zip((DAILY, WEEKLY), self._shapes, strict=False):
            for slot in range(slots):
                middle = (2 * slot + 1) * cycle.period // (2 * slots)
                self._shape[slot] += shape[middle % part.period * part.parts // part.period]
        self.forget()

    def _slot(self, time: int) -> int:
        period = self.cycle.period
        return time % period * self.slots // period

    def _expected(self, at: int) -> float:
        """Of a slot, by all the others."""
        return self._shape[at] + self._rest / self._seen if self._seen else self._shape[at]

    def unexplained(self, z: float, time: int) -> float:
        """What the cycle does not explain of a score; then it is one of those that are known."""
        at = self._slot(time)
        n = self._counts[at]
        if not n:
            self._sums[at] = PRIOR * (self._expected(at) if self._seen else z)
        worth = n + PRIOR
        rest = (z - self._sums[at] / worth) * sqrt(worth / (worth + 1))
        w = rest / self._deviation(at, n)
        square = rest * rest
        self.taken += z
        self._seen += 1
        self._rest += z - self._shape[at]
        self._counts[at] = n + 1
        self._sums[at] += z
        self._squares[at] += square
        self._known += 1
        self._variance += square
        return w

    def beside(self, z: float, time: int) -> float:
        """The score against what is known of the slot, which stays as it is."""
        at = self._slot(time)
        n = self._counts[at]
        return (z - (self._sums[at] / (n + PRIOR) if n else self._expected(at))) / self._deviation(at, n)

    def _deviation(self, at: int, n: int) -> float:
        """Of the slot's scores, after `n` of them."""
        return sqrt((self._squares[at] + KNOWN * self._variance / self._known) / (n + KNOWN)) or 1.0

    def bit(self, x: float, time: int, share: float) -> tuple[float, float]:
        """Takes a bit; answers how many values and ones the slot had before, `PRIOR` values as expected among them; `share`: of all before
        it, where there is nothing to expect it by."""
        at = self._slot(time)
        expected = max(0.0, min(self._expected(at) if self._seen else share, 1.0))
        seen, ones = self._counts[at], self._sums[at]
        self._seen += 1
        self._rest += x - self._shape[at]
        self._counts[at] = seen + 1
        self._sums[at] = ones + x
        return seen + PRIOR, ones + PRIOR * expected

    def bit_beside(self, x: float, time: int, share: float) -> float:
        """The bit against the share of the slot, in standard deviations; `share`: of all. What is known stays as it is."""
        at = self._slot(time)
        expected = max(0.0, min(share + self._shape[at], 1.0))
        return standard(x, self._counts[at] + PRIOR, self._sums[at] + PRIOR * expected)

    def unlearn(self, since: int, until: int, values: int) -> None:
        """Forgets the slots in which nothing came before `since` (ms), as far as can be told: those with hardly more than is their part of
        the `values` that came from then on until `until`."""
        first, last = since * self.slots // self.cycle.period, until * self.slots // self.cycle.period
        if last - first < self.slots:
            for at in range(first, last + 1):
                if self._counts[at % self.slots] * (last - first + 1) <= 1.5 * values:
                    self._counts[at % self.slots], self._sums[at % self.slots], self._squares[at % self.slots] = 0, 0.0, 0.0

    def forget(self) -> None:
        """The level is another one."""
        self._counts, zeros = array("q", [0] * self.slots), [0.0] * self.slots
        self._sums, self._squares = array("d", zeros), array("d", zeros)
        self._seen, self._rest = 0, 0.0  # values since, and the sum of how far they were from the shape

    def state(self) -> Any:
        """Plain data."""
        known = [list(self._counts), list(self._sums), list(self._squares)]
        shapes = [list(shape) for shape in self._shapes]
        return [self.cycle.name, self.slots, shapes, *known, self._seen, self._rest, self._known, self._variance, self.taken]

    @classmethod
    def restored(cls, state: Any) -> Profile:
        """The one that gave `state`."""
        name, slots, shapes, counts, sums, squares, *rest = state
        profile = cls(_BY_NAME[name], slots, shapes)
        profile._counts, profile._sums, profile._squares = array("q", counts), array("d", sums), array("d", squares)
        profile._seen, profile._rest, profile._known, profile._variance, profile.taken = rest
        return profile


def standard(x: float, seen: float, ones: float) -> float:
    """A bit against the share of `ones` among so many `seen`: mean 0, variance 1."""
    p = (ones + 0.5) / (seen + 1)
    return (x - p) / sqrt(p * (1 - p))
