"""The budgeted e-detector: a mixture Shiryaev-Roberts procedure that spends a budget of false alarms as it comes in.

S. Shin, A. Ramdas, A. Rinaldo: E-detectors: a nonparametric framework for sequential change detection. arXiv 2203.03532 (2022).

For each kind of change j that is looked for, L_j says how much better it explains the next values than no change does:

    M_j <- (M_j + w_j c) L_j        alarm when sum M_j >= 1; then all M_j = 0

c >= 0 is the budget that came in since the last look (core/budget.py). M_j is a sum over all times at which the change may have begun, each
with the budget of that time as its weight; so there is no window to choose and no threshold to set.

What is proved. Let L_j have mean <= 1 given everything before, c included. With N the alarms so far, N + sum M_j - sum c has no upward
drift (it is a supermartingale: an alarm adds 1 and takes away at least 1). So up to any time E[N] <= E[sum c]: false alarms are at most the
budget received, for each stream and, as means add up, over all of them, whatever their number, traffic or correlation.

Where that mean is <= 1, as long as nothing changes and values are exchangeable:
- scores: independent N(0, 1), since they come from randomised sequential ranks (core/reference.py), whatever the law of the values. L_j is
  a ratio of normal densities, so its mean is 1. Proved; after 1,000 values but for the grain of the 256 bins that ranks are then taken
  among (each bin as a whole is ranked exactly), and for the rounding of floats.
- bits: p = (k + 1/2)/(n + 1) after n values with k ones is the law of the next value, if the stream's own share was drawn from the
  arcsine law: proved on average over such streams, not for each share by itself. For each share it holds by simulation
  (benchmarks/detection/budget_held.py), so an alert about bits says "calibrated".

Values that depend on each other are no longer exchangeable; core/dependence.py says what is done then, and that is calibrated too.

    L_j of n values                                                              j (weight)
    bits    exp(t sum x)/(1 - p + p e^t)^n                                       t = .3 (.45), .6 (.22), 1.1 (.12), 2 (.06), -.5 (.10), -1.2 (.05)
    scores  prod N(z; d, 1)/N(z; 0, 1) = exp(d sum z - n d^2/2)                  d = +-.2 (.25 each), +-.45 (.14 each), +-1 (.05 each)
            prod N(z; 0, s^2)/N(z; 0, 1) = exp((1 - 1/s^2) sum z^2 / 2)/s^n      s = .6 (.06), 1.6 (.06)

Most of the time it looks at 8 values at once, and as soon as sum M_j reaches 1/1000 at every single one: whether it does is settled
before the values come, so the proof stands, and by the stream's own values, so no batch decides.

Who wants to hear of less than an alarm lowers `heed` (core/early.py): `take_bits` and `take_scores` then say so from there on, and
change nothing else.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from typing import Any, Final

from stream_monitor.core.detectors.base import Assurance, Evidence, Parameter, Reads
from stream_monitor.core.events import Level

BLOCK: Final = 8  # values at once, while nothing is suspected
SUSPECT: Final = 1e-3
PER_VALUE: Final = 1e-6

TILTS = (0.3, 0.6, 1.1, 2.0, -0.5, -1.2)
TILT_WEIGHTS = (0.45, 0.22, 0.12, 0.06, 0.10, 0.05)
SHIFTS = (0.2, 0.45, 1.0)
SCALES = (0.6, 1.6)
SHIFT_WEIGHTS = (0.25, 0.14, 0.05, 0.06)

# Each by a name of its own, since a look needs all of them: weights and gains of the tilts,
_V1: Final = TILT_WEIGHTS[0]
_V2: Final = TILT_WEIGHTS[1]
_V3: Final = TILT_WEIGHTS[2]
_V4: Final = TILT_WEIGHTS[3]
_V5: Final = TILT_WEIGHTS[4]
_V6: Final = TILT_WEIGHTS[5]
_G1: Final = exp(TILTS[0]) - 1
_G2: Final = exp(TILTS[1]) - 1
_G3: Final = exp(TILTS[2]) - 1
_G4: Final = exp(TILTS[3]) - 1
_G5: Final = exp(TILTS[4]) - 1
_G6: Final = exp(TILTS[5]) - 1
_GAINS: Final = [tuple(exp(t * ones) for t in TILTS) for ones in range(BLOCK + 1)]  # by how many ones there are
# of the shifts, and of the scales.
_W1: Final = SHIFT_WEIGHTS[0]
_W2: Final = SHIFT_WEIGHTS[1]
_W3: Final = SHIFT_WEIGHTS[2]
_W4: Final = SHIFT_WEIGHTS[3]
_D1: Final = SHIFTS[0]
_D2: Final = SHIFTS[1]
_D3: Final = SHIFTS[2]
_H1: Final = SHIFTS[0] * SHIFTS[0] / 2
_H2: Final = SHIFTS[1] * SHIFTS[1] / 2
_H3: Final = SHIFTS[2] * SHIFTS[2] / 2
_Q1: Final = (1 - 1 / SCALES[0] ** 2) / 2
_Q2: Final = (1 - 1 / SCALES[1] ** 2) / 2
_S1: Final = log(SCALES[0])
_S2: Final = log(SCALES[1])

_NOTHING = (0.0,) * 8
_FARTHEST: Final = 9.0  # no normal score lies beyond it, and no exponential overflows within it


class EDetector:
    """One stream's M_j. `take_bits` or `take_scores` within a budget; `update` stands alone, on scores, and receives `per_value` each.

    `due`: how many values the next look wants to be given. `heed`: the evidence from which on a look is told of, 1 for alarms only.

    >>> import random
    >>> rng = random.Random(1)
    >>> detector = EDetector()
    >>> scores = [rng.gauss(0 if i < 3000 else 1, 1) for i in range(4000)]
    >>> next(i for i, z in enumerate(scores) if detector.update(z))
    3022
    """

    name = "e_detector"
    reads: Reads = "score"

    __slots__ = ("_count", "_squares", "_sum", "assurance", "budgeted", "due", "heed", "m", "parameters", "per_value")

    m: tuple[float, float, float, float, float, float, float, float]
    due: int
    _count: int
    _sum: float
    _squares: float

    def __init__(self, per_value: float | None = None) -> None:
        """`per_value`: false alarms a value that it may raise outside of the common budget."""
        if per_value is not None and not 0 < per_value < 1:
            raise ValueError(f"e_detector: per_value is {per_value}; a number of false alarms a value, between 0 and 1, is expected")
        self.budgeted = per_value is None
        self.per_value = PER_VALUE if per_value is None else float(per_value)
        self.parameters: Mapping[str, Parameter] = {} if self.budgeted else {"per_value": self.per_value}
        self.assurance: Assurance = "guaranteed" if self.budgeted else "uncalibrated"
        self.heed = 1.0
        self.reset()

    def take_bits(self, count: int, ones: int, p: float, c: float) -> bool:
        """`count` (at most 8) bits came after a share of `p`, and the budget `c`. True from `heed` on: from 1 on it is an
        alarm, and `reset` follows."""
        e1, e2, e3, e4, e5, e6 = _GAINS[ones]
        m1, m2, m3, m4, m5, m6, _, _ = self.m
        m1 = (m1 + _V1 * c) * e1 / (1.0 + p * _G1) ** count
        m2 = (m2 + _V2 * c) * e2 / (1.0 + p * _G2) ** count
        m3 = (m3 + _V3 * c) * e3 / (1.0 + p * _G3) ** count
        m4 = (m4 + _V4 * c) * e4 / (1.0 + p * _G4) ** count
        m5 = (m5 + _V5 * c) * e5 / (1.0 + p * _G5) ** count
        m6 = (m6 + _V6 * c) * e6 / (1.0 + p * _G6) ** count
        self.m = (m1, m2, m3, m4, m5, m6, 0.0, 0.0)
        total = m1 + m2 + m3 + m4 + m5 + m6
        self.due = BLOCK if total < SUSPECT else 1
        return total >= self.heed

    def take_scores(self, count: int, total: float, squares: float, c: float) -> bool:
        """`count` normal scores came with this sum and sum of squares, and the budget `c`. True as of `take_bits`."""
        m1, m2, m3, m4, m5, m6, m7, m8 = self.m
        a, b = _D1 * total, _H1 * count
        m1 = (m1 + _W1 * c) * exp(a - b)
        m2 = (m2 + _W1 * c) * exp(-a - b)
        a, b = _D2 * total, _H2 * count
        m3 = (m3 + _W2 * c) * exp(a - b)
        m4 = (m4 + _W2 * c) * exp(-a - b)
        a, b = _D3 * total, _H3 * count
        m5 = (m5 + _W3 * c) * exp(a - b)
        m6 = (m6 + _W3 * c) * exp(-a - b)
        m7 = (m7 + _W4 * c) * exp(_Q1 * squares - _S1 * count)
        m8 = (m8 + _W4 * c) * exp(_Q2 * squares - _S2 * count)
        self.m = (m1, m2, m3, m4, m5, m6, m7, m8)
        evidence = m1 + m2 + m3 + m4 + m5 + m6 + m7 + m8
        self.due = BLOCK if evidence < SUSPECT else 1
        return evidence >= self.heed

    def total(self) -> float:
        """The evidence, to the bit as a look has it."""
        m1, m2, m3, m4, m5, m6, m7, m8 = self.m
        return m1 + m2 + m3 + m4 + m5 + m6 + m7 + m8

    def update(self, x: float) -> bool:
        """A normal score."""
        x = min(max(x, -_FARTHEST), _FARTHEST)
        self._count += 1
        self._sum += x
        self._squares += x * x
        if self._count < self.due:
            return False
        count, total, squares = self._count, self._sum, self._squares
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        return self.take_scores(count, total, squares, count * self.per_value)

    def mostly_spread(self) -> bool:
        """Whether the evidence speaks of the spread of scores more than of their mean."""
        return self.m[6] + self.m[7] > sum(self.m[:6])

    def evidence(self, before: Level, after: Level) -> Evidence:
        """sum M_j, and the 1 that it has passed."""
        return Evidence(sum(self.m), 1.0)

    def retune(self, run_length: float, share: float | None) -> None:
        """Nothing to set: what it receives decides."""

    def reset(self) -> None:
        self.m = _NOTHING
        self.due = BLOCK
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def state(self) -> Any:
        return [list(self.m), self.due, self._count, self._sum, self._squares]

    def restore(self, state: Any) -> None:
        m, due, count, total, squares = state
        if len(m) != len(_NOTHING) or not 1 <= due <= BLOCK:
            raise ValueError("e_detector: the saved state can not be read")
        self.m = tuple(map(float, m))  # type: ignore[assignment]
        self.due, self._count, self._sum, self._squares = int(due), int(count), float(total), float(squares)
