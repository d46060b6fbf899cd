"""The detect stage: a fold whose answers can be asked for again, that starts from its newest snapshot and never lets one lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Alert, Status
from stream_monitor.core.records import Record
from stream_monitor.core.snapshots import Snapshot, StateRecord, alerts, assemble, chunks, cut, firing, key_of
from stream_monitor.detect import Detect, Monitors
from stream_monitor.errors import LogGapError
from stream_monitor.ports import Chunk, Out, Place
from tests.simulation.monitor import CountingMonitor, OtherMonitor

HERE: Place = ("observations", 0)
HOME: Place = ("state", 0)


def value(offset: int) -> bytes:
    """Each second record is an outcome, which waits."""
    return b'{"record":"outcome","n":%d}' % offset if offset % 2 else b'{"record":"prediction","n":%d}' % offset


class Kafka:
    """A log of observations from `low` to `high`, what was committed of it, and the state topic."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.offset: int | None = None
        self.state: list[StateRecord] = []
        self.alerts: list[bytes | None] = []
        self.reads: list[tuple[Place, int, int]] = []

    def bounds(self, place: Place) -> tuple[int, int]:
        return (0, len(self.state)) if place == HOME else (self.low, self.high)

    def offset_at(self, place: Place, when: int) -> int | None:
        raise NotImplementedError

    def time_at(self, place: Place, offset: int) -> int | None:
        raise NotImplementedError

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        return dict.fromkeys(places, self.offset)

    def end(self, place: Place) -> int:
        return self.bounds(place)[1]

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        self.reads.append((place, first, end))
        assert place[0] == "state"
        return self.state[first:end]

    def commit(self, out: Sequence[Out], offset: int) -> None:
        """What a transaction makes visible at once."""
        for topic, partition, key, body, headers in out:
            assert partition == 0
            if topic == "state":
                assert key is not None
                self.state.append(StateRecord(key, body, headers or []))
            else:
                self.alerts.append(body)
        self.offset = offset


class Worker:
    """One life of the stage over a log; `said` is what it logs, `now` its clock."""

    def __init__(self, kafka: Kafka, digest: str = "d", interval: float = 0.0, monitor: type[CountingMonitor] = CountingMonitor) -> None:
        self.kafka = kafka
        self.now = 0.0
        self.said: list[str] = []
        monitors = Monitors(digest, monitor, monitor.restore)
        self.stage = Detect("observations", "alerts", 1, "state", monitors, interval, lambda: self.now, self.said.append)
        self.at, self.committed = 0, 0
        self.find()

    def find(self) -> None:
        self.at, self.committed = self.stage.resume(HERE, self.kafka.offset, self.kafka)

    def process(self, end: int) -> list[Out]:
        """Reads up to `end` and commits nothing."""
        chunk = Chunk(HERE, self.at, end, [Record(o, 0, b"m", value(o)) for o in range(self.at, end)])
        self.at = end
        return self.stage.finish(self.stage.begin([chunk], {HERE: self.committed}))

    def commit(self, out: Sequence[Out], last: bool = False) -> list[Out]:
        """Commits what was processed; the records of the state topic that sealed it."""
        sealed = self.stage.seal({HERE: self.at} if self.at >= self.committed else {}, last)
        if self.at >= self.committed:
            self.kafka.commit([*out, *sealed], self.at)
            self.committed = self.at
            self.stage.trim(HERE, self.at)
        return sealed

    def run(self, end: int, step: int = 5) -> None:
        while self.at < end:
            self.commit(self.process(min(self.at + step, end)))

    @property
    def counters(self) -> dict[str, int]:
        return self.stage.counters


def plain(end: int, low: int = 0) -> list[bytes | None]:
    """The alerts of a worker that nothing disturbs."""
    kafka = Kafka(low, end)
    Worker(kafka).run(end)
    return kafka.alerts


def after(offset: int, high: int = 100, digest: str = "d") -> Kafka:
    """A log that was read, committed and snapshot up to `offset`."""
    kafka = Kafka(0, high)
    Worker(kafka, digest).run(offset)
    return kafka


def snapshot_of(kafka: Kafka) -> Snapshot:
    snapshot = assemble(HERE, kafka.state)
    assert snapshot is not None
    return snapshot


def test_what_is_not_committed_is_answered_again_with_what_it_changes_about_the_alerts_that_fire() -> None:
    worker = Worker(Kafka(0, 30))
    first = worker.process(30)
    assert {out.topic for out in first} == {"alerts", "state"}
    worker.find()
    assert worker.at == 0
    assert worker.process(30) == first


