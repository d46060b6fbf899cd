"""ADWIN: keeps the longest window in which no two parts differ in their mean by more than chance allows.

A. Bifet, R. Gavalda: Learning from time-changing data with adaptive windowing. SIAM SDM 2007. The algorithm is river's.

ADWIN's `delta` bounds the error of one check, not the time between false alarms. The average run length was simulated by a script
(benchmarks/detection/adwin_table.py), begun anew after each alarm and, as in a stream, judged after a warm-up: a window that has just begun
is quiet, the longer so the rarer ones are, and run lengths that count this as well are longer than what a stream sees (by 15%, of bits with
p = 0.05). Their logarithm is nearly a straight line in that of 1/delta. These are `RUN_LENGTHS`, on normal scores and by the share of ones
in bits, each line as low as the lowest of its points. Past 500,000 values, where few alarms were seen, the line goes on less steeply, at
the slope that the longest simulations had: more careful than the line itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import exp, log, sqrt
from struct import pack, unpack
from typing import Any

from stream_monitor.core.detectors import compiled
from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads
from stream_monitor.core.events import Level
from stream_monitor.errors import SetupError

DELTA = 0.002
CLOCK = 32
MAX_BUCKETS = 5
MIN_WINDOW = 5
GRACE = 10
HIGHEST_DELTA = 0.5  # the table begins there
KNEE = log(500_000)
SLOPE_BEYOND = 1.05
MARGIN = 1.1  # a point of the table is known to 6%, and a share changes up to a day before the threshold does

NORMAL = (7.05, 1.233)
RUN_LENGTHS: tuple[tuple[float, float, float], ...] = (
    (0.5, 7.57, 1.377),
    (0.2, 7.87, 1.341),
    (0.1, 8.09, 1.331),
    (0.05, 8.61, 1.319),
    (0.02, 9.13, 1.350),
    (0.01, 9.59, 1.374),
    (0.005, 10.13, 1.427),
    (0.002, 11.01, 1.389),
    (0.001, 11.55, 1.434),
)
"""(share of ones, a, b): log(run length) = a + b log(1/delta). A share above 1/2 is as its complement."""
# Below .01 the lines count whole lives, of which a warm-up is less than 2%.


@cache
def _river() -> Any:  # its parameters have no types
    """river's class, imported at its first use: the package brings scipy along, which takes seconds, and most commands detect nothing."""
    from river.drift import ADWIN

    made: Any = ADWIN
    if not hasattr(getattr(made(), "_helper", None), "__setstate__"):  # pragma: no cover - another release of river
        raise SetupError(
            "this release of river keeps ADWIN's state where stream-monitor can not save it (ADWIN._helper is gone)",
            hint="install the release of river that stream-monitor was tested with: pip install 'river==0.26.*'",
        )
    return made


def delta_for(run_length: float, share: float | None) -> float:
    """The delta with one false alarm in so many values, of bits with this share of ones or of normal scores (None)."""
    a, b = NORMAL if share is None else _line(min(share, 1 - share))
    length = log(max(run_length, 1.0) * MARGIN)
    return min(HIGHEST_DELTA, exp((a - min(length, KNEE)) / b - max(0.0, length - KNEE) / SLOPE_BEYOND))


def _line(share: float) -> tuple[float, float]:
    """Between two shares of the table: linear in the logarithm of the share. Beyond its ends: its ends."""
    above = RUN_LENGTHS[0]
    for below in RUN_LENGTHS:
        if below[0] <= share:
            if below is above:
                return below[1], below[2]
            part = log(above[0] / share) / log(above[0] / below[0])
            return above[1] + part * (below[1] - above[1]), above[2] + part * (below[2] - above[2])
        above = below
    return above[1], above[2]


class Adwin:
    """river's ADWIN. `update` is the bound method of its compiled part: 0.05 us a value instead of 0.13.

    `delta` None leaves it to the alert budget; until that is known it is 0.002.

    >>> import random
    >>> rng = random.Random(1)
    >>> adwin = Adwin()
    >>> values = [float(rng.random() < (0.1 if i < 3000 else 0.3)) for i in range(4000)]
    >>> next(i for i, x in enumerate(values) if adwin.update(x))
    3135
    """

    name = "adwin"
    reads: Reads = "value"
    update: Callable[[float], bool]

    def __init__(self, delta: float | None = None, clock: int = CLOCK) -> None:
        self.budgeted = delta is None and clock >= CLOCK  # the table is for 32; rarer checks raise fewer false alarms
        delta = DELTA if delta is None else delta
        if not 0 < delta < 1:
            raise ValueError(f"adwin: delta is {delta}; it must lie between 0 and 1")
        if type(clock) is not int or clock < 1:
            raise ValueError(f"adwin: clock is {clock}; a whole number of values between checks is expected")
        self._delta, self._clock = float(delta), clock
        self.assurance: Assurance = "calibrated" if self.budgeted else "uncalibrated"
        self.reset()

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {"delta": float(f"{self._delta:.3g}"), "clock": self._clock}

    def retune(self, run_length: float, share: float | None) -> None:
        raw = self._helper.__getstate__()
        self._delta = delta_for(run_length, share)
        self.reset()
        self._helper.__setstate__(pack("<d", self._delta) + raw[8:])  # its state begins with delta

    def reset(self) -> None:
        adwin = _river()(self._delta, self._clock, MAX_BUCKETS, MIN_WINDOW, GRACE)
        self._helper = adwin._helper
        self.update = self._helper.update

    def evidence(self, before: Level, after: Level) -> Evidence:
        """How far the two means are apart, and how far ADWIN lets chance move them in windows of these sizes."""
        confidence = log(2 * log(before.count + after.count) / self._delta)
        m = 1 / (1 / max(1, before.count - MIN_WINDOW + 1) + 1 / max(1, after.count - MIN_WINDOW + 1))
        variance = max(0.0, self._helper.variance_in_window)  # of values that are all the same it may come out below nothing
        cut = sqrt(2 / m * variance * confidence) + 2 / 3 / m * confidence
        return Evidence(abs(after.value - before.value), cut)

    def state(self) -> Any:
        return compiled.save(self._helper)

    def restore(self, state: Any) -> None:
        raw = compiled.load(state)
        if self.budgeted and len(raw) >= 16 and 0 < (delta := unpack("<d", raw[:8])[0]) < 1:
            self._delta = delta
        self.reset()
        if raw[:16] != self._helper.__getstate__()[:16]:  # delta and clock
            raise ValueError("adwin: the saved state is of other parameters")
        compiled.take_up(self._helper, raw, self.name)
