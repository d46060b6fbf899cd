"""What a cycle costs: `python -m benchmarks.detection.cycle_delay [--runs 40]`.

500 values a day for 41 days, then a shift at any time of the day; the default detectors, one false alarm in 200,000 values. The level
stays, or goes up and down by a quarter of a standard deviation each day (of bits with p = 0.1: by 0.03), or is as much higher at the
weekend. Prints the mean and median delay in values. A run with an alert in the last ten days before the shift is one with an alert
before it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from statistics import mean, median

import numpy as np

from benchmarks.detection.families import Array, weekend
from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.budget import Ledger
from stream_monitor.core.events import Kind
from stream_monitor.core.settings import DAY, HOUR, DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream

A_DAY = 500
DAYS, BEFORE, QUIET = 51, 41, 10
RUN_LENGTH = 200_000
CHANGES = ((False, 0.25), (False, 0.5), (True, 0.05))
CYCLES = ("none", "daily", "weekly")


def delay(binary: bool, shift: float, cycle: str, seed: int) -> int | None:
    """From the shift to the alert, in values, or to the end where there is none; None if there was one shortly before it."""
    rng, settings = np.random.default_rng(seed), DetectSettings()
    desk = Desk("observations", 0, Ledger(1 / (RUN_LENGTH / A_DAY * DAY), HOUR))
    subject = Subject.of("m", "v", None, str(seed), Kind.DATA_DRIFT, 0.0, 1.0)
    stream = (BinaryStream if binary else NumericStream)(subject, settings.default.detectors, settings, desk)
    when = np.sort(rng.uniform(0, DAYS, A_DAY * DAYS))
    after = when > BEFORE + rng.uniform(0, 1)
    courses: Mapping[str, Array] = {"none": 0 * when, "daily": np.sin(2 * np.pi * when), "weekly": weekend(when * 86_400)}
    level = shift * after + (0.03 if binary else 0.25) * courses[cycle]
    values = (rng.random(when.size) < 0.1 + level).astype(float) if binary else rng.standard_normal(when.size) + level
    begin = int((~after).sum())
    bits = rng.integers(0, 2**63, when.size).tolist()
    for i, (time, x) in enumerate(zip((when * DAY).astype(int).tolist(), values.tolist(), strict=True)):
        desk.move(time)
        stream.push(x, bits[i], time, i)
        if stream.episode is not None and when[i] > BEFORE - QUIET:
            return i - begin if i >= begin else None
    return when.size - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    for binary, shift in CHANGES:
        for cycle in CYCLES:
            found = [delay(binary, shift, cycle, seed) for seed in range(options.runs)]
            delays = [one for one in found if one is not None]
            what = f"{'bits, p = 0.1,' if binary else 'normal,'} shift of {shift}, cycle: {cycle}"
            print(f"{what:<44}mean {mean(delays):5.0f}, median {median(delays):5.0f}, {found.count(None)} alerts before it", flush=True)


if __name__ == "__main__":
    main()
