"""confluent_kafka's Consumer and Producer, as far as io.kafka uses them, over the simulated broker.

Errors are the client's own: `txn_requires_abort` for what a new transaction repairs, `fatal` for a fenced producer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, TopicPartition

from stream_monitor.ports import Place
from tests.simulation.broker import Broker, Headers, Producing, Transaction
from tests.simulation.group import Group
from tests.simulation.scheduler import Actor, Scheduler, Violation


def _abortable(code: int, why: str) -> KafkaException:
    return KafkaException(KafkaError(code, why, False, False, True))


def _fatal(code: int, why: str) -> KafkaException:
    return KafkaException(KafkaError(code, why, True, False, False))


class Message:
    """A record, or the end of a partition, as the client hands it out."""

    __slots__ = ("_error", "_headers", "_key", "_offset", "_place", "_time", "_value")

    def __init__(
        self, place: Place, offset: int, time: int, key: bytes | None, value: bytes | None, headers: Headers = None, error: Any = None
    ) -> None:
        self._place, self._offset, self._time, self._key, self._value, self._error = place, offset, time, key, value, error
        self._headers = headers

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, self._time

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers:
        return self._headers

    def error(self) -> Any:
        return self._error


_EOF = KafkaError(KafkaError._PARTITION_EOF)
_OUTSIDE = KafkaError(KafkaError._AUTO_OFFSET_RESET, "fetch failed due to requested offset not available on the broker")


class Metadata(NamedTuple):
    """Who commits; opaque to the program."""

    group: Group
    member: str
    generation: int


class Consumer:
    """A member of a group, or with `assign` alone a plain reader. `instance`: its name as a static member of the group, or ""."""

    def __init__(self, broker: Broker, group: Group, actor: Actor, properties: Mapping[str, Any], instance: str = "") -> None:
        self._uncommitted = properties["isolation.level"] == "read_uncommitted"  # told the ends of open transactions
        self._from_start = properties["auto.offset.reset"] == "earliest"
        self._instance = instance
        self.generation = -1
        self.beat = self.polled = broker.scheduler.now
        self.positions: dict[Place, int] = {}
        self.dead = False
        self.calling = False  # while the application's callback runs, the client does not join again
        self._broker, self._group, self._actor = broker, group, actor
        self._scheduler: Scheduler = broker.scheduler
        self._ends: dict[Place, int] = {}  # partitions whose end was told, and where
        self._stalled: set[Place] = set()  # those that stand outside of the log: not read, nor to be sought, until they are assigned anew
        self._member = ""
        self._on_assign: Callable[[Any, list[TopicPartition]], None]
        self._on_revoke: Callable[[Any, list[TopicPartition]], None]

    def beating(self) -> bool:
        """Whether the client's background thread shows the coordinator that it lives."""
        return not self.dead and self._actor.process.asleep_until <= self._scheduler.now

    # -- the group ------------------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._member = self._group.enter(self, self._instance)

    def consumer_group_metadata(self) -> Any:
        """As in the real client, whose background thread forgets the member's name as soon as it hears that it is out."""
        self._scheduler.pause("ask for the group's metadata")
        member, generation = (self._member, self.generation) if self._group.knows(self._member) else ("", -1)
        return Metadata(self._group, member, generation)

    def memberid(self) -> str:
        return self._member if self._group.knows(self._member) else ""

    def consume(self, most: int, timeout: float) -> list[Message]:
        self._scheduler.pause("poll")
        self.beat = self.polled = self._scheduler.now
        out: list[Message] = []
        if self._due():
            if self._scheduler.random.random() < 0.5:  # fetched before the news, in the queue ahead of it
                out = self._read(most)
            self._rebalance()
            if self._scheduler.random.random() < 0.7:
                return out
        return out + self._read(most - len(out))

    def _due(self) -> bool:
        member = self._group.members.get(self._member)
        return member is None or member.target is not None or (self._group.preparing_since is not None and not member.joined)

    def _rebalance(self) -> None:
        self.calling = True
        try:
            self._call()
        finally:
            self.calling = False

    def _call(self) -> None:
        group, member = self._group, self._group.members.get(self._member)
        if member is None:
            self._scheduler.note("lost its membership")
            self.generation = -1
            self._give_up(frozenset(self.positions))
            self._member = group.enter(self, self._instance)
        elif member.target is not None:
            target, member.target = member.target, None
            lost = frozenset(self.positions) - target
            if group.cooperative and lost:
                self._give_up(lost)
                if group.knows(self._member):
                    group.prepare()
                    group.join(self._member, frozenset(self.positions))
            else:
                new = sorted(target - frozenset(self.positions))
                self._scheduler.note(f"assigned {new}")
                self._on_assign(self, [TopicPartition(*place) for place in new])
        elif group.cooperative:
            group.join(self._member, frozenset(self.positions))
        else:
            self._give_up(frozenset(self.positions))
            if group.knows(self._member):
                group.join(self._member, frozenset())

    def _give_up(self, places: frozenset[Place]) -> None:
        self._scheduler.note(f"gives up {sorted(places)}")
        self._on_revoke(self, [TopicPartition(*place) for place in sorted(places)])

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.positions = {(tp.topic, tp.partition): tp.offset for tp in partitions}
        self._ends.clear()
        self._stalled.clear()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._stalled.discard((tp.topic, tp.partition))
            self.seek(tp)

    def unassign(self) -> None:
        self.positions.clear()

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self.positions.pop((tp.topic, tp.partition), None)

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*place) for place in self.positions]

    def close(self) -> None:
        if self._member and self._group.knows(self._member):
            self._give_up(frozenset(self.positions))
            if not self._instance:
                self._group.leave(self._member, "closed")
        self.dead = True

    # -- the log --------------------------------------------------------------------------------------------------------

    def _read(self, most: int) -> list[Message]:
        out: list[Message] = []
        places = list(self.positions)
        if len(places) > 1:
            self._scheduler.random.shuffle(places)
        for place in places:
            partition = self._broker.partition(place)
            stable, entries, at = partition.stable(), partition.entries, self.positions[place]
            if at == stable == self._ends.get(place):
                continue  # nothing new, as most often
            if place in self._stalled:
                continue
            if at < partition.low and not self._from_start:
                self._stalled.add(place)
                out.append(Message(place, at, 0, None, None, None, _OUTSIDE))
                continue
            at = max(at, partition.low)
            while at < stable and len(out) < most:
                entry = entries[at]
                if entry.visible:
                    out.append(Message(place, at, entry.time, entry.key, entry.value, entry.headers))
                at += 1
            self.positions[place] = at
            if at == stable and self._ends.get(place) != at and len(out) < most:
                self._ends[place] = at
                out.append(Message(place, at, 0, None, None, None, _EOF))
        return out

    def poll(self, timeout: float) -> Message | None:
        found = self._read(1)
        if not found:
            self._scheduler.pause("wait for records")
        return found[0] if found else None

    def seek(self, to: TopicPartition) -> None:
        if (to.topic, to.partition) in self._stalled:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.positions[to.topic, to.partition] = to.offset
        self._ends.pop((to.topic, to.partition), None)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._scheduler.pause("ask for committed offsets")
        name = self._group.name
        while any(self._broker.pending(name, (tp.topic, tp.partition)) for tp in partitions):
            self._scheduler.pause("wait for pending offsets")
        found = [
            TopicPartition(tp.topic, tp.partition, self._broker.committed.get((name, (tp.topic, tp.partition)), -1001)) for tp in partitions
        ]
        self._scheduler.pause("heard of committed offsets")
        return found

    def get_watermark_offsets(self, at: TopicPartition, timeout: float) -> tuple[int, int]:
        self._scheduler.pause("ask for the ends of a log")
        partition = self._broker.partition((at.topic, at.partition))
        found = partition.low, len(partition.entries) if self._uncommitted else partition.stable()
        self._scheduler.pause("heard of the ends of a log")
        return found

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._scheduler.pause("ask for the offset of a time")
        found = []
        for tp in asked:
            partition = self._broker.partition((tp.topic, tp.partition))
            stable = partition.stable()
            offset = next((o for o in range(partition.low, stable) if partition.entries[o].time >= tp.offset), -1)
            found.append(TopicPartition(tp.topic, tp.partition, offset))
        return found


