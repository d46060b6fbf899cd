"""A monitor whose every alert tells its whole past: a record too many, too few or out of order changes all alerts after it.

It has what a real one has: outcomes that wait, alerts that fire and are resolved, snapshots that leave the waiting out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from stream_monitor.core.alerting import from_plain, to_plain
from stream_monitor.core.events import Alert, Kind, Level, Position, Severity, Status

WAIT = 4  # records that come after an outcome before it counts

_ALERT = Alert(
    id="",
    event_id="",
    fingerprint="",
    incident="",
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
    """An event each third record that counts: an alert fires, or the one of this model that fires is resolved."""

    EVERY = 3

    def __init__(self, topic: str, partition: int) -> None:
        self.at = 0
        self.firing: dict[str, Alert] = {}  # by fingerprint
        self._plain: dict[str, tuple[Alert, dict[str, Any]]] = {}  # what fires as plain data, made once: `check` takes many snapshots
        self._topic, self._partition = topic, partition
        self._seen = 0  # records
        self._count = 0  # those that counted
        self._past = 0
        self._waiting: list[tuple[int, int, bytes]] = []  # when it is its turn, offset, value
        self._missing: dict[int, int] = {}  # what a snapshot left out: offset -> its turn

    def step(self, offset: int, value: bytes) -> Sequence[Alert]:
        self.at = offset + 1
        self._seen += 1
        counts = []
        while self._waiting and self._waiting[0][0] <= self._seen:
            counts.append(self._waiting.pop(0)[1:])
        if value.startswith(b'{"record":"outcome"'):
            self._waiting.append((self._seen + WAIT, offset, value))
        else:
            counts.append((offset, value))
        return [alert for one in counts for alert in self._counts(*one, offset)]

    def _counts(self, born: int, value: bytes, offset: int) -> list[Alert]:
        self._count += 1
        self._past = crc32(value + b"@%d" % born, self._past)
        if self._count % self.EVERY:
            return []
        event, model = f"{self._past:08x}", f"m{self._past % 5}"
        position = Position(self._topic, self._partition, offset)
        fired = self.firing.pop(model, None)
        if fired is not None:
            return [replace(fired, event_id=event, status=Status.RESOLVED, position=position)]
        alert = self.firing[model] = replace(_ALERT, id=event, event_id=event, fingerprint=model, model=model, position=position)
        return [alert]

    def refill(self, offset: int, value: bytes) -> None:
        if value.startswith(b'{"record":"outcome"') and offset in self._missing:
            self._waiting.append((self._missing[offset], offset, value))
            self._waiting.sort()

    def snapshot(self, waiting: bool = True) -> dict[str, Any]:
        left_out = [] if waiting else [[turn, offset] for turn, offset, _ in self._waiting]
        return {
            "at": self.at,
            "refill_from": min((offset for _, offset in left_out), default=None),
            "state": [self._seen, self._count, self._past],
            "firing": {name: self._as_plain(name, alert) for name, alert in self.firing.items()},
            "left_out": left_out,
            "waiting": [list(one) for one in self._waiting] if waiting else [],
        }

    def _as_plain(self, name: str, alert: Alert) -> dict[str, Any]:
        known = self._plain.get(name)
        if known is None or known[0] is not alert:
            known = self._plain[name] = alert, to_plain(alert)
        return known[1]

    @classmethod
    def restore(cls, topic: str, partition: int, data: dict[str, Any]) -> CountingMonitor:
        monitor = cls(topic, partition)
        monitor.at = data["at"]
        monitor._seen, monitor._count, monitor._past = data["state"]
        monitor.firing = {name: from_plain(alert) for name, alert in data["firing"].items()}
        monitor._missing = {offset: turn for turn, offset in data["left_out"]}
        monitor._waiting = [(turn, offset, value) for turn, offset, value in data["waiting"]]
        return monitor

    def carry_over(self, firing: Iterable[Alert], offset: int) -> Sequence[Alert]:
        out = []
        for alert in firing:
            if alert.fingerprint in self.firing:
                self.firing[alert.fingerprint] = alert
            else:
                out.append(replace(alert, event_id=f"carried {alert.id}", status=Status.RESOLVED))
        return out


class OtherMonitor(CountingMonitor):
    """The same under settings that decide otherwise."""

    EVERY = 2
