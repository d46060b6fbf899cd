"""Bytes <-> events. Every message is decoded, mapped and validated here, once; what fails is a value, never an exception.

    raw message --Codec--> Accepted(key, value)   the journal record, ready to be produced
                       +--> Rejection(reason, message)

A journal value is a fixed head, which the join reads, and the canonical JSON, which it only carries:

    byte 0      version, 2
    byte 1      kind: P prediction, F feedback, J joined (only in the store)
    bytes 2-9   event time, int64 big endian, ms (of J the label's)
    bytes 10-17 label digest (zero for P)
    bytes 18-19 length of the owner, uint16 big endian
    then        the owner (empty for F that names none), the JSON

The owner says whose a prediction is, in JSON: `["credit","v3"]`, or with those of its slices that are asked for,
`["credit","v3",{"country":"DE"}]`. It is all that the join keeps of a prediction once its label has come. In version 1 it was the model
alone, in UTF-8; what was written so is still read. A feedback that names model and version has it too, in the same form: should its
prediction never come, that is how it is known whose it was. In version 1 it had none.

An event that is already canonical (our field names, an integer timestamp) is carried as the bytes that came in. Nearly all messages
are, and in order: runs of these pass through a compiled decoder (`Codec.predictions`, `feedbacks`, core/shapes.py), and of the rest each
message through the checks of `prediction` and `feedback`, which find the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from math import isfinite
from struct import Struct
from typing import Any, NamedTuple, TypeVar, final

import orjson

from stream_monitor.core import shapes
from stream_monitor.core.hashing import label_digest
from stream_monitor.core.records import Record
from stream_monitor.core.settings import EventSettings
from stream_monitor.core.shapes import MAX_NAME, MAX_TIME

VERSION = 2
OF_MODELS = 1  # the version before, whose owner is the model alone
PREDICTION, FEEDBACK, JOINED = b"P"[0], b"F"[0], b"J"[0]
HEAD = Struct(">BBq8sH")
peek_head = Struct(">2xq8xH").unpack_from  # of a head what the join reads of each record: the event time, and the length of the owner
_time = Struct(">q").unpack_from
_start = Struct(">BBq").pack  # the part of the head that differs from message to message

MAX_OWNER = 4096  # bytes; the longest names fit, of slices as a rule a hundred
MAX_DEPTH = 250  # levels; what is read here must be written, and read inside an observation too, and orjson has limits (254, 1024)

_FLAT = 2 * MAX_DEPTH  # bytes; what is nested deeper is longer
_NO_DIGEST = bytes(8)
_NO_OWNER = bytes(2)
_NUMBERS = frozenset((int, float))
_LABELS = frozenset((str, int, float, bool))
_FEATURES = frozenset((str, int, float, bool, type(None)))
_STRINGS = frozenset((str,))
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)
_TIMESTAMP = re.compile(rb'"timestamp":\s*(\d{1,15})[,}\s]')
_CACHE = 10_000  # entries


class Reason(StrEnum):
    """Why a message went to the dead letter: the code in its header."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    IN_THE_FUTURE = "in_the_future"


class Accepted(NamedTuple):
    """A valid event as a journal record."""

    key: bytes
    value: bytes


_accept = partial(tuple.__new__, Accepted)  # half the price of Accepted(...), and there are a hundred thousand a second


@final
class Rejection(NamedTuple):
    """Why an event is refused: a code for programs and a sentence for people."""

    reason: Reason
    message: str


T = TypeVar("T")


class _Tails(dict[tuple[str, str], bytes]):
    """model, version -> what follows the time in the head of its predictions."""

    def __missing__(self, name: tuple[str, str]) -> bytes:
        if len(self) >= _CACHE:
            self.clear()
        tail = self[name] = _tail(orjson.dumps(name))
        return tail


def _tail(owner: bytes) -> bytes:
    return _NO_DIGEST + len(owner).to_bytes(2, "big") + owner


