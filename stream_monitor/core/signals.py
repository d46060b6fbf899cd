"""From an observation to named values: what is watched about a model version, as a whole and per slice.

    metric            kind              value                                                              stream
    score             prediction drift  the score                                                          numeric
    prediction        prediction drift  numbers: the prediction                                            numeric
    prediction=CLASS  prediction drift  is it this class?                                                  binary
    feature:NAME      data drift        numbers: the value                                                 numeric
    feature:NAME=CAT  data drift        strings and booleans: is it this category?                         binary
    prediction, feature:NAME            classes, strings: do the shares differ? (core/mixes.py)            numeric
    missing:NAME      data quality      is a feature that was there before null, absent or of another type? binary
    new_category:NAME data quality      strings, booleans: is it a category that the reference had not?    binary
    out_of_range:NAME data quality      numbers: is it out of the reference's range? (core/novelty.py)     binary
    latency           performance       how long the model took to answer, ms                              numeric
    unlabelled        data quality      had it no label when its maturity passed? (core/coverage.py)       binary
    volume=few, =many data quality      far fewer, more predictions than usual? (core/volume.py)           binary
    feedback_late     data quality      labels that came: too late to be joined?                           binary
    feedback_conflicting data quality   labels that came: not the label that came before?                  binary
    feedback_orphan   data quality      labels that came: do they stay alone? (core/cohorts.py)            binary
    error ...         concept drift     see core/judging.py

`feedback_late` and `feedback_conflicting` are in the order in which labels come, since it is their coming that they tell of: of all labels
that found their prediction, the share that came past the join's window, or that contradicts one that had come. Of a contradiction the
version is known, and the slices only where the join is told to keep them (`JoinSettings.label_slices`).

`feedback_orphan` is of the labels that came, once they have waited for as long as the join waits. One without a prediction (an orphan)
belongs to a version only where it says itself whose it is, and to slices only where the join is told to keep these; the others are
nobody's: the join counts them.

`volume` is watched where the settings name it so, not by a pattern: it is younger than the rest.

A feature's type is that of its first value. Categories: see core/categories.py. The stream of missing values begins with the first that
is missing.

Features are those met first, at most `max_features`. What is left out is counted by its values, in the whole alone, where each is met
once, and only where the settings ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any, Final, Literal, Protocol, TypeVar

from stream_monitor.core.alerting import Case, Desk, Episode, Event, Subject
from stream_monitor.core.budget import Account
from stream_monitor.core.categories import Shares, shorten
from stream_monitor.core.cohorts import Cohorts
from stream_monitor.core.coverage import METRIC as UNLABELLED
from stream_monitor.core.coverage import Coverage
from stream_monitor.core.detectors import create
from stream_monitor.core.events import ALL_VERSIONS, Kind, Slice
from stream_monitor.core.judging import HUGE, METRICS, Judged, Judging
from stream_monitor.core.limits import is_labelled
from stream_monitor.core.metrics import BY_NAME, OF_FEATURES
from stream_monitor.core.mixes import Mix, MixStream
from stream_monitor.core.novelty import Range, Vocabulary
from stream_monitor.core.rare import Make, Rare
from stream_monitor.core.settings import CROSS, DetectSettings, MonitorSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream
from stream_monitor.core.volume import FEW, MANY, Volume
from stream_monitor.core.volume import METRIC as VOLUME

LATE, CONFLICTING, ORPHAN = "feedback_late", "feedback_conflicting", "feedback_orphan"
LABEL_METRICS = METRICS | {LATE, CONFLICTING, ORPHAN}

Task = Literal["classification", "regression"]

S = TypeVar("S", bound=Stream)
N = TypeVar("N", bound=NumericStream)

NUMBERS: Final = frozenset((int, float))
CATEGORIES: Final = frozenset((str, bool))
CLASSES: Final = frozenset((str, bool, int, float))


def is_wrong(prediction: Any, label: Any) -> float:
    """1 if the classes differ, else 0. 1, "1" and true are three classes; 1 and 1.0 are one."""
    a, b = type(prediction), type(label)
    return 0.0 if prediction == label and (a is b or (a in NUMBERS and b in NUMBERS)) else 1.0


def is_of_another_type(prediction: Any, label: Any) -> bool:
    """Whether a label can never say that the prediction was right, since JSON has another type for it: 1 for "1"."""
    a, b = type(prediction), type(label)
    return a is not b and not (a in NUMBERS and b in NUMBERS)


class Plan:
    """What is watched for one model version, and the place where its streams are made."""

    def __init__(self, model: str, version: str, monitor: MonitorSettings, settings: DetectSettings, desk: Desk, room: Room) -> None:
        self.model = model
        self.version = version
        self.monitor = monitor
        self.settings = settings
        self.desk = desk
        self.room = room
        self.all_slices = "*" in monitor.slices
        crosses = [key.split(CROSS) for key in monitor.slices if CROSS in key]
        self.crosses = tuple((a, b, f"{a}{CROSS}{b}") for a, b in crosses)
        self.single_keys = frozenset(key for key in monitor.slices if CROSS not in key)
        self.slice_keys = self.single_keys.union(*crosses)
        limits = monitor.limits if monitor.limit_slices else ()
        self.slices_judged = bool(monitor.slices) and (any(_may_judge(p) for p in monitor.slice_metrics) or any(map(is_labelled, limits)))
        self.slices_free = bool(monitor.slices) and (
            any(not is_label_only((p,)) for p in monitor.slice_metrics) or not all(map(is_labelled, limits))
        )
        self.covers = self.wants(UNLABELLED, False)
        self.covers_slices = self.wants(UNLABELLED, True)
        self.late_in_slices = self.wants(LATE, True)
        self.conflicting_in_slices = self.wants(CONFLICTING, True)
        self.free = reads_predictions(monitor)
        self.error_only = all(p == "error" for p in monitor.metrics)
        self.judges_error_only = self.error_only and not any(map(is_labelled, monitor.limits)) and not monitor.protected
        # What is kept of the slices of an outcome; None for all.
        self.kept_keys = None if self.all_slices and self.slices_judged else frozenset(monitor.protected)
        if self.kept_keys is not None and self.slices_judged:
            self.kept_keys |= self.slice_keys
        self.kept_key = next(iter(self.kept_keys)) if self.kept_keys and len(self.kept_keys) == 1 else None  # where it is just one
        self.slice_error_only = self.error_only or all(p == "error" for p in monitor.slice_metrics)
        # The scope of the version that a new one begins with, for a slice or the whole; always None in a version that began by itself.
        self.ancestor: Callable[[Slice | None], Scope | None] = _no_ancestor
        self.reads_scores = any(create(detector).reads != "bit" for detector in monitor.detectors)

    def stream(self, slice_: Slice | None, metric: str, kind: Kind, numeric: bool) -> BinaryStream | NumericStream | None:
        """A new stream, or None where the settings do not name it or there are too many."""
        if not self.wants(metric, slice_ is not None):
            return None
        return (self.numeric if numeric else self.binary)(slice_, metric, kind)

    def wants(self, metric: str, in_slice: bool) -> bool:
        """Whether the settings name this metric."""
        if metric in BY_NAME and metric not in self.monitor.metrics:
            return False
        wanted = any(fnmatchcase(metric, pattern) for pattern in self.monitor.metrics)
        return wanted and (not in_slice or any(fnmatchcase(metric, pattern) for pattern in self.monitor.slice_metrics))

    def refuse_class(self, metric: str) -> None:
        """Counts a value of a class for which there is no room, if the settings name this metric of it."""
        if self.wants(metric, False):
            self.desk.count("classes_refused")

    def binary(self, slice_: Slice | None, metric: str, kind: Kind) -> BinaryStream | None:
        """A new stream, or None where there are too many."""
        return self._begun(BinaryStream(*self._parts(slice_, metric, kind))) if self.room.take() else None

    def numeric(self, slice_: Slice | None, metric: str, kind: Kind) -> NumericStream | None:
        """A new stream, or None where there are too many."""
        return self.numeric_of(NumericStream, slice_, metric, kind)

    def numeric_of(self, of: type[N], slice_: Slice | None, metric: str, kind: Kind) -> N | None:
        """A new stream of this class, or None where there are too many."""
        return self._begun(of(*self._parts(slice_, metric, kind))) if self.room.take() else None

    def _begun(self, stream: S) -> S:
        """With the reference of the same signal of the version before, where there is one to begin with."""
        ancestor = self.ancestor(stream.subject.slice)
        if ancestor is not None:
            for other in ancestor.streams():
                if other.subject.metric == stream.subject.metric and type(other) is type(stream):
                    stream.inherit(other, ancestor.plan.version)
        return stream

    def _parts(self, slice_: Slice | None, metric: str, kind: Kind) -> Any:
        monitor = self.monitor
        return self.subject(slice_, metric, kind), monitor.detectors, self.settings, self.desk, self.weight(slice_)

    def subject(self, slice_: Slice | None, metric: str, kind: Kind) -> Subject:
        """What an alert of this metric is about."""
        monitor = self.monitor
        limits = monitor.minimum_effect, monitor.critical_effect, monitor.warning_effect, monitor.cool_down_ms
        return Subject.of(self.model, self.version, slice_, metric, kind, *limits)

    def weight(self, slice_: Slice | None) -> int:
        """How many shares of the budget a stream of this slice owns."""
        name = "" if slice_ is None else f"{slice_.key}={slice_.value}"
        return next((n for pattern, n in self.monitor.slice_shares.items() if name and fnmatchcase(name, pattern)), 1)


@lru_cache(maxsize=4_096)  # a feature for which there is no room is asked about with each of its values
def _is_of_feature(patterns: tuple[str, ...], feature: str) -> bool:
    """Whether one of these patterns of metric names means something of this feature."""
    return any(fnmatchcase(f"{of}:{feature}", pattern) for of in ("feature", *OF_FEATURES) for pattern in patterns)


def reads_predictions(monitor: MonitorSettings) -> bool:
    """Whether anything is asked for that predictions say without their labels."""
    selection = bool(monitor.protected) and "selection_rate" in monitor.fairness_metrics
    return selection or not is_label_only(monitor.metrics) or not all(map(is_labelled, monitor.limits))


def _no_ancestor(_slice: Slice | None) -> None:
    return None


def is_label_only(metrics: tuple[str, ...]) -> bool:
    """Whether nothing is asked for but what labels say, literally."""
    return all(metric.partition("=")[0] in LABEL_METRICS for metric in metrics)


def _may_judge(pattern: str) -> bool:
    """Whether a pattern of metric names may mean something that labels say."""
    return not pattern.startswith(("score", "prediction", "feature:", "missing:", "new_category:", "out_of_range:", "latency"))


class Watched(Protocol):
    """What has an alert and a part of the budget: a stream, or a guard of a limit (core/guards.py)."""

    subject: Subject
    account: Account
    judged: bool
    episode: Episode | None

    @property
    def warning(self) -> Case | None: ...
    def end(self, event: Event, offset: int) -> None: ...
    def rest(self) -> None: ...


class Room:
    """Counts the streams of a partition."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.refused = 0

    def take(self) -> bool:
        if self.used >= self.limit:
            self.refused += 1
            return False
        self.used += 1
        return True

    def release(self, gone: Iterable[Watched]) -> None:
        """These are gone, and so is what they owned of the budget."""
        for one in gone:
            one.account.close()
            self.used -= 1


