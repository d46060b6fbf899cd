"""How often the default detectors cry wolf on stationary streams: `python -m benchmarks.detection.false_alarms`.

Each stream goes through the standardising of the monitor (core/reference.py) and then, restarted after each alarm, through a
detector. Prints false alarms per million values with their 95% Poisson interval. `--values` values for each pair, seeds fixed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from time import monotonic

from scipy.stats import chi2

from stream_monitor.core.detectors import create
from stream_monitor.core.reference import Ranks, binary_score
from stream_monitor.core.settings import DetectorSettings

STREAM = 50_000  # values before the reference starts anew: most streams of a monitor are not older than a few of its warm-ups
Draw = Callable[[random.Random], float]

NUMERIC: dict[str, Draw] = {
    "normal": lambda rng: rng.gauss(0, 1),
    "lognormal": lambda rng: rng.lognormvariate(0, 1.5),
    "Poisson(2)": lambda rng: float(sum(rng.expovariate(2) < 0.25 for _ in range(8))),
}
BINARY = (0.5, 0.1, 0.01, 0.001)


def binary(p: float, rng: random.Random, count: int) -> Iterator[tuple[float, float]]:
    """(value, normal score) of a 0/1 stream."""
    draw, bits = rng.random, rng.getrandbits
    for i in range(count):
        if i % STREAM == 0:
            total = 0
        x = int(draw() < p)
        yield x, binary_score(x, i % STREAM, total, bits(53) | 1)
        total += x


def numeric(law: Draw, rng: random.Random, count: int) -> Iterator[tuple[float, float]]:
    """(normal score, normal score) of a numeric stream."""
    bits = rng.getrandbits
    for i in range(count):
        if i % STREAM == 0:
            ranks = Ranks()
        z = ranks.learn(law(rng), bits(53) | 1)
        yield z, z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=float, default=20e6)
    parser.add_argument("--detector", action="append", default=[], help="name or name:parameter=value,... (default: adwin, page_hinkley)")
    parser.add_argument("--only", default="", help="the laws whose name contains this")
    options = parser.parse_args()
    count = int(options.values)
    settings = [_parse(text) for text in options.detector or ["adwin", "page_hinkley"]]
    laws: dict[str, Callable[[random.Random], Iterator[tuple[float, float]]]] = {
        **{f"binary p={p}": lambda rng, p=p: binary(p, rng, count) for p in BINARY},  # type: ignore[misc]
        **{name: lambda rng, law=law: numeric(law, rng, count) for name, law in NUMERIC.items()},  # type: ignore[misc]
    }
    for name, law in laws.items():
        if options.only not in name:
            continue
        alarms = _run(name, law(random.Random(7)), settings, count)
        for one, number in zip(settings, alarms, strict=True):
            low = chi2.ppf(0.025, 2 * number) / 2 if number else 0.0
            high = chi2.ppf(0.975, 2 * number + 2) / 2
            scale = 1e6 / count
            label = " ".join([one.name, *(f"{k}={v}" for k, v in one.parameters.items())])
            print(f"{name:<16} {label:<40} {number * scale:7.2f} per million [{low * scale:.2f}, {high * scale:.2f}]", flush=True)


def _run(name: str, pairs: Iterator[tuple[float, float]], settings: list[DetectorSettings], count: int) -> list[int]:
    detectors = [create(one) for one in settings]
    alarms = [0] * len(detectors)
    started = monotonic()
    watched = [(i, d, d.reads == "value") for i, d in enumerate(detectors)]
    for step, (value, score) in enumerate(pairs):
        for i, detector, reads_value in watched:
            if detector.update(value if reads_value else score):
                alarms[i] += 1
                detector.reset()
        if step % 500_000 == 0 and sys.stderr.isatty():
            print(f"\r{name}: {step / count:4.0%}, {monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return alarms


def _parse(text: str) -> DetectorSettings:
    name, _, rest = text.partition(":")
    pairs = [item.split("=") for item in rest.split(",") if item]
    return DetectorSettings(name, {key: float(value) if "." in value or "e" in value else int(value) for key, value in pairs})


if __name__ == "__main__":
    main()
