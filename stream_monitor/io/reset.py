"""Moves offsets that lie outside what a topic still holds, and drops snapshots beyond them: decisions that only an operator takes.

`find` and `beyond` say what would be done, `drop` and `accept` do it. Nothing else in stream monitor skips records.

Offsets of a group can be moved while it has no member. One that has just ended may still be one: a member with an instance id never leaves,
so that its successor finds its partitions waiting, and one that was killed could not. Both are members until their session ends.
`until_empty` waits for that long, and then calls those that are left alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, MemberDescription

from stream_monitor.core import snapshots
from stream_monitor.errors import SetupError
from stream_monitor.io.kafka import reader_properties, records_below
from stream_monitor.ports import Place

_TIMEOUT = 30.0
_SESSION_MS = 45_000  # the client's default for session.timeout.ms
_MARGIN = 5.0  # seconds beyond the session for which a group may take to become empty
_OCCUPIED = frozenset((KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS))


class Gap(NamedTuple):
    """A committed offset outside [low, high): reading would go on at `to`."""

    group: str
    topic: str
    partition: int
    committed: int
    low: int
    high: int

    @property
    def to(self) -> int:
        return self.low

    def __str__(self) -> str:
        place = f"{self.group}: {self.topic}/{self.partition}"
        if self.committed < self.low:
            return f"{place}: {self.low - self.committed} offsets from {self.committed} are gone; reading goes on at {self.low}"
        return f"{place}: {self.committed} was committed but the topic ends at {self.high} (a new topic?); reading starts at {self.low}"


class Beyond(NamedTuple):
    """A snapshot of a partition of observations that stands for more than reading goes on with; `offset` None: it can not be read."""

    observations: Place
    state: Place
    offset: int | None
    chunks: int

    def __str__(self) -> str:
        what = "cannot be read" if self.offset is None else f"of offset {self.offset} lies beyond it"
        return f"{self.observations[0]}/{self.observations[1]}: the snapshot {what}; it is dropped, detect replays what the topic holds"


def find(properties: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> list[Gap]:
    """The gaps of each group in its topics."""
    gaps = []
    for group, topics in groups.items():
        consumer = _consumer(properties, group)
        try:
            found = consumer.list_topics(timeout=_TIMEOUT).topics
            places = [TopicPartition(topic, p) for topic in topics if topic in found for p in found[topic].partitions]
            for place in consumer.committed(places, _TIMEOUT):
                low, high = consumer.get_watermark_offsets(place, _TIMEOUT)
                if place.offset >= 0 and not low <= place.offset <= high:
                    gaps.append(Gap(group, place.topic, place.partition, place.offset, low, high))
        except KafkaException as error:
            raise SetupError(f"the offsets of {group} cannot be read: {error.args[0].str()}", "see stream-monitor check") from error
        finally:
            consumer.close()
    return gaps


def beyond(properties: Mapping[str, Any], state: str, gaps: Sequence[Gap]) -> list[Beyond]:
    """The snapshots on the state topic that lie beyond where detect would go on after these gaps in observations.

    What it holds for firing stays: where it does not fire in the state that is built anew, detect resolves it.
    """
    found = []
    reader = Consumer(reader_properties(properties, "reset"))
    try:
        for gap in gaps:
            place, home = (gap.topic, gap.partition), (state, gap.partition)
            low, high = reader.get_watermark_offsets(TopicPartition(*home), _TIMEOUT)
            reader.assign([TopicPartition(*home, low)])
            records = records_below(reader, home, high) if low < high else []
            try:
                snapshot = snapshots.assemble(place, records)
                offset = None if snapshot is None else snapshot.offset
                keep = snapshot is None or snapshot.offset <= gap.to
            except ValueError:
                offset, keep = None, False
            if not keep:
                found.append(Beyond(place, home, offset, snapshots.chunks(place, records)))
    except KafkaException as error:
        raise SetupError(f"the snapshots on {state} cannot be read: {error.args[0].str()}", "see stream-monitor check") from error
    finally:
        reader.close()
    return found


def drop(properties: Mapping[str, Any], stale: Sequence[Beyond]) -> None:
    """Takes snapshots off the state topic. Before `accept`: without a gap nobody would find them again."""
    if not stale:
        return
    producer = Producer({**properties, "enable.idempotence": True, "acks": "all", "log_level": 0})
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Any) -> None:
        if error is not None:
            failures.append(error)

    for place, home, _, chunks in stale:
        for i in range(chunks):
            producer.produce(home[0], None, snapshots.key_of(place, i), home[1], on_delivery=delivered)
    if producer.flush(_TIMEOUT) or failures:
        why = failures[0].str() if failures else "no answer"
        raise SetupError(f"the snapshots on {stale[0].state[0]} could not be dropped: {why}", "see stream-monitor check")


def accept(properties: Mapping[str, Any], gaps: Sequence[Gap], say: Callable[[str], None], margin: float = _MARGIN) -> None:
    """Commits where reading goes on, as soon as each group is empty. Raises SetupError where one does not become so."""
    for group in sorted({gap.group for gap in gaps}):
        consumer = _consumer(properties, group)
        offsets = [TopicPartition(g.topic, g.partition, g.to) for g in gaps if g.group == group]
        deadline = time.monotonic() + _session(properties) + margin
        try:
            while True:
                until_empty(properties, [group], say, margin)
                try:
                    consumer.commit(offsets=offsets, asynchronous=False)
                    break
                except KafkaException as error:  # occupied: somebody has come since
                    if error.args[0].code() not in _OCCUPIED or time.monotonic() > deadline:
                        raise SetupError(f"the offsets of {group} cannot be moved: {error.args[0].str()}", _STOP) from error
                time.sleep(0.2)
        finally:
            consumer.close()


def until_empty(properties: Mapping[str, Any], groups: Iterable[str], say: Callable[[str], None], margin: float = _MARGIN) -> None:
    """Waits until no group has a member any more, a session and `margin` seconds at most. Raises SetupError that names those that live."""
    client = AdminClient({**properties, "log_level": 0})
    patience = _session(properties) + margin
    deadline = time.monotonic() + patience
    for group in groups:
        told = False
        while members := _members(client, group):
            who = ", ".join(sorted(f"{m.group_instance_id or m.client_id} on {m.host.lstrip('/')}" for m in members))
            if time.monotonic() > deadline:
                raise SetupError(f"the offsets of {group} cannot be moved: its members live: {who}", _STOP)
            if not told:
                say(f"waiting for the members of {group} to end: {who} (until their session is over, {patience:.0f} s at most)")
                told = True
            time.sleep(0.2)


_STOP = "stop every process of this group, then try again"


def _session(properties: Mapping[str, Any]) -> float:
    """Seconds after which the broker gives up a member that is silent."""
    return float(properties.get("session.timeout.ms", _SESSION_MS)) / 1000


def _members(client: AdminClient, group: str) -> Sequence[MemberDescription]:
    try:
        found: Sequence[MemberDescription] = client.describe_consumer_groups([group], request_timeout=_TIMEOUT)[group].result().members
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return ()
        raise SetupError(f"the members of {group} cannot be read: {error.args[0].str()}", "see stream-monitor check") from error
    return found


def _consumer(properties: Mapping[str, Any], group: str) -> Consumer:
    return Consumer({**properties, "group.id": group, "enable.auto.commit": False, "log_level": 0})
