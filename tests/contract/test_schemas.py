"""Code and schemas say the same: events made from the schemas, near misses, and everything that the code writes.

Where the codec can know more than a schema can say, `accepts` says so too: a request id's length in bytes, the days of a month, moments
before 1970, and that an integer is written without a fraction (JSON Schema counts 1.0 as one).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.validators import extend

from stream_monitor.core import events
from stream_monitor.core.alerting import TRANSITIONS
from stream_monitor.core.codec import Accepted, Codec, Reason
from stream_monitor.core.control import ACTIONS, decide
from stream_monitor.core.joining import Applied, Call, Fold, emit
from stream_monitor.core.limits import parse
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.records import Record
from stream_monitor.core.routing import MAX_DEAD_BYTES, route
from stream_monitor.core.settings import AlertBudget, DetectorSettings, DetectSettings, EventSettings, JoinSettings, MonitorSettings
from stream_monitor.core.snapshots import Snapshot, cut, firing
from tests.support.observations import control, judged, predicted, prediction, run

FOLDER = Path(__file__).parents[2] / "schemas"
NAMES = ("prediction", "feedback", "observation", "alert", "dead-letter")
SCHEMAS: dict[str, dict[str, Any]] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES}
ASYNCAPI: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
CODEC = Codec(EventSettings(), slices=("country",))
NO_TIME = -1  # a message to which the broker gave no timestamp: nothing lies in its future

quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

_types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int)
_formats = FormatChecker(formats=())


def _is_a_moment_since_1970(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return value.isprintable() and datetime.fromisoformat(value.upper()) >= datetime(1970, 1, 1, tzinfo=UTC)


_formats.checks("date-time", raises=(ValueError, TypeError))(_is_a_moment_since_1970)


def validator(schema: Any) -> Any:
    return extend(Draft202012Validator, type_checker=_types)(schema, format_checker=_formats)


VALIDATORS = {name: validator(schema) for name, schema in SCHEMAS.items()}


def accepts(name: str, event: Any) -> bool:
    """What the schema says, and what only words in it can say."""
    return bool(VALIDATORS[name].is_valid(event)) and len(event["request_id"].encode()) <= 512


def decode(name: str, event: Any) -> Any:
    return (CODEC.prediction if name == "prediction" else CODEC.feedback)(json.dumps(event).encode(), NO_TIME)


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every named field of a schema, however deep."""
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            yield f"{path}/{name}", field
        for key, value in schema.items():
            yield from parts(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from parts(value, f"{path}/{i}")


@pytest.mark.parametrize("name", NAMES)
class TestEverySchema:
    def test_is_valid_and_names_itself(self, name: str) -> None:
        schema = SCHEMAS[name]
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"urn:stream-monitor:schema:{name}"
        assert schema["title"]
        assert schema["description"]

    def test_describes_every_field(self, name: str) -> None:
        definitions = {f"#/$defs/{key}": part for key, part in SCHEMAS[name].get("$defs", {}).items()}
        fields = [(path, definitions.get(field.get("$ref"), field)) for path, field in parts(SCHEMAS[name])]
        assert fields
        assert [path for path, field in fields if not field.get("description")] == []

    def test_says_the_unit_of_every_time(self, name: str) -> None:
        times = [
            (path, json.dumps(field))
            for path, field in parts(SCHEMAS[name])
            if path.endswith(("timestamp", "_ms", "_at", "_seen", "since", "until"))
        ]
        assert [path for path, field in times if "illiseconds" not in field] == []

    def test_has_examples_that_are_valid_in_draft_07_too(self, name: str) -> None:
        assert len(SCHEMAS[name]["examples"]) >= 2
        for example in SCHEMAS[name]["examples"]:
            VALIDATORS[name].validate(example)
            Draft7Validator({key: value for key, value in SCHEMAS[name].items() if key != "$schema"}).validate(example)

    def test_refuses_an_example_that_lacks_a_required_field(self, name: str) -> None:
        for example in SCHEMAS[name]["examples"]:
            for field in SCHEMAS[name].get("required", ["record"]):
                assert not VALIDATORS[name].is_valid({key: value for key, value in example.items() if key != field})


@pytest.mark.parametrize("name", ["prediction", "feedback"])
def test_the_codec_accepts_the_examples(name: str) -> None:
    for example in SCHEMAS[name]["examples"]:
        assert isinstance(decode(name, example), Accepted)


# What a mistaken producer may write: every type, and both sides of every limit.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.0, 1.0, 0.5, 1.5, -0.5, 1e-300, 1e300, 10**30, 2**53 - 1, 2**53, 2**63, 2**64,
    "", "a", "0", "é", "é" * 256, "é" * 257, "a" * 256, "a" * 257, "a" * 512, "a" * 513,
    [], [1], ["a"], {}, {"a": 1}, {"a": 0.5}, {"a": 1.5}, {"a": -1}, {"a": "b"}, {"a": True}, {"a": None}, {"a": []},
    {"": {}}, {"a": 1, "b": "c"},
    "2024-03-05T14:10:00Z", "2024-03-05t14:10:00.123456789z", "2024-03-05T14:10:00+23:59", "1969-12-31T23:30:00-01:00",
    "9999-12-31T23:59:59-23:59",
    "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-03-05T24:00:00Z", "2024-03-05T23:59:60Z",
    "2024-03-05T00:00:00+24:00", "2024-03-05T00:00:00+05:60", "1970-01-01T00:00:00+00:01", "0000-01-01T00:00:00Z", "2024-03-05T14:10:00",
    "2024-03-05", "2024-03-05 14:10:00Z", "2024-03-05T14:10:00Z\n", "٢٠٢٤-03-05T14:10:00Z", "2024-03-05T14:10:00.Z",
]  # fmt: skip