class Codec:
    """Decodes input messages under one configuration. Stateless but for caches of what repeats.

    `slices`: the keys of those that owners tell (JoinSettings.label_slices).
    """

    def __init__(self, settings: EventSettings, slices: Sequence[str] = ()) -> None:
        self._max_bytes = settings.max_event_bytes
        self._max_id = settings.max_id_bytes
        self._max_future = settings.max_future_ms
        self._prediction_fields = settings.prediction_fields
        self._feedback_fields = settings.feedback_fields
        self._short = min(self._max_bytes, _FLAT)
        self._digests: dict[tuple[type, Any], bytes] = {}
        self._tails = _Tails()
        self._slices = slices

    def predictions(self, messages: Sequence[Record]) -> list[tuple[bytes, bytes]] | None:
        """The journal records (key, value) of a run of messages of the predictions topic, if each is in order beyond doubt.

        None sends the caller to ask `prediction` about each.
        """
        found = None if self._prediction_fields else self._in_order(shapes.predictions, messages)
        if found is None:
            return None
        events, keys, values = found
        if self._slices:
            told = self._tail_of
            return [
                (key, b"".join((_start(VERSION, PREDICTION, event.timestamp), told(event.model, event.model_version, event.slices), value)))
                for key, event, value in zip(keys, events, values, strict=True)
            ]
        tails = self._tails
        return [
            (key, b"".join((_start(VERSION, PREDICTION, event.timestamp), tails[event.model, event.model_version], value)))
            for key, event, value in zip(keys, events, values, strict=True)
        ]

    def feedbacks(self, messages: Sequence[Record]) -> list[tuple[bytes, bytes]] | None:
        """As `predictions`, of the feedback topic."""
        found = None if self._feedback_fields else self._in_order(shapes.feedbacks, messages)
        if found is None:
            return None
        events, keys, values = found
        digest, owner = self._digest, self._owner_of
        return [
            (
                key,
                b"".join(
                    (
                        _start(VERSION, FEEDBACK, event.timestamp),
                        digest(event.label),
                        _NO_OWNER if event.model is None else owner(event.model, event.model_version, event.slices),
                        value,
                    )
                ),
            )
            for key, event, value in zip(keys, events, values, strict=True)
        ]

    def _in_order(
        self, decode: Callable[[list[bytes]], list[T] | None], messages: Sequence[Record]
    ) -> tuple[list[T], list[bytes], list[bytes]] | None:
        """The events of a run, their ids in UTF-8, and their bytes; None where one may be refused."""
        values: list[bytes] = [message.value for message in messages]
        if None in values or (max(map(len, values)) > self._short and not all(map(self._is_flat, values))):
            return None
        events: list[Any] | None = decode(values)
        if events is None:
            return None
        keys = [event.request_id.encode() for event in events]
        if max(map(len, keys)) > self._max_id:
            return None
        if max([event.timestamp for event in events]) > min([message.time for message in messages]) + self._max_future:
            return None
        return events, keys, values

    def _is_flat(self, raw: bytes) -> bool:
        """Whether a message is short enough, and surely not nested too deep."""
        return len(raw) <= self._max_bytes and brackets(raw) <= MAX_DEPTH

    def prediction(self, raw: bytes | None, kafka_time: int) -> Accepted | Rejection:
        """The journal record of a message of the predictions topic; `kafka_time` is the message's timestamp, ms."""
        event = self._load(raw, self._prediction_fields)
        if type(event) is Rejection:
            return event
        try:
            request_id, model, version = event["request_id"], event["model"], event["model_version"]
            time, answer = event["timestamp"], event["prediction"]
        except KeyError as missing:
            return Rejection(Reason.MISSING_FIELD, f"{missing.args[0]} is missing")
        if type(request_id) is not str or not request_id:
            return _name_problem("request_id", request_id)
        key = request_id.encode()
        if len(key) > self._max_id:
            return _too_long("request_id", self._max_id, "bytes")
        if type(model) is not str or not 0 < len(model) <= MAX_NAME:
            return _name_problem("model", model)
        if type(version) is not str or not 0 < len(version) <= MAX_NAME:
            return _name_problem("model_version", version)
        canonical = not self._prediction_fields
        if type(time) is not int:
            parsed = _timestamp(time)
            if type(parsed) is Rejection:
                return parsed
            event["timestamp"] = time = parsed
            canonical = False
        if not 0 <= time <= kafka_time + self._max_future and (refused := self._out_of_time(time, kafka_time)) is not None:
            return refused
        if type(answer) not in _LABELS:
            return _label_problem("prediction", answer)
        if len(event) > 5 and (refused := _optional_problem(event)) is not None:
            return refused

        body: bytes = raw if canonical else orjson.dumps(event)  # type: ignore[assignment]
        if len(body) > self._max_bytes:
            return self._too_large(body)
        return _accept((key, _start(VERSION, PREDICTION, time) + self._tail_of(model, version, event.get("slices")) + body))

    def feedback(self, raw: bytes | None, kafka_time: int) -> Accepted | Rejection:
        """The journal record of a message of the feedback topic; `kafka_time` is the message's timestamp, ms."""
        event = self._load(raw, self._feedback_fields)
        if type(event) is Rejection:
            return event
        try:
            request_id, label, time = event["request_id"], event["label"], event["timestamp"]
        except KeyError as missing:
            return Rejection(Reason.MISSING_FIELD, f"{missing.args[0]} is missing")
        if type(request_id) is not str or not request_id:
            return _name_problem("request_id", request_id)
        key = request_id.encode()
        if len(key) > self._max_id:
            return _too_long("request_id", self._max_id, "bytes")
        canonical = not self._feedback_fields
        if type(time) is not int:
            parsed = _timestamp(time)
            if type(parsed) is Rejection:
                return parsed
            event["timestamp"] = time = parsed
            canonical = False
        if not 0 <= time <= kafka_time + self._max_future and (refused := self._out_of_time(time, kafka_time)) is not None:
            return refused
        if type(label) not in _LABELS:
            return _label_problem("label", label)
        if len(event) > 3 and (refused := _optional_problem_of_feedback(event)) is not None:
            return refused

        body: bytes = raw if canonical else orjson.dumps(event)  # type: ignore[assignment]
        if len(body) > self._max_bytes:
            return self._too_large(body)
        owner = self._owner_of(event.get("model"), event.get("model_version"), event.get("slices"))
        return _accept((key, _start(VERSION, FEEDBACK, time) + self._digest(label) + owner + body))

    def event_time(self, raw: bytes | None, is_prediction: bool, kafka_time: int) -> int:
        """The event time of a message (ms) at a quick look, before it is decoded; 0 where there is none that could be accepted."""
        fields = self._prediction_fields if is_prediction else self._feedback_fields
        time: Any
        if not fields and raw is not None and (found := _TIMESTAMP.search(raw)):
            time = int(found[1])
        else:
            event = self._load(raw, fields)
            time = None if isinstance(event, Rejection) else event.get("timestamp")
            if type(time) is str:
                time = _timestamp(time)
        return time if type(time) is int and 0 <= time <= kafka_time + self._max_future else 0

    def _load(self, raw: bytes | None, fields: Mapping[str, str]) -> dict[str, Any] | Rejection:
        if raw is None:
            return Rejection(Reason.NULL_VALUE, "the message has no value; tombstones mean nothing here")
        if len(raw) > self._max_bytes:
            return self._too_large(raw)
        try:
            event = read(raw)
        except ValueError as error:
            return _undecodable(raw, error)
        if type(event) is not dict:
            return Rejection(Reason.NOT_AN_OBJECT, f"the value is JSON, but {_what(event)}, not an object")
        if brackets(raw) > MAX_DEPTH and _depth(event) > MAX_DEPTH:
            return Rejection(Reason.TOO_LARGE, f"the value is nested more than {MAX_DEPTH} levels deep")
        if fields:
            _map(event, fields)
        return event

    def _too_large(self, value: bytes) -> Rejection:
        """As it came, or written anew: an outcome that carries two such events would fit into no message."""
        return Rejection(Reason.TOO_LARGE, f"the value has {len(value)} bytes; events.max_event_bytes allows {self._max_bytes}")

    def _out_of_time(self, time: int, kafka_time: int) -> Rejection | None:
        if not 0 <= time <= MAX_TIME:
            return Rejection(Reason.OUT_OF_RANGE, f"timestamp is {time}; ms since the epoch, not below 0, are expected")
        if kafka_time <= 0:  # the broker gave no timestamp to hold it against
            return None
        ahead = (time - kafka_time) / 1000
        return Rejection(
            Reason.IN_THE_FUTURE,
            f"timestamp is {ahead:.0f} s after the message was written; events.max_future allows"
            f" {self._max_future / 1000:.0f} s; is the unit milliseconds and the producer's clock right?",
        )

    def _tail_of(self, model: str, version: str, slices: Mapping[str, str] | None) -> bytes:
        """What follows the time in the head of a prediction. Without the slices where these are too long to be kept."""
        if self._slices and slices and (kept := {key: slices[key] for key in self._slices if key in slices}):
            owner = orjson.dumps((model, version, kept))
            if len(owner) <= MAX_OWNER:
                return _tail(owner)
        return self._tails[model, version]

    def _owner_of(self, model: str | None, version: str | None, slices: Mapping[str, str] | None) -> bytes:
        """What follows the digest in the head of a feedback that may name whose it is: half a name names nobody."""
        if model is None or version is None:
            return _NO_OWNER
        return self._tail_of(model, version, slices)[len(_NO_DIGEST) :]

    def _digest(self, label: Any) -> bytes:
        # Classes repeat: remember the digest of each. The type is part of the key because 1 == 1.0 == True.
        cached = self._digests.get((type(label), label))
        if cached is None:
            if len(self._digests) >= _CACHE:
                self._digests.clear()
            cached = self._digests[type(label), label] = label_digest(label)
        return cached


