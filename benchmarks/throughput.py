"""Messages a second of each stage and of all together, beside a pass-through: `python -m benchmarks.throughput [--predictions N]`.

On a real Kafka and a real Valkey on this machine. The pass-through reads the same topics, decodes each message and writes it to one
topic, with the same client, settings and transactions: one call of the client after the other, nothing overlapped, in a program of its own
(benchmarks/harness.py). "Looped" is the same under the stages' loop: what is left to a stage that does nothing. Each stage runs alone, in a
process of its own, over what the one before it wrote; then all three run at once, in one process and in three. Time counts from the
first record read to the last commit.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from benchmarks.harness import INPUTS, ONE_ADWIN, Job, Result, Setting, say
from benchmarks.workload import fill

CHOICES = ("route", "join", "detect", "all")
TARGETS = {"route": 0.8, "join": 0.4, "all, one ADWIN a country, 3 processes": 0.2}  # of the pass-through
DETECT_TARGETS = {"detect, one ADWIN a country": 90_000, "detect, default signals": 20_000}  # records a second


class Row(NamedTuple):
    """One line of the table: `messages` in `seconds`, and the processors' seconds that went into them."""

    name: str
    messages: int
    seconds: float
    own_s: float
    broker_s: float
    redis_s: float
    machine_s: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def row(name: str, messages: int, results: Sequence[Result]) -> Row:
    """One row for processes that ran side by side."""
    seconds = max(r.last for r in results) - min(r.first for r in results)
    broker, redis = (max(r.server_s[i] for r in results) for i in range(2))
    return Row(name, messages, seconds, sum(r.cpu_s for r in results), broker, redis, max(r.machine_s for r in results))


def table(rows: Sequence[Row], base: float) -> str:
    head = ("", "messages", "s", "messages/s", "of copy", "own us", "broker us", "Redis us", "cores", "others")
    lines = [f"{head[0]:<38}" + "".join(f"{name:>12}" for name in head[1:])]
    for r in rows:
        costs = [cost / r.messages * 1e6 for cost in (r.own_s, r.broker_s, r.redis_s)]
        ours = r.own_s + r.broker_s + r.redis_s
        others = max(0.0, r.machine_s - ours) / r.seconds
        cells = (
            f"{r.messages:,}",
            f"{r.seconds:.1f}",
            f"{r.rate:,.0f}",
            f"{r.rate / base:.2f}",
            *(f"{c:.1f}" for c in costs),
            f"{ours / r.seconds:.2f}",
            f"{others:.2f}",
        )
        lines.append(f"{r.name:<38}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def run(count: int, stages: Sequence[str], run_table: dict[str, Any]) -> None:
    rows: list[Row] = []
    more = {"run": run_table} if run_table else {}

    def note(one: Row, results: Sequence[Result]) -> None:
        rows.append(one)
        restarts = sum(r.restarts for r in results)
        say(f"{one.name}: {one.rate:,.0f} messages/s ({one.seconds:.1f} s; {restarts} restarts)")
        for r in results:
            say(f"    threads {r.thread_s}, counters {r.counters}")

    with Setting() as setting:
        first = setting.tables("first", **more)
        setting.create(first)
        say(f"filling the topics: {count:,} predictions and as many labels")
        for role, size in fill(setting.bootstrap, INPUTS, count).items():
            say(f"    {role}: {size / count:.0f} bytes a message")

        def copy(name: str, kind: str = "copy") -> None:
            setting.create_copy(name)
            results = setting.measure([Job(setting.tables(name, **more), (kind,))])
            note(row("pass-through" if kind == "copy" else "pass-through, looped", 2 * count, results), results)

        # The broker compiles what it runs often, for seconds and on cores that are measured: each kind of run twice, for nothing.
        last = min(2, max(CHOICES.index(stage) for stage in stages))
        for name in ("warm-up", "warm-up-again"):
            copy(name)
            warm_up = setting.tables(name, ONE_ADWIN, **more)
            setting.create(warm_up)
            for stage in CHOICES[: last + 1]:
                setting.measure([Job(warm_up, (stage,))])
            setting.drop(warm_up)
        rows.clear()
        copy("copy-1")  # and again between the stages: the machine is not as fast at all times, and the ratios are to their mean
        if set(stages) - {"all"}:
            results = setting.measure([Job(first, ("route",))])
            note(row("route", results[0].records["route"], results), results)
            copy("looped", "looped copy")
            copy("copy-2")
        if "join" in stages or "detect" in stages:
            results = setting.measure([Job(first, ("join",))])
            note(row("join", results[0].records["join"], results), results)
            info = setting.redis_info("commandstats").get("cmdstat_evalsha", {})
            say(f"    Redis: {info}")
            copy("copy-3")
        if "detect" in stages:
            for name, default in (("one ADWIN a country", ONE_ADWIN), ("default signals", None)):
                tables = setting.tables(f"detect-{name.replace(' ', '-')}", default, **more)
                tables["topics"]["observations"] = first["topics"]["observations"]
                setting.create(tables)
                results = setting.measure([Job(tables, ("detect",))])
                note(row(f"detect, {name}", results[0].records["detect"], results), results)
        setting.drop(first)
        if "all" in stages:
            for name, default in (("one ADWIN a country", ONE_ADWIN), ("default signals", None)):
                for processes in (1, 3):
                    tables = setting.tables(f"all-{processes}-{name.replace(' ', '-')}", default, **more)
                    setting.create(tables)
                    names = CHOICES[:3]
                    jobs = [Job(tables, names)] if processes == 1 else [Job(tables, (one,), one != "route") for one in names]
                    results = setting.measure(jobs)
                    note(row(f"all, {name}, {processes} process{'es' * (processes > 1)}", 2 * count, results), results)
                    setting.drop(tables)
        copy("copy-4")

    copies = [r.rate for r in rows if r.name == "pass-through"]
    base = sum(copies) / len(copies)
    memory = psutil.virtual_memory().total / 2**30
    print(f"{psutil.cpu_count()} cores, {memory:.0f} GiB, shared by broker, Redis and monitor; Python {platform.python_version()}")
    print(table(rows, base))
    for r in rows:
        if (share := TARGETS.get(r.name)) is not None:
            print(f"{r.name}: {r.rate / base:.2f} of the pass-through, target {share}: {'reached' if r.rate >= share * base else 'MISSED'}")
        if (least := DETECT_TARGETS.get(r.name)) is not None:
            print(f"{r.name}: {r.rate:,.0f} records/s, target {least:,}: {'reached' if r.rate >= least else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=500_000, help="and as many labels (default: 500,000)")
    parser.add_argument("--stages", nargs="+", choices=CHOICES, default=CHOICES, help="what to measure beside the pass-through")
    parser.add_argument("--batch", type=int, help="run.batch, the records a poll (default: the configuration's)")
    parser.add_argument("--transaction-messages", type=int, help="run.transaction_messages (default: the configuration's)")
    options = parser.parse_args()
    pace = {"batch": options.batch, "transaction_messages": options.transaction_messages}
    run(options.predictions, options.stages, {name: value for name, value in pace.items() if value is not None})


if __name__ == "__main__":
    main()
