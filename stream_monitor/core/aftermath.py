"""What comes after an alarm: the episode of a stream, followed to its end, and what earlier episodes left behind.

    alarm --begin--> Episode --follow: each value, as the old reference sees it--> shape and size, told once --> back at its old level
                        `--settle: enough came to know the new level by-------> was the stream seen at it before?

While an alert lasts, means of values are held against the level before it (core/alerting.py `Episode`), and their course is traced until it
is clear what the change looks like (core/shape.py). When it is over, its level is remembered, so that one that recurs is known, and for
the subject's `cool_down` there is no other alert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import TYPE_CHECKING, Any

from stream_monitor.core.alerting import Desk, Episode, Event, Subject
from stream_monitor.core.effects import Counts
from stream_monitor.core.events import Alert, Kind, Severity
from stream_monitor.core.intervals import Blocks
from stream_monitor.core.shape import Shape, Trail

if TYPE_CHECKING:
    from stream_monitor.core.history import History
    from stream_monitor.core.laws import Law
    from stream_monitor.core.settings import DetectSettings

LEVELS = 4  # of earlier episodes that are remembered
FEW = 25  # values that say too little about a level


class Aftermath:
    """Of one stream. `levels`, of earlier episodes, the latest last: level, time, how many times, whether of the spread.

    `cool_until`: event time before which there is no other alert. `learned`: what else is known once enough was seen after an alarm, as
    details of the alert.
    """

    __slots__ = ("cool_until", "desk", "law", "learned", "levels", "resolve_means", "resolve_width", "subject")

    def __init__(self, subject: Subject, law: Law, settings: DetectSettings, desk: Desk) -> None:
        self.subject = subject
        self.law = law
        self.desk = desk
        self.resolve_means = settings.resolve_means
        self.resolve_width = settings.resolve_width
        self.cool_until = 0
        self.learned: Callable[[], Mapping[str, Any]] | None = None
        self.levels: list[list[Any]] = []

    @property
    def cooling(self) -> bool:
        """Whether the last episode is over too short a time ago."""
        return self.desk.clock < self.cool_until

    @property
    def compares(self) -> bool:
        """Whether it is a distribution that is watched, rather than how good the model is."""
        return self.subject.kind in (Kind.DATA_DRIFT, Kind.PREDICTION_DRIFT)

    def begin(self, alert: Alert, history: History, split: int, spread: bool, counts: Counts | None) -> Episode:
        """The episode of an alert about a change at the mark `split`. `counts`: what counts the values from now on, if anything."""
        before, after = history.variances(split) if spread else history.means(split)
        shift = after.value - before.value
        deviation = sqrt(2) * max(before.value, after.value) if spread else self.law.spread(history, split)
        # An alarm comes when luck makes the shift look large, the more so the fewer values: what is sure of it is less.
        sure = max(abs(shift) - 2 * deviation / sqrt(after.count), abs(shift) / 4)
        episode = Episode(alert, before.value, sure, deviation, self.resolve_width, spread)
        episode.pace = history.pace(split)
        episode.trail = Trail(history.blocks(spread), history.block(split), history.noise(split, spread))
        episode.counts = counts
        return episode

    def follow(self, episode: Episode, value: float, raw: float, time: int, offset: int, old: Any) -> bool:
        """Holds a value, as the reference `old` of before the alert sees it, against the level before, and traces what the change looks
        like. True where that level is back: the alert is resolved."""
        trail = episode.trail
        if trail is not None and trail.take(value, raw, time, offset):
            self._look_at(episode, trail, offset, old)
        if episode.follow(value, raw) < self.resolve_means:
            return False
        shape = None if episode.trail is None else episode.trail.shape(ended=True)
        self.desk.resolve(episode, Event.RECOVERED, episode.level(), offset, None if shape is None else _course(shape))
        return True

    def _look_at(self, episode: Episode, trail: Trail, offset: int, old: Any) -> None:
        """Says what the change looks like and how large it is without the luck of the alarm, if that is clear by now."""
        shape = trail.shape()
        if shape is None:
            return
        after = self.law.level_of(Blocks.of((block.size, block.raw) for block in shape.blocks), episode.spread)
        details, severity = _course(shape), None
        if shape.name != "blip":
            mean = sum(block.total for block in shape.blocks) / sum(block.size for block in shape.blocks)
            details["effect"] = self.law.effect(episode, mean)
            if self.learned is not None:
                details |= self.learned()
            severity = max(self.subject.severity(details["effect"]), episode.alert.severity, key=list(Severity).index)
            if self.compares and (apart := self.law.apart(episode, after, old)) is not None:
                details["effects"] = apart
        episode.trail = episode.counts = None
        self.desk.update(episode, offset, details, after, severity)

    def settle(self, episode: Episode, count: int, raw: float) -> dict[str, int] | None:
        """The new reference has `count` values with the sum `raw`, enough to know the level by. Since when and how many times, this one
        included, the stream was seen at it."""
        if episode.spread or count < FEW:
            return None
        level, told = raw / count, episode.alert
        if abs(level - told.before.value) < abs(told.after.value - told.before.value) / 3:
            return None  # it is on its way back
        episode.settled = level
        known = self._known(level, told.before.value, False)
        return {"since": known[1], "times": known[2] + 1} if known else None

    def leave(self, episode: Episode) -> None:
        """The episode is over, and the level that it had is remembered."""
        told, spread = episode.alert, episode.spread
        level = told.after.value if episode.settled is None else episode.settled
        known = self._known(level, told.before.value, spread)
        if known is not None:
            self.levels.remove(known)
            known = [level, known[1], known[2] + 1, spread]
        self.levels = [*self.levels, known or [level, told.first_seen, 1, spread]][-LEVELS:]
        self.cool_until = self.desk.clock + self.subject.cool_down

    def _known(self, level: float, before: float, spread: bool) -> list[Any] | None:
        """The level of an earlier episode that this one may be taken for: not further from it than a third of the shift."""
        near = [known for known in self.levels if known[3] == spread and abs(known[0] - level) <= abs(level - before) / 3]
        return min(near, key=lambda known: abs(known[0] - level), default=None)

    def state(self) -> Any:
        """Plain data."""
        return [self.cool_until, [list(known) for known in self.levels]]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.cool_until, self.levels = state


def _course(shape: Shape) -> dict[str, Any]:
    """A shape as details of an alert."""
    details: dict[str, Any] = {"shape": shape.name}
    if shape.begin is not None:
        times = {"begin": shape.begin[0], "end": shape.end and shape.end[0]}
        details["course"] = times | {"begin_offset": shape.begin[1], "end_offset": shape.end and shape.end[1]}
    return details
