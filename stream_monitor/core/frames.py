"""Frames: the journal's records. One carries several events, so that the hop through Kafka costs each of them little.

Most of what a message costs is the same whatever its size: a call of the client here and there, work of the client's threads, a look by
the broker. The journal is read by the join alone, which works in batches, so routing puts up to `FULL` events of a partition into a record.

    byte 0    version, 3
    then      a msgpack array of pairs, request id and journal value (core/codec.py), in order

A frame is read whole or not at all: no offset, neither a committed one nor one that the store knows, points into one. Its events have its
offset and its append time, and a `number` from 0 on. In version 2 the events are of the version before (core/codec.py), and a program that
knows no other stops here. A record of version 1 is one such event, with the request id as its key.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import DecodeError
from msgspec.msgpack import Decoder, Encoder

from stream_monitor.core.codec import HEAD
from stream_monitor.core.hashing import partitions_of
from stream_monitor.core.records import SPAN, Record

VERSION = 3
OF_MODELS = 2
ONE_EVENT = 1
FULL = 64  # events; a larger frame saves little, and is a coarser step where partitions are read side by side in time
HEAVY = 256 * 1024  # bytes; only a frame of one event is heavier, so what fits into a topic as an event fits as a frame

Event = tuple[bytes, bytes]
"""Request id and journal value."""

_encoder = Encoder()
_decode = Decoder(list[Event]).decode

assert FULL <= SPAN


class Framer:
    """Deals events out to the partitions of the journal, and puts those of each into frames, in order.

    A frame is packed as soon as it is full: then its events still lie in the processor's caches.
    """

    def __init__(self, partitions: int) -> None:
        self._loose: list[list[Event]] = [[] for _ in range(partitions)]
        self._packed: list[tuple[int, bytes]] = []
        self._buffer = bytearray((VERSION,))

    def add(self, events: Sequence[Event]) -> None:
        """The next events, of any partitions."""
        loose = self._loose
        for home, event in zip(partitions_of([key for key, _ in events], len(loose)), events, strict=True):
            mine = loose[home]
            mine.append(event)
            if len(mine) == FULL:
                self._pack(home, mine)
                mine.clear()

    def finish(self) -> list[tuple[int, bytes]]:
        """All that came in, as journal records and the partition of each; the last of a partition need not be full."""
        for home, events in enumerate(self._loose):
            if events:
                self._pack(home, events)
        return self._packed

    def _pack(self, home: int, events: Sequence[Event]) -> None:
        buffer = self._buffer
        _encoder.encode_into(events, buffer, 1)
        if len(buffer) <= HEAVY or len(events) == 1:
            self._packed.append((home, bytes(buffer)))
            return
        half = len(events) // 2
        self._pack(home, events[:half])
        self._pack(home, events[half:])


def unframe(offset: int, time: int, key: bytes | None, value: bytes) -> list[Record]:
    """The events in the journal record at `offset`, appended at `time` (ms). Raises ValueError where it is none that this program knows."""
    version = value[0] if value else 0
    if version in (VERSION, OF_MODELS):
        try:
            events = _decode(memoryview(value)[1:])
        except DecodeError as damage:
            raise ValueError(f"damaged journal record: {damage}") from damage
        if len(events) > SPAN:
            raise ValueError(f"damaged journal record: {len(events)} events")
        return [Record(offset, time, name, event, number) for number, (name, event) in enumerate(events)]
    if version == ONE_EVENT:
        if len(value) < HEAD.size:
            raise ValueError(f"damaged journal record: {len(value)} bytes")
        return [Record(offset, time, key or b"", value)]
    raise ValueError(f"journal record of version {version}; this program reads versions {ONE_EVENT} to {VERSION}")
