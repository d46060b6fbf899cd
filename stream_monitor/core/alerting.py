"""The life cycle of an alert, as a transition table, and what an alert says.

    none --drift--> firing --recovered | silent | evicted | operator | rebuilt--> resolved
                    firing --learned--> firing    (the same alert again, as `updated`)

One episode per fingerprint (model, version, slice, metric), whichever detector saw it; a change that lasts is one alert. A stream
(core/streams.py) says what happened to it, `Desk` looks the transition up and writes the events down. Warning, acknowledged and
silenced are to become further rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import sqrt
from typing import Any, NamedTuple

from stream_monitor.core.budget import Ledger
from stream_monitor.core.detectors import Assurance, Detector, Evidence
from stream_monitor.core.effects import Counts
from stream_monitor.core.events import Alert, Kind, Level, Position, Severity, Slice, Span, Status
from stream_monitor.core.hashing import digest_of
from stream_monitor.core.reference import salt_of
from stream_monitor.core.settings import DAY, HOUR, MINUTE, SECOND
from stream_monitor.core.shape import Trail


class State(StrEnum):
    NONE = "none"
    FIRING = "firing"
    RESOLVED = "resolved"


class Event(StrEnum):
    """What can happen to an alert; the value is the reason that a resolved alert gives."""

    DRIFT = "drift"
    LEARNED = "learned"
    RECOVERED = "recovered"
    SILENT = "silent"
    EVICTED = "evicted"
    OPERATOR = "operator"
    REBUILT = "rebuilt"


class Transition(NamedTuple):
    """Where an event leads, and the status that is published on the way, if any."""

    to: State
    publish: Status | None


TRANSITIONS: Mapping[tuple[State, Event], Transition] = {
    (State.NONE, Event.DRIFT): Transition(State.FIRING, Status.FIRING),
    (State.FIRING, Event.DRIFT): Transition(State.FIRING, None),
    (State.FIRING, Event.LEARNED): Transition(State.FIRING, Status.UPDATED),
    (State.FIRING, Event.RECOVERED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.SILENT): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.EVICTED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.OPERATOR): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.REBUILT): Transition(State.RESOLVED, Status.RESOLVED),
}
"""Every other pair is a mistake of the caller: KeyError."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about. `minimum_effect`, `critical_effect`: in standard deviations of the reference."""

    model: str
    version: str
    slice: Slice | None
    metric: str
    kind: Kind
    minimum_effect: float
    critical_effect: float
    fingerprint: str
    salt: int

    @classmethod
    def of(
        cls, model: str, version: str, slice_: Slice | None, metric: str, kind: Kind, minimum_effect: float, critical_effect: float
    ) -> Subject:
        """The subject with its fingerprint, which leaves the detector out."""
        fingerprint = digest_of(model, version, *(slice_ or ()), metric)
        return cls(model, version, slice_, metric, kind, minimum_effect, critical_effect, fingerprint, salt_of(fingerprint))


class Change(NamedTuple):
    """A change of level: `effect` in standard deviations of the reference; `time` (ms) and `offset` of its first value.

    `spread`: it is the standard deviation of scores that changed, `effect` is by what part of it. `span`: where it began for sure.
    """

    before: Level
    after: Level
    effect: float
    time: int
    offset: int
    spread: bool = False
    span: Span | None = None


class Episode:
    """An alert that fires: the event it began with, and how near the stream came to its old level since.

    All in the units that detectors read: `center` is the level to come back to, half the shift is near enough, `deviation` the
    standard deviation of a value. A mean is taken over so many values that half the shift is three of its standard deviations, at least
    `width`: a small shift that lasts must not look like its end by chance. What was measured at the alarm is the shift at its
    luckiest, so `shift` is what is sure of it, and the first mean after it, of `width` values, corrects it where it is not near.
    """

    __slots__ = (
        "alert", "center", "corrected", "count", "counts", "deviation", "near", "near_count", "raw", "reach", "runs", "spread", "state",
        "total", "trail", "width",
    )  # fmt: skip

    def __init__(self, alert: Alert, center: float, shift: float, deviation: float, width: int, spread: bool = False) -> None:
        self.alert = alert
        self.spread = spread  # values are squares of scores, levels their roots
        self.state = State.FIRING
        self.center = center
        self.deviation = deviation
        self.reach = abs(shift) / 2
        self.width = width
        self.corrected = False
        self.count = 0  # the mean that is being taken
        self.total = 0.0
        self.raw = 0.0
        self.runs = 0  # consecutive means within reach, their values and the sum of these
        self.near_count = 0
        self.near = 0.0
        self.trail: Trail | None = None  # until it is known what the change looks like
        self.counts: Counts | None = None  # as long, for some

    def follow(self, value: float, raw: float) -> int:
        """Takes a value, and itself in the signal's units. Answers how many means in a row were near, at the end of one, else 0."""
        self.count += 1
        self.total += value
        self.raw += raw
        if self.count < self.width:
            return 0
        gap = abs(self.total / self.count - self.center)
        if gap <= self.reach:
            self.runs, self.near, self.near_count = self.runs + 1, self.near + self.raw, self.near_count + self.count
        else:
            self.runs, self.near, self.near_count = 0, 0.0, 0
            if not self.corrected:
                self.reach = gap / 2
        if not self.corrected:
            self.corrected = True
            self._widen()
        self.count, self.total, self.raw = 0, 0.0, 0.0
        return self.runs

    def _widen(self) -> None:
        if self.reach > 0:
            needed = (3 * self.deviation / self.reach) ** 2
            self.width = max(self.width, int(min(needed, MAX_WIDENING * self.width)))

    def level(self) -> Level:
        """The means that were near, or else the values of the mean that is being taken."""
        total, count = (self.near, self.near_count) if self.near_count else (self.raw, self.count)
        if not count:
            return self.alert.after
        return Level(sqrt(total / count) if self.spread else total / count, count)

    def saved(self) -> Any:
        """Plain data."""
        return [
            to_plain(self.alert),
            self.trail and self.trail.saved(),
            self.counts and self.counts.saved(),
            *(getattr(self, name) for name in _EPISODE),
        ]

    @classmethod
    def restored(cls, state: Any) -> Episode:
        """The episode that gave `state`."""
        episode = cls(from_plain(state[0]), 0, 0, 0, 0)
        episode.trail = state[1] and Trail.restored(state[1])
        episode.counts = state[2] and Counts.restored(state[2])
        for name, value in zip(_EPISODE, state[3:], strict=True):
            setattr(episode, name, value)
        return episode


