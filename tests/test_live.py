"""The loop: what is produced when, what a transaction holds, and that every trouble leads back to the last commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from stream_monitor.core.records import Record
from stream_monitor.core.snapshots import StateRecord
from stream_monitor.errors import FatalError, LogGapError
from stream_monitor.live import Pace, Worker
from stream_monitor.ports import Aborted, Chunk, Log, Out, Place
from stream_monitor.stages import Rewind

HERE: Place = ("in", 0)


class Echo:
    """A stage that produces what it reads, from the committed offset on."""

    name = "echo"
    depth = 1
    topics = ("in",)
    time_of = unpack = None

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.trimmed: list[int] = []
        self.begun: list[Chunk] = []
        self.failures: list[Exception] = []
        self.seals = False
        self.asked: list[tuple[dict[Place, int], bool]] = []
        self.answers = True

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> Any:
        self.begun += chunks
        return chunks, dict(committed)

    def ready(self, ticket: Any, seconds: float) -> bool:
        return self.answers

    def finish(self, ticket: Any) -> list[Out]:
        if self.failures:
            raise self.failures.pop()
        chunks, committed = ticket
        return [Out("out", 0, None, r.value, None) for c in chunks for r in c.records if r.offset >= committed[c.place]]

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        return committed or 0, committed or 0

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:
        self.asked.append((dict(reached), last))
        return [Out("state", 0, b"k", b"sealed at %d" % at, None) for at in reached.values()] if self.seals else []

    def trim(self, place: Place, committed: int) -> None:
        self.trimmed.append(committed)

    def revoked(self, place: Place) -> None:
        pass


class Later(Future[None]):
    """A call that is made when somebody waits for it, or `happen` says so."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call

    def happen(self) -> None:
        if not self.done():
            try:
                self._call()
                self.set_result(None)
            except Exception as failure:
                self.set_exception(failure)

    def result(self, timeout: float | None = None) -> None:
        self.happen()
        return super().result(0)


