"""What one record costs in the detect stage's core: `python -m benchmarks.detect_step [--pairs N]`.

Alternating prediction and outcome records of one model, some 550 bytes, 9 features, 3 slice keys, labels 20,000 predictions late,
through `Monitor.step` in two settings: one ADWIN on the error per country, and the default signals. Prints microseconds a record
and the counters.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from time import perf_counter

import orjson

from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectorSettings, DetectSettings, MonitorSettings

LATE = 20_000
SETTINGS = {
    "one ADWIN on the error per country": DetectSettings(
        default=MonitorSettings(metrics=("error",), slices=("country",), detectors=(DetectorSettings("adwin"),))
    ),
    "default signals": DetectSettings(),
}


def records(pairs: int, seed: int = 7) -> Iterator[bytes]:
    """Observation records as the join stage writes them."""
    rng = random.Random(seed)
    waiting: list[tuple[int, bytes]] = []
    for i in range(pairs + LATE):
        time = 1_700_000_000_000 + i * 10
        prediction = _prediction(i, time, rng)
        yield b'{"record":"prediction","prediction":%b}' % prediction
        waiting.append((time, prediction))
        if i >= LATE:
            made, prediction = waiting[i - LATE]
            waiting[i - LATE] = 0, b""
            label = rng.choice(("approve", "decline")) if rng.random() < 0.2 else "approve"
            feedback = orjson.dumps({"request_id": f"req-{i - LATE:012d}", "label": label, "timestamp": time})
            yield b'{"record":"outcome","label_delay_ms":%d,"prediction":%b,"feedback":%b}' % (time - made, prediction, feedback)


def _prediction(i: int, time: int, rng: random.Random) -> bytes:
    return orjson.dumps(
        {
            "request_id": f"req-{i:012d}",
            "model": "credit",
            "model_version": "v3",
            "timestamp": time,
            "prediction": "approve" if rng.random() < 0.9 else "decline",
            "score": round(rng.random(), 4),
            "features": {
                "salary": round(rng.gauss(60_000, 20_000), 2),
                "commission": round(rng.expovariate(1e-4), 2),
                "age": rng.randrange(20, 80),
                "education": rng.choice(("none", "school", "bachelor", "master", "doctor")),
                "car": rng.random() < 0.3,
                "house_value": round(rng.lognormvariate(12, 0.5), 2),
                "house_years": rng.randrange(1, 30),
                "loan": round(rng.uniform(0, 500_000), 2),
                "zip": rng.randrange(9),
            },
            "slices": {
                "country": rng.choice(("DE", "FR", "US", "BR", "IN")),
                "device": rng.choice(("phone", "desktop", "tablet")),
                "channel": rng.choice(("web", "branch")),
            },
            "latency_ms": round(rng.expovariate(0.02), 1),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    options = parser.parse_args()
    print("writing the records ...", file=sys.stderr)
    log = list(records(options.pairs))
    # The first LATE predictions only fill the queue; from there on predictions and outcomes alternate.
    head, log = log[:LATE], log[LATE:]
    print(f"{len(log):,} records, {sum(map(len, log)) / len(log):.0f} bytes on average")
    for name, settings in SETTINGS.items():
        monitor = Monitor(settings, "observations", 0)
        for offset, value in enumerate(head):
            monitor.step(offset, value)
        started, step, alerts = perf_counter(), monitor.step, 0
        for offset, value in enumerate(log, LATE):
            alerts += len(step(offset, value))
        cost = (perf_counter() - started) / len(log) * 1e6
        print(f"{name}: {cost:.2f} us a record, {1e6 / cost:,.0f} records a second, {alerts} alerts")
        print("   ", ", ".join(f"{key} {value:,}" for key, value in sorted(monitor.counters.items())))


if __name__ == "__main__":
    main()
