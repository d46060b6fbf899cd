"""Limits and fairness against the budget, and their delays: `python -m benchmarks.detection.limits [--days 8]` (`--seed 1`).

1. Guards of every family, 70 of each, share one ledger. Levels, gaps and ratios lie exactly at their limit or on its good side, so every
   alarm is a false one. Values go through core/guards.py, those of groups through core/fairness.py. Guards resume at once after an alarm,
   so that they can use all that they receive. Prints for each family the budget received, the alarms, and the 95% Poisson interval of
   their ratio. The last families break what is promised, and share a ledger of their own: their mean is at the limit, but what one expects
   of the next value is beyond it now and then.
2. 2,000 values, then a breach. Delay until it is noticed, at one false alarm in 100,000 values at the limit: ours by its budget; an exact
   test of each window of n values, at the level n/100,000; CUSUM for the step from the limit to a level that is given away to it, its
   threshold by simulation. What is not noticed within 5,000 values counts as these.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from benchmarks.detection.budget_held import bounds
from benchmarks.detection.families import bursty, coming_and_going, daily, steady
from stream_monitor.core.alerting import Desk
from stream_monitor.core.betting import Bets
from stream_monitor.core.budget import Account, Ledger
from stream_monitor.core.events import Kind, Slice
from stream_monitor.core.fairness import Comparison, GapRule
from stream_monitor.core.guards import Guard
from stream_monitor.core.limits import parse
from stream_monitor.core.service_levels import LimitRule
from stream_monitor.core.settings import DAY, HOUR, AlertBudget, DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room

Array = NDArray[np.float64]
Rng = np.random.Generator
Push = Callable[[float, int, int, int], None]
"""A value, its unit, time (ms) and offset."""

SETTINGS = DetectSettings(resolve_means=1, resolve_width=1)
LENGTH = 100_000
BEFORE = 2_000
HORIZON = 5_000


@dataclass(frozen=True)
class Family:
    """`limit`: as it is written, or for groups the `fairness_limit` or `disparate_impact`. `values(rng, times)`: one for each time (s); of
    groups the bits, plus 2 where they are the group's own."""

    name: str
    limit: str
    values: Callable[[Rng, Array], Array]
    times: Callable[[Rng, int, float], Array] = steady
    promised: bool = True


def _bits(p: float) -> Callable[[Rng, Array], Array]:
    return lambda rng, times: (rng.random(times.size) < p).astype(float)


