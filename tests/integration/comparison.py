"""What the topics must hold after any trouble: the plain join of what was sent, by a few dictionaries, and the alerts of one fold.

expected = plain_join(sent)          # independent of stream monitor's own join
expected = join_of_the_journal(setting, sent)  # where the window is so short that things leave it
assert_is_the_plain_join(setting, expected)
assert_alerts_are_the_fold(setting)  # those that one Monitor raises over the committed observations, byte for byte, once
assert_adds_up(summary, expected)    # what `run --until-end` reports of the buckets
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from stream_monitor.config import load
from stream_monitor.core.codec import PREDICTION, read_head
from stream_monitor.core.frames import unframe
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from tests.integration.command import Read, Setting
from tests.integration.workload import ODD, Message, Workload, canonical

_REASONS = dict(ODD)
_LARGEST = 256 * 1024

Pair = tuple[bytes, bytes, int]


class _First(NamedTuple):
    """The first event of its side and request id; `event` is its `canonical`."""

    event: bytes
    timestamp: int
    label: Any


@dataclass
class Expected:
    """What must come of messages. `counts`: what the join's buckets must count."""

    predictions: Counter[bytes] = field(default_factory=Counter)
    outcomes: Counter[Pair] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    late: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)


def _events(messages: Iterable[Message], of: Expected) -> Iterator[tuple[str, Any]]:
    """The topic and the event of each message that is one; all are counted, and what is none is a dead letter."""
    for topic, _, value in messages:
        of.messages += 1
        reason = _REASONS.get(value) or ("too_large" if value is not None and len(value) > _LARGEST else None)
        if reason is not None:
            of.dead[reason] += 1
            continue
        event = orjson.loads(value or b"")
        if isinstance(event["timestamp"], str):
            event["timestamp"] = round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000)
        yield topic, event


def plain_join(messages: Iterable[Message]) -> Expected:
    """The first prediction and the first feedback of each request id, while nothing has left the window; messages of equal keys come in the
    order in which they were sent."""
    of, n = Expected(), Counter[str]()
    sides: dict[str, dict[str, _First]] = {"predictions": {}, "feedback": {}}
    for topic, event in _events(messages, of):
        n[topic] += 1
        name, this = event["request_id"], _First(canonical(event), event["timestamp"], event.get("label"))
        first = sides[topic].setdefault(name, this)
        if first is this:
            continue
        if topic == "feedback" and first.label != this.label:
            n["conflicting"] += 1
        else:
            n[f"duplicate_{topic}"] += 1
    predictions, feedback = sides["predictions"], sides["feedback"]
    of.predictions.update(one.event for one in predictions.values())
    for name in predictions.keys() & feedback.keys():
        one, other = predictions[name], feedback[name]
        of.outcomes[one.event, other.event, other.timestamp - one.timestamp] += 1
    n["joined"] = joined = len(predictions.keys() & feedback.keys())
    n["waiting_predictions"], n["waiting_feedback"] = len(predictions) - joined, len(feedback) - joined
    of.conflicts, of.counts = n["conflicting"], dict(n)
    return of


class _Known(NamedTuple):
    """What is known of a request id: since when by the journal's clock, what waits (`side`, "" for what is joined), and the label."""

    born: int
    side: str
    this: _First


def join_of_the_journal(setting: Setting, sent: Iterable[Message]) -> Expected:
    """The join of what is in the journal, which must be the events that were sent, with what leaves window and slack by its append times.

    Of the product it uses what takes a record of the journal apart, and nothing that decides.
    """
    settings = load(setting.file, {}).join.settings()
    life = settings.window_ms + settings.slack_ms
    of, n = Expected(), Counter[str]()
    routed: Counter[tuple[str, bytes]] = Counter()
    for _, records in groupby(setting.read("journal"), key=lambda record: record.partition):
        clock, known = 0, dict[bytes, _Known]()
        waited: list[tuple[str, int]] = []  # the side and since when, of what never got its other side
        for record in records:
            for event in unframe(record.offset, record.time, record.key, record.value or b""):
                clock = max(clock, event.time)
                head = read_head(event.value)
                side = "predictions" if head.kind == PREDICTION else "feedback"
                body = orjson.loads(event.value[head.body :])
                this = _First(canonical(body), head.time, body.get("label"))
                routed[side, this.event] += 1
                n[side] += 1
                before = known.get(event.key)
                if before is None or clock - before.born > life:
                    if before is not None and before.side:
                        waited.append((before.side, before.born))
                    known[event.key] = _Known(clock, side, this)
                    of.predictions[this.event] += side == "predictions"
                elif before.side not in ("", side):
                    prediction, feedback = (this, before.this) if side == "predictions" else (before.this, this)
                    of.predictions[this.event] += side == "predictions"
                    known[event.key] = _Known(clock, "", feedback)
                    if clock - before.born > settings.window_ms:
                        n["late"] += 1
                        of.late[prediction.event, feedback.event] += 1
                    else:
                        n["joined"] += 1
                        of.outcomes[prediction.event, feedback.event, feedback.timestamp - prediction.timestamp] += 1
                elif side == "feedback" and before.this.label != this.label:
                    n["conflicting"] += 1
                else:
                    n[f"duplicate_{side}"] += 1
        waited += [(one.side, one.born) for one in known.values() if one.side]
        horizon = (clock - life) // settings.slot_ms
        for side, born in waited:
            gone = born // settings.slot_ms < horizon
            n[f"waiting_{side}" if not gone else "expired" if side == "predictions" else "orphan"] += 1
    _same("events in the journal", routed, Counter((topic, canonical(event)) for topic, event in _events(sent, of)))
    of.predictions, of.conflicts, of.counts = +of.predictions, n["conflicting"], dict(n)
    return of


