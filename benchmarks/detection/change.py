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
from stream_monitor.core.events import Alert, Kind, Level, Status
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

SHAPED = (
    (bits(0.1, 0.2), 0.1 / 0.35), (bits(0.1, 0.3), 0.2 / 0.38), (normal(0.25), 0.25), (normal(0.5), 0.5), (normal(1.0), 1.0),
    (lognormal(0.5), 0.5),
)  # fmt: skip
"""With the height of the change in standard deviations."""

COURSES = (("step", 0), ("ramp", 100), ("ramp", 500), ("ramp", 1_000), ("ramp", 2_000), ("ramp", 4_000), ("blip", 300), ("blip", 1_000))
SEEN = 17_000  # values after a change at most


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


def step(at: int, length: int = SEEN) -> Path:
    return np.repeat([0.0, 1.0], [at, length])


def ramp(length: int) -> Path:
    return np.concatenate([np.linspace(0, 1, length), np.ones(SEEN - length)])


def blip(length: int) -> Path:
    return np.repeat([1.0, 0.0], [length, SEEN - length])


def holds(level: Level, true: float) -> bool:
    return level.low is not None is not level.high and level.low <= true <= level.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--shapes-only", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = monotonic()
    if not options.shapes_only:
        places(options.runs, options.seed)
    shapes(options.runs, options.seed)
    print(f"{monotonic() - started:.0f} s", file=sys.stderr)


def places(runs: int, seed: int) -> None:
    """Whether the intervals of the change point and of the levels hold the truth."""
    print("| change | at | alarms | delay | width of the interval | change point within | before within | after within |")
    print("|---|---|---|---|---|---|---|---|")
    for f, family in enumerate(FAMILIES):
        for early, many in ((1_200, runs), (5_000, runs), (20_000, runs // 4)):
            rows = []
            for run in range(many):
                at = early + run % 25  # marks are 25 values apart
                alert = next(events(family, step(at), (seed, f, early, run)), None)
                if alert is not None and alert.position.offset >= at and (span := alert.change) is not None:
                    within = span.earliest_offset <= at <= span.latest_offset
                    levels = [holds(level, true) for level, true in zip((alert.before, alert.after), family.means, strict=True)]
                    rows.append((alert.position.offset - at, span.latest_offset - span.earliest_offset, within, *levels))
            table = np.array(rows, dtype=float)
            delay, width = np.median(table[:, :2], axis=0)
            shares = " | ".join(f"{share:.0%}" for share in table[:, 2:].mean(axis=0))
            print(f"| {family.name} | {early:,} | {len(rows)} of {many} | {delay:.0f} | {width:.0f} | {shares} |", flush=True)


def shapes(runs: int, seed: int) -> None:
    """What changes that come suddenly, little by little or for a while are called, and how well the level after them is known."""
    names = ("sudden", "gradual", "blip", "undetermined", "none")
    print(f"| change | course | told apart by | alarms | {' | '.join(names)} | said after | after within |")
    print(f"|---|---|---|---|{'---|' * len(names)}---|---|")
    for f, (family, effect) in enumerate(SHAPED):
        for course, length in COURSES:
            at = 3_000
            after = step(0) if course == "step" else ramp(length) if course == "ramp" else blip(length)
            path = np.concatenate([np.zeros(at), after])
            called: list[str] = []
            said, within = [], []
            for run in range(runs):
                seen = events(family, path, (seed, 1_000 + f, length, run, len(course)))
                fired = next(seen, None)
                if fired is None or fired.position.offset < at:
                    continue
                later = next(seen, fired)
                called.append(later.details.get("shape", "none"))
                if later is not fired:
                    said.append(later.position.offset - at)
                if later.status is Status.UPDATED:
                    within.append(holds(later.after, family.means[1]))
            counts = " | ".join(f"{called.count(name) / max(1, len(called)):.0%}" for name in names)
            told = f"{length * effect**2 / 24:.1f}" if course == "ramp" else ""
            level = f"{np.mean(within):.0%} of {len(within)}" if within and course != "blip" else ""
            what = f"{family.name} | {course}{f' of {length:,}' if length else ''} | {told}"
            print(f"| {what} | {len(called)} of {runs} | {counts} | {np.median(said or [0]):.0f} | {level} |", flush=True)


if __name__ == "__main__":
    main()
