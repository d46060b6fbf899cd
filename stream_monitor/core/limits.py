"""Service levels: a limit that an operator sets for a metric, as it is written, and the values that are held against it.

    recall[fraud] >= 0.8         a mean: of metrics in [0, 1]
    error <= 5%
    latency <= 200 for 99%       a share: of values of any kind, how many must keep to it

    by itself                                     of                                                            its values
    error, accuracy                               outcomes, classes                                             0, 1
    recall[CLASS], precision[CLASS]               outcomes labelled, or predicted to be, CLASS                  0, 1
    prediction[CLASS]                             predictions                                                   0, 1
    missing:NAME                                  predictions: is the feature null or absent?                   0, 1
    score                                         predictions                                                   [0, 1]
    brier                                         outcomes with `scores`                                        [0, 2]
    with `for P%`
    latency, score, prediction, feature:NAME      predictions, where they are numbers                           is it kept?
    error, bias, log_loss, brier, label_delay     outcomes (error: numbers and classes; bias: numbers)          is it kept?

CLASS is written as in the names of metrics (core/categories.py): `recall[1]` is the number 1, `recall["1"]` the text. An outcome or
prediction that does not have what is asked for says nothing about the limit. core/guards.py watches over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

from stream_monitor.core.categories import category_name, category_of
from stream_monitor.core.events import Kind
from stream_monitor.core.settings import Limit

Reader = Callable[[Any], float | None]
"""What an observation says about a limit: a value of `mean` limits, 1 (kept) or 0 of `share` limits; None for nothing."""

_CLASSES = ("recall", "precision", "prediction")
_MEANS = ("error", "accuracy", "brier", "score")
_LABELLED = ("error", "accuracy", "recall", "precision", "brier", "bias", "log_loss", "label_delay")
_SHARES = ("latency", "score", "prediction", "error", "bias", "log_loss", "brier", "label_delay")
_WRITTEN = re.compile(r"\s*(.+?)\s*(<=|>=)\s*([-+0-9.eE]+)\s*(%?)(?:\s+for\s+([0-9.]+)\s*%)?\s*")
_CLOSEST = 1e-9  # to an end of the range; nearer, a single value would be all that can be bet on
EXAMPLES = '"recall[fraud] >= 0.8", "error <= 5%" or "latency <= 200 for 99%" is expected'


def parse(text: Any) -> Limit:
    """A limit from how it is written. Raises ValueError, with a sentence that says what would be right."""
    found = _WRITTEN.fullmatch(text) if type(text) is str else None
    if found is None:
        raise ValueError(f"{text!r} is no limit; {EXAMPLES}")
    name, sign, number, percent, share = found.groups()
    try:
        value = float(Decimal(number) / 100 if percent else Decimal(number))
    except ArithmeticError:
        raise ValueError(f"{number!r} is no number; {EXAMPLES}") from None
    metric = _metric(name)
    if share is None:
        largest = 2.0 if metric == "brier" else 1.0
        if not _has_mean(metric):
            raise ValueError(f"{name} has no bounds, so say for how many it must hold, such as {name!r} <= 200 for 99%".replace("'", ""))
        if not _CLOSEST <= value <= largest - _CLOSEST:
            raise ValueError(f"the limit of {name} must lie strictly between 0 and {largest:g}, not at {value:g}: one value would break it")
        return Limit(metric, sign == ">=", value)
    if not _has_values(metric):
        raise ValueError(f"{name} is a share itself; leave out the 'for {share}%'")
    try:
        part = float(Decimal(share) / 100)
    except ArithmeticError:
        raise ValueError(f"{share!r} is no number; {EXAMPLES}") from None
    if not _CLOSEST <= part <= 1 - _CLOSEST:
        raise ValueError(f"the share must lie strictly between 0% and 100%, not at {share}%: one value would break it")
    if not -1e300 < value < 1e300:
        raise ValueError(f"{number} is too large")
    return Limit(metric, sign == ">=", value, part)


def _metric(name: str) -> str:
    base, bracket, rest = name.partition("[")
    if bracket and name.endswith("]") and base in _CLASSES:
        if not rest[:-1]:
            raise ValueError(f"{name}: a class is expected between the brackets, such as {base}[fraud]")
        return f"{base}={category_name(_class(rest[:-1]))}"
    kind, colon, feature = name.partition(":")
    if colon and feature and kind in ("missing", "feature"):
        return f"{kind}:{feature}"
    if name in (*_MEANS, *_SHARES):
        return name
    if name in _CLASSES:
        raise ValueError(f"{name} needs a class, such as {name}[fraud]")
    known = ", ".join(("error", "accuracy", *(f"{c}[CLASS]" for c in _CLASSES), "missing:NAME", "brier", "score"))
    raise ValueError(f"there is no limit for {name!r}; there is for {known}, and with a share for {', '.join(_SHARES)}, feature:NAME")


def _class(text: str) -> Any:
    """The class that has this name: the way back from `category_name`."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return category_of(text)
    return category_of(value) if type(value) in (str, bool, int, float) else category_of(text)


