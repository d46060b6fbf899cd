"""The promises hold under every interleaving that a seed can think of, and the simulator sees when they do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation import __main__ as command
from tests.simulation.mutants import FIRST, MUTANTS
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


@pytest.mark.parametrize("seed", [136_259])
def test_what_a_seed_beyond_these_once_found_stays_mended(seed: int) -> None:
    simulate(seed)


def test_a_seed_decides_everything() -> None:
    first, second = (simulate(7, traced=True).scheduler.trace for _ in range(2))
    assert first == second


def test_processes_share_the_seeds() -> None:
    asked = [sys.executable, "-m", "tests.simulation", "--start", "40", "--seeds", "20", "--jobs", "2"]
    assert "20 of 20 seeds, 0 failed" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def test_the_command_tells_each_seed_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def odd_ones_fail(seed: int, traced: bool) -> None:
        if seed % 2:
            raise Failed(f"seed {seed} broke")

    monkeypatch.setattr(command, "simulate", odd_ones_fail)
    monkeypatch.setattr(sys, "argv", ["simulation", "--start", "6", "--seeds", "4"])
    assert command.main() == 1
    told = capsys.readouterr()
    assert told.err.split("\n") == ["", "seed 7 broke", "", "seed 9 broke", ""]
    assert "4 of 4 seeds, 2 failed" in told.out


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_simulator_finds_a_deliberate_bug(bug: str) -> None:
    for seed in range(FIRST.get(bug, 0), MOST):
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
