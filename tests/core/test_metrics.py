"""Which patterns of metric names can mean anything."""

from __future__ import annotations

import pytest

from stream_monitor.core.metrics import BEGIN, PLAIN, may_match, nearest
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.core.signals import LABEL_METRICS
from tests.support.observations import outcome, predicted, prediction, run


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "error",
        "*error",
        "?rror",
        "feature:amount",
        "feature:*=x",
        "feat*",
        "recall=*",
        "re*",
        "missing:[ab]*",
        "prediction=1",
        "volume",
    ],
)
def test_a_pattern_that_may_match_a_metric_is_one(pattern: str) -> None:
    assert may_match(pattern)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("erorr", "error"), ("recall", "recall=*"), ("feature", "feature:*"), ("feature:", "feature:*"), ("laten*cy*x", None), ("xyz", None)],
)
def test_a_pattern_that_matches_none_is_told_from_it_with_what_was_meant(pattern: str, meant: str | None) -> None:
    assert not may_match(pattern)
    assert meant is None or nearest(pattern) == meant


def test_the_names_are_those_that_are_watched() -> None:
    rng = ("a", "b", "c")
    records = []
    for i in range(400):
        features = {"x": float(i % 7), "k": rng[i % 3]} if i % 50 else {}
        event = prediction(
            i, score=0.5, scores={"yes": 0.7, "no": 0.3}, features=features, latency_ms=5.0, weight=1 + i % 2, slices={"s": "t"}
        )
        records += [predicted(event), outcome(event, "yes" if i % 3 else "no")]
    monitor, _ = run(DetectSettings(maturity_ms=0, warmup=30, default=MonitorSettings(metrics=("*", "volume"))), records)
    met = {one.subject.metric for version in monitor._versions.values() for one in version.watched()}
    assert len(met) > 15
    assert all(metric.partition("=")[0] in PLAIN or metric.startswith(BEGIN) for metric in met)
    assert {f"{name}=" if f"{name}=" in BEGIN else name for name in LABEL_METRICS} <= {*PLAIN, *BEGIN}