MAX_WIDENING = 20
_EPISODE = ("center", "deviation", "reach", "width", "corrected", "count", "total", "raw", "runs", "near_count", "near", "spread")


class Desk:
    """Where a partition's alert events are written, and its budget: `out` collects events, `clock` (event time, ms) dates them."""

    def __init__(self, topic: str, partition: int, ledger: Ledger) -> None:
        self.topic = topic
        self.partition = partition
        self.ledger = ledger
        self.clock = 0
        self.out: list[Alert] = []

    def move(self, now: int) -> None:
        """Event time is `now`."""
        self.clock = now
        self.ledger.move(now)

    def fire(
        self,
        subject: Subject,
        change: Change,
        detector: Detector,
        assurance: Assurance,
        evidence: Evidence,
        offset: int,
        autocorrelation: float | None = None,
    ) -> Alert:
        """The event that begins an episode, at the value with this `offset`. `id` is unique: a value is read once."""
        position = Position(self.topic, self.partition, offset)
        alert_id = digest_of(subject.fingerprint, _place(position))
        before, after = change.before.value, change.after.value
        alert = Alert(
            id=alert_id,
            event_id=digest_of(alert_id, Status.FIRING, _place(position)),
            fingerprint=subject.fingerprint,
            status=Status.FIRING,
            severity=Severity.CRITICAL if abs(change.effect) >= subject.critical_effect else Severity.WARNING,
            kind=subject.kind,
            model=subject.model,
            model_version=subject.version,
            slice=subject.slice,
            metric=subject.metric,
            direction="up" if after > before else "down" if after < before else None,
            before=change.before,
            after=change.after,
            statistic=evidence.statistic,
            threshold=evidence.threshold,
            detector=detector.name,
            parameters=dict(detector.parameters),
            assurance=assurance,
            first_seen=change.time,
            detected_at=self.clock,
            first_position=Position(self.topic, self.partition, change.offset),
            position=position,
            summary="",
            details={"effect": change.effect}
            | ({"of": "spread"} if change.spread else {})
            | ({} if autocorrelation is None else {"autocorrelation": round(autocorrelation, 3)}),
            change=change.span,
        )
        alert = replace(alert, summary=_sentence(alert))
        self.out.append(alert)
        return alert

    def update(
        self, episode: Episode, offset: int, details: Mapping[str, Any], after: Level | None = None, severity: Severity | None = None
    ) -> None:
        """More is known about an alert that fires: `details` to add to its own, and the level `after` the change and the `severity` if
        they are known better."""
        transition = TRANSITIONS[episode.state, Event.LEARNED]
        fired, position = episode.alert, Position(self.topic, self.partition, offset)
        alert = replace(
            fired,
            event_id=digest_of(fired.id, Status.UPDATED, _place(position)),
            status=Status.UPDATED,
            after=after or fired.after,
            severity=severity or fired.severity,
            detected_at=max(self.clock, fired.detected_at),
            position=position,
            details={**fired.details, **details},
        )
        episode.alert = replace(alert, summary=_sentence(alert))
        episode.state = transition.to
        # What was said before about the same value is said again in this.
        self.out = [*(one for one in self.out if one.event_id != alert.event_id), episode.alert]

    def resolve(self, episode: Episode, event: Event, level: Level, offset: int, details: Mapping[str, Any] | None = None) -> None:
        """The event that ends an episode. `details` to add to the reason."""
        transition = TRANSITIONS[episode.state, event]
        episode.state = transition.to
        self.close(episode.alert, event, level, offset, details)

    def close(self, fired: Alert, event: Event, level: Level, offset: int, details: Mapping[str, Any] | None = None) -> None:
        """The event that ends an alert of which there may be no episode here."""
        position = Position(self.topic, self.partition, offset)
        self.out.append(
            replace(
                fired,
                event_id=digest_of(fired.id, Status.RESOLVED, _place(position)),
                status=Status.RESOLVED,
                after=level,
                detected_at=max(self.clock, fired.detected_at),
                position=position,
                summary="; ".join([_return(fired, event, level), *_clauses(details or {})]),
                details={"reason": event.value, **(details or {})},
            )
        )


