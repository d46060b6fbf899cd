"""The configuration is validated at once: every problem with its path and what to do, and the defaults are the core's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stream_monitor.config import REFUSED, Config, load, override, parse
from stream_monitor.core.settings import AlertBudget, DetectorSettings, DetectSettings, EventSettings, JoinSettings, Limit, MonitorSettings
from stream_monitor.errors import ConfigurationError

EXAMPLE = Path(__file__).parent.parent / "monitor.example.toml"
MINIMAL: dict[str, Any] = {"kafka": {"bootstrap_servers": "localhost:9092"}}


def problems(**tables: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(MINIMAL | tables)
    assert "monitor.example.toml" in caught.value.hint
    return caught.value.problems


def with_environment(tables: dict[str, Any] = MINIMAL, **variables: str) -> Config:
    return parse(override(tables, {f"STREAM_MONITOR__{name}": text for name, text in variables.items()}))


def test_the_defaults_are_the_settings_of_the_core() -> None:
    config = parse(MINIMAL)
    assert config.detect_settings() == DetectSettings()
    assert config.join.settings() == JoinSettings(ttl_ms=config.join.settings().ttl_ms)
    assert config.events.settings() == EventSettings()


@pytest.mark.parametrize("metric", ["feedback_conflicting", "feedback_orphan"])
def test_slices_are_kept_for_contradictions_and_orphans_only_where_that_is_asked(metric: str) -> None:
    assert not parse(MINIMAL).join.settings().label_slices
    watched = {"metrics": ["*"], "slice_metrics": [metric]}
    asked = parse({**MINIMAL, "join": {"label_slices": ["country"]}, "detect": {"default": watched}})
    assert asked.join.settings().label_slices == ("country",)
    [problem] = problems(monitors={"a": watched})
    assert f"monitors.a: slice_metrics: {metric} is known per slice only for the keys that join.label_slices names" in problem


@pytest.mark.parametrize("key", ["*", "country x device"])
def test_slices_that_are_kept_with_labels_are_named_one_by_one(key: str) -> None:
    [problem] = problems(join={"label_slices": ["country", key]})
    assert problem.startswith(f"join.label_slices: {key}: slice keys are named here one by one")


def test_warnings_come_only_where_they_are_asked_for_and_some_detector_gives_them() -> None:
    assert parse(MINIMAL).detect_settings().warning_budget is None
    mixed = {"warning_budget": "10 per week", "default": {"detectors": ["adwin"]}}
    asked = parse({**MINIMAL, "detect": mixed, "monitors": {"a": {"detectors": ["e_detector"]}}}).detect_settings()
    assert asked.warning_budget == AlertBudget(10.0)
    assert asked.digest() != replace(asked, warning_budget=None).digest()


def test_redis_frees_memory_only_well_after_the_join_has_decided() -> None:
    for window in ("1ms", "1h", "7d"):
        settings = parse({**MINIMAL, "join": {"window": window}}).join.settings()
        assert settings.ttl_ms >= settings.window_ms + settings.slack_ms + 3_600_000
        assert 1 <= settings.slot_ms <= settings.window_ms + settings.slack_ms


def test_every_problem_is_listed_at_once_with_its_path() -> None:
    found = problems(
        kafka={"bootstrap_server": "localhost:9092", "properties": {"acks": "1"}},
        topics={"partitions": 0},
        redis={"url": "http://localhost", "mode": "one"},
        events={"max_event_bytes": "12 parsecs", "prediction_fields": {"modell": "m"}},
        join={"window": 7},
        detect={
            "warmup": "long",
            "maturity": "never",
            "default": {"task": "guess", "detectors": ["kswim", {"name": "adwin", "deltaa": 1}]},
        },
        monitors={"fraud": {"slice": "country", "minimum_effect": -1}},
        run={"batch": 1.5},
        instance_id="a b",
        alarms={},
    )
    paths = {problem.partition(": ")[0] for problem in found}
    assert paths == {
        "kafka.bootstrap_servers",
        "kafka.bootstrap_server",
        "kafka.properties",
        "topics.partitions",
        "redis.url",
        "redis.mode",
        "events.max_event_bytes",
        "events.prediction_fields",
        "join.window",
        "detect.warmup",
        "detect.maturity",
        "detect.default.task",
        "detect.default.detectors.0",
        "detect.default.detectors.1",
        "monitors.fraud.slice",
        "monitors.fraud.minimum_effect",
        "run.batch",
        "instance_id",
        "alarms",
    }
    assert len(found) == len(paths)


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"kafka": {}}, "kafka.bootstrap_servers: is required"),
        (
            {"kafka": {"bootstrap_servers": "x", "grup": "y"}},
            "kafka.grup: there is no such key; did you mean group?",
        ),
        ({"monitors": {"a": {"slice": "x"}}}, "monitors.a.slice: there is no such key; did you mean slices?"),
        ({"detect": {"default": {"metric": "x"}}}, "detect.default.metric: there is no such key; did you mean metrics?"),
        ({"xyz": 1}, "xyz: there is no such key"),
        ({"join": {"window": "7 days"}}, 'join.window: a duration such as "250ms", "30s", "1h 30m" or "7d" is expected'),
        ({"events": {"max_event_bytes": "1K"}}, 'events.max_event_bytes: a size such as "512B", "256KiB" or "10MB" is expected'),
        (
            {"detect": {"default": {"detectors": ["kswim"]}}},
            "detect.default.detectors.0: there is no detector 'kswim'; known are adwin, ddm, e_detector, eddm, hddm_a, hddm_w,",
        ),
        ({"detect": {"default": {"detectors": [{"name": "adwin", "delta": -1}]}}}, "it must lie between 0 and 1"),
        ({"detect": {"default": {"detectors": [{"name": "adwin", "delta": "x"}]}}}, "detect.default.detectors.0: adwin: "),
        ({"detect": {"default": {"detectors": [{"delta": 1}]}}}, 'detect.default.detectors.0: "adwin" or {name = "adwin", delta = 0.001}'),
        ({"detect": {"warning_budget": "7 per week"}, "kafka": {}}, "kafka.bootstrap_servers: is required"),
        (
            {"detect": {"warning_budget": "1 per week"}},
            "detect: warning_budget must allow more than alert_budget, since a warning asks",
        ),
        ({"detect": {"warning_budget": "3 per month"}}, "make it several times as much, or leave it out for no warnings"),
        ({"detect": {"warning_budget": 10}}, "detect.warning_budget: a number above 0 per hour, day, week or month is expected, such as"),
        (
            {"detect": {"warning_budget": "10 per week", "default": {"detectors": ["adwin", {"name": "e_detector", "per_value": 0.1}]}}},
            "detect.warning_budget: only the e_detector without a threshold of its own gives warnings, and no monitor has it: add",
        ),
        (
            {"detect": {"alert_budget": "1 a week"}},
            "detect.alert_budget: a number above 0 per hour, day, week or month is expected, such as",
        ),
        ({"detect": {"alert_budget": 1}}, 'such as "1 per week" or "0.5 per day"'),
        ({"detect": {"alert_budget": "0 per day"}}, "detect.alert_budget: a number above 0"),
        ({"detect": {"default": {"slice_shares": {"country=DE": 0}}}}, "detect.default.slice_shares.country=DE: "),
        ({"monitors": {"a": {"limits": ["error <= 5"]}}}, "monitors.a.limits.0: the limit of error must lie strictly between 0 and 1"),
        ({"monitors": {"a": {"limits": "recall >= 0.8"}}}, "monitors.a.limits.0: recall needs a class, such as recall[fraud]"),
        ({"detect": {"default": {"limits": [0.8]}}}, "detect.default.limits.0: 0.8 is no limit; "),
        (
            {"monitors": {"a": {"task": "regression", "limits": ["error <= 0.5"]}}},
            "monitors.a: limits: error <= 0.5 is about classes, and task is regression; say for how many it must hold, such as ",
        ),
        ({"monitors": {"a": {"protected": ["g"], "fairness_limit": 1.5}}}, "monitors.a.fairness_limit: "),
        (
            {"monitors": {"a": {"fairness_limit": 0.1}}},
            "monitors.a.fairness_limit needs the slice keys that are protected, such as protected",
        ),
        (
            {"monitors": {"a": {"protected": "g", "fairness_metrics": "parity"}}},
            "monitors.a.fairness_metrics: there is no parity; there are",
        ),
        (
            {"monitors": {"a": {"protected": "g", "fairness_metrics": "error", "disparate_impact": 0.8}}},
            "monitors.a.disparate_impact is about the selection_rate, which fairness_metrics leave out",
        ),
        (
            {"monitors": {"a": {"protected": "g", "task": "regression", "fairness_metrics": "selection_rate"}}},
            "monitors.a: fairness_metrics: of numbers only the error is compared",
        ),
        (
            {"monitors": {"a": {"protected": "g", "task": "regression", "disparate_impact": 0.8}}},
            "monitors.a: disparate_impact is about the favourable class, and task is regression",
        ),
        ({"topics": {"journal": "a b"}}, "topics: journal = 'a b' is no name for a topic"),
        ({"topics": {"journal": ".."}}, "topics: journal = '..' is no name for a topic"),
        ({"topics": {"journal": "predictions"}}, "topics: each role needs a topic of its own; used twice: predictions"),
        ({"redis": {"mode": "sentinel"}}, 'redis: mode = "sentinel" needs sentinels = ["host:26379", ...]'),
        ({"redis": {"url": "rediss://r", "tls_ca_file": "/no/ca.pem"}}, "redis.tls_ca_file: there is no file '/no/ca.pem'"),
        ({"redis": {"url": "rediss://r", "tls_ca_file": __file__}}, f"redis.tls_ca_file: {__file__!r} can not be read"),
        ({"redis": {"sentinels": ["host"]}}, "redis: host:port is expected for each of the sentinels, not host"),
        ({"redis": {"url": "localhost"}}, "redis.url: redis://host:port/db, rediss:// (TLS) or unix:///path is expected"),
        ({"redis": {"url": "redis://host:99999/0"}}, "redis.url: the port, or an option behind '?', can not be read"),
        ({"redis": {"url": "redis://host?socket_timeout=soon"}}, "redis.url: the port, or an option behind '?', can not be read"),
        ({"redis": {"key_prefix": "{a}"}}, "redis.key_prefix: "),
        ({"join": {"window": "1h", "ttl": "2h"}}, "join: ttl only frees memory, so it must be longer than window + slack"),
        ({"join": {"window": "30d"}}, "topics.journal_retention is shorter than twice join.window + join.slack"),
        (
            {"events": {"feedback_fields": {"score": "x"}}},
            "there is no field score; the fields are request_id, label, timestamp, model, model_version, slices, weight",
        ),
        ({"events": {"feedback_fields": {"label": ""}}}, "events.feedback_fields: label: the name of a field of yours is expected"),
        ({"monitors": {"a": {"models": []}}}, "monitors.a.models: a monitor of no model watches nothing; leave it out for all, or"),
        (
            {"monitors": {"a": {"metrics": ["error", "erorr"]}}},
            "monitors.a.metrics: there is no metric erorr; did you mean error? All are in",
        ),
        (
            {"monitors": {"a": {"slice_metrics": "xyz"}}},
            "monitors.a.slice_metrics: there is no metric xyz; all are in monitor",
        ),
        ({"detect": {"default": {"slices": "a x b x c"}}}, "detect.default.slices: a x b x c: a cross is of two slice keys, such as"),
        ({"detect": {"default": {"slices": [" x b"]}}}, "detect.default.slices:  x b: a cross is of two slice keys"),
        ({"detect": {"default": {"slice_shares": {"DE": 5}}}}, "detect.default.slice_shares: DE: a slice is written with its key"),
        ({"detect": {"default": {"warning_effect": 9.0}}}, "detect.default: warning_effect, 9, is above critical_effect"),
        ({"monitors": {"a": {"warning_effect": 0.6}}}, "monitors.a: warning_effect, 0.6, "),
        ({"topics": {"replication_factor": 0}}, "topics: replication_factor: how many brokers hold each record, or -1 for"),
        ({"monitors": {"default": {}}}, "monitors.default: this name is that of [detect.default]; give it there, or"),
        ({"run": {"transaction_interval": "40s"}}, "run.transaction_interval: at most 20s is expected"),
        ({"run": {"poll": "0s"}}, "run.poll: at least 1ms is expected"),
        ({"redis": {"url": "redis://h:6379/abc"}}, "redis.url: behind the port the number of the database is expected, such as"),
        ({"events": {"prediction_fields": {"score": "a..b"}}}, "events.prediction_fields: score: the name of a field of yours is"),
    ],
)
def test_a_problem_says_what_would_be_right(tables: dict[str, Any], problem: str) -> None:
    found = problems(**tables)
    assert len(found) == 1
    assert problem in found[0]


def test_a_password_that_spoils_the_url_is_not_shown() -> None:
    (problem,) = problems(redis={"url": "redis://:se/cret@host:6379/0"})
    assert "%2F in a password" in problem
    assert "cret" not in problem


@pytest.mark.parametrize("table", ["properties", "consumer", "producer"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_property_that_the_guarantees_rest_on_is_refused_with_the_reason(table: str, name: str) -> None:
    found = problems(kafka={"bootstrap_servers": "x", table: {name: "1"}})
    assert found == [f"kafka.{table}: {name} cannot be set: {REFUSED[name]}"]


def test_other_properties_pass_through_to_their_client() -> None:
    kafka = {"bootstrap_servers": "a:1", "properties": {"ssl.ca.location": "ca"}, "consumer": {"x": 1}, "producer": {"linger.ms": 5}}
    config = parse({"kafka": kafka})
    assert config.kafka_client() == {"bootstrap.servers": "a:1", "ssl.ca.location": "ca"}
    assert config.kafka_consumer() == config.kafka_client() | {"x": 1}
    assert config.kafka_producer() == config.kafka_client() | {"linger.ms": 5, "message.max.bytes": config.max_message_bytes}


def test_the_environment_overrides_the_file() -> None:
    config = with_environment(
        {"kafka": {"bootstrap_servers": "file:9092", "group": "g", "properties": {"sasl.username": "u"}}},
        KAFKA__BOOTSTRAP_SERVERS="environment:9092",
        KAFKA__PROPERTIES__SASL_PASSWORD="secret # 1",
        REDIS__URL="redis://r:1/0",
        DETECT__WARMUP="50",
        DETECT__DEFAULT__SLICES='["country"]',
        MONITORS__FRAUD__MINIMUM_EFFECT="0.3",
        TOPICS__CREATE="true",
        JOIN__WINDOW="3d",
        INSTANCE_ID="monitor-0",
    )
    assert config.kafka.bootstrap_servers == "environment:9092"
    assert config.kafka.group == "g"
    assert config.kafka.properties == {"sasl.username": "u", "sasl.password": "secret # 1"}
    assert config.redis.url == "redis://r:1/0"
    assert config.detect.warmup == 50
    assert config.detect_settings().default.slices == ("country",)
    assert config.monitors["fraud"].minimum_effect == 0.3
    assert config.topics.create is True
    assert config.join.window == 3 * 86_400_000
    assert config.instance_id == "monitor-0"


def test_other_variables_are_not_ours_and_the_file_stays_as_it_was() -> None:
    tables = {"kafka": {"bootstrap_servers": "x"}}
    assert override(tables, {"PATH": "/bin", "STREAM_MONITOR_X": "1"}) == tables
    override(tables, {"STREAM_MONITOR__KAFKA__GROUP": "g"})
    assert tables == {"kafka": {"bootstrap_servers": "x"}}


def test_what_the_environment_gets_wrong_is_a_problem_like_any_other() -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.grup: there is no such key; did you mean group"):
        with_environment(KAFKA__GRUP="x")
    with pytest.raises(ConfigurationError, match="STREAM_MONITOR__KAFKA__BOOTSTRAP_SERVERS__X: bootstrap_servers is a value, not a table"):
        with_environment(KAFKA__BOOTSTRAP_SERVERS__X="x")
    with pytest.raises(ConfigurationError, match="kafka: "):
        with_environment(KAFKA="x")
    with pytest.raises(ConfigurationError, match=r"kafka\.consumer: isolation\.level cannot be set"):
        with_environment(KAFKA__CONSUMER__ISOLATION_LEVEL="read_uncommitted")


def test_a_monitor_inherits_what_the_default_says_but_not_its_models() -> None:
    detect = {"default": {"models": ["a-*"], "slices": "country", "minimum_effect": 0.2, "detectors": ["adwin"]}}
    monitors = {"fraud": {"models": "fraud-*", "minimum_effect": 0.4}, "rest": {"task": "regression", "slices": []}}
    settings = parse({**MINIMAL, "detect": detect, "monitors": monitors}).detect_settings()
    adwin = (DetectorSettings("adwin"),)
    assert settings.default == MonitorSettings("default", ("a-*",), slices=("country",), minimum_effect=0.2, detectors=adwin)
    assert settings.monitors == (
        MonitorSettings("fraud", ("fraud-*",), slices=("country",), minimum_effect=0.4, detectors=adwin),
        MonitorSettings("rest", ("*",), "regression", slices=(), minimum_effect=0.2, detectors=adwin),
    )


def test_groups_may_be_compared_where_the_task_is_said_to_be_regression() -> None:
    monitor = {"task": "regression", "protected": ["gender"], "fairness_limit": 0.1}
    assert parse({"kafka": {"bootstrap_servers": "b"}, "monitors": {"a": monitor}}).detect_settings().monitors[0].protected == ("gender",)


def test_limits_are_written_as_they_are_said() -> None:
    config = parse({**MINIMAL, "monitors": {"a": {"limits": ["recall[fraud] >= 80%"], "limit_slices": "country=*"}, "b": {}}})
    a, b = config.detect_settings().monitors
    assert (a.limits, a.limit_slices) == ((Limit("recall=fraud", True, 0.8),), ("country=*",))
    assert (b.limits, b.limit_slices) == ((), ())


@pytest.mark.parametrize("favourable", ["approve", True, 1])
def test_the_favourable_class_keeps_its_type(favourable: Any) -> None:
    monitors = {"a": {"protected": "gender", "favourable": favourable, "fairness_limit": 0.1}}
    [monitor] = parse({**MINIMAL, "monitors": monitors}).detect_settings().monitors
    assert monitor.protected == ("gender",)
    assert (type(monitor.favourable), monitor.favourable) == (type(favourable), favourable)


def test_a_detector_takes_parameters() -> None:
    detectors = ["page_hinkley", {"name": "adwin", "delta": 0.001}]
    settings = parse({**MINIMAL, "detect": {"default": {"detectors": detectors}}}).detect_settings()
    assert settings.default.detectors == (DetectorSettings("page_hinkley"), DetectorSettings("adwin", {"delta": 0.001}))


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("1 per week", AlertBudget()),
        ("0.5 per day", AlertBudget(0.5, 86_400_000)),
        ("2 per hour", AlertBudget(2, 3_600_000)),
        ("3 per month", AlertBudget(3, 30 * 86_400_000)),
    ],
)
def test_the_budget_is_one_number_for_everything(written: str, budget: AlertBudget) -> None:
    assert parse({**MINIMAL, "detect": {"alert_budget": written}}).detect_settings().alert_budget == budget
    assert budget.rate == budget.alerts / budget.period_ms


@pytest.mark.parametrize(("written", "ms"), [("auto", None), ("0s", 0), ("2h", 7_200_000)])
def test_maturity_is_a_duration_or_learnt(written: str, ms: int | None) -> None:
    assert parse({**MINIMAL, "detect": {"maturity": written}}).detect_settings().maturity_ms == ms


def test_a_file_that_cannot_be_read_or_is_not_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "nowhere.toml", {})
    path = tmp_path / "monitor.toml"
    for content, said in ((b"group = monitor", "not TOML"), (b"\xff\xfe", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said) as caught:
            load(path, {})
        assert caught.value.hint


def test_the_example_is_a_valid_configuration() -> None:
    assert load(EXAMPLE, {}).kafka.bootstrap_servers


def keys(model: type[BaseModel]) -> list[tuple[str, str]]:
    """(table, key) of every table; the keys that are themselves tables are left to their table."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += [(f"{name}.{table}" if table else name, key) for table, key in keys(inner)]
        else:
            found.append(("", name))
    return found


@pytest.mark.parametrize(
    ("table", "key"),
    [place for place in keys(Config) if place != ("", "monitors")],
)
def test_the_example_shows_every_key_in_its_table(table: str, key: str) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    sections = re.split(r"^(?:# ?)?\[([\w.]+)\]", text, flags=re.MULTILINE)
    bodies = {"": sections[0], **dict(zip(sections[1::2], sections[2::2], strict=True))}
    own = f"{table}.{key}" if table else key
    assert own in bodies or re.search(rf"^(?:# ?)?{key} *=", bodies.get(table, ""), re.MULTILINE)
