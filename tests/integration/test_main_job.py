"""The real command on a real Kafka and Redis, against a plain join in memory: each pair once, whatever comes, however it is read."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.command import Setting
from tests.integration.comparison import assert_adds_up, assert_is_the_plain_join, plain_join
from tests.integration.workload import DRIFT, START, STEP, Message, Workload, make
from tests.support.servers import KafkaServer, RedisServer

PREDICTIONS = 105_000  # some 200,000 messages


@pytest.fixture(scope="module")
def workload() -> Workload:
    made = make(PREDICTIONS, seed=11)
    assert len(made.messages) > 200_000
    return made


@pytest.fixture(scope="module")
def small() -> Workload:
    return make(20_000, seed=12, large=False)


def assert_accounts(summary: dict[str, Any], workload: Workload) -> None:
    """Of one process that read everything: each stage's counters add up to what it committed, and the stages to each other."""
    route, join, detect = (Counter(summary[stage]["counters"]) for stage in ("route", "join", "detect"))
    read = {stage: summary[stage]["committed"] for stage in summary}
    assert read["route"] == route["predictions"] + route["feedback"] == len(workload.messages)
    dead = {name.removeprefix("dead_letter:"): n for name, n in route.items() if name.startswith("dead_letter:")}
    assert dead == dict(workload.dead)
    assert read["join"] == sum(join[name] for name in ("waiting", "joined", "duplicate", "conflicting", "late"))
    assert read["join"] == read["route"] - sum(dead.values())
    assert join["joined"] == join["outcome"] == workload.outcomes.total()
    assert read["detect"] == detect["observations"] == join["prediction"] + join["outcome"] + join["feedback_issue"]
    expected = plain_join(workload.messages)
    assert (expected.predictions, expected.outcomes) == (workload.predictions, workload.outcomes), "two ways to the same join"
    assert_adds_up(summary, expected)


def test_the_observations_are_the_plain_join_of_200_000_messages_of_every_oddity(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, workload: Workload
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    setting.create_topics()
    setting.send(workload.messages)
    summary = setting.until_end()
    assert_accounts(summary, workload)
    assert_is_the_plain_join(setting, workload)
    alerts = [orjson.loads(record.value or b"") for record in setting.read("alerts")]
    drifted = START + DRIFT * PREDICTIONS * STEP
    fired = {(a["model"], a["slice"] and a["slice"]["value"]) for a in alerts if a["status"] == "firing" and a["metric"] == "error"}
    assert {(f"model-{i}", "DE") for i in range(3)} <= fired
    assert all(slice_ in ("DE", None) for _, slice_ in fired)
    assert all(abs(a["first_seen"] - drifted) < 600_000 for a in alerts if a["metric"] == "error")


@pytest.mark.parametrize("kept", [[], ["country"]])
def test_a_contradiction_names_the_version_of_its_prediction_and_the_slices_where_that_is_asked(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, kept: list[str]
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace, f"[join]\nlabel_slices = {kept}\n")
    setting.create_topics()
    event = {"request_id": "r", "timestamp": START}
    prediction = {**event, "model": "credit", "model_version": "v3", "prediction": "yes", "slices": {"country": "DE", "device": "phone"}}
    label, other = (Message("feedback", b"r", orjson.dumps({**event, "label": answer})) for answer in ("yes", "no"))
    setting.send([Message("predictions", b"r", orjson.dumps(prediction)), label])
    setting.until_end()
    setting.send([other])
    setting.until_end()
    told = [orjson.loads(record.value or b"") for record in setting.read("observations") if record.key == b"credit"][-1]
    assert (told["record"], told["model"], told["model_version"]) == ("feedback_issue", "credit", "v3")
    assert told.get("slices") == ({"country": "DE"} if kept else None)


@pytest.mark.parametrize("batch", [300, 40_000])
def test_the_size_of_batches_and_transactions_changes_nothing(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, small: Workload, batch: int
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace, f"[run]\nbatch = {batch}\ntransaction_messages = {4 * batch}\n")
    setting.create_topics()
    setting.send(small.messages)
    assert_accounts(setting.until_end(), small)
    assert_is_the_plain_join(setting, small)


def test_the_same_observations_give_the_same_alerts_byte_for_byte(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, small: Workload
) -> None:
    first = Setting(tmp_path, kafka, redis_server, namespace)
    first.create_topics()
    first.send(small.messages)
    first.until_end(PYTHONHASHSEED="1")
    again = Setting(tmp_path, kafka, redis_server, f"{namespace}-again", "[run]\nbatch = 77\ntransaction_messages = 100\n")
    again.create_topics()
    text = again.file.read_text().replace(again.topics["observations"], first.topics["observations"])
    again.file.write_text(text)
    done = again.run("run", "--stage", "detect", "--until-end", env={"PYTHONHASHSEED": "2"})
    assert done.returncode == 0, done.stderr
    one, two = ([(r.key, r.value, r.headers) for r in setting.read("alerts")] for setting in (first, again))
    assert one
    assert one == two


def test_killed_again_and_again_nothing_is_lost_or_doubled(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, small: Workload
) -> None:
    tables = (
        '[kafka.consumer]\n"session.timeout.ms" = 1000\n"heartbeat.interval.ms" = 300\n[run]\nbatch = 500\ntransaction_messages = 1000\n'
        '[kafka.producer]\n"transaction.timeout.ms" = 5000\n'  # the next process has another name, and waits for the broker to roll back
    )
    setting = Setting(tmp_path, kafka, redis_server, namespace, tables)
    setting.create_topics()
    setting.send(small.messages)
    for i in range(4):
        process = setting.start("run")
        time.sleep(2.0 + 0.4 * i)
        process.kill()
        process.communicate()
    setting.until_end()
    assert_is_the_plain_join(setting, small)
    ids = [orjson.loads(record.value or b"")["event_id"] for record in setting.read("alerts")]
    assert ids
    assert len(ids) == len(set(ids))


def test_a_redis_that_forgets_everything_is_healed_from_the_journal(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, small: Workload
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    setting.create_topics()
    half = len(small.messages) // 2
    setting.send(small.messages[:half])
    setting.until_end()
    with redis_server.client() as client:
        gone = client.keys(f"*{{{namespace}:*")
        assert gone
        client.delete(*gone)
    setting.send(small.messages[half:])
    setting.until_end()
    assert_is_the_plain_join(setting, small)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_soon(
    kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path, small: Workload, number: signal.Signals
) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    setting.create_topics()
    setting.send(small.messages[:10_000])
    process = setting.start("run")
    deadline = time.monotonic() + 60
    while not setting.read("observations") and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == 0, printed
    assert printed.rstrip().endswith("ended")
