"""river's KSWIN (window 100, 30 newest) at a thirteenth of its price, of bits far less: it alarms where river's does with the same seed.

What takes river's its time is the exact p-value of a two-sample Kolmogorov-Smirnov test at each value. Of two samples of 30 it depends on
their distance alone, which is one of 31 numbers, so it is looked up. The samples of the older values depend on the seed and on how many
tests there were since the last alarm, so they are drawn once for all detectors of a seed. `python -m benchmarks.detection.delay` can so
afford it as a rival.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter

import numpy as np
from scipy.stats import ks_2samp

WINDOW = 100
NEWEST = 30
Pick = Callable[[Sequence[float]], tuple[float, ...]]


def _p_value(h: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # as river does: of the smallest distance the exact one can not be had
        return float(ks_2samp(range(NEWEST), range(h, NEWEST + h)).pvalue)


P_VALUES = [_p_value(h) for h in range(NEWEST + 1)]  # of a distance of h / 30


def least(alpha: float) -> int:
    """The distance, in thirtieths, from which KSWIN alarms; never a tenth or less. 31 where it never does."""
    return next((h for h, p in enumerate(P_VALUES) if p <= alpha and h / NEWEST > 0.1), NEWEST + 1)


def distance(older: Sequence[float], newest: Sequence[float]) -> int:
    """The largest difference of the two distribution functions, in thirtieths."""
    both = np.array((*older, *newest))
    a, b = np.sort(both[:NEWEST]), np.sort(both[NEWEST:])
    return int(np.abs(a.searchsorted(both, "right") - b.searchsorted(both, "right")).max())


def distance_of_bits(older: Sequence[float], newest: Sequence[float]) -> int:
    """The same of zeros and ones."""
    return abs(int(sum(older) - sum(newest)))


class Draws:
    """What is taken of the older values at each test since the last alarm."""

    def __init__(self, seed: int) -> None:
        self._sample = random.Random(seed).sample
        self._known: list[Pick] = []

    def __getitem__(self, test: int) -> Pick:
        while test >= len(self._known):
            self._known.append(itemgetter(*self._sample(range(WINDOW - NEWEST), NEWEST)))
        return self._known[test]


draws = cache(Draws)


class Kswin:
    """`update` says whether there is an alarm; the value after one begins an empty window, as river's does."""

    def __init__(self, alpha: float, seed: int, bits: bool = False) -> None:
        self._least = least(alpha)
        self._distance = distance_of_bits if bits else distance
        self._draws = draws(seed)
        self._begin()

    def _begin(self) -> None:
        self._window: list[float] = []
        self._tests = 0

    def update(self, x: float) -> bool:
        window = self._window
        window.append(x)
        if len(window) < WINDOW:
            return False
        fired = self._distance(self._draws[self._tests](window), window[-NEWEST:]) >= self._least
        self._tests += 1
        if fired:
            self._begin()
        else:
            del window[0]
        return fired
