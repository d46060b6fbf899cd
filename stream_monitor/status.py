"""`stream-monitor status`: what the log says about a stream monitor, as plain data, as tables, and as metrics.

    committed offsets, newest snapshots, alerts that fire (io/status.py),
    the join's accounting                                                 --report--> plain data --tables | prometheus--> text

A snapshot is restored as detect does it (core/monitor.py) and asked for its ledger; so budget, versions and streams are as of the
snapshot, and how old that is, is said. Alerts that fire are as of now: they have records of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from rich.table import Table
from rich.text import Text

from stream_monitor.core import snapshots
from stream_monitor.core.alerting import is_early, safe
from stream_monitor.core.events import Alert
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings
from stream_monitor.io.status import Kept, Reach

SHOWN = 20  # rows of a table for people; the plain data has all
_LATE = 3  # snapshot intervals after which a snapshot that should be there is missed
_BECAME: Mapping[str, Mapping[str, str]] = {  # of the records of each side, by the join's counter of it: they add up to what was read
    "predictions": {
        "joined": "joined", "late": "late", "again": "duplicate_predictions", "unmet": "expired", "waiting": "waiting_predictions",
    },
    "feedback": {
        "joined": "joined", "late": "late", "again": "duplicate_feedback", "conflicting": "conflicting", "unmet": "orphan",
        "waiting": "waiting_feedback",
    },
}  # fmt: skip
_PARTS = ("joined", "late", "again", "conflicting", "unmet", "waiting")
_SAID = {  # what each of these counters counts
    "features_refused": "values of features are not watched: there are more features than detect.max_features",
    "classes_refused": "answers and labels have no recall or precision: there are more classes than detect.max_categories",
    "groups_refused": "values of protected attributes count among the rest alone: there are more groups than detect.max_categories",
    "task_not_known": "outcomes came while all answers were whole numbers, and few: it was not known whether these are classes; not judged",
    "labels_of_another_type": 'labels are of another JSON type than the answer, as 1 for "1": a class is wrong then, a number not judged',
    "before_maturity": "outcomes were judged before they were mature: more waited than detect.max_waiting, or labels take longer now",
    "alerts_cooled_down": "alarms are no alerts, since an alert about the same had just ended (cool_down)",
    "not_understood": "records of the observations make no sense, and were left out",
}
_COUNTED = ("streams", "slices", "versions", "streams_refused", "slices_evicted", "versions_evicted", *_SAID)
_MONEY = ("came_in", "received", "alarms", "left", "warnings")


def report(
    settings: DetectSettings,
    observations: str,
    interval_ms: int,
    kept: Sequence[Kept],
    reaches: Sequence[Reach],
    now: int,
    accounting: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Everything as plain data. `settings` with the number of partitions of `observations`; `now`: the time of the question (ms);
    `accounting`: that of all buckets of the join together, None where it could not be had."""
    read = {reach.partition: reach for reach in reaches if reach.stage == "detect"}
    partitions, versions, owners, confusion = [], [], [], []
    firing: list[dict[str, Any]] = []
    warned: list[dict[str, Any]] = []
    budget = dict.fromkeys(_MONEY, 0.0)
    counters = dict.fromkeys(_COUNTED, 0)
    for one in kept:
        if one.partition not in read:
            continue  # the state topic may have more partitions than the observations
        place = observations, one.partition
        monitor, waiting, said = _monitor(settings, place, one, read[one.partition], interval_ms, now)
        partitions.append(said)
        alerts, unreadable = snapshots.alerts(place, one.records)
        for alert in alerts:
            (warned if is_early(alert) else firing).append(_fires(alert))
        if unreadable:
            said["problems"].append(f"{len(unreadable)} records of alerts that fire can not be read: detect says so where it starts")
        if monitor is None:
            continue
        statement = monitor.budget()
        for name in _MONEY:
            budget[name] += statement[name]
        for name in _COUNTED:
            counters[name] += monitor.counters.get(name, 0)
        owners += [{"partition": one.partition, **owner} for owner in statement["owners"]]
        versions += [
            {"partition": one.partition, **version, "waiting": held} for version, held in zip(monitor.versions(), waiting, strict=True)
        ]
        confusion += [{"partition": one.partition, **version} for version in monitor.confusion()]
    allowed = {"alerts": settings.alert_budget.alerts, "period_ms": settings.alert_budget.period_ms}
    return {
        "now": now,
        "lag": [_lag(stage, topic, reaches) for stage, topic in dict.fromkeys((reach.stage, reach.topic) for reach in reaches)],
        "join": None if accounting is None else _join(accounting),
        "partitions": partitions,
        "budget": allowed | budget | {"warnings_allowed": _allowed(settings)},
        "owners": owners,
        "versions": versions,
        "confusion": confusion,
        "counters": counters,
        "firing": sorted(firing, key=_decided),
        "warned": sorted(warned, key=_decided),
    }


