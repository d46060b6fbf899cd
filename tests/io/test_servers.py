"""The servers for the tests are real, come back with their data, and say clearly what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support import kafka as kafka_support
from tests.support.redis import redis_binary
from tests.support.servers import (
    KafkaServer,
    RedisServer,
    ServerError,
    free_port,
    shared_kafka,
    shared_redis,
    start_kafka,
    start_redis,
    start_redis_cluster,
)


def create(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)


def transact(bootstrap: str, topic: str, *values: bytes, commit: bool = True) -> None:
    settings = {"bootstrap.servers": bootstrap, "transactional.id": f"{topic}-writer", "log_level": 0}
    producer = Producer(settings)
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.flush(60)
    if commit:
        producer.commit_transaction(60)
    else:
        producer.abort_transaction(60)


def committed(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    """The first `count` committed values."""
    settings = {"bootstrap.servers": bootstrap, "group.id": f"{topic}-reader", "log_level": 0}
    settings |= {"isolation.level": "read_committed", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    try:
        values: list[bytes | None] = []
        while len(values) < count:
            message = consumer.poll(60)
            assert message is not None, f"only {values} of {count} messages arrived"
            assert message.error() is None, message.error()
            values.append(message.value())
        return values
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaServer]:
    """A broker that these tests may kill."""
    with start_kafka() as server:
        yield server


def test_readers_of_committed_data_do_not_see_an_aborted_transaction(kafka: KafkaServer, namespace: str) -> None:
    create(kafka.bootstrap, namespace)
    transact(kafka.bootstrap, namespace, b"aborted", commit=False)
    transact(kafka.bootstrap, namespace, b"one", b"two")
    assert committed(kafka.bootstrap, namespace, 2) == [b"one", b"two"]


def test_a_killed_broker_comes_back_with_what_was_committed(own_kafka: KafkaServer, namespace: str) -> None:
    create(own_kafka.bootstrap, namespace)
    transact(own_kafka.bootstrap, namespace, b"kept")
    own_kafka.kill()
    assert not own_kafka.node().running
    own_kafka.restart()
    assert committed(own_kafka.bootstrap, namespace, 1) == [b"kept"]


def test_a_paused_broker_goes_on_where_it_was(own_kafka: KafkaServer, namespace: str) -> None:
    create(own_kafka.bootstrap, namespace)
    producer = Producer({"bootstrap.servers": own_kafka.bootstrap, "log_level": 0})
    own_kafka.pause()
    producer.produce(namespace, b"waiting")
    assert producer.flush(1) == 1
    own_kafka.resume()
    assert producer.flush(60) == 0
    assert committed(own_kafka.bootstrap, namespace, 1) == [b"waiting"]


def test_three_brokers_go_on_without_one_of_them(namespace: str) -> None:
    with start_kafka(brokers=3) as kafka:
        create(kafka.bootstrap, namespace, replicas=3)
        kafka.kill(0)
        transact(kafka.bootstrap, namespace, b"still here")
        kafka.restart(0)
        assert committed(kafka.bootstrap, namespace, 1) == [b"still here"]


def test_a_broker_that_ends_while_starting_shows_its_log() -> None:
    with pytest.raises(ServerError, match=r"(?s)ended while starting.*no\.such\.class"):
        start_kafka(metric_reporters="no.such.class")


def test_without_docker_and_java_the_error_names_every_way_to_give_a_kafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(kafka_support, "java", kafka_support.java.__wrapped__)  # what was found before does not count
    with pytest.raises(ServerError, match=r"STREAM_MONITOR_TEST_KAFKA.*Docker.*Java 17 and Maven.*no java"):
        start_kafka()


def test_the_environment_names_the_shared_kafka(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_MONITOR_TEST_KAFKA", kafka.bootstrap)
    with shared_kafka() as given:
        assert given.bootstrap == kafka.bootstrap
        with pytest.raises(ServerError, match="start_kafka"):
            given.kill()


def test_the_environment_names_the_shared_redis(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_MONITOR_TEST_REDIS", redis_server.url)
    with shared_redis() as given:
        assert given.url == redis_server.url
        with pytest.raises(ServerError, match="start_redis"):
            given.kill()


def test_the_environment_names_the_program_of_the_redis_that_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started, program = tmp_path / "started", tmp_path / "server"
    program.write_text(f'#!/bin/sh\ntouch {started}\nexec {redis_binary()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("STREAM_MONITOR_TEST_REDIS_SERVER", str(program))
    with start_redis() as server, server.client() as client:
        assert client.ping()
    assert started.exists()


def test_redis_refuses_to_evict_and_forgets_everything_when_killed() -> None:
    with start_redis() as server, server.client() as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.restart()
        assert client.get("key") is None


def test_redis_with_an_append_only_file_keeps_what_it_has_acknowledged() -> None:
    with start_redis(appendonly="yes", appendfsync="always") as server, server.client() as client:
        client.set("key", "value")
        server.kill()
        server.restart()
        assert client.get("key") == b"value"


def test_a_paused_redis_accepts_connections_and_does_not_answer() -> None:
    with start_redis() as server:
        server.pause()
        hasty = redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None)
        with contextlib.closing(hasty), pytest.raises(redis.TimeoutError):
            hasty.ping()
        server.resume()
        with server.client() as client:
            assert client.ping()


def test_a_redis_replica_follows_its_primary() -> None:
    with (
        start_redis() as primary,
        start_redis(replicaof=f"127.0.0.1 {primary.port}") as replica,
        primary.client() as writer,
        replica.client() as reader,
    ):
        writer.set("key", "value")
        assert writer.wait(1, 20_000) == 1
        assert reader.get("key") == b"value"
        with pytest.raises(redis.ReadOnlyError):
            reader.set("key", "other")


def test_a_redis_cluster_serves_every_slot() -> None:
    servers = start_redis_cluster(3)
    try:
        client = redis.RedisCluster.from_url(servers[0].url)
        for i in range(100):
            client.set(f"key-{i}", i)
        assert [client.get(f"key-{i}") for i in range(100)] == [b"%d" % i for i in range(100)]
        assert len(client.get_primaries()) == 3  # type: ignore[no-untyped-call]
        client.close()
    finally:
        for server in servers:
            server.close()


def test_a_redis_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(ServerError, match=r"(?s)did not start.*no-such-directive"):
        start_redis(no_such_directive="1")


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100
