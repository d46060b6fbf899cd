"""What moved with an alert: which slices make up the change, which features moved too. Asked at an alarm and once more later, only then.

**Slices.** With n values at level a since the change where b was the level before, the slices of a key (its values) make up the change
of all traffic from B to A:

    A - B = sum_s p_s (a_s - b_s)  +  sum_s (p_s - q_s) (b_s - B)        p, q: a slice's part of the traffic since and before
            change within slices      shift of the mix between them

so a slice explains p_s (a_s - b_s)/(A - B) of it: n_s (a_s - b_s) over n (A - B). What explains it is the fewest slices of one key that
make up 80% of it, if they moved otherwise than the rest of the key did; of several keys the one that tells them apart from the rest
most clearly for each slice, which neither a part of the truth does nor more than the truth. (Chance sets some slices apart as well, the
more so the more could be chosen from: a bound over all choices accounts for it.) Where at least half of the change is a shift of the
mix, that is said instead: no slice need have got worse (E. H. Simpson, 1951). Levels come from the marks that the slices' streams leave
behind them (core/streams.py). A few values after an alarm are little to go by: what chance would explain is not named, and it is asked
again once four times as many values came.

**Features.** Those with an alert in the same incident; and by e-BH (R. Wang, A. Ramdas: False discovery rate control with e-values, JRSS B
84, 2022) over the K streams of the version that are judged: with e = evidence over the budget received, the k streams with
the largest e for the largest k with e_(k) >= K/(0.1 k). At most a tenth of those is named by chance, however they depend on each other.

A change of the spread is not taken apart into slices, and an alert about a feature is not explained at all.

Whether P(X) moved is the difference between data drift and concept drift: `inputs` is "moved" if a feature is named, "stable" if features
are watched and none is, else "not watched".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import comb, isfinite, log, sqrt
from typing import Any, NamedTuple

from stream_monitor.core.events import Alert, Level
from stream_monitor.core.settings import CROSS
from stream_monitor.core.streams import Stream

MOST = 0.8  # of the change: an explanation
HALF = 0.5  # of it: a shift of the mix that is worth saying
LEAST = 0.2  # of it: worth naming
RATE = 0.1  # of e-BH's findings that may be false
CHANCE = 2.5  # standard deviations that chance explains
ODDS = 0.05  # that chance alone sets some slices apart from the rest, over all that could have been chosen
SLICES = FEATURES = 3  # named at most
FEW = 20  # values of all traffic since the change, below which nothing is said of slices


# Explained by the error where slices have only that.
_AS_ERROR = ("recall", "precision", "weighted_error", "log_loss", "brier", "bias", "squared_error")


class Part(NamedTuple):
    """A slice's part in the change. `share` of it, `mix`: of it by a shift of the mix; `traffic`: its part now, `was` before."""

    value: str
    before: Level
    after: Level
    share: float
    mix: float
    traffic: float
    was: float
    sd: float
    sure: bool  # more than chance


class Explanation(NamedTuple):
    """Slices of one key that explain the change; `evidence`: how far apart from the rest, in logarithms beyond what chance does."""

    key: str
    parts: tuple[Part, ...]
    evidence: float


def explain(alert: Alert, streams: Iterable[Stream]) -> dict[str, Any]:
    """`attribution` and `inputs` for the details of an alert that fires, from all streams of its version."""
    if _of_features(alert.metric):
        return {}
    known = list(streams)
    moved = {id(stream) for stream in discovered(known)}
    for stream in known:
        if stream.episode is not None and stream.episode.alert.incident == alert.incident:
            moved.add(id(stream))
    slices, features = _slices(alert, known, moved), _features(alert, known, moved)
    watched = any(stream.judged or stream.episode is not None for stream in known if _of_features(stream.subject.metric))
    inputs = "moved" if features else "stable" if watched else "not watched"
    return {"attribution": slices + features[:FEATURES], "inputs": inputs}


