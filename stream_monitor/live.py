"""The loop of a stage: poll, process, produce, commit.

    chunks --stage.begin--> ticket --stage.finish--> records --sink--> transaction with the offsets of what was processed

Tickets stay in flight, `Stage.depth` of them at most: while the store works on a batch, the next one is read and the last one produced. One
commit is under way at a time: meanwhile the next batches are read and processed, and what they give waits for the next transaction, since a
producer has only one. Whatever asks what is committed first waits for it (`_settle`). A rebalance, an abort or a store that forgot all
lead to the same place, `_restart`: drop what is in flight, roll the transaction back, and let the stage say where to read from.
What was processed but not committed is answered again from the stage's cache.

Counting follows the transactions: what a stage counts belongs to the next commit, is added to `Progress.counters` when that is done and
dropped when it is rolled back. So each committed record is counted once, by the process that committed it, however often it was
read; a commit of which the process never heard, because it was killed or fenced during it, is in nobody's counters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from stream_monitor.errors import AGAIN, FatalError, LogGapError
from stream_monitor.ports import Aborted, Chunk, Out, Place, Sink, Source
from stream_monitor.stages import Rewind, Stage, count

_PLENTY = 10  # parts of a batch, of which one shows that there is more to come
_PATIENCE = 1.0  # seconds for which what is produced waits for the store

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0  # seconds between two tries

_PARTING = 5.0  # seconds for a roll-back at the end after a failure: whoever comes next can do it too


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done at once: records a poll, and the most a transaction holds, in seconds and in records."""

    batch: int = 5_000
    poll_s: float = 0.05
    transaction_s: float = 0.25
    transaction_records: int = 20_000


@dataclass(slots=True)
class Progress:
    """What a worker has done. `first` and `last`: clock of the first record read and of the last commit, seconds.

    `records` were processed, those read again included; `committed` were committed, each counted once, and `counters` say what
    became of these. `healed`: so often a partition's cached state was behind what is committed and was made again from the log.
    """

    records: int = 0
    committed: int = 0
    transactions: int = 0
    restarts: int = 0
    healed: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    first: float | None = None
    last: float | None = None


@dataclass(slots=True)
class _Cursor:
    committed: int  # the group's offset: nothing below it is emitted again
    done: int  # processed up to here: produced, or about to be


@dataclass(slots=True)
class _Flight:
    ticket: Any
    ends: dict[Place, int]
    records: int
    fresh: int  # of these, not committed yet
    metadata: Any


@dataclass(frozen=True, slots=True)
class _Commit:
    """A transaction on its way: what it commits, of how many fresh records, and what became of these."""

    offsets: dict[Place, int]
    fresh: int
    counters: dict[str, int]
    done: Future[None]


