"""A monitor whose every alert tells its whole past: a record too many, too few or out of order changes all alerts after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

from stream_monitor.core.events import Alert, Kind, Level, Position, Severity, Status

EVERY = 3

_ALERT = Alert(
    id="",
    event_id="",
    fingerprint="",
    status=Status.FIRING,
    severity=Severity.INFO,
    kind=Kind.CONCEPT_DRIFT,
    model="m",
    model_version="1",
    slice=None,
    metric="error",
    direction=None,
    before=Level(0.0, 0),
    after=Level(0.0, 0),
    statistic=0.0,
    threshold=0.0,
    detector="counting",
    parameters={},
    assurance="uncalibrated",
    first_seen=0,
    detected_at=0,
    first_position=Position("observations", 0, 0),
    position=Position("observations", 0, 0),
    summary="",
)


class CountingMonitor:
    """Raises an alert each third record."""

    def __init__(self, topic: str, partition: int) -> None:
        self.at = 0
        self._topic, self._partition = topic, partition
        self._count = 0
        self._past = 0

    def step(self, offset: int, value: bytes) -> Sequence[Alert]:
        self._count += 1
        self._past = crc32(value + b"@%d" % offset, self._past)
        self.at = offset + 1
        if self._count % EVERY:
            return []
        position = Position(self._topic, self._partition, offset)
        return [replace(_ALERT, id=f"{self._past:08x}", event_id=f"{self._past:08x}", model=f"m{offset % 5}", position=position)]
