"""river's detectors of bits, as river has them: DDM, EDDM, HDDM_A, HDDM_W.

    ddm     J. Gama, P. Medas, G. Castillo, P. Rodrigues: Learning with drift detection. SBIA 2004
    eddm    M. Baena-Garcia et al.: Early drift detection method. IWKDDS 2006
    hddm_a  I. Frias-Blanco et al.: Online and non-parametric drift detection methods based on Hoeffding's bounds. IEEE TKDE 27 (2015);
    hddm_w  means of all values (A), exponentially weighted means (W)

All look for more ones, that is for more errors; the HDDM with `two_sided_test` for fewer as well. They read bits (`base.Reads`): of a
numeric stream, whether a value lies above the median of those before it.

None of them is calibrated. At their defaults, on streams of 5,000 stationary bits, false alarms in 10,000 bits:

    share of ones    ddm    eddm   hddm_a   hddm_w
    0.5              0.2    22.5   0.4      7.6
    0.1              1.5    20.5   0.04     0
    0.01             10.9   1.7    0        0

So they say "uncalibrated" and take no part in the alert budget. They are here for comparison with what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import inf, log, sqrt
from operator import attrgetter
from typing import Any, ClassVar

from stream_monitor.core.detectors import compiled
from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads, between, whole
from stream_monitor.core.events import Level

_SAMPLE = ("_is_init", "_ibc", "_ewma._ewmean")  # of HDDM_W's means
_INFINITE = {"inf": inf, "-inf": -inf}  # JSON has no word for these


@cache
def _river() -> Any:  # the parameters of some have no types
    """river's detectors of bits, imported at their first use (see adwin.py)."""
    from river.drift import binary

    return binary


class _OfRiver:
    """What they share. `_fields`: all that changes in them, by the path from river's detector to it."""

    name: str
    reads: Reads = "bit"
    assurance: Assurance = "uncalibrated"
    budgeted = False
    _fields: ClassVar[tuple[str, ...]]

    def __init__(self, test: Any, parameters: Mapping[str, Parameter]) -> None:
        self._test = test
        self.parameters = parameters

    def update(self, x: float) -> bool:
        test = self._test
        test.update(x)
        fired: bool = test._drift_detected
        return fired

    def retune(self, run_length: float, share: float | None) -> None:
        """Nothing is known of how its thresholds and its run length belong together."""

    def reset(self) -> None:
        self._test._reset()

    def state(self) -> Any:
        return [_plain(attrgetter(path)(self._test)) for path in ("_drift_detected", *self._fields)]

    def restore(self, state: Any) -> None:
        self.reset()
        if type(state) is not list or len(state) != 1 + len(self._fields):
            raise ValueError(f"{self.name}: the saved state can not be read")
        for path, saved in zip(("_drift_detected", *self._fields), state, strict=True):
            owner, _, name = path.rpartition(".")
            at = attrgetter(owner)(self._test) if owner else self._test
            if name == "_ewmean":
                compiled.take_up(at._ewmean, compiled.load(saved), self.name)
            elif saved is None or type(saved) in (bool, int, float) or saved in _INFINITE:
                setattr(at, name, _INFINITE[saved] if type(saved) is str else saved)
            else:
                raise ValueError(f"{self.name}: the saved state can not be read")


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int):
        return value
    return (value if abs(value) < inf else str(value)) if type(value) is float else compiled.save(value)


class Ddm(_OfRiver):
    """Fires where error rate plus its standard deviation pass their smallest sum so far by `drift_threshold` deviations of then.

    >>> import random
    >>> rng = random.Random(1)
    >>> ddm = Ddm()
    >>> values = [int(rng.random() < (0.1 if i < 3000 else 0.3)) for i in range(4000)]
    >>> next(i for i, x in enumerate(values) if ddm.update(x))
    3090
    """

    name = "ddm"
    _fields = ("_p.n", "_p._mean", "_p_min", "_s_min", "_ps_min")

    def __init__(self, drift_threshold: float = 3.0, warm_start: int = 30) -> None:
        between(self.name, "drift_threshold", drift_threshold, 0, 100)
        whole(self.name, "warm_start", warm_start, 1)
        test = _river().DDM(warm_start, min(2.0, drift_threshold), drift_threshold)
        super().__init__(test, {"drift_threshold": float(drift_threshold), "warm_start": warm_start})

    def evidence(self, before: Level, after: Level) -> Evidence:
        test = self._test
        p = test._p.get()
        return Evidence(p + sqrt(p * (1 - p) / test._p.n), test._p_min + test.drift_threshold * test._s_min)


