"""What an alert says of its change, against the truth: `python -m benchmarks.detection.change [--runs 100] [--seed 1]`.

Streams with the default detectors and a third of the default budget, one value a second; the values change once, in a known
way. Counts how often the interval of the change point holds the truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.budget import Ledger
from stream_monitor.core.events import Alert, Kind, Level
from stream_monitor.core.settings import HOUR, SECOND, DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream

SETTINGS = DetectSettings()
Path = NDArray[np.float64]
"""How far the change has gone at each value: 0 before, 1 after."""


class Family(NamedTuple):
    """Values that change: `draw` of a path, and the mean that goes with 0 and 1 of it."""

    name: str
    binary: bool
    draw: Callable[[np.random.Generator, Path], Path]
    means: tuple[float, float]


def bits(p: float, q: float) -> Family:
    return Family(f"bits, {p:g} to {q:g}", True, lambda rng, path: (rng.random(path.size) < p + (q - p) * path).astype(float), (p, q))


def normal(shift: float) -> Family:
    return Family(f"normal, + {shift:g} sd", False, lambda rng, path: rng.standard_normal(path.size) + shift * path, (0, shift))


def lognormal(shift: float) -> Family:
    means = float(np.exp(0.5)), float(np.exp(0.5 + shift))
    return Family(f"lognormal, log + {shift:g}", False, lambda rng, path: np.exp(rng.standard_normal(path.size) + shift * path), means)


def spread(scale: float) -> Family:
    means = 1.0, scale
    return Family(f"normal, sd x {scale:g}", False, lambda rng, path: rng.standard_normal(path.size) * (1 + (scale - 1) * path), means)


FAMILIES = (
    bits(0.1, 0.15), bits(0.1, 0.2), bits(0.1, 0.4), bits(0.5, 0.6), bits(0.01, 0.03),
    normal(0.25), normal(0.5), normal(1.0), normal(3.0), lognormal(0.5), spread(1.6),
)  # fmt: skip


def events(family: Family, path: Path, seed: tuple[int, ...]) -> Iterator[Alert]:
    """The alert events of one stream, as they come."""
    rng = np.random.default_rng(seed)
    desk = Desk("observations", 0, Ledger(SETTINGS.alert_budget.rate / 3, HOUR))
    subject = Subject.of("m", "v", None, str(seed), Kind.DATA_DRIFT, 0.1, 1.0)
    stream = (BinaryStream if family.binary else NumericStream)(subject, SETTINGS.default.detectors, SETTINGS, desk)
    values = family.draw(rng, path).tolist()
    units = rng.integers(0, 2**63, path.size).tolist()
    for i, (x, unit) in enumerate(zip(values, units, strict=True)):
        desk.move(i * SECOND)
        stream.push(x, unit, i * SECOND, i)
        if desk.out:
            yield from desk.out
            desk.out.clear()


def step(at: int, length: int) -> Path:
    return np.repeat([0.0, 1.0], [at, length])


def holds(level: Level, true: float) -> bool:
    return level.low is not None is not level.high and level.low <= true <= level.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = monotonic()
    print("| change | at | alarms | delay | change point within | width of its interval | before within | after within |")
    print("|---|---|---|---|---|---|---|---|")
    for f, family in enumerate(FAMILIES):
        for early, runs in ((1_200, options.runs), (5_000, options.runs), (20_000, options.runs // 4)):
            rows = []
            for run in range(runs):
                at = early + run % 25  # marks are 25 values apart
                alert = next(events(family, step(at, 5_000), (options.seed, f, early, run)), None)
                if alert is not None and alert.position.offset >= at and (span := alert.change) is not None:
                    within = span.earliest_offset <= at <= span.latest_offset
                    levels = [holds(level, true) for level, true in zip((alert.before, alert.after), family.means, strict=True)]
                    rows.append((alert.position.offset - at, span.latest_offset - span.earliest_offset, within, *levels))
            table = np.array(rows, dtype=float)
            delay, width = np.median(table[:, :2], axis=0)
            within, before, after = (f"{share:.0%}" for share in table[:, 2:].mean(axis=0))
            print(
                f"| {family.name} | {early:,} | {len(rows)} of {runs} | {delay:.0f} | {within} | {width:.0f} | {before} | {after} |",
                flush=True,
            )
    print(f"{monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
