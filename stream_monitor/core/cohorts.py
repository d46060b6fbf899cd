"""Cohorts: of the labels that came in a slot of the journal's time, which share never met its prediction (`feedback_orphan`).

A label that is alone may still meet its prediction, so it is judged when it has waited for as long as the join waits, all labels at
that age. Then the join tells of the slot, each of its buckets for itself, and owner by owner: for versions, and combinations of slices.
These have levels of their own, which by turns would look like changes. So a slot is put together again for each scope, and speaks as so
many ones and zeros, or by a sample of them (core/rare.py).

- Nobody says when all of a slot has come, since buckets are not read in step. So at most 4 slots are open; where there would be more,
  the one that was heard of longest ago speaks.
- A slot's time is that of the log. In one that is read in a hurry it lies far ahead of the events, so it counts as theirs at most.
"""

from __future__ import annotations

from typing import Any, Final

from stream_monitor.core.rare import SAMPLE, Rare

SLOTS: Final = 4
MOST: Final = 2**53 - 1  # labels; what a double holds exactly


class Cohorts:
    """The labels of a scope. Contract at the head of the module."""

    __slots__ = ("rare", "slots")

    def __init__(self, rare: Rare) -> None:
        self.rare = rare
        # Beginning -> labels, orphans, the first record's offset; the one that was heard of last is the last one.
        self.slots: dict[int, tuple[int, int, int]] = {}

    def take(self, since: int, labels: int, orphans: int, now: int, offset: int) -> None:
        """So many labels came in the slot that began at `since` (ms of log time), so many of them stayed alone. Event time is `now`."""
        slots = self.slots
        came, alone, first = slots.pop(since, (0, 0, offset))
        slots[since] = min(came + labels, MOST), min(alone + orphans, MOST), first
        if len(slots) > SLOTS:
            slot = next(iter(slots))
            came, alone, first = slots.pop(slot)
            self.rare.sample(alone, came, first * SAMPLE, min(slot, now), first)

    def state(self) -> Any:
        """Plain data."""
        return [[[since, *slot] for since, slot in self.slots.items()], self.rare.state()]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        slots, rare = state
        self.slots = {since: (labels, orphans, first) for since, labels, orphans, first in slots}
        self.rare.restore(rare)
