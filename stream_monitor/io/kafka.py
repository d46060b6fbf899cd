"""Kafka: a consumer that hands out runs of records with their exact positions, and a producer of transactions.

The consumer reads committed records only and never commits by itself: the offsets of what was processed go into the producer's
transaction, together with the group's metadata as it was when those records were handed out. Metadata taken afresh
at the commit would let a worker commit a partition that another one already owns.

Errors of the client are told apart once, here: retriable ones are tried again, abortable ones become `Aborted` (the
transaction is rolled back and its input read again), all others `FatalError` (the process ends and is restarted).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from stream_monitor.core.alignment import Alignment, Run
from stream_monitor.core.frames import FULL
from stream_monitor.core.records import Record
from stream_monitor.core.snapshots import StateRecord
from stream_monitor.errors import AGAIN, FatalError, SetupError
from stream_monitor.ports import Aborted, Chunk, Listener, Out, Place, Unpack

_MAX_HELD, _MAX_WEIGHT = 200_000, 64 * 2**20  # records held to align partitions, at most, and bytes of them
_GRACE, _PATIENT = 0.5, 2.0  # seconds that records wait for partitions read to their end, and for others
_ALL = 200_000  # messages, more than a client's queue holds of any but the smallest
_JOINING = 2.0  # seconds for which who leaves before being told the first assignment waits for it
_MARGIN = 5.0  # seconds by which a commit may come back late: the client's calls end when they should, or never
_NO_WAIT = 10  # ms that a fetch waits for news where what is read has an end
_SHORT = 0.005  # seconds to wait for messages while there is enough to hand out
CALL_TIMEOUT = 30.0  # seconds for a question to the broker

# What the guarantees need, whatever the operator's own properties are.
_CONSUMER: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
}
_PRODUCER: dict[str, Any] = {"enable.idempotence": True, "acks": "all"}

# What makes it fast (benchmarks/README.md has the figures); the operator's properties override these.
_CONSUMER_TUNING: dict[str, Any] = {
    "partition.assignment.strategy": "cooperative-sticky",
    "fetch.queue.backoff.ms": 5,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.wait.max.ms": 50,
    "fetch.message.max.bytes": 262_144,  # smaller pieces of each partition, so that less is held to align them
    "check.crcs": False,
}
_PRODUCER_TUNING: dict[str, Any] = {
    "linger.ms": 5,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 65_536,
    "delivery.report.only.error": True,
    "transaction.timeout.ms": 30_000,
    "compression.type": "lz4",
}


def consumer_properties(own: Mapping[str, Any]) -> dict[str, Any]:
    """What a consumer of a stage is told, with the operator's own properties."""
    return {**_CONSUMER_TUNING, **own, **_CONSUMER}


