"""A reader of the state topic finds one whole snapshot, the newest, or none."""

import os

from stream_monitor.core.snapshots import CHUNK_BYTES, Snapshot, assemble, cut

PLACE = ("observations", 3)


def test_a_snapshot_comes_back_as_it_was() -> None:
    snapshot = Snapshot(17, "abc", {"streams": [1, 2.5, None, "x", b"\x00\xff"], "n": 2**60})
    assert assemble(PLACE, cut(PLACE, snapshot)) == snapshot


def test_a_large_snapshot_is_cut_into_chunks_that_fit_a_message() -> None:
    snapshot = Snapshot(17, "abc", {"noise": os.urandom(3 * CHUNK_BYTES)})
    records = cut(PLACE, snapshot)
    assert len(records) == 4
    assert max(len(record.value) for record in records) <= CHUNK_BYTES
    assert assemble(PLACE, records) == snapshot


def test_the_newest_snapshot_wins_even_where_it_has_fewer_chunks() -> None:
    old = cut(PLACE, Snapshot(1, "a", {"noise": os.urandom(2 * CHUNK_BYTES)}))
    new = cut(PLACE, Snapshot(2, "a", {"small": 1}))
    assert assemble(PLACE, [*old, *new]) == Snapshot(2, "a", {"small": 1})


def test_other_partitions_are_not_mixed_in() -> None:
    mine, other = Snapshot(1, "a", {"mine": True}), Snapshot(9, "a", {"mine": False})
    assert assemble(PLACE, [*cut(PLACE, mine), *cut(("observations", 30), other)]) == mine


def test_where_there_is_nothing_whole_there_is_no_snapshot() -> None:
    records = cut(PLACE, Snapshot(17, "abc", {"noise": os.urandom(2 * CHUNK_BYTES)}))
    assert assemble(PLACE, []) is None
    assert assemble(PLACE, records[:-1]) is None
    assert assemble(PLACE, [*records[:-1], cut(PLACE, Snapshot(18, "abc", {"noise": os.urandom(2 * CHUNK_BYTES)}))[-1]]) is None


def test_a_format_of_another_program_version_is_not_guessed_at() -> None:
    [record] = cut(PLACE, Snapshot(17, "abc", {}))
    foreign = record._replace(headers=[("format", b"99"), *record.headers[1:]])
    assert assemble(PLACE, [foreign]) is None