def differs(found: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether what is found now is other than what was told: other names, or a share that is off by a tenth."""
    if any(found.get(name) != told.get(name) for name in ("inputs", "recurring")):
        return True
    now, then = found.get("attribution", []), told.get("attribution", [])
    if [_name(one) for one in now] != [_name(one) for one in then]:
        return True
    return any(abs(a.get("share", 0) - b.get("share", 0)) >= RATE for a, b in zip(now, then, strict=True))


def specificity(attribution: Sequence[Mapping[str, Any]]) -> tuple[bool, int, int, float] | None:
    """Of the alerts of an incident the one with the least explains it most specifically; None where nothing in particular explains it.

    First what makes up most of the change: a smaller part of it, however narrow, is not its cause. Then the narrowest, which leaves the
    least to look at: a cross of two keys before one key; slices before a shift of the mix between them, in which none need have got
    worse; features last, of which no share is known. Then the fewest slices, then the largest share.

    >>> cross, key = ({"slice": {"key": key}, "share": 0.9} for key in ("country x device", "country"))
    >>> specificity([cross]) < specificity([key]) < specificity([cross | {"share": 0.5}]) < specificity([{"feature": "income"}])
    True
    """
    if not attribution:
        return None
    parts = [one for one in attribution if "share" in one]
    if not parts:
        return True, 3, len(attribution), 0.0
    share = min(sum(float(one["share"]) for one in parts), 1.0)  # more is noise
    width = 2 if "mix" in parts[0] else 0 if CROSS in parts[0]["slice"]["key"] else 1
    return share < MOST, width, len(parts), -share


def _name(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    part = entry.get("slice") or {}
    return entry.get("mix"), part.get("key"), part.get("value"), entry.get("feature")


def discovered(streams: Iterable[Stream]) -> list[Stream]:
    """The streams that moved, by e-BH over those that are judged."""
    ranked = sorted(((s.evidence(), s) for s in streams if s.e is not None), key=lambda one: -one[0])  # stable
    count = len(ranked)
    for k in range(count, 0, -1):
        if ranked[k - 1][0] >= count / (RATE * k):
            return [stream for _, stream in ranked[:k]]
    return []


def _of_features(metric: str) -> bool:
    return metric.startswith(("feature:", "missing:"))


def _features(alert: Alert, streams: Iterable[Stream], moved: set[int]) -> list[dict[str, Any]]:
    """One entry for each feature that moved, in all traffic or in a slice; the largest effects first."""
    best: dict[str, dict[str, Any]] = {}
    for stream in streams:
        metric = stream.subject.metric
        if id(stream) not in moved or not _of_features(metric):
            continue
        fired = stream.episode.alert if stream.episode is not None else None
        if fired is not None:
            before, after, effect = fired.before, fired.after, float(fired.details.get("effect", 0.0))
        elif (around := stream.around(alert.first_seen)) is not None:
            before, after, effect = around.before, around.after, around.effect
        else:
            continue
        name = metric.partition(":")[2].partition("=")[0]
        if name not in best or abs(effect) > abs(best[name]["effect"]):
            best[name] = {"feature": name, "metric": metric, "effect": effect, "before": _level(before), "after": _level(after)}
    return sorted(best.values(), key=lambda one: (-abs(one["effect"]), one["feature"]))


def _slices(alert: Alert, streams: Iterable[Stream], moved: set[int]) -> list[dict[str, Any]]:
    """The entries of the slices that explain the change of the alert's metric in all traffic; of the error where slices have no other."""
    by_metric: dict[str, list[Stream]] = {"error": [], alert.metric: []}
    wholes: dict[str, Stream] = {}
    for stream in streams:
        metric = stream.subject.metric
        if metric in by_metric:
            if stream.subject.slice is None:
                wholes[metric] = stream
            else:
                by_metric[metric].append(stream)
    metric = alert.metric if by_metric[alert.metric] or not alert.metric.startswith(_AS_ERROR) else "error"
    whole, slices = wholes.get(metric), by_metric[metric]
    if whole is None or not slices or "of" in alert.details:
        return []
    now = whole.around(alert.first_seen)
    if now is None or now.after.count < FEW:
        return []
    change = now.after.value - now.before.value
    effect = float(alert.details.get("effect", 0.0))
    sd = abs((alert.after.value - alert.before.value) / effect) if whole.numeric and effect else 0.0
    if _chance(now.before, now.after, sd or _sd(now.before, now.after)) < CHANCE and id(whole) not in moved:
        return []
    keys: dict[str, list[Stream]] = {}
    for stream in slices:
        assert stream.subject.slice is not None
        keys.setdefault(stream.subject.slice.key, []).append(stream)
    parts = {key: _parts(alert.first_seen, own, now.before, now.after, change, sd, moved) for key, own in keys.items()}
    if mix := _mix(metric, parts, now.after.count):
        return [mix]
    found = [one for one in (_smallest(key, own, len(parts)) for key, own in parts.items()) if one is not None]
    found.sort(key=lambda one: (-one.evidence / len(one.parts), one.key))  # {DE} rather than {DE x phone, DE x desktop}
    return [
        {"slice": {"key": key, "value": part.value}, "metric": metric, "share": round(part.share, 4), "traffic": round(part.traffic, 4)}
        | {"before": _level(part.before), "after": _level(part.after)}
        for key, own, _ in found[:1]
        for part in own
    ]


def _parts(time: int, streams: Iterable[Stream], before: Level, after: Level, change: float, sd: float, moved: set[int]) -> list[Part]:
    """Every slice of a key; one that came after the change only shifts the mix."""
    seen = []
    for stream in streams:
        around = stream.around(time)
        count = stream.count if around is None else around.after.count
        seen.append((stream, around, count, 0.0 if around is None else around.rate))
    total, pace = sum(count for _, _, count, _ in seen), sum(rate for _, _, _, rate in seen)
    if not total or not pace or not change:
        return []
    cover = min(1.0, total / after.count)
    alike = _sd(before, after)  # of a bit, if the slice is as the whole: few values show less spread than there is
    parts = []
    for stream, around, count, rate in seen:
        assert stream.subject.slice is not None
        part, was = count / total, rate / pace
        new = Level(stream.raw / count if count else 0.0, count)
        old, new = (Level(before.value, 0), new) if around is None else (around.before, around.after)
        within = part * (new.value - old.value) if around is not None else 0.0
        mix = (part - was) * (old.value - before.value) if around is not None else part * (new.value - before.value)
        spread = sd or max(_sd(old, new), alike)
        sure = around is not None and (id(stream) in moved or _chance(old, new, spread) >= CHANCE)
        share, shifted = _finite(cover * within / change), _finite(cover * mix / change)
        parts.append(Part(stream.subject.slice.value, old, new, share, shifted, cover * part, cover * was, spread, sure))
    return parts


def _smallest(key: str, parts: list[Part], keys: int) -> Explanation | None:
    """The fewest slices of a key that make up most of the change, or as much of it as few of them do; None if it is everywhere alike."""
    ranked = sorted(parts, key=lambda one: (-one.share, one.value))
    named: list[Part] = []
    share = 0.0
    for part in ranked[:SLICES]:
        if share >= MOST or not part.sure or part.share < LEAST / 2:
            break
        named.append(part)
        share += part.share
    if not named or share < LEAST:
        return None
    evidence = _apart(named, [part for part in parts if part not in named]) - log(keys * comb(len(parts), len(named)) / ODDS)
    return Explanation(key, tuple(named), evidence) if evidence >= 0 else None


def _apart(named: Iterable[Part], rest: Iterable[Part]) -> float:
    """How much these slices moved otherwise than the rest did: z^2/2, the log of how unlikely chance makes it."""
    one, other = _pooled(named), _pooled(rest)
    if one is None or other is None:
        return 0.0
    apart, noise = one[0] - other[0], one[1] + other[1]
    return _finite(apart * apart / noise / 2) if noise > 0 else 0.0


def _pooled(parts: Iterable[Part]) -> tuple[float, float] | None:
    """The mean move of a value since the change, and its variance."""
    known = [part for part in parts if part.before.count and part.after.count]
    count = sum(part.after.count for part in known)
    if not count:
        return None
    move = sum(part.after.count * (part.after.value - part.before.value) for part in known) / count
    variance = sum((part.after.count / count * part.sd) * (part.after.count / count * part.sd) * _inverse(part) for part in known)
    return move, variance


def _inverse(part: Part) -> float:
    return 1 / part.after.count + 1 / part.before.count


def _mix(metric: str, parts: Mapping[str, list[Part]], count: int) -> dict[str, Any] | None:
    """The key whose mix explains the change better than what happened within its slices, and and the slice whose traffic did most of it; of
    several keys the one with the fewest slices."""
    best: tuple[int, float, str, Part] | None = None
    for key, own in parts.items():
        share, within = sum(part.mix for part in own), sum(part.share for part in own)
        if share < max(HALF, within):
            continue
        largest = max(own, key=lambda one: (one.mix, one.value))
        noise = max(largest.was * (1 - largest.was), 1 / count) / count
        if (largest.traffic - largest.was) ** 2 < 2 * log(len(own) * len(parts) / ODDS) * noise:
            continue
        if best is None or (len(own), -share, key) < best[:3]:
            best = len(own), -share, key, largest
    if best is None:
        return None
    _, share, key, part = best
    return {
        "mix": key, "metric": metric, "share": round(-share, 4), "slice": {"key": key, "value": part.value},
        "traffic": round(part.traffic, 4), "traffic_before": round(part.was, 4), "before": _level(part.before), "after": _level(part.after),
    }  # fmt: skip


def _sd(before: Level, after: Level) -> float:
    """The larger standard deviation of a bit before and after."""
    shares = ((level.value * level.count + 0.5) / (level.count + 1) for level in (before, after))
    return sqrt(max(max(p * (1 - p), 0.0) for p in shares))


def _chance(before: Level, after: Level, sd: float) -> float:
    """The change in standard deviations of what chance does."""
    noise = sd * sqrt(1 / max(1, before.count) + 1 / max(1, after.count))
    return abs(after.value - before.value) / noise if noise > 0 else 0.0


def _finite(share: float) -> float:
    """0 for what a change that is next to nothing makes of it."""
    return share if isfinite(share) else 0.0


def _level(level: Level) -> dict[str, float | int]:
    return {"value": level.value, "count": level.count}
