"""What an observation costs with every signal on, and what a slice keeps in memory: `python -m benchmarks.detection.cost`.

An observation is a prediction and its label: two records. 8 features (half of them numbers, one in a thousand values missing), a score, a
latency, weights, scores of each class, 3 slice keys; a tenth of the labels come too late for their maturity, some not at all. Each row
changes one thing. CPU time of the thread over the second half of the log, when most streams are judged, the least of several rounds through
all rows, as others on the machine only ever add to it; then the calls of functions, which are the same on every machine, over some
observations more; memory by tracemalloc, in a run of its own, at the end and at its largest.
Prints tables.

"By turns" is what tells the work from the caches of the processor: several monitors take each record one after the other, and what is told
is the cost of one of them. Each does what it does alone, but finds less of its streams in the caches.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from time import thread_time
from types import FrameType
from typing import Any

import orjson

from stream_monitor.core.limits import parse
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings, MonitorSettings

STEP = 50  # ms between predictions
WARMUP = 100
LONG = 4_500  # observations after which ranks keep bins, not values
COUNTED = 600  # observations whose calls are counted
PREDICTION = b'{"record":"prediction"'
START = 1_700_000_000_000


@dataclass(frozen=True)
class Case:
    """`values`: of each of the three slice keys. `metrics`, `slice_metrics`: what is watched; `more`: and what else. No `classes`: numbers
    are estimated. `by_turns`: so many monitors take each record."""

    name: str
    observations: int = 6_000
    features: int = 8
    classes: int = 3
    values: int = 4
    metrics: tuple[str, ...] = ("*",)
    slice_metrics: tuple[str, ...] = ("*",)
    more: MonitorSettings = field(default_factory=MonitorSettings)
    by_turns: int = 1

    @property
    def settings(self) -> DetectSettings:
        monitor = replace(self.more, metrics=self.metrics, slice_metrics=self.slice_metrics)
        return DetectSettings(warmup=WARMUP, max_slices=2_000, max_streams=1_000_000, maturity_ms=20_000, default=monitor)


ALL = ("*", "volume")
CROSSED = ("*", "country x device")
LIMITS = tuple(map(parse, ("error <= 40%", "recall[class 0] >= 0.7", "precision[class 0] >= 0.7", "latency <= 400 for 99%")))
FAIR = MonitorSettings(protected=("channel",), favourable="class 0", fairness_limit=0.1, disparate_impact=0.8)
EVERYTHING = replace(FAIR, slices=CROSSED, limits=LIMITS, limit_slices=("*",))

BASE = Case("every signal, for all traffic and per slice")
CASES = (
    BASE,
    replace(BASE, name="and volume", metrics=ALL),
    replace(BASE, name="and four limits", more=MonitorSettings(limits=LIMITS)),
    replace(BASE, name="and four limits, also per slice", more=MonitorSettings(limits=LIMITS, limit_slices=("*",))),
    replace(BASE, name="and fairness of a key, all metrics and limits", more=FAIR),
    replace(BASE, name="and a cross of two keys", more=MonitorSettings(slices=CROSSED)),
    replace(BASE, name="everything: all of these", metrics=ALL, more=EVERYTHING),
    replace(BASE, name="every signal of a regression", classes=0, metrics=("*", "squared_error")),
    replace(BASE, name="the error only per slice (the default)", slice_metrics=("error",)),
    replace(BASE, name="the error only, for all traffic and per slice", metrics=("error",), slice_metrics=("error",)),
    replace(BASE, name="no features", features=0),
    replace(BASE, name="16 features", features=16),
    replace(BASE, name="32 features", features=32),
    replace(BASE, name="8 features, 4 monitors by turns", by_turns=4),
    replace(BASE, name="8 features, nothing per slice", slice_metrics=()),
    replace(BASE, name="32 features, nothing per slice", features=32, slice_metrics=()),
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
        said: Any = rng.choice(classes) if classes else rng.gauss(0, 1)
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
            "scores": dict.fromkeys(classes, 0.1 / case.classes) | {said: 0.9} if classes else None,
            "features": features,
            "slices": {key: f"v{rng.randrange(case.values)}" for key in ("country", "device", "channel")},
            "weight": rng.choice((1.0, 2.0, 5.0)),
            "latency_ms": rng.expovariate(0.02),
        }
        while waiting and waiting[0][0] <= time:
            yield heappop(waiting)[2]
        prediction = orjson.dumps(event)
        yield PREDICTION + b',"prediction":%b}' % prediction
        delay = rng.randrange(1_000, 22_000)
        if rng.random() < 0.99:
            label = rng.gauss(said, 1) if not classes else said if rng.random() < 0.8 else rng.choice(classes)
            feedback = orjson.dumps({"request_id": event["request_id"], "label": label, "timestamp": time + delay})
            outcome = b'{"record":"outcome","label_delay_ms":%d,"prediction":%b,"feedback":%b}' % (delay, prediction, feedback)
            heappush(waiting, (time + delay, i, outcome))


def cpu(case: Case, count_calls: bool) -> tuple[float, int, dict[str, int]]:
    """Microseconds and, where asked for, calls an observation, and a monitor's counters at the end."""
    log = list(enumerate(records(replace(case, observations=case.observations + COUNTED))))
    half, end = case.observations, 2 * case.observations
    monitors = [Monitor(case.settings, "observations", 0) for _ in range(case.by_turns)]
    gc.collect()
    gc.freeze()
    _feed(monitors, log[:half])
    started = thread_time()
    _feed(monitors, log[half:end])
    took = thread_time() - started
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    if count_calls:
        sys.setprofile(count)
        _feed(monitors, log[end:])
        sys.setprofile(None)
        calls = round(calls / _observations(log[end:]) / case.by_turns)
    gc.unfreeze()
    return took / _observations(log[half:end]) / case.by_turns * 1e6, calls, monitors[0].counters


def _feed(monitors: list[Monitor], log: list[tuple[int, bytes]]) -> None:
    for offset, value in log:
        for monitor in monitors:
            monitor.step(offset, value)


def _observations(log: list[tuple[int, bytes]]) -> int:
    return sum(value.startswith(PREDICTION) for _, value in log)


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
    parser.add_argument("--only", default="", help="of the times, rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=2, help="of the times")
    options = parser.parse_args()
    part = options.part
    if part != "memory":
        tell_time(options.only, options.rounds)
    if part != "time":
        tell_memory()


def tell_time(only: str, rounds: int) -> None:
    cases = [case for case in CASES if only in case.name]
    found: dict[str, tuple[float, int, dict[str, int]]] = {}
    for i in range(rounds):
        for case in cases:
            cost, calls, counters = cpu(case, count_calls=i == 0)
            least, calls, counters = found.get(case.name, (cost, calls, counters))
            found[case.name] = min(cost, least), calls, counters
            print(f"round {i + 1} of {rounds}: {case.name}: {cost:.0f} us, {calls:,} calls", file=sys.stderr)
    print("| | us an observation | calls | us a thousand calls | streams | slices |\n|---|---|---|---|---|---|")
    for name, (cost, calls, counters) in found.items():
        streams, slices = counters["streams"], counters["slices"]
        print(f"| {name} | {cost:.0f} | {calls:,} | {cost / calls * 1000:.0f} | {streams:,} | {slices:,} |")


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
