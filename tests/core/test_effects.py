"""How far apart two distributions are."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import orjson
import pytest

from stream_monitor.core.alerting import Subject
from stream_monitor.core.effects import BINS, FEW, Counts, of_shares
from stream_monitor.core.events import Alert, Kind, Severity
from stream_monitor.core.reference import Ranks
from stream_monitor.core.settings import DetectSettings
from stream_monitor.core.streams import BinaryStream, NumericStream
from tests.core.test_alerting import ALL, feed
from tests.support.observations import desk

AT = 3_000


def compared(after: Callable[[random.Random], float], values: int = 2_000) -> dict[str, float]:
    """The effect sizes of values against a reference of 5,000 from N(0, 1)."""
    rng = random.Random(1)
    ranks = Ranks()
    for _ in range(5_000):
        ranks.learn(rng.gauss(0, 1), rng.getrandbits(53))
    counts = Counts(ranks.count)
    taken = [after(rng) for _ in range(values)]
    for x in taken:
        counts.take(ranks.score(x, rng.getrandbits(53)), x)
    effects = counts.effects(ranks.centers(BINS), sum(taken) / values)
    assert effects is not None
    return effects


def test_values_like_those_of_the_reference_are_no_further_from_it_than_chance_makes_them() -> None:
    effects = compared(lambda rng: rng.gauss(0, 1))
    assert effects["psi"] < 3 * effects["psi_by_chance"] < 0.04
    assert effects["jensen_shannon"] < 0.06
    assert effects["kolmogorov_smirnov"] < 0.05
    assert effects["wasserstein"] < 0.1
    assert (effects["bins"], effects["count"], effects["reference_count"]) == (BINS, 2_000, 5_000)


def test_a_shift_has_the_sizes_that_the_densities_give() -> None:
    effects = compared(lambda rng: rng.gauss(1, 1))
    assert effects["psi"] == pytest.approx(1.0, abs=0.15), "the symmetric Kullback-Leibler divergence of N(0, 1) and N(1, 1)"
    assert effects["kolmogorov_smirnov"] == pytest.approx(0.383, abs=0.03)
    assert effects["wasserstein"] == pytest.approx(1.0, abs=0.06)
    grid = np.linspace(-8, 9, 4_000)
    p, q = np.exp(-(grid**2) / 2), np.exp(-((grid - 1) ** 2) / 2)
    p, q = p / p.sum(), q / q.sum()
    true = np.sqrt((p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q))).sum() / 2)
    assert effects["jensen_shannon"] == pytest.approx(true, abs=0.03)


def test_another_spread_moves_values_though_the_mean_stays() -> None:
    effects = compared(lambda rng: rng.gauss(0, 2))
    assert effects["wasserstein"] == pytest.approx((2 / np.pi) ** 0.5, abs=0.1), "E|2z| - E|z|"
    assert effects["psi"] > 0.25


def test_values_beyond_all_that_was_known_are_as_far_away_as_can_be() -> None:
    effects = compared(lambda rng: 100.0)
    assert effects["kolmogorov_smirnov"] == pytest.approx(1 - 1 / BINS)
    assert effects["wasserstein"] == pytest.approx(100.0, abs=0.2)
    assert 0.8 < effects["jensen_shannon"] <= 1


def test_few_values_say_nothing() -> None:
    counts = Counts(1_000)
    for _ in range(FEW - 1):
        counts.take(0.0, 0.0)
    assert counts.effects([], 0.0) is None
    counts.take(0.0, 0.0)
    assert counts.effects([], 0.0) is not None
    assert of_shares(0.1, 1_000, 0.2, FEW - 1) is None


def test_a_share_is_two_bins() -> None:
    effects = of_shares(0.1, 5_000, 0.3, 1_000)
    assert effects is not None
    assert effects["psi"] == pytest.approx(0.2 * np.log(3) - 0.2 * np.log(7 / 9))
    assert effects["kolmogorov_smirnov"] == pytest.approx(0.2)
    assert effects["wasserstein"] == pytest.approx(0.2)
    assert (effects["bins"], effects["count"]) == (2, 1_000)


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_a_category_that_appears_or_goes_has_finite_sizes(before: float, after: float) -> None:
    effects = of_shares(before, 0, after, 500)
    assert effects is not None
    assert all(0 <= value < 100 for name, value in effects.items() if name not in ("bins", "count"))


def told(numeric: bool, kind: Kind, shift: float, critical: float = 10.0) -> list[Alert]:
    subject = Subject.of("credit", "v3", None, "feature:x", kind, 0.1, critical)
    of = (NumericStream if numeric else BinaryStream)(subject, ALL, DetectSettings(), desk())
    rng = random.Random(2)
    levels = [shift if i >= AT else 0.0 for i in range(AT + 2_000)]
    feed(of, [rng.gauss(50 + 10 * x, 10) if numeric else int(rng.random() < 0.1 + 0.4 * x) for x in levels])
    return of.desk.out


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("kind", [Kind.DATA_DRIFT, Kind.PREDICTION_DRIFT])
def test_what_is_learned_of_a_feature_or_of_predictions_has_its_effect_sizes(numeric: bool, kind: Kind) -> None:
    _, update = told(numeric, kind, 1.0)
    effects = update.details["effects"]
    assert effects["psi"] > 0.5 > effects["psi_by_chance"]
    assert effects["wasserstein"] == pytest.approx(10 if numeric else 0.4, rel=0.15)
    assert effects["count"] >= FEW
    assert orjson.loads(orjson.dumps(update.details)) == update.details, "plain data"


def test_the_alarm_itself_and_the_metrics_of_how_good_a_model_is_have_none() -> None:
    fired, _ = told(True, Kind.DATA_DRIFT, 1.0)
    assert "effects" not in fired.details
    assert "effects" not in told(True, Kind.CONCEPT_DRIFT, 1.0)[1].details


def test_a_change_that_turns_out_to_be_larger_becomes_critical_and_none_becomes_less() -> None:
    """A ramp: it fires long before it has come to its end."""
    subject = Subject.of("credit", "v3", None, "feature:x", Kind.DATA_DRIFT, 0.1, 0.7)
    of = NumericStream(subject, ALL, DetectSettings(), desk())
    rng = random.Random(2)
    feed(of, [rng.gauss(min(1.0, max(0, i - AT) / 1_500), 1) for i in range(AT + 5_000)])
    fired, update = of.desk.out
    assert (fired.severity, update.severity) == (Severity.WARNING, Severity.CRITICAL)
    assert abs(fired.details["effect"]) < 0.7 < update.details["effect"]
    fired, update = told(True, Kind.DATA_DRIFT, 1.0, critical=0.1)
    assert (fired.severity, update.severity) == (Severity.CRITICAL, Severity.CRITICAL)


def test_severity_stays_where_luck_made_the_change_look_larger_than_it_is() -> None:
    fired, update = told(True, Kind.DATA_DRIFT, 0.5)
    assert update.details["effect"] == pytest.approx(0.5, abs=0.1)
    assert fired.severity is update.severity is Severity.WARNING


@pytest.mark.parametrize("numeric", [False, True])
def test_a_stream_that_is_restored_while_it_learns_says_the_same(numeric: bool) -> None:
    subject = Subject.of("credit", "v3", None, "feature:x", Kind.DATA_DRIFT, 0.1, 10.0)
    build = NumericStream if numeric else BinaryStream
    one, other = build(subject, ALL, DetectSettings(), desk()), build(subject, ALL, DetectSettings(), desk())
    rng = random.Random(2)
    values = [rng.gauss(i >= AT, 1) for i in range(AT + 2_000)]
    values = values if numeric else [int(z > 1) for z in values]
    feed(one, values[: AT + 150])
    other.desk.ledger.restore(orjson.loads(orjson.dumps(one.desk.ledger.state())))
    other.restore(orjson.loads(orjson.dumps(one.state())))
    one.desk.out.clear()
    for of in (one, other):
        feed(of, values[AT + 150 :], AT + 150)
    assert [alert.status for alert in one.desk.out] == ["updated"]
    assert other.desk.out == one.desk.out
    assert other.state() == one.state()
