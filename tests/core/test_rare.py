"""Values of which only their number is known, and how many are ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.alerting import Subject
from stream_monitor.core.events import Kind
from stream_monitor.core.rare import SAMPLE, Rare
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.streams import BinaryStream
from tests.support.observations import START, desk


def rare() -> Rare:
    """One whose stream counts without being judged."""
    at = desk()
    subject = Subject.of("credit", "v3", None, "feedback_orphan", Kind.DATA_QUALITY, 0.1, 0.5)
    return Rare(lambda: BinaryStream(subject, (), DetectSettings(), at), at.ledger)


def counted(one: Rare) -> tuple[int, float]:
    """Values, and ones among them."""
    return (one.zeros, 0.0) if one.stream is None else (one.stream.count, one.stream.total)


@given(st.integers(0, SAMPLE), st.integers(0, SAMPLE), st.integers(0, 2**64))
def test_few_values_are_told_all(ones: int, zeros: int, seed: int) -> None:
    one = rare()
    assert one.sample(ones, ones + zeros, seed, START, 7) == (min(ones + zeros, SAMPLE) if ones else 0)
    if ones + zeros <= SAMPLE:
        assert counted(one) == (ones + zeros, ones)


@pytest.mark.parametrize("count", [1_000, 2**53 - 1])
def test_many_speak_by_a_sample_with_about_their_share(count: int) -> None:
    one, seed = rare(), 0
    for _ in range(100):
        seed += one.sample(count // 5, count, seed, START, 7)
    assert seed == 100 * SAMPLE
    values, total = counted(one)
    assert values == 100 * SAMPLE
    assert total / values == pytest.approx(0.2, abs=0.02)


def test_where_the_ones_lie_is_drawn_anew_each_time() -> None:
    firsts = [0, 0]
    for seed in range(0, 400, 2):
        one = rare()
        one.sample(1, 2, seed, START, 7)
        assert one.stream is not None
        firsts[one.stream.count - 1 if one.zeros == 0 else 0] += 1
    assert min(firsts) > 60


def test_zeros_alone_cost_a_counter_and_no_more_than_a_sample_would_tell() -> None:
    one = rare()
    assert one.sample(0, 2**53 - 1, 0, START, 7) == 0
    assert one.sample(0, 30, 0, START, 8) == 0
    assert (one.stream, one.zeros) == (None, SAMPLE + 30)
