"""Programs with one deliberate bug each. A simulator that finds no fault with them proves nothing about the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from stream_monitor.core.codec import peek_head
from stream_monitor.core.joining import Applied, Behind, Call, Cohort, Emission, Fold, Verdict, emit
from stream_monitor.core.records import Record
from stream_monitor.detect import Detect
from stream_monitor.io.kafka import KafkaSink
from stream_monitor.live import Worker
from stream_monitor.ports import Log, Out, Place
from stream_monitor.stages import Join
from tests.simulation.redis import cut
from tests.simulation.world import Program


class _NoGapCheck(Fold):
    """Takes a call that leaves a gap."""

    def apply(self, call: Call) -> Applied | Behind:
        if self.at is not None and self.at < call.start:
            self.at = call.start
        return super().apply(call)


class _NoOutbox(Fold):
    """Does not remember what it answered."""

    def apply(self, call: Call) -> Applied | Behind:
        answer = super().apply(call)
        self.outbox.clear()
        return answer


class _TrimsWhatIsNotCommitted(Fold):
    """Drops what the previous calls answered when the next one comes, as if that meant they were committed."""

    def apply(self, call: Call) -> Applied | Behind:
        answer = super().apply(call)
        self.outbox = [noted for noted in self.outbox if noted[0] > call.start]
        return answer


class _TellsCohortsOnce(Fold):
    """Does not note the cohorts that it told."""

    def apply(self, call: Call) -> Applied | Behind:
        answer = super().apply(call)
        self.outbox = [(end, notes, {}) for end, notes, _ in self.outbox]
        return answer


class _TellsCohortsAtTheEnd(Fold):
    """Tells cohorts with the last record of a call, whichever moved the clock."""

    def apply(self, call: Call) -> Applied | Behind:
        before = {end for end, _, _ in self.outbox}
        answer = super().apply(call)
        if isinstance(answer, Behind) or not call.records:
            return answer
        last, mine = call.records[-1].position, {record.position for record in call.records}
        cohorts: dict[int, list[Cohort]] = {}
        for position, told in answer.cohorts.items():
            cohorts.setdefault(last if position in mine else position, []).extend(told)
        if self.outbox and self.outbox[-1][0] not in before:
            end, notes, told_there = self.outbox[-1]
            self.outbox[-1] = end, notes, {last: [one for ones in told_there.values() for one in ones]} if told_there else {}
        return answer._replace(cohorts=cohorts)


class _BeginsUnasked(Fold):
    """Without state it begins wherever the call begins."""

    def apply(self, call: Call) -> Applied | Behind:
        return super().apply(call._replace(epoch=call.epoch or "unasked"))


class _KeepsLeftovers(Fold):
    """A rebuild finds what an earlier epoch left."""

    def apply(self, call: Call) -> Applied | Behind:
        left = dict(self.entries)
        fresh = self.at is None and call.epoch
        if fresh:
            super().apply(call._replace(end=call.start, records=[]))
            self.entries = left
        return super().apply(call)


class _EpochOnEveryCall(Join):
    """Lets every call of a rebuild begin anew, until one was answered."""

    def begin(self, chunks: Any, committed: Any) -> Any:
        epochs = dict(self._epochs)
        ticket = super().begin(chunks, committed)
        self._epochs |= epochs
        return ticket

    def finish(self, ticket: Any) -> Any:
        yield from super().finish(ticket)
        for call in ticket.calls:
            self._epochs.pop(call.bucket, None)


class _ThirdOfTheWindow(Join):
    """Rebuilds from one life of an entry back instead of three."""

    def _window_start(self, *args: Any) -> int:
        window = self._settings
        self._settings = replace(window, window_ms=window.window_ms // 3, slack_ms=window.slack_ms // 3)
        try:
            return super()._window_start(*args)
        finally:
            self._settings = window


class _FromTheCommit(Join):
    """Rebuilds what matters at the committed offset's own time, not at that of the record before."""

    def _window_start(self, place: Place, commit: int, low: int, log: Log) -> int:
        return super()._window_start(place, commit + 1, low, log)


class _BlindToItsLag(Join):
    """Trusts the store however far it is behind."""

    def _look_at_the_lag(self, read: Any) -> None:
        pass


class _TakesWhatComesBack(Join):
    """Takes a bucket that comes back after a loss for the one that was begun anew."""

    def _belongs_to(self, bucket: int, epoch: str) -> None:
        pass


class _FreshMetadata(Worker):
    """Commits as the member it is now, not as the one that read the records."""

    def _commit(self, last: bool = False) -> None:
        self._metadata = self.source._consumer.consumer_group_metadata()  # type: ignore[attr-defined]
        super()._commit(last)


class _SnapshotAhead(Detect):
    """Cuts a snapshot of the state as it is, which after an abort is ahead of what is committed."""

    def _is_ready(self, held: Any, reached: int, now: float, last: bool) -> bool:
        return super()._is_ready(held, max(reached, held.monitor.at), now, last)


class _SnapshotOutside(Worker):
    """Commits what seals a transaction in one of its own."""

    def _commit(self, last: bool = False) -> None:
        seal = self.stage.seal

        def apart(reached: Any, last: bool) -> list[Out]:
            if sealed := seal(reached, last):
                self._sink.produce(sealed)
                self._sink.commit({}, self._metadata)
            return []

        with patch.object(self.stage, "seal", apart):
            super()._commit(last)


class _NotRefilled(Detect):
    """Takes a snapshot without its waiting outcomes for the whole state."""

    def _take_up(self, *args: Any) -> Any:
        held, trouble = super()._take_up(*args)
        if held is not None:
            held.refilled = held.restored
        return held, trouble


