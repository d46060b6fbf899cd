"""Page-Hinkley's average run length against the formula: `python -m benchmarks.detection.page_hinkley_arl` (a minute; seed 1).

2,000 streams of N(0, 1) side by side, each begun anew after its false alarm; the recursion is river's with alpha = 1. Prints how long
the runs were for thresholds that the formula gives.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from stream_monitor.core.detectors.page_hinkley import MIN_INSTANCES, threshold_for

STREAMS = 2_000


def simulate(delta: float, threshold: float, steps: int, seed: int) -> int:
    """False alarms in `steps` values of each stream."""
    rng = np.random.default_rng(seed)
    zeros = np.zeros(STREAMS)
    count, mean, up, down = zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy()
    lowest, highest = np.full(STREAMS, np.inf), np.full(STREAMS, -1.0)
    alarms = 0
    for _ in range(steps):
        x = rng.standard_normal(STREAMS)
        count += 1
        mean += (x - mean) / count
        up += x - mean - delta
        down += x - mean + delta
        np.minimum(lowest, up, out=lowest)
        np.maximum(highest, down, out=highest)
        fired = (np.maximum(up - lowest, highest - down) > threshold) & (count >= MIN_INSTANCES)
        if fired.any():
            alarms += int(fired.sum())
            for state, fresh in ((count, 0), (mean, 0), (up, 0), (down, 0), (lowest, np.inf), (highest, -1)):
                state[fired] = fresh
    return alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    for delta in (0.1, 0.25, 0.5):
        for length in (1e3, 1e4, 1e5, 1e6):
            threshold = threshold_for(length, delta)
            alarms = simulate(delta, threshold, options.steps, 1)
            found = options.steps * STREAMS / max(1, alarms)
            print(
                f"delta {delta}, threshold {threshold:6.2f}: formula {length:9,.0f}, simulated {found:11,.0f} ({alarms} alarms)"
                f", {found / length:.2f} of it",
                flush=True,
            )
            print(f"delta {delta}, {length:,.0f}: done", file=sys.stderr)


if __name__ == "__main__":
    main()