def _join(accounting: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"side": side, "read": accounting.get(side, 0)} | {part: accounting.get(became.get(part, ""), 0) for part in _PARTS}
        for side, became in _BECAME.items()
    ]


def _allowed(settings: DetectSettings) -> dict[str, Any] | None:
    """The budget for warnings, and how many of them there may be for each alert (`ratio`); None where there are none."""
    allowed = settings.warning_budget
    if allowed is None:
        return None
    return {"warnings": allowed.alerts, "period_ms": allowed.period_ms, "ratio": settings.warnings_per_alert}


def _decided(alert: Mapping[str, Any]) -> tuple[int, str]:
    return alert["detected_at"], alert["id"]


def _monitor(
    settings: DetectSettings, place: tuple[str, int], kept: Kept, reach: Reach, interval_ms: int, now: int
) -> tuple[Monitor | None, list[int], dict[str, Any]]:
    """The state of the newest snapshot, how many outcomes waited in each of its versions, and what there is to say of it."""
    said: dict[str, Any] = {"partition": place[1], "offset": None, "written": None, "age_ms": None, "behind": reach.end - reach.low}
    problems: list[str] = said.setdefault("problems", [])
    if reach.gap:
        problems.append(f"{reach.committed} is committed, the topic holds [{reach.low}, {reach.end}): see stream-monitor reset")
    try:
        snapshot = snapshots.assemble(place, kept.records)
    except ValueError as why:
        problems.append(f"the snapshot can not be read: {why}; detect will replay the observations at its next start")
        return None, [], said
    if snapshot is None:
        if reach.end > reach.low:
            problems.append(
                "there is no snapshot yet: detect writes one every detect.snapshot_interval while it has new observations"
                f" ({'it never read this partition' if reach.committed is None else f'its lag is {reach.lag}'}); is"
                " `stream-monitor run` running?"
            )
        return None, [], said
    age = None if kept.written is None else max(0, now - kept.written)
    said |= {"offset": snapshot.offset, "written": kept.written, "age_ms": age, "behind": max(0, reach.end - snapshot.offset)}
    if said["behind"] and age is not None and age > _LATE * interval_ms:
        problems.append(f"the snapshot is {_span(age)} old and {said['behind']} offsets are behind it: is detect running?")
    if snapshot.digest != settings.digest():
        problems.append(
            "the snapshot was made under other settings, so its budget is not shown: name the configuration that the running"
            " process has, or wait for its next snapshot"
        )
        return None, [], said
    try:
        monitor = Monitor.restore(settings, *place, snapshot.state)
        return monitor, list(snapshot.state["waiting"]), said
    except Exception as why:  # whatever the data did to the code that reads it
        problems.append(f"the snapshot can not be used: {type(why).__name__}: {why}; another release wrote it, perhaps")
        return None, [], said


