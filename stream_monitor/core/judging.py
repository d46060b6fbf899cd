"""What labels say about a model: its error, how each class fares, how good its scores are, and when the labels come.

    metric           kind           value                                                              stream
    error            concept drift  classes: 0 right, 1 wrong; numbers: |prediction - label|           binary, numeric
    recall=CLASS     performance    of what is labelled CLASS: was it predicted?                       binary
    precision=CLASS  performance    of what is predicted to be CLASS: is it labelled so?               binary
    weighted_error   performance    the error where weight counts (below)                              as error
    bias             performance    numbers: prediction - label                                        numeric
    squared_error    performance    numbers: the square of that, where `metrics` names it              numeric
    log_loss         performance    classes with `scores`: -ln of the share given to the label         numeric
    brier            performance    classes with `scores`: squared distance of these from the truth    numeric
    label_delay      data quality   how long after the prediction the label is dated, ms               numeric

The squared error ranks as the absolute one does, and numbers are judged by their ranks: it is the same stream once more, with levels for
those who report a mean squared error. So it is there for who names it, better in place of `error` than beside it.

A rare class is watched by its recall and precision: an error share hides it. The classes are those met first, at most a set number; of
others, each value is told to `refuse`.

Where outcomes have weights, `weighted_error` takes each error with a probability that is its weight's share of the largest, so that what
matters ten times as much is seen ten times as often, and a mean of these is the weighted mean. (A weighted sum would not do: its
scale is that of a few heavy outcomes, whose ranks tell nothing.) The draw comes from the record, as that of ranks does. "Largest" is
the 99% quantile of the first weights, so that one wrong weight does not end the signal; where these are all the same there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import log
from typing import Any, Final, NamedTuple

from stream_monitor.core.categories import category_name, category_of, key_of
from stream_monitor.core.confusion import Confusion
from stream_monitor.core.events import Kind
from stream_monitor.core.reference import mix
from stream_monitor.core.streams import Stream

SQUARED: Final = "squared_error"
METRICS: Final = frozenset(("error", "recall", "precision", "weighted_error", "bias", "log_loss", "brier", "label_delay", SQUARED))

SAMPLE: Final = 1_000  # weights, or as few as the warm-up has values
QUANTILE: Final = 0.99
HUGE: Final = 1e290  # sums of values up to here stay finite
_ROOT: Final = 1e145  # of it: squares stay as finite
_SURE: Final = 1e-15  # least share: one label that was called impossible costs 34.5, not infinity
_DRAW: Final = 0x5851F42D4C957F2D & (2**53 - 1) | 1  # the draw must tell nothing of the ranks' own, which are drawn by other factors
_SCALE: Final = 2.0**-53

Make = Callable[[str, Kind, bool], Stream | None]
"""The stream of a metric, numeric or binary; None where it is not asked for, or there are too many."""
Refuse = Callable[[str], None]
"""A value came of this metric, for which there are too many classes."""


class Losses(NamedTuple):
    """How far the scores of an outcome were from the truth."""

    log_loss: float
    brier: float


def losses(scores: Any, label: Any) -> Losses | None:
    """Of `scores` (class -> probability) against the label; None where there are none, or no probabilities. Brier, 1950; Good, 1952."""
    if type(scores) is not dict or not scores:
        return None
    name = label if type(label) is str else category_name(category_of(label))
    share = scores.get(name, 0.0)
    try:
        square = sum(p * p for p in scores.values()) - share * share + (1 - share) ** 2
    except (TypeError, OverflowError):
        return None
    if not (0 <= share <= 1 and square < HUGE):
        return None
    return Losses(-log(max(_SURE, share)), square)


class Judged(NamedTuple):
    """An outcome as it is judged: `error` 0 or 1 for classes, a distance for numbers (`numeric`).

    `delay` is None for a label that came after its turn and was taken all the same because labels were read slowly: how many of these
    there are says how the log was read, not when labels come.
    """

    prediction: Any
    label: Any
    error: float
    numeric: bool
    delay: int | None
    weight: float | None
    losses: Losses | None


class Judging:
    """The label signals of a scope, each begun with its first value."""

    __slots__ = ("_make", "_precision", "_recall", "_streams", "_weights", "confusion", "limit", "refuse", "sample")

    def __init__(self, make: Make, limit: int, warmup: int, confusion: bool = False, refuse: Refuse | None = None) -> None:
        self._make = make
        self.refuse = refuse
        self.limit = limit  # classes
        self.confusion = Confusion(limit) if confusion else None
        self.sample = min(SAMPLE, max(1, warmup))
        self._streams: dict[str, Stream | None] = {}  # by metric
        self._recall: dict[Any, Stream | None] = {}  # by class
        self._precision: dict[Any, Stream | None] = {}
        self._weights: list[float] | float = []  # the first ones, then the largest

    def error(self, error: float, numeric: bool, unit: int, time: int, offset: int) -> None:
        """Takes the error of an outcome, which is all where nothing else is asked for."""
        try:
            stream = self._streams["error"]
        except KeyError:
            stream = self._begin("error", numeric)
        if stream is not None:
            stream.push(error if error < HUGE else HUGE, unit, time, offset)

    def take(self, one: Judged, unit: int, time: int, offset: int) -> None:
        """Takes everything that an outcome says."""
        prediction, label, error, numeric, delay, weight, lost = one
        self.error(error, numeric, unit, time, offset)
        if numeric:
            miss = max(-HUGE, min(HUGE, float(prediction) - float(label)))
            self._number("bias", miss, unit, time, offset)
            self._number(SQUARED, min(error, _ROOT) ** 2, unit, time, offset)
        else:
            hit = 0.0 if error else 1.0
            said, true = category_of(prediction), category_of(label)
            if self.confusion is not None:
                self.confusion.take(said, true, time)
            stream = self._recall[true] if true in self._recall else self._class(self._recall, "recall", true)
            if stream is not None:
                stream.push(hit, unit, time, offset)
            stream = self._precision[said] if said in self._precision else self._class(self._precision, "precision", said)
            if stream is not None:
                stream.push(hit, unit, time, offset)
            if lost is not None:
                self._number("log_loss", lost[0], unit, time, offset)
                self._number("brier", lost[1], unit, time, offset)
        if delay is not None:
            self._number("label_delay", float(delay), unit, time, offset)
        if weight is not None or self._weights:
            self._weigh(1.0 if weight is None else weight, min(error, HUGE), numeric, unit, time, offset)

    def streams(self) -> Iterator[Stream]:
        """Every stream, in an order that does not change."""
        for known in (self._streams, self._recall, self._precision):
            for stream in known.values():
                if stream is not None:
                    yield stream

    def _number(self, metric: str, value: float, unit: int, time: int, offset: int) -> None:
        streams = self._streams
        stream = streams[metric] if metric in streams else self._begin(metric, True)
        if stream is not None:
            stream.push(value, unit, time, offset)

    def _weigh(self, weight: float, error: float, numeric: bool, unit: int, time: int, offset: int) -> None:
        weights = self._weights
        if type(weights) is list:
            weights.append(weight)
            if len(weights) >= self.sample:
                weights.sort()
                largest = weights[int(QUANTILE * (len(weights) - 1))]
                self._weights = largest
                if weights[0] == weights[-1]:
                    self._streams["weighted_error"] = None
            return
        if mix(unit, _DRAW) * _SCALE * weights < weight:  # type: ignore[operator]  # a number, since it is no list
            streams, metric = self._streams, "weighted_error"
            stream = streams[metric] if metric in streams else self._begin(metric, numeric)
            if stream is not None:
                stream.push(error, unit, time, offset)

    def _begin(self, metric: str, numeric: bool) -> Stream | None:
        stream = self._streams[metric] = self._make(metric, _kind(metric), numeric)
        return stream

    def _class(self, known: dict[Any, Stream | None], metric: str, key: Any) -> Stream | None:
        if len(known) >= self.limit:
            if self.refuse is not None:
                self.refuse(f"{metric}={category_name(key)}")
            return None
        stream = known[key] = self._explained(metric, key, self._make(f"{metric}={category_name(key)}", _kind(metric), False))
        return stream

    def _explained(self, metric: str, key: Any, stream: Stream | None) -> Stream | None:
        if stream is not None and self.confusion is not None:
            stream.explain = partial(self.confusion.explain, metric, key)
        return stream

    def state(self) -> Any:
        """Plain data."""
        return [
            [[metric, _saved(stream)] for metric, stream in self._streams.items()],
            [[key, _saved(stream)] for key, stream in self._recall.items()],
            [[key, _saved(stream)] for key, stream in self._precision.items()],
            list(self._weights) if type(self._weights) is list else self._weights,
            self.confusion and self.confusion.state(),
        ]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        streams, recall, precision, weights, confusion = state
        for metric, saved in streams:
            self._streams[metric] = self._restored(metric, saved)
        for name, known, classes in (("recall", self._recall, recall), ("precision", self._precision, precision)):
            for key, saved in classes:
                key = key_of(key)
                known[key] = self._explained(name, key, self._restored(f"{name}={category_name(key)}", saved))
        self._weights = weights
        if self.confusion is not None:
            self.confusion.restore(confusion)

    def _restored(self, metric: str, saved: Any) -> Stream | None:
        stream = self._make(metric, _kind(metric), saved[0]) if saved else None
        if stream is not None:
            stream.restore(saved[1])
        return stream


def _kind(metric: str) -> Kind:
    return Kind.CONCEPT_DRIFT if metric == "error" else Kind.DATA_QUALITY if metric == "label_delay" else Kind.PERFORMANCE


def _saved(stream: Stream | None) -> Any:
    """Whether a stream is numeric, and its state; None for one that is not watched."""
    return None if stream is None else [stream.numeric, stream.state()]
