"""Join accounting: what the processes report adds up to what was committed, and is what a plain join in memory counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import orjson
import pytest

from stream_monitor.core.codec import PREDICTION, Accepted, Codec
from stream_monitor.core.joining import Applied, Call, Fold
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings, JoinSettings
from stream_monitor.core.snapshots import StateRecord
from stream_monitor.detect import Detect, Monitors
from stream_monitor.live import Progress
from stream_monitor.ports import Aborted, Chunk, Out, Place
from stream_monitor.stages import Join, Route
from tests.simulation.monitor import CountingMonitor
from tests.test_live import HERE, Kafka, started
from tests.test_stages import Store

SETTINGS = JoinSettings(window_ms=1000, slack_ms=300, slot_ms=50, ttl_ms=10_000)
CODEC = Codec(EventSettings())
FOUND = ("waiting", "joined", "duplicate", "conflicting", "late")


def journal(rng: random.Random, length: int) -> list[Record]:
    """A request id comes back within a life of its entry: what is repeated for longer than two, a rebuild cannot tell from the first."""
    records, time = [], 0
    for offset in range(length):
        time += rng.choice([0, 1, 5, 60])
        name = f"r{time // (SETTINGS.window_ms + SETTINGS.slack_ms)}-{rng.randrange(40)}"
        if rng.random() < 0.5:
            event = {"request_id": name, "model": "m", "model_version": "1", "timestamp": 1, "prediction": 1}
            result = CODEC.prediction(orjson.dumps(event), 0)
        else:
            result = CODEC.feedback(orjson.dumps({"request_id": name, "timestamp": 1, "label": rng.choice([1, 2])}), 0)
        assert isinstance(result, Accepted)
        records.append(Record(offset, time, *result))
    return records


class Journal(Kafka):
    """The journal of one partition, with append times."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(*(record.value for record in records))
        self.records = records

    def poll(self, most: int, timeout: float) -> list[Chunk]:
        return [chunk._replace(records=list(self.records[chunk.start : chunk.end])) for chunk in super().poll(most, timeout)]

    def offset_at(self, place: Place, when: int) -> int | None:
        return next((record.offset for record in self.records if record.time >= when), None)

    def time_at(self, place: Place, offset: int) -> int | None:
        return self.records[min(offset, len(self.records) - 1)].time


class Stateless(Kafka):
    """Without anything on the state topic, whatever is written to it."""

    def produce(self, records: Iterable[Out]) -> None:
        super().produce([record for record in records if record.topic != "state"])

    def bounds(self, place: Place) -> tuple[int, int]:
        return (0, 0) if place[0] == "state" else super().bounds(place)

    def end(self, place: Place) -> int:
        return self.bounds(place)[1]

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        return []


def processes(rng: random.Random, kafka: Journal, store: Store) -> list[Progress]:
    """Join until the end, with crashes, aborts and losses of the store's state on the way."""
    done = []
    while True:
        kafka.buffer, kafka.open, kafka.places = [], False, []
        stage = Join(store, SETTINGS, "in", "out", 1, lambda: f"e{rng.randrange(10**9)}", wall_ms=lambda: 0)
        worker = started(kafka, stage, batch=rng.randrange(1, 30), transaction_records=rng.randrange(1, 200))  # type: ignore[arg-type]
        done.append(worker.progress)
        for _ in range(rng.randrange(5, 50)):
            if not worker.turn() and kafka.offset == len(kafka.records):
                return done
            if rng.random() < 0.05:
                kafka.refusals.append(Aborted("refused"))
            if rng.random() < 0.03:
                store.forget(0)


@pytest.mark.parametrize("seed", range(10))
def test_what_the_processes_report_adds_up_to_what_was_committed_and_is_what_the_plain_join_counts(seed: int) -> None:
    rng = random.Random(seed)
    records = journal(rng, 2_000)
    kafka, store, plain = Journal(records), Store(SETTINGS), Fold(SETTINGS)
    answer = plain.apply(Call(0, 0, len(records), 0, records, "plain"))
    assert isinstance(answer, Applied)
    done = processes(rng, kafka, store)
    assert len(done) > 1
    assert sum(p.records for p in done) > len(records), "something was read again"
    assert sum(p.healed for p in done) > 0
    found: Counter[str] = Counter()
    for progress in done:
        found.update(progress.counters)
        assert sum(progress.counters.get(name, 0) for name in FOUND) == progress.committed
    assert sum(p.committed for p in done) == len(records)
    n = Counter(plain.counters)
    expected = {
        "joined": n["joined"],
        "late": n["late"],
        "duplicate": n["duplicate_predictions"] + n["duplicate_feedback"],
        "conflicting": n["conflicting"],
        "waiting": n["joined"] + n["late"] + n["expired"] + n["orphan"] + sum(plain.waiting()),
    }
    assert {name: found[name] for name in FOUND} == expected
    assert min(expected.values()) > 0, "the log does not reach every counter"
    assert found["outcome"] == n["joined"]
    assert found["prediction"] == n["predictions"] - n["duplicate_predictions"]
    assert found["prediction"] == sum(record.value[1] == PREDICTION for record in records) - n["duplicate_predictions"]


def test_route_counts_each_committed_message_once_and_the_refused_by_reason() -> None:
    event = orjson.dumps({"request_id": "a", "model": "m", "model_version": "1", "timestamp": 1, "prediction": 1})
    kafka = Kafka(event, b"garbage", event, b"{}")
    route = Route(CODEC, "in", "feedback", "journal", 4, "dead", 1)
    worker = started(kafka, route, batch=1, transaction_records=2)  # type: ignore[arg-type]
    kafka.refusals.append(Aborted("refused"))
    while worker.turn():
        pass
    assert worker.progress.counters == {"predictions": 4, "dead_letter:not_json": 1, "dead_letter:missing_field": 1}
    assert (worker.progress.committed, worker.progress.restarts) == (4, 2)


def test_detect_counts_what_it_published_also_where_an_abort_made_it_publish_again() -> None:
    kafka = Stateless(*(b"%d" % i for i in range(12)))
    detect = Detect("in", "alerts", 1, "state", Monitors("d", CountingMonitor, CountingMonitor.restore), 9.0, lambda: 0.0, print)
    worker = started(kafka, detect, batch=5, transaction_records=5)  # type: ignore[arg-type]
    kafka.refusals.append(Aborted("refused"))
    while worker.turn():
        pass
    counters = worker.progress.counters
    assert (counters["observations"], counters["firing"], counters["resolved"]) == (12, 3, 1)
    assert len(kafka.out) == 4


def test_what_is_not_committed_at_the_end_is_not_counted() -> None:
    kafka = Kafka(b"garbage")
    worker = started(kafka, Route(CODEC, "in", "feedback", "journal", 4, "dead", 1))  # type: ignore[arg-type]
    worker.turn()
    worker.abandon()
    assert (worker.progress.counters, worker.progress.committed) == ({}, 0)
    assert HERE in kafka.places
