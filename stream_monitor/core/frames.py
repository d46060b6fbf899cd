"""Frames: the journal's records. One carries several events, so that the hop through Kafka costs each of them little.

Most of what a message costs is the same whatever its size: a call of the client here and there, work of the client's threads, a look by
the broker. The journal is read by the join alone, which works in batches, so routing puts up to `FULL` events of a partition into a record.

    byte 0    version, 2
    then      a msgpack array of pairs, request id and journal value (core/codec.py), in order

A frame is read whole or not at all: no offset, neither a committed one nor one that the store knows, points into one. Its events have its
offset and its append time, and a `number` from 0 on. A record of version 1 is one event, with the request id as its key.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from stream_monitor.core.codec import VERSION as ONE_EVENT
from stream_monitor.core.joining import SPAN, Record, record_of

VERSION = 2
FULL = 64  # events; a larger frame saves little, and is a coarser step where partitions are read side by side in time
HEAVY = 256 * 1024  # bytes; only a frame of one event is heavier, so what fits into a topic as an event fits as a frame

_BEGIN = bytes((VERSION,))

assert FULL <= SPAN


def frames(events: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The journal records for events of one partition, each as request id and journal value, in order."""
    packed: list[bytes] = []
    for i in range(0, len(events), FULL):
        packed += _fitting(events[i : i + FULL])
    return packed


def _fitting(events: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    frame = _BEGIN + msgpack.packb(events)
    if len(frame) <= HEAVY or len(events) == 1:
        return [frame]
    half = len(events) // 2
    return _fitting(events[:half]) + _fitting(events[half:])


def unframe(offset: int, time: int, key: bytes | None, value: bytes) -> list[Record]:
    """The events in the journal record at `offset`, appended at `time` (ms). Raises ValueError where it is none that this program knows."""
    version = value[0] if value else 0
    if version == VERSION:
        try:
            pairs = msgpack.unpackb(memoryview(value)[1:], use_list=False)
            if len(pairs) > SPAN:
                raise ValueError(f"{len(pairs)} events")
            return [record_of((offset, time, name, event, number)) for number, (name, event) in enumerate(pairs)]
        except (ValueError, TypeError) as damage:
            raise ValueError(f"damaged journal record: {type(damage).__name__} {damage}") from damage
    if version == ONE_EVENT:
        return [Record(offset, time, key or b"", value)]
    raise ValueError(f"journal record of version {version}; this program reads versions {ONE_EVENT} and {VERSION}")
