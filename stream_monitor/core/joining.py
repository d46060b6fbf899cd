"""The join: a fold over one partition of the journal, and what to emit for each of its verdicts.

    S(n), the bucket's state after n records, and v(o), the verdict on the record at offset o, are functions of the
    journal's prefix. A store keeps S(at) and answers a `Call` by going to S(max(at, to)); for offsets below `at` it
    repeats v(o) from its outbox. Sent twice, by a zombie, or after a loss, a call does no harm; one that would leave a gap
    is answered `Behind`.

`Fold` is that store in memory. The store in Redis is the same algorithm in Lua (io/join.lua); the two are tested against
each other. `emit` turns verdicts into observation records.

A label whose prediction never comes, an orphan, is nobody's, unless the label itself names its owner. Of those that do, the
store tallies per owner and slot of log time how many came, and how many of these met their prediction. None can meet it any
more when the slot has passed the horizon (window + slack, as for what expires), so all of them are judged at one age. The very
record that moves the clock so far, whatever the batches, tells the slot's `Cohort`s, which is noted and repeated as verdicts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from stream_monitor.core.codec import FEEDBACK, HEAD, JOINED, OF_MODELS, PREDICTION, VERSION, Head, Models, peek_head, read_head, whose
from stream_monitor.core.records import SPAN, Record, pieces
from stream_monitor.core.settings import JoinSettings


class Verdict(IntEnum):
    """What applying a record found. NEW is never noted: a position without an answer was NEW."""

    NEW = 0
    JOINED = 1
    DUPLICATE = 2
    CONFLICT = 3
    LATE = 4


_HEAD = HEAD.size
_models = Models()
_JOINED, _DUPLICATE = int(Verdict.JOINED), int(Verdict.DUPLICATE)  # looking a name up in an enum costs as much as a slice


class Call(NamedTuple):
    """One call of the store for one bucket: the records in [start, end), and the group's committed offset.

    `start` is the previous call's `end`, because transaction markers leave holes in the offsets. `epoch` is set only on the
    first call of a rebuild: it lets a store without state begin at `start`.
    """

    bucket: int
    start: int
    end: int
    committed: int
    records: Sequence[Record]
    epoch: str = ""


Answers = Mapping[int, tuple[int, bytes]]
"""position -> verdict, and the journal value of the other side where there is one."""


class Cohort(NamedTuple):
    """An owner's labels that came in a slot of log time, as what they are for good. `since`: when the slot began, ms."""

    since: int
    owner: bytes
    labels: int
    orphans: int


Cohorts = Mapping[int, Sequence[Cohort]]
"""position -> what the record there tells, in the order of slots and owners."""

_NO_COHORTS: Cohorts = {}


class Applied(NamedTuple):
    """The store went to S(at); `trim` is the highest committed offset it was ever told. `epoch`: which its entries are of."""

    at: int
    trim: int
    answers: Answers
    epoch: str = ""
    cohorts: Cohorts = _NO_COHORTS


class Behind(NamedTuple):
    """The store refused: it knows only S(at), or nothing at all (None). Nothing was changed."""

    at: int | None


def split(call: Call, size: int) -> list[Call]:
    """The same call in pieces of `size` records or a few more; one after the other they do what the whole does.

    Only the first may begin a rebuild: where the store forgets between two of them, the second has to be refused.
    """
    if len(call.records) <= size:
        return [call]
    cut = list(pieces(call.records, size))
    ends = [call.start, *(piece[0].offset for piece in cut[1:]), call.end]
    made = [call._replace(start=start, end=end, records=piece, epoch="") for piece, (start, end) in zip(cut, pairwise(ends), strict=True)]
    made[0] = made[0]._replace(epoch=call.epoch)
    return made


def merge(answers: Sequence[Applied | Behind]) -> Applied | Behind:
    """What a call was answered, from the answers to its pieces: a refusal, if there is one."""
    last: Applied | None = None
    merged: dict[int, tuple[int, bytes]] = {}
    cohorts: dict[int, Sequence[Cohort]] = {}
    for answer in answers:
        if isinstance(answer, Behind):
            return answer
        merged.update(answer.answers)
        cohorts.update(answer.cohorts)
        if last is not None and last.epoch != answer.epoch:
            answer = answer._replace(epoch="")  # of several epochs: another server took over in between, with what it had
        last = answer._replace(answers=merged, cohorts=cohorts)
    assert last is not None  # a call has one piece at least
    return last


