"""The events and their units. `schemas/` says the same to other languages; tests/contract holds the two together.

Times are integer milliseconds since the epoch. Predictions, feedback and observations are plain dictionaries as
decoded from JSON (typed here), because they are handled a hundred thousand times a second; they have been
validated once, by `codec`, and nothing behind it validates again. Alerts are few, so they are frozen objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

Label = str | int | float | bool
"""A class (string, integer or boolean) or a number (regression)."""

ALL_VERSIONS = "*"
"""The version of alerts about what is known of a model only."""

FeatureValue = str | int | float | bool | None


class Prediction(TypedDict):
    """One answer of a model. `score` in [0, 1]; `scores` maps class to probability; `weight` > 0 is importance."""

    request_id: str
    model: str
    model_version: str
    timestamp: int
    prediction: Label
    score: NotRequired[float | None]
    scores: NotRequired[dict[str, float] | None]
    features: NotRequired[dict[str, FeatureValue] | None]
    slices: NotRequired[dict[str, str] | None]
    weight: NotRequired[float | None]
    latency_ms: NotRequired[float | None]


class Feedback(TypedDict):
    """The truth about one answer, known later. It may say whose the answer was, as the prediction does."""

    request_id: str
    label: Label
    timestamp: int
    model: NotRequired[str | None]
    model_version: NotRequired[str | None]
    slices: NotRequired[dict[str, str] | None]
    weight: NotRequired[float | None]


class PredictionRecord(TypedDict):
    """Observation record `prediction`: the first sighting of a prediction."""

    record: Literal["prediction"]
    prediction: Prediction


class OutcomeRecord(TypedDict):
    """Observation record `outcome`: a prediction with its label. `label_delay_ms` may be negative (clocks differ).

    `partition` of the journal's `partitions`: where the two met. Within it, outcomes come in the journal's order.
    """

    record: Literal["outcome"]
    partition: NotRequired[int]
    partitions: NotRequired[int]
    label_delay_ms: int
    prediction: Prediction
    feedback: Feedback


class FeedbackIssueRecord(TypedDict):
    """Observation record `feedback_issue`: a label that did not count, and why.

    `model_version`, and `slices` where they are kept: of the prediction that a label was given twice, which is itself not known any more.
    """

    record: Literal["feedback_issue"]
    issue: Literal["late", "conflicting"]
    model: str
    feedback: Feedback | None
    model_version: NotRequired[str]
    slices: NotRequired[dict[str, str]]
    prediction: NotRequired[Prediction | None]


class FeedbackCohortRecord(TypedDict):
    """Observation record `feedback_cohort`: how many labels of a model version, all of one age by then, never met their prediction.

    `labels` name it themselves, and came in a slot of log time that began at `since`; `orphans` of them are past the join's horizon and
    still alone. `slices` where the join is told to keep them.
    """

    record: Literal["feedback_cohort"]
    model: str
    model_version: str
    slices: NotRequired[dict[str, str]]
    since: int
    labels: int
    orphans: int


class ControlRecord(TypedDict):
    """Observation record `control`: an operator's decision, ordered with the data it acts on.

    `alert` with `incident`: the id of an incident, all of whose alerts are meant. `fingerprint`: the alert's, so that one that is over can
    be silenced too. `until`: event time of a silence's end; null for good; one that has passed ends a silence.
    """

    record: Literal["control"]
    action: Literal["resolve", "acknowledge", "silence"]
    model: str
    alert: str
    timestamp: int
    incident: NotRequired[bool]
    fingerprint: NotRequired[str | None]
    until: NotRequired[int | None]
    actor: NotRequired[str | None]
    comment: NotRequired[str | None]


class Kind(StrEnum):
    """Which signal moved, in the field's standard terms. Whether the inputs moved with it: `details.inputs`."""

    CONCEPT_DRIFT = "concept_drift"
    DATA_DRIFT = "data_drift"
    PREDICTION_DRIFT = "prediction_drift"
    PERFORMANCE = "performance"
    FAIRNESS = "fairness"
    DATA_QUALITY = "data_quality"


class Status(StrEnum):
    WARNING = "warning"
    FIRING = "firing"
    UPDATED = "updated"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    RESOLVED = "resolved"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Position(NamedTuple):
    """A place in a log."""

    topic: str
    partition: int
    offset: int


class Span(NamedTuple):
    """Where a change began, with 90% confidence: event times (ms) and offsets of the first value that may be, and of the last.

    Of a limit that is broken: of the first and the last value that the evidence comes from (core/guards.py).
    """

    earliest: int
    latest: int
    earliest_offset: int
    latest_offset: int


class Slice(NamedTuple):
    """A part of the traffic: `country=DE`."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Level:
    """A signal's mean over `count` values; with 90% confidence the true one lies between `low` and `high`, where that is known."""

    value: float
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """One event about one alert (schemas/alert.json). `id` names the alert, `event_id` this event about it.

    `incident`: the id of the first of the alerts that have one cause (core/incidents.py), perhaps its own.
    """

    id: str
    event_id: str
    fingerprint: str
    incident: str
    status: Status
    severity: Severity
    kind: Kind
    model: str
    model_version: str
    slice: Slice | None
    metric: str
    direction: Literal["up", "down"] | None
    before: Level
    after: Level
    statistic: float
    threshold: float
    detector: str
    parameters: Mapping[str, float | int | str]
    assurance: Literal["guaranteed", "calibrated", "uncalibrated"]
    first_seen: int
    detected_at: int
    first_position: Position
    position: Position
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)
    change: Span | None = None
