"""A categorical quantity as a whole: have its shares moved, however little each of them?

    feature:NAME, prediction     of every 100 records, how far their shares lie in the direction in which those of late lay     numeric

A shift that is spread over many categories is small for each, and the streams of single shares (core/categories.py) see it late or, beyond
the most frequent ones, not at all. Its direction is not known beforehand, but the records before tell it. With c the counts of 100 records,
p the shares of all before them and D the sum of the earlier c - 100 p, each window worth a tenth less than the one after it,

    t = sum_i (c_i - 100 p_i) D_i/p_i / sqrt(100 sum_i D_i^2/p_i)

has mean 0 and variance 1 whatever D is, as long as nothing changes, since D is known before c. Where shares moved to q, D comes to point
there and the mean of t goes towards 10 w, with w = sqrt(sum_i (q_i - p_i)^2/p_i) (J. Cohen, 1988: .1 is a small effect, .3 a medium, .5 a
large one). A chi-square of the counts, which does not add up directions, takes up to 3 times as long (benchmarks/detection/mixes.py,
with other rivals). The `effect` in alerts is w.

- **The reference** p begins with the warm-up and runs, since what is wrong about one that stays looks like a small shift that was always
  there: D wanders about it, neighbours come to depend on each other, and false alarms were 1.4 times as many as allowed. While an alert
  fires, p is what it was before the change. A level that ends as the new one (an operator's decision) is the reference from then on.
- **Categories** with half a percent of the warm-up count for themselves, at most 63; the rest is one, `other`, with what is new. A share
  below half a percent counts as that much where it is divided by, so that no single record decides the direction.
- **No such stream** where there are fewer than three categories: then the streams of shares say it all.
- It is judged after 50 windows, or a twentieth of `warmup` if that is more; an alert is over when means of a twentieth of `resolve_width`
  are back. That it holds the budget is known by simulation: t is no more than nearly exchangeable.

A record costs a look-up and a count, some 0.3 us with what its window does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import sqrt
from typing import Any, ClassVar, Final

from stream_monitor.core.alerting import Change, Desk, Event, Subject
from stream_monitor.core.categories import category_name, key_of
from stream_monitor.core.dependence import LIMIT, Probe
from stream_monitor.core.effects import of_counts
from stream_monitor.core.history import History
from stream_monitor.core.settings import DetectorSettings, DetectSettings
from stream_monitor.core.streams import Around
from stream_monitor.core.tallied import TalliedStream, Tally

WINDOW: Final = 100  # records
MEMORY: Final = 1_000  # records that the direction goes by
CELLS: Final = 64
LEAST: Final = 0.005  # share of a category that counts for itself
JUDGED: Final = 50  # windows, at least
PART: Final = 20  # of `warmup` and `resolve_width`, which are numbers of records: so many windows
SOONER: Final = 4  # its shape is looked at, in windows: each shows a change more clearly than a single value does
TOLD: Final = 5  # categories in an alert

_KEPT: Final = 1 - WINDOW / MEMORY
_ROOT: Final = sqrt(WINDOW)


class MixStream(TalliedStream):
    """The values t; the tally counts the records of each cell. `names`: of the cells; `seen`: so many records in each, all that p goes by;
    `toward`: D."""

    __slots__ = ("names", "seen", "toward")

    mark_every: ClassVar[int] = 1  # of 100 records
    limits: ClassVar[tuple[float, float]] = LIMIT, LIMIT  # so few values that less than this is chance

    def __init__(
        self, subject: Subject, detectors: tuple[DetectorSettings, ...], settings: DetectSettings, desk: Desk, weight: int = 1
    ) -> None:
        super().__init__(subject, detectors, settings, desk, weight)
        self.warmup = max(JUDGED, settings.warmup // PART)
        self.probe = Probe(self.warmup)
        self.search = None  # t says how far the shares are from before, not where: it has no level for a cycle to move
        self.aftermath.resolve_width = max(1, settings.resolve_width // PART)
        self.names: list[str] = []
        self.seen: list[float] = []
        self.toward: list[float] = []

    def window(self, counts: list[int], unit: int, began: tuple[int, int], time: int, offset: int) -> None:
        """Takes the counts of the next 100 records, which `began` at this time and offset. Otherwise as `push`."""
        if not self.left:
            self._mark(*began)
        known, toward = self.seen, self.toward
        total = sum(known)
        along = size = 0.0
        for i, count in enumerate(counts):
            p, way = known[i] / total, toward[i]
            apart = count - WINDOW * p
            leverage = way / (p if p > LEAST else LEAST)
            along += apart * leverage
            size += p * leverage * leverage
            toward[i] = way * _KEPT + apart
        if self.episode is None:
            self.seen = [a + b for a, b in zip(known, counts, strict=False)]
        self.take(along / sqrt(WINDOW * size) if size > 0 else 0.0, counts, unit, time, offset)

    def begin(self, names: list[str], seen: list[float]) -> None:
        """The cells, and how many records there were in each."""
        self.names, self.seen, self.toward = names, list(seen), [0.0] * len(seen)

    def end(self, event: Event, offset: int) -> None:
        fired = self.episode is not None
        super().end(event, offset)
        if fired:
            self.begin(self.names, [n + 0.5 for n in self.sums])
            self._begin_again(0)
            self._forget()

    def told(self, before: Tally, after: Tally) -> dict[str, Any]:
        n, m = before.n * WINDOW, after.n * WINDOW
        moves = [(name, a / n, b / m) for name, a, b in zip(self.names, before.sums, after.sums, strict=True)]
        moves.sort(key=lambda one: (-abs(one[2] - one[1]), one[0]))
        shares = [{"category": name, "before": round(a, 6), "after": round(b, 6)} for name, a, b in moves[:TOLD]]
        return {"effect": effect_of(before, after), "shares": shares, "effects": of_counts(before.sums, after.sums)}

    def _put_aside(self, split: int) -> Any:
        _, after = self._around(split)
        self.seen = [seen - since for seen, since in zip(self.seen, after.sums, strict=True)]
        if self.episode is not None and self.episode.trail is not None:
            self.episode.trail.look //= SOONER
        return super()._put_aside(split)

    def settle(self) -> None:
        return None  # as far away as once before is not the same place

    def around(self, time: int) -> Around | None:
        found = super().around(time)
        return found if found is None or self.episode is not None else found._replace(effect=found.effect / _ROOT)

    def _change(self, history: History, split: int, spread: bool, time: int, offset: int) -> Change:
        return super()._change(history, split, spread, time, offset)._replace(effect=effect_of(*self._around(split)))

    def _exact(self) -> bool:
        return False

    def _is_spread(self, fired: list[int], history: History) -> bool:
        return False  # of t: it means nothing to anybody

    def _counting(self) -> None:
        return None  # effects are those of the categories

    def state(self) -> Any:
        return [*super().state(), list(self.seen), list(self.toward)]

    def restore(self, state: Any) -> None:
        *rest, seen, toward = state
        super().restore(rest)
        self.seen, self.toward = list(seen), list(toward)


def effect_of(before: Tally, after: Tally) -> float:
    """w of two mixes, without what chance adds to it."""
    n, m = sum(before.sums), sum(after.sums)
    found = 0.0
    for a, b in zip(before.sums, after.sums, strict=True):
        p, move = a / n, b / m - a / n
        found += (move * move - p * (1 - p) * (1 / n + 1 / m)) / max(p, LEAST)
    return sqrt(max(found, 0.0))


Make = Callable[[], MixStream | None]
"""The stream; None where there are too many."""


class Mix:
    """What a `Shares` has beside its streams once its warm-up is over. `places`: the cells of the categories that count for themselves;
    what is none of them comes last."""

    __slots__ = ("left", "make", "marked", "places", "stream", "window")

    def __init__(self, make: Make) -> None:
        self.make = make
        self.places: dict[Any, int] = {}
        self.stream: MixStream | None = None
        self.window: list[int] = []  # records since the last value
        self.left = WINDOW  # records until the next one
        self.marked = (0, 0)  # time and offset of the window's first record

    def take(self, key: Any, unit: int, time: int, offset: int) -> None:
        """A record's category (`category_of`). Otherwise as `Stream.push`."""
        left = self.left
        if left == WINDOW:
            self.marked = time, offset
        self.window[self.places.get(key, -1)] += 1
        self.left = left = left - 1
        if not left:
            counts, self.window, self.left = self.window, [0] * len(self.window), WINDOW
            self.stream.window(counts, unit, self.marked, time, offset)  # type: ignore[union-attr]  # see `settle`

    def settle(self, tally: Mapping[Any, int], count: int) -> bool:
        """Begins with the categories of `count` records of the warm-up; whether there is anything to watch: only then may it `take`."""
        ranked = sorted(tally.items(), key=lambda item: (-item[1], category_name(item[0])))
        frequent = [(key, n) for key, n in ranked[: CELLS - 1] if n >= LEAST * count]
        rest = count - sum(n for _, n in frequent)
        if len(frequent) + (rest > 0) < 3:
            return False
        self.places = {key: i for i, (key, _) in enumerate(frequent)}
        return self._begin([*(float(n) for _, n in frequent), float(rest)])

    def inherit(self, other: Mix) -> bool:
        """Begins with the cells and shares of another version. Answers as `settle`."""
        self.places = other.places
        return other.stream is not None and self._begin(other.stream.seen)

    def _begin(self, seen: list[float]) -> bool:
        self.stream = self.make()
        if self.stream is not None:
            self.stream.begin([*map(category_name, self.places), "other"], seen)
            self.window = [0] * len(seen)
        return self.stream is not None

    def streams(self) -> Iterator[MixStream]:
        """The stream, if there is one yet."""
        if self.stream is not None:
            yield self.stream

    def state(self) -> Any:
        """Plain data."""
        return [list(self.places), list(self.window), self.left, list(self.marked), self.stream and self.stream.state()]

    def restore(self, state: Any) -> bool:
        """Takes up what `state` gave. Answers as `settle`, or true before that."""
        places, window, self.left, marked, stream = state
        self.places = {key_of(key): i for i, key in enumerate(places)}
        self.marked = marked[0], marked[1]
        if stream is None:
            return True
        if not self._begin([0.0] * len(window)) or self.stream is None:
            return False
        self.window = list(window)
        self.stream.restore(stream)
        return True
