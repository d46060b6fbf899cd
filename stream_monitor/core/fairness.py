"""Fairness: is a group, which a protected attribute names, treated worse than the rest?

    metric                what is compared, of a group and of all others                     also called          worse off is
    selection_rate        predictions: is it the favourable class?                           statistical parity   lower
    true_positive_rate    outcomes labelled favourable: were they predicted to be?           equal opportunity    lower
    false_positive_rate   outcomes not labelled favourable: were they predicted to be?       predictive equality  lower
    error                 outcomes: is the prediction wrong?                                 error parity         higher
    larger_error          outcomes that are numbers: is its error the larger one of a pair?  error parity         higher

    metric of the alert             what it says                                             watched by
    METRIC_gap, a drift             the difference, group - rest, is not what it was         a numeric stream (core/streams.py)
    METRIC_gap, a limit             the group is worse off by more than `fairness_limit`     a guard (core/guards.py)
    selection_rate_ratio, a limit   the ratio, group / rest, is below `disparate_impact`     a guard

For each, the values of the group and those of the rest are **paired in their order**, one of each: a pair (g, r) of bits is one value. A
level that moves for all is in both and cancels; and a limit of the difference, or of the ratio, of two means becomes one of a mean of
bounded values,

    mean of r - g <= limit         that of (1 + r - g)/2 is at most (1 + limit)/2
    mean of g >= ratio mean of r   that of (1 + ratio r - g)/(1 + ratio) is at most 1/(1 + ratio)

which the guard keeps to the budget by a theorem, whenever one looks, as long as the means of each pair keep to the limit. So pairs must be
near to each other in time: up to 4 values of the side that is ahead wait for the other, and the oldest go unpaired beyond that (a ninth
of the values, of two groups of one size). With 100, levels that swing daily by half of themselves raised 6 times the budget of false
alarms (benchmarks/detection/limits.py). The 95% interval of a gap or a ratio comes from one of 97.5% for each of the two rates.

Every alert tells both rates, since a gap alone does not say who moved: `group` and `rest` in the details, of the same pairs as `after`, and
those of a drift with what they were before.

Limits are one-sided, since of two groups the one is as far below as the other is above: an alert is about who is worse off. A group is
compared once it and the rest have `minimum_group` values each. Groups are those met first, at most `max_categories` of an attribute; more
of them count among the rest, and are counted by their values. What lacks the attribute is left out.

Numbers have no classes to wish for, and their errors no unit that a limit could be set in for all models; so of each pair it is asked whose
prediction is further from its label. Where the errors of both sides have one law, either is as often the one as the other, whatever that
law, and the difference is 0 (the probability of superiority: McGraw, Wong, 1992). `error` among `fairness_metrics` asks for it.

The favourable class is `favourable`; where it is not set, true and 1 are, and of text classes only the error is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import sqrt
from typing import Any, Final

from stream_monitor.core.alerting import Subject, Told, number, safe, since
from stream_monitor.core.betting import CONFIDENCE, interval
from stream_monitor.core.categories import category_of, shorten
from stream_monitor.core.events import Kind, Level, Slice
from stream_monitor.core.guards import Guard, Sums, guard
from stream_monitor.core.judging import Judged
from stream_monitor.core.metrics import called
from stream_monitor.core.settings import FAIRNESS_METRICS
from stream_monitor.core.signals import NUMBERS, Plan, Watched
from stream_monitor.core.tallied import TalliedStream, Tally

WAITING: Final = 4
BOTH: Final = 1 - (1 - CONFIDENCE) / 2  # of each of two intervals, for CONFIDENCE of both

LARGER_ERROR: Final = "larger_error"

_WORSE_ABOVE: Final = ("error", LARGER_ERROR)


class GapRule:
    """The group is worse off than the rest by at most `limit`. Told is group - rest; `a` counts the group's ones, `b` those of the rest."""

    def __init__(self, metric: str, limit: float) -> None:
        self.metric = f"{metric}_gap"
        self.of = metric
        self.higher = metric in _WORSE_ABOVE  # is worse
        self.limit = limit
        self.bound = (1 + limit) / 2
        self.text = f"{self.metric} <= {limit:g}" if self.higher else f"{self.metric} >= {-limit:g}"

    def guarded(self, g: int, r: int) -> float:
        return (1 + g - r if self.higher else 1 + r - g) / 2

    def level(self, sums: Sums) -> Level:
        return Level((sums.a - sums.b) / sums.n, sums.n)

    def tell(self, subject: Subject, sums: Sums, time: int) -> Told:
        sign = 1 if self.higher else -1
        (g, g_low, g_high), (r, r_low, r_high) = _rate(sums.n, sums.a), _rate(sums.n, sums.b)
        # Of a pair one error is the larger one, so its bits are no two draws: they are never both 1.
        variance = g + r - (g - r) ** 2 if self.of == LARGER_ERROR else g * (1 - g) + r * (1 - r)
        effect = (g - r - sign * self.limit) / sqrt(max(variance, 1e-9))
        bounds = [round(g_low - r_high, 4), round(g_high - r_low, 4)]
        said = f"difference {number(g - r)} {_shown(bounds)}, limit {number(sign * self.limit)}"
        return _told(subject, self.of, sums, time, said, self.text, sign * self.limit, bounds, effect)


