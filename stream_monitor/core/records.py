"""A record of a log, as stages read it.

Hundreds of thousands are made a second, so it is a struct that the garbage collector need not walk: it costs a third of what a named
tuple does, and to read a field of it half.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from msgspec import Struct

SPAN = 4096  # positions an offset: more events than a record of the journal carries


class Record(Struct, frozen=True, gc=False):
    """A record of a log; of the journal one event, of which a record carries several (core/frames.py). `time` is its append time, ms.

    `key` and `value` are what the message had: None where an input message has none, of which nothing but a dead letter comes.
    """

    offset: int
    time: int
    key: bytes
    value: bytes
    number: int = 0

    @property
    def position(self) -> int:
        """Where the event lies in its partition: as an offset, but finer."""
        return self.offset * SPAN + self.number


def pieces(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """Pieces of `size` records, or of a few more: a piece ends where an offset ends."""
    start, n = 0, len(records)
    while start < n:
        end = start + size
        while end < n and records[end].offset == records[end - 1].offset:
            end += 1
        yield records[start:end]
        start = end


by_offset = attrgetter("offset")
"""What records lie in the order of, for a search in them."""


def frames(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records of each offset: what came together, at one time and with numbers that follow one another."""
    start, n = 0, len(records)
    while start < n:
        end = bisect_right(records, records[start].offset, start, key=by_offset)
        yield records[start:end]
        start = end