class Never(Future[None]):
    """The client has lost it. `waited`: the bounds of those who waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def result(self, timeout: float | None = None) -> None:
        self.waited.append(timeout)
        raise TimeoutError


class Kafka:
    """Source and sink in one: what is committed is visible in `out` and `offset`. Commits are made `at_once`, or when waited for."""

    patience = 30.0

    def __init__(self, *values: bytes) -> None:
        self.values = list(values)
        self.at = 0
        self.most = len(values)  # that a poll gives
        self.offset: int | None = None
        self.out: list[bytes | None] = []
        self.transactions: list[list[bytes | None]] = []
        self.commits: list[tuple[int, Any]] = []
        self.metadata: Any = None
        self.generation = 1
        self.places: list[Place] = []
        self.open = False
        self.buffer: list[bytes | None] = []
        self.refusals: list[Exception] = []
        self.offsets: list[int | None] = []  # what `committed` says first
        self.news: list[Any] = []  # rebalances: called in the next poll
        self.at_once = True
        self.refused = False
        self.aborts = 0
        self.under_way: Future[None] = Future()

    def poll(self, most: int, timeout: float) -> list[Chunk]:
        if self.news:
            self.news.pop(0)()
            return []
        self.metadata = self.generation
        start, end = self.at, min(self.at + min(most, self.most), len(self.values))
        if end == start or HERE not in self.places:
            return []
        self.at = end
        return [Chunk(HERE, start, end, [Record(o, 0, b"", self.values[o]) for o in range(start, end)])]

    def seek(self, place: Place, offset: int) -> None:
        self.at = offset

    def owned(self) -> list[Place]:
        return self.places

    def position(self, place: Place) -> int | None:
        return self.at

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        return dict.fromkeys(places, self.offsets.pop(0) if self.offsets else self.offset)

    def produce(self, records: Iterable[Out]) -> None:
        self.open = True
        self.buffer += [value for _, _, _, value, _ in records]

    def commit(self, offsets: Mapping[Place, int], metadata: Any) -> Future[None]:
        later = self.under_way = Later(lambda: self._commit(offsets, metadata))
        if self.at_once:
            later.happen()
        return later

    def _commit(self, offsets: Mapping[Place, int], metadata: Any) -> None:
        if self.refusals:
            self.refused = True
            raise self.refusals.pop()
        self.out += self.buffer
        self.transactions.append(self.buffer)
        self.offset = offsets[HERE]
        self.commits.append((offsets[HERE], metadata))
        self.buffer, self.open = [], False

    def abort(self, seconds: float = 1.0) -> None:
        self.aborts += 1
        self.refused = False
        self.buffer, self.open = [], False

    def partitions(self, topic: str) -> int:
        return 1

    def bounds(self, place: Place) -> tuple[int, int]:
        return 0, len(self.values)

    def offset_at(self, place: Place, when: int) -> int | None:
        return None

    def time_at(self, place: Place, offset: int) -> int | None:
        return None

    def end(self, place: Place) -> int:
        return len(self.values)

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        return []

    def close(self) -> None:
        pass


def started(kafka: Kafka, stage: Echo | None = None, **pace: Any) -> Worker:
    """A worker that owns the one partition."""
    worker = Worker(stage or Echo(), kafka, kafka, Pace(**{"transaction_s": 1e9, **pace}), lambda: 0.0, lambda line: None)
    kafka.news.append(lambda: _assign(kafka, worker))
    worker.turn()
    return worker


def _assign(kafka: Kafka, worker: Worker) -> None:
    kafka.places = [HERE]
    kafka.at = worker.assigned([HERE])[HERE]


def _revoke(kafka: Kafka, worker: Worker) -> None:
    kafka.places = []
    worker.revoked([HERE])


def test_outputs_and_offsets_are_committed_together_when_the_input_is_idle() -> None:
    kafka = Kafka(b"a", b"b")
    worker = started(kafka)
    while worker.turn():
        pass
    assert (kafka.out, kafka.offset) == ([b"a", b"b"], 2)


def test_a_batch_is_produced_while_the_next_one_is_worked_on() -> None:
    kafka = Kafka(b"a", b"b")
    stage = Echo()
    worker = started(kafka, stage, batch=1)
    worker.turn()
    assert (len(stage.begun), kafka.buffer) == (1, [])
    worker.turn()
    assert (len(stage.begun), kafka.buffer) == (2, [b"a"])


def test_what_makes_nothing_begins_no_transaction_that_could_wait_too_long_for_its_commit() -> None:
    class Silent(Echo):
        def finish(self, ticket: Any) -> Any:
            yield from ()

    kafka = Kafka(b"a", b"b")
    worker = started(kafka, Silent(), batch=1)
    worker.turn()
    worker.turn()
    assert worker.progress.records == 1
    assert not kafka.open


def deep(*values: bytes, batch: int = 1) -> tuple[Kafka, Echo, Worker]:
    """A worker whose stage asks for two batches in flight."""
    kafka, stage = Kafka(*values), Echo()
    stage.depth = 2
    return kafka, stage, started(kafka, stage, batch=batch)


def test_a_stage_that_asks_for_it_has_a_second_batch_to_work_on_while_there_is_plenty() -> None:
    kafka, stage, worker = deep(b"a", b"b", b"c", b"d")
    for turn, finished in enumerate(([], [], [b"a"], [b"a", b"b"]), 1):
        worker.turn()
        assert (len(stage.begun), kafka.buffer) == (turn, finished)
    worker.turn()
    assert (kafka.out, kafka.offset) == ([b"a", b"b", b"c", b"d"], 4)


def test_a_tenth_of_a_batch_shows_that_there_is_plenty() -> None:
    kafka, stage, worker = deep(b"a", b"b", b"c", batch=10)
    kafka.most = 1
    for turn, finished in enumerate(([], [], [b"a"]), 1):
        worker.turn()
        assert (len(stage.begun), kafka.buffer) == (turn, finished)


def test_less_than_a_tenth_of_a_batch_keeps_only_itself_in_flight() -> None:
    kafka, stage, worker = deep(b"a", b"b", b"c", batch=11)
    kafka.most = 1
    worker.turn()
    worker.turn()
    assert (len(stage.begun), kafka.buffer) == (2, [b"a"])


def test_of_several_batches_in_flight_none_is_left_by_a_refused_one() -> None:
    kafka, stage, worker = deep(b"a", b"b", b"c", b"d")
    worker.turn()
    worker.turn()
    stage.failures.append(Rewind("the store has forgotten"))
    worker.turn()
    while worker.turn():
        pass
    assert (kafka.out, kafka.offset) == ([b"a", b"b", b"c", b"d"], 4)


def test_the_end_of_a_worker_commits_all_that_is_in_flight() -> None:
    kafka, _, worker = deep(b"a", b"b", b"c")
    worker.turn()
    worker.turn()
    worker.finish()
    assert (kafka.out, kafka.offset) == ([b"a", b"b"], 2)


def test_a_full_transaction_is_committed_without_waiting_for_the_batch_that_was_just_begun() -> None:
    kafka, stage = Kafka(b"a", b"b", b"c"), Echo()
    worker = started(kafka, stage, batch=1, transaction_records=1)
    worker.turn()
    worker.turn()
    assert (len(stage.begun), kafka.transactions) == (2, [[b"a"]])


def committing(*values: bytes, stage: Echo | None = None) -> tuple[Kafka, Worker]:
    """A worker whose first record is being committed, and whose second one is worked on."""
    kafka = Kafka(*values)
    kafka.at_once = False
    worker = started(kafka, stage, batch=1, transaction_records=1)
    worker.turn()
    worker.turn()
    assert (kafka.buffer, kafka.offset) == ([b"a"], None)
    return kafka, worker


def test_while_a_commit_is_under_way_the_next_batch_is_processed_but_not_produced() -> None:
    stage = Echo()
    kafka, worker = committing(b"a", b"b", b"c", b"d", b"e", stage=stage)
    worker._pace = Pace(batch=1, transaction_s=1e9)
    worker.turn()
    worker.turn()
    assert (len(stage.begun), kafka.buffer, worker.progress.records, stage.trimmed) == (4, [b"a"], 3, [])
    kafka.under_way.result()
    worker.turn()
    assert (kafka.transactions, kafka.buffer, stage.trimmed) == ([[b"a"]], [b"b", b"c", b"d"], [1])


def test_the_next_transaction_begins_when_the_one_before_it_has_ended() -> None:
    kafka, worker = committing(b"a", b"b", b"c", b"d")
    while worker.turn():
        pass
    assert kafka.transactions == [[b"a"], [b"b"], [b"c"], [b"d"]]


def test_a_commit_under_way_is_waited_for_where_nothing_else_is_to_be_done() -> None:
    kafka, worker = committing(b"a", b"b")
    worker.turn()
    assert (kafka.offset, worker.progress.committed) == (2, 2)


def test_a_commit_under_way_is_waited_for_before_its_partition_goes_to_another() -> None:
    stage = Echo()
    kafka, worker = committing(b"a", b"b", b"c", stage=stage)
    kafka.news.append(lambda: _revoke(kafka, worker))
    worker.turn()
    assert (kafka.out, kafka.offset, stage.trimmed, worker.progress.committed) == ([b"a"], 1, [1], 1)


def test_after_a_refused_commit_what_was_processed_meanwhile_is_read_again_too() -> None:
    kafka, worker = committing(b"a", b"b", b"c")
    kafka.refusals.append(Aborted("refused"))
    while worker.turn():
        pass
    assert (b"".join(value or b"" for value in kafka.out), kafka.offset) == (b"abc", 3)


def test_what_was_counted_while_a_commit_was_under_way_is_not_counted_with_it() -> None:
    class Counting(Echo):
        def finish(self, ticket: Any) -> list[Out]:
            out = super().finish(ticket)
            self.counters["records"] = self.counters.get("records", 0) + len(out)
            return out

    kafka, worker = committing(b"a", b"b", b"c", b"d", stage=Counting())
    worker._pace = Pace(batch=1, transaction_s=1e9)
    worker.turn()
    worker.turn()
    kafka.under_way.result()
    worker._settle()
    assert (worker.progress.counters, worker.progress.committed) == ({"records": 1}, 1)
    worker.finish()
    assert (worker.progress.counters, worker.progress.committed) == ({"records": 4}, 4)


def test_a_commit_that_never_comes_back_ends_the_process() -> None:
    kafka, worker = committing(b"a", b"b")
    assert worker._under_way is not None
    lost = Never()
    worker._under_way = replace(worker._under_way, done=lost)
    with pytest.raises(FatalError, match="did not come back within 30 s"):
        worker.turn()
    assert lost.waited == [30.0]
    kafka.aborts = 0
    worker.abandon()
    _revoke(kafka, worker)  # as the consumer does when it is closed
    assert kafka.aborts == 0, "the client refuses everything while a commit is under way"
    assert lost.waited == [30.0, 5.0]


def test_a_commit_that_is_refused_is_rolled_back_before_the_store_is_waited_for() -> None:
    class Away(Echo):
        def finish(self, ticket: Any) -> list[Out]:
            assert not kafka.open or not kafka.refused, "the transaction would stay open as long as the store is away"
            return super().finish(ticket)

    kafka, stage = Kafka(b"a", b"b", b"c"), Away()
    worker = started(kafka, stage, batch=1)
    worker.turn()
    worker.turn()
    kafka.at_once, stage.answers = False, False
    kafka.refusals.append(Aborted("refused"))
    while worker.turn():
        stage.answers = True
    assert kafka.out == [b"a", b"b", b"c"]
    assert worker.progress.restarts == 2  # the assignment, the refusal


def test_the_end_after_a_failure_waits_for_a_commit_under_way_before_it_rolls_back() -> None:
    kafka, worker = committing(b"a", b"b")
    worker.abandon()
    assert (kafka.out, kafka.offset) == ([b"a"], 1)


def test_what_is_produced_is_committed_before_a_store_that_does_not_answer_is_waited_for() -> None:
    kafka, stage = Kafka(b"a", b"b", b"c"), Echo()
    worker = started(kafka, stage, batch=1)
    worker.turn()
    worker.turn()
    stage.answers = False
    worker.turn()
    assert (kafka.transactions, kafka.buffer) == ([[b"a"]], [b"b"])


def test_the_stage_is_told_what_is_committed() -> None:
    kafka, stage = Kafka(b"a"), Echo()
    started(kafka, stage).finish()
    assert stage.trimmed == []
    worker = started(kafka, stage)
    while worker.turn():
        pass
    assert stage.trimmed == [1]


def test_what_seals_a_transaction_is_in_it_and_is_told_the_offsets_that_it_commits() -> None:
    kafka, stage = Kafka(b"a", b"b"), Echo()
    stage.seals = True
    worker = started(kafka, stage)
    while worker.turn():
        pass
    assert kafka.transactions == [[b"a", b"b", b"sealed at 2"]]
    assert stage.asked == [({HERE: 2}, False)]


def test_at_the_end_an_offset_that_stands_still_is_sealed_and_committed_once_more() -> None:
    kafka, stage = Kafka(b"a"), Echo()
    worker = started(kafka, stage)
    while worker.turn():
        pass
    stage.seals = True
    worker.finish()
    assert stage.asked[-1] == ({HERE: 1}, True)
    assert kafka.commits == [(1, 1), (1, 1)]
    assert kafka.transactions[-1] == [b"sealed at 1"]


def test_what_is_below_the_committed_offset_is_not_sealed() -> None:
    kafka, stage = Kafka(b"a", b"b", b"c", b"d"), Behind()
    kafka.offset = 3
    worker = started(kafka, stage, batch=1, transaction_records=1)
    while worker.turn():
        pass
    assert [reached for reached, _ in stage.asked] == [{}, {}, {HERE: 3}, {HERE: 4}]
    assert kafka.commits == [(4, 1)]


def test_without_a_record_since_the_last_rebalance_nothing_is_sealed() -> None:
    kafka, stage = Kafka(), Echo()
    stage.seals = True
    started(kafka, stage).finish()
    assert (stage.asked, kafka.commits) == ([], [])


def test_offsets_are_committed_as_the_member_that_read_the_records() -> None:
    kafka = Kafka(b"a")
    worker = started(kafka)
    worker.turn()
    kafka.generation = 2
    worker.finish()
    assert kafka.commits == [(1, 1)]


@pytest.mark.parametrize("trouble", [Aborted("refused"), Rewind("forgotten")])
def test_after_an_abort_or_a_loss_the_same_records_are_read_again(trouble: Exception) -> None:
    kafka, stage = Kafka(b"a", b"b"), Echo()
    worker = started(kafka, stage)
    (kafka.refusals if isinstance(trouble, Aborted) else stage.failures).append(trouble)
    while worker.turn():
        pass
    assert kafka.out == [b"a", b"b"]
    assert worker.progress.restarts == 2  # the assignment, the trouble


def test_what_fails_again_and_again_is_tried_less_and_less_often_until_something_is_committed() -> None:
    kafka = Kafka(b"a", b"b")
    kafka.refusals = [Aborted("not allowed") for _ in range(9)]
    worker = started(kafka, transaction_s=0.0)

    pauses: list[float] = []
    while kafka.refusals:
        refusals = len(kafka.refusals)
        worker.turn()
        if len(kafka.refusals) < refusals:
            pauses.append(worker.pause)
    assert pauses == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]

    while not kafka.out:
        worker.turn()
    assert worker.pause == 0.0
    kafka.refusals, kafka.values = [Aborted("once more")], [b"a", b"b", b"c"]
    while kafka.refusals:
        worker.turn()
    assert worker.pause == 0.0


def test_what_is_in_flight_is_dropped_when_partitions_are_taken_away() -> None:
    kafka = Kafka(b"a", b"b")
    worker = started(kafka, batch=1)
    worker.turn()
    worker.turn()
    kafka.news.append(lambda: _revoke(kafka, worker))
    worker.turn()
    assert (kafka.buffer, kafka.open, kafka.commits) == ([], False, [])
    worker.finish()
    assert kafka.commits == []


def test_while_the_place_of_partitions_that_are_added_is_looked_for_no_transaction_is_open() -> None:
    class Slow(Echo):
        def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
            assert not kafka.open, "the broker would roll it back, and fence us, while a store is away or a partition's state is read"
            return super().resume(place, committed, log)

    kafka = Kafka(b"a", b"b", b"c")
    worker = started(kafka, Slow(), batch=1)
    worker.turn()
    worker.turn()
    assert kafka.open
    kafka.news.append(lambda: worker.assigned([("in", 1)]))  # a cooperative group takes nothing away first
    while worker.turn():
        pass
    assert kafka.out == [b"a", b"b", b"c"]


def test_the_end_of_a_worker_commits_what_it_has_processed() -> None:
    kafka = Kafka(b"a", b"b")
    worker = started(kafka, batch=1)
    worker.turn()
    worker.finish()
    assert (kafka.out, kafka.offset) == ([b"a"], 1)


def test_the_end_after_a_failure_rolls_back() -> None:
    kafka = Kafka(b"a", b"b")
    worker = started(kafka, batch=1)
    worker.turn()
    worker.turn()
    worker.abandon()
    assert (kafka.buffer, kafka.out) == ([], [])


def test_a_refused_last_commit_is_rolled_back_and_not_raised() -> None:
    kafka = Kafka(b"a")
    worker = started(kafka)
    worker.turn()
    kafka.refusals.append(Aborted("refused"))
    worker.finish()
    assert (kafka.out, kafka.open) == ([], False)


def test_a_fatal_failure_ends_the_loop() -> None:
    kafka = Kafka(b"a")
    worker = started(kafka)
    worker.turn()
    kafka.refusals.append(FatalError("fenced"))
    with pytest.raises(FatalError):
        worker.turn()


class Behind(Echo):
    """Has to be read to from the start of the log."""

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        return 0, committed or 0


class Contradicted(Echo):
    """Holds that 3 is committed."""

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        if committed != 3:
            raise LogGapError("moved")
        return 3, 3


def test_a_worker_that_was_overtaken_while_it_looked_for_its_place_looks_again() -> None:
    kafka = Kafka(b"a", b"b", b"c")
    kafka.offset, kafka.offsets = 3, [1]
    started(kafka, Contradicted())
    assert kafka.at == 3


def test_a_contradiction_that_stays_is_left_to_a_person() -> None:
    kafka = Kafka(b"a", b"b", b"c")
    kafka.offset = 1
    with pytest.raises(LogGapError):
        started(kafka, Contradicted())


def test_the_end_is_reached_when_all_below_it_is_committed_by_us_or_by_others() -> None:
    kafka = Kafka(b"a")
    worker = started(kafka)
    assert not worker.reached({HERE: 1})
    while worker.turn():
        pass
    assert worker.reached({HERE: 1})
    kafka.news.append(lambda: _revoke(kafka, worker))
    worker.turn()
    assert worker.reached({HERE: 1})
    assert not worker.reached({HERE: 2})


def test_the_end_is_not_reached_before_what_is_healed_is_whole() -> None:
    kafka = Kafka(b"a", b"b", b"c")
    kafka.offset = 3
    worker = started(kafka, Behind(), batch=1)
    assert not worker.reached({HERE: 3}), "committed it is, but the store has to be told again"
    while worker.turn():
        pass
    assert worker.reached({HERE: 3})
    assert (kafka.commits, kafka.out) == ([], [])
