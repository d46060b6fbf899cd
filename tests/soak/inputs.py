"""Messages that come in the wrong order, twice, too late, from wrong clocks, or that are no events at all."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from tests.integration.command import Setting
from tests.integration.comparison import assert_alerts_are_the_fold, assert_is_the_plain_join, join_of_the_journal, plain_join
from tests.integration.workload import ODD, Message
from tests.soak.crashes import ONCE
from tests.soak.registry import fault
from tests.soak.trial import Trial, advances, until, workload

DAY = 86_400_000


def now() -> int:
    return int(time.time() * 1000)


def prediction(name: str, when: int, **fields: Any) -> Message:
    event = {"request_id": name, "model": "m", "model_version": "1", "timestamp": when, "prediction": "yes", **fields}
    return Message("predictions", name.encode(), orjson.dumps(event))


def feedback(name: str, when: int, label: str = "yes", **fields: Any) -> Message:
    return Message("feedback", name.encode(), orjson.dumps({"request_id": name, "label": label, "timestamp": when, **fields}))


def read_all(trial: Trial, messages: Sequence[Message], name: str) -> None:
    setting = trial.setting()
    setting.send(messages)
    expected = trial.settle(setting, messages)
    trial.figures[name] = expected.counts.get(name, 0)


@fault("feedback-first", "every feedback comes before its prediction", ONCE)
def feedback_first(trial: Trial) -> None:
    messages = workload(trial.seed)[:20_000]
    read_all(trial, sorted(messages, key=lambda message: message.topic != "feedback"), "joined")


@fault("twice", "every message comes three times", "joined once, the others are counted as duplicates; " + ONCE)
def twice(trial: Trial) -> None:
    read_all(trial, [message for message in workload(trial.seed)[:10_000] for _ in range(3)], "duplicate_predictions")


@fault(
    "contradicted", "each feedback is followed by one that contradicts it", "the first one counts; each contradiction is counted; " + ONCE
)
def contradicted(trial: Trial) -> None:
    messages = []
    for i in range(5_000):
        messages += [prediction(f"r{i}", now()), feedback(f"r{i}", now()), feedback(f"r{i}", now(), "no")]
    read_all(trial, messages, "conflicting")


@fault(
    "late",
    "feedback after the window, after window and slack, and never (window 4 s, slack 12 s)",
    "late is told to its model; later is an orphan, and told to the model that its label names; what got none expires; the counters add up",
)
def late(trial: Trial) -> None:
    setting = trial.setting('[join]\nwindow = "4s"\nslack = "12s"\n')
    names = {kind: [f"{kind}-{i}" for i in range(200)] for kind in ("in_time", "late", "later", "never")}

    sent = [prediction(name, now()) for group in names.values() for name in group]

    def feed(messages: list[Message]) -> dict[str, Any]:
        sent.extend(messages)
        setting.send(messages)
        return setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")

    def label(kind: str) -> list[Message]:
        """Every second label names its model."""
        return [feedback(name, now(), **({"model": "m", "model_version": "1"} if i % 2 else {})) for i, name in enumerate(names[kind])]

    setting.send(sent)
    feed(label("in_time"))
    began = time.monotonic()  # the journal's clock decides: what was sent by now is in it

    def wait(seconds: float) -> None:
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    wait(5.0)
    feed(label("late"))
    assert time.monotonic() - began < 16.0, "this machine is too slow for this fault: late is later"
    wait(17.0)
    feed(label("later"))
    wait(time.monotonic() - began + 17.0)
    summary = feed([prediction(f"clock-{i}", now()) for i in range(100)])
    n = Counter(summary["join"]["buckets"])
    issues = Counter(
        orjson.loads(r.value or b"")["issue"] for r in setting.read("observations") if r.headers["record"] == b"feedback_issue"
    )
    outcomes = sum(r.headers["record"] == b"outcome" for r in setting.read("observations"))
    trial.figures |= {name: n[name] for name in ("joined", "late", "expired", "orphan")}
    assert (n["joined"], outcomes) == (200, 200), n
    assert n["late"] == issues["late"] == 200, (n, issues)
    assert (n["expired"], n["orphan"], n["waiting_predictions"], n["waiting_feedback"]) == (400, 200, 100, 0), n
    expected = join_of_the_journal(setting, sent)
    assert_is_the_plain_join(setting, expected)
    cohorts = [orjson.loads(one) for one in expected.cohorts.elements()]
    trial.figures |= {"cohorts": len(cohorts), "orphans told": sum(one["orphans"] for one in cohorts)}
    assert (sum(one["labels"] for one in cohorts), trial.figures["orphans told"]) == (300, 100), cohorts


@fault("clock-off", "one host's clock is a day behind, another's a day ahead", "behind is joined as it is, ahead is a dead letter; " + ONCE)
def clock_off(trial: Trial) -> None:
    setting = trial.setting()
    messages: list[Message] = []
    ahead = 0
    for i in range(9_000):
        off = (0, -DAY, DAY)[i % 3]
        pair = [prediction(f"r{i}", now() + off), feedback(f"r{i}", now() + 1)]
        ahead += off > 0
        messages += pair
    setting.send(messages)
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    refused(trial, setting, messages, lambda event: event["timestamp"] > now() + 2 * 3_600_000, ahead)


def refused(trial: Trial, setting: Setting, messages: list[Message], of_the_future: Any, number: int) -> None:
    """Compares, where some messages are refused for their time."""
    kept = [message for message in messages if not of_the_future(orjson.loads(message.value or b""))]
    expected = plain_join(kept)
    expected.dead["in_the_future"] = number
    assert len(messages) - len(kept) == number
    assert_is_the_plain_join(setting, expected)
    trial.figures |= {
        "messages": len(messages),
        "pairs": expected.outcomes.total(),
        "refused": number,
        "alerts": assert_alerts_are_the_fold(setting),
    }


@fault("ten-years-ahead", "one message in ten is ten years ahead", "these are dead letters, nothing of the others is held up; " + ONCE)
def ten_years_ahead(trial: Trial) -> None:
    setting = trial.setting()
    messages: list[Message] = []
    for i in range(10_000):
        off = 3_650 * DAY if i % 10 == 0 else 0
        messages += [prediction(f"r{i}", now() + off), feedback(f"r{i}", now() + off)]
    setting.send(messages)
    setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    refused(trial, setting, messages, lambda event: event["timestamp"] > now() + DAY, 2_000)


@fault(
    "poison",
    "not JSON, not UTF-8, NaN, null, no id, a wrong type, 10 MB: one message in two",
    "dead letters with their reasons and their bytes; " + ONCE,
)
def poison(trial: Trial) -> None:
    rng = random.Random(trial.seed)
    messages: list[Message] = []
    for message in workload(trial.seed)[:15_000]:
        value, _ = rng.choice(ODD)
        messages += [message, Message(rng.choice(("predictions", "feedback")), rng.choice((None, b"key")), value)]
    messages.insert(5_000, Message("predictions", b"large", b'{"text":"' + b"x" * 10_000_000 + b'"}'))
    setting = trial.setting()
    setting.send(messages)
    expected = trial.settle(setting, messages)
    trial.figures["dead_letters"] = expected.dead.total()
    odd = {value for value, _ in ODD}
    originals = Counter(message.value for message in messages if message.value in odd)
    kept = Counter(record.value for record in setting.read("dead_letter") if "stream-monitor.original-size" not in record.headers)
    kept.pop(next((value for value in kept if value and len(value) > 200_000), b""), None)
    assert kept == originals


@fault(
    "only-poison",
    "nothing but poison for 20 s (--full: 10 minutes), then messages again",
    "all of it is a dead letter, and the run goes on; " + ONCE,
)
def only_poison(trial: Trial) -> None:
    rng = random.Random(trial.seed)
    seconds, rate = trial.seconds(20, 600), 2_000
    bad = [Message(rng.choice(("predictions", "feedback")), None, rng.choice(ODD)[0]) for _ in range(int(seconds * rate))]
    good = workload(trial.seed)[:5_000]
    setting = trial.setting()
    process = trial.start(setting)
    process.until_reading()
    with trial.feed(setting, bad, rate) as first:
        time.sleep(seconds)
    with trial.feed(setting, good, rate) as then:
        trial.recoveries.append(advances(setting))
        time.sleep(len(good) / rate)
    process.stop()
    trial.figures["dead_letters"] = len(first.sent)
    trial.settle(setting, [*first.sent, *then.sent])


@fault(
    "replay",
    "the observations are read again with other batches, another PYTHONHASHSEED and three kills",
    "the same alerts, byte for byte, each once",
)
def replay(trial: Trial) -> None:
    first = trial.setting()
    sent = workload(trial.seed)[:60_000]
    first.send(sent)
    trial.settle(first, sent)
    again = trial.setting(base="[run]\nbatch = 77\ntransaction_messages = 1000\n")
    again.file.write_text(again.file.read_text().replace(again.topics["observations"], first.topics["observations"]))
    for _ in range(3):
        process = trial.start(again, "--stage", "detect", PYTHONHASHSEED="2")
        process.until_said("detect: reading")
        time.sleep(trial.random.uniform(0.5, 3.0))
        process.kill()
    done = again.run("run", "--stage", "detect", "--until-end", env={"PYTHONHASHSEED": "3", "STREAM_MONITOR__INSTANCE_ID": "a"})
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = ([(r.key, r.value, r.headers) for r in setting.read("alerts")] for setting in (first, again))
    assert one, "there are no alerts to compare"
    assert one == two


@fault(
    "many-slices",
    "each prediction has a slice value of its own: 60,000 (--full: a million)",
    "memory is bounded by max_slices, the run goes on; " + ONCE,
)
def many_slices(trial: Trial) -> None:
    number = round(trial.seconds(60_000, 1_000_000))
    messages = [prediction(f"r{i}", now(), slices={"user": f"u{i}"}) for i in range(number)]
    messages += [feedback(f"r{i}", now()) for i in range(number)]
    setting = trial.setting(base="")
    setting.send(messages)
    process = trial.start(setting)
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, process.resident())
        return "committed" in process.said() and advanced() >= 2 * number

    def advanced() -> int:
        lines = [line for line in process.said().splitlines() if "committed: " in line and "detect " in line]
        return int(lines[-1].rsplit("detect ", 1)[1].split(" ")[0]) if lines else 0

    until(done, 600, "all observations to be read")
    process.stop()
    trial.figures["resident_MiB"] = most
    trial.settle(setting, messages, alerts=False)


@fault("partition-counts", "the input topics have 7 and 1 partitions, the journal 4", ONCE)
def partition_counts(trial: Trial) -> None:
    setting = trial.setting(partitions=(7, 1))
    messages = workload(trial.seed)[:30_000]
    setting.send(messages)
    trial.settle(setting, messages)
