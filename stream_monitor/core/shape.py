"""What a change looked like: sudden, gradual or a blip; and "undetermined" where the data cannot tell.

At the alarm it is too early to say: a ramp that goes on looks like a step. So a `Trail` keeps the means of blocks of some 25 values, from
well before the change (the marks of the stream) until enough was seen after it. Then three curves are fitted by weighted least squares:

    sudden  ____|~~~~    gradual  ____/~~~~    blip  ____|~~|____        (the edge of a step may lie within a block)

A ramp of length W and height D fits a step but for W D^2/(24 sd^2) in log likelihood, so that is the grain to which it can be told how
sudden a change was: with "sudden" goes the longest ramp that fits as well. Nothing is called sudden before a ramp as long as all that was
seen would stand out by 8, nor gradual while the ramp goes on. Looks are at 200, 400, 800 ... values since the change, the last at 12,800.
The chi-square that a ramp explains beyond a step is below 2.5 in 97 of 100 steps; BIC (G. Schwarz, 1978) would ask log n, about 7, of
its one number more, and has no word for doubt. Here it is a ramp from 6 on, and "undetermined" if it lies between at three looks that
could have told, or nothing could be told by the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import inf
from typing import Any, Literal, NamedTuple

Name = Literal["sudden", "gradual", "blip", "undetermined"]

WIDTH = 25  # values of a block, at first
MOST = 64  # blocks; then they are joined in pairs
KEPT = 24  # blocks from before the alarm, the oldest one taking in what is older still
FIRST_LOOK = 200  # values since the change
LAST_LOOK = 12_800
FRESH = 100  # values after the alarm, at least
TELLING = 8.0  # log likelihood ratio from which a ramp is told from a step
LIKE_STEP, LIKE_RAMP = 2.5, 6.0  # chi-square by which a ramp fits better: below it is a step, above a ramp, between there is doubt
LIKE_BLIP = 14.0  # the same of a blip
AS_GOOD = 2.7  # chi-square by which a ramp may fit worse than what fits best and still be what it was (90% confidence)
PATIENCE = 2  # looks that could have told, after which doubt stays
_MANY = 8  # blocks that tell how much they vary


class Block(NamedTuple):
    """`size` values with these sums, of what the detectors read and in the signal's units; `time` and `offset` of the first."""

    size: float
    total: float
    raw: float
    time: float
    offset: float


class Shape(NamedTuple):
    """`begin` and `end` (time, offset): of a ramp or blip, as far as they are known; of the longest ramp that a sudden change may have
    been. `blocks` at the level that it led to."""

    name: Name
    begin: tuple[int, int] | None
    end: tuple[int, int] | None
    blocks: list[Block]


class Trail:
    """The blocks of an alert that fires. `settled`: how many of the values in them came before the change."""

    __slots__ = ("blocks", "look", "seen", "settled", "told", "variances", "width")

    def __init__(self, blocks: Sequence[Block], split: int, variances: tuple[float, float]) -> None:
        """`blocks` up to now, the change lying before that at `split` (> 0); `variances` of a value before and after."""
        surplus = max(0, min(len(blocks) - KEPT, split - 1))
        self.blocks = [_joined(blocks[: surplus + 1]), *blocks[surplus + 1 :]]
        while len(self.blocks) > MOST // 2:
            self.blocks = [self.blocks[0], *_halved(self.blocks[1:])]
        self.settled: float = sum(block.size for block in blocks[:split])
        self.seen: float = sum(block.size for block in blocks[split:])
        self.variances = variances
        self.width = WIDTH
        self.told = 0  # looks that could have told
        self.look = FIRST_LOOK
        while self.look < min(self.seen + FRESH, LAST_LOOK):
            self.look *= 2
        self.blocks.append(_EMPTY)

    def take(self, value: float, raw: float, time: int, offset: int) -> bool:
        """The next value. Whether it is time to look."""
        last = self.blocks[-1]
        if last.size:
            self.blocks[-1] = Block(last.size + 1, last.total + value, last.raw + raw, last.time, last.offset)
        else:
            self.blocks[-1] = Block(1, value, raw, time, offset)
        self.seen += 1
        if last.size + 1 < self.width:
            return False
        if len(self.blocks) >= MOST:
            self.blocks = _halved(self.blocks)
            self.width *= 2
        self.blocks.append(_EMPTY)
        return self.seen >= self.look

    def shape(self, ended: bool = False) -> Shape | None:
        """What can be said now, None for nothing yet. `ended`: there will be no more, so something is said."""
        last = ended or self.look >= LAST_LOOK
        self.look *= 2
        fits = Fits([block for block in self.blocks if block.size], self.settled, self.variances)
        found = fits.best(last)
        if found is not None:
            return found
        self.told += fits.telling
        return fits.undetermined() if last or self.told > PATIENCE else None

    def saved(self) -> Any:
        """Plain data."""
        return [[list(b) for b in self.blocks], self.settled, self.seen, list(self.variances), self.width, self.told, self.look]

    @classmethod
    def restored(cls, state: Any) -> Trail:
        """The trail that gave `state`."""
        trail = cls.__new__(cls)
        blocks, trail.settled, trail.seen, variances, trail.width, trail.told, trail.look = state
        trail.blocks = [Block(*block) for block in blocks]
        trail.variances = variances[0], variances[1]
        return trail


