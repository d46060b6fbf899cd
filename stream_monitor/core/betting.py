"""A level against a limit, by betting: may it be said that the mean of values in [0, 1] is above a limit, at any time one likes to look?

I. Waudby-Smith, A. Ramdas: Estimating means of bounded random variables by betting. JRSS B 86 (2024).
S. Shin, A. Ramdas, A. Rinaldo: E-detectors: a nonparametric framework for sequential change detection. arXiv 2203.03532 (2022).

Somebody bets a part of a fortune on each value being above the limit m, and is paid 1 + l (x - m), 0 < l < 1/m. As long as the mean
of the next value, given all before, is at most m, the game is unfavourable: the mean of the factor is at most 1. So a fortune that
grows is evidence. When the bets should have begun is not known, so each moment begins some, with the budget that came in then:

    M_j <- (M_j + w_j c) (1 + l_j (x - m))        alarm when sum M_j >= 1; then all M_j = 0

As in core/detectors/e_detector.py, alarms minus budget never drift upwards: up to any time the expected number of alarms is at most
the budget received. Here that is a theorem for **any** values in [0, 1] whose conditional mean stays on the good side of the limit:
no warm-up, no law, no independence, no exchangeability; values may depend on the past and their mean may wander, as long as it does
not pass the limit.

On bits 1 + l (x - m) is the likelihood ratio of the share q = m e^t/(1 - m + m e^t) against m, if l = (e^t - 1)/(1 - m + m e^t): the
stakes are these l for the tilts t. On values that vary less than bits do, larger ones win more, so they go up to near 1/m.

"At least m" is the same of 1 - x and 1 - m.
"""

from __future__ import annotations

from math import exp, lgamma, log
from typing import Any

TILTS = (0.15, 0.3, 0.6, 1.2, 2.4)
_W1, _W2, _W3, _W4, _W5 = WEIGHTS = (0.25, 0.3, 0.2, 0.15, 0.1)
_Five = tuple[float, float, float, float, float]
_NOTHING: _Five = (0.0,) * 5
_LARGEST = 1e100

CONFIDENCE = 0.95


class Bets:
    """Bets that the mean is above `limit`, strictly between 0 and 1.

    `fresh`: at the moment nothing speaks for it, so that if it is above the limit, it is so only from the next value on.

    >>> import random
    >>> rng = random.Random(1)
    >>> bets = Bets(0.2)
    >>> bits = [rng.random() < (0.2 if i < 5000 else 0.3) for i in range(9000)]
    >>> next(i for i, bit in enumerate(bits) if bets.take(bit, 1e-5))
    5254
    """

    __slots__ = ("_fortune", "_m", "_stakes", "limit")

    _m: _Five
    _fortune: float

    def __init__(self, limit: float) -> None:
        if not 0 < limit < 1:
            raise ValueError(f"a limit strictly between 0 and 1 is expected, not {limit}")
        self.limit = limit
        s1, s2, s3, s4, s5 = ((exp(t) - 1) / (1 - limit + limit * exp(t)) for t in TILTS)
        self._stakes: _Five = (s1, s2, s3, s4, s5)
        self.reset()

    @property
    def fresh(self) -> bool:
        """Whether the most careful bettor, who starts anew as soon as he has lost, would start anew with the next value."""
        return self._fortune <= 1.0

    @property
    def evidence(self) -> float:
        """sum M_j; an alarm is due from 1 on."""
        return sum(self._m)

    def take(self, x: float, c: float) -> bool:
        """A value in [0, 1], and the budget that came in before it. True for an alarm: `reset` follows."""
        d = x - self.limit
        l1, l2, l3, l4, l5 = self._stakes
        m1, m2, m3, m4, m5 = self._m
        factor = 1.0 + l1 * d
        fortune = self._fortune
        self._fortune = factor if fortune <= 1.0 else min(fortune * factor, _LARGEST)
        m1 = (m1 + _W1 * c) * factor
        m2 = (m2 + _W2 * c) * (1.0 + l2 * d)
        m3 = (m3 + _W3 * c) * (1.0 + l3 * d)
        m4 = (m4 + _W4 * c) * (1.0 + l4 * d)
        m5 = (m5 + _W5 * c) * (1.0 + l5 * d)
        self._m = (m1, m2, m3, m4, m5)
        return m1 + m2 + m3 + m4 + m5 >= 1.0

    def reset(self) -> None:
        """All bets are lost."""
        self._m = _NOTHING
        self._fortune = 1.0

    def state(self) -> Any:
        """Plain data."""
        return [list(self._m), self._fortune]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        (m1, m2, m3, m4, m5), self._fortune = state
        self._m = (m1, m2, m3, m4, m5)


def interval(count: int, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Where the mean lies, after `count` values in [0, 1] with this sum: a confidence sequence, true at all counts together.

    S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences. Annals of
    Statistics 49 (2021); H. Robbins' mixture (1970). With the share of ones drawn from a Beta(1/2, 1/2), the probability of bits is

        B(total + 1/2, count - total + 1/2) / B(1/2, 1/2)

    and means p that make it 1/(1 - confidence) times smaller, p^total (1 - p)^(count - total), are ruled out. As means of exp(t x) are
    largest for bits, it holds for all values in [0, 1], for the average of their conditional means, and whenever one stops, if the count
    begins at a moment that was chosen before its values came. It is narrow for bits, and wider than need be for values that vary less.

    >>> [round(bound, 3) for bound in interval(400, 300)]
    [0.669, 0.821]
    >>> interval(0, 0)
    (0.0, 1.0)
    """
    if count < 1:
        return 0.0, 1.0
    ones = min(max(float(total), 0.0), float(count))
    rest = count - ones
    mixture = lgamma(ones + 0.5) + lgamma(rest + 0.5) - lgamma(count + 1) - 2 * lgamma(0.5)
    least = mixture - log(1 / (1 - confidence))

    def excluded(p: float) -> bool:
        return (ones * log(p) if ones else 0.0) + (rest * log(1 - p) if rest else 0.0) < least

    mean = ones / count
    return (_edge(0.0, mean, excluded) if ones else 0.0), (_edge(1.0, mean, excluded) if rest else 1.0)


def _edge(out: float, inside: float, excluded: Any) -> float:
    """Between a point that is excluded and one that is not, to 12 digits."""
    for _ in range(42):
        middle = (out + inside) / 2
        if middle in (0.0, 1.0) or excluded(middle):
            out = middle
        else:
            inside = middle
    return out
