"""The whole configuration: one TOML file and the environment, parsed and validated at once, every error with its path and a hint.

    monitor.toml --tomllib--> tables --environment overrides--> pydantic --> Config, or one ConfigurationError with all problems

The environment overrides the file: STREAM_MONITOR__KAFKA__BOOTSTRAP_SERVERS is `kafka.bootstrap_servers`; values are read as TOML where
they are TOML, else as text. What decides about alerts and pairs becomes the core's frozen settings (core/settings.py), whose
defaults are the ones here. Properties of librdkafka pass through, but for those that the guarantees rest on.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from redis.connection import parse_url

from stream_monitor import plugins
from stream_monitor.core.detectors import create
from stream_monitor.core.detectors.base import unmet
from stream_monitor.core.limits import is_labelled, written
from stream_monitor.core.limits import parse as parse_limit
from stream_monitor.core.metrics import may_match, nearest
from stream_monitor.core.settings import (
    CROSS,
    FAIRNESS_METRICS,
    AlertBudget,
    DetectorSettings,
    DetectSettings,
    EventSettings,
    JoinSettings,
    Limit,
    MonitorSettings,
)
from stream_monitor.errors import ConfigurationError
from stream_monitor.units import Duration, Rate, Size, milliseconds, shortest

ENVIRONMENT = "STREAM_MONITOR__"

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

# Properties that the guarantees rest on, and why each is not the operator's to set.
REFUSED: Mapping[str, str] = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "group.id": "each stage has a group of its own, named after kafka.group",
    "group.instance.id": "it comes from instance_id (and there is none in a group of the new protocol)",
    "transactional.id": "it comes from kafka.group and instance_id; a shared one would make two processes fence each other",
    "enable.idempotence": "without it a retry doubles records",
    "acks": "a record that not all in-sync replicas have can be lost",
    "enable.auto.commit": "offsets are committed in the transaction of the outputs they stand for",
    "enable.auto.offset.store": "offsets are committed in the transaction of the outputs they stand for",
    "isolation.level": "records of aborted transactions must not be read",
    "auto.offset.reset": "a gap in the log is an operator's decision (stream-monitor reset)",
    "enable.partition.eof": "the end of a partition is how transaction markers are passed",
    "delivery.report.only.error": "reports of successes cost time and are not read",
    "max.in.flight.requests.per.connection": "more than 5 break the order of an idempotent producer; the default is right",
    "message.timeout.ms": "a transaction bounds it already (transaction.timeout.ms)",
}


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _names(value: Any) -> Any:
    return (value,) if type(value) is str else _listed(value)


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""A list of strings."""

Patterns = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""One string or a list of strings."""


class _Table(BaseModel):
    """A table of the file: unknown keys are errors, values are taken as they are, defaults are in their final units."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


_Properties = dict[str, str | int | float | bool]


class KafkaConfig(_Table):
    """[kafka]. `properties` go to every client, `consumer` and `producer` to theirs."""

    bootstrap_servers: str = Field(min_length=1)
    group: str = Field("stream-monitor", min_length=1)
    properties: _Properties = {}
    consumer: _Properties = {}
    producer: _Properties = {}

    @field_validator("properties", "consumer", "producer")
    @classmethod
    def _allowed(cls, value: _Properties) -> _Properties:
        refused = [f"{name} cannot be set: {REFUSED[name]}" for name in value if name in REFUSED]
        if refused:
            raise ValueError("; ".join(refused))
        return value


class TopicsConfig(_Table):
    """[topics]. The names, and how those are made that stream monitor owns (all but `predictions` and `feedback`)."""

    predictions: str = "predictions"
    feedback: str = "feedback"
    journal: str = "stream-monitor.journal"
    observations: str = "stream-monitor.observations"
    alerts: str = "stream-monitor.alerts"
    dead_letter: str = "stream-monitor.dead-letter"
    state: str = "stream-monitor.state"
    create: bool = False
    partitions: int = Field(4, ge=1, le=10_000)
    replication_factor: int = Field(-1, ge=-1, le=100)
    journal_retention: Duration = Field(16 * 86_400_000, ge=1)
    observations_retention: Duration = Field(30 * 86_400_000, ge=1)
    properties: dict[str, str] = {}

    def names(self) -> dict[str, str]:
        """Role -> topic."""
        roles = ("predictions", "feedback", "journal", "observations", "alerts", "dead_letter", "state")
        return {role: getattr(self, role) for role in roles}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.replication_factor == 0:
            raise ValueError("replication_factor: how many brokers hold each record, or -1 for the brokers' own default")
        names = self.names()
        for role, name in names.items():
            if not _TOPIC.fullmatch(name) or name in (".", ".."):
                raise ValueError(f"{role} = {name!r} is no name for a topic; letters, digits, '.', '_' and '-' are")
        if twice := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
            raise ValueError(f"each role needs a topic of its own; used twice: {', '.join(twice)}")
        return self


