"""What a daily cycle costs: `python -m benchmarks.detection.daily_delay [--runs 40]`.

500 values a day for 20 days, then a shift at any time of the day; the default detectors, one false alarm in 200,000 values. The level goes
up and down by a quarter of a standard deviation (of bits with p = 0.1: by 0.03), or not at all. Prints the mean and median delay in values.
"""

from __future__ import annotations

import argparse
from statistics import mean, median

import numpy as np

from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.budget import Ledger
from stream_monitor.core.events import Kind
from stream_monitor.core.settings import DAY, HOUR, DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream

A_DAY = 500
DAYS, BEFORE = 30, 20
RUN_LENGTH = 200_000
CHANGES = ((False, 0.25), (False, 0.5), (True, 0.05))


def delay(binary: bool, shift: float, height: float, seed: int) -> int | None:
    """From the shift to the alert, in values, or to the end where there is none; None if there was one before it."""
    rng, settings = np.random.default_rng(seed), DetectSettings()
    desk = Desk("observations", 0, Ledger(1 / (RUN_LENGTH / A_DAY * DAY), HOUR))
    subject = Subject.of("m", "v", None, str(seed), Kind.DATA_DRIFT, 0.0, 1.0)
    stream = (BinaryStream if binary else NumericStream)(subject, settings.default.detectors, settings, desk)
    when = np.sort(rng.uniform(0, DAYS, A_DAY * DAYS))
    after = when > BEFORE + rng.uniform(0, 1)
    level = shift * after + height * np.sin(2 * np.pi * when)
    values = (rng.random(when.size) < 0.1 + level).astype(float) if binary else rng.standard_normal(when.size) + level
    begin = int((~after).sum())
    bits = rng.integers(0, 2**63, when.size).tolist()
    for i, (time, x) in enumerate(zip((when * DAY).astype(int).tolist(), values.tolist(), strict=True)):
        desk.move(time)
        stream.push(x, bits[i], time, i)
        if stream.episode is not None:
            return i - begin if i >= begin else None
    return when.size - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    for binary, shift in CHANGES:
        for height in (0.0, 0.03 if binary else 0.25):
            found = [delay(binary, shift, height, seed) for seed in range(options.runs)]
            delays = [one for one in found if one is not None]
            what = f"{'bits, p = 0.1,' if binary else 'normal,'} shift of {shift}, cycle of {height}"
            print(f"{what:<44}mean {mean(delays):5.0f}, median {median(delays):5.0f}, {found.count(None)} alerts before it", flush=True)


if __name__ == "__main__":
    main()
