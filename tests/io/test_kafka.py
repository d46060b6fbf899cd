"""The edge to a real Kafka: exact positions, transactions with offsets, fencing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from stream_monitor.core.frames import FULL, Framer, unframe
from stream_monitor.core.snapshots import StateRecord
from stream_monitor.errors import FatalError, SetupError
from stream_monitor.io.kafka import KafkaSink, KafkaSource
from stream_monitor.ports import Aborted, Chunk, Out, Place
from tests.support.servers import KafkaServer


class Reader:
    """A listener that starts each partition at its committed offset, or at the log's first."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.lost: list[Place] = []

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        committed = self.source.committed(places)
        return {p: self.source.bounds(p)[0] if (offset := committed[p]) is None else offset for p in places}

    def revoked(self, places: Sequence[Place]) -> None:
        self.lost += places


@pytest.fixture
def topic(kafka: KafkaServer, namespace: str) -> str:
    return create(kafka, namespace, 2)


def create(kafka: KafkaServer, name: str, partitions: int, **config: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
        future.result()
    return name


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    things: list[Any] = []
    yield things
    for thing in reversed(things):
        thing.close()


@pytest.fixture
def source(kafka: KafkaServer, opened: list[Any], namespace: str) -> Callable[..., KafkaSource]:
    def make(topic: str, group: str = namespace, **properties: Any) -> KafkaSource:
        made = KafkaSource({"bootstrap.servers": kafka.bootstrap, **properties}, group, lambda line: None)
        made.attach([topic], Reader(made))
        made.subscribe()
        opened.append(made)
        return made

    return make


@pytest.fixture
def sink(kafka: KafkaServer, opened: list[Any]) -> Callable[[str], KafkaSink]:
    def make(transactional_id: str) -> KafkaSink:
        made = KafkaSink({"bootstrap.servers": kafka.bootstrap}, transactional_id, lambda line: None)
        made.start()
        opened.append(made)
        return made

    return make


def read(source: KafkaSource, until: Callable[[list[Chunk]], bool], seconds: float = 30, most: int = 1000) -> list[Chunk]:
    """Chunks until enough came; a first poll that only rebalances hands out nothing and its positions are sought again."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + seconds
    while not until(chunks):
        assert time.monotonic() < deadline, f"only {chunks} came"
        for place in source.owned():
            if source.position(place) is None:
                committed = source.committed([place])[place]
                source.seek(place, committed or 0)
        chunks += source.poll(most, 0.1)
    return chunks


def values(chunks: Sequence[Chunk]) -> list[bytes]:
    return sorted(record.value for chunk in chunks for record in chunk.records)


def outs(topic: str, *texts: bytes) -> list[Out]:
    return [Out(topic, len(text) % 2, b"k", text, None) for text in texts]


def test_outputs_become_visible_with_the_commit_and_not_before(topic: str, source: Any, sink: Any) -> None:
    writer, reader = sink(f"{topic}-w"), source(topic)
    writer.produce(outs(topic, b"a", b"bb"))
    writer.commit({}, _no_member(reader)).result()
    writer.produce(outs(topic, b"rolled back", b"rolled back, too"))
    writer.abort()
    writer.produce(outs(topic, b"c"))
    writer.commit({}, _no_member(reader)).result()
    assert values(read(reader, lambda chunks: len(values(chunks)) >= 3)) == [b"a", b"bb", b"c"]


def _no_member(reader: KafkaSource) -> Any:
    while reader.metadata is None:
        reader.poll(10, 0.1)
    return reader.metadata


def test_positions_run_without_gaps_to_the_end_although_markers_take_offsets(topic: str, source: Any, sink: Any) -> None:
    writer, reader = sink(f"{topic}-w"), source(topic)
    for text in (b"a", b"b", b"c"):
        writer.produce(outs(topic, text))
        writer.commit({}, _no_member(reader)).result()
    ends = reader.ends()
    chunks = read(reader, lambda chunks: bool(chunks) and chunks[-1].end == ends[topic, 1])
    assert ends[topic, 1] == 6, "three records and three markers"
    assert chunks[0].start == 0
    assert all(before.end == after.start for before, after in pairwise(chunks))


def test_offsets_are_committed_with_the_transaction(topic: str, source: Any, sink: Any) -> None:
    writer, reader = sink(f"{topic}-w"), source(topic)
    writer.produce(outs(topic, b"a"))
    writer.commit({}, _no_member(reader)).result()
    writer.commit({(topic, 1): 2}, reader.metadata).result()
    assert reader.committed([(topic, 0), (topic, 1)]) == {(topic, 0): None, (topic, 1): 2}


def test_a_worker_that_lost_its_partitions_cannot_commit_with_the_metadata_of_its_batch(
    topic: str, source: Any, sink: Any, opened: list[Any]
) -> None:
    writer, zombie = sink(f"{topic}-w"), source(topic, **{"partition.assignment.strategy": "range"})
    zombies_sink = sink(f"{topic}-z")
    writer.produce(outs(topic, b"a", b"bb"))
    writer.commit({}, _no_member(zombie)).result()
    old = read(zombie, lambda chunks: len(values(chunks)) == 2) and zombie.metadata
    opened.remove(zombie)
    zombie.close()  # its partitions go to somebody else ...
    successor = source(topic, **{"partition.assignment.strategy": "range"})
    read(successor, lambda chunks: len(values(chunks)) == 2)
    with pytest.raises((Aborted, FatalError)):  # ... and its late commit is refused
        zombies_sink.commit({(topic, 0): 1, (topic, 1): 1}, old).result()
    assert successor.committed([(topic, 0)]) == {(topic, 0): None}


def test_a_second_producer_of_the_same_transactional_id_fences_the_first(topic: str, source: Any, sink: Any) -> None:
    reader, first = source(topic), sink(f"{topic}-same")
    first.produce(outs(topic, b"of the first"))
    second = sink(f"{topic}-same")
    second.produce(outs(topic, b"of the second"))
    second.commit({}, _no_member(reader)).result()
    with pytest.raises(FatalError, match="fenced: "):
        first.commit({}, reader.metadata).result()
    assert values(read(reader, lambda chunks: bool(values(chunks)))) == [b"of the second"]


@pytest.mark.parametrize("asks", [lambda first, place: first.poll(10, 0.1), lambda first, place: first.seek(place, 0)])
def test_a_consumer_whose_group_instance_id_another_one_took_says_so(topic: str, source: Any, asks: Callable[..., Any]) -> None:
    first = source(topic, **{"group.instance.id": "same"})
    while len(first.owned()) < 2:
        first.poll(10, 0.1)
    second = source(topic, **{"group.instance.id": "same"})
    while len(second.owned()) < 2:
        second.poll(10, 0.1)

    def ask_on() -> None:
        for _ in range(100):
            with suppress(Aborted):  # what came before it was told is to be read again
                asks(first, (topic, 0))
            time.sleep(0.1)

    with pytest.raises(FatalError, match="fenced: "):
        ask_on()


@pytest.mark.parametrize("properties", [{}, {"partition.assignment.strategy": "range"}, {"group.protocol": "consumer"}])
def test_who_leaves_before_being_told_the_assignment_has_soon_left(topic: str, kafka: KafkaServer, properties: dict[str, str]) -> None:
    always = {"bootstrap.servers": kafka.bootstrap, "group.instance.id": "leaver", **properties}
    for i in range(12):
        leaver = KafkaSource(always, topic, lambda line: None)
        leaver.attach([topic], Reader(leaver))
        leaver.subscribe()
        leaver.poll(1, 0.02)
        time.sleep(0.01 * i)  # meanwhile the group may have come to an agreement, of which the client has not told
        gone = threading.Thread(target=leaver.close, daemon=True)
        gone.start()
        gone.join(10)
        assert not gone.is_alive(), f"after {10 * i} ms"
        assert leaver.metadata is None or leaver.owned() == []


def test_what_a_record_carries_is_handed_out_in_order_and_together(topic: str, source: Any, sink: Any) -> None:
    events = [[(b"%d" % i, b"\x01%d" % i) for i in range(first, first + FULL)] for first in range(0, 50 * FULL, FULL)]
    writer, reader = sink(f"{topic}-w"), source(topic)
    reader.attach([topic], Reader(reader), None, unframe)
    framer = Framer(1)
    framer.add([event for group in events for event in group])
    writer.produce(Out(topic, 0, None, frame, None) for _, frame in framer.finish())
    writer.commit({}, _no_member(reader)).result()
    chunks = [chunk for chunk in read(reader, lambda chunks: len(values(chunks)) >= 50 * FULL, most=FULL + 1) if chunk.records]
    assert [(r.key, r.value) for chunk in chunks for r in chunk.records] == [event for group in events for event in group]
    assert all(chunk.records[0].number == 0 and chunk.records[-1].number == FULL - 1 for chunk in chunks)
    assert max(len(chunk.records) for chunk in chunks) <= 4 * FULL, "about as many at once as were asked for, whatever a record carries"


def test_a_record_that_cannot_be_unpacked_ends_the_process_and_is_named() -> None:
    class Odd:
        def __init__(self, properties: dict[str, Any]) -> None: ...
        def consume(self, most: int, timeout: float) -> list[Any]:
            return [Message(topic="journal", partition=2, offset=7, key=b"k", value=b"\x09", timestamp=(1, 5))]

        def consumer_group_metadata(self) -> None: ...
        def memberid(self) -> str:
            return "me"

    source = KafkaSource({}, "group", lambda line: None, Odd)
    source.attach(["journal"], Reader(source), None, unframe)
    with pytest.raises(FatalError, match="journal/2: the record at offset 7 can not be read: journal record of version 9"):
        source.poll(10, 0.1)


class Client:
    """A consumer's client, without a broker: a member of its group, to which nothing was committed; partitions hold two offsets."""

    def __init__(self, properties: dict[str, Any]) -> None: ...
    def consumer_group_metadata(self) -> None: ...
    def incremental_assign(self, places: Any) -> None: ...
    def committed(self, places: Any, timeout: float) -> Any:
        return places

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        return 0, 2

    def memberid(self) -> str:
        return "me"


def test_a_poll_goes_on_while_what_came_has_to_wait_for_the_other_partition() -> None:
    batches = [[Message(topic="t", partition=p, offset=0, key=b"k", value=b"%d" % p, timestamp=(1, 5))] for p in (0, 1)]

    class InPieces(Client):
        def consume(self, most: int, timeout: float) -> list[Any]:
            return batches.pop(0) if batches else []

    source = KafkaSource({}, "group", lambda line: None, InPieces)
    source.attach(["t"], Reader(source), lambda topic, record: record.time)
    source._assigned(source._consumer, [TopicPartition("t", p, 0) for p in (0, 1)])
    chunks = source.poll(10, 10.0)
    assert (values(chunks), batches) == ([b"0"], [])


def test_while_there_is_enough_to_hand_out_messages_stay_in_the_clients_queue() -> None:
    asked: list[tuple[int, float]] = []
    pieces = [(first, partition) for first in range(0, 3_000, 300) for partition in (0, 1)]
    queue = [
        Message(topic="t", partition=p, offset=i, key=b"k", value=b"v", timestamp=(1, i))
        for first, p in pieces
        for i in range(first, first + 300)
    ]

    class InPieces(Client):
        def consume(self, most: int, timeout: float) -> list[Any]:
            asked.append((most, timeout))
            taken, queue[:] = queue[:most], queue[most:]
            return taken

    source = KafkaSource({}, "group", lambda line: None, InPieces)
    source.attach(["t"], Reader(source), lambda topic, record: record.time)
    source._assigned(source._consumer, [TopicPartition("t", p, 0) for p in (0, 1)])
    found = 0
    while found < 5_000:
        chunks = source.poll(100, 0.05)
        found += sum(len(chunk.records) for chunk in chunks)
        assert 6_000 - len(queue) - found < 600, "of what came, no more is held than the pieces make necessary"
    assert asked.count((1, 0.0)) > 10, "a poll that needs none asks for one, or it would not hear of rebalances"


def test_a_frame_that_is_not_full_does_not_make_a_poll_ask_for_more_than_it_wants() -> None:
    framer, asked, ends = Framer(1), list[int](), [0, 0]
    framer.add([(b"%d" % i, b"event") for i in range(FULL + 1)])
    (_, full), (_, rest) = framer.finish()

    def message(frame: bytes) -> Message:
        partition = len(asked) % 2  # large pieces of one, then of the other
        ends[partition] += 1
        return Message(topic="t", partition=partition, offset=ends[partition] - 1, value=frame, timestamp=(1, ends[partition]))

    class OneIsTheRest(Client):
        def consume(self, most: int, timeout: float) -> list[Any]:
            asked.append(most)
            return [message(rest)] if most == 1 else [message(full) for _ in range(most)]

    source = KafkaSource({}, "group", lambda line: None, OneIsTheRest)
    source.attach(["t"], Reader(source), lambda topic, record: record.time, unframe)
    source._assigned(source._consumer, [TopicPartition("t", p, 0) for p in (0, 1)])
    for _ in range(40):
        source.poll(10 * FULL, 0.0)
    assert set(asked) == {1, 10}


@pytest.mark.parametrize("later", [[], [Message(topic="t", partition=0, offset=1, key=b"k", value=b"1", timestamp=(1, 5))]])
def test_what_came_while_the_group_did_not_know_us_is_read_again_although_no_rebalance_was_told(later: list[Message]) -> None:
    batches = [[Message(topic="t", partition=0, offset=0, key=b"k", value=b"0", timestamp=(1, 5))], later]
    members = ["", "me"]

    class Flickering(Client):
        def consume(self, most: int, timeout: float) -> list[Any]:
            return batches.pop(0)

        def memberid(self) -> str:
            return members.pop(0)

    source = KafkaSource({}, "group", lambda line: None, Flickering)
    source.attach(["t"], Reader(source))
    source._assigned(source._consumer, [TopicPartition("t", 0, 0)])
    assert source.poll(10, 0.0) == []
    with pytest.raises(Aborted, match="read again"):
        source.poll(10, 0.0)
    assert source.position(("t", 0)) is None


class Told:
    """What a client hands out that another one has fenced."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._FATAL, "Fatal error: Static consumer fenced by other consumer")

    def topic(self) -> None: ...
    def partition(self) -> int:
        return -1


def test_a_fatal_error_is_raised_although_the_group_has_dropped_this_member() -> None:
    class Dropped:
        def __init__(self, properties: dict[str, Any]) -> None: ...
        def consume(self, most: int, timeout: float) -> list[Any]:
            return [Told()]

        def consumer_group_metadata(self) -> None: ...
        def memberid(self) -> str:
            return ""

    with pytest.raises(FatalError, match="fenced: "):
        KafkaSource({}, "group", lambda line: None, Dropped).poll(10, 0.1)


def test_a_fatal_error_is_raised_although_what_came_with_it_has_to_be_read_again() -> None:
    batches: list[list[Any]] = [[Message(topic="t", partition=0, offset=0, key=b"k", value=b"0", timestamp=(1, 5))], [Told()]]
    members = ["", "me"]

    class Fenced(Client):
        def consume(self, most: int, timeout: float) -> list[Any]:
            return batches.pop(0)

        def memberid(self) -> str:
            return members.pop(0)

    source = KafkaSource({}, "group", lambda line: None, Fenced)
    source.attach(["t"], Reader(source))
    source._assigned(source._consumer, [TopicPartition("t", 0, 0)])
    assert source.poll(10, 0.0) == []
    with pytest.raises(FatalError, match="fenced: "):
        source.poll(10, 0.0)


def test_the_append_time_at_an_offset_is_that_of_the_record_there_or_of_the_last_one_before(
    kafka: KafkaServer, namespace: str, source: Any
) -> None:
    topic = create(kafka, namespace, 1)
    plain = Producer({"bootstrap.servers": kafka.bootstrap})
    now = int(time.time() * 1000)
    for time_ms in (1000, 2000, 3000):
        plain.produce(topic, b"x", timestamp=now - 10_000 + time_ms)
    plain.flush()
    reader = source(topic)
    times = [reader.time_at((topic, 0), offset) for offset in range(4)]
    assert times[1] - times[0] == 1000
    assert times[3] == times[2], "nothing stands at the end; the last record before it does"
    assert reader.offset_at((topic, 0), times[1]) == 1
    assert reader.offset_at((topic, 0), times[2] + 1) is None


def test_any_partition_is_read_up_to_what_is_settled(topic: str, source: Any, sink: Any) -> None:
    writer, reader = sink(f"{topic}-w"), source(topic)
    place = (topic, 1)
    writer.produce([Out(topic, 1, b"key", b"a", [("name", b"value")]), Out(topic, 1, b"gone", None, None)])
    writer.commit({}, _no_member(reader)).result()
    writer.produce(outs(topic, b"b"))
    deadline = time.monotonic() + 30
    while (end := reader.end(place)) < 4:  # two records, a marker, one that is open
        assert time.monotonic() < deadline
    assert (end, reader.bounds(place)) == (4, (0, 3))
    settled = [StateRecord(b"key", b"a", [("name", b"value")]), StateRecord(b"gone", None, [])]
    assert reader.read(place, 0, 3) == settled
    assert reader.read(place, 1, 3) == settled[1:]
    assert reader.read(place, 0, 1) == settled[:1]
    assert reader.read(place, 3, 3) == []


@pytest.mark.parametrize("commit", [True, False])
def test_a_reader_waits_for_an_open_transaction_to_be_resolved(topic: str, source: Any, sink: Any, commit: bool) -> None:
    writer, reader = sink(f"{topic}-w"), source(topic)
    metadata = _no_member(reader)
    writer.produce(outs(topic, b"a"))
    deadline = time.monotonic() + 30
    while reader.end((topic, 1)) < 1:
        assert time.monotonic() < deadline
    later = threading.Timer(1, lambda: writer.commit({}, metadata).result() if commit else writer.abort())
    later.start()
    assert [record.value for record in reader.read((topic, 1), 0, 1)] == ([b"a"] if commit else [])
    later.join()


def test_at_a_position_that_the_topic_does_not_hold_the_place_is_to_be_found_again(topic: str, kafka: KafkaServer, source: Any) -> None:
    reader = source(topic)
    while not reader.owned():
        reader.poll(10, 0.1)
    reader.seek((topic, 0), 99)
    with pytest.raises(Aborted, match="position 99 lies outside"):
        read(reader, lambda chunks: False, seconds=10)


def test_a_partition_that_came_later_is_asked_about_at_once(topic: str, kafka: KafkaServer, source: Any) -> None:
    reader = source(topic)
    assert reader.bounds((topic, 1)) == (0, 0)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    asked = time.monotonic()
    assert reader.bounds((topic, 2)) == (0, 0)
    assert reader.offset_at((topic, 2), 0) is None
    assert time.monotonic() - asked < 30, "the client looks for partitions every 300 s by itself"


def test_a_topic_that_does_not_exist_is_named(kafka: KafkaServer, namespace: str, opened: list[Any]) -> None:
    made = KafkaSource({"bootstrap.servers": kafka.bootstrap, "allow.auto.create.topics": False}, namespace, lambda line: None)
    opened.append(made)
    with pytest.raises(SetupError, match=f"{namespace}-nowhere"):
        made.partitions(f"{namespace}-nowhere")


def test_a_plain_consumer_sees_what_was_produced(topic: str, kafka: KafkaServer, source: Any, sink: Any) -> None:
    writer = sink(f"{topic}-w")
    writer.produce([Out(topic, 1, b"key", b"value", [("record", b"outcome")])])
    writer.commit({}, _no_member(source(topic))).result()
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{topic}-c", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    deadline, message = time.monotonic() + 30, None
    while message is None and time.monotonic() < deadline:
        message = consumer.poll(0.5)
    assert message is not None
    assert (message.partition(), message.key(), message.value()) == (1, b"key", b"value")
    assert message.headers() == [("record", b"outcome")]
    consumer.close()


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    ],
)
def test_a_coordinator_or_a_leader_that_moves_is_asked_again(code: int) -> None:
    class Moving:
        """A client whose coordinator answers at the second question."""

        def __init__(self, properties: dict[str, Any]) -> None:
            self.asked = 0

        def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            self.asked += 1
            if self.asked == 1:
                raise KafkaException(KafkaError(code))
            return [TopicPartition(place.topic, place.partition, 7) for place in places]

    source = KafkaSource({}, "group", lambda line: None, client=Moving)
    assert source.committed([("t", 0)]) == {("t", 0): 7}


def test_a_producer_that_hears_while_it_produces_that_it_is_fenced_says_so() -> None:
    class Fenced:
        def __init__(self, properties: dict[str, Any]) -> None: ...
        def begin_transaction(self) -> None: ...
        def produce(self, *record: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL, "Unable to produce message: Local: Fatal error"))

        def poll(self, timeout: float) -> None:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced by a newer instance", True, False, False))

    with pytest.raises(FatalError, match="fenced: another process has taken over"):
        KafkaSink({}, "one", print, Fenced).produce(outs("t", b"a"))


def test_a_transaction_that_failed_behind_the_producers_back_is_rolled_back() -> None:
    class Failed:
        aborted = False

        def __init__(self, properties: dict[str, Any]) -> None: ...
        def begin_transaction(self) -> None: ...
        def produce(self, *record: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._STATE, "Unable to produce message: Local: Erroneous state"))

        def abort_transaction(self, timeout: float) -> None:
            Failed.aborted = True

    sink = KafkaSink({}, "one", print, Failed)
    with pytest.raises(Aborted, match="Erroneous state"):
        sink.produce(outs("t", b"a"))
    sink.abort()
    assert Failed.aborted


def test_while_a_commit_has_not_come_back_its_producer_is_left_alone() -> None:
    class Hanging:
        def __init__(self, properties: dict[str, Any]) -> None: ...
        def begin_transaction(self) -> None: ...

    said: list[str] = []
    sink = KafkaSink({"transaction.timeout.ms": 7_000}, "one", said.append, Hanging, lambda call: Future())
    assert sink.patience == 12.0
    sink.commit({}, None)
    with pytest.raises(FatalError, match="has not come back"):
        sink.abort()
    sink.close()
    assert "left as it is" in said[0]


@pytest.mark.parametrize(("code", "looks"), [(KafkaError._UNKNOWN_PARTITION, ["topic"] * 2), (KafkaError._TRANSPORT, [])])
def test_a_question_about_offsets_that_fails_in_passing_is_asked_again_of_whoever_leads_by_now(code: int, looks: list[str]) -> None:
    class Forgetful:
        asked = 0
        looked: ClassVar[list[str]] = []

        def get_watermark_offsets(self, _partition: Any, _seconds: float) -> tuple[int, int]:
            self.asked += 1
            if self.asked < 3:
                raise KafkaException(KafkaError(code))
            return 5, 7

        def list_topics(self, topic: str, _seconds: float) -> None:
            self.looked.append(topic)

    client = Forgetful()
    assert KafkaSource({}, "group", lambda line: None, lambda properties: client).bounds(("topic", 0)) == (5, 7)
    assert (client.asked, client.looked) == (3, looks)


@pytest.mark.parametrize("properties", [{}, {"partition.assignment.strategy": "range"}, {"group.protocol": "consumer"}])
def test_a_position_that_the_topic_no_longer_holds_rolls_back_and_can_be_sought_anew(
    kafka: KafkaServer, namespace: str, source: Any, properties: dict[str, str]
) -> None:
    topic = create(kafka, namespace, 2)
    place = topic, 0
    plain = Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(20):
        plain.produce(topic, b"%d" % n, partition=n // 10)
    plain.flush()
    reader = source(topic, **properties)
    assert len(values(read(reader, lambda chunks: len(values(chunks)) >= 20))) == 20
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # which must live as long as what it is asked
    for deleted in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        deleted.result()
    reader.seek(place, 2)
    with pytest.raises(Aborted, match="lies outside what the topic holds"):
        read(reader, bool)
    reader.seek(place, 7)
    reader.seek((topic, 1), 10)  # what came with it was dropped
    plain.produce(topic, b"20", partition=1)
    plain.flush()
    assert values(read(reader, lambda chunks: len(values(chunks)) >= 4)) == [b"20", b"7", b"8", b"9"]
    assert (reader.position(place), reader.position((topic, 1))) == (10, 11)


@pytest.mark.parametrize("properties", [{}, {"partition.assignment.strategy": "range"}, {"group.protocol": "consumer"}])
def test_a_partition_can_be_sought_at_the_moment_it_is_assigned(
    kafka: KafkaServer, namespace: str, source: Any, properties: dict[str, str]
) -> None:
    topic = create(kafka, namespace, 1)
    plain = Producer({"bootstrap.servers": kafka.bootstrap})
    for n in range(3):
        plain.produce(topic, b"%d" % n)
    plain.flush()
    reader = source(topic, **properties)
    while not reader.owned():
        reader.poll(10, 0.0)
    reader.seek((topic, 0), 1)
    assert values(read(reader, bool)) == [b"1", b"2"]