class RedisConfig(_Table):
    """[redis]. One server, a primary that Sentinels watch, or a Cluster. `rediss://` in the url means TLS."""

    url: str = "redis://localhost:6379/0"
    mode: Literal["single", "sentinel", "cluster"] = "single"
    sentinels: Listed = ()
    sentinel_service: str = "mymaster"
    username: str | None = None
    password: str | None = None
    tls_ca_file: str | None = None
    key_prefix: str = Field("stream-monitor", min_length=1, pattern=r"^[^{}]+$")
    timeout: Duration = Field(5_000, ge=1)

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("redis://host:port/db, rediss:// (TLS) or unix:///path is expected")
        try:
            parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError:  # not told as it is: where a password is in the url, it may show a part of it
            raise ValueError("the port, or an option behind '?', can not be read; '/' is %2F in a password, '?' %3F, '#' %23") from None
        if not url.startswith("unix://") and not re.fullmatch(r"/?\d*", urlsplit(url).path):
            raise ValueError("behind the port the number of the database is expected, such as redis://host:6379/0")
        return url

    @field_validator("tls_ca_file")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        if value is None:
            return None
        wanted = "the certificates (PEM) of who signed the server's are expected"
        if not Path(value).is_file():
            raise ValueError(f"there is no file {value!r}; {wanted}")
        try:
            ssl.create_default_context(cafile=value)
        except ssl.SSLError as error:
            raise ValueError(f"{value!r} can not be read ({error.reason}); {wanted}") from None
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.mode == "sentinel" and not self.sentinels:
            raise ValueError('mode = "sentinel" needs sentinels = ["host:26379", ...]')
        if self.tls_ca_file is not None and not self.url.startswith("rediss://"):
            raise ValueError("tls_ca_file is given, but the url asks for no TLS: write rediss://")
        if wrong := [s for s in self.sentinels if not re.fullmatch(r".+:\d+", s)]:
            raise ValueError(f"host:port is expected for each of the sentinels, not {', '.join(wrong)}")
        return self

    @property
    def where(self) -> str:
        """Where it is, for people: without what is secret."""
        return "redis.sentinels" if self.mode == "sentinel" else self.url.rpartition("@")[2]

    def client_options(self) -> dict[str, Any]:
        """Arguments for redis-py beside the url."""
        seconds = self.timeout / 1000
        options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        if self.url.startswith("unix://"):
            del options["socket_connect_timeout"]
        optional = {"username": self.username, "password": self.password, "ssl_ca_certs": self.tls_ca_file}
        return options | {name: value for name, value in optional.items() if value is not None}


class RunConfig(_Table):
    """[run]. How much is done at once; nothing here changes what comes out."""

    batch: int = Field(5_000, ge=1, le=1_000_000)
    poll: Duration = Field(50, ge=1)
    transaction_interval: Duration = Field(250, ge=1, le=20_000)
    transaction_messages: int = Field(20_000, ge=1)
    shutdown_timeout: Duration = Field(30_000, ge=1)


_EVENTS, _JOIN, _DETECT, _MONITOR = EventSettings(), JoinSettings(), DetectSettings(), MonitorSettings()


