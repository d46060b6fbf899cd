"""Label signals in the order of the predictions, not of their labels' arrival.

Where wrong answers are labelled sooner than right ones, the order of arrival looks like drift. So an outcome waits until its
prediction is mature: until the version's label clock has passed prediction time + `wait`. Then it is handed on, in the order of
(prediction time, offset). What comes when its turn has passed is late: counted, not handed on.

- The label clock goes by feedback times. Predictions do not move it: how far the reading of the predictions runs ahead of the reading of
  the labels, in a backlog, must not make labels late. For the same reason each partition of the journal has a clock of its own, the
  running maximum of its feedback times, and the label clock is the least of them: in a backlog an hour of one partition may come before
  the same hour of the next. It is one for all versions, since request ids spread every version over all partitions.
- A label's delay is what its partition's clock shows at its arrival minus the prediction's time.
- `wait` is configured, or learnt: everything is held until a sample of delays is complete, then `wait` is its quantile. The first
  delays that can be seen are the short ones, so the sample grows (doubling) until what has been seen spans 1.5 times
  the quantile it gives, or no more can be held. If later most of a sample's worth of outcomes come late, it is learnt anew.
- At most `limit` outcomes are held; past it the oldest go first, before their time.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import astuple

from stream_monitor.core.judging import Losses
from stream_monitor.core.outcome import Outcome
from stream_monitor.core.waiting import Waiting

SPAN: Final = 1.5
SETTLING: Final = 100
AWAITED: Final = 20_000
PAGES: Final = 256  # that what waits is spread over

_NEVER: Final = 1 << 63  # ms
_shown = itemgetter(0)


class Clock:
    """A running maximum of event times (ms) that moves at most `step` a record, so that one wrong time does little harm.

    The first 100 records move it freely: one wrong time at the start must not hold it back for years.
    """

    __slots__ = ("now", "records", "step")

    def __init__(self, step: int) -> None:
        self.step = step
        self.now = 0
        self.records = 0

    def move(self, time: int) -> int:
        """Takes the time of a record; answers what the clock shows then."""
        if self.records < SETTLING:
            self.records += 1
            self.now = max(self.now, time) if self.records > 1 else time
        elif time > self.now:
            reach = self.now + self.step
            self.now = time if time < reach else reach
        return self.now


class LabelClock:
    """How far the labels have been read. `origin` is a partition of the journal and the number of these.

    A partition that has not been heard of for 20,000 outcomes is waited for no longer, until it is heard of again.

    `now`: up to when (ms) the labels have been read everywhere; 0 before that can be said. It is looked for only when it can have changed:
    clocks do not go back, so the one that shows the least must have moved past the next one, or been given up, or another one have begun
    to count.
    """

    __slots__ = ("_clocks", "_heard", "_least", "_next", "_partitions", "_seen", "_step", "_until", "now")

    def __init__(self, step: int) -> None:
        self._step = step
        self._clocks: dict[int, Clock] = {}
        self._heard: dict[int, int] = {}  # how many outcomes had been seen then
        self._partitions = 1
        self._seen = 0
        self._least: int | None = None  # the partition whose clock shows `now`
        self._next = 0  # none of the others that count showed less than this
        self._until = 0  # outcomes seen by which it is to be looked for again
        self.now = 0

    def move(self, time: int, origin: tuple[int, int] = (0, 1)) -> int:
        """An outcome came whose label is dated `time` (ms). Answers what its own partition's clock shows then."""
        partition, partitions = origin
        self._seen = seen = self._seen + 1
        clock = self._clocks.get(partition)
        if clock is None:
            clock = self._clocks[partition] = Clock(self._step)
            stays = False
        else:
            stays = partition != self._least and seen < self._until and seen - self._heard[partition] < AWAITED
        own = clock.move(time)
        self._heard[partition] = seen
        if partitions != self._partitions:
            self._partitions = partitions
            self._look()
        elif not stays:
            if partition == self._least and own <= self._next and seen < self._until:
                self.now = own
                if seen > AWAITED:
                    self._until = AWAITED + seen
            else:
                self._look()
        return own

    def _look(self) -> None:
        """Looks for the clock that shows the least."""
        clocks, heard, seen = self._clocks, self._heard, self._seen
        counting: Iterable[int] = clocks
        if seen > AWAITED:
            counting = [p for p in clocks if seen - heard[p] < AWAITED]
        elif len(clocks) < self._partitions:
            counting = ()
        shown = sorted([(clocks[p].now, p) for p in counting], key=_shown)  # stable: of two that show the same, the one met first
        self.now, self._least = shown[0] if shown else (0, None)
        self._next = shown[1][0] if len(shown) > 1 else _NEVER
        self._until = AWAITED + (heard[self._least] if seen > AWAITED and self._least is not None else 1)

    def state(self) -> Any:
        """Plain data."""
        return [self._partitions, self._seen, [[p, self._heard[p], c.now, c.records] for p, c in self._clocks.items()]]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self._partitions, self._seen, clocks = state
        for partition, heard, now, records in clocks:
            self._heard[partition] = heard
            clock = self._clocks[partition] = Clock(self._step)
            clock.now, clock.records = now, records
        self._look()