class Producer:
    """A transactional producer. What was produced reaches the broker some time before the commit. `transactions`: all that it began."""

    def __init__(self, broker: Broker, name: str, trouble: Callable[[str], bool]) -> None:
        self.transactions: list[Transaction] = []
        self._broker, self._name, self._trouble = broker, name, trouble
        self._scheduler = broker.scheduler
        self._epoch = -1
        self._buffer: list[tuple[Place, bytes | None, bytes | None, Headers]] = []
        self._busy = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of a transaction's calls the client makes one at a time, and refuses the others."""
        if self._busy:
            raise Violation("a producer was asked for something while a call was under way")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def init_transactions(self, timeout: float) -> None:
        self._scheduler.pause("begin to produce")
        producing = self._broker.producers.setdefault(self._name, Producing())
        producing.epoch += 1
        self._epoch = producing.epoch
        self._broker.end(producing, commit=False)

    def begin_transaction(self) -> None:
        with self._alone():
            self._buffer = []

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, _told: None, _also: None, _time: int, headers: Headers
    ) -> None:
        with self._alone():
            pass
        if self._trouble("abort"):
            raise _abortable(KafkaError._TIMED_OUT, "earlier records could not be produced in time")
        self._buffer.append(((topic, partition), key, value, headers))

    def poll(self, timeout: float) -> int:
        if self._scheduler.random.random() < 0.5:
            self._send()
        self._scheduler.pause("produced")
        return 0

    def send_offsets_to_transaction(self, places: list[TopicPartition], metadata: Metadata, timeout: float) -> None:
        with self._alone():
            self._scheduler.pause("send offsets")
            if self._trouble("hang"):
                self._scheduler.note("the client waits for ever")
                self._scheduler.wait(lambda: False)
            self._flush()
            group, member, generation = metadata
            if member:  # like the real coordinator, which lets pass who claims no membership
                if not group.knows(member):
                    raise _abortable(KafkaError.UNKNOWN_MEMBER_ID, "unknown member")
                if generation != group.generation:
                    raise _abortable(KafkaError.ILLEGAL_GENERATION, "old generation")
            if self._trouble("abort"):
                raise _abortable(KafkaError.COORDINATOR_NOT_AVAILABLE, "the offsets could not be sent")
            transaction = self._transaction()
            transaction.offsets += [(group.name, (tp.topic, tp.partition), tp.offset) for tp in places]
            self._scheduler.note(f"offsets {[(tp.topic, tp.partition, tp.offset) for tp in places]} as {metadata[1:]}")
            self._scheduler.pause("offsets sent")

    def commit_transaction(self, timeout: float) -> None:
        with self._alone():
            self._scheduler.pause("commit")
            self._flush()
            producing = self._current()
            if self._trouble("unknown"):
                fate = self._scheduler.random.choice(("done", "never", "later"))
                self._scheduler.note(f"the outcome of the commit is unknown: {fate}")
                if fate == "done":
                    self._broker.end(producing, commit=True)
                elif fate == "later" and producing.transaction is not None:
                    due = self._scheduler.now + self._scheduler.random.randrange(200)
                    self._broker.delayed.append((due, producing, self._epoch, producing.transaction))
                if self._scheduler.random.random() < 0.5:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer to the commit", False, True, False))
                raise _fatal(KafkaError._FATAL, "the outcome of the commit is unknown")
            self._broker.end(producing, commit=True)
            self._scheduler.note("committed")
            self._scheduler.pause("committed")

    def abort_transaction(self, timeout: float) -> None:
        with self._alone():
            self._scheduler.pause("abort")
            self._buffer = []
            self._broker.end(self._current(), commit=False)
            self._scheduler.pause("aborted")

    def purge(self) -> None:
        self._buffer = []

    def close(self) -> None:
        pass

    def _current(self) -> Producing:
        producing = self._broker.producers[self._name]
        if producing.epoch != self._epoch:
            raise _fatal(KafkaError._FENCED, "fenced")
        return producing

    def _transaction(self) -> Transaction:
        producing = self._current()
        if producing.transaction is None:
            producing.transaction = Transaction(self._scheduler.now)
            self.transactions.append(producing.transaction)
        return producing.transaction

    def _send(self) -> None:
        """In the background: a fenced producer hears of it at the next call that can fail."""
        if self._broker.producers[self._name].epoch == self._epoch:
            self._flush()

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        transaction = self._transaction()
        for place, key, value, headers in buffer:
            self._broker.append(place, key, value, headers, transaction)
