"""`stream-monitor demo`: the whole thing on embedded servers, with drifts that are known, to see what is noticed, and when."""

from __future__ import annotations

import time

from rich.console import Console

from stream_monitor.demo.display import Display, summarise
from stream_monitor.demo.feed import Play, play, settings
from stream_monitor.demo.scenario import Scenario
from stream_monitor.io.embedded import EmbeddedKafka, EmbeddedRedis

PREDICTIONS = 40_000
RATE = 2_000.0  # predictions a second, at most

_INTERRUPTED = 130


def demo(console: Console, seed: int = 1, predictions: int = PREDICTIONS, rate: float = RATE) -> int:
    """Runs the demo and answers its exit code: 0 if every injected drift was noticed, else 1; 130 after Ctrl-C."""
    try:
        played = perform(console, seed, predictions, rate)
    except KeyboardInterrupt:
        console.print("interrupted")
        return _INTERRUPTED
    summarise(console, played)
    return 0 if played.success else 1


def perform(console: Console, seed: int, predictions: int, rate: float) -> Play:
    """The demo without its summary."""
    with Display(console) as display:
        scenario = Scenario(seed, predictions, int(time.time() * 1000))
        with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
            return play(scenario, settings(kafka.bootstrap, redis.url), rate, display)
