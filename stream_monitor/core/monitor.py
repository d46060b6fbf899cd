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
from fnmatch import fnmatchcase
from typing import Any

from stream_monitor.core.alerting import Desk, Event
from stream_monitor.core.budget import LOOKS, Ledger, Owner, statement
from stream_monitor.core.codec import read
from stream_monitor.core.detectors import create
from stream_monitor.core.events import ALL_VERSIONS, Alert
from stream_monitor.core.hashing import unit_of
from stream_monitor.core.maturity import Clock, LabelClock
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.signals import CLASSES, CONFLICTING, Plan, Room, is_label_only
from stream_monitor.core.versions import Version
from stream_monitor.core.volume import GRACE, METRIC, TICK, Volume

FORMAT = 3  # of snapshots; a change of what they hold, or of what the code decides from it, needs the next number
_PREDICTION = b'{"record":"prediction",'
_MAX_PARTITIONS = 100_000


class Monitor:
    """The state after all records below `at`, which is the next offset to apply; holes in the offsets are normal.

    `counters`: what came and what became of it, for metrics; never used for a decision.
    """

    def __init__(self, settings: DetectSettings, topic: str, partition: int) -> None:
        self.at = 0
        self._settings = settings
        self._ledger = Ledger(settings.alert_budget.rate / max(1, settings.partitions), settings.max_clock_step_ms)
        self._desk = Desk(topic, partition, self._ledger)
        self._clock = Clock(settings.max_clock_step_ms)
        self._labels = LabelClock(settings.max_clock_step_ms)
        self._room = Room(settings.max_streams)
        self._versions: dict[tuple[str, str], Version] = {}
        self._wide: dict[str, Version] = {}  # of models, where something is told of all their versions together
        self._volumes: dict[str, Volume] = {}  # of models, where it is asked for
        self._made = Clock(settings.max_clock_step_ms)  # of the predictions alone
        self._minute = 0
        self._look = 0  # event time of the next look for silent versions
        self._counts: dict[str, int] = {}
        monitors = (*settings.monitors, settings.default)
        for monitor in monitors:
            for detector in monitor.detectors:
                create(detector)  # a wrong name or parameter fails here, not with the first value
        self._tells_volume = any(METRIC in monitor.metrics for monitor in monitors)
        self._label_only = all(is_label_only(monitor.metrics) for monitor in monitors)

    def step(self, offset: int, value: bytes) -> list[Alert]:
        """Applies the record at `offset` (>= `at`). A record that makes no sense is counted and ignored."""
        self.at = offset + 1
        if self._label_only and value.startswith(_PREDICTION):
            self._counts["predictions"] = self._counts.get("predictions", 0) + 1
            return []
        try:
            record = read(value)
            kind = record["record"]
        except (ValueError, KeyError, TypeError):
            kind = None
        if kind == "outcome":
            understood = self._outcome(record, offset)
        elif kind == "prediction":
            understood = self._prediction(record.get("prediction"), offset)
        elif kind == "feedback_issue":
            understood = self._issue(record, offset)
        elif kind == "control":
            understood = self._control(record, offset)
        else:
            understood = False
        if not understood:
            self._count("not_understood")
        out = self._desk.out
        if out:
            self._desk.out = []
            for alert in out:
                self._count(f"alerts_{alert.status}")
        return out if out else []

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
            "waiting": sum(len(v.maturity.heap) for v in versions),
        }

    def budget(self) -> dict[str, Any]:
        """Who has received how much of the alert budget, and what alarms were charged (core/budget.py `statement`)."""
        return statement(
            self._ledger,
            (
                (Owner(*name, scope.part), stream.account)
                for name, version in self._versions.items()
                for scope in version.scopes()
                for stream in scope.streams()
            ),
        )

    def confusion(self) -> list[dict[str, Any]]:
        """Of each version that classifies: which class it answered for which, over time (core/confusion.py `report`)."""
        return [
            {"model": model, "model_version": name, "tables": known.report()}
            for (model, name), version in self._versions.items()
            if (known := version.whole.judging.confusion) is not None and known.tables
        ]

    def _prediction(self, prediction: Any, offset: int) -> bool:
        if not _is_prediction(prediction):
            return False
        self._count("predictions")
        time = prediction["timestamp"]
        version = self._heard_of(prediction, time, offset)
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
            self._note_wide(model, wide)
        minute = (now - GRACE) // TICK
        if minute > self._minute:
            self._minute = minute
            for known in self._volumes.values():
                known.over(minute, offset)

    def _outcome(self, record: dict[str, Any], offset: int) -> bool:
        prediction, feedback = record.get("prediction"), record.get("feedback")
        if prediction is None or feedback is None or not _is_prediction(prediction) or not _is_feedback(feedback):
            return False
        self._count("outcomes")
        labelled = feedback["timestamp"]
        version = self._heard_of(prediction, max(prediction["timestamp"], labelled), offset)
        matured = version.answered(version.outcome(prediction, feedback, offset), labelled, _origin(record))
        self._counts["matured"] = self._counts.get("matured", 0) + matured
        if self._wide and (wide := self._wide.get(prediction["model"])) is not None:
            wide.heard = self._clock.now, offset
            wide.whole.conflicting.push(0, _unit(feedback), labelled, offset)  # type: ignore[union-attr]  # see _note_wide
        return True

    def _issue(self, record: dict[str, Any], offset: int) -> bool:
        issue = record.get("issue")
        if issue not in ("late", "conflicting"):
            return False
        self._count(f"feedback_{issue}")
        prediction: Any = record.get("prediction")
        feedback: Any = record.get("feedback")
        model = record.get("model")
        if not _is_feedback(feedback):
            return True
        time = feedback["timestamp"]
        if issue == "late" and _is_prediction(prediction):
            version = self._heard_of(prediction, max(prediction["timestamp"], time), offset)
            version.late(prediction["request_id"], prediction.get("slices"), time, offset)
        elif issue == "conflicting" and type(model) is str:
            self._conflict(model, feedback, offset)
        return True

    def _conflict(self, model: str, feedback: dict[str, Any], offset: int) -> None:
        """A label came that contradicts an earlier one."""
        if not any(fnmatchcase(CONFLICTING, pattern) for pattern in self._monitor_of(model).metrics):
            return
        wide = self._all_versions(model, feedback["timestamp"], offset)
        if wide is not None and (rare := wide.whole.conflicting) is not None:
            if rare.stream is None:
                versions = [version for (of, _), version in self._versions.items() if of == model]
                rare.zeros, rare.since = sum(v.labels for v in versions), min(v.whole.since for v in versions)
            rare.push(1, _unit(feedback), feedback["timestamp"], offset)
            self._note_wide(model, wide)

    def _all_versions(self, model: str, time: int, offset: int) -> Version | None:
        """What stands for all versions of a model, if there is room: it makes no other version go."""
        if (model, ALL_VERSIONS) not in self._versions and len(self._versions) >= self._settings.max_versions:
            return None
        return self._heard_of({"model": model, "model_version": ALL_VERSIONS}, time, offset)

    def _note_wide(self, model: str, wide: Version) -> None:
        if wide.whole.volume is not None:
            self._volumes[model] = wide.whole.volume
        if wide.whole.conflicting is not None and wide.whole.conflicting.stream is not None:
            self._wide[model] = wide

    def _control(self, record: dict[str, Any], offset: int) -> bool:
        action = record.get("action")
        if action not in ("resolve", "acknowledge", "silence"):
            return False
        self._count(f"control_{action}")
        if action == "resolve":
            for version in self._versions.values():
                for scope in version.scopes():
                    for stream in scope.streams():
                        if stream.episode is not None and stream.episode.alert.id == record.get("alert"):
                            stream.end(Event.OPERATOR, offset)
        return True

    def _heard_of(self, prediction: dict[str, Any], time: int, offset: int) -> Version:
        now = self._clock.move(time)
        self._desk.move(now)
        name = prediction["model"], prediction["model_version"]
        version = self._versions.get(name)
        if version is None:
            version = self._admit(name, offset)
        version.heard = now, offset
        if now >= self._look:
            self._look_for_silence(now, offset)
        return version

    def _admit(self, name: tuple[str, str], offset: int) -> Version:
        if len(self._versions) >= max(1, self._settings.max_versions):
            longest = min(self._versions, key=lambda known: self._versions[known].heard[1])
            gone = self._versions.pop(longest)
            gone.end(Event.EVICTED, offset)
            if longest[1] == ALL_VERSIONS:
                self._wide.pop(longest[0], None)
                self._volumes.pop(longest[0], None)
            self._room.release(stream for scope in gone.scopes() for stream in scope.streams())
            self._count("versions_evicted")
            self._count("too_late_for_maturity", gone.maturity.late)
            self._count("before_maturity", gone.maturity.early)
        version = self._versions[name] = self._new(name)
        version.maturity.since = offset  # what waited when a version of this name was evicted is gone
        return version

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
            for scope in version.scopes():
                for stream in scope.streams():
                    if stream.judged and stream.account.paid < level:
                        stream.rest()
        alive = {model for (model, _), version in self._versions.items() if now - version.heard[0] < silent}
        for (model, _), version in self._versions.items():
            if model in alive and now - version.heard[0] >= silent:
                version.end(Event.SILENT, offset)

    def _count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by

    def snapshot(self, waiting: bool = True) -> dict[str, Any]:
        """The state as plain data. Without the outcomes that wait for maturity, unless `waiting`: then `refill_from` is the
        offset to `refill` the restored monitor from, up to `at`; None if none waits."""
        held = [outcome.offset for version in self._versions.values() for outcome in version.maturity.heap]
        return {
            "format": FORMAT,
            "at": self.at,
            "refill_from": min(held) if held and not waiting else None,
            "clock": [self._clock.now, self._clock.records],
            "labels": self._labels.state(),
            "made": [self._made.now, self._made.records, self._minute],
            "look": self._look,
            "ledger": self._ledger.state(),
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
        monitor._counts.update(data["counts"])
        for name, state in data["versions"]:
            version = monitor._versions[name[0], name[1]] = monitor._new((name[0], name[1]))
            version.restore(state)
            if name[1] == ALL_VERSIONS:
                monitor._note_wide(name[0], version)
        monitor._room.refused = data["refused"]
        return monitor

    def refill(self, offset: int, value: bytes) -> None:
        """Puts back the outcome at `offset` (< `at`) if it waited when a snapshot without the waiting was taken."""
        if value.startswith(_PREDICTION):
            return
        try:
            record = read(value)
            if record["record"] != "outcome":
                return
        except (ValueError, KeyError, TypeError):
            return
        prediction, feedback = record.get("prediction"), record.get("feedback")
        if not _is_prediction(prediction) or not _is_feedback(feedback):
            return
        version = self._versions.get((prediction["model"], prediction["model_version"]))
        if version is not None:
            version.maturity.refill(version.outcome(prediction, feedback, offset))

    def carry_over(self, firing: Iterable[Alert], offset: int) -> list[Alert]:
        """Takes up the alerts that readers of the alert topic hold for firing, where this state was not built by what published them.

        One whose signal has an alert here goes on as it, under the id that is known; the others are resolved by the events that are
        answered, dated at `offset` (== `at`). An alert that fires here only is not told now: its end will be.
        """
        streams = {s.subject.fingerprint: s for v in self._versions.values() for scope in v.scopes() for s in scope.streams()}
        for alert in firing:
            stream = streams.get(alert.fingerprint)
            if stream is not None and stream.episode is not None:
                stream.episode.alert = alert
            else:
                self._desk.close(alert, Event.REBUILT, alert.after, offset)
        out, self._desk.out = self._desk.out, []
        return out


def _matches(monitor: MonitorSettings, model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in monitor.models)


def _unit(feedback: dict[str, Any]) -> int:
    return unit_of(str(feedback.get("request_id")).encode("utf-8", "replace"))


def _origin(record: dict[str, Any]) -> tuple[int, int]:
    """Which partition of the journal an outcome came by, and how many there are; one of one where it does not say."""
    partition, partitions = record.get("partition"), record.get("partitions")
    if type(partition) is int and type(partitions) is int and 0 <= partition < partitions <= _MAX_PARTITIONS:
        return partition, partitions
    return 0, 1


def _is_prediction(value: Any) -> bool:
    get = value.get if type(value) is dict else {}.get
    return (
        type(get("model")) is str
        and type(get("model_version")) is str
        and type(get("timestamp")) is int
        and type(get("request_id")) is str
        and type(get("prediction")) in CLASSES
    )


def _is_feedback(value: Any) -> bool:
    return type(value) is dict and type(value.get("timestamp")) is int and type(value.get("label")) in CLASSES
