"""An operator's decision about alerts: the record `control` of `observations`, written and read.

It goes through the log, to the partition in which the alert lives, so that it is ordered with the data it acts on, and a replay decides
the same again. What it says is checked here: the log is open to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import orjson

from stream_monitor.core.categories import shorten

Action = Literal["resolve", "acknowledge", "silence"]
ACTIONS: tuple[Action, ...] = ("resolve", "acknowledge", "silence")

_LAST = 2**53 - 1  # ms


class Decision(NamedTuple):
    """What is to be done with an alert, or with all alerts of the incident `alert`. `note`: what their details say of it afterwards."""

    action: Action
    alert: str
    incident: bool
    fingerprint: str | None
    until: int | None
    note: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Decision | None:
        """A record read; None for one that makes no sense."""
        action, alert, fingerprint = record.get("action"), record.get("alert"), record.get("fingerprint")
        at, until = record.get("timestamp"), record.get("until")
        if action not in ACTIONS or type(alert) is not str or not (until is None or _is_time(until)):
            return None
        note: dict[str, Any] = {"at": at if _is_time(at) else None}
        if action == "silence":
            note["until"] = until
        note |= {"by": _text(record.get("actor")), "comment": _text(record.get("comment"))}
        known = fingerprint if type(fingerprint) is str else None
        return cls(cast(Action, action), alert, record.get("incident") is True, known, until, note)


def decide(
    action: Action,
    alert: Mapping[str, Any],
    at: int,
    *,
    incident: bool = False,
    until: int | None = None,
    by: str | None = None,
    comment: str | None = None,
) -> bytes:
    """The record of a decision made `at` (ms) about an alert, as the alert topic has it, or about its incident."""
    return orjson.dumps(
        {
            "record": "control",
            "action": action,
            "model": alert["model"],
            "alert": alert.get("incident", alert["id"]) if incident else alert["id"],
            "timestamp": at,
            "incident": incident,
            "fingerprint": None if incident else alert["fingerprint"],
            "until": until,
            "actor": by,
            "comment": comment,
        }
    )


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LAST


def _text(value: Any) -> str | None:
    return shorten(value) if type(value) is str and value else None
