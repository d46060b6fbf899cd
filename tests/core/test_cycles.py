"""A cycle is noticed where there is one, seldom where there is none, and what it leaves is as good as values without one."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from math import pi, sin, sqrt

import orjson
import pytest

from stream_monitor.core.alerting import Subject
from stream_monitor.core.cycles import DAILY, WEEKLY, Profile, Search, standard
from stream_monitor.core.dependence import Past
from stream_monitor.core.events import Alert, Kind, Status
from stream_monitor.core.settings import DAY, AlertBudget, DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream, Stream
from tests.support.observations import begun_and_ended, desk

SETTINGS = DetectSettings()
BEGIN = 19_787 * DAY  # midnight
A_DAY = 500  # values
RARELY = AlertBudget(1, 1_000 * DAY)  # false alerts: none of these streams should happen to raise its own
Level = Callable[[float], float]  # at so many days since the begin


def cycle(height: float) -> Level:
    return lambda day: height * sin(2 * pi * day)


def flat(day: float) -> float:
    return 0.0


def weekend(height: float) -> Level:
    return lambda day: height * ((int(day) + 19_787) % 7 in (2, 3))


def looked(level: Level, days: int, seed: int = 1, a_day: int = A_DAY, block: int = 25) -> Search:
    """What blocks of normal values with that level come to."""
    rng, found = random.Random(seed), Search()
    times = [i / a_day for i in range(days * a_day)]
    for i in range(0, len(times) - block, block):
        total = sum(level(t) + rng.gauss(0, 1) for t in times[i : i + block])
        found.take(BEGIN + int(times[i] * DAY), BEGIN + int(times[i + block] * DAY), block, total)
    return found


def stream(numeric: bool) -> Stream:
    subject = Subject.of("credit", "v3", None, "amount", Kind.DATA_DRIFT, 0.1, 0.5)
    return (NumericStream if numeric else BinaryStream)(subject, SETTINGS.default.detectors, SETTINGS, desk(RARELY))


def feed(to: Stream, level: Level, begin: float, end: float, a_day: int = A_DAY) -> list[Alert]:
    """Values between two days: normal around the level; or bits, with a share of 0.1 where it is 0, which moves by 0.3 of it (a standard
    deviation)."""
    for i in range(round(begin * a_day), round(end * a_day)):
        rng, day = random.Random(i), i / a_day
        x = level(day) + rng.gauss(0, 1) if to.numeric else float(rng.random() < 0.1 + 0.3 * level(day))
        time = BEGIN + int(day * DAY)
        to.desk.move(time)
        to.push(x, rng.getrandbits(64), time, i)
    return begun_and_ended(to.desk.out)


@pytest.mark.parametrize(("height", "days"), [(0.25, 5), (0.5, 3), (1.0, 3)])
def test_what_is_alike_on_different_days_is_a_cycle(height: float, days: int) -> None:
    assert all(looked(cycle(height), days, seed).found(None) is DAILY for seed in range(20))


def test_an_hour_that_stands_out_each_day_is_one_too() -> None:
    assert looked(lambda day: 2.0 * (0.1 < day % 1 < 0.15), 3, a_day=5_000).found(None) is DAILY


def test_chance_seldom_looks_like_one() -> None:
    assert sum(looked(flat, 3, seed).found(None) is not None for seed in range(100)) <= 2


@pytest.mark.parametrize(
    "level",
    [lambda day: 1.0 * (day > 2.4), lambda day: min(max(day - 1.3, 0.0), 1.0), lambda day: 2.0 * (1.6 < day < 1.8)],
    ids=["a shift", "a ramp", "a bad night"],
)
def test_what_comes_once_is_none(level: Level) -> None:
    assert sum(looked(level, 5, seed).found(None) is not None for seed in range(20)) <= 1


@pytest.mark.parametrize("days", [4.0, 28.0])
def test_a_ramp_that_lasts_for_periods_is_none(days: float) -> None:
    """It is alike in each of them, but leads from each to the next."""
    found = [looked(lambda day: 2.0 * day / days, int(days) + 1, seed).found(None) for seed in range(20)]
    assert sum(one is not None for one in found) <= 1


@pytest.mark.parametrize(("height", "weeks"), [(0.25, 4), (0.5, 3), (1.0, 3)])
def test_what_is_alike_in_different_weeks_is_a_cycle_too(height: float, weeks: int) -> None:
    assert all(looked(weekend(height), 7 * weeks, seed).found(None) is WEEKLY for seed in range(10))


def test_it_says_more_than_a_daily_one_and_not_the_other_way_round() -> None:
    def level(day: float) -> float:
        return cycle(0.5)(day) + weekend(0.5)(day)

    search = looked(level, 7)
    assert (search.found(None), search.found(DAILY)) == (DAILY, None)
    search = looked(level, 21)
    assert (search.found(None), search.found(DAILY)) == (WEEKLY, WEEKLY)


def test_how_far_a_cycle_goes_is_said_by_two_periods_so_that_a_shift_in_the_last_one_does_not_count() -> None:
    alone = looked(cycle(0.5), 4).daily.reach
    assert looked(lambda day: cycle(0.5)(day) + 2.0 * (day > 2.5), 4).daily.reach == pytest.approx(alone, rel=0.3)


def test_nor_does_it_in_the_long_run() -> None:
    """A day more is a look more, but each has to see more than the one before."""
    assert sum(looked(flat, 150, seed, a_day=60).found(None) is not None for seed in range(30)) <= 4


def test_chance_seldom_looks_like_weeks() -> None:
    assert sum(looked(flat, 29, seed, a_day=200).weekly.found for seed in range(50)) <= 2


@pytest.mark.parametrize(
    "level",
    [lambda day: 0.5 * (day > 9.4), lambda day: 0.5 * (11 < day < 13), lambda day: 0.5 * (3 < day < 5) - 0.5 * (10 < day < 12)],
    ids=["a shift", "two days", "two days, and the other way round"],
)
def test_what_comes_in_one_week_is_none(level: Level) -> None:
    assert sum(looked(level, 29, seed, a_day=200).found(None) is not None for seed in range(20)) <= 1


def test_a_level_that_wanders_is_none() -> None:
    found = 0
    for seed in range(20):
        rng, walk = random.Random(100 + seed), [0.0]
        for _ in range(5 * 96):
            walk.append(walk[-1] + rng.gauss(0, 0.15))
        found += looked(lambda day, walk=walk: walk[int(day * 96)], 5, seed).found(None) is not None  # type: ignore[misc]
    assert found <= 2


def test_it_is_in_doubt_until_two_days_were_seen_and_while_they_are_alike() -> None:
    assert not looked(flat, 1).doubtful, "a fast stream is not kept waiting"
    assert looked(flat, 2).doubtful
    assert sum(looked(flat, 8, seed).doubtful for seed in range(20)) == 0


def test_what_may_be_a_cycle_is_spent_less_on_and_chance_hardly_so() -> None:
    def spent(level: Level) -> float:
        found = [looked(level, 5, seed) for seed in range(40)]
        unsure = [one.spendable(None) for one in found if one.found(None) is None]
        return sum(unsure) / len(unsure)

    assert spent(cycle(0.1)) < 0.6
    assert spent(flat) > 0.8
    assert looked(flat, 1).spendable(None) == 1.0
    assert looked(cycle(0.5), 5).spendable(DAILY) == 1.0, "what is known is no longer in doubt"


def test_a_stream_spends_less_while_it_may_have_a_cycle_and_all_of_its_share_once_that_is_known() -> None:
    of, spent = stream(False), []
    for day in range(12):
        feed(of, cycle(0.15), day, day + 1)
        spent.append(of.account.sure)
        assert of.account.portion == pytest.approx(of.account.whole * of.account.part * of.account.sure)
    assert spent[0] == 1.0
    assert min(spent) < 0.5
    assert of._profile() is not None
    assert spent[-1] == 1.0


def test_nothing_is_held_back_once_a_known_week_is_back_and_no_cycle_is_looked_for_any_more() -> None:
    of, spent = stream(True), []
    feed(of, weekend(0.5), 0, 42)
    assert of.search is None, "the week is known"
    for day in range(42, 48):
        feed(of, lambda at: weekend(0.5)(at) + (3.0 + 0.15 * sin(2 * pi * at) if 42 < at < 45 else 0.0), day, day + 1)
        spent.append(of.account.sure)
    assert min(spent) < 1.0, "far away the search began anew, and had its doubts"
    assert of.search is None
    assert of.account.sure == 1.0


def test_scores_of_another_reference_are_moved_back() -> None:
    search = Search()
    search.shift(0.5, True)
    search.shift(0.25, False)
    assert search.offset == 0.75
    search.come_back()
    assert search.offset == 0


@pytest.mark.parametrize("times", [(5, 4), (0, DAY), (-DAY, 2 * DAY), (7, 7)])
def test_blocks_out_of_order_or_across_a_gap_do_no_harm(times: tuple[int, int]) -> None:
    search = Search()
    for _ in range(50):
        search.take(*times, 25, 1.0)
    assert search.found(None) is None


@pytest.mark.parametrize("slots", [24, 144])
def test_what_a_cycle_leaves_has_mean_0_and_variance_1_from_the_first_days_on(slots: int) -> None:
    rng, level = random.Random(1), cycle(0.6)
    day = Profile(DAILY, slots, [looked(level, 4).daily.shape])
    rest = [day.unexplained(level(i / 10_000) + rng.gauss(0, 1), int(i * DAY / 10_000)) for i in range(40_000)]
    assert sum(w * w for w in rest) / len(rest) == pytest.approx(1, abs=0.03)
    quarters = [sum(rest[i : i + 2_500]) / 2_500 for i in range(0, len(rest), 2_500)]
    assert all(abs(mean) < 4 / sqrt(2_500) for mean in quarters)


def test_hours_with_more_spread_are_known_by_it() -> None:
    rng, day, rest = random.Random(1), Profile(DAILY, 24), []
    for i in range(20_000):
        night = i * 24 // 2_000 % 24 < 6
        rest.append((night, day.unexplained(rng.gauss(0, 0.3 if night else 1), i * DAY // 2_000)))
    for kind in (False, True):
        late = [w for night, w in rest[4_000:] if night is kind]
        assert sum(w * w for w in late) / len(late) == pytest.approx(1, abs=0.3)


def test_bits_are_counted_by_the_time_of_day() -> None:
    rng, day = random.Random(1), Profile(DAILY, 24)
    for i in range(50_000):
        x = float(rng.random() < (0.3 if i % 1_000 < 500 else 0.1))
        seen, ones = day.bit(x, i * DAY // 1_000, 0.2)
        if i > 40_000 and 100 < i % 500 < 400:
            assert ones / seen == pytest.approx(0.3 if i % 1_000 < 500 else 0.1, abs=0.06)
    assert day.bit_beside(1.0, BEGIN, 0.2) == pytest.approx((1 - 0.3) / sqrt(0.3 * 0.7), abs=0.2)
    assert standard(1.0, 99, 49.5) == 1


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bits_that_are_nearly_all_alike_leave_a_share_between_0_and_1(x: float) -> None:
    past = Past(0.9, Profile(DAILY, 24))
    for i in range(3_000):
        seen, ones = past.bit(x if i % 500 else 1 - x, BEGIN + i * DAY // 200, (i * x + 0.5) / (i + 1))
        assert 0 <= ones <= seen


def test_a_slow_stream_is_looked_at_in_small_blocks() -> None:
    assert feed(of := stream(True), cycle(1.0), 0, 20, a_day=48) == []
    assert of.search is not None
    assert of.search.found(None) is DAILY, "25 values are half a day"


@pytest.mark.parametrize("numeric", [False, True])
def test_a_level_that_goes_up_and_down_each_day_raises_no_alert(numeric: bool) -> None:
    of = stream(numeric)
    assert feed(of, cycle(0.25), 0, 12) == []
    assert of.past is not None
    assert of.past.profile is not None
    assert of._assurance(of.detectors[0]) == "calibrated"


@pytest.mark.parametrize("numeric", [False, True])
def test_a_shift_on_top_of_it_is_found_dated_and_over_when_it_is_gone(numeric: bool) -> None:
    of = stream(numeric)
    fired, resolved = feed(of, lambda day: cycle(0.25)(day) + 0.6 * (12.4 < day < 15.4), 0, 18)
    assert 12.4 * A_DAY < fired.position.offset < 13.1 * A_DAY
    assert abs(fired.first_position.offset - 12.4 * A_DAY) < 100, "not drawn to the time of day"
    assert fired.details["daily"] is True
    assert fired.details["effect"] == pytest.approx(0.6, abs=0.25)
    assert "allowing for the time of day" in fired.summary
    assert "autocorrelation" not in fired.details
    assert resolved.details["reason"] == "recovered"
    assert 15.4 * A_DAY < resolved.position.offset < 17 * A_DAY, "whatever the time of day"
    assert of.past is not None
    assert of.past.profile is not None


def test_an_alert_that_was_no_more_than_the_cycle_is_over_when_that_is_found() -> None:
    """A fast stream: it is judged long before the second day is over."""
    of = stream(False)
    out = feed(of, cycle(0.25), 0, 5, a_day=5_000)
    assert out[0].status is Status.FIRING
    assert not [alert for alert in out if alert.detected_at > BEGIN + 3 * DAY and alert.status is Status.FIRING]
    assert of.episode is None
    assert "daily" in {alert.details.get("reason") for alert in out}


def test_a_level_far_away_is_learned_anew_with_its_cycle() -> None:
    of = stream(True)
    [fired] = feed(of, lambda day: cycle(0.4)(day) + 6.0 * (day > 6.2), 0, 7)
    assert fired.details["daily"] is True
    assert of.past is None
    assert feed(of, lambda day: cycle(0.4)(day) + 6.0 * (day > 6.2), 7, 14) == [fired]
    assert of.past is not None


@pytest.mark.parametrize("numeric", [False, True])
def test_a_level_that_is_another_one_at_the_weekend_raises_no_alert_from_the_fourth_week_on(numeric: bool) -> None:
    def level(day: float) -> float:
        return weekend(0.4)(day) + cycle(0.2)(day)

    of = stream(numeric)
    out = feed(of, level, 0, 21)
    assert out, "two weekends looked like drift"
    assert feed(of, level, 21, 49) == out
    assert of.past is not None
    assert of.past.profile is not None
    assert of.past.profile.cycle is WEEKLY


@pytest.mark.parametrize("numeric", [False, True])
def test_a_shift_on_top_of_the_weeks_is_found_dated_and_over_when_it_is_gone(numeric: bool) -> None:
    of = stream(numeric)
    *_, fired, resolved = feed(of, lambda day: weekend(0.4)(day) + 0.6 * (38.4 < day < 42.4), 0, 46)
    assert 38.4 * A_DAY < fired.position.offset < 39.1 * A_DAY
    assert abs(fired.first_position.offset - 38.4 * A_DAY) < 100, "not drawn to the weekend"
    assert fired.details["weekly"] is True
    assert fired.details["effect"] == pytest.approx(0.6, abs=0.25)
    assert "allowing for the time of the week" in fired.summary
    assert resolved.details["reason"] == "recovered"
    assert 42.4 * A_DAY < resolved.position.offset < 44 * A_DAY
    assert of.past is not None
    assert of.past.profile is not None


@pytest.mark.parametrize("numeric", [False, True])
def test_a_shift_in_the_first_week_that_is_allowed_for_is_found_and_not_taken_for_normal_a_week_later(numeric: bool) -> None:
    """Each hour of the week is new until it comes again; the level of all hours is not."""
    of = stream(numeric)
    of_week = feed(of, lambda day: weekend(0.5)(day) + 0.8 * (day > 19.6), 2, 30)
    late = [alert for alert in of_week if alert.detected_at > BEGIN + 19.6 * DAY]
    assert [alert.status for alert in late] == [Status.FIRING]
    assert late[0].details["weekly"] is True
    assert late[0].detected_at < BEGIN + 20.6 * DAY


@pytest.mark.parametrize("numeric", [False, True])
def test_a_shift_in_the_days_before_the_discovery_is_not_swallowed_by_it(numeric: bool) -> None:
    of = stream(numeric)
    out = feed(of, lambda day: weekend(0.4)(day) + 1.4 * (day > 14.2), 2, 24)
    assert out[-1].status is Status.FIRING
    assert not any(alert.details.get("reason") == "weekly" for alert in out)


@pytest.mark.parametrize("numeric", [False, True])
def test_a_level_that_came_back_after_the_discovery_is_known_in_the_units_of_what_the_cycle_leaves(numeric: bool) -> None:
    def level(day: float) -> float:
        return cycle(0.1)(day) + 1.2 * (1.2 < day < 6)

    of = stream(numeric)
    out = feed(of, level, 0, 9, a_day=2_000)
    assert [alert.status for alert in out] == [Status.FIRING, Status.RESOLVED]
    assert of.past is not None
    assert of.past.profile is not None
    assert abs(of.total) / of.count < 0.03
    assert feed(of, level, 9, 14, a_day=2_000) == out


@pytest.mark.parametrize("numeric", [False, True])
def test_what_was_seen_while_an_alert_fires_says_nothing_of_the_level_that_another_version_begins_with(numeric: bool) -> None:
    one, other = stream(numeric), stream(numeric)
    feed(one, lambda day: 0.8 * (day > 4.3), 0, 9.05)
    assert one.episode is not None
    other.desk.clock = one.desk.clock
    other.inherit(one, "v2")
    assert other.count < one.count
    feed(other, lambda day: 0.0, 9.05, 14)
    assert other.search is not None
    assert other.search.found(None) is None


@pytest.mark.parametrize("numeric", [False, True])
def test_an_alert_that_was_no_more_than_the_week_is_over_when_that_is_found(numeric: bool) -> None:
    of = stream(numeric)
    out = feed(of, lambda day: 0.5 * (day % 7 < 2), 2, 24)  # Tuesdays and Wednesdays, after which a week of event time is over
    assert out[-1].details["reason"] == "weekly"
    assert BEGIN + 16 * DAY <= out[-1].detected_at <= BEGIN + 16.2 * DAY, "when the second one was over"
    assert "each week" in out[-1].summary
    assert of.episode is None


@pytest.mark.parametrize("numeric", [False, True])
def test_an_alert_that_is_more_than_the_week_lasts_beyond_its_discovery(numeric: bool) -> None:
    """For bits it is the alert of a weekend, to which a shift is added before it is over."""

    def level(day: float) -> float:
        return weekend(0.4)(day) + 1.5 * (day > 15.5)

    of = stream(numeric)
    out = feed(of, level, 2, 24)
    assert out[-1].status is Status.FIRING
    assert of.episode is not None
    assert of.past is not None
    assert of.past.profile is not None
    assert of.past.profile.cycle is WEEKLY


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize(
    ("level", "times"),
    [
        (lambda day: cycle(0.25)(day) + 0.8 * (7.4 < day < 9.4), (0, 1.3, 2.6, 5.5, 8.2, 11)),
        (lambda day: weekend(0.5)(day) + cycle(0.25)(day) + 0.8 * (27.4 < day < 29.4), (0, 3.3, 9.7, 15.4, 24.2, 28.2, 32)),
    ],
    ids=["days", "weeks"],
)
def test_it_survives_being_saved_at_any_time(numeric: bool, level: Level, times: tuple[float, ...]) -> None:
    one = stream(numeric)
    told: list[Alert] = []
    for begin, end in pairwise(times):
        other = stream(numeric)
        other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
        other.desk.clock = one.desk.clock
        other.restore(orjson.loads(orjson.dumps(one.state())))
        assert other.state() == one.state()
        one.desk.out.clear()
        told += feed(one, level, begin, end)
        assert feed(other, level, begin, end) == begun_and_ended(one.desk.out)
        assert other.state() == one.state()
    assert [alert.status for alert in told[-2:]] == [Status.FIRING, Status.RESOLVED]
    assert "recovered" in told[-1].details["reason"]
