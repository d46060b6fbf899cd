"""One model version: its signals as a whole and per slice, its waiting outcomes, and whether it classifies or estimates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

from stream_monitor.core.alerting import Event
from stream_monitor.core.categories import shorten
from stream_monitor.core.coverage import Reading
from stream_monitor.core.events import Slice
from stream_monitor.core.fairness import Fairness
from stream_monitor.core.hashing import unit_of
from stream_monitor.core.judging import Judged, losses
from stream_monitor.core.maturity import LabelClock, Maturity
from stream_monitor.core.observations import Labelled, Predicted
from stream_monitor.core.outcome import Outcome
from stream_monitor.core.rare import Rare
from stream_monitor.core.service_levels import scope_class
from stream_monitor.core.settings import CROSS
from stream_monitor.core.signals import NUMBERS, Plan, Scope, Task, Watched, is_of_another_type, is_wrong

_LATE, _CONFLICTING = attrgetter("late"), attrgetter("conflicting")
UNDECIDED: Final = 100  # whole numbers as answers until they are taken for classes


class Version:
    """What arrives for a model version. `heard`: clock and offset when it was last heard of; `counts` is the monitor's."""

    def __init__(self, plan: Plan, labels: LabelClock, counts: dict[str, int]) -> None:
        settings, task = plan.settings, plan.monitor.task
        self.plan = plan
        self.counts = counts
        self.heard = (0, 0)
        self.task: Task | None = None if task == "auto" else task
        self.labels = 0  # outcomes that came
        self.previous: str | None = None  # the version that this one began as
        self.answers = 0  # whole numbers while the task is not known
        self.whole = scope_class(plan, None)(plan, None)
        self.slices: OrderedDict[tuple[str, str], Scope] = OrderedDict()  # the least recently seen first
        self.fairness = Fairness(plan) if plan.monitor.protected else None
        self.maturity = Maturity(settings.maturity_ms, settings.maturity_quantile, settings.maturity_sample, settings.max_waiting, labels)
        self.reading = Reading(self.maturity, plan.desk, settings.silent_ms)

    def begin_as(self, other: Version) -> None:
        """Begins with what is known of another version of the model: references, categories, how long labels take. From then on each
        of its signals and slices, as it is met, takes the reference of the same one there."""
        self.previous = other.plan.version
        self.task, self.answers = other.task, other.answers
        self.maturity.expect(other.maturity.wait)

    def scope(self, part: Slice | None) -> Scope | None:
        """The whole, or a slice that is watched."""
        return self.whole if part is None else self.slices.get((part.key, part.value))

    def predicted(self, prediction: dict[str, Any], time: int, offset: int) -> None:
        """A prediction was made."""
        if self.task is None:
            self._decide(prediction["prediction"])
        if not self.plan.free:
            return
        unit = unit_of(prediction["request_id"].encode())
        self.whole.predicted(prediction, self.task, unit, time, offset)
        if self.whole.coverage is not None:
            self.whole.coverage.made(time, offset, self.maturity.wait, self.reading)
        if self.plan.slices_free:
            for scope in self._scopes(prediction.get("slices")):
                scope.predicted(prediction, self.task, unit, time, offset)
                if scope.coverage is not None:
                    scope.coverage.made(time, offset, self.maturity.wait, self.reading)
        if self.fairness is not None and self.task == "classification":
            self.fairness.predicted(prediction, unit, time, offset)

    def answered(self, outcome: Outcome, labelled: int, origin: tuple[int, int]) -> int:
        """A label came, dated `labelled` (ms), by way of a partition of the journal. Answers how many outcomes became mature by it."""
        if self.task is None:
            self._decide(outcome.prediction)
        plan, maturity = self.plan, self.maturity
        ready = maturity.take(outcome, labelled, origin)
        if plan.covers and (wait := maturity.wait) and labelled - outcome.time <= wait:
            self._covered(outcome.time, outcome.slices)
        self.labels += 1
        if plan.late_in_slices or ((late := self.whole.late) is not None and late.stream is not None):
            self._came(_LATE, 0.0, outcome.request_id, outcome.slices, labelled, outcome.offset)
        if plan.conflicting_in_slices or ((conflicting := self.whole.conflicting) is not None and conflicting.stream is not None):
            self._came(_CONFLICTING, 0.0, outcome.request_id, outcome.slices, labelled, outcome.offset)
        for one in ready:
            self._judge(one)
        return len(ready)

    def late(self, request_id: str, slices: Mapping[str, Any] | None, labelled: int, offset: int) -> None:
        """A label came, dated `labelled` (ms), that was too late to be joined."""
        self._came(_LATE, 1.0, request_id, slices, labelled, offset)

    def conflicting(self, request_id: str, slices: Mapping[str, Any] | None, labelled: int, offset: int) -> None:
        """A label came, dated `labelled` (ms), that contradicts the one that had come; `slices` as far as they are known."""
        self._came(_CONFLICTING, 1.0, request_id, slices, labelled, offset)

    def cohort(self, since: int, labels: int, orphans: int, slices: Mapping[str, Any] | None, now: int, offset: int) -> None:
        """Of the labels that came in the slot of log time that began at `since` (ms), so many never met their prediction; `slices` as far
        as they are known. It is `now` in event time."""
        for scope in (self.whole, *self._known(slices)):
            if scope.orphan is not None:
                scope.orphan.take(since, labels, orphans, now, offset)

    def outcome(self, prediction: Predicted, feedback: Labelled, offset: int) -> Outcome:
        """What is kept of an outcome while it waits, as far as it is watched."""
        time, kept = prediction.timestamp, self.plan.kept_keys
        slices: Any = prediction.slices  # what was read field by field may have values that are no text
        if slices is not None and kept is not None:
            if (key := self.plan.kept_key) is not None:
                slices = {key: slices[key]} if key in slices else None
            else:
                slices = {key: value for key, value in slices.items() if key in kept} if kept else None
        if self.plan.judges_error_only:
            return Outcome(time, offset, prediction.prediction, feedback.label, prediction.request_id, slices or None)
        weight = prediction.weight if feedback.weight is None else feedback.weight
        return Outcome(
            time,
            offset,
            prediction.prediction,
            feedback.label,
            prediction.request_id,
            slices or None,
            feedback.timestamp - time,
            float(weight) if weight is not None and weight > 0 else None,  # the gate lets no other one in
            losses(prediction.scores, feedback.label),
        )

    def end(self, event: Event, offset: int) -> None:
        """Resolves every alert that fires."""
        for one in self.watched():
            one.end(event, offset)

    def scopes(self) -> Iterator[Scope]:
        """The whole, then each slice."""
        yield self.whole
        yield from self.slices.values()

    def _covered(self, time: int, slices: Mapping[str, Any] | None) -> None:
        """The prediction made at `time` has got its label in time."""
        if self.whole.coverage is not None:
            self.whole.coverage.labelled(time)
        if self.plan.covers_slices:
            for scope in self._known(slices):
                if scope.coverage is not None:
                    scope.coverage.labelled(time)

    def _came(
        self, share: Callable[[Scope], Rare | None], x: float, request_id: str, slices: Mapping[str, Any] | None, time: int, offset: int
    ) -> None:
        """A label came, which has what this `share` is of (1) or not (0)."""
        unit, whole, plan = unit_of(request_id.encode()), share(self.whole), self.plan
        if whole is not None:
            if whole.stream is None:
                whole.zeros = self.labels
            if x or whole.stream is not None:
                whole.push(x, unit, time, offset)
        if plan.late_in_slices if share is _LATE else plan.conflicting_in_slices:
            for scope in self._known(slices):
                if (rare := share(scope)) is not None:
                    rare.push(x, unit, time, offset)

    def _known(self, slices: Mapping[str, Any] | None) -> Iterator[Scope]:
        """The watched slices among these that have been met before, no more recently seen than they were."""
        for name in self._names(slices) if type(slices) is dict else ():
            scope = self.slices.get(name) or self.slices.get((shorten(name[0]), shorten(name[1])))
            if scope is not None:
                yield scope

    def watched(self) -> Iterator[Watched]:
        """All that has an alert, in an order that does not change."""
        for scope in self.scopes():
            yield from scope.watched()
        if self.fairness is not None:
            yield from self.fairness.watched()

    def _judge(self, outcome: Outcome) -> None:
        time, offset, prediction, label = outcome.time, outcome.offset, outcome.prediction, outcome.label
        if self.task is None:  # so what an error is, is not known either
            self._count("task_not_known")
            return
        numeric = self.task == "regression"
        error: float
        if not numeric:
            error = is_wrong(prediction, label)
            if error and is_of_another_type(prediction, label):
                self._count("labels_of_another_type")
        elif type(prediction) in NUMBERS and type(label) in NUMBERS:
            error = abs(float(prediction) - float(label))
        else:
            self._count("labels_of_another_type")
            return
        plan = self.plan
        error_only = plan.judges_error_only
        slices = outcome.slices
        unit = unit_of(outcome.request_id.encode()) if numeric or plan.reads_scores or not error_only else 0
        if error_only:  # then so do the slices
            self.whole.judging.error(error, numeric, unit, time, offset)
            if slices and plan.slices_judged:
                for scope in self._scopes(slices):
                    scope.judging.error(error, numeric, unit, time, offset)
            return
        wait, delay = self.maturity.wait, outcome.delay
        one = Judged(prediction, label, error, numeric, None if wait and delay > wait else delay, outcome.weight, outcome.losses)
        self.whole.judged(one, unit, time, offset)
        if slices and plan.slices_judged:
            for scope in self._scopes(slices):
                scope.judged(one, unit, time, offset)
        if self.fairness is not None:
            self.fairness.judged(one, slices, unit, time, offset)

    def _scopes(self, slices: Mapping[str, Any] | None) -> Iterator[Scope]:
        """The watched slices that a record belongs to; each is now the most recently seen."""
        if type(slices) is not dict:
            return
        known = self.slices
        for name in self._names(slices):
            scope = known.get(name)
            if scope is None:
                name = shorten(name[0]), shorten(name[1])
                scope = known.get(name) or self._admit(name)
                if scope is None:
                    continue
            known.move_to_end(name)
            yield scope

    def _names(self, slices: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The watched slices among these, then the crosses of two of them."""
        plan, names = self.plan, []
        every, keys = plan.all_slices, plan.single_keys
        for name in slices.items():
            if type(name[1]) is str and (every or name[0] in keys):
                names.append(name)  # a comprehension costs more for a few of them
        for a, b, cross in plan.crosses:
            one, other = slices.get(a), slices.get(b)
            if type(one) is str and type(other) is str:
                names.append((cross, f"{one}{CROSS}{other}"))
        return names

    def _admit(self, name: tuple[str, str]) -> Scope | None:
        limit = self.plan.settings.max_slices
        if limit < 1:
            return None
        if len(self.slices) >= limit:
            _, gone = self.slices.popitem(last=False)
            gone.end(Event.EVICTED, self.heard[1])  # not where the outcome lies that makes it go: that may have waited for long
            self.plan.room.release(gone.watched())
            self._count("slices_evicted")
        scope = self.slices[name] = scope_class(self.plan, Slice(*name))(self.plan, Slice(*name))
        return scope

    def _decide(self, answer: Any) -> None:
        """A JSON float means regression, text or a boolean classes; whole numbers are classes if nothing else comes."""
        if type(answer) is float:
            self.task = "regression"
        elif type(answer) is int:
            self.answers += 1
            self.task = "classification" if self.answers >= UNDECIDED else None
        else:
            self.task = "classification"

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def state(self, waiting: bool) -> Any:
        """Plain data; without the outcomes that wait unless `waiting`."""
        slices = [[list(name), scope.state()] for name, scope in self.slices.items()]
        return [
            list(self.heard),
            self.task,
            self.answers,
            self.labels,
            self.whole.state(),
            slices,
            self.maturity.state(waiting),
            self.fairness and self.fairness.state(),
            self.previous,
        ]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        heard, self.task, self.answers, self.labels, whole, slices, maturity, fairness, self.previous = state
        self.heard = heard[0], heard[1]
        self.whole.restore(whole)
        for name, saved in slices:
            key = Slice(*name)
            scope = self.slices[key] = scope_class(self.plan, key)(self.plan, key)
            scope.restore(saved)
        self.maturity.restore(maturity)
        if self.fairness is not None:
            self.fairness.restore(fairness)