Emission = tuple[bytes, bytes, bytes]
"""An observation record to publish: the model, which is its key; its type, for the header `record`; its value."""


def emit(records: Sequence[Record], found: Applied, committed: int, partition: int = 0, partitions: int = 1) -> list[Emission]:
    """What the records at offsets >= `committed` have to publish, in their order. They are of a `partition` of the journal."""
    out: list[Emission] = []
    append, answer_to, join, head, models = out.append, found.answers.get, b"".join, peek_head, _models
    told = found.cohorts
    begin = b'{"record":"outcome","partition":%d,"partitions":%d,"label_delay_ms":' % (partition, partitions)
    if records and records[0].offset < committed:
        records = [record for record in records if record.offset >= committed]
    for record in records:
        value = record.value
        position = record.offset * SPAN + record.number
        if told and position in told:
            out += map(_cohort, told[position])
        answer = answer_to(position)
        if value[1] == PREDICTION:
            if answer is not None and answer[0] == _DUPLICATE:
                continue
            time, body = head(value)
            body += _HEAD
            owner, prediction = value[_HEAD:body], value[body:]
            model = owner if value[0] == OF_MODELS else models[owner]
            append((model, b"prediction", join((b'{"record":"prediction","prediction":', prediction, b"}"))))
            if answer is None:
                continue
            verdict, other = answer
            labelled, body = head(other)
            feedback, delay = other[body + _HEAD :], labelled - time
        else:
            if answer is None or answer[0] == _DUPLICATE:
                continue
            verdict, other = answer
            time, body = head(other)
            body += _HEAD
            owner, prediction = other[_HEAD:body], other[body:]
            if not owner:  # a conflict between two feedbacks that still wait, of which the first names nobody: it is only counted
                continue
            model = owner if other[0] == OF_MODELS else models[owner]
            labelled, body = head(value)
            feedback, delay = value[body + _HEAD :], labelled - time
        if verdict == _JOINED:
            append((model, b"outcome", join((begin, b"%d" % delay, b',"prediction":', prediction, b',"feedback":', feedback, b"}"))))
        elif verdict == Verdict.LATE:
            append((model, b"feedback_issue", _issue(b"late", {"model": model.decode()}, prediction, feedback)))
        else:
            append((model, b"feedback_issue", _issue(b"conflicting", whose(other[0], owner), b"null", feedback)))
    return out


def _cohort(one: Cohort) -> Emission:
    said = whose(VERSION, one.owner)
    told = {"record": "feedback_cohort", **said, "since": one.since, "labels": one.labels, "orphans": one.orphans}
    return _models[one.owner], b"feedback_cohort", orjson.dumps(told)


def _issue(kind: bytes, of: Mapping[str, Any], prediction: bytes, feedback: bytes) -> bytes:
    told = orjson.dumps(of)[1:-1]
    return b'{"record":"feedback_issue","issue":"%b",%b,"prediction":%b,"feedback":%b}' % (kind, told, prediction, feedback)


