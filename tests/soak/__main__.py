"""`python -m tests.soak --minutes N`: the faults one after the other, again with the next seed until the minutes are over.

One line each: what was done, what is promised, whether it held, figures. A fault that was begun is finished; one that the minutes did not
reach is said. Exit code 0 if every fault was reached and every promise held, 1 otherwise. Without --minutes: each once.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import traceback
from collections.abc import Sequence

from tests.soak import table
from tests.soak.registry import FAULTS, Fault
from tests.soak.trial import Trial
from tests.support.servers import KafkaServer, shared_kafka


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.list:
        for fault in FAULTS.values():
            print(f"{fault.name:<28} {fault.done}\n{'':<28} -> {fault.promised}")
        return 0
    chosen = [FAULTS[name] for name in options.only] if options.only else list(FAULTS.values())
    kafka = functools.cache(functools.partial(shared_kafka, options.brokers))
    end = time.monotonic() + options.minutes * 60
    failed, reached, seed = 0, set[str](), options.seed
    try:
        while True:
            for fault in chosen:
                if reached and options.minutes and time.monotonic() > end:
                    break
                reached.add(fault.name)
                failed += not _run(fault, seed, kafka, options.full, options.brokers)
            seed += 1
            if time.monotonic() > end:
                break
    finally:
        if kafka.cache_info().currsize:
            kafka().close()
    missed = [fault.name for fault in chosen if fault.name not in reached]
    if missed:
        print(f"not reached in {options.minutes:g} minutes: {', '.join(missed)}")
    return 1 if failed or missed else 0


def _run(fault: Fault, seed: int, kafka: functools._lru_cache_wrapper[KafkaServer], full: bool, brokers: int) -> bool:
    trial = Trial(fault.name, seed, lambda line: print(f"    {line}", flush=True), kafka, full, brokers)
    began = time.monotonic()
    try:
        fault.script(trial)
    except Exception as why:
        if not isinstance(why, AssertionError):
            traceback.print_exc()
        print(f"FAILED  {fault.name}: {fault.done}; seed {seed}, {time.monotonic() - began:.0f} s: {why}", flush=True)
        print(trial.last_words(), flush=True)
        return False
    finally:
        trial.close()
    print(f"held    {fault.name}: {fault.done} -> {fault.promised}; {trial.shown()}; {time.monotonic() - began:.0f} s", flush=True)
    return True


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=0.0, help="for how long; by default each fault once")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(FAULTS), default=[], help="these faults only")
    parser.add_argument("--list", action="store_true", help="show the table and do nothing")
    parser.add_argument("--seed", type=int, default=1, help="of the messages and of when things happen")
    parser.add_argument(
        "--brokers",
        type=int,
        default=1,
        metavar="N",
        help="how many, unless a fault needs its own number; each record is on all of them, or on three",
    )
    parser.add_argument(
        "--full", action="store_true", help="outages as long as operators know them: minutes, where it is seconds by default"
    )
    return parser.parse_args(arguments)


assert table
if __name__ == "__main__":
    sys.exit(main())
