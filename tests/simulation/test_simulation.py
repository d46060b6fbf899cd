"""The promises hold under every interleaving that a seed can think of, and the simulator sees when they do not."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

from tests.simulation import __main__ as command
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Failed, simulate
from tests.simulation.scheduler import Violation
from tests.simulation.world import Program

SEEDS, BLOCK = 500, 25
MOST = 1_000  # seeds within which a deliberate bug must be found
FIRST = {  # of the rare ones, the first of these seeds that found it when this was written: tried first, so that it takes seconds
    "a bucket that comes back is taken for a fresh one": 809,
    "entries that outlived their TTL": 46,
    "a gap told at the first look": 49,
}


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_every_output_is_the_fold_of_its_input_whatever_fails(start: int) -> None:
    for seed in range(start, start + BLOCK):
        try:
            simulate(seed)
        except Failed:
            simulate(seed, traced=True)  # once more, telling every step
            raise


@pytest.mark.parametrize("seed", [136_259, 951_860])
def test_what_a_seed_beyond_these_once_found_stays_mended(seed: int) -> None:
    simulate(seed)


def test_a_seed_decides_everything() -> None:
    first, second = (simulate(7, traced=True).scheduler.trace for _ in range(2))
    assert first == second


def test_processes_share_the_seeds() -> None:
    asked = [sys.executable, "-m", "tests.simulation", "--start", "40", "--seeds", "20", "--jobs", "2"]
    assert "20 of 20 seeds, 0 failed" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def test_the_command_tells_each_seed_that_fails_and_the_first_one_step_by_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd_ones_fail(seed: int, traced: bool) -> None:
        if seed % 2:
            raise Failed(f"{'its steps' if traced else ''}\nseed {seed} broke")

    monkeypatch.setattr(command, "simulate", odd_ones_fail)
    monkeypatch.setattr(sys, "argv", ["simulation", "--start", "6", "--seeds", "6"])
    assert command.main() == 1
    told = capsys.readouterr()
    assert told.err.split("\n") == ["", "its steps", "seed 7 broke", "", "", "seed 9 broke", "", "", "seed 11 broke", ""]
    assert "6 of 6 seeds, 3 failed" in told.out


def test_of_all_processes_of_the_command_one_tells_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "simulate", partial(simulate, program=MUTANTS["no slack"]))
    monkeypatch.setattr(command, "Pool", get_context("fork").Pool)  # which takes the broken program along
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "15", "--jobs", "2"])
    assert command.main() == 1
    told = capsys.readouterr().err
    assert told.count("replay: python -m tests.simulation --seed ") > 1
    assert told.count("faults end here") == 1


def test_a_seed_that_does_not_fail_again_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails_untraced(seed: int, traced: bool) -> Any:
        if not traced:
            raise Failed("broke")

    monkeypatch.setattr(command, "simulate", fails_untraced)
    monkeypatch.setattr(sys, "argv", ["simulation", "--seed", "1"])
    assert command.main() == 1
    assert "broke\nrun once more, it did not fail" in capsys.readouterr().err


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_simulator_finds_a_deliberate_bug(bug: str) -> None:
    for seed in (FIRST.get(bug, 0), *range(MOST)):
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
