"""An alert as a record of the alerts topic: JSON with a fixed order of fields, and CloudEvents 1.0 headers (Kafka binary mode)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import orjson

from stream_monitor.core.events import Alert, Level, Position

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 253_402_300_799_999  # ms; the end of the year 9999
_SHOWN = 100  # characters of a name in the subject


def publish(alert: Alert) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key (the model), value and headers. The same alert gives the same bytes."""
    return alert.model.encode("utf-8", "replace"), orjson.dumps(_body(alert)), _headers(alert)


def _body(alert: Alert) -> dict[str, object]:
    return {
        "id": alert.id,
        "event_id": alert.event_id,
        "fingerprint": alert.fingerprint,
        "incident": alert.incident,
        "status": alert.status.value,
        "severity": alert.severity.value,
        "kind": alert.kind.value,
        "model": alert.model,
        "model_version": alert.model_version,
        "slice": None if alert.slice is None else {"key": alert.slice.key, "value": alert.slice.value},
        "metric": alert.metric,
        "direction": alert.direction,
        "before": _level(alert.before),
        "after": _level(alert.after),
        "statistic": alert.statistic,
        "threshold": alert.threshold,
        "detector": alert.detector,
        "parameters": dict(alert.parameters),
        "assurance": alert.assurance,
        "first_seen": alert.first_seen,
        "detected_at": alert.detected_at,
        "first_position": _position(alert.first_position),
        "position": _position(alert.position),
        "summary": alert.summary,
        "details": dict(alert.details),
        "change": None if alert.change is None else alert.change._asdict(),
    }


def _headers(alert: Alert) -> list[tuple[str, bytes]]:
    place = alert.position
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": alert.event_id,
        "ce_source": f"/stream-monitor/{quote(place.topic)}/{place.partition}",
        "ce_type": f"io.stream-monitor.alert.{alert.status.value}",
        "ce_subject": _subject(alert),
        "ce_time": _time(alert.detected_at),
        "ce_incident": alert.incident,
        "content-type": "application/json",
    }
    return [(name, value.encode()) for name, value in attributes.items()]


def _subject(alert: Alert) -> str:
    """model/version/slice/metric, each percent-encoded and cut; `-` for no slice."""
    part = "-" if alert.slice is None else f"{_name(alert.slice.key)}={_name(alert.slice.value)}"
    return f"{_name(alert.model)}/{_name(alert.model_version)}/{part}/{_name(alert.metric)}"


def _name(text: str) -> str:
    return quote(text[:_SHOWN], safe=":", errors="replace")


def _time(ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, 0), _LAST))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(level: Level) -> dict[str, float | int | None]:
    return {"value": level.value, "count": level.count, "low": level.low, "high": level.high}


def _position(position: Position) -> dict[str, str | int]:
    return {"topic": position.topic, "partition": position.partition, "offset": position.offset}
