"""What `status` makes of the topics: the ledger of the newest snapshots, how old they are, and what to do where there are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import orjson
import pytest
from rich.console import Console

from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.snapshots import Snapshot, StateRecord, cut, firing
from stream_monitor.io.status import Kept, Reach
from stream_monitor.status import SHOWN, prometheus, report, tables
from tests.core.test_early import CUT, ERROR, LOG
from tests.support.observations import judged, outcome, predicted, prediction, run

SETTINGS = DetectSettings(
    maturity_ms=60_000, partitions=2, warmup=500, monitors=(MonitorSettings(metrics=("error",), slices=("country",)),)
)
MINUTE = 60_000
NOW = 1_800_000_000_000


def drifted() -> tuple[Monitor, list[StateRecord]]:
    """A monitor in which an alert fires, and the records of what does."""
    monitor, alerts = run(SETTINGS, judged(6_000, lambda i, country: 0.6 if i >= 4_000 and country == "DE" else 0.1))
    return monitor, [firing(("observations", 0), alert, "d") for alert in alerts]


def kept(monitor: Monitor, more: Sequence[StateRecord] = (), settings: DetectSettings = SETTINGS, age: int = 30_000) -> Kept:
    snapshot = Snapshot(monitor.at, settings.digest(), monitor.snapshot(waiting=False))
    return Kept(0, [*cut(("observations", 0), snapshot), *more], NOW - age)


def reach(partition: int, committed: int | None, end: int, low: int = 0, stage: str = "detect") -> Reach:
    return Reach(stage, "observations" if stage == "detect" else "journal", partition, committed, low, end)


def asked(kept: Sequence[Kept], reaches: Sequence[Reach], settings: DetectSettings = SETTINGS) -> dict[str, Any]:
    data = report(settings, "observations", MINUTE, kept, reaches, NOW)
    assert orjson.loads(orjson.dumps(data)) == data, "plain data"
    return data


def shown(data: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=160, highlight=False, markup=False)
    for part in tables(data):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def problems(data: dict[str, Any]) -> list[str]:
    return [problem for one in data["partitions"] for problem in one["problems"]]


def test_the_ledger_of_the_snapshot_is_shown_by_model_and_slice() -> None:
    monitor, records = drifted()
    data = asked([kept(monitor, records)], [reach(0, 6_000, 6_100)])
    statement = monitor.budget()
    assert data["owners"] == [{"partition": 0, **owner} for owner in statement["owners"]]
    assert {name: data["budget"][name] for name in ("came_in", "received", "alarms", "left")} == {
        name: statement[name] for name in ("came_in", "received", "alarms", "left")
    }
    assert data["budget"]["alarms"] >= 1
    assert (data["budget"]["alerts"], data["budget"]["period_ms"]) == (1.0, 7 * 86_400_000)
    text = shown(data)
    assert "Alert budget: 1 in 7 d." in text
    assert re.search(r"credit +v3 +country=DE +1 +[01] ", text)


def test_versions_say_how_much_waits_although_a_snapshot_holds_none_of_it() -> None:
    monitor, _ = drifted()
    waiting = monitor.counters["waiting"]
    assert waiting > 0
    [version] = asked([kept(monitor)], [reach(0, 6_000, 6_000)])["versions"]
    assert (version["model"], version["model_version"], version["waiting"]) == ("credit", "v3", waiting)
    assert version["streams"] == monitor.counters["streams"]
    assert version["heard"] == monitor.versions()[0]["heard"] > 0


def test_what_fires_is_told_even_where_the_snapshot_can_not_be_used() -> None:
    monitor, records = drifted()
    other = replace(SETTINGS, warmup=700)
    for settings in (SETTINGS, other):
        data = asked([kept(monitor, records)], [reach(0, 6_000, 6_000)], settings)
        [alert] = [alert for alert in data["firing"] if alert["slice"]]
        assert (alert["slice"], alert["metric"]) == ({"key": "country", "value": "DE"}, "error")
        assert alert["summary"].partition(";")[0] in shown(data)
    assert data["versions"] == []
    assert "made under other settings" in problems(data)[0]


def test_an_alert_that_was_resolved_does_not_fire() -> None:
    monitor, records = drifted()
    over = [StateRecord(record.key, None, []) for record in records]
    assert asked([kept(monitor, over)], [reach(0, 6_000, 6_000)])["firing"] == []


def test_without_a_snapshot_it_is_said_what_to_do() -> None:
    data = asked([Kept(0, [], None), Kept(1, [], None)], [reach(0, None, 500), reach(1, None, 0)])
    [problem] = problems(data)
    assert "no snapshot yet" in problem
    assert "stream-monitor run" in problem
    assert problem in " ".join(shown(data).split())


@pytest.mark.parametrize(("age", "end", "missed"), [(30_000, 9_000, False), (5 * MINUTE, 6_000, False), (5 * MINUTE, 9_000, True)])
def test_a_snapshot_that_is_old_while_there_is_something_to_read_is_missed(age: int, end: int, missed: bool) -> None:
    monitor, _ = drifted()
    data = asked([kept(monitor, age=age)], [reach(0, 6_000, end)])
    assert data["partitions"][0]["age_ms"] == age
    assert data["partitions"][0]["behind"] == end - 6_000
    assert [("is detect running?" in problem) for problem in problems(data)] == [True] * missed


def test_a_damaged_snapshot_or_one_of_another_format_is_a_problem_and_no_crash() -> None:
    monitor, _ = drifted()
    good = kept(monitor)
    damaged = good._replace(records=[good.records[0]._replace(value=b"x")])
    old = cut(("observations", 0), Snapshot(10, SETTINGS.digest(), monitor.snapshot(waiting=False) | {"format": 1}))
    odd = cut(("observations", 0), Snapshot(10, SETTINGS.digest(), {"format": 3}))
    for one in (damaged, Kept(0, old, NOW), Kept(0, odd, NOW)):
        data = asked([one], [reach(0, 6_000, 6_000)])
        assert len(problems(data)) == 1
        shown(data)
        prometheus(data)


def test_the_lag_of_each_group_adds_up_and_gaps_are_said() -> None:
    reaches = [
        Reach("route", "predictions", 0, 10, 0, 15),
        Reach("route", "predictions", 1, None, 5, 9),
        Reach("join", "journal", 0, 3, 7, 20),
        reach(0, 6_000, 6_000),
    ]
    lag = {one["stage"]: one for one in asked([Kept(0, [], None)], reaches)["lag"]}
    assert (lag["route"]["lag"], lag["route"]["never_read"], lag["route"]["gaps"]) == (9, 1, 0)
    assert (lag["join"]["gaps"], lag["detect"]["lag"]) == (1, 0)
    assert "17 (1 outside the log)" in shown(asked([], reaches))


def test_partitions_add_up_and_a_long_table_is_cut() -> None:
    settings = replace(SETTINGS, monitors=(MonitorSettings(metrics=("error",), slices=("shop",)),))
    shops = [outcome(prediction(i, slices={"shop": f"s{i % 40}"}), "yes") for i in range(2_000)]
    monitor, _ = run(settings, shops)
    other = kept(monitor, settings=settings)
    both = asked([other, other._replace(partition=1, records=[])], [reach(0, 2_000, 2_000), reach(1, None, 0)], settings)
    assert len(both["owners"]) == 41
    text = shown(both)
    assert f"and {41 - SHOWN} more: --json has all" in text
    assert both["counters"]["streams"] == 41


def test_metrics_are_in_prometheus_format_whatever_names_come() -> None:
    names = {"model": 'a"b\\c\nd', "model_version": "[red]1"}
    monitor, _ = run(SETTINGS, [outcome(prediction(i, slices={"country": "D\x1bE"}, **names), "yes") for i in range(600)])
    data = asked([kept(monitor)], [reach(0, 600, 700)])
    assert "\x1b" not in shown(data)
    text = prometheus(data)
    sample = re.compile(r'stream_monitor_[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)*\})? -?[0-9.e+-]+')
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(sample.fullmatch(line) for line in lines), [line for line in lines if not sample.fullmatch(line)]
    assert 'stream_monitor_lag_offsets{stage="detect",topic="observations"} 100.0' in lines
    assert 'stream_monitor_snapshot_age_seconds{partition="0"} 30.0' in lines
    assert len({line.rpartition(" ")[0] for line in lines}) == len(lines), "a sample is told once"


def test_what_became_of_each_side_of_the_join_adds_up_to_what_was_read() -> None:
    parts = {"joined": 50, "late": 3, "duplicate_predictions": 2, "expired": 1, "waiting_predictions": 44}
    parts |= {"duplicate_feedback": 4, "conflicting": 5, "orphan": 6, "waiting_feedback": 7}
    accounting = {"predictions": 100, "feedback": 75, **parts}
    data = report(SETTINGS, "observations", MINUTE, [], [], NOW, accounting)
    for side in data["join"]:
        assert sum(n for name, n in side.items() if name not in ("side", "read")) == side["read"]
    table = shown(data)
    assert re.search(r"predictions +100 +50 +3 +2 +0 +1 +44", table)
    assert re.search(r"feedback +75 +50 +3 +4 +5 +6 +7", table)
    assert 'stream_monitor_join_records{side="feedback",became="conflicting"} 5.0' in prometheus(data)


def test_an_empty_monitor_is_shown() -> None:
    assert "No alert fires" in shown(asked([], []))
    assert "stream_monitor_alerts_firing 0.0" in prometheus(asked([], []))


def test_warnings_stand_apart_from_what_fires_with_a_budget_of_their_own() -> None:
    monitor, alerts = run(ERROR, LOG[:CUT])
    records = [firing(("observations", 0), alert, "d") for alert in alerts]
    data = asked([kept(monitor, records, ERROR)], [reach(0, CUT, CUT)], ERROR)
    assert (data["firing"], [warned["id"] for warned in data["warned"]]) == ([], [alerts[-1].id])
    assert (data["budget"]["alarms"], data["budget"]["warnings"]) == (0, 2)
    assert data["budget"]["warnings_allowed"] == {"warnings": 20.0, "period_ms": 7 * 86_400_000, "ratio": 20.0}
    text = shown(data)
    assert "Warning budget: 20 in 7 d." in text
    assert "2 spent" in text
    assert "1 warnings stand" in text
    lines = prometheus(data).splitlines()
    assert 'stream_monitor_warnings_spent{model="credit",model_version="v3",slice=""} 2.0' in lines
    assert {"stream_monitor_warnings_standing 1.0", "stream_monitor_alerts_firing 0.0"} <= set(lines)


def test_where_nobody_asks_for_warnings_nothing_is_said_of_them() -> None:
    monitor, records = drifted()
    data = asked([kept(monitor, records)], [reach(0, 6_000, 6_000)])
    assert (data["warned"], data["budget"]["warnings_allowed"]) == ([], None)
    assert not re.search("Warning budget|warnings stand", shown(data))
    assert not [line for line in prometheus(data).splitlines() if line.startswith("stream_monitor_warnings_spent")]


def crowded() -> tuple[DetectSettings, Monitor]:
    """More features, classes and groups than there is room for, and labels of another type."""
    watched = MonitorSettings(metrics=("*",), slices=(), protected=("gender",), favourable="c0")
    settings = DetectSettings(maturity_ms=0, max_features=3, max_categories=2, default=watched)
    asked = [prediction(i, prediction=f"c{i % 4}", features=dict.fromkeys("abcd", 1), slices={"gender": "fmx"[i % 3]}) for i in range(12)]
    log = [predicted(one) for one in asked] + [outcome(one, f"c{i % 3}" if i else 0) for i, one in enumerate(asked)]
    log.append(b'{"record":"other"}')
    return settings, run(settings, log)[0]


def test_what_was_left_out_is_told_with_its_reason_in_every_form() -> None:
    settings, monitor = crowded()
    data = asked([kept(monitor, settings=settings)], [reach(0, 25, 25)], settings)
    counted = {name: n for name, n in data["counters"].items() if name in monitor._counts}
    assert counted == {name: monitor.counters[name] for name in counted}
    assert counted.keys() == {"features_refused", "classes_refused", "groups_refused", "labels_of_another_type", "not_understood"}
    assert (counted["features_refused"], counted["labels_of_another_type"], counted["not_understood"]) == (12, 1, 1)
    text = shown(data)
    assert "12 values of features are not watched: there are more features than detect.max_features" in text
    assert '1 labels are of another JSON type than the answer, as 1 for "1"' in text
    assert f"{counted['classes_refused']} answers and labels have no recall or precision" in text
    assert f"{counted['groups_refused']} values of protected attributes count among the rest alone" in text
    assert "1 records of the observations make no sense" in text
    lines = prometheus(data).splitlines()
    assert {f"stream_monitor_{name} {n}.0" for name, n in counted.items()} <= set(lines)
    assert {"stream_monitor_before_maturity 0.0", "stream_monitor_alerts_cooled_down 0.0"} <= set(lines)


def test_of_what_did_not_happen_nothing_is_said() -> None:
    monitor, _ = drifted()
    text = shown(asked([kept(monitor)], [reach(0, 6_000, 6_000)]))
    assert not re.search("detect.max_|another JSON type|make no sense|cool_down", text)


def test_which_class_was_answered_for_which_is_told_as_of_the_snapshot() -> None:
    settings, monitor = crowded()
    data = asked([kept(monitor, settings=settings)], [reach(0, 25, 25)], settings)
    assert data["confusion"] == [{"partition": 0, **table} for table in monitor.confusion()]
    [version] = data["confusion"]
    assert sum(pair["count"] for table in version["tables"] for pair in table["pairs"]) == 12
    assert re.search(r"Most frequent mistakes *\n.*\ncredit +v3 +other +c0 +3\n", shown(data))


def test_where_nothing_was_mistaken_no_mistakes_are_shown() -> None:
    monitor, _ = run(SETTINGS, [outcome(prediction(i), "yes") for i in range(700)])
    data = asked([kept(monitor)], [reach(0, 700, 700)])
    assert "mistakes" not in shown(data)


def test_what_is_left_of_the_budget_is_a_metric_beside_what_was_received_and_spent() -> None:
    monitor, _ = drifted()
    data = asked([kept(monitor)], [reach(0, 6_000, 6_000)])
    lines = prometheus(data).splitlines()
    for owner in data["owners"]:
        part = f"country={owner['slice']['value']}" if owner["slice"] else ""
        assert f'stream_monitor_budget_left{{model="credit",model_version="v3",slice="{part}"}} {float(owner["left"])!r}' in lines
    assert sum(owner["left"] for owner in data["owners"]) == pytest.approx(data["budget"]["left"]) != 0
