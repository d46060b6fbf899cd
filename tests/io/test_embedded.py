"""The servers inside the demo's process: enough of a Kafka and a Redis for the code that `run` uses."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import pytest
import redis
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from stream_monitor.errors import SetupError
from stream_monitor.io import embedded
from stream_monitor.io.embedded import EmbeddedKafka, EmbeddedRedis


def read(bootstrap: str, topic: str, partition: int, count: int) -> list[bytes | None]:
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, partition, 0)])
    try:
        values: list[bytes | None] = []
        while len(values) < count:
            message = consumer.poll(20)
            assert message is not None, f"only {len(values)} of {count} messages arrived"
            assert message.error() is None
            values.append(message.value())
        return values
    finally:
        consumer.close()


def test_a_message_goes_through_the_embedded_kafka() -> None:
    with EmbeddedKafka() as kafka:
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        producer.produce("greetings", b"hello", partition=2)
        assert producer.flush(20) == 0
        assert read(kafka.bootstrap, "greetings", 2, 1) == [b"hello"]


def test_a_transaction_with_offsets_commits_on_the_embedded_kafka() -> None:
    with EmbeddedKafka() as kafka:
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "stage"})
        consumer.subscribe(["in"])
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": "stage-0"})
        producer.list_topics("in", 20)  # the mock creates a topic when it is asked for, and knows no offsets of one it has not
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce("out", b"one", partition=0)
        producer.produce("out", b"two", partition=0)
        producer.send_offsets_to_transaction([TopicPartition("in", 0, 1)], consumer.consumer_group_metadata(), 20)
        producer.commit_transaction(20)
        consumer.close()
        assert read(kafka.bootstrap, "out", 0, 2) == [b"one", b"two"]


def test_the_embedded_kafka_has_as_many_brokers_as_asked_for() -> None:
    with EmbeddedKafka(brokers=3) as kafka:
        assert len(set(kafka.bootstrap.split(","))) == 3


def test_the_embedded_kafka_ends_with_its_context() -> None:
    with EmbeddedKafka() as kafka:
        bootstrap = kafka.bootstrap
    late = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        late.list_topics(timeout=1)


def test_the_embedded_kafka_prints_nothing() -> None:
    program = "from stream_monitor.io.embedded import EmbeddedKafka\nwith EmbeddedKafka(): pass"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_embedded_redis_runs_scripts_with_packed_arguments() -> None:
    script = b"""#!lua
    local numbers = cmsgpack.unpack(ARGV[1])
    redis.call('SET', KEYS[1], struct.pack('>I4', numbers[1] + numbers[2]))
    return redis.call('GET', KEYS[1])
    """
    with EmbeddedRedis() as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        digest = client.script_load(script)
        assert client.evalsha(digest, 1, "sum", msgpack.packb([40, 2])) == (42).to_bytes(4, "big")


def test_the_embedded_redis_evicts_nothing() -> None:
    with EmbeddedRedis() as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_embedded_redis_leaves_nothing_behind() -> None:
    with EmbeddedRedis() as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert socket.exists()
    assert not socket.parent.exists()


def test_the_embedded_redis_starts_although_temporary_files_lie_deep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with EmbeddedRedis() as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.ping()


def test_an_embedded_redis_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho out of luck\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "get_binary_path", lambda: broken)
    with pytest.raises(SetupError, match="out of luck"), EmbeddedRedis():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_embedded_redis_does_not_outlive_a_killed_process() -> None:
    program = """
import os, signal
from stream_monitor.io.embedded import EmbeddedRedis
with EmbeddedRedis() as server:
    print(server.url, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    url = killed.stdout.strip()
    assert killed.returncode == -signal.SIGKILL
    try:
        assert ends(url)
    finally:
        shutil.rmtree(Path(url.removeprefix("unix://")).parent)


def ends(url: str) -> bool:
    """Whether the Redis at `url` stops answering."""
    for _ in range(200):
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            try:
                client.ping()
            except redis.RedisError:
                return True
        time.sleep(0.05)
    return False