def reader_properties(own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a consumer is told that is assigned what it reads, to its end, and joins no group."""
    return {
        **own,
        "group.id": f"stream-monitor-{name}",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,  # so soon it is told of an end
        "log_level": 0,
    }


def producer_properties(own: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a producer."""
    return {**_PRODUCER_TUNING, **own, **_PRODUCER}


class KafkaSource:
    """A member of a consumer group that knows exactly where it reads."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        group: str,
        log: Callable[[str], None],
        client: Callable[[dict[str, Any]], Any] = Consumer,
    ) -> None:
        self.metadata: Any = None  # the group's, as of the last poll
        self._log = log
        self._listener: Listener
        self._topics: list[str] = []
        self._next: dict[Place, int] = {}
        self._rebalances = 0
        self._subscribed = self._closing = False
        self._alignment = Alignment(_no_time, 0, 0)
        self._unpack: Unpack | None = None
        self._carried = 1.0  # records in a message, as of the last poll
        self._plenty = False  # the last poll handed out as many as were wanted
        self._skewed: set[Place] = set()  # the client is ahead of `_next` here
        self._properties = consumer_properties(properties) | {"group.id": group}
        self._cooperative = (
            self._properties.get("group.protocol") == "consumer" or "cooperative" in self._properties["partition.assignment.strategy"]
        )
        if self._properties.get("group.protocol") == "consumer":  # KIP-848
            del self._properties["partition.assignment.strategy"]  # the broker assigns
            # A name that is taken is refused until its session is over: who starts again after a crash would end, again and again.
            self._properties.pop("group.instance.id", None)
        self._client = client
        self._asked: Any = None
        self._consumer = client(self._properties | {"error_cb": lambda e: log(f"kafka: {e}")})

    def attach(
        self,
        topics: Sequence[str],
        listener: Listener,
        time_of: Callable[[str, Record], int] | None = None,
        unpack: Unpack | None = None,
    ) -> None:
        """What will be read, and who is told of rebalances; how partitions are read side by side, and records unpacked."""
        self._topics, self._listener = list(topics), listener
        self._unpack, self._carried = unpack, FULL if unpack else 1.0
        self._alignment = Alignment(time_of, _GRACE, _PATIENT) if time_of else Alignment(_no_time, 0, 0)

    def subscribe(self) -> None:
        """Joins the group."""
        self._subscribed = True
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def ends(self) -> dict[Place, int]:
        """The end of every partition of the subscribed topics, as of now, open transactions included.

        A reader of committed records is told the end of these, so a transaction that a killed process left open would hide the rest.
        """
        return self._ends([(topic, p) for topic in self._topics for p in range(self.partitions(topic))])

    def _ends(self, places: Sequence[Place]) -> dict[Place, int]:
        reader = self._client({**self._properties, "isolation.level": "read_uncommitted"})
        try:
            return {p: _patiently(partial(reader.get_watermark_offsets, TopicPartition(*p), CALL_TIMEOUT))[1] for p in places}
        finally:
            reader.close()

    def poll(self, most: int, timeout: float) -> list[Chunk]:
        """At most `most` records, as soon as there are as many, else what came within `timeout` seconds.

        Rebalances happen in here. The chunks of one call may be empty of records where only transaction markers were passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            before, held = self._rebalances, self._alignment.held
            chunks = self._poll(most, timeout)
            # Where all that came has to wait for what lies beside it in time, the next messages may be what it waits for.
            waits = self._alignment.held > held and self._rebalances == before
            if chunks or not waits or time.monotonic() >= deadline:
                return chunks

    def _poll(self, most: int, timeout: float) -> list[Chunk]:
        """The same, once: nothing where all that came has to wait."""
        before, alignment = self._rebalances, self._alignment
        plenty, self._plenty = self._plenty, False
        full = alignment.held >= _MAX_HELD or alignment.weight >= _MAX_WEIGHT
        if sparing := plenty and alignment.suffices(most):
            # What waits in the client's queue costs less than records do, and these come out of the caches if they leave at once.
            wanted, patience = 1, 0.0
        else:
            wanted, patience = max(1, int(most / self._carried)), timeout if alignment.held < most else _SHORT
        messages = [] if full else self._consumer.consume(wanted, patience)
        if messages or full:
            self.metadata = self._consumer.consumer_group_metadata()
        if self._rebalances != before or not self._consumer.memberid():
            # They were read under the old assignment, or the group has declared us dead (metadata without a member would commit unfenced).
            self._drop(messages)
            return []
        now = time.monotonic()
        try:
            if not self._skewed.isdisjoint(self._next):  # the group has taken us back, and told no rebalance after which we would seek
                raise Aborted("what came while the group did not know this member is read again")
            if messages:
                carried = self._hold(messages, now)
                if carried and not sparing:  # one alone may be the rest that fills no frame
                    self._carried = max(1.0, carried)
        except Aborted:
            self._drop(messages)
            raise
        taken = alignment.take(most, float("inf") if full else now)
        self._plenty = sum([len(run.records) for run in taken]) >= most
        return self._chunks(taken) if taken else []

    def _drop(self, messages: Sequence[Message]) -> None:
        """Leaves what came unread. Without a seek it would be lost, and so would the end of a partition, which is told only once.

        Not dropped: why this member will never be one again, which is told only once too.
        """
        for m in messages:
            if (error := m.error()) is not None:
                _raise_fatal(error)
            self._skewed.add((m.topic(), m.partition()))  # type: ignore[arg-type]  # what was consumed has both

    def _hold(self, messages: Sequence[Message], now: float) -> float:
        """Puts what came into the alignment, partition by partition; answers how many records a message carried, 0 if none came."""
        records: dict[Place, list[Record]] = {}
        run: list[Record] | None = None  # of the partition that the last message was of; the next one mostly is, too
        topic, partition = "", -1
        unpack, came, held = self._unpack, 0, self._alignment.held
        for m in messages:
            if m.error() is None:
                came += 1
                if run is None or m.partition() != partition or m.topic() != topic:
                    topic, partition = m.topic(), m.partition()  # type: ignore[assignment]  # what was consumed has both
                    run = records.setdefault((topic, partition), [])
                kind, when = m.timestamp()
                if unpack is None:
                    run.append(Record(m.offset(), 0 if kind == TIMESTAMP_NOT_AVAILABLE else when, m.key(), m.value()))  # type: ignore[arg-type]
                else:
                    run += _unpacked(unpack, m, when)
                continue
            place: Place = m.topic(), m.partition()  # type: ignore[assignment]
            if (end := self._event(m, place)) is not None:
                if place in records:
                    self._alignment.put(place, records.pop(place), now)
                    run = None
                self._alignment.end(place, end, now)
        for place, run in records.items():
            self._alignment.put(place, run, now)
        return (self._alignment.held - held) / came if came else 0.0

    def _chunks(self, taken: Sequence[Run]) -> list[Chunk]:
        """One chunk a partition."""
        chunks: dict[Place, Chunk] = {}
        for when, place, end, records, _, _ in taken:
            start = self._next.get(place)
            if start is None or end <= start:
                continue  # revoked, or read before the last seek
            if records and records[0].offset < start:
                records = [r for r in records if r.offset >= start]
            self._next[place] = end
            known = chunks.get(place)
            if known is None:
                chunks[place] = Chunk(place, start, end, list(records), [(when, len(records))])
            else:
                known.records.extend(records)
                known.runs.append((when, len(records)))  # type: ignore[attr-defined]  # the list made above
                chunks[place] = known._replace(end=end)
        return [chunks[place] for place in sorted(chunks)]

    def seek(self, place: Place, offset: int) -> None:
        """Goes on from `offset`."""
        self._next[place] = offset
        self._skewed.discard(place)
        self._alignment.add(place)
        try:
            _patiently(partial(self._seek, TopicPartition(*place, offset)))
        except FatalError:
            for message in self._consumer.consume(100, 1.0):  # a fenced consumer refuses everything, but says why only here
                if message.error() is not None:
                    self._event(message, place)
            raise

    def _seek(self, to: TopicPartition) -> None:
        try:
            self._consumer.seek(to)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE or to not in self._consumer.assignment():  # nothing is, once we are fenced
                raise
            # It is not being read: not yet, or no longer, since what was to be read is not there (confluentinc/librdkafka#3959, #2961).
            if self._cooperative:
                self._consumer.incremental_unassign([to])
                self._consumer.incremental_assign([to])
            else:
                self._consumer.assign([TopicPartition(*place, at) for place, at in self._next.items()])

    def owned(self) -> list[Place]:
        return sorted(self._next)

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        """The group's committed offsets, after earlier transactions are resolved."""

        def ask() -> list[TopicPartition]:
            found: list[TopicPartition] = self._consumer.committed([TopicPartition(*p) for p in places], CALL_TIMEOUT)
            if errors := [tp.error for tp in found if tp.error is not None]:
                raise KafkaException(errors[0])
            return found

        return {(tp.topic, tp.partition): tp.offset if tp.offset >= 0 else None for tp in _patiently(ask)}

    def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset that the topic still holds, and the one after the last (of committed and open records)."""
        low, high = self._ask(place, lambda reader: reader.get_watermark_offsets(TopicPartition(*place), CALL_TIMEOUT))
        return low, high

    def offset_at(self, place: Place, when: int) -> int | None:
        """The first offset with a timestamp >= `when` (ms), None where there is none."""
        [found] = self._ask(place, lambda reader: reader.offsets_for_times([TopicPartition(*place, when)], CALL_TIMEOUT))
        return found.offset if found.offset >= 0 else None

    def _ask(self, place: Place, question: Callable[[Any], Any]) -> Any:
        """What the client for questions answers. It goes by the leader that it heard of last, and would not ask for another by itself."""

        def ask() -> Any:
            try:
                return question(self._reader)
            except KafkaException as error:
                if error.args[0].code() in _UNKNOWN:
                    self._reader.list_topics(place[0], CALL_TIMEOUT)
                raise

        return _patiently(ask)

    def time_at(self, place: Place, offset: int) -> int | None:
        """The append time (ms) of the record at `offset`, or of the last one before it; None where the log is empty."""
        low, high = self.bounds(place)
        reach = 1
        while True:
            first = max(low, offset - reach)
            time = _last_time(self._client, self._properties, place, first, min(offset + 1, high))
            if time is not None or first == low:
                return time
            reach *= 16  # transaction markers and aborted records leave holes: look further back

    def end(self, place: Place) -> int:
        """The offset after the last, open transactions included."""
        return self._ends([place])[place]

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        """The committed records of any partition in [first, end). Waits for transactions in there to be resolved."""
        if first >= end:
            return []
        self._reader.assign([TopicPartition(*place, first)])
        try:
            return records_below(self._reader, place, end)
        finally:
            self._reader.unassign()

    def position(self, place: Place) -> int | None:
        """The offset that the next poll reads, None where only a seek can say."""
        return None if place in self._skewed else self._next[place]

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises SetupError where it does not exist."""
        found = _patiently(lambda: self._reader.list_topics(topic, CALL_TIMEOUT)).topics[topic]
        if found.error is not None or not found.partitions:
            raise SetupError(f"topic {topic} does not exist", "create it: stream-monitor topics create")
        return len(found.partitions)

    def close(self) -> None:
        """Leaves the group.

        Not while the client holds an assignment that it has not told: to leave then may take for ever, since its thread for the group has
        ended when it is asked to take back what it was just about to assign (confluentinc/librdkafka#4884). So what it has to tell is heard
        first, and the first assignment is waited for, 2 s at most.
        """
        self._closing = True
        subscribed, self._subscribed = self._subscribed, False
        try:
            if subscribed:
                self._hear_out(time.monotonic() + _JOINING)
        finally:
            if self._asked is not None:
                self._asked.close()
            self._consumer.close()

    def _hear_out(self, deadline: float) -> None:
        """Takes what the client has to tell. A rebalance comes after the messages that came before it, so all of these are asked for."""
        with suppress(KafkaException):  # of a client that is broken, the close is all that counts
            while True:
                messages = self._consumer.consume(_ALL, 0.0 if self._rebalances else 0.05)
                broken = any((error := m.error()) is not None and error.fatal() for m in messages)
                if self._rebalances or broken or time.monotonic() > deadline:
                    return

    @property
    def _reader(self) -> Any:
        """A client for questions, which reads nothing but what it is asked for: on the connection of one that reads all the time, an answer
        comes after the fetch that waits there."""
        if self._asked is None:
            quiet = {"auto.offset.reset": "earliest", "fetch.wait.max.ms": _NO_WAIT, "log_level": 0}  # what is wrong the other one tells
            self._asked = self._client({**self._properties, **quiet})
        return self._asked

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        if self._closing:  # a rebalance that ends while we leave; no question to the broker is answered any more
            return
        starts = self._listener.assigned([(tp.topic, tp.partition) for tp in partitions])
        self._next.update(starts)
        for place in starts:
            self._alignment.add(place)
        places = [TopicPartition(*place, offset) for place, offset in starts.items()]
        if self._cooperative:
            consumer.incremental_assign(places)
        else:
            consumer.assign(places)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        gone = [(tp.topic, tp.partition) for tp in partitions]
        for place in gone:
            self._next.pop(place, None)
            self._skewed.discard(place)
            self._alignment.drop(place)
        self._listener.revoked(gone)
        if self._cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def _event(self, message: Message, place: Place) -> int | None:
        """What is no record: the end of a partition, which is answered, or an error."""
        error = message.error()
        assert error is not None
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            return message.offset()
        if code == KafkaError._AUTO_OFFSET_RESET:
            # Only the committed offset says whether this is a gap: what is replayed lies before it, a late riser has been overtaken.
            raise Aborted(f"{place[0]}/{place[1]}: the position {self._next.get(place)} lies outside what the topic holds: {error.str()}")
        _raise_fatal(error)
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise SetupError(f"kafka: {error.str()}", "create the topics: stream-monitor topics create")
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise SetupError(f"kafka: {error.str()}", "grant this client the rights of ARCHITECTURE.md, Operations")
        self._log(f"kafka consumer: {error.str()}")
        return None


def _raise_fatal(error: KafkaError) -> None:
    """A fatal error is told once; whoever drops it waits for ever."""
    if error.code() in _FENCED or (error.code() == KafkaError._FATAL and "fenced" in error.str()):
        raise FatalError(f"fenced: another process has taken over ({error.str().rpartition(': ')[2]})", AGAIN)
    if error.fatal() or error.code() == KafkaError._FATAL:
        raise FatalError(f"kafka consumer: {error.str()}", AGAIN)


def _unpacked(unpack: Unpack, message: Message, when: int) -> list[Record]:
    try:
        return unpack(message.offset(), when, message.key(), message.value() or b"")  # type: ignore[arg-type]  # what was consumed has an offset
    except ValueError as problem:
        raise FatalError(
            f"{message.topic()}/{message.partition()}: the record at offset {message.offset()} can not be read: {problem}",
            "does something else write to this topic, or was it written by a newer version of stream monitor?",
        ) from problem


def _no_time(_topic: str, _record: Record) -> int:
    return 0


def _last_time(client: Callable[[dict[str, Any]], Any], properties: Mapping[str, Any], place: Place, first: int, end: int) -> int | None:
    """The timestamp of the last committed record in [first, end), read by a consumer of its own."""
    reader = client({**properties, "auto.offset.reset": "earliest"})
    last: int | None = None
    try:
        reader.assign([TopicPartition(*place, first)])
        for message in messages_below(reader, place, end):
            last = message.timestamp()[1]
        return last
    finally:
        reader.close()


def records_below(reader: Any, place: Place, end: int) -> list[StateRecord]:
    """What a consumer that was assigned one partition reads of it below `end`."""
    return [StateRecord(m.key() or b"", m.value(), m.headers() or []) for m in messages_below(reader, place, end)]


def messages_below(reader: Any, place: Place, end: int) -> Iterator[Any]:
    """The same, as the client's messages."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        message = reader.poll(0.2)
        if message is None:
            continue  # behind an open transaction there is nothing until it is resolved, or has timed out
        error = message.error()
        if error is not None:
            if error.fatal():
                raise FatalError(f"kafka consumer: {error.str()}")
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise SetupError(f"kafka: {error.str()}", "grant this client the rights of ARCHITECTURE.md, Operations")
            if error.code() == KafkaError._PARTITION_EOF and message.offset() >= end:
                return
            continue
        if message.offset() < end:
            yield message
        if message.offset() + 1 >= end:
            return
        deadline = time.monotonic() + _PATIENCE
    raise FatalError(f"{place[0]}/{place[1]}: what lies below {end} could not be read within {_PATIENCE:.0f} s")


def on_a_thread(call: Callable[[], None]) -> Future[None]:
    """Makes a call on a thread of its own, which does not keep the process from ending."""
    future: Future[None] = Future()

    def work() -> None:
        try:
            call()
            future.set_result(None)
        except BaseException as failure:
            future.set_exception(failure)

    threading.Thread(target=work, name="commit", daemon=True).start()
    return future


class KafkaSink:
    """A transactional producer. One transaction at a time; `commit` makes outputs and offsets visible together.

    `beside` makes a call on another thread: a commit waits for the broker to have written all outputs, time in which the caller can work.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        transactional_id: str,
        log: Callable[[str], None],
        client: Callable[[dict[str, Any]], Any] = Producer,
        beside: Callable[[Callable[[], None]], Future[None]] = on_a_thread,
    ) -> None:
        self._log = log
        self._beside = beside
        settings = producer_properties(properties) | {"transactional.id": transactional_id}
        self._producer = client(settings | {"error_cb": lambda e: log(f"kafka: {e}")})
        # What is not committed by then the broker rolls back: to go on trying is to wait for nothing, a fresh process finds out at once.
        self._patience = min(_PATIENCE, int(settings["transaction.timeout.ms"]) / 1000)
        self.patience = self._patience + _MARGIN
        self._open = False
        self._under_way: Future[None] | None = None  # the last commit

    def start(self) -> None:
        """Fences older producers of the same transactional id and finishes what they left open."""
        _patiently(lambda: self._producer.init_transactions(CALL_TIMEOUT))

    def produce(self, records: Iterable[Out]) -> None:
        """Adds records to the transaction, which it opens if there is none."""
        if not self._open:
            _patiently(self._producer.begin_transaction)
            self._open = True
        produce = self._producer.produce
        try:
            for topic, partition, key, value, headers in records:
                while True:
                    try:
                        produce(topic, value, key, partition, None, None, 0, headers)  # by name, headers would cost as much as the rest
                        break
                    except BufferError:
                        self._producer.poll(0.05)
            self._producer.poll(0)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:  # what failed was told to the client's thread; to roll back is to find out
                raise Aborted(f"transaction aborted: it had failed before all was produced ({error.args[0].str()})") from error
            raise _failure(self._cause(error)) from error

    def _cause(self, error: KafkaException) -> KafkaException:
        """`produce` says that there was a fatal error, the next poll which."""
        if error.args[0].code() == KafkaError._FATAL:
            try:
                self._producer.poll(0)
            except KafkaException as cause:
                return cause
        return error

    def commit(self, offsets: Mapping[Place, int], metadata: Any) -> Future[None]:
        """Starts to commit the outputs and the input offsets (the next to be read), as the group member that `metadata` describes.

        Until it is done, nothing else may be asked of this sink. While brokers are away, the client may overlook the time-out it was
        given (confluentinc/librdkafka#5456), so whoever waits needs a bound of their own: after `patience`, the transaction has timed out.
        """
        self._under_way = self._beside(partial(self._commit, offsets, metadata))
        return self._under_way

    def _commit(self, offsets: Mapping[Place, int], metadata: Any) -> None:
        if not self._open:
            _patiently(self._producer.begin_transaction)
            self._open = True
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        deadline, most = time.monotonic() + self._patience, min(CALL_TIMEOUT, self._patience)
        _patiently(lambda: self._producer.send_offsets_to_transaction(places, metadata, most), self._patience)
        _patiently(lambda: self._producer.commit_transaction(most), deadline - time.monotonic())
        self._open = False

    def abort(self, seconds: float = CALL_TIMEOUT) -> None:
        """Rolls the transaction back, if there is one, within so many seconds."""
        if self._is_committing():  # the client refuses it, and calls that retriable
            raise FatalError("kafka: a commit has not come back", AGAIN)
        if self._open:
            patience = min(seconds, self._patience)
            _patiently(lambda: self._producer.abort_transaction(patience), patience)
            self._open = False

    def _is_committing(self) -> bool:
        return self._under_way is not None and not self._under_way.done()

    def close(self) -> None:
        """Lets go without waiting: what is not committed by now is rolled back, here or by the broker."""
        if self._is_committing():
            self._log("kafka producer left as it is: a commit has not come back")  # to close it would be to wait for that
            return
        try:
            self._producer.purge()
            self._producer.close()
        except KafkaException as error:  # a fenced producer says it once more; its failure has been raised already
            self._log(f"kafka producer closed: {error.args[0].str()}")