def test_only_what_is_committed_is_forgotten() -> None:
    whole = Worker(Kafka(0, 30)).process(30)
    worker = Worker(Kafka(0, 30))
    worker.commit(worker.process(14))
    worker.process(30)
    worker.find()
    assert (worker.at, worker.committed) == (14, 14)
    again = worker.process(30)
    assert again == whole[-len(again) :]
    assert 0 < len(again) < len(whole)


def test_a_start_takes_the_newest_snapshot_puts_back_what_waited_and_replays_to_the_committed_offset() -> None:
    kafka = after(40)
    kafka.offset = 47
    kafka.alerts = plain(47)
    kafka.state = [record for record in kafka.state if b"firing" not in record.key]
    worker = Worker(kafka)
    assert 30 <= worker.at < 40, "where the oldest outcome that waits lies"
    worker.run(100)
    assert kafka.alerts == plain(100)
    assert worker.counters["replayed"] == 7
    assert 0 < worker.counters["refilled"] < 10
    assert worker.counters["observations"] < 70
    assert worker.said == [
        "detect: observations/0: state from the snapshot of offset 40, outcomes that wait from 37 on; silent up to the committed 47"
    ]


@pytest.mark.parametrize("cut_at", range(36, 48))
@pytest.mark.parametrize("step", [1, 4, 50])
def test_a_restart_while_outcomes_are_put_back_or_records_replayed_changes_nothing(cut_at: int, step: int) -> None:
    kafka = after(40)
    kafka.offset = 47
    kafka.alerts = plain(47)
    worker = Worker(kafka)
    while worker.at < cut_at:
        worker.process(min(worker.at + step, cut_at))
    worker.find()  # an abort, or a rebalance that left us the partition
    worker.run(100, step)
    assert kafka.alerts == plain(100)


def test_a_snapshot_lies_in_the_transaction_that_commits_its_offset() -> None:
    kafka = Kafka(0, 100)
    worker = Worker(kafka)
    sealed = worker.commit(worker.process(10))
    assert snapshot_of(kafka).offset == kafka.offset == 10
    assert {(out.topic, out.partition) for out in sealed} == {("state", 0)}


def test_a_state_that_is_ahead_of_what_is_committed_is_not_cut() -> None:
    kafka = Kafka(0, 100)
    worker = Worker(kafka)
    worker.process(20)
    worker.find()  # rolled back
    assert worker.commit(worker.process(10)) == []
    assert worker.commit(worker.process(20)) != []
    assert snapshot_of(kafka).offset == 20


def test_a_snapshot_that_was_rolled_back_is_cut_again() -> None:
    kafka = Kafka(0, 100)
    worker = Worker(kafka, interval=60.0)
    worker.process(20)
    assert worker.stage.seal({HERE: 20}, False)
    worker.find()
    assert worker.commit(worker.process(20)) != []
    assert worker.commit(worker.process(30)) == [], "not before the interval has passed"


def test_snapshots_are_cut_in_an_interval_and_at_the_end() -> None:
    kafka = Kafka(0, 100)
    worker = Worker(kafka, interval=60.0)
    offsets = []
    for end in range(10, 60, 10):
        worker.now += 25
        worker.commit(worker.process(end))
        offsets.append(snapshot_of(kafka).offset)
    assert offsets == [10, 10, 10, 40, 40]
    assert worker.commit([], last=True)
    assert snapshot_of(kafka).offset == 50
    assert worker.commit([], last=True) == [], "it stands there already"


def test_the_snapshots_of_several_partitions_are_not_cut_at_once_but_at_the_end() -> None:
    places: list[Place] = [("observations", p) for p in range(3)]
    kafka = Kafka(0, 10)
    kafka.bounds = lambda place: (0, 0) if place[0] == "state" else (0, 10)  # type: ignore[method-assign]
    stage = Detect("observations", "alerts", 1, "state", Monitors("d", CountingMonitor, CountingMonitor.restore), 9.0, lambda: 0.0, print)
    for place in places:
        stage.resume(place, None, kafka)
    chunks = [Chunk(place, 0, 10, [Record(o, 0, b"m", value(o)) for o in range(10)]) for place in places]
    stage.finish(stage.begin(chunks, dict.fromkeys(places, 0)))
    reached = dict.fromkeys(places, 10)
    sealed = []
    for _ in range(2):
        sealed += [{out.partition for out in stage.seal(reached, False)}]
        for place in places:
            stage.trim(place, 10)
    assert [len(one) for one in sealed] == [1, 1]
    assert sealed[0] != sealed[1]
    assert {out.partition for out in stage.seal(reached, True)} == {0, 1, 2} - sealed[0] - sealed[1]


