"""Page-Hinkley: the sum of the deviations from the running mean, against its own extreme so far.

E. S. Page: Continuous inspection schemes. Biometrika 41 (1954). The algorithm is river's, with `alpha` = 1: with river's 0.9999
the sum fades but its extreme does not, and the test fires by itself.

On N(0, 1) with a known mean each side is a CUSUM with allowance k = `delta`, whose average run length is
(exp(-2db) + 2db - 1) / (2 d^2), b = threshold + 1.166, d = -k (Siegmund 1985). At k = 0.25 one alarm in a million values on two
sides asks for a threshold of 23.7, one in twenty million for 30, which costs 6 values more at a shift of 1.25. The mean is not
known but runs, so this was checked by simulation (benchmarks/detection/false_alarms.py, seed 7, 20 million values each): false
alarms per million values are 0.00 to 0.10, on binary streams (p = 0.5 to 0.001) as on numeric ones (normal, lognormal, Poisson);
at a threshold of 25 they are 0.35 to 0.75.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from river.drift import PageHinkley as River

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads
from stream_monitor.core.events import Level

DELTA = 0.25
THRESHOLD = 30.0
MIN_INSTANCES = 30

_STATE = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


class PageHinkley:
    """river's two-sided Page-Hinkley on normal scores; `delta` and `threshold` in standard deviations.

    >>> import random
    >>> rng = random.Random(1)
    >>> test = PageHinkley()
    >>> values = [rng.gauss(0 if i < 3000 else 1, 1) for i in range(4000)]
    >>> next(i for i, x in enumerate(values) if test.update(x))
    3029
    """

    name = "page_hinkley"
    reads: Reads = "score"

    def __init__(self, delta: float = DELTA, threshold: float = THRESHOLD, min_instances: int = MIN_INSTANCES) -> None:
        if not 0 <= delta < float("inf") or not 0 < threshold < float("inf"):
            raise ValueError(f"page_hinkley: delta {delta} must not be below 0 and threshold {threshold} must be above it")
        self._test = River(min_instances=min_instances, delta=float(delta), threshold=float(threshold), alpha=1.0)
        self.parameters: Mapping[str, Parameter] = {
            "delta": self._test.delta,
            "threshold": self._test.threshold,
            "min_instances": min_instances,
        }
        safe = delta >= DELTA and threshold >= THRESHOLD and min_instances >= MIN_INSTANCES
        self.assurance: Assurance = "calibrated" if safe else "uncalibrated"

    def update(self, x: float) -> bool:
        test = self._test
        test.update(x)  # type: ignore[no-untyped-call]
        return test._drift_detected

    def evidence(self, before: Level, after: Level) -> Evidence:
        test = self._test
        statistic = max(test._sum_increase - test._min_increase, test._max_decrease - test._sum_decrease)
        return Evidence(statistic, test.threshold)

    def reset(self) -> None:
        self._test._reset()  # type: ignore[no-untyped-call]

    def state(self) -> Any:
        test = self._test
        if not test._x_mean.n:
            return []  # the extremes of a fresh test are infinite, which JSON has no word for
        return [test._x_mean.n, test._x_mean._mean, *(getattr(test, name) for name in _STATE)]

    def restore(self, state: Any) -> None:
        self.reset()
        if not state:
            return
        if len(state) != 2 + len(_STATE):
            raise ValueError("page_hinkley: the saved state can not be read")
        self._test._x_mean.n, self._test._x_mean._mean = float(state[0]), float(state[1])
        for name, value in zip(_STATE, state[2:], strict=True):
            setattr(self._test, name, float(value))
