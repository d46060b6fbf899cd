"""What the reference never showed: numbers out of its range, categories that are new.

    out_of_range:NAME   numbers: is the value out of the range of the first `warmup` ones?
    new_category:NAME   strings and booleans: is it none of the categories of the first `warmup` values?

The reference is that of the beginning and stays, so that the share is as likely to be one thing as another as long as nothing changes,
whatever it is; it is 0 mostly, and begins to cost when it is not (core/rare.py).

- A range is widened by its width to either side, since 1,000 values do not show the largest that may come; but not past zero where
  no value was: an amount or an age below it is an error, however wide the range is.
- Where more than a twentieth of the values were of categories met just once, or more were met than are counted, there is no end of
  categories: a new one says nothing, and there is no such signal.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

from stream_monitor.core.budget import Ledger
from stream_monitor.core.rare import Make, Rare

MARGIN: Final = 1.0  # of the range's width
OPEN: Final = 0.05  # share of values that were the only ones of their category


class Novelty:
    """The share of values that are new. `count` values came so far, and `warmup` of them are the reference."""

    __slots__ = ("began", "count", "ledger", "rare", "warmup")

    def __init__(self, make: Make, warmup: int, ledger: Ledger) -> None:
        self.rare = Rare(make, ledger)
        self.warmup = warmup
        self.ledger = ledger
        self.began = ledger.age
        self.count = 0

    def tell(self, new: bool, unit: int, time: int, offset: int) -> None:
        """Whether the last value was new. Zeros may be left out while there is no stream."""
        rare = self.rare
        if rare.stream is None:
            if not new:
                return
            now, behind = self.ledger.age, self.count - self.warmup
            rare.zeros = behind - 1
            rare.since = now - (now - self.began) * behind // self.count
        rare.push(1.0 if new else 0.0, unit, time, offset)

    def state(self) -> Any:
        """Plain data."""
        return [self.began, self.count, self.rare.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.began, self.count, rare = state
        self.rare.restore(rare)


class Range(Novelty):
    """Of numbers. Whoever counts a value calls `beyond` unless it lies in [low, high]: while no stream asks for more, this is the range."""

    __slots__ = ("bounds", "high", "low", "settled")

    def __init__(self, make: Make, warmup: int, ledger: Ledger) -> None:
        super().__init__(make, warmup, ledger)
        self.low, self.high = inf, -inf
        self.bounds = (inf, -inf)
        self.settled = False

    def beyond(self, value: float, unit: int, time: int, offset: int) -> None:
        """Takes a value that has been counted."""
        if not self.settled:
            if self.count <= self.warmup:
                self.low, self.high = self.bounds = min(self.low, value), max(self.high, value)
                return
            self._settle()
        low, high = self.bounds
        self.tell(not low <= value <= high, unit, time, offset)
        self._gate()

    def _settle(self) -> None:
        low, high = self.bounds
        margin = MARGIN * (high - low)
        self.bounds = max(low - margin, 0.0) if low >= 0 else low - margin, min(high + margin, 0.0) if high <= 0 else high + margin
        self.settled = True

    def _gate(self) -> None:
        self.low, self.high = self.bounds if self.rare.stream is None else (inf, -inf)

    def state(self) -> Any:
        low, high = self.bounds
        return [super().state(), [low, high] if low <= high else None, self.settled]  # infinity is no JSON

    def restore(self, state: Any) -> None:
        saved, bounds, self.settled = state
        super().restore(saved)
        if bounds:
            self.bounds = bounds[0], bounds[1]
        self._gate()


class Vocabulary(Novelty):
    """Of categories. `seen`: the keys of the reference that are not known otherwise; None where it has no end."""

    __slots__ = ("seen",)

    def __init__(self, make: Make, warmup: int, ledger: Ledger) -> None:
        super().__init__(make, warmup, ledger)
        self.seen: frozenset[Any] | None = None

    def settle(self, tally: dict[Any, int], known: dict[Any, Any], most: int) -> None:
        """The reference is complete: so often each key was met, but not more than `most` of them."""
        single = sum(n == 1 for n in tally.values())
        if len(tally) < most and single <= OPEN * self.warmup:
            self.seen = frozenset(key for key in tally if key not in known)