def observed(observations: Iterable[Read]) -> tuple[Counter[bytes], Counter[Pair], Counter[tuple[bytes, bytes]], int]:
    """Predictions, outcomes, late pairs and conflicts among observation records."""
    predictions: Counter[bytes] = Counter()
    outcomes: Counter[Pair] = Counter()
    late: Counter[tuple[bytes, bytes]] = Counter()
    conflicts = 0
    for record in observations:
        body = orjson.loads(record.value or b"")
        assert record.headers == {"record": body["record"].encode()}
        if body["record"] == "prediction":
            assert record.key == body["prediction"]["model"].encode()
            predictions[canonical(body["prediction"])] += 1
        elif body["record"] == "outcome":
            assert record.key == body["prediction"]["model"].encode()
            outcomes[canonical(body["prediction"]), canonical(body["feedback"]), body["label_delay_ms"]] += 1
        else:
            assert body["record"] == "feedback_issue"
            if body["issue"] == "late":
                late[canonical(body["prediction"]), canonical(body["feedback"])] += 1
                continue
            assert body["issue"] == "conflicting"
            conflicts += 1
    return predictions, outcomes, late, conflicts


def assert_is_the_plain_join(setting: Setting, expected: Expected | Workload, observations: Iterable[Read] | None = None) -> None:
    """Observations and dead letters: nothing lost, nothing doubled. `observations`: where the topic does not hold them all any more."""
    predictions, outcomes, late, conflicts = observed(setting.stream("observations") if observations is None else observations)
    _same("predictions", predictions, expected.predictions)
    _same("outcomes", outcomes, expected.outcomes)
    _same("late pairs", late, expected.late if isinstance(expected, Expected) else Counter())
    assert conflicts <= expected.conflicts, "a conflict between two labels that wait for their prediction has no model to be told to"
    dead = Counter(record.headers["__streams.errors.exception"].decode() for record in setting.read("dead_letter"))
    _same("dead letters", dead, expected.dead)


def _same(what: str, found: Counter[Any], expected: Counter[Any]) -> None:
    if found != expected:
        lost, doubled = expected - found, found - expected
        example = next(iter(lost or doubled))
        raise AssertionError(f"{what}: of {expected.total()} {lost.total()} are lost, {doubled.total()} are too many, such as {example!r}")


def assert_alerts_are_the_fold(
    setting: Setting, observations: Iterable[Read] | None = None, lost: Mapping[int, range] | None = None
) -> int:
    """The alerts on the topic are those of one fold over the committed observations, each once; answers how many there are.

    `lost`: the offsets of a partition that were never read. They take with them the outcomes that waited for their maturity then.
    """
    config = load(setting.file, {})
    topic = config.topics.observations
    settings = replace(config.detect_settings(), partitions=config.topics.partitions)  # which share the alert budget
    monitors: dict[int, Monitor] = {}
    expected: Counter[bytes] = Counter()
    gaps = dict(lost or {})
    for record in setting.stream("observations") if observations is None else observations:
        gap = gaps.get(record.partition)
        if gap is not None and record.offset in gap:
            continue
        if record.partition not in monitors:
            monitors[record.partition] = Monitor(settings, topic, record.partition)
        if gap is not None and record.offset >= gap.stop:
            state = monitors[record.partition].snapshot(waiting=False)
            monitors[record.partition] = Monitor.restore(settings, topic, record.partition, state)
            del gaps[record.partition]
        expected.update(publish(alert)[1] for alert in monitors[record.partition].step(record.offset, record.value or b""))
    _same("alerts", Counter(record.value or b"" for record in setting.read("alerts")), expected)
    return expected.total()


def assert_adds_up(summary: Mapping[str, Any], expected: Expected) -> None:
    """The buckets' accounting is that of the plain join, and every record of the journal is in it once."""
    n = Counter(summary["join"]["buckets"])
    pairs = n["joined"] + n["late"]
    assert n["predictions"] == pairs + n["duplicate_predictions"] + n["expired"] + n["waiting_predictions"], n
    assert n["feedback"] == pairs + n["duplicate_feedback"] + n["conflicting"] + n["orphan"] + n["waiting_feedback"], n
    found = {name: count for name, count in n.items() if count}
    counts = {name: count for name, count in expected.counts.items() if count}
    assert found == counts, f"the buckets count {found}, the plain join {counts}"