_TWIN = AGAIN + "; if this recurs, see that no two processes have one instance_id"
_PATIENCE = 120.0  # seconds for which retriable errors are tried again


def _patiently(call: Callable[[], Any], seconds: float = _PATIENCE) -> Any:
    """Calls until it works, while the client says that trying again may help."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except KafkaException as error:
            failure, cause = _failure(error), error.args[0]
            passing = not cause.fatal() and (cause.retriable() or cause.code() in _PASSING)
            if isinstance(failure, Aborted) or not passing:
                raise failure from error
            if time.monotonic() > deadline:
                raise FatalError(f"kafka: nothing came of it for {seconds:.0f} s: {cause.str()}", AGAIN) from error
            time.sleep(0.05)


# What passes while brokers come and go; outside the transactional calls the client itself calls nothing retriable.
_PASSING = frozenset(
    (
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._DESTROY_BROKER,
        KafkaError._WAIT_COORD,
        KafkaError._UNKNOWN_PARTITION,  # questions about offsets fail so at random (confluentinc/confluent-kafka-python#1043)
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    )
)
_UNKNOWN = frozenset((KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.LEADER_NOT_AVAILABLE))
_FENCED = frozenset((KafkaError._FENCED, KafkaError.FENCED_INSTANCE_ID, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED))


def _failure(error: KafkaException) -> Exception:
    cause = error.args[0]
    if cause.txn_requires_abort() and cause.code() != KafkaError.FENCED_INSTANCE_ID:  # a twin's group membership does not come back
        return Aborted(f"transaction aborted: {cause.str()}")
    if cause.code() in _FENCED:
        return FatalError(f"fenced: another process has taken over, or a transaction was open for too long ({cause.name()})", _TWIN)
    return FatalError(f"kafka: {cause.str()}", AGAIN)
