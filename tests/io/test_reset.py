"""`reset` moves offsets once a group is empty: it waits for members whose process has ended, and names those that live."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream_monitor.errors import SetupError
from stream_monitor.io.reset import Gap, accept, until_empty
from tests.support.servers import KafkaServer

SESSION_MS = 1_000


@pytest.fixture
def properties(kafka: KafkaServer, namespace: str) -> dict[str, Any]:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})  # while it is kept, its answers come
    client.create_topics([NewTopic(namespace, 1, 1)])[namespace].result(30)
    return {"bootstrap.servers": kafka.bootstrap, "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 300}


@contextmanager
def member(properties: dict[str, Any], group: str, **more: str) -> Iterator[Consumer]:
    """A process of the group, until it ends in order."""
    names = {name.replace("_", "."): value for name, value in more.items()}
    consumer = Consumer({**properties, "group.id": group, "enable.auto.commit": False, "log_level": 0} | names)
    consumer.subscribe([group])
    while not consumer.assignment():
        consumer.poll(0.05)
    yield consumer
    consumer.close()


def committed(properties: dict[str, Any], group: str) -> int:
    consumer = Consumer({**properties, "group.id": group})
    try:
        [found] = consumer.committed([TopicPartition(group, 0)], 30)
        return int(found.offset)
    finally:
        consumer.close()


def gap(group: str) -> Gap:
    return Gap(group, group, 0, 900, 0, 0)


def test_offsets_of_an_empty_group_are_moved_at_once(properties: dict[str, Any], namespace: str) -> None:
    said: list[str] = []
    with member(properties, namespace):
        pass
    accept(properties, [gap(namespace)], said.append)
    assert committed(properties, namespace) == 0
    assert said == []


def test_a_member_with_an_instance_id_never_leaves_and_is_waited_for_until_its_session_ends(
    properties: dict[str, Any], namespace: str
) -> None:
    said: list[str] = []
    with member(properties, namespace, group_instance_id="a-route"):
        pass
    accept(properties, [gap(namespace)], said.append)
    assert committed(properties, namespace) == 0
    [line] = said
    assert f"waiting for the members of {namespace} to end: a-route on 127.0.0.1" in line
    assert "6 s at most" in line


def test_members_that_live_are_named_and_nothing_is_moved(properties: dict[str, Any], namespace: str) -> None:
    with member(properties, namespace, group_instance_id="a-route"), pytest.raises(SetupError, match=r"live: a-route on 127") as refused:
        accept(properties, [gap(namespace)], lambda _: None, margin=0.5)
    assert "stop every process of this group" in str(refused.value)
    assert committed(properties, namespace) < 0


def test_a_member_that_is_stopped_while_reset_waits_is_enough(properties: dict[str, Any], namespace: str) -> None:
    with member(properties, namespace, client_id="somebody") as consumer:
        began = time.monotonic()
        said: list[str] = []
        threading.Timer(0.5, consumer.unsubscribe).start()  # leaves the group
        until_empty(properties, [namespace], said.append, margin=30)
        assert time.monotonic() - began < 20
    assert f"{namespace} to end: somebody on 127.0.0.1" in said[0]
