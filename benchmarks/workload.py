"""The messages that the benchmarks send: predictions of some 420 bytes and their labels, of some 110, for twelve models.

Events are 10 ms apart; a label comes 10,000 to 30,000 predictions later. One label in five differs from the prediction at random, so
nothing drifts. All of it follows from the number of predictions and the start; topics are filled by two processes of their own.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from typing import Any

import orjson
from confluent_kafka import Producer

MODELS = 12
STEP_MS = 10
DELAY_MS = 20_000 * STEP_MS  # on average


def predictions(count: int, start_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each message of the predictions topic."""
    rng = random.Random(1)
    random_, choice, dumps = rng.random, rng.choice, orjson.dumps
    models = [f"credit-risk-{i}" for i in range(MODELS)]
    countries, devices, channels = ("DE", "FR", "US", "BR", "IN"), ("phone", "desktop", "tablet"), ("web", "branch")
    education = ("none", "school", "bachelor", "master", "doctor")
    for i, answer in enumerate(_answers(count)):
        request_id = _request_id(i)
        event = {
            "request_id": request_id,
            "model": models[i % MODELS],
            "model_version": "v3",
            "timestamp": start_ms + i * STEP_MS,
            "prediction": answer,
            "score": round(random_(), 4),
            "features": {
                "salary": round(rng.gauss(60_000, 20_000), 2),
                "commission": round(rng.expovariate(1e-4), 2),
                "age": 20 + int(60 * random_()),
                "education": choice(education),
                "car": random_() < 0.3,
                "house_value": round(rng.lognormvariate(12, 0.5), 2),
                "house_years": 1 + int(29 * random_()),
                "loan": round(500_000 * random_(), 2),
                "zip": int(9 * random_()),
            },
            "slices": {"country": choice(countries), "device": choice(devices), "channel": choice(channels)},
            "latency_ms": round(rng.expovariate(0.02), 1),
            "trace": f"{rng.getrandbits(64):016x}",
        }
        yield request_id.encode(), dumps(event)


def feedback(count: int, start_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each message of the feedback topic, in the order of their times."""
    rng = random.Random(2)
    labels = [answer if rng.random() < 0.8 else rng.choice(("approve", "decline")) for answer in _answers(count)]
    order = sorted((start_ms + i * STEP_MS + int(DELAY_MS * (0.5 + rng.random())), i) for i in range(count))
    for when, i in order:
        request_id = _request_id(i)
        event = {"request_id": request_id, "label": labels[i], "timestamp": when, "source": "back-office"}
        yield request_id.encode(), orjson.dumps(event)


def _request_id(i: int) -> str:
    return f"2024-11-25-checkout-{i:012d}"


def _answers(count: int) -> Iterator[str]:
    rng = random.Random(3)
    return ("approve" if rng.random() < 0.9 else "decline" for _ in range(count))


def fill(bootstrap: str, topics: dict[str, str], count: int) -> dict[str, int]:
    """Fills both topics (`topics`: role -> name), a process each; answers the bytes sent of each role."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    start_ms = int(time.time() * 1000) - count * STEP_MS
    arguments = [(bootstrap, role, topics[role], count, start_ms, results) for role in ("predictions", "feedback")]
    processes = [context.Process(target=_send, args=one, daemon=True) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"filling the topics failed with exit code {process.exitcode}")
    return dict(results.get() for _ in processes)


def _send(bootstrap: str, role: str, topic: str, count: int, start_ms: int, results: Any) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
        }
    )
    total = 0
    for i, (key, value) in enumerate((predictions if role == "predictions" else feedback)(count, start_ms)):
        total += len(value)
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    if left := producer.flush(60):
        raise RuntimeError(f"{left} messages of {topic} were not delivered")
    results.put((role, total))