def test_cutting_takes_at_most_a_twentieth_of_the_time() -> None:
    class Slow(CountingMonitor):
        def snapshot(self, waiting: bool = True) -> dict[str, Any]:
            worker.now += 10
            return super().snapshot(waiting)

    worker = Worker(Kafka(0, 100), interval=1.0, monitor=Slow)
    assert worker.commit(worker.process(10))
    worker.now += 199
    assert not worker.commit(worker.process(20))
    worker.now += 1
    assert worker.commit(worker.process(30))


def test_without_a_snapshot_the_state_is_rebuilt_silently_from_the_start_of_the_log() -> None:
    kafka = Kafka(0, 100)
    kafka.offset, kafka.alerts = 47, plain(47)
    worker = Worker(kafka)
    assert (worker.at, worker.committed) == (0, 47)
    worker.run(100)
    assert kafka.alerts == plain(100)
    [said] = worker.said
    assert "there is no snapshot; state from the log, from offset 0, silent up to the committed 47" in said


def test_a_first_start_has_nothing_to_say() -> None:
    assert Worker(Kafka(0, 100)).said == []


def test_the_newest_snapshot_is_looked_for_from_the_end_of_the_topic() -> None:
    kafka = after(40)
    kafka.state = [StateRecord(b"old", b"", [])] * 5_000 + kafka.state + [StateRecord(b"other", b"", [])] * 500
    end = len(kafka.state)
    kafka.reads.clear()
    worker = Worker(kafka)
    assert [(first, to) for _, first, to in kafka.reads] == [(end - 64, end), (end - 1024, end)]
    assert "snapshot of offset 40" in worker.said[0]


def test_chunks_that_a_longer_snapshot_left_are_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_monitor.core.snapshots.CHUNK_BYTES", 10)
    kafka = after(40)
    long = chunks(HERE, kafka.state)
    monkeypatch.setattr("stream_monitor.core.snapshots.CHUNK_BYTES", 40)
    Worker(kafka).run(50)
    short = chunks(HERE, kafka.state)
    assert 1 <= short < long
    assert snapshot_of(kafka).offset == 50


def test_under_other_settings_the_log_is_replayed_and_what_fires_is_not_fired_again() -> None:
    kafka = after(47)
    kafka.offset = 47
    worker = Worker(kafka, "other")
    assert (worker.at, worker.committed) == (0, 47)
    worker.run(100)
    assert kafka.alerts == plain(100), "these settings decide the same"
    assert "the snapshot of offset 47 was made under other settings; state from the log, from offset 0" in worker.said[0]
    assert "alerts that fire are carried over" in worker.said[0]
    assert (snapshot_of(kafka).digest, snapshot_of(kafka).offset) == ("other", 100)


class Numb(CountingMonitor):
    """Other settings, under which nothing fires."""

    def step(self, offset: int, value: bytes) -> Sequence[Alert]:
        self.at = offset + 1
        return []


def test_an_alert_that_does_not_fire_under_other_settings_is_resolved_once() -> None:
    kafka = after(47)
    fires, _ = alerts(HERE, kafka.state)
    assert fires
    before = len(kafka.alerts)
    worker = Worker(kafka, "other", monitor=Numb)
    answers = [worker.process(60)]
    worker.find()  # rolled back, and asked again
    assert worker.at == 47
    answers.append(worker.process(60))
    assert answers[0] == answers[1]
    worker.commit(answers[1])
    assert len(kafka.alerts) - before == len(fires)
    assert alerts(HERE, kafka.state) == ([], [])
    again = Worker(kafka, "other", monitor=Numb)
    again.run(100)
    assert len(kafka.alerts) - before == len(fires)
    assert "snapshot of offset 60" in again.said[0]


def test_what_is_carried_over_is_not_lost_by_a_crash_before_the_commit() -> None:
    kafka = after(47)
    fires, _ = alerts(HERE, kafka.state)
    first = Worker(kafka, "other", monitor=Numb).process(60)
    assert Worker(kafka, "other", monitor=Numb).process(60) == first
    assert len([out for out in first if out.topic == "alerts"]) == len(fires)


