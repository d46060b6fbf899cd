"""The alert budget: one number for everything that is watched, and who has received how much of it.

The operator allows B false alerts a unit of event time. Partitions of `observations` share nothing, so each of N owns B/N. Within one

    A(t) = integral of (B/N) / K(t) dt        K: the weights of the streams that are judged at t, added up

and a stream of weight w receives w (A(now) - A(at its last value)) at each value, in equal portions for its budgeted detectors. So what all
streams receive is never more than what came in, however many there are and whatever their traffic.

- A stream joins with its first value after the warm-up and starts at A(now). One that is evicted, or silent for a day, leaves: what it had
  not received by then is forfeited, and the others share what comes in from then on. Nothing is paid back: under-spending is safe.
- The clock is the monitor's event clock, and one record moves the ledger by at most `max_step_ms`: a wrong time pays for no alarm.
- A decision may depend on shares, and shares on who joined and left, but never on the value that is being judged: shares are predictable.

Warnings (core/early.py) have a budget that is a multiple of this one, shared out by the same shares; so of them only a count is kept.

A detector that receives c per value and raises at most c false alarms per value on average keeps it; core/detectors/ say which do so
by proof and which by simulation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

LOOKS: Final = 24  # levels that are remembered, one a look, to tell who has been silent since


class Ledger:
    """Of one partition. `level` is A, in false alarms for a weight of 1; `rate`: false alarms a millisecond; `age`: ms that have passed."""

    __slots__ = ("age", "alarms", "came_in", "known", "level", "looks", "max_step_ms", "now", "rate", "received", "warnings", "weight")

    def __init__(self, rate: float, max_step_ms: int) -> None:
        self.rate = rate
        self.max_step_ms = max_step_ms
        self.now: int | None = None
        self.age = 0
        self.level = 0.0
        self.weight = 0  # K
        self.known = 0  # the same, with the streams that are not judged yet
        self.came_in = 0.0  # while there was anybody to receive it
        self.received = 0.0  # by streams that are gone
        self.alarms = 0  # of streams that are gone
        self.warnings = 0  # the same
        self.looks: list[float] = []

    def move(self, now: int) -> None:
        """Event time is `now` (ms); it never goes back."""
        step = 0 if self.now is None else min(now - self.now, self.max_step_ms)
        if step <= 0:
            self.now = now if self.now is None else self.now
            return
        self.now = now
        self.age += step
        if self.weight:
            amount = step * self.rate
            self.came_in += amount
            self.level += amount / self.weight

    def look(self) -> float:
        """The level 24 looks ago: a stream that was last paid below it has been silent since then. -1 before that can be said."""
        self.looks.append(self.level)
        return self.looks.pop(0) if len(self.looks) > LOOKS else -1.0

    def state(self) -> Any:
        """Plain data. `weight` and `known` are left out: they are sums over the streams that are restored."""
        return [self.now, self.age, self.level, self.came_in, self.received, self.alarms, self.warnings, list(self.looks)]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.now, self.age, self.level, self.came_in, self.received, self.alarms, self.warnings, looks = state
        self.looks = list(looks)


class Account:
    """What one stream owns of the ledger. `portion`: what of A each of its `detectors` budgeted detectors gets to spend.

    >>> ledger = Ledger(rate=0.001, max_step_ms=3_600_000)
    >>> one, other = Account(ledger, weight=1, detectors=2), Account(ledger, weight=3, detectors=1)
    >>> one.join(), other.join()
    (None, None)
    >>> for now in (5_000, 6_000):
    ...     ledger.move(now)
    >>> one.draw(), other.draw()
    (0.125, 0.75)
    """

    __slots__ = ("alarms", "earlier", "joined", "ledger", "paid", "part", "portion", "start", "sure", "warnings", "weight", "whole")

    def __init__(self, ledger: Ledger, weight: int, detectors: int) -> None:
        self.ledger = ledger
        self.weight = weight if detectors else 0  # nobody there to spend it
        ledger.known += self.weight
        self.portion = self.whole = weight / detectors if detectors else 0.0
        self.part = self.sure = 1.0  # of what it receives that is spent, for each of two reasons
        self.joined = False
        self.paid = 0.0  # the level at the last value
        self.start = 0.0  # the level from which on it received
        self.earlier = 0.0  # received before
        self.alarms = 0
        self.warnings = 0

    def join(self) -> None:
        """From now on it receives. What came in before is not its own."""
        if not self.joined:
            self.joined = True
            self.ledger.weight += self.weight
        self._start_at(self.ledger.level)

    def forfeit(self) -> None:
        """What came in since it was last paid is nobody's: it is not judged for a while, but goes on owning its share."""
        self._start_at(self.ledger.level)

    def hold_back(self, part: float) -> None:
        """From now on only this part of what it receives is spent, where that is known to go further than it should."""
        self.part = part
        self._limit()

    def doubt(self, sure: float) -> None:
        """The same for a reason that may pass."""
        self.sure = sure
        self._limit()

    def _limit(self) -> None:
        self.portion = self.whole * self.part * self.sure

    def leave(self) -> None:
        """It is no longer judged; the others share what comes in from now on. It may join again."""
        if self.joined:
            self.joined = False
            self.ledger.weight -= self.weight
            self._start_at(self.paid)

    def close(self) -> None:
        """It is gone for ever."""
        self.leave()
        self.ledger.known -= self.weight
        self.ledger.received += self.received
        self.ledger.alarms += self.alarms
        self.ledger.warnings += self.warnings

    def draw(self) -> float:
        """What came in since the last value, for each of its detectors to spend."""
        level = self.ledger.level
        amount = (level - self.paid) * self.portion
        self.paid = level
        return amount

    @property
    def received(self) -> float:
        """By all of its detectors, so far."""
        return self.earlier + (self.paid - self.start) * self.weight if self.portion else 0.0

    def expected(self, elapsed: int) -> float:
        """What a detector of it would have received in `elapsed` ms, had all the streams that are known of now been judged."""
        return elapsed * self.ledger.rate * self.portion / max(1, self.ledger.known)

    def _start_at(self, level: float) -> None:
        self.earlier = self.received
        self.paid = self.start = level

    def state(self) -> Any:
        """Plain data."""
        return [self.joined, self.paid, self.start, self.earlier, self.alarms, self.warnings, self.part, self.sure]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave, and its place in the ledger."""
        self.joined, self.paid, self.start, self.earlier, self.alarms, self.warnings, self.part, self.sure = state
        self._limit()
        if self.joined:
            self.ledger.weight += self.weight


class Owner(NamedTuple):
    """Whose account it is; `slice_` None for all traffic of the version."""

    model: str
    version: str
    slice_: tuple[str, str] | None


def statement(ledger: Ledger, accounts: Iterable[tuple[Owner, Account]]) -> dict[str, Any]:
    """The ledger as plain data, in false alarms: what came in, what was received, what alarms were charged and what is left of it, in all
    and by owner. `share`: the part of what comes in from now on. What is left may be less than nothing: alarms about true drifts count."""
    rows: dict[Owner, dict[str, Any]] = {}
    received, alarms, warnings = ledger.received, ledger.alarms, ledger.warnings
    for owner, account in accounts:
        row = rows.get(owner)
        if row is None:
            part = None if owner.slice_ is None else {"key": owner.slice_[0], "value": owner.slice_[1]}
            row = rows[owner] = {
                "model": owner.model, "model_version": owner.version, "slice": part,
                "streams": 0, "judged": 0, "share": 0.0, "received": 0.0, "alarms": 0, "left": 0.0, "warnings": 0,
            }  # fmt: skip
        row["streams"] += 1
        row["judged"] += account.joined
        row["share"] += account.weight / ledger.weight if account.joined and account.weight else 0.0
        row["received"] += account.received
        row["alarms"] += account.alarms
        row["left"] = row["received"] - row["alarms"]
        row["warnings"] += account.warnings
        received, alarms, warnings = received + account.received, alarms + account.alarms, warnings + account.warnings
    return {
        "false_alarms_a_day": ledger.rate * 86_400_000,
        "days": ledger.age / 86_400_000,
        "came_in": ledger.came_in,
        "received": received,
        "alarms": alarms,
        "left": received - alarms,
        "warnings": warnings,
        "weight": ledger.weight,
        "owners": list(rows.values()),
    }
