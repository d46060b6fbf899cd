"""The contract of a detector: every built-in one keeps it, and each way of breaking it is found by the check that is meant for it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from math import exp
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stream_monitor.core.detectors import Evidence, create, names
from stream_monitor.core.settings import DetectorSettings
from stream_monitor.testing import CHECKS, Factory, failures, main

QUICK = [name for name in names() if name != "kswin"]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_built_in_detector_keeps_the_contract(check: Callable[[Factory], None], name: str) -> None:
    check(lambda: create(DetectorSettings(name)))


def test_kswin_keeps_it_too() -> None:
    assert failures(lambda: create(DetectorSettings("kswin", {"window_size": 60, "stat_size": 20}))) == {}


@pytest.mark.parametrize(
    "settings",
    [
        DetectorSettings("adwin", {"delta": 1e-6}),
        DetectorSettings("page_hinkley", {"threshold": 30.0, "delta": 0.1}),
        DetectorSettings("e_detector", {"per_value": 1e-6}),
        DetectorSettings("hddm_w", {"two_sided_test": True, "drift_confidence": 1e-6}),
    ],
)
def test_parameters_of_its_own_do_not_break_it(settings: DetectorSettings) -> None:
    found = failures(lambda: create(settings))
    # values without any chance in them are no scores, and the e-detector minds
    assert set(found) == ({"is_quiet_while_nothing_changes"} if settings.name == "e_detector" else set())


class Good:
    """A mean that fades, against a limit."""

    name = "good"
    reads: Any = "score"
    assurance: Any = "uncalibrated"
    budgeted = False

    def __init__(self) -> None:
        self.parameters: Any = {"limit": 1.0}
        self.reset()

    def update(self, x: float) -> bool:
        self.mean += 0.05 * (x - self.mean)
        return abs(self.mean) > 1

    def evidence(self, before: Any, after: Any) -> Evidence:
        return Evidence(abs(self.mean), 1.0)

    def retune(self, run_length: float, share: float | None) -> None:
        pass

    def reset(self) -> None:
        self.mean = 0.0

    def state(self) -> Any:
        return [self.mean]

    def restore(self, state: Any) -> None:
        if type(state) is not list or len(state) != 1 or type(state[0]) is not float:
            raise ValueError("no state")
        [self.mean] = state


def test_a_small_honest_one_keeps_it() -> None:
    assert failures(Good) == {}


class Clumsy(Good):
    """No `evidence`."""

    evidence = None  # type: ignore[assignment]


class Boastful(Good):
    """Takes a budget and gives nothing for it."""

    budgeted = True


class Numerical(Good):
    """Says 0 for False, which compiled code does not take."""

    budgeted: Any = 0


class Random(Good):
    def update(self, x: float) -> bool:
        return super().update(x + random.gauss(0, 0.1))


class Sharing(Good):
    """Two of them count together."""

    seen = itertools.count()

    def update(self, x: float) -> bool:
        return super().update(x) and next(self.seen) < 3


class Forgetful(Good):
    """Counts what it does not save."""

    def reset(self) -> None:
        super().reset()
        self.count = 0

    def update(self, x: float) -> bool:
        self.count += 1
        return super().update(x) and self.count > 200


class Hoarding(Good):
    """Keeps every value."""

    def reset(self) -> None:
        super().reset()
        self.values: list[float] = []

    def update(self, x: float) -> bool:
        self.values.append(x)
        return super().update(x)

    def state(self) -> Any:
        return [self.mean, self.values]

    def restore(self, state: Any) -> None:
        if type(state) is not list or len(state) != 2 or type(state[0]) is not float:
            raise ValueError("no state")
        self.mean, self.values = state


class Resentful(Good):
    """A reset leaves something behind."""

    def reset(self) -> None:
        self.mean = getattr(self, "mean", 0.0) / 2


class Nervous(Good):
    def update(self, x: float) -> bool:
        super().update(x)
        return x == 0.0


class Blind(Good):
    def update(self, x: float) -> bool:
        super().update(x)
        return False


class Slow(Good):
    def update(self, x: float) -> bool:
        self.mean += 0.0005 * (x - self.mean)
        return abs(self.mean) > 1


class Dishonest(Good):
    def evidence(self, before: Any, after: Any) -> Evidence:
        return Evidence(0.4, 1.0)


class Informal(Good):
    def evidence(self, before: Any, after: Any) -> Any:
        return SimpleNamespace(statistic=abs(self.mean), threshold=1.0)


class Fragile(Good):
    def update(self, x: float) -> bool:
        exp(x)
        return super().update(x)


class Exotic(Good):
    """Saves what is no plain data."""

    def state(self) -> Any:
        return [np.float64(self.mean), {1}]


class Credulous(Good):
    def restore(self, state: Any) -> None:
        self.mean = state[0] if type(state) is list and type(state[0]) is float else 0.0


class Calibrated(Good):
    """Claims what it does not keep, and loses its threshold in a restart."""

    budgeted = True
    assurance = "calibrated"

    def update(self, x: float) -> bool:
        self.mean += 0.5 * (x - self.mean)
        return abs(self.mean) > 1.5

    def retune(self, run_length: float, share: float | None) -> None:
        self.parameters = {"limit": run_length}


BROKEN: list[tuple[type[Good], str, str]] = [
    (Clumsy, "has_every_part", "it has no method evidence"),
    (Boastful, "has_every_part", "just what is not budgeted is uncalibrated"),
    (Numerical, "has_every_part", "its budgeted is 0; True or False is expected"),
    (Random, "decides_by_the_values_alone", "the same values gave other"),
    (Sharing, "decides_by_the_values_alone", "shared"),
    (Forgetful, "goes_on_after_a_restart", "it gave other alarms"),
    (Hoarding, "keeps_a_small_state", "65,536 at most"),
    (Resentful, "forgets_when_it_is_reset", "not that of a new one"),
    (Nervous, "is_quiet_while_nothing_changes", "it fires on a constant (0.0), at value 0"),
    (Calibrated, "is_quiet_while_nothing_changes", "it says 'calibrated', was told one false alarm in 1,000,000 values"),
    (Calibrated, "takes_any_run_length", "is not restored"),
    (Blind, "sees_a_gross_change", "did not see a gross change"),
    (Slow, "sees_a_gross_change", "did not see a gross change in 500 values"),
    (Blind, "says_why_it_fired", "did not see a gross change"),
    (Dishonest, "says_why_it_fired", "below its threshold"),
    (Informal, "says_why_it_fired", "an Evidence is expected"),
    (Fragile, "survives_hostile_values", "OverflowError"),
    (Exotic, "goes_on_after_a_restart", "not plain data"),
    (Credulous, "refuses_what_is_no_state", "was accepted"),
]


@pytest.mark.parametrize(("broken", "check", "said"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_each_way_of_breaking_it_is_found_by_its_check(broken: type[Good], check: str, said: str) -> None:
    found = failures(broken)
    assert said in found[check]


def test_every_check_can_fail() -> None:
    assert {check for _, check, _ in BROKEN} == {check.__name__ for check in CHECKS}


def test_the_command_says_what_is_passed_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page_hinkley", "threshold=40", "delta=0.5"]) == 0
    assert "page_hinkley keeps the contract" in capsys.readouterr().out
    assert main(["e_detector", "per_value=0.000001"]) == 1
    assert "problem  is_quiet_while_nothing_changes\n           it fires on a constant" in capsys.readouterr().out
    assert main([]) == main(["not_there"]) == main(["adwin", "delta=x"]) == 2
    said = capsys.readouterr().out
    assert "usage: " in said
    assert "there is no detector 'not_there'" in said
