"""Moves offsets that lie outside what a topic still holds, and drops snapshots beyond them: decisions that only an operator takes.

`find` and `beyond` say what would be done, `drop` and `accept` do it. Nothing else in stream monitor skips records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_monitor.core import snapshots
from stream_monitor.errors import SetupError
from stream_monitor.io.kafka import records_below
from stream_monitor.ports import Place

_TIMEOUT = 30.0
_READER = {
    "group.id": "stream-monitor-reset",  # never joined
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "log_level": 0,
}


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
    reader = Consumer({**properties, **_READER})
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


def accept(properties: Mapping[str, Any], gaps: Sequence[Gap]) -> None:
    """Commits where reading goes on. The groups must be empty: stop every process of theirs first."""
    for group in sorted({gap.group for gap in gaps}):
        consumer = _consumer(properties, group)
        try:
            consumer.commit(offsets=[TopicPartition(g.topic, g.partition, g.to) for g in gaps if g.group == group], asynchronous=False)
        except KafkaException as error:
            raise SetupError(
                f"the offsets of {group} cannot be moved: {error.args[0].str()}", "stop every process of this group, then try again"
            ) from error
        finally:
            consumer.close()


def _consumer(properties: Mapping[str, Any], group: str) -> Consumer:
    return Consumer({**properties, "group.id": group, "enable.auto.commit": False, "log_level": 0})
