"""A stream: the values of one signal, what normal looks like for it, the detectors that watch it, its alert.

    value -> reference (core/reference.py) -> detectors -> change point -> alert (core/alerting.py)

Nothing alarms before `warmup` values. When a detector fires, the change point is sought over marks that the stream leaves behind
it every 25 values (thinned out with age), so it does not depend on the detector. A shift below the subject's `minimum_effect` only
resets the detector. Otherwise an alert fires, the old reference is put aside and the new level becomes the reference; while the
alert lasts, means of values are held against the old one, which comes back with the level.
"""

from __future__ import annotations

from array import array
from math import sqrt
from typing import Any

from stream_monitor.core.alerting import TRANSITIONS, Change, Desk, Episode, Event, State, Subject
from stream_monitor.core.detectors import create
from stream_monitor.core.events import Level
from stream_monitor.core.reference import Ranks, binary_score, mix
from stream_monitor.core.settings import DetectorSettings, DetectSettings

MARK_EVERY = 25
THIN_EVERY = 20  # marks
THIN_TO = 8
_WIDTH = 5  # numbers a mark: count, total, raw, time, offset

_PRIMING_STEP = 0x9E3779B97F4A7C15  # successive multiples spread evenly, as if they were hashes of request ids


class Stream:
    """What binary and numeric streams share. `push` is the way in.

    Since the reference began: `count` values with the sums `total` (of what detectors read) and `raw` (in the signal's units).
    """

    numeric: bool

    __slots__ = (
        "count", "desk", "detectors", "episode", "left", "marks", "old", "on_score", "on_value", "raw", "resolve_means",
        "resolve_width", "salt", "subject", "total", "warmup",
    )  # fmt: skip

    def __init__(self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk) -> None:
        self.subject = subject
        self.desk = desk
        self.salt = subject.salt
        self.warmup = settings.warmup
        self.resolve_means = settings.resolve_means
        self.resolve_width = settings.resolve_width
        self.detectors = [create(one) for one in detectors]
        self.count = 0
        self.total: float = 0
        self.raw: float = 0
        self.left = 0  # values until the next mark
        self.marks = array("d")
        self.episode: Episode | None = None
        self.old: Any = None  # the reference that the episode moved away from
        self._bind()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        """Takes the next value. `unit`: the record's hash; `time` (ms), `offset`: of its prediction and record."""
        raise NotImplementedError

    def end(self, event: Event, offset: int) -> None:
        """Resolves the alert that fires, if there is one, for a reason that does not lie in the values."""
        episode = self.episode
        if episode is not None:
            self.desk.resolve(episode, event, episode.level(), offset)
            self.episode, self.old = None, None

    def _bind(self) -> None:
        self.on_value = [(i, d.update) for i, d in enumerate(self.detectors) if d.reads == "value"]
        self.on_score = [(i, d.update) for i, d in enumerate(self.detectors) if d.reads == "score"]

    def _mark(self, time: int, offset: int) -> None:
        self.marks.extend((self.count, self.total, self.raw, time, offset))
        self.left = MARK_EVERY
        if self.count // MARK_EVERY % THIN_EVERY == 0:
            self._thin()

    def _thin(self) -> None:
        """Drops marks until their distance is about an eighth of their age: some 80 marks for a million values."""
        marks, now = self.marks, self.count
        kept = [len(marks) - _WIDTH]
        for i in range(kept[0] - _WIDTH, 0, -_WIDTH):
            newer = marks[kept[-1]]
            if (newer - marks[i - _WIDTH]) * THIN_TO > now - newer:
                kept.append(i)
        if kept[-1]:
            kept.append(0)
        thinned = array("d")
        for i in reversed(kept):
            thinned.extend(marks[i : i + _WIDTH])
        self.marks = thinned

    def _alarm(self, fired: list[int], offset: int) -> None:
        """Some detectors fired at this value."""
        detector = self.detectors[fired[0]]
        split = self._split() if self.count >= self.warmup else None
        change = None if split is None else self._change(split)
        if split is None or change is None or not abs(change.effect) >= self.subject.minimum_effect:
            for i in fired:
                self.detectors[i].reset()
            self._bind()
            return
        episode = self.episode
        transition = TRANSITIONS[State.NONE if episode is None else episode.state, Event.DRIFT]
        if transition.publish:
            before, after = self._means(split)
            alert = self.desk.fire(self.subject, change, detector, detector.evidence(before, after), offset)
            self.episode = Episode(alert, before.value, after.value - before.value, self._spread(split), self.resolve_width)
            self.old = self._put_aside(split)
        self._begin_again(split)
        self._forget()

    def _forget(self) -> None:
        """The reference is another one: marks and detectors begin anew."""
        self.left = 0
        self.marks = array("d")
        for detector in self.detectors:
            detector.reset()
        self._bind()

    def _split(self) -> int | None:
        """The mark at the most likely change point: the split of the past that sets the two means furthest apart."""
        best, split = -1.0, None
        marks, count, total = self.marks, self.count, self.total
        for i in range(0, len(marks), _WIDTH):
            before, after = marks[i], count - marks[i]
            if before >= 1 and after >= 1:
                gap = (total - marks[i + 1]) / after - marks[i + 1] / before
                evidence = gap * gap * before * after
                if evidence > best:
                    best, split = evidence, i
        return split

    def _means(self, split: int) -> tuple[Level, Level]:
        """Before and after the mark, in what detectors read."""
        before, total = self.marks[split], self.marks[split + 1]
        after = self.count - before
        return Level(total / before, int(before)), Level((self.total - total) / after, int(after))

    def _change(self, split: int) -> Change:
        old, new = self._means(split)
        raw, time, offset = self.marks[split + 2 : split + _WIDTH]
        before, after = Level(raw / old.count, old.count), Level((self.raw - raw) / new.count, new.count)
        return Change(before, after, (new.value - old.value) / self._deviation(split), int(time), int(offset))

    def _follow(self, value: float, raw: float, offset: int) -> None:
        """Holds a value, as the old reference sees it, against the level before the alert."""
        episode = self.episode
        if episode is None or episode.follow(value, raw) < self.resolve_means:
            return
        self.desk.resolve(episode, Event.RECOVERED, episode.level(), offset)
        self._take_up(self.old)
        self.episode, self.old = None, None
        self._forget()

    def _deviation(self, split: int) -> float:
        """The reference's standard deviation in what detectors read."""
        raise NotImplementedError

    def _spread(self, split: int) -> float:
        """The larger of the standard deviations of a value before and after the change."""
        return self._deviation(split)

    def _put_aside(self, split: int) -> Any:
        """The reference as it was before the change."""
        raise NotImplementedError

    def _begin_again(self, split: int) -> None:
        """Takes what came after the change as the reference."""
        raise NotImplementedError

    def _take_up(self, old: Any) -> None:
        """Takes a reference that was put aside as the reference again."""
        raise NotImplementedError

    def state(self) -> Any:
        """Plain data."""
        episode = None if self.episode is None else self.episode.saved()
        detectors = [d.state() for d in self.detectors]
        return [self.count, self.total, self.raw, self.left, list(self.marks), detectors, episode]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave; the stream is the same from then on."""
        self.count, self.total, self.raw, self.left, marks, detectors, episode = state[:7]
        self.marks = array("d", marks)
        for detector, saved in zip(self.detectors, detectors, strict=True):
            detector.restore(saved)
        self.episode = None if episode is None else Episode.restored(episode)
        self._bind()


class BinaryStream(Stream):
    """Values 0 and 1. Detectors that read values get them as they are, the others randomised normal scores under the running share."""

    numeric = False

    __slots__ = ()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        if not self.left:
            self._mark(time, offset)
        self.left -= 1
        count, total = self.count, self.total
        self.count = count + 1
        self.total = self.raw = total + x
        fired: list[int] | None = None
        for i, update in self.on_value:
            if update(x):
                fired = [i]
        if self.on_score:
            z = binary_score(x, count, total, mix(unit, self.salt))
            for i, update in self.on_score:
                if update(z):
                    fired = [*(fired or ()), i]
        if self.episode is not None:
            self._follow(x, x, offset)
        if fired:
            self._alarm(fired, offset)

    def seed(self, count: int, ones: int) -> None:
        """Begins with values that were only counted."""
        self.count, self.total, self.raw = count, ones, ones

    def prime(self, count: int, time: int, offset: int) -> None:
        """Begins with `count` zeros that nobody had to look at, the last of which the detectors see too."""
        seen = min(count, self.warmup)
        self.seed(count - seen, 0)
        for i in range(1, seen + 1):
            self.push(0, i * _PRIMING_STEP, time, offset)

    def _deviation(self, split: int) -> float:
        p = (self.marks[split + 1] + 0.5) / (self.marks[split] + 1)
        return sqrt(p * (1 - p))

    def _spread(self, split: int) -> float:
        after = self._means(split)[1].value
        return max(self._deviation(split), sqrt(after * (1 - after)))

    def _put_aside(self, split: int) -> Any:
        return [int(self.marks[split]), int(self.marks[split + 1])]

    def _begin_again(self, split: int) -> None:
        self.count -= int(self.marks[split])
        self.total = self.raw = self.total - int(self.marks[split + 1])

    def _take_up(self, old: Any) -> None:
        self.count, self.total = old
        self.raw = self.total

    def state(self) -> Any:
        return [*super().state(), self.old]

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.old = state[7]


class NumericStream(Stream):
    """Numbers of any law, as normal scores of their ranks: standard deviation 1. Levels are means in the signal's own units."""

    numeric = True

    __slots__ = ("ranks",)

    def __init__(self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk) -> None:
        super().__init__(subject, detectors, settings, desk)
        self.ranks = Ranks()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        if not self.left:
            self._mark(time, offset)
        self.left -= 1
        bits = mix(unit, self.salt)
        z = self.ranks.learn(x, bits)
        self.count += 1
        self.total += z
        self.raw += x
        fired: list[int] | None = None
        for i, update in self.on_value:
            if update(z):
                fired = [i]
        for i, update in self.on_score:
            if update(z):
                fired = [*(fired or ()), i]
        if self.episode is not None:
            self._follow(self.old[3].score(x, bits), x, offset)
        if fired:
            self._alarm(fired, offset)

    def _deviation(self, split: int) -> float:
        return 1.0

    def _put_aside(self, split: int) -> Any:
        # The ranks hold what came between the change and the alarm too: little beside what they knew before.
        return [self.count, self.total, self.raw, self.ranks]

    def _begin_again(self, split: int) -> None:
        self.count, self.total, self.raw, self.ranks = 0, 0, 0, Ranks()

    def _take_up(self, old: Any) -> None:
        self.count, self.total, self.raw, self.ranks = old

    def state(self) -> Any:
        old = self.old and [*self.old[:3], self.old[3].state()]
        return [*super().state(), old, self.ranks.state()]

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.old = state[7] and [*state[7][:3], Ranks.restored(state[7][3])]
        self.ranks = Ranks.restored(state[8])
