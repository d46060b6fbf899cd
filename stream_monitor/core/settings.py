"""What the core can be told, as frozen values. `config.py` reads them from the operator's file; the defaults are these.

Durations are integer milliseconds, sizes bytes. Only settings that change decisions live here, so that
`DetectSettings.digest()` can tell whether a snapshot belongs to this configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Literal

import orjson

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What is accepted on the input topics, and under which names.

    `prediction_fields` and `feedback_fields` map our field name to a dotted path in the incoming JSON, for example
    `{"model_version": "meta.version"}`; a field that is not mapped is read under its own name.
    """

    max_event_bytes: int = 256 * 1024
    max_id_bytes: int = 512
    max_future_ms: int = HOUR
    prediction_fields: Mapping[str, str] = field(default_factory=dict)
    feedback_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How long a prediction waits for its feedback, by the journal's own clock (its append time).

    `window_ms`: older pairs are late. `slack_ms`: for so long past the window an entry is still known, so that a late pair
    is told from an orphan. `slot_ms`: grain of the expiry counters, and of cohorts. `ttl_ms`: Redis frees what was written as long ago, by
    its own clock; never a decision. `label_slices`: keys of slices; to slices of these a label that contradicts is told too (they are kept
    with each joined pair for that), and orphans, as far as their labels name them (core/codec.py).
    """

    window_ms: int = 7 * DAY
    slack_ms: int = HOUR
    slot_ms: int = 10 * MINUTE
    ttl_ms: int = 14 * DAY
    label_slices: tuple[str, ...] = ()

    @property
    def lag_ms(self) -> int:
        """How far the join may be behind before entries that it still needs may have been freed. Half of what the TTL leaves beyond the
        life of an entry; the other half is for clocks that disagree."""
        return (self.ttl_ms - self.window_ms - self.slack_ms) // 2


@dataclass(frozen=True, slots=True)
class AlertBudget:
    """At most `alerts` false alerts in `period_ms` of event time, over everything that is watched."""

    alerts: float = 1.0
    period_ms: int = WEEK

    @property
    def rate(self) -> float:
        """False alerts a millisecond."""
        return self.alerts / self.period_ms


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """A detector by its registered name (`adwin`, ...) and its parameters. One with a threshold of its own is not budgeted."""

    name: str
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)


CROSS = " x "  # between the two slice keys of a cross, and between their values
FAIRNESS_METRICS = ("selection_rate", "true_positive_rate", "false_positive_rate", "error")


@dataclass(frozen=True, slots=True)
class Limit:
    """A service level (core/limits.py): the mean of `metric`, or a `share` of its values, is to be at least or at most `value`."""

    metric: str
    at_least: bool
    value: float
    share: float | None = None


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What is watched for the models it matches; the first monitor whose `models` match applies, the defaults to all others.

    `models`: shell patterns (`fraud-*`). `task`: `auto` decides by the first predictions (a JSON float means regression).
    `metrics`: shell patterns of metric names (core/signals.py, core/judging.py), all by default.
    `slices`: slice keys to watch, or `"*"` for every key that appears, and crosses of two, `"country x device"`. `slice_metrics`: metrics
    that are also watched per slice.
    `slice_shares`: shell patterns of slices (`country=DE`), whose streams own so many shares of the budget instead of one.
    `new_version`: what a version that is new begins with: `own`, nothing but a warm-up; `previous`, the references of the version of its
    model that was heard of last, so that it is judged against that one's level from its first value on (core/streams.py `inherit`).
    `minimum_effect`: shift, in standard deviations of the reference, below which drift raises no alert.
    `warning_effect`, `critical_effect`: shifts from which an alert is a warning, below it is for information only, and is critical.
    `cool_down_ms`: for so long after an alert is resolved there is none about the same (event time); what lasts is told then.
    `limits`: service levels, for all traffic and for the slices (`country=DE`) that a shell pattern of `limit_slices` matches.
    `protected`: slice keys whose values are groups that are to be treated alike (core/fairness.py), in the `fairness_metrics` (of numbers
    `error` asks for `larger_error`), with the class that is `favourable` (None: true and 1). Beside drift, a group is not to be worse off
    by more than `fairness_limit`, nor selected less than `disparate_impact` times as often. `minimum_group`: values of a group, and of the
    rest, before they are compared.
    """

    name: str = "default"
    models: tuple[str, ...] = ("*",)
    task: Literal["auto", "classification", "regression"] = "auto"
    metrics: tuple[str, ...] = ("*",)
    slices: tuple[str, ...] = ("*",)
    slice_metrics: tuple[str, ...] = ("error",)
    slice_shares: Mapping[str, int] = field(default_factory=dict)
    new_version: Literal["own", "previous"] = "own"
    detectors: tuple[DetectorSettings, ...] = (DetectorSettings("e_detector"), DetectorSettings("adwin"), DetectorSettings("page_hinkley"))
    minimum_effect: float = 0.1
    warning_effect: float = 0.0
    critical_effect: float = 0.5
    cool_down_ms: int = 0
    limits: tuple[Limit, ...] = ()
    limit_slices: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    favourable: str | int | float | bool | None = None
    fairness_metrics: tuple[str, ...] = FAIRNESS_METRICS
    fairness_limit: float | None = None
    disparate_impact: float | None = None
    minimum_group: int = 100


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """Everything that decides which alerts a log gives.

    `alert_budget`: see core/budget.py; `partitions` of `observations` own equal parts of it.
    `warning_budget`: of false warnings, more than of alerts; None for no warnings (core/early.py).
    `maturity_ms`: how long, in event time after a prediction, its label is waited for; None takes `maturity_quantile` of the
    first `maturity_sample` label delays of the model version and freezes it (core/maturity.py); 0 does not wait, and takes
    outcomes as they come. `max_waiting`: outcomes held for maturity per model version.
    `max_slices`: slices watched per model version, the least recently seen goes first. `max_versions`, `max_streams`: model
    versions and streams of a partition; the version longest not heard of goes first, a stream too many is not watched.
    `warmup`: values before a stream is judged. `max_clock_step_ms`: the event clock moves at most so far per record.
    `resolve_means` consecutive means of `resolve_width` values (more where the shift is small) within half the shift of the old
    reference resolve an alert;
    `silent_ms`: a version that is silent for so long, while another predicts, has its alerts resolved; where labels are silent for so
    long, event time tells which predictions have none (core/coverage.py).
    """

    alert_budget: AlertBudget = field(default_factory=AlertBudget)
    warning_budget: AlertBudget | None = None
    partitions: int = 1
    maturity_ms: int | None = None
    maturity_quantile: float = 0.95
    maturity_sample: int = 500
    max_waiting: int = 100_000
    max_slices: int = 1_000
    max_versions: int = 100
    max_streams: int = 50_000
    max_features: int = 200
    max_categories: int = 20
    warmup: int = 1_000
    max_clock_step_ms: int = HOUR
    resolve_means: int = 2
    resolve_width: int = 200
    silent_ms: int = DAY
    monitors: tuple[MonitorSettings, ...] = ()
    default: MonitorSettings = field(default_factory=MonitorSettings)

    @property
    def warnings_per_alert(self) -> float | None:
        """How many false warnings are allowed for each false alert; None where there are no warnings."""
        return None if self.warning_budget is None else self.warning_budget.rate / max(self.alert_budget.rate, 1e-300)

    def digest(self) -> str:
        """32 hex digits: equal if and only if the decisions are made by equal settings."""
        data = asdict(self)
        for monitor in (*data["monitors"], data["default"]):
            del monitor["name"]  # decides nothing
        return blake2b(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