class Fold:
    """One bucket's state in memory: the definition of what the store in Redis does.

    `counters` say what came and what became of it; what waits is in `slots`, per slot of log time. `labels`: per slot and owner, how
    many labels that name one came, and how many of these met their prediction.
    """

    def __init__(self, settings: JoinSettings) -> None:
        self._settings = settings
        self.at: int | None = None
        self.trim = 0
        self.epoch = ""
        self.clock = 0
        self.origin = 0
        self.entries: dict[bytes, tuple[int, bytes]] = {}
        self.outbox: list[tuple[int, dict[int, tuple[int, bytes]], dict[int, list[Cohort]]]] = []
        self.slots: dict[tuple[int, int], int] = {}
        self.labels: dict[tuple[int, bytes], tuple[int, int]] = {}
        self.counters: dict[str, int] = {}

    def apply(self, call: Call) -> Applied | Behind:
        """Goes from S(at) to S(max(at, call.end)), or refuses."""
        if self.at is None:
            if not call.epoch:
                return Behind(None)
            self.__init__(self._settings)  # type: ignore[misc]  # whatever survived a loss belongs to another epoch
            self.at = self.origin = call.start
            self.epoch = call.epoch
        if self.at < call.start:
            return Behind(self.at)
        answers: dict[int, tuple[int, bytes]] = {}
        cohorts: dict[int, list[Cohort]] = {}
        if call.start < self.at:
            for _, noted, told in self.outbox:
                answers.update(noted)
                cohorts.update(told)
        notes: dict[int, tuple[int, bytes]] = {}
        over: dict[int, list[Cohort]] = {}
        horizon = self._horizon_slot()
        for record in call.records:
            if record.offset >= self.at:
                answer = self._take(record)
                if answer is not None:
                    notes[record.position] = answer
                if self._horizon_slot() > horizon:
                    horizon = self._horizon_slot()
                    if left := self._leave(horizon):
                        over[record.position] = left
        self.at = max(self.at, call.end)
        if notes or over:
            answers.update(notes)
            cohorts.update(over)
            if self.at > call.committed:  # of what is committed nobody asks again, and a rebuild reads a whole log of that
                self.outbox.append((self.at, notes, over))
        if call.committed > self.trim:
            self.trim = call.committed
            self.outbox = [noted for noted in self.outbox if noted[0] > self.trim]
        return Applied(self.at, self.trim, answers, self.epoch, cohorts)

    def waiting(self) -> tuple[int, int]:
        """How many predictions, and how many feedbacks, wait for their other side."""
        return tuple(sum(n for (kind, _), n in self.slots.items() if kind == side) for side in (PREDICTION, FEEDBACK))  # type: ignore[return-value]

    def _take(self, record: Record) -> tuple[int, bytes] | None:
        self.clock = clock = max(self.clock, record.time)
        kind = record.value[1]
        self._count("predictions" if kind == PREDICTION else "feedback")
        known = self.entries.get(record.key)
        if known is None or clock - known[0] > self._settings.window_ms + self._settings.slack_ms:
            self.entries[record.key] = clock, record.value
            self._wait(kind, clock, 1)
            if kind == FEEDBACK:
                self._tally(read_head(record.value).owner, clock, 1, 0)
            return None
        born, other = known
        if other[1] not in (kind, JOINED):
            prediction, feedback = (record.value, other) if kind == PREDICTION else (other, record.value)
            head, label = read_head(prediction), read_head(feedback)
            self.entries[record.key] = clock, _joined(head, label)
            self._wait(other[1], born, -1)
            if kind == FEEDBACK:
                self._tally(label.owner, clock, 1, 1)
            else:
                self._tally(label.owner, born, 0, 1)
            late = clock - born > self._settings.window_ms
            self._count("late" if late else "joined")
            return Verdict.LATE if late else Verdict.JOINED, other
        if kind == FEEDBACK and record.value[10:18] != other[10:18]:
            self._count("conflicting")
            return Verdict.CONFLICT, other[: read_head(other).body]
        self._count("duplicate_predictions" if kind == PREDICTION else "duplicate_feedback")
        return Verdict.DUPLICATE, b""

    def _wait(self, kind: int, born: int, n: int) -> None:
        slot = kind, born // self._settings.slot_ms
        self.slots[slot] = self.slots.get(slot, 0) + n

    def _tally(self, owner: bytes, born: int, came: int, met: int) -> None:
        if owner:
            slot = born // self._settings.slot_ms, owner
            before = self.labels.get(slot, (0, 0))
            self.labels[slot] = before[0] + came, before[1] + met

    def _horizon_slot(self) -> int:
        return (self.clock - self._settings.window_ms - self._settings.slack_ms) // self._settings.slot_ms

    def _leave(self, horizon: int) -> list[Cohort]:
        """Slots before the `horizon` are over: what waited there has expired, and of its labels it is told what became."""
        for slot in [slot for slot in self.slots if slot[1] < horizon]:
            self._count("expired" if slot[0] == PREDICTION else "orphan", self.slots.pop(slot))
        over = [(slot, owner, *self.labels.pop((slot, owner))) for slot, owner in sorted(self.labels) if slot < horizon]
        return [Cohort(slot * self._settings.slot_ms, owner, came, came - met) for slot, owner, came, met in over]

    def _count(self, name: str, n: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + n


def _joined(prediction: Head, label: Head) -> bytes:
    return HEAD.pack(prediction.version, JOINED, label.time, label.digest, len(prediction.owner)) + prediction.owner
