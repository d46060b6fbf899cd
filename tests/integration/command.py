"""The real command against real servers: a configuration file, a child process, and what it left on its topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream_monitor.config import load
from stream_monitor.io import topics as topic_setup
from tests.integration.workload import Message
from tests.support.servers import KafkaServer, RedisServer


def read_environment(more: dict[str, str]) -> dict[str, str]:
    """The environment of a child: that of the tests, and `more`."""
    return {**os.environ, **more}


COMMAND = [sys.executable, "-m", "stream_monitor"]


class Read(NamedTuple):
    """A committed record of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    time: int


class Setting:
    """A configuration whose topics, group and keys begin with `namespace`. `tables` are further lines of TOML."""

    def __init__(self, folder: Path, kafka: KafkaServer, redis: RedisServer, namespace: str, tables: str = "") -> None:
        self.kafka = kafka
        self.namespace = namespace
        self.file = folder / f"{namespace}.toml"
        names = ("predictions", "feedback", "journal", "observations", "alerts", "dead_letter", "state")
        self.topics = {name: f"{namespace}.{name}" for name in names}
        topics = "".join(f'{role} = "{name}"\n' for role, name in self.topics.items())
        self.file.write_text(
            f'[kafka]\nbootstrap_servers = "{kafka.bootstrap}"\ngroup = "{namespace}"\n'
            f'[redis]\nurl = "{redis.url}"\nkey_prefix = "{namespace}"\n[topics]\n{topics}{tables}\n'
        )

    def run(self, *arguments: str, env: dict[str, str] | None = None, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Runs a command with this configuration. One that does not come to an end says where its threads are."""
        asked = [*COMMAND, *arguments, "--config", str(self.file)]
        environment = read_environment({"PYTHONFAULTHANDLER": "1", **(env or {})})
        with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
            try:
                out, said = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                _, said = process.communicate()
                raise AssertionError(f"{' '.join(arguments)} did not end within {timeout:.0f} s:\n{said[-12_000:]}") from None
        return subprocess.CompletedProcess(asked, process.returncode, out, said)

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command with this configuration."""
        return subprocess.Popen(
            [*COMMAND, *arguments, "--config", str(self.file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=read_environment(env or {}),
        )  # fmt: skip

    def until_end(self, **environment: str) -> dict[str, Any]:
        """`run --until-end`, which must succeed; its summary."""
        done = self.run("run", "--until-end", env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout))

    def create_topics(self, partitions: tuple[int, int] = (3, 2)) -> None:
        """The input topics with different numbers of partitions; the others as the command makes them. On as many brokers as these say."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        new = [NewTopic(self.topics[name], n, -1) for name, n in zip(("predictions", "feedback"), partitions, strict=True)]
        for future in admin.create_topics(new).values():
            future.result(90)
        config = load(self.file)
        others = [topic for topic in topic_setup.wanted(config) if not topic.is_input]
        topic_setup.create(topic_setup.admin(config), others, config.topics.partitions, config.topics.replication_factor)

    def send(self, messages: Sequence[Message]) -> None:
        """Produces the messages to the input topics."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "linger.ms": 20,
                "message.max.bytes": 11_000_000,
                "queue.buffering.max.messages": 1_000_000,
                "enable.idempotence": True,
                "compression.type": "lz4",
            }
        )
        for i, (topic, key, value) in enumerate(messages):
            producer.produce(self.topics[topic], value, key)
            if i % 10_000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0

    def read(self, role: str, settled: bool = True) -> list[Read]:
        """Every committed record of a topic, partition by partition; `settled` as for `stream`."""
        return sorted(self.stream(role, settled), key=lambda one: one[:2])

    def stream(self, role: str, settled: bool = True) -> Iterator[Read]:
        """Every committed record of a topic as it comes, each partition's in order.

        `settled`: waits for open transactions, which a killed process leaves until they time out; they hide what was committed behind them.
        """
        properties = {
            "bootstrap.servers": self.kafka.bootstrap,
            "group.id": "nobody",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # so soon is it told that a partition has ended
        }
        consumer = Consumer(properties | {"isolation.level": "read_committed"})
        topic = self.topics[role]
        try:
            partitions = set(consumer.list_topics(topic, 30).topics[topic].partitions)
            ends = dict.fromkeys(partitions, 0)
            if settled:
                other = Consumer(properties | {"isolation.level": "read_uncommitted"})
                ends = {p: _end(other, TopicPartition(topic, p)) for p in partitions}
                other.close()
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
            while partitions:
                for message in consumer.consume(10_000, 0.05):  # it waits for as long, unless there are so many
                    error = message.error()
                    if error is None:
                        headers = dict(message.headers() or [])
                        time = message.timestamp()[1]
                        yield Read(message.partition(), message.offset(), message.key(), message.value(), headers, time)  # type: ignore[arg-type]
                    elif error.code() == KafkaError._PARTITION_EOF:
                        if message.offset() >= ends[message.partition()]:  # type: ignore[operator]
                            partitions.discard(message.partition())
                    else:
                        raise AssertionError(error)
        finally:
            consumer.close()


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """Where a partition ends. Of one that was created a moment ago, a broker may still say that another leads it."""
    deadline = monotonic() + 30
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, 30)[1])
        except KafkaException:
            if monotonic() > deadline:
                raise
            sleep(0.1)
