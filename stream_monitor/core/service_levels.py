"""Service levels: the limits of a monitor (core/limits.py) as guards (core/guards.py) beside the signals of a model version and its slices.

A limit holds for all traffic of a version, and for each slice that `limit_slices` names. Its guard begins with the first value that says
something about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any

from stream_monitor.core.alerting import Subject, Told, about, number, since
from stream_monitor.core.betting import CONFIDENCE, interval
from stream_monitor.core.categories import shorten
from stream_monitor.core.events import Level, Slice
from stream_monitor.core.guards import Guard, Sums, guard
from stream_monitor.core.judging import Judged
from stream_monitor.core.limits import is_labelled, kind_of, reader, scale_of, written
from stream_monitor.core.settings import Limit
from stream_monitor.core.signals import Plan, Scope, Task, Watched, is_label_only


class LimitRule:
    """A service level (core/limits.py): told is the mean itself, or the share of values that keep to it."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.text = written(limit)
        self.scale = scale_of(limit)
        self.at_least = limit.at_least or limit.share is not None
        self.value = limit.value if limit.share is None else limit.share
        self.bound = 1 - self.value / self.scale if self.at_least else self.value / self.scale

    def clipped(self, value: float) -> float:
        """A value as it is told: what lies outside of the metric's range, as no scores should, counts as its end."""
        return min(max(value, 0.0), self.scale)

    def guarded(self, told: float) -> float:
        """The same on the side on which a mean above `bound` breaks the limit, in [0, 1]."""
        x = told / self.scale
        return 1.0 - x if self.at_least else x

    def level(self, sums: Sums) -> Level:
        return Level(sums.a / sums.n, sums.n)

    def tell(self, subject: Subject, sums: Sums, time: int) -> Told:
        limit, level = self.limit, self.level(sums).value
        low, high = (round(bound * self.scale, 4) for bound in interval(sums.n, sums.a / self.scale))
        effect = (level - self.value) / self.scale / sqrt(self.bound * (1 - self.bound))
        of = f"over {sums.n} {'labels' if is_labelled(limit) else 'predictions'} since {since(time)}"
        if limit.share is None:
            side = "below" if limit.at_least else "above"
            said = f"is {number(level)} [{number(low)}, {number(high)}], {side} the limit of {number(limit.value)} ({of})"
        else:
            keeps = f"at {'least' if limit.at_least else 'most'} {number(limit.value)}"
            said = f"is {keeps} for {_percent(level)} [{_percent(low)}, {_percent(high)}], the limit is {_percent(limit.share)} ({of})"
        details = {"rule": self.text, "limit": self.value, "interval": [low, high], "confidence": CONFIDENCE}
        return Told(f"{about(subject)} {said}", details, "down" if self.at_least else "up", self.value, effect)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


class LimitedScope(Scope):
    """A scope with limits beside its signals. `guards`: one for each limit once there was a value; None where there was no room."""

    __slots__ = ("_labelled", "_signals", "_unlabelled", "guards", "limits", "rules")

    def __init__(self, plan: Plan, slice_: Slice | None) -> None:
        super().__init__(plan, slice_)
        self.limits = plan.monitor.limits
        self.rules = [LimitRule(limit) for limit in self.limits]
        readers = [(i, reader(limit), is_labelled(limit)) for i, limit in enumerate(self.limits)]
        self._signals = not is_label_only(plan.monitor.metrics if slice_ is None else plan.monitor.slice_metrics)
        self._labelled = [(i, read) for i, read, labelled in readers if labelled]
        self._unlabelled = [(i, read) for i, read, labelled in readers if not labelled]
        self.guards: dict[int, Guard | None] = {}

    def predicted(self, prediction: dict[str, Any], task: Task | None, unit: int, time: int, offset: int) -> None:
        if self._signals:
            super().predicted(prediction, task, unit, time, offset)
        for i, read in self._unlabelled:
            value = read(prediction)
            if value is not None:
                self._take(i, value, time, offset)

    def judged(self, one: Judged, unit: int, time: int, offset: int) -> None:
        super().judged(one, unit, time, offset)
        for i, read in self._labelled:
            value = read(one)
            if value is not None:
                self._take(i, value, time, offset)

    def _take(self, i: int, value: float, time: int, offset: int) -> None:
        known = self.guards[i] if i in self.guards else self._begin(i)
        if known is not None:
            rule = self.rules[i]
            told = rule.clipped(value)
            known.push(rule.guarded(told), told, 0.0, time, offset)

    def _begin(self, i: int) -> Guard | None:
        limit = self.limits[i]
        made = self.guards[i] = guard(self.plan, self.part, shorten(limit.metric), kind_of(limit), self.rules[i])
        return made

    def watched(self) -> Iterator[Watched]:
        yield from super().streams()
        yield from (known for known in self.guards.values() if known is not None)

    def state(self) -> Any:
        return [super().state(), [[i, known and known.state()] for i, known in self.guards.items()]]

    def restore(self, state: Any) -> None:
        super().restore(state[0])
        for i, saved in state[1]:
            self.guards[i] = None
            if saved is not None and (made := self._begin(i)):
                made.restore(saved)


def scope_class(plan: Plan, slice_: Slice | None) -> type[Scope]:
    """With limits where they are set; without, nothing is spent on them."""
    monitor = plan.monitor
    if not monitor.limits:
        return Scope
    name = slice_ and f"{slice_.key}={slice_.value}"
    return LimitedScope if name is None or any(fnmatchcase(name, pattern) for pattern in monitor.limit_slices) else Scope
