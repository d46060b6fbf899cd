"""The detect stage: observations -> alerts. The state is in memory; its cached prefix is the newest snapshot in the state topic.

    start    snapshot at X --> outcomes that wait put back, from `refill_from` to X --> silent replay from X to the committed offset
    or else  fresh state --> silent replay from the start of the log to the committed offset --> alerts that fire carried over

What it answered and is not committed yet is in an outbox. A snapshot is cut only where the state stands exactly at the offset that the
transaction commits, and lies in that transaction: it never leads the committed offset, and a transaction that is rolled back has
written none. When one is cut is a matter of operation and changes no alert.

A snapshot is of no use where it was made under other settings or in another format, is damaged, or lies beyond the committed
offset (the offsets were moved). Then what fires for the readers of the alert topic is read from the state topic and reconciled with the
state that was built anew (core.monitor.Monitor.carry_over). Where the log no longer holds what is needed, the state goes on with
what is retained. All of this is said in the log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from stream_monitor.core import snapshots
from stream_monitor.core.events import Alert
from stream_monitor.core.hashing import partition_of
from stream_monitor.core.publishing import publish
from stream_monitor.core.records import Record, by_offset
from stream_monitor.core.snapshots import Snapshot, StateRecord
from stream_monitor.ports import Chunk, Log, Out, Place
from stream_monitor.stages import count, start_of

_NEVER = 1 << 63  # an offset that no snapshot reaches
_REACH = 64  # records of the state topic that are looked at first for the newest snapshot
_SHARE = 20  # a snapshot may take one part in so many of the time


class Monitor(Protocol):
    """What the stage needs of a partition's detectors (core.monitor.Monitor)."""

    at: int

    def step(self, offset: int, value: bytes) -> Sequence[Alert]: ...
    def refill(self, offset: int, value: bytes) -> None: ...
    def snapshot(self, waiting: bool = True) -> dict[str, Any]: ...
    def carry_over(self, firing: Iterable[Alert], offset: int) -> Sequence[Alert]: ...


class Monitors(NamedTuple):
    """How monitors are made, of a topic and a partition. `digest`: of the settings that decide alerts."""

    digest: str
    fresh: Callable[[str, int], Monitor]
    restored: Callable[[str, int, dict[str, Any]], Monitor]


@dataclass(slots=True)
class _Held:
    """A partition's state, and how far it is known outside this process."""

    monitor: Monitor
    committed: int
    due: float  # when the next snapshot is to be cut, by the stage's clock
    saved: int  # the offset of the newest snapshot, or where a state that has none began
    chunks: int  # of what stands on the state topic
    refilled: int = 0  # the outcomes that waited are put back up to here ...
    restored: int = 0  # ... and are to be up to here
    firing: list[Alert] = field(default_factory=list)  # to be carried over at `joint`
    joint: int = 0
    outbox: deque[tuple[int, Out]] = field(default_factory=deque)
    cut: tuple[int, int, float] | None = None  # a snapshot that is not committed yet: offset, chunks, when the next is due

    @property
    def position(self) -> int:
        """What it has to be given next."""
        return self.refilled if self.refilled < self.restored else self.monitor.at


