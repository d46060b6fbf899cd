"""A log in which all happens that detection can tell of, and what is made of it: `python -m tests.support.everything`.

Whoever runs the same code gets the same lines, to the last byte.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import orjson

from stream_monitor.core import streams
from stream_monitor.core.detectors import register
from stream_monitor.core.detectors.bits import Ddm
from stream_monitor.core.limits import parse
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import AlertBudget, DetectorSettings, DetectSettings, MonitorSettings
from tests.support.observations import START, cohort, outcome, predicted, run

MINUTE = 60_000
NAMES = "adwin", "ddm", "e_detector", "eddm", "hddm_a", "hddm_w", "outside", "page_hinkley"
SETTINGS = DetectSettings(
    alert_budget=AlertBudget(5),
    warning_budget=AlertBudget(10),
    warmup=300,
    maturity_sample=200,
    max_slices=15,
    monitors=(
        MonitorSettings(
            "credit",
            ("credit",),
            slices=("*", "country x gender"),
            slice_metrics=("*",),
            new_version="previous",
            limits=tuple(map(parse, ("recall[yes] >= 0.7", "error <= 20%", "latency <= 200 for 99%", "brier <= 0.4"))),
            limit_slices=("country=*",),
            protected=("gender",),
            favourable="yes",
            fairness_limit=0.1,
            disparate_impact=0.7,
            metrics=("*", "volume", "squared_error"),
        ),
        MonitorSettings("odd", ("odd",), slices=("country",)),
    ),
    default=MonitorSettings(detectors=tuple(map(DetectorSettings, NAMES)), protected=("gender",), fairness_limit=0.2),
)


class Outside(Ddm):
    """A detector that a package brings: it is never compiled, and its answers are numpy's."""

    name = "outside"

    def update(self, x: float) -> Any:
        return np.bool_(super().update(x))


def log(count: int = 2_500) -> Iterator[bytes]:
    """Predictions of a model that classifies and one that estimates, the labels of most of them, and what is wrong with some."""
    rng = random.Random(7)
    waiting: list[tuple[dict[str, Any], Any]] = []
    for i in range(count):
        late, drift = i > count * 0.7, max(0.0, i / count - 0.4)
        credit = i % 3 > 0
        country, gender = rng.choice(("DE", "FR", "US", "BR")), rng.choice("fm")
        fails = rng.random() < (0.8 if late and gender == "f" else 0.5 if late and country == "DE" else 0.1)
        answer = rng.choice(("yes", "no"))
        number = round(rng.gauss(100, 10), 3)
        event: dict[str, Any] = {
            "request_id": f"req-{i}",
            "model": "credit" if credit else "price",
            "model_version": "v2" if i > count // 2 else "v1",
            "timestamp": START + i * MINUTE,
            "prediction": answer if credit else number,
            "score": round(rng.random(), 4),
            "features": {
                "amount": round(rng.gauss(drift * 3, 1), 6),
                "age": rng.randrange(20, 80),
                "channel": rng.choices(("web", "shop", f"new-{i % 7}"), (5, 4, 3 * drift))[0],
                "card": None if rng.random() < drift / 3 else rng.random() < 0.3,
            },
            "slices": {"country": country, "gender": gender},
            "latency_ms": round(rng.expovariate(0.02 if not late else 0.005), 1),
        }
        if credit:
            event["scores"] = {answer: 0.8, "no" if answer == "yes" else "yes": 0.2}
        if i % 50 == 0:
            event["slices"]["user"] = f"u{i}"
        if i % 5 == 0:
            event["weight"] = rng.choice((1, 2.5, 10))
        yield predicted(event)
        label: Any = answer if credit else number + rng.gauss(0, 1)
        if fails:
            label = rng.choice(("no", "maybe")) if credit else number + 5
        waiting.append((event, label))
        if len(waiting) > 40:
            made, label = waiting.pop(rng.randrange(20))
            if rng.random() < 0.95 - drift / 2:
                yield outcome(made, label, (i - int(made["request_id"][4:])) * MINUTE)
        if i % 97 == 0 and late:
            yield _issue("late" if i % 2 else "conflicting", made, label)
        if i % 5 == 0:
            yield cohort(START + i // 25 * 25 * MINUTE, 40, rng.randrange(20 if late else 2), event)
        if i % 501 == 0:
            yield b'{"record":"outcome","prediction":{},"feedback":7}'
            yield outcome({**event, "model": "odd", "slices": {"country": 7, "gender": None}, "scores": {"yes": "no"}}, label)


def _issue(issue: str, event: dict[str, Any], label: Any) -> bytes:
    feedback = {"request_id": event["request_id"], "label": label, "timestamp": event["timestamp"] + 90 * MINUTE}
    whose = {name: event[name] for name in ("model", "model_version", "slices")}
    return orjson.dumps({"record": "feedback_issue", "issue": issue, **whose, "prediction": event, "feedback": feedback})


def main() -> None:
    """Which code it is, each event, and digests of the state, where a restart came in between as well."""
    print("compiled" if streams.__file__.endswith((".so", ".pyd")) else "interpreted")
    register("outside", Outside)  # here and not above: whoever collects doctests imports this module
    records = list(log())
    monitor, alerts = run(SETTINGS, records[:3_000])
    monitor = Monitor.restore(SETTINGS, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
    for alert in (*alerts, *run(SETTINGS, records[3_000:], monitor)[1]):
        print(publish(alert))
    for state in (monitor.snapshot(), monitor.budget(), monitor.counters):
        print(sha256(orjson.dumps(state)).hexdigest())


if __name__ == "__main__":
    main()
