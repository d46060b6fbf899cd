"""The stages behind one interface: a fold over the chunks of a log, whose answers can be asked for again. Detect: detect.py.

    begin(chunks)   starts the work (for the join: the call to Redis) and returns a ticket
    finish(ticket)  ends it and returns the records to produce, for offsets >= the committed one; a generator makes
                    them as they are taken, so that their bytes are still in the processor's caches when the client copies them

Between the two the loop reads the next chunks and produces the last ones. `resume` says where to read from after an assignment or
an abort: at the committed offset, or before it where the cached state is behind; what lies below the committed offset is
applied silently.

A stage's `counters` are of what `finish` handled since the loop last emptied them (live.py does at each commit and roll-back). What
lies below the committed offset is not counted. What adds up:

    route    predictions + feedback = committed records; the dead_letter:REASON are among them, the others went to the journal
    join     waiting + joined + duplicate + conflicting + late = committed records: what each one found. `waiting` found no other
             side when it came; each `joined` and `late` ended the waiting of one of these. What still waits, what expired and what
             stayed an orphan only the bucket knows (core.joining.Fold, RedisStore.counters).
             prediction, outcome, feedback_issue, feedback_cohort: what was published; outcome = joined, prediction + duplicates =
             predictions
    detect   observations = committed records; firing, resolved ...: alerts that were published
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from stream_monitor.core.alignment import by_time
from stream_monitor.core.codec import Codec, journal_time
from stream_monitor.core.frames import Framer, unframe
from stream_monitor.core.hashing import partition_of
from stream_monitor.core.joining import Answers, Applied, Behind, Call, Verdict, emit
from stream_monitor.core.records import SPAN, Record
from stream_monitor.core.routing import Input, route
from stream_monitor.core.settings import JoinSettings
from stream_monitor.errors import LogGapError
from stream_monitor.ports import Chunk, Log, Out, Place, Store, Unpack


class Rewind(Exception):  # noqa: N818  # not an error: the way back
    """The cached state is behind the log (it was lost, wholly or in part): find the place again."""


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    depth: int  # batches that stay in flight, at most
    counters: dict[str, int]  # since the last commit or roll-back

    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def time_of(self) -> Callable[[str, Record], int] | None:
        """Event time (ms) of a record of a topic, by which partitions are read side by side; a quick look, no decision."""

    @property
    def unpack(self) -> Unpack | None:
        """How to unpack the records of its topics; None where each is what it is."""

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> Any: ...
    def ready(self, ticket: Any, seconds: float) -> bool:
        """Waits for so long at most; whether `finish` need not wait."""

    def finish(self, ticket: Any) -> Iterable[Out]:
        """The records to produce. What it raises may come while they are taken, and its counters are whole once all are."""

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        """Where to read from, and the committed offset below which nothing is emitted.

        Raises LogGapError where log, cache and offset contradict each other.
        """

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:
        """What belongs into the transaction that commits these offsets, beside what `finish` gave; `last`: it ends the process."""

    def trim(self, place: Place, committed: int) -> None:
        """The offset is committed, by us or by an earlier owner."""

    def revoked(self, place: Place) -> None: ...


def count(counters: dict[str, int], name: str, n: int = 1) -> None:
    """`n` more of these."""
    counters[name] = counters.get(name, 0) + n


def start_of(place: Place, committed: int | None, log: Log) -> int:
    """The committed offset, or the log's first; a gap between the two is an operator's decision."""
    low, high = log.bounds(place)
    if committed is None:
        return low
    if not low <= committed <= high:
        raise LogGapError(
            f"{place[0]}/{place[1]}: the committed offset is {committed}, but the topic holds {low} to {high}",
            "see what would be skipped, and accept it, with: stream-monitor reset",
        )
    return committed


class Route:
    """predictions, feedback -> journal, dead letters."""

    name = "route"
    depth = 1
    unpack = None

    def __init__(
        self,
        codec: Codec,
        predictions: str,
        feedback: str,
        journal: str,
        journal_partitions: int,
        dead_letter: str,
        dead_letter_partitions: int,
    ) -> None:
        self.topics = (predictions, feedback)
        self.counters: dict[str, int] = {}
        self._codec = codec
        self._predictions = predictions
        self._journal = journal
        self._partitions = journal_partitions
        self._dead_letter = dead_letter
        self._dead_letter_partitions = dead_letter_partitions

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> Sequence[Chunk]:  # noqa: ARG002
        return chunks

    def ready(self, ticket: Sequence[Chunk], seconds: float) -> bool:  # noqa: ARG002
        return True

    def finish(self, ticket: Sequence[Chunk]) -> list[Out]:
        out: list[Out] = []
        framer = Framer(self._partitions)
        for i, records in by_time((chunk.records, chunk.runs) for chunk in ticket):
            source, partition = ticket[i].place
            kind: Input = "predictions" if source == self._predictions else "feedback"
            events, dead = route(self._codec, kind, source, partition, records)
            framer.add(events)
            for letter in dead:
                to = partition_of(letter.key or b"", self._dead_letter_partitions)
                out.append(Out(self._dead_letter, to, letter.key, letter.value, letter.headers))
                count(self.counters, f"dead_letter:{letter.reason}")
            count(self.counters, kind, len(records))
        out += [Out(self._journal, home, None, frame, None) for home, frame in framer.finish()]
        return out

    def time_of(self, topic: str, record: Record) -> int:
        return self._codec.event_time(record.value, topic == self._predictions, record.time)

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        start = start_of(place, committed, log)
        return start, start

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:  # noqa: ARG002
        return []

    def trim(self, place: Place, committed: int) -> None:
        pass

    def revoked(self, place: Place) -> None:
        pass


_PUBLISHED = (b"prediction", b"outcome", b"feedback_issue", b"feedback_cohort")
_FOUND = {Verdict.JOINED: "joined", Verdict.DUPLICATE: "duplicate", Verdict.CONFLICT: "conflicting", Verdict.LATE: "late"}


def _account(counters: dict[str, int], call: Call, answers: Answers) -> None:
    """Counts what the records of a call found, those below the committed offset left out. A batch at once: only answers are looked at."""
    first, end = max(call.start, call.committed), call.end
    records = len(call.records) if first == call.start else sum(record.offset >= first for record in call.records)
    # A repeated call is answered with all that the outbox holds, which may reach beyond the call.
    found = Counter([verdict for position, (verdict, _) in answers.items() if first * SPAN <= position < end * SPAN])
    for verdict, n in found.items():
        count(counters, _FOUND[Verdict(verdict)], n)
    if waiting := records - found.total():
        count(counters, "waiting", waiting)


class _Calls(NamedTuple):
    chunks: Sequence[Chunk]
    calls: list[Call]
    answers: Future[list[Applied | Behind]]


class _Homes(dict[bytes, int]):
    """key -> its partition."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def __missing__(self, key: bytes) -> int:
        if len(self) > 10_000:
            self.clear()
        home = self[key] = partition_of(key, self._partitions)
        return home


