"""Coverage: which share of the predictions had no label when their maturity passed (`unlabelled`).

What labels say holds for the labelled only, and a label that never comes says nothing by itself. So predictions wait for their maturity
as outcomes do (core/maturity.py); but as numbers, since to hold them would be dear: how many were made in a slot of their event
time, and how many of these got a label dated no later than `wait` after them. When the labels have been read up to the end of a slot and
`wait` beyond, it is over, and speaks as that many ones and zeros, or by a sample of them (core/rare.py).

- At most 64 slots are open; where there would be more, they become twice as wide. So memory is bounded, and a slot is heard at most some
  5% of `wait` later than it could be.
- Labels are read up to the label clock. Where they stop altogether this stands still; so event time less `patience` counts too.
- Predictions count from when `wait` is known, and anew where it is learnt anew: earlier ones would be judged by another measure.
  A prediction that comes when its turn has passed (it was read late) tells nothing about labels, and is left out.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Final

from stream_monitor.core.alerting import Desk
from stream_monitor.core.maturity import Maturity
from stream_monitor.core.rare import Rare

METRIC: Final = "unlabelled"
SLOTS: Final = 64


class Reading:
    """How far a version's log has been read, in event time (ms)."""

    __slots__ = ("_desk", "_maturity", "_patience")

    def __init__(self, maturity: Maturity, desk: Desk, patience: int) -> None:
        self._maturity = maturity
        self._desk = desk
        self._patience = patience

    @property
    def now(self) -> int:
        """Event time."""
        return self._desk.clock

    @property
    def mature(self) -> int:
        """Predictions before this time had as long as they may wait for their labels."""
        return max(self._maturity.clock.now, self._desk.clock - self._patience) - (self._maturity.wait or 0)


class Coverage:
    """The predictions of a scope that wait for their maturity, as numbers. Contract at the head of the module."""

    __slots__ = ("drawn", "floor", "order", "rare", "shift", "slots", "wait")

    def __init__(self, rare: Rare) -> None:
        self.rare = rare
        self.wait: int | None = None
        self.floor = 0  # predictions before this time do not count (any more)
        self.shift = 0  # a slot is 2^shift ms wide
        self.slots: dict[int, list[int]] = {}  # time >> shift: predictions, labels that came in time, the first one's offset
        self.order: list[int] = []  # the slots, as a heap
        self.drawn = 0

    def made(self, time: int, offset: int, wait: int | None, reading: Reading) -> None:
        """A prediction was made at event time `time` (ms). `wait`: that of its maturity, None while it is learnt."""
        if wait != self.wait:
            self.wait, self.floor = wait, reading.now + 1
            self.slots, self.order, self.shift = {}, [], 0
        if time < self.floor or not wait:
            return
        slot = self.slots.get(time >> self.shift)
        if slot is not None:
            slot[0] += 1
        else:
            self._close(reading.mature)
            if time >= self.floor:
                self._open(time, offset)

    def labelled(self, time: int) -> None:
        """The prediction made at `time` has got its label in time."""
        if time >= self.floor:
            slot = self.slots.get(time >> self.shift)
            if slot is not None:
                slot[1] += 1

    def _open(self, time: int, offset: int) -> None:
        slots = self.slots
        slots[time >> self.shift] = [1, 0, offset]
        heappush(self.order, time >> self.shift)
        while len(slots) > SLOTS:
            self.shift += 1
            wider: dict[int, list[int]] = {}
            for slot, (made, labelled, first) in slots.items():
                known = wider.setdefault(slot >> 1, [0, 0, first])
                known[:] = known[0] + made, known[1] + labelled, min(known[2], first)
            self.slots = slots = wider
            self.order = list(slots)
            heapify(self.order)

    def _close(self, mature: int) -> None:
        """Lets the slots that end by `mature` speak."""
        limit = mature >> self.shift
        order = self.order
        while order and order[0] < limit:
            slot = heappop(order)
            self._speak(slot << self.shift, *self.slots.pop(slot))
        self.floor = max(self.floor, limit << self.shift)
        if not order:
            self.shift = 0

    def _speak(self, time: int, made: int, labelled: int, offset: int) -> None:
        self.drawn += self.rare.sample(made - min(labelled, made), made, self.drawn, time, offset, 1)

    def state(self) -> Any:
        """Plain data."""
        slots = [[slot, *self.slots[slot]] for slot in sorted(self.order)]
        return [self.wait, self.floor, self.shift, self.drawn, slots, self.rare.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.wait, self.floor, self.shift, self.drawn, slots, rare = state
        self.slots = {slot: [made, labelled, first] for slot, made, labelled, first in slots}
        self.order = list(self.slots)  # sorted, so it is a heap
        self.rare.restore(rare)
