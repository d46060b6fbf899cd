"""The real command on a real Kafka: detect goes on from its newest snapshot, and no restart shows in the alerts."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from stream_monitor.core.snapshots import Snapshot, StateRecord, alerts, assemble, chunks, cut
from tests.integration.command import Setting
from tests.integration.workload import Message, Workload, make
from tests.support.servers import KafkaServer, RedisServer

TABLES = """
[kafka.consumer]
"session.timeout.ms" = 1000
"heartbeat.interval.ms" = 300
[kafka.producer]
"transaction.timeout.ms" = 5000
[run]
batch = 300
transaction_messages = 300
[detect]
snapshot_interval = "500ms"
"""


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make(20_000, seed=13, large=False)


@pytest.fixture
def setting(kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, workload: Workload) -> Setting:
    """A configuration whose topics exist."""
    made = Setting(tmp_path, kafka, redis_server, namespace, TABLES)
    made.create_topics()
    return made


def observe(setting: Setting, messages: Sequence[Message]) -> None:
    """Makes observations of them."""
    setting.send(messages)
    for stage in ("route", "join"):
        run_stage(setting, stage, env={"STREAM_MONITOR__RUN__BATCH": "5000", "STREAM_MONITOR__RUN__TRANSACTION_MESSAGES": "20000"})


def run_stage(setting: Setting, stage: str, env: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """What a stage did until it had read all that was there, and what it said."""
    done = setting.run("run", "--stage", stage, "--until-end", env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)[stage], done.stderr


def published(setting: Setting) -> dict[bytes | None, list[Any]]:
    """The alerts of each model, in their order."""
    found: dict[bytes | None, list[Any]] = defaultdict(list)
    for record in setting.read("alerts"):
        found[record.key].append((record.value, record.headers))
    return found


def undisturbed(setting: Setting, folder: Path, redis_server: RedisServer, tables: str = "") -> dict[bytes | None, list[Any]]:
    """The alerts that the same observations give in one run."""
    other = Setting(folder, setting.kafka, redis_server, f"{setting.namespace}-whole", tables)
    other.create_topics()
    other.file.write_text(other.file.read_text().replace(other.topics["observations"], setting.topics["observations"]))
    run_stage(other, "detect")
    return published(other)


def state(setting: Setting) -> dict[int, list[StateRecord]]:
    """What the state topic holds, by partition."""
    found: dict[int, list[StateRecord]] = defaultdict(list)
    for record in setting.read("state", settled=False):
        found[record.partition].append(StateRecord(record.key or b"", record.value, list(record.headers.items())))
    return found


def snapshots(setting: Setting) -> dict[int, int]:
    """The offset of each partition's newest snapshot."""
    found = {p: assemble((setting.topics["observations"], p), records) for p, records in state(setting).items()}
    return {partition: snapshot.offset for partition, snapshot in found.items() if snapshot is not None}


def sizes(setting: Setting) -> dict[int, int]:
    """How many observations there are, by partition."""
    found: dict[int, int] = defaultdict(int)
    for record in setting.read("observations"):
        found[record.partition] += 1
    return found


def test_killed_again_and_again_detect_goes_on_from_a_snapshot_and_its_alerts_are_those_of_an_undisturbed_run(
    setting: Setting, redis_server: RedisServer, tmp_path: Path, workload: Workload
) -> None:
    slowly = {"STREAM_MONITOR__RUN__BATCH": "40", "STREAM_MONITOR__RUN__TRANSACTION_MESSAGES": "40"}
    observe(setting, workload.messages)
    for _ in range(3):
        before = snapshots(setting)
        process = setting.start("run", "--stage", "detect", env=slowly)
        deadline = time.monotonic() + 90
        while snapshots(setting) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
        process.communicate()
    total = sum(sizes(setting).values())
    left = snapshots(setting)
    assert left
    summary, said = run_stage(setting, "detect")
    lines = re.findall(r"/(\d): state from the snapshot of offset (\d+)", said)
    began = {int(partition): int(offset) for partition, offset in lines}
    assert began.keys() == left.keys()
    assert all(began[partition] >= offset for partition, offset in left.items())
    counters = summary["counters"]
    assert counters.get("observations", 0) < total, "not from the start; nothing, where the last kill came after the last record"
    assert counters.get("replayed", 0) < total / 4
    expected = undisturbed(setting, tmp_path, redis_server)
    assert expected
    assert published(setting) == expected


