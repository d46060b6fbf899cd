"""An outcome record of `observations`, as far as detection reads it: a prediction and its label, without features and scores of others.

    bytes --at_once--> Observed, or None     a compiled decoder, which skips what nobody reads
    JSON value --of--> Observed, or None     field by field

`at_once` is the fast way, not a second opinion: what it answers is what `of` would have made of the same bytes, and None only says that
`of` is to be asked. A test holds the two together over generated and mangled records. As in core/shapes.py what is skipped is not looked
at as text, so that is done first; and nothing passes that may be nested deeper than events are, since the other reader has limits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from stream_monitor.core.codec import MAX_DEPTH, brackets, read
from stream_monitor.core.cohorts import MOST
from stream_monitor.core.shapes import MAX_TIME, Int64, Label, is_text
from stream_monitor.core.signals import CLASSES

_BEGINS = b'{"record":"outcome",'  # as the join writes it; one that begins otherwise is read field by field
_MAX_PARTITIONS = 100_000
_DEEP = MAX_DEPTH + 2  # an event lies two levels down
_FLAT = 5 * _DEEP  # bytes: an object needs so many, {"":}, to lie in another
_ARRAY = b"["[0]
_OBJECT, _NUMBER, _TEXT = (dict,), (int, float), (str,)
Time = Annotated[int, Meta(ge=0, le=MAX_TIME)]


class Predicted(Struct, gc=False):
    """The prediction. What is in `scores` and `slices` is as their types say by the fast way only."""

    request_id: str
    model: str
    model_version: str
    timestamp: Time
    prediction: Label
    scores: dict[str, Int64 | float] | None = None
    slices: dict[str, str] | None = None
    weight: Int64 | float | None = None


class Labelled(Struct, gc=False):
    """The feedback."""

    label: Label
    timestamp: Time
    request_id: str | None = None
    weight: Int64 | float | None = None


class Observed(Struct, gc=False):
    """Both. Which partition of the journal they came by, and how many there are: one of one where that makes no sense."""

    record: Literal["outcome"]
    prediction: Predicted
    feedback: Labelled
    partition: Int64 | None = None
    partitions: Int64 | None = None

    @property
    def origin(self) -> tuple[int, int]:
        """Partition, partitions."""
        partition, partitions = self.partition, self.partitions
        if partition is None or partitions is None or not 0 <= partition < partitions <= _MAX_PARTITIONS:
            return 0, 1
        return partition, partitions


_decode = Decoder(Observed).decode


def at_once(value: bytes) -> Observed | None:
    """The outcome in a record, if it is one beyond doubt."""
    if not value.startswith(_BEGINS) or not is_text(value):
        return None
    if (len(value) >= _FLAT or _ARRAY in value) and brackets(value) > _DEEP:
        return None
    try:
        return _decode(value)
    except (DecodeError, RecursionError):
        return None


def outcome(value: bytes) -> Observed | None:
    """The outcome in a record, the one way or the other."""
    one = at_once(value)
    if one is not None:
        return one
    try:
        record = read(value)
    except ValueError:
        return None
    return of(record) if type(record) is dict and record.get("record") == "outcome" else None


def of(record: dict[str, Any]) -> Observed | None:
    """The outcome that was read."""
    prediction: Any = record.get("prediction")
    feedback: Any = record.get("feedback")
    if not is_prediction(prediction) or not is_feedback(feedback):
        return None
    predicted = Predicted(
        prediction["request_id"],
        prediction["model"],
        prediction["model_version"],
        prediction["timestamp"],
        prediction["prediction"],
        _if(prediction, "scores", _OBJECT),
        _if(prediction, "slices", _OBJECT),
        _if(prediction, "weight", _NUMBER),
    )
    request_id, weight = _if(feedback, "request_id", _TEXT), _if(feedback, "weight", _NUMBER)
    labelled = Labelled(feedback["label"], feedback["timestamp"], request_id, weight)
    partition, partitions = record.get("partition"), record.get("partitions")
    whole = type(partition) is int and type(partitions) is int
    return Observed("outcome", predicted, labelled, *((partition, partitions) if whole else ()))


def _if(event: dict[str, Any], name: str, types: tuple[type, ...]) -> Any:
    """A field that need not be there; None where it is none that the fast way would take."""
    value = event.get(name)
    return value if type(value) in types else None


def is_prediction(value: Any) -> bool:
    """Whether a JSON value has what every prediction has."""
    get = value.get if type(value) is dict else {}.get
    return (
        type(get("model")) is str
        and type(get("model_version")) is str
        and is_time(get("timestamp"))
        and type(get("request_id")) is str
        and type(get("prediction")) in CLASSES
    )


def is_feedback(value: Any) -> bool:
    """Whether a JSON value has what every feedback has."""
    return type(value) is dict and is_time(value.get("timestamp")) and type(value.get("label")) in CLASSES


def is_cohort(record: dict[str, Any]) -> bool:
    """Whether a record has what every `feedback_cohort` has."""
    get = record.get
    labels, orphans = get("labels"), get("orphans")
    counted = type(labels) is int and type(orphans) is int and 0 <= orphans <= labels and 0 < labels <= MOST
    return counted and type(get("model")) is str and type(get("model_version")) is str and is_time(get("since"))


def is_time(value: Any) -> bool:
    """Whether it is a moment (ms) that an event may have: `observations` are open to others, and what is saved holds 64 bits."""
    return type(value) is int and 0 <= value <= MAX_TIME
