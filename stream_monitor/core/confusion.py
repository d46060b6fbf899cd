"""Which class was answered for which: counts of (prediction, label) pairs over time, so that a report can show them and an alert about a
class can say what it is confused with now, and was before.

Counts are kept in tables that follow each other: of 100 outcomes each, older ones joined two by two, so that at most three are of any
size and a table is short beside its age. A million outcomes are some 40 tables. The classes are those met first, at most a set number;
the rest is `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from stream_monitor.core.categories import category_name, key_of

WIDTH: Final = 100  # outcomes of the newest tables
OF_A_SIZE: Final = 3
TOLD: Final = 3  # classes that an alert names
OTHER: Final = "other"


class Table(NamedTuple):
    """The outcomes of predictions made from `since` (ms) on. `size`: so many tables were joined; `cells`: cell -> outcomes."""

    since: int
    size: int
    cells: dict[int, int]


class Confusion:
    """The pairs of one model version. Contract at the head of the module."""

    __slots__ = ("classes", "left", "limit", "tables")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.classes: dict[Any, int] = {}  # and its place; `limit` is that of `other`
        self.tables: list[Table] = []
        self.left = 0  # outcomes until the next table begins

    def take(self, said: Any, true: Any, time: int) -> None:
        """`said` was predicted at `time` (ms), `true` is the label; both as `category_of` gives them."""
        if not self.left:
            self._begin(time)
        self.left -= 1
        classes = self.classes
        row = classes[said] if said in classes else self._place(said)
        column = classes[true] if true in classes else self._place(true)
        cell = row * (self.limit + 1) + column
        cells = self.tables[-1].cells
        cells[cell] = cells.get(cell, 0) + 1

    def explain(self, metric: str, key: Any, since: int) -> dict[str, Any]:
        """Details for an alert about a class that changed at `since`: with which it is confused, as shares of its labels (recall) or of
        its predictions (precision), before and since; those that grew most first."""
        tables = self.tables
        split = next((i for i, table in enumerate(tables) if i and table.since >= since), len(tables) - 1)
        before, now = self._shares(tables[:split], metric, key), self._shares(tables[split:], metric, key)
        grown = sorted(now.keys() | before.keys(), key=lambda name: (before.get(name, 0.0) - now.get(name, 0.0), name))
        pairs = [{"class": n, "before": round(before.get(n, 0.0), 4), "after": round(now.get(n, 0.0), 4)} for n in grown[:TOLD]]
        return {"confused_with": pairs} if pairs else {}

    def report(self) -> list[dict[str, Any]]:
        """Plain data: of each table, from the oldest to the newest, its beginning (ms), its outcomes and their pairs."""
        names = self._names()
        return [
            {
                "since": table.since,
                "outcomes": sum(table.cells.values()),
                "pairs": [
                    {"prediction": names[cell // (self.limit + 1)], "label": names[cell % (self.limit + 1)], "count": n}
                    for cell, n in sorted(table.cells.items())
                ],
            }
            for table in self.tables
        ]

    def _begin(self, time: int) -> None:
        tables = self.tables
        end, size = len(tables), 1
        while end >= OF_A_SIZE and all(table.size == size for table in tables[end - OF_A_SIZE : end]):
            end -= OF_A_SIZE
            one, other = tables[end : end + 2]
            tables[end : end + 2] = [Table(one.since, 2 * size, dict(Counter(one.cells) + Counter(other.cells)))]
            end, size = end + 1, 2 * size
        tables.append(Table(time, 1, {}))
        self.left = WIDTH

    def _place(self, key: Any) -> int:
        if len(self.classes) >= self.limit:
            return self.limit
        return self.classes.setdefault(key, len(self.classes))

    def _shares(self, tables: Iterable[Table], metric: str, key: Any) -> dict[str, float]:
        """Of a class: the share of each other one among its labels, or its predictions."""
        own, side = self.classes.get(key), self.limit + 1
        names, counts = self._names(), Counter[int]()
        for table in tables:
            for cell, n in table.cells.items():
                said, true = divmod(cell, side)
                of, other = (true, said) if metric == "recall" else (said, true)
                if of == own:
                    counts[other] += n
        total = counts.total()
        return {names[other]: n / total for other, n in counts.items() if other != own}

    def _names(self) -> dict[int, str]:
        return {place: category_name(key) for key, place in self.classes.items()} | {self.limit: OTHER}

    def state(self) -> Any:
        """Plain data."""
        return [list(self.classes), self.left, [[since, size, sorted(cells.items())] for since, size, cells in self.tables]]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        classes, self.left, tables = state
        self.classes = {key_of(key): place for place, key in enumerate(classes)}
        self.tables = [Table(since, size, dict(cells)) for since, size, cells in tables]