class RatioRule:
    """The group is selected at least `limit` times as often as the rest. Told is group / rest; `a` and `b` as of `GapRule`."""

    def __init__(self, metric: str, limit: float) -> None:
        self.metric = f"{metric}_ratio"
        self.of = metric
        self.limit = limit
        self.bound = 1 / (1 + limit)
        self.text = f"{self.metric} >= {limit:g}"

    def guarded(self, g: int, r: int) -> float:
        return (1 + self.limit * r - g) / (1 + self.limit)

    def level(self, sums: Sums) -> Level:
        return Level(_ratio(sums.a, sums.b), sums.n)

    def tell(self, subject: Subject, sums: Sums, time: int) -> Told:
        limit = self.limit
        (g, g_low, g_high), (r, r_low, r_high) = _rate(sums.n, sums.a), _rate(sums.n, sums.b)
        effect = (g - limit * r) / sqrt(max(g * (1 - g) + limit * limit * r * (1 - r), 1e-9))
        bounds = [round(g_low / r_high, 4), round(g_high / max(r_low, 1e-4), 4)]
        said = f"ratio {number(_ratio(g, r))} {_shown(bounds)}, limit {number(limit)}"
        return _told(subject, self.of, sums, time, said, self.text, limit, bounds, effect)


class GapStream(TalliedStream):
    """The differences of pairs; the tally is the group's bit."""

    def pair(self, g: int, r: int, unit: int, time: int, offset: int) -> None:
        """A bit of the group and one of the rest. Otherwise as `push`."""
        self.take(float(g - r), (g,), unit, time, offset)

    def told(self, before: Tally, after: Tally) -> dict[str, Any]:
        (g, r), (was_g, was_r) = _rates(after), _rates(before)
        return {
            "group": {"value": g, "count": after.n, "before": {"value": was_g, "count": before.n}},
            "rest": {"value": r, "count": after.n, "before": {"value": was_r, "count": before.n}},
            "difference": round(g - r, 6),
            "ratio": round(_ratio(g, r), 6) if r else None,
            "ratio_before": round(_ratio(was_g, was_r), 6) if was_r else None,
        }


def _rates(tally: Tally) -> tuple[float, float]:
    """Of the group and of the rest."""
    [ones] = tally.sums
    return round(ones / tally.n, 6), round((ones - tally.raw) / tally.n, 6)


def _ratio(a: float, b: float) -> float:
    return a / b if b else 1.0 if not a else float("inf")


def _rate(n: int, ones: float) -> tuple[float, float, float]:
    return ones / n, *interval(n, ones, BOTH)


