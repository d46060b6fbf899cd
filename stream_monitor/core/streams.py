"""A stream: the values of one signal, what normal looks like for it, the detectors that watch it, its alert.

    value -> reference (core/reference.py) -> detectors -> change point -> alert (core/alerting.py)
                                              budget (core/budget.py)

Nothing alarms before `warmup` values; from then on a stream is judged, and owns a share of the budget. Detectors that want a threshold get
it from the share and the rate of values, anew each day of event time; values that depend on each other are replaced by what their
past leaves open (core/dependence.py), and so are values that depend on the time of day or week, once that is found (core/cycles.py). When a
detector fires, the change point is sought over marks that the stream leaves behind it every 25 values (thinned out with age), so it does
not depend on the detector. A shift below the subject's `minimum_effect` only resets the detector. Otherwise an alert fires, the old
reference is put aside and the new level becomes the reference; while the alert lasts, means of values are held against the old one,
which comes back with the level (core/aftermath.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from copy import deepcopy
from math import sqrt
from typing import Any, ClassVar, Final, NamedTuple

from stream_monitor.core.aftermath import FEW, Aftermath
from stream_monitor.core.alerting import TRANSITIONS, Case, Change, Desk, Episode, Event, State, Subject
from stream_monitor.core.budget import Account
from stream_monitor.core.cycles import WEEKLY, Likeness, Profile, Search, standard
from stream_monitor.core.dependence import FOUND, SUSPECTED, Past, Probe, spendable
from stream_monitor.core.detectors import Assurance, Detector, EDetector, Evidence, create
from stream_monitor.core.early import Early
from stream_monitor.core.effects import Counts
from stream_monitor.core.events import Alert, Level
from stream_monitor.core.history import WIDTH, History
from stream_monitor.core.laws import BITS, SCORES, Law
from stream_monitor.core.reference import Ranks, binary_score, mix
from stream_monitor.core.settings import DAY, HOUR, DetectorSettings, DetectSettings

MARK_EVERY: Final = 25
THIN_EVERY: Final = 20  # marks
THIN_TO: Final = 8

REMEMBERED: Final = 0.8  # of what the looks before counted
LONGEST_RUN: Final = 1e15  # values for one false alarm: longer is no different
TOO_FAR: Final = 1.5  # standard deviations from the scores that a cycle is known in

_PRIMING_STEP: Final = 0x9E3779B97F4A7C15  # successive multiples spread evenly, as if they were hashes of request ids


_Update = tuple[int, Callable[[float], object]]
"""Which detector, and its `update`. Of one from outside it is the truth of the answer that counts: numpy's is no `bool`."""


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
    Where a cycle is taken into account, `total` and `squares` are of what it leaves open, and `old_past` is what it said before the alert
    that fires; `search` looks for one, or after a daily one for a weekly one.
    `held` values with the sum `held_sum` wait for the e-detector to look at them; `e` is None while there is none that may look.
    """

    numeric: ClassVar[bool]
    law: ClassVar[Law]
    mark_every: ClassVar[int] = MARK_EVERY
    limits: ClassVar[tuple[float, float]] = FOUND, SUSPECTED  # of the probe

    __slots__ = (
        "account", "aftermath", "compared", "count", "desk", "detectors", "e", "e_at", "early", "episode", "explain", "held",
        "held_squares", "held_sum", "judged", "left", "marks", "memory", "old", "old_past", "on_bit", "on_score", "on_value", "past",
        "probe", "raw", "renew_at", "salt", "search", "since", "since_count", "since_level", "squares", "subject", "total", "warmup",
    )  # fmt: skip

    def __init__(
        self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk, weight: int = 1
    ) -> None:
        self.subject = subject
        self.desk = desk
        self.salt = subject.salt
        self.warmup = settings.warmup
        self.detectors = [create(one) for one in detectors]
        self.account = Account(desk.ledger, weight, sum(d.budgeted for d in self.detectors))
        self.judged = False
        self.e: EDetector | None = None
        self.e_at = next((i for i, d in enumerate(self.detectors) if isinstance(d, EDetector) and d.budgeted), None)
        self.early = None if self.e_at is None else Early.of(settings, sum(d.budgeted for d in self.detectors))
        self.held = 0
        self.held_sum = 0.0
        self.held_squares = 0.0
        self.probe: Probe | None = Probe(settings.warmup)
        self.past: Past | None = None
        self.search: Search | None = Search()
        self.renew_at = 0  # age of the ledger from which on thresholds are due for renewal
        self.since = desk.ledger.age  # age of the ledger when counting for them began, at which `count`, and at which level
        self.since_count = 0
        self.memory = [0.0, 0.0]  # values, and the budget that came in with them, in the days before
        self.since_level = desk.ledger.level
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.raw = 0.0
        self.left = 0  # values until the next mark
        self.marks = array("d")
        self.compared: str | None = None  # the version whose reference this one began with
        self.episode: Episode | None = None
        self.explain: Callable[[int], Mapping[str, Any]] | None = None  # what else its alerts can say of a change at this time (ms)
        self.old: Any = None  # the reference that the episode moved away from
        self.old_past: Past | None = None
        self.aftermath = Aftermath(subject, self.law, settings, desk)
        self._bind()
        self._attend()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        """Takes the next value. `unit`: the record's hash; `time` (ms), `offset`: of its prediction and record."""
        raise NotImplementedError

    def end(self, event: Event, offset: int) -> None:
        """Resolves the alert that fires or the warning, if there is one, for a reason that does not lie in the values."""
        episode = self.episode
        if episode is not None:
            self.desk.resolve(episode, event, episode.level(), offset)
            self._leave(episode)
            self.compared = None  # the new level is what is normal from now on
        elif self.early is not None and self.early.case is not None:
            self._lift(self.early, self.early.case, event, offset)

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
        self.account.hold_back(other.account.part)
        self.past = other.past and Past.restored(deepcopy(other.past.state()))
        self.search = other.search and Search.restored(deepcopy(other.search.state()))
        if self.search is not None:
            self.search.seen = None
            if not alone:
                self.search.come_back()
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
        at = len(marks) - WIDTH
        while at >= 0 and marks[at + 3] > time:
            at -= WIDTH
        if at < 0:
            return None
        last = at + WIDTH == len(marks)
        end, then = (self.count, self.desk.clock) if last else (marks[at + WIDTH], marks[at + WIDTH + 3])
        part = (time - marks[at + 3]) / (then - marks[at + 3]) if then > marks[at + 3] else 1.0
        inside = int(min(max(part, 0.0), 1.0) * (end - marks[at]))  # of those between the marks, at the level before
        n = int(marks[at])
        before, after = n + inside, self.count - n - inside
        if not n or not after:
            return None
        old, level = marks[at + 1] / n, marks[at + 2] / n
        new, now = (self.total - marks[at + 1] - inside * old) / after, (self.raw - marks[at + 2] - inside * level) / after
        rate = (before - marks[0]) / max(1.0, time - marks[3])
        return Around(Level(level, before), Level(now, after), (new - old) / self.aftermath.law.deviation(n, marks[at + 1]), rate)

    def settle(self) -> dict[str, int] | None:
        """Enough came since the alarm to know the level by: since when and how many times, this one included, it was seen before."""
        return None if self.episode is None else self.aftermath.settle(self.episode, self.count, self.raw)

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
        self.on_value: list[_Update] = [(i, d.update) for i, d in others if d.reads == "value"]
        self.on_score: list[_Update] = [(i, d.update) for i, d in others if d.reads == "score"]
        self.on_bit: list[_Update] = [(i, d.update) for i, d in others if d.reads == "bit"]
        self.aftermath.law = SCORES if self._profile() is not None else self.law

    def _judge(self) -> None:
        """The warm-up is over, if no cycle is in doubt: from the next value on alarms count, and a share of the budget comes in."""
        if self.search is not None and self._profile() is None and self.search.doubtful:
            return
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
        self.held, self.held_sum, self.held_squares = 0, 0.0, 0.0
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
        search = self.search
        if search is not None:
            self._look_for_cycle(search, time, offset)
            ahead = int(self.marks[-WIDTH]) + self.mark_every - self.count if self.marks else 0
            if ahead > 0:  # it is only to be looked at
                self.left = min(ahead, search.step)
                return
        if self.judged:
            account = self.account
            if self.e is None:
                account.draw()  # so that it is seen to be alive
            if account.ledger.age >= self.renew_at:
                self._retune((account.ledger.level - self.since_level) * account.portion)
        self.marks.extend((self.count, self.total, self.raw, time, offset, self.squares))
        self.left = self.mark_every if self.search is None else min(self.search.step, self.mark_every)
        if self.count // self.mark_every % THIN_EVERY == 0:
            self._thin()

    def _look_for_cycle(self, search: Search, time: int, offset: int) -> None:
        """Shows `search` the values since the last look. If it has found a cycle, the stream begins anew."""
        known = self._profile()
        search.look(time, self.count, self._searched(known))
        found = search.found(None if known is None else known.cycle)
        if found is None or self.count < self.warmup:
            self._be_careful()
            return
        likeness, episode = search.likeness(found), self.episode
        if episode is None or self._explains(likeness, episode):
            self.end(Event(found.name), offset)
        else:
            episode.let_go(self.count, self.raw)
            episode.trail = None  # it was seen in other units
        self.past, self.probe = Past(0.0, search.profile(found)), Probe(self.warmup)
        self.compared = None
        if found is WEEKLY:
            self.search = None
        self._be_careful()
        self._begin_anew()
        self._forget()

    def _be_careful(self) -> None:
        """Spends the less the surer it looks that there is a cycle that is not taken into account."""
        known = self._profile()
        self.account.doubt(1.0 if self.search is None else self.search.spendable(None if known is None else known.cycle))

    def _explains(self, likeness: Likeness, episode: Episode) -> bool:
        """Whether the level has gone no further, at the alarm and since, than it goes in each period."""
        alert = episode.alert
        if self.numeric:
            told = alert.details["effect"]
            now = episode.away(episode.center, False)
        else:
            told = alert.after.value - alert.before.value
            now = episode.away(alert.before.value, True)
        return "of" not in alert.details and max(abs(told), now) <= likeness.reach

    def _profile(self) -> Profile | None:
        """What a cycle says, where one is taken into account."""
        return None if self.past is None else self.past.profile

    def _searched(self, known: Profile | None) -> float:
        """The sum of the values in which a cycle is looked for, of which that which is `known` takes nothing away."""
        raise NotImplementedError

    def _marked(self) -> list[int]:
        """How many values there were at each mark."""
        return [int(count) for count in self.marks[::WIDTH]]

    def _thin(self) -> None:
        """Drops marks until their distance is about an eighth of their age: some 80 marks for a million values."""
        marks, now = self.marks, self.count
        kept = [len(marks) - WIDTH]
        for i in range(kept[0] - WIDTH, 0, -WIDTH):
            newer = marks[kept[-1]]
            if (newer - marks[i - WIDTH]) * THIN_TO > now - newer:
                kept.append(i)
        if kept[-1]:
            kept.append(0)
        thinned = array("d")
        for i in reversed(kept):
            thinned.extend(marks[i : i + WIDTH])
        self.marks = thinned

    def _alarm(self, fired: list[int], time: int, offset: int) -> None:
        """Some detectors fired at this value, or the e-detector has something to say that is no alarm."""
        if self.early is not None and self.e is not None and fired[0] == self.e_at and self.e.total() < 1.0:
            fired = fired[1:]
            if not fired:
                self._notice(self.early, self.e, time, offset)
                return
        detector = self.detectors[fired[0]]
        history = self._history()
        place = self._place(fired, history)
        if self.judged:
            self.account.alarms += 1
        change = None if place is None else self._change(history, *place, time, offset)
        cooling = self.episode is None and self.aftermath.cooling
        if place is None or change is None or not abs(change.effect) >= self.subject.minimum_effect or cooling:
            if cooling and change is not None:
                self.desk.cooled_down()
            for i in fired:
                self.detectors[i].reset()
            self._bind()
            return
        split, spread = place
        episode = self.episode
        count, raw = self.count, self.raw  # of these, since the change that is told
        transition = TRANSITIONS[State.NONE if episode is None else episode.state, Event.DRIFT]
        if transition.publish:
            evidence = detector.evidence(*(history.variances(split) if spread else history.means(split)))
            alert = self._tell(change, split, detector, evidence, offset)
            self.episode = self.aftermath.begin(alert, history, split, spread, self._counting())
            self.old = self._put_aside(split)
            count, raw = history.since(split)
            self.old_past = None if self.past is None or self.past.profile is None else Past.restored(deepcopy(self.past.state()))
            if self.old_past is not None and self.old_past.profile is not None:
                self.old_past.profile.unlearn(alert.first_seen, time, count)
            self.desk.due.append((self, True, offset))
        if self.numeric:
            self._move(history, split, transition.publish is not None)
        self._begin_again(split)
        if self.episode is not None:
            self.episode.let_go(count - self.count, raw - self.raw)
        self._forget()

    def _move(self, history: History, split: int, first: bool) -> None:
        """Scores are to mean something else, since the change at the mark. `first`: an alert begins."""
        before, after = history.means(split)
        shift = after.value - before.value
        if self._profile() is None:
            if self.search is not None:
                self.search.shift(shift, first)
        elif abs(shift) > TOO_FAR:  # it needs new scores, and with them its cycle is to be found anew
            self.search, self.past, self.probe = Search(), None, Probe(self.warmup)

    def _place(self, fired: list[int], history: History) -> tuple[int, bool] | None:
        """The mark at which the change is that these detectors see, and whether it is the spread that changed."""
        if self.count < self.warmup:
            return None
        spread = self._is_spread(fired, history)
        split = history.split(spread)
        return None if split is None else (split, spread)

    def _change(self, history: History, split: int, spread: bool, time: int, offset: int) -> Change:
        """The change at the mark, as it looks at the value that came last."""
        return history.change(split, spread, time, offset)

    def _more(self, split: int) -> Mapping[str, Any]:
        """What else an alert about a change at the mark says, as details."""
        return {} if self.explain is None else self.explain(int(self.marks[split + 3]))

    def _tell(self, change: Change, split: int, detector: Detector, evidence: Evidence, offset: int, early: bool = False) -> Alert:
        rho = None if self.past is None else self.past.rho or None
        more = dict(self._more(split))
        if (profile := self._profile()) is not None:
            more[profile.cycle.name] = True
        if self.compared is not None:
            more["reference"] = f"version {self.compared}"
        said = self._assurance(detector), evidence, offset, rho, more
        return self.desk.fire(self.subject, change, detector, *said, warning=self.warning, early=early)

    @property
    def warning(self) -> Case | None:
        """The alert that may come to fire."""
        return None if self.early is None else self.early.case

    def _notice(self, early: Early, e: EDetector, time: int, offset: int) -> None:
        """The e-detector has evidence that is no alarm: a warning begins, or is over."""
        event = early.take(e.total())
        if event is Event.FADED and early.case is not None:
            self._lift(early, early.case, event, offset)
        elif event is Event.SUSPECTED:
            self.account.warnings += 1
            history = self._history()
            place = self._place([self.e_at], history)  # type: ignore[list-item]
            change = None if place is None else self._change(history, *place, time, offset)
            large = change is not None and abs(change.effect) >= self.subject.minimum_effect
            if place is not None and change is not None and large and not self.aftermath.cooling:
                early.case = Case(self._tell(change, place[0], e, Evidence(e.total(), early.warn), offset, early=True))
        self._attend()

    def _lift(self, early: Early, case: Case, event: Event, offset: int) -> None:
        """The warning is over."""
        now = None if "of" in case.alert.details else self.around(case.alert.first_seen)
        self.desk.resolve(case, event, case.alert.after if now is None else now.after, offset)
        early.case = None

    def _attend(self) -> None:
        """Lets the e-detector know from which evidence on it is listened to."""
        if self.early is not None and self.e_at is not None:
            self.detectors[self.e_at].heed = 1.0 if self.episode is not None else self.early.heed  # type: ignore[attr-defined]

    def _history(self) -> History:
        part = 1.0 if self.past is None else (1 - self.past.rho) / (1 + self.past.rho)
        return History(self.aftermath.law, self.marks, self.count, self.total, self.raw, self.squares, part)

    def _forget(self) -> None:
        """The reference is another one: marks and detectors begin anew."""
        self.left = 0
        self.marks = array("d")
        for detector in self.detectors:
            detector.reset()
        if self.past is not None:
            self.past.forget()
        if self.search is not None:
            self.search.seen = None
        if self.early is not None:
            self.early.begin_again()
        self._pause()
        self._bind()
        self._attend()

    def _assurance(self, detector: Detector) -> Assurance:
        """What backs this detector's rate of false alarms here."""
        proved = detector.assurance == "guaranteed" and self.past is None and self._exact()
        return "calibrated" if detector.assurance == "guaranteed" and not proved else detector.assurance

    def _exact(self) -> bool:
        """Whether what the e-detector reads has a known law, not only a simulated one."""
        return False

    def _depend(self, probe: Probe) -> None:
        """The probe is complete; detectors begin anew if they are to read something else from now on."""
        self.probe = None
        found, suspected = self.limits
        rho = probe.autocorrelation(found)
        self.account.hold_back(spendable(0.5 / sqrt(probe.count) if rho else probe.autocorrelation(suspected)))
        if rho:
            self.past = Past(rho, self._profile())
            for detector in self.detectors:
                detector.reset()
            self._bind()

    def _is_spread(self, fired: list[int], history: History) -> bool:
        """Whether it is a change of the spread rather than of the mean."""
        return False

    def _counting(self) -> Counts | None:
        """What counts the values after an alarm by where in the reference they lie."""
        return None

    def _follow(self, value: float, raw: float, time: int, offset: int) -> None:
        """Follows the alert that fires by a value as the old reference sees it."""
        episode, old = self.episode, self.old
        if episode is None:
            return
        episode.left -= 1
        if not episode.left:
            self.desk.due.append((self, False, offset))
        if self.aftermath.follow(episode, value, raw, time, offset, old):
            past = self.old_past
            self._leave(episode)
            self._take_up(old)
            self._forget()
            if past is not None and past.profile is not None and not self._tells_more(past.profile):
                self.past, self.probe = past, None
                if past.profile.cycle is WEEKLY:
                    self.search = None
                self._be_careful()
                self._bind()
            elif self.search is not None:
                self.search.come_back()
            if past is None and self._profile() is not None:
                self.total = 0.0  # the reference is from before the cycle was known, which leaves about nothing of it

    def _tells_more(self, than: Profile) -> bool:
        """Whether a longer cycle than this one is known by now."""
        known = self._profile()
        return known is not None and known.cycle.period > than.cycle.period

    def _leave(self, episode: Episode) -> None:
        self.aftermath.leave(episode)
        self.episode, self.old, self.old_past = None, None, None
        self._attend()

    def _reference(self) -> Any:
        """The reference as it is, as `_take_up` takes it."""
        raise NotImplementedError

    def _put_aside(self, split: int) -> Any:
        """The reference as it was before the change."""
        raise NotImplementedError

    def _begin_again(self, split: int) -> None:
        """Takes what came after the change as the reference."""
        raise NotImplementedError

    def _begin_anew(self) -> None:
        """There is no reference yet: the next value is the first of it."""
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
            self.early and self.early.state(), self.search and self.search.state(), self.old_past and self.old_past.state(),
            *self.aftermath.state(),
        ]  # fmt: skip
        return [self.count, self.total, self.raw, self.squares, self.left, list(self.marks), detectors, episode, budget]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave; the stream is the same from then on."""
        self.count, self.total, self.raw, self.squares, self.left, marks, detectors, episode, budget = state[:9]
        account, self.judged, self.held, self.held_sum, self.held_squares, probe, past, *rest = budget
        self.renew_at, self.since, self.since_count, self.since_level, self.memory, self.compared, early, *rest = rest
        search, old_past, *aftermath = rest
        self.aftermath.restore(aftermath)
        if self.early is not None:
            self.early.restore(early)
        self.account.restore(account)
        self.probe = probe and Probe.restored(probe)
        self.past = past and Past.restored(past)
        self.search = search and Search.restored(search)
        self.old_past = old_past and Past.restored(old_past)
        self.marks = array("d", marks)
        for detector, saved in zip(self.detectors, detectors, strict=True):
            detector.restore(saved)
        self.episode = None if episode is None else Episode.restored(episode)
        if self.judged and self.e_at is not None:
            self.e = self.detectors[self.e_at]  # type: ignore[assignment]
        self._bind()
        self._attend()


def _above(update: Callable[[float], object]) -> Callable[[float], object]:
    """For a detector of bits: whether a score lies above 0."""
    return lambda z: update(1.0 if z > 0 else 0.0)


class BinaryStream(Stream):
    """Values 0 and 1. Detectors that read values get them as they are, the others randomised normal scores under the running share."""

    numeric: ClassVar[bool] = False
    law: ClassVar[Law] = BITS

    __slots__ = ()

    def push(self, x: float, unit: int, time: int, offset: int) -> None:
        if not self.left:
            self._mark(time, offset)
        self.left -= 1
        past = self.past
        if past is not None and past.profile is not None:
            self._in_cycle(past, x, mix(unit, self.salt), time, offset)
            return
        count, total = self.count, self.total
        self.count = count + 1
        self.total = self.raw = total + x
        if self.probe is not None and self.probe.take(x):
            self._depend(self.probe)
            past = self.past
        fired: list[int] | None = None
        if past is not None:
            fired = self._dependent(x, *past.bit(x), mix(unit, self.salt))
            if self.episode is not None:
                self._follow(x, x, time, offset)
            if fired:
                self._alarm(fired, time, offset)
            return
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
        self.held, self.held_sum = 0, 0.0
        p = (self.total - ones + 0.5) / (self.count - held + 1)
        return e.take_bits(held, int(ones), p, self.account.draw())

    def _in_cycle(self, past: Past, x: float, bits: int, time: int, offset: int) -> None:
        """Takes a value that depends on the time of day or of the week."""
        seen, ones = past.bit(x, time, (self.raw + 0.5) / (self.count + 1))
        w = standard(x, seen, ones)
        self.count += 1
        self.total += w
        self.raw += x
        if self.probe is not None and self.probe.take(w):
            self._depend(self.probe)
        fired = self._dependent(x, seen, ones, bits)
        if self.episode is not None:
            value = x
            if self.old_past is not None and self.old_past.profile is not None:
                value = self.old_past.profile.bit_beside(x, time, self.episode.alert.before.value)
            self._follow(value, x, time, offset)
        if fired:
            self._alarm(fired, time, offset)

    def _dependent(self, x: float, seen: float, ones: float, bits: int) -> list[int]:
        """Which detectors fire, where the past says that a one is as likely as so many `ones` among so many `seen`."""
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

    def _searched(self, known: Profile | None) -> float:
        return self.raw

    def _share(self) -> float | None:
        return (self.total + 0.5) / (self.count + 1) if self.past is None else None

    def seed(self, count: int, ones: int, since: int) -> None:
        """Begins with values that were only counted, from age `since` of the ledger on."""
        self.count, self.total, self.raw = count, float(ones), float(ones)
        self.since = since

    def prime(self, count: int, since: int, time: int, offset: int) -> None:
        """Begins with `count` zeros that nobody had to look at, the last of which the detectors see too; the first came at `since`."""
        seen = min(count, self.warmup)
        self.seed(count - seen, 0, since)
        for i in range(1, seen + 1):
            self.push(0.0, i * _PRIMING_STEP, time, offset)

    def _reference(self) -> Any:
        return [self.count, self.total, self.raw]

    def _put_aside(self, split: int) -> Any:
        count, total, raw = self.marks[split : split + 3]
        return [int(count), total, raw]

    def _begin_again(self, split: int) -> None:
        count, total, raw = self._put_aside(split)
        self.count, self.total, self.raw = self.count - count, self.total - total, self.raw - raw

    def _begin_anew(self) -> None:
        self.count, self.total, self.raw = 0, 0.0, 0.0

    def _take_up(self, old: Any) -> None:
        self.count, self.total, self.raw = old

    def state(self) -> Any:
        return [*super().state(), self.old]

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.old = state[9]


class NumericStream(Stream):
    """Numbers of any law, as normal scores of their ranks: standard deviation 1. Levels are means in the signal's own units."""

    numeric: ClassVar[bool] = True
    law: ClassVar[Law] = SCORES

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
        past, bits = self.past, mix(unit, self.salt)
        profile, ranks = None if past is None else past.profile, self.ranks
        z = ranks.learn(x, bits) if profile is None else profile.unexplained(ranks.score(x, bits), time)
        square = z * z
        self.count += 1
        self.total += z
        self.squares += square
        self.raw += x
        if self.probe is not None and self.probe.take(z):
            self._depend(self.probe)
            past = self.past
        if past is not None:
            z = past.unexplained(z)
            square = z * z
        fired: list[int] | None = None
        e = self.e
        if e is not None:
            self.held = held = self.held + 1
            self.held_sum += z
            self.held_squares += square
            if held >= e.due and self._look(e):
                fired = [self.e_at]  # type: ignore[list-item]
        elif self.count > self.warmup and not self.judged:
            self._judge()
        for i, update in self.on_value:
            if update(z):
                fired = [*(fired or ()), i]
        if self.episode is not None:
            score = self.old[4].score(x, bits)
            if self.old_past is not None and self.old_past.profile is not None:
                score = self.old_past.profile.beside(score, time)
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
        self.on_value += self.on_score  # a value is a score

    def _look(self, e: EDetector) -> bool:
        """Shows the e-detector what was held for it."""
        held, total, squares = self.held, self.held_sum, self.held_squares
        self.held, self.held_sum, self.held_squares = 0, 0.0, 0.0
        return e.take_scores(held, total, squares, self.account.draw())

    def _exact(self) -> bool:
        return True

    def _searched(self, known: Profile | None) -> float:
        return self.total if known is None else known.taken

    def _is_spread(self, fired: list[int], history: History) -> bool:
        if fired[0] != self.e_at or self.e is None or not self.e.mostly_spread():
            return False
        split = history.split(True)
        if split is None:
            return False
        # Scores that all lie far out are spread out too, but it is their mean that says so.
        return history.means(split)[1].value ** 2 < history.variances(split)[1].value / 2

    def _counting(self) -> Counts | None:
        return Counts(self.ranks.count) if self.aftermath.compares else None

    def _reference(self) -> Any:
        return [self.count, self.total, self.squares, self.raw, self.ranks]

    def _put_aside(self, split: int) -> Any:
        # The ranks hold what came between the change and the alarm too: little beside what they knew before.
        return self._reference()

    def _begin_again(self, split: int) -> None:
        self._begin_anew()
        if self._profile() is None:
            self.ranks = Ranks()

    def _begin_anew(self) -> None:
        # What a cycle says is said of scores that mean the same throughout, so the ranks stay, and learn no more.
        self.count, self.total, self.squares, self.raw = 0, 0.0, 0.0, 0.0

    def _take_up(self, old: Any) -> None:
        self.count, self.total, self.squares, self.raw, self.ranks = old

    def state(self) -> Any:
        old = self.old and [*self.old[:4], self.old[4].state()]
        return [*super().state(), old, self.ranks.state()]

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.old = state[9] and [*state[9][:4], Ranks.restored(state[9][4])]
        self.ranks = Ranks.restored(state[10])
