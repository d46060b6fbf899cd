"""Categories: their names in metrics, and the share of each frequent one as a binary stream.

Which categories have a stream of their own is settled at the end of the warm-up: those with a share of 1% or more, at most a set number;
the rest is pooled as `other`. Of two categories the rarer is watched, the other mirrors it. The stream for `other` begins with
the first value that needs it. Where all of the warm-up had streams of their own, what is unknown is new: core/novelty.py. What the shares
do together: core/mixes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_monitor.core.budget import Ledger
from stream_monitor.core.novelty import Vocabulary
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.streams import BinaryStream, Stream

if TYPE_CHECKING:
    from stream_monitor.core.mixes import Mix

MIN_SHARE: Final = 0.01
MAX_TALLY: Final = 1_000  # distinct categories counted during the warm-up
MAX_TEXT: Final = 200  # characters of a name or category; longer ones are cut and told apart by a digest
_EXACT: Final = 2**53

Make = Callable[[str], BinaryStream | None]
"""The stream of the category with this name, or None where there are too many streams."""
Before = Callable[[], "Shares | None"]
"""The same quantity of the version to begin with, if there is one and it is known there."""


def shorten(text: str) -> str:
    """`text`, or its beginning and a digest where it is longer than 200 characters."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}~{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def category_name(key: Any) -> str:
    """The name of a category in a metric: 1, "1", true and "other" keep apart from 1, true and the pool `other`."""
    if type(key) is not str:
        return orjson.dumps(key[1]).decode()
    try:
        orjson.loads(key)
    except orjson.JSONDecodeError:
        return f'"{key}"' if key == "other" else key
    return f'"{key}"'  # it reads like a number, a boolean or a quoted string


def category_of(value: Any) -> Any:
    """What tells a category apart as a dictionary key, where 1 == 1.0 == True."""
    if type(value) is str:
        return value if len(value) <= MAX_TEXT else shorten(value)
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return type(value).__name__, value