def test_a_signal_leaves_a_snapshot_of_the_end_and_the_next_start_replays_nothing(setting: Setting, workload: Workload) -> None:
    observe(setting, workload.messages)
    process = setting.start("run", "--stage", "detect", env={"STREAM_MONITOR__DETECT__SNAPSHOT_INTERVAL": "1h"})
    deadline = time.monotonic() + 90
    while not setting.read("alerts"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    left = snapshots(setting)
    assert left == {partition: offset for partition, offset in committed(setting).items() if offset > 0}
    summary, said = run_stage(setting, "detect")
    assert "there is no snapshot" not in said
    assert summary["counters"].get("replayed", 0) == 0


def committed(setting: Setting) -> dict[int, int]:
    """The offsets of the detect group."""
    consumer = Consumer({"bootstrap.servers": setting.kafka.bootstrap, "group.id": f"{setting.namespace}-detect"})
    try:
        places = [TopicPartition(setting.topics["observations"], p) for p in range(4)]
        return {place.partition: place.offset for place in consumer.committed(places, 30)}
    finally:
        consumer.close()


def test_under_other_settings_what_fires_is_carried_over_and_nothing_is_fired_twice(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, workload: Workload
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    setting.create_topics()
    end = int(len(workload.messages) * 0.9)
    setting.send(workload.messages[:end])
    setting.until_end()
    fired = {alert["id"] for alert in bodies(setting)}
    firing = fired - {alert["id"] for alert in bodies(setting) if alert["status"] == "resolved"}
    assert firing
    assert open_ids(setting) == firing
    setting.send(workload.messages[end:])
    done = setting.run("run", "--until-end", env={"STREAM_MONITOR__DETECT__DEFAULT__MINIMUM_EFFECT": "1e9"})
    assert done.returncode == 0, done.stderr[-4000:]
    assert "was made under other settings" in done.stderr
    after = bodies(setting)
    assert len({alert["event_id"] for alert in after}) == len(after)
    assert {alert["id"] for alert in after} == fired
    assert {alert["id"] for alert in after if alert["details"].get("reason") == "rebuilt"} == firing
    assert open_ids(setting) == set()


def bodies(setting: Setting) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in setting.read("alerts")]


def open_ids(setting: Setting) -> set[str]:
    """The alerts that fire, by the state topic."""
    found = [alerts((setting.topics["observations"], p), records)[0] for p, records in sorted(state(setting).items())]
    return {alert.id for one in found for alert in one}


def test_reset_drops_a_snapshot_that_lies_beyond_what_the_topic_holds(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    setting.create_topics()
    observations = setting.topics["observations"]
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for partition in (0, 1):
        for record in cut((observations, partition), Snapshot(400 - 400 * partition, "d", {})):
            producer.produce(setting.topics["state"], record.value, record.key, partition, headers=record.headers)  # type: ignore[arg-type]
    producer.flush(30)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{namespace}-detect"})
    consumer.commit(offsets=[TopicPartition(observations, p, 500) for p in (0, 1)], asynchronous=False)
    consumer.close()
    done = setting.run("reset", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{observations}/0: the snapshot of offset 400 lies beyond it; it is dropped" in done.stdout
    assert f"{observations}/1: the snapshot" not in done.stdout
    assert committed(setting) == {0: 0, 1: 0, 2: -1001, 3: -1001}
    assert chunks((observations, 0), state(setting)[0]) == 0
    assert chunks((observations, 1), state(setting)[1]) == 1