def _place(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"


_SHOWN = 80


def safe(text: str) -> str:
    """`text` for a line that people read: what does not print is escaped, what is long is cut."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in cut)


def _sentence(alert: Alert) -> str:
    """What an alert that fires says of itself, in one line."""
    before, after = alert.before.value, alert.after.value
    verb = "rose" if after > before else "fell" if after < before else "moved"
    what = _what(alert.model, alert.model_version, alert.metric, alert.slice, "of" in alert.details)
    said = f"{what} {verb} from {_number(before)} to {_number(after)} (since {_moment(alert.first_seen)})"
    return "; ".join([said, *_clauses(alert.details)])


def _clauses(details: Mapping[str, Any]) -> Iterator[str]:
    """What the details add to the sentence."""
    if "shape" in details:
        yield _looks(details["shape"], details.get("course", {}))


def _looks(shape: str, course: Mapping[str, int | None]) -> str:
    begin, end = course.get("begin"), course.get("end")
    if shape == "gradual" and begin is not None:
        return (
            f"it came little by little, from {_moment(begin)} {'on, and has not come to an end' if end is None else f'to {_moment(end)}'}"
        )
    if shape == "blip" and begin is not None and end is not None:
        return f"it was a blip, from {_moment(begin)} to {_moment(end)}"
    if shape == "sudden" and begin is not None and end is not None:
        return f"it came suddenly, within {_duration(end - begin)} at most"
    return "whether it came suddenly or little by little cannot be told"


def _duration(ms: int) -> str:
    size, unit = next((one for one in _UNITS if ms >= one[0]), _UNITS[-1])
    return f"{max(0, ms) / size:.3g} {unit}"


_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s"), (1, "ms"))


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if _is_date(ms) else "?"


def _return(fired: Alert, event: Event, level: Level) -> str:
    what = _what(fired.model, fired.model_version, fired.metric, fired.slice, "of" in fired.details)
    if event is Event.RECOVERED:
        return f"{what} is back at {_number(level.value)} (was {_number(fired.after.value)}, before {_number(fired.before.value)})"
    reasons = {
        Event.SILENT: "the version is no longer heard of",
        Event.EVICTED: "it is no longer watched, more was seen than the limits allow",
        Event.OPERATOR: "an operator resolved it",
        Event.REBUILT: "it does not fire in the state that was rebuilt from the log, under other settings perhaps",
    }
    return f"{what}: resolved, {reasons[event]}"


def _what(model: str, version: str, metric: str, slice_: Slice | None, spread: bool) -> str:
    name, _, category = metric.partition("=")
    base, _, feature = name.partition(":")
    if base in ("recall", "precision"):
        said = f"{base} of {category}"
    elif category:
        said = f"share of {feature or base}={category}"
    else:
        said = {"feature": f"feature {feature}", "missing": f"missing share of {feature}"}.get(base, metric)
    part = f" for {safe(slice_.key)}={safe(slice_.value)}" if slice_ else ""
    return f"{safe(model)} {safe(version)}: {'spread of ' if spread else ''}{safe(said)}{part}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"


def _is_date(ms: int) -> bool:
    return 0 <= ms < 253_402_300_800_000  # the year 10000


def to_plain(alert: Alert) -> dict[str, Any]:
    """The alert as plain data."""
    return asdict(alert) | {
        "slice": list(alert.slice) if alert.slice else None,
        "first_position": list(alert.first_position),
        "position": list(alert.position),
        "change": list(alert.change) if alert.change else None,
        "status": alert.status.value,
        "severity": alert.severity.value,
        "kind": alert.kind.value,
    }


def from_plain(state: Mapping[str, Any]) -> Alert:
    """The alert that gave `state`."""
    return Alert(
        **{
            **state,
            "slice": Slice(*state["slice"]) if state["slice"] else None,
            "first_position": Position(*state["first_position"]),
            "position": Position(*state["position"]),
            "change": Span(*state["change"]) if state.get("change") else None,
            "status": Status(state["status"]),
            "severity": Severity(state["severity"]),
            "kind": Kind(state["kind"]),
            "before": Level(**state["before"]),
            "after": Level(**state["after"]),
        }
    )
