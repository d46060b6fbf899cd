"""benchmarks/detection/kswin.py is river's KSWIN: what the table of delays says of one holds for the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from river.drift import KSWIN

from benchmarks.detection.kswin import NEWEST, Kswin, least


@pytest.mark.parametrize("law", ["normal scores", "bits", "rounded"])
def test_it_alarms_where_rivers_does(law: str) -> None:
    rng = np.random.default_rng(3)
    drawn = rng.standard_normal(1_500) + np.arange(1_500) // 500 % 2  # a step up, and one down
    values = {"normal scores": drawn, "bits": (drawn > 0.5).astype(float), "rounded": np.round(drawn)}[law].tolist()
    ours = Kswin(0.005, seed=4, bits=law == "bits")
    rivers: Any = KSWIN(alpha=0.005, seed=4)  # it has no types
    found, expected = [], []
    for i, x in enumerate(values):
        if ours.update(x):
            found.append(i)
        rivers.update(x)
        if rivers.drift_detected:
            expected.append(i)
    assert found == expected
    assert len(found) >= 2


def test_a_distance_of_a_tenth_or_less_never_alarms_and_a_threshold_past_all_distances_never_does() -> None:
    assert least(1.0) == 4
    assert least(1e-20) == NEWEST + 1