class Detect:
    """observations -> alerts. `snapshot_s`, `clock`: seconds between two snapshots of a partition, and what counts them."""

    name = "detect"
    depth = 1
    time_of = None  # partitions share nothing
    unpack = None

    def __init__(
        self,
        observations: str,
        alerts: str,
        alert_partitions: int,
        state: str,
        monitors: Monitors,
        snapshot_s: float,
        clock: Callable[[], float],
        log: Callable[[str], None],
        state_partitions: int = 1 << 31,
    ) -> None:
        self.topics = (observations,)
        self.counters: dict[str, int] = {}
        self._alerts = alerts
        self._partitions = alert_partitions
        self._state = state
        self._homes = state_partitions  # a partition that is added while we run has none, and nothing of ours in it
        self._monitors = monitors
        self._snapshot_s = snapshot_s
        self._clock = clock
        self._log = log
        self._held: dict[Place, _Held] = {}
        self._away: dict[Place, _Held] = {}  # taken from us in the present rebalance, perhaps only to be given back

    # -- the fold ---------------------------------------------------------------------------------------------------

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> tuple[Sequence[Chunk], Mapping[Place, int]]:
        self._away.clear()
        return chunks, {chunk.place: committed[chunk.place] for chunk in chunks}

    def ready(self, ticket: tuple[Sequence[Chunk], Mapping[Place, int]], seconds: float) -> bool:  # noqa: ARG002
        return True

    def finish(self, ticket: tuple[Sequence[Chunk], Mapping[Place, int]]) -> list[Out]:
        out: list[Out] = []
        for place, start, end, records, _ in ticket[0]:
            held, committed = self._held[place], ticket[1][place]
            at = held.monitor.at
            out += [record for offset, record in held.outbox if max(start, committed) <= offset < min(end, at)]
            split = 0
            if held.firing and end > held.joint:
                split = bisect_left(records, held.joint, key=by_offset)
                self._apply(place, held, records[:split], committed, out)
                for alert in held.monitor.carry_over(held.firing, held.joint):
                    self._publish(place, held, held.joint, alert, out)
                held.firing = []
            self._apply(place, held, records[split:] if split else records, committed, out)
            held.monitor.at = max(held.monitor.at, end)
            held.refilled = max(held.refilled, min(end, held.restored))
            count(self.counters, "observations", len(records) - bisect_left(records, committed, key=by_offset))
            if at < committed:
                behind = bisect_left(records, at, key=by_offset)
                count(self.counters, "refilled", behind)
                count(self.counters, "replayed", bisect_left(records, committed, key=by_offset) - behind)
        for record in out:  # those from the outbox too: the transaction they were counted in was rolled back
            if record.topic == self._alerts:
                count(self.counters, _status(record))
        return out

    def _apply(self, place: Place, held: _Held, records: Sequence[Record], committed: int, out: list[Out]) -> None:
        monitor = held.monitor
        at, step = monitor.at, monitor.step
        for record in records:
            offset, value = record.offset, record.value
            if offset < at:
                if held.refilled <= offset < held.restored:
                    monitor.refill(offset, value or b"")
                continue
            alerts = step(offset, value or b"")
            if alerts and offset >= committed:
                for alert in alerts:
                    self._publish(place, held, offset, alert, out)

    def _publish(self, place: Place, held: _Held, offset: int, alert: Alert, out: list[Out]) -> None:
        key, body, headers = publish(alert)
        published = Out(self._alerts, partition_of(key, self._partitions), key, body, headers)
        kept = [self._kept(place, snapshots.firing(place, alert, self._monitors.digest))] if place[1] < self._homes else []
        for record in (published, *kept):
            held.outbox.append((offset, record))
            out.append(record)

    # -- snapshots --------------------------------------------------------------------------------------------------

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:
        """The snapshot that is most overdue, so that several do not add up to a long pause; at the end those of all partitions."""
        now = self._clock()
        ready = [(held.due, place) for place, at in reached.items() if self._is_ready(held := self._held[place], at, now, last)]
        out: list[Out] = []
        for _, place in sorted(ready)[: None if last else 1]:
            out += self._cut(place, self._held[place])
        return out

    def _is_ready(self, held: _Held, reached: int, now: float, last: bool) -> bool:
        # After an abort the state is ahead of what is committed next: such a snapshot would lead the offset.
        whole = held.monitor.at == reached and held.refilled >= held.restored and not held.firing
        return whole and reached > held.saved and (last or now >= held.due)

    def _cut(self, place: Place, held: _Held) -> list[Out]:
        began = self._clock()
        at = held.monitor.at
        records = snapshots.cut(place, Snapshot(at, self._monitors.digest, held.monitor.snapshot(waiting=False)), held.chunks)
        now = self._clock()
        chunks = sum(record.value is not None for record in records)
        held.cut = at, chunks, now + max(self._snapshot_s, _SHARE * (now - began))
        held.chunks = max(held.chunks, chunks)
        count(self.counters, "snapshots")
        count(self.counters, "snapshot_bytes", sum(len(record.value or b"") for record in records))
        count(self.counters, "snapshot_ms", round(1000 * (now - began)))
        return [self._kept(place, record) for record in records]

    def trim(self, place: Place, committed: int) -> None:
        held = self._held.get(place)
        if held is None:
            return
        held.committed = committed
        while held.outbox and held.outbox[0][0] < committed:
            held.outbox.popleft()
        if held.cut is not None:
            held.saved, held.chunks, held.due = held.cut
            held.cut = None

    def _kept(self, place: Place, record: StateRecord) -> Out:
        """A record of the state topic, whose partitions are those of the observations."""
        return Out(self._state, place[1], record.key, record.value, record.headers)

    # -- finding the place ------------------------------------------------------------------------------------------

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        commit = start_of(place, committed, log)
        ours = self._held.get(place)
        held = ours or self._taken_back(place, commit)
        low = log.bounds(place)[0]
        if place[1] >= self._homes:
            held = held if held is not None and held.position >= low else self._homeless(place, commit, low)
            held.committed = commit
        # Where the offset was moved by somebody else, their settings may have been others than ours, and what they told too.
        if held is None or held.position < low or commit != held.committed:
            commit, held = self._load(place, commit, log)
        elif ours is None and place[1] < self._homes:  # nobody has moved the offset, but somebody may have written a snapshot
            held.chunks = snapshots.chunks(place, self._newest(place, log))
        self._held[place] = held
        held.cut = None  # whatever was under way is rolled back
        self.trim(place, commit)
        return min(held.position, commit), commit

    def _homeless(self, place: Place, commit: int, low: int) -> _Held:
        self._say(place, f"there is no such partition of {self._state}; state from the log, from offset {low}")
        monitor = self._monitors.fresh(*place)
        monitor.at = low
        return _Held(monitor, commit, self._clock(), _NEVER, 0)

    def revoked(self, place: Place) -> None:
        held = self._held.pop(place, None)
        if held is not None:
            self._away[place] = held

    def _taken_back(self, place: Place, commit: int) -> _Held | None:
        """An eager group takes all partitions away before it gives most of them back: what nobody moved since is still ours."""
        held = self._away.pop(place, None)
        return held if held is not None and held.committed == commit else None

    def _load(self, place: Place, commit: int, log: Log) -> tuple[int, _Held]:
        """The state from the newest snapshot, or from the start of the log; and the committed offset, which is asked for again at need."""
        while True:
            records = self._newest(place, log)
            snapshot, trouble = _assembled(place, records)
            if snapshot is None or snapshot.offset <= commit:
                break
            # Another worker has moved both while we were looking, and may be moving them still: what it told is read after the offset.
            asked, commit = commit, start_of(place, log.committed([place])[place], log)
            if commit == asked:
                break
        chunks = snapshots.chunks(place, records)
        if snapshot is not None:
            held, trouble = self._take_up(place, commit, snapshot, chunks, records, log)
            if held is not None:
                return commit, held
        return commit, self._rebuild(place, commit, trouble, chunks, log)

    def _take_up(
        self, place: Place, commit: int, snapshot: Snapshot, chunks: int, records: Sequence[StateRecord], log: Log
    ) -> tuple[_Held | None, str]:
        """The state of a snapshot, or why it can not be used."""
        at, low = snapshot.offset, log.bounds(place)[0]
        if at > commit:
            return None, f"the snapshot of offset {at} lies beyond the committed offset"
        if snapshot.digest != self._monitors.digest:
            return None, f"the snapshot of offset {at} was made under other settings"
        try:
            monitor = self._monitors.restored(*place, snapshot.state)
            refill = at if snapshot.state["refill_from"] is None else int(snapshot.state["refill_from"])
        except Exception as why:  # whatever the data did to the code that reads it: the log can replace it
            return None, f"the snapshot of offset {at} can not be used: {type(why).__name__}: {why}"
        said = f"state from the snapshot of offset {at}"
        if refill < at:
            said += f", outcomes that wait from {refill} on"
        if refill < low:
            said += f"; those below {low} are no longer held"
        if at < low:
            said += f"; {low - at} offsets behind it are no longer held and missing from the state"
        self._say(place, f"{said}; silent up to the committed {commit}")
        monitor.at = max(at, low)
        held = _Held(monitor, commit, self._clock() + self._snapshot_s, at, chunks, min(max(refill, low), at), at, joint=commit)
        # How alerts began and ended may be missing from it.
        if refill < low or snapshots.others_told(place, records, self._monitors.digest):
            held.firing = self._firing(place, log)
        return held, ""

    def _rebuild(self, place: Place, commit: int, trouble: str, chunks: int, log: Log) -> _Held:
        low = log.bounds(place)[0]
        alerts = self._firing(place, log)
        if commit > 0 or chunks or alerts:
            missing = f"; what lay below {low} is no longer held and missing from it" if low > 0 else ""
            carried = f"; {len(alerts)} alerts that fire are carried over" if alerts else ""
            self._say(place, f"{trouble}; state from the log, from offset {low}, silent up to the committed {commit}{missing}{carried}")
        monitor = self._monitors.fresh(*place)
        monitor.at = low
        return _Held(monitor, commit, self._clock(), low, chunks, firing=alerts, joint=commit)

    def _firing(self, place: Place, log: Log) -> list[Alert]:
        """What readers of the alert topic hold for firing, whatever state it came from."""
        home = self._state, place[1]
        (first, settled), end = log.bounds(home), log.end(home)
        if settled < end:
            self._say(place, f"waiting for an open transaction on {self._state} to be resolved, or to time out")
        alerts, unreadable = snapshots.alerts(place, log.read(home, first, end))
        for key in unreadable:
            self._say(place, f"what {key} says of an alert that fires can not be read; its end may never be told")
        return alerts

    def _newest(self, place: Place, log: Log) -> list[StateRecord]:
        """The end of the state topic's partition, as far back as the newest snapshot; all of it where there is none."""
        home = self._state, place[1]
        low, high = log.bounds(home)
        reach = _REACH
        while True:
            first = max(low, high - reach)
            records = log.read(home, first, high)
            if first == low or snapshots.begins(place, records):
                return records
            reach *= 16

    def _say(self, place: Place, what: str) -> None:
        self._log(f"detect: {place[0]}/{place[1]}: {what}")


def _assembled(place: Place, records: Sequence[StateRecord]) -> tuple[Snapshot | None, str]:
    """The newest snapshot, or why there is none."""
    try:
        return snapshots.assemble(place, records), "there is no snapshot"
    except ValueError as why:
        return None, f"the snapshot can not be used: {why}"


def _status(alert: Out) -> str:
    """firing, resolved ..., by the event type."""
    kind = next(value for name, value in alert.headers or [] if name == "ce_type")
    return kind.decode().rpartition(".")[2]
