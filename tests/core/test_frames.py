"""What lies in a record of the journal."""

from __future__ import annotations

import msgpack
import pytest

from stream_monitor.core.frames import FULL, HEAVY, Framer, unframe
from stream_monitor.core.records import SPAN, Record


def event(i: int, size: int = 10) -> tuple[bytes, bytes]:
    return b"r%d" % i, b"\x01" + b"v" * size


def frames(events: list[tuple[bytes, bytes]]) -> list[bytes]:
    framer = Framer(1)
    framer.add(events)
    return [frame for _, frame in framer.finish()]


def carried(values: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(record.key, record.value) for value in values for record in unframe(0, 0, None, value)]


@pytest.mark.parametrize("count", [1, 2, FULL, FULL + 1, 5 * FULL + 3])
def test_events_come_out_as_they_went_in_and_in_order(count: int) -> None:
    events = [event(i) for i in range(count)]
    made = frames(events)
    assert carried(made) == events
    assert len(made) == -(-count // FULL)


def test_nothing_is_no_frame() -> None:
    assert frames([]) == []


def test_the_events_of_a_frame_have_its_offset_and_time_and_a_number_of_their_own() -> None:
    [value] = frames([event(0), event(1)])
    assert unframe(7, 99, None, value) == [Record(7, 99, b"r0", event(0)[1], 0), Record(7, 99, b"r1", event(1)[1], 1)]
    assert [record.position for record in unframe(7, 99, None, value)] == [7 * SPAN, 7 * SPAN + 1]


def test_no_frame_is_heavier_than_it_may_be_but_one_of_a_single_event() -> None:
    events = [event(i, size) for i, size in enumerate([HEAVY // 3] * 7 + [2 * HEAVY] + [10] * 9)]
    made = frames(events)
    assert carried(made) == events
    assert [len(unframe(0, 0, None, value)) for value in made if len(value) > HEAVY] == [1]


def test_a_single_event_weighs_hardly_more_than_by_itself() -> None:
    key, value = event(0, 1_000)
    [frame] = frames([(key, value)])
    assert len(frame) <= len(key) + len(value) + 12


def test_a_record_of_the_first_version_is_one_event_under_its_key() -> None:
    key, value = event(0, 30)
    assert unframe(7, 99, key, value) == [Record(7, 99, key, value)]


def test_a_record_of_the_second_version_is_read_as_one_of_the_third() -> None:
    [value] = frames([event(0), event(1)])
    assert value[:1] == b"\x03", "a program that would misread the events in it stops there"
    assert carried([b"\x02" + value[1:]]) == [event(0), event(1)]


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x04abc", b'{"request_id":"a"}'])
def test_a_version_that_is_not_known_is_not_guessed_at(value: bytes) -> None:
    with pytest.raises(ValueError, match="this program reads versions 1 to 3"):
        unframe(0, 0, None, value)


@pytest.mark.parametrize(
    "value",
    [
        *(b"\x01", b"\x01P and no more"),
        *(b"\x03", b"\x03\xc1", b"\x02\x01", b"\x03\x92\x01\x02"),
        *(frames([event(0)])[0][:-1], frames([event(0)])[0] + b"x"),
    ],
)
def test_a_damaged_frame_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="damaged journal record"):
        unframe(0, 0, None, value)


def test_a_frame_with_more_events_than_an_offset_has_positions_is_refused() -> None:
    value = b"\x03" + msgpack.packb([event(0)] * (SPAN + 1))
    with pytest.raises(ValueError, match="4097 events"):
        unframe(0, 0, None, value)
