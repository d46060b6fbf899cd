"""Memory of the monitor while it works off a backlog: `python -m benchmarks.memory [--messages N]`.

Both input topics are filled before the start; then all stages run in one process under the default configuration. Its resident memory
is sampled twice a second. What is promised: it is bounded, whatever the backlog.
"""

from __future__ import annotations

import argparse

from benchmarks.harness import INPUTS, Job, Setting, say
from benchmarks.workload import fill

MIB = 2**20
ROWS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_000_000, help="half of them predictions, half labels (default: 2,000,000)")
    options = parser.parse_args()
    count = options.messages // 2
    with Setting() as setting:
        tables = setting.tables("memory")
        setting.create(tables)
        say(f"filling the topics: {count:,} predictions and as many labels")
        sizes = fill(setting.bootstrap, INPUTS, count)
        last = -1

        def watch(committed: dict[str, int]) -> None:
            nonlocal last
            percent = 10 * (10 * committed.get("detect", 0) // (2 * count))
            if percent > last:
                last = percent
                say(f"{percent}%")

        [result] = setting.measure([Job(tables, ("route", "join", "detect"))], every_s=0.5, watch=watch)
        used = setting.redis_info("memory")["used_memory_peak"]

    samples = result.samples
    print(f"backlog: {2 * count:,} messages, {sum(sizes.values()) / MIB:,.0f} MiB; {result.last - result.first:.0f} s")
    print(f"{'s':>6}{'route %':>10}{'join %':>10}{'detect %':>10}{'RSS MiB':>10}")
    step = max(1, len(samples) // ROWS)
    for when, committed, rss in [*samples[::step], samples[-1]]:
        shares = "".join(f"{100 * committed[name] / (2 * count):>10.0f}" for name in ("route", "join", "detect"))
        print(f"{when - result.first:>6.0f}{shares}{rss / MIB:>10.0f}")
    print(f"the most: {max(rss for _, _, rss in samples) / MIB:.0f} MiB (Redis: {used / MIB:.0f} MiB)")


if __name__ == "__main__":
    main()
