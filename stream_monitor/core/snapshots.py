"""The state topic: snapshots of detector state, to start from, and the alerts that fire. Records in, values out.

    TOPIC/PARTITION/CHUNK                a piece of the newest snapshot of a partition of `observations`
    TOPIC/PARTITION/firing/FINGERPRINT   the newest event about an alert that fires now, or a warning that stands

A snapshot stands for one offset of one partition and one configuration. Its chunks are written in one transaction with that
offset, under keys that the next snapshot overwrites, so a reader of committed records finds one whole snapshot or none; what a longer
one before it leaves over is taken off by records without value. The payload is plain data (msgpack, compressed), never code.

The alerts that fire are kept apart from the snapshot, each written in the transaction that publishes it: so what readers of the
alert topic hold for firing is known exactly even where a snapshot can not be used, because the settings or the program have changed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack
import orjson

from stream_monitor.core.alerting import from_plain, to_plain
from stream_monitor.core.events import Alert, Status

FORMAT = 1
CHUNK_BYTES = 512 * 1024


class Snapshot(NamedTuple):
    """`state` is S(offset) of `place`, made under the settings with this digest."""

    offset: int
    digest: str
    state: Any


class StateRecord(NamedTuple):
    """A record of the state topic; without value it takes its key off."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


def cut(place: tuple[str, int], snapshot: Snapshot, before: int = 0) -> list[StateRecord]:
    """The records that hold a snapshot, over one that had `before` chunks."""
    payload = zlib.compress(msgpack.packb(snapshot.state), 1)
    pieces = [payload[i : i + CHUNK_BYTES] for i in range(0, len(payload), CHUNK_BYTES)]
    headers = [
        ("format", b"%d" % FORMAT),
        ("offset", b"%d" % snapshot.offset),
        ("digest", snapshot.digest.encode()),
        ("chunks", b"%d" % len(pieces)),
        ("id", _id(payload)),
    ]
    records = [StateRecord(key_of(place, i), piece, headers) for i, piece in enumerate(pieces)]
    return records + [StateRecord(key_of(place, i), None, []) for i in range(len(pieces), before)]


def key_of(place: tuple[str, int], chunk: int) -> bytes:
    return f"{place[0]}/{place[1]}/{chunk}".encode()


def _firing_key(place: tuple[str, int], fingerprint: str = "") -> bytes:
    """Of an alert that fires; without a fingerprint what all of these begin with."""
    return f"{place[0]}/{place[1]}/firing/{fingerprint}".encode()


def begins(place: tuple[str, int], records: Sequence[StateRecord]) -> bool:
    """Whether the end of a log holds the newest snapshot whole: chunks are written in their order."""
    first = key_of(place, 0)
    return any(record.key == first for record in records)


def chunks(place: tuple[str, int], records: Iterable[StateRecord]) -> int:
    """How many chunks a snapshot must have to overwrite all that is there."""
    latest = _latest(records)
    prefix = f"{place[0]}/{place[1]}/".encode()
    tails = (key.removeprefix(prefix) for key, record in latest.items() if key.startswith(prefix) and record.value is not None)
    return max((int(tail) + 1 for tail in tails if tail.isdigit()), default=0)


def assemble(place: tuple[str, int], records: Iterable[StateRecord]) -> Snapshot | None:
    """The newest snapshot of `place` among committed records in their order; None where there is none.

    Raises ValueError for one that this program can not read.
    """
    latest = _latest(records)
    first = latest.get(key_of(place, 0))
    if first is None or first.value is None:
        return None
    head = dict(first.headers)
    if head.get("format") != b"%d" % FORMAT:
        raise ValueError(f"it is of format {head.get('format', b'?').decode(errors='replace')}, this program reads format {FORMAT}")
    try:
        return _joined(place, head, latest)
    except (KeyError, zlib.error, msgpack.UnpackException) as error:
        raise ValueError(f"it is damaged: {type(error).__name__} {error}") from error


def _joined(place: tuple[str, int], head: Mapping[str, bytes], latest: Mapping[bytes, StateRecord]) -> Snapshot:
    if not (head["chunks"].isdigit() and head["offset"].isdigit()):
        raise ValueError("it is not said how many chunks it has, or what offset it stands for")
    count = int(head["chunks"])
    pieces = []
    for i in range(count):
        record = latest.get(key_of(place, i))
        if record is None or record.value is None or dict(record.headers) != head:
            raise ValueError(f"chunk {i} of {count} is missing")  # it was not written by this protocol
        pieces.append(record.value)
    payload = b"".join(pieces)
    if _id(payload) != head["id"]:
        raise ValueError("it is damaged: its bytes are not those that were written")
    state = msgpack.unpackb(zlib.decompress(payload), strict_map_key=False)
    return Snapshot(int(head["offset"]), head["digest"].decode(), state)


def firing(place: tuple[str, int], alert: Alert, digest: str) -> StateRecord:
    """What an event about an alert, told under the settings with this digest, changes about those that fire."""
    key = _firing_key(place, alert.fingerprint)
    if alert.status is Status.RESOLVED:
        return StateRecord(key, None, [])
    return StateRecord(key, orjson.dumps(to_plain(alert)), [("format", b"%d" % FORMAT), ("digest", digest.encode())])


def others_told(place: tuple[str, int], records: Sequence[StateRecord], digest: str) -> bool:
    """Whether alerts were told under other settings since the newest snapshot: a state that begins there does not know them."""
    first, prefix = key_of(place, 0), _firing_key(place)
    for record in reversed(records):
        if record.key == first:
            return False
        if record.key.startswith(prefix) and record.value is not None and dict(record.headers).get("digest") != digest.encode():
            return True
    return False


def alerts(place: tuple[str, int], records: Iterable[StateRecord]) -> tuple[list[Alert], list[str]]:
    """The alerts that fire, in the order of their fingerprints, and the keys of those that can not be read."""
    prefix = _firing_key(place)
    found, unreadable = [], []
    for key, record in sorted(_latest(records).items()):
        if key.startswith(prefix) and record.value is not None:
            try:
                found.append(from_plain(orjson.loads(record.value)))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                unreadable.append(key.decode(errors="replace"))
    return found, unreadable


def _latest(records: Iterable[StateRecord]) -> dict[bytes, StateRecord]:
    return {record.key: record for record in records}


def _id(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=8).hexdigest().encode()
