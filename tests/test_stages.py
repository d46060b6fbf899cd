"""The stages as folds whose answers can be asked for again, and where each reads from when it starts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from unittest.mock import patch

import orjson
import pytest

from stream_monitor.core.codec import Accepted, Codec
from stream_monitor.core.frames import unframe
from stream_monitor.core.hashing import partition_of
from stream_monitor.core.joining import Applied, Behind, Call, Fold, emit
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings, JoinSettings
from stream_monitor.core.snapshots import StateRecord
from stream_monitor.errors import LogGapError
from stream_monitor.ports import Chunk, Out, Place, Status
from stream_monitor.stages import Join, Rewind, Route

SETTINGS = JoinSettings(window_ms=100, slack_ms=20, slot_ms=10)
JOURNAL: Place = ("journal", 0)


class Log:
    """A log with a record each 10 ms, the first at time 0."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def bounds(self, place: Place) -> tuple[int, int]:
        return self.low, self.high

    def offset_at(self, place: Place, when: int) -> int | None:
        offset = max(self.low, -(-when // 10))
        return offset if offset < self.high else None

    def time_at(self, place: Place, offset: int) -> int | None:
        return None if self.low == self.high else 10 * min(offset, self.high - 1)

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        raise NotImplementedError

    def end(self, place: Place) -> int:
        raise NotImplementedError

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        raise NotImplementedError


class Store:
    """One bucket, answered at once."""

    def __init__(self, settings: JoinSettings = SETTINGS) -> None:
        self.settings = settings
        self.fold = Fold(settings)
        self.calls: list[Call] = []

    def submit(self, calls: Sequence[Call]) -> Future[list[Applied | Behind]]:
        self.calls += calls
        answers: Future[list[Applied | Behind]] = Future()
        answers.set_result([self.fold.apply(call) for call in calls])
        return answers

    def status(self, bucket: int) -> Status:
        return Status(self.fold.at, self.fold.trim, self.fold.epoch)

    def forget(self, bucket: int) -> None:
        self.fold = Fold(self.settings)


def prediction(name: str) -> bytes:
    return orjson.dumps({"request_id": name, "model": "m", "model_version": "1", "timestamp": 1, "prediction": "yes"})


def feedback(name: str) -> bytes:
    return orjson.dumps({"request_id": name, "label": "no", "timestamp": 6})


def journal(*values: bytes) -> list[Record]:
    """Journal records of raw messages, one each 10 ms."""
    codec = Codec(EventSettings())
    records = []
    for offset, value in enumerate(values):
        event = (codec.prediction if b"model" in value else codec.feedback)(value, 0)
        records.append(Record(offset, 10 * offset, *event))
    return records


def named(name: str) -> bytes:
    """The journal value of a feedback that says whose it is."""
    event = {"request_id": name, "label": "no", "timestamp": 6, "model": "m", "model_version": "1"}
    result = Codec(EventSettings()).feedback(orjson.dumps(event), 6)
    assert isinstance(result, Accepted)
    return result.value


def join(store: Store, wall_ms: Callable[[], int] = lambda: 0) -> Join:
    return Join(store, SETTINGS, "journal", "observations", 1, iter("abcdef").__next__, wall_ms=wall_ms)


def done(stage: Join, chunk: Chunk, committed: int) -> list[Out]:
    """What a chunk of the journal makes a join publish."""
    return list(stage.finish(stage.begin([chunk], {JOURNAL: committed})))


def kinds(out: list[Out]) -> list[bytes]:
    return [headers[0][1] for _, _, _, _, headers in out if headers]


def test_route_sends_valid_events_to_the_journal_and_the_rest_to_the_dead_letter_with_its_place() -> None:
    route = Route(Codec(EventSettings()), "p", "f", "journal", 4, "dead", 1)
    records = [Record(5, 1, b"", prediction("a")), Record(6, 1, b"k", b"garbage")]
    dead, good = route.finish(route.begin([Chunk(("p", 3), 5, 7, records)], {}))
    [event] = unframe(0, 0, good.key, good.value or b"")
    assert (good.topic, good.partition, good.headers, event.key) == ("journal", partition_of(b"a", 4), None, b"a")
    assert (dead.topic, dead.key, dead.value) == ("dead", b"k", b"garbage")
    assert ("__streams.errors.partition", b"3") in (dead.headers or [])
    assert ("__streams.errors.offset", b"6") in (dead.headers or [])


def test_route_goes_on_at_the_committed_offset() -> None:
    route = Route(Codec(EventSettings()), "p", "f", "journal", 4, "dead", 1)
    assert route.resume(("p", 0), 7, Log(2, 9)) == (7, 7)


def test_a_group_without_an_offset_begins_at_the_start_of_the_log() -> None:
    route = Route(Codec(EventSettings()), "p", "f", "journal", 4, "dead", 1)
    assert route.resume(("p", 0), None, Log(2, 9)) == (2, 2)


@pytest.mark.parametrize("committed", [1, 10])
def test_an_offset_outside_the_log_is_left_to_a_person(committed: int) -> None:
    route = Route(Codec(EventSettings()), "p", "f", "journal", 4, "dead", 1)
    with pytest.raises(LogGapError, match="committed offset"):
        route.resume(("p", 0), committed, Log(2, 9))


def test_join_publishes_each_prediction_and_each_pair() -> None:
    stage = join(Store())
    stage.resume(JOURNAL, None, Log(0, 2))
    out = done(stage, Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a"))), 0)
    assert kinds(out) == [b"prediction", b"outcome"]


def test_join_publishes_what_became_of_labels_that_name_their_model_and_finds_nothing_by_it() -> None:
    stage = join(Store())
    stage.resume(JOURNAL, None, Log(0, 2))
    records = [Record(0, 0, b"a", named("a")), Record(1, 9_000, b"b", journal(prediction("b"))[0].value)]
    cohort, made = done(stage, Chunk(JOURNAL, 0, 2, records), 0)
    told = b'{"record":"feedback_cohort","model":"m","model_version":"1","since":0,"labels":1,"orphans":1}'
    assert cohort == ("observations", 0, b"m", told, [("record", b"feedback_cohort")])
    assert kinds([made]) == [b"prediction"]
    assert stage.counters == {"waiting": 2, "prediction": 1, "feedback_cohort": 1}


def test_join_is_silent_below_the_committed_offset() -> None:
    stage = join(Store())
    stage.resume(JOURNAL, 1, Log(0, 2))
    out = done(stage, Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a"))), 1)
    assert kinds(out) == [b"outcome"]


def test_join_asked_again_answers_the_same() -> None:
    stage = join(Store())
    stage.resume(JOURNAL, None, Log(0, 2))
    chunk = Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a")))
    first, second = (done(stage, chunk, 0) for _ in range(2))
    assert first == second


def test_join_makes_what_it_publishes_as_it_is_taken() -> None:
    stage = join(Store())
    stage.resume(JOURNAL, None, Log(0, 2))
    chunk = Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a")), [(0, 1), (0, 1)])
    out = stage.finish(stage.begin([chunk], {JOURNAL: 0}))
    assert stage.counters == {}
    with patch("stream_monitor.stages.emit", side_effect=emit) as made:
        assert kinds([next(out)]) == [b"prediction"]
        assert made.call_count == 1
        assert kinds(list(out)) == [b"outcome"]
        assert made.call_count == 2


def test_only_the_first_call_of_a_rebuild_may_begin_it() -> None:
    store = Store()
    stage = join(store)
    stage.resume(JOURNAL, None, Log(0, 2))
    records = journal(prediction("a"), feedback("a"))
    stage.begin([Chunk(JOURNAL, 0, 1, records[:1])], {JOURNAL: 0})
    store.forget(0)
    second = stage.begin([Chunk(JOURNAL, 1, 2, records[1:])], {JOURNAL: 0})
    assert [call.epoch for call in store.calls] == ["a", ""]
    with pytest.raises(Rewind):
        list(stage.finish(second))


def test_a_store_that_is_behind_is_read_to_from_where_it_is() -> None:
    store = Store()
    store.fold.at = 3
    assert join(store).resume(JOURNAL, 5, Log(0, 9)) == (3, 5)


def test_a_store_that_is_ahead_is_asked_again_from_the_committed_offset() -> None:
    store = Store()
    store.fold.at = 8
    assert join(store).resume(JOURNAL, 5, Log(0, 9)) == (5, 5)


def test_an_empty_store_is_rebuilt_from_three_lives_of_an_entry_and_a_slot_before_the_last_committed_record() -> None:
    assert join(Store()).resume(JOURNAL, 50, Log(0, 90)) == (49 - 3 * 12 - 1, 50)


def test_a_rebuild_knows_the_labels_of_which_the_first_record_that_is_not_committed_tells_however_long_after_them() -> None:
    class Silent(Log):
        def offset_at(self, place: Place, when: int) -> int | None:
            return next((offset for offset, time in enumerate((0, 9_000)) if time >= when), None)

        def time_at(self, place: Place, offset: int) -> int | None:
            return (0, 9_000)[offset]

    stage = join(Store())
    assert stage.resume(JOURNAL, 1, Silent(0, 2)) == (0, 1)
    records = [Record(0, 0, b"a", named("a")), Record(1, 9_000, b"b", named("b"))]
    assert kinds(done(stage, Chunk(JOURNAL, 0, 2, records), 1)) == [b"feedback_cohort"]


class Read(Log):
    """The log of these records."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(0, len(records))
        self.records = records

    def offset_at(self, place: Place, when: int) -> int | None:
        return next((record.offset for record in self.records if record.time >= when), None)

    def time_at(self, place: Place, offset: int) -> int | None:
        return self.records[min(offset, self.high - 1)].time


@pytest.mark.parametrize("seed", range(10))
def test_wherever_a_rebuild_is_needed_it_publishes_the_same_if_no_request_id_comes_again_after_two_lives(seed: int) -> None:
    rng, records, time = random.Random(seed), list[Record](), 0
    for offset in range(400):
        time += rng.choice((0, 1, 5, 40))
        name = f"{time // 240}-{rng.randrange(12)}"
        value = journal(prediction(name))[0].value if rng.random() < 0.5 else named(name)
        records.append(Record(offset, time, name.encode(), value))

    def published(committed: int, log: Log) -> list[Out]:
        stage = join(Store())
        start, _ = stage.resume(JOURNAL, committed, log)
        return done(stage, Chunk(JOURNAL, start, 400, records[start:]), committed)

    class Whole(Read):
        def offset_at(self, place: Place, when: int) -> int | None:
            return 0

    for committed in range(5, 400, 15):
        assert published(committed, Read(records)) == published(committed, Whole(records))


def test_a_rebuild_begins_no_earlier_than_the_log() -> None:
    assert join(Store()).resume(JOURNAL, 50, Log(40, 90)) == (40, 50)


def test_a_store_that_needs_what_the_log_no_longer_holds_is_rebuilt_from_its_start() -> None:
    store = Store()
    store.fold.at = 10
    assert join(store).resume(JOURNAL, 50, Log(40, 90)) == (40, 50)
    assert store.fold.at is None


@pytest.mark.parametrize(("at", "trim"), [(10, 0), (8, 6)])
def test_a_store_that_knows_more_than_the_log_or_the_group_is_left_to_a_person(at: int, trim: int) -> None:
    store = Store()
    store.fold.at, store.fold.trim = at, trim
    with pytest.raises(LogGapError, match="reset --join"):
        join(store).resume(JOURNAL, 5, Log(0, 9))


class Wall:
    """A clock on the wall."""

    now = 0

    def __call__(self) -> int:
        return self.now


FAR = SETTINGS.lag_ms + 1  # so far behind, entries that are needed may have been freed


def test_behind_for_longer_than_the_ttl_allows_the_bucket_is_rebuilt_from_the_journal() -> None:
    store, wall = Store(), Wall()
    stage = join(store, wall)
    records = journal(prediction("a"), prediction("b"), feedback("a"), feedback("b"))
    stage.resume(JOURNAL, None, Log(0, 4))
    done(stage, Chunk(JOURNAL, 0, 2, records[:2]), 0)
    store.fold.entries.clear()  # the TTL went by a clock that the log knows nothing of
    wall.now = records[2].time + max(FAR, SETTINGS.ttl_ms)
    with pytest.raises(Rewind, match="behind"):
        stage.begin([Chunk(JOURNAL, 2, 4, records[2:])], {JOURNAL: 2})
    assert stage.resume(JOURNAL, 2, Log(0, 4)) == (0, 2)
    out = done(stage, Chunk(JOURNAL, 0, 4, records), 2)
    assert kinds(out) == [b"outcome", b"outcome"]


def test_a_bucket_that_was_begun_anew_is_not_begun_again_because_the_log_is_old() -> None:
    store, wall = Store(), Wall()
    wall.now = 10**12
    stage = join(store, wall)
    stage.resume(JOURNAL, None, Log(0, 2))
    chunk = Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a")))
    assert kinds(done(stage, chunk, 0)) == [b"prediction", b"outcome"]
    wall.now += SETTINGS.ttl_ms
    with pytest.raises(Rewind):
        stage.begin([chunk], {JOURNAL: 0})


def test_a_bucket_that_was_not_begun_by_us_is_not_taken_for_it_when_it_comes_back() -> None:
    store, wall = Store(), Wall()
    wall.now = 10**12
    stage = join(store, wall)
    stage.resume(JOURNAL, 2, Log(0, 2))  # a server without state: to be begun anew ...
    store.fold.at, store.fold.epoch = 2, "old"
    assert stage.resume(JOURNAL, 2, Log(0, 2)) == (2, 2)  # ... and one that has it, and had it for long
    with pytest.raises(Rewind, match="outlived"):
        stage.begin([Chunk(JOURNAL, 2, 4, journal(prediction("a"), feedback("a")))], {JOURNAL: 2})


def test_a_bucket_that_comes_back_between_two_calls_is_not_taken_for_the_one_that_was_begun() -> None:
    store, wall = Store(), Wall()
    wall.now = 10**12
    stage = join(store, wall)
    stage.resume(JOURNAL, 0, Log(0, 2))
    records = journal(prediction("a"), feedback("a"))
    done(stage, Chunk(JOURNAL, 0, 1, records[:1]), 0)
    store.fold.epoch = "old"  # a replica takes over that is as far, with older entries
    ticket = stage.begin([Chunk(JOURNAL, 1, 2, records[1:])], {JOURNAL: 0})
    with pytest.raises(Rewind, match="outlived"):
        list(stage.finish(ticket))


def test_an_answer_that_came_after_the_ttl_is_not_believed() -> None:
    store, wall = Store(), Wall()
    stage = join(store, wall)
    store.fold.at = 0
    stage.resume(JOURNAL, 0, Log(0, 2))
    ticket = stage.begin([Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a")))], {JOURNAL: 0})
    wall.now = max(FAR, SETTINGS.ttl_ms)  # Redis was away for so long
    with pytest.raises(Rewind):
        list(stage.finish(ticket))
    stage.resume(JOURNAL, 0, Log(0, 2))
    assert store.fold.at is None


def test_within_what_the_ttl_allows_the_store_is_trusted() -> None:
    store, wall = Store(), Wall()
    stage = join(store, wall)
    store.fold.at = 0
    stage.resume(JOURNAL, 0, Log(0, 2))
    wall.now = SETTINGS.lag_ms
    stage.begin([Chunk(JOURNAL, 0, 2, journal(prediction("a"), feedback("a")))], {JOURNAL: 0})