def _optional_problem(event: dict[str, Any]) -> Rejection | None:
    """What is wrong with the optional fields of a prediction; missing and null are the same."""
    get = event.get
    score = get("score")
    if score is not None and (type(score) not in _NUMBERS or not 0 <= score <= 1):
        return _number_problem("score", score, "a number in [0, 1]")
    features = get("features")
    if features is not None and (type(features) is not dict or not _FEATURES.issuperset(map(type, features.values()))):
        return _wrong_type("features", features, "an object of name -> number, string, boolean or null")
    scores = get("scores")
    if scores is not None and not _are_probabilities(scores):
        return _wrong_type("scores", scores, "an object of class -> probability in [0, 1]")
    latency = get("latency_ms")
    if latency is not None and (type(latency) not in _NUMBERS or latency < 0):
        return _number_problem("latency_ms", latency, "a number not below 0")
    return _common_problem(event)


def _optional_problem_of_feedback(event: dict[str, Any]) -> Rejection | None:
    """As `_optional_problem`, of a feedback."""
    for field in ("model", "model_version"):
        name = event.get(field)
        if name is not None and (type(name) is not str or not 0 < len(name) <= MAX_NAME):
            return _name_problem(field, name)
    return _common_problem(event)


def _common_problem(event: dict[str, Any]) -> Rejection | None:
    """What is wrong with the optional fields that both have."""
    slices = event.get("slices")
    if slices is not None and (type(slices) is not dict or not _STRINGS.issuperset(map(type, slices.values()))):
        return _wrong_type("slices", slices, "an object of name -> string")
    weight = event.get("weight")
    if weight is not None and (type(weight) not in _NUMBERS or weight <= 0):
        return _number_problem("weight", weight, "a number above 0")
    return None


