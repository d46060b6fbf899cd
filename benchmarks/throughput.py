"""Messages a second of each stage and of all together, beside a pass-through: `python -m benchmarks.throughput [--predictions N]`.

On a real Kafka and a real Valkey on this machine. The pass-through reads the same topics, decodes each message and writes it to one
topic, with the same client, settings and transactions: one call of the client after the other, nothing overlapped, in a program of its own
(benchmarks/harness.py). "Looped" is the same under the stages' loop: what is left to a stage that does nothing. Each stage runs alone, in a
process of its own, over what the one before it wrote; then all three run at once, in one process and in three. Time counts from the
first record read to the last commit.

"Detect first" is three processes again, `route` and `join` started with `nice`. Whatever is worked on first, the last alert comes when
`detect`, which has one thread, has read all; so where it is the slowest, and processors are short, it should never wait for one.

The core of `detect` runs as it is installed or, after `python hatch_build.py`, compiled; which it was is said above the table.

A pass-through comes before and after each of these, and a ratio is to the mean of its two neighbours (benchmarks/ratios.py). All of it is
measured once a round, but for the default signals, which take long: in the last round only. The table has the sum over the rounds, the
mean of their ratios, and the lowest and the highest. Before the first round come warm-ups, until the pass-through gets no faster.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import platform
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import psutil

from benchmarks.harness import INPUTS, ONE_ADWIN, Job, Result, Setting, core, say
from benchmarks.ratios import COPY, Row, ratios, settled, summed
from benchmarks.workload import fill

CHOICES = ("route", "join", "detect", "all")
STAGES = CHOICES[:3]
SIGNALS: Mapping[str, Mapping[str, Any] | None] = {"one ADWIN a country": ONE_ADWIN, "default signals": None}
IN_EACH_ROUND = "one ADWIN a country"
NICE = {"route": 10, "join": 6, "detect": 0}
TARGETS = {  # of the pass-through
    "route": 0.8,
    "join": 0.4,
    "all, one ADWIN a country, 3 processes": 0.2,
    "all, one ADWIN a country, detect first": 0.2,
}
DETECT_TARGETS = {"detect, one ADWIN a country": 90_000, "detect, default signals": 20_000}  # records a second


def row(name: str, messages: int, results: Sequence[Result]) -> Row:
    """One row for processes that ran side by side."""
    seconds = max(r.last for r in results) - min(r.first for r in results)
    broker, redis = (max(r.server_s[i] for r in results) for i in range(2))
    return Row(name, messages, seconds, sum(r.cpu_s for r in results), broker, redis, max(r.machine_s for r in results))


def table(rows: Sequence[Row], of_copy: Mapping[str, Sequence[float]]) -> str:
    head = ("", "messages", "s", "messages/s", "of copy", "from-to", "own us", "broker us", "Redis us", "cores", "others")
    lines = [f"{head[0]:<38}" + "".join(f"{name:>12}" for name in head[1:])]
    for name, found in of_copy.items():
        r = summed([one for one in rows if one.name == name])
        costs = [cost / r.messages * 1e6 for cost in (r.own_s, r.broker_s, r.redis_s)]
        ours = r.own_s + r.broker_s + r.redis_s
        others = max(0.0, r.machine_s - ours) / r.seconds
        cells = (
            f"{r.messages:,}",
            f"{r.seconds:.1f}",
            f"{r.rate:,.0f}",
            f"{fmean(found):.2f}",
            f"{min(found):.2f}-{max(found):.2f}" if len(found) > 1 else "",
            *(f"{c:.1f}" for c in costs),
            f"{ours / r.seconds:.2f}",
            f"{others:.2f}",
        )
        lines.append(f"{name:<38}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


class Series:
    """Runs one after the other. `rows`: those that count, and a pass-through before and after each."""

    def __init__(self, setting: Setting, more: Mapping[str, Any]) -> None:
        self.rows: list[Row] = []
        self.setting, self._more = setting, more
        self._names = (f"run-{i}" for i in itertools.count())

    def warm_up(self, stages: Sequence[str]) -> None:
        """The broker compiles what it runs often, on cores that are measured: each kind of run for nothing, until that has settled."""
        rates: list[float] = []
        while not settled(rates):
            rates.append(self.copy().rate)
            with self.tables(ONE_ADWIN) as tables:
                for stage in stages:
                    self.run(f"warm-up of {stage}", [Job(tables, (stage,))])
        say("warm")
        self.rows = [self.copy()]

    def note(self, one: Row) -> None:
        self.rows += [one, self.copy()]

    def copy(self, name: str = COPY, kind: str = "copy") -> Row:
        tables = self.setting.tables(next(self._names), **self._more)
        self.setting.create_copy(tables)
        one = self.run(name, [Job(tables, (kind,))])
        self.setting.drop(tables)
        return one

    @contextlib.contextmanager
    def tables(self, default: Mapping[str, Any] | None = None, **topics: str) -> Iterator[dict[str, Any]]:
        """A configuration of its own; what it left is dropped in the end. `topics`: those of another that it reads."""
        tables = self.setting.tables(next(self._names), default, **self._more)
        tables["topics"].update(topics)
        self.setting.create(tables)
        yield tables
        self.setting.drop(tables)

    def run(self, name: str, jobs: Sequence[Job]) -> Row:
        """Messages are what the first stage has read."""
        results = self.setting.measure(jobs)
        one = row(name, next(iter(results[0].records.values())), results)
        say(f"{name}: {one.rate:,.0f} messages/s ({one.seconds:.1f} s; {sum(r.restarts for r in results)} restarts)")
        for r in results:
            say(f"    threads {r.thread_s}, counters {r.counters}")
        return one


def measure_stages(series: Series, stages: Sequence[str], signals: Sequence[str]) -> None:
    """A round of each stage alone, and of the looped pass-through."""
    with series.tables() as tables:
        series.note(series.run("route", [Job(tables, ("route",))]))
        series.note(series.copy("pass-through, looped", "looped copy"))
        if "join" in stages or "detect" in stages:
            series.note(series.run("join", [Job(tables, ("join",))]))
            say(f"    Redis: {series.setting.redis_info('commandstats').get('cmdstat_evalsha', {})}")
        if "detect" in stages:
            for name in signals:
                with series.tables(SIGNALS[name], observations=tables["topics"]["observations"]) as own:
                    series.note(series.run(f"detect, {name}", [Job(own, ("detect",))]))


def measure_all(series: Series, signals: Sequence[str]) -> None:
    """A round of all stages at once."""
    for name in signals:
        with series.tables(SIGNALS[name]) as tables:
            series.note(series.run(f"all, {name}, 1 process", [Job(tables, STAGES)]))
        with series.tables(SIGNALS[name]) as tables:
            series.note(series.run(f"all, {name}, 3 processes", [Job(tables, (one,), one != "route") for one in STAGES]))
        with series.tables(SIGNALS[name]) as tables:
            jobs = [Job(tables, (one,), one != "route", NICE[one]) for one in STAGES]
            series.note(series.run(f"all, {name}, detect first", jobs))


def run(count: int, rounds: int, stages: Sequence[str], run_table: Mapping[str, Any]) -> None:
    with Setting() as setting:
        series = Series(setting, {"run": run_table} if run_table else {})
        with series.tables():  # creates the input topics as well, which stay
            say(f"filling the topics: {count:,} predictions and as many labels")
            for role, size in fill(setting.bootstrap, INPUTS, count).items():
                say(f"    {role}: {size / count:.0f} bytes a message")
        series.warm_up(STAGES[: max(CHOICES.index(stage) for stage in stages) + 1])
        for i in range(rounds):
            say(f"round {i + 1} of {rounds}")
            signals = [name for name in SIGNALS if name == IN_EACH_ROUND or i == rounds - 1]
            if set(stages) - {"all"}:
                measure_stages(series, stages, signals)
            if "all" in stages:
                measure_all(series, signals)

    of_copy = ratios(series.rows)
    memory = psutil.virtual_memory().total / 2**30
    print(f"{psutil.cpu_count()} cores, {memory:.0f} GiB, shared by broker, Redis and monitor")
    print(f"Python {platform.python_version()}, core {core()}")
    print(table(series.rows, of_copy))
    for name, found in of_copy.items():
        if (share := TARGETS.get(name)) is not None:
            ratio = fmean(found)
            print(f"{name}: {ratio:.2f} of the pass-through, target {share}: {'reached' if ratio >= share else 'MISSED'}")
        if (least := DETECT_TARGETS.get(name)) is not None:
            rate = summed([one for one in series.rows if one.name == name]).rate
            print(f"{name}: {rate:,.0f} records/s, target {least:,}: {'reached' if rate >= least else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=500_000, help="and as many labels (default: 500,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all but the default signals is measured (default: 3)")
    parser.add_argument("--stages", nargs="+", choices=CHOICES, default=CHOICES, help="what to measure beside the pass-through")
    parser.add_argument("--batch", type=int, help="run.batch, the records a poll (default: the configuration's)")
    parser.add_argument("--transaction-messages", type=int, help="run.transaction_messages (default: the configuration's)")
    options = parser.parse_args()
    pace = {"batch": options.batch, "transaction_messages": options.transaction_messages}
    run(options.predictions, options.rounds, options.stages, {name: value for name, value in pace.items() if value is not None})


if __name__ == "__main__":
    main()
