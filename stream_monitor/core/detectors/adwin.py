"""ADWIN: keeps the longest window in which no two parts differ in their mean by more than chance allows.

A. Bifet, R. Gavalda: Learning from time-changing data with adaptive windowing. SIAM SDM 2007. The algorithm is river's.

ADWIN's `delta` bounds the error of one check, not the time between false alarms, so the default comes from simulation
(benchmarks/detection/false_alarms.py, seed 7, 20 million values each, restarted after each alarm): false alarms per million
values are 0.00 to 0.10 on binary streams (p = 0.5 to 0.001) and 0.15 to 0.75 on the normal scores of numeric ones (normal,
lognormal, Poisson). A delta of 0.004 gives 0.00 to 0.25 and 0.65 to 1.40, one of 0.05 some 2 and 20.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from math import log, sqrt
from typing import Any

from river.drift import ADWIN

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads
from stream_monitor.core.events import Level
from stream_monitor.errors import SetupError

DELTA = 0.002
CLOCK = 32
MAX_BUCKETS = 5
MIN_WINDOW = 5
GRACE = 10

_river: Any = ADWIN  # its parameters have no types

if not hasattr(getattr(_river(), "_helper", None), "__setstate__"):  # pragma: no cover - another release of river
    raise SetupError(
        "this release of river keeps ADWIN's state where stream-monitor can not save it (ADWIN._helper is gone)",
        hint="install the release of river that stream-monitor was tested with: pip install 'river==0.26.*'",
    )


class Adwin:
    """river's ADWIN. `update` is the bound method of its compiled part: 0.05 us a value instead of 0.13.

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

    def __init__(self, delta: float = DELTA, clock: int = CLOCK) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"adwin: delta is {delta}; it must lie between 0 and 1")
        if type(clock) is not int or clock < 1:
            raise ValueError(f"adwin: clock is {clock}; a whole number of values between checks is expected")
        self._delta, self._clock = float(delta), clock
        self.parameters: Mapping[str, Parameter] = {"delta": self._delta, "clock": clock}
        self.assurance: Assurance = "calibrated" if self._delta <= DELTA and clock >= CLOCK else "uncalibrated"
        self.reset()

    def reset(self) -> None:
        adwin = _river(self._delta, self._clock, MAX_BUCKETS, MIN_WINDOW, GRACE)
        self._helper = adwin._helper
        self.update = self._helper.update

    def evidence(self, before: Level, after: Level) -> Evidence:
        """How far the two means are apart, and how far ADWIN lets chance move them in windows of these sizes."""
        confidence = log(2 * log(before.count + after.count) / self._delta)
        m = 1 / (1 / max(1, before.count - MIN_WINDOW + 1) + 1 / max(1, after.count - MIN_WINDOW + 1))
        cut = sqrt(2 / m * self._helper.variance_in_window * confidence) + 2 / 3 / m * confidence
        return Evidence(abs(after.value - before.value), cut)

    def state(self) -> Any:
        return b64encode(self._helper.__getstate__()).decode()

    def restore(self, state: Any) -> None:
        self.reset()
        own = self._helper.__getstate__()[:16]  # delta and clock
        raw = b64decode(state, validate=True)
        if raw[:16] != own:
            raise ValueError("adwin: the saved state is of other parameters")
        try:
            self._helper.__setstate__(raw)
        except BaseException as error:  # river's Rust panics, which is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise ValueError("adwin: the saved state can not be read") from error
