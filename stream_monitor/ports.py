"""What the loop (live.py) and the stages see of the world: values and protocols, no client library.

The edges in io/ implement these for Kafka and Redis, the simulator in tests/simulation for an adversary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from stream_monitor.core.joining import Applied, Behind, Call
from stream_monitor.core.records import Record
from stream_monitor.core.snapshots import StateRecord

Place = tuple[str, int]
"""A topic and a partition."""


Unpack = Callable[[int, int, bytes | None, bytes], list[Record]]
"""Offset, append time (ms), key and value of a Kafka record -> the records it carries. Raises ValueError where it can not be read."""


class Chunk(NamedTuple):
    """Consecutive records of one partition: all that lies in [start, end), transaction markers left out.

    `runs`, as (time, number of records), say how they lie in time beside the other partitions' (core/alignment.py).
    """

    place: Place
    start: int
    end: int
    records: list[Record]
    runs: Sequence[tuple[int, int]] = ()


class Out(NamedTuple):
    """A record to produce. `headers` None means none, which is cheaper than an empty list."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


class Aborted(Exception):  # noqa: N818  # not an error: the way back
    """The transaction must be rolled back and its input read again."""


class Listener(Protocol):
    """Who is told of a rebalance, before the group goes on."""

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Partitions that are ours now; answers where to read each from."""

    def revoked(self, places: Sequence[Place]) -> None:
        """Partitions that are ours no longer."""


class Log(Protocol):
    """Questions about the log that a stage may ask when it finds its place."""

    def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset that is still held, and the one after the last."""

    def offset_at(self, place: Place, when: int) -> int | None:
        """The first offset with an append time >= `when` (ms), None where there is none."""

    def time_at(self, place: Place, offset: int) -> int | None:
        """The append time of the record at `offset`, or of the last one before it; None where the log is empty."""

    def committed(self, places: Sequence[Place]) -> dict[Place, int | None]:
        """The group's committed offsets, after earlier transactions are resolved; None where there is none."""

    def end(self, place: Place) -> int:
        """The offset after the last of any partition, open transactions included (`bounds` of committed records ends before these)."""

    def read(self, place: Place, first: int, end: int) -> list[StateRecord]:
        """The committed records of any partition in [first, end), once every transaction in there is resolved."""


class Source(Log, Protocol):
    """A member of a consumer group."""

    metadata: Any

    def poll(self, most: int, timeout: float) -> list[Chunk]: ...
    def seek(self, place: Place, offset: int) -> None: ...
    def owned(self) -> list[Place]: ...
    def position(self, place: Place) -> int | None: ...
    def partitions(self, topic: str) -> int: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """A producer of transactions. `patience`: seconds after which a commit that is still under way will never be done."""

    patience: float

    def produce(self, records: Iterable[Out]) -> None: ...
    def commit(self, offsets: Mapping[Place, int], metadata: Any) -> Future[None]:
        """Starts the commit; nothing else may be asked of the sink until it is done. Fails as `produce` and `abort` raise."""

    def abort(self, seconds: float = ...) -> None: ...
    def close(self) -> None: ...


class Status(NamedTuple):
    """What a bucket of the store says of itself; `at` is None where it has no state."""

    at: int | None
    trim: int
    epoch: str


class Store(Protocol):
    """The join's state (core.joining.Fold says what it does)."""

    def submit(self, calls: Sequence[Call]) -> Future[list[Applied | Behind]]: ...
    def status(self, bucket: int) -> Status: ...
    def forget(self, bucket: int) -> None: ...
