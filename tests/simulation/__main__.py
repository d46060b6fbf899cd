"""`python -m tests.simulation --seeds 100000 --start 0`, or `--seed N --trace`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.run import Failed, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Runs the simulator over many seeds, or replays one.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="tell every step")
    chosen = parser.parse_args()
    started = time.monotonic()
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.start, chosen.start + chosen.seeds)
    failed = 0
    for done, seed in enumerate(seeds, 1):
        try:
            world = simulate(seed, traced=chosen.trace)
            if chosen.trace:
                print("\n".join(world.scheduler.trace or []))
        except Failed as why:
            failed += 1
            print(f"\n{why}", file=sys.stderr)
        rate = done / (time.monotonic() - started)
        if done % 20 == 0 or done == len(seeds):
            print(f"\r{done} of {len(seeds)} seeds, {failed} failed, {rate:.0f} a second", end="", flush=True)
    print()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
