"""Durations and sizes as people write them; anything else is refused with an example."""

from __future__ import annotations

from typing import Any

import pytest

from stream_monitor.units import milliseconds, rate, shortest, size_in_bytes


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("15m", 900_000),
        ("1h 30m", 5_400_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("0s", 0),
        ("0.5s", 500),
        ("1.5h", 5_400_000),
        (" 1 d ", 86_400_000),
        ("0.4ms", 0),
    ],
)
def test_a_duration_is_milliseconds(text: str, ms: int) -> None:
    assert milliseconds(text) == ms


@pytest.mark.parametrize("text", ["250ms", "30s", "90m", "3h", "1w", "0ms", "10d"])
def test_a_duration_is_told_in_the_largest_unit_that_it_is_a_whole_number_of(text: str) -> None:
    assert shortest(milliseconds(text)) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512B", 512),
        ("10KB", 10_000),
        ("10MB", 10_000_000),
        ("1GB", 10**9),
        ("256KiB", 262_144),
        ("1.5MiB", 1_572_864),
        ("1GiB", 2**30),
        ("1MiB 1B", 2**20 + 1),
        (4096, 4096),
        (0, 0),
    ],
)
def test_a_size_is_bytes(text: Any, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "  ", "7", "7 days", "d", "-1s", "1h -30m", "1,5h", "1e3s", "1H", "1h;", "1h 30", 7, 7.0, None, True, []]
)
def test_what_is_no_duration_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match='a duration such as "250ms", "30s", "1h 30m" or "7d" is expected'):
        milliseconds(text)


@pytest.mark.parametrize("text", ["", "256", "256 kib", "256K", "-1B", "1MiB and", -1, 1.5, None, True, {}])
def test_what_is_no_size_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match='a size such as "512B", "256KiB" or "10MB" is expected'):
        size_in_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 per week", (1.0, 604_800_000)),
        (" 0.5  per day ", (0.5, 86_400_000)),
        ("2 per hour", (2.0, 3_600_000)),
        ("3 per month", (3.0, 2_592_000_000)),
    ],
)
def test_a_rate_is_a_number_and_the_time_it_is_for(text: Any, expected: tuple[float, int]) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "one per week", "0 per day", "-1 per day", "1 per year", "1 per weeks", "1/day", "9" * 400 + " per day", 1, None]
)
def test_what_is_no_rate_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match=r'such as "1 per week" or "0\.5 per day"'):
        rate(text)


@pytest.mark.parametrize("text", ["9" * 400 + "d", "9" * 400 + "GiB"])
def test_a_number_beyond_all_measure_is_refused(text: str) -> None:
    for read in (milliseconds, size_in_bytes):
        with pytest.raises(ValueError, match="is expected"):
            read(text)
