"""What the guarantees cost: `python -m benchmarks.guarantees [--predictions N]`. The same job with some of them off, as a share of one run.

    all on                    as it is
    without the outbox        Redis does not note what it answered: after an abort or a crash pairs would be lost or doubled
    without transactions      outputs are flushed, then the offsets committed by the consumer: at least once, doubled by any crash
    without both
    without both, acks=1      the leader's word is enough, no idempotence: a retry may double, a lost leader may lose

What is off is taken out of the program from here; none of it can be configured. `join` alone runs over one journal again and again, all
three stages in one process over the input topics. Each is measured twice, in two rounds, of which the table has both: the difference
between them is what the machine did.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

from confluent_kafka import Producer, TopicPartition

import stream_monitor.io.redis
import stream_monitor.run
from benchmarks.harness import INPUTS, ONE_ADWIN, Job, Setting, say
from benchmarks.ratios import Row
from benchmarks.throughput import row
from benchmarks.workload import fill
from stream_monitor.config import Config
from stream_monitor.io.kafka import KafkaSource, on_a_thread, producer_properties
from stream_monitor.ports import Out, Place
from stream_monitor.run import Run

_mine = threading.local()  # a stage's source and sink are made by its own thread


class _Source(KafkaSource):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _mine.consumer = self._consumer


class PlainSink:
    """A sink without transactions: what a commit makes sure of is that the outputs are there before the offsets are."""

    acks: ClassVar[Mapping[str, Any]] = {"enable.idempotence": True, "acks": "all"}

    def __init__(self, properties: Mapping[str, Any], _: str, log: Callable[[str], None]) -> None:
        settings = {**producer_properties(properties), **self.acks, "error_cb": lambda e: log(f"kafka: {e}")}
        del settings["transaction.timeout.ms"]
        self._producer = Producer(settings)
        self._consumer = _mine.consumer

    def start(self) -> None: ...

    def produce(self, records: Iterable[Out]) -> None:
        for topic, partition, key, value, headers in records:
            while True:
                try:
                    self._producer.produce(topic, value, key, partition, headers=headers)  # type: ignore[arg-type]  # None as well
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self._producer.poll(0)

    patience = 30.0

    def commit(self, offsets: Mapping[Place, int], _: Any) -> Future[None]:
        return on_a_thread(partial(self._commit, offsets))

    def _commit(self, offsets: Mapping[Place, int]) -> None:
        self._producer.flush()
        self._consumer.commit(offsets=[TopicPartition(*place, offset) for place, offset in offsets.items()], asynchronous=False)

    def abort(self, seconds: float = 0.0) -> None: ...
    def close(self) -> None: ...


class _CarelessSink(PlainSink):
    acks: ClassVar[Mapping[str, Any]] = {"enable.idempotence": False, "acks": "1"}


def _without_outbox() -> None:
    """Takes out of the script what writes and trims the outbox."""
    script = stream_monitor.io.redis.SCRIPT
    for line in script.splitlines():
        if b"'XADD'" in line or b"'XTRIM'" in line:
            script = script.replace(line, b"")
    assert script.count(b"XADD") + script.count(b"XTRIM") == 0
    stream_monitor.io.redis.SCRIPT = script


class _Less(Run):
    outbox = True
    sink: type[PlainSink] | None = None

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        if not self.outbox:
            _without_outbox()
        if self.sink is not None:
            replaced: Any = stream_monitor.run
            replaced.KafkaSource, replaced.KafkaSink = _Source, self.sink
        super().__init__(config, *args, **kwargs)


class WithoutOutbox(_Less):
    outbox = False


class WithoutTransactions(_Less):
    sink = PlainSink


class WithoutBoth(WithoutTransactions):
    outbox = False


class Careless(WithoutBoth):
    sink = _CarelessSink


KINDS: dict[str, type[Run]] = {
    "all on": Run,
    "without the outbox": WithoutOutbox,
    "without transactions": WithoutTransactions,
    "without both": WithoutBoth,
    "without both, acks=1": Careless,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=150_000, help="and as many labels (default: 150,000)")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    count, rounds = options.predictions, range(options.rounds)
    rates: dict[tuple[str, str], list[Row]] = {}
    with Setting() as setting:
        first = setting.tables("first", ONE_ADWIN)
        setting.create(first)
        say(f"filling the topics: {count:,} predictions and as many labels")
        fill(setting.bootstrap, INPUTS, count)
        setting.measure([Job(first, ("route",))])  # makes the journal, and warms the broker up
        for i in rounds:
            for kind, made in KINDS.items():
                for what, stages in (("join", ("join",)), ("all three", ("route", "join", "detect"))):
                    tables = setting.tables(f"{what}-{i}-{kind}".replace(" ", "-").replace(",", "").replace("=", ""), ONE_ADWIN)
                    if what == "join":
                        tables["topics"]["journal"] = first["topics"]["journal"]
                    setting.create(tables)
                    results = setting.measure([Job(tables, stages, made=made)])
                    one = row(kind, 2 * count, results)
                    rates.setdefault((what, kind), []).append(one)
                    say(f"{what}, {kind}: {one.rate:,.0f} messages/s, {sum(r.restarts for r in results)} restarts")
                    setting.drop(tables)
    print(table(rates))


def table(rates: Mapping[tuple[str, str], Sequence[Row]]) -> str:
    """Messages a second of each round, their mean as a multiple of that of the whole, and the processors' microseconds a message."""
    lines = [
        "| | | messages/s, by round | of all on | own, us | broker, us | Redis, us | CPU, of all on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (what, kind), rows in rates.items():
        rate, whole = (sum(r.rate for r in one) for one in (rows, rates[what, "all on"]))
        spent, base = costs(rows), costs(rates[what, "all on"])
        shown = " | ".join(f"{cost:.1f}" for cost in spent)
        by_round = ", ".join(f"{r.rate:,.0f}" for r in rows)
        lines.append(f"| {what} | {kind} | {by_round} | {rate / whole:.2f} | {shown} | {sum(spent) / sum(base):.2f} |")
    return "\n".join(lines)


def costs(rows: Sequence[Row]) -> list[float]:
    """Microseconds a message of the process, the broker and Redis: what they say holds on a machine that others use too."""
    messages = sum(r.messages for r in rows)
    return [1e6 * sum(seconds) / messages for seconds in zip(*((r.own_s, r.broker_s, r.redis_s) for r in rows), strict=True)]


if __name__ == "__main__":
    main()
