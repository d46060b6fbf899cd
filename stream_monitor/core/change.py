"""When a change began: the values at which it may have, by their likelihood, and where it lies with 90% confidence.

A stream leaves marks behind it, thinned out with age, and knows the sums of its values between them (core/streams.py). So the
likelihood of a change is known at the marks only:

    before              | mark | mark | mark |    now        evidence of a mark: log of the likelihood of what came before it and after
    ....................|......|......|......|......         it, each at a level of its own, averaged over what the level may be

Averaged, not at its best: a level that is fitted to few values always looks good, and would draw the change to the ends. No place is
likelier than another beforehand, so a mark stands for the values around it, as many as there are halfway to its neighbours; the last one
for all values since. The most likely marks that make up 90% are taken, with all between them, and, since a change may lie anywhere
between two marks, one more on each side. An alarm comes when luck helps, but the luck is among the values that the likelihood was taken
of, so it needs no correction: benchmarks/detection/change.py counts how often the truth lies within.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log

CONFIDENCE = 0.9


def of_bits(count: float, ones: float) -> float:
    """Log likelihood of so many bits with so many ones in their order, averaged over shares by the arcsine law.

    >>> round(exp(of_bits(1, 1)), 3)
    0.5
    """
    return lgamma(ones + 0.5) + lgamma(count - ones + 0.5) - lgamma(count + 1) - _LOG_PI


def of_shift(count: float, total: float) -> float:
    """Log likelihood ratio of normal scores with this sum: means drawn from N(0, 1) against a mean of 0."""
    return (total * total / (count + 1) - log(count + 1)) / 2


def of_spread(count: float, squares: float) -> float:
    """The same of normal scores with this sum of squares: a variance of their own against 1 (BIC)."""
    variance = max(squares / count, 1e-9)
    return (count * (variance - 1 - log(variance)) - log(count + 1)) / 2


def likely(places: Sequence[float], evidence: Sequence[float], end: float) -> tuple[int, int]:
    """Between which of the ascending `places` the change lies with 90% confidence; `len(places)` stands for `end`, the number of values.

    >>> likely([25, 50, 75, 100], [-3, 0, 8, 1], 110)
    (1, 3)
    """
    last = len(places) - 1
    best = max(evidence)
    mass = [
        exp(evidence[i] - best)
        * ((places[i] - places[i - 1] if i else 0) + (places[i + 1] - places[i] if i < last else 2 * (end - places[i])))
        for i in range(last + 1)
    ]
    wanted = CONFIDENCE * sum(mass)
    low, high, have = last, 0, 0.0
    for i in sorted(range(last + 1), key=lambda i: (-evidence[i], -mass[i])):
        low, high, have = min(low, i), max(high, i), have + mass[i]
        if have >= wanted:
            break
    return max(low - 1, 0), high + 1


_LOG_PI = log(3.141592653589793)