class Maturity:
    """The outcomes of one model version that wait. Contract at the head of the module."""

    __slots__ = (
        "clock",
        "delays",
        "early",
        "fixed",
        "late",
        "left",
        "limit",
        "oldest",
        "quantile",
        "recent",
        "sample",
        "since",
        "turn",
        "wait",
        "waiting",
    )

    def __init__(self, wait: int | None, quantile: float, sample: int, limit: int, clock: LabelClock) -> None:
        self.fixed = wait is not None
        self.wait = wait
        self.quantile = quantile
        self.sample = max(1, sample)
        self.limit = limit
        self.clock = clock
        self.waiting = Waiting(_width(wait))
        self.delays: list[int] = []  # while `wait` is learnt
        self.oldest = 0  # time of the oldest prediction among them
        self.left = -1  # predictions up to this time have left; behind the clock, which other versions move as well
        self.turn = (-1, -1)  # (time, offset) of the last outcome that went before its time
        self.since = 0  # outcomes below this offset were dealt with when `wait` was last learnt anew
        self.recent = (0, 0)  # outcomes, and late ones among them, of the sample that watches over `wait`
        self.late = 0
        self.early = 0

    def take(self, outcome: Outcome, labelled: int, origin: tuple[int, int] = (0, 1)) -> list[Outcome]:
        """An outcome came, labelled at event time `labelled` (ms). Answers those that are mature now, in their order."""
        own = self.clock.move(labelled, origin)
        wait = self.wait
        if wait == 0:
            return [outcome]
        clock, time, waiting = self.clock.now, outcome.time, self.waiting
        if wait is not None and clock - wait > self.left:
            self.left = clock - wait
        late = time < self.left or (time, outcome.offset) < self.turn
        if late:
            self.late += 1
        else:
            waiting.add(outcome)
        if wait is None:
            self._learn(own - time, time, clock)
            waiting = self.waiting
        elif not self.fixed and (again := self._watch(late, outcome.offset)):
            return again
        ready = waiting.until(self.left)
        while len(waiting) > self.limit:
            first = waiting.first()
            self.turn = first.time, first.offset
            self.early += 1
            ready.append(first)
        return ready

    def refill(self, outcome: Outcome) -> None:
        """Puts an outcome back that waited when a snapshot without the waiting was taken; one that did not is left out."""
        waited = self.wait != 0 and outcome.time > self.left and (outcome.time, outcome.offset) > self.turn
        if waited and outcome.offset >= self.since:
            self.waiting.add(outcome)

    def expect(self, wait: int | None) -> None:
        """Labels take so long (ms), as far as is known."""
        self.wait = wait
        self.waiting = Waiting(_width(wait), self.waiting)

    def _learn(self, delay: int, time: int, clock: int) -> None:
        delays = self.delays
        self.oldest = min(self.oldest, time) if delays else time
        delays.append(max(0, delay))
        count = len(delays)
        if count < self.limit and (count % self.sample or (count // self.sample) & (count // self.sample - 1)):
            return  # not the sample, nor its double, nor the double of that ...
        wait = sorted(delays)[min(count - 1, int(self.quantile * count))]
        if count >= self.limit or clock - self.oldest >= SPAN * wait:
            wait = max(1, wait)
            self.expect(wait)
            self.left = clock - wait
            self.delays = []

    def _watch(self, late: bool, offset: int) -> list[Outcome]:
        """Counts the late; if most of a sample were, lets go of all that waits and learns `wait` anew."""
        seen, missed = self.recent[0] + 1, self.recent[1] + late
        self.recent = (0, 0) if seen >= self.sample else (seen, missed)
        if seen < self.sample or 2 * missed <= seen:
            return []
        ready = sorted(self.waiting)
        self.wait, self.left, self.turn, self.since = None, -1, (-1, -1), offset + 1
        self.waiting = Waiting(_width(None))
        self.early += len(ready)
        return ready

    def state(self, waiting: bool) -> Any:
        """Plain data; without the outcomes that wait unless `waiting`."""
        kept = [[*astuple(one)[:-1], one.losses and list(one.losses)] for one in sorted(self.waiting)] if waiting else None
        return [
            self.wait, list(self.delays), self.oldest, self.left, list(self.turn), self.since, list(self.recent), self.late, self.early,
            kept,
        ]  # fmt: skip

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.wait, delays, self.oldest, self.left, turn, self.since, recent, self.late, self.early, kept = state
        self.delays = list(delays)
        self.turn, self.recent = (turn[0], turn[1]), (recent[0], recent[1])
        self.waiting = Waiting(_width(self.wait), (Outcome(*(*one[:-1], one[-1] and Losses(*one[-1]))) for one in kept or ()))


def _width(wait: int | None) -> int:
    """Of a page, where outcomes wait for so long (ms)."""
    return _NEVER if wait is None else wait // PAGES + 1
