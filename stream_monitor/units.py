"""Durations and sizes as people write them in a configuration: `7d`, `1h 30m`, `250ms`, `256KiB`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_DURATIONS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def milliseconds(text: Any) -> int:
    """`1h 30m` in ms. Raises ValueError, with an example, for anything else than such a string."""
    return _sum(text, _DURATIONS, 'a duration such as "250ms", "30s", "1h 30m" or "7d" is expected')


def shortest(ms: int) -> str:
    """A duration as a configuration has it, in the largest unit of which it is a whole number: `20s`."""
    unit, size = max((one for one in _DURATIONS.items() if ms >= one[1] and ms % one[1] == 0), key=lambda one: one[1], default=("ms", 1))
    return f"{ms // size}{unit}"


def size_in_bytes(text: Any) -> int:
    """`256KiB` in bytes; a plain whole number is bytes too. Raises ValueError, with an example."""
    if type(text) is int and text >= 0:
        return text
    return _sum(text, _SIZES, 'a size such as "512B", "256KiB" or "10MB" is expected')


def _sum(text: Any, units: dict[str, int], wanted: str) -> int:
    if type(text) is not str:
        raise ValueError(wanted)
    total, at = 0.0, 0
    while at < len(text.rstrip()):
        part = _PART.match(text, at)
        if part is None or part[2] not in units:
            raise ValueError(wanted)
        total += float(part[1]) * units[part[2]]
        at = part.end()
    if not at or total == float("inf"):
        raise ValueError(wanted)
    return round(total)


_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s+per\s+(hour|day|week|month)\s*")
_PERIODS = {"hour": 3_600_000, "day": 86_400_000, "week": 7 * 86_400_000, "month": 30 * 86_400_000}


def rate(text: Any) -> tuple[float, int]:
    """`1 per week` as a number and the milliseconds it is for; a month has 30 days. Raises ValueError, with an example."""
    found = _RATE.fullmatch(text) if type(text) is str else None
    if found is None or not 0 < float(found[1]) < float("inf"):
        raise ValueError('a number above 0 per hour, day, week or month is expected, such as "1 per week" or "0.5 per day"')
    return float(found[1]), _PERIODS[found[2]]


Duration = Annotated[int, BeforeValidator(milliseconds)]
"""Milliseconds; in the file a string with units."""

Size = Annotated[int, BeforeValidator(size_in_bytes)]
"""Bytes; in the file a string with units or a whole number."""

Rate = Annotated[tuple[float, int], BeforeValidator(rate)]
"""How many in how many milliseconds; in the file a string."""
