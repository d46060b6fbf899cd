"""A categorical feature as a whole: what tells a change of its shares best? `python -m benchmarks.detection.mixes`

Candidates, each with the same budget of one false alarm in 100,000 records, spent by the e-detector:

    shares       what there is beside: a stream of bits for each category, 20 at most, and one for the rest; they share the budget
    surprise     -log p of each record's category
    halves       bits: is the category in a set drawn by lot? Two sets, which share the budget
    chi-square   of the counts of N records against the reference's shares
    direction    N records, projected on the direction in which the ones before them (some 1,000, the older the less) lay (core/mixes.py)
    ... stays    the same against the shares of the first 4,000 records, not of all before

Numbers are read as normal scores of their running ranks. The reference of surprise and chi-square is the first 4,000 records, too; that of
direction runs and begins with 1,000. Shares change after 10,000 more and are watched for 10,000; what was missed counts as these. Prints a
table of mean delays in records.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, log, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream_monitor.core.alerting import Desk
from stream_monitor.core.budget import Ledger
from stream_monitor.core.detectors import EDetector
from stream_monitor.core.events import Kind, Status
from stream_monitor.core.mixes import LEAST, MEMORY, Mix, MixStream
from stream_monitor.core.reference import Ranks
from stream_monitor.core.settings import HOUR, DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room

WARMUP = 1_000
LONG = 4_000  # records of a reference that stays
WINDOWS = 5_000  # records in windows until they are judged
WATCHED = 20  # categories
BEFORE = 10_000
HORIZON = 10_000
STEP = 100  # ms between records in the monitor
BUDGET = 1e-5  # false alarms a record

Shares = NDArray[np.float64]


class Candidate(Protocol):
    size: int  # records it takes at once

    def take(self, codes: Sequence[int]) -> bool:
        """`size` records; whether it alarms."""


class Bits:
    """Some sets of categories, a stream of bits each."""

    size = 8

    def __init__(self, sets: Sequence[frozenset[int]]) -> None:
        self.sets = sets
        self.ones = [0] * len(sets)
        self.count = 0
        self.detectors = [EDetector() for _ in sets]

    def take(self, codes: Sequence[int]) -> bool:
        fired = False
        counts = [0] * (max(codes) + 1)
        for code in codes:
            counts[code] += 1
        each = BUDGET * len(codes) / len(self.sets) if self.count >= WARMUP else 0.0
        for i, members in enumerate(self.sets):
            ones = sum(counts[code] for code in members if code < len(counts))
            if self.detectors[i].take_bits(len(codes), ones, (self.ones[i] + 0.5) / (self.count + 1), each):
                self.detectors[i].reset()
                fired = True
            self.ones[i] += ones
        self.count += len(codes)
        return fired


class Numbers:
    """A number for each `size` records."""

    def __init__(self, size: int, value: Callable[[Sequence[int]], float], least: int) -> None:
        self.size = size
        self.value = value
        self.least = least  # values before it is judged
        self.ranks = Ranks()
        self.rng = random.Random(1)
        self.detector = EDetector()

    def take(self, codes: Sequence[int]) -> bool:
        z = self.ranks.learn(self.value(codes), self.rng.getrandbits(53))
        judged = self.ranks.count > self.least
        fired = judged and self.detector.take_scores(1, z, z * z, BUDGET * self.size)
        if fired:
            self.detector.reset()
        return fired


def surprise(p: Shares) -> Callable[[Sequence[int]], float]:
    told = [-log(share) for share in p]
    return lambda codes: told[codes[0]]


def chi_square(p: Shares) -> Callable[[Sequence[int]], float]:
    def value(codes: Sequence[int]) -> float:
        n = len(codes)
        counts = np.bincount(codes, minlength=p.size)
        return float(((counts - n * p) ** 2 / (n * p)).sum())

    return value


def direction(p: Shares, reference: float) -> Callable[[Sequence[int]], float]:
    """`reference`: records that `p` is known from; infinite if it stays."""
    lean, seen, stays = np.zeros(p.size), p * min(reference, 1e9), reference > LONG

    def value(codes: Sequence[int]) -> float:
        nonlocal lean, seen
        n, now = len(codes), seen / seen.sum()
        counts = np.bincount(codes, minlength=p.size)
        apart, way = counts - n * now, lean / np.maximum(now, LEAST)
        size = sqrt(n * float((now * way * way).sum()))
        told = float((apart * way).sum()) / size if size > 0 else 0.0
        lean = lean * (1 - n / MEMORY) + apart
        if not stays:
            seen = seen + counts
        return told

    return value


def candidates(p: Shares, short: Shares) -> dict[str, Candidate]:
    """`p`, `short`: the shares of the reference, and of the short one."""
    k = int(p.size)
    rng = random.Random(k)
    halves = [frozenset(rng.sample(range(k), k // 2)) for _ in range(2)]
    rest = [frozenset(range(WATCHED, k))] if k > WATCHED else []
    found: dict[str, Candidate] = {
        "shares": Bits([frozenset({i}) for i in range(min(k, WATCHED))] + rest),
        "surprise": Numbers(1, surprise(p), WARMUP),
        "halves": Bits(halves),
    }
    for n in (50, 100, 200):
        found[f"chi-square, {n}"] = Numbers(n, chi_square(p), WINDOWS // n)
    for n in (25, 50, 100):
        found[f"direction, {n}"] = Numbers(n, direction(short, WARMUP), WINDOWS // n)
    found["direction, 50, stays"] = Numbers(50, direction(p, inf), WINDOWS // 50)
    return found


def zipf(k: int) -> Shares:
    p = 1 / np.arange(2, k + 2)
    return np.asarray(p / p.sum())


def even(k: int) -> Shares:
    return np.full(k, 1 / k)


def spread(part: float) -> Callable[[Shares, np.random.Generator], Shares]:
    """Each share grows or shrinks by this part of it."""

    def change(p: Shares, rng: np.random.Generator) -> Shares:
        signs = rng.permutation(np.resize([1.0, -1.0], p.size))
        q = p * (1 + part * signs)
        return np.asarray(q / q.sum())

    return change


def swap(part: float) -> Callable[[Shares, np.random.Generator], Shares]:
    """One category loses this part of its share to another as frequent one (the next)."""

    def change(p: Shares, rng: np.random.Generator) -> Shares:
        q, i = p.copy(), int(rng.integers(1, 4))
        q[i + 1] += part * q[i]
        q[i] *= 1 - part
        return q

    return change


def grow(part: float) -> Callable[[Shares, np.random.Generator], Shares]:
    """One of the middle takes so much more, all others give it."""

    def change(p: Shares, _: np.random.Generator) -> Shares:
        q = p.copy()
        q[p.size // 2] *= 1 + part
        return np.asarray(q / q.sum())

    return change


CHANGES = {
    "spread, each by 20%": spread(0.2),
    "spread, each by 40%": spread(0.4),
    "swap of half a share": swap(0.5),
    "one grows to the double": grow(1.0),
}
MIXES = {"10 categories, 1/(n + 1)": zipf(10), "20, 1/(n + 1)": zipf(20), "20, even": even(20), "60, even": even(60)}


def run(candidate: Candidate, codes: list[int], begin: int) -> list[int]:
    """Where it alarms, from `begin` on."""
    n = candidate.size
    return [i + n for i in range(0, len(codes) - n + 1, n) if candidate.take(codes[i : i + n]) and i + n > begin]


def learned(p: Shares, rng: np.random.Generator, records: int) -> Shares:
    """As so many records see the shares."""
    counts = rng.multinomial(records, p) + 0.5
    return np.asarray(counts / counts.sum())


def delays(p: Shares, change: Callable[[Shares, np.random.Generator], Shares], runs: int, seed: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for i in range(runs):
        rng = np.random.default_rng([seed, i])
        codes = [*rng.choice(p.size, BEFORE, p=p).tolist(), *rng.choice(p.size, HORIZON, p=change(p, rng)).tolist()]
        for name, candidate in candidates(learned(p, rng, LONG), learned(p, rng, WARMUP)).items():
            alarms = run(candidate, codes, BEFORE)
            found.setdefault(name, []).append(min(alarms, default=BEFORE + HORIZON) - BEFORE)
    return found


def false_alarms(p: Shares, records: int, seed: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in range(records // 50_000):
        rng = np.random.default_rng([seed, 7, i])
        codes = rng.choice(p.size, 50_000, p=p).tolist()
        for name, candidate in candidates(learned(p, rng, LONG), learned(p, rng, WARMUP)).items():
            found[name] = found.get(name, 0) + len(run(candidate, codes, 0))
    return found


def in_the_monitor(seed: int, quantities: int = 60, records: int = 100_000) -> tuple[int, float, int]:
    """What is watched, by the default detectors on one ledger, without a change: alarms, the budget received, alerts."""
    desk = Desk("observations", 0, Ledger(20 / (records * STEP), HOUR))
    plan = Plan("model", "1", MonitorSettings(), DetectSettings(), desk, Room(quantities))
    rng = random.Random(seed)
    mixes, logs = [], []
    for i in range(quantities):
        names, steep = [f"c{j}" for j in range(rng.choice([3, 5, 10, 20, 40]))], i % 3
        logs.append(random.Random(seed * 1_000 + i).choices(names, [1 / (1 + steep * j) for j in range(len(names))], k=records))
        mixes.append(Mix(partial(plan.numeric_of, MixStream, None, f"feature:{i}", Kind.DATA_DRIFT)))
        mixes[-1].settle(Counter(logs[-1][:WARMUP]), WARMUP)
    for i in range(WARMUP, records):
        desk.move(i * STEP)
        for mix, codes in zip(mixes, logs, strict=True):
            mix.take(codes[i], rng.getrandbits(53), i * STEP, i)
    accounts = [stream.account for mix in mixes for stream in mix.streams()]
    alerts = sum(alert.status is Status.FIRING for alert in desk.out)
    return sum(one.alarms for one in accounts), sum(one.received for one in accounts), alerts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--records", type=int, default=1_000_000, help="without a change, for false alarms")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    names = list(candidates(even(4), even(4)))
    print("| mix | change |", " | ".join(names), "|")
    print("|---" * (2 + len(names)) + "|")
    for mix, p in MIXES.items():
        for name, change in CHANGES.items():
            found = delays(p, change, args.runs, args.seed)
            print(f"| {mix} | {name} |", " | ".join(f"{np.mean(found[one]):.0f}" for one in names), "|", flush=True)
        quiet = false_alarms(p, args.records, args.seed)
        print(
            f"| {mix} | none: false alarms, {BUDGET * args.records:.0f} allowed |",
            " | ".join(f"{quiet[one]}" for one in names),
            "|",
            flush=True,
        )

    alarms, received, alerts = in_the_monitor(args.seed)
    print(f"in the monitor, without a change: {alarms} alarms of {received:.1f} received; {alerts} were alerts")


if __name__ == "__main__":
    main()