def test_nothing_is_carried_over_before_there_is_an_offset_to_commit_with_it() -> None:
    kafka = after(47)
    worker = Worker(kafka, "other", monitor=Numb)
    assert worker.process(47) == []
    assert worker.commit([], last=True) == [], "nor is a state cut that lacks it"


def test_a_damaged_snapshot_is_said_and_replaced_by_the_log() -> None:
    kafka = after(47)
    kafka.state = [r._replace(value=b"\x00" + (r.value or b"")[1:]) if r.key == key_of(HERE, 0) else r for r in kafka.state]
    worker = Worker(kafka)
    worker.run(100)
    assert kafka.alerts == plain(100)
    assert "the snapshot can not be used: it is damaged" in worker.said[0]


@pytest.mark.parametrize("state", [{}, [], None, {"at": 3, "refill_from": None}, {"at": "x", "refill_from": "y"}])
def test_a_snapshot_whose_state_makes_no_sense_is_said_and_replaced_by_the_log(state: Any) -> None:
    kafka = after(47)
    kafka.state += cut(HERE, Snapshot(47, "d", state))
    worker = Worker(kafka)
    worker.run(100)
    assert kafka.alerts == plain(100)
    assert "the snapshot of offset 47 can not be used" in worker.said[0]


def test_a_snapshot_beyond_the_committed_offset_is_not_used() -> None:
    kafka = after(47)
    ahead = kafka.alerts
    kafka.offset, kafka.alerts = 20, plain(20)
    kafka.state = [record for record in kafka.state if b"firing" not in record.key]  # as if nothing had fired
    worker = Worker(kafka)
    assert "the snapshot of offset 47 lies beyond the committed offset" in worker.said[0]
    worker.run(47)
    assert kafka.alerts == ahead
    assert snapshot_of(kafka).offset == 47


def test_a_committed_offset_that_was_overtaken_while_we_looked_is_asked_for_again() -> None:
    kafka = after(47)
    worker = Worker(kafka)
    worker.stage.revoked(HERE)
    assert worker.stage.resume(HERE, 20, kafka)[1] == 47


def test_what_the_log_no_longer_holds_behind_a_snapshot_is_said_and_left_out() -> None:
    kafka = after(40)
    kafka.low, kafka.offset = 44, 47
    worker = Worker(kafka)
    assert (worker.at, worker.committed) == (44, 47)
    assert "those below 44 are no longer held; 4 offsets behind it are no longer held and missing from the state" in worker.said[0]
    worker.run(100)
    assert kafka.offset == snapshot_of(kafka).offset == 100


def test_outcomes_that_the_log_no_longer_holds_are_said_and_left_out() -> None:
    kafka = after(40)
    kafka.low = 38
    worker = Worker(kafka)
    assert (worker.at, worker.committed) == (38, 40)
    assert "outcomes that wait from 37 on; those below 38 are no longer held" in worker.said[0]


def test_without_a_snapshot_and_the_start_of_the_log_the_state_begins_with_what_is_retained_and_says_so() -> None:
    kafka = Kafka(30, 100)
    kafka.offset = 47
    worker = Worker(kafka)
    assert (worker.at, worker.committed) == (30, 47)
    assert "from offset 30, silent up to the committed 47; what lay below 30 is no longer held and missing from it" in worker.said[0]


def test_an_offset_that_the_log_no_longer_holds_is_left_to_a_person() -> None:
    kafka = after(40)
    kafka.low = 41
    with pytest.raises(LogGapError):
        Worker(kafka)


def test_a_partition_that_stays_keeps_its_state_in_a_rebalance() -> None:
    kafka = after(40)
    worker = Worker(kafka)
    worker.run(60)
    kafka.reads.clear()
    worker.find()
    assert (worker.at, kafka.reads) == (60, [])


def test_a_partition_that_an_eager_group_takes_and_gives_back_keeps_its_state() -> None:
    kafka = after(40)
    worker = Worker(kafka, interval=9.0)
    worker.run(60)
    worker.stage.revoked(HERE)
    worker.find()
    assert worker.at == 60
    assert len(worker.said) == 1, "nothing was loaded"
    worker.run(100)
    assert kafka.alerts == plain(100)


def test_a_partition_that_somebody_else_has_moved_is_read_anew() -> None:
    kafka = after(40)
    worker = Worker(kafka)
    worker.stage.revoked(HERE)
    Worker(kafka).run(60)
    worker.find()
    assert "snapshot of offset 60" in worker.said[-1]
    worker.run(100)
    assert kafka.alerts == plain(100)


