"""The promises hold under every interleaving that a seed can think of, and the simulator sees when they do not."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import FIRST, MUTANTS, RARE
from tests.simulation.run import Failed, simulate
from tests.simulation.scheduler import Violation
from tests.simulation.world import Program

SEEDS, BLOCK = 500, 25
MOST = 1_000  # seeds within which a deliberate bug must be found


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_every_output_is_the_fold_of_its_input_whatever_fails(start: int) -> None:
    for seed in range(start, start + BLOCK):
        try:
            simulate(seed)
        except Failed:
            simulate(seed, traced=True)  # once more, telling every step
            raise


def test_a_seed_decides_everything() -> None:
    first, second = (simulate(7, traced=True).scheduler.trace for _ in range(2))
    assert first == second


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_simulator_finds_a_deliberate_bug(bug: str) -> None:
    for seed in [RARE[bug]] if bug in RARE else range(FIRST.get(bug, 0), MOST):
        failure = _failure(seed, MUTANTS[bug])
        if failure is not None:
            assert isinstance(failure.__cause__, Violation), failure
            return
    pytest.fail(f"{MOST} seeds found no fault with: {bug}")


def _failure(seed: int, program: Program) -> Failed | None:
    try:
        simulate(seed, program)
    except Failed as failure:
        return failure
    return None
