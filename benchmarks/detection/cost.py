"""What an observation costs with every signal on, and what a slice keeps in memory: `python -m benchmarks.detection.cost`.

An observation is a prediction and its label: two records. 8 features (half of them numbers, one in a thousand values missing), a score, a
latency, weights, scores of each class, 3 slice keys; a tenth of the labels come too late for their maturity, some not at all. Each row
changes one thing. CPU time of the thread over the second half of the log, when most streams are judged; memory by tracemalloc, in a run of
its own, at the end and at its largest. Prints tables.
"""

from __future__ import annotations

import argparse
import gc
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from time import thread_time

import orjson

from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings, MonitorSettings

STEP = 50  # ms between predictions
WARMUP = 100
LONG = 4_500  # observations after which ranks keep bins, not values
START = 1_700_000_000_000


@dataclass(frozen=True)
class Case:
    """`values`: of each of the three slice keys. `metrics`, `slice_metrics`: what is watched."""

    name: str
    observations: int = 6_000
    features: int = 8
    classes: int = 3
    values: int = 4
    metrics: tuple[str, ...] = ("*",)
    slice_metrics: tuple[str, ...] = ("*",)

    @property
    def settings(self) -> DetectSettings:
        monitor = MonitorSettings(metrics=self.metrics, slice_metrics=self.slice_metrics)
        return DetectSettings(warmup=WARMUP, max_slices=2_000, max_streams=1_000_000, maturity_ms=20_000, default=monitor)


BASE = Case("every signal, for all traffic and per slice")
CASES = (
    BASE,
    replace(BASE, name="the error only per slice (the default)", slice_metrics=("error",)),
    replace(BASE, name="nothing per slice", slice_metrics=()),
    replace(BASE, name="the error only, for all traffic and per slice", metrics=("error",), slice_metrics=("error",)),
    replace(BASE, name="no features", features=0),
    replace(BASE, name="32 features", features=32),
    replace(BASE, name="2 classes", classes=2),
    replace(BASE, name="20 classes", classes=20),
    replace(BASE, name="60 slices", values=20, observations=12_000),
    replace(BASE, name="180 slices", values=60, observations=18_000),
)


def records(case: Case, seed: int = 7) -> Iterator[bytes]:
    """Observation records, in the order in which they come."""
    rng = random.Random(seed)
    classes = [f"class {i}" for i in range(case.classes)]
    waiting: list[tuple[int, int, bytes]] = []
    for i in range(case.observations):
        time = START + i * STEP
        said = rng.choice(classes)
        shares = dict.fromkeys(classes, 0.1 / case.classes) | {said: 0.9}
        features: dict[str, object] = {}
        for j in range(case.features):
            features[f"f{j}"] = None if rng.random() < 0.001 else rng.gauss(0, 1) if j % 2 else rng.choice(("a", "b", "c", "d"))
        event = {
            "request_id": f"req-{i:09d}",
            "model": "credit",
            "model_version": "v3",
            "timestamp": time,
            "prediction": said,
            "score": rng.random(),
            "scores": shares,
            "features": features,
            "slices": {key: f"v{rng.randrange(case.values)}" for key in ("country", "device", "channel")},
            "weight": rng.choice((1.0, 2.0, 5.0)),
            "latency_ms": rng.expovariate(0.02),
        }
        while waiting and waiting[0][0] <= time:
            yield heappop(waiting)[2]
        prediction = orjson.dumps(event)
        yield b'{"record":"prediction","prediction":%b}' % prediction
        delay = rng.randrange(1_000, 22_000)
        if rng.random() < 0.99:
            label = said if rng.random() < 0.8 else rng.choice(classes)
            feedback = orjson.dumps({"request_id": event["request_id"], "label": label, "timestamp": time + delay})
            outcome = b'{"record":"outcome","label_delay_ms":%d,"prediction":%b,"feedback":%b}' % (delay, prediction, feedback)
            heappush(waiting, (time + delay, i, outcome))


def cpu(case: Case) -> tuple[float, dict[str, int]]:
    """Microseconds an observation, and the monitor's counters at the end."""
    log = list(records(case))
    monitor = Monitor(case.settings, "observations", 0)
    half = len(log) // 2
    gc.collect()
    gc.freeze()
    for offset, value in enumerate(log[:half]):
        monitor.step(offset, value)
    started = thread_time()
    for offset, value in enumerate(log[half:], half):
        monitor.step(offset, value)
    cost = (thread_time() - started) / (case.observations / 2) * 1e6
    gc.unfreeze()
    return cost, monitor.counters


def memory(case: Case) -> tuple[int, int]:
    """Bytes that the monitor holds at the end, and at most."""
    log = list(records(case))
    gc.collect()
    tracemalloc.start()
    monitor, most = Monitor(case.settings, "observations", 0), 0
    for offset, value in enumerate(log):
        monitor.step(offset, value)
        if offset % 1_000 == 0:
            most = max(most, tracemalloc.get_traced_memory()[0])
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held, max(most, held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("time", "memory", "both"), default="both")
    part = parser.parse_args().part
    if part != "memory":
        tell_time()
    if part != "time":
        tell_memory()


def tell_time() -> None:
    print("| | us an observation | streams | slices |\n|---|---|---|---|")
    for case in CASES:
        cost, counters = cpu(case)
        print(f"| {case.name} | {cost:.0f} | {counters['streams']:,} | {counters['slices']:,} |", flush=True)


def tell_memory() -> None:
    print("\n| | KiB in all | at most | KiB a slice | at most |\n|---|---|---|---|---|")
    bare, bare_most = memory(replace(BASE, slice_metrics=(), observations=LONG))
    print(f"| nothing per slice | {bare / 1024:,.0f} | {bare_most / 1024:,.0f} | | |", flush=True)
    for case in (CASES[1], BASE, replace(BASE, name="20 classes", classes=20), replace(BASE, name="16 features", features=16)):
        held, most = memory(replace(case, observations=LONG))
        slices = 3 * case.values
        print(
            f"| {case.name} | {held / 1024:,.0f} | {most / 1024:,.0f} | {(held - bare) / 1024 / slices:,.0f}"
            f" | {(most - bare_most) / 1024 / slices:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
