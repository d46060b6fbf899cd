"""What normal looks like, and standardising against it: as long as nothing changes, scores are independent N(0, 1).

A score is the normal quantile of a randomised sequential rank: where `less` of the n past values are smaller and `equal` are the same,
u = (less + V (equal + 1)) / (n + 1), with V uniform in (0, 1). u is exactly uniform and independent of the past ranks while the
stream is exchangeable, whatever its law, so that one calibration of a detector holds for all. V comes from the record (`uniform`),
not from a generator: the same log gives the same scores.

    Ranks  numeric values; keeps 1,000 of them, then 255 quantile edges and running counts of the 256 bins between them.
           Ranking among bins is as exact as before: the bin is itself a value, with many ties.

0/1 values need no more than their number and sum: `binary_score` is the same rank among values with many ties.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any, Final

SAMPLE: Final = 1_000
BINS: Final = 256
_BLOCK: Final = 16  # bins whose counts are summed together: the sum of the bins below is two short sums

_MASK: Final = 2**53 - 1
_SCALE: Final = 2.0**-53
_BELOW_ONE: Final = 1.0 - 2.0**-53
_quantile: Callable[[float, float, float], float] = getattr(
    statistics, "_normal_dist_inv_cdf", lambda share, mean, sd: statistics.NormalDist(mean, sd).inv_cdf(share)
)
"""What `NormalDist.inv_cdf` calls with its mean and deviation, after checks that cost as much again; itself where that is not there."""


def salt_of(digest: str) -> int:
    """An odd 53-bit number for a stream, from its fingerprint (hex). Streams of one record draw different V."""
    return int(digest[:16], 16) & _MASK | 1


def mix(unit: int, salt: int) -> int:
    """53 bits for one value of one stream; V is this number times 2^-53. `unit` is the record's (hashing.unit_of)."""
    return unit * salt & _MASK | 1


def binary_score(x: float, count: float, total: float, bits: int) -> float:
    """The normal score of `x` (0 or 1) after `count` values with the sum `total`; `bits` from `mix`."""
    # A 0 ties with count - total values and has none below it; a 1 ties with `total` and has none above it, so it is seen from the top.
    v = bits * _SCALE
    if x:
        return -_quantile(v * ((total + 1) / (count + 1)), 0.0, 1.0)
    return _quantile(v * ((count - total + 1) / (count + 1)), 0.0, 1.0)


class Ranks:
    """Running ranks of numeric values."""

    __slots__ = ("bins", "blocks", "count", "edges", "sample")

    def __init__(self) -> None:
        self.count = 0
        self.sample: list[float] = []
        self.edges: list[float] = []
        self.bins: list[int] = []
        self.blocks: list[int] = []

    def learn(self, x: float, bits: int) -> float:
        """The normal score of `x` against the values so far; then `x` is one of them. `bits` from `mix`."""
        count = self.count
        self.count = count + 1
        if self.edges:
            bins = self.bins
            bin_ = bisect_left(self.edges, x)
            block = bin_ >> 4
            equal = bins[bin_]
            less = sum(self.blocks[:block]) + sum(bins[block << 4 : bin_])
            bins[bin_] = equal + 1
            self.blocks[block] += 1
        else:
            sample = self.sample
            less = bisect_left(sample, x)
            equal = bisect_right(sample, x, less) - less
            insort(sample, x)
            if count + 1 == SAMPLE:
                self._freeze()
        u = (less + bits * _SCALE * (equal + 1)) / (count + 1)
        return _quantile(u if u < 1.0 else _BELOW_ONE, 0.0, 1.0)

    def score(self, x: float, bits: int) -> float:
        """As `learn`, but `x` is not taken in."""
        if self.edges:
            bin_ = bisect_left(self.edges, x)
            equal, less = self.bins[bin_], sum(self.bins[:bin_])
        else:
            less = bisect_left(self.sample, x)
            equal = bisect_right(self.sample, x, less) - less
        u = (less + bits * _SCALE * (equal + 1)) / (self.count + 1)
        return _quantile(u if u < 1.0 else _BELOW_ONE, 0.0, 1.0)

    def centers(self, parts: int) -> list[float]:
        """The means of the `parts` parts of the reference with equally many values, about (a divisor of 256)."""
        known = self.edges or self.sample
        n = len(known)
        if n < parts:
            return []
        pieces = [known[i * n // parts : (i + 1) * n // parts] for i in range(parts)]
        return [sum(x / len(piece) for x in piece) for piece in pieces]

    def _freeze(self) -> None:
        sample = self.sample
        self.edges = [sample[i * SAMPLE // BINS] for i in range(1, BINS)]
        self.bins = [0] * BINS
        for x in sample:
            self.bins[bisect_left(self.edges, x)] += 1
        self._sum_blocks()
        self.sample = []

    def _sum_blocks(self) -> None:
        self.blocks = [sum(self.bins[i : i + _BLOCK]) for i in range(0, BINS, _BLOCK)]

    def state(self) -> Any:
        """Plain data."""
        return [list(self.sample), list(self.edges), list(self.bins)]

    @classmethod
    def restored(cls, state: Any) -> Ranks:
        """The ranks that gave `state`."""
        ranks = cls()
        ranks.sample, ranks.edges, ranks.bins = list(state[0]), list(state[1]), list(state[2])
        ranks.count = len(ranks.sample) + sum(ranks.bins)
        if ranks.bins:
            ranks._sum_blocks()
        return ranks
