"""Reads the alert topic, as any downstream system would: committed records, decoded; and puts together what belongs together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from stream_monitor.core.alerting import explanation
from stream_monitor.core.attribution import specificity
from stream_monitor.errors import SetupError
from stream_monitor.io.kafka import reader_properties

_TIMEOUT = 30.0


class Published(NamedTuple):
    """A record of the alert topic; `alert` is None where it is not one of ours."""

    raw: bytes
    alert: Mapping[str, Any] | None


def read(properties: Mapping[str, Any], topic: str, follow: bool) -> Iterator[Published | None]:
    """All alerts that the topic holds; with `follow` also those to come, and None now and then while nothing comes."""
    consumer = Consumer(reader_properties(properties, "alerts-reader"))
    try:
        found = consumer.list_topics(topic, _TIMEOUT).topics[topic]
        if found.error is not None:
            raise SetupError(f"topic {topic} does not exist", "create it: stream-monitor topics create")
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in found.partitions])
        unread = set(found.partitions)
        while unread or follow:
            message = consumer.poll(0.5)
            if message is None:
                if follow:
                    yield None
                continue
            error = message.error()
            if error is None:
                raw = message.value() or b""
                yield Published(raw, _decode(raw))
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            elif not error.retriable():
                raise SetupError(f"the alerts cannot be read: {error.str()}", "see stream-monitor check")
    except KafkaException as error:
        raise SetupError(f"no Kafka broker answers: {error.args[0].str()}", "see stream-monitor check") from error
    finally:
        consumer.close()


class Incident(NamedTuple):
    """The events about the alerts of one incident: those of the alert that explains it best, then the others, each in the order of time.

    `firing`: how many of its `alerts` have not ended. `explanation`: what explains it, in words; empty where nothing in particular does.
    """

    id: str
    model: str
    alerts: int
    firing: int
    events: list[Mapping[str, Any]]
    explanation: str = ""


def incidents(alerts: Iterable[Mapping[str, Any]]) -> list[Incident]:
    """Events by incident, in the order in which these began. What an older program wrote without one stands for itself; a warning goes
    where its alert went when it fired."""
    events = list(alerts)
    homes = {str(event["id"]): incident_of(event) for event in sorted(events, key=_decided) if "id" in event}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        groups.setdefault(homes.get(str(event.get("id")), incident_of(event)), []).append(event)
    found: list[tuple[int, Incident]] = []
    for id_, events in groups.items():
        events.sort(key=_decided)  # stable: the events of an alert lie in one partition
        latest = {str(event.get("id")): event["status"] for event in events}
        firing = sum(status != "resolved" for status in latest.values())
        began, lead, words = events[0], *_explained(events)
        events.sort(key=lambda event: str(event.get("id")) != lead)  # stable
        found.append((_decided(began), Incident(id_, str(began.get("model", "?")), len(latest), firing, events, words)))
    return [incident for _, incident in sorted(found, key=lambda one: one[0])]


def _explained(events: Iterable[Mapping[str, Any]]) -> tuple[str | None, str]:
    """The alert that explains its incident best, by what it said last of it, and how; of equal ones, that which did so first."""
    said: dict[str, Any] = {}
    for event in events:
        details = event.get("details")
        if isinstance(details, dict) and "attribution" in details:  # its end does not repeat it
            said[str(event.get("id"))] = details["attribution"]
    ranked = []
    for id_, attribution in said.items():
        try:
            if (rank := specificity(attribution)) is not None:
                ranked.append((rank, id_, explanation(attribution)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # not as this program writes it
            continue
    best = min(ranked, key=lambda one: one[0], default=None)
    return (None, "") if best is None else best[1:]


def incident_of(alert: Mapping[str, Any]) -> str:
    return str(alert.get("incident") or alert.get("id", "?"))


def _decided(alert: Mapping[str, Any]) -> int:
    at = alert.get("detected_at")
    return at if type(at) is int else 0


def _decode(raw: bytes) -> Mapping[str, Any] | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and "status" in value and "summary" in value else None