class Worker:
    """One stage, one consumer, one producer. `turn` is one step; `clock` is monotonic seconds.

    `pause`: seconds to wait before the next turn. What has failed again, with nothing committed in between, is not tried again at once
    (a right that is missing, a store that forgets again and again): each time it waits twice as long, up to a bound.
    """

    def __init__(
        self,
        stage: Stage,
        source: Source,
        sink: Sink,
        pace: Pace,
        clock: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self.stage = stage
        self.progress = Progress()
        self.pause = 0.0
        self.source = source
        self._sink = sink
        self._pace = pace
        self._clock = clock
        self._log = log
        self._cursors: dict[Place, _Cursor] = {}
        self._committed: dict[Place, int] = {}  # the view of `_cursors` that stages read
        self._flights: deque[_Flight] = deque()  # begun and not finished, in order
        self._under_way: _Commit | None = None
        self._unsent: list[Out] = []  # processed while a commit is under way
        self._metadata: Any = None
        self._pending = 0  # records processed since the last commit
        self._fresh = 0  # of these, not committed before: what the next commit stands for
        self._since: float | None = None  # when the oldest uncommitted record was processed
        self._healing: set[Place] = set()  # what is read from below the committed offset
        self._ended = False  # abandoned: nothing is asked of the sink any more
        self._void = False  # a rebalance happened: positions and transaction are not to be trusted
        self._next_pause = 0.0  # that after the next failure; the first one since the last commit is tried again at once

    # -- what the source calls during a rebalance ------------------------------------------------------------------

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        self._void = True
        self._drop()  # a group that takes nothing away first has left it open; to find the place may take as long as the store is away
        return self._find(places)

    def revoked(self, places: Sequence[Place]) -> None:
        if self._ended:
            return
        # The transaction ends before the consumer rejoins: whoever owns the partition next reads committed offsets only.
        self._void = True
        self._drop()
        for place in places:
            self._cursors.pop(place, None)
            self._committed.pop(place, None)
            self._healing.discard(place)
            self.stage.revoked(place)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Reads, processes and produces a batch, and commits where it is time. False where nothing came."""
        self.pause = 0.0
        try:
            chunks = self.source.poll(self._pace.batch, self._pace.poll_s)
            if self._void:
                self._restart("rebalance")
                return True
            if chunks:
                self._launch(chunks)
            self._land_all_but(self._flying(chunks))
            if self._due(idle=not chunks):
                self._commit()  # without what was just launched: to wait for it would leave the store with nothing to do behind it
            if not chunks or self._is_done():
                self._settle()  # at once where it is done, or there is nothing to do meanwhile
            return bool(chunks)
        except (Aborted, Rewind) as why:
            self._restart(str(why))
            self.pause, self._next_pause = self._next_pause, min(max(2 * self._next_pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True

    def finish(self) -> None:
        """Ends cleanly: what was processed is committed."""
        try:
            self._land_all_but(0)
            self._commit(last=True)
            self._settle()
        except (Aborted, Rewind) as why:
            self._log(f"{self.stage.name}: the last transaction was rolled back: {why}")
            self._drop()

    def abandon(self) -> None:
        """Ends after a failure: the open transaction is rolled back, if that is still possible."""
        self._flights.clear()
        self._ended = True
        try:
            with suppress(Aborted):
                self._settle(_PARTING)
            self._sink.abort(_PARTING)
        except (Aborted, FatalError) as error:
            self._log(f"{self.stage.name}: the transaction could not be rolled back and will time out: {error}")

    def reached(self, ends: Mapping[Place, int]) -> bool:
        """Whether everything below `ends` is committed, by this worker or by others of its group, and what is healed here is whole."""
        missing = [p for p, end in ends.items() if (cursor := self._cursors.get(p)) is None or min(cursor.committed, cursor.done) < end]
        if not missing:
            return True
        if any(place in self._cursors for place in missing):
            return False
        group = self.source.committed(missing)
        return all((group[place] or 0) >= ends[place] for place in missing)

    def _flying(self, chunks: Sequence[Chunk]) -> int:
        """How many batches stay in flight. Several only where there is plenty: else one would wait for nothing but the next poll.

        A tenth of a batch is plenty: partitions that are read side by side hand out less than a whole one again and again. So where records
        come as fast as that, a batch is produced two polls after it was read.
        """
        if not chunks:
            return 0
        return self.stage.depth if _PLENTY * self._flights[-1].records >= self._pace.batch else 1

    def _launch(self, chunks: Sequence[Chunk]) -> None:
        records = sum(len(chunk.records) for chunk in chunks)
        if records and self.progress.first is None:
            self.progress.first = self._clock()
        ticket = self.stage.begin(chunks, self._committed)
        known = 0
        for chunk in chunks:
            committed = self._committed[chunk.place]
            if chunk.start >= committed:
                self._healing.discard(chunk.place)
                continue
            known += sum(record.offset < committed for record in chunk.records)
            if chunk.place not in self._healing:
                self._healing.add(chunk.place)
                self.progress.healed += 1
        self._flights.append(_Flight(ticket, {chunk.place: chunk.end for chunk in chunks}, records, records - known, self.source.metadata))

    def _land_all_but(self, flying: int) -> None:
        while len(self._flights) > flying:
            self._land(self._flights.popleft())

    def _land(self, flight: _Flight) -> None:
        if not self.stage.ready(flight.ticket, _PATIENCE):
            self._commit()  # what is produced does not wait with it: the broker rolls back what stays open for long, and fences us
            self._settle()
        out = self.stage.finish(flight.ticket)
        if self._under_way is None or self._is_done():
            self._produce(out)
        else:
            self._unsent += out
        for place, end in flight.ends.items():
            self._cursors[place].done = end
        self._metadata = flight.metadata
        self._pending += flight.records
        self._fresh += flight.fresh
        self.progress.records += flight.records
        if self._since is None:
            self._since = self._clock()

    def _due(self, idle: bool) -> bool:
        if self._since is None:
            return False
        full = self._pending >= self._pace.transaction_records
        return full or self._clock() - self._since >= self._pace.transaction_s or (idle and not self._flights)

    def _produce(self, out: Iterable[Out] = ()) -> None:
        """Hands over what was processed, and `out` after it, to a transaction that follows the one that is being committed."""
        self._settle()
        unsent, self._unsent = self._unsent, []
        rest = chain(unsent, out)
        first = next(rest, None)
        if first is not None:  # else, as in a silent replay, no transaction is begun: it could wait too long for its commit
            self._sink.produce(chain((first,), rest))

    def _commit(self, last: bool = False) -> None:
        """Starts the commit of what was processed."""
        self._produce()
        self._since, self._pending = None, 0
        fresh, self._fresh = self._fresh, 0
        if self._metadata is None:
            return  # nothing was read under the present assignment
        reached = {place: cursor.done for place, cursor in self._cursors.items() if cursor.done >= cursor.committed}
        offsets = {place: done for place, done in reached.items() if done > self._cursors[place].committed}
        sealed = self.stage.seal(reached, last)
        if sealed:
            self._sink.produce(sealed)
            offsets = reached  # an offset that stands still is said again: whose partition is another's by now must not write about it
        if not offsets:
            return
        self._under_way = _Commit(offsets, fresh, dict(self.stage.counters), self._sink.commit(offsets, self._metadata))
        self.stage.counters.clear()

    def _is_done(self) -> bool:
        return self._under_way is not None and self._under_way.done.done()

    def _settle(self, seconds: float | None = None) -> None:
        """Waits for the commit that is under way, if there is one, and notes what it changed. Raises what it failed of."""
        commit = self._under_way
        if commit is None:
            return
        patience = self._sink.patience if seconds is None else seconds
        try:
            commit.done.result(patience)
        except TimeoutError:  # and it stays under way
            raise FatalError(f"kafka: a commit did not come back within {patience:.0f} s", AGAIN) from None
        except Exception:
            self._under_way = None
            raise
        self._under_way = None
        self._next_pause = 0.0
        for place, offset in commit.offsets.items():
            self._cursors[place].committed = self._committed[place] = offset
            self.stage.trim(place, offset)
        self.progress.transactions += 1
        self.progress.committed += commit.fresh
        self.progress.last = self._clock()
        for name, n in commit.counters.items():
            count(self.progress.counters, name, n)

    # -- finding the place ------------------------------------------------------------------------------------------

    def _find(self, places: Sequence[Place]) -> dict[Place, int]:
        """Where to read each partition from, and what is committed, by the log and the stage's cache."""
        starts: dict[Place, int] = {}
        committed = self.source.committed(places) if places else {}
        for place in places:
            start, commit = self._resume(place, committed[place])
            self._cursors[place] = _Cursor(commit, start)
            self._committed[place] = commit
            starts[place] = start
        return starts

    def _resume(self, place: Place, committed: int | None) -> tuple[int, int]:
        """Where to read a partition from. A contradiction counts only if the committed offset stands still: while we were looking,
        the partition may have gone to another worker, who has committed and told the store."""
        while True:
            try:
                return self.stage.resume(place, committed, self.source)
            except LogGapError:
                asked = committed
                committed = self.source.committed([place])[place]
                if committed == asked:
                    raise

    def _drop(self) -> None:
        with suppress(Aborted):  # it is rolled back with the rest
            self._settle()
        self._unsent = []
        self._flights.clear()
        self._metadata = None
        self._since, self._pending, self._fresh = None, 0, 0
        self.stage.counters.clear()
        self._sink.abort()

    def _restart(self, why: str) -> None:
        self._void = False
        self.progress.restarts += 1
        self._log(f"{self.stage.name}: {why}; going on from the last commit")
        self._drop()
        for place, start in self._find(self.source.owned()).items():
            if self.source.position(place) != start:
                self.source.seek(place, start)