class _LeavesChunks(Detect):
    """Does not take off what a longer snapshot leaves over."""

    def _cut(self, place: Place, held: Any) -> list[Out]:
        held.chunks = 0
        return super()._cut(place, held)


class _ForgetsWhatFires(Detect):
    """Repeats an alert after an abort, but not what it changes about those that fire."""

    def _publish(self, place: Place, held: Any, *args: Any) -> None:
        super()._publish(place, held, *args)
        held.outbox.pop()


class _CarriesNothingOver(Detect):
    """Leaves what fires to itself when the state is built anew under other settings."""

    def _rebuild(self, *args: Any) -> Any:
        held = super()._rebuild(*args)
        held.firing = []
        return held


class _KeepsWhatWasProcessed(Worker):
    """Produces what was processed during a commit that failed, and reads it again too."""

    def _drop(self) -> None:
        unsent = self._unsent
        super()._drop()
        self._unsent = unsent


class _CountsWhatWasRolledBack(Worker):
    """Counts what was processed, whether it was committed or not."""

    def _drop(self) -> None:
        counted = dict(self.stage.counters)
        super()._drop()
        self.stage.counters.update(counted)


class _DoesNotWaitForTheCommit(Worker):
    """Lets a partition go while its commit is under way, and takes what that commits for not committed."""

    def _drop(self) -> None:
        self._under_way = None
        super()._drop()


class _FirstGapCounts(Worker):
    """Takes the first contradiction between offset and log for a gap."""

    def _resume(self, place: Place, committed: int | None) -> tuple[int, int]:
        return self.stage.resume(place, committed, self.source)


def _every_piece_begins(call: Call) -> list[Call]:
    return [piece._replace(epoch=call.epoch) for piece in cut(call)]


def _anywhere(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """Pieces that end in the middle of what one record of the journal carries."""
    return (records[i : i + size] for i in range(0, len(records), size))


def _cut_anywhere(call: Call) -> list[Call]:
    with patch("stream_monitor.core.joining.pieces", _anywhere):
        return cut(call)


def _loud(records: Sequence[Record], found: Applied, committed: int, *place: int) -> list[Emission]:
    return emit(records, found, 0, *place)


_take = Fold._take


def _late_is_joined(fold: Fold, record: Record) -> tuple[int, bytes] | None:
    answer = _take(fold, record)
    return (Verdict.JOINED, answer[1]) if answer is not None and answer[0] == Verdict.LATE else answer


def _without_slack(fold: Fold, record: Record) -> tuple[int, bytes] | None:
    fold._settings = replace(fold._settings, slack_ms=0)
    return _take(fold, record)


def _fold_takes(take: Any) -> Callable[[], AbstractContextManager[Any]]:
    """A bug in the fold itself: whoever holds the store against another `Fold` has it twice."""
    return partial(patch.object, Fold, "_take", take)


def _emit_below_the_commit() -> AbstractContextManager[Any]:
    return patch("stream_monitor.stages.emit", _loud)


def _delay_of_the_wrong_sign() -> AbstractContextManager[Any]:
    def backwards(value: bytes) -> tuple[int, int]:
        time, length = peek_head(value)
        return -time, length

    return patch("stream_monitor.core.joining.peek_head", backwards)


def _blind_to_the_commit() -> AbstractContextManager[Any]:
    return patch.object(KafkaSink, "_is_committing", lambda _: False)


MUTANTS = {
    "no gap check": Program(fold=_NoGapCheck),
    "no outbox": Program(fold=_NoOutbox),
    "cohorts told once": Program(fold=_TellsCohortsOnce),
    "cohorts told with the end of a call": Program(fold=_TellsCohortsAtTheEnd),
    "answers trimmed before they are committed": Program(fold=_TrimsWhatIsNotCommitted),
    "late feedback counts as joined": Program(patch=_fold_takes(_late_is_joined)),
    "no slack": Program(patch=_fold_takes(_without_slack)),
    "a label delay of the wrong sign": Program(patch=_delay_of_the_wrong_sign),
    "not silent below the committed offset": Program(patch=_emit_below_the_commit),
    "a store without state begins unasked": Program(fold=_BeginsUnasked),
    "a rebuild keeps leftovers": Program(fold=_KeepsLeftovers),
    "every call of a rebuild may begin it": Program(join=_EpochOnEveryCall),
    "every piece of a call may begin it": Program(cut=_every_piece_begins),
    "a call that ends in the middle of a frame": Program(cut=_cut_anywhere),
    "a rebuild reads one life of an entry": Program(join=_ThirdOfTheWindow),
    "a rebuild goes back from the record to come": Program(join=_FromTheCommit),
    "entries that outlived their TTL": Program(join=_BlindToItsLag),
    "a bucket that comes back is taken for a fresh one": Program(join=_TakesWhatComesBack),
    "metadata taken afresh at the commit": Program(worker=_FreshMetadata),
    "a snapshot ahead of the committed offset": Program(detect=_SnapshotAhead),
    "a snapshot in a transaction of its own": Program(worker=_SnapshotOutside),
    "waiting outcomes not put back": Program(detect=_NotRefilled),
    "chunks of a longer snapshot left": Program(detect=_LeavesChunks),
    "what fires not repeated after an abort": Program(detect=_ForgetsWhatFires),
    "what fires not carried over": Program(detect=_CarriesNothingOver),
    "what was processed during a failed commit is produced": Program(worker=_KeepsWhatWasProcessed),
    "what was rolled back is counted": Program(worker=_CountsWhatWasRolledBack),
    "partitions go while a commit is under way": Program(worker=_DoesNotWaitForTheCommit, patch=_blind_to_the_commit),
    "a gap told at the first look": Program(worker=_FirstGapCounts),
}
