"""The contract of a detector: values in, `True` at the value that shows a change.

A detector watches the mean of one standardised stream. Which of its three forms it reads is `reads`:

    value  a binary stream as it is, 0 or 1; a numeric stream as normal scores
    score  always normal scores: N(0, 1) as long as nothing changes
    bit    always 0 or 1: a binary stream as it is; of a numeric stream, whether the score is above 0 (the value above the median so far)

Normal scores lie within -8.3 and 8.3. A binary stream whose values depend on each other is read as scores by those that read values.

After `True` its owner asks for `evidence` and calls `reset`; from then on the new level is what the detector knows.
A detector is `budgeted` unless it was given a threshold of its own: then `retune` sets the threshold to one false alarm in so many values.
It never reads a clock, draws nothing at random without a seed, and after `restore(state())` it is the same detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args

from stream_monitor.core.events import Level

Parameter = float | int | str | bool
Reads = Literal["value", "score", "bit"]
Assurance = Literal["guaranteed", "calibrated", "uncalibrated"]


class Evidence(NamedTuple):
    """Why a detector fired: its statistic and the threshold that it passed."""

    statistic: float
    threshold: float


class Detector(Protocol):
    """See the head of this module. `parameters` are all of them, as they go into an alert."""

    name: str
    reads: Reads

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """As they are now."""

    assurance: Assurance
    budgeted: bool

    @property
    def update(self) -> Callable[[float], bool]:
        """Takes the next value; true where it shows a change. `reset` may bind it anew, so it is looked up after each."""

    def evidence(self, before: Level, after: Level) -> Evidence:
        """Right after `update` was true. The means of what it read on the two sides of the most likely change point."""

    def retune(self, run_length: float, share: float | None) -> None:
        """False alarms are to be one in `run_length` values: bits with this share of ones, or normal scores (None). Keeps the past."""

    def reset(self) -> None:
        """Forgets every value. Thresholds stay."""

    def state(self) -> Any:
        """Plain data: numbers, strings, lists."""

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave. Raises ValueError if it can not be that."""


_METHODS = ("update", "evidence", "retune", "reset", "state", "restore")


def unmet(detector: Any) -> list[str]:
    """What an object lacks to be a detector, as far as that shows without a value; one sentence each."""
    found = [f"it has no method {name}" for name in _METHODS if not callable(getattr(detector, name, None))]
    said = {name: getattr(detector, name, None) for name in ("name", "reads", "assurance", "budgeted", "parameters")}
    for name, known in (("reads", get_args(Reads)), ("assurance", get_args(Assurance)), ("budgeted", (True, False))):
        if said[name] not in known or type(said[name]) is not type(known[0]):
            found.append(f"its {name} is {said[name]!r}; {' or '.join(map(repr, known))} is expected")
    if type(said["name"]) is not str or not said["name"]:
        found.append(f"its name is {said['name']!r}; some text is expected")
    parameters = said["parameters"]
    if not isinstance(parameters, Mapping) or any(type(v) not in (int, float, str, bool) for v in parameters.values()):
        found.append(f"its parameters are {parameters!r}; a mapping of names to numbers, texts and booleans is expected")
    if (said["assurance"] == "uncalibrated") is (said["budgeted"] is True):
        found.append(
            f"it is {'' if said['budgeted'] else 'not '}budgeted and says {said['assurance']!r}: just what is not budgeted is uncalibrated"
        )
    return found


def between(detector: str, parameter: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError unless `value` is a number between `low` and `high`, both excluded."""
    if type(value) not in (int, float) or not low < value < high:
        raise ValueError(f"{detector}: {parameter} is {value!r}; a number between {low} and {high} is expected")


def whole(detector: str, parameter: str, value: Any, low: int) -> None:
    """Raises ValueError unless `value` is a whole number from `low` on."""
    if type(value) is not int or value < low:
        raise ValueError(f"{detector}: {parameter} is {value!r}; a whole number from {low} on is expected")
