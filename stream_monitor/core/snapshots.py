"""Snapshots of detector state as records of the compacted `state` topic: cut into chunks, found again, put together.

A snapshot stands for one offset of one partition of `observations` and one configuration. Its chunks are written in one
transaction with that offset, under keys that the next snapshot overwrites, so a reader of committed records finds one whole
snapshot or none. The payload is plain data (msgpack, compressed), never code.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgpack

FORMAT = 1
CHUNK_BYTES = 512 * 1024


class Snapshot(NamedTuple):
    """`state` is S(offset) of `place`, made under the settings with this digest."""

    offset: int
    digest: str
    state: Any


class StateRecord(NamedTuple):
    """A record of the state topic."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def cut(place: tuple[str, int], snapshot: Snapshot) -> list[StateRecord]:
    """The records that hold a snapshot."""
    payload = zlib.compress(msgpack.packb(snapshot.state), 1)
    pieces = [payload[i : i + CHUNK_BYTES] for i in range(0, len(payload), CHUNK_BYTES)]
    headers = [
        ("format", b"%d" % FORMAT),
        ("offset", b"%d" % snapshot.offset),
        ("digest", snapshot.digest.encode()),
        ("chunks", b"%d" % len(pieces)),
    ]
    return [StateRecord(key_of(place, i), piece, headers) for i, piece in enumerate(pieces)]


def key_of(place: tuple[str, int], chunk: int) -> bytes:
    return f"{place[0]}/{place[1]}/{chunk}".encode()


def assemble(place: tuple[str, int], records: Iterable[StateRecord]) -> Snapshot | None:
    """The newest snapshot of `place` among committed records in their order; None where there is none that this program reads."""
    latest: dict[bytes, StateRecord] = {record.key: record for record in records}
    first = latest.get(key_of(place, 0))
    if first is None:
        return None
    head = _head(first)
    if head.get("format") != b"%d" % FORMAT:
        return None
    pieces = []
    for i in range(int(head["chunks"])):
        record = latest.get(key_of(place, i))
        if record is None or _head(record) != head:
            return None  # not one snapshot: it was not written by this protocol
        pieces.append(record.value)
    state = msgpack.unpackb(zlib.decompress(b"".join(pieces)), strict_map_key=False)
    return Snapshot(int(head["offset"]), head["digest"].decode(), state)


def _head(record: StateRecord) -> Mapping[str, bytes]:
    return dict(record.headers)
