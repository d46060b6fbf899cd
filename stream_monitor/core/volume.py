"""How many predictions a model gets, against what the same time of the week brought before: far fewer, or far more.

Traffic has a daily and a weekly cycle, grows, and is noisier than chance, so a count by itself, or its ratio to the last one, moves all
the time. What is asked is therefore coarse: is it less than a third of the least that is usual within an hour of it, or more than three
times the most? The hour is for jobs that run a little sooner or later, and for summer time. The answers hardly ever are yes as long as
nothing is wrong, whatever the law of the counts: in simulated traffic with a daily and weekly cycle, 5% growth a week and swings of 25%
from one quarter of an hour to the next there was no alert in 24 weeks; swings of 35% raised four. They are signals of all versions of a
model together (`*`), because a version that replaces another is no change of traffic.

- Counts are kept by minutes of event time, and what is usual by five minutes of the week: the first week's counts, then moved a quarter of
  the way to each week's. So a week is needed before anything can be said, an outage hardly shows a week later, and a lasting change is
  usual after some weeks.
- Minutes are put together until both sides, what came and what is usual, add up to 100: then chance alone hardly ever makes one a third of
  the other.
- A minute is over when the predictions of all models have been read a quarter of an hour beyond it: partitions are not read in step. So
  it takes some half an hour to notice an outage, and where a partition's models all fall silent at once nothing moves: it is no heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from stream_monitor.core.hashing import scatter
from stream_monitor.core.rare import Rare
from stream_monitor.core.settings import DAY, MINUTE, WEEK
from stream_monitor.core.streams import Stream

METRIC = "volume"
FEW, MANY = "volume=few", "volume=many"
TICK = MINUTE
SLOT = 5  # ticks
SEASON = WEEK // TICK // SLOT
GRACE = 15 * MINUTE
ENOUGH = 100
FACTOR = 3
LEARN = 0.25
NEAR = 12  # slots
_LONG = DAY // TICK


class Side:
    """What came against what is usual, and whether it is `unusual`: too few, or too many."""

    __slots__ = ("came", "rare", "told", "unusual", "usual")

    def __init__(self, rare: Rare, unusual: Callable[[int, float], bool]) -> None:
        self.rare = rare
        self.unusual = unusual
        self.came, self.usual = 0, 0.0  # since the last answer
        self.told = (0, 0.0)  # the same, at the last answer

    def take(self, came: int, usual: float, tick: int, offset: int) -> None:
        """A tick is over."""
        self.came += came
        self.usual += usual
        if self.came + self.usual < ENOUGH:
            return
        self.told = self.came, self.usual
        self.rare.push(1.0 if self.unusual(*self.told) else 0.0, scatter(tick), tick * TICK, offset)
        self.came, self.usual = 0, 0.0
        if self.rare.stream is not None:
            self.rare.stream.explain = self.explain

    def explain(self, _: int) -> dict[str, Any]:
        """Details for an alert: what came, and what had been usual, when it was last compared."""
        return {"came": self.told[0], "usual": round(self.told[1], 1)}

    def state(self) -> Any:
        """Plain data."""
        return [self.came, self.usual, list(self.told), self.rare.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.came, self.usual, told, rare = state
        self.told = told[0], told[1]
        self.rare.restore(rare)
        if self.rare.stream is not None:
            self.rare.stream.explain = self.explain


class Volume:
    """The predictions of a model. Contract at the head of the module; times are those of the predictions, ms."""

    __slots__ = ("few", "many", "next", "open", "slot", "usual")

    def __init__(self, few: Rare, many: Rare) -> None:
        self.few = Side(few, lambda came, usual: FACTOR * came < usual)
        self.many = Side(many, lambda came, usual: came > FACTOR * usual)
        self.usual: list[float | None] = [None] * SEASON  # predictions in each slot of the week
        self.open: dict[int, int] = {}  # of ticks that are not over
        self.next: int | None = None  # the first tick that is not over
        self.slot = 0  # predictions in its slot so far

    def made(self, time: int) -> None:
        """A prediction was made."""
        tick = time // TICK
        if self.next is None:
            self.next = (tick // SLOT + 1) * SLOT
        if tick >= self.next:
            self.open[tick] = self.open.get(tick, 0) + 1

    def over(self, end: int, offset: int) -> None:
        """The ticks before `end` are over; the record at `offset` says so."""
        tick = self.next
        if tick is None or tick >= end:
            return
        if end - tick > _LONG:  # the clock was not settled
            self.open, self.next, self.slot = {}, None, 0
            return
        for now in range(tick, end):
            self._count(now, self.open.pop(now, 0), offset)
        self.next = end

    def _count(self, tick: int, count: int, offset: int) -> None:
        slot = tick // SLOT % SEASON
        usual = self.usual[slot]
        if usual is not None:
            near = [known for i in range(-NEAR, NEAR + 1) if (known := self.usual[(slot + i) % SEASON]) is not None]
            self.few.take(count, min(near) / SLOT, tick, offset)
            self.many.take(count, max(near) / SLOT, tick, offset)
        self.slot += count
        if tick % SLOT == SLOT - 1:
            self.usual[slot] = self.slot if usual is None else usual + LEARN * (self.slot - usual)
            self.slot = 0

    def streams(self) -> Iterator[Stream]:
        """Both, as far as they have begun."""
        yield from self.few.rare.streams()
        yield from self.many.rare.streams()

    def state(self) -> Any:
        """Plain data."""
        return [list(self.usual), sorted(self.open.items()), self.next, self.slot, self.few.state(), self.many.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        usual, opened, self.next, self.slot, few, many = state
        self.usual, self.open = list(usual), dict(opened)
        self.few.restore(few)
        self.many.restore(many)
