"""The names of metrics, and which patterns of them can mean anything. What each is: core/signals.py, core/judging.py.

error, score, latency ...                           as they are
prediction=CLASS, recall=CLASS, precision=CLASS     of each class
feature:NAME, missing:NAME ...                      of each feature; feature:NAME=CATEGORY of its categories
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import fnmatchcase

PLAIN = (
    "error", "weighted_error", "bias", "log_loss", "brier", "label_delay", "score", "prediction", "latency", "unlabelled", "volume",
    "feedback_late", "feedback_conflicting", "feedback_orphan", "squared_error",
)  # fmt: skip
BY_NAME = ("volume", "squared_error")  # no pattern asks for these
OF_FEATURES = ("missing", "new_category", "out_of_range")  # and of no category: the rest is a name, whatever is in it
_CALLED = {"larger_error": "share of the larger errors"}  # where a name says something else without its underscores
BEGIN = ("recall=", "precision=", "prediction=", "feature:", *(f"{name}:" for name in OF_FEATURES))

_WILD = re.compile(r"[*?[]")


def called(metric: str) -> str:
    """What people call it.

    >>> called("selection_rate"), called("larger_error")
    ('selection rate', 'share of the larger errors')
    """
    return _CALLED.get(metric, metric.replace("_", " "))


def may_match(pattern: str) -> bool:
    """Whether there can be a metric that a shell pattern matches."""
    if any(fnmatchcase(name, pattern) for name in PLAIN):
        return True
    wild = _WILD.search(pattern)
    if wild is None:
        return any(pattern.startswith(begin) and pattern != begin for begin in BEGIN)
    fixed = pattern[: wild.start()]
    return any(begin.startswith(fixed) or fixed.startswith(begin) for begin in BEGIN)


def nearest(pattern: str) -> str | None:
    """What may have been meant by a pattern that matches nothing."""
    begun = [f"{begin}*" for begin in BEGIN]
    named = [name for name in begun if name[:-2] == pattern]
    return next(iter(named or get_close_matches(pattern, [*PLAIN, *begun], 1, 0.6)), None)
