"""Observation records as the join stage writes them, and logs of them with known truth."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from stream_monitor.core.alerting import Desk
from stream_monitor.core.budget import Ledger
from stream_monitor.core.events import Alert, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import HOUR, AlertBudget, DetectSettings

START = 1_709_640_000_000  # 2024-03-05 12:00 UTC
STEP = 100  # ms between predictions


def desk(budget: AlertBudget | None = None) -> Desk:
    """Where the alerts of partition 0 are written, with a budget of its own."""
    return Desk("observations", 0, Ledger((budget or AlertBudget()).rate, HOUR))


def prediction(i: int, **fields: Any) -> dict[str, Any]:
    """The i-th prediction of model credit v3; `fields` replace or add."""
    return {
        "request_id": f"req-{i}",
        "model": "credit",
        "model_version": "v3",
        "timestamp": START + i * STEP,
        "prediction": "yes",
        **fields,
    }


def predicted(event: dict[str, Any]) -> bytes:
    """The record of a prediction."""
    return b'{"record":"prediction","prediction":%b}' % orjson.dumps(event)


def outcome(event: dict[str, Any], label: Any, delay: int = 0) -> bytes:
    """The record of a prediction with its label, `delay` ms later."""
    time = event["timestamp"] + delay
    feedback = orjson.dumps({"request_id": event["request_id"], "label": label, "timestamp": time})
    return b'{"record":"outcome","label_delay_ms":%d,"prediction":%b,"feedback":%b}' % (delay, orjson.dumps(event), feedback)


def cohort(since: int, labels: int, orphans: int, event: dict[str, Any], /, **fields: Any) -> bytes:
    """The record of so many labels that came in the slot from `since` on, of the version and the slices of this prediction."""
    whose = {name: event[name] for name in ("model", "model_version", "slices") if name in event}
    numbers = {"since": since, "labels": labels, "orphans": orphans}
    return orjson.dumps({"record": "feedback_cohort", **whose, **numbers, **fields})


def control(alert: str, action: str = "resolve") -> bytes:
    """The record of an operator's decision."""
    return orjson.dumps({"record": "control", "action": action, "model": "credit", "alert": alert, "timestamp": START})


def judged(count: int, error: Callable[[int, str], float], seed: int = 1, start: int = 0) -> Iterator[bytes]:
    """Outcomes without delay, over four countries and two devices; `error(i, country)` is the probability of a wrong answer."""
    rng = random.Random(seed)
    for i in range(start, start + count):
        country = rng.choice(("DE", "FR", "US", "BR"))
        slices = {"country": country, "device": rng.choice(("phone", "desktop"))}
        yield outcome(prediction(i, slices=slices), "no" if rng.random() < error(i, country) else "yes")


def by_arrival(outcomes: Iterable[tuple[dict[str, Any], Any, int]]) -> list[bytes]:
    """Records of (prediction, label, delay) in the order in which the labels come."""
    ordered = sorted(outcomes, key=lambda one: (one[0]["timestamp"] + one[2], one[0]["timestamp"]))
    return [outcome(*one) for one in ordered]


def run(settings: DetectSettings, records: Iterable[bytes], monitor: Monitor | None = None) -> tuple[Monitor, list[Alert]]:
    """The monitor after the records, at the offsets that follow its `at`, and every alert."""
    monitor = monitor or Monitor(settings, "observations", 0)
    alerts: list[Alert] = []
    for value in records:
        alerts += monitor.step(monitor.at, value)
    return monitor, alerts


def story(settings: DetectSettings, records: Iterable[bytes], monitor: Monitor | None = None) -> tuple[Monitor, list[Alert]]:
    """As `run`, with the events that begin and end an alert, but not those that say more about it in between."""
    monitor, alerts = run(settings, records, monitor)
    return monitor, begun_and_ended(alerts)


def begun_and_ended(alerts: Iterable[Alert]) -> list[Alert]:
    """Without the events that say more about an alert that fires."""
    return [alert for alert in alerts if alert.status is not Status.UPDATED]


def without_shapes(alerts: Iterable[Alert]) -> list[Alert]:
    """Without the events that tell for the first time what a change looked like."""
    shaped: set[str] = set()
    kept = []
    for alert in alerts:
        if alert.status is Status.UPDATED and "shape" in alert.details and alert.id not in shaped:
            shaped.add(alert.id)
        else:
            kept.append(alert)
    return kept