class Eddm(_OfRiver):
    """Fires where the distance between two ones, mean plus two standard deviations, falls below `beta` of its largest so far.

    >>> import random
    >>> rng = random.Random(1)
    >>> eddm = Eddm()
    >>> values = [int(rng.random() < (0.1 if i < 500 else 0.3)) for i in range(2000)]
    >>> next(i for i, x in enumerate(values) if eddm.update(x))
    624
    """

    name = "eddm"
    _fields = (
        "_error_distances.mean.n", "_error_distances.mean._mean", "_error_distances._S", "_n", "_last_error", "_n_errors", "_p2s_prime_max",
    )  # fmt: skip

    def __init__(self, beta: float = 0.9, warm_start: int = 30) -> None:
        between(self.name, "beta", beta, 0, 1)
        whole(self.name, "warm_start", warm_start, 1)
        super().__init__(_river().EDDM(warm_start, 1.0, beta), {"beta": float(beta), "warm_start": warm_start})

    def evidence(self, before: Level, after: Level) -> Evidence:
        """By what factor the largest distance passes the present one."""
        test = self._test
        distances = test._error_distances
        present = distances.mean.get() + 2 * distances.get() ** 0.5
        return Evidence(test._p2s_prime_max / present, 1 / test.beta)


class HddmA(_OfRiver):
    """Fires where the mean has risen past its lowest upper bound so far by more than Hoeffding's bound allows at `drift_confidence`.

    >>> import random
    >>> rng = random.Random(1)
    >>> hddm = HddmA()
    >>> values = [int(rng.random() < (0.1 if i < 3000 else 0.3)) for i in range(4000)]
    >>> next(i for i, x in enumerate(values) if hddm.update(x))
    3184
    """

    name = "hddm_a"
    _fields = tuple(f"{mean}.{part}" for mean in ("_z", "_x_min", "_x_max") for part in ("n", "_mean"))

    def __init__(self, drift_confidence: float = 0.001, two_sided_test: bool = False) -> None:
        between(self.name, "drift_confidence", drift_confidence, 0, 1)
        test = _river().HDDMA(drift_confidence, min(1.0, 5 * drift_confidence), bool(two_sided_test))
        super().__init__(test, {"drift_confidence": float(drift_confidence), "two_sided_test": bool(two_sided_test)})

    def evidence(self, before: Level, after: Level) -> Evidence:
        test = self._test
        z = test._z
        tests = []
        for cut, sign in ((test._x_min, 1), (test._x_max, -1)) if test.two_sided_test else ((test._x_min, 1),):
            bound = sqrt((z.n - cut.n) / cut.n / z.n / 2 * log(2 / test.drift_confidence))
            tests.append(Evidence(sign * (z.get() - cut.get()), bound))
        return max(tests, key=lambda one: one.statistic - one.threshold)


class HddmW(_OfRiver):
    """The same of means in which newer values weigh more (`lambda_val`), by McDiarmid's bound.

    >>> import random
    >>> rng = random.Random(1)
    >>> hddm = HddmW(drift_confidence=1e-6)
    >>> values = [int(rng.random() < (0.1 if i < 500 else 0.5)) for i in range(2000)]
    >>> next(i for i, x in enumerate(values) if hddm.update(x))
    688
    """

    name = "hddm_w"
    _fields = (
        "_incr_cutpoint",
        "_decr_cutpoint",
        *(f"{s}.{part}" for s in ("_total", "_s1_incr", "_s2_incr", "_s1_decr", "_s2_decr") for part in _SAMPLE),
    )

    def __init__(self, drift_confidence: float = 0.001, lambda_val: float = 0.05, two_sided_test: bool = False) -> None:
        between(self.name, "drift_confidence", drift_confidence, 0, 1)
        between(self.name, "lambda_val", lambda_val, 0, 1)
        test = _river().HDDMW(drift_confidence, min(1.0, 5 * drift_confidence), lambda_val, bool(two_sided_test))
        said = {"drift_confidence": float(drift_confidence), "lambda_val": float(lambda_val), "two_sided_test": bool(two_sided_test)}
        super().__init__(test, said)

    def evidence(self, before: Level, after: Level) -> Evidence:
        test = self._test
        pairs = [(test._s1_incr, test._s2_incr), (test._s2_decr, test._s1_decr)][: 2 if test.two_sided_test else 1]
        tests = [Evidence(b.ewma - a.ewma, test._mcdiarmid_bound(a.ibc + b.ibc, test.drift_confidence)) for a, b in pairs]
        return max(tests, key=lambda one: one.statistic - one.threshold)
