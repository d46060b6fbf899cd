"""The fold of one partition of `observations`: records in, alerts out. The only module that knows the order of the steps.

    record -> event clock -> model version -> signals that need no label
                                           -> outcomes wait for maturity -> label signals
           -> versions gone silent, operators' decisions

The alerts are a function of the records alone: of neither their batches, nor when, where or how often they are read. The event clock
is the running maximum of all event times read, an hour a record at most. Where no monitor asks for more than the
error, `prediction` records tell nothing and are not even decoded; then a version is heard of by its outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

from stream_monitor.core import observations
from stream_monitor.core.alerting import Case, Desk, Event, State, is_early
from stream_monitor.core.attribution import FEW, differs, explain
from stream_monitor.core.budget import LOOKS, Ledger, Owner, statement
from stream_monitor.core.codec import read
from stream_monitor.core.control import Decision
from stream_monitor.core.detectors import try_all
from stream_monitor.core.events import ALL_VERSIONS, Alert, Slice
from stream_monitor.core.intervals import of_share
from stream_monitor.core.maturity import Clock, LabelClock
from stream_monitor.core.observations import Observed, is_cohort, is_feedback, is_prediction
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.signals import Plan, Room, Scope, Watched, reads_predictions
from stream_monitor.core.streams import Stream
from stream_monitor.core.versions import Version
from stream_monitor.core.volume import GRACE, METRIC, TICK, Volume

FORMAT: Final = 13  # of snapshots; a change of what they hold, or of what the code decides from it, needs the next number
_PREDICTION: Final = b'{"record":"prediction",'
EXPLAINED: Final = 8  # alerts of an incident that say what moved with them
LATER: Final = 3  # times as many values as an alarm had, until its alert is explained once more


class Monitor:
    """The state after all records below `at`, which is the next offset to apply; holes in the offsets are normal.

    `counters`: what came and what became of it, for metrics; never used for a decision.
    """

    def __init__(self, settings: DetectSettings, topic: str, partition: int) -> None:
        self.at = 0
        self._settings = settings
        self._ledger = Ledger(settings.alert_budget.rate / max(1, settings.partitions), settings.max_clock_step_ms)
        self._counts: dict[str, int] = {}
        self._desk = Desk(topic, partition, self._ledger, self._counts)
        self._clock = Clock(settings.max_clock_step_ms)
        self._labels = LabelClock(settings.max_clock_step_ms)
        self._room = Room(settings.max_streams)
        self._versions: dict[tuple[str, str], Version] = {}
        self._volumes: dict[str, Volume] = {}  # of models, where it is asked for
        self._made = Clock(settings.max_clock_step_ms)  # of the predictions alone
        self._minute = 0
        self._look = 0  # event time of the next look for silent versions
        self._wake = 0  # event time from which on there is anything to look at: this, or the end of a silence
        monitors = (*settings.monitors, settings.default)
        try_all(monitors)
        self._tells_volume = any(METRIC in monitor.metrics for monitor in monitors)
        self._label_only = not any(map(reads_predictions, monitors))

    def step(self, offset: int, value: bytes) -> list[Alert]:
        """Applies the record at `offset` (>= `at`). A record that makes no sense is counted and ignored."""
        self.at = offset + 1
        if self._label_only and value.startswith(_PREDICTION):
            self._counts["predictions"] = self._counts.get("predictions", 0) + 1
            return []
        one = observations.at_once(value)
        understood = self._outcome(one, offset) if one is not None else self._read(value, offset)
        if not understood:
            self._count("not_understood")
        desk = self._desk
        return self._told() if desk.out or desk.due else []

    def _read(self, value: bytes, offset: int) -> bool:
        """A record of any kind, whatever it holds. Whether it makes sense."""
        try:
            record = read(value)
            kind = record["record"]
        except (ValueError, KeyError, TypeError):
            return False
        if kind == "outcome":
            return self._outcome(observations.of(record), offset)
        if kind == "prediction":
            return self._prediction(record.get("prediction"), offset)
        if kind == "feedback_issue":
            return self._issue(record, offset)
        if kind == "feedback_cohort":
            return self._cohort(record, offset)
        return kind == "control" and self._control(record, offset)

    def _told(self) -> list[Alert]:
        """The events of this record, their alerts explained."""
        desk = self._desk
        due, desk.due = desk.due, []
        for stream, begins, offset in due:
            if stream.episode is not None:
                self._explain(stream, begins, offset)
        out, desk.out = desk.out, []
        for alert in out:
            self._count(f"alerts_{alert.status}")
        return out

    def _explain(self, stream: Stream, begins: bool, offset: int) -> None:
        """Says what moved with an alert, at its alarm and once four times as many values came: then in an update, if there is news.

        In an incident the first few alerts say it for all.
        """
        desk, episode = self._desk, stream.episode
        assert episode is not None
        alert = episode.alert
        version = self._versions[alert.model, alert.model_version]
        streams = (one for scope in version.scopes() for one in scope.streams())
        if begins:
            episode.left = LATER * max(FEW, alert.after.count)
            incident = desk.incidents.get(alert.model, alert.incident)
            if incident is not None and incident.alerts <= EXPLAINED and (found := explain(alert, streams)):
                desk.amend(episode, found)
            return
        found = explain(alert, streams) if "attribution" in alert.details else {}
        recurring = stream.settle()
        if recurring is not None:
            found["recurring"] = recurring
        if found and differs(found, alert.details):
            count, raw = episode.since(stream.count, stream.raw)
            known = stream.numeric or not count or "shape" in alert.details
            desk.update(episode, offset, found, alert.after if known else of_share(raw, count))

    @property
    def counters(self) -> dict[str, int]:
        """Running totals; `versions`, `slices`, `streams`, `waiting` say how many there are now."""
        versions = self._versions.values()
        return {
            **self._counts,
            "too_late_for_maturity": self._counts.get("too_late_for_maturity", 0) + sum(v.maturity.late for v in versions),
            "before_maturity": self._counts.get("before_maturity", 0) + sum(v.maturity.early for v in versions),
            "streams_refused": self._room.refused,
            "versions": len(versions),
            "slices": sum(len(v.slices) for v in versions),
            "streams": self._room.used,
            "incidents": len(self._desk.incidents),
            "waiting": sum(len(v.maturity.waiting) for v in versions),
        }

    def budget(self) -> dict[str, Any]:
        """Who has received how much of the alert budget, and what alarms were charged (core/budget.py `statement`)."""
        return statement(
            self._ledger,
            ((Owner(*name, one.subject.slice), one.account) for name, version in self._versions.items() for one in version.watched()),
        )

    def versions(self) -> list[dict[str, Any]]:
        """Each model version as plain data: what is watched of it, when (event time, ms) it was last heard of, how many outcomes wait."""
        return [
            {
                "model": model, "model_version": name, "task": version.task, "heard": version.heard[0], "slices": len(version.slices),
                "streams": sum(1 for scope in version.scopes() for _ in scope.streams()),
                "waiting": len(version.maturity.waiting), "too_late_for_maturity": version.maturity.late,
            }
            for (model, name), version in self._versions.items()
        ]  # fmt: skip

    def confusion(self) -> list[dict[str, Any]]:
        """Of each version that classifies: which class it answered for which, over time (core/confusion.py `report`)."""
        return [
            {"model": model, "model_version": name, "tables": known.report()}
            for (model, name), version in self._versions.items()
            if (known := version.whole.judging.confusion) is not None and known.tables
        ]

    def _prediction(self, prediction: Any, offset: int) -> bool:
        if not is_prediction(prediction):
            return False
        self._count("predictions")
        time = prediction["timestamp"]
        version = self._heard_of((prediction["model"], prediction["model_version"]), time, offset)
        version.predicted(prediction, time, offset)
        if self._tells_volume:
            self._volume(prediction["model"], time, offset)
        return True

    def _volume(self, model: str, time: int, offset: int) -> None:
        """A prediction of `model` was made; it says of all models what time it is."""
        now = self._made.move(time)
        volume = self._volumes.get(model)
        if volume is not None:
            self._versions[model, ALL_VERSIONS].heard = self._clock.now, offset
            volume.made(min(time, now))
        elif METRIC in self._monitor_of(model).metrics and (wide := self._all_versions(model, time, offset)) is not None:
            self._note_volume(model, wide)
        minute = (now - GRACE) // TICK
        if minute > self._minute:
            self._minute = minute
            for known in self._volumes.values():
                known.over(minute, offset)

    def _outcome(self, one: Observed | None, offset: int) -> bool:
        if one is None:
            return False
        counts, prediction, feedback = self._counts, one.prediction, one.feedback
        counts["outcomes"] = counts.get("outcomes", 0) + 1
        time, labelled = prediction.timestamp, feedback.timestamp
        version = self._heard_of((prediction.model, prediction.model_version), labelled if labelled > time else time, offset)
        matured = version.answered(version.outcome(prediction, feedback, offset), labelled, one.origin)
        counts["matured"] = counts.get("matured", 0) + matured
        return True

    def _issue(self, record: dict[str, Any], offset: int) -> bool:
        issue = record.get("issue")
        if issue not in ("late", "conflicting"):
            return False
        self._count(f"feedback_{issue}")
        prediction: Any = record.get("prediction")
        feedback: Any = record.get("feedback")
        if not is_feedback(feedback):
            return True
        time = feedback["timestamp"]
        if issue == "late" and is_prediction(prediction):
            name = prediction["model"], prediction["model_version"]
            version = self._heard_of(name, max(prediction["timestamp"], time), offset)
            version.late(prediction["request_id"], prediction.get("slices"), time, offset)
        elif issue == "conflicting" and (known := self._known(record, "feedback_conflicting_of_nobody")) is not None:
            version = self._heard_of((known.plan.model, known.plan.version), time, offset)
            version.conflicting(str(feedback.get("request_id")), record.get("slices"), time, offset)
        return True

    def _cohort(self, record: dict[str, Any], offset: int) -> bool:
        if not is_cohort(record):
            return False
        self._count("feedback_cohorts")
        version = self._known(record, "feedback_cohorts_of_nobody")
        if version is not None:  # which is not heard of by that: these labels came long ago
            version.cohort(record["since"], record["labels"], record["orphans"], record.get("slices"), self._clock.now, offset)
        return True

    def _known(self, record: dict[str, Any], otherwise: str) -> Version | None:
        """The version that a record about labels names. What labels say makes no version known; where none is, that is counted."""
        model: Any = record.get("model")
        name: Any = record.get("model_version")
        named = type(model) is str and type(name) is str and name != ALL_VERSIONS
        version = self._versions.get((model, name)) if named else None
        if version is None:
            self._count(otherwise)
        return version

    def _all_versions(self, model: str, time: int, offset: int) -> Version | None:
        """What stands for all versions of a model, if there is room: it makes no other version go."""
        if (model, ALL_VERSIONS) not in self._versions and len(self._versions) >= self._settings.max_versions:
            return None
        return self._heard_of((model, ALL_VERSIONS), time, offset)

    def _note_volume(self, model: str, wide: Version) -> None:
        if wide.whole.volume is not None:
            self._volumes[model] = wide.whole.volume

    def _control(self, record: dict[str, Any], offset: int) -> bool:
        decision = Decision.of(record)
        if decision is None:
            return False
        self._count(f"control_{decision.action}")
        meant = [
            (stream, case)
            for stream, case in self._open()
            if decision.alert == (case.alert.incident if decision.incident else case.alert.id)
        ]
        if decision.action == "silence":
            self._silence(decision, [case for _, case in meant], offset)
        for stream, case in meant:
            if decision.action == "resolve":
                stream.end(Event.OPERATOR, offset)
            elif decision.action == "acknowledge":
                self._desk.acknowledge(case, decision.note, offset)
        return True

    def _silence(self, decision: Decision, meant: list[Case], offset: int) -> None:
        """Begins a silence, or ends one whose end has passed. What it is about: an incident that is open, or a fingerprint."""
        desk = self._desk
        name = decision.alert if decision.incident else meant[0].alert.fingerprint if meant else decision.fingerprint
        if name is None or (decision.incident and not meant):
            return
        if decision.until is not None and decision.until <= desk.clock:
            desk.silences.until.pop(name, None)
            self._hear({name}, offset)
        elif desk.silences.add(name, decision.until):
            for _, case in self._open():
                if name in (case.alert.fingerprint, case.alert.incident):
                    desk.silence(case, decision.note, offset)
        else:
            self._count("silences_refused")
        self._wake = min(self._look, desk.silences.next_end)

    def _heard_of(self, name: tuple[str, str], time: int, offset: int) -> Version:
        now = self._clock.move(time)
        self._desk.move(now)
        version = self._versions.get(name)
        if version is None:
            version = self._admit(name, offset)
        version.heard = now, offset
        if now >= self._wake:
            self._look_around(now, offset)
        return version

    def _look_around(self, now: int, offset: int) -> None:
        """What event time alone brings about."""
        if now >= self._look:
            self._look_for_silence(now, offset)
        over = set(self._desk.silences.end(now))
        if over:
            self._hear(over, offset)
        self._wake = min(self._look, self._desk.silences.next_end)

    def _hear(self, over: set[str], offset: int) -> None:
        """Silences of these names are over."""
        for _, case in self._open():
            if case.alert.fingerprint in over or case.alert.incident in over:
                self._desk.hear(case, offset)

    def _open(self) -> list[tuple[Watched, Case]]:
        """The alerts that have not ended, warnings included, and what they are of."""
        watched = (one for version in self._versions.values() for one in version.watched())
        return [(one, case) for one in watched if (case := one.episode or one.warning) is not None]

    def _admit(self, name: tuple[str, str], offset: int) -> Version:
        if len(self._versions) >= max(1, self._settings.max_versions):
            longest = min(self._versions, key=lambda known: self._versions[known].heard[1])
            gone = self._versions.pop(longest)
            gone.end(Event.EVICTED, offset)
            if longest[1] == ALL_VERSIONS:
                self._volumes.pop(longest[0], None)
            self._room.release(gone.watched())
            self._count("versions_evicted")
            self._count("too_late_for_maturity", gone.maturity.late)
            self._count("before_maturity", gone.maturity.early)
        version = self._new(name)
        if version.plan.monitor.new_version == "previous" and (previous := self._last_heard_of(name[0])) is not None:
            version.begin_as(previous)
            self._follow(name[0], version)
        self._versions[name] = version
        version.maturity.since = offset  # what waited when a version of this name was evicted is gone
        return version

    def _last_heard_of(self, model: str) -> Version | None:
        """The version of a model that was heard of last."""
        known = [version for (of, name), version in self._versions.items() if of == model and name != ALL_VERSIONS]
        return max(known, key=lambda version: version.heard[1], default=None)

    def _new(self, name: tuple[str, str]) -> Version:
        return Version(Plan(*name, self._monitor_of(name[0]), self._settings, self._desk, self._room), self._labels, self._counts)

    def _monitor_of(self, model: str) -> MonitorSettings:
        return next((m for m in self._settings.monitors if _matches(m, model)), self._settings.default)

    def _look_for_silence(self, now: int, offset: int) -> None:
        """Resolves the alerts of versions that have long been silent while another version of their model was heard of, and gives the
        share of streams that have had no value for as long to the others."""
        silent = self._settings.silent_ms
        self._look = now + max(1, silent // LOOKS)
        level = self._ledger.look()
        for version in self._versions.values():
            for one in version.watched():
                if one.judged and one.account.paid < level:
                    one.rest()
        alive = {model for (model, _), version in self._versions.items() if now - version.heard[0] < silent}
        for (model, _), version in self._versions.items():
            if model in alive and now - version.heard[0] >= silent:
                version.end(Event.SILENT, offset)

    def _count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by

    def snapshot(self, waiting: bool = True) -> dict[str, Any]:
        """The state as plain data. Without the outcomes that wait for maturity, unless `waiting`: then `refill_from` is the
        offset to `refill` the restored monitor from, up to `at`; None if none waits."""
        held = [outcome.offset for version in self._versions.values() for outcome in version.maturity.waiting]
        return {
            "format": FORMAT,
            "at": self.at,
            "refill_from": min(held) if held and not waiting else None,
            "waiting": [len(version.maturity.waiting) for version in self._versions.values()],  # for those who only look at it
            "clock": [self._clock.now, self._clock.records],
            "labels": self._labels.state(),
            "made": [self._made.now, self._made.records, self._minute],
            "look": self._look,
            "ledger": self._ledger.state(),
            "incidents": self._desk.incidents.state(),
            "silences": self._desk.silences.state(),
            "refused": self._room.refused,
            "counts": dict(self._counts),
            "versions": [[list(name), version.state(waiting)] for name, version in self._versions.items()],
        }

    @classmethod
    def restore(cls, settings: DetectSettings, topic: str, partition: int, data: dict[str, Any]) -> Monitor:
        """The monitor that gave `data`, under the same settings. Raises ValueError for a snapshot that it can not read."""
        if data.get("format") != FORMAT:
            raise ValueError(f"snapshot of format {data.get('format')!r}; this program reads format {FORMAT}")
        monitor = cls(settings, topic, partition)
        monitor.at = data["at"]
        monitor._clock.now, monitor._clock.records = data["clock"]
        monitor._desk.clock = monitor._clock.now
        monitor._labels.restore(data["labels"])
        monitor._made.now, monitor._made.records, monitor._minute = data["made"]
        monitor._look = data["look"]
        monitor._ledger.restore(data["ledger"])
        monitor._desk.incidents.restore(data["incidents"])
        monitor._desk.silences.restore(data["silences"])
        monitor._wake = min(monitor._look, monitor._desk.silences.next_end)
        monitor._counts.update(data["counts"])
        for name, state in data["versions"]:
            version = monitor._versions[name[0], name[1]] = monitor._new((name[0], name[1]))
            version.restore(state)
            if name[1] == ALL_VERSIONS:
                monitor._note_volume(name[0], version)
        for (model, _), version in monitor._versions.items():
            monitor._follow(model, version)  # not before: what is restored has begun already
        monitor._room.refused = data["refused"]
        return monitor

    def _follow(self, model: str, version: Version) -> None:
        """What a version meets from now on begins as in the one that it began as, as long as that is known. By its name, so that a
        restored monitor looks where the saved one would have."""
        if version.previous is not None:
            version.plan.ancestor = partial(self._scope, (model, version.previous))

    def _scope(self, name: tuple[str, str], part: Slice | None) -> Scope | None:
        version = self._versions.get(name)
        return None if version is None else version.scope(part)

    def refill(self, offset: int, value: bytes) -> None:
        """Puts back the outcome at `offset` (< `at`) if it waited when a snapshot without the waiting was taken."""
        if value.startswith(_PREDICTION):
            return
        one = observations.outcome(value)
        if one is None:
            return
        prediction = one.prediction
        version = self._versions.get((prediction.model, prediction.model_version))
        if version is not None:
            version.maturity.refill(version.outcome(prediction, one.feedback, offset))

    def carry_over(self, firing: Iterable[Alert], offset: int) -> list[Alert]:
        """Takes up the alerts that readers of the alert topic hold for firing, where this state was not built by what published them.

        One whose signal has an alert here goes on as it, under the id that is known; the others are resolved by the events that are
        answered, dated at `offset` (== `at`). An alert that fires here only is not told now: its end will be. Incidents are those that
        the alerts name; what fires here only goes with what it was together with. Warnings alike, but a warning goes on as a warning only.
        """
        cases = {case.alert.fingerprint: case for _, case in self._open()}
        carried = set()
        joined: dict[str, str] = {}  # incident here -> incident that is known
        for alert in firing:
            case = cases.get(alert.fingerprint)
            if case is not None and is_early(alert) == (case.state is State.WARNING):
                carried.add(alert.fingerprint)
                joined.setdefault(case.alert.incident, alert.incident)
                self._desk.silences.untold.discard(case.alert.id)
                case.alert = alert
                self._still_silenced(alert)
            else:
                self._desk.close(alert, Event.REBUILT, alert.after, offset)
        for fingerprint, case in cases.items():
            incident = case.alert.incident
            if fingerprint not in carried and incident in joined:
                case.alert = replace(case.alert, incident=joined[incident])
        self._desk.incidents.regroup(case.alert for case in cases.values() if case.state is State.FIRING)
        self._wake = min(self._look, self._desk.silences.next_end)
        out, self._desk.out = self._desk.out, []
        return out

    def _still_silenced(self, alert: Alert) -> None:
        """An alert that is carried over stays silenced with its incident. The decision said so under an id that is not known here."""
        silences, note = self._desk.silences, alert.details.get("silenced")
        if note is not None and not silences.cover(alert.fingerprint, alert.incident):
            silences.add(alert.incident, note["until"])


def _matches(monitor: MonitorSettings, model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in monitor.models)
