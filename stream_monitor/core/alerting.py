"""The life cycle of an alert, as a transition table, and what an alert says.

    none --drift--> firing --recovered | silent | evicted | operator | rebuilt | daily | weekly--> resolved
                    firing --learned | acknowledged | silenced | heard--> firing
    none --suspected--> warning --drift--> firing
                        warning --faded | silent | evicted | operator | rebuilt | daily | weekly--> resolved
                        warning --acknowledged | silenced | heard--> warning

One episode per fingerprint (model, version, slice, metric), whichever detector saw it; a change that lasts is one alert. A stream
(core/streams.py) says what happened to it, `Desk` looks the transition up and writes the events down. What was acknowledged or silenced
stands in the details of the alert, so that every later event says it. A silenced alert goes on untold (core/silences.py).

A warning (core/early.py) is an alert that may come to fire, under the same id. Its events say `early` in their details, those after it
has fired when it was `warned` of. It belongs to no incident before it fires: it names itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import sqrt
from typing import Any, Literal, NamedTuple, Protocol

from stream_monitor.core.budget import Ledger
from stream_monitor.core.detectors import Assurance, Evidence
from stream_monitor.core.detectors.base import Parameter
from stream_monitor.core.effects import Counts
from stream_monitor.core.events import ALL_VERSIONS, Alert, Kind, Level, Position, Severity, Slice, Span, Status
from stream_monitor.core.hashing import digest_of
from stream_monitor.core.incidents import Incidents
from stream_monitor.core.metrics import OF_FEATURES, called
from stream_monitor.core.reference import salt_of
from stream_monitor.core.settings import DAY, HOUR, MINUTE, SECOND
from stream_monitor.core.shape import Trail
from stream_monitor.core.silences import Silences


class State(StrEnum):
    NONE = "none"
    WARNING = "warning"
    FIRING = "firing"
    RESOLVED = "resolved"


class Event(StrEnum):
    """What can happen to an alert; the value is the reason that a resolved alert gives."""

    SUSPECTED = "suspected"
    FADED = "faded"
    DRIFT = "drift"
    LEARNED = "learned"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    HEARD = "heard"  # its silence is over
    RECOVERED = "recovered"
    SILENT = "silent"
    EVICTED = "evicted"
    OPERATOR = "operator"
    REBUILT = "rebuilt"
    DAILY = "daily"  # no more than the time of day explains, it was found
    WEEKLY = "weekly"  # the same of the time of the week


class Transition(NamedTuple):
    """Where an event leads, and the status that is published on the way, if any."""

    to: State
    publish: Status | None


TRANSITIONS: Mapping[tuple[State, Event], Transition] = {
    (State.NONE, Event.SUSPECTED): Transition(State.WARNING, Status.WARNING),
    (State.WARNING, Event.DRIFT): Transition(State.FIRING, Status.FIRING),
    (State.WARNING, Event.ACKNOWLEDGED): Transition(State.WARNING, Status.ACKNOWLEDGED),
    (State.WARNING, Event.SILENCED): Transition(State.WARNING, Status.SILENCED),
    (State.WARNING, Event.HEARD): Transition(State.WARNING, Status.WARNING),
    (State.WARNING, Event.FADED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.SILENT): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.EVICTED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.OPERATOR): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.REBUILT): Transition(State.RESOLVED, Status.RESOLVED),
    (State.NONE, Event.DRIFT): Transition(State.FIRING, Status.FIRING),
    (State.FIRING, Event.DRIFT): Transition(State.FIRING, None),
    (State.FIRING, Event.LEARNED): Transition(State.FIRING, Status.UPDATED),
    (State.FIRING, Event.ACKNOWLEDGED): Transition(State.FIRING, Status.ACKNOWLEDGED),
    (State.FIRING, Event.SILENCED): Transition(State.FIRING, Status.SILENCED),
    (State.FIRING, Event.HEARD): Transition(State.FIRING, Status.UPDATED),
    (State.FIRING, Event.RECOVERED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.SILENT): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.EVICTED): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.OPERATOR): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.REBUILT): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.DAILY): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.DAILY): Transition(State.RESOLVED, Status.RESOLVED),
    (State.WARNING, Event.WEEKLY): Transition(State.RESOLVED, Status.RESOLVED),
    (State.FIRING, Event.WEEKLY): Transition(State.RESOLVED, Status.RESOLVED),
}
"""Every other pair is a mistake of the caller: KeyError."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about. `minimum_effect`, `critical_effect`, `warning_effect`: in standard deviations of the reference.

    `cool_down`: ms after its end without another one.
    """

    model: str
    version: str
    slice: Slice | None
    metric: str
    kind: Kind
    minimum_effect: float
    critical_effect: float
    fingerprint: str
    salt: int
    warning_effect: float = 0.0
    cool_down: int = 0

    @classmethod
    def of(
        cls,
        model: str,
        version: str,
        slice_: Slice | None,
        metric: str,
        kind: Kind,
        minimum_effect: float,
        critical_effect: float,
        warning_effect: float = 0.0,
        cool_down: int = 0,
    ) -> Subject:
        """The subject with its fingerprint, which leaves the detector out."""
        fingerprint = digest_of(model, version, *(slice_ or ()), metric)
        limits = minimum_effect, critical_effect
        return cls(model, version, slice_, metric, kind, *limits, fingerprint, salt_of(fingerprint), warning_effect, cool_down)

    def severity(self, effect: float) -> Severity:
        """How grave a change by so much is."""
        size = abs(effect)
        return Severity.CRITICAL if size >= self.critical_effect else Severity.WARNING if size >= self.warning_effect else Severity.INFO


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


class Told(NamedTuple):
    """What an alert about a `limit` says instead; `effect`: how far beyond it the level is, in standard deviations of a value."""

    summary: str
    details: Mapping[str, Any]
    direction: Literal["up", "down"]
    limit: float
    effect: float


class Named(Protocol):
    """Who noticed."""

    name: str

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """As they are now."""


class Case:
    """An alert that has not ended: its newest event, and its state. Of a warning nothing else is kept."""

    __slots__ = ("alert", "said", "state")

    def __init__(self, alert: Alert, state: State = State.WARNING) -> None:
        self.alert = alert
        self.state = state
        self.said = alert.summary if "limit" in alert.details else ""  # who knows the limit said it; later events add to it


class Episode(Case):
    """An alert that fires: the event it began with, and how near the stream came to its old level since.

    All in the units that detectors read: `center` is the level to come back to, half the shift is near enough, `deviation` the
    standard deviation of a value. A mean is taken over so many values that half the shift is three of its standard deviations, at least
    `width`: a small shift that lasts must not look like its end by chance. What was measured at the alarm is the shift at its
    luckiest, so `shift` is what is sure of it, and the first mean after it, of `width` values, corrects it where it is not near.
    """

    __slots__ = (
        "center", "corrected", "count", "counts", "deviation", "gone", "gone_raw", "last", "left", "near", "near_count", "pace", "raw",
        "reach", "runs", "settled", "spread", "total", "trail", "width",
    )  # fmt: skip

    def __init__(self, alert: Alert, center: float, shift: float, deviation: float, width: int, spread: bool = False) -> None:
        super().__init__(alert, State.FIRING)
        self.spread = spread  # values are squares of scores, levels their roots
        self.center = center
        self.deviation = deviation
        self.reach = abs(shift) / 2
        self.width = width
        self.corrected = False
        self.count = 0  # the mean that is being taken
        self.total = 0.0
        self.raw = 0.0
        self.last: list[float] = [0, 0.0, 0.0]  # the one before, as these three
        self.runs = 0  # consecutive means within reach, their values and the sum of these
        self.near_count = 0
        self.near = 0.0
        self.left = 0  # values until it is explained once more
        self.settled: float | None = None  # the level, as known by then
        self.pace = 0.0  # values a millisecond before the change
        self.gone = 0  # values since the change that its stream no longer counts, and their sum
        self.gone_raw = 0.0
        self.trail: Trail | None = None  # until it is known what the change looks like
        self.counts: Counts | None = None  # as long, for some

    def let_go(self, count: int, raw: float) -> None:
        """Its stream no longer counts these values, which came since the change."""
        self.gone += count
        self.gone_raw += raw

    def since(self, count: int, raw: float) -> tuple[int, float]:
        """The values since the change and their sum, with those that its stream counts."""
        return self.gone + count, self.gone_raw + raw

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
        self.last = [self.count, self.total, self.raw]
        self.count, self.total, self.raw = 0, 0.0, 0.0
        return self.runs

    def away(self, level: float, raw: bool) -> float:
        """How far at least the stream is from a level by now, by the mean that is being taken or the one before: of scores, or of bits as
        they are (`raw`)."""
        means = [(count, ones if raw else total) for count, total, ones in (self.last, (self.count, self.total, self.raw)) if count]
        deviation = 0.5 if raw else 1.0
        return max((abs(total / count - level) - 2 * deviation / sqrt(count) for count, total in means), default=0.0)

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
_EPISODE = (
    "center", "deviation", "reach", "width", "corrected", "count", "total", "raw", "runs", "near_count", "near", "spread",
    "left", "settled", "pace", "gone", "gone_raw", "said", "last",
)  # fmt: skip


class Desk:
    """Where a partition's alert events are written, its incidents, silences and budget.

    `out` collects events, `clock` (event time, ms) dates them. `counts` is the monitor's.
    """

    def __init__(self, topic: str, partition: int, ledger: Ledger, counts: dict[str, int] | None = None) -> None:
        self.topic = topic
        self.partition = partition
        self.ledger = ledger
        self.clock = 0
        self.incidents = Incidents()
        self.silences = Silences()
        self.out: list[Alert] = []
        self.counts = {} if counts is None else counts
        # Streams whose alert is to be explained after this record, whether it began with it, and the offset of the value that says so.
        self.due: list[tuple[Any, bool, int]] = []

    def move(self, now: int) -> None:
        """Event time is `now`."""
        self.clock = now
        self.ledger.move(now)

    def count(self, name: str) -> None:
        """One more of what the monitor's counters tell."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def cooled_down(self) -> None:
        """There would have been an alert, had not one of the same fingerprint just ended (`cool_down`)."""
        self.count("alerts_cooled_down")

    def fire(
        self,
        subject: Subject,
        change: Change,
        detector: Named,
        assurance: Assurance,
        evidence: Evidence,
        offset: int,
        autocorrelation: float | None = None,
        more: Mapping[str, Any] | None = None,
        told: Told | None = None,
        warning: Case | None = None,
        early: bool = False,
    ) -> Alert:
        """The event that begins an episode, at the value with this `offset`, with `more` details. `id` is unique: a value is read once.
        `early`: it begins a warning instead. `warning`: the one that it comes of, whose id it keeps."""
        position = self._at(offset)
        state = State.NONE if warning is None else warning.state
        status = TRANSITIONS[state, Event.SUSPECTED if early else Event.DRIFT].publish or Status.FIRING
        alert_id = digest_of(subject.fingerprint, _place(position)) if warning is None else warning.alert.id
        before, after = change.before.value, change.after.value
        alert = Alert(
            id=alert_id,
            event_id=digest_of(alert_id, status, _place(position)),
            fingerprint=subject.fingerprint,
            incident=alert_id if early else self.incidents.join(subject.model, alert_id, change.time, self.clock),
            status=status,
            severity=Severity.INFO if early else subject.severity(change.effect),
            kind=subject.kind,
            model=subject.model,
            model_version=subject.version,
            slice=subject.slice,
            metric=subject.metric,
            direction=told.direction if told else "up" if after > before else "down" if after < before else None,
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
            summary=told.summary if told else "",
            details={"effect": change.effect}
            | ({"of": "spread"} if change.spread else {})
            | ({} if autocorrelation is None else {"autocorrelation": round(autocorrelation, 3)})
            | dict(more or {})
            | ({"early": True, "warned": self.clock} if early else {})
            | ({} if told is None else dict(told.details)),
            change=change.span,
        )
        covered = self.silences.cover(alert.fingerprint, alert.incident)
        if warning is not None:
            alert = replace(alert, details={**alert.details, **self._kept(warning.alert, alert.incident, covered)})
        if told is None:
            alert = replace(alert, summary=_sentence(alert))
        if not covered:
            self.out.append(alert)
        elif warning is None or alert.id in self.silences.untold:
            self.silences.untold.add(alert.id)
        else:
            self.silences.unheard.add(alert.id)
        return alert

    def _kept(self, warned: Alert, incident: str, covered: bool) -> dict[str, Any]:
        """What is still to be said of a warning whose alert fires, in this `incident`. Who silenced it as one of its own silenced that."""
        if incident != warned.incident:
            self.silences.until.pop(warned.incident, None)
        names = ("warned", "acknowledged", "silenced") if covered else ("warned", "acknowledged")
        return {name: warned.details[name] for name in names if name in warned.details}

    def update(
        self, episode: Episode, offset: int, details: Mapping[str, Any], after: Level | None = None, severity: Severity | None = None
    ) -> None:
        """More is known about an alert that fires: `details` to add to its own, and the level `after` the change and the `severity` if
        they are known better."""
        fired = episode.alert
        details = {**fired.details, **details}
        self._go_on(episode, Event.LEARNED, offset, details=details, after=after or fired.after, severity=severity or fired.severity)

    def acknowledge(self, episode: Case, note: Mapping[str, Any], offset: int) -> None:
        """Somebody has taken it on; `note`: who, when (`at`), and a comment."""
        self._go_on(episode, Event.ACKNOWLEDGED, offset, details={**episode.alert.details, "acknowledged": dict(note)})

    def silence(self, episode: Case, note: Mapping[str, Any], offset: int) -> None:
        """Nothing is to be heard of it from here on, `until` the time in `note`: that is the last of it for now."""
        self._go_on(episode, Event.SILENCED, offset, details={**episode.alert.details, "silenced": dict(note)})

    def hear(self, episode: Case, offset: int) -> None:
        """Its silence is over, and it still fires: it begins for those who were not told of it."""
        alert = episode.alert
        if self.silences.cover(alert.fingerprint, alert.incident):
            return  # by another silence
        details = {name: value for name, value in alert.details.items() if name != "silenced"}
        if alert.id in self.silences.untold | self.silences.unheard:
            self._forget(alert)
            begun = Status.WARNING if episode.state is State.WARNING else Status.FIRING
            self._go_on(episode, Event.HEARD, offset, begun, details=details)
        elif "silenced" in alert.details:
            self._go_on(episode, Event.HEARD, offset, details=details)

    def _forget(self, alert: Alert) -> None:
        """There is nothing left that was not told of it."""
        self.silences.untold.discard(alert.id)
        self.silences.unheard.discard(alert.id)

    def _go_on(self, episode: Case, event: Event, offset: int, status: Status | None = None, **changes: Any) -> None:
        """The next event of an alert that fires; published unless it is silenced."""
        transition = TRANSITIONS[episode.state, event]
        fired, position = episode.alert, self._at(offset)
        status = status or transition.publish or fired.status
        alert = replace(
            fired,
            event_id=digest_of(fired.id, status, _place(position)),
            status=status,
            detected_at=max(self.clock, fired.detected_at),
            position=position,
            **changes,
        )
        alert = episode.alert = replace(alert, summary=_sentence(alert, episode.said))
        episode.state = transition.to
        last_word = event is Event.SILENCED and fired.id not in self.silences.untold
        if last_word or not self.silences.cover(fired.fingerprint, fired.incident):
            self._say(alert)

    def _say(self, alert: Alert) -> None:
        """Publishes an event; what an event of the same kind said before at this offset, it says again."""
        self.out = [*(one for one in self.out if one.event_id != alert.event_id), alert]

    def amend(self, episode: Episode, details: Mapping[str, Any]) -> None:
        """Adds `details` to the event that begins an alert, at the offset at which it does."""
        begun = episode.alert
        alert = replace(begun, details={**begun.details, **details})
        alert = episode.alert = replace(alert, summary=_sentence(alert, episode.said))
        self.out = [alert if one.event_id == alert.event_id else one for one in self.out]

    def _at(self, offset: int) -> Position:
        return Position(self.topic, self.partition, offset)

    def resolve(self, episode: Case, event: Event, level: Level, offset: int, details: Mapping[str, Any] | None = None) -> None:
        """The event that ends an episode. `details` to add to the reason."""
        transition = TRANSITIONS[episode.state, event]
        episode.state = transition.to
        self.close(episode.alert, event, level, offset, details)

    def close(self, fired: Alert, event: Event, level: Level, offset: int, details: Mapping[str, Any] | None = None) -> None:
        """The event that ends an alert of which there may be no episode here."""
        position = self._at(offset)
        self.incidents.leave(fired.model, fired.incident, fired.id)
        if self.incidents.get(fired.model, fired.incident) is None:
            self.silences.until.pop(fired.incident, None)
        untold = fired.id in self.silences.untold
        self._forget(fired)
        if untold:
            return
        self.out.append(
            replace(
                fired,
                event_id=digest_of(fired.id, Status.RESOLVED, _place(position)),
                status=Status.RESOLVED,
                after=level,
                detected_at=max(self.clock, fired.detected_at),
                position=position,
                summary="; ".join([_return(fired, event, level), *_clauses(fired.metric, details or {})]),
                details={"reason": event.value, **({"early": True} if is_early(fired) else {}), **(details or {})},
            )
        )