class Signal(Protocol):
    """One quantity of an observation. `take` is false for a value that is not of its type."""

    def take(self, value: Any, unit: int, time: int, offset: int) -> bool: ...
    def streams(self) -> Iterator[Stream]: ...
    def state(self) -> Any: ...
    def restore(self, state: Any) -> None: ...


class Nothing:
    """A quantity that is not watched: the settings do not name it, or there are too many streams."""

    def take(self, value: Any, unit: int, time: int, offset: int) -> bool:
        return True

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        pass

    def streams(self) -> Iterator[Stream]:
        return iter(())

    def state(self) -> Any:
        return None

    def restore(self, state: Any) -> None:
        pass


NOTHING: Final = Nothing()


class Numbers:
    """A numeric quantity, and whether it leaves its range if that is asked."""

    __slots__ = ("range", "stream")

    def __init__(self, stream: NumericStream | Nothing, range_: Range | None = None) -> None:
        self.stream = stream
        self.range = range_

    def take(self, value: Any, unit: int, time: int, offset: int) -> bool:
        kind = type(value)
        if kind is not float and kind is not int:
            return False
        if not -HUGE < value < HUGE:
            value = HUGE if value > 0 else -HUGE
        self.stream.push(float(value), unit, time, offset)
        known = self.range
        if known is not None:
            known.count += 1
            if not known.low <= value <= known.high:
                known.beyond(float(value), unit, time, offset)
        return True

    def streams(self) -> Iterator[Stream]:
        if isinstance(self.stream, NumericStream):
            yield self.stream
        if self.range is not None:
            yield from self.range.rare.streams()

    def state(self) -> Any:
        return [self.stream.state(), self.range and self.range.state()]

    def restore(self, state: Any) -> None:
        self.stream.restore(state[0])
        if self.range is not None:
            self.range.restore(state[1])