@pytest.mark.parametrize("name", ["prediction", "feedback"])
def test_one_field_replaced_by_anything_is_judged_alike_by_schema_and_codec(name: str) -> None:
    for example in SCHEMAS[name]["examples"]:
        for field in SCHEMAS[name]["properties"]:
            for value in VALUES:
                event = {**example, field: value}
                assert isinstance(decode(name, event), Accepted) == accepts(name, event), (field, value, decode(name, event))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def described(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the keywords that the event schemas use. Own code, since hypothesis-jsonschema fails with new versions of hypothesis."""
    if "anyOf" in schema:
        return st.one_of([described(one) for one in schema["anyOf"]])
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return st.one_of([_of_type(one, schema) for one in types])


def _of_type(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if name == "object" and "properties" in schema:
        fields = {key: described(field) for key, field in schema["properties"].items()}
        required = {key: fields.pop(key) for key in schema["required"]}
        named = st.fixed_dictionaries(required, optional=fields)
        others = st.dictionaries(st.text(max_size=8).filter(lambda key: key not in schema["properties"]), json_values, max_size=2)
        return st.builds(lambda one, more: {**one, **more}, named, others)
    if name == "object":
        return st.dictionaries(st.text(max_size=8), described(schema["additionalProperties"]), max_size=3)
    if name == "string" and schema.get("format") == "date-time":
        digits = st.text("0123456789", min_size=1, max_size=9).map(lambda text: f".{text}") | st.just("")
        offset = st.from_regex(r"[Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]", fullmatch=True)
        moments = st.datetimes(datetime(1969, 12, 31)).map(lambda moment: moment.isoformat(timespec="seconds"))
        return st.builds(lambda moment, more, zone: moment + more + zone, moments, digits, offset)
    if name == "string":
        long = st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 20))
        return st.text(min_size=schema.get("minLength", 0), max_size=20) | long
    if name == "integer":
        return st.integers(low, high)
    if name == "number":
        whole = st.integers(-(2**70) if low is None else low + ("exclusiveMinimum" in schema), 2**70 if high is None else high)
        return whole | st.floats(low, high, exclude_min="exclusiveMinimum" in schema, allow_nan=False, allow_infinity=False)
    return {"boolean": st.booleans(), "null": st.none()}[name]


GENERATORS = {name: described(SCHEMAS[name]) for name in ("prediction", "feedback")}


def made_from(name: str) -> st.SearchStrategy[Any]:
    """Events that the schema describes, and that keep to what only its words say."""
    return GENERATORS[name].filter(lambda event: accepts(name, event))


@st.composite
def near_misses(draw: st.DrawFn, name: str) -> Any:
    fields = sorted(SCHEMAS[name]["properties"])
    event = dict(draw(made_from(name) | st.sampled_from(SCHEMAS[name]["examples"])))
    for field in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3)):
        if draw(st.integers(0, 3)):
            event[field] = draw(st.sampled_from(VALUES) | json_values)
        else:
            event.pop(field, None)
    return event


@pytest.mark.parametrize("name", ["prediction", "feedback"])
@quick
@given(data=st.data())
def test_the_codec_accepts_every_event_made_from_the_schema(name: str, data: st.DataObject) -> None:
    event = data.draw(made_from(name))
    assert isinstance(decode(name, event), Accepted), decode(name, event)


@pytest.mark.parametrize("name", ["prediction", "feedback"])
@settings(quick, max_examples=400)
@given(data=st.data())
def test_near_misses_are_judged_alike_by_schema_and_codec(name: str, data: st.DataObject) -> None:
    event = data.draw(near_misses(name))
    assert isinstance(decode(name, event), Accepted) == accepts(name, event), decode(name, event)


@given(value=json_values.filter(lambda value: type(value) is not dict))
@settings(quick, max_examples=50)
def test_what_is_no_object_is_refused_by_both(value: Any) -> None:
    for name in ("prediction", "feedback"):
        assert not VALIDATORS[name].is_valid(value)
        assert not isinstance(decode(name, value), Accepted)


@pytest.mark.parametrize(
    ("schema", "event"),
    [
        (SCHEMAS["prediction"], events.Prediction),
        (SCHEMAS["feedback"], events.Feedback),
        *zip(
            SCHEMAS["observation"]["oneOf"],
            (
                events.PredictionRecord,
                events.OutcomeRecord,
                events.FeedbackIssueRecord,
                events.FeedbackCohortRecord,
                events.ControlRecord,
            ),
            strict=True,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_types_have_the_fields_of_the_schemas(schema: dict[str, Any], event: Any) -> None:
    always_written = {"prediction"} if event is events.FeedbackIssueRecord else set()
    hints = get_type_hints(event, include_extras=True)
    assert set(schema["properties"]) == set(hints)
    assert set(schema["required"]) == {name for name, hint in hints.items() if get_origin(hint) is not NotRequired} | always_written


def test_the_kind_of_an_alert_says_where_to_read_whether_the_inputs_moved() -> None:
    alert = SCHEMAS["alert"]["properties"]
    assert "`details.inputs`" in alert["kind"]["description"]
    assert "moved" in alert["details"]["properties"]["inputs"]["enum"]


def test_enumerations_are_those_of_the_code() -> None:
    alert, control_record = SCHEMAS["alert"]["properties"], SCHEMAS["observation"]["oneOf"][-1]["properties"]
    assert alert["kind"]["enum"] == list(events.Kind)
    assert alert["status"]["enum"] == list(events.Status)
    assert alert["severity"]["enum"] == list(events.Severity)
    assert alert["assurance"]["enum"] == list(get_args(get_type_hints(events.Alert)["assurance"]))
    assert control_record["action"]["enum"] == list(get_args(get_type_hints(events.ControlRecord)["action"]))
    assert SCHEMAS["dead-letter"]["properties"]["__streams.errors.exception"]["enum"] == list(Reason)


@pytest.mark.parametrize("name", ["prediction", "feedback"])
def test_an_observation_holds_the_event_as_it_came_in_but_for_an_integer_timestamp(name: str) -> None:
    event, embedded = SCHEMAS[name], SCHEMAS["observation"]["$defs"][name]
    assert embedded["required"] == event["required"]
    assert {**embedded["properties"], "timestamp": None} == {**event["properties"], "timestamp": None}
    assert embedded["properties"]["timestamp"]["type"] == "integer"


@settings(quick, max_examples=60)
@given(data=st.data())
def test_whatever_the_join_emits_is_an_observation(data: st.DataObject) -> None:
    join = JoinSettings(window_ms=1000, slack_ms=300, slot_ms=50)
    ids = st.sampled_from(["a", "b"])
    journal: list[Record] = []
    clock = 0
    for offset in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from(["prediction", "feedback"]))
        event = data.draw(made_from(name) | st.sampled_from(SCHEMAS[name]["examples"]))
        accepted = decode(name, {**event, "request_id": data.draw(ids)})
        clock += data.draw(st.sampled_from([0, 10, 1100]))
        journal.append(Record(offset, clock, accepted.key, accepted.value))
    answer = Fold(join).apply(Call(0, 0, len(journal), 0, journal, "epoch"))
    assert isinstance(answer, Applied)
    for _, kind, value in emit(journal, answer, 0):
        record = json.loads(value)
        VALIDATORS["observation"].validate(record)
        assert record["record"].encode() == kind
        assert MESSAGES["observation"]["headers"]["properties"]["record"]["enum"].count(kind.decode()) == 1


COHORT = next(one for one in SCHEMAS["observation"]["oneOf"] if one["title"] == "feedback_cohort")


def is_understood(record: Any) -> bool:
    return "not_understood" not in run(DetectSettings(), [json.dumps(record).encode()])[0].counters


@quick
@given(data=st.data())
def test_a_cohort_made_from_the_schema_is_understood_where_it_adds_up(data: st.DataObject) -> None:
    fields = {name: described(field) for name, field in COHORT["properties"].items() if name not in ("record", "slices")}
    record = {"record": "feedback_cohort", **data.draw(st.fixed_dictionaries(fields))}
    record |= data.draw(st.fixed_dictionaries({}, optional={"slices": described(COHORT["properties"]["slices"])}))
    VALIDATORS["observation"].validate(record)
    assert is_understood(record) == (record["orphans"] <= record["labels"])


@pytest.mark.parametrize("field", ["since", "labels", "orphans"])
def test_a_number_of_a_cohort_replaced_by_anything_is_judged_alike_by_schema_and_detection(field: str) -> None:
    example = next(one for one in SCHEMAS["observation"]["examples"] if one["record"] == "feedback_cohort")
    for value in VALUES:
        record = {**example, "labels": 2**53 - 1, "orphans": 0, field: value}
        assert is_understood(record) == VALIDATORS["observation"].is_valid(record), value


def test_the_join_emits_every_record_but_the_operators() -> None:
    p, f = SCHEMAS["prediction"]["examples"][0], SCHEMAS["feedback"]["examples"][0]
    steps = [(0, "prediction", p), (1, "feedback", f), (2, "feedback", {**f, "label": "other"})]
    steps += [(3, "prediction", {**p, "request_id": "late"}), (1100, "feedback", {**f, "request_id": "late"})]
    steps += [(1400, "feedback", f)]
    journal = [Record(i, time, *decode(name, event)) for i, (time, name, event) in enumerate(steps)]
    answer = Fold(JoinSettings(window_ms=1000, slack_ms=300, slot_ms=50)).apply(Call(0, 0, 6, 0, journal, "epoch"))
    assert isinstance(answer, Applied)
    records = [json.loads(value) for _, _, value in emit(journal, answer, 0)]
    for record in records:
        VALIDATORS["observation"].validate(record)
    told = [record.get("issue") or record["record"] for record in records]
    assert told == ["prediction", "outcome", "conflicting", "prediction", "late", "feedback_cohort"]


def alerts_of_a_drift() -> list[events.Alert]:
    """Alerts that fire and that are resolved: country DE goes wrong and recovers, then everything goes wrong and an operator resolves."""
    detectors = (DetectorSettings("adwin"), DetectorSettings("page_hinkley"))
    limits = {
        "limits": (parse("error <= 0.2"),),
        "protected": ("country",),
        "favourable": "yes",
        "disparate_impact": 0.8,
        "fairness_limit": 0.1,
    }
    monitor = MonitorSettings(detectors=detectors, metrics=("error",), **limits)  # type: ignore[arg-type]
    detect = DetectSettings(maturity_ms=0, warmup=300, default=monitor)
    log = judged(16_000, lambda i, country: 0.9 if (4_000 <= i < 8_000 and country == "DE") or i >= 13_000 else 0.1)
    state, alerts = run(detect, log)
    open_ids = {alert.id for alert in alerts} - {alert.id for alert in alerts if alert.status == events.Status.RESOLVED}
    _, resolved = run(detect, [control(one) for one in sorted(open_ids)], state)
    return alerts + resolved


def test_every_alert_is_published_as_the_schema_says_with_the_headers_of_the_topic() -> None:
    alerts = alerts_of_a_drift()
    headers_schema = MESSAGES["alert"]["headers"]
    for alert in alerts:
        _, value, headers = publish(alert)
        body = json.loads(value)
        VALIDATORS["alert"].validate(body)
        assert set(body) == set(SCHEMAS["alert"]["properties"])
        assert [name for name, _ in headers] == list(headers_schema["properties"])
        validator(headers_schema).validate({name: text.decode() for name, text in headers})
    assert {alert.status for alert in alerts} >= {events.Status.FIRING, events.Status.RESOLVED}
    assert {alert.details["reason"] for alert in alerts if alert.status == events.Status.RESOLVED} == {"recovered", "operator"}
    assert any(alert.slice for alert in alerts)
    assert any(alert.slice is None for alert in alerts)
    assert any("interval" in alert.details for alert in alerts)
    fairness = [alert.details for alert in alerts if alert.kind is events.Kind.FAIRNESS]
    assert any("limit" in details and "group" in details for details in fairness)
    assert any("before" in details.get("group", ()) for details in fairness)


def test_an_alert_about_a_feature_as_a_whole_is_published_as_the_schema_says() -> None:
    detectors = (DetectorSettings("e_detector"),)
    detect = DetectSettings(maturity_ms=0, default=MonitorSettings(metrics=("feature:device",), detectors=detectors))
    rng, names = random.Random(1), [f"device {i}" for i in range(20)]
    answers = [rng.choices(names, [2 if i > 7_000 and j % 2 else 1 for j in range(20)])[0] for i in range(19_000)]
    log = (predicted(prediction(i, features={"device": answer})) for i, answer in enumerate(answers))
    whole = [alert for alert in run(detect, log)[1] if "shares" in alert.details]
    assert {alert.status for alert in whole} == {events.Status.FIRING, events.Status.UPDATED}
    for alert in whole:
        body = json.loads(publish(alert)[1])
        VALIDATORS["alert"].validate(body)
        assert set(body["details"]) <= set(SCHEMAS["alert"]["properties"]["details"]["properties"])


def test_an_operators_record_is_an_observation() -> None:
    VALIDATORS["observation"].validate(json.loads(control("a" * 32)))
    alert = json.loads(publish(alerts_of_a_drift()[0])[1])
    for action in ACTIONS:
        VALIDATORS["observation"].validate(json.loads(decide(action, alert, 1_000, until=2_000, by="ann", comment="known")))
        VALIDATORS["observation"].validate(json.loads(decide(action, alert, 1_000, incident=True)))


def test_what_operators_decide_is_published_as_the_schema_says() -> None:
    detect = DetectSettings(maturity_ms=0, warmup=300, default=MonitorSettings(metrics=("error",)))
    state, alerts = run(detect, judged(4_300, lambda i, country: 0.9 if i >= 4_000 and country == "DE" else 0.1))
    told = json.loads(publish(alerts[0])[1])
    records = [decide("acknowledge", told, 1_000, by="ann", comment="looking"), decide("silence", told, 1_000)]
    records += [decide("silence", told, 1_000, until=0), decide("resolve", told, 1_000)]
    _, events_ = run(detect, records, state)
    assert [alert.status for alert in events_] == ["acknowledged", "silenced", "updated", "resolved"]
    for alert in alerts + events_:
        _, value, headers = publish(alert)
        VALIDATORS["alert"].validate(json.loads(value))
        validator(MESSAGES["alert"]["headers"]).validate({name: text.decode() for name, text in headers})


def test_warnings_are_published_as_the_schema_says() -> None:
    budget = AlertBudget(1.0)
    detect = DetectSettings(
        maturity_ms=0,
        warmup=300,
        alert_budget=budget,
        warning_budget=replace(budget, alerts=20.0),
        default=MonitorSettings(metrics=("error",), slices=()),
    )
    log = judged(4_400, lambda i, _: 0.17 if 1_500 <= i < 1_900 else 0.25 if i >= 4_000 else 0.1, seed=2)
    _, alerts = run(detect, log)
    assert [alert.status for alert in alerts][:4] == ["warning", "resolved", "warning", "firing"]
    for alert in alerts:
        _, value, headers = publish(alert)
        body = json.loads(value)
        VALIDATORS["alert"].validate(body)
        assert set(body["details"]) <= set(SCHEMAS["alert"]["properties"]["details"]["properties"])
        validator(MESSAGES["alert"]["headers"]).validate({name: text.decode() for name, text in headers})


def test_every_status_and_reason_is_one_of_the_schema() -> None:
    properties = SCHEMAS["alert"]["properties"]
    assert set(properties["status"]["enum"]) == set(events.Status)
    ends = {event.value for (_, event), transition in TRANSITIONS.items() if transition.publish is events.Status.RESOLVED}
    assert set(properties["details"]["properties"]["reason"]["enum"]) == ends


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff", b"[]", b"{}", b'{"request_id": 1, "label": 1, "timestamp": 1}',
     b'{"request_id": "a", "label": 1, "timestamp": -1}',
     b'{"request_id": "a", "label": 1, "timestamp": 9000000000000}', b"x" * (MAX_DEAD_BYTES + 1)],
)  # fmt: skip
def test_a_dead_letter_has_the_headers_of_the_schema(value: bytes | None) -> None:
    _, [letter] = route(CODEC, "feedback", "feedback", 3, [Record(7, 1_709_647_800_000, b"k", value)])  # type: ignore[arg-type]
    headers = {name: text.decode() for name, text in letter.headers}
    VALIDATORS["dead-letter"].validate(headers)
    assert set(headers) <= set(SCHEMAS["dead-letter"]["properties"])


def test_a_snapshots_records_have_the_key_and_the_headers_of_the_topic() -> None:
    message = MESSAGES["snapshotChunk"]
    for record in cut(("stream-monitor.observations", 2), Snapshot(17, "d" * 32, {"at": 17})):
        assert [name for name, _ in record.headers] == list(message["headers"]["properties"])
        validator(message["headers"]).validate({name: text.decode() for name, text in record.headers})
        validator(message["bindings"]["kafka"]["key"]).validate(record.key.decode())


def test_the_records_of_what_fires_have_the_key_and_the_headers_of_the_topic() -> None:
    message = MESSAGES["firingAlert"]
    for alert in alerts_of_a_drift():
        record = firing(("stream-monitor.observations", 2), alert, "d" * 32)
        validator(message["bindings"]["kafka"]["key"]).validate(record.key.decode())
        if alert.status != events.Status.RESOLVED:
            assert record.value is not None
            validator(message["headers"]).validate({name: text.decode() for name, text in record.headers})
            validator(message["payload"]).validate(json.loads(record.value))
        else:
            assert (record.value, record.headers) == (None, [])


def test_an_alert_that_a_rebuilt_state_ends_is_published_as_the_schema_says() -> None:
    [fired] = [alert for alert in alerts_of_a_drift() if alert.status == events.Status.FIRING][:1]
    [resolved] = Monitor(DetectSettings(), "observations", 0).carry_over([fired], 17)
    VALIDATORS["alert"].validate(json.loads(publish(resolved)[1]))


def test_an_alert_that_allows_for_the_time_of_day_is_published_as_the_schema_says() -> None:
    fired = next(alert for alert in alerts_of_a_drift() if alert.status == events.Status.FIRING)
    VALIDATORS["alert"].validate(json.loads(publish(replace(fired, details={**fired.details, "daily": True}))[1]))


MESSAGES: dict[str, Any] = ASYNCAPI["components"]["messages"]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    files = set()
    for reference in references(ASYNCAPI):
        file, _, pointer = reference.partition("#")
        at: Any = json.loads((FOLDER / file).read_text()) if file else ASYNCAPI
        files.add(file.removeprefix("./"))
        for step in pointer.split("/")[1:]:
            at = at[step]
        assert at
    assert files - {""} == {f"{name}.json" for name in NAMES}


def test_the_asyncapi_document_has_every_topic_and_says_who_reads_and_who_writes_it() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert set(ASYNCAPI["channels"]) == {"predictions", "feedback", "journal", "observations", "alerts", "dead-letter", "state"}
    uses = {(one["action"], one["channel"]["$ref"].removeprefix("#/channels/")) for one in ASYNCAPI["operations"].values()}
    read, written = {"predictions", "feedback"}, {"alerts", "dead-letter"}
    both = {"journal", "observations", "state"}
    assert uses == {("receive", topic) for topic in read | both} | {("send", topic) for topic in written | both}


def test_every_message_of_the_asyncapi_document_says_what_its_key_is() -> None:
    for message in MESSAGES.values():
        assert message["bindings"]["kafka"]["key"]["description"]
        Draft202012Validator.check_schema(message["bindings"]["kafka"]["key"])
        if "$ref" not in message.get("headers", {"$ref": ""}):
            Draft202012Validator.check_schema(message["headers"])