def read(raw: bytes) -> Any:
    """The JSON value in `raw`; a number too large for a double is an `orjson.Fragment`, to be carried as it came.

    JSON has such numbers, and a message is not refused for one in a field that nobody reads. Raises ValueError for what is no JSON.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(raw.decode(), parse_float=_number, parse_int=_number, parse_constant=_no_number)
            orjson.dumps(value)  # refuses halves of a surrogate pair
        except (ValueError, TypeError, RecursionError):
            value = None
        if value is None:
            raise
        return value


def _number(text: str) -> Any:
    number = orjson.loads(text) if len(text) < 300 and "e" not in text.lower() else float(text)
    return number if isfinite(number) else orjson.Fragment(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


class Head(NamedTuple):
    """A journal value's head, unpacked, and where its JSON starts."""

    version: int
    kind: int
    time: int
    digest: bytes
    owner: bytes
    body: int


class Models(dict[bytes, bytes]):
    """owner -> its model, UTF-8."""

    def __missing__(self, owner: bytes) -> bytes:
        if len(self) >= _CACHE:
            self.clear()
        model: str = orjson.loads(owner)[0]
        name = self[owner] = model.encode()
        return name


def whose(version: int, owner: bytes) -> dict[str, Any]:
    """What an owner in a head of this version says, under the names of the observations."""
    said = (owner.decode(),) if version == OF_MODELS else orjson.loads(owner)
    return dict(zip(("model", "model_version", "slices"), said, strict=False))


