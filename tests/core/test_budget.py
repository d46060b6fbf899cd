"""The ledger: what streams receive is never more than what came in, and the alarms of a whole monitor keep to one number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.budget import LOOKS, Account, Ledger
from stream_monitor.core.events import Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DAY, HOUR, AlertBudget, DetectorSettings, DetectSettings, MonitorSettings
from tests.support.observations import START, STEP, judged, outcome, predicted, prediction, run

RATE = 1e-6  # false alarms a millisecond

moves = st.tuples(st.just("move"), st.integers(0, 2 * HOUR))
acts = st.tuples(st.sampled_from(["join", "draw", "leave", "forfeit", "close"]), st.integers(0, 4))


@given(weights=st.lists(st.integers(1, 7), min_size=5, max_size=5), script=st.lists(moves | acts, max_size=60))
def test_whatever_happens_no_more_is_received_than_came_in(weights: list[int], script: list[tuple[str, int]]) -> None:
    ledger = Ledger(RATE, HOUR)
    accounts = [Account(ledger, weight, 3) for weight in weights]
    handed_out, now, gone = 0.0, START, 0.0
    ledger.move(now)
    for act, n in script:
        if act == "move":
            ledger.move(now := now + n)
        elif act == "draw" and accounts[n].joined:
            handed_out += 3 * accounts[n].draw()
        elif act in ("join", "forfeit", "leave"):
            getattr(accounts[n], act)()
        elif act == "close":
            gone += accounts[n].received
            accounts[n].close()
            accounts[n] = Account(ledger, weights[n], 3)
        assert ledger.weight == sum(account.weight for account in accounts if account.joined)
    assert handed_out <= ledger.came_in * (1 + 1e-9)
    assert gone + sum(account.received for account in accounts) == pytest.approx(handed_out, abs=1e-12)


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6), detectors=st.integers(1, 4))
def test_shares_add_up_to_the_budget(weights: list[int], detectors: int) -> None:
    ledger = Ledger(RATE, HOUR)
    accounts = [Account(ledger, weight, detectors) for weight in weights]
    for account in accounts:
        account.join()
    for minute in range(100):
        ledger.move(START + 60_000 * minute)
    amounts = [account.draw() * detectors for account in accounts]
    assert sum(amounts) == pytest.approx(99 * 60_000 * RATE)
    assert [amount / amounts[0] for amount in amounts] == pytest.approx([weight / weights[0] for weight in weights])


def test_a_jump_of_the_clock_pays_for_no_more_than_one_step() -> None:
    ledger = Ledger(RATE, HOUR)
    account = Account(ledger, 1, 1)
    ledger.move(START)
    account.join()
    ledger.move(START + 1_000 * DAY)
    assert account.draw() == pytest.approx(HOUR * RATE)
    ledger.move(START)
    assert account.draw() == 0


def test_the_first_record_pays_for_nothing() -> None:
    ledger = Ledger(RATE, HOUR)
    account = Account(ledger, 1, 1)
    account.join()
    ledger.move(START)
    assert (account.draw(), ledger.age) == (0, 0)


def test_one_that_joins_has_no_claim_to_the_past_and_one_that_leaves_forfeits() -> None:
    ledger = Ledger(RATE, HOUR)
    one, other = Account(ledger, 1, 1), Account(ledger, 1, 1)
    ledger.move(START)
    one.join()
    ledger.move(START + 1_000)
    other.join()
    assert other.draw() == 0
    ledger.move(START + 3_000)
    other.close()
    assert ledger.received == 0, "it had no value since"
    ledger.move(START + 4_000)
    assert one.draw() == pytest.approx((1_000 + 2_000 / 2 + 1_000) * RATE)
    assert ledger.came_in == pytest.approx(4_000 * RATE)


def test_where_no_detector_is_budgeted_nothing_is_owned() -> None:
    ledger = Ledger(RATE, HOUR)
    account = Account(ledger, 5, 0)
    account.join()
    ledger.move(START)
    ledger.move(START + 1_000)
    assert (ledger.weight, account.draw(), account.received, ledger.came_in) == (0, 0, 0, 0)


def test_a_look_tells_who_has_been_silent_for_a_day_of_looks() -> None:
    ledger = Ledger(RATE, HOUR)
    account = Account(ledger, 1, 1)
    account.join()
    silent = []
    for hour in range(LOOKS + 3):
        ledger.move(START + hour * HOUR)
        silent.append(account.paid < ledger.look())
    assert silent == [False] * (LOOKS + 1) + [True] * 2


QUICK = DetectSettings(
    maturity_ms=0, warmup=100, alert_budget=AlertBudget(1, DAY), monitors=(MonitorSettings(metrics=("error",), slices=("country",)),)
)


def owners(monitor: Monitor) -> dict[str, dict[str, Any]]:
    return {row["slice"]["value"] if row["slice"] else "": row for row in monitor.budget()["owners"]}


def test_the_statement_says_who_owns_what() -> None:
    shares = MonitorSettings(metrics=("error",), slices=("country",), slice_shares={"country=DE": 5, "country=*": 2})
    monitor, _ = run(replace(QUICK, monitors=(shares,)), judged(3_000, lambda i, country: 0.1))
    found = monitor.budget()
    assert found["weight"] == 1 + 5 + 3 * 2
    assert {name: row["share"] for name, row in owners(monitor).items()} == pytest.approx(
        {"": 1 / 12, "DE": 5 / 12, "FR": 2 / 12, "US": 2 / 12, "BR": 2 / 12}
    )
    assert found["false_alarms_a_day"] == pytest.approx(1)
    assert found["days"] == pytest.approx(2_999 * STEP / DAY)
    assert 0 < found["received"] <= found["came_in"]
    assert found["received"] == pytest.approx(sum(row["received"] for row in found["owners"]))
    assert found["alarms"] == 0
    orjson.dumps(found)


def test_alarms_are_charged_to_the_stream_that_raised_them() -> None:
    monitor, alerts = run(QUICK, judged(6_000, lambda i, country: 0.6 if i > 4_000 and country == "DE" else 0.1))
    assert alerts
    rows = owners(monitor)
    assert rows["DE"]["alarms"] >= 1
    assert rows["DE"]["left"] == rows["DE"]["received"] - rows["DE"]["alarms"] < 0
    assert rows["FR"]["alarms"] == 0


def test_partitions_share_the_budget_without_knowing_of_each_other() -> None:
    one, _ = run(QUICK, judged(500, lambda i, country: 0.1))
    four, _ = run(replace(QUICK, partitions=4), judged(500, lambda i, country: 0.1))
    assert one.budget()["received"] == pytest.approx(4 * four.budget()["received"])


def test_a_version_that_is_evicted_forfeits_and_leaves_its_share_to_the_others() -> None:
    settings = replace(QUICK, max_versions=1)
    monitor, _ = run(settings, judged(1_000, lambda i, country: 0.1))
    before = monitor.budget()
    assert before["weight"] == 5
    run(settings, [outcome(prediction(2_000, model_version="v4"), "yes")], monitor)
    after = monitor.budget()
    assert (after["weight"], len(after["owners"])) == (0, 1)
    assert after["received"] == pytest.approx(before["received"])


def test_a_slice_that_is_silent_for_a_day_leaves_its_share_to_the_others_until_it_is_back() -> None:
    def one(hour: int, country: str, i: int) -> bytes:
        return outcome(prediction(i, timestamp=START + hour * HOUR + i, slices={"country": country}), "yes" if i % 7 else "no")

    both = [one(0, country, i) for i in range(300) for country in ("DE", "FR")]
    later = [one(hour, "FR", i) for hour in range(1, 30) for i in range(50)]
    monitor, _ = run(QUICK, both)
    assert monitor.budget()["weight"] == 3
    run(QUICK, later, monitor)
    assert monitor.budget()["weight"] == 2
    run(QUICK, [one(30, "DE", i) for i in range(3)], monitor)
    assert monitor.budget()["weight"] == 3


def numbers(count: int, seed: int, start: int = 0) -> Iterator[bytes]:
    """Predictions with numbers and categories that do not change, of a model with traffic in bursts."""
    rng = random.Random(seed)
    time = START
    for i in range(start, start + count):
        time += 600_000 if rng.random() < 0.01 else 200
        features = {"a": rng.lognormvariate(0, 1), "b": rng.gauss(0, 1), "c": float(rng.randrange(5)), "town": rng.choice("AAAB")}
        yield predicted(prediction(i, timestamp=time, prediction=rng.choice(("yes", "no")), score=rng.random(), features=features))


@pytest.mark.parametrize("names", [("e_detector",), ("page_hinkley",), ("adwin",), ("e_detector", "adwin", "page_hinkley")])
def test_the_alarms_of_a_whole_monitor_keep_to_the_budget(names: tuple[str, ...]) -> None:
    """Streams of six signals in 24,000 predictions, with so large a budget that some 30 false alarms are allowed."""
    plain = MonitorSettings(detectors=tuple(map(DetectorSettings, names)), minimum_effect=1e9)
    settings = DetectSettings(warmup=200, alert_budget=AlertBudget(1.0, HOUR), default=plain)
    monitor, alerts = run(settings, numbers(24_000, 1))
    found = monitor.budget()
    assert alerts == [], "all of them are below the minimum effect"
    assert 25 < found["received"] < 60
    assert found["alarms"] <= found["received"] + 3 * found["received"] ** 0.5
    if "adwin" not in names:  # which is careful on bits
        assert found["alarms"] >= found["received"] / 4


def test_cut_anywhere_and_restored_the_ledger_is_the_same_to_the_last_bit() -> None:
    records = list(judged(2_500, lambda i, country: 0.5 if 1_000 <= i < 1_600 else 0.1))
    whole, alerts = run(QUICK, records)
    assert {alert.status for alert in alerts} >= {Status.FIRING, Status.RESOLVED}
    monitor, again = Monitor(QUICK, "observations", 0), []
    for offset, value in enumerate(records):
        if offset % 97 == 0:
            monitor = Monitor.restore(QUICK, "observations", 0, orjson.loads(orjson.dumps(monitor.snapshot())))
        again += monitor.step(offset, value)
    assert again == alerts
    assert monitor.budget() == whole.budget()
    assert monitor.snapshot() == whole.snapshot()


def test_thresholds_follow_the_share_of_the_budget_anew_each_day() -> None:
    """From the second day on there is ten times the traffic, so ten times as many values share the budget of a day."""
    rng = random.Random(2)  # days that chance does not make alike: a stream that may have a cycle spends less
    plain = MonitorSettings(slices=(), detectors=(DetectorSettings("page_hinkley"),), minimum_effect=1e9)
    monitor = Monitor(replace(QUICK, monitors=(plain,)), "observations", 0)
    thresholds = []
    time = START
    for day in range(4):
        for i in range(500 if day == 0 else 5_000):
            time += DAY // (500 if day == 0 else 5_000)
            monitor.step(monitor.at, outcome(prediction(i, timestamp=time), "no" if rng.random() < 0.1 else "yes"))
        [detector] = next(monitor._versions["credit", "v3"].whole.streams()).detectors
        thresholds.append(float(detector.parameters["threshold"]))
    assert thresholds[3] == pytest.approx(thresholds[0] + 2 * 2.303, abs=0.6), "a threshold grows by log(10) / (2 k)"


def test_where_nobody_is_budgeted_the_statement_shares_out_nothing() -> None:
    own = DetectorSettings("page_hinkley", {"threshold": 50.0})
    settings = DetectSettings(maturity_ms=0, warmup=100, default=MonitorSettings(metrics=("error",), slices=(), detectors=(own,)))
    monitor, _ = run(settings, judged(300, lambda i, _: 0.1))
    [owner] = monitor.budget()["owners"]
    assert (owner["judged"], owner["share"], owner["received"]) == (1, 0.0, 0.0)
