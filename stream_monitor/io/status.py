"""What the log holds about the state of a running stream monitor: snapshots, alerts that fire, how far each group has read.

Nothing is asked of the process itself, and nothing is written: it works beside a running one, after it has died, and before it was started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, TopicPartition

from stream_monitor.core.snapshots import StateRecord, key_of
from stream_monitor.errors import SetupError
from stream_monitor.io.kafka import messages_below, reader_properties
from stream_monitor.ports import Place

_TIMEOUT = 30.0


class Reach(NamedTuple):
    """How far a stage's group has read a partition: `committed` None where it never has. The partition holds [low, end)."""

    stage: str
    topic: str
    partition: int
    committed: int | None
    low: int
    end: int

    @property
    def lag(self) -> int:
        """Offsets that are still to be read."""
        return max(0, self.end - (self.low if self.committed is None else self.committed))

    @property
    def gap(self) -> bool:
        """Whether what was committed lies outside of what the topic holds."""
        return self.committed is not None and not self.low <= self.committed <= self.end


class Kept(NamedTuple):
    """The newest record under each key of a partition of the state topic. `written`: when (ms) its snapshot was, None if not known."""

    partition: int
    records: Sequence[StateRecord]
    written: int | None


def reaches(properties: Mapping[str, Any], group: str, stages: Mapping[str, Sequence[str]]) -> list[Reach]:
    """How far each stage's group has read its topics. Raises SetupError, naming every topic that does not exist."""
    found = []
    for stage, topics in stages.items():
        consumer = Consumer({**reader_properties(properties, "status"), "group.id": f"{group}-{stage}"})
        try:
            places = [TopicPartition(topic, p) for topic, partitions in _partitions(consumer, topics).items() for p in partitions]
            for place in consumer.committed(places, _TIMEOUT):
                low, end = consumer.get_watermark_offsets(place, _TIMEOUT)
                committed = place.offset if place.offset >= 0 else None
                found.append(Reach(stage, place.topic, place.partition, committed, low, end))
        except KafkaException as error:
            raise SetupError(f"the offsets of {group}-{stage} cannot be read: {error.args[0].str()}", "see stream-monitor check") from error
        finally:
            consumer.close()
    return found


def kept(properties: Mapping[str, Any], state: str, observations: str) -> list[Kept]:
    """What the state topic holds, by partition."""
    reader = Consumer(reader_properties(properties, "status"))
    try:
        return [_kept(reader, (state, p), observations) for p in sorted(_partitions(reader, [state])[state])]
    except KafkaException as error:
        raise SetupError(f"the snapshots on {state} cannot be read: {error.args[0].str()}", "see stream-monitor check") from error
    finally:
        reader.close()


def _kept(reader: Consumer, home: Place, observations: str) -> Kept:
    low, end = reader.get_watermark_offsets(TopicPartition(*home), _TIMEOUT)
    latest: dict[bytes, StateRecord] = {}
    written, first = None, key_of((observations, home[1]), 0)
    if low < end:
        reader.assign([TopicPartition(*home, low)])
        for message in messages_below(reader, home, end):
            record = StateRecord(message.key() or b"", message.value(), message.headers() or [])
            latest[record.key] = record  # the older ones are on the topic until it is compacted
            if record.key == first:
                kind, time = message.timestamp()
                written = None if kind == TIMESTAMP_NOT_AVAILABLE else time
    return Kept(home[1], list(latest.values()), written)


def _partitions(client: Consumer, topics: Iterable[str]) -> dict[str, list[int]]:
    known = client.list_topics(timeout=_TIMEOUT).topics
    if missing := [topic for topic in topics if topic not in known or known[topic].error is not None]:
        what = f"topic {missing[0]} does not exist" if len(missing) == 1 else f"topics {', '.join(missing)} do not exist"
        raise SetupError(what, "stream-monitor topics create makes what is missing, with --inputs also the predictions and feedback topics")
    return {topic: sorted(known[topic].partitions) for topic in topics}
