"""A stream: the values of one signal, what normal looks like for it, the detectors that watch it, its alert.

    value -> reference (core/reference.py) -> detectors -> change point -> alert (core/alerting.py)
                                              budget (core/budget.py)

Nothing alarms before `warmup` values; from then on a stream is judged, and owns a share of the budget. Detectors that want a threshold get
it from the share and the rate of values, anew each day of event time; values that depend on each other are replaced by what their
past leaves open (core/dependence.py). When a detector fires, the change point is sought over marks that the stream leaves behind
it every 25 values (thinned out with age), so it does not depend on the detector. A shift below the subject's `minimum_effect` only
resets the detector. Otherwise an alert fires, the old reference is put aside and the new level becomes the reference; while the
alert lasts, means of values are held against the old one, which comes back with the level.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import pairwise
from math import inf, sqrt
from typing import Any, NamedTuple

from stream_monitor.core import intervals
from stream_monitor.core.alerting import TRANSITIONS, Change, Desk, Episode, Event, State, Subject
from stream_monitor.core.budget import Account
from stream_monitor.core.change import likely, of_bits, of_shift, of_spread
from stream_monitor.core.dependence import Past, Probe
from stream_monitor.core.detectors import Assurance, Detector, EDetector, create
from stream_monitor.core.effects import BINS, Counts, of_shares
from stream_monitor.core.events import Kind, Level, Severity, Span
from stream_monitor.core.intervals import LUCK, Blocks
from stream_monitor.core.reference import Ranks, binary_score, mix
from stream_monitor.core.settings import DAY, HOUR, DetectorSettings, DetectSettings
from stream_monitor.core.shape import Block, Shape, Trail

MARK_EVERY = 25
THIN_EVERY = 20  # marks
THIN_TO = 8
LEVELS = 4  # of earlier episodes that are remembered
_WIDTH = 6  # numbers a mark: count, total, raw, time, offset, squares

QUICK = 8  # values after a change that hardly any alarm comes before
FEW = 25  # values that say too little about a rate
REMEMBERED = 0.8  # of what the looks before counted
LONGEST_RUN = 1e15  # values for one false alarm: longer is no different

_PRIMING_STEP = 0x9E3779B97F4A7C15  # successive multiples spread evenly, as if they were hashes of request ids


class Around(NamedTuple):
    """A stream before and after a moment: levels in the signal's own units, `effect` in standard deviations of what detectors read.

    `rate`: values a millisecond before it.
    """

    before: Level
    after: Level
    effect: float
    rate: float


class Stream:
    """What binary and numeric streams share. `push` is the way in.

    Since the reference began: `count` values with the sums `total` (of what detectors read), `squares` (of that) and `raw` (in the
    signal's units).
    `held` values with the sum `held_sum` wait for the e-detector to look at them; `e` is None while there is none that may look.
    """

    numeric: bool
    mark_every = MARK_EVERY

    __slots__ = (
        "account", "compared", "cool_until", "count", "desk", "detectors", "e", "e_at", "episode", "explain", "held", "held_squares",
        "held_sum", "judged", "left", "levels", "marks", "memory", "old", "on_bit", "on_score", "on_value", "past", "probe", "raw",
        "renew_at", "resolve_means", "resolve_width", "salt", "since", "since_count", "since_level", "squares", "subject", "total",
        "warmup",
    )  # fmt: skip

    def __init__(
        self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk, weight: int = 1
    ) -> None:
        self.subject = subject
        self.desk = desk
        self.salt = subject.salt
        self.warmup = settings.warmup
        self.resolve_means = settings.resolve_means
        self.resolve_width = settings.resolve_width
        self.detectors = [create(one) for one in detectors]
        self.account = Account(desk.ledger, weight, sum(d.budgeted for d in self.detectors))
        self.judged = False
        self.e: EDetector | None = None
        self.e_at = next((i for i, d in enumerate(self.detectors) if isinstance(d, EDetector) and d.budgeted), None)
        self.held = 0
        self.held_sum: float = 0
        self.held_squares = 0.0
        self.probe: Probe | None = Probe(settings.warmup)
        self.past: Past | None = None
        self.renew_at = 0  # age of the ledger from which on thresholds are due for renewal
        self.since = desk.ledger.age  # age of the ledger when counting for them began, at which `count`, and at which level
        self.since_count = 0
        self.memory = [0.0, 0.0]  # values, and the budget that came in with them, in the days before
        self.since_level = desk.ledger.level
        self.count = 0
        self.total: float = 0
        self.squares = 0.0
        self.raw: float = 0
        self.left = 0  # values until the next mark
        self.marks = array("d")
        self.compared: str | None = None  # the version whose reference this one began with
        self.episode: Episode | None = None
        self.explain: Callable[[int], Mapping[str, Any]] | None = None  # what else its alerts can say of a change at this time (ms)
        self.old: Any = None  # the reference that the episode moved away from
        self.cool_until = 0  # event time before which there is no other alert
        self.levels: list[list[Any]] = []  # of episodes before: level, time, how many times, whether of the spread; the latest last
        self._bind()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        """Takes the next value. `unit`: the record's hash; `time` (ms), `offset`: of its prediction and record."""
        raise NotImplementedError

    def end(self, event: Event, offset: int) -> None:
        """Resolves the alert that fires, if there is one, for a reason that does not lie in the values."""
        episode = self.episode
        if episode is not None:
            self.desk.resolve(episode, event, episode.level(), offset)
            self._leave(episode)
            self.compared = None  # the new level is what is normal from now on

    def inherit(self, other: Stream, version: str) -> None:
        """Begins with what is normal for the same signal of another version, `version`, and what was found about its values: the
        warm-up is skipped. Where an alert fires there, with the reference from before it. Nothing, where there is too little to go by.

        Detectors go on from what they had seen there, but for the e-detector: the evidence that it has is paid for once. Where an alert
        fires there, they have seen another level, so they begin anew, and it is the e-detector that compares.
        """
        alone = other.episode is None
        reference = other._reference() if alone else other.old
        if reference[0] < self.warmup or (other.past is not None and not alone):  # that past is the new level's
            return
        self.compared = version
        self._take_up(deepcopy(reference))
        self.probe = other.probe and Probe.restored(deepcopy(other.probe.state()))
        self.past = other.past and Past.restored(deepcopy(other.past.state()))
        self.memory = list(other.memory)
        for mine, theirs in zip(self.detectors, other.detectors, strict=True):
            if isinstance(mine, EDetector):
                continue
            if alone:
                mine.restore(deepcopy(theirs.state()))
            elif mine.budgeted and self.memory[1] > 0:
                mine.retune(min(self.memory[0] / self.memory[1], LONGEST_RUN), self._share())
        self._bind()
        self.since_count = self.count
        self._judge()
        self.renew_at = self.account.ledger.age + HOUR  # how many values this version gets is not known yet

    def around(self, time: int) -> Around | None:
        """The levels before and since `time` (ms), as well as marks tell; None where nothing is known of one of them.

        A value between two marks counts as one before or after by its time, so what is told is some 25 values wide. While an alert
        fires, its change is the moment, whatever the time.
        """
        episode = self.episode
        if episode is not None:
            count, raw = episode.since(self.count, self.raw)
            fired = episode.alert
            return Around(fired.before, Level(raw / count, count), fired.details.get("effect", 0.0), episode.pace) if count else None
        marks = self.marks
        at = len(marks) - _WIDTH
        while at >= 0 and marks[at + 3] > time:
            at -= _WIDTH
        if at < 0:
            return None
        last = at + _WIDTH == len(marks)
        end, then = (self.count, self.desk.clock) if last else (marks[at + _WIDTH], marks[at + _WIDTH + 3])
        part = (time - marks[at + 3]) / (then - marks[at + 3]) if then > marks[at + 3] else 1.0
        inside = int(min(max(part, 0.0), 1.0) * (end - marks[at]))  # of those between the marks, at the level before
        n = int(marks[at])
        before, after = n + inside, self.count - n - inside
        if not n or not after:
            return None
        old, level = marks[at + 1] / n, marks[at + 2] / n
        new, now = (self.total - marks[at + 1] - inside * old) / after, (self.raw - marks[at + 2] - inside * level) / after
        rate = (before - marks[0]) / max(1.0, time - marks[3])
        return Around(Level(level, before), Level(now, after), (new - old) / self._deviation(at), rate)

    def settle(self) -> dict[str, int] | None:
        """Enough came since the alarm to know the level by. Since when and how many times, this one included, the stream was seen at it."""
        episode = self.episode
        if episode is None or episode.spread or self.count < FEW:
            return None
        level, told = self.raw / self.count, episode.alert
        if abs(level - told.before.value) < abs(told.after.value - told.before.value) / 3:
            return None  # it is on its way back
        episode.settled = level
        known = self._known(level, told.before.value, False)
        return {"since": known[1], "times": known[2] + 1} if known else None

    def evidence(self) -> float:
        """The e-value of a change since the e-detector last fired: its evidence over the budget that the stream received; 0 for none.

        Of the stream's whole life, which is more than since then: too small rather than too large.
        """
        account = self.account
        received = account.received * account.portion / account.weight if account.weight else 0.0
        return sum(self.e.m) / received if self.e is not None and received > 0 else 0.0

    def rest(self) -> None:
        """It has been silent: its share of the budget goes to the others until its next value."""
        self.account.leave()
        self._pause()

    def _bind(self) -> None:
        others = [(i, d) for i, d in enumerate(self.detectors) if i != self.e_at]
        self.on_value = [(i, d.update) for i, d in others if d.reads == "value"]
        self.on_score = [(i, d.update) for i, d in others if d.reads == "score"]
        self.on_bit = [(i, d.update) for i, d in others if d.reads == "bit"]

    def _judge(self) -> None:
        """The warm-up is over: from the next value on alarms count, and a share of the budget comes in."""
        account = self.account
        self.judged = True
        account.forfeit() if account.joined else account.join()
        if self.e_at is not None:
            self.e = self.detectors[self.e_at]  # type: ignore[assignment]
        if self.count - self.since_count >= FEW:
            self._retune(account.expected(account.ledger.age - self.since))
        else:  # it was away: the thresholds of before are the best guess
            self.since, self.since_count, self.since_level = account.ledger.age, self.count, account.ledger.level
            self.renew_at = account.ledger.age + DAY

    def _pause(self) -> None:
        """Not judged until `_judge`."""
        ledger = self.account.ledger
        self.judged, self.e = False, None
        self.held, self.held_sum, self.held_squares = 0, 0, 0.0
        self.since, self.since_count, self.since_level = ledger.age, self.count, ledger.level

    def _retune(self, budget: float) -> None:
        """Thresholds for one false alarm in as many values as come for a budget of one: since the counting began, or in the days before,
        whichever is more, since bursts make a single day a poor guess."""
        values = self.count - self.since_count
        ledger = self.account.ledger
        # The first look at the rate is a short one, so the second comes soon; then each is twice as long as the one before, up to a day.
        self.renew_at = ledger.age + min(DAY, 2 * (ledger.age - self.since))
        if values < FEW:
            return
        self.since, self.since_count, self.since_level = ledger.age, self.count, ledger.level
        memory = self.memory
        memory[:] = memory[0] * REMEMBERED + values, memory[1] * REMEMBERED + budget
        run_length = LONGEST_RUN
        if budget > 0:
            run_length = min(max(values / budget, memory[0] / memory[1]), LONGEST_RUN)
        for detector in self.detectors:
            if detector.budgeted:
                detector.retune(run_length, self._share())
        self._bind()

    def _share(self) -> float | None:
        """The share of ones where detectors that read values read bits, else None: they read normal scores."""
        return None

    def _mark(self, time: int, offset: int) -> None:
        if self.judged:
            account = self.account
            if self.e is None:
                account.draw()  # so that it is seen to be alive
            if account.ledger.age >= self.renew_at:
                self._retune((account.ledger.level - self.since_level) * account.portion)
        self.marks.extend((self.count, self.total, self.raw, time, offset, self.squares))
        self.left = self.mark_every
        if self.count // self.mark_every % THIN_EVERY == 0:
            self._thin()

    def _marked(self) -> list[int]:
        """How many values there were at each mark."""
        return [int(count) for count in self.marks[::_WIDTH]]

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

    def _alarm(self, fired: list[int], time: int, offset: int) -> None:
        """Some detectors fired at this value."""
        detector = self.detectors[fired[0]]
        spread = self.count >= self.warmup and self._is_spread(fired)
        split = self._split(spread) if self.count >= self.warmup else None
        if self.judged:
            self.account.alarms += 1
        change = None if split is None else self._change(split, spread, time, offset)
        cooling = self.episode is None and self.desk.clock < self.cool_until
        if split is None or change is None or not abs(change.effect) >= self.subject.minimum_effect or cooling:
            if cooling and change is not None:
                self.desk.cooled_down()
            for i in fired:
                self.detectors[i].reset()
            self._bind()
            return
        episode = self.episode
        count, raw = self.count, self.raw  # of these, since the change that is told
        transition = TRANSITIONS[State.NONE if episode is None else episode.state, Event.DRIFT]
        if transition.publish:
            before, after = self._variances(split) if spread else self._means(split)
            rho = None if self.past is None else self.past.rho
            more = dict(self._more(split))
            if self.compared is not None:
                more["reference"] = f"version {self.compared}"
            evidence = detector.evidence(before, after)
            alert = self.desk.fire(self.subject, change, detector, self._assurance(detector), evidence, offset, rho, more)
            shift = after.value - before.value
            deviation = sqrt(2) * max(before.value, after.value) if spread else self._spread(split)
            # An alarm comes when luck makes the shift look large, the more so the fewer values: what is sure of it is less.
            sure = max(abs(shift) - 2 * deviation / sqrt(after.count), abs(shift) / 4)
            self.episode = Episode(alert, before.value, sure, deviation, self.resolve_width, spread)
            self.episode.pace = (self.marks[split] - self.marks[0]) / max(1.0, self.marks[split + 3] - self.marks[3])
            self.episode.trail = Trail(self._blocks(spread), 1 + split // _WIDTH, self._noise(split, spread))
            self.episode.counts = self._counting()
            self.old = self._put_aside(split)
            count, raw = count - int(self.marks[split]), raw - self.marks[split + 2]
            self.desk.due.append((self, True))
        self._begin_again(split)
        if self.episode is not None:
            self.episode.let_go(count - self.count, raw - self.raw)
        self._forget()

    def _more(self, split: int) -> Mapping[str, Any]:
        """What else the alert about a change at the mark `split` says, as details."""
        return {} if self.explain is None else self.explain(int(self.marks[split + 3]))

    def _learned(self) -> Mapping[str, Any]:
        """What it says once enough was seen after the alarm: of the values since then."""
        return {}

    def _forget(self) -> None:
        """The reference is another one: marks and detectors begin anew."""
        self.left = 0
        self.marks = array("d")
        for detector in self.detectors:
            detector.reset()
        if self.past is not None:
            self.past.forget()
        self._pause()
        self._bind()

    def _assurance(self, detector: Detector) -> Assurance:
        """What backs this detector's rate of false alarms here."""
        proved = detector.assurance == "guaranteed" and self.past is None and self._exact()
        return "calibrated" if detector.assurance == "guaranteed" and not proved else detector.assurance

    def _exact(self) -> bool:
        """Whether what the e-detector reads has a known law, not only a simulated one."""
        return False

    def _depend(self, rho: float) -> None:
        """The probe is complete; detectors begin anew if they are to read something else from now on."""
        self.probe = None
        if rho:
            self.past = Past(rho)
            for detector in self.detectors:
                detector.reset()
            self._bind()

    def _is_spread(self, fired: list[int]) -> bool:
        """Whether it is a change of the spread rather than of the mean."""
        return False

    def _evidence(self, spread: bool) -> list[float]:
        """Of a change at each mark (core/change.py). The first mark may have nothing before it."""
        marks, count, total, squares = self.marks, self.count, self.total, self.squares
        places = [i for i in range(0, len(marks), _WIDTH) if marks[i] < count]
        if spread:
            found = [of_spread(count - marks[i], squares - marks[i + 5]) for i in places]
        else:
            found = [self._likelihood(marks[i], marks[i + 1]) + self._likelihood(count - marks[i], total - marks[i + 1]) for i in places]
        if self.past is not None:  # so much less do values say that depend on each other
            factor = (1 - self.past.rho) / (1 + self.past.rho)
            found = [one * factor for one in found]
        return [-inf if marks[i] < 1 else one for i, one in zip(places, found, strict=True)]

    def _split(self, spread: bool) -> int | None:
        """The mark at the most likely change point."""
        evidence = self._evidence(spread)
        best = max(evidence, default=-inf)
        return None if best == -inf else evidence.index(best) * _WIDTH

    def _span(self, spread: bool, time: int, offset: int) -> Span:
        """Where the change began with 90% confidence; `time` and `offset` are of the value that came last."""
        marks, evidence = self.marks, self._evidence(spread)
        low, high = likely(marks[: len(evidence) * _WIDTH : _WIDTH], evidence, self.count)
        part = marks[low * _WIDTH : (high + 1) * _WIDTH]
        times, offsets = [*map(int, part[3::_WIDTH])], [*map(int, part[4::_WIDTH])]
        if high * _WIDTH >= len(marks):
            times.append(time)
            offsets.append(offset)
        return Span(min(times), max(times), min(offsets), max(offsets))

    def _means(self, split: int) -> tuple[Level, Level]:
        """Before and after the mark, in what detectors read."""
        before, total = self.marks[split], self.marks[split + 1]
        after = self.count - before
        return Level(total / before, int(before)), Level((self.total - total) / after, int(after))

    def _variances(self, split: int) -> tuple[Level, Level]:
        """The same of the squares: normal scores have mean 0, so this is their variance."""
        before, squares = self.marks[split], self.marks[split + 5]
        after = self.count - before
        return Level(squares / before, int(before)), Level((self.squares - squares) / after, int(after))

    def _change(self, split: int, spread: bool, now: int, at: int) -> Change:
        """The change at the mark `split`, as it looks at the value dated `now` at offset `at`."""
        time, offset = self.marks[split + 3 : split + 5]
        span = self._span(spread, now, at)
        if spread:
            before, after = self._variances(split)
            old = intervals.of_spread(sqrt(before.value), before.count)
            new = intervals.of_spread(sqrt(after.value), after.count, LUCK)
            return Change(old, new, new.value / max(old.value, 1e-9) - 1, int(time), int(offset), True, span)
        old, new = self._means(split)
        before, after = self._levels(split)
        after = intervals.mixed(before, after, self._strangers(split))
        return Change(before, after, (new.value - old.value) / self._deviation(split), int(time), int(offset), False, span)

    def _strangers(self, split: int) -> int:
        """How many of the values since the mark may have come before the change: half the way to the next mark, or all but few."""
        marks, following = self.marks, split + _WIDTH
        since = int((marks[following] if following < len(marks) else self.count) - marks[split])
        return since // 2 if following < len(marks) else max(0, since - QUICK)

    def _levels(self, split: int) -> tuple[Level, Level]:
        """Before and after the mark, in the signal's units, with their intervals."""
        raise NotImplementedError

    def _blocks(self, spread: bool) -> list[Block]:
        """The values before the first mark, between the marks, and since the last one; of the squares if it is the `spread` that changed.

        What came before the first mark is mostly nothing: a version that began as another one inherited it.
        """
        end = (self.count, self.total, self.raw, 0, 0, self.squares)
        marks = [(0, 0, 0, *self.marks[3:5], 0), *zip(*(iter(self.marks),) * _WIDTH, strict=True), end]
        value, raw = (5, 5) if spread else (1, 2)
        return [Block(b[0] - a[0], b[value] - a[value], b[raw] - a[raw], a[3], a[4]) for a, b in pairwise(marks)]

    def _noise(self, split: int, spread: bool) -> tuple[float, float]:
        """The variances of what detectors read, before and after; of its squares if it is the spread that changed."""
        if spread:
            return 2.0, 2 * self._variances(split)[1].value ** 2
        return self._deviation(split) ** 2, self._spread(split) ** 2

    def _follow(self, value: float, raw: float, time: int, offset: int) -> None:
        """Holds a value, as the old reference sees it, against the level before the alert, and traces what the change looks like."""
        episode = self.episode
        if episode is None:
            return
        trail = episode.trail
        if trail is not None and trail.take(value, raw, time, offset):
            self._look_at(episode, trail, offset)
        episode.left -= 1
        if not episode.left:
            self.desk.due.append((self, False))
        if episode.follow(value, raw) < self.resolve_means:
            return
        shape = None if episode.trail is None else episode.trail.shape(ended=True)
        self.desk.resolve(episode, Event.RECOVERED, episode.level(), offset, None if shape is None else _course(shape))
        old = self.old
        self._leave(episode)
        self._take_up(old)
        self._forget()

    def _look_at(self, episode: Episode, trail: Trail, offset: int) -> None:
        """Says what the change looks like and how large it is without the luck of the alarm, if that is clear by now."""
        shape = trail.shape()
        if shape is None:
            return
        after = self._level_of(Blocks.of((block.size, block.raw) for block in shape.blocks), episode.spread)
        details, severity = _course(shape), None
        if shape.name != "blip":
            mean = sum(block.total for block in shape.blocks) / sum(block.size for block in shape.blocks)
            details["effect"] = effect = self._effect(episode, mean)
            severity = max(self.subject.severity(effect), episode.alert.severity, key=list(Severity).index)
            details |= self._learned()
            if self._compares() and (apart := self._apart(episode, after)) is not None:
                details["effects"] = apart
        episode.trail = episode.counts = None
        self.desk.update(episode, offset, details, after, severity)

    def _compares(self) -> bool:
        """Whether it is a distribution that is watched, rather than how good the model is."""
        return self.subject.kind in (Kind.DATA_DRIFT, Kind.PREDICTION_DRIFT)

    def _counting(self) -> Counts | None:
        """What counts the values after an alarm by where in the reference they lie."""
        return None

    def _apart(self, episode: Episode, after: Level) -> dict[str, Any] | None:
        """How far the values after the alarm are from the reference (core/effects.py), if there are enough."""
        raise NotImplementedError

    def _effect(self, episode: Episode, mean: float) -> float:
        """The change to this mean of what is followed, in standard deviations of the reference; of a spread the relative change."""
        return sqrt(mean / max(episode.center, 1e-9)) - 1 if episode.spread else mean - episode.center

    def _level_of(self, blocks: Blocks, spread: bool) -> Level:
        """The level of values that came after the alarm, with its interval."""
        if spread:
            return intervals.of_spread(sqrt(blocks.mean), blocks.count)
        return intervals.of_mean(blocks)

    def _leave(self, episode: Episode) -> None:
        """The episode is over, and the level that it had is remembered."""
        told, spread = episode.alert, episode.spread
        level = told.after.value if episode.settled is None else episode.settled
        known = self._known(level, told.before.value, spread)
        if known is not None:
            self.levels.remove(known)
            known = [level, known[1], known[2] + 1, spread]
        self.levels = [*self.levels, known or [level, told.first_seen, 1, spread]][-LEVELS:]
        self.cool_until = self.desk.clock + self.subject.cool_down
        self.episode, self.old = None, None

    def _known(self, level: float, before: float, spread: bool) -> list[Any] | None:
        """The level of an earlier episode that this one may be taken for: not further from it than a third of the shift."""
        near = [known for known in self.levels if known[3] == spread and abs(known[0] - level) <= abs(level - before) / 3]
        return min(near, key=lambda known: abs(known[0] - level), default=None)

    def _likelihood(self, count: float, total: float) -> float:
        """Log likelihood of so many values with this sum, at a mean of their own (core/change.py)."""
        return of_shift(count, total)

    def _deviation(self, split: int) -> float:
        """The reference's standard deviation in what detectors read."""
        raise NotImplementedError

    def _spread(self, split: int) -> float:
        """The larger of the standard deviations of a value before and after the change."""
        return self._deviation(split)

    def _reference(self) -> Any:
        """The reference as it is, as `_take_up` takes it."""
        raise NotImplementedError

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
        budget = [
            self.account.state(), self.judged, self.held, self.held_sum, self.held_squares,
            self.probe and self.probe.state(), self.past and self.past.state(),
            self.renew_at, self.since, self.since_count, self.since_level, list(self.memory), self.compared,
            self.cool_until, [list(known) for known in self.levels],
        ]  # fmt: skip
        return [self.count, self.total, self.raw, self.squares, self.left, list(self.marks), detectors, episode, budget]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave; the stream is the same from then on."""
        self.count, self.total, self.raw, self.squares, self.left, marks, detectors, episode, budget = state[:9]
        account, self.judged, self.held, self.held_sum, self.held_squares, probe, past, *rest = budget
        (
            self.renew_at, self.since, self.since_count, self.since_level, self.memory, self.compared, self.cool_until, self.levels,
        ) = rest  # fmt: skip
        self.account.restore(account)
        self.probe = probe and Probe.restored(probe)
        self.past = past and Past.restored(past)
        self.marks = array("d", marks)
        for detector, saved in zip(self.detectors, detectors, strict=True):
            detector.restore(saved)
        self.episode = None if episode is None else Episode.restored(episode)
        if self.judged and self.e_at is not None:
            self.e = self.detectors[self.e_at]  # type: ignore[assignment]
        self._bind()


def _above(update: Callable[[float], bool]) -> Callable[[float], bool]:
    """For a detector of bits: whether a score lies above 0."""
    return lambda z: update(1 if z > 0 else 0)


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
        if self.probe is not None and self.probe.take(x):
            self._depend(self.probe.autocorrelation())
        if self.past is not None:
            fired = self._dependent(self.past, x, mix(unit, self.salt))
            if self.episode is not None:
                self._follow(x, x, time, offset)
            if fired:
                self._alarm(fired, time, offset)
            return
        fired = []
        e = self.e
        if e is not None:
            self.held = held = self.held + 1
            self.held_sum += x
            if held >= e.due and self._look(e):
                fired = [self.e_at]  # type: ignore[list-item]
        elif count >= self.warmup and not self.judged:
            self._judge()
        for i, update in self.on_value:
            if update(x):
                fired = [*(fired or ()), i]
        if self.on_score:
            z = binary_score(x, count, total, mix(unit, self.salt))
            for i, update in self.on_score:
                if update(z):
                    fired = [*(fired or ()), i]
        if self.episode is not None:
            self._follow(x, x, time, offset)
        if fired:
            self._alarm(fired, time, offset)

    def _look(self, e: EDetector) -> bool:
        """Shows the e-detector what was held for it."""
        held, ones = self.held, self.held_sum
        self.held, self.held_sum = 0, 0
        p = (self.total - ones + 0.5) / (self.count - held + 1)
        return e.take_bits(held, int(ones), p, self.account.draw())

    def _dependent(self, past: Past, x: float, bits: int) -> list[int]:
        """Which detectors fire, where the value depends on the last one."""
        seen, ones = past.bit(x)
        fired = []
        if self.e is not None:
            if self.e.take_bits(1, int(x), (ones + 0.5) / (seen + 1), self.account.draw()):
                fired.append(self.e_at)
        elif self.count > self.warmup and not self.judged:
            self._judge()
        z = binary_score(x, seen, ones, bits)
        fired += [i for i, update in (*self.on_value, *self.on_score) if update(z)]
        fired += [i for i, update in self.on_bit if update(x)]
        return fired  # type: ignore[return-value]

    def _bind(self) -> None:
        super()._bind()
        if self.past is None:  # a value is a bit
            self.on_value += self.on_bit

    def _share(self) -> float | None:
        return (self.total + 0.5) / (self.count + 1) if self.past is None else None

    def seed(self, count: int, ones: int, since: int) -> None:
        """Begins with values that were only counted, from age `since` of the ledger on."""
        self.count, self.total, self.raw = count, ones, ones
        self.since = since

    def prime(self, count: int, since: int, time: int, offset: int) -> None:
        """Begins with `count` zeros that nobody had to look at, the last of which the detectors see too; the first came at `since`."""
        seen = min(count, self.warmup)
        self.seed(count - seen, 0, since)
        for i in range(1, seen + 1):
            self.push(0, i * _PRIMING_STEP, time, offset)

    def _likelihood(self, count: float, total: float) -> float:
        return of_bits(count, total)

    def _apart(self, episode: Episode, after: Level) -> dict[str, Any] | None:
        before = episode.alert.before
        return of_shares(before.value, before.count, after.value, after.count)

    def _effect(self, episode: Episode, mean: float) -> float:
        count = episode.alert.before.count
        p = (episode.center * count + 0.5) / (count + 1)
        return (mean - episode.center) / sqrt(p * (1 - p))

    def _level_of(self, blocks: Blocks, spread: bool) -> Level:
        return intervals.of_share(blocks.mean * blocks.count, blocks.count)

    def _levels(self, split: int) -> tuple[Level, Level]:
        count, ones = self.marks[split : split + 2]
        return intervals.of_share(ones, int(count)), intervals.of_share(self.total - ones, int(self.count - count), LUCK)

    def _deviation(self, split: int) -> float:
        p = (self.marks[split + 1] + 0.5) / (self.marks[split] + 1)
        return sqrt(p * (1 - p))

    def _spread(self, split: int) -> float:
        after = self._means(split)[1].value
        return max(self._deviation(split), sqrt(after * (1 - after)))

    def _reference(self) -> Any:
        return [self.count, self.total]

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
        self.old = state[9]


class NumericStream(Stream):
    """Numbers of any law, as normal scores of their ranks: standard deviation 1. Levels are means in the signal's own units."""

    numeric = True

    __slots__ = ("ranks",)

    def __init__(
        self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk, weight: int = 1
    ) -> None:
        super().__init__(subject, detectors, settings, desk, weight)
        self.ranks = Ranks()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        if not self.left:
            self._mark(time, offset)
        self.left -= 1
        bits = mix(unit, self.salt)
        z = self.ranks.learn(x, bits)
        self.count += 1
        self.total += z
        self.squares += z * z
        self.raw += x
        if self.probe is not None and self.probe.take(z):
            self._depend(self.probe.autocorrelation())
        if self.past is not None:
            z = self.past.unexplained(z)
        fired: list[int] | None = None
        e = self.e
        if e is not None:
            self.held = held = self.held + 1
            self.held_sum += z
            self.held_squares += z * z
            if held >= e.due and self._look(e):
                fired = [self.e_at]  # type: ignore[list-item]
        elif self.count > self.warmup and not self.judged:
            self._judge()
        for i, update in self.on_value:
            if update(z):
                fired = [*(fired or ()), i]
        for i, update in self.on_score:
            if update(z):
                fired = [*(fired or ()), i]
        if self.episode is not None:
            score = self.old[4].score(x, bits)
            if self.episode.counts is not None:
                self.episode.counts.take(score, x)
            if self.episode.spread:
                self._follow(score * score, score * score, time, offset)
            else:
                self._follow(score, x, time, offset)
        if fired:
            self._alarm(fired, time, offset)

    def _bind(self) -> None:
        super()._bind()
        self.on_value += [(i, _above(update)) for i, update in self.on_bit]

    def _look(self, e: EDetector) -> bool:
        """Shows the e-detector what was held for it."""
        held, total, squares = self.held, self.held_sum, self.held_squares
        self.held, self.held_sum, self.held_squares = 0, 0, 0.0
        return e.take_scores(held, total, squares, self.account.draw())

    def _exact(self) -> bool:
        return True

    def _is_spread(self, fired: list[int]) -> bool:
        if fired[0] != self.e_at or self.e is None or not self.e.mostly_spread():
            return False
        split = self._split(True)
        if split is None:
            return False
        # Scores that all lie far out are spread out too, but it is their mean that says so.
        return self._means(split)[1].value ** 2 < self._variances(split)[1].value / 2

    def _counting(self) -> Counts | None:
        return Counts(self.ranks.count) if self._compares() else None

    def _apart(self, episode: Episode, after: Level) -> dict[str, Any] | None:
        shift = 0.0 if episode.spread else after.value - episode.alert.before.value
        return None if episode.counts is None else episode.counts.effects(self.old[4].centers(BINS), shift)

    def _levels(self, split: int) -> tuple[Level, Level]:
        blocks = [(block.size, block.raw) for block in self._blocks(False)]
        at = 1 + split // _WIDTH
        before, after = Blocks.of(blocks[:at]), Blocks.of(blocks[at:])
        return intervals.of_mean(before), intervals.of_mean(after, before, LUCK)

    def _deviation(self, split: int) -> float:
        return 1.0

    def _reference(self) -> Any:
        return [self.count, self.total, self.squares, self.raw, self.ranks]

    def _put_aside(self, split: int) -> Any:
        # The ranks hold what came between the change and the alarm too: little beside what they knew before.
        return self._reference()

    def _begin_again(self, split: int) -> None:
        self.count, self.total, self.squares, self.raw, self.ranks = 0, 0, 0.0, 0, Ranks()

    def _take_up(self, old: Any) -> None:
        self.count, self.total, self.squares, self.raw, self.ranks = old

    def state(self) -> Any:
        old = self.old and [*self.old[:4], self.old[4].state()]
        return [*super().state(), old, self.ranks.state()]

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.old = state[9] and [*state[9][:4], Ranks.restored(state[9][4])]
        self.ranks = Ranks.restored(state[10])


def _course(shape: Shape) -> dict[str, Any]:
    """A shape as details of an alert."""
    details: dict[str, Any] = {"shape": shape.name}
    if shape.begin is not None:
        times = {"begin": shape.begin[0], "end": shape.end and shape.end[0]}
        details["course"] = times | {"begin_offset": shape.begin[1], "end_offset": shape.end and shape.end[1]}
    return details
