"""How long a fault stops the outputs, by how much waits: `python -m benchmarks.recovery [--waiting 10000 100000 500000]`.

So many predictions wait in Redis for their labels while pairs flow through at a steady rate. Then the process is killed (kill -9) and
another one started at once under the same instance id, or Redis loses everything (FLUSHALL) and the join is rebuilt from the journal.
Counted from the fault, by what a reader of `observations` sees:

    flows again    the first pair that was sent after the fault has come out
    caught up      a pair came out again within a second of its being sent
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import orjson
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks.harness import say
from benchmarks.workload import predictions
from tests.integration.command import Setting
from tests.support.servers import RedisServer, start_kafka, start_redis

INSTANCE = {"STREAM_MONITOR__INSTANCE_ID": "a"}
RATE = 200  # pairs a second
PROMPT = 1.0  # seconds within which a pair comes out where nothing lags
MOST = 150.0  # seconds after which a fault is given up


class Seen(NamedTuple):
    """A pair: when it was sent and when it came out (monotonic seconds)."""

    sent: float
    out: float


class Pairs:
    """Sends pairs at a steady rate, and reads them where they come out."""

    def __init__(self, setting: Setting) -> None:
        self.seen: list[Seen] = []
        self._setting = setting
        self._sent: dict[str, float] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._send)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def first(self, sent_after: float, within: float = MOST) -> Seen | None:
        """The first pair out of those sent after a time that took at most so many seconds; waits for it."""
        deadline, at = time.monotonic() + MOST, 0
        while time.monotonic() < deadline:
            for one in self.seen[at:]:
                if one.sent > sent_after and one.out - one.sent <= within:
                    return one
                at += 1
            time.sleep(0.02)
        return None

    def _send(self) -> None:
        producer = Producer({"bootstrap.servers": self._setting.kafka.bootstrap, "linger.ms": 5})
        began, n = time.monotonic(), 0
        while not self._stop.wait(0.01):
            while n < (time.monotonic() - began) * RATE:
                name, now = f"pair-{n}", time.time_ns() // 1_000_000
                self._sent[name] = time.monotonic()
                event = {"request_id": name, "model": "m", "model_version": "1", "timestamp": now, "prediction": "yes"}
                producer.produce(self._setting.topics["predictions"], orjson.dumps(event), name)
                label = {"request_id": name, "label": "yes", "timestamp": now}
                producer.produce(self._setting.topics["feedback"], orjson.dumps(label), name)
                n += 1
            producer.poll(0)
        producer.flush(30)

    def _read(self) -> None:
        consumer = Consumer(
            {"bootstrap.servers": self._setting.kafka.bootstrap, "group.id": "nobody", "isolation.level": "read_committed"}
            | {"enable.auto.commit": False, "fetch.wait.max.ms": 20}
        )
        topic = self._setting.topics["observations"]
        consumer.assign([TopicPartition(topic, p, OFFSET_END) for p in consumer.list_topics(topic, 30).topics[topic].partitions])
        while not self._stop.is_set():
            for message in consumer.consume(1000, 0.02):
                if message.error() is None and (value := message.value() or b"").startswith(b'{"record":"outcome"'):
                    name = orjson.loads(value)["prediction"]["request_id"]
                    self.seen.append(Seen(self._sent[name], time.monotonic()))
        consumer.close()


@contextlib.contextmanager
def running(setting: Setting) -> Iterator[list[subprocess.Popen[str]]]:
    """`run` in a process, which may be replaced by another one."""
    held = [setting.start("run", env=INSTANCE)]
    try:
        yield held
    finally:
        held[0].kill()
        held[0].communicate()


def measure(setting: Setting, redis: RedisServer, waiting: int) -> None:
    setting.create_topics((4, 4))
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for key, value in predictions(waiting, time.time_ns() // 1_000_000 - 10 * waiting):
        producer.produce(setting.topics["predictions"], value, key)
        producer.poll(0)
    producer.flush(120)
    say(f"{waiting:,} predictions are sent, and read")
    setting.until_end(**INSTANCE)
    with redis.client() as client, running(setting) as process, Pairs(setting) as pairs:
        memory = client.info("memory")["used_memory"] / 2**20
        for fault in ("kill -9", "FLUSHALL"):
            assert pairs.first(time.monotonic(), PROMPT), "no pair comes out in time"
            time.sleep(3.0)
            began = time.monotonic()
            if fault == "FLUSHALL":
                client.flushall()
            else:
                process[0].kill()
                process[0].communicate()
                process[0] = setting.start("run", env=INSTANCE)
            flows, prompt = pairs.first(began), pairs.first(began, PROMPT)
            seconds = [f"{one.out - began:.1f}" if one else f"not in {MOST:.0f}" for one in (flows, prompt)]
            print(f"| {waiting:,} | {memory:.0f} | {fault} | {seconds[0]} | {seconds[1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, nargs="+", default=[10_000, 100_000, 500_000], help="predictions that wait")
    options = parser.parse_args()
    say("starting Kafka")
    with start_kafka(long_lived=True) as kafka, tempfile.TemporaryDirectory() as folder:
        print("| waiting | Redis, MiB | fault | flows again, s | caught up, s |\n|---|---|---|---|---|", flush=True)
        for waiting in options.waiting:
            with start_redis() as redis:
                measure(Setting(Path(folder), kafka, redis, f"recovery-{waiting}"), redis, waiting)


if __name__ == "__main__":
    main()
