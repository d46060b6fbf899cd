"""The pure part of benchmarks/throughput.py: what a run is compared with, and when the broker is warm."""

from __future__ import annotations

import pytest

from benchmarks.ratios import COPY, Row, ratios, settled, summed


def rows(*runs: tuple[str, int]) -> list[Row]:
    return [Row(name, rate, 1.0, 0.5, 0.25, 0.125, 1.0) for name, rate in runs]


def test_a_ratio_is_to_the_pass_throughs_right_before_and_after() -> None:
    found = ratios(rows((COPY, 100), ("route", 88), (COPY, 120), ("join", 60), (COPY, 180), ("route", 144), (COPY, 140)))
    assert found["route"] == pytest.approx([0.8, 0.9])
    assert found["join"] == pytest.approx([0.4])
    assert found[COPY] == pytest.approx([100 / 135, 120 / 135, 180 / 135, 140 / 135])


def test_a_run_that_does_not_stand_between_two_pass_throughs_has_no_ratio() -> None:
    with pytest.raises(AssertionError):
        ratios(rows((COPY, 100), ("route", 88), ("join", 60)))
    with pytest.raises(ValueError, match="zip"):
        ratios(rows((COPY, 100), ("route", 88)))


def test_rounds_add_up_to_one_row_whose_rate_is_that_of_all_messages() -> None:
    one = summed([Row("route", 100, 1.0, 0.5, 0.3, 0.0, 1.5), Row("route", 100, 3.0, 1.5, 0.7, 0.0, 2.5)])
    assert one == Row("route", 200, 4.0, 2.0, 1.0, 0.0, 4.0)
    assert one.rate == 50


@pytest.mark.parametrize(
    ("rates", "enough"),
    [
        ([], False),
        ([100], False),
        ([100, 105], True),
        ([100, 106], False),
        ([100, 106, 110], True),
        ([100, 120, 90], True),
        ([100, 120, 90, 130], False),
        ([100, 110, 121, 133, 147], False),
        ([100, 110, 121, 133, 147, 162], True),
    ],
)
def test_warm_ups_end_once_the_pass_through_is_hardly_above_its_best(rates: list[float], enough: bool) -> None:
    assert settled(rates) == enough
