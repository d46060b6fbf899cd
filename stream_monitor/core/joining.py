"""The join: a fold over one partition of the journal, and what to emit for each of its verdicts.

    S(n), the bucket's state after n records, and v(o), the verdict on the record at offset o, are functions of the
    journal's prefix. A store keeps S(at) and answers a `Call` by going to S(max(at, to)); for offsets below `at` it
    repeats v(o) from its outbox. Sent twice, by a zombie, or after a loss, a call does no harm; one that would leave a gap
    is answered `Behind`.

`Fold` is that store in memory. The store in Redis is the same algorithm in Lua (io/join.lua); the two are tested against
each other. `emit` turns verdicts into observation records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from stream_monitor.core.codec import FEEDBACK, HEAD, JOINED, OF_MODELS, PREDICTION, Head, Models, peek_head, read_head, whose
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


class Applied(NamedTuple):
    """The store went to S(at); `trim` is the highest committed offset it was ever told. `epoch`: which its entries are of."""

    at: int
    trim: int
    answers: Answers
    epoch: str = ""


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
    for answer in answers:
        if isinstance(answer, Behind):
            return answer
        merged.update(answer.answers)
        if last is not None and last.epoch != answer.epoch:
            answer = answer._replace(epoch="")  # of several epochs: another server took over in between, with what it had
        last = answer._replace(answers=merged)
    assert last is not None  # a call has one piece at least
    return last


Emission = tuple[bytes, bytes, bytes]
"""An observation record to publish: the model, which is its key; its type, for the header `record`; its value."""


def emit(records: Sequence[Record], answers: Answers, committed: int, partition: int = 0, partitions: int = 1) -> list[Emission]:
    """What the records at offsets >= `committed` have to publish, in their order. They are of a `partition` of the journal."""
    out: list[Emission] = []
    append, answer_to, join, head, models = out.append, answers.get, b"".join, peek_head, _models
    begin = b'{"record":"outcome","partition":%d,"partitions":%d,"label_delay_ms":' % (partition, partitions)
    if records and records[0].offset < committed:
        records = [record for record in records if record.offset >= committed]
    for record in records:
        value = record.value
        answer = answer_to(record.offset * SPAN + record.number)
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
            feedback, delay = other[_HEAD:], head(other)[0] - time
        else:
            if answer is None or answer[0] == _DUPLICATE:
                continue
            verdict, other = answer
            time, body = head(other)
            body += _HEAD
            owner, prediction = other[_HEAD:body], other[body:]
            if not owner:  # a conflict between two feedbacks that still wait: there is nobody to tell it to, it is only counted
                continue
            model = owner if other[0] == OF_MODELS else models[owner]
            feedback, delay = value[_HEAD:], head(value)[0] - time
        if verdict == _JOINED:
            append((model, b"outcome", join((begin, b"%d" % delay, b',"prediction":', prediction, b',"feedback":', feedback, b"}"))))
        elif verdict == Verdict.LATE:
            append((model, b"feedback_issue", _issue(b"late", {"model": model.decode()}, prediction, feedback)))
        else:
            append((model, b"feedback_issue", _issue(b"conflicting", whose(other[0], owner), b"null", feedback)))
    return out


def _issue(kind: bytes, of: Mapping[str, Any], prediction: bytes, feedback: bytes) -> bytes:
    told = orjson.dumps(of)[1:-1]
    return b'{"record":"feedback_issue","issue":"%b",%b,"prediction":%b,"feedback":%b}' % (kind, told, prediction, feedback)


class Fold:
    """One bucket's state in memory: the definition of what the store in Redis does.

    `counters` say what came and what became of it; what waits is in `slots`, per slot of log time.
    """

    def __init__(self, settings: JoinSettings) -> None:
        self._settings = settings
        self.at: int | None = None
        self.trim = 0
        self.epoch = ""
        self.clock = 0
        self.origin = 0
        self.entries: dict[bytes, tuple[int, bytes]] = {}
        self.outbox: list[tuple[int, dict[int, tuple[int, bytes]]]] = []
        self.slots: dict[tuple[int, int], int] = {}
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
        if call.start < self.at:
            for _, noted in self.outbox:
                answers.update(noted)
        notes: dict[int, tuple[int, bytes]] = {}
        before = self._horizon_slot()
        for record in call.records:
            if record.offset >= self.at:
                answer = self._take(record)
                if answer is not None:
                    notes[record.position] = answer
        if self._horizon_slot() > before:
            self._expire()
        self.at = max(self.at, call.end)
        if notes:
            answers.update(notes)
            if self.at > call.committed:  # of what is committed nobody asks again, and a rebuild reads a whole log of that
                self.outbox.append((self.at, notes))
        if call.committed > self.trim:
            self.trim = call.committed
            self.outbox = [(end, noted) for end, noted in self.outbox if end > self.trim]
        return Applied(self.at, self.trim, answers, self.epoch)

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
            return None
        born, other = known
        if other[1] not in (kind, JOINED):
            prediction, feedback = (record.value, other) if kind == PREDICTION else (other, record.value)
            head, label = read_head(prediction), read_head(feedback)
            self.entries[record.key] = clock, _joined(head, label.digest)
            self._wait(other[1], born, -1)
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

    def _horizon_slot(self) -> int:
        return (self.clock - self._settings.window_ms - self._settings.slack_ms) // self._settings.slot_ms

    def _expire(self) -> None:
        for slot in [slot for slot in self.slots if slot[1] < self._horizon_slot()]:
            self._count("expired" if slot[0] == PREDICTION else "orphan", self.slots.pop(slot))

    def _count(self, name: str, n: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + n


def _joined(prediction: Head, digest: bytes) -> bytes:
    return HEAD.pack(prediction.version, JOINED, prediction.time, digest, len(prediction.owner)) + prediction.owner
