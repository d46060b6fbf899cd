"""What is known of a stream's values by their law: bits that are one with some probability, or scores that are normal.

How likely a run of them is, how much they vary, and how their levels are told, with intervals (core/intervals.py). Streams of both laws
look for a change (core/history.py) and follow it (core/aftermath.py) in the same way; this is all that differs.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, Protocol

from stream_monitor.core import intervals
from stream_monitor.core.change import of_bits, of_shift
from stream_monitor.core.effects import BINS, of_shares
from stream_monitor.core.events import Level
from stream_monitor.core.intervals import LUCK, Blocks

if TYPE_CHECKING:
    from stream_monitor.core.alerting import Episode
    from stream_monitor.core.history import History


class Law(Protocol):
    """Of the values that detectors read. `split`: the index of a mark in the history's `marks`."""

    def likelihood(self, count: float, total: float) -> float:
        """Log likelihood of so many values with this sum, at a mean of their own (core/change.py)."""

    def deviation(self, count: float, total: float) -> float:
        """The standard deviation of a value, after so many with this sum."""

    def spread(self, history: History, split: int) -> float:
        """The larger of the standard deviations of a value before and after the change."""

    def levels(self, history: History, split: int) -> tuple[Level, Level]:
        """Before and after the mark, in the signal's units, with their intervals."""

    def effect(self, episode: Episode, mean: float) -> float:
        """The change to this mean of what is followed, in standard deviations of the reference; of a spread the relative change."""

    def level_of(self, blocks: Blocks, spread: bool) -> Level:
        """The level of values that came after the alarm, with its interval."""

    def apart(self, episode: Episode, after: Level, old: Any) -> dict[str, Any] | None:
        """How far the values after the alarm are from the reference `old` (core/effects.py), if there are enough."""


class Bits:
    """Values 0 and 1."""

    def likelihood(self, count: float, total: float) -> float:
        return of_bits(count, total)

    def deviation(self, count: float, total: float) -> float:
        p = (total + 0.5) / (count + 1)
        return sqrt(p * (1 - p))

    def spread(self, history: History, split: int) -> float:
        after = history.means(split)[1].value
        return max(history.deviation(split), sqrt(after * (1 - after)))

    def levels(self, history: History, split: int) -> tuple[Level, Level]:
        count, ones = history.marks[split : split + 2]
        after = intervals.of_share(history.total - ones, int(history.count - count), LUCK)
        return intervals.of_share(ones, int(count)), after

    def effect(self, episode: Episode, mean: float) -> float:
        count = episode.alert.before.count
        return (mean - episode.center) / self.deviation(count, episode.center * count)

    def level_of(self, blocks: Blocks, spread: bool) -> Level:  # noqa: ARG002  # of a bit, the mean says all
        return intervals.of_share(blocks.mean * blocks.count, blocks.count)

    def apart(self, episode: Episode, after: Level, old: Any) -> dict[str, Any] | None:  # noqa: ARG002
        before = episode.alert.before
        return of_shares(before.value, before.count, after.value, after.count)


class Scores:
    """Normal scores: standard deviation 1."""

    def likelihood(self, count: float, total: float) -> float:
        return of_shift(count, total)

    def deviation(self, count: float, total: float) -> float:  # noqa: ARG002
        return 1.0

    def spread(self, history: History, split: int) -> float:  # noqa: ARG002
        return 1.0

    def levels(self, history: History, split: int) -> tuple[Level, Level]:
        blocks = [(block.size, block.raw) for block in history.blocks(False)]
        at = history.block(split)
        before, after = Blocks.of(blocks[:at]), Blocks.of(blocks[at:])
        return intervals.of_mean(before), intervals.of_mean(after, before, LUCK)

    def effect(self, episode: Episode, mean: float) -> float:
        return sqrt(mean / max(episode.center, 1e-9)) - 1 if episode.spread else mean - episode.center

    def level_of(self, blocks: Blocks, spread: bool) -> Level:
        return intervals.of_spread(sqrt(blocks.mean), blocks.count) if spread else intervals.of_mean(blocks)

    def apart(self, episode: Episode, after: Level, old: Any) -> dict[str, Any] | None:
        shift = 0.0 if episode.spread else after.value - episode.alert.before.value
        return None if episode.counts is None else episode.counts.effects(old[4].centers(BINS), shift)


BITS, SCORES = Bits(), Scores()