class Shares:
    """A categorical quantity: a tally during the warm-up, then a binary stream for each frequent category."""

    __slots__ = (
        "accepts", "before", "count", "known", "ledger", "limit", "make", "mix", "other", "refused", "since", "tally", "vocabulary",
        "warmup", "watched",
    )  # fmt: skip

    def __init__(
        self,
        make: Make,
        accepts: frozenset[type],
        settings: DetectSettings,
        ledger: Ledger,
        before: Before,
        vocabulary: Vocabulary | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.make = make
        self.before = before
        self.accepts = accepts  # types of values that are categories here
        self.warmup = settings.warmup
        self.limit = settings.max_categories
        self.ledger = ledger
        self.vocabulary = vocabulary  # None: whether a category is new is not asked
        self.mix = mix  # None: it is not watched as a whole
        self.since = ledger.age  # age of the ledger at its first value
        self.count = 0
        self.tally: dict[Any, int] | None = {}
        self.known: dict[Any, BinaryStream | None] = {}  # each frequent category, and its stream if it has one
        self.watched: list[BinaryStream] = []
        self.other: BinaryStream | None = None
        self.refused = False  # there was no room for `other`

    def take(self, value: Any, unit: int, time: int, offset: int) -> bool:
        if type(value) not in self.accepts:
            return False
        key = category_of(value)
        tally = self.tally
        if tally is not None:
            if key in tally or len(tally) < MAX_TALLY:
                tally[key] = tally.get(key, 0) + 1
            self.count += 1
            if self.count >= self.warmup and not self.inherit():
                self._settle(tally)
            return True
        self.count += 1
        unknown = key not in self.known
        hit = None if unknown else self.known[key]
        for stream in self.watched:
            stream.push(1.0 if stream is hit else 0.0, unit, time, offset)
        if self.other is not None:
            self.other.push(1.0 if unknown else 0.0, unit, time, offset)
        elif unknown and not self.refused and (self.vocabulary is None or self.vocabulary.seen is None):
            self._pool(self.count - 1, unit, time, offset)
        if self.mix is not None:
            self.mix.take(key, unit, time, offset)
        if self.vocabulary is not None:
            self._look_up(self.vocabulary, key, unknown, unit, time, offset)
        return True

    def _look_up(self, vocabulary: Vocabulary, key: Any, unknown: bool, unit: int, time: int, offset: int) -> None:
        if vocabulary.seen is not None and (unknown or vocabulary.rare.stream is not None):
            vocabulary.count = self.count
            vocabulary.tell(unknown and key not in vocabulary.seen, unit, time, offset)

    def inherit(self) -> bool:
        """Begins with the categories of the version before, and answers true, if those are settled; their streams inherit by themselves.

        Asked at the first value, and again when the own warm-up is over: streams of other categories would not fit what they inherit then.
        """
        other = self.before()
        if other is None or other.tally is not None:
            return False
        self.tally = None
        if self.mix is not None and (other.mix is None or not self.mix.inherit(other.mix)):
            self.mix = None
        self.since, self.count, self.refused = other.since, other.count, other.refused
        if self.vocabulary is not None and other.vocabulary is not None:
            self.vocabulary.seen, self.vocabulary.began = other.vocabulary.seen, other.vocabulary.began
        for key, theirs in other.known.items():
            stream = self.known[key] = None if theirs is None else self.make(category_name(key))
            if stream is not None:
                self.watched.append(stream)
        if other.other is not None:
            self.other = self.make("other")
        return True

    def _pool(self, count: int, unit: int, time: int, offset: int) -> None:
        """Begins the stream `other` with its first value, after `count` values that were known."""
        other = self.make("other")
        if other is None:
            self.refused = True
            return
        self.other = other
        if other.compared is None:  # a version that began as another one knows from there what is usual
            other.prime(count, self.since, time, offset)
        other.push(1.0, unit, time, offset)

    def _settle(self, tally: dict[Any, int]) -> None:
        ranked = sorted(tally.items(), key=lambda item: (-item[1], category_name(item[0])))
        frequent = [(key, n) for key, n in ranked[: self.limit] if n >= MIN_SHARE * self.count]
        rest = self.count - sum(n for _, n in frequent)
        self.tally = None
        self.known = {key: None for key, _ in frequent}
        if self.vocabulary is not None:
            self.vocabulary.settle(tally, self.known, MAX_TALLY)
        if self.mix is not None and not self.mix.settle(tally, self.count):
            self.mix = None
        if not rest:
            frequent = frequent[1:] if len(frequent) <= 2 else frequent
        for key, n in frequent:
            if stream := self.make(category_name(key)):
                stream.seed(self.count, n, self.since)
                self.known[key] = stream
                self.watched.append(stream)
        if rest and (other := self.make("other")):
            other.seed(self.count, rest, self.since)
            self.other = other

    def streams(self) -> Iterator[Stream]:
        yield from self.watched
        if self.other is not None:
            yield self.other
        if self.vocabulary is not None:
            yield from self.vocabulary.rare.streams()
        if self.mix is not None:
            yield from self.mix.streams()

    def state(self) -> Any:
        tally = None if self.tally is None else [[key, n] for key, n in self.tally.items()]
        known = [[key, stream and stream.state()] for key, stream in self.known.items()]
        vocabulary = self.vocabulary and [self.vocabulary.state(), self._seen(self.vocabulary)]
        return [
            self.since,
            self.count,
            tally,
            known,
            self.other and self.other.state(),
            self.refused,
            vocabulary,
            self.mix and self.mix.state(),
        ]

    def _seen(self, vocabulary: Vocabulary) -> Any:
        return None if vocabulary.seen is None else sorted(vocabulary.seen, key=category_name)

    def restore(self, state: Any) -> None:
        self.since, self.count, tally, known, other, self.refused, vocabulary, mix = state
        if self.mix is not None and (mix is None or not self.mix.restore(mix)):
            self.mix = None
        if self.vocabulary is not None:
            self.vocabulary.restore(vocabulary[0])
            self.vocabulary.seen = None if vocabulary[1] is None else frozenset(map(key_of, vocabulary[1]))
        self.tally = None if tally is None else {key_of(key): n for key, n in tally}
        for saved, stream_state in known:
            key = key_of(saved)
            stream = self.make(category_name(key)) if stream_state else None
            self.known[key] = stream
            if stream is not None:
                stream.restore(stream_state)
                self.watched.append(stream)
        if other and (pooled := self.make("other")):
            pooled.restore(other)
            self.other = pooled


def key_of(saved: Any) -> Any:
    """A key as it was before it became plain data."""
    return saved if type(saved) is str else tuple(saved)
