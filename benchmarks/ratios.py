"""What a run took, and how it compares with the pass-throughs beside it. Values in, values out.

The machine, and the broker while its code is being compiled, is not as fast at all times. So each run stands between two pass-throughs,
which it shares with its neighbours, and its ratio is its rate to the mean of these two rates. What ran in several rounds has a ratio a
round.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

COPY = "pass-through"

_LEAST, _MOST = 2, 6  # warm-ups
_RISE = 1.05


class Row(NamedTuple):
    """One line of the table: `messages` in `seconds`, and the processors' seconds that went into them."""

    name: str
    messages: int
    seconds: float
    own_s: float
    broker_s: float
    redis_s: float
    machine_s: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def summed(rows: Sequence[Row]) -> Row:
    """One row for what ran one after the other."""
    return Row(
        rows[0].name,
        sum(r.messages for r in rows),
        sum(r.seconds for r in rows),
        sum(r.own_s for r in rows),
        sum(r.broker_s for r in rows),
        sum(r.redis_s for r in rows),
        sum(r.machine_s for r in rows),
    )


def ratios(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The ratios of each name, a round each. `rows`: in the order of time, every other one a pass-through, the first and the last too.

    Those of the pass-through are to the mean of them all: what the machine did.
    """
    copies = rows[::2]
    assert {r.name for r in copies} == {COPY}
    mean = fmean(r.rate for r in copies)
    found = {COPY: [r.rate / mean for r in copies]}
    for before, one, after in zip(copies[:-1], rows[1::2], copies[1:], strict=True):
        found.setdefault(one.name, []).append(one.rate / fmean((before.rate, after.rate)))
    return found


def settled(rates: Sequence[float]) -> bool:
    """Whether there were warm-ups enough, by the pass-through's rate in each: the last is hardly above the best before it."""
    return len(rates) >= _MOST or (len(rates) >= _LEAST and rates[-1] <= _RISE * max(rates[:-1]))