def _wandering(p: float) -> Callable[[Rng, Array], Array]:
    """At the limit every other day, at half of it in between."""
    return lambda rng, times: np.asarray(rng.random(times.size) < np.where(times // 86_400 % 2, p, p / 2), dtype=float)


def _chain(after_0: float, after_1: float) -> Callable[[Rng, Array], Array]:
    def values(rng: Rng, times: Array) -> Array:
        last, drawn = 0, rng.random(times.size).tolist()
        return np.array([last := int(u < (after_1 if last else after_0)) for u in drawn], dtype=float)

    return values


def _fanned(rng: Rng, times: Array) -> Array:
    """Mean .3 whatever came before, but the values before decide how far they lie from it."""
    last, out = 0.3, []
    for sign in rng.choice((-1.0, 1.0), times.size).tolist():
        last = 0.3 + sign * (0.3 if last > 0.3 else 0.03)
        out.append(last)
    return np.array(out)


def _groups(of_rest: float, gap: float, ratio: float, own: float = 0.5, moving: float = 0.0) -> Callable[[Rng, Array], Array]:
    """The group has the rate ratio x that of the rest - gap, and a share `own` of the values. `moving`: rates swing by so much, daily."""

    def values(rng: Rng, times: Array) -> Array:
        is_own = rng.random(times.size) < own
        rest = of_rest + moving * np.sin(2 * np.pi * times / 86_400)
        ones = rng.random(times.size) < np.where(is_own, ratio * rest - gap, rest)
        return np.asarray(ones + 2.0 * is_own, dtype=float)

    return values


FAMILIES = (
    Family("bits, at most 0.5", "error <= 0.5", _bits(0.5)),
    Family("bits, at least 0.8", "accuracy >= 0.8", _bits(0.8)),
    Family("bits, at most 0.05", "error <= 0.05", _bits(0.05)),
    Family("bits, at most 0.01", "error <= 0.01", _bits(0.01)),
    Family("Beta(3, 7), at most 0.3", "score <= 0.3", lambda rng, times: rng.beta(3, 7, times.size)),
    Family("variance depends on the past", "score <= 0.3", _fanned),
    Family("level wanders up to the limit", "error <= 0.2", _wandering(0.2)),
    Family("chain that reaches the limit", "error <= 0.2", _chain(0.1, 0.2)),
    Family("bits, bursts", "error <= 0.1", _bits(0.1), bursty),
    Family("bits, daily traffic", "error <= 0.1", _bits(0.1), daily),
    Family("bits, come and go", "error <= 0.1", _bits(0.1), coming_and_going),
    Family("groups, gap 0.1 of 0.5", "0.1", _groups(0.5, 0.1, 1)),
    Family("groups, gap 0.05 of 0.1", "0.05", _groups(0.1, 0.05, 1)),
    Family("groups of 1:9, gap 0.1 of 0.3", "0.1", _groups(0.3, 0.1, 1, own=0.1)),
    Family("groups, gap 0.1, rates swing", "0.1", _groups(0.4, 0.1, 1, moving=0.2)),
    Family("groups, ratio 0.8 of 0.3", "ratio 0.8", _groups(0.3, 0, 0.8)),
    Family("groups, ratio 0.8 of 0.05, bursts", "ratio 0.8", _groups(0.05, 0, 0.8), bursty),
    Family("Markov bits, 0.2, rho 0.1", "error <= 0.2", _chain(0.18, 0.28), promised=False),
    Family("Markov bits, 0.2, rho 0.3", "error <= 0.2", _chain(0.14, 0.44), promised=False),
    Family("level swings about the limit", "error <= 0.2", lambda rng, times: (
        rng.random(times.size) < 0.2 + 0.1 * np.sin(2 * np.pi * times / 86_400)
    ).astype(float), promised=False),
)  # fmt: skip


class Run:
    """The guards of some families on one ledger."""

    def __init__(self, families: list[Family], copies: int, budget: AlertBudget, seed: int) -> None:
        self.families = families
        self.rng = np.random.default_rng(seed)
        self.ledger = Ledger(budget.rate, HOUR)
        self.desk = Desk("observations", 0, self.ledger)
        self.made: list[tuple[int, Push, Callable[[], Account | None]]] = []
        self.values = self.look = 0
        for f, family in enumerate(families):
            self.made += [(f, *self._new(family, f"{f}.{i}")) for i in range(copies)]

    def _new(self, family: Family, version: str) -> tuple[Push, Callable[[], Account | None]]:
        name, _, number = family.limit.rpartition(" ")
        if "=" in family.limit:
            monitor = MonitorSettings()
        elif name == "ratio":
            monitor = MonitorSettings(detectors=(), disparate_impact=float(number))
        else:
            monitor = MonitorSettings(detectors=(), fairness_limit=float(number))
        plan = Plan("m", version, monitor, SETTINGS, self.desk, Room(10))
        if "=" in family.limit:
            rule = LimitRule(parse(family.limit))
            guard = Guard(plan.subject(None, rule.limit.metric, Kind.PERFORMANCE), rule, SETTINGS, self.desk)
            return lambda x, _, time, offset: guard.push(rule.guarded(x), x, 0, time, offset), lambda: guard.account
        comparison = Comparison(plan, Slice("group", "a"), "selection_rate")

        def account() -> Account | None:
            return next((one.account for _, one in comparison.guards if one), None)  # None: too few of the group came

        return lambda x, unit, time, offset: comparison.take(int(x) & 1, x >= 2, unit, time, offset), account

    def day(self, day: int, rate: float) -> None:
        times, values, owners = [], [], []
        for i, (f, _, _) in enumerate(self.made):
            when = self.families[f].times(self.rng, day, rate)
            times.append(when)
            values.append(self.families[f].values(self.rng, when))
            owners.append(np.full(when.size, i))
        when, what, who = (np.concatenate(parts) for parts in (times, values, owners))
        order = np.argsort(when, kind="stable")
        push = [made[1] for made in self.made]
        for i, x, time in zip(who[order].tolist(), what[order].tolist(), (when[order] * 1000).astype(int).tolist(), strict=True):
            self.desk.move(time)
            push[i](x, self.values, time, self.values)
            self.values += 1
        self.desk.out.clear()

    def table(self) -> None:
        found = [(0, 0.0)] * len(self.families)
        for f, _, account in self.made:
            if one := account():
                found[f] = found[f][0] + one.alarms, found[f][1] + one.received
        for family, (alarms, received) in zip(self.families, found, strict=True):
            print(f"  {family.name:<36}{bounds(alarms, received)}", flush=True)
        print(f"  {'all':<36}{bounds(sum(a for a, _ in found), sum(r for _, r in found))}", flush=True)


def budget(days: int, copies: int, rate: float, a_day: float, seed: int) -> None:
    for promised in (True, False):
        families = [family for family in FAMILIES if family.promised is promised]
        share = len(families) / sum(family.promised for family in FAMILIES)
        run, started = Run(families, copies, AlertBudget(a_day * share, DAY), seed), monotonic()
        for day in range(days):
            run.day(day, rate)
            print(f"day {day + 1} of {days}, {run.values:,} values, {monotonic() - started:.0f} s", file=sys.stderr)
        said = "at the limit" if promised else "beyond the limit now and then, nothing is promised"
        print(f"{len(run.made):,} guards {said}, {run.values:,} values, {days} days of {a_day * share:.2f} false alarms")
        run.table()


def ours(limit: float, values: Array) -> int:
    """When bets that the mean of the values is above the limit give an alarm after `BEFORE`."""
    bets = Bets(limit)
    for i, x in enumerate(values.tolist()):
        if bets.take(x, 1 / LENGTH):
            if i >= BEFORE:
                return i + 1 - BEFORE
            bets.reset()
    return HORIZON


def window(n: int, largest: float, values: Array) -> int:
    """The same of a test of each n values in a row: is their sum above `largest`?"""
    sums = values[: values.size // n * n].reshape(-1, n).sum(axis=1)
    ends = (np.arange(sums.size) + 1) * n
    found = ends[(sums > largest) & (ends > BEFORE)]
    return int(found[0]) - BEFORE if found.size else HORIZON


def cusum(limit: float, level: float, threshold: float, values: Array) -> int:
    one, zero = log(level / limit), log((1 - level) / (1 - limit))
    total = 0.0
    for i, x in enumerate(values.tolist()):
        total = max(0.0, total + (one if x else zero))
        if total >= threshold:
            if i >= BEFORE:
                return i + 1 - BEFORE
            total = 0.0
    return HORIZON


def threshold(limit: float, level: float, seed: int) -> float:
    """Of CUSUM, for one false alarm in 100,000 bits at the limit: by bisection on 400 streams of 20,000."""
    one, zero = log(level / limit), log((1 - level) / (1 - limit))
    low, high = 2.0, 14.0
    for _ in range(10):
        middle, rng, total, alarms = (low + high) / 2, np.random.default_rng(seed), np.zeros(400), 0
        for _ in range(20_000):
            total = np.maximum(0, total + np.where(rng.random(400) < limit, one, zero))
            over = total >= middle
            if over.any():
                alarms += int(over.sum())
                total[over] = 0
        low, high = (middle, high) if alarms > 400 * 20_000 / LENGTH else (low, middle)
    return high


WINDOWS = (50, 200, 1_000)
CLUES = (0.3, 0.4)


def delays(runs: int, seed: int) -> None:
    limit, thresholds = 0.2, {level: threshold(0.2, level, seed) for level in CLUES}
    largest = {n: float(binom.isf(n / LENGTH, n, limit)) for n in WINDOWS}
    names = ["bets", *(f"windows of {n}" for n in WINDOWS), *(f"CUSUM for {1 - level:g}" for level in CLUES)]
    print(f"\nlimit recall >= 0.8: {', '.join(f'CUSUM for {1 - k:g} at {v:.2f}' for k, v in thresholds.items())}")
    print(f"| breach | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for before, after in ((0.85, 0.78), (0.85, 0.75), (0.85, 0.7), (0.85, 0.6), (0.95, 0.7), (0.8, 0.7)):
        rng, found = np.random.default_rng(seed), []
        for _ in range(runs):
            misses = (rng.random(BEFORE + HORIZON) < np.repeat((1 - before, 1 - after), (BEFORE, HORIZON))).astype(float)
            found.append(
                [ours(limit, misses)]
                + [window(n, largest[n], misses) for n in WINDOWS]
                + [cusum(limit, level, thresholds[level], misses) for level in CLUES]
            )
        print(f"| {before:g} to {after:g} | {_row(found)} |", flush=True)
    names = ["bets", *(f"windows of {n} pairs" for n in WINDOWS)]
    print(f"\nlimit of the gap 0.1, rest at 0.35, delays in pairs\n| gap | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for gap in (0.15, 0.2, 0.3):
        rng, found = np.random.default_rng(seed), []
        rule = GapRule("selection_rate", 0.1)
        for _ in range(runs):
            rest = rng.random(BEFORE + HORIZON) < 0.35
            group = rng.random(BEFORE + HORIZON) < np.repeat((0.35, 0.35 - gap), (BEFORE, HORIZON))
            difference = rest.astype(float) - group
            found.append(
                [ours(rule.bound, (1 + difference) / 2)]
                # a z-test of two proportions that knows their variances at the limit
                + [window(n, n * 0.1 + norm.isf(n / LENGTH) * sqrt(n * (0.35 * 0.65 + 0.25 * 0.75)), difference) for n in WINDOWS]
            )
        print(f"| 0 to {gap:g} | {_row(found)} |", flush=True)


def _row(found: list[list[int]]) -> str:
    cells = []
    for column in zip(*found, strict=True):
        missed = sum(delay >= HORIZON for delay in column) / len(column)
        cells.append(f"{sum(column) / len(column):.0f}" + (f" ({missed:.0%})" if missed else ""))
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--copies", type=int, default=70)
    parser.add_argument("--rate", type=float, default=500, help="values a day and guard")
    parser.add_argument("--budget", type=float, default=50, help="false alarms a day, for all guards that are promised to keep it")
    parser.add_argument("--runs", type=int, default=200, help="for each delay")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    budget(options.days, options.copies, options.rate, options.budget, options.seed)
    delays(options.runs, options.seed)


if __name__ == "__main__":
    main()
