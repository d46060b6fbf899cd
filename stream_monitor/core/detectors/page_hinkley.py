"""Page-Hinkley: the sum of the deviations from the running mean, against its own extreme so far.

E. S. Page: Continuous inspection schemes. Biometrika 41 (1954). The algorithm is river's, with `alpha` = 1: with river's 0.9999
the sum fades but its extreme does not, and the test fires by itself.

On N(0, 1) with a known mean each side is a CUSUM with allowance k = `delta`, whose average run length is
(exp(-2db) + 2db - 1) / (2 d^2), b = threshold + 1.166, d = -k (D. Siegmund: Sequential Analysis, 1985); on two sides it is half as long.
The mean is not known but runs; the deviations from it are independent all the same, with variance 1 - 1/n instead of 1. So the formula
gives the threshold for a run length. Simulated run lengths (benchmarks/detection/page_hinkley_arl.py) are 1.00 to 1.10
of the formula's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from typing import Any

from river.drift import PageHinkley as River

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads
from stream_monitor.core.events import Level

DELTA = 0.25
THRESHOLD = 30.0
MIN_INSTANCES = 30
OVERSHOOT = 1.166  # by how much a discrete CUSUM passes its threshold, twice over (Siegmund)

_STATE = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


def run_length(threshold: float, delta: float) -> float:
    """Values for one false alarm, on average, of the two-sided test.

    >>> round(run_length(threshold_for(1e6, 0.25), 0.25))
    1000000
    """
    y = 2 * delta * (threshold + OVERSHOOT)
    return (threshold + OVERSHOOT) ** 2 / 2 if not delta else (exp(min(y, 700)) - y - 1) / (4 * delta * delta)


def threshold_for(length: float, delta: float) -> float:
    """The threshold with this run length."""
    if not delta:
        return float(max(1.0, (2 * length) ** 0.5 - OVERSHOOT))
    y = 1.0
    for _ in range(100):  # exp(y) = 1 + y + 4 delta^2 length; the iteration contracts
        y = log(1 + y + 4 * delta * delta * length)
    return max(1.0, y / (2 * delta) - OVERSHOOT)


class PageHinkley:
    """river's two-sided Page-Hinkley on normal scores; `delta` and `threshold` in standard deviations.

    `threshold` None leaves it to the alert budget; until that is known it is 30.

    >>> import random
    >>> rng = random.Random(1)
    >>> test = PageHinkley()
    >>> values = [rng.gauss(0 if i < 3000 else 1, 1) for i in range(4000)]
    >>> next(i for i, x in enumerate(values) if test.update(x))
    3029
    """

    name = "page_hinkley"
    reads: Reads = "score"

    def __init__(self, delta: float = DELTA, threshold: float | None = None, min_instances: int = MIN_INSTANCES) -> None:
        self.budgeted = threshold is None
        threshold = THRESHOLD if threshold is None else threshold
        if not 0 <= delta < float("inf") or not 0 < threshold < float("inf"):
            raise ValueError(f"page_hinkley: delta {delta} must not be below 0 and threshold {threshold} must be above it")
        self._test = River(min_instances=min_instances, delta=float(delta), threshold=float(threshold), alpha=1.0)
        self.assurance: Assurance = "calibrated" if self.budgeted else "uncalibrated"

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        test = self._test
        return {"delta": test.delta, "threshold": round(test.threshold, 3), "min_instances": test.min_instances}

    def update(self, x: float) -> bool:
        test = self._test
        test.update(x)  # type: ignore[no-untyped-call]
        return test._drift_detected

    def evidence(self, before: Level, after: Level) -> Evidence:
        test = self._test
        statistic = max(test._sum_increase - test._min_increase, test._max_decrease - test._sum_decrease)
        return Evidence(statistic, test.threshold)

    def retune(self, run_length: float, share: float | None) -> None:
        self._test.threshold = threshold_for(run_length, self._test.delta)

    def reset(self) -> None:
        self._test._reset()  # type: ignore[no-untyped-call]

    def state(self) -> Any:
        test = self._test
        if not test._x_mean.n:
            return [test.threshold]  # the extremes of a fresh test are infinite, which JSON has no word for
        return [test.threshold, test._x_mean.n, test._x_mean._mean, *(getattr(test, name) for name in _STATE)]

    def restore(self, state: Any) -> None:
        self.reset()
        if type(state) is not list or len(state) not in (1, 3 + len(_STATE)):
            raise ValueError("page_hinkley: the saved state can not be read")
        if self.budgeted:
            self._test.threshold = float(state[0])
        elif self._test.threshold != state[0]:
            raise ValueError("page_hinkley: the saved state is of other parameters")
        if len(state) == 1:
            return
        self._test._x_mean.n, self._test._x_mean._mean = float(state[1]), float(state[2])
        for name, value in zip(_STATE, state[3:], strict=True):
            setattr(self._test, name, float(value))
