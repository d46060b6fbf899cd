"""`check`, `topics create`, `run` and `alerts` say what is wrong and what to do, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.command import Setting
from tests.integration.workload import make
from tests.support.servers import KafkaServer, RedisServer


@pytest.fixture
def setting(kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path) -> Setting:
    return Setting(tmp_path, kafka, redis_server, namespace)


def test_check_lists_every_missing_topic_and_passes_when_they_are_created(setting: Setting) -> None:
    before = setting.run("check")
    assert before.returncode == 1
    for name in setting.topics.values():
        assert f"topic {name} " in before.stdout
    created = setting.run("topics", "create", "--inputs")
    assert created.returncode == 0, created.stderr
    assert sorted(created.stdout.split()[1::2]) == sorted(setting.topics.values())
    after = setting.run("check")
    assert after.returncode == 0, after.stdout
    assert "problem" not in after.stdout
    assert "already" in setting.run("topics", "create", "--inputs").stdout


def test_run_creates_nothing_unless_told_to_and_names_what_is_missing(setting: Setting) -> None:
    done = setting.run("run", "--until-end")
    assert done.returncode == 3
    assert setting.topics["journal"] in done.stderr
    assert "topics create" in done.stderr
    assert not AdminClient({"bootstrap.servers": setting.kafka.bootstrap}).list_topics(timeout=10).topics.keys() & set(
        setting.topics.values()
    )


def test_run_creates_its_own_topics_where_the_configuration_says_so(setting: Setting) -> None:
    admin = AdminClient({"bootstrap.servers": setting.kafka.bootstrap})
    for future in admin.create_topics([NewTopic(setting.topics[name], 1, 1) for name in ("predictions", "feedback")]).values():
        future.result(30)
    setting.file.write_text(setting.file.read_text().replace("[topics]\n", "[topics]\ncreate = true\n"))
    done = setting.run("run", "--until-end")
    assert done.returncode == 0, done.stderr
    assert setting.run("check").returncode == 0


def test_check_names_topics_that_would_break_the_guarantees(setting: Setting) -> None:
    admin = AdminClient({"bootstrap.servers": setting.kafka.bootstrap})
    wrong = [
        NewTopic(setting.topics["journal"], 7, 1, config={"retention.ms": "60000"}),
        NewTopic(setting.topics["observations"], 4, 1, config={"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}),
        NewTopic(setting.topics["state"], 1, 1, config={"max.message.bytes": "1000"}),
    ]
    for future in admin.create_topics(wrong).values():
        future.result(30)
    said = setting.run("check").stdout
    assert "has 7 partitions, topics.partitions says 4" in said
    assert "message.timestamp.type=CreateTime" in said
    assert "retention.ms=60000" in said
    assert "cleanup.policy=compact" in said
    assert "cleanup.policy=delete; cleanup.policy=compact is needed" in said
    assert f"topic {setting.topics['state']} (state) has 1 partitions, 4 are needed" in said
    assert "max.message.bytes=1000; max.message.bytes=1048588 is needed" in said
    assert "kafka-configs.sh" in said


def test_check_names_a_redis_that_evicts(setting: Setting, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            said = setting.run("check").stdout
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy allkeys-lru" in said


def test_check_says_so_when_neither_kafka_nor_redis_answers(setting: Setting) -> None:
    text = setting.file.read_text().replace(setting.kafka.bootstrap, "127.0.0.1:1")
    setting.file.write_text(text)
    done = setting.run("check", env={"STREAM_MONITOR__REDIS__URL": "redis://127.0.0.1:2/0"})
    assert done.returncode == 1
    assert "no Kafka broker answers" in done.stdout
    assert "Redis at redis://127.0.0.1:2/0 does not answer" in done.stdout


def test_a_wrong_configuration_stops_at_the_start_with_every_problem(setting: Setting) -> None:
    setting.file.write_text(setting.file.read_text() + "[join]\nwindw = 3\nslack = 'soon'\n")
    done = setting.run("run")
    assert done.returncode == 2
    assert "join.windw: there is no such key; did you mean window?" in done.stderr
    assert "join.slack" in done.stderr
    assert setting.run("check").returncode == 1


def test_alerts_of_an_empty_topic_are_none_and_a_missing_topic_is_said(setting: Setting) -> None:
    missing = setting.run("alerts")
    assert missing.returncode == 3
    assert "topics create" in missing.stderr
    setting.run("topics", "create")
    empty = setting.run("alerts", "--json")
    assert (empty.returncode, empty.stdout) == (0, "")


def test_status_says_what_is_missing_then_what_was_spent_and_read_without_asking_the_process(setting: Setting) -> None:
    missing = setting.run("status")
    assert missing.returncode == 3
    assert f"topics {setting.topics['predictions']}, {setting.topics['feedback']} do not exist" in missing.stderr
    assert "topics create makes what is missing, with --inputs" in missing.stderr
    setting.create_topics()
    empty = setting.run("status")
    assert empty.returncode == 0, empty.stderr
    assert "never read" in empty.stdout
    setting.send(make(4_000, seed=5, large=False).messages)
    for stage in ("route", "join"):
        assert setting.run("run", "--stage", stage, "--until-end").returncode == 0
    before = setting.run("status")
    assert "there is no snapshot yet" in before.stdout
    summary = setting.until_end()
    data = json.loads(setting.run("status", "--json").stdout)
    assert {(one["stage"], one["lag"], one["never_read"]) for one in data["lag"]} >= {("join", 0, 0), ("route", 0, 0)}
    buckets = summary["join"]["buckets"]
    assert [(side["side"], side["read"], side["joined"]) for side in data["join"]] == [
        (name, buckets[name], buckets["joined"]) for name in ("predictions", "feedback")
    ]
    written = [one for one in data["partitions"] if one["offset"]]
    assert written
    assert all(one["age_ms"] < 120_000 and not one["problems"] for one in written)
    assert data["counters"]["streams"] > 0
    assert {version["model"] for version in data["versions"]} == {owner["model"] for owner in data["owners"]}
    counters = summary["detect"]["counters"]
    assert len(data["firing"]) == counters.get("firing", 0) - counters.get("resolved", 0)
    assert "stream_monitor_lag_offsets" in setting.run("status", "--prometheus").stdout
    away = setting.run("status", env={"STREAM_MONITOR__REDIS__URL": "redis://127.0.0.1:1/0"})
    assert away.returncode == 0
    assert "the join's accounting is left out: Redis does not answer" in away.stderr
    assert "Budget by owner" in away.stdout
    assert setting.run("status", "--json", "--prometheus").returncode == 2


def test_the_alerts_of_an_incident_are_told_under_what_explains_it_best(setting: Setting) -> None:
    setting.run("topics", "create")
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap})
    entry = {"slice": {"key": "country", "value": "DE"}, "metric": "error", "share": 0.92}
    for i, attribution in enumerate(([], [entry])):
        alert = {"id": str(i) * 32, "incident": "0" * 32, "model": "credit", "status": "firing", "severity": "critical", "detected_at": i}
        value = {**alert, "summary": f"summary {i}", "details": {"attribution": attribution}}
        producer.produce(setting.topics["alerts"], json.dumps(value).encode(), b"credit")
    producer.flush(30)
    heading, first, second = setting.run("alerts").stdout.splitlines()
    explanation = "country=DE explains 92% of the change of error in all traffic"
    assert heading == f"incident {'0' * 12}  credit: {explanation}; 2 alerts, 2 of them not over"
    assert ("summary 1" in first, "summary 0" in second) == (True, True)
    assert [json.loads(line)["summary"] for line in setting.run("alerts", "--json").stdout.splitlines()] == ["summary 0", "summary 1"]


def test_a_decision_repeats_all_of_what_the_alert_says(setting: Setting) -> None:
    setting.run("topics", "create")
    summary = "credit v3: error for country=DE rose from 0.103 to 0.455 (since 2024-03-05 13:24 UTC); country=DE explains 92% of the change"
    place = {"topic": setting.topics["observations"], "partition": 0, "offset": 7}
    alert = {"id": "a" * 32, "fingerprint": "b" * 32, "model": "credit", "status": "firing", "summary": summary, "position": place}
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap})
    producer.produce(setting.topics["alerts"], json.dumps(alert).encode())
    producer.flush(30)
    done = setting.run("acknowledge", "aa")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"acknowledge alert {'a' * 12}: {summary}\nwritten to ")
