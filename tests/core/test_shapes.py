"""The fast way through the codec says what the slow way says, or nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.core import shapes
from stream_monitor.core.codec import Accepted, Codec
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings

NOW = 1_709_647_800_000
CODEC = Codec(EventSettings())
KEEPING = Codec(EventSettings(), slices=("country",))

ORDINARY: dict[str, Any] = {
    "request_id": "r-1",
    "model": "credit",
    "model_version": "v3",
    "timestamp": NOW,
    "prediction": "approve",
    "label": "approve",
    "score": 0.7,
    "features": {"amount": 12.5, "country": "DE", "new": True, "age": None, "n": 3},
    "slices": {"country": "DE"},
    "latency_ms": 12,
    "trace": {"id": [1, 2]},
}
NUMBERS = st.sampled_from([0, 1, -1, 1.0, -0.0, 0.5, 1e308, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -1e-320, NOW, NOW + 10**9])
VALUES = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=5), st.sampled_from(["", "m" * 256, "m" * 257, "é" * 200]))
ANYTHING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5
)
EVENTS = st.dictionaries(st.sampled_from([*ORDINARY, "scores", "weight", "other"]), ANYTHING, max_size=3).map(
    lambda changes: ORDINARY | changes
)
PIECES = st.sampled_from(
    [
        *(b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\n", b"\x00", b" ", b"1", b"-", b".5"),
        *(b"e9", b"1e999", b"NaN", b"null", b"9" * 400, b"\\ud800", b"\\u0041", b"[" * 300),
        *(b'"timestamp":1.0,', b'"model":"b",', b'"request_id":null,'),
    ]
)  # fmt: skip


def mangled(draw: st.DrawFn, raw: bytes) -> bytes:
    """Most often with a few bytes replaced by others."""
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(PIECES) + raw[start + draw(st.sampled_from([0, 0, 1, 2, 9])) :]
    return raw


def message(value: bytes | None, offset: int = 0) -> Record:
    return Record(offset, NOW, None, value)  # type: ignore[arg-type]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    return mangled(draw, orjson.dumps(draw(EVENTS)))


@settings(max_examples=700, deadline=None)
@given(messages())
def test_what_the_fast_way_accepts_the_slow_way_accepts_with_the_same_record(raw: bytes) -> None:
    for fast, slow in (
        (CODEC.predictions, CODEC.prediction),
        (KEEPING.predictions, KEEPING.prediction),
        (CODEC.feedbacks, CODEC.feedback),
        (KEEPING.feedbacks, KEEPING.feedback),
    ):
        found = fast([message(raw)])
        if found is not None:
            result = slow(raw, NOW)
            assert isinstance(result, Accepted), (raw, result)
            assert found == [(result.key, result.value)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"score": None, "features": {}, "weight": 3},
        {"prediction": 1, "label": 2.5},
        {"prediction": True, "label": -7},
        {"features": {"größe": "süß"}, "trace": "ü" * 300},
        {"scores": {"a": 0.25, "b": 0.75}},
    ],
)
def test_ordinary_events_go_the_fast_way(changes: dict[str, Any]) -> None:
    raw = orjson.dumps(ORDINARY | changes)
    assert CODEC.predictions([message(raw)]) is not None
    assert CODEC.feedbacks([message(raw)]) is not None


@pytest.mark.parametrize("bad", [None, b"junk", orjson.dumps(ORDINARY | {"timestamp": NOW + 4_000_000}), b'{"x":"\xff"}', b""])
def test_one_doubtful_message_sends_the_run_the_slow_way(bad: bytes | None) -> None:
    good = orjson.dumps(ORDINARY)
    assert CODEC.predictions([message(good), message(bad, 1), message(good, 2)]) is None


def test_halves_of_a_character_in_neighbouring_messages_make_no_character() -> None:
    assert shapes.feedbacks([b'{"x":"\xc3', b'\xa9"}']) is None


@pytest.mark.parametrize("label", [b"18446744073709551616", b"9223372036854775808", b"-9223372036854775809", b"1e2", b"-0"])
def test_a_label_has_one_digest_whichever_way_it_goes(label: bytes) -> None:
    raw = b'{"request_id":"a","timestamp":5,"label":%b}' % label
    found, result = CODEC.feedbacks([message(raw)]), CODEC.feedback(raw, NOW)
    assert isinstance(result, Accepted)
    assert found in (None, [(result.key, result.value)])


def test_a_mapped_topic_goes_the_slow_way() -> None:
    mapped = Codec(EventSettings(prediction_fields={"request_id": "id"}))
    assert mapped.predictions([message(orjson.dumps(ORDINARY))]) is None
