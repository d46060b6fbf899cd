"""Every oddity of an input message has one defined result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from stream_monitor.core.codec import FEEDBACK, HEAD, PREDICTION, Accepted, Codec, Models, Reason, Rejection, read_head, whose
from stream_monitor.core.hashing import label_digest
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings

NOW = 1_709_647_800_000
PREDICTION_EVENT: dict[str, Any] = {
    "request_id": "r-1",
    "model": "credit",
    "model_version": "v3",
    "timestamp": NOW,
    "prediction": "approve",
    "score": 0.7,
    "scores": {"approve": 0.7, "deny": 0.3},
    "features": {"amount": 12.5, "country": "DE", "new": True, "age": None},
    "slices": {"country": "DE"},
    "weight": 2,
    "latency_ms": 12.5,
}
FEEDBACK_EVENT: dict[str, Any] = {"request_id": "r-1", "label": "deny", "timestamp": NOW + 5}


def codec(**settings: Any) -> Codec:
    return Codec(EventSettings(**settings))


def prediction(**changes: Any) -> Accepted | Rejection:
    return codec().prediction(orjson.dumps({**PREDICTION_EVENT, **changes}), NOW)


def feedback(**changes: Any) -> Accepted | Rejection:
    return codec().feedback(orjson.dumps({**FEEDBACK_EVENT, **changes}), NOW)


def without(event: dict[str, Any], field: str) -> bytes:
    return orjson.dumps({name: value for name, value in event.items() if name != field})


def reason(result: Accepted | Rejection) -> Reason:
    assert isinstance(result, Rejection), f"accepted: {result}"
    assert result.message
    return result.reason


def test_a_prediction_becomes_a_journal_record_that_carries_its_own_bytes() -> None:
    raw = orjson.dumps(PREDICTION_EVENT)
    result = codec().prediction(raw, NOW)
    assert isinstance(result, Accepted)
    assert result.key == b"r-1"
    head = read_head(result.value)
    assert (head.kind, head.time, head.owner, head.digest) == (PREDICTION, NOW, b'["credit","v3"]', bytes(8))
    assert result.value[head.body :] == raw


def test_a_feedback_becomes_a_journal_record_with_the_digest_of_its_label() -> None:
    raw = orjson.dumps(FEEDBACK_EVENT)
    result = codec().feedback(raw, NOW)
    assert isinstance(result, Accepted)
    head = read_head(result.value)
    assert (head.kind, head.time, head.owner, head.digest) == (FEEDBACK, NOW + 5, b"", label_digest("deny"))
    assert result.value[head.body :] == raw


def owners(slices: Any, model: str = "credit", version: str = "v3") -> set[bytes]:
    """The owner of a prediction where slices are asked for, by the fast way and by the slow one."""
    asked = Codec(EventSettings(), slices=("country", "size", "text"))
    raw = orjson.dumps({**PREDICTION_EVENT, "model": model, "model_version": version, "slices": slices})
    one, found = asked.prediction(raw, NOW), asked.predictions([Record(0, NOW, b"", raw)])
    assert isinstance(one, Accepted)
    assert found is not None
    return {read_head(one.value).owner, read_head(found[0][1]).owner}


def test_the_owner_of_a_prediction_names_those_of_its_slices_that_are_asked_for_in_the_order_in_which_they_are() -> None:
    assert owners({"size": 'é"', "device": "phone", "country": "DE"}) == {'["credit","v3",{"country":"DE","size":"é\\""}]'.encode()}
    assert owners({"device": "phone"}) == owners({}) == owners(None) == {b'["credit","v3"]'}


def test_slices_that_are_too_long_to_be_kept_are_left_out_of_it() -> None:
    assert owners({"text": "x" * 4_060}) == {b'["credit","v3",{"text":"%b"}]' % (b"x" * 4_060)}
    assert owners({"text": "x" * 4_096}) == {b'["credit","v3"]'}


def owners_of_feedback(keys: Sequence[str] = ("country", "size"), **named: Any) -> set[bytes]:
    """The owner of a feedback that says this of it, by the fast way and by the slow one; its own bytes follow."""
    asked = Codec(EventSettings(), slices=keys)
    raw = orjson.dumps({**FEEDBACK_EVENT, **named})
    one, found = asked.feedback(raw, NOW), asked.feedbacks([Record(0, NOW, b"", raw)])
    assert isinstance(one, Accepted)
    assert found == [one]
    head = read_head(one.value)
    assert (head.kind, head.digest, one.value[head.body :]) == (FEEDBACK, label_digest("deny"), raw)
    return {head.owner}


def test_the_owner_of_a_feedback_that_names_it_has_the_form_of_a_predictions() -> None:
    named: dict[str, Any] = {"model": "credit", "model_version": "v3", "slices": {"country": "DE", "size": 'é"'}}
    assert owners_of_feedback(**named) == owners(named["slices"])
    assert owners_of_feedback((), **named) == owners(None) == {b'["credit","v3"]'}
    assert owners_of_feedback(model="\x01" * 256, model_version="v3") == owners(None, "\x01" * 256)


@pytest.mark.parametrize(
    "named",
    [{}, {"model": "credit"}, {"model_version": "v3"}, {"slices": {"a": "b"}}, {"model": None, "model_version": "v3", "slices": None}],
)
def test_a_feedback_that_does_not_name_both_model_and_version_has_no_owner(named: dict[str, Any]) -> None:
    assert owners_of_feedback(**named) == {b""}


@pytest.mark.parametrize("name", ["é" * 256, "\x01" * 256, '["a","b"]', "credit"])
def test_an_owner_says_model_and_version_again_whatever_their_names(name: str) -> None:
    [owner] = owners(None, name, name)
    assert Models()[owner] == name.encode()
    assert whose(2, owner) == {"model": name, "model_version": name}
    assert whose(1, name.encode()) == {"model": name}


def test_a_journal_record_of_another_version_is_not_guessed_at() -> None:
    assert read_head(HEAD.pack(1, PREDICTION, 0, bytes(8), 6) + b"credit").owner == b"credit"
    with pytest.raises(ValueError, match="version 9; this program reads versions 1 and 2"):
        read_head(HEAD.pack(9, PREDICTION, 0, bytes(8), 0))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, Reason.NULL_VALUE),
        (b"", Reason.NOT_JSON),
        (b"not json", Reason.NOT_JSON),
        (b'{"request_id": NaN}', Reason.NOT_JSON),
        (b'{"score": Infinity}', Reason.NOT_JSON),
        (b'{"request_id": "\xff\xfe"}', Reason.NOT_UTF8),
        (b"[1, 2]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.MISSING_FIELD),
        (b"x" * (256 * 1024 + 1), Reason.TOO_LARGE),
        (b"[" * 100_000, Reason.NOT_JSON),
    ],
)
def test_what_is_not_an_event_at_all_is_refused_on_either_topic(raw: bytes | None, expected: Reason) -> None:
    assert reason(codec().prediction(raw, NOW)) == expected
    assert reason(codec().feedback(raw, NOW)) == expected


@pytest.mark.parametrize("field", ["request_id", "model", "model_version", "timestamp", "prediction"])
def test_a_prediction_needs_its_required_fields(field: str) -> None:
    assert reason(codec().prediction(without(PREDICTION_EVENT, field), NOW)) == Reason.MISSING_FIELD
    assert reason(prediction(**{field: None})) == Reason.MISSING_FIELD
    assert reason(prediction(**{field: [1]})) == Reason.WRONG_TYPE


@pytest.mark.parametrize("field", ["request_id", "label", "timestamp"])
def test_a_feedback_needs_its_required_fields(field: str) -> None:
    assert reason(codec().feedback(without(FEEDBACK_EVENT, field), NOW)) == Reason.MISSING_FIELD
    assert reason(feedback(**{field: None})) == Reason.MISSING_FIELD
    assert reason(feedback(**{field: [1]})) == Reason.WRONG_TYPE


@pytest.mark.parametrize("field", ["score", "scores", "features", "slices", "weight", "latency_ms"])
def test_optional_fields_may_be_missing_or_null(field: str) -> None:
    assert isinstance(codec().prediction(without(PREDICTION_EVENT, field), NOW), Accepted)
    assert isinstance(prediction(**{field: None}), Accepted)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"request_id": ""}, Reason.MISSING_FIELD),
        ({"request_id": 17}, Reason.WRONG_TYPE),
        ({"request_id": "é" * 257}, Reason.TOO_LARGE),
        ({"model": "m" * 257}, Reason.TOO_LARGE),
        ({"timestamp": True}, Reason.WRONG_TYPE),
        ({"timestamp": 1.5}, Reason.WRONG_TYPE),
        ({"timestamp": "yesterday"}, Reason.WRONG_TYPE),
        ({"timestamp": "2024-03-05"}, Reason.WRONG_TYPE),
        ({"timestamp": "2024-13-05T00:00:00Z"}, Reason.WRONG_TYPE),
        ({"timestamp": "2024-03-05T14:10:00"}, Reason.WRONG_TYPE),
        ({"timestamp": "2024-03-05T14:10:00+05:60"}, Reason.WRONG_TYPE),
        ({"timestamp": -1}, Reason.OUT_OF_RANGE),
        ({"timestamp": NOW + 10 * 365 * 86_400_000}, Reason.IN_THE_FUTURE),
        ({"timestamp": NOW * 1000}, Reason.IN_THE_FUTURE),
        ({"prediction": {"class": "a"}}, Reason.WRONG_TYPE),
        ({"score": 1.01}, Reason.OUT_OF_RANGE),
        ({"score": -0.01}, Reason.OUT_OF_RANGE),
        ({"score": "0.5"}, Reason.WRONG_TYPE),
        ({"score": True}, Reason.WRONG_TYPE),
        ({"scores": {"a": 2}}, Reason.WRONG_TYPE),
        ({"scores": [0.5, 0.5]}, Reason.WRONG_TYPE),
        ({"features": {"a": [1]}}, Reason.WRONG_TYPE),
        ({"features": "a"}, Reason.WRONG_TYPE),
        ({"slices": {"country": 1}}, Reason.WRONG_TYPE),
        ({"slices": {"country": None}}, Reason.WRONG_TYPE),
        ({"weight": 0}, Reason.OUT_OF_RANGE),
        ({"weight": -1}, Reason.OUT_OF_RANGE),
        ({"weight": "2"}, Reason.WRONG_TYPE),
        ({"latency_ms": -1}, Reason.OUT_OF_RANGE),
    ],
)
def test_a_prediction_with_an_impossible_value_is_refused_with_its_reason(changes: dict[str, Any], expected: Reason) -> None:
    assert reason(prediction(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": ""}, Reason.MISSING_FIELD),
        ({"model": 17}, Reason.WRONG_TYPE),
        ({"model": "m" * 257}, Reason.TOO_LARGE),
        ({"model_version": ["v3"]}, Reason.WRONG_TYPE),
        ({"model_version": "v" * 257}, Reason.TOO_LARGE),
        ({"slices": {"country": 1}}, Reason.WRONG_TYPE),
        ({"slices": "DE"}, Reason.WRONG_TYPE),
        ({"weight": 0}, Reason.OUT_OF_RANGE),
    ],
)
def test_a_feedback_with_an_impossible_value_is_refused_with_its_reason(changes: dict[str, Any], expected: Reason) -> None:
    assert reason(feedback(**{"model": "credit", "model_version": "v3", **changes})) == expected
    assert codec().feedbacks([Record(0, NOW, b"", orjson.dumps({**FEEDBACK_EVENT, **changes}))]) is None


def test_a_refusal_names_the_field_but_never_quotes_a_private_value() -> None:
    result = prediction(score="4111 1111 1111 1111")
    assert isinstance(result, Rejection)
    assert "score" in result.message
    assert "4111" not in result.message


@pytest.mark.parametrize("label", ["fraud", 1, True, 2.5, "", -3])
def test_labels_are_strings_integers_booleans_and_numbers(label: Any) -> None:
    assert isinstance(prediction(prediction=label), Accepted)
    assert isinstance(feedback(label=label), Accepted)


def test_an_unknown_field_is_carried_along() -> None:
    result = prediction(trace="abc")
    assert isinstance(result, Accepted)
    assert b'"trace":"abc"' in result.value


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-03-05T14:10:00Z", NOW),
        ("2024-03-05t14:10:00z", NOW),
        ("2024-03-05T16:10:00.250+02:00", NOW + 250),
        ("2024-03-05T14:10:00.1239999Z", NOW + 123),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_an_rfc_3339_timestamp_is_carried_as_milliseconds(text: str, ms: int) -> None:
    for result in (prediction(timestamp=text), feedback(timestamp=text)):
        assert isinstance(result, Accepted)
        head = read_head(result.value)
        assert head.time == ms
        assert orjson.loads(result.value[head.body :])["timestamp"] == ms


def test_an_hour_ahead_is_a_slow_clock_and_more_is_an_error() -> None:
    assert isinstance(prediction(timestamp=NOW + 3_600_000), Accepted)
    assert reason(prediction(timestamp=NOW + 3_600_001)) == Reason.IN_THE_FUTURE


def test_without_a_broker_timestamp_there_is_nothing_to_hold_an_event_time_against() -> None:
    raw = orjson.dumps({**PREDICTION_EVENT, "timestamp": NOW})
    assert isinstance(codec().prediction(raw, 0), Accepted)


def test_fields_may_live_under_other_names_and_paths() -> None:
    mapped = codec(prediction_fields={"request_id": "meta.id", "model_version": "meta.version", "prediction": "answer"})
    raw = orjson.dumps({"meta": {"id": "r-9", "version": "v1"}, "model": "m", "timestamp": NOW, "answer": 1})
    result = mapped.prediction(raw, NOW)
    assert isinstance(result, Accepted)
    assert result.key == b"r-9"
    event = orjson.loads(result.value[read_head(result.value).body :])
    assert (event["request_id"], event["model_version"], event["prediction"]) == ("r-9", "v1", 1)


def test_a_feedback_may_name_its_owner_under_other_names_and_paths() -> None:
    mapped = codec(feedback_fields={"model": "meta.name", "model_version": "meta.version"})
    result = mapped.feedback(orjson.dumps({**FEEDBACK_EVENT, "meta": {"name": "credit", "version": "v3"}}), NOW)
    assert isinstance(result, Accepted)
    assert read_head(result.value).owner == b'["credit","v3"]'


def test_a_mapped_field_that_is_not_there_is_missing() -> None:
    mapped = codec(feedback_fields={"request_id": "meta.id"})
    assert reason(mapped.feedback(orjson.dumps(FEEDBACK_EVENT), NOW)) == Reason.MISSING_FIELD


@pytest.mark.parametrize("time", [NOW, "2024-03-05T14:10:00Z"])
@pytest.mark.parametrize(("depth", "accepted"), [(248, True), (249, False), (900, False)])
def test_what_is_nested_too_deep_to_be_read_inside_an_observation_is_refused(time: Any, depth: int, accepted: bool) -> None:
    raw = orjson.dumps({**PREDICTION_EVENT, "timestamp": time, "x": 0}).replace(
        b'"x":0', b'"x":%b' % (b"[" * (depth + 1) + b"]" * (depth + 1))
    )
    result = codec().prediction(raw, NOW)
    assert isinstance(result, Accepted) == accepted
    if not accepted:
        assert reason(result) == Reason.TOO_LARGE


@pytest.mark.parametrize("read", ["prediction", "feedback"])
def test_what_grows_beyond_the_limit_where_it_is_written_anew_is_refused(read: str) -> None:
    event = PREDICTION_EVENT if read == "prediction" else FEEDBACK_EVENT
    raw = orjson.dumps({**event, "timestamp": "2024-03-05T14:10:00Z", "x": 0}).replace(b'"x":0', b'"x":[' + b"1e15," * 9_999 + b"1e15]")
    accepted, refused = (getattr(codec(max_event_bytes=most), read)(raw, NOW) for most in (200_000, 100_000))
    assert len(raw) < 100_000 < len(accepted.value)
    assert reason(refused) == Reason.TOO_LARGE, "an outcome that carries it would fit into no message"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"timestamp":17,"x":1}', 17),
        (b'{"timestamp" : 17}', 17),
        (b'{"timestamp":"1970-01-01T00:00:01Z"}', 1000),
        (b'{"x":1}', 0),
        (b"junk", 0),
        (None, 0),
        (b'{"timestamp":99999999999999}', 0),
    ],
)
def test_a_quick_look_at_the_event_time_finds_none_where_there_is_none_to_be_accepted(raw: bytes | None, expected: int) -> None:
    assert codec().event_time(raw, True, 5) == expected


@pytest.mark.parametrize("number", [b"1e999", b"-1E400", b"9" * 400, b"0." + b"0" * 400 + b"1e800"])
@pytest.mark.parametrize("time", [b"5", b'"1970-01-01T00:00:00.005Z"'])
def test_a_number_too_large_for_a_double_is_carried_as_it_came_where_nobody_reads_it(number: bytes, time: bytes) -> None:
    raw = b'{"request_id":"a","label":1,"timestamp":%b,"x":[%b]}' % (time, number)
    result = codec().feedback(raw, NOW)
    assert isinstance(result, Accepted)
    assert b'"x":[%b]' % number in result.value
    assert read_head(result.value).time == 5


@pytest.mark.parametrize("field", ["prediction", "score", "weight", "latency_ms", "timestamp"])
def test_a_number_too_large_for_a_double_is_no_value_of_a_field_that_is_read(field: str) -> None:
    raw = orjson.dumps({**PREDICTION_EVENT, field: 0}).replace(b'"%b":0' % field.encode(), b'"%b":1e999' % field.encode())
    assert reason(codec().prediction(raw, NOW)) == Reason.WRONG_TYPE
    assert codec().predictions([Record(0, NOW, b"", raw)]) is None


@pytest.mark.parametrize(
    "raw", [b'{"x":1e999,"y":"\\ud800"}', b'{"x":1e999,"y":NaN}', b'{"x":1e999,}', b"\xef\xbb\xbf{}", "{}".encode("utf-16")]
)
def test_a_number_too_large_for_a_double_excuses_nothing_else(raw: bytes) -> None:
    assert reason(codec().feedback(raw, NOW)) in (Reason.NOT_JSON, Reason.NOT_UTF8)


def test_a_quick_look_at_the_event_time_follows_the_mapping() -> None:
    mapped = codec(prediction_fields={"timestamp": "meta.at"})
    assert mapped.event_time(b'{"timestamp":1,"meta":{"at":9}}', True, 5) == 9