class Join:
    """journal -> observations, through the store.

    The store's TTL goes by the clock on the wall, the life of an entry by the journal's. Behind by more than `JoinSettings.lag_ms`, entries
    that are still needed may have been freed: the bucket is begun anew, whose entries are then as young as that. `wall_ms` decides
    nothing else.
    """

    name = "join"
    depth = 2  # so that the store has the next batch while the answers to the last one are read
    unpack = staticmethod(unframe)

    def __init__(
        self,
        store: Store,
        settings: JoinSettings,
        journal: str,
        observations: str,
        observation_partitions: int,
        new_epoch: Callable[[], str],
        journal_partitions: int = 1,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.topics = (journal,)
        self.counters: dict[str, int] = {}
        self._store = store
        self._settings = settings
        self._observations = observations
        self._new_epoch = new_epoch
        self._journal_partitions = journal_partitions
        self._epochs: dict[int, str] = {}  # of buckets that are to be rebuilt, until their first call is made
        self._wall_ms = wall_ms
        self._begun: dict[int, tuple[str, int]] = {}  # buckets that we began anew: under which epoch, of which nothing is older, and when
        self._outlived: set[int] = set()  # buckets that may miss what the TTL has freed
        self._headers = {kind: [("record", kind)] for kind in _PUBLISHED}
        self._homes = _Homes(observation_partitions)

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> _Calls:
        self._look_at_the_lag((place[1], records) for place, _, _, records, _ in chunks)
        calls = [
            # The first call of a rebuild carries the new epoch, and no other: should the store forget between the first and
            # the second, the second must be refused, or the rebuild would have a gap.
            Call(place[1], start, end, committed[place], records, self._epochs.pop(place[1], ""))
            for place, start, end, records, _ in chunks
        ]
        return _Calls(chunks, calls, self._store.submit(calls))

    def ready(self, ticket: _Calls, seconds: float) -> bool:
        try:
            ticket.answers.exception(seconds)
        except TimeoutError:
            return False
        return True

    def finish(self, ticket: _Calls) -> Iterator[Out]:
        answers: list[Applied] = []
        for call, answer in zip(ticket.calls, ticket.answers.result(), strict=True):
            if isinstance(answer, Behind):
                raise Rewind(f"the store knows bucket {call.bucket} up to {answer.at}, {call.start} was expected")
            self._belongs_to(call.bucket, answer.epoch)
            answers.append(answer)
        self._look_at_the_lag((call.bucket, call.records) for call in ticket.calls)  # the store may have been away for long
        for call, found in zip(ticket.calls, answers, strict=True):
            _account(self.counters, call, found.answers)
        topic, headers, homes = self._observations, self._headers, self._homes
        published = dict.fromkeys(_PUBLISHED, 0)
        for i, records in by_time((chunk.records, chunk.runs) for chunk in ticket.chunks):
            call = ticket.calls[i]
            for model, record, value in emit(records, answers[i], call.committed, call.bucket, self._journal_partitions):
                published[record] += 1
                yield topic, homes[model], model, value, headers[record]  # type: ignore[misc]  # an Out in all but name, which is cheaper
        for record, n in published.items():
            if n:
                count(self.counters, record.decode(), n)

    def _belongs_to(self, bucket: int, epoch: str) -> None:
        """What the store holds is of this epoch. If not of ours, it came back after a loss, and may be older than what we began."""
        if bucket in self._begun and self._begun[bucket][0] != epoch:
            del self._begun[bucket]

    def _look_at_the_lag(self, read: Iterable[tuple[int, Sequence[Record]]]) -> None:
        now, settings = self._wall_ms(), self._settings
        for bucket, records in read:
            lag = now - records[0].time if records else 0
            if lag > settings.lag_ms and now - self._begun.get(bucket, ("", 0))[1] > settings.ttl_ms - settings.lag_ms:
                self._outlived.add(bucket)
                raise Rewind(f"bucket {bucket} is {lag // 1000} s behind: what it needs may have outlived its TTL; it is rebuilt")

    def time_of(self, topic: str, record: Record) -> int:  # noqa: ARG002
        return journal_time(record.value)

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        bucket = place[1]
        # The store is asked before the log: another owner may still be moving both, and the store never leads the log.
        status = self._store.status(bucket)
        commit = start_of(place, committed, log)
        low, high = log.bounds(place)
        if status.at is not None and (status.at > high or status.trim > commit):
            raise LogGapError(
                f"bucket {bucket}: the store has applied the journal up to {status.at} and seen {status.trim} committed, but the"
                f" group's committed offset is {commit} and the journal ends at {high}: the offsets were moved or the journal is a new one",
                "drop the join's state and rebuild it from the journal with: stream-monitor reset --join",
            )
        if status.at is not None and min(status.at, commit) >= low and bucket not in self._outlived:
            self._epochs.pop(bucket, None)  # of an earlier search, if no call was made since
            self._belongs_to(bucket, status.epoch)
            return min(status.at, commit), commit
        if status.at is not None:
            self._store.forget(bucket)
        epoch = self._epochs[bucket] = self._new_epoch()
        self._begun[bucket] = epoch, self._wall_ms()
        self._outlived.discard(bucket)
        return self._window_start(place, commit, low, log), commit

    def _window_start(self, place: Place, commit: int, low: int, log: Log) -> int:
        """The first offset that matters to a record at `commit` or later, by the log's own time.

        For pairs that is two lives of an entry back: what was joined a life ago is still known, and its first side had waited for as long.
        With less, half of such a pair would be read again and taken for a new one when it is sent once more. Cohorts go back by a life and
        a slot more: they are told of labels that are so old, and what these found when they came decided how they count. From the record
        before: what was not over there is told by the one at `commit`, however much later that came. Where the log holds less, the pairs
        are right, and a label may count wrongly whose request id had come again.
        """
        when = log.time_at(place, commit - 1) if commit > low else None
        if when is None:
            return commit
        first = log.offset_at(place, when - 3 * (self._settings.window_ms + self._settings.slack_ms) - self._settings.slot_ms)
        return max(low, min(commit, commit if first is None else first))

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:  # noqa: ARG002
        return []

    def trim(self, place: Place, committed: int) -> None:
        pass  # the next call tells the store

    def revoked(self, place: Place) -> None:
        self._epochs.pop(place[1], None)
