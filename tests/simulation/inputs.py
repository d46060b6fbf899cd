"""What the outside sends: requests with their feedback, in time, late, never, before its prediction, twice, and garbage."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import orjson


class Sent(NamedTuple):
    """A message to an input topic, and from which ms on it may be written."""

    when: int
    topic: str
    partition: int
    value: bytes


def inputs(random: Random, partitions: int, span: int, requests: int) -> list[Sent]:
    """Messages in the order of their times, spread over `span` ms."""
    sent: list[Sent] = []

    def send(when: float, topic: str, value: bytes) -> None:
        sent.append(Sent(int(max(0, when)), topic, random.randrange(partitions), value))

    for number in range(requests):
        born = random.random() * span
        name, model = f"r{number}", random.choice(("a", "b", "c"))
        of = {"model": model, "model_version": "1"} if random.random() < 0.5 else {}  # whose a feedback says that it is
        prediction = orjson.dumps(
            {
                "request_id": name,
                "model": model,
                "model_version": "1",
                "timestamp": 999_000 + int(born),
                "prediction": random.choice(("yes", "no")),
            }
        )
        feedback = [
            orjson.dumps({"request_id": name, "label": label, "timestamp": 999_100 + int(born), **of})
            for label in (random.choice(("yes", "no")), random.choice(("yes", "no", 1)))
        ]
        kind = random.random()
        if kind < 0.9:
            send(born, "predictions", prediction)
        delay = random.choice((-20, 5, 30, 100, 350, 700))
        if kind > 0.1:
            send(born + delay, "feedback", feedback[0])
        # Sent again at most once: an id that comes back for longer than two lives of an entry can not be healed.
        again = random.random()
        if again < 0.15:
            send(born + random.randrange(600), "predictions", prediction)
        elif again < 0.35:
            send(born + delay + random.randrange(300), "feedback", random.choice(feedback))
        if random.random() < 0.05:
            send(born, random.choice(("predictions", "feedback")), b"garbage %d" % number)
    sent.sort()
    return sent
