"""A share that is zero until something unusual comes: a counter until the first one, and from then on a binary stream.

The stream begins with the zeros before the first one, so it knows what was usual; where nothing unusual comes it costs a counter, and
owns nothing of the budget.

Where no more is known than how many of some values were ones, they speak as that many ones and zeros, in an order that is drawn: any is as
likely as any other. More than 100 of them speak by a sample of 100. That bounds the work, and what one such group has in common (labels
that come in batches) is small beside chance, as detectors suppose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from stream_monitor.core.budget import Ledger
from stream_monitor.core.hashing import scatter
from stream_monitor.core.streams import BinaryStream, Stream

SAMPLE: Final = 100  # values of a group
_SCALE: Final = 2.0**-64

Make = Callable[[], BinaryStream | None]
"""The stream; None where it is not asked for, or there are too many."""


class Rare:
    """`zeros` values were 0 before the first 1; they began at age `since` of the ledger."""

    __slots__ = ("ledger", "make", "refused", "since", "stream", "zeros")

    def __init__(self, make: Make, ledger: Ledger) -> None:
        self.make = make
        self.ledger = ledger
        self.since = ledger.age
        self.zeros = 0
        self.stream: BinaryStream | None = None
        self.refused = False  # there was no room for the stream

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        """Takes the next value, 0 or 1. Otherwise as `Stream.push`."""
        stream = self.stream
        if stream is not None:
            stream.push(x, unit, time, offset)
        elif not x:
            self.rest(1)
        elif not self.refused:
            self._begin(unit, time, offset)

    def rest(self, count: int) -> None:
        """Takes so many zeros, while there is no stream."""
        if not self.zeros:
            self.since = self.ledger.age
        self.zeros += count

    def sample(self, ones: int, count: int, seed: int, time: int, offset: int, step: int = 0) -> int:
        """Takes a sample of `count` values, of which so many are ones, at offsets that go up by `step`. Answers how many were drawn, each
        by a number behind `seed`; none where all are zeros that only count."""
        size = min(count, SAMPLE)
        if not ones and self.stream is None:
            self.rest(size)
            return 0
        for i in range(size):
            unit = scatter(seed + 1 + i)
            is_one = scatter(unit) * _SCALE * count < ones
            count -= 1
            ones -= is_one
            self.push(1.0 if is_one else 0.0, unit, time, offset + i * step)
        return size

    def _begin(self, unit: int, time: int, offset: int) -> None:
        stream = self.stream = self.make()
        if stream is None:
            self.refused = True
            return
        if stream.compared is None:  # a version that began as another one knows from there what is usual
            stream.prime(self.zeros, self.since, time, offset)
        stream.push(1.0, unit, time, offset)

    def streams(self) -> Iterator[Stream]:
        """The stream, if there is one yet."""
        if self.stream is not None:
            yield self.stream

    def state(self) -> Any:
        """Plain data."""
        return [self.since, self.zeros, self.refused, self.stream and self.stream.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.since, self.zeros, self.refused, saved = state
        stream = self.make() if saved else None
        if stream is not None:
            stream.restore(saved)
            self.stream = stream
