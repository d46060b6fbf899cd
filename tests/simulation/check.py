"""What must hold at the end of a run: each log is the plain fold of the one before it, and the counters add up.

The observations are those of the plain join (tests/support/plain.py), which shares no line with the one that is judged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from stream_monitor.core.codec import FEEDBACK, PREDICTION, Accepted, Codec
from stream_monitor.core.frames import unframe
from stream_monitor.core.hashing import partition_of
from stream_monitor.core.joining import Fold
from stream_monitor.core.publishing import publish
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings
from stream_monitor.core.snapshots import Snapshot, StateRecord, alerts, assemble, key_of
from stream_monitor.ports import Place
from tests.simulation.broker import Entry, Transaction
from tests.simulation.monitor import CountingMonitor
from tests.simulation.scheduler import Violation
from tests.support.plain import Joined, Observation, as_observation, plain_join

if TYPE_CHECKING:
    from tests.simulation.world import World


def check(world: World) -> None:
    """Raises Violation."""
    _journal(world)
    _observations(world)
    if world.changes_settings != "decisions":
        _alerts(world)
    _life_cycles(world)
    _state(world)
    _store(world)
    _counters(world)


def _records(world: World, topic: str, partition: int) -> list[Record]:
    log = world.broker.topics[topic][partition]
    if topic == "journal":
        return [event for offset, e in log.visible() for event in unframe(offset, e.time, e.key, e.value or b"")]
    return [Record(offset, e.time, e.key or b"", e.value or b"") for offset, e in log.visible()]


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Violation(f"{what}:\n  found    {found}\n  expected {expected}")


def _journal(world: World) -> None:
    codec = Codec(EventSettings())
    expected: Counter[bytes] = Counter()
    dead: Counter[bytes] = Counter()
    for topic, decode in (("predictions", codec.prediction), ("feedback", codec.feedback)):
        for partition in range(world.partitions[topic]):
            for record in _records(world, topic, partition):
                offset, time, value = record.offset, record.time, record.value
                if ((topic, partition), offset) in world.skipped:
                    continue
                event = decode(value, time)
                if isinstance(event, Accepted):
                    expected[event.value] += 1
                else:
                    dead[value] += 1
    found = Counter(r.value for p in range(world.partitions["journal"]) for r in _records(world, "journal", p))
    _same("valid events that are missing from the journal", expected - found, Counter())
    _same("records that are in the journal too often", found - expected, Counter())
    _same("the dead letters", Counter(r.value for r in _records(world, "dead-letter", 0)), dead)


def _observations(world: World) -> None:
    expected: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    found: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    homes, buckets = world.partitions["observations"], world.partitions["journal"]
    for bucket in range(buckets):
        for one in _plain(world, bucket).observations():
            expected[bucket, partition_of(one.model, homes)].append(one)
    for home in range(homes):
        told: list[Observation] = []
        for _, entry in world.broker.topics["observations"][home].visible():
            one = as_observation(entry.key, _kind(entry), entry.value)
            told.append(one)
            if not _is_cohort(one):
                event = orjson.loads(one.fields["prediction"]) or orjson.loads(one.fields["feedback"])
                found[partition_of(event["request_id"].encode(), buckets), home].append(one)
        for bucket in range(buckets):
            place = bucket, home
            _same(
                f"observations of journal partition and their own {place}",
                found[place],
                [one for one in expected[place] if not _is_cohort(one)],
            )
        _cohorts(home, told, [expected[bucket, home] for bucket in range(buckets)])


def _cohorts(home: int, told: list[Observation], expected: list[list[Observation]]) -> None:
    """A cohort does not say by which partition of the journal it came: all together are those of all, and each lie in their order."""
    found, those = ([repr(one) for one in some if _is_cohort(one)] for some in (told, chain.from_iterable(expected)))
    _same(f"cohorts of partition {home}", Counter(found), Counter(those))
    for ones in expected:
        rest = iter(told)
        if not all(one in rest for one in ones):
            raise Violation(f"cohorts of partition {home} lie elsewhere among the observations than in\n  {ones}")


def _is_cohort(one: Observation) -> bool:
    return one.kind == b"feedback_cohort"


def _kind(entry: Entry) -> bytes:
    return dict(entry.headers or []).get("record", b"")


def _plain(world: World, bucket: int, origin: int = 0) -> Joined:
    records = [record for record in _records(world, "journal", bucket) if record.offset >= origin]
    return plain_join(records, world.settings, bucket, world.partitions["journal"])


def _alerts(world: World) -> None:
    expected: list[bytes] = []
    for partition in range(world.partitions["observations"]):
        monitor = CountingMonitor("observations", partition)
        for record in _records(world, "observations", partition):
            offset, value = record.offset, record.value
            expected += [publish(alert)[1] for alert in monitor.step(offset, value)]
    found = [record.value for record in _records(world, "alerts", 0)]
    _same("alerts", sorted(found), sorted(expected))
    for partition in range(world.partitions["observations"]):
        mark = b'"topic":"observations","partition":%d,' % partition
        mine = [[value for value in values if mark in value[value.rindex(b'"position"') :]] for values in (found, expected)]
        _same(f"the order of the alerts of partition {partition}", *mine)


def _life_cycles(world: World) -> None:
    """Whatever the settings: each alert is told once to fire and once at most to end, and the state topic knows which have not ended."""
    told, events = dict[str, dict[str, Any]](), set[str]()
    for record in _records(world, "alerts", 0):
        alert = orjson.loads(record.value)
        if alert["event_id"] in events:
            raise Violation(f"the event {alert['event_id']} is told twice")
        events.add(alert["event_id"])
        if alert["status"] == "resolved":
            told.pop(alert["id"], None)  # one that began in a state that was built anew may never have been told
        else:
            told[alert["id"]] = alert
    for partition in range(world.partitions["observations"]):
        place = ("observations", partition)
        records = _state_records(world, partition)
        found, unreadable = alerts(place, records)
        fires = {name for name, alert in told.items() if alert["position"]["partition"] == partition}
        _same(f"the alerts of {place} that fire", ({alert.id for alert in found}, unreadable), (fires, []))
        snapshot = assemble(place, records)
        if snapshot is not None and snapshot.offset == len(world.broker.partition(place).entries):
            held = {alert["id"] for alert in snapshot.state["firing"].values()}
            _same(f"alerts of {place} that fire and have no end in sight", fires - held, set())


def _state_records(world: World, partition: int) -> list[StateRecord]:
    entries = world.broker.topics["state"][partition].visible()
    return [StateRecord(entry.key or b"", entry.value, entry.headers or []) for _, entry in entries]


def _state(world: World) -> None:
    """Every snapshot is S(X), visible with an offset of at least X in one commit; what fires is what fires; nothing else is left."""
    for partition in range(world.partitions["observations"]):
        place = ("observations", partition)
        entries = [entry for _, entry in world.broker.topics["state"][partition].visible()]
        log = [(entry, StateRecord(entry.key or b"", entry.value, entry.headers or [])) for entry in entries]
        monitor = CountingMonitor(*place)
        states = {0: monitor.snapshot(False)}
        for observation in _records(world, "observations", partition):
            monitor.step(observation.offset, observation.value)
            states[observation.offset + 1] = monitor.snapshot(False)
        for i, (entry, record) in enumerate(log):
            if record.key != key_of(place, 0):
                continue
            head = dict(record.headers)
            said = [at for group, where, at in entry.transaction.offsets if where == place] if entry.transaction else []
            if not said or max(said) < int(head["offset"]):
                raise Violation(f"a snapshot of {place} at {int(head['offset'])} is visible with the offsets {said}")
            snapshot = assemble(place, (other for _, other in log[: i + int(head["chunks"])]))
            assert snapshot is not None
            if world.changes_settings == "decisions":
                continue
            before = max(at for at in states if at <= snapshot.offset)
            _same(f"the snapshot of {place} at {snapshot.offset}", {**snapshot.state, "at": before}, states[before])
        records = [record for _, record in log]
        if world.changes_settings != "decisions":
            firing = sorted(monitor.firing.values(), key=lambda a: a.fingerprint)
            _same(f"the alerts of {place} that fire", alerts(place, records)[0], firing)
        snapshot = assemble(place, records)
        _leftovers(place, records, snapshot)


def _leftovers(place: Place, records: list[StateRecord], snapshot: Snapshot | None) -> None:
    latest = {record.key: record for record in records}
    kept = sum(key.rpartition(b"/")[2].isdigit() and record.value is not None for key, record in latest.items() if b"/firing/" not in key)
    expected = 0 if snapshot is None else int(dict(latest[key_of(place, 0)].headers)["chunks"])
    _same(f"the chunks of {place} on the state topic", kept, expected)


def _store(world: World) -> None:
    """The store's state is that of the plain join since its origin, and says what became of all that came."""
    life = world.settings.window_ms + world.settings.slack_ms
    for bucket, fold in world.redis.master.buckets.items():
        if fold.at is None:
            continue
        n = Counter(fold.counters)
        came = n["predictions"] + n["feedback"]
        became = sum(n[name] for name in ("duplicate_predictions", "duplicate_feedback", "conflicting", "expired", "orphan"))
        became += 2 * (n["joined"] + n["late"]) + sum(fold.waiting())
        _same(f"what became of the {came} records of bucket {bucket}", became, came)
        if fold.at == len(world.broker.partition(("journal", bucket)).entries):
            plain = _plain(world, bucket, fold.origin)
            now = max(fold.clock, world.broker.log_time() - world.settings.lag_ms)
            _same(f"entries of bucket {bucket} since {fold.origin}", _held(fold, now, life), _known(plain, now, life))
            _same(f"clock of bucket {bucket} since {fold.origin}", fold.clock, plain.clock)
            n["waiting_predictions"], n["waiting_feedback"] = fold.waiting()
            _same(f"counters of bucket {bucket} since {fold.origin}", n, Counter(plain.counts()))
            untold = {(slot, owner): len(lives) for slot, owner, lives in plain.cohorts(fold.clock)}
            _same(f"labels of bucket {bucket} since {fold.origin}", {slot: came for slot, (came, _) in fold.labels.items()}, untold)