class EventsConfig(_Table):
    """[events]. What is accepted; see core.settings.EventSettings."""

    max_event_bytes: Size = Field(_EVENTS.max_event_bytes, ge=100, le=100_000_000)
    max_id_bytes: int = Field(_EVENTS.max_id_bytes, ge=1, le=10_000)
    max_future: Duration = Field(_EVENTS.max_future_ms, ge=0)
    prediction_fields: dict[str, str] = {}
    feedback_fields: dict[str, str] = {}

    @field_validator("prediction_fields", "feedback_fields")
    @classmethod
    def _known(cls, value: dict[str, str], info: Any) -> dict[str, str]:
        known = _PREDICTION_FIELDS if info.field_name == "prediction_fields" else _FEEDBACK_FIELDS
        if unknown := [name for name in value if name not in known]:
            raise ValueError(f"there is no field {', '.join(unknown)}; the fields are {', '.join(known)}")
        if nowhere := [name for name, path in value.items() if not all(path.split("."))]:
            raise ValueError(f"{', '.join(nowhere)}: the name of a field of yours is expected, or a path such as meta.version")
        return value

    def settings(self) -> EventSettings:
        return EventSettings(self.max_event_bytes, self.max_id_bytes, self.max_future, self.prediction_fields, self.feedback_fields)


_PREDICTION_FIELDS = (
    "request_id", "model", "model_version", "timestamp", "prediction", "score", "scores", "features", "slices", "weight", "latency_ms",
)  # fmt: skip
_FEEDBACK_FIELDS = ("request_id", "label", "timestamp", "model", "model_version", "slices", "weight")