def _has_mean(metric: str) -> bool:
    return metric in _MEANS or metric.startswith("missing:") or "=" in metric.partition(":")[0]


def _has_values(metric: str) -> bool:
    return metric in _SHARES or metric.startswith("feature:")


def written(limit: Limit) -> str:
    """The limit as a line, always the same for the same limit."""
    base, equals, category = limit.metric.partition("=") if limit.metric.startswith(_CLASSES) else (limit.metric, "", "")
    name = f"{base}[{category}]" if equals else limit.metric
    share = "" if limit.share is None else f" for {100 * limit.share:.6g}%"
    return f"{name} {'>=' if limit.at_least else '<='} {limit.value:g}{share}"


def is_labelled(limit: Limit) -> bool:
    """Whether it is about outcomes; else it is about predictions."""
    return limit.metric.partition("=")[0] in _LABELLED


def kind_of(limit: Limit) -> Kind:
    """Of its alert."""
    quality = limit.metric == "label_delay" or limit.metric.startswith(("missing:", "feature:"))
    return Kind.DATA_QUALITY if quality else Kind.PERFORMANCE


def scale_of(limit: Limit) -> float:
    """The largest value of a mean."""
    return 2.0 if limit.metric == "brier" and limit.share is None else 1.0


def reader(limit: Limit) -> Reader:
    """What a prediction (as decoded), or an outcome as it is judged (`judging.Judged`), says about the limit."""
    read = _read_label(limit.metric) if is_labelled(limit) else _read_prediction(limit.metric)
    if limit.share is None:
        if limit.metric == "error":
            return lambda one: None if one.numeric else float(one.error)
        return read
    value, at_least = limit.value, limit.at_least

    def kept(one: Any) -> float | None:
        x = read(one)
        return None if x is None else float(x >= value if at_least else x <= value)

    return kept


def _read_label(metric: str) -> Reader:
    base, _, category = metric.partition("=")
    if base in ("recall", "precision"):
        key = _class(category)
        label = base == "recall"

        def hit(one: Any) -> float | None:
            if one.numeric or category_of(one.label if label else one.prediction) != key:
                return None
            return 1.0 - float(one.error)

        return hit
    readers: dict[str, Reader] = {
        "error": lambda one: float(one.error),
        "accuracy": lambda one: None if one.numeric else 1.0 - one.error,
        "bias": lambda one: float(one.prediction) - float(one.label) if one.numeric else None,
        "log_loss": lambda one: None if one.losses is None else one.losses.log_loss,
        "brier": lambda one: None if one.losses is None else one.losses.brier,
        "label_delay": lambda one: None if one.delay is None else float(one.delay),
    }
    return readers[base]


def _read_prediction(metric: str) -> Reader:
    kind, colon, name = metric.partition(":")
    if colon and kind == "missing":
        return lambda prediction: float(_feature(prediction, name) is None)
    if colon:
        return lambda prediction: _number(_feature(prediction, name))
    base, equals, category = metric.partition("=")
    if equals:
        key = _class(category)
        return lambda prediction: float(category_of(prediction["prediction"]) == key)
    field = "latency_ms" if base == "latency" else base
    return lambda prediction: _number(prediction.get(field))


def _feature(prediction: Any, name: str) -> Any:
    features = prediction.get("features")
    return features.get(name) if type(features) is dict else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
