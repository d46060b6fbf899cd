"""Delay and missed changes at an equal rate of false alarms: `python -m benchmarks.detection.delay [--runs 150]` (seed 1).

Ours and river's detectors. Each gets its threshold from its own simulated run length: one false alarm in 100,000 values of the stream
without a change (`calibrate`). Then each sees 3,000 such values and a change. The delay is the number of values up to the first
alarm after it; an alarm before it begins the detector anew. A change that is not seen within the horizon counts as the horizon; a
blip that is not seen while it lasts, or in 200 values more, is missed.

The e-detector is told only its budget, 1/100,000 a value; p runs (3,000 values before the change, as for all others).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift
from river.drift import binary

from benchmarks.detection.kswin import P_VALUES, Kswin
from stream_monitor.core.detectors.adwin import Adwin
from stream_monitor.core.detectors.e_detector import EDetector
from stream_monitor.core.detectors.page_hinkley import PageHinkley
from stream_monitor.core.reference import Ranks, binary_score

LENGTH = 100_000
BEFORE = 3_000
HORIZON = 5_000
BLIP = 600
Array = NDArray[np.float64]
Watch = Callable[[float], bool]
HDDM_A: Any = binary.HDDMA  # these have no types
HDDM_W: Any = binary.HDDMW
FHDDM: Any = binary.FHDDM


@dataclass(frozen=True)
class Cell:
    """A change: `after(rng, n)` are the values that follow it."""

    name: str
    bits: float | None  # share of ones before; None: N(0, 1)
    after: Callable[[np.random.Generator, int], Array]
    horizon: int = HORIZON


def _bits(p: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: (rng.random(n) < p).astype(float)


def _normal(mean: float, sd: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: rng.normal(mean, sd, n)


def _bit_ramp(p: float, over: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: (rng.random(n) < 0.1 + (p - 0.1) * np.minimum(1, np.arange(n) / over)).astype(float)


def _ramp(mean: float, over: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: rng.standard_normal(n) + mean * np.minimum(1, np.arange(n) / over)


def _blip(then: Callable[[np.random.Generator, int], Array], back: Callable[[np.random.Generator, int], Array]) -> Any:
    return lambda rng, n: np.concatenate((then(rng, BLIP), back(rng, n - BLIP)))


CELLS = (
    *(Cell(f"bits .1 to {p:g}", 0.1, _bits(p)) for p in (0.15, 0.2, 0.3)),
    Cell("bits .01 to .03", 0.01, _bits(0.03)),
    Cell("bits .1 to .2, ramp of 1,000", 0.1, _bit_ramp(0.2, 1_000)),
    Cell("bits .1 to .2, blip of 600", 0.1, _blip(_bits(0.2), _bits(0.1)), BLIP + 200),
    *(Cell(f"mean +{d:g} sd", None, _normal(d, 1)) for d in (0.25, 0.5, 1)),
    Cell("sd x 1.5", None, _normal(0, 1.5)),
    Cell("mean +0.5 sd, ramp of 1,000", None, _ramp(0.5, 1_000)),
    Cell("mean +0.5 sd, blip of 600", None, _blip(_normal(0.5, 1), _normal(0, 1)), BLIP + 200),
)


class _Standardised:
    """What a monitor does to values before a detector reads scores; V from a generator of its own."""

    def __init__(self, bits: bool, seed: int) -> None:
        self._uniform = np.random.default_rng(seed).integers(0, 2**53, 200_000).tolist()
        self._at = 0
        self._ranks = None if bits else Ranks()
        self._count = self._total = 0.0

    def score(self, x: float) -> float:
        self._at = at = (self._at + 1) % len(self._uniform)
        v = self._uniform[at] | 1
        if self._ranks is not None:
            return self._ranks.learn(x, v)
        z = binary_score(x, self._count, self._total, v)
        self._count += 1
        self._total += x
        return z


class _E:
    """The e-detector with the budget of its run length; the share of ones runs, as in core/streams.py."""

    def __init__(self, bits: bool, seed: int, budget: float) -> None:
        self._e, self._c, self._bits = EDetector(), budget, bits
        self._standard = _Standardised(bits, seed)
        self._count = self._total = self._sum = self._squares = self._held = 0.0

    def watch(self, x: float) -> bool:
        e = self._e
        self._held += 1
        if self._bits:
            self._sum += x
        else:
            z = self._standard.score(x)
            self._sum += z
            self._squares += z * z
        if self._held < e.due:
            return False
        held, total, squares = int(self._held), self._sum, self._squares
        self._held = self._sum = self._squares = 0.0
        if not self._bits:
            fired = e.take_scores(held, total, squares, held * self._c)
        else:
            fired = e.take_bits(held, int(total), (self._total + 0.5) / (self._count + 1), held * self._c)
            self._count += held
            self._total += total
        if fired:
            e.reset()
        return fired


def _of_e(knob: float) -> Callable[[bool, int], Watch]:
    return lambda bits, seed: _E(bits, seed, knob).watch


def _of_ours(make: Callable[[], Any]) -> Callable[[bool, int], Watch]:
    def build(bits: bool, seed: int) -> Watch:
        detector = make()
        standard = _Standardised(bits, seed)
        reads_score = detector.reads == "score" or not bits

        def watch(x: float) -> bool:
            fired = bool(detector.update(standard.score(x) if reads_score else x))
            if fired:
                detector.reset()
            return fired

        return watch

    return build


def _of_river(make: Callable[[], Any]) -> Callable[[bool, int], Watch]:
    def build(_bits: bool, _seed: int) -> Watch:
        detector = make()

        def watch(x: float) -> bool:
            detector.update(x)
            return bool(detector.drift_detected)

        return watch

    return build


def _of_hits(make: Callable[[], Any]) -> Callable[[bool, int], Watch]:
    """Of a detector that looks for fewer ones, such as right answers."""

    def build(bits: bool, seed: int) -> Watch:
        watch = _of_river(make)(bits, seed)
        return lambda x: watch(1 - x)

    return build


def _kswin(knob: float) -> Callable[[bool, int], Watch]:
    """The knob is the distance in thirtieths from which it alarms: thresholds between two of them are the same one."""
    alpha = (*P_VALUES, 0.0)[int(knob)]
    return lambda bits, _seed: Kswin(alpha, 1, bits).update


@dataclass(frozen=True)
class Rival:
    """A detector with one knob, from lenient (low) to strict (high), which is halved so many times."""

    name: str
    build: Callable[[float], Callable[[bool, int], Watch]]
    low: float
    high: float
    kinds: str = "both"  # or "bits"
    halvings: int = 9


def _adwin(knob: float) -> Callable[[bool, int], Watch]:
    return _of_ours(lambda: Adwin(exp(-knob)))


RIVALS = (
    Rival("ADWIN", _adwin, log(2.1), log(1e5)),
    Rival("Page-Hinkley, .25", lambda k: _of_ours(lambda: PageHinkley(threshold=k)), 3, 60),
    Rival("Page-Hinkley, .1", lambda k: _of_ours(lambda: PageHinkley(delta=0.1, threshold=k)), 5, 90),
    Rival("river PageHinkley", lambda k: _of_river(lambda: drift.PageHinkley(threshold=k)), 5, 400),
    Rival("DDM", lambda k: _of_river(lambda: binary.DDM(drift_threshold=k)), 2, 12, "bits"),
    Rival("EDDM", lambda k: _of_river(lambda: binary.EDDM(beta=exp(-k))), 0.01, 3, "bits"),
    Rival("HDDM_A", lambda k: _of_river(lambda: HDDM_A(drift_confidence=exp(-k))), 1, 25, "bits"),
    Rival("HDDM_W", lambda k: _of_river(lambda: HDDM_W(drift_confidence=exp(-k))), 1, 40, "bits"),
    Rival("FHDDM", lambda k: _of_hits(lambda: FHDDM(confidence_level=exp(-k))), 1, 60, "bits"),
    Rival("KSWIN", _kswin, 0, 32, halvings=5),
)


def false_alarms(build: Callable[[bool, int], Watch], bits: float | None, values: int, seed: int) -> int:
    """In streams of 20,000 values, each begun anew."""
    rng = np.random.default_rng(seed)
    found = 0
    for i in range(values // 20_000):
        watch = build(bits is not None, seed + i)
        drawn = rng.standard_normal(20_000) if bits is None else (rng.random(20_000) < bits).astype(float)
        for x in drawn.tolist():
            found += watch(x)
    return found


def calibrate(rival: Rival, bits: float | None, values: int) -> tuple[float, int]:
    """The knob with one false alarm in 100,000 values, by bisection on one set of values, and what it gives on another."""
    low, high = rival.low, rival.high
    for _ in range(rival.halvings):
        middle = (low + high) / 2
        if false_alarms(rival.build(middle), bits, values, 1_000) > values / LENGTH:
            low = middle
        else:
            high = middle
    return high, false_alarms(rival.build(high), bits, values, 500_000)


def delays(build: Callable[[bool, int], Watch], cell: Cell, runs: int) -> tuple[float, float]:
    """(mean delay, share that was missed)."""
    rng = np.random.default_rng(77)
    total = missed = 0.0
    for run in range(runs):
        watch = build(cell.bits is not None, 9_000_000 + run)
        first = rng.standard_normal(BEFORE) if cell.bits is None else (rng.random(BEFORE) < cell.bits).astype(float)
        for x in first.tolist():
            watch(x)
        after = cell.after(rng, cell.horizon).tolist()
        at = next((i for i, x in enumerate(after) if watch(x)), None)
        missed += at is None
        total += cell.horizon if at is None else at + 1
    return total / runs, missed / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=150)
    parser.add_argument("--values", type=float, default=5e5, help="for each step of the calibration")
    parser.add_argument("--only", default="", help="rivals whose name contains this")
    options = parser.parse_args()
    table: dict[str, dict[str, tuple[float, float]]] = {cell.name: {} for cell in CELLS}
    started = monotonic()
    for bits in (0.1, 0.01, None):
        law = "N(0, 1)" if bits is None else f"bits, p = {bits}"
        contenders: list[tuple[str, Callable[[bool, int], Watch]]] = []
        if options.only in "e-detector":
            found = false_alarms(_of_e(1 / LENGTH), bits, int(options.values), 500_000)
            print(f"{law:<14} {'e-detector':<20} budget 1/{LENGTH:,}: {found} false alarms in {options.values:,.0f} values", flush=True)
            contenders.append(("e-detector", _of_e(1 / LENGTH)))
        for rival in RIVALS:
            if options.only not in rival.name or (rival.kinds == "bits" and bits is None):
                continue
            knob, found = calibrate(rival, bits, int(options.values))
            print(f"{law:<14} {rival.name:<20} knob {knob:.4g}: {found} false alarms in {options.values:,.0f} values", flush=True)
            contenders.append((rival.name, rival.build(knob)))
        for cell in CELLS:
            if cell.bits != bits:
                continue
            for name, build in contenders:
                table[cell.name][name] = delays(build, cell, options.runs)
            said = ", ".join(f"{name} {_shown(result)}" for name, result in table[cell.name].items())
            print(f"{cell.name}: {said}", flush=True)
            print(f"{cell.name}: {monotonic() - started:.0f} s", file=sys.stderr)
    print(f"\n| change | e-detector | {' | '.join(rival.name for rival in RIVALS)} |")
    print(f"|{'---|' * (len(RIVALS) + 2)}")
    ratios = []
    for change, row in table.items():
        shown = [_shown(row.get(name)) for name in ("e-detector", *(r.name for r in RIVALS))]
        print(f"| {change} | {' | '.join(shown)} |")
        rivals = [mean for name, (mean, _) in row.items() if name != "e-detector"]
        if rivals and "e-detector" in row:
            ratios.append((row["e-detector"][0] / min(rivals), change))
    if ratios:
        print(f"\nagainst the best rival of each cell: worst {max(ratios)[0]:.2f} ({max(ratios)[1]}), ", end="")
        print(
            f"geometric mean {exp(sum(log(ratio) for ratio, _ in ratios) / len(ratios)):.2f};"
            f" standard error of a delay about {1 / sqrt(options.runs):.0%} at most"
        )


def _shown(result: tuple[float, float] | None) -> str:
    return "" if result is None else f"{result[0]:.0f}" + (f" ({result[1]:.0%})" if result[1] else "")


if __name__ == "__main__":
    main()
