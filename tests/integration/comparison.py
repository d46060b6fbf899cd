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
from stream_monitor.core.frames import unframe
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from tests.integration.command import Read, Setting
from tests.integration.workload import ODD, Message, Workload, canonical
from tests.support import plain

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
    cohorts: Counter[bytes] = field(default_factory=Counter)


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


def join_of_the_journal(setting: Setting, sent: Iterable[Message]) -> Expected:
    """The plain join of what is in the journal (tests/support/plain.py), which must be the events that were sent.

    By the journal's append times things leave window and slack. Of the product it uses what takes a record of the journal apart.
    """
    settings = load(setting.file, {}).join.settings()
    of, n = Expected(), Counter[str]()
    routed: Counter[tuple[str, bytes]] = Counter()
    observations: list[plain.Observation] = []
    for _, records in groupby(setting.read("journal"), key=lambda record: record.partition):
        events = [event for record in records for event in unframe(record.offset, record.time, record.key, record.value or b"")]
        for is_prediction, event in (plain.read_event(one.value) for one in events):
            routed["predictions" if is_prediction else "feedback", canonical(event.said)] += 1
        joined = plain.plain_join(events, settings)
        n.update(joined.counts())
        observations += joined.observations()
    _same("events in the journal", routed, Counter((topic, canonical(event)) for topic, event in _events(sent, of)))
    bodies = ({name: orjson.loads(raw) for name, raw in one.fields.items()} for one in observations)
    of.predictions, of.outcomes, of.late, _, of.cohorts = _told(bodies)
    of.conflicts, of.counts = n["conflicting"], dict(n)
    return of


Told = tuple[Counter[bytes], Counter[Pair], Counter[tuple[bytes, bytes]], int, Counter[bytes]]
"""Predictions, outcomes, late pairs, conflicts and cohorts."""


def observed(observations: Iterable[Read]) -> Told:
    """What is among observation records."""
    return _told(map(_body, observations))


def _body(record: Read) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(record.value or b"")
    assert record.headers == {"record": body["record"].encode()}
    if body["record"] in ("prediction", "outcome"):
        assert record.key == body["prediction"]["model"].encode()
    return body


def _told(bodies: Iterable[Mapping[str, Any]]) -> Told:
    predictions: Counter[bytes] = Counter()
    outcomes: Counter[Pair] = Counter()
    late: Counter[tuple[bytes, bytes]] = Counter()
    cohorts: Counter[bytes] = Counter()
    conflicts = 0
    for body in bodies:
        if body["record"] == "prediction":
            predictions[canonical(body["prediction"])] += 1
        elif body["record"] == "outcome":
            outcomes[canonical(body["prediction"]), canonical(body["feedback"]), body["label_delay_ms"]] += 1
        elif body["record"] == "feedback_cohort":
            cohorts[orjson.dumps(body, option=orjson.OPT_SORT_KEYS)] += 1
        elif (body["record"], body["issue"]) == ("feedback_issue", "late"):
            late[canonical(body["prediction"]), canonical(body["feedback"])] += 1
        else:
            assert (body["record"], body["issue"]) == ("feedback_issue", "conflicting")
            conflicts += 1
    return predictions, outcomes, late, conflicts, cohorts


def assert_is_the_plain_join(setting: Setting, expected: Expected | Workload, observations: Iterable[Read] | None = None) -> None:
    """Observations and dead letters: nothing lost, nothing doubled. `observations`: where the topic does not hold them all any more."""
    predictions, outcomes, late, conflicts, cohorts = observed(setting.stream("observations") if observations is None else observations)
    _same("predictions", predictions, expected.predictions)
    _same("outcomes", outcomes, expected.outcomes)
    _same("late pairs", late, expected.late if isinstance(expected, Expected) else Counter())
    _same("cohorts", cohorts, expected.cohorts if isinstance(expected, Expected) else Counter())
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
