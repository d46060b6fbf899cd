"""Routing: one message of an input topic -> one event of the journal, or one dead letter.

The event's partition of the journal is `crc32(request id) mod N`, so the input topics need not be keyed or co-partitioned. N is fixed for
the life of the journal. A dead letter keeps the original key and bytes and says in its headers, named as Kafka Streams' dead-letter
queue names them (KIP-1034), why it was refused and where it stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from stream_monitor.core.codec import Codec, Rejection
from stream_monitor.core.records import Record

Headers = list[tuple[str, bytes]]
Input = Literal["predictions", "feedback"]

MAX_DEAD_BYTES = 256 * 1024  # a longer key or value is cut, so that the dead letter itself fits into a message


class DeadLetter(NamedTuple):
    """A refused message. `key` and `value` are the original bytes, each cut after MAX_DEAD_BYTES."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str


def route(
    codec: Codec, source: Input, topic: str, partition: int, records: Sequence[Record]
) -> tuple[list[tuple[bytes, bytes]], list[DeadLetter]]:
    """What becomes of a run of records of one partition of an input topic: events of the journal, as request id and value, in order."""
    accepted = codec.predictions(records) if source == "predictions" else codec.feedbacks(records)
    dead: list[DeadLetter] = []
    if accepted is None:
        accepted = []
        decode = codec.prediction if source == "predictions" else codec.feedback
        for record in records:
            result = decode(record.value, record.time)
            if type(result) is Rejection:
                dead.append(_dead_letter(result, topic, partition, record))
            else:
                accepted.append(result)
    return accepted, dead


def _dead_letter(why: Rejection, topic: str, partition: int, record: Record) -> DeadLetter:
    key: bytes | None = record.key
    message = why.message
    if key is not None and len(key) > MAX_DEAD_BYTES:
        message += f"; the key, of {len(key)} bytes, is cut"
        key = key[:MAX_DEAD_BYTES]
    headers = [
        ("__streams.errors.exception", why.reason.encode()),
        ("__streams.errors.message", message.encode()),
        ("__streams.errors.topic", topic.encode()),
        ("__streams.errors.partition", b"%d" % partition),
        ("__streams.errors.offset", b"%d" % record.offset),
    ]
    value: bytes | None = record.value
    if value is not None and len(value) > MAX_DEAD_BYTES:
        headers.append(("stream-monitor.original-size", b"%d" % len(value)))
        value = value[:MAX_DEAD_BYTES]
    return DeadLetter(key, value, headers, why.reason)
