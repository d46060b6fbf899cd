"""KSWIN: a Kolmogorov-Smirnov test of the newest values against some of those before them, at each value.

C. Raab, M. Heusinger, F.-M. Schleif: Reactive soft prototype computing for concept drift streams. Neurocomputing 416 (2020). The algorithm
is river's.

It reads normal scores, so that it sees a change of spread too, but only a change of the mean becomes an alert. Its level `alpha` is that
of one test, and there is a test a value: at its default some 13 false alarms in 10,000 values. So it says "uncalibrated" and takes no part
in the alert budget. It takes some 250 us a value, fifty times what all other detectors take together: for a stream or two, not for all.

Which of the older values are drawn is decided by the number of values so far and the newest of them: nothing is drawn by a clock, two
streams draw differently, and there is no generator whose state would have to be saved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cache
from math import log10
from struct import pack
from typing import Any

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads, between, whole
from stream_monitor.core.events import Level
from stream_monitor.core.hashing import unit_of

_SMALLEST = 1e-300  # a probability of 0 has no logarithm


@cache
def _river() -> Any:
    """river's class, imported at its first use (see adwin.py)."""
    from river.drift import KSWIN

    return KSWIN


class Kswin:
    """river's KSWIN on normal scores.

    >>> import random
    >>> rng = random.Random(1)
    >>> kswin = Kswin(alpha=1e-6)
    >>> values = [rng.gauss(0 if i < 400 else 2, 1) for i in range(600)]
    >>> next(i for i, x in enumerate(values) if kswin.update(x))
    427
    """

    name = "kswin"
    reads: Reads = "score"
    assurance: Assurance = "uncalibrated"
    budgeted = False

    def __init__(self, alpha: float = 0.005, window_size: int = 100, stat_size: int = 30) -> None:
        between(self.name, "alpha", alpha, 0, 1)
        whole(self.name, "stat_size", stat_size, 2)
        whole(self.name, "window_size", window_size, 2 * stat_size)
        self.parameters: Mapping[str, Parameter] = {"alpha": float(alpha), "window_size": window_size, "stat_size": stat_size}
        self._test = _river()(alpha, window_size, stat_size, seed=0)

    def update(self, x: float) -> bool:
        test = self._test
        test._rng.seed(unit_of(pack("<qd", test.n, x)))
        test.update(x)
        fired: bool = test._drift_detected
        return fired

    def evidence(self, before: Level, after: Level) -> Evidence:
        """How many zeros the probability begins with, and how many had to be."""
        return Evidence(-log10(max(self._test.p_value, _SMALLEST)), -log10(self._test.alpha))

    def retune(self, run_length: float, share: float | None) -> None:
        """Nothing is known of how `alpha` and its run length belong together."""

    def reset(self) -> None:
        self._test._reset()

    def state(self) -> Any:
        test = self._test
        return [test._drift_detected, test.n, float(test.p_value), list(test.window)]

    def restore(self, state: Any) -> None:
        self.reset()
        if type(state) is not list or len(state) != 4 or type(state[3]) is not list or len(state[3]) > self._test.window_size:
            raise ValueError("kswin: the saved state can not be read")
        test = self._test
        test._drift_detected, test.n, test.p_value = bool(state[0]), int(state[1]), float(state[2])
        test.window = deque((float(x) for x in state[3]), maxlen=test.window_size)
