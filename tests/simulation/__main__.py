"""`python -m tests.simulation --seeds 100000 --start 0 --jobs 2`, or `--seed N --trace`.

The first seed that fails is run once more and tells every step; the others say what broke and how they are replayed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import Lock, Pool
from multiprocessing.synchronize import Lock as Turn

from tests.simulation.run import Failed, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Runs the simulator over many seeds, or replays one.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    parser.add_argument("--trace", action="store_true", help="tell every step")
    chosen = parser.parse_args()
    started = time.monotonic()
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.start, chosen.start + chosen.seeds)
    failed = 0
    for done, why in enumerate(_failures(seeds, chosen.jobs, chosen.trace), 1):
        if why:
            failed += 1
            print(f"\n{why}", file=sys.stderr)
        rate = done / (time.monotonic() - started)
        if done % 20 == 0 or done == len(seeds):
            print(f"\r{done} of {len(seeds)} seeds, {failed} failed, {rate:.0f} a second", end="", flush=True)
    print()
    return 1 if failed else 0


def _failures(seeds: Sequence[int], jobs: int, traced: bool) -> Iterator[str]:
    """What broke with each seed, or "", as they end."""
    run = partial(_failure, traced=traced)
    turn = Lock()
    if jobs == 1:
        _share(turn)
        yield from map(run, seeds)
        return
    with Pool(jobs, _share, (turn,)) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=5)


_turn: Turn
"""Whoever gets hold of it has the first seed that fails, and keeps it."""


def _share(turn: Turn) -> None:
    global _turn
    _turn = turn


def _failure(seed: int, traced: bool) -> str:
    try:
        world = simulate(seed, traced=traced)
    except Failed as why:
        return str(why) if traced or not _turn.acquire(block=False) else _told(seed, why)
    if traced:
        print("\n".join(world.scheduler.trace or []))
    return ""


def _told(seed: int, why: Failed) -> str:
    """The failure step by step."""
    try:
        simulate(seed, traced=True)
    except Failed as again:
        return str(again)
    return f"{why}\nrun once more, it did not fail"


if __name__ == "__main__":
    # What is loaded by now lives for ever and need not be walked, and of what a run leaves behind many fit into memory.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.exit(main())
