"""What the demo plays: loans, a model that was trained once, and two drifts of which every detail is known.

    rows (river's Agrawal) --first ones--> model, frozen --the others--> predictions, and labels that come later

Everything follows from the seed. Which alerts a drift explains is said here, before anything runs: all others are false alerts.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from river.datasets.synth import Agrawal
from river.tree import HoeffdingTreeClassifier

MODEL, VERSION = "loans", "v1"
TRAINING_ROWS = 10_000
SPAN_MS = 48 * 3_600_000  # event time from the first prediction to the last
MAX_DELAY_MS = 2 * 3_600_000  # of a label

_COUNTRIES = ("DE", "FR", "US", "BR")
_RARE = 0.25  # share of the bad loans that is kept: they become the rare class
_NOISE = 0.02  # share of labels that nothing explains
_MEAN_DELAY_MS = 15 * 60_000
_NEVER = 0.05
_TWICE = 0.01
_MALFORMED = 0.001

_BROKEN = (
    b"{not json",
    b'{"request_id": "half a message"',
    b'{"request_id": "no-model", "timestamp": 0, "prediction": "repaid"}',
    b'["\\u001b[31m", "not an object"]',
    b"\xff\xfe\x00",
)


@dataclass(frozen=True, slots=True)
class Drift:
    """A change that is made on purpose at prediction `at`. `effects`: (kind, slice key or "", slice value or "*", metric or a
    prefix ending in "*") of the alerts that it explains; the first one is what moved, and what has to be noticed."""

    name: str
    what: str
    at: int
    over: int  # predictions until it is complete; 0: sudden
    effects: tuple[tuple[str, str, str, str], ...]

    def explains(self, alert: Mapping[str, Any]) -> bool:
        return any(_fits(effect, alert) for effect in self.effects)

    def shown_by(self, alert: Mapping[str, Any]) -> bool:
        """Whether the alert names the very thing that moved."""
        return _fits(self.effects[0], alert)


def _fits(effect: tuple[str, str, str, str], alert: Mapping[str, Any]) -> bool:
    kind, key, value, metric = effect
    part = alert.get("slice") or {"key": "", "value": ""}
    same = alert.get("kind") == kind and part["key"] == key and (value == "*" or part["value"] == value)
    name = str(alert.get("metric"))
    return same and (name.startswith(metric[:-1]) if metric.endswith("*") else name == metric)


class Event(NamedTuple):
    """A message for an input topic. `number`: of the last prediction made so far, from 1."""

    topic: str
    key: bytes
    value: bytes
    number: int


class FrozenModel:
    """A tree that learned from the first rows, and from nothing since."""

    def __init__(self, rows: Iterator[tuple[dict[str, Any], str]], count: int = TRAINING_ROWS) -> None:
        tree: Any = HoeffdingTreeClassifier(grace_period=100, delta=0.01, tau=0.3, split_criterion="gini", leaf_prediction="mc")
        self.learned = 0
        for _ in range(count):
            x, label = next(rows)
            tree.learn_one(x, label)
            self.learned += 1
        self._tree = tree

    def score(self, x: dict[str, Any]) -> float:
        """The probability of `default`."""
        return float(self._tree.predict_proba_one(x).get("default", 0.0))


class Scenario:
    """`predictions` loans over two days that end at `end_ms`. `events` can be asked for once."""

    def __init__(self, seed: int, predictions: int, end_ms: int) -> None:
        self.predictions = predictions
        self.start_ms = end_ms - SPAN_MS - MAX_DELAY_MS
        self.step_ms = SPAN_MS / predictions
        self.malformed = 0
        self._random = random.Random(seed)
        self._rows = _rows(seed, self._random)
        self.concept = Drift(
            "concept drift, sudden",
            "in country=DE, loans of the best educated suddenly default",
            predictions * 2 // 5,
            0,
            (
                ("concept_drift", "country", "DE", "error"),
                ("concept_drift", "", "", "error"),
                ("performance", "", "", "*"),  # of each class
                ("concept_drift", "age_group", "*", "error"),  # every age group has rows of DE
            ),
        )
        self.data = Drift(
            "data drift, gradual",
            "everywhere, the loans asked for grow by a quarter, more and more of them",
            predictions * 7 // 10,
            predictions // 10,
            (
                ("data_drift", "", "", "feature:loan"),
                ("prediction_drift", "", "", "*"),  # the model reads the loan
                ("performance", "", "", "*"),
            ),
        )
        self.drifts = (self.concept, self.data)
        self.model = FrozenModel(self._rows)

    def time_of(self, number: int) -> int:
        """Event time (ms) of a prediction."""
        return self.start_ms + int(number * self.step_ms)

    def number_at(self, time_ms: int) -> int:
        """How many predictions were made by then."""
        return int((time_ms - self.start_ms) / self.step_ms)

    def cause(self, alert: Mapping[str, Any]) -> Drift | None:
        """The injected drift that explains an alert, None for a false alert. What moved itself comes before what follows."""
        made = [drift for drift in self.drifts if alert["detected_at"] >= self.time_of(drift.at)]
        for drift in made:
            if drift.shown_by(alert):
                return drift
        return next((drift for drift in reversed(made) if drift.explains(alert)), None)

    def events(self) -> Iterator[Event]:
        """All messages in the order in which they come."""
        chance = self._random
        due: list[tuple[int, int, bytes, bytes]] = []  # labels on their way
        order = 0
        for number in range(self.predictions):
            now = self.time_of(number)
            while due and due[0][0] <= now:
                _, _, key, value = heapq.heappop(due)
                yield Event("feedback", key, value, number)
            key, prediction, label = self._loan(number, now)
            body = orjson.dumps(prediction)
            for _ in range(1 + (chance.random() < _TWICE)):
                yield Event("predictions", key, body, number + 1)
            if chance.random() < _MALFORMED:
                self.malformed += 1
                yield Event(chance.choice(("predictions", "feedback")), key, chance.choice(_BROKEN), number + 1)
            if chance.random() < _NEVER:
                continue
            when = now + 1 + min(int(chance.expovariate(1 / _MEAN_DELAY_MS)), MAX_DELAY_MS - 1)
            feedback = orjson.dumps({"request_id": prediction["request_id"], "label": label, "timestamp": when})
            for _ in range(1 + (chance.random() < _TWICE)):
                order += 1
                heapq.heappush(due, (when, order, key, feedback))
        while due:
            _, _, key, value = heapq.heappop(due)
            yield Event("feedback", key, value, self.predictions)

    def _loan(self, number: int, now: int) -> tuple[bytes, dict[str, Any], str]:
        chance = self._random
        x, label = next(self._rows)
        country = chance.choices(_COUNTRIES, (30, 25, 25, 20))[0]
        if country == "DE" and number >= self.concept.at and x["elevel"] == 4:
            label = "default"
        progress = (number - self.data.at) / self.data.over
        if chance.random() < progress:
            x["loan"] *= 1.25
        score = self.model.score(x)
        request = f"loan-{number:06d}"
        prediction = {
            "request_id": request,
            "model": MODEL,
            "model_version": VERSION,
            "timestamp": now,
            "prediction": "default" if score >= 0.5 else "repaid",
            "score": round(score, 6),
            "features": x,
            "slices": {"country": country, "age_group": _age_group(x["age"])},
        }
        return request.encode(), prediction, label


def _age_group(age: int) -> str:
    return "under-40" if age < 40 else "40-to-59" if age < 60 else "60-and-over"


def _rows(seed: int, chance: random.Random) -> Iterator[tuple[dict[str, Any], str]]:
    """Loans and how they ended; few are bad."""
    for x, y in Agrawal(classification_function=1, seed=seed):
        if y == 1 and chance.random() >= _RARE:
            continue
        bad = (y == 1) != (chance.random() < _NOISE)
        features = {name: round(value, 2) if type(value) is float else value for name, value in x.items()}
        yield features, "default" if bad else "repaid"
