"""Events in order, as types: a compiled decoder says of a run of messages that each is one, or nothing.

    raw bytes --predictions / feedbacks--> the fields that decide, or None

It is the fast way through `codec`, not a second opinion: what passes here must pass the checks there with the same key, time and label.
Who gets None is examined there field by field, for the reason or for what these types leave out (RFC 3339 times, integers
beyond 64 bits). A test holds the two together over generated and mangled messages.

Unknown fields are skipped, which the decoder does without looking at their UTF-8, and without minding numbers too large for a
double. So the text is looked at first, and such numbers are carried as they came (`codec.read`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

MAX_NAME = 256  # characters of a model's or a version's name
MAX_TIME = 2**53 - 1  # ms; what a double holds exactly, since Lua has no other number

T = TypeVar("T")

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Time = Annotated[int, Meta(ge=0, le=MAX_TIME)]
_Id = Annotated[str, Meta(min_length=1)]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Label = str | bool | Int64 | float
_Share = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(gt=0)]
_NotNegative = Annotated[float, Meta(ge=0)]


class Prediction(Struct, gc=False):
    """See schemas/prediction.json."""

    request_id: _Id
    model: _Name
    model_version: _Name
    timestamp: _Time
    prediction: Label
    score: _Share | None = None
    scores: dict[str, _Share] | None = None
    features: dict[str, str | bool | Int64 | float | None] | None = None
    slices: dict[str, str] | None = None
    weight: _Positive | None = None
    latency_ms: _NotNegative | None = None


class Feedback(Struct, gc=False):
    """See schemas/feedback.json."""

    request_id: _Id
    label: Label
    timestamp: _Time
    model: _Name | None = None
    model_version: _Name | None = None
    slices: dict[str, str] | None = None
    weight: _Positive | None = None


_prediction = Decoder(Prediction).decode
_feedback = Decoder(Feedback).decode


def predictions(values: list[bytes]) -> list[Prediction] | None:
    """The predictions in `values`, if each is one beyond doubt."""
    return _each(_prediction, values)


def feedbacks(values: list[bytes]) -> list[Feedback] | None:
    """The feedbacks in `values`, if each is one beyond doubt."""
    return _each(_feedback, values)


def _each(decode: Callable[[bytes], T], values: list[bytes]) -> list[T] | None:
    # Halves of a character in two messages may make one here, but then neither is JSON.
    if not is_text(b"".join(values)):
        return None
    try:
        return [decode(value) for value in values]
    except (DecodeError, RecursionError):
        return None


def is_text(value: bytes) -> bool:
    """Whether it is UTF-8."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