def _held(fold: Fold, now: int, life: int) -> dict[bytes, Any]:
    """What counts for a record of `now`, the earliest time by which the next may come without a rebuild; the rest may have been freed.

    Of each request id: since when, and whether its prediction and its feedback have come.
    """
    entries = {name: (since, value[1] != FEEDBACK, value[1] != PREDICTION) for name, (since, value) in fold.entries.items()}
    return {name: entry for name, entry in entries.items() if now - entry[0] <= life}


def _known(plain: Joined, now: int, life: int) -> dict[bytes, Any]:
    """The same, as it must be."""
    known = {name: (one.since, one.prediction is not None, one.feedback is not None) for name, one in plain.known.items()}
    return {name: entry for name, entry in known.items() if now - entry[0] <= life}


def _counters(world: World) -> None:
    """Each process counts what became of what it committed, once. Of its last commit it need not have heard, if it broke off there."""
    found = _found(world)
    published: dict[Transaction | None, Counter[str]] = defaultdict(Counter)
    for topic, name in _NAMES.items():
        for partition in world.broker.topics[topic]:
            for _, entry in partition.visible():
                published[entry.transaction][name(entry)] += 1
    for life in world.lives:
        progress = life.progress
        commits = [one for one in life.producer.transactions if one.moved]  # a call that is repeated commits one that moves nothing
        if not 0 <= len(commits) - progress.transactions <= (0 if life.in_order else 1):
            raise Violation(f"{life.name} has committed {len(commits)} times, and counts {progress.transactions}")
        records, told = Counter[str](), Counter[str]()
        for transaction in commits[: progress.transactions]:
            for place, first, end in transaction.moved:
                records.update(what for offset, what in found[place] if first <= offset < end)
            told += published[transaction]
        _same(f"records that {life.name} committed", progress.committed, records.total())
        counted = Counter({name: n for name, n in progress.counters.items() if name not in _WORK})
        _same(f"what {life.name} counted", counted, records + told)


_NAMES: dict[str, Callable[[Entry], str]] = {
    "dead-letter": lambda entry: f"dead_letter:{dict(entry.headers or [])['__streams.errors.exception'].decode()}",
    "observations": lambda entry: _kind(entry).decode(),
    "alerts": lambda entry: str(orjson.loads(entry.value or b"")["status"]),
}
"""What stages.py counts a published record as."""

_WORK = ("snapshots", "snapshot_bytes", "snapshot_ms", "refilled", "replayed")  # of detect, not of records that were committed


def _found(world: World) -> dict[Place, list[tuple[int, str]]]:
    """What stages.py counts each record of a log as that is read, at its offset."""
    found = {
        (topic, partition): [(record.offset, topic) for record in _records(world, topic, partition)]
        for topic in ("predictions", "feedback", "observations")
        for partition in range(world.partitions[topic])
    }
    for bucket in range(world.partitions["journal"]):
        found["journal", bucket] = [(step.offset, step.found) for step in _plain(world, bucket).steps]
    return found