def journal_time(value: bytes) -> int:
    """The event time in a journal value's head, ms."""
    time: int = _time(value, 2)[0]
    return time


def read_head(value: bytes) -> Head:
    """Unpacks a journal value's head. Raises ValueError for a version this program does not know."""
    version, kind, time, digest, length = HEAD.unpack_from(value)
    if version not in (OF_MODELS, VERSION):
        raise ValueError(f"event of version {version}; this program reads versions {OF_MODELS} and {VERSION}")
    body = HEAD.size + length
    return Head(version, kind, time, digest, value[HEAD.size : body], body)


def _map(event: dict[str, Any], fields: Mapping[str, str]) -> None:
    """Puts each mapped field, found at its dotted path, under our name; a path that leads nowhere leaves it missing."""
    found = {}
    for name, path in fields.items():
        at: Any = event
        for step in path.split("."):
            at = at.get(step) if type(at) is dict else None
        found[name] = at
    for name, at in found.items():
        if at is None:
            event.pop(name, None)
        else:
            event[name] = at


def _timestamp(value: Any) -> int | Rejection:
    if value is None:
        return Rejection(Reason.MISSING_FIELD, "timestamp is missing")
    if type(value) is not str:
        return _wrong_type("timestamp", value, "an integer (ms since the epoch) or an RFC 3339 string")
    if _RFC3339.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper())
            # Not .timestamp(): integers stay exact.
            return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND
        except (ValueError, OverflowError):
            pass
    return Rejection(Reason.WRONG_TYPE, f"timestamp {value[:40]!r} is not RFC 3339, for example 2024-03-05T14:10:00Z")


_MILLISECOND = datetime.resolution * 1000


def brackets(raw: bytes) -> int:
    """How many open in these bytes: no value in there is nested deeper."""
    return raw.count(b"[") + raw.count(b"{")


def _depth(value: Any) -> int:
    """How many objects and arrays lie in each other, level by level."""
    depth, level = 0, [value]
    while level := [v for v in level if type(v) in (dict, list)]:
        depth += 1
        level = [inner for v in level for inner in (v.values() if type(v) is dict else v)]
    return depth


def _are_probabilities(scores: Any) -> bool:
    return type(scores) is dict and all(type(p) in _NUMBERS and 0 <= p <= 1 for p in scores.values())


def _undecodable(raw: bytes, error: Exception) -> Rejection:
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return Rejection(Reason.NOT_UTF8, f"the value is not UTF-8: {wrong.reason} at byte {wrong.start}")
    return Rejection(Reason.NOT_JSON, f"the value is not JSON: {error}")


def _what(value: Any) -> str:
    """A short name for a JSON value, for messages; never the value itself, which may be private."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _name_problem(field: str, value: Any) -> Rejection:
    if value is None:
        return Rejection(Reason.MISSING_FIELD, f"{field} is missing")
    if value == "":
        return Rejection(Reason.MISSING_FIELD, f"{field} is empty")
    if type(value) is str:
        return _too_long(field, MAX_NAME, "characters")
    return _wrong_type(field, value, "a string")


def _label_problem(field: str, value: Any) -> Rejection:
    if value is None:
        return Rejection(Reason.MISSING_FIELD, f"{field} is missing")
    return _wrong_type(field, value, "a string, a number or a boolean")


def _number_problem(field: str, value: Any, wanted: str) -> Rejection:
    if type(value) in _NUMBERS:
        return Rejection(Reason.OUT_OF_RANGE, f"{field} is {value}; {wanted} is expected")
    return _wrong_type(field, value, wanted)


def _wrong_type(field: str, value: Any, wanted: str) -> Rejection:
    return Rejection(Reason.WRONG_TYPE, f"{field} is {_what(value)}; {wanted} is expected")


def _too_long(field: str, limit: int, unit: str) -> Rejection:
    return Rejection(Reason.TOO_LARGE, f"{field} is longer than {limit} {unit}")
