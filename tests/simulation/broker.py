"""Kafka's side of the wire: partitions with transaction markers, transactional ids with epochs, transactions that time out.

What it must get right is what the proof leans on: markers and aborted records leave holes in the offsets; a reader of
committed records sees nothing at or above the last stable offset; offsets in an open transaction are pending, and who asks
for them has to wait; an older producer of a transactional id is fenced; retention takes records from the head of a log. What it took
stays in `entries`, so that `check` can judge all that ever was; clients see what lies from `low` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_monitor.ports import Place
from tests.simulation.scheduler import Scheduler

Headers = list[tuple[str, bytes]] | None


@dataclass(eq=False, slots=True)
class Transaction:
    """Everything that one commit makes visible at once. `moved`: the offsets that it did commit, from where to where."""

    since: int
    state: str = "open"
    parts: list[Partition] = field(default_factory=list)
    offsets: list[tuple[str, Place, int]] = field(default_factory=list)
    moved: list[tuple[Place, int, int]] = field(default_factory=list)


class Entry(NamedTuple):
    """One offset of a log: a record, or a transaction marker (key and value None, `marker` True)."""

    time: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    transaction: Transaction | None
    marker: bool

    @property
    def visible(self) -> bool:
        return not self.marker and (self.transaction is None or self.transaction.state == "committed")


class Partition:
    """A log. Offsets are positions in `entries`."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.low = 0
        self.open: dict[Transaction, int] = {}

    def stable(self) -> int:
        """The last stable offset."""
        return next(iter(self.open.values()), len(self.entries))  # the first to have been opened is the lowest

    def visible(self) -> Iterator[tuple[int, Entry]]:
        return ((offset, entry) for offset, entry in enumerate(self.entries) if entry.visible)


@dataclass(slots=True)
class Producing:
    """What the coordinator knows of a transactional id."""

    epoch: int = 0
    transaction: Transaction | None = None


class Broker:
    """Topics, transactions and committed offsets. `log_time` is the clock of the logs."""

    def __init__(self, scheduler: Scheduler, timeout: int) -> None:
        self.scheduler = scheduler
        self.timeout = timeout
        self.log_skew = 0
        self.topics: dict[str, list[Partition]] = {}
        self.producers: dict[str, Producing] = {}
        self.committed: dict[tuple[str, Place], int] = {}
        self.delayed: list[tuple[int, Producing, int, Transaction]] = []  # commits that are still on their way

    def create(self, topic: str, partitions: int) -> None:
        self.topics[topic] = [Partition() for _ in range(partitions)]

    def partition(self, place: Place) -> Partition:
        return self.topics[place[0]][place[1]]

    def append(
        self, place: Place, key: bytes | None, value: bytes | None, headers: Headers = None, within: Transaction | None = None
    ) -> None:
        partition = self.partition(place)
        if within is not None and within not in partition.open:
            partition.open[within] = len(partition.entries)
            within.parts.append(partition)
        partition.entries.append(Entry(self.log_time(), key, value, headers, within, False))

    def log_time(self) -> int:
        return 1_000_000 + self.scheduler.now + self.log_skew

    def end(self, producing: Producing, commit: bool) -> None:
        """Commits or aborts the open transaction of a transactional id."""
        transaction = producing.transaction
        producing.transaction = None
        if transaction is None:
            return
        transaction.state = "committed" if commit else "aborted"
        for partition in transaction.parts:
            del partition.open[transaction]
            partition.entries.append(Entry(self.log_time(), None, None, None, transaction, True))
        if commit:
            for group, place, offset in transaction.offsets:
                transaction.moved.append((place, self.committed.get((group, place), 0), offset))
                self.committed[group, place] = offset

    def pending(self, group: str, place: Place) -> bool:
        """Whether an open transaction would move this offset."""
        return any(
            p.transaction is not None and any((g, at) == (group, place) for g, at, _ in p.transaction.offsets)
            for p in self.producers.values()
        )

    def tick(self) -> None:
        """Transactions time out, which fences their producer; delayed commits arrive."""
        now = self.scheduler.now
        for name, producing in self.producers.items():
            if producing.transaction is not None and now - producing.transaction.since > self.timeout:
                self.scheduler.note(f"the transaction of {name} timed out")
                producing.epoch += 1
                self.end(producing, commit=False)
        for item in [item for item in self.delayed if item[0] <= now]:
            self.delayed.remove(item)
            _, producing, epoch, transaction = item
            if producing.epoch == epoch and producing.transaction is transaction:
                self.scheduler.note("a delayed commit arrived")
                self.end(producing, commit=True)

    def open(self) -> bool:
        return any(p.transaction is not None for p in self.producers.values())
