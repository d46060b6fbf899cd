"""Service levels: how they are written, what is held against them, and the alerts about them, from the log to the record."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Kind, Slice, Span, Status
from stream_monitor.core.judging import Judged, Losses
from stream_monitor.core.limits import is_labelled, parse, reader, written
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import AlertBudget, DetectSettings, Limit, MonitorSettings
from tests.support.observations import START, STEP, by_arrival, control, outcome, predicted, prediction, run


@pytest.mark.parametrize(
    ("text", "limit", "same"),
    [
        ("recall[fraud] >= 0.8", Limit("recall=fraud", True, 0.8), "recall[fraud] >= 0.8"),
        ("error<=5%", Limit("error", False, 0.05), "error <= 0.05"),
        (" precision[1]  >=  .5 ", Limit("precision=1", True, 0.5), "precision[1] >= 0.5"),
        ('recall["1"] >= 0.5', Limit('recall="1"', True, 0.5), 'recall["1"] >= 0.5'),
        ("recall[a]=b <= c]] >= 0.5", Limit("recall=a]=b <= c]", True, 0.5), "recall[a]=b <= c]] >= 0.5"),
        ("missing:amount <= 0.02", Limit("missing:amount", False, 0.02), "missing:amount <= 0.02"),
        ("latency <= 200 for 99%", Limit("latency", False, 200.0, 0.99), "latency <= 200 for 99%"),
        ("feature:a=b >= -1e3 for 99.9 %", Limit("feature:a=b", True, -1000.0, 0.999), "feature:a=b >= -1000 for 99.9%"),
        ("brier <= 1.5", Limit("brier", False, 1.5), "brier <= 1.5"),
        ("accuracy >= 0.9", Limit("accuracy", True, 0.9), "accuracy >= 0.9"),
    ],
)
def test_a_limit_is_written_as_it_is_said(text: str, limit: Limit, same: str) -> None:
    assert parse(text) == limit
    assert written(limit) == same
    assert parse(same) == limit


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("recall[fraud] > 0.8", '"recall[fraud] >= 0.8", "error <= 5%" or "latency <= 200 for 99%" is expected'),
        (0.8, "0.8 is no limit"),
        ("recall >= 0.8", "recall needs a class, such as recall[fraud]"),
        ("recall[] >= 0.8", "a class is expected between the brackets"),
        ("latency <= 200", "latency has no bounds, so say for how many it must hold, such as latency <= 200 for 99%"),
        ("error <= 0", "must lie strictly between 0 and 1, not at 0: one value would break it"),
        ("score >= 1e-20", "must lie strictly between 0 and 1, not at 1e-20: one value would break it"),
        ("latency <= 200 for 1e-20%", "is no limit"),
        ("error <= 5", "must lie strictly between 0 and 1, not at 5"),
        ("brier <= 2", "must lie strictly between 0 and 2"),
        ("latency <= 200 for 100%", "the share must lie strictly between 0% and 100%"),
        ("recall[a] >= 0.8 for 9%", "recall[a] is a share itself"),
        ("error <= 1e", "'1e' is no number"),
        ("latency <= 1e999 for 9%", "1e999 is too large"),
        ("latency <= 9 for 9.9.9%", "'9.9.9' is no number"),
        ("f1 >= 0.8", "there is no limit for 'f1'; there is for error, accuracy, recall[CLASS]"),
        ("missing: >= 0.8", "there is no limit for 'missing:'"),
        ("", "'' is no limit"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_would_be(text: Any, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse(text)
    assert hint in str(error.value)


def judged(**fields: Any) -> Judged:
    return Judged("yes", "yes", 0, False, 1_000, None, None)._replace(**fields)


@pytest.mark.parametrize(
    ("text", "one", "value"),
    [
        ("error <= 0.1", judged(error=1), 1.0),
        ("error <= 0.1", judged(error=3.5, numeric=True), None),
        ("error <= 2 for 90%", judged(error=3.5, numeric=True), 0.0),
        ("accuracy >= 0.9", judged(error=1), 0.0),
        ("recall[yes] >= 0.9", judged(), 1.0),
        ("recall[yes] >= 0.9", judged(prediction="no", error=1), 0.0),
        ("recall[yes] >= 0.9", judged(label="no", error=1), None),
        ("precision[yes] >= 0.9", judged(label="no", error=1), 0.0),
        ("precision[yes] >= 0.9", judged(prediction="no", error=1), None),
        ("recall[1] >= 0.9", judged(label=True, prediction=True), None),
        ("recall[1] >= 0.9", judged(label=1.0, prediction=1), 1.0),
        ("recall[true] >= 0.9", judged(label=True, prediction=True), 1.0),
        ('recall["1"] >= 0.9', judged(label="1", prediction="1"), 1.0),
        ("brier <= 0.5", judged(losses=Losses(0.7, 0.4)), 0.4),
        ("brier <= 0.5", judged(), None),
        ("log_loss <= 0.5 for 90%", judged(losses=Losses(0.7, 0.4)), 0.0),
        ("label_delay <= 2000 for 90%", judged(), 1.0),
        ("bias >= -1 for 90%", judged(prediction=1, label=3.0, numeric=True, error=2.0), 0.0),
        ("latency <= 200 for 90%", prediction(0, latency_ms=200), 1.0),
        ("latency <= 200 for 90%", prediction(0, latency_ms=201.5), 0.0),
        ("latency <= 200 for 90%", prediction(0), None),
        ("score >= 0.1", prediction(0, score=0.25), 0.25),
        ("prediction[yes] <= 0.1", prediction(0), 1.0),
        ("prediction[yes] <= 0.1", prediction(0, prediction="no"), 0.0),
        ("prediction <= 9 for 90%", prediction(0, prediction=10.5), 0.0),
        ("prediction <= 9 for 90%", prediction(0), None),
        ("missing:age <= 0.1", prediction(0, features={"age": None}), 1.0),
        ("missing:age <= 0.1", prediction(0, features={"age": 0}), 0.0),
        ("missing:age <= 0.1", prediction(0, features="?"), 1.0),
        ("feature:age >= 18 for 99%", prediction(0, features={"age": 17}), 0.0),
        ("feature:age >= 18 for 99%", prediction(0, features={"age": "17"}), None),
    ],
)
def test_an_observation_says_something_about_a_limit_or_nothing(text: str, one: Any, value: float | None) -> None:
    limit = parse(text)
    assert is_labelled(limit) == isinstance(one, Judged)
    assert reader(limit)(one) == value


def settings(*limits: str, **fields: Any) -> DetectSettings:
    """Nothing but limits: no metric is watched for drift. Three false alarms a day are allowed: some 300 seconds are 0.01."""
    monitor = MonitorSettings(metrics=(), limits=tuple(map(parse, limits)), **fields)
    return DetectSettings(maturity_ms=0, alert_budget=AlertBudget(3, 86_400_000), monitors=(monitor,))


def outcomes(count: int, wrong: Callable[[int, str], float], seed: int = 1) -> Iterator[bytes]:
    rng = random.Random(seed)
    for i in range(count):
        country, label = rng.choice(("DE", "FR")), rng.choice(("fraud", "fine"))
        answer = "fraud" if (label == "fraud") ^ (rng.random() < wrong(i, country)) else "fine"
        yield outcome(prediction(i, prediction=answer, slices={"country": country}), label)


def broken(i: int, country: str) -> float:
    return 0.35 if 2_000 <= i < 6_000 else 0.1


def test_a_limit_that_is_broken_is_one_alert_with_level_interval_and_limit() -> None:
    _, alerts = run(settings("recall[fraud] >= 0.8"), outcomes(12_000, broken))
    assert [alert.status for alert in alerts] == [Status.FIRING, Status.RESOLVED]
    fired, resolved = alerts
    assert (fired.metric, fired.kind, fired.slice, fired.direction) == ("recall=fraud", Kind.PERFORMANCE, None, "down")
    assert (fired.detector, fired.assurance, fired.threshold) == ("limit", "guaranteed", 1.0)
    assert fired.parameters == {"limit": "recall[fraud] >= 0.8"}
    assert 2_000 < fired.position.offset < 2_700
    assert fired.first_position.offset == pytest.approx(2_000, abs=200)
    assert fired.first_seen == START + fired.first_position.offset * STEP
    assert fired.before.value == pytest.approx(0.9, abs=0.02)
    low, high = fired.details["interval"]
    assert low < 0.65 < high
    assert low < fired.after.value < high < 0.8
    assert {key: fired.details[key] for key in ("rule", "limit", "confidence")} == {
        "rule": "recall[fraud] >= 0.8",
        "limit": 0.8,
        "confidence": 0.95,
    }
    assert fired.summary == (
        f"credit v3: recall of fraud is {fired.after.value:.3g} [{low:.3g}, {high:.3g}], below the limit of 0.8"
        f" (over {fired.after.count} labels since 2024-03-05 12:03 UTC)"
    )
    assert 6_000 < resolved.position.offset < 8_500
    assert resolved.after.value == pytest.approx(0.9, abs=0.05)
    assert resolved.summary == f"credit v3: recall of fraud is back at {resolved.after.value:.3g}, within the limit of 0.8"
    for alert in alerts:
        assert orjson.loads(publish(alert)[1])["details"] == alert.details


def test_the_change_of_a_broken_limit_is_where_the_evidence_for_it_gathered() -> None:
    log = list(outcomes(12_000, broken))
    _, alerts = run(settings("recall[fraud] >= 0.8"), log)
    begun, fired = alerts[0].first_position.offset, alerts[0].position.offset
    assert begun < fired
    assert {alert.change for alert in alerts} == {Span(START + begun * STEP, START + fired * STEP, begun, fired)}
    cut = (begun + fired) // 2
    monitor = run(settings("recall[fraud] >= 0.8"), log[:cut])[0]
    restored = Monitor.restore(settings("recall[fraud] >= 0.8"), "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
    assert run(settings("recall[fraud] >= 0.8"), log[cut:], restored)[1] == alerts
    assert orjson.loads(publish(alerts[0])[1])["change"]["latest_offset"] == fired


def test_the_change_of_a_broken_limit_is_in_order_where_labels_came_out_of_order() -> None:
    """Judged in the order of the predictions, which is not that of the records."""
    rng = random.Random(1)
    log = []
    for i in range(6_000):
        answer = "fraud" if rng.random() < (0.35 if i >= 2_000 else 0.1) else "fine"
        log.append((prediction(i, prediction=answer), "fine", rng.randrange(200) * STEP))
    _, [alert] = run(replace(settings("error <= 0.2"), maturity_ms=200 * STEP), by_arrival(log))
    span = alert.change
    assert span is not None
    assert span.earliest == alert.first_seen < span.latest
    assert span.earliest_offset <= alert.first_position.offset <= span.latest_offset
    assert span.earliest_offset < span.latest_offset


def test_a_level_within_its_limit_raises_nothing_however_long_and_however_it_moves() -> None:
    """Just inside, and better every other thousand: drift, but no breach."""
    _, alerts = run(settings("error <= 0.2"), outcomes(12_000, lambda i, country: 0.19 if i // 1_000 % 2 else 0.05))
    assert alerts == []


def test_no_warm_up_is_needed() -> None:
    _, alerts = run(settings("error <= 0.2"), outcomes(400, lambda i, country: 0.7))
    assert [alert.status for alert in alerts] == [Status.FIRING]
    assert alerts[0].before.count < 20, "there was hardly anything before"


@pytest.mark.parametrize(
    ("limit", "direction"), [("latency <= 200 for 95%", "down"), ("missing:age <= 0.2", "up"), ("score >= 0.5", "down")]
)
def test_what_predictions_say_needs_no_label(limit: str, direction: str) -> None:
    rng = random.Random(5)
    log = []
    for i in range(4_000):
        late = i >= 2_000
        fields = {
            "latency_ms": rng.expovariate(1 / (90 if late else 50)),
            "features": {"age": None if rng.random() < (0.3 if late else 0.1) else 40},
            "score": rng.random() ** (1.3 if late else 0.8),
        }
        log.append(predicted(prediction(i, **fields)))
    _, [alert] = run(settings(limit), log)
    assert alert.position.offset > 2_000
    assert alert.direction == direction
    if limit.startswith("latency"):
        assert "latency is at most 200 for " in alert.summary
        assert ", the limit is 95% (over " in alert.summary


def test_limits_hold_for_the_slices_that_are_named() -> None:
    def wrong(i: int, country: str) -> float:
        return 0.5 if country == "DE" else 0.02

    _, alerts = run(settings("error <= 0.4", limit_slices=("country=*",)), outcomes(3_000, wrong))
    assert [(alert.slice, alert.metric) for alert in alerts] == [(Slice("country", "DE"), "error")]
    assert alerts[0].summary.startswith("credit v3: error for country=DE is 0.")
    assert run(settings("error <= 0.4", limit_slices=("country=F*",)), outcomes(3_000, wrong))[1] == []
    assert run(settings("error <= 0.4"), outcomes(3_000, wrong))[1] == []


def test_a_limit_and_a_drift_of_one_metric_are_two_alerts_and_so_are_two_limits() -> None:
    both = replace(settings("error <= 0.2", "error <= 0.25", "accuracy >= 0.8").monitors[0], metrics=("error",), slices=())
    _, alerts = run(DetectSettings(maturity_ms=0, monitors=(both,)), outcomes(6_000, broken))
    fired = [alert for alert in alerts if alert.status is Status.FIRING]
    assert sorted((alert.metric, alert.kind) for alert in fired) == [
        ("accuracy", Kind.PERFORMANCE),
        ("error", Kind.CONCEPT_DRIFT),
        ("error", Kind.PERFORMANCE),
        ("error", Kind.PERFORMANCE),
    ]
    assert len({alert.fingerprint for alert in fired}) == 4
    assert len({alert.id for alert in fired}) == 4


def test_an_operator_may_end_it_and_it_fires_anew_while_the_limit_is_broken() -> None:
    log = list(outcomes(6_000, lambda i, country: 0.35))
    monitor, [alert] = run(settings("error <= 0.2"), log[:2_000])
    _, alerts = run(settings("error <= 0.2"), [control(alert.id), *log[2_000:]], monitor)
    assert [(a.status, a.details.get("reason")) for a in alerts] == [(Status.RESOLVED, "operator"), (Status.FIRING, None)]
    assert alerts[1].id != alert.id


@pytest.mark.parametrize("ended", ["by an operator", "by itself"])
def test_after_an_alert_is_resolved_there_is_no_other_one_before_the_cool_down_is_over(ended: str) -> None:
    """4,000 records long, also across a restart; what lasts is told then."""

    def wrong(i: int, country: str) -> float:
        return 0.1 if ended == "by itself" and 1_500 <= i < 3_000 else 0.35

    some = settings("error <= 0.2", cool_down_ms=4_000 * STEP)
    log = list(outcomes(9_000, wrong))
    monitor, [alert, *rest] = run(some, log[:1_500])
    assert not rest
    monitor, before = run(some, [control(alert.id), *log[1_500:4_000]] if ended == "by an operator" else log[1_500:4_000], monitor)
    _, after = run(some, log[4_000:], Monitor.restore(some, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot()))))
    [resolved], [again] = before, after
    assert (resolved.status, again.status) == (Status.RESOLVED, Status.FIRING)
    assert 0 <= again.detected_at - resolved.detected_at - 4_000 * STEP < 300 * STEP
    assert monitor.counters["alerts_cooled_down"] > 0
    assert run(replace(some, monitors=(replace(some.monitors[0], cool_down_ms=0),)), log)[0].counters.get("alerts_cooled_down", 0) == 0


def test_limits_have_accounts_in_the_budget_and_places_among_the_streams() -> None:
    monitor, _ = run(settings("error <= 0.2", "recall[fraud] >= 0.7", limit_slices=("*",)), outcomes(500, lambda i, country: 0.1))
    statement = monitor.budget()
    assert [owner["judged"] for owner in statement["owners"]] == [2, 2, 2]
    assert statement["received"] == pytest.approx(statement["came_in"], rel=0.02)
    assert monitor.counters["streams"] == 6
    narrow = replace(settings("error <= 0.2", "accuracy >= 0.8"), max_streams=1)
    monitor, alerts = run(narrow, outcomes(2_000, lambda i, country: 0.35))
    assert [alert.metric for alert in alerts] == ["error"]
    assert monitor.counters["streams_refused"] == 1


def test_false_alerts_keep_to_the_budget_at_the_limit() -> None:
    """20 features, each missing exactly as often as it may; 8 false alerts are allowed."""
    rng = random.Random(3)
    names = [f"f{k}" for k in range(20)]
    some = replace(settings(*(f"missing:{name} <= 0.1" for name in names)), alert_budget=AlertBudget(8, 4_000 * STEP))
    log = (predicted(prediction(i, features={n: None if rng.random() < 0.1 else 1 for n in names})) for i in range(4_000))
    fired = [alert for alert in run(some, log)[1] if alert.status is Status.FIRING]
    assert 1 <= len(fired) <= 8 + 2.5 * 8**0.5


@pytest.mark.parametrize("cut", [0, 1, 1_999, 2_400, 5_000, 7_000])
def test_a_restored_monitor_goes_on_as_the_saved_one(cut: int) -> None:
    some = settings("recall[fraud] >= 0.8", "latency <= 200 for 99%", limit_slices=("country=*",))
    log = list(outcomes(8_000, broken))
    monitor, before = run(some, log[:cut])
    data = orjson.loads(orjson.dumps(monitor.snapshot(), option=orjson.OPT_NON_STR_KEYS))
    _, after = run(some, log[cut:], Monitor.restore(some, "observations", 0, data))
    assert [publish(alert) for alert in before + after] == [publish(alert) for alert in run(some, log)[1]]
    assert len(before + after) > 2


def test_what_fires_under_other_settings_is_taken_over_or_resolved() -> None:
    log = list(outcomes(3_000, broken))
    _, [fired] = run(settings("error <= 0.2"), log)
    same, _ = run(replace(settings("error <= 0.2"), warmup=999), log)
    assert same.carry_over([fired], same.at) == []
    other, _ = run(settings("error <= 0.3"), log)
    assert [alert.details for alert in other.carry_over([fired], other.at)] == [{"reason": "rebuilt"}]


def dependent(count: int, level: Callable[[int], float], seed: int = 1) -> Iterator[bytes]:
    """Of each value, the next is a copy in half of the cases."""
    rng, absent = random.Random(seed), False
    for i in range(count):
        absent = absent if rng.random() < 0.5 else rng.random() < level(i)
        yield predicted(prediction(i, features={"age": None if absent else 40}))


def test_values_that_depend_on_each_other_are_noticed_and_do_not_flood() -> None:
    """At the limit, in a log with room for 4 false alerts; if each value counted in full there would be 66."""
    some = replace(settings("missing:age <= 0.2"), alert_budget=AlertBudget(4, 20_000 * STEP), resolve_means=1, resolve_width=1)
    fired = [alert for alert in run(some, dependent(20_000, lambda i: 0.2))[1] if alert.status is Status.FIRING]
    assert 1 <= len(fired) <= 4 + 2.5 * 2
    assert {alert.assurance for alert in fired if alert.position.offset > 1_000} <= {"calibrated"}


def test_an_alert_about_values_that_depend_on_each_other_says_so() -> None:
    log = list(dependent(6_000, lambda i: 0.5 if i >= 3_000 else 0.1))
    _, [alert] = run(settings("missing:age <= 0.2"), log)
    assert (alert.assurance, alert.details["autocorrelation"]) == ("calibrated", pytest.approx(0.5, abs=0.15))
    assert 3_000 < alert.position.offset < 3_400
    for cut in (150, 700, 3_005):
        monitor, before = run(settings("missing:age <= 0.2"), log[:cut])
        data = orjson.loads(orjson.dumps(monitor.snapshot(), option=orjson.OPT_NON_STR_KEYS))
        _, after = run(settings("missing:age <= 0.2"), log[cut:], Monitor.restore(settings("missing:age <= 0.2"), "observations", 0, data))
        assert before + after == [alert]


def test_a_level_exactly_at_its_limit_is_within_it_again() -> None:
    """Of each five answers after the breach one is wrong."""
    _, alerts = run(settings("accuracy >= 0.8"), outcomes(1_000, lambda i, country: 0.9 if i < 300 else float(i % 5 == 0)))
    assert [alert.status for alert in alerts] == [Status.FIRING, Status.RESOLVED]
    assert alerts[1].after.value == 0.8


def test_scores_out_of_their_range_count_as_its_end() -> None:
    _, [alert] = run(settings("score <= 0.5"), [predicted(prediction(i, score=1e300)) for i in range(100)])
    assert (alert.after.value, alert.details["interval"][1]) == (1.0, 1.0)


@pytest.mark.parametrize("value", [float("inf"), -1e300, 1e300, 10**30, "x", None, [], {}, True])
def test_values_that_make_no_sense_break_nothing(value: Any) -> None:
    some = settings("latency <= 200 for 99%", "score >= 0.1", "prediction[1] <= 0.5", "missing:age <= 0.5", "feature:age <= 9 for 50%")
    events = [prediction(i, latency_ms=value, score=value, features={"age": value}) for i in range(100)]
    monitor, _ = run(some, [b'{"record":"prediction","prediction":%b}' % json.dumps(event).encode() for event in events])
    assert monitor.at == 100
    assert orjson.loads(orjson.dumps(monitor.snapshot()))["at"] == 100