def _lag(stage: str, topic: str, reaches: Iterable[Reach]) -> dict[str, Any]:
    ours = [reach for reach in reaches if (reach.stage, reach.topic) == (stage, topic)]
    return {
        "stage": stage,
        "topic": topic,
        "partitions": len(ours),
        "never_read": sum(reach.committed is None for reach in ours),
        "gaps": sum(reach.gap for reach in ours),
        "lag": sum(reach.lag for reach in ours),
    }


def _fires(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "model": alert.model,
        "model_version": alert.model_version,
        "slice": alert.slice and {"key": alert.slice.key, "value": alert.slice.value},
        "metric": alert.metric,
        "kind": alert.kind.value,
        "severity": alert.severity.value,
        "first_seen": alert.first_seen,
        "detected_at": alert.detected_at,
        "summary": alert.summary,
    }


# -- for people ---------------------------------------------------------------------------------------------------------


def tables(data: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The report for a terminal."""
    yield _table(
        "Reading",
        ("stage", "topic", "partitions", "lag"),
        ((_c(x["stage"]), _c(x["topic"]), _n(x["partitions"]), _lagging(x)) for x in data["lag"]),
    )
    if data["join"] is not None:
        numbers = ("read", *_PARTS)
        rows = ((_c(side["side"]), *(_n(side[name]) for name in numbers)) for side in data["join"])
        yield _table("Join, since its state was last built", ("side", *numbers), rows)
    yield _table(
        "Snapshots",
        ("partition", "offset", "age", "behind it"),
        ((_n(x["partition"]), _n(x["offset"]), _c(_span(x["age_ms"])), _n(x["behind"])) for x in data["partitions"]),
    )
    for one in data["partitions"]:
        for problem in one["problems"]:
            yield Text(f"partition {one['partition']}: {problem}", style="yellow")
    budget = data["budget"]
    yield Text(
        f"\nAlert budget: {budget['alerts']:g} in {_span(budget['period_ms'])}. So far {_amount(budget['came_in'])} came in,"
        f" {_amount(budget['received'])} was received, {budget['alarms']:.0f} spent, {_left(budget['left'])}",
        style="bold",
    )
    if (allowed := budget["warnings_allowed"]) is not None:
        came_in, received = (_amount(budget[name] * allowed["ratio"]) for name in ("came_in", "received"))
        yield Text(
            f"Warning budget: {allowed['warnings']:g} in {_span(allowed['period_ms'])}. So far {came_in} came in,"
            f" {received} was received, {budget['warnings']:.0f} spent",
            style="bold",
        )
    yield _table(
        "Budget by owner",
        ("model", "version", "slice", "streams", "judged", "share", "received", "spent", "left"),
        (_owner(o) for o in sorted(data["owners"], key=lambda o: (-o["alarms"], o["slice"] is not None, -o["received"]))),
    )
    yield _table(
        "Versions",
        ("model", "version", "last heard of", "slices", "streams", "waiting", "too late"),
        (
            (_c(v["model"]), _c(v["model_version"]), _c(_date(v["heard"])), *(_n(v[name]) for name in _OF_A_VERSION))
            for v in sorted(data["versions"], key=lambda v: -v["heard"])
        ),
    )
    counters = data["counters"]
    if any(counters[name] for name in ("streams_refused", "slices_evicted", "versions_evicted")):
        yield Text(
            f"Not watched for want of room: {counters['streams_refused']:,} streams refused (detect.max_streams),"
            f" {counters['slices_evicted']:,} slices (max_slices) and {counters['versions_evicted']:,} versions (max_versions) evicted",
            style="yellow",
        )
    for name, what in _SAID.items():
        if counters[name]:
            yield Text(f"{counters[name]:,} {what}", style="yellow")
    if mistakes := _mistakes(data["confusion"]):
        yield _table("Most frequent mistakes", ("model", "version", "answer", "label", "outcomes"), mistakes)
    heads = "detected", "severity", "what", "alert"
    yield _table(f"{len(data['firing'])} alerts fire" if data["firing"] else "No alert fires", heads, map(_alert, reversed(data["firing"])))
    if data["warned"]:
        yield _table(f"{len(data['warned'])} warnings stand", heads, map(_alert, reversed(data["warned"])))


def _alert(a: Mapping[str, Any]) -> tuple[Text, ...]:
    return _c(_date(a["detected_at"])), _c(a["severity"]), Text(a["summary"]), _c(a["id"][:12])


def _mistakes(confusion: Iterable[Mapping[str, Any]]) -> list[tuple[Text, ...]]:
    """Which class each version answered for which, wrongly, of all that it was told; the most frequent first."""
    counts = Counter[tuple[str, str, str, str]]()
    for one in confusion:
        for pair in chain.from_iterable(table["pairs"] for table in one["tables"]):
            if pair["prediction"] != pair["label"]:
                counts[one["model"], one["model_version"], pair["prediction"], pair["label"]] += pair["count"]
    return [(*map(_c, pair), _n(count)) for pair, count in counts.most_common()]


_OF_A_VERSION = ("slices", "streams", "waiting", "too_late_for_maturity")


def _owner(o: Mapping[str, Any]) -> tuple[Text, ...]:
    whose = _c(o["model"]), _c(o["model_version"]), _c(_part(o["slice"]) or "all")
    amounts = _r(f"{o['share']:.1%}"), _r(_amount(o["received"])), _n(o["alarms"]), _r(_amount(o["left"]))
    return *whose, _n(o["streams"]), _n(o["judged"]), *amounts


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Text]]) -> Table:
    listed = list(rows)
    more = f"and {len(listed) - SHOWN:,} more: --json has all" if len(listed) > SHOWN else None
    table = Table(
        title=title, title_justify="left", caption=more, caption_justify="left", box=None, pad_edge=False, show_header=bool(listed)
    )
    for head in heads:
        table.add_column(head, justify="right" if listed and listed[0][heads.index(head)].justify == "right" else "left")
    for row in listed[:SHOWN]:
        table.add_row(*row)
    return table


def _c(text: str) -> Text:
    return Text(safe(text))


def _r(text: str) -> Text:
    return Text(text, justify="right")


def _n(number: int | None) -> Text:
    return _r("-" if number is None else f"{number:,}")


def _lagging(lag: Mapping[str, Any]) -> Text:
    more = [f"{lag['never_read']} never read"] * bool(lag["never_read"]) + [f"{lag['gaps']} outside the log"] * bool(lag["gaps"])
    return Text(f"{lag['lag']:,}" + (f" ({', '.join(more)})" if more else ""), justify="right", style="red" if lag["gaps"] else "")


def _left(value: float) -> str:
    return f"{_amount(value)} left" if value >= 0 else f"{_amount(-value)} more than that: alerts of true drift count, too"


def _amount(value: float) -> str:
    return f"{value:.3g}" if value else "0"


def _part(slice_: Mapping[str, str] | None) -> str:
    return "" if slice_ is None else f"{slice_['key']}={slice_['value']}"


def _date(ms: int) -> str:
    return f"{datetime.fromtimestamp(min(max(ms, 0), 253_402_300_799_999) / 1000, UTC):%Y-%m-%d %H:%M}"


def _span(ms: int | None) -> str:
    if ms is None:
        return "-"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size or (ms >= size and ms % size == 0):
            return f"{ms // size} {unit}"
    return f"{ms // 1000} s"


# -- for Prometheus -----------------------------------------------------------------------------------------------------

_Samples = list[tuple[dict[str, Any], float]]


def prometheus(data: Mapping[str, Any]) -> str:
    """The report in Prometheus' text format (version 0.0.4), for node_exporter's textfile collector or a cron job."""
    owners, versions, partitions, budget, counters = (data[part] for part in ("owners", "versions", "partitions", "budget", "counters"))
    ages: _Samples = [({"partition": p["partition"]}, p["age_ms"] / 1000) for p in partitions if p["age_ms"] is not None]
    lags: _Samples = [({"stage": x["stage"], "topic": x["topic"]}, x["lag"]) for x in data["lag"]]
    joined: _Samples = [({"side": side["side"], "became": part}, side[part]) for side in data["join"] or () for part in _PARTS]
    firing, warned = map(_standing, (data["firing"], data["warned"]))
    allowed = budget["warnings_allowed"]
    families: list[tuple[str, str, _Samples]] = [
        ("lag_offsets", "offsets that a stage has still to read", lags),
        ("join_records", "what became of the records that the join has read since its state was last built", joined),
        ("snapshot_age_seconds", "age of the newest snapshot", ages),
        ("snapshot_in_order", "1 if nothing is wrong with the newest snapshot", [_sound(p) for p in partitions]),
        ("budget_allowed_per_day", "false alerts allowed in a day", _one(budget["alerts"] * 86_400_000 / budget["period_ms"])),
        ("budget_came_in", "false alerts of the budget that came in", _one(budget["came_in"])),
        ("budget_received", "false alerts of the budget that streams received", _each(owners, "received")),
        ("budget_alarms", "alarms that were charged to it", _each(owners, "alarms")),
        ("budget_left", "what was received less what was charged: below 0 where there was true drift", _each(owners, "left")),
        ("warnings_allowed_per_day", "false warnings allowed in a day", _one(_per_day(allowed)) if allowed else []),
        ("warnings_spent", "warnings that were charged to their budget", _each(owners, "warnings") if allowed else []),
        ("budget_share", "part of what comes in to a partition from now on", _each(owners, "share")),
        ("streams", "signals that are watched", _each(owners, "streams")),
        ("streams_judged", "those past their warm-up", _each(owners, "judged")),
        ("outcomes_waiting", "outcomes that wait for maturity", _each(versions, "waiting")),
        ("last_heard_ms", "event time at which a version was last heard of", _each(versions, "heard")),
        ("streams_refused", "streams not watched for want of room", _one(counters["streams_refused"])),
        ("slices_evicted", "slices that others took the place of", _one(counters["slices_evicted"])),
        ("versions_evicted", "versions that others took the place of", _one(counters["versions_evicted"])),
        *((name, what, _one(counters[name])) for name, what in _SAID.items()),
        ("alerts_firing", "alerts that fire", _one(len(firing))),
        ("alert_firing", "an alert that fires", firing),
        ("warnings_standing", "warnings that have neither faded nor come to fire", _one(len(warned))),
        ("warning_standing", "a warning that stands", warned),
    ]
    lines = []
    for name, what, samples in families:
        lines += [f"# HELP stream_monitor_{name} {what}", f"# TYPE stream_monitor_{name} gauge"]
        for labels, value in samples:
            said = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
            lines.append(f"stream_monitor_{name}{'{' + said + '}' if said else ''} {float(value)!r}")
    return "\n".join(lines) + "\n"


def _standing(alerts: Iterable[Mapping[str, Any]]) -> _Samples:
    return [(_labels(a) | {name: a[name] for name in ("metric", "kind", "severity")}, 1) for a in alerts]


def _per_day(allowed: Mapping[str, Any]) -> float:
    return float(allowed["warnings"] * 86_400_000 / allowed["period_ms"])


def _one(value: float) -> _Samples:
    return [({}, value)]


def _each(rows: Iterable[Mapping[str, Any]], name: str) -> _Samples:
    return [(_labels(row), row[name]) for row in rows]


def _sound(partition: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    return {"partition": partition["partition"]}, not partition["problems"]


def _labels(of: Mapping[str, Any]) -> dict[str, Any]:
    labels = {"model": of["model"], "model_version": of["model_version"]}
    return labels | {"slice": _part(of["slice"])} if "slice" in of else labels


def _escaped(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
