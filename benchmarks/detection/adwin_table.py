"""ADWIN's average run length by `delta`: `python -m benchmarks.detection.adwin_table` (some ten minutes on a quiet core; seed 1).

Each law is drawn afresh and ADWIN (clock 32) begins anew after each false alarm, until `--alarms` alarms or `--values` values. As in
a stream (core/streams.py) the first `WARMUP` values after an alarm are not judged; an alarm among them only resets ADWIN.
A window that has just begun is quiet, so a run length that counts its first thousand values as well is longer than what a stream sees.
Prints the run lengths and, for each law, the straight line through their logarithms, lowered so far that no point of `SURE` alarms lies
below it: these core/detectors/adwin.py ships.
"""

from __future__ import annotations

import argparse
import sys
from math import log
from operator import length_hint

import numpy as np

from stream_monitor.core.detectors.adwin import Adwin
from stream_monitor.core.settings import DetectSettings

CHUNK = 100_000
DELTAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
FEW = 30  # alarms below which a run length is no point of the line
SURE = 100  # alarms from which on a run length is a bound for the line
WARMUP = DetectSettings().warmup


def run_length(share: float | None, delta: float, alarms: int, values: int, seed: int) -> tuple[int, int]:
    """(values, alarms) that are judged, of N(0, 1) or of 0/1 values with this share of ones."""
    rng = np.random.default_rng(seed)
    adwin = Adwin(delta)
    update = adwin.update
    seen = judged = found = 0
    begin = WARMUP  # values seen from which on they are judged
    while found < alarms and seen < values:
        chunk = rng.standard_normal(CHUNK) if share is None else (rng.random(CHUNK) < share).astype(float)
        seen += CHUNK
        left = iter(chunk.tolist())
        while any(map(update, left)):  # stops right after the value that alarms
            at = seen - length_hint(left)
            if at > begin:
                found += 1
                judged += at - begin
                begin = at + WARMUP
            adwin.reset()
            update = adwin.update
    return judged + max(0, seen - begin), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alarms", type=int, default=300)
    parser.add_argument("--values", type=float, default=1e8)
    options = parser.parse_args()
    for share in (None, *SHARES):
        name = "normal" if share is None else f"p={share}"
        points: list[tuple[float, float, int]] = []
        for delta in DELTAS:
            seen, found = run_length(share, delta, options.alarms, int(options.values), 1)
            print(f"{name:<10} delta {delta:<6} {found:4} alarms in {seen:,} judged values: {seen / max(found, 1):,.0f}", flush=True)
            if found >= FEW:
                points.append((log(1 / delta), log(seen / found), found))
            if found < options.alarms:
                break
        x, y, weight = (np.array(column) for column in zip(*points, strict=True))
        slope, level = np.polyfit(x, y, 1, w=np.sqrt(weight))
        level += min(0.0, *(y - level - slope * x)[weight >= SURE])
        print(f"{name:<10} log(run length) = {level:.2f} + {slope:.3f} log(1/delta)", flush=True)
        print(f"{name}: done", file=sys.stderr)


if __name__ == "__main__":
    main()
