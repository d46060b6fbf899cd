"""Page-Hinkley: the sum of the deviations from the running mean, against its own extreme so far.

E. S. Page: Continuous inspection schemes. Biometrika 41 (1954). The algorithm is river's to the
last bit (a test compares them), with `alpha` = 1: with river's 0.9999 the sum fades but its extreme does not, and the test fires by
itself. It is written out here because it is most of what a value costs: in river's classes three times as much.

On N(0, 1) with a known mean each side is a CUSUM with allowance k = `delta`, whose average run length is
(exp(-2db) + 2db - 1) / (2 d^2), b = threshold + 1.166, d = -k (D. Siegmund: Sequential Analysis, 1985); on two sides it is half as long.
The mean is not known but runs; the deviations from it are independent all the same, with variance 1 - 1/n instead of 1. So the formula
gives the threshold for a run length. Simulated run lengths (benchmarks/detection/page_hinkley_arl.py) are 1.00 to 1.10
of the formula's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf, log
from typing import Any, Final

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads, whole
from stream_monitor.core.events import Level

DELTA: Final = 0.25
THRESHOLD: Final = 30.0
MIN_INSTANCES: Final = 30
OVERSHOOT: Final = 1.166  # by how much a discrete CUSUM passes its threshold, twice over (Siegmund)

_STATE: Final = ("_n", "_mean", "_increase", "_decrease", "_lowest", "_highest")


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
    """The two-sided Page-Hinkley test on normal scores; `delta` and `threshold` in standard deviations.

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

    _fired: bool
    _n: float
    _mean: float
    _increase: float
    _decrease: float
    _lowest: float
    _highest: float
    __slots__ = ("_fired", "assurance", "budgeted", "delta", "min_instances", "threshold", *_STATE)

    def __init__(self, delta: float = DELTA, threshold: float | None = None, min_instances: int = MIN_INSTANCES) -> None:
        self.budgeted = threshold is None
        threshold = THRESHOLD if threshold is None else threshold
        if not 0 <= delta < inf or not 0 < threshold < inf:
            raise ValueError(f"page_hinkley: delta {delta} must not be below 0 and threshold {threshold} must be above it")
        whole(self.name, "min_instances", min_instances, 0)
        self.delta = float(delta)
        self.threshold = float(threshold)
        self.min_instances = min_instances
        self.assurance: Assurance = "calibrated" if self.budgeted else "uncalibrated"
        self.reset()

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {"delta": self.delta, "threshold": round(self.threshold, 3), "min_instances": self.min_instances}

    def update(self, x: float) -> bool:
        if self._fired:
            self.reset()
        self._n = n = self._n + 1.0
        self._mean = mean = self._mean + (1.0 / n) * (x - self._mean)
        deviation = x - mean
        self._increase = increase = self._increase + deviation - self.delta
        self._decrease = decrease = self._decrease + deviation + self.delta
        if increase < self._lowest:
            self._lowest = increase
        if decrease > self._highest:
            self._highest = decrease
        if n >= self.min_instances:
            self._fired = increase - self._lowest > self.threshold or self._highest - decrease > self.threshold
        return self._fired

    def evidence(self, before: Level, after: Level) -> Evidence:
        return Evidence(max(self._increase - self._lowest, self._highest - self._decrease), self.threshold)

    def retune(self, run_length: float, share: float | None) -> None:
        self.threshold = threshold_for(run_length, self.delta)

    def reset(self) -> None:
        self._fired = False
        self._n = self._mean = self._increase = self._decrease = 0.0
        self._lowest, self._highest = inf, -1.0

    def state(self) -> Any:
        if not self._n:
            return [self.threshold]  # the extremes of a fresh test are infinite, which JSON has no word for
        return [self.threshold, *(getattr(self, name) for name in _STATE)]

    def restore(self, state: Any) -> None:
        self.reset()
        if type(state) is not list or len(state) not in (1, 1 + len(_STATE)):
            raise ValueError("page_hinkley: the saved state can not be read")
        if self.budgeted:
            self.threshold = float(state[0])
        elif self.threshold != state[0]:
            raise ValueError("page_hinkley: the saved state is of other parameters")
        for name, value in zip(_STATE, state[1:], strict=False):
            setattr(self, name, float(value))
