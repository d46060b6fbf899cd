"""How far apart two distributions are, as the field measures it: for people and reports, never for an alarm.

    psi                population stability index: sum (q - p) ln(q / p); by habit 0.1 is little, 0.25 is much
    jensen_shannon     distance in [0, 1]: the root of the divergence to base 2 (J. Lin, 1991)
    kolmogorov_smirnov largest difference of the two distribution functions
    wasserstein        how far values have to be moved on average, in the signal's units; never less than the difference of the means

p is the reference, q what came after the alarm. Numbers are counted in 16 bins, each with a sixteenth of the reference: which one is told
by the normal score that the reference that was put aside gives to a value (core/reference.py), so nothing else need be kept. Each bin
is taken as one point, its mean, so distances within a bin are not seen. Chance alone makes psi about (bins - 1)(1/n + 1/m): that is said
beside it. A share of ones is two bins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import log, log2, sqrt
from statistics import NormalDist
from typing import Any

BINS = 16
FEW = 100  # values after the alarm that say too little of a distribution
_CUTS = [NormalDist().inv_cdf(i / BINS) for i in range(1, BINS)]


class Counts:
    """Values since the alarm by bins of the reference, which had `reference` values: their numbers and sums."""

    __slots__ = ("bins", "reference", "sums")

    def __init__(self, reference: int) -> None:
        self.reference = reference
        self.bins = [0] * BINS
        self.sums = [0.0] * BINS

    def take(self, score: float, x: float) -> None:
        """A value and its normal score against the reference."""
        at = bisect_left(_CUTS, score)
        self.bins[at] += 1
        self.sums[at] += x

    def effects(self, centers: Sequence[float], shift: float) -> dict[str, Any] | None:
        """By how much they differ from the reference, whose bins are around `centers`; `shift`: of the means. None: too few."""
        count = sum(self.bins)
        if count < FEW:
            return None
        after = [(n / count, total / n) for n, total in zip(self.bins, self.sums, strict=True) if n]
        moved = _moved([(1 / BINS, center) for center in centers], after)
        return _compared([1 / BINS] * BINS, self.bins, self.reference) | {"wasserstein": max(moved, abs(shift))}

    def saved(self) -> Any:
        """Plain data."""
        return [self.reference, list(self.bins), list(self.sums)]

    @classmethod
    def restored(cls, state: Any) -> Counts:
        """The counts that gave `state`."""
        counts = cls(state[0])
        counts.bins, counts.sums = list(state[1]), list(state[2])
        return counts


def of_shares(before: float, reference: int, after: float, count: int) -> dict[str, Any] | None:
    """The same of a share of ones among `reference` bits, and among `count` later ones."""
    if count < FEW:
        return None
    ones = round(after * count)
    return _compared([1 - before, before], [count - ones, ones], reference) | {"wasserstein": abs(ones / count - before)}


def of_counts(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """The same of categories, as often as they came. They have no order, so nothing is said that needs one."""
    reference = int(sum(before))
    met = [(a / reference, b) for a, b in zip(before, after, strict=True) if a or b]
    return _diverging([p for p, _ in met], [n for _, n in met], reference)


def _compared(p: Sequence[float], bins: Sequence[float], reference: int) -> dict[str, Any]:
    count = sum(bins)
    gaps = [abs(b / count - a) for a, b in zip(accumulate(p), accumulate(bins), strict=True)]
    return _diverging(p, bins, reference) | {"kolmogorov_smirnov": max(gaps)}


def _diverging(p: Sequence[float], bins: Sequence[float], reference: int) -> dict[str, Any]:
    """What goes by the shares of bins in any order."""
    count = int(sum(bins))
    q = [n / count for n in bins]
    half = 0.5 / count, 0.5 / max(1, reference)  # an empty bin counts for half a value
    pairs = [(max(a, half[1]), max(b, half[0])) for a, b in zip(p, q, strict=True)]
    divergence = sum(_part(a, b) + _part(b, a) for a, b in zip(p, q, strict=True)) / 2
    return {
        "psi": sum((b - a) * log(b / a) for a, b in pairs),
        "psi_by_chance": (len(p) - 1) * (1 / count + 1 / max(1, reference)),
        "jensen_shannon": sqrt(min(1.0, max(0.0, divergence))),
        "bins": len(p),
        "count": count,
        "reference_count": reference,
    }


def _moved(p: Sequence[tuple[float, float]], q: Sequence[tuple[float, float]]) -> float:
    """The cost of moving masses (share, place) to others, each in ascending order, which is the order to move them in."""
    moved, i, j, left, room = 0.0, 0, 0, 0.0, 0.0
    while (left > 0 or i < len(p)) and (room > 0 or j < len(q)):
        if left <= 0:
            left, i = p[i][0], i + 1
        if room <= 0:
            room, j = q[j][0], j + 1
        mass = min(left, room)
        moved += mass * abs(p[i - 1][1] - q[j - 1][1])
        left, room = left - mass, room - mass
    return moved


def _part(a: float, b: float) -> float:
    return a * log2(2 * a / (a + b)) if a > 0 else 0.0
