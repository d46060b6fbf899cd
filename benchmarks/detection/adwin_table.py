"""ADWIN's average run length by `delta`: `python -m benchmarks.detection.adwin_table` (about 20 minutes on one core; seed 1).

Each law is drawn afresh and ADWIN (clock 32) begins anew after each false alarm, until `--alarms` alarms or `--values` values. Prints
the run lengths and, for each law, the straight line through their logarithms that core/detectors/adwin.py ships.
"""

from __future__ import annotations

import argparse
import sys
from math import log

import numpy as np

from stream_monitor.core.detectors.adwin import Adwin

CHUNK = 100_000
DELTAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
FEW = 30  # alarms below which a run length is no point of the line


def run_length(share: float | None, delta: float, alarms: int, values: int, seed: int) -> tuple[int, int]:
    """(values, alarms) of N(0, 1), or of 0/1 values with this share of ones."""
    rng = np.random.default_rng(seed)
    adwin = Adwin(delta)
    update = adwin.update
    seen = found = 0
    while found < alarms and seen < values:
        chunk = rng.standard_normal(CHUNK) if share is None else (rng.random(CHUNK) < share).astype(float)
        for x in chunk.tolist():
            if update(x):
                found += 1
                adwin.reset()
                update = adwin.update
        seen += CHUNK
    return seen, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alarms", type=int, default=200)
    parser.add_argument("--values", type=float, default=3e8)
    options = parser.parse_args()
    for share in (None, *SHARES):
        name = "normal" if share is None else f"p={share}"
        points: list[tuple[float, float, int]] = []
        for delta in DELTAS:
            seen, found = run_length(share, delta, options.alarms, int(options.values), 1)
            print(f"{name:<10} delta {delta:<6} {found:4} alarms in {seen:,} values: {seen / max(found, 1):,.0f}", flush=True)
            if found >= FEW:
                points.append((log(1 / delta), log(seen / found), found))
            if found < options.alarms:
                break
        x, y, weight = (np.array(column) for column in zip(*points, strict=True))
        slope, level = np.polyfit(x, y, 1, w=np.sqrt(weight))
        print(f"{name:<10} log(run length) = {level:.2f} + {slope:.3f} log(1/delta)", flush=True)
        print(f"{name}: done", file=sys.stderr)


if __name__ == "__main__":
    main()
