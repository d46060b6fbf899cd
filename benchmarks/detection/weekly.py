"""False alarms of streams with a weekly cycle, week by week: `python -m benchmarks.detection.weekly [--weeks 8] [--rate 500]`.

As benchmarks.detection.budget_held, with the default detectors: 70 streams of each family of `WEEKLY` in families.py share a ledger, and
none of them changes but for its cycle. Nothing is promised before the cycle is known, so the alarms come by the week: of each family,
with how many streams know a weekly cycle by its end; then those from the fifth week on, against the budget received in these weeks.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.detection.budget_held import Run, bounds
from benchmarks.detection.families import FAMILIES, WEEKLY
from stream_monitor.core.cycles import WEEKLY as WEEKS
from stream_monitor.core.settings import DAY, AlertBudget, DetectSettings
from stream_monitor.core.streams import Stream

LEARNING = 4  # weeks


def _knows(stream: Stream) -> bool:
    profile = None if stream.past is None else stream.past.profile
    return profile is not None and profile.cycle is WEEKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--copies", type=int, default=70)
    parser.add_argument("--rate", type=float, default=500, help="values a day and stream")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    promised = sum(family.promised for family in FAMILIES)
    a_day = 25 * len(WEEKLY) / promised * options.copies / 70  # for each stream as much as in budget_held
    detectors = [one.name for one in DetectSettings().default.detectors]
    run = Run(WEEKLY, detectors, options.copies, options.rate, AlertBudget(a_day, DAY), options.seed)
    alarms, received, known = [], [], []
    for week in range(options.weeks):
        for day in range(7 * week, 7 * week + 7):
            run.day(day)
        families = [[stream for f, stream in run.streams if f == one] for one in range(len(WEEKLY))]
        alarms.append([sum(stream.account.alarms for stream in streams) for streams in families])
        received.append([sum(stream.account.received for stream in streams) for streams in families])
        known.append([sum(_knows(stream) for stream in streams) for streams in families])
        print(f"week {week + 1} of {options.weeks}, {run.values:,} values", file=sys.stderr)
    print(f"{len(run.streams)} streams, {run.values:,} values, {options.weeks} weeks of {7 * a_day:.1f} false alarms")
    for f, family in enumerate(WEEKLY):
        by_week = [now[f] - before[f] for before, now in zip([[0] * len(WEEKLY), *alarms[:-1]], alarms, strict=True)]
        print(f"  {family.name:<38}{by_week}, {[one[f] for one in known]} know a week")
        if options.weeks > LEARNING:
            since = alarms[-1][f] - alarms[LEARNING - 1][f], received[-1][f] - received[LEARNING - 1][f]
            print(f"  {f'  from week {LEARNING + 1} on':<38}{bounds(*since)}", flush=True)


if __name__ == "__main__":
    main()