def _shown(bounds: list[float]) -> str:
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def _told(
    subject: Subject, metric: str, sums: Sums, time: int, said: str, rule: str, limit: float, bounds: list[float], effect: float
) -> Told:
    n, g, r = sums.n, sums.a / sums.n, sums.b / sums.n
    key, value = subject.slice or ("?", "?")
    group = f"{safe(subject.model)} {safe(subject.version)}: group {safe(key)}={safe(value)}"
    if metric == "selection_rate":
        rates = f"{group} is selected at {number(g)}, the rest at {number(r)}"
    else:
        rates = f"{group}: {called(metric)} is {number(g)}, that of the rest {number(r)}"
    details = {
        "rule": rule,
        "limit": limit,
        "interval": bounds,
        "confidence": CONFIDENCE,
        "group": {"value": g, "count": n},
        "rest": {"value": r, "count": n},
        "difference": round(g - r, 6),
        "ratio": round(_ratio(g, r), 6) if r else None,
    }
    return Told(f"{rates} ({said}; {n} pairs since {since(time)})", details, "up" if metric in _WORSE_ABOVE else "down", limit, effect)


class Comparison:
    """A group against the rest in one metric: who waits to be paired, and what watches over the pairs once there are enough values."""

    __slots__ = ("_plan", "begun", "group", "guards", "metric", "minimum", "own", "rest", "stream", "waiting", "waiting_own")

    def __init__(self, plan: Plan, group: Slice, metric: str) -> None:
        self._plan = plan
        self.group = group
        self.metric = metric
        self.minimum = plan.monitor.minimum_group
        self.own = self.rest = 0  # values seen, before they were compared
        self.begun = False
        self.waiting: deque[float] = deque(maxlen=WAITING)
        self.waiting_own = False  # whose they are
        self.stream: GapStream | None = None
        self.guards: list[tuple[GapRule | RatioRule, Guard | None]] = []

    def take(self, x: float, own: bool, unit: int, time: int, offset: int) -> None:
        """A bit of the group's `own`, or of the rest; the size of an error, where it is asked whose is the larger one."""
        if not self.begun:
            if own:
                self.own += 1
            else:
                self.rest += 1
            if self.own < self.minimum or self.rest < self.minimum:
                return
            self._begin()
        waiting = self.waiting
        if waiting and self.waiting_own is not own:
            other = waiting.popleft()
            self._pair(*((x, other) if own else (other, x)), unit, time, offset)
        else:
            self.waiting_own = own
            waiting.append(x)

    def _pair(self, own: float, other: float, unit: int, time: int, offset: int) -> None:
        g, r = (int(own > other), int(other > own)) if self.metric == LARGER_ERROR else (int(own), int(other))
        if self.stream is not None:
            self.stream.pair(g, r, unit, time, offset)
        for rule, known in self.guards:
            if known is not None:
                known.push(rule.guarded(g, r), g, r, time, offset)

    def _begin(self) -> None:
        self.begun = True
        self.stream = self._gap()
        self.guards = [(rule, self._guard(rule)) for rule in self._rules()]

    def _gap(self) -> GapStream | None:
        return self._plan.numeric_of(GapStream, self.group, f"{self.metric}_gap", Kind.FAIRNESS)

    def _guard(self, rule: GapRule | RatioRule) -> Guard | None:
        return guard(self._plan, self.group, rule.metric, Kind.FAIRNESS, rule)

    def _rules(self) -> list[GapRule | RatioRule]:
        metric, monitor = self.metric, self._plan.monitor
        rules: list[GapRule | RatioRule] = []
        if monitor.fairness_limit is not None:
            rules.append(GapRule(metric, monitor.fairness_limit))
        if monitor.disparate_impact is not None and metric == "selection_rate":
            rules.append(RatioRule(metric, monitor.disparate_impact))
        return rules

    def watched(self) -> Iterator[Watched]:
        if self.stream is not None:
            yield self.stream
        for _, known in self.guards:
            if known is not None:
                yield known

    def state(self) -> Any:
        """Plain data."""
        guards = [known and known.state() for _, known in self.guards]
        return [self.own, self.rest, self.begun, list(self.waiting), self.waiting_own, self.stream and self.stream.state(), guards]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.own, self.rest, self.begun, waiting, self.waiting_own, stream, guards = state
        self.waiting.extend(waiting)
        if not self.begun:
            return
        # What there was no room for is not made now either: it would take that of others.
        self.stream = None if stream is None else self._gap()
        if self.stream is not None:
            self.stream.restore(stream)
        self.guards = [(rule, saved and self._guard(rule)) for rule, saved in zip(self._rules(), guards, strict=True)]
        for (_, known), saved in zip(self.guards, guards, strict=True):
            if known is not None:
                known.restore(saved)


