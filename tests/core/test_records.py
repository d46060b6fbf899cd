"""What a record of a log says of its place, and how a run of them is cut."""

from __future__ import annotations

import pytest

from stream_monitor.core.records import SPAN, Record, frames, pieces


def test_a_position_is_an_offset_and_the_number_of_the_event_within_it() -> None:
    assert [Record(7, 0, b"", b"", number).position for number in (0, 1, SPAN - 1)] == [7 * SPAN, 7 * SPAN + 1, 8 * SPAN - 1]


def test_a_record_is_a_value() -> None:
    record = Record(1, 2, b"k", b"v")
    assert record == Record(1, 2, b"k", b"v", 0)
    assert record != Record(1, 2, b"k", b"v", 1)
    with pytest.raises(AttributeError):
        record.offset = 2  # type: ignore[misc]


def test_what_has_one_offset_is_one_frame() -> None:
    records = [Record(offset, 0, b"", b"", number) for offset, n in ((1, 3), (2, 1), (5, 4)) for number in range(n)]
    assert list(frames(records)) == [records[:3], records[3:4], records[4:]]
    assert list(frames([])) == []


def test_pieces_end_where_an_offset_ends() -> None:
    records = [Record(offset, 0, b"", b"", number) for offset, n in ((1, 3), (2, 1), (5, 4), (6, 1)) for number in range(n)]
    assert [[record.offset for record in piece] for piece in pieces(records, 2)] == [[1, 1, 1], [2, 5, 5, 5, 5], [6]]
    assert list(pieces([], 2)) == []
