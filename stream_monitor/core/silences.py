"""What operators do not want to hear of for a while: fingerprints and incidents, each until an event time, or for good.

What is silenced lives on, untold: an alert that begins is known but not published (`untold`), one that fires gives no updates. When the
silence is over, what still fires is told. An end is always told if the beginning was. Of a warning that was told and fires in a
silence (`unheard`), it is told when that is over that it fires.
"""

from __future__ import annotations

from typing import Any

MAX_SILENCES = 10_000
NEVER = 2**53  # ms; later than any event time


class Silences:
    """`until`: fingerprint or id of an incident -> event time (ms) of its end. `untold`: ids of alerts that fire and were not
    published. `unheard`: of those of which a warning was."""

    def __init__(self) -> None:
        self.until: dict[str, int] = {}
        self.untold: set[str] = set()
        self.unheard: set[str] = set()

    def add(self, name: str, until: int | None) -> bool:
        """Silences it until then, None for good, instead of what was said before. False where there are too many."""
        if name not in self.until and len(self.until) >= MAX_SILENCES:
            return False
        self.until[name] = NEVER if until is None else min(until, NEVER)
        return True

    def cover(self, fingerprint: str, incident: str) -> bool:
        """Whether an alert is silenced."""
        return fingerprint in self.until or incident in self.until

    def end(self, now: int) -> list[str]:
        """Takes off, and answers, what is over by `now`."""
        over = [name for name, until in self.until.items() if until <= now]
        for name in over:
            del self.until[name]
        return over

    @property
    def next_end(self) -> int:
        """When the next one is over."""
        return min(self.until.values(), default=NEVER)

    def state(self) -> Any:
        """Plain data."""
        return [[[name, until] for name, until in self.until.items()], sorted(self.untold), sorted(self.unheard)]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        until, untold, unheard = state
        self.until = dict(until)
        self.untold = set(untold)
        self.unheard = set(unheard)
