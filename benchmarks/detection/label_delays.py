"""False alerts where the label delay depends on the label: `python -m benchmarks.detection.label_delays` (`--seed 1`).

Models that do not change, through the whole monitor (core/monitor.py) with its default signals and detectors. Each predicts one class of
two, in two countries, with one wrong answer in ten. What is known of a model some hours after its answers is not what will be known: a
fraud is reported when the statement comes. So a monitor that judged labels as they come would see shares of errors and classes that move
with the model's age and its traffic. Whatever fires here is a false alert. Prints for each rule of delays what fired, by metric, against
the budget of those days, with the 95% Poisson interval of the ratio.

    alike      log-normal, median 2 hours
    positives  a positive's label takes eight times as long
    errors     the label of a wrong answer takes eight times as long
    weekly     labels of positives come with a list, once a week
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import orjson

from benchmarks.detection.budget_held import bounds
from stream_monitor.core.events import Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DAY, HOUR, AlertBudget, DetectSettings

START = 1_700_000_000_000
WEEK = 7 * DAY

Rule = Callable[[random.Random, int, bool, bool], float]
"""Of the time of a prediction (ms), whether its label is positive, and whether it was wrong: how long the label takes, ms."""


def _lognormal(rng: random.Random, times: float) -> float:
    return times * 2 * HOUR * math.exp(rng.gauss(0.0, 1.0))


RULES: dict[str, Rule] = {
    "alike": lambda rng, time, positive, wrong: _lognormal(rng, 1),  # noqa: ARG005  # each takes what it needs
    "positives": lambda rng, time, positive, wrong: _lognormal(rng, 8 if positive else 1),  # noqa: ARG005
    "errors": lambda rng, time, positive, wrong: _lognormal(rng, 8 if wrong else 1),  # noqa: ARG005
    "weekly": lambda rng, time, positive, wrong: WEEK - time % WEEK if positive else _lognormal(rng, 1),  # noqa: ARG005
}


def records(rule: Rule, models: int, days: int, rate: float, seed: int) -> Iterator[bytes]:
    """Observations in the order of the journal: a prediction when it is made, its outcome when the label comes."""
    rng = random.Random(seed)
    waiting: list[tuple[int, int, bytes]] = []
    time, number = float(START), 0
    while time < START + days * DAY:
        time += rng.expovariate(models * rate / DAY)
        number += 1
        positive, wrong = rng.random() < 0.2, rng.random() < 0.1
        prediction = orjson.dumps(
            {
                "request_id": f"{seed}-{number}",
                "model": f"m{rng.randrange(models)}",
                "model_version": "1",
                "timestamp": int(time),
                "prediction": "yes" if positive != wrong else "no",
                "slices": {"country": rng.choice(("DE", "FR"))},
            }
        )
        while waiting and waiting[0][0] <= time:
            yield heapq.heappop(waiting)[2]
        yield b'{"record":"prediction","prediction":%b}' % prediction
        delay = int(rule(rng, int(time), positive, wrong))
        feedback = orjson.dumps({"request_id": f"{seed}-{number}", "label": "yes" if positive else "no", "timestamp": int(time) + delay})
        outcome = b'{"record":"outcome","label_delay_ms":%d,"prediction":%b,"feedback":%b}' % (delay, prediction, feedback)
        heapq.heappush(waiting, (int(time) + delay, number, outcome))


def false_alerts(settings: DetectSettings, rule: Rule, models: int, days: int, rate: float, seed: int) -> Counter[str]:
    """How many alerts of each metric fired."""
    monitor = Monitor(settings, "observations", 0)
    fired: Counter[str] = Counter()
    for value in records(rule, models, days, rate, seed):
        for alert in monitor.step(monitor.at, value):
            if alert.status is Status.FIRING:
                fired[alert.metric] += 1
    return fired


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--rate", type=float, default=500, help="predictions a day and model")
    parser.add_argument("--budget", type=float, default=2, help="false alerts a day, for all streams of all models")
    parser.add_argument("--maturity", type=float, help="hours after which a prediction is judged; by default what the monitor learns")
    parser.add_argument("--rule", choices=RULES, action="append", help="by default each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    maturity = None if options.maturity is None else int(options.maturity * HOUR)
    settings = DetectSettings(alert_budget=AlertBudget(options.budget, DAY), maturity_ms=maturity)
    for name in options.rule or RULES:
        if sys.stderr.isatty():
            print(f"{name} ...", end="\r", file=sys.stderr, flush=True)
        fired = false_alerts(settings, RULES[name], options.models, options.days, options.rate, options.seed)
        by_metric = ", ".join(f"{metric} {n}" for metric, n in fired.most_common())
        print(f"{name:<10} {bounds(fired.total(), options.budget * options.days)}   {by_metric}", flush=True)


if __name__ == "__main__":
    main()
