"""The plain join: what a partition of the journal has to give, by one dictionary, from the append times and the JSON of its events.

    of = plain_join(records, settings)
    of.steps          what each record found and what is told of it, in order
    of.counts()       what the bucket has to count
    as_observation()  a record of the observations topic in the same form, to be compared

It knows nothing of core/joining.py, and reads of a journal value only the kind and the JSON, so that it can judge what reads the rest.

    clock       the highest append time so far
    known       a request id, for window + slack after its first event, and for as long again after the two have met
    outcome     prediction and feedback that came within the window
    late        they came within the slack after it
    conflict    a label that differs from the one that came first; told where it is known whose, that is, after the prediction, or where the
                first label names it
    duplicate   whatever else comes again: it tells nothing and changes nothing
    cohort      the labels of an owner that came in a slot, told by the record whose clock is window + slack past all of it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from msgspec import Raw
from msgspec.json import Decoder

from stream_monitor.core.records import Record
from stream_monitor.core.settings import JoinSettings

_fields = Decoder(dict[str, Raw]).decode


class Observation(NamedTuple):
    """A record of the observations topic: its key, its header `record`, and its fields, each in the bytes in which it is written."""

    model: bytes
    kind: bytes
    fields: dict[str, bytes]


class Step(NamedTuple):
    """A record of the journal: `found` is what stages.py counts it as."""

    offset: int
    found: str
    observations: list[Observation]


class Event(NamedTuple):
    """A prediction or a feedback, as written and as read."""

    raw: bytes
    said: dict[str, Any]


@dataclass
class Life:
    """What is known of a request id, and since when: the time of its first event, or that at which the two sides met.

    `labelled`: when its feedback came.
    """

    since: int
    prediction: Event | None = None
    feedback: Event | None = None
    labelled: int = 0


@dataclass
class Joined:
    """What came of a journal. `known` holds dead lives too, until their request id comes again; `lives` has all that ever were. `untold`:
    those whose label names its owner, until its cohort is told."""

    settings: JoinSettings
    clock: int = 0
    steps: list[Step] = field(default_factory=list)
    came: Counter[str] = field(default_factory=Counter)
    known: dict[bytes, Life] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    untold: list[Life] = field(default_factory=list)

    def observations(self) -> list[Observation]:
        return [one for step in self.steps for one in step.observations]

    def counts(self) -> dict[str, int]:
        """As the bucket names them. A slot of log time expires as a whole, when the clock's horizon has left it."""
        n, slot, horizon = Counter(self.came), self.settings.slot_ms, self.horizon()
        for life in self.lives:
            gone = life.since // slot < horizon
            if life.feedback is None:
                n["expired" if gone else "waiting_predictions"] += 1
            elif life.prediction is None:
                n["orphan" if gone else "waiting_feedback"] += 1
        return dict(n)

    def horizon(self) -> int:
        """Slots before this one are over."""
        return (self.clock - self.settings.window_ms - self.settings.slack_ms) // self.settings.slot_ms

    def cohorts(self, end: int) -> list[tuple[int, bytes, list[Life]]]:
        """The lives of which is not told, of slots before `end`: by slot and owner, in this order."""
        by: dict[tuple[int, bytes], list[Life]] = {}
        for life in self.untold:
            assert life.feedback is not None
            if (slot := life.labelled // self.settings.slot_ms) < end:
                by.setdefault((slot, _owner(life.feedback, self.settings.label_slices)), []).append(life)
        return [(*key, by[key]) for key in sorted(by)]


def plain_join(records: Iterable[Record], settings: JoinSettings, partition: int = 0, partitions: int = 1) -> Joined:
    """The join of these records of a `partition` of the journal."""
    of = Joined(settings)
    for record in records:
        horizon = of.horizon()
        of.clock = max(of.clock, record.time)
        is_prediction, event = read_event(record.value)
        of.came["predictions" if is_prediction else "feedback"] += 1
        name = event.said["request_id"].encode()
        life = of.known.get(name)
        if life is None or of.clock - life.since > settings.window_ms + settings.slack_ms:
            life = of.known[name] = Life(of.clock)
            of.lives.append(life)

        told: list[Observation] = []
        if of.horizon() > horizon:
            told += [_cohort(slot * settings.slot_ms, lives, settings.label_slices) for slot, _, lives in of.cohorts(of.horizon())]
            of.untold = [life for life in of.untold if life.labelled // settings.slot_ms >= of.horizon()]
        found = "waiting"
        if is_prediction and life.prediction is not None:
            found = "duplicate"
            of.came["duplicate_predictions"] += 1
        elif not is_prediction and life.feedback is not None:
            if _is_one_label(event.said["label"], life.feedback.said["label"]):
                found = "duplicate"
                of.came["duplicate_feedback"] += 1
            else:
                found = "conflicting"
                of.came["conflicting"] += 1
                about = life.prediction or life.feedback
                if _owner(about):
                    told.append(_conflict(about, event, settings.label_slices))
        else:
            if is_prediction:
                life.prediction = event
                told.append(_observation(event, "prediction", prediction=event.raw))
            else:
                life.feedback, life.labelled = event, of.clock
                if _owner(event):
                    of.untold.append(life)
            if life.prediction is not None and life.feedback is not None:
                found = "joined" if of.clock - life.since <= settings.window_ms else "late"
                of.came[found] += 1
                life.since = of.clock
                if found == "joined":
                    told.append(_outcome(life.prediction, life.feedback, partition, partitions))
                else:
                    told.append(_issue(found, life.prediction, life.feedback, prediction=life.prediction.raw))
        of.steps.append(Step(record.offset, found, told))
    return of


def as_observation(model: bytes | None, kind: bytes, value: bytes | None) -> Observation:
    """What was published, in the form in which it is expected."""
    return Observation(model or b"", kind, {name: bytes(raw) for name, raw in _fields(value or b"").items()})


def read_event(value: bytes) -> tuple[bool, Event]:
    """Whether a journal value is a prediction, and the event. Its head is 20 bytes, of which the last two tell how long whose it is."""
    raw = value[20 + int.from_bytes(value[18:20], "big") :]
    return value[1:2] == b"P", Event(raw, orjson.loads(raw))


def _is_one_label(one: Any, other: Any) -> bool:
    """1 and 1.0 are one class; 1, "1" and true are three."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _outcome(prediction: Event, feedback: Event, partition: int, partitions: int) -> Observation:
    return _observation(
        prediction,
        "outcome",
        partition=b"%d" % partition,
        partitions=b"%d" % partitions,
        label_delay_ms=b"%d" % (feedback.said["timestamp"] - prediction.said["timestamp"]),
        prediction=prediction.raw,
        feedback=feedback.raw,
    )


def _conflict(about: Event, feedback: Event, keys: Sequence[str]) -> Observation:
    return _issue("conflicting", about, feedback, **_version(about, keys), prediction=b"null")


def _version(about: Event, keys: Sequence[str]) -> dict[str, bytes]:
    of = {"model_version": orjson.dumps(about.said["model_version"])}
    if kept := _slices(about, keys):
        of["slices"] = orjson.dumps(kept)
    return of


def _slices(event: Event, keys: Sequence[str]) -> dict[str, str]:
    said = event.said.get("slices") or {}
    return {key: said[key] for key in keys if key in said}


def _owner(event: Event, keys: Sequence[str] = ()) -> bytes:
    """Whose an event says that it is; empty where it does not say."""
    named = [event.said.get("model"), event.said.get("model_version"), *filter(None, [_slices(event, keys)])]
    return b"" if None in named else orjson.dumps(named)


def _cohort(since: int, lives: list[Life], keys: Sequence[str]) -> Observation:
    about = lives[0].feedback
    assert about is not None
    orphans = sum(life.prediction is None for life in lives)
    model, n = orjson.dumps(about.said["model"]), {"since": b"%d" % since, "labels": b"%d" % len(lives), "orphans": b"%d" % orphans}
    return _observation(about, "feedback_cohort", model=model, **_version(about, keys), **n)


def _issue(issue: str, about: Event, feedback: Event, **fields: bytes) -> Observation:
    model = orjson.dumps(about.said["model"])
    return _observation(about, "feedback_issue", issue=b'"%b"' % issue.encode(), model=model, feedback=feedback.raw, **fields)


def _observation(about: Event, kind: str, **fields: bytes) -> Observation:
    return Observation(about.said["model"].encode(), kind.encode(), {"record": b'"%b"' % kind.encode(), **fields})
