"""Fairness as a specification: which differences between a protected group and the rest are alerts, and what these say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_monitor.core import snapshots
from stream_monitor.core.events import Alert, Kind, Slice, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import AlertBudget, DetectSettings, MonitorSettings
from tests.support.observations import START, STEP, control, outcome, predicted, prediction, run

DAY = 86_400_000


def settings(*metrics: str, **fields: Any) -> DetectSettings:
    """Nothing but fairness, in these metrics; three false alarms a day."""
    asked = {"protected": ("gender",), "favourable": "approve", "fairness_metrics": metrics or ("selection_rate",), **fields}
    monitor = MonitorSettings(metrics=(), slices=(), **asked)
    return DetectSettings(maturity_ms=0, alert_budget=AlertBudget(3, DAY), monitors=(monitor,))


def answers(count: int, share: Callable[[int, str], float], seed: int = 1, groups: str = "fm", weights: Any = None) -> Iterator[bytes]:
    """Predictions; `share(i, group)` is the probability of approval."""
    rng = random.Random(seed)
    for i in range(count):
        [group] = rng.choices(groups, weights)
        answer = "approve" if rng.random() < share(i, group) else "decline"
        yield predicted(prediction(i, prediction=answer, slices={"gender": group, "country": "DE"}))


def outcomes(count: int, right: Callable[[int, str, str], float], seed: int = 1) -> Iterator[bytes]:
    """Outcomes; half of the labels are favourable, `right(i, group, label)` is the probability of the right answer."""
    rng = random.Random(seed)
    other = {"approve": "decline", "decline": "approve"}
    for i in range(count):
        group, label = rng.choice("fm"), rng.choice(("approve", "decline"))
        answer = label if rng.random() < right(i, group, label) else other[label]
        yield outcome(prediction(i, prediction=answer, slices={"gender": group}), label)


def unequal(i: int, group: str) -> float:
    return 0.15 if group == "f" and i >= 4_000 else 0.35


def firing(alerts: list[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.status is Status.FIRING]


def test_a_group_that_is_selected_less_often_is_one_alert_about_that_group() -> None:
    _, alerts = run(settings(fairness_limit=0.1), answers(7_000, unequal))
    [alert] = [a for a in firing(alerts) if "limit" in a.details]
    assert (alert.kind, alert.metric, alert.slice, alert.direction) == (Kind.FAIRNESS, "selection_rate_gap", Slice("gender", "f"), "down")
    assert (alert.assurance, alert.detector, alert.parameters) == ("guaranteed", "limit", {"limit": "selection_rate_gap >= -0.1"})
    assert 4_000 < alert.position.offset < 7_000
    assert alert.first_position.offset == pytest.approx(4_000, abs=700)
    assert alert.before.value == pytest.approx(0, abs=0.05)
    details = alert.details
    assert details["group"]["value"] == pytest.approx(0.15, abs=0.06)
    assert details["rest"]["value"] == pytest.approx(0.35, abs=0.06)
    assert details["group"]["count"] == details["rest"]["count"] == alert.after.count
    assert details["difference"] == pytest.approx(alert.after.value, abs=1e-6)
    assert details["ratio"] == pytest.approx(details["group"]["value"] / details["rest"]["value"], abs=1e-5)
    low, high = details["interval"]
    assert low < -0.2 < high < 0
    assert (details["limit"], details["rule"]) == (-0.1, "selection_rate_gap >= -0.1")
    assert alert.summary.startswith(
        f"credit v3: group gender=f is selected at {details['group']['value']:.3g}, the rest at {details['rest']['value']:.3g}"
        f" (difference {alert.after.value:.3g} [{low:.3g}, {high:.3g}], limit -0.1; {alert.after.count} pairs since 2024-03-05 12:0"
    )
    assert orjson.loads(publish(alert)[1])["details"] == details


def test_the_four_fifths_rule_is_a_limit_of_the_ratio() -> None:
    _, alerts = run(settings(disparate_impact=0.8), answers(7_000, unequal))
    [alert] = [a for a in firing(alerts) if "limit" in a.details]
    assert (alert.metric, alert.slice) == ("selection_rate_ratio", Slice("gender", "f"))
    assert alert.after.value == pytest.approx(0.43, abs=0.15)
    low, high = alert.details["interval"]
    assert 0 < low < 0.43 < high < 0.9  # wider than what the alarm goes by: two intervals of 97.5% make one
    assert "group gender=f is selected at 0.1" in alert.summary
    assert f"(ratio {alert.after.value:.3g} [{low:.3g}, {high:.3g}], limit 0.8; " in alert.summary


def test_a_gap_that_changes_is_drift_without_any_limit() -> None:
    _, alerts = run(settings(), answers(8_000, lambda i, group: 0.35 - 0.3 * (group == "f" and i >= 4_000)))
    fired = firing(alerts)
    assert {(a.metric, a.kind, a.slice) for a in fired} == {
        ("selection_rate_gap", Kind.FAIRNESS, Slice("gender", "f")),
        ("selection_rate_gap", Kind.FAIRNESS, Slice("gender", "m")),
    }
    assert any(a.summary.startswith("credit v3: selection rate gap for gender=f fell from ") for a in fired)


def test_a_gap_that_changes_is_told_with_both_rates_before_and_after() -> None:
    """Of the group f and the rest, whose part is not in the gap: it is the group that moved."""
    _, alerts = run(settings(), answers(12_000, lambda i, group: 0.35 - 0.3 * (group == "f" and i >= 4_000)))
    of_f = [a for a in alerts if a.slice == Slice("gender", "f") and a.status in (Status.FIRING, Status.UPDATED) and "group" in a.details]
    assert {a.status for a in of_f} == {Status.FIRING, Status.UPDATED}
    for alert in of_f:
        group, rest = alert.details["group"], alert.details["rest"]
        assert group["before"]["value"] == pytest.approx(0.35, abs=0.04)
        assert rest["before"]["value"] == pytest.approx(0.35, abs=0.04)
        assert group["value"] == pytest.approx(0.05, abs=0.08)
        assert rest["value"] == pytest.approx(0.35, abs=0.12)
        assert group["before"]["value"] - rest["before"]["value"] == pytest.approx(alert.before.value, abs=1e-5)
        assert alert.details["difference"] == pytest.approx(group["value"] - rest["value"], abs=1e-5)
        assert alert.details["ratio"] == pytest.approx(group["value"] / rest["value"], abs=1e-4)
        said = [f"{one['before']['value']:.3g} -> {one['value']:.3g}" for one in (group, rest)]
        ratio = f"{alert.details['ratio_before']:.3g} -> {alert.details['ratio']:.3g}"
        assert f"; selection rate of the group {said[0]}, of the rest {said[1]} (ratio {ratio})" in alert.summary
    fired, *updated = of_f
    assert fired.details["group"]["count"] == fired.after.count
    assert updated[-1].details["group"]["count"] > 100, "measured after the alarm"
    assert updated[-1].details["group"]["value"] == pytest.approx(0.05, abs=0.03)
    assert orjson.loads(publish(fired)[1])["details"] == fired.details


@pytest.mark.parametrize(("metric", "label"), [("true_positive_rate", "approve"), ("false_positive_rate", "decline"), ("error", None)])
def test_so_is_that_of_every_other_metric(metric: str, label: str | None) -> None:
    """The rest gets better, the group stays where it was; there is no four-fifths rule of these rates."""

    def right(i: int, group: str, of: str) -> float:
        return 0.9 if group == "m" and i >= 5_000 and label in (of, None) else 0.5

    _, alerts = run(settings(metric), outcomes(10_000, right))
    [alert] = [a for a in firing(alerts) if a.slice == Slice("gender", "f")]
    group, rest = alert.details["group"], alert.details["rest"]
    before, now = (0.5, 0.9) if metric == "true_positive_rate" else (0.5, 0.1)
    assert [group["before"]["value"], group["value"]] == pytest.approx([0.5, 0.5], abs=0.15)
    assert [rest["before"]["value"], rest["value"]] == pytest.approx([before, now], abs=0.15)
    assert f"; {metric.replace('_', ' ')} of the group 0." in alert.summary
    assert "ratio" not in alert.summary


def test_what_changes_for_all_alike_is_no_unfairness() -> None:
    def share(i: int, group: str) -> float:
        return 0.6 if 3_000 <= i < 6_000 else 0.2

    assert run(settings(fairness_limit=0.05, disparate_impact=0.8), answers(8_000, share))[1] == []


def test_a_gap_within_the_limit_is_none() -> None:
    """0.05 below, 0.1 and a ratio of 0.8 are allowed."""
    some = settings(fairness_limit=0.1, disparate_impact=0.8)
    assert run(some, answers(8_000, lambda i, group: 0.35 if group == "f" else 0.4))[1] == []


@pytest.mark.parametrize(
    ("metric", "label", "said"),
    [("true_positive_rate", "approve", "true positive rate is 0."), ("false_positive_rate", "decline", "false positive rate is 0.")],
)
def test_rates_among_the_labelled_are_watched_for_themselves(metric: str, label: str, said: str) -> None:
    """Women get the favourable answer less often than men, among those alone who deserve it, or do not."""

    def right(i: int, group: str, of: str) -> float:
        worse = 0.5 if label == "approve" else 0.95
        return worse if group == "f" and of == label else 0.8 if label == "approve" else 0.6

    every = ("true_positive_rate", "false_positive_rate")
    _, alerts = run(settings(*every, fairness_limit=0.1), outcomes(6_000, right))
    [alert] = firing(alerts)
    assert (alert.metric, alert.slice, alert.kind) == (f"{metric}_gap", Slice("gender", "f"), Kind.FAIRNESS)
    assert f"credit v3: group gender=f: {said}" in alert.summary
    assert ", that of the rest 0." in alert.summary


def test_errors_are_worse_where_they_are_more() -> None:
    _, alerts = run(
        settings("error", fairness_limit=0.1, favourable=None), outcomes(5_000, lambda i, group, of: 0.6 if group == "f" else 0.9)
    )
    [alert] = firing(alerts)
    assert (alert.metric, alert.slice, alert.direction) == ("error_gap", Slice("gender", "f"), "up")
    assert "group gender=f: error is 0." in alert.summary


def numbers(count: int, spread: Callable[[int, str], float], seed: int = 1) -> Iterator[bytes]:
    """Outcomes of a regression whose errors have a heavy tail; `spread(i, group)` is their scale."""
    rng = random.Random(seed)
    for i in range(count):
        group, level = rng.choice("fm"), rng.lognormvariate(5, 1)
        miss = spread(i, group) * level * rng.gauss(0, 1) / max(rng.random(), 1e-3)
        yield outcome(prediction(i, prediction=level + miss, slices={"gender": group}), level)


def test_of_numbers_the_errors_of_a_group_are_worse_where_they_are_mostly_the_larger_ones() -> None:
    _, alerts = run(settings("error", fairness_limit=0.1), numbers(6_000, lambda i, group: 2.0 if group == "f" else 1.0))
    [alert] = [alert for alert in firing(alerts) if "limit" in alert.details]
    assert (alert.metric, alert.slice, alert.direction) == ("larger_error_gap", Slice("gender", "f"), "up")
    assert alert.assurance == "guaranteed"
    group, rest = alert.details["group"]["value"], alert.details["rest"]["value"]
    assert group + rest == pytest.approx(1, abs=1e-6)
    assert group == pytest.approx(0.65, abs=0.06)
    assert alert.details["effect"] == pytest.approx((group - rest - 0.1) / (1 - (group - rest) ** 2) ** 0.5, abs=1e-3)
    said = f"credit v3: group gender=f: share of the larger errors is {group:.3g}, that of the rest {rest:.3g} ("
    assert alert.summary.startswith(said)


def test_errors_of_numbers_that_grow_for_all_alike_or_are_all_the_same_are_no_unfairness() -> None:
    def both(i: int, group: str) -> float:
        return 5.0 if i >= 3_000 else 1.0

    for spread in (both, lambda i, group: 0.0):
        assert firing(run(settings("error", fairness_limit=0.1), numbers(6_000, spread))[1]) == []


def test_errors_of_numbers_that_come_to_be_unequal_are_drift_without_any_limit() -> None:
    _, alerts = run(settings("error"), numbers(8_000, lambda i, group: 3.0 if group == "f" and i >= 4_000 else 1.0))
    assert {(alert.metric, alert.kind) for alert in firing(alerts)} == {("larger_error_gap", Kind.FAIRNESS)}
    assert {alert.slice for alert in firing(alerts)} <= {Slice("gender", "f"), Slice("gender", "m")}
    assert all("share of the larger errors of the group" in alert.summary for alert in firing(alerts))


def test_it_resolves_when_the_gap_is_within_the_limit_again() -> None:
    def share(i: int, group: str) -> float:
        return 0.1 if group == "f" and 1_000 <= i < 4_000 else 0.35

    _, alerts = run(settings(fairness_limit=0.1), answers(9_000, share))
    limit = [a for a in alerts if a.fingerprint == next(a for a in alerts if "limit" in a.details).fingerprint]
    assert [a.status for a in limit] == [Status.FIRING, Status.RESOLVED]
    assert limit[1].position.offset > 4_000
    assert limit[1].summary.startswith("credit v3: selection rate gap for gender=f is back at ")
    assert limit[1].summary.endswith(", within the limit of -0.1")


def test_limits_of_fairness_have_the_cool_down_of_their_monitor() -> None:
    def share(i: int, group: str) -> float:
        return 0.1 if group == "f" and not 3_000 <= i < 5_500 else 0.35

    log = list(answers(9_000, share))

    def times(cool_down: int) -> list[int]:
        _, alerts = run(settings(fairness_limit=0.1, cool_down_ms=cool_down), log)
        return [alert.detected_at for alert in firing(alerts) if "limit" in alert.details]

    first, second = times(0)
    assert times(10_000 * STEP) == [first]
    [same, later] = times(4_000 * STEP)
    assert same == first
    assert later > second


def test_a_small_group_is_not_judged_but_a_rare_one_is_in_time() -> None:
    """One in forty: 200 of them in 8,000."""

    def share(i: int, group: str) -> float:
        return 0.0 if group == "x" else 0.5

    log = list(answers(8_000, share, groups="fmx", weights=(20, 20, 1), seed=2))
    assert {a.slice for a in run(settings(fairness_limit=0.1), log)[1]} == {Slice("gender", "x")}
    monitor, alerts = run(settings(fairness_limit=0.1, minimum_group=400), log)
    assert alerts == []
    assert {owner["slice"]["value"] for owner in monitor.budget()["owners"]} == {"f", "m"}, "nor has it a share of the budget"


@pytest.mark.parametrize(
    ("favourable", "yes", "no", "compared"),
    [
        (None, True, False, True),
        (None, 1, 0, True),
        (None, "approve", "decline", False),
        ("a", "a", "b", True),
        ("1", 1, 0, False),
        (0, 0, 1, True),
    ],
)
def test_the_favourable_class_is_said_or_is_true_or_1(favourable: Any, yes: Any, no: Any, compared: bool) -> None:
    rng = random.Random(2)
    log = []
    for i in range(5_000):
        group = rng.choice("fm")
        answer = yes if rng.random() < (0.1 if group == "f" else 0.6) else no
        log.append(predicted(prediction(i, prediction=answer, slices={"gender": group})))
    _, alerts = run(settings(favourable=favourable, fairness_limit=0.1), log)
    assert [a.slice for a in alerts] == ([Slice("gender", "f")] if compared else [])


def test_groups_are_bounded_and_counted_beyond_and_what_has_none_is_left_out() -> None:
    rng = random.Random(3)

    def group(i: int) -> Any:
        return {"gender": f"{rng.random()}"} if i % 2 else rng.choice(({}, None, {"gender": "f" * 5_000}, {"country": "m"}))

    parts = [group(i) for i in range(2_000)]
    log = [predicted(prediction(i, prediction="approve", slices=part)) for i, part in enumerate(parts)]
    some = replace(settings(fairness_limit=0.1, minimum_group=1), max_categories=3)
    monitor, alerts = run(some, log)
    assert alerts == []
    assert monitor.counters["streams"] == 6
    groups = [part["gender"] for part in parts if part and "gender" in part]
    known = list(dict.fromkeys(groups))[:3]
    assert monitor.counters["groups_refused"] == sum(one not in known for one in groups) > 0
    assert len(orjson.dumps(monitor.snapshot())) < 40_000


def test_slices_need_not_be_watched_for_a_protected_attribute_to_be() -> None:
    some = settings("error", fairness_limit=0.1)
    elsewhere = replace(some, monitors=(replace(some.monitors[0], slices=("country",), slice_metrics=("error",)),))
    log = list(outcomes(3_000, lambda i, group, of: 0.6 if group == "f" else 0.9))
    assert [a.metric for a in run(elsewhere, log)[1]] == ["error_gap"]
    assert run(some, log)[0].counters["slices"] == 0


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_false_alerts_keep_to_the_budget_where_gaps_are_at_their_limit(p: float) -> None:
    """25 attributes in which one group is exactly as much worse off as it may be, in a log with room for 8 false alerts."""
    rng, keys, limit = random.Random(4), [f"k{k}" for k in range(25)], 0.05
    some = settings(protected=tuple(keys), favourable=1, fairness_limit=limit)
    some = replace(some, warmup=10**9, alert_budget=AlertBudget(8, 4_000 * STEP))
    log = []
    for i in range(4_000):
        answer = 1 if rng.random() < p else 0
        share = (p - limit / 2) / p if answer else (1 - p + limit / 2) / (1 - p)  # of group f among those who get this answer, times 2
        log.append(predicted(prediction(i, prediction=answer, slices={k: "f" if rng.random() < share / 2 else "m" for k in keys})))
    fired = firing(run(some, log)[1])
    assert {alert.slice.value for alert in fired if alert.slice} <= {"f"}
    assert len(fired) <= 8 + 2.5 * 8**0.5


@pytest.mark.parametrize("cut", [0, 150, 4_100, 5_500])
def test_a_restored_monitor_goes_on_as_the_saved_one(cut: int) -> None:
    every = ("selection_rate", "true_positive_rate", "false_positive_rate", "error")
    some = settings(*every, fairness_limit=0.1, disparate_impact=0.8)
    log = [
        record
        for pair in zip(
            answers(3_500, lambda i, g: unequal(2 * i, g)), outcomes(3_500, lambda i, g, of: 0.5 + 0.4 * (g == "f")), strict=True
        )
        for record in pair
    ]
    monitor, before = run(some, log[:cut])
    data = orjson.loads(orjson.dumps(monitor.snapshot(), option=orjson.OPT_NON_STR_KEYS))
    restored = Monitor.restore(some, "observations", 0, data)
    assert restored.snapshot() == monitor.snapshot()
    _, after = run(some, log[cut:], restored)
    whole = run(some, log)[1]
    assert [publish(alert) for alert in before + after] == [publish(alert) for alert in whole]
    assert {alert.metric for alert in whole} >= {"selection_rate_ratio", "error_gap"}


@pytest.mark.parametrize("cut", [150, 4_100])
def test_so_it_does_between_two_errors_of_which_one_waits_for_the_other(cut: int) -> None:
    some = settings("error", fairness_limit=0.1)
    log = list(numbers(6_000, lambda i, group: 2.0 if group == "f" else 1.0))
    monitor, before = run(some, log[:cut])
    restored = Monitor.restore(some, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot(), option=orjson.OPT_NON_STR_KEYS)))
    _, after = run(some, log[cut:], restored)
    assert [publish(alert) for alert in before + after] == [publish(alert) for alert in run(some, log)[1]]


def test_an_alert_of_a_ratio_that_had_no_end_is_carried_over_and_goes_on() -> None:
    """The rest was never selected before, so what the state topic has of that level is null."""
    rule = settings(disparate_impact=0.8, minimum_group=5)
    records = list(answers(1_000, lambda i, group: (0.2 if group == "f" else 0.9) if i >= 200 else 0.1 if group == "f" else 0.0))
    _, alerts = run(rule, records)
    told = snapshots.firing(("observations", 0), next(alert for alert in alerts if alert.metric == "selection_rate_ratio"), "digest")
    [alert], _ = snapshots.alerts(("observations", 0), [told])
    assert alert.before.value is None
    rebuilt, _ = run(rule, records)
    rebuilt.carry_over([alert], rebuilt.at)
    _, [noted] = run(rule, [control(alert.id, "acknowledge")], rebuilt)
    assert noted.summary == f"{alert.summary}; acknowledged"


def test_a_restored_monitor_makes_nothing_that_the_saved_one_had_no_room_for() -> None:
    """Else it would take the room of what was there."""
    watched = MonitorSettings(metrics=("error",), slices=(), protected=("gender",), fairness_metrics=("error",), fairness_limit=0.1)
    crowded = DetectSettings(maturity_ms=0, max_streams=2, monitors=(watched,))
    rng = random.Random(1)
    records = [
        outcome(prediction(i, model_version=rng.choice(("v3", "v4")), slices={"gender": rng.choice("fm")}), rng.choice(("yes", "no")))
        for i in range(1_000)
    ]
    monitor, _ = run(crowded, records)
    restored = Monitor.restore(crowded, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
    assert restored.snapshot() == monitor.snapshot()
    assert restored.counters == monitor.counters


def test_a_limit_and_a_drift_of_one_gap_are_two_alerts() -> None:
    _, alerts = run(settings(fairness_limit=0.1), answers(9_000, lambda i, group: 0.05 if group == "f" and i >= 4_000 else 0.4))
    of_f = [a for a in firing(alerts) if a.slice == Slice("gender", "f")]
    assert [a.metric for a in of_f] == ["selection_rate_gap"] * 2
    assert len({a.fingerprint for a in of_f}) == 2
    assert all(a.detected_at >= START for a in of_f)