def test_who_was_overtaken_goes_on_from_the_state_of_who_did_and_takes_off_what_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = after(40)
    worker = Worker(kafka)
    worker.run(45)
    monkeypatch.setattr("stream_monitor.core.snapshots.CHUNK_BYTES", 10)
    Worker(kafka).run(60)
    monkeypatch.undo()
    worker.find()
    assert (worker.at, worker.committed) == (57, 60)
    assert "snapshot of offset 60" in worker.said[-1]
    worker.run(100)
    assert kafka.alerts == plain(100)
    assert chunks(HERE, kafka.state) == 1


def accounted(worker: Worker, out: Sequence[Out]) -> set[str]:
    """The ids of the alerts that end in `out`, and of those that fire on."""
    ends = [orjson.loads(record.value or b"") for record in out if record.topic == "alerts"]
    fires: dict[str, Alert] = worker.stage._held[HERE].monitor.firing  # type: ignore[attr-defined]
    return {one["id"] for one in ends if one["status"] == "resolved"} | {alert.id for alert in fires.values()}


def test_what_one_with_other_settings_told_meanwhile_is_carried_over() -> None:
    kafka = after(40)
    worker = Worker(kafka)
    Worker(kafka, digest="other", monitor=OtherMonitor).run(60)
    told = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    worker.find()
    assert told
    assert told <= accounted(worker, worker.process(100))


class Overtaken(Kafka):
    """Somebody does something while the committed offset is asked for."""

    meanwhile: Callable[[], None] | None = None

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().committed(places)


def test_what_one_with_other_settings_told_while_the_offset_was_asked_for_again_is_carried_over() -> None:
    """What was read of the state topic before says nothing of it."""
    kafka = Overtaken(0, 100)
    worker = Worker(kafka)
    worker.run(40)
    before = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    worker.stage.revoked(HERE)
    kafka.meanwhile = lambda: Worker(kafka, digest="other", monitor=OtherMonitor).run(60)
    worker.at, worker.committed = worker.stage.resume(HERE, 20, kafka)  # 20: an answer from before 40 was committed
    assert worker.committed == 60
    told = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    assert told - before
    assert told <= accounted(worker, worker.process(100))


def test_what_was_told_under_other_settings_since_our_own_snapshot_is_carried_over() -> None:
    kafka = after(40)
    before = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    Worker(kafka, digest="other", monitor=OtherMonitor).run(60)
    kafka.state = [record for record in kafka.state if ("digest", b"other") not in record.headers or b"firing" in record.key]
    # ... as where it has not come to write a snapshot: those of other partitions were more overdue
    told = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    worker = Worker(kafka)
    assert "state from the snapshot of offset 40" in worker.said[-1]
    assert told - before
    assert told <= accounted(worker, worker.process(100))


def test_what_was_told_in_a_part_of_the_log_that_retention_took_is_carried_over() -> None:
    kafka = after(40)
    Worker(kafka, interval=1e9).run(70)  # tells alerts and writes no snapshot
    told = {alert.id for alert in alerts(HERE, kafka.state)[0]}
    assert told - accounted(Worker(kafka), [])
    kafka.low = 70
    worker = Worker(kafka)
    assert "missing from the state" in worker.said[-1]
    assert told <= accounted(worker, worker.process(100))


def test_a_partition_that_was_taken_away_is_forgotten_once_records_come_again() -> None:
    kafka = after(40)
    worker = Worker(kafka)
    worker.stage.revoked(HERE)
    worker.stage.begin([], {})
    kafka.reads.clear()
    worker.find()
    assert kafka.reads


def test_an_alert_that_fires_and_can_not_be_read_is_said() -> None:
    kafka = after(47)
    fires, _ = alerts(HERE, kafka.state)
    kafka.state.append(firing(HERE, fires[0], "")._replace(value=b"?"))
    worker = Worker(kafka, "other")
    assert f"firing/{fires[0].fingerprint}" in worker.said[0]
    assert fires[0].status is Status.FIRING


def test_a_partition_that_was_added_while_it_ran_has_no_place_for_snapshots_and_does_without() -> None:
    kafka = Kafka(0, 40)
    worker = Worker(kafka)
    worker.stage._homes = 0
    kafka.reads.clear()
    worker.stage.revoked(HERE)
    worker.stage.begin([], {})
    worker.find()
    worker.run(40)
    assert kafka.reads == []
    assert kafka.state == []
    assert kafka.alerts == plain(40)
