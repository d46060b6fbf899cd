"""A log of predictions and feedback with every oddity, and what must come of it, by a plain join in memory."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

START = 1_709_640_000_000
STEP = 50  # ms of event time between predictions
DELAY = 100_000  # ms; a label comes within this
DRIFT = 0.6  # of the way through, the model goes wrong for one country

TEN_YEARS = 10 * 365 * 86_400_000


class Message(NamedTuple):
    """One message for an input topic; equal keys keep their order."""

    topic: str  # "predictions" or "feedback"
    key: bytes | None
    value: bytes | None


@dataclass
class Workload:
    """Messages in the order in which they are sent, and what is expected of them."""

    messages: list[Message] = field(default_factory=list)
    predictions: Counter[bytes] = field(default_factory=Counter)
    outcomes: Counter[tuple[bytes, bytes, int]] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0


def canonical(event: Any) -> bytes:
    """One short name for events that mean the same: the request id, and a digest of all there is. Hundreds of thousands are held."""
    digest = blake2b(orjson.dumps(event, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()
    return f"{event['request_id']} {digest}".encode()


_WHOLE = {"request_id": "x", "model": "m", "model_version": "1", "timestamp": 1, "prediction": 1, "label": 1}
ODD: list[tuple[bytes | None, str]] = [
    (b"not json", "not_json"),
    (b'{"request_id": "x", "score": NaN}', "not_json"),
    (b'{"request_id": "\xff\xfe"}', "not_utf8"),
    (b"[1, 2, 3]", "not_an_object"),
    (b"{}", "missing_field"),
    (orjson.dumps({**_WHOLE, "request_id": ""}), "missing_field"),
    (orjson.dumps({**_WHOLE, "request_id": 5}), "wrong_type"),
    (orjson.dumps({**_WHOLE, "timestamp": 2 * 10**12 + TEN_YEARS}), "in_the_future"),
    (None, "null_value"),
]
"""Messages that are no events, on either topic, and the reasons for which they are refused."""


def make(predictions: int, seed: int, large: bool = True, drift: float = DRIFT) -> Workload:
    """About 1.9 messages for each of `predictions`. `drift`: how far through the model goes wrong for one country."""
    rng, of = random.Random(seed), Workload()
    timed: list[tuple[float, int, Message]] = []

    def send(at: float, message: Message) -> None:
        value = message.value and bytes(memoryview(message.value))  # what orjson gives keeps a buffer of 4 KB
        timed.append((at, len(timed), message._replace(value=value)))

    for i in range(predictions):
        time = START + i * STEP
        request_id = f"req-{i}" if i % 50 else f"réq {{{i}}}\n"
        key = request_id.encode()
        country = rng.choice(("DE", "FR", "US"))
        prediction: dict[str, Any] = {
            "request_id": request_id,
            "model": f"model-{i % 3}",
            "model_version": "v1",
            "timestamp": time,
            "prediction": "approve",
            "score": round(rng.random(), 3),
            "features": {"amount": round(rng.lognormvariate(3, 1), 2), "channel": rng.choice(("web", "app"))},
            "slices": {"country": country},
        }
        if i % 17 == 0:
            prediction["trace"] = {"unknown": ["field"]}
        sent = dict(prediction)
        if i % 19 == 0:
            sent["timestamp"] = datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")
        wrong = rng.random() < (0.55 if country == "DE" and i > drift * predictions else 0.1)
        feedback = {"request_id": request_id, "label": "deny" if wrong else "approve", "timestamp": time + rng.randrange(DELAY)}

        raw = orjson.dumps(sent)
        send(i, Message("predictions", key, raw))
        of.predictions[canonical(prediction)] += 1
        if rng.random() < 0.02:
            send(i + rng.randrange(5_000), Message("predictions", key, raw))  # sent twice
        if rng.random() < 0.1:
            continue  # never labelled
        at = i + rng.randrange(-2_000, DELAY // STEP) if rng.random() < 0.1 else i + rng.randrange(DELAY // STEP)
        send(at, Message("feedback", key, orjson.dumps(feedback)))
        delay = feedback["timestamp"] - prediction["timestamp"]
        of.outcomes[canonical(prediction), canonical(feedback), delay] += 1
        if rng.random() < 0.02:
            send(at + rng.randrange(5_000), Message("feedback", key, orjson.dumps(feedback)))
        if rng.random() < 0.01:
            other = {**feedback, "label": "unsure"}
            send(at + 5_000 + rng.randrange(5_000), Message("feedback", key, orjson.dumps(other)))
            of.conflicts += 1
        if rng.random() < 0.01:
            value, reason = rng.choice(ODD)
            send(i, Message(rng.choice(("predictions", "feedback")), rng.choice((None, b"key")), value))
            of.dead[reason] += 1
    for i in range(50):
        send(-1, Message("feedback", b"orphan", orjson.dumps({"request_id": f"orphan-{i}", "label": 1, "timestamp": START})))
    if large:
        send(predictions / 2, Message("predictions", b"large", b'{"text":"' + b"x" * 10_000_000 + b'"}'))
        of.dead["too_large"] += 1
    timed.sort(key=lambda one: one[:2])
    of.messages = [message for _, _, message in timed]
    return of
