"""A reader of the state topic finds one whole snapshot, the newest, or none, and the alerts that fire."""

import os
from dataclasses import replace

import pytest

from stream_monitor.core.events import Alert, Slice, Status
from stream_monitor.core.snapshots import (
    CHUNK_BYTES,
    Snapshot,
    StateRecord,
    alerts,
    assemble,
    begins,
    chunks,
    cut,
    firing,
    key_of,
    others_told,
)
from tests.simulation.monitor import CountingMonitor

PLACE = ("observations", 3)
LARGE = {"noise": os.urandom(2 * CHUNK_BYTES)}


def test_a_snapshot_comes_back_as_it_was() -> None:
    snapshot = Snapshot(17, "abc", {"streams": [1, 2.5, None, "x", b"\x00\xff"], "n": 2**60})
    assert assemble(PLACE, cut(PLACE, snapshot)) == snapshot


def test_a_large_snapshot_is_cut_into_chunks_that_fit_a_message() -> None:
    snapshot = Snapshot(17, "abc", {"noise": os.urandom(3 * CHUNK_BYTES)})
    records = cut(PLACE, snapshot)
    assert len(records) == 4
    assert max(len(record.value or b"") for record in records) <= CHUNK_BYTES
    assert assemble(PLACE, records) == snapshot


def test_the_newest_snapshot_wins_even_where_it_has_fewer_chunks() -> None:
    old = cut(PLACE, Snapshot(1, "a", LARGE))
    new = cut(PLACE, Snapshot(2, "a", {"small": 1}))
    assert assemble(PLACE, [*old, *new]) == Snapshot(2, "a", {"small": 1})


def test_what_a_longer_snapshot_leaves_over_is_taken_off() -> None:
    old = cut(PLACE, Snapshot(1, "a", LARGE))
    assert chunks(PLACE, old) == 3
    new = cut(PLACE, Snapshot(2, "a", {"small": 1}), before=3)
    assert [(record.key, record.value is None) for record in new] == [(key_of(PLACE, i), i > 0) for i in range(3)]
    assert chunks(PLACE, [*old, *new]) == 1
    assert assemble(PLACE, [*old, *new]) == Snapshot(2, "a", {"small": 1})


def test_the_end_of_the_log_is_enough_where_the_newest_snapshot_begins_in_it() -> None:
    log = [*cut(PLACE, Snapshot(1, "a", LARGE)), *cut(PLACE, Snapshot(2, "a", LARGE))]
    ends = [log[i:] for i in range(len(log))]
    assert [begins(PLACE, end) for end in ends] == [True] * 4 + [False] * 2
    assert {assemble(PLACE, end) == Snapshot(2, "a", LARGE) for end in ends[:4]} == {True}


def test_other_partitions_are_not_mixed_in() -> None:
    mine, other = Snapshot(1, "a", {"mine": True}), Snapshot(9, "a", {"mine": False})
    assert assemble(PLACE, [*cut(PLACE, mine), *cut(("observations", 30), other)]) == mine


def test_where_there_is_none_or_it_was_taken_off_there_is_no_snapshot() -> None:
    records = cut(PLACE, Snapshot(17, "abc", LARGE))
    assert assemble(PLACE, []) is None
    assert assemble(PLACE, [*records, *(StateRecord(record.key, None, []) for record in records)]) is None


def test_what_is_not_whole_is_not_guessed_at() -> None:
    records = cut(PLACE, Snapshot(17, "abc", LARGE))
    with pytest.raises(ValueError, match="chunk 2 of 3 is missing"):
        assemble(PLACE, records[:-1])
    with pytest.raises(ValueError, match="chunk 2 of 3 is missing"):
        assemble(PLACE, [*records[:-1], cut(PLACE, Snapshot(18, "abc", {"noise": os.urandom(2 * CHUNK_BYTES)}))[-1]])


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_damaged_snapshot_is_not_taken_for_one(at: int) -> None:
    [record] = cut(PLACE, Snapshot(17, "abc", {"a": list(range(100))}))
    damaged = bytearray(record.value or b"")
    damaged[at] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        assemble(PLACE, [record._replace(value=bytes(damaged))])


@pytest.mark.parametrize("headers", [[], [("format", b"1")], [("format", b"\xff")], [("format", b"1"), ("chunks", b"many")]])
def test_a_record_of_somebody_else_is_not_taken_for_a_snapshot(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValueError, match="it is"):
        assemble(PLACE, [StateRecord(key_of(PLACE, 0), b"?", headers)])


def test_a_format_of_another_program_version_is_not_guessed_at() -> None:
    [record] = cut(PLACE, Snapshot(17, "abc", {}))
    foreign = record._replace(headers=[("format", b"99"), *record.headers[1:]])
    with pytest.raises(ValueError, match="format 99, this program reads format 1"):
        assemble(PLACE, [foreign])


def fired(fingerprint: str) -> Alert:
    monitor = CountingMonitor(*PLACE)
    [alert] = [alert for offset in range(3) for alert in monitor.step(offset, b"")]
    return replace(alert, fingerprint=fingerprint, slice=Slice("country", "DE"))


def test_the_alerts_that_fire_come_back_as_they_were_until_they_are_resolved() -> None:
    one, other = fired("b"), fired("a")
    records = [
        firing(PLACE, one, "a"),
        *cut(PLACE, Snapshot(2, "a", {})),
        firing(PLACE, other, "a"),
        firing(("observations", 30), fired("c"), "a"),
    ]
    assert alerts(PLACE, records) == ([other, one], [])
    assert alerts(PLACE, [*records, firing(PLACE, replace(one, status=Status.RESOLVED), "a")]) == ([other], [])
    assert chunks(PLACE, records) == 1


def test_it_is_known_whether_alerts_were_told_under_other_settings_since_the_newest_snapshot() -> None:
    snapshot = cut(PLACE, Snapshot(2, "a", {}))
    ours, theirs = firing(PLACE, fired("a"), "a"), firing(PLACE, fired("b"), "b")
    assert others_told(PLACE, [*snapshot, ours, theirs, ours], "a")
    assert not others_told(PLACE, [theirs, *snapshot, ours], "a")
    assert not others_told(PLACE, [*snapshot, firing(("observations", 30), fired("c"), "b")], "a")
    assert others_told(PLACE, [*snapshot, theirs._replace(headers=theirs.headers[:1])], "a"), "by a program that did not say"


def test_an_alert_that_can_not_be_read_is_named() -> None:
    record = firing(PLACE, fired("b"), "a")._replace(value=b"{}")
    assert alerts(PLACE, [record, firing(PLACE, fired("a"), "a")]) == ([fired("a")], ["observations/3/firing/b"])
