"""Moves offsets that lie outside what a topic still holds, and drops the join's state: decisions that only an operator takes.

`find` says what would be done, `accept` does it. Nothing else in stream monitor skips records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream_monitor.errors import SetupError

_TIMEOUT = 30.0


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
