"""A guard: what watches over one limit, and fires while it is broken.

    value -> bets against the limit (core/betting.py) -> alert (core/alerting.py)
             budget (core/budget.py)

A limit is known, so there is no reference and no warm-up: a guard is judged, and owns a share of the budget, from its first value on.
False alarms are within the budget by a theorem, as long as the mean of the next value, given all before, keeps to the limit. Where
neighbours resemble each other (core/dependence.py, noticed over the first `warmup` values) that mean swings about the level, and a level
at its limit would be called broken now and then; so there each value counts for less. That is no longer proved, and the alert says so:
`calibrated`, with the autocorrelation.

- **Fires** once for all the time that the limit is broken. The alert tells the level over the values since the last moment at which nothing
  spoke for a broken limit, with an interval that holds at all times together. That moment is known when it comes, before the values
  that follow; so choosing when to look, and looking at an alarm, is allowed. From it to the alarm is the alert's `change`: where
  the evidence gathered, not an interval of confidence, since the limit may have been broken for longer.
- **Resolves** when `resolve_means` consecutive means are within the limit, each of `resolve_width` values, or of as many more (up to 20
  times) as make the breach two of their standard deviations. Then the bets begin anew; so what an operator resolves while the limit is
  broken fires again; not before the `cool_down` of its monitor is over, though, as with streams.

What a limit means, and how it is told, is the `Rule`'s: core/service_levels.py, and core/fairness.py for protected groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Any, NamedTuple, Protocol

from stream_monitor.core.alerting import MAX_WIDENING, Case, Change, Desk, Episode, Event, Subject, Told
from stream_monitor.core.betting import Bets
from stream_monitor.core.budget import Account
from stream_monitor.core.dependence import Probe
from stream_monitor.core.detectors import Assurance, Evidence
from stream_monitor.core.detectors.base import Parameter
from stream_monitor.core.events import Kind, Level, Slice, Span
from stream_monitor.core.hashing import digest_of
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.signals import Plan

EARLY = 200  # values after which a strong dependence (.21) is seen
ROUNDING = 1e-6  # of a sum of values: a level exactly at the limit is within it


class Sums(NamedTuple):
    """Values, and the sums of the one or two numbers in which they are told."""

    n: int
    a: float
    b: float

    def without(self, other: Sums) -> Sums:
        """Those that came after `other`."""
        return Sums(self.n - other.n, self.a - other.a, self.b - other.b)


class Rule(Protocol):
    """What a limit means. Guarded values lie in [0, 1], and their mean is to be at most `bound`."""

    bound: float
    text: str  # the limit as it is written; it tells the alert from others of the metric

    def level(self, sums: Sums) -> Level:
        """Their mean as it is told."""

    def tell(self, subject: Subject, sums: Sums, time: int) -> Told:
        """The limit is broken, by these values since `time` (ms)."""


class Guard:
    """Contract at the head of the module. A `Watched`, as streams are."""

    name = "limit"
    numeric = False
    warning: Case | None = None  # a limit is broken or it is not: there is no early notice of it

    __slots__ = (
        "_begun", "_good", "_mean", "_mean_sums", "_runs", "_seen", "account", "bets", "cool_until", "desk",
        "episode", "judged", "parameters", "probe", "resolve_means", "resolve_width", "rho", "rule", "subject",
    )  # fmt: skip

    _mean: float
    _mean_sums: Sums
    _runs: int
    _good: Sums

    def __init__(self, subject: Subject, rule: Rule, settings: DetectSettings, desk: Desk, weight: int = 1) -> None:
        slice_ = subject.slice or ()
        fingerprint = digest_of(subject.model, subject.version, *slice_, subject.metric, rule.text)  # 4 or 6 parts: a stream's has 3 or 5
        self.subject = replace(subject, fingerprint=fingerprint)
        self.rule = rule
        self.desk = desk
        self.parameters: Mapping[str, Parameter] = {"limit": rule.text}
        self.resolve_means = settings.resolve_means
        self.resolve_width = settings.resolve_width
        self.account = Account(desk.ledger, weight, 1)
        self.judged = False
        self.bets = Bets(rule.bound)
        self.probe: Probe | None = Probe(settings.warmup)
        self.rho = 0.0  # the autocorrelation of values that depend on each other
        self.episode: Episode | None = None
        self.cool_until = 0  # event time before which there is no other alert
        self._seen = Sums(0, 0.0, 0.0)  # since the last episode
        self._begun = (Sums(0, 0.0, 0.0), 0, 0)  # the same when nothing spoke for a broken limit last; time and offset of the next value
        self._reset_means()

    def push(self, x: float, a: float, b: float, time: int, offset: int) -> None:
        """A guarded value; `a` and `b`: as it is told. `time` (ms), `offset`: of its prediction and record."""
        seen = self._seen
        if not self.judged:
            self.account.join()
            self.judged = True
        if self.episode is not None:
            self.account.draw()  # what comes in while it fires is spent on nothing
            self._follow(self.episode, x, a, b, offset)
            return
        bets = self.bets
        if bets.fresh:
            self._begun = seen, time, offset
        self._seen = Sums(seen.n + 1, seen.a + a, seen.b + b)
        if bets.take(x, self.account.draw()):
            self._fire(time, offset)
        elif (probe := self.probe) is not None and (probe.take(x) or probe.count == EARLY):
            self._depend(probe)  # for the next value: what one is bet at is settled before it comes

    def end(self, event: Event, offset: int) -> None:
        """Resolves the alert that fires, if there is one, for a reason that does not lie in the values."""
        if self.episode is not None:
            self._resolve(self.episode, event, offset)

    def rest(self) -> None:
        """It has been silent: its share of the budget goes to the others until its next value."""
        self.account.leave()
        self.judged = False

    def _depend(self, probe: Probe) -> None:
        """The probe is complete, or has seen enough for a strong dependence; bets begin anew if values are to count for less."""
        self.rho = probe.autocorrelation()
        if self.rho or probe.left <= 0:
            self.probe = None
        if self.rho:
            self.bets.part = (1 - self.rho) / (1 + self.rho)
            self.bets.reset()

    @property
    def assurance(self) -> Assurance:
        """What backs its rate of false alarms."""
        return "calibrated" if self.rho else "guaranteed"

    def _fire(self, now: int, offset: int) -> None:
        rule, bets = self.rule, self.bets
        self.account.alarms += 1
        if self.desk.clock < self.cool_until:
            self.desk.cooled_down()
            bets.reset()
            return
        before, time, first = self._begun
        sums = self._seen.without(before)
        told = rule.tell(self.subject, sums, time)
        level, evidence = rule.level(sums), Evidence(bets.evidence, 1.0)
        span = Span(min(time, now), max(time, now), min(first, offset), max(first, offset))  # offsets are not in the order of times
        old = rule.level(before) if before.n else Level(told.limit, 0)
        change = Change(old, level, told.effect, time, first, span=span)
        alert = self.desk.fire(self.subject, change, self, self.assurance, evidence, offset, self.rho or None, told=told)
        deviation = sqrt(rule.bound * (1 - rule.bound))
        needed = (2 / told.effect) ** 2 / bets.part if told.effect else MAX_WIDENING * self.resolve_width
        width = max(self.resolve_width, int(min(needed, MAX_WIDENING * self.resolve_width)))
        self.episode = Episode(alert, rule.bound, told.effect * deviation, deviation, width)
        bets.reset()
        self._reset_means()

    def _follow(self, episode: Episode, x: float, a: float, b: float, offset: int) -> None:
        sums = self._mean_sums
        self._mean += x
        self._mean_sums = sums = Sums(sums.n + 1, sums.a + a, sums.b + b)
        if sums.n < episode.width:
            return
        if self._mean <= self.rule.bound * sums.n + ROUNDING:
            good = self._good
            self._runs, self._good = self._runs + 1, Sums(good.n + sums.n, good.a + sums.a, good.b + sums.b)
        else:
            self._runs, self._good = 0, Sums(0, 0.0, 0.0)
        self._mean, self._mean_sums = 0.0, Sums(0, 0.0, 0.0)
        if self._runs >= self.resolve_means:
            self._resolve(episode, Event.RECOVERED, offset)

    def _resolve(self, episode: Episode, event: Event, offset: int) -> None:
        sums = self._good if self._good.n else self._mean_sums
        level = self.rule.level(sums) if sums.n else episode.alert.after
        self.desk.resolve(episode, event, level, offset)
        self.cool_until = self.desk.clock + self.subject.cool_down
        self.episode = None
        self._seen = Sums(0, 0.0, 0.0)
        self._reset_means()

    def _reset_means(self) -> None:
        self._mean = 0.0  # sum of the guarded values of the mean that is being taken, and as they are told
        self._mean_sums = Sums(0, 0.0, 0.0)
        self._runs = 0  # consecutive means within the limit
        self._good = Sums(0, 0.0, 0.0)

    def state(self) -> Any:
        """Plain data."""
        begun, time, offset = self._begun
        return [
            self.account.state(), self.judged, self.bets.state(), self.episode and self.episode.saved(),
            list(self._seen), list(begun), time, offset, self._mean, list(self._mean_sums), self._runs, list(self._good),
            self.probe and self.probe.state(), self.rho, self.cool_until,
        ]  # fmt: skip

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        account, self.judged, bets, episode, seen, begun, time, offset, self._mean, mean, self._runs, good, *rest = state
        self.account.restore(account)
        self.bets.restore(bets)
        self.episode = None if episode is None else Episode.restored(episode)
        self._seen, self._begun = Sums(*seen), (Sums(*begun), time, offset)
        self._mean_sums, self._good = Sums(*mean), Sums(*good)
        probe, self.rho, self.cool_until = rest
        self.probe = None if probe is None else Probe.restored(probe)


def guard(plan: Plan, slice_: Slice | None, metric: str, kind: Kind, rule: Rule) -> Guard | None:
    """A new guard, or None where there are too many streams."""
    if not plan.room.take():
        return None
    return Guard(plan.subject(slice_, metric, kind), rule, plan.settings, plan.desk, plan.weight(slice_))