class Fits:
    """The curves that fit the blocks best. `telling`: enough was seen to tell a ramp from a step."""

    def __init__(self, blocks: list[Block], settled: float, variances: tuple[float, float]) -> None:
        self.blocks = blocks
        starts = [0.0, *accumulate(block.size for block in blocks)]
        self.changed = next((i for i, at in enumerate(starts) if at >= settled), 1)
        y = [block.total / block.size for block in blocks]
        w = [block.size / variances[i >= self.changed] for i, block in enumerate(blocks)]
        noise = _overdispersion(y[self.changed :], w[self.changed :])
        self.y, self.w = y, [one / noise for one in w]
        t = [(a + b) / 2 for a, b in pairwise(starts)]
        self.edges = starts
        self.ramps: list[tuple[float, int, int]] = []
        self.sums = [
            [0.0, *accumulate(terms)]
            for terms in zip(
                *((w, w * y, w * y * y, w * t, w * t * t, w * t * y) for w, y, t in zip(self.w, y, t, strict=True)), strict=True
            )
        ]
        self.step, self.at, height = self._step()
        after = starts[-1] - starts[self.at + 1] if self.step < inf else 0.0
        self.telling = after * height * height / 24 / (max(variances) * noise) >= TELLING

    def best(self, last: bool) -> Shape | None:
        """The curve that is sure by now, if one is."""
        if self.step == inf:
            return None
        ramp, a, b = self._ramp()
        blip, i, k = self._blip()
        n = len(self.blocks)
        if self.step - blip > max(LIKE_BLIP, self.step - ramp):
            return Shape("blip", self._place(i), self._place(k), self.blocks[i + 1 : k])
        if self.step - ramp > LIKE_RAMP:
            plateau, length = self.edges[n] - self.edges[b], self.edges[b] - self.edges[a]
            if plateau < length / 2 and not last:  # it may well go on
                return None
            going_on = b > n - max(2, n // 10)
            return Shape("gradual", self._place(a), None if going_on else self._place(b), self.blocks[(min(b, n - 1) + n) // 2 :])
        if self.step - ramp < LIKE_STEP and self.telling:
            a, b = self._longest(min(self.step, ramp) + AS_GOOD)
            if b < n:
                return Shape("sudden", self._place(a), self._place(b), self.blocks[self.at + 1 :])
        return None

    def _longest(self, limit: float) -> tuple[int, int]:
        """The longest ramp that fits about as well as what fits best, at least the block that the step lies in."""
        _, a, b = max(
            ((self.edges[b] - self.edges[a], a, b) for chi, a, b in self.ramps if chi <= limit), default=(0, self.at, self.at + 1)
        )
        return a, b

    def undetermined(self) -> Shape:
        return Shape("undetermined", None, None, self.blocks[self.changed :] or self.blocks[-1:])

    def _place(self, block: int) -> tuple[int, int]:
        return int(self.blocks[block].time), int(self.blocks[block].offset)

    def _step(self) -> tuple[float, int, float]:
        """Chi-square, the block that the edge lies in, the height."""
        best = inf, 0, 0.0
        sw, sy, syy = self.sums[:3]
        for j in range(1, len(self.blocks) - 1):
            w0, w1 = sw[j], sw[-1] - sw[j + 1]
            m0, m1 = sy[j] / w0, (sy[-1] - sy[j + 1]) / w1
            chi = syy[-1] - syy[j + 1] + syy[j] - w0 * m0 * m0 - w1 * m1 * m1 + self._edge(j, m0, m1)
            if chi < best[0]:
                best = chi, j, m1 - m0
        return best

    def _ramp(self) -> tuple[float, int, int]:
        """Chi-square, the blocks that begin with the ramp and with what follows it (their number, if nothing does)."""
        best = inf, 0, 0
        found = self.ramps
        sw, sy, syy, st, stt, sty = self.sums
        n = len(self.blocks)
        w, y, yy = sw[n], sy[n], syy[n]
        for a in range(1, n - 2):
            start = self.edges[a]
            for b in range(a + 3, n + 1):
                length = self.edges[b] - start
                inner = sw[b] - sw[a]
                it, beyond = st[b] - st[a], w - sw[b]
                x = (it - start * inner) / length + beyond
                xx = (stt[b] - stt[a] - 2 * start * it + start * start * inner) / (length * length) + beyond
                xy = (sty[b] - sty[a] - start * (sy[b] - sy[a])) / length + y - sy[b]
                spread = xx - x * x / w
                if spread <= 0:
                    continue
                slope = (xy - x * y / w) ** 2 / spread
                chi = yy - y * y / w - slope
                found.append((chi, a, b))
                if chi < best[0]:
                    best = chi, a, b
        return best

    def _blip(self) -> tuple[float, int, int]:
        """Chi-square, the blocks that the two edges lie in."""
        best = inf, 0, 0
        sw, sy, syy = self.sums[:3]
        n = len(self.blocks)
        for i in range(1, n - 3):
            for k in range(i + 2, n - 1):
                w1, y1 = sw[k] - sw[i + 1], sy[k] - sy[i + 1]
                w0, y0 = sw[n] - sw[k + 1] + sw[i], sy[n] - sy[k + 1] + sy[i]
                chi = syy[n] - syy[k + 1] + syy[k] - syy[i + 1] + syy[i] - y0 * y0 / w0 - y1 * y1 / w1
                if chi < best[0]:
                    chi += self._edge(i, y0 / w0, y1 / w1) + self._edge(k, y0 / w0, y1 / w1)
                    if chi < best[0]:
                        best = chi, i, k
        return best

    def _edge(self, block: int, m0: float, m1: float) -> float:
        """Chi-square of a block whose values may be of both levels."""
        y = self.y[block]
        gap = min(m0, m1) - y if y < min(m0, m1) else max(0.0, y - max(m0, m1))
        return self.w[block] * gap * gap


def _overdispersion(y: Sequence[float], w: Sequence[float]) -> float:
    """How much more blocks differ from their neighbours than independent values would make them; at least 1."""
    if len(y) < _MANY:
        return 1.0
    found = [(b - a) ** 2 / (1 / v + 1 / u) for a, b, v, u in zip(y, y[1:], w, w[1:], strict=False)]
    return max(1.0, sum(found) / len(found))


_EMPTY = Block(0, 0.0, 0.0, 0, 0)


def _joined(blocks: Sequence[Block]) -> Block:
    first = blocks[0]
    return Block(sum(b.size for b in blocks), sum(b.total for b in blocks), sum(b.raw for b in blocks), first.time, first.offset)


def _halved(blocks: Sequence[Block]) -> list[Block]:
    return [_joined(blocks[i : i + 2]) for i in range(0, len(blocks), 2)]
