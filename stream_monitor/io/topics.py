"""What the topics must look like: said once, for `topics create`, `check` and the start of `run`.

The number of partitions of `journal` and `observations` is fixed for their life, because request ids and models are placed by it;
so the configuration states it and a topic that has another number is refused. Both need the broker's append time: an event time
from the past would be deleted by retention, and the join's one clock is the log's. `state` is compacted, and has a partition for each of
`observations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from stream_monitor.config import Config
from stream_monitor.errors import SetupError

_TIMEOUT = 10.0  # seconds for an answer of the brokers
_DAY = 86_400_000
_SEGMENT = 64 * 1024 * 1024  # of the state topic: only closed segments are compacted, and the default of 1 GiB is many snapshots


class Topic(NamedTuple):
    """A topic as it must be. `partitions` None: any number; `properties`: as it is created."""

    role: str
    name: str
    partitions: int | None
    properties: Mapping[str, str]

    @property
    def is_input(self) -> bool:
        return self.role in ("predictions", "feedback")


class Problem(NamedTuple):
    """Something that has to be changed, and how."""

    what: str
    hint: str


def wanted(config: Config) -> list[Topic]:
    """Every topic, in the order in which data flows."""
    t = config.topics
    log = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": str(config.max_message_bytes)}
    compacted = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(config.max_message_bytes),
        "segment.bytes": str(max(_SEGMENT, 2 * config.max_message_bytes)),
        "min.cleanable.dirty.ratio": "0.1",
    }
    common = dict(t.properties)
    return [
        Topic("predictions", t.predictions, None, common),
        Topic("feedback", t.feedback, None, common),
        Topic("dead_letter", t.dead_letter, None, {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY)} | common),
        Topic("journal", t.journal, t.partitions, log | {"retention.ms": str(t.journal_retention)} | common),
        Topic("observations", t.observations, t.partitions, log | {"retention.ms": str(t.observations_retention)} | common),
        Topic("alerts", t.alerts, None, {"cleanup.policy": "delete", "retention.ms": str(90 * _DAY)} | common),
        Topic("state", t.state, t.partitions, compacted | common),
    ]


def admin(config: Config, quiet: bool = True) -> AdminClient:
    """A client for questions to the brokers; it complains by its answers, not on the terminal."""
    return AdminClient(config.kafka_client() | ({"log_level": 0} if quiet else {}))


def create(client: AdminClient, topics: Sequence[Topic], partitions: int, replication: int) -> list[str]:
    """Creates those that do not exist yet; answers their names. Raises SetupError naming every one that could not be made."""
    existing = _existing(client)
    new = [
        NewTopic(topic.name, topic.partitions or partitions, replication, config=dict(topic.properties))
        for topic in topics
        if topic.name not in existing
    ]
    created, failed = [], []
    for name, future in client.create_topics(new, operation_timeout=_TIMEOUT).items() if new else ():
        try:
            future.result(_TIMEOUT)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
                failed.append(f"topic {name} could not be created: {error.args[0].str()}")
    if failed:
        raise SetupError("\n".join(failed), "create them by hand as `stream-monitor check` asks, or grant this client CREATE")
    return created


def problems(client: AdminClient, topics: Sequence[Topic], rebuild_ms: int) -> list[Problem]:
    """What is wrong with the topics. `rebuild_ms`: how much of the journal a rebuild of the join must find.

    Raises SetupError if no broker answers.
    """
    existing = _existing(client)
    found = []
    for topic in topics:
        if topic.name not in existing:
            flag = " --inputs" if topic.is_input else ""
            found.append(Problem(f"topic {topic.name} ({topic.role}) does not exist", f"stream-monitor topics create{flag}"))
    there = [topic for topic in topics if topic.name in existing]
    described = _describe(client, there)
    for topic in there:
        found += _judge(topic, len(existing[topic.name].partitions), described[topic.name], rebuild_ms)
    return found


def _judge(topic: Topic, partitions: int, properties: Mapping[str, str], rebuild_ms: int) -> list[Problem]:
    name = f"topic {topic.name} ({topic.role})"
    found = []
    if topic.role == "state":
        found += _judge_state(topic, name, partitions, properties)
    elif topic.partitions is not None and partitions != topic.partitions:
        found.append(
            Problem(
                f"{name} has {partitions} partitions, topics.partitions says {topic.partitions}",
                "request ids and models are placed by this number: set topics.partitions to what the topic was created with, or give"
                " a new topic's name after draining the old one",
            )
        )
    if topic.role != "state" and "compact" in properties["cleanup.policy"]:
        found.append(_change(topic, name, "cleanup.policy", properties, "delete", "compaction deletes records of equal keys"))
    if topic.role in ("journal", "observations"):
        if properties["message.timestamp.type"] != "LogAppendTime":
            why = "the join's clock is the append time, and retention must not go by event time"
            found.append(_change(topic, name, "message.timestamp.type", properties, "LogAppendTime", why))
        needed = int(topic.properties["max.message.bytes"])
        if int(properties["max.message.bytes"]) < needed:
            found.append(_change(topic, name, "max.message.bytes", properties, str(needed), "an outcome carries two events"))
    if topic.role == "journal":
        retention, size = int(properties["retention.ms"]), int(properties["retention.bytes"])
        if 0 <= retention < rebuild_ms:
            why = "what Redis forgets is rebuilt from the journal: twice window + slack, plus the longest outage to survive"
            found.append(_change(topic, name, "retention.ms", properties, topic.properties["retention.ms"], why))
        if size >= 0:
            found.append(_change(topic, name, "retention.bytes", properties, "-1", "a busy day would shorten the window"))
    return found


def _judge_state(topic: Topic, name: str, partitions: int, properties: Mapping[str, str]) -> list[Problem]:
    found = []
    if topic.partitions is not None and partitions < topic.partitions:
        found.append(
            Problem(
                f"{name} has {partitions} partitions, {topic.partitions} are needed: one for each of the observations",
                f"kafka-topics.sh --alter --topic {topic.name} --partitions {topic.partitions}",
            )
        )
    if properties["cleanup.policy"] != "compact":
        found.append(_change(topic, name, "cleanup.policy", properties, "compact", "snapshots would be deleted by age, or pile up"))
    needed = int(topic.properties["max.message.bytes"])
    if int(properties["max.message.bytes"]) < needed:
        found.append(_change(topic, name, "max.message.bytes", properties, str(needed), "a chunk of a snapshot would not fit"))
    return found


def _change(topic: Topic, name: str, key: str, properties: Mapping[str, str], to: str, why: str) -> Problem:
    command = f"kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} --add-config {key}={to}"
    return Problem(f"{name} has {key}={properties[key]}; {key}={to} is needed: {why}", command)


def _existing(client: AdminClient) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.list_topics(timeout=_TIMEOUT).topics
    except KafkaException as error:
        raise SetupError(
            f"no Kafka broker answers: {error.args[0].str()}", "check kafka.bootstrap_servers, the network and kafka.properties"
        ) from error
    return {name: topic for name, topic in found.items() if topic.error is None}


def _describe(client: AdminClient, topics: Sequence[Topic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    if not resources:
        return {}
    try:
        futures = client.describe_configs(resources, request_timeout=_TIMEOUT)
        return {
            resource.name: {key: str(entry.value) for key, entry in future.result(_TIMEOUT).items()} for resource, future in futures.items()
        }
    except KafkaException as error:
        raise SetupError(
            f"the topics' configuration cannot be read: {error.args[0].str()}", "grant this client DESCRIBE_CONFIGS on its topics"
        ) from error
