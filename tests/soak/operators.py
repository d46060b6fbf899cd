"""What somebody did to the topics, and what an operator is told about it."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence

import orjson
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from stream_monitor.core.hashing import partition_of
from tests.integration.command import Setting
from tests.integration.comparison import Expected, assert_adds_up, assert_alerts_are_the_fold, assert_is_the_plain_join, plain_join
from tests.integration.workload import ODD, Message
from tests.soak.crashes import ONCE
from tests.soak.registry import fault
from tests.soak.trial import Committed, Trial, advances, until, workload
from tests.support.servers import KafkaServer, start_kafka


def admin(setting: Setting) -> AdminClient:
    return AdminClient({"bootstrap.servers": setting.kafka.bootstrap, "log_level": 0})


def add_partitions(setting: Setting, role: str, total: int) -> None:
    client = admin(setting)  # while it is kept, its answers come
    for future in client.create_partitions([NewPartitions(setting.topics[role], total)]).values():
        future.result(90)


@fault("inputs-grow", "partitions are added to both input topics while it runs", "they are read, from their start; " + ONCE)
def inputs_grow(trial: Trial) -> None:
    setting = trial.setting('[kafka.properties]\n"topic.metadata.refresh.interval.ms" = 1000\n')
    messages = workload(trial.seed)[:40_000]
    half = len(messages) // 2
    process = trial.start(setting)
    process.until_reading()
    with trial.feed(setting, messages[:half], 5_000):
        time.sleep(half / 5_000 + 0.5)
    add_partitions(setting, "predictions", 6)
    add_partitions(setting, "feedback", 5)
    with trial.feed(setting, messages[half:], 5_000):
        time.sleep(half / 5_000 + 0.5)
    trial.recoveries.append(until(lambda: finished(setting, messages), 60, "the new partitions to be read"))
    process.stop()
    trial.settle(setting, messages)


def finished(setting: Setting, messages: Sequence[Message]) -> bool:
    with contextlib.closing(Committed(setting, "route")) as committed:
        return committed() >= len(messages)


@fault(
    "journal-grows",
    "a partition is added to the journal, and to the observations, while it runs",
    "what runs goes on rightly; the next start is refused with exit code 3 and says why",
)
def journal_grows(trial: Trial) -> None:
    for role in ("journal", "observations"):
        setting = trial.setting('[kafka.properties]\n"topic.metadata.refresh.interval.ms" = 1000\n')
        with trial.feed(setting) as feed:
            process = trial.start(setting)
            process.until_reading()
            advances(setting)
            add_partitions(setting, role, 5)
            time.sleep(4.0)
            advances(setting)
        until(lambda setting=setting: quiet(setting), 60, "all to be read")  # type: ignore[misc]
        process.stop()
        again = setting.run("run", "--until-end")
        assert again.returncode == 3, again.stderr[-2000:]
        assert "has 5 partitions, topics.partitions says 4" in again.stderr
        trial.compare(setting, feed.sent, None)


def quiet(setting: Setting) -> bool:
    """Whether detect commits nothing for two seconds."""
    counts = []
    for _ in range(2):
        with contextlib.closing(Committed(setting, "detect")) as committed:
            counts.append(committed())
        time.sleep(2.0)
    return counts[0] == counts[1]


@fault(
    "dead-letter-too-small",
    "the dead-letter topic refuses every record for a while",
    "a line names the error; it rolls back and tries again, or ends with 70 and one line, and a supervisor starts it again; "
    "nothing is skipped, and once the topic takes records, " + ONCE,
)
def dead_letter_too_small(trial: Trial) -> None:
    setting = trial.setting()

    client = admin(setting)

    def limit(size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, setting.topics["dead_letter"], incremental_configs=[entry])
        for future in client.incremental_alter_configs([resource]).values():
            future.result(90)

    with trial.under_supervision(setting) as process:
        advances(setting)
        limit(120)  # the markers of transactions fit, no dead letter does
        until(lambda: trial.said("route: transaction aborted") > 2, 60, "it to be tried again and again")
        limit(1_000_000)
        trial.recoveries.append(advances(setting, "route"))
    assert trial.said("Broker: Message size too large") > 0, process.process.said()[-3000:]
    for one in process.ended:
        said = one.said()
        assert one.child.returncode == 70, (one.child.returncode, said[-3000:])
        assert sum(line.startswith("stream-monitor: ") for line in said.splitlines()) == 1, said[-3000:]
        assert "Traceback" not in said, said[-3000:]
    trial.figures["aborts"] = trial.said("route: transaction aborted")


@fault(
    "dead-letter-denied",
    "the right to write to the dead-letter topic is taken away for 10 s",
    "it says that the right is missing and tries again, or ends and is started again; once the right is back, " + ONCE,
)
def dead_letter_denied(trial: Trial) -> None:
    authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    kafka: KafkaServer = trial.own(start_kafka(trial.brokers, authorizer_class_name=authorizer, allow_everyone_if_no_acl_found="true"))
    setting = trial.setting(kafka=kafka)
    topic = setting.topics["dead_letter"]
    deny = ("User:ANONYMOUS", "*", AclOperation.WRITE, AclPermissionType.DENY)
    with trial.under_supervision(setting) as process:
        advances(setting)
        client = admin(setting)
        for future in client.create_acls([AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *deny)]).values():
            future.result(90)
        first = process.process
        time.sleep(10.0)
        said = first.said()
        bindings = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", AclOperation.ANY, AclPermissionType.ANY
        )
        for future in client.delete_acls([bindings]).values():
            future.result(90)
        trial.recoveries.append(advances(setting, "route"))
    assert "uthoriz" in said, said[-3000:]


@fault(
    "below-retention",
    "retention deletes what was not read yet from an input topic (DeleteRecords)",
    "exit code 4, which names the gap and `stream-monitor reset`; once that accepted it, the run goes on, and nothing else is lost",
)
def below_retention(trial: Trial) -> None:
    gap(trial, 20_000)


def gap(trial: Trial, size: int) -> None:
    setting = trial.setting(partitions=(1, 1))
    messages = workload(trial.seed)[:size]
    half = size // 2
    setting.send(messages[:half])
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    setting.send(messages[half:])
    predictions = [message for message in messages if message.topic == "predictions"]
    read = sum(message.topic == "predictions" for message in messages[:half])
    low = read + half // 10
    deleted_below(setting, (setting.topics["predictions"], 0), read, low)
    lost = set(map(id, predictions[read:low]))
    trial.figures["offsets_lost"] = low - read
    trial.settle(setting, [message for message in messages if id(message) not in lost])


def deleted_below(setting: Setting, place: tuple[str, int], committed: int, low: int) -> None:
    """Retention deletes what lies below `low`: the run stops and says so, until `reset` is told to accept it."""
    client = admin(setting)  # while it is kept, its answers come
    for future in client.delete_records([TopicPartition(*place, low)]).values():
        future.result(90)
    same = {"STREAM_MONITOR__INSTANCE_ID": "a"}  # it need not wait for the session of its predecessor
    refused = setting.run("run", "--until-end", env=same)
    assert refused.returncode == 4, (refused.returncode, refused.stderr[-2000:])
    assert f"{place[0]}/{place[1]}: the committed offset is {committed}, but the topic holds {low} to" in refused.stderr, refused.stderr
    assert "stream-monitor reset" in refused.stderr
    asked = setting.run("reset")
    assert f"{place[0]}/{place[1]}: {low - committed} offsets from {committed} are gone" in asked.stdout, (
        asked.stdout,
        asked.stderr[-2000:],
    )
    assert setting.run("run", "--until-end", env=same).returncode == 4, "it was only shown, not accepted"
    accepted = setting.run("reset", "--yes")
    assert accepted.returncode == 0, (accepted.returncode, accepted.stdout, accepted.stderr[-2000:])


@fault(
    "journal-below-retention",
    "retention deletes what join has not read yet from a partition of the journal",
    "exit code 4, which names the gap and `stream-monitor reset`; once that accepted it, that bucket begins anew behind the gap; else "
    + ONCE,
)
def journal_below_retention(trial: Trial) -> None:
    gap_in_journal(trial, 60_000)


def gap_in_journal(trial: Trial, size: int) -> None:
    setting = trial.setting()
    first, second, third = thirds(workload(trial.seed)[:size])
    setting.send(first)
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    with contextlib.closing(Committed(setting, "join")) as join:
        stage(setting, "route", second)
        place, low = max(join.ends(), key=lambda one: one[1])
        committed = dict(join.offsets())[place]
    stage(setting, "route", third)
    deleted_below(setting, place, committed, low)
    summary = setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")

    def of_the_bucket(messages: Sequence[Message]) -> list[Message]:
        return [message for message in messages if bucket(message) == place[1]]

    lost = of_the_bucket(second)
    others = plain_join(message for message in (*first, *second, *third) if bucket(message) != place[1])
    before, behind = plain_join(of_the_bucket(first)), plain_join(of_the_bucket(third))
    expected = Expected(
        others.predictions + before.predictions + behind.predictions,
        others.outcomes + before.outcomes + behind.outcomes,
        others.dead,
        others.conflicts + before.conflicts + behind.conflicts,
        dict(Counter(others.counts) + Counter(behind.counts)),  # the bucket's accounting begins where it was rebuilt
    )
    assert_is_the_plain_join(setting, expected)
    assert_adds_up(summary, expected)
    trial.figures |= {"messages": size, "pairs": expected.outcomes.total(), "messages_lost": len(lost)}
    trial.figures["alerts"] = assert_alerts_are_the_fold(setting)


def thirds(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message], Sequence[Message]]:
    third = len(messages) // 3
    return messages[:third], messages[third : 2 * third], messages[2 * third :]


def stage(setting: Setting, name: str, messages: Sequence[Message] = ()) -> None:
    """Sends the messages, and has one stage read to the end."""
    setting.send(messages)
    done = setting.run("run", "--stage", name, "--until-end", env={"STREAM_MONITOR__INSTANCE_ID": "a"})
    assert done.returncode == 0, done.stderr[-4000:]


def bucket(message: Message) -> int:
    """The partition of the journal to which it belongs; -1 if it is no event."""
    if message.value is None or message.value in dict(ODD):
        return -1
    return partition_of(orjson.loads(message.value)["request_id"].encode(), 4)


@fault(
    "observations-below-retention",
    "retention deletes what detect has not read yet from a partition of the observations",
    "exit code 4, which names the gap and `stream-monitor reset`; once that accepted it, the detectors go on behind the gap as they were, "
    "without what waited for its maturity; each alert once",
)
def observations_below_retention(trial: Trial) -> None:
    gap_in_observations(trial, 60_000)


def gap_in_observations(trial: Trial, size: int) -> None:
    setting = trial.setting()
    messages = workload(trial.seed, size // 2)
    first, second, third = thirds(messages)
    setting.send(first)
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    fired = len(setting.read("alerts"))
    stage(setting, "route", second)
    stage(setting, "join")
    with contextlib.closing(Committed(setting, "detect")) as detect:
        place, low = max(detect.ends(), key=lambda one: one[1])
        committed = dict(detect.offsets())[place]
    held = setting.read("observations")
    deleted_below(setting, place, committed, low)
    setting.send(third)
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    observations = sorted({one[:2]: one for one in (*held, *setting.stream("observations"))}.values(), key=lambda one: one[:2])
    expected = plain_join(messages)
    assert_is_the_plain_join(setting, expected, observations)
    lost = range(committed, low)
    trial.figures |= {"messages": expected.messages, "pairs": expected.outcomes.total(), "offsets_lost": len(lost)}
    trial.figures["alerts"] = assert_alerts_are_the_fold(setting, observations, {place[1]: lost})
    trial.figures["alerts_before"] = fired


@fault("state-lost", "all of Redis is gone while nothing runs", "healed from the journal; " + ONCE)
def state_lost(trial: Trial) -> None:
    server = trial.redis()
    setting = trial.setting(redis=server)
    messages = workload(trial.seed)[:40_000]
    setting.send(messages[:20_000])
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    with server.client() as client:
        client.flushall()
    setting.send(messages[20_000:])
    summary = setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    trial.figures["healed"] = summary["join"]["healed"]
    assert summary["join"]["healed"] == 4
    trial.compare(setting, messages, summary)


@fault(
    "another-version",
    "the detectors' state on the state topic is of another program version; one partition's is damaged",
    "it is built from the log again, silently, and said; " + ONCE,
)
def another_version(trial: Trial) -> None:
    setting = trial.setting()
    messages = workload(trial.seed)[:40_000]
    setting.send(messages[:20_000])
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap})
    found = [record for record in setting.read("state") if record.value is not None and b"/firing/" not in (record.key or b"")]
    newest = {record.key: record for record in found}.values()
    partitions = sorted({record.partition for record in newest})  # models are few, and not every partition has one
    assert len(partitions) > 1
    for record in newest:
        damaged = record.partition == partitions[-1]
        headers = record.headers if damaged else record.headers | {"format": b"99"}
        value = (record.value or b"")[::-1] if damaged else record.value
        producer.produce(setting.topics["state"], value, record.key, record.partition, headers=list(headers.items()))
    assert producer.flush(30) == 0
    setting.send(messages[20_000:])
    done = setting.run("run", "--until-end", env={"STREAM_MONITOR__INSTANCE_ID": "a"})
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("it is of format 99, this program reads format 1; state from the log, from offset 0") == len(partitions) - 1, (
        done.stderr[-4000:]
    )
    assert done.stderr.count("it is damaged") == 1, done.stderr[-4000:]
    summary = json.loads(done.stdout)
    trial.figures["replayed"] = summary["detect"]["counters"]["replayed"]
    trial.compare(setting, messages, summary)