def is_early(alert: Alert) -> bool:
    """Whether it is a warning that has not come to fire."""
    return "early" in alert.details


def _place(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"


_SHOWN = 80
_MOVES = 3  # categories in a sentence


def safe(text: str) -> str:
    """`text` for a line that people read: what does not print is escaped, what is long is cut."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in cut)


def _sentence(alert: Alert, said: str = "") -> str:
    """What an alert that fires says of itself, in one line; `said` is how it begins where it does not say before and after."""
    return "; ".join([said or _moved(alert), *_clauses(alert.metric, alert.details)])


def _moved(alert: Alert) -> str:
    """How it says before and after."""
    before, after = alert.before.value, alert.after.value
    verb = "rose" if after > before else "fell" if after < before else "moved"
    what = _what(alert.model, alert.model_version, alert.metric, alert.slice, "of" in alert.details)
    against = f", compared with {safe(alert.details['reference'])}" if "reference" in alert.details else ""
    against += ", allowing for the time of day" if "daily" in alert.details else ""
    against += ", allowing for the time of the week" if "weekly" in alert.details else ""
    moved = f"{what}: shares moved: {_moves(alert.details)}" if "shares" in alert.details else ""
    moved = moved or f"{what} {verb} from {_level(alert, before)} to {_level(alert, after)}"
    return f"{moved} (since {since(alert.first_seen)}{against})"


def _moves(details: Mapping[str, Any]) -> str:
    """`ios 0.31 -> 0.22, web 0.4 -> 0.47`."""
    shown = details["shares"][:_MOVES]
    return ", ".join(f"{safe(one['category'])} {_number(one['before'])} -> {_number(one['after'])}" for one in shown)


def _clauses(metric: str, details: Mapping[str, Any]) -> Iterator[str]:
    """What the details add to the sentence: the parts of a gap, what explains it, whether inputs moved, what it looked like, whether it was
    seen before."""
    if "before" in details.get("group", ()):
        yield _both_rates(metric, details)
    entries = details.get("attribution", ())
    if slices := _slices(entries, metric):
        yield slices
    if features := _features(entries):
        yield f"inputs moved too: {features}"
    elif details.get("inputs", "not watched") != "not watched":
        yield "inputs are stable" if details["inputs"] == "stable" else "inputs moved too"
    if "shape" in details:
        yield _looks(details["shape"], details.get("course", {}))
    if (recurring := details.get("recurring")) is not None:
        yield f"a level it had before, {recurring['times']} times since {since(recurring['since'])}"
    if "early" in details:
        yield "an early notice, on less evidence than an alert asks for"
    for name in ("acknowledged", "silenced"):
        if name in details:
            yield _noted(name, details[name])


def explanation(attribution: Sequence[Mapping[str, Any]]) -> str:
    """What explains a change, by itself: `country=DE explains 92% of the change of error in all traffic`; else `inputs moved: income`."""
    return _slices(attribution) or f"inputs moved: {_features(attribution)}"


def _slices(entries: Sequence[Mapping[str, Any]], metric: str = "") -> str:
    """The slices that explain a change, or the shift of their mix; empty where none does. Beside a sentence about this `metric`."""
    slices = [one for one in entries if "share" in one]
    if not slices:
        return ""
    share, name = _percent(sum(one["share"] for one in slices)), slices[0]["metric"]
    of = "the change" if name == metric else f"the change of {safe(name)}"
    if "mix" in slices[0]:
        mix = slices[0]
        moved = f"{safe(mix['slice']['value'])} from {_percent(mix['traffic_before'])} to {_percent(mix['traffic'])} of the traffic"
        return f"the mix of {safe(mix['mix'])} changed ({moved}), which explains {share} of {'it' if name == metric else of}"
    names = ", ".join(f"{safe(one['slice']['key'])}={safe(one['slice']['value'])}" for one in slices)
    return f"{names} {'explains' if len(slices) == 1 else 'explain'} {share} of {of} in all traffic"


def _features(entries: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(safe(one["feature"]) for one in entries if "feature" in one)


def _both_rates(metric: str, details: Mapping[str, Any]) -> str:
    """`selection rate of the group 0.35 -> 0.15, of the rest 0.36 -> 0.35 (ratio 0.97 -> 0.43)`."""
    (group, rest) = (f"{_number(one['before']['value'])} -> {_number(one['value'])}" for one in (details["group"], details["rest"]))
    said = f"{called(metric.removesuffix('_gap'))} of the group {group}, of the rest {rest}"
    ratios = details["ratio_before"], details["ratio"]
    if not metric.startswith("selection_rate") or None in ratios:
        return said
    return f"{said} (ratio {_number(ratios[0])} -> {_number(ratios[1])})"


def _noted(what: str, note: Mapping[str, Any]) -> str:
    """`silenced until 2024-03-05 14:00 UTC by ann (known, ticket 7)`."""
    until = f" until {since(note['until'])}" if note.get("until") is not None else " for good" if "until" in note else ""
    by = f" by {safe(note['by'])}" if note.get("by") else ""
    comment = f" ({safe(note['comment'])})" if note.get("comment") else ""
    return f"{what}{until}{by}{comment}"


def _looks(shape: str, course: Mapping[str, int | None]) -> str:
    begin, end = course.get("begin"), course.get("end")
    if shape == "gradual" and begin is not None:
        return f"it came little by little, from {since(begin)} {'on, and has not come to an end' if end is None else f'to {since(end)}'}"
    if shape == "blip" and begin is not None and end is not None:
        return f"it was a blip, from {since(begin)} to {since(end)}"
    if shape == "sudden" and begin is not None and end is not None:
        return f"it came suddenly, within {_duration(end - begin)} at most" if end > begin else "it came at once"
    return "whether it came suddenly or little by little cannot be told"


def _duration(ms: float) -> str:
    size, unit = next((one for one in _UNITS if ms >= one[0]), _UNITS[-1])
    return f"{max(0, ms) / size:.3g} {unit}"


_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s"), (1, "ms"))


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.0f}%"


def _return(fired: Alert, event: Event, level: Level) -> str:
    what = _what(fired.model, fired.model_version, fired.metric, fired.slice, "of" in fired.details)
    if event is Event.RECOVERED and "limit" in fired.details:
        return f"{what} is back at {_number(level.value)}, within the limit of {_number(fired.details['limit'])}"
    if event is Event.RECOVERED and "shares" in fired.details:
        return f"{what}: shares are as they were before (had moved: {_moves(fired.details)})"
    if event is Event.RECOVERED:
        now, was, before = (_level(fired, value) for value in (level.value, fired.after.value, fired.before.value))
        return f"{what} is back at {now} (was {was}, before {before})"
    reasons = {
        Event.FADED: "the evidence faded",
        Event.SILENT: "the version is no longer heard of",
        Event.EVICTED: "it is no longer watched, more was seen than the limits allow",
        Event.OPERATOR: "an operator resolved it",
        Event.DAILY: "the level goes up and down each day by as much, it was found, and that is allowed for from now on",
        Event.WEEKLY: "the level goes up and down each week by as much, it was found, and that is allowed for from now on",
        Event.REBUILT: "it does not fire in the state that was rebuilt from the log, under other settings perhaps",
    }
    return f"{what}: resolved, {reasons[event]}"


def _what(model: str, version: str, metric: str, slice_: Slice | None, spread: bool) -> str:
    name, _, category = metric.partition("=")
    base, _, feature = name.partition(":")
    if base in OF_FEATURES:
        category, feature = "", metric.partition(":")[2]
    if base in ("recall", "precision"):
        said = f"{base} of {category}"
    elif base == "volume":
        said = f"share of time with {'less than a third of' if category == 'few' else 'more than three times'} the usual predictions"
    elif category:
        said = f"share of {feature or base}={category}"
    else:
        said = {
            "feature": f"feature {feature}",
            "missing": f"missing share of {feature}",
            "new_category": f"share of new categories of {feature}",
            "out_of_range": f"share of {feature} out of range",
            "feedback_late": "share of labels that came too late to be joined",
            "feedback_conflicting": "share of labels that contradict an earlier one",
            "feedback_orphan": "share of labels that never met their prediction",
            "unlabelled": "share of answers without a label in time",
            "weighted_error": "error weighted by importance",
            "bias": "bias (prediction minus label)",
            "log_loss": "log loss",
            "brier": "Brier score",
            "squared_error": "squared error",
            "label_delay": "label delay",
        }.get(base, metric)
        if not feature and metric.endswith(("_gap", "_ratio")):
            said = metric.replace("_", " ")
    part = f" for {safe(slice_.key)}={safe(slice_.value)}" if slice_ else ""
    of = "all versions" if version == ALL_VERSIONS else safe(version)
    return f"{safe(model)} {of}: {'spread of ' if spread else ''}{safe(said)}{part}"


def about(subject: Subject) -> str:
    """What an alert is about, as a summary begins."""
    return _what(subject.model, subject.version, subject.metric, subject.slice, False)


def since(ms: int) -> str:
    """A moment, for people."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if _is_date(ms) else "?"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"


number = _number


def _level(alert: Alert, value: float) -> str:
    """A level of the alert's metric. Those that are times come in ms, which nobody reads at a glance; a spread has no unit."""
    if alert.metric not in _TIMES or "of" in alert.details:
        return _number(value)
    return f"{'-' if value < 0 else ''}{_duration(abs(value))}"


_TIMES = ("label_delay", "latency")


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
            "incident": state["id"],  # where it was published before there were incidents
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
