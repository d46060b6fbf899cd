"""Where an operator's decision goes: looked up among the alerts that were published, written to where the alert lives.

The record lies in the partition of `observations` that the alert came from, as one more record of that log; a plain idempotent producer
writes it, since there is nothing else that it must agree with. What became of it is an event on the alert topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_monitor.errors import SetupError, StreamMonitorError

_TIMEOUT = 30.0
_LISTED = 5


class Place(NamedTuple):
    """Where a record was written."""

    topic: str
    partition: int
    offset: int


def find(alerts: Iterable[Mapping[str, Any]], prefix: str) -> Mapping[str, Any]:
    """The newest event about the one alert whose id begins so. Raises StreamMonitorError where there is none, or more than one."""
    wanted = prefix.strip().lower()
    found = {str(alert.get("id", "")): alert for alert in alerts if wanted and str(alert.get("id", "")).startswith(wanted)}
    if not found:
        raise StreamMonitorError(f"there is no alert whose id begins with {prefix!r}", "stream-monitor alerts shows them, ids at the end")
    if wanted not in found and len(found) > 1:
        some = "\n".join(f"  {id_}  {alert.get('summary')}" for id_, alert in list(found.items())[:_LISTED])
        raise StreamMonitorError(f"{len(found)} alerts have an id that begins with {prefix!r}:\n{some}", "give more of it")
    alert = found[wanted] if wanted in found else next(iter(found.values()))
    if not _is_complete(alert):
        raise StreamMonitorError(
            f"the record of alert {alert.get('id')} is none that stream monitor writes", "see stream-monitor alerts --json"
        )
    return alert


def send(properties: Mapping[str, Any], topic: str, alert: Mapping[str, Any], value: bytes) -> Place:
    """Writes a decision about `alert` to its partition. Raises SetupError if the broker does not take it."""
    position, key = alert["position"], str(alert["model"]).encode("utf-8", "replace")
    if position["topic"] != topic:
        raise SetupError(
            f"the alert comes from topic {position['topic']}, topics.observations is {topic}", "use the configuration it runs with"
        )
    answers: list[tuple[KafkaError | None, Message]] = []
    producer = Producer(
        {**properties, "enable.idempotence": True, "acks": "all", "message.timeout.ms": int(_TIMEOUT * 1000), "log_level": 0}
    )
    try:
        producer.produce(
            topic, value, key, partition=position["partition"], headers=[("record", b"control")], on_delivery=lambda *a: answers.append(a)
        )
        producer.flush(_TIMEOUT + 1)
    except KafkaException as error:
        raise SetupError(f"the decision was not written: {error.args[0].str()}", "see stream-monitor check") from error
    if not answers or answers[0][0] is not None:
        why = answers[0][0].str() if answers and answers[0][0] is not None else "no Kafka broker answers"
        raise SetupError(f"the decision was not written: {why}", "see stream-monitor check")
    written = answers[0][1]
    return Place(topic, int(written.partition() or 0), int(written.offset() or 0))


def _is_complete(alert: Mapping[str, Any]) -> bool:
    position = alert.get("position")
    texts = all(type(alert.get(name)) is str for name in ("id", "fingerprint", "model"))
    return texts and type(position) is dict and type(position.get("partition")) is int and type(position.get("topic")) is str