class Fairness:
    """All comparisons of a model version. Contract at the head of the module."""

    def __init__(self, plan: Plan) -> None:
        monitor = plan.monitor
        self._plan = plan
        self._limit = plan.settings.max_categories
        self._favourable = None if monitor.favourable is None else category_of(monitor.favourable)
        asked = tuple(metric for metric in FAIRNESS_METRICS if metric in monitor.fairness_metrics)
        self._metrics = (*asked, LARGER_ERROR) if "error" in asked else asked
        self._groups: dict[str, dict[str, dict[str, Comparison]]] = {key: {} for key in monitor.protected}  # key, value, metric

    def predicted(self, prediction: dict[str, Any], unit: int, time: int, offset: int) -> None:
        """Takes a prediction."""
        selected = self._is_favourable(prediction["prediction"])
        if selected is not None:
            self._take("selection_rate", selected, prediction.get("slices"), unit, time, offset)

    def judged(self, one: Judged, slices: Any, unit: int, time: int, offset: int) -> None:
        """Takes an outcome, and the slices that it belongs to."""
        if one.numeric:
            self._take(LARGER_ERROR, one.error, slices, unit, time, offset)
            return
        self._take("error", 1.0 if one.error else 0.0, slices, unit, time, offset)
        said, true = self._is_favourable(one.prediction), self._is_favourable(one.label)
        if said is not None and true is not None:
            self._take("true_positive_rate" if true else "false_positive_rate", said, slices, unit, time, offset)

    def _is_favourable(self, answer: Any) -> float | None:
        if self._favourable is not None:
            return 1.0 if category_of(answer) == self._favourable else 0.0
        return None if type(answer) is str else 1.0 if answer is True or (type(answer) in NUMBERS and answer == 1) else 0.0

    def _take(self, metric: str, x: float, slices: Any, unit: int, time: int, offset: int) -> None:
        if metric not in self._metrics or type(slices) is not dict:
            return
        for key, groups in self._groups.items():
            value = slices.get(key)
            if type(value) is not str:
                continue
            value = shorten(value)
            if value not in groups:
                if len(groups) < self._limit:
                    self._admit(key, value)
                else:
                    self._plan.desk.count("groups_refused")
            for name, comparisons in groups.items():
                comparisons[metric].take(x, name == value, unit, time, offset)

    def _admit(self, key: str, value: str) -> dict[str, Comparison]:
        group = Slice(shorten(key), value)
        comparisons = self._groups[key][value] = {metric: Comparison(self._plan, group, metric) for metric in self._metrics}
        return comparisons

    def watched(self) -> Iterator[Watched]:
        """All that has an alert, in an order that does not change."""
        for groups in self._groups.values():
            for comparisons in groups.values():
                for comparison in comparisons.values():
                    yield from comparison.watched()

    def state(self) -> Any:
        """Plain data."""
        return [
            [key, [[value, [one.state() for one in comparisons.values()]] for value, comparisons in groups.items()]]
            for key, groups in self._groups.items()
        ]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        for key, groups in state:
            for value, saved in groups:
                for comparison, one in zip(self._admit(key, value).values(), saved, strict=True):
                    comparison.restore(one)
