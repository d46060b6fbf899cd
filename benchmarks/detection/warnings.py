"""False warnings against their budget, and how much sooner a warning comes: `python -m benchmarks.detection.warnings` (`--seed 1`).

1. 300 streams of six families that do not change (families.py), on one ledger for 16 days of event time as in budget_held.py, with three
   times the traffic. Prints the budget for warnings that each family's streams received, the warnings, and the 95% Poisson interval of
   their ratio; beside it alarms against the alert budget, with and without warnings: they must be the same.
2. Changes after 3,000 values, 100 runs each: how many values later the alert comes, how many of the changes were warned of before, and
   how many values after the change the warning came, of those that were warned of.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.detection import budget_held
from benchmarks.detection.budget_held import Run, bounds
from benchmarks.detection.families import FAMILIES
from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.budget import Ledger
from stream_monitor.core.events import Kind, Status
from stream_monitor.core.settings import DAY, HOUR, AlertBudget, DetectSettings, MonitorSettings
from stream_monitor.core.streams import BinaryStream, NumericStream

NAMES = ("normal", "lognormal", "bits, p = 0.5", "bits, p = 0.1", "bits, p = 0.01", "normal, bursts")
ALL = ("e_detector", "adwin", "page_hinkley")
TIMES = 10  # as many warnings as alerts


def settings(budget: AlertBudget, warn: bool) -> DetectSettings:
    return DetectSettings(alert_budget=budget, warning_budget=replace(budget, alerts=TIMES * budget.alerts) if warn else None)


def held(days: int, copies: int, rate: float, alerts: float, seed: int, detectors: tuple[str, ...]) -> None:
    families = [family for family in FAMILIES if family.name in NAMES]
    budget = AlertBudget(alerts, DAY)
    found = []
    for warn in (False, True):
        budget_held.SETTINGS = settings(budget, warn)
        run = Run(families, detectors, copies, rate, budget, seed)
        warnings = [0] * len(families)
        for day in range(days):
            run.day(day)
        for f, stream in run.streams:
            warnings[f] += stream.account.warnings
        run.finish()
        found.append((run.alarms, warnings, run))
    run = found[1][2]
    print(f"{', '.join(detectors)}: {len(run.streams)} streams, {run.values:,} values, {days} days", end=" ")
    print(f"of {alerts:g} alerts and {TIMES * alerts:g} warnings")
    (without, _, _), (with_, warned, _) = found
    print(f"  alarms without warnings {sum(without)}, with them {sum(with_)}; the same in each family: {without == with_}")
    for f, family in enumerate(families):
        print(f"  {family.name:<20} {_warnings(warned[f], run.received[f])}")
    print(f"  {'all':<20} {_warnings(sum(warned), sum(run.received))}")
    print(f"  {'all':<20} {bounds(sum(run.alarms), sum(run.received))}", flush=True)


def _warnings(count: int, received: float) -> str:
    return bounds(count, TIMES * received).replace("alarms", "warnings")


CHANGES: dict[str, tuple[bool, Callable[[random.Random, int], float]]] = {
    "bits .1 to .15": (False, lambda rng, i: float(rng.random() < (0.15 if i >= 0 else 0.1))),
    "bits .1 to .2": (False, lambda rng, i: float(rng.random() < (0.2 if i >= 0 else 0.1))),
    "bits .1 to .3": (False, lambda rng, i: float(rng.random() < (0.3 if i >= 0 else 0.1))),
    "bits .1 to .2, ramp of 1,000": (False, lambda rng, i: float(rng.random() < 0.1 + 0.1 * min(max(i, 0) / 1_000, 1))),
    "mean +0.25 sd": (True, lambda rng, i: rng.gauss(0.25 * (i >= 0), 1)),
    "mean +0.5 sd": (True, lambda rng, i: rng.gauss(0.5 * (i >= 0), 1)),
    "mean +0.5 sd, ramp of 1,000": (True, lambda rng, i: rng.gauss(0.5 * min(max(i, 0) / 1_000, 1), 1)),
}


def sooner(runs: int) -> None:
    """100 streams share 1 alert and 10 warnings a week; each has a value every 20 seconds."""
    budget = AlertBudget(1.0 / 100)
    monitor = MonitorSettings()
    print(f"values after the change, {runs} runs: the alert; the warning; how much sooner; warned of")
    for name, (numeric, value) in CHANGES.items():
        alert, warning, earlier = [], [], []
        for seed in range(runs):
            rng = random.Random(f"{name} {seed}")
            desk = Desk("observations", 0, Ledger(budget.rate, HOUR))
            subject = Subject.of("m", "v", None, f"{name} {seed}", Kind.CONCEPT_DRIFT, monitor.minimum_effect, 0.5)
            stream = (NumericStream if numeric else BinaryStream)(subject, monitor.detectors, settings(budget, True), desk)
            for i in range(-3_000, 8_000):
                now = 20_000 * (i + 3_000)
                desk.move(now)
                stream.push(value(rng, i), rng.getrandbits(63), now, i + 3_000)
                if stream.episode is not None:
                    break
            fired = next((one for one in desk.out if one.status is Status.FIRING), None)
            if fired is None or fired.position.offset < 3_000:
                continue
            alert.append(fired.position.offset - 3_000)
            warned = next((one for one in desk.out if one.status is Status.WARNING and one.id == fired.id), None)
            if warned is not None:
                warning.append(warned.position.offset - 3_000)
                earlier.append(fired.position.offset - warned.position.offset)
        share = len(warning) / max(1, len(alert))
        print(
            f"  {name:<30} {np.mean(alert):6.0f} {np.mean(warning):6.0f} {np.mean(earlier):6.0f} {share:6.0%} of {len(alert)}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=16)
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--rate", type=float, default=500, help="values a day and stream")
    parser.add_argument("--budget", type=float, default=2, help="false alerts a day, for all streams")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    for detectors in (("e_detector",), ALL):
        held(options.days, options.copies, options.rate, options.budget, options.seed, detectors)
    sooner(options.runs)


if __name__ == "__main__":
    main()
