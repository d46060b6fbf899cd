"""Routing: what becomes of each message of an input topic, and where it goes."""

from __future__ import annotations

import orjson

from stream_monitor.core.codec import Codec, read_head
from stream_monitor.core.frames import Framer, unframe
from stream_monitor.core.hashing import partition_of
from stream_monitor.core.records import Record
from stream_monitor.core.routing import MAX_DEAD_BYTES, route
from stream_monitor.core.settings import EventSettings

CODEC = Codec(EventSettings())


def message(offset: int, value: bytes | None, key: bytes | None = None) -> Record:
    return Record(offset, 1_709_647_800_000, key, value)  # type: ignore[arg-type]


def feedback(request_id: str) -> bytes:
    return orjson.dumps({"request_id": request_id, "label": 1, "timestamp": 5})


def test_a_record_goes_to_the_partition_of_its_request_id_whatever_the_key_of_the_message() -> None:
    journal, dead = route(CODEC, "feedback", "fb", 2, [message(0, feedback("a"), b"x"), message(1, feedback("b"))])
    assert not dead
    assert [key for key, _ in journal] == [b"a", b"b"]
    assert read_head(journal[0][1]).time == 5
    framer = Framer(3)
    framer.add(journal)
    assert {home: [(r.key, r.value) for r in unframe(0, 0, None, frame)] for home, frame in framer.finish()} == {
        partition_of(b"a", 3): journal[:1],
        partition_of(b"b", 3): journal[1:],
    }


def test_a_bad_message_is_a_dead_letter_with_its_reason_and_place_and_the_rest_goes_on() -> None:
    journal, dead = route(CODEC, "feedback", "fb", 2, [message(7, b"\xff", b"k"), message(8, feedback("b"))])
    assert len(journal) == 1
    [letter] = dead
    assert (letter.key, letter.value) == (b"k", b"\xff")
    headers = dict(letter.headers)
    assert headers["__streams.errors.exception"] == b"not_utf8"
    assert b"byte 0" in headers["__streams.errors.message"]
    assert headers["__streams.errors.topic"] == b"fb"
    assert headers["__streams.errors.partition"] == b"2"
    assert headers["__streams.errors.offset"] == b"7"


def test_a_tombstone_is_a_dead_letter_without_a_value() -> None:
    _, [letter] = route(CODEC, "predictions", "p", 0, [message(0, None, b"k")])
    assert (letter.key, letter.value, letter.reason) == (b"k", None, "null_value")


def test_a_value_of_ten_megabytes_is_cut_and_its_size_told() -> None:
    _, [letter] = route(CODEC, "predictions", "p", 0, [message(0, b"x" * 10_000_000)])
    assert letter.value == b"x" * MAX_DEAD_BYTES
    assert dict(letter.headers)["stream-monitor.original-size"] == b"10000000"


def test_a_key_of_ten_megabytes_is_cut_and_its_size_told() -> None:
    _, [letter] = route(CODEC, "predictions", "p", 0, [message(0, b"x", b"k" * 10_000_000)])
    assert letter.key == b"k" * MAX_DEAD_BYTES, "or it would fit into no message of ours, and the log could not be read beyond it"
    assert dict(letter.headers)["__streams.errors.message"].endswith(b"; the key, of 10000000 bytes, is cut")