class JoinConfig(_Table):
    """[join]. How long a prediction waits for its feedback; see core.settings.JoinSettings."""

    window: Duration = Field(_JOIN.window_ms, ge=1)
    slack: Duration = Field(_JOIN.slack_ms, ge=0)
    ttl: Duration | None = None
    label_slices: Listed = _JOIN.label_slices

    @field_validator("label_slices")
    @classmethod
    def _keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [key for key in value if "*" in key or CROSS in key]:
            raise ValueError(
                f"{', '.join(wrong)}: slice keys are named here one by one, since those of each label are kept; crosses come with them"
            )
        return value

    def settings(self) -> JoinSettings:
        horizon = self.window + self.slack
        ttl = max(2 * horizon, horizon + 3_600_000) if self.ttl is None else self.ttl
        return JoinSettings(self.window, self.slack, max(1, min(_JOIN.slot_ms, horizon // 100)), ttl, self.label_slices)

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.ttl is not None and self.ttl <= self.window + self.slack:
            raise ValueError("ttl only frees memory, so it must be longer than window + slack; leave it out for twice that")
        return self


def _detector(value: Any) -> Any:
    """`"adwin"`, or `{name = "adwin", delta = 0.001}`."""
    if type(value) is str:
        value = {"name": value}
    if type(value) is not dict or type(value.get("name")) is not str:
        raise ValueError('"adwin" or {name = "adwin", delta = 0.001} is expected')
    settings = DetectorSettings(value["name"], {name: v for name, v in value.items() if name != "name"})
    plugins.load(settings.name)
    try:
        wrong = unmet(create(settings))
    except ValueError:
        raise
    except Exception as error:  # of a parameter's type, or whatever a detector from outside does
        raise ValueError(f"{settings.name}: {type(error).__name__}: {error}") from error
    if wrong:
        raise ValueError(
            f"{settings.name} is no detector: {'; '.join(wrong)}. See docs/detectors.md, and `python -m stream_monitor.testing`"
        )
    return settings


_DEFAULT = "default"  # the name of the monitor that [detect.default] describes
_FIELDS = {"cool_down": "cool_down_ms"}  # keys that the core's settings name by their unit


class MonitorConfig(_Table):
    """[detect.default] and [monitors.NAME]. What is watched; see core.settings.MonitorSettings."""

    models: Patterns = _MONITOR.models
    task: Literal["auto", "classification", "regression"] = _MONITOR.task
    metrics: Patterns = _MONITOR.metrics
    slices: Patterns = _MONITOR.slices
    slice_metrics: Patterns = _MONITOR.slice_metrics
    slice_shares: dict[str, Annotated[int, Field(ge=1, le=1_000_000)]] = {}
    new_version: Literal["own", "previous"] = _MONITOR.new_version
    detectors: Annotated[tuple[Annotated[DetectorSettings, BeforeValidator(_detector)], ...], BeforeValidator(_listed)] = _MONITOR.detectors
    minimum_effect: float = Field(_MONITOR.minimum_effect, ge=0)
    warning_effect: float = Field(_MONITOR.warning_effect, ge=0)
    critical_effect: float = Field(_MONITOR.critical_effect, ge=0)
    cool_down: Duration = Field(_MONITOR.cool_down_ms, ge=0)
    limits: Annotated[tuple[Annotated[Limit, BeforeValidator(parse_limit)], ...], BeforeValidator(_names)] = _MONITOR.limits
    limit_slices: Patterns = _MONITOR.limit_slices
    protected: Patterns = _MONITOR.protected
    favourable: str | bool | int | float | None = _MONITOR.favourable
    fairness_metrics: Patterns = _MONITOR.fairness_metrics
    fairness_limit: float | None = Field(_MONITOR.fairness_limit, gt=0, lt=1)
    disparate_impact: float | None = Field(_MONITOR.disparate_impact, gt=0, le=1)
    minimum_group: int = Field(_MONITOR.minimum_group, ge=1)

    @field_validator("models")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError('a monitor of no model watches nothing; leave it out for all, or name some, such as "fraud-*"')
        return value

    @field_validator("metrics", "slice_metrics")
    @classmethod
    def _met(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [pattern for pattern in value if not may_match(pattern)]
        if unknown:
            near = nearest(unknown[0])
            hint = f"did you mean {near}? All are in monitor.example.toml" if near else "all are in monitor.example.toml"
            raise ValueError(f"there is no metric {', '.join(unknown)}; {hint}")
        return value

    @field_validator("slices")
    @classmethod
    def _crossed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [key for key in value if CROSS in key and (len(parts := key.split(CROSS)) != 2 or not all(map(str.strip, parts)))]:
            raise ValueError(f'{", ".join(wrong)}: a cross is of two slice keys, such as "country x device"')
        return value

    @field_validator("slice_shares")
    @classmethod
    def _sliced(cls, value: dict[str, int]) -> dict[str, int]:
        if wrong := [pattern for pattern in value if "=" not in pattern and "*" not in pattern]:
            raise ValueError(f'{", ".join(wrong)}: a slice is written with its key, such as "country=DE", or "country=*" for all')
        return value

    @field_validator("fairness_metrics")
    @classmethod
    def _compared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in FAIRNESS_METRICS]:
            raise ValueError(f"there is no {', '.join(unknown)}; there are {', '.join(FAIRNESS_METRICS)}")
        return value

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if self.task == "regression" and self.protected and "error" not in self.fairness_metrics:
            raise ValueError("fairness_metrics: of numbers only the error is compared, and task is regression; add error")
        if self.task == "regression" and self.disparate_impact is not None:
            raise ValueError("disparate_impact is about the favourable class, and task is regression; leave it out")
        for limit in self.limits if self.task == "regression" else ():
            if limit.share is None and is_labelled(limit):
                hint = (
                    f"say for how many it must hold, such as error <= {limit.value:g} for 95%"
                    if limit.metric == "error"
                    else "leave it out"
                )
                raise ValueError(f"limits: {written(limit)} is about classes, and task is regression; {hint}")
        return self

    def settings(self, name: str, base: MonitorSettings = _MONITOR) -> MonitorSettings:
        """`base` with what this table sets."""
        said = {_FIELDS.get(field, field): getattr(self, field) for field in self.model_fields_set}
        everything = {name: getattr(base, name) for name in (_FIELDS.get(field, field) for field in type(self).model_fields)}
        return MonitorSettings(name=name, **everything | {"models": _MONITOR.models} | said)


def _may_warn(monitor: MonitorSettings) -> bool:
    return any(detector.name == "e_detector" and not detector.parameters for detector in monitor.detectors)


def _maturity(value: Any) -> Any:
    return None if value == "auto" else value


class DetectConfig(_Table):
    """[detect]. See core.settings.DetectSettings. `maturity`: a duration, or "auto" for a quantile of the label delay.

    `snapshot_interval` decides how much a start replays, never an alert, so it is none of the core's settings.
    """

    alert_budget: Rate = (_DETECT.alert_budget.alerts, _DETECT.alert_budget.period_ms)
    warning_budget: Rate | None = None
    maturity: Annotated[Duration | None, BeforeValidator(_maturity)] = None
    maturity_quantile: float = Field(_DETECT.maturity_quantile, gt=0, lt=1)
    maturity_sample: int = Field(_DETECT.maturity_sample, ge=1)
    max_waiting: int = Field(_DETECT.max_waiting, ge=1)
    max_slices: int = Field(_DETECT.max_slices, ge=0)
    max_versions: int = Field(_DETECT.max_versions, ge=1)
    max_streams: int = Field(_DETECT.max_streams, ge=1)
    max_features: int = Field(_DETECT.max_features, ge=0)
    max_categories: int = Field(_DETECT.max_categories, ge=1)
    warmup: int = Field(_DETECT.warmup, ge=30)
    max_clock_step: Duration = Field(_DETECT.max_clock_step_ms, ge=1)
    resolve_means: int = Field(_DETECT.resolve_means, ge=1)
    resolve_width: int = Field(_DETECT.resolve_width, ge=1)
    silent_after: Duration = Field(_DETECT.silent_ms, ge=1)
    snapshot_interval: Duration = Field(60_000, ge=1)
    default: MonitorConfig = MonitorConfig()

    @model_validator(mode="after")
    def _warns_more(self) -> Self:
        if self.warning_budget is not None and AlertBudget(*self.warning_budget).rate <= AlertBudget(*self.alert_budget).rate:
            raise ValueError(
                "warning_budget must allow more than alert_budget, since a warning asks for less evidence than an alert: make it"
                " several times as much, or leave it out for no warnings"
            )
        return self


class Config(_Table):
    """A valid configuration. `instance_id` is stable over restarts (a StatefulSet's ordinal), or empty for a random one."""

    instance_id: str = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    kafka: KafkaConfig
    topics: TopicsConfig = TopicsConfig()
    redis: RedisConfig = RedisConfig()
    events: EventsConfig = EventsConfig()
    join: JoinConfig = JoinConfig()
    detect: DetectConfig = DetectConfig()
    monitors: dict[str, MonitorConfig] = {}
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.topics.journal_retention < self.rebuild_ms:
            raise ValueError(
                "topics.journal_retention is shorter than twice join.window + join.slack; what Redis forgets could not be rebuilt"
                " from the journal: make it at least that, plus the longest outage to survive"
            )
        if self.detect.warning_budget is not None and not any(map(_may_warn, self._watching())):
            raise ValueError(
                "detect.warning_budget: only the e_detector without a threshold of its own gives warnings, and no monitor has it: add"
                ' "e_detector" to the detectors, or leave warning_budget out'
            )
        for watched in self._watching():
            table = "detect.default" if watched.name == _DEFAULT else f"monitors.{watched.name}"
            for metric in ("feedback_conflicting", "feedback_orphan"):
                if metric in watched.slice_metrics and not self.join.label_slices:
                    raise ValueError(f"{table}: slice_metrics: {metric} is known per slice only for the keys that join.label_slices names")
            if watched.warning_effect > watched.critical_effect:
                raise ValueError(
                    f"{table}: warning_effect, {watched.warning_effect:g}, is above critical_effect, {watched.critical_effect:g}:"
                    " every alert that is a warning would be critical before"
                )
        if _DEFAULT in self.monitors:
            raise ValueError(f"monitors.{_DEFAULT}: this name is that of [detect.default]; give it there, or choose another name")
        for name, monitor in self.monitors.items():
            merged = monitor.settings(name, self.detect.default.settings(_DEFAULT))
            for key in ("fairness_limit", "disparate_impact"):
                if key in monitor.model_fields_set and not merged.protected:
                    raise ValueError(f'monitors.{name}.{key} needs the slice keys that are protected, such as protected = ["gender"]')
            if "disparate_impact" in monitor.model_fields_set and "selection_rate" not in merged.fairness_metrics:
                raise ValueError(f"monitors.{name}.disparate_impact is about the selection_rate, which fairness_metrics leave out")
        return self

    def _watching(self) -> tuple[MonitorSettings, ...]:
        """What is watched, by monitor, the default last."""
        default = self.detect.default.settings(_DEFAULT)
        return *(monitor.settings(name, default) for name, monitor in self.monitors.items()), default

    @property
    def rebuild_ms(self) -> int:
        """How much of the journal a rebuild must find: an entry may be as old as the horizon, and what it met as old again. It reads more
        where there is more (`stages.Join`)."""
        return 2 * (self.join.window + self.join.slack)

    def detect_settings(self) -> DetectSettings:
        d = self.detect
        *monitors, default = self._watching()
        return DetectSettings(
            alert_budget=AlertBudget(*d.alert_budget),
            warning_budget=None if d.warning_budget is None else AlertBudget(*d.warning_budget),
            maturity_ms=d.maturity,
            maturity_quantile=d.maturity_quantile,
            maturity_sample=d.maturity_sample,
            max_waiting=d.max_waiting,
            max_slices=d.max_slices,
            max_versions=d.max_versions,
            max_streams=d.max_streams,
            max_features=d.max_features,
            max_categories=d.max_categories,
            warmup=d.warmup,
            max_clock_step_ms=d.max_clock_step,
            resolve_means=d.resolve_means,
            resolve_width=d.resolve_width,
            silent_ms=d.silent_after,
            monitors=tuple(monitors),
            default=default,
        )

    def kafka_client(self) -> dict[str, Any]:
        """Properties of any client."""
        return {"bootstrap.servers": self.kafka.bootstrap_servers, **self.kafka.properties}

    def kafka_consumer(self) -> dict[str, Any]:
        return self.kafka_client() | self.kafka.consumer

    def kafka_producer(self) -> dict[str, Any]:
        return self.kafka_client() | {"message.max.bytes": self.max_message_bytes} | self.kafka.producer

    @property
    def max_message_bytes(self) -> int:
        """The largest record that is written: an outcome carries two events."""
        return max(1_048_588, 2 * self.events.max_event_bytes + 65_536)


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration of a file under the environment's overrides. Raises ConfigurationError with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: cannot be read: {error}"], "name a TOML file with --config") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{path}: not TOML: {error}"], 'text goes in quotes, for example group = "monitor"') from error
    return parse(override(tables, environment))


def parse(tables: Mapping[str, Any]) -> Config:
    """The configuration in plain tables. Raises ConfigurationError with every problem."""
    try:
        return Config.model_validate(dict(tables))
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors()]
        raise ConfigurationError(problems, "monitor.example.toml has every key with its meaning and default") from error


def override(tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The tables with what the environment sets: STREAM_MONITOR__TABLE__KEY=value. Deeper keys follow behind further `__`."""
    result: dict[str, Any] = _copy(tables)
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT):
            continue
        *above, key = name.removeprefix(ENVIRONMENT).lower().split("__")
        at = result
        for table in above:
            below = at.setdefault(table, {})
            if not isinstance(below, dict):
                raise ConfigurationError([f"{name}: {table} is a value, not a table"], "name a table and a key of it")
            at = below
        if len(above) == 2 and (above[0] == "kafka" or above[1] == "properties"):
            key = key.replace("_", ".")  # properties are written with dots, which a variable's name cannot have
        at[key] = text if _is_text([*above, key]) else _value(text)
    return result


def _is_text(path: Sequence[str]) -> bool:
    """Whether a key wants a string as it stands: `password = 12345` is none that TOML would read."""
    fields = _fields(path)
    if len(fields) < len(path):
        return path[len(fields) - 1] in ("properties", "consumer", "producer")
    return fields[-1].annotation in (str, str | None)


def _fields(path: Iterable[Any]) -> list[FieldInfo]:
    """What a path leads through, table by table, as far as it is known."""
    model: Any = Config
    found: list[FieldInfo] = []
    for step in path:
        field = getattr(model, "model_fields", {}).get(step)
        if field is None:
            break
        found.append(field)
        model = field.annotation
    return found


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in table.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML, or a number beyond all measure
        return text


def _problem(error: Any) -> str:
    path = ".".join(str(step) for step in error["loc"] if step not in ("function-before", "tuple")) or "the file"
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(error["loc"][:-1]), 1, 0.5)
        return f"{path}: there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "missing":
        return f"{path}: is required"
    if (bound := _DURATION_BOUNDS.get(kind)) is not None and _is_duration(error["loc"]):
        return f"{path}: {bound[0]} {shortest(error['ctx'][bound[1]])} is expected"
    return f"{path}: {message}"


_DURATION_BOUNDS = {"less_than_equal": ("at most", "le"), "greater_than_equal": ("at least", "ge")}  # pydantic would tell them in ms


def _is_duration(path: Sequence[Any]) -> bool:
    fields = _fields(path)
    return len(fields) == len(path) and any(getattr(one, "func", None) is milliseconds for one in fields[-1].metadata)


def _known_keys(path: Sequence[Any]) -> list[str]:
    if path and path[0] == "monitors":
        return list(MonitorConfig.model_fields)
    fields = _fields(path)
    if len(fields) < len(path):
        return []
    return list(getattr(fields[-1].annotation if fields else Config, "model_fields", ()))
