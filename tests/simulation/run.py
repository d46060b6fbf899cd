"""Runs one seed and says what broke."""

from __future__ import annotations

from tests.simulation.check import check
from tests.simulation.world import Program, World

PRODUCTION = Program()


class Failed(AssertionError):  # noqa: N818
    """A seed that broke a promise, with the command that shows how."""


def simulate(seed: int, program: Program = PRODUCTION, traced: bool = False) -> World:
    """One run, checked. Raises Failed.

    What a program patches stays so while it is judged: a check that leans on what is broken must not look better than it is.
    """
    world = World(seed, program, traced)
    try:
        with program.patch():
            world.run()
            check(world)
    except Exception as why:
        trace = "\n".join(world.scheduler.trace or [])
        raise Failed(
            f"{trace}\nseed {seed}: {type(why).__name__}: {why}\nreplay: python -m tests.simulation --seed {seed} --trace"
        ) from why
    return world
