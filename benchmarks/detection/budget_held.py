"""False alarms against the budget: `python -m benchmarks.detection.budget_held [--detectors e_detector,adwin] [--days 16]` (`--seed 1`).

Streams of every family in families.py, 70 of each, share one ledger for 16 days of event time, as the streams of a partition do in
core/monitor.py. All values go through core/streams.py, and none of the streams changes, so every alarm is a false one. Families for which
nothing is promised (their values depend on each other, or their level moves) share a ledger of their own, and so do scores and categories.
Those go through core/categories.py: 6 features with 12 streams of shares each, or 70 as a whole, which have four times as many values, as
100 of them are one value of their stream. Prints for each family the budget that its streams received, the alarms, and the 95% Poisson
interval of their ratio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from benchmarks.detection.families import FAMILIES, MORE, Family
from stream_monitor.core.alerting import Desk, Subject
from stream_monitor.core.budget import Ledger
from stream_monitor.core.categories import Shares
from stream_monitor.core.events import Kind
from stream_monitor.core.mixes import Mix, MixStream
from stream_monitor.core.settings import DAY, HOUR, AlertBudget, DetectorSettings, DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream

SETTINGS = DetectSettings()


class Source(NamedTuple):
    """Where the values of a copy of a family go, and the streams that they become."""

    push: Callable[[float, int, int, int], object]
    streams: Callable[[], Iterable[Stream]]


class Run:
    """The streams of some families on one ledger."""

    def __init__(
        self, families: Sequence[Family], detectors: Sequence[str], copies: int, rate: float, budget: AlertBudget, seed: int
    ) -> None:
        self.families = families
        self.detectors = tuple(DetectorSettings(name) for name in detectors)
        self.rate = rate
        self.ledger = Ledger(budget.rate, HOUR)
        self.desk = Desk("observations", 0, self.ledger)
        self.rng = np.random.default_rng(seed)
        self.made = 1_000_000 * seed  # names, and with them the V of ranks, differ by seed
        self.sources = [(f, self._new(family)) for f, family in enumerate(families) for _ in range(-(-copies // family.streams))]
        self.received = [0.0] * len(families)
        self.alarms = [0] * len(families)
        self.dependent = [0] * len(families)
        self.cyclic = [0] * len(families)
        self.values = 0
        self.look = 0

    @property
    def streams(self) -> list[tuple[int, Stream]]:
        """Each with the number of its family."""
        return [(f, stream) for f, source in self.sources for stream in source.streams()]

    def _new(self, family: Family) -> Source:
        self.made += 1
        name = str(self.made)
        if family.of is None:
            stream = (BinaryStream if family.binary else NumericStream)(*self._parts(name))
            return Source(stream.push, lambda: (stream,))

        def share(category: str) -> BinaryStream | None:
            return BinaryStream(*self._parts(f"{name}={category}")) if family.of == "shares" else None

        mix = Mix(lambda: MixStream(*self._parts(name))) if family.of == "whole" else None
        shares = Shares(share, frozenset((float,)), SETTINGS, self.ledger, lambda: None, mix=mix)
        return Source(shares.take, shares.streams)

    def _parts(self, metric: str) -> tuple[Subject, tuple[DetectorSettings, ...], DetectSettings, Desk]:
        return Subject.of("m", "v", None, metric, Kind.DATA_DRIFT, 0.0, 1.0), self.detectors, SETTINGS, self.desk

    def day(self, day: int) -> None:
        common = self.rng.standard_normal(1_000_003)
        times, values, owners = [], [], []
        for i, (f, source) in enumerate(self.sources):
            family = self.families[f]
            if family.comes_and_goes and day % 26 == 25:  # evicted; a new one takes its place
                for stream in source.streams():
                    self._close(f, stream)
                self.sources[i] = f, self._new(family)
            when = family.times(self.rng, day, self.rate)
            times.append(when)
            values.append(family.values(self.rng, when, common))
            owners.append(np.full(when.size, i))
        when, what, who = (np.concatenate(parts) for parts in (times, values, owners))
        order = np.argsort(when, kind="stable")
        bits = self.rng.integers(0, 2**63, order.size).tolist()
        push = [source.push for _, source in self.sources]
        for i, x, time, unit in zip(
            who[order].tolist(), what[order].tolist(), (when[order] * 1000).astype(int).tolist(), bits, strict=True
        ):
            self.desk.move(time)
            if time >= self.look:
                self.look = time + HOUR
                level = self.ledger.look()
                for _, stream in self.streams:
                    if stream.judged and stream.account.paid < level:
                        stream.rest()
            push[i](x, unit, time, self.values)
            self.values += 1
        self.desk.out.clear()

    def finish(self) -> None:
        for f, stream in self.streams:
            self._close(f, stream)

    def _close(self, f: int, stream: Stream) -> None:
        stream.account.close()
        self.received[f] += stream.account.received
        self.alarms[f] += stream.account.alarms
        self.dependent[f] += stream.past is not None and stream.past.rho > 0
        self.cyclic[f] += stream.past is not None and stream.past.profile is not None


def bounds(alarms: int, budget: float) -> str:
    low = chi2.ppf(0.025, 2 * alarms) / 2 if alarms else 0.0
    high = chi2.ppf(0.975, 2 * alarms + 2) / 2
    return f"{alarms:6} alarms of {budget:7.2f}  {alarms / budget:6.2f} [{low / budget:.2f}, {high / budget:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detectors", action="append", default=[], help="names with commas; once for each run")
    parser.add_argument("--days", type=int, default=16)
    parser.add_argument("--copies", type=int, default=70)
    parser.add_argument("--rate", type=float, default=500, help="values a day and stream")
    parser.add_argument("--budget", type=float, default=25, help="false alarms a day, for all streams that are promised to keep it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", default="", help="only families with this in their name")
    parser.add_argument("--ledger", action="append", default=[], choices=("promised", "others", "scores"), help="only these streams")
    options = parser.parse_args()
    promised = [family for family in FAMILIES if family.promised]
    ledgers = {"promised": promised, "others": [family for family in FAMILIES if not family.promised], "scores": list(MORE)}
    for names in options.detectors or ["e_detector", "adwin", "page_hinkley", "e_detector,adwin,page_hinkley"]:
        for ledger in options.ledger or ledgers:
            families = [family for family in ledgers[ledger] if options.family in family.name]
            if not families:
                continue
            budget = AlertBudget(options.budget * len(families) / len(promised), DAY)
            run = Run(families, names.split(","), options.copies, options.rate, budget, options.seed)
            started = monotonic()
            for day in range(options.days):
                run.day(day)
                if sys.stderr.isatty() or day % 10 == 9:
                    print(
                        f"{names}: day {day + 1} of {options.days}, {run.values:,} values, {monotonic() - started:.0f} s", file=sys.stderr
                    )
            run.finish()
            print(f"{names}: {len(run.streams):,} streams, {run.values:,} values, {options.days} days of {budget.alerts:.2f} false alarms")
            for f, family in enumerate(families):
                note = f", {run.dependent[f]} of them found dependent" if run.dependent[f] else ""
                note += f", {run.cyclic[f]} with a cycle" if run.cyclic[f] else ""
                print(f"  {family.name:<32}{bounds(run.alarms[f], run.received[f])}{note}", flush=True)
            print(f"  {'all':<32}{bounds(sum(run.alarms), sum(run.received))}", flush=True)


if __name__ == "__main__":
    main()
