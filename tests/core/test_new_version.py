"""`new_version`: a version begins with a warm-up of its own, or is judged against the level of the one before it at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_monitor.core.events import Alert, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import AlertBudget, DetectorSettings, DetectSettings, MonitorSettings
from tests.support.observations import begun_and_ended, control, outcome, predicted, prediction, run

ERROR = MonitorSettings(metrics=("error",), slices=("country",), new_version="previous")
FOLLOWING = DetectSettings(maturity_ms=0, warmup=500, default=ERROR)
OWN = replace(FOLLOWING, default=replace(ERROR, new_version="own"))
CHANGE = 5_000


def judged(*parts: tuple[str, int, float], slices: bool = False) -> Iterator[bytes]:
    """Outcomes of one version after the other: (version, how many, probability of a wrong answer)."""
    rng = random.Random(7)
    i = 0
    for version, count, error in parts:
        for _ in range(count):
            country = {"slices": {"country": rng.choice(("DE", "FR"))}} if slices else {}
            yield outcome(prediction(i, model_version=version, **country), "no" if rng.random() < error else "yes")
            i += 1


def predictions(fields: Callable[[int, random.Random], dict[str, Any]], count: int = 8_000) -> Iterator[bytes]:
    """Predictions of v1, then of v2 from `CHANGE` on."""
    rng = random.Random(3)
    for i in range(count):
        yield predicted(prediction(i, model_version="v1" if i < CHANGE else "v2", **fields(i, rng)))


def fired(alerts: list[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.status is Status.FIRING]


def test_a_worse_version_raises_an_alert_against_the_level_of_the_one_before_and_says_so() -> None:
    _, alerts = run(FOLLOWING, judged(("v1", CHANGE, 0.1), ("v2", 1_000, 0.35)))
    [alert] = fired(alerts)
    assert (alert.model_version, alert.metric) == ("v2", "error")
    assert CHANGE < alert.position.offset < CHANGE + 150, "within its warm-up"
    assert alert.before.value == pytest.approx(0.1, abs=0.02)
    assert alert.before.count >= CHANGE
    assert alert.after.value == pytest.approx(0.35, abs=0.15)
    assert alert.details["reference"] == "version v1"
    assert "UTC, compared with version v1)" in alert.summary


def test_by_default_it_has_a_warm_up_of_its_own_and_its_first_level_is_normal() -> None:
    assert MonitorSettings().new_version == "own"
    _, alerts = run(OWN, judged(("v1", CHANGE, 0.1), ("v2", 3_000, 0.35)))
    assert fired(alerts) == []
    _, alerts = run(OWN, judged(("v1", CHANGE, 0.1), ("v2", 3_000, 0.1), ("v2", 1_000, 0.4)))
    [alert] = fired(alerts)
    assert "reference" not in alert.details
    assert "compared" not in alert.summary


def test_a_version_like_the_one_before_raises_none() -> None:
    _, alerts = run(FOLLOWING, judged(*((f"v{n}", 3_000, 0.1) for n in range(10)), slices=True))
    assert alerts == []


@pytest.mark.parametrize("name", ["adwin", "page_hinkley", "e_detector", "ddm", "hddm_a"])
def test_each_detector_compares(name: str) -> None:
    settings = replace(FOLLOWING, default=replace(ERROR, detectors=(DetectorSettings(name),)))
    _, alerts = run(settings, judged(("v1", CHANGE, 0.1), ("v2", 450, 0.5)))
    [alert] = fired(alerts)
    assert (alert.detector, alert.details["reference"]) == (name, "version v1")


def test_a_slice_is_compared_with_the_same_slice() -> None:
    rng = random.Random(1)
    records = []
    for i in range(12_000):
        new, country = i >= 9_000, rng.choice(("DE", "FR"))
        error = 0.1 if country == "FR" else 0.5 if new else 0.3
        event = prediction(i, model_version="v2" if new else "v1", slices={"country": country})
        records.append(outcome(event, "no" if rng.random() < error else "yes"))
    _, alerts = run(FOLLOWING, records)
    found = {alert.slice and alert.slice.value: alert for alert in fired(alerts)}
    assert found["DE"].before.value == pytest.approx(0.3, abs=0.02)
    assert found["DE"].details["reference"] == "version v1"
    assert "FR" not in found


def test_it_is_the_version_last_heard_of_that_counts() -> None:
    parts = ("v1", 3_000, 0.1), ("v2", 3_000, 0.4), ("v1", 10, 0.1), ("v3", 600, 0.1)
    _, alerts = run(FOLLOWING, judged(*parts))
    assert {alert.model_version for alert in fired(alerts)} == {"v2"}
    _, alerts = run(FOLLOWING, judged(*parts[:2], ("v3", 600, 0.1)))
    assert {alert.model_version for alert in fired(alerts)} == {"v2"}, "v2 drifted from v1, whose level is what v3 is held against"


def test_a_version_that_repairs_what_fires_is_held_against_the_level_before_it() -> None:
    before = ("v1", 3_000, 0.1), ("v1", 2_000, 0.5)
    _, alerts = run(FOLLOWING, judged(*before, ("v2", 1_500, 0.1)))
    assert [alert.model_version for alert in fired(alerts)] == ["v1"]
    _, alerts = run(FOLLOWING, judged(*before, ("v2", 1_500, 0.5)))
    bad = fired(alerts)[-1]
    assert (bad.model_version, bad.details["reference"]) == ("v2", "version v1")
    assert bad.before.value == pytest.approx(0.1, abs=0.03)


def test_too_young_a_version_has_nothing_to_give() -> None:
    _, alerts = run(FOLLOWING, judged(("v1", 400, 0.1), ("v2", 450, 0.6)))
    assert alerts == []


def test_numbers_are_ranked_among_those_of_the_version_before() -> None:
    settings = DetectSettings(warmup=500, default=MonitorSettings(metrics=("feature:*", "score"), slices=(), new_version="previous"))

    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        x = rng.lognormvariate(1.0 if i >= CHANGE else 0, 1)
        return {"score": rng.random(), "features": {"amount": x}}

    _, alerts = run(settings, predictions(fields, CHANGE + 450))
    [alert] = fired(alerts)
    assert (alert.metric, alert.details["reference"]) == ("feature:amount", "version v1")
    assert alert.before.value == pytest.approx(1.65, abs=0.15)


def test_categories_are_those_of_the_version_before_and_their_shares_are_compared() -> None:
    settings = DetectSettings(
        warmup=500, default=MonitorSettings(metrics=("prediction", "prediction=*", "feature:*"), slices=(), new_version="previous")
    )

    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        new = i >= CHANGE
        channel = rng.choices(("web", "app", "shop", "kiosk"), (0.6, 0.3, 0.1, 0.3 if new else 0))[0]
        return {"prediction": "yes" if rng.random() < (0.9 if new else 0.5) else "no", "features": {"channel": channel}}

    _, alerts = run(settings, predictions(fields, CHANGE + 450))
    metrics = {alert.metric for alert in fired(alerts)}
    assert {"feature:channel=other"} < metrics, "a category that the version before never had"
    assert metrics & {"prediction=yes", "prediction=no"}
    assert {alert.details["reference"] for alert in fired(alerts) if "other" not in alert.metric} == {"version v1"}


def test_versions_that_begin_side_by_side_have_the_categories_of_the_one_that_knows_them_first() -> None:
    """The warm-up of the second one is over when the first has long been judged; it meets fewer categories meanwhile."""
    monitor = MonitorSettings(metrics=("feature:town*",), slices=(), new_version="previous")
    settings = DetectSettings(maturity_ms=0, warmup=100, default=monitor)
    rng = random.Random(1)

    def records() -> Iterator[bytes]:
        for i in range(15_000):
            version, towns = ("v2", "ABC") if i % 60 == 1 else ("v1", "ABCDE")
            yield predicted(prediction(i, model_version=version, features={"town": rng.choice(towns)}))

    _, alerts = run(settings, records())
    assert {alert.model_version for alert in fired(alerts)} == {"v2"}
    gone = {alert.metric: alert for alert in fired(alerts) if alert.direction == "down"}
    assert gone.keys() == {"feature:town=D", "feature:town=E"}
    for alert in gone.values():
        assert alert.before.value == pytest.approx(0.2, abs=0.02)
        assert alert.details["reference"] == "version v1"


def test_the_pool_of_rare_categories_is_compared_with_that_of_the_version_before() -> None:
    """Which did not have one yet when the new version began, and whose level an operator has called normal since."""
    watched = MonitorSettings(metrics=("feature:town*",), slices=(), new_version="previous")
    settings = DetectSettings(maturity_ms=0, warmup=500, default=watched)
    rng = random.Random(1)

    def towns(version: str, start: int, count: int, rare: float) -> Iterator[bytes]:
        for i in range(start, start + count):
            town = rng.choice("CDE" if rng.random() < rare else "AB")
            yield predicted(prediction(i, model_version=version, features={"town": town}))

    monitor, _ = run(settings, [*towns("v1", 0, 2_000, 0.0), *towns("v2", 2_000, 1, 0.0)])
    monitor, alerts = run(settings, towns("v1", 2_001, 6_000, 0.2), monitor)
    monitor, _ = run(settings, [control(alert.id) for alert in fired(alerts)], monitor)
    monitor, _ = run(settings, towns("v1", 8_001, 2_000, 0.2), monitor)
    _, alerts = run(settings, towns("v2", 10_001, 2_000, 0.2), monitor)
    assert [alert.metric for alert in fired(alerts) if alert.metric == "feature:town=other"] == []


def test_a_feature_that_was_never_missing_before_is_missed_at_once() -> None:
    settings = DetectSettings(warmup=500, default=MonitorSettings(metrics=("feature:*", "missing:*"), slices=(), new_version="previous"))

    def fields(i: int, rng: random.Random) -> dict[str, Any]:
        missing = i >= CHANGE and rng.random() < 0.3
        return {"features": {"amount": None if missing else rng.random(), "age": rng.random()}}

    _, alerts = run(settings, predictions(fields, CHANGE + 300))
    [alert] = fired(alerts)
    assert (alert.metric, alert.details["reference"]) == ("missing:amount", "version v1")
    assert alert.before.value == pytest.approx(0, abs=1e-3)


def test_when_the_level_is_back_it_is_that_of_the_version_before_that_counts_again() -> None:
    settings = replace(FOLLOWING, alert_budget=AlertBudget(10, 86_400_000))
    _, alerts = run(settings, judged(("v1", CHANGE, 0.1), ("v2", 2_000, 0.4), ("v2", 3_000, 0.1), ("v2", 1_000, 0.4)))
    alerts = begun_and_ended(alerts)
    assert [alert.status.value for alert in alerts] == ["firing", "resolved", "firing"]
    assert alerts[2].details["reference"] == "version v1"


@pytest.mark.parametrize("cut", [CHANGE - 1, CHANGE, CHANGE + 1, CHANGE + 20, CHANGE + 700])
def test_a_restart_shows_in_nothing(cut: int) -> None:
    records = list(judged(("v1", CHANGE, 0.1), ("v2", 1_500, 0.35), ("v3", 500, 0.35), slices=True))
    whole, expected = run(FOLLOWING, records)
    monitor, before = run(FOLLOWING, records[:cut])
    saved = orjson.loads(orjson.dumps(monitor.snapshot()))
    again, after = run(FOLLOWING, records[cut:], Monitor.restore(FOLLOWING, "observations", 0, saved))
    assert before + after == expected != []
    assert again.snapshot() == whole.snapshot()


def test_an_evicted_version_is_no_longer_looked_at_and_a_restart_changes_nothing_about_that() -> None:
    settings = replace(FOLLOWING, max_versions=2)
    parts = ("v1", 1_500, 0.1), ("v2", 20, 0.1), ("v3", 20, 0.4), ("v2", 1_000, 0.4)
    records = list(judged(*parts)) + list(judged(("v2", 300, 0.4), slices=True))
    _, expected = run(settings, records)
    monitor, before = run(settings, records[:1_530])
    assert ("credit", "v1") not in monitor._versions
    saved = orjson.loads(orjson.dumps(monitor.snapshot()))
    _, after = run(settings, records[1_530:], Monitor.restore(settings, "observations", 0, saved))
    assert before + after == expected != []


def test_the_budget_is_not_paid_twice() -> None:
    monitor, _ = run(FOLLOWING, judged(("v1", CHANGE, 0.1), ("v2", 3_000, 0.1), ("v3", 1_000, 0.1), slices=True))
    statement = monitor.budget()
    assert statement["received"] <= statement["came_in"] + 1e-12
    assert all(owner["judged"] == owner["streams"] for owner in statement["owners"])
    assert statement["weight"] == 9
