"""Standardising: whatever the law of a stationary stream, its scores are independent N(0, 1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist, fmean, pvariance

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.core.hashing import unit_of
from stream_monitor.core.reference import SAMPLE, Ranks, binary_score, mix, salt_of

LAWS: dict[str, Callable[[random.Random], float]] = {
    "normal": lambda rng: rng.gauss(3, 20),
    "heavy tails": lambda rng: rng.paretovariate(0.8),
    "few values": lambda rng: rng.randrange(3),
    "constant": lambda rng: 42.0,
    "huge": lambda rng: rng.choice((-1e290, 1e290)) * rng.random(),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_scores_of_a_stationary_stream_are_standard_normal_and_uncorrelated(law: Callable[[random.Random], float]) -> None:
    rng, ranks = random.Random(3), Ranks()
    scores = [ranks.learn(law(rng), mix(unit_of(b"%d" % i), 0xABCDEF0123 | 1)) for i in range(20_000)]
    assert abs(fmean(scores)) < 0.03
    assert abs(pvariance(scores) - 1) < 0.05
    assert abs(fmean(a * b for a, b in pairwise(scores))) < 0.03
    below = sum(score < NormalDist().inv_cdf(0.1) for score in scores) / len(scores)
    assert abs(below - 0.1) < 0.01


@pytest.mark.parametrize("p", [0.5, 0.03, 0.0])
def test_scores_of_a_stationary_share_are_standard_normal(p: float) -> None:
    rng, total, scores = random.Random(5), 0, []
    for i in range(20_000):
        x = int(rng.random() < p)
        scores.append(binary_score(x, i, total, mix(unit_of(b"%d" % i), 12345)))
        total += x
    assert abs(fmean(scores)) < 0.03
    assert abs(pvariance(scores) - 1) < 0.05


def test_a_rank_among_the_bins_counts_every_value_so_far() -> None:
    rng, ranks = random.Random(7), Ranks()
    values = [rng.gauss(0, 1) for _ in range(5_000)]
    for x in values:
        ranks.learn(x, 2**52 | 1)
    for x in (-1.0, 0.0, 2.0):
        exact = sum(v < x for v in values) / len(values)
        assert abs(NormalDist().cdf(ranks.score(x, 2**52 | 1)) - exact) < 1 / 200


def test_learning_and_only_scoring_agree() -> None:
    rng, ranks = random.Random(9), Ranks()
    for _ in range(2 * SAMPLE):
        x, bits = round(rng.gauss(0, 1), 1), rng.getrandbits(53) | 1
        assert ranks.score(x, bits) == ranks.learn(x, bits)


@given(st.integers(min_value=1, max_value=2**64 - 1), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_no_hash_gives_a_score_that_is_not_finite(unit: int, digest: str) -> None:
    bits = mix(unit, salt_of(digest))
    assert 0 < bits < 2**53
    for count, total, x in ((0, 0, 0), (0, 0, 1), (10**9, 0, 1), (10**9, 10**9, 0)):
        assert abs(binary_score(x, count, total, bits)) < 50


@pytest.mark.parametrize("bits", [1, 2**53 - 1])
def test_the_ends_of_the_unit_interval_give_finite_scores(bits: int) -> None:
    ranks = Ranks()
    for i in range(3_000):
        assert abs(ranks.learn(float(i), bits)) < 50
    assert abs(ranks.score(1e300, bits)) < 50
    assert abs(ranks.score(-1e300, bits)) < 50


@pytest.mark.parametrize("length", [0, 1, SAMPLE - 1, SAMPLE, 3 * SAMPLE])
def test_restored_ranks_go_on_as_the_saved_ones(length: int) -> None:
    rng, ranks = random.Random(11), Ranks()
    for _ in range(length):
        ranks.learn(rng.gauss(0, 1), 1)
    again = Ranks.restored(orjson.loads(orjson.dumps(ranks.state())))
    for _ in range(2 * SAMPLE):
        x, bits = rng.gauss(0, 1), rng.getrandbits(53) | 1
        assert ranks.learn(x, bits) == again.learn(x, bits)


@given(st.integers(0, 2**53 - 1))
def test_scores_are_normal_quantiles_to_the_last_bit(bits: int) -> None:
    v = (bits | 1) * 2.0**-53
    assert Ranks().learn(5.0, bits | 1) == Ranks().score(5.0, bits | 1) == NormalDist().inv_cdf(v)
    assert (binary_score(0, 0, 0, bits | 1), binary_score(1, 0, 0, bits | 1)) == (NormalDist().inv_cdf(v), -NormalDist().inv_cdf(v))
