"""Values that depend on the ones before them: noticed during the warm-up, and taken into account from then on.

Detectors are calibrated for exchangeable values. Where neighbours resemble each other they cry wolf: on an AR(1) with rho = .1, .3, .6 a
detector that should raise 1 false alarm in 100,000 values raises 2, 34, 377. So a `Probe` measures the lag-1 autocorrelation of a stream's
first values; beyond two of its standard deviations (1/sqrt(n)) the stream counts as dependent, and detectors read what its past
does not explain:

    numbers   w = (z - rho z') / sqrt(1 - rho^2), z' the score before: independent N(0, 1) for a Gaussian AR(1)
    bits      the share of ones among the values that followed a 0, or a 1, as the last one was (a Markov chain of order 1)

Two of them and not more, since the two mistakes do not cost the same: a dependence of .1 that is missed multiplies false alarms by 2
to 5, while one in 40 streams without any is taken for dependent, and sees a shift some 15% later. A stream beyond one of them is suspected:
it is read as it is, but spends only a part of its share of the budget (`spendable`), which costs it no proof and some 10% of delay.
Among rare ones two neighbours would be as much, so a single pair of them decides nothing. What is found is known to 1/sqrt(n) only: half of
that counts as suspected still.

The time of day or of the week is another thing of the past that may say something (core/cycles.py): where it does, its `Profile` comes
first, and the above is of what that leaves open. Longer memory is not covered, nor is a dependence that begins later or is too weak for the
warm-up (below .065 in 1,000 values). So an alert of a dependent stream is called calibrated, and it carries the
autocorrelation. What it costs: a shift of d scores becomes one of d sqrt((1 - rho)/(1 + rho)), about what the dependence leaves to be
known.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Any, Final

from stream_monitor.core.cycles import PRIOR, Profile

LIMIT: Final = 3.0  # standard deviations of the autocorrelation of independent values
FOUND, SUSPECTED = 2.0, 1.0  # the same, where a thousand values or so are looked at
LEAST: Final = 0.25  # of its share is left to a stream that is suspected
HIGHEST: Final = 0.98
_FAR: Final = 8.0  # scores reach no further by themselves


class Probe:
    """The lag-1 autocorrelation of the first `left` values."""

    __slots__ = ("_first", "_last", "_products", "_squares", "_sum", "count", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.count = 0
        self._first = self._last = self._sum = self._squares = self._products = 0.0

    def take(self, x: float) -> bool:
        """The next value; true if it was the last one."""
        if self.count:
            self._products += x * self._last
        else:
            self._first = x
        self.count += 1
        self._sum += x
        self._squares += x * x
        self._last = x
        self.left -= 1
        return self.left <= 0

    def autocorrelation(self, limit: float = LIMIT) -> float:
        """Of the values taken, if it is more than so many standard deviations of what chance does; else 0."""
        n = self.count
        if n < 3:
            return 0.0
        mean = self._sum / n
        variance = self._squares / n - mean * mean
        if not variance > 0:
            return 0.0
        pairs = self._products - mean * (2 * self._sum - self._first - self._last) + (n - 1) * mean * mean
        found = min(pairs / n / variance, HIGHEST)
        single = max(mean * mean, (1 - mean) ** 2) / n / variance  # what a pair of the rarer bits is worth; nothing worth a word for scores
        return found if found - single > limit / sqrt(n) else 0.0

    def state(self) -> Any:
        """Plain data."""
        return [self.left, self.count, self._first, self._last, self._sum, self._squares, self._products]

    @classmethod
    def restored(cls, state: Any) -> Probe:
        """The probe that gave `state`."""
        probe = cls(state[0])
        _, probe.count, probe._first, probe._last, probe._sum, probe._squares, probe._products = state
        return probe


def spendable(rho: float) -> float:
    """The part of its share by which a stream keeps to it though its values have this autocorrelation: 1 for none.

    A sum's variance is (1 + rho) / (1 - rho) times what independent values would give it, so a run length of R takes a threshold for
    R^(1 + 2 rho), about; R is taken to be 20,000.

    >>> [round(spendable(rho), 2) for rho in (0.0, 0.03, 0.06, 0.5)]
    [1.0, 0.55, 0.3, 0.25]
    """
    return max(LEAST, exp(-20 * rho))


class Past:
    """What the past of a dependent stream says of its next value. `rho`: its lag-1 autocorrelation; `profile`: what a cycle says, if
    there is one, which leaves that autocorrelation."""

    __slots__ = ("_counts", "_last", "_rest", "profile", "rho")

    def __init__(self, rho: float, profile: Profile | None = None) -> None:
        self.rho = rho
        self.profile = profile
        self._rest = 1 / sqrt(1 - rho * rho)
        self._last = 0.0
        self._counts = [0, 0, 0, 0]  # values after a 0, ones among them; the same after a 1

    def unexplained(self, z: float) -> float:
        """What the score before does not explain of this one."""
        w = (z - self.rho * self._last) * self._rest
        self._last = z
        return w if -_FAR < w < _FAR else _FAR if w > 0 else -_FAR

    def bit(self, x: float, time: int = 0, share: float = 0.5) -> tuple[float, float]:
        """Takes a bit; answers how many values followed such a one as came before it, and how many of them were ones, before this one.

        Where there is a cycle: how many came in the slot of this `time`, and as many ones as the slot and the bit before lead to expect.
        `share`: of ones, over all.
        """
        counts = self._counts
        at = 2 if self._last else 0
        seen, ones = counts[at], counts[at + 1]
        counts[at] = seen + 1
        if x:
            counts[at + 1] = ones + 1
        self._last = x
        if self.profile is None:
            return seen, ones
        there, there_ones = self.profile.bit(x, time, share)
        if not self.rho:
            return there, there_ones
        odds = _odds(there, there_ones) * _odds(seen + PRIOR, ones + PRIOR * share) * (1 - share) / share
        return there, min(max(0.0, (there + 1) * odds / (1 + odds) - 0.5), there)

    def forget(self) -> None:
        """The level is another one."""
        self._counts = [0, 0, 0, 0]
        if self.profile is not None:
            self.profile.forget()

    def state(self) -> Any:
        """Plain data."""
        return [self.rho, self._last, list(self._counts), self.profile and self.profile.state()]

    @classmethod
    def restored(cls, state: Any) -> Past:
        """The past that gave `state`."""
        past = cls(state[0])
        past._last, past._counts, past.profile = state[1], list(state[2]), state[3] and Profile.restored(state[3])
        return past


def _odds(seen: float, ones: float) -> float:
    p = (ones + 0.5) / (seen + 1)
    return p / (1 - p)
