"""Streams without a change, by family: how their values come about, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

DAY_S = 86_400.0
Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Family:
    """`values(rng, times, common)`: one for each time (s), which may share `common` (a value an hour) with others of the family.
    `times(rng, day, rate)`: when they come on that day. `promised`: whether the budget is promised to hold. `of`: what is watched of
    categories (the values are their numbers), the share of each or all as a whole; None: the values. `streams`: so many of a copy."""

    name: str
    values: Callable[[Rng, Array, Array], Array]
    times: Callable[[Rng, int, float], Array]
    binary: bool = False
    promised: bool = True
    comes_and_goes: bool = False
    of: Literal["shares", "whole"] | None = None
    streams: int = 1


def steady(rng: Rng, day: int, rate: float) -> Array:
    return np.sort(rng.uniform(0, DAY_S, rng.poisson(rate))) + day * DAY_S


def often(rng: Rng, day: int, rate: float) -> Array:
    """Four times as many."""
    return steady(rng, day, 4 * rate)


def daily(rng: Rng, day: int, rate: float) -> Array:
    """Ten times as much traffic at noon as at midnight."""
    all_ = rng.uniform(0, DAY_S, rng.poisson(1.82 * rate))
    kept = all_[rng.random(all_.size) < 0.55 - 0.45 * np.cos(2 * np.pi * all_ / DAY_S)]
    return np.sort(kept) + day * DAY_S


def bursty(rng: Rng, day: int, rate: float) -> Array:
    """Bursts of some 100 values a second apart, and hours of nothing."""
    starts = rng.uniform(0, DAY_S, rng.poisson(rate / 100))
    parts = [start + np.arange(rng.geometric(0.01)) for start in starts]
    return np.sort(np.concatenate(parts)) + day * DAY_S if parts else np.zeros(0)


def coming_and_going(rng: Rng, day: int, rate: float) -> Array:
    """Ten days of traffic, then three of silence."""
    return steady(rng, day, rate) if day % 13 < 10 else np.zeros(0)


def _bits(p: float) -> Callable[[Rng, Array, Array], Array]:
    return lambda rng, times, _: (rng.random(times.size) < p).astype(np.float64)


def _scores(atom: float, at: float) -> Callable[[Rng, Array, Array], Array]:
    """Scores in [0, 1], a part of which are just `at`."""
    return lambda rng, times, _: np.where(rng.random(times.size) < atom, at, rng.beta(2, 5, times.size))


def _categories(shares: Array) -> Callable[[Rng, Array, Array], Array]:
    return lambda rng, times, _: rng.choice(shares.size, times.size, p=shares / shares.sum()).astype(np.float64)


def _shared(rng: Rng, times: Array, common: Array) -> Array:
    """Half of the variance is the same for all streams of the family at the same moment, and new each time."""
    moment = common[(times * 7).astype(np.int64) % common.size]
    return np.asarray(np.sqrt(0.5) * (moment + rng.standard_normal(times.size)), dtype=np.float64)


def _regressive(rho: float) -> Callable[[Rng, Array, Array], Array]:
    def values(rng: Rng, times: Array, _: Array) -> Array:
        noise = np.concatenate((rng.standard_normal(50), rng.standard_normal(times.size))) * np.sqrt(1 - rho * rho)
        return np.asarray(lfilter([1.0], [1.0, -rho], noise)[50:], dtype=np.float64)

    return values


def _chain(p: float, rho: float) -> Callable[[Rng, Array, Array], Array]:
    """A Markov chain of bits with this share of ones and lag-1 autocorrelation."""

    def values(rng: Rng, times: Array, _: Array) -> Array:
        fresh = rng.random(times.size) < 1 - rho  # else the value before is repeated
        if times.size:
            fresh[0] = True
        drawn = (rng.random(times.size) < p).astype(float)
        last = np.maximum.accumulate(np.where(fresh, np.arange(times.size), 0))
        return drawn[last] if times.size else drawn

    return values


def weekend(times: Array) -> Array:
    """1 on two days of each week (of seven from time 0 on), else 0."""
    return np.asarray(times // DAY_S % 7 >= 5, dtype=np.float64)


def _cycles(weekly: float, daily: float) -> Callable[[Rng, Array, Array], Array]:
    """The level is so much higher at the weekend, and goes up and down by so much in a day, in standard deviations."""
    return lambda rng, times, _: rng.standard_normal(times.size) + weekly * weekend(times) + daily * np.sin(2 * np.pi * times / DAY_S)


def _bit_cycles(weekly: float, daily: float) -> Callable[[Rng, Array, Array], Array]:
    """The same of the share of ones, 0.1."""

    def values(rng: Rng, times: Array, _: Array) -> Array:
        p = 0.1 + weekly * weekend(times) + daily * np.sin(2 * np.pi * times / DAY_S)
        return (rng.random(times.size) < p).astype(np.float64)

    return values


NORMAL: Callable[[Rng, Array, Array], Array] = lambda rng, times, _: rng.standard_normal(times.size)  # noqa: E731

FAMILIES = (
    Family("normal", NORMAL, steady),
    Family("lognormal", lambda rng, times, _: rng.lognormal(0, 1.5, times.size), steady),
    Family("t, 3 degrees", lambda rng, times, _: rng.standard_t(3, times.size), steady),
    Family("Poisson(2)", lambda rng, times, _: rng.poisson(2, times.size).astype(float), steady),
    *(Family(f"bits, p = {p}", _bits(p), steady, binary=True) for p in (0.5, 0.1, 0.01, 0.001)),
    Family("normal, bursts", NORMAL, bursty),
    Family("bits, p = 0.1, bursts", _bits(0.1), bursty, binary=True),
    Family("lognormal, daily traffic", lambda rng, times, _: rng.lognormal(0, 1.5, times.size), daily),
    Family("bits, p = 0.05, daily traffic", _bits(0.05), daily, binary=True),
    Family("normal, come and go", NORMAL, coming_and_going, comes_and_goes=True),
    Family("bits, p = 0.1, come and go", _bits(0.1), coming_and_going, binary=True, comes_and_goes=True),
    Family("normal, correlated streams", _shared, steady),
    Family("AR(1), 0.1", _regressive(0.1), steady, promised=False),
    Family("AR(1), 0.3", _regressive(0.3), steady, promised=False),
    Family("AR(1), 0.6", _regressive(0.6), steady, promised=False),
    Family("Markov bits, p = 0.1, 0.3", _chain(0.1, 0.3), steady, binary=True, promised=False),
    Family("normal, daily cycle of 0.25 sd", _cycles(0, 0.25), steady, promised=False),
    Family("bits, p = 0.1, daily cycle", _bit_cycles(0, 0.03), steady, binary=True, promised=False),
)

TWELVE = _categories(1 / np.arange(2, 14))  # from 23% down to 3.5%
MORE = (  # on a ledger of their own, so that those above draw what they always drew
    Family("scores, Beta(2, 5)", _scores(0, 0), steady),
    Family("scores, a fifth of them 0", _scores(0.2, 0), steady),
    Family("scores, half of them 1", _scores(0.5, 1), steady),
    Family("12 categories, their shares", TWELVE, steady, of="shares", streams=12),
    Family("12 categories as a whole", TWELVE, often, of="whole"),
)

WEEKLY = (
    Family("normal", NORMAL, steady),
    Family("normal, weekends 0.25 sd higher", _cycles(0.25, 0), steady, promised=False),
    Family("normal, weekends 0.5, daily 0.25 sd", _cycles(0.5, 0.25), steady, promised=False),
    Family("lognormal, weekends", lambda rng, times, _: rng.lognormal(0.4 * weekend(times), 1.5), steady, promised=False),
    Family("bits, p = 0.1, weekends 0.13", _bit_cycles(0.03, 0), steady, binary=True, promised=False),
    Family("bits, p = 0.1, weekends 0.15, daily", _bit_cycles(0.05, 0.03), steady, binary=True, promised=False),
)
