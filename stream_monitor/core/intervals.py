"""Intervals that hold the true level with 90% confidence.

share of ones   Wilson's (1927): never empty, never outside of [0, 1], good at small counts
mean            Student's t over the means of blocks of values. Neither single values nor their squares need be kept, and values
                that depend on their neighbours make means of blocks vary as much as they should
spread          of normal scores, from the law of a variance, on the scale of its logarithm
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import exp, hypot, sqrt

from stream_monitor.core.events import Level

Z = 1.6448536269514722  # the normal quantile of 0.95
_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
LUCK = 1.3  # by so much wider is the interval of a level at an alarm, which comes when luck makes the change look large
FEW = 4  # degrees of freedom below which blocks say too little of how much values vary


@dataclass(frozen=True, slots=True)
class Blocks:
    """What blocks of values say: `count` values with this `mean`; `root`, the root of the sum of the squares of the blocks'
    deviations, with `freedom` degrees of freedom."""

    count: int
    mean: float
    root: float
    freedom: int

    @classmethod
    def of(cls, blocks: Iterable[tuple[float, float]]) -> Blocks:
        """Of (number of values, their sum); at least one value in all."""
        known = [(n, total) for n, total in blocks if n > 0]
        count = sum(n for n, _ in known)
        mean = sum(total for _, total in known) / count
        return cls(int(count), mean, hypot(*(sqrt(n) * (total / n - mean) for n, total in known)), len(known) - 1)


def of_share(ones: float, count: int, wider: float = 1.0) -> Level:
    """The share of ones among `count` bits. `wider`: by which factor, here and below.

    >>> level = of_share(3, 10)
    >>> round(level.low, 3), round(level.high, 3)
    (0.127, 0.558)
    """
    p, z = ones / count, Z * wider
    center = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Level(p, count, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)))


def of_mean(blocks: Blocks, others: Blocks | None = None, wider: float = 1.0) -> Level:
    """The mean of values. Few blocks are taken to vary as much as `others` do, or more if they look like it."""
    root, freedom = blocks.root, blocks.freedom
    if freedom < FEW and others is not None:
        both, all_ = hypot(root, others.root), freedom + others.freedom
        if not freedom or root * sqrt(all_) <= both * sqrt(freedom):
            root, freedom = both, all_
    if freedom < 1:
        return Level(blocks.mean, blocks.count)
    half = wider * student(freedom) * root / sqrt(freedom) / sqrt(blocks.count)
    return Level(blocks.mean, blocks.count, blocks.mean - half, blocks.mean + half)


def of_spread(deviation: float, count: int, wider: float = 1.0) -> Level:
    """A standard deviation of normal scores about a mean of 0."""
    factor = exp(wider * Z / sqrt(2 * count))
    return Level(deviation, count, deviation / factor, deviation * factor)


def mixed(before: Level, after: Level, strangers: int) -> Level:
    """`after`, up to `strangers` values of which may be of `before`: then what is really after is further away from it."""
    if after.low is None or after.high is None or not 0 < strangers < after.count:
        return after
    further = (after.value - before.value) * strangers / (after.count - strangers)
    return replace(after, low=after.low + min(0.0, further), high=after.high + max(0.0, further))


def student(freedom: int) -> float:
    """Student's t, the quantile of 0.95 (from ten degrees on by the expansion of Fisher and Cornish, 1960).

    >>> round(student(10), 3), round(student(30), 3)
    (1.812, 1.697)
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    n, z = float(freedom), Z
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n * n)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
