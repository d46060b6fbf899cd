"""What a change looked like, told once enough was seen after the alarm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import orjson
import pytest

from stream_monitor.core.events import Alert, Status
from stream_monitor.core.shape import LAST_LOOK, MOST, Block, Shape, Trail
from tests.core.test_alerting import START, feed, stream

AT = 3_000


def told(level: Callable[[int], float], values: int, numeric: bool = True, seed: int = 1) -> list[Alert]:
    """Everything that is said of a stream whose level is 0 up to 3,000 and then goes by `level` of the values since."""
    rng = random.Random(seed)
    of = stream(numeric)
    levels = [level(i - AT) if i >= AT else 0.0 for i in range(AT + values)]
    feed(of, [rng.gauss(x, 1) if numeric else int(rng.random() < 0.1 + 0.3 * x) for x in levels])
    return of.desk.out


@pytest.mark.parametrize("numeric", [False, True])
def test_a_step_is_sudden_and_the_longest_ramp_that_it_may_have_been_is_short(numeric: bool) -> None:
    fired, update = told(lambda i: 1.0, 2_500, numeric)
    assert (update.id, update.status) == (fired.id, Status.UPDATED)
    assert update.event_id != fired.event_id
    assert update.details["shape"] == "sudden"
    course = update.details["course"]
    assert course["begin_offset"] - 100 <= AT <= course["end_offset"] + 100
    assert 0 < course["end_offset"] - course["begin_offset"] <= 400
    assert (course["begin"], course["end"]) == (START + course["begin_offset"] * 1_000, START + course["end_offset"] * 1_000)
    assert fired.position.offset < update.position.offset <= AT + 1_700
    assert update.summary.count("; it came suddenly, within ") == 1


def test_the_level_after_is_measured_anew_without_the_luck_of_the_alarm() -> None:
    fired, update = told(lambda i: 1.0, 2_500)
    assert update.after.count > fired.after.count
    assert update.after.low is not None
    assert update.after.high is not None
    assert 0.8 < update.after.low <= update.after.value <= update.after.high < 1.2
    assert update.before == fired.before
    assert update.details["effect"] == pytest.approx(1.0, abs=0.15)
    assert f"to {update.after.value:.3g} " in update.summary


@pytest.mark.parametrize("numeric", [False, True])
def test_a_ramp_is_gradual_from_where_it_begins_to_where_it_ends(numeric: bool) -> None:
    _, update = told(lambda i: min(1.0, i / 1_500), 5_000, numeric)
    course = update.details["course"]
    assert update.details["shape"] == "gradual"
    assert abs(course["begin_offset"] - AT) < 500
    assert abs(course["end_offset"] - AT - 1_500) < 500
    assert "; it came little by little, from 2024-03-05 " in update.summary


def test_a_ramp_that_goes_on_is_waited_for_and_at_the_last_has_no_end() -> None:
    alerts = told(lambda i: i / 7_000, LAST_LOOK + 2_000, numeric=False, seed=2)
    update = alerts[1]
    assert update.details["shape"] == "gradual"
    assert update.position.offset > AT + LAST_LOOK - 1_000
    assert update.details["course"]["end"] is update.details["course"]["end_offset"] is None
    assert update.summary.endswith("on, and has not come to an end")


@pytest.mark.parametrize("numeric", [False, True])
def test_what_goes_back_before_it_is_known_is_resolved_as_a_blip(numeric: bool) -> None:
    events = told(lambda i: 0.7 * (i < 300), 2_000, numeric)
    resolved = events[-1]
    assert resolved.status is Status.RESOLVED
    assert [event.status for event in events].count(Status.RESOLVED) == 1
    assert "; it was a blip, from 2024-03-05 " in events[1].summary
    assert events[1].details["shape"] == "blip"
    assert abs(events[1].details["course"]["begin_offset"] - AT) <= 75
    assert abs(events[1].details["course"]["end_offset"] - AT - 300) <= 75


def test_a_small_change_of_which_little_is_seen_is_not_told_about() -> None:
    assert [alert.status for alert in told(lambda i: 0.3, 1_200)] == [Status.FIRING]


def test_a_spread_that_changes_has_a_shape_too() -> None:
    rng = random.Random(3)
    of = stream(numeric=True)
    feed(of, [rng.gauss(0, 2.0 if i >= AT else 1.0) for i in range(AT + 2_000)])
    fired, update = of.desk.out
    assert (fired.details["of"], update.details["shape"]) == ("spread", "sudden")
    assert update.after.value == pytest.approx(1.9, abs=0.25)
    assert ": spread of error" in update.summary


def blocks(levels: Iterable[float], size: int = 25, seed: int = 1) -> list[Block]:
    rng = random.Random(seed)
    totals = [rng.gauss(size * level, size**0.5) for level in levels]
    return [Block(size, total, total, i * size, i * size) for i, total in enumerate(totals)]


def follow(trail: Trail, level: Callable[[int], float], values: int, seed: int = 2) -> list[Shape | None]:
    rng = random.Random(seed)
    found = []
    for i in range(values):
        x = rng.gauss(level(i), 1)
        if trail.take(x, x, 2_500 + i, 2_500 + i):
            found.append(trail.shape())
    return found


def test_the_looks_come_at_twice_the_values_and_the_last_one_says_something() -> None:
    trail = Trail(blocks([0.0] * 100), 99, (1.0, 1.0))
    found = follow(trail, lambda i: 0.05, LAST_LOOK + 400)
    assert len(found) == 7
    assert found[:-1] == [None] * 6
    assert found[-1] is not None
    assert found[-1].name == "undetermined"


def test_memory_is_bounded() -> None:
    trail = Trail(blocks([0.0] * 3_000), 2_990, (1.0, 1.0))
    for i in range(3 * LAST_LOOK):
        trail.take(0.0, 0.0, i, i)
        assert len(trail.blocks) <= MOST
    assert sum(block.size for block in trail.blocks) == 75_000 + 3 * LAST_LOOK


def test_a_trail_that_is_restored_goes_on_as_the_saved_one() -> None:
    trail = Trail(blocks([0.0] * 100 + [1.0] * 4), 100, (1.0, 1.0))
    follow(trail, lambda i: 1.0, 110)
    other = Trail.restored(orjson.loads(orjson.dumps(trail.saved())))
    assert follow(other, lambda i: 1.0, 700) == follow(trail, lambda i: 1.0, 700) != []
    assert other.saved() == trail.saved()


def test_values_that_depend_on_their_neighbours_are_no_ramp() -> None:
    """Long waves look like ramps to who takes values for independent: the blocks say that they are not."""
    names = []
    for seed in range(10):
        rng = random.Random(seed)
        z, trail, found = 0.0, Trail(blocks([0.0] * 100, seed=seed), 99, (1.0, 1.0)), []
        for i in range(3_200):
            z = 0.7 * z + 0.714 * rng.gauss(0, 1)
            if trail.take(z + 1.0, z + 1.0, i, i) and (shape := trail.shape()) is not None:
                found.append(shape.name)
        names.append(found[0] if found else "none")
    assert names.count("gradual") <= 2


@pytest.mark.parametrize("x", [0.0, 8.3, -8.3])
def test_values_without_any_spread_are_no_trouble(x: float) -> None:
    trail = Trail([Block(1_000, 0.0, 0.0, 0, 0)], 1, (1.0, 1.0))
    for i in range(LAST_LOOK):
        if trail.take(x, 1e300 * x, i, i) and (shape := trail.shape()) is not None:
            assert shape.name in ("sudden", "undetermined")
            break