class Scope:
    """The signals of a model version: of all its traffic (`slice_` None), or of a slice."""

    __slots__ = (
        "conflicting", "coverage", "error_only", "features", "judging", "late", "latency", "missing", "orphan", "part", "plan",
        "prediction", "records", "score", "since", "volume",
    )  # fmt: skip

    def __init__(self, plan: Plan, slice_: Slice | None) -> None:
        self.plan = plan
        self.part = slice_
        self.records = 0  # predictions seen
        self.since = plan.desk.ledger.age  # age of the ledger at its beginning
        refuse = plan.refuse_class if slice_ is None else None
        self.judging = Judging(partial(plan.stream, slice_), plan.settings.max_categories, plan.settings.warmup, slice_ is None, refuse)
        self.error_only = plan.error_only if slice_ is None else plan.slice_error_only
        self.score: Signal | None = None  # None: not met yet, here and below
        self.prediction: Signal | None = None
        self.latency: Signal | None = None
        self.features: dict[str, tuple[Signal, int]] = {}  # and `records` when it was first there
        self.missing: dict[str, BinaryStream | Nothing] = {}
        covered = self._share(UNLABELLED)
        self.coverage = covered and Coverage(Rare(covered, plan.desk.ledger))
        late, conflicting, orphan = self._share(LATE), self._share(CONFLICTING), self._share(ORPHAN)
        self.late = late and Rare(late, plan.desk.ledger)
        self.conflicting = conflicting and Rare(conflicting, plan.desk.ledger)
        self.orphan = orphan and Cohorts(Rare(orphan, plan.desk.ledger))
        self.volume = self._volume() if slice_ is None and plan.version == ALL_VERSIONS and VOLUME in plan.monitor.metrics else None

    def predicted(self, prediction: dict[str, Any], task: Task | None, unit: int, time: int, offset: int) -> None:
        """Takes the signals that need no label from a prediction. `task` None: not known yet."""
        self.records += 1
        score = prediction.get("score")
        if score is not None:
            if self.score is None:
                self.score = self._numbers("score", Kind.PREDICTION_DRIFT)
            self.score.take(score, unit, time, offset)
        if task is not None:
            if self.prediction is None:
                self.prediction = self._signal("prediction", Kind.PREDICTION_DRIFT, task == "regression", CLASSES)
            self.prediction.take(prediction.get("prediction"), unit, time, offset)
        latency = prediction.get("latency_ms")
        if latency is not None:
            if self.latency is None:
                self.latency = self._numbers("latency", Kind.PERFORMANCE)
            self.latency.take(latency, unit, time, offset)
        features = prediction.get("features")
        if type(features) is not dict:
            features = {}
        taken = 0
        known = self.features
        for name, value in features.items():
            entry = known.get(name)
            if entry is None and (value is None or (entry := self._discover(name, value)) is None):
                continue
            if entry[0].take(value, unit, time, offset):
                taken += 1
        if taken < len(known) or self.missing:
            self._note_missing(features, unit, time, offset)

    def judged(self, one: Judged, unit: int, time: int, offset: int) -> None:
        """Takes what an outcome says."""
        if self.error_only:
            self.judging.error(one.error, one.numeric, unit, time, offset)
        else:
            self.judging.take(one, unit, time, offset)

    def watched(self) -> Iterator[Watched]:
        """All that has an alert, in an order that does not change."""
        return self.streams()

    def streams(self) -> Iterator[Stream]:
        """Every stream, in an order that does not change."""
        yield from self.judging.streams()
        for signal in (self.score, self.prediction, self.latency, *(signal for signal, _ in self.features.values())):
            if signal is not None:
                yield from signal.streams()
        for stream in self.missing.values():
            if isinstance(stream, Stream):
                yield stream
        if self.coverage is not None:
            yield from self.coverage.rare.streams()
        for rare in (self.late, self.conflicting, None if self.orphan is None else self.orphan.rare):
            if rare is not None:
                yield from rare.streams()
        if self.volume is not None:
            yield from self.volume.streams()

    def signal(self, metric: str) -> Signal | None:
        """The quantity of this name; None where it was not met."""
        if metric == "prediction":
            return self.prediction
        return next((signal for name, (signal, _) in self.features.items() if f"feature:{shorten(name)}" == metric), None)

    def end(self, event: Event, offset: int) -> None:
        """Resolves every alert that fires here."""
        for one in self.watched():
            one.end(event, offset)

    def _signal(self, metric: str, kind: Kind, numeric: bool, categories: frozenset[type]) -> Signal:
        if numeric:
            return self._numbers(metric, kind)
        if not self._wants(metric):
            return NOTHING
        return self._shares(metric, kind, categories)

    def _shares(
        self, metric: str, kind: Kind, categories: frozenset[type], vocabulary: Vocabulary | None = None, wanted: bool = True
    ) -> Shares:
        plan, part = self.plan, self.part

        def make(category: str) -> BinaryStream | None:
            return plan.binary(part, f"{metric}={category}", kind) if wanted else None

        mix = Mix(partial(plan.numeric_of, MixStream, part, metric, kind)) if wanted else None
        shares = Shares(make, categories, plan.settings, plan.desk.ledger, partial(self._before, metric), vocabulary, mix)
        shares.inherit()
        return shares

    def _before(self, metric: str) -> Shares | None:
        """The quantity of this name in the version to begin with, where it is categorical there too."""
        ancestor = self.plan.ancestor(self.part)
        before = None if ancestor is None else ancestor.signal(metric)
        return before if isinstance(before, Shares) else None

    def _numbers(self, metric: str, kind: Kind) -> Signal:
        stream = self.plan.numeric(self.part, metric, kind) if self._wants(metric) else None
        return NOTHING if stream is None else Numbers(stream)

    def _missing(self, name: str, numeric: bool = False) -> BinaryStream | Nothing:
        metric = f"missing:{shorten(name)}"
        return (self.plan.binary(self.part, metric, Kind.DATA_QUALITY) if self._wants(metric) else None) or NOTHING

    def _wants(self, metric: str) -> bool:
        return self.plan.wants(metric, self.part is not None)

    def _discover(self, name: str, value: Any) -> tuple[Signal, int] | None:
        """The signal of a feature that is new here, if there is room."""
        if type(value) not in CLASSES:
            return None
        if len(self.features) >= self.plan.settings.max_features:
            if self.part is None and _is_of_feature(self.plan.monitor.metrics, shorten(name)):
                self.plan.desk.count("features_refused")
            return None
        entry = self.features[name] = self._feature(name, type(value) in NUMBERS), self.records - 1
        return entry

    def _feature(self, name: str, numeric: bool) -> Signal:
        """`NOTHING` where nothing that is asked needs the value."""
        plan, part, name = self.plan, self.part, shorten(name)
        metric, kind = f"feature:{name}", Kind.DATA_DRIFT
        wanted, missing = self._wants(metric), self._wants(f"missing:{name}")
        settings, ledger = plan.settings, plan.desk.ledger
        if numeric:
            make = self._share(f"out_of_range:{name}")
            range_ = make and Range(make, settings.warmup, ledger)
            stream = plan.numeric(part, metric, kind) if wanted else NOTHING if range_ or missing else None
            return NOTHING if stream is None else Numbers(stream, range_)
        make = self._share(f"new_category:{name}")
        vocabulary = make and Vocabulary(make, settings.warmup, ledger)
        if not (wanted or vocabulary or missing):
            return NOTHING
        return self._shares(metric, kind, CATEGORIES, vocabulary, wanted)

    def _volume(self) -> Volume:
        few, many = (Rare(partial(self.plan.binary, None, metric, Kind.DATA_QUALITY), self.plan.desk.ledger) for metric in (FEW, MANY))
        return Volume(few, many)

    def _share(self, metric: str) -> Make | None:
        """What makes the stream of this share, if it is asked for."""
        return partial(self.plan.binary, self.part, metric, Kind.DATA_QUALITY) if self._wants(metric) else None

    def _note_missing(self, features: dict[str, Any], unit: int, time: int, offset: int) -> None:
        for name, (signal, born) in self.features.items():
            if signal is NOTHING:
                continue
            absent = type(features.get(name)) not in (NUMBERS if type(signal) is Numbers else CATEGORIES)
            stream = self.missing.get(name)
            if stream is None:
                if not absent:
                    continue
                stream = self.missing[name] = self._missing(name)
                if isinstance(stream, BinaryStream) and stream.compared is None:
                    self._prime(stream, name, born, time, offset)
            stream.push(1.0 if absent else 0.0, unit, time, offset)

    def _prime(self, stream: BinaryStream, name: str, born: int, time: int, offset: int) -> None:
        """Begins the stream of a feature that was never missing here; if there was a version to begin with, not there either."""
        zeros, since = self.records - 1 - born, self._age_at(born)
        ancestor = self.plan.ancestor(self.part)
        if ancestor is not None and name in ancestor.features and name not in ancestor.missing:
            began = ancestor.features[name][1]
            zeros, since = zeros + ancestor.records - began, ancestor._age_at(began)
            stream.compared = ancestor.plan.version
        stream.prime(zeros, since, time, offset)

    def _age_at(self, record: int) -> int:
        """About how old the ledger was at this record."""
        now = self.plan.desk.ledger.age
        return now - (now - self.since) * (self.records - record) // max(1, self.records)

    def state(self) -> Any:
        """Plain data."""
        return [
            self.since,
            self.records,
            self.judging.state(),
            _saved(self.score),
            _saved(self.prediction),
            _saved(self.latency),
            [[name, born, _saved(signal)] for name, (signal, born) in self.features.items()],
            [[name, _saved(stream)] for name, stream in self.missing.items()],
            self.coverage and self.coverage.state(),
            self.late and self.late.state(),
            self.conflicting and self.conflicting.state(),
            self.orphan and self.orphan.state(),
            self.volume and self.volume.state(),
        ]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.since, self.records, judging, score, prediction, latency, features, missing, *rest = state
        self.judging.restore(judging)
        self.score = _restored(score, lambda _: self._numbers("score", Kind.PREDICTION_DRIFT))
        self.prediction = _restored(prediction, lambda numeric: self._signal("prediction", Kind.PREDICTION_DRIFT, numeric, CLASSES))
        self.latency = _restored(latency, lambda _: self._numbers("latency", Kind.PERFORMANCE))
        for name, born, saved in features:
            self.features[name] = _restored(saved, partial(self._feature, name)), born
        for name, saved in missing:
            self.missing[name] = _restored(saved, partial(self._missing, name))
        for part, saved in zip((self.coverage, self.late, self.conflicting, self.orphan, self.volume), rest, strict=True):
            if part is not None:
                part.restore(saved)


def _saved(part: Any) -> Any:
    """None for what was not met yet, an empty list for `NOTHING`, else whether it is numeric, and its state."""
    return part if part is None else [] if part is NOTHING else [type(part) in (Numbers, NumericStream), part.state()]


def _restored(saved: Any, make: Callable[[bool], Any]) -> Any:
    if not saved:
        return None if saved is None else NOTHING
    part = make(saved[0])
    part.restore(saved[1])
    return part
