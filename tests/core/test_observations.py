"""The fast way to read an outcome says what the slow way says, or nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.core import observations
from stream_monitor.core.codec import read
from stream_monitor.core.observations import Observed
from tests.core.test_shapes import ANYTHING, mangled

PREDICTION: dict[str, Any] = {
    "request_id": "r-1",
    "model": "credit",
    "model_version": "v3",
    "timestamp": 1_709_647_800_000,
    "prediction": "approve",
    "score": 0.7,
    "features": {"amount": 12.5, "country": "DE", "new": True, "age": None},
    "slices": {"country": "DE", "device": "phone"},
    "latency_ms": 12,
}
FEEDBACK: dict[str, Any] = {"request_id": "r-1", "label": "decline", "timestamp": 1_709_647_900_000}


def written(prediction: Any = PREDICTION, feedback: Any = FEEDBACK, **more: Any) -> bytes:
    return orjson.dumps({"record": "outcome", "label_delay_ms": 5, "prediction": prediction, "feedback": feedback} | more)


def slowly(value: bytes) -> Observed | None:
    try:
        record = read(value)
    except ValueError:
        return None
    return observations.of(record) if type(record) is dict and record.get("record") == "outcome" else None


def told(one: Observed | None) -> str | None:
    """What can be known of it, by `repr` since 1 == 1.0 == True."""
    return None if one is None else repr((one.prediction, one.feedback, one.origin))


def changed(ordinary: dict[str, Any], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*ordinary, *more]), ANYTHING, max_size=2).map(lambda changes: ordinary | changes)


PLACES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"partition": 1, "partitions": 3}, {"partition": 3, "partitions": 3}, {"partition": 1}, {"partition": True}]
)
TAILS = st.sampled_from(
    [b"", b"", b"", b"}", b" ", b',"record":"prediction"}', b',"feedback":null}', b',"x":1e999}', b',"x":' + b"[" * 300 + b"]" * 300 + b"}"]
)


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """An outcome, most often with a few bytes replaced by others."""
    value = written(draw(changed(PREDICTION, "scores", "weight", "other")), draw(changed(FEEDBACK, "weight")), **draw(PLACES))
    tail = draw(TAILS)
    value = value[:-1] + tail if tail.startswith(b",") else value + tail
    return mangled(draw, value)


@settings(max_examples=500, deadline=None)
@given(values())
def test_what_is_read_at_once_is_what_is_read_field_by_field(value: bytes) -> None:
    found = observations.at_once(value)
    if found is not None:
        assert told(found) == told(slowly(value)), value
    assert told(observations.outcome(value)) == told(slowly(value)), value


@pytest.mark.parametrize(
    "value",
    [
        written(),
        written(partition=2, partitions=12),
        written(PREDICTION | {"slices": None, "weight": 2, "scores": {"a": 1, "b": 0}}, FEEDBACK | {"label": 1.5, "weight": 0.5}),
        written(PREDICTION | {"prediction": True, "features": {"größe": ["süß", "\n"]}, "scores": {"a": 1, "b": 0.0}}),
        written(PREDICTION | {"slices": {"größe": "süß"}, "features": {"all": "x" * 2_000}}),
        written().replace(b"12.5", b"1e999"),
        written(PREDICTION | {"timestamp": 2**53 - 1}, FEEDBACK | {"timestamp": 0}),
    ],
)
def test_ordinary_outcomes_are_read_at_once(value: bytes) -> None:
    found = observations.at_once(value)
    assert found is not None
    assert told(found) == told(slowly(value))


@pytest.mark.parametrize(
    "value",
    [
        written(PREDICTION | {"slices": {"country": None, "device": "phone"}}),
        written(PREDICTION | {"scores": "none"}, FEEDBACK | {"request_id": 7}),
        written(PREDICTION | {"weight": "2"}, partition="1"),
        written().replace(b'"features":{', b'"features":{"deep":' + b"[" * 300 + b"]" * 300 + b","),
    ],
)
def test_odd_outcomes_are_read_field_by_field(value: bytes) -> None:
    assert observations.at_once(value) is None
    assert slowly(value) is not None


@pytest.mark.parametrize(
    "value",
    [
        written().replace(b'"DE"', b'"\xff"'),
        written().replace(b'"DE"', b'"\\ud800"'),
        written(PREDICTION | {"timestamp": 1.0}),
        written(PREDICTION | {"timestamp": -1}),
        written(PREDICTION | {"timestamp": 2**53}),
        written(PREDICTION | {"timestamp": 2**63}),
        written(feedback=FEEDBACK | {"timestamp": 2**64 - 1}),
        written(feedback=FEEDBACK | {"label": None}),
        written(prediction=None),
        written(record="prediction"),
        written()[:-1],
        # Only one of the two readers refuses it, so the other one must not be asked alone.
        written().replace(b"12.5", b"1e999").replace(b'"features":{', b'"features":{"deep":' + b"[" * 300 + b"]" * 300 + b","),
        b"",
    ],
)
def test_what_is_no_outcome_is_none_either_way(value: bytes) -> None:
    assert observations.at_once(value) is None
    assert slowly(value) is None


@pytest.mark.parametrize(("partition", "partitions"), [(None, 3), (3, 3), (-1, 3), (True, 3), (0, 100_001), ("0", 3), (1.0, 3)])
def test_an_origin_that_makes_no_sense_is_one_of_one(partition: Any, partitions: Any) -> None:
    found = slowly(written(partition=partition, partitions=partitions))
    assert found is not None
    assert found.origin == (0, 1)
