"""An operator's decision finds its alert and the log that the alert lives in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner

from stream_monitor.cli import app
from stream_monitor.core.control import Decision, decide
from stream_monitor.errors import SetupError, StreamMonitorError
from stream_monitor.io.control import find, send
from stream_monitor.io.embedded import EmbeddedKafka


def event(id_: str, status: str = "firing", **fields: Any) -> dict[str, Any]:
    position = {"topic": "observations", "partition": 2, "offset": 7}
    alert = {"id": id_, "incident": id_, "fingerprint": "f", "model": "credit", "status": status, "summary": "s", "position": position}
    return alert | fields


def test_the_newest_event_about_the_alert_is_found_by_as_much_of_its_id_as_is_unique() -> None:
    events = [event("abc1"), event("abd2"), event("abc1", "updated")]
    assert find(events, "abc")["status"] == "updated"
    assert find(events, " ABD ")["id"] == "abd2"


def test_a_whole_id_is_enough_even_if_another_begins_with_it() -> None:
    assert find([event("ab"), event("abc")], "ab")["id"] == "ab"


@pytest.mark.parametrize("prefix", ["x", "", "  ", "abc12"])
def test_an_id_that_is_not_known_is_said(prefix: str) -> None:
    with pytest.raises(StreamMonitorError, match="there is no alert whose id begins with"):
        find([event("abc1")], prefix)


def test_an_id_that_is_not_unique_is_said_with_what_it_may_mean() -> None:
    with pytest.raises(StreamMonitorError, match=r"2 alerts .*'ab':\n  abc1  s\n  abd2  s\n  hint: give more of it"):
        find([event("abc1"), event("abd2")], "ab")


@pytest.mark.parametrize("broken", [{"position": None}, {"model": 7}, {"position": {"topic": "o", "partition": "2"}}])
def test_a_record_that_is_none_of_ours_is_said(broken: dict[str, Any]) -> None:
    with pytest.raises(StreamMonitorError, match="is none that stream monitor writes"):
        find([event("abc1", **broken)], "abc1")


def test_it_is_written_to_the_partition_that_the_alert_came_from() -> None:
    alert = event("abc1")
    with EmbeddedKafka() as kafka:
        client = {"bootstrap.servers": kafka.bootstrap}
        reader = Consumer(client | {"group.id": "reader"})
        try:
            reader.list_topics("observations", 20)
            place = send(client, "observations", alert, decide("silence", alert, 1_000, until=2_000, by="ann"))
            assert (place.topic, place.partition) == ("observations", 2)
            reader.assign([TopicPartition("observations", 2, place.offset)])
            message = reader.poll(20)
        finally:
            reader.close()
    assert message is not None
    assert (message.key(), message.headers()) == (b"credit", [("record", b"control")])
    assert Decision.of(orjson.loads(message.value() or b"")) is not None


def test_an_alert_of_another_log_is_refused() -> None:
    with pytest.raises(SetupError, match=r"the alert comes from topic observations, topics\.observations is other"):
        send({}, "other", event("abc1"), b"")


def test_the_command_finds_the_alert_on_its_topic_and_says_where_it_wrote_the_decision(tmp_path: Path) -> None:
    with EmbeddedKafka() as kafka:
        file = tmp_path / "monitor.toml"
        file.write_text(f'[kafka]\nbootstrap_servers = "{kafka.bootstrap}"\nproperties = {{ log_level = 0 }}\n')
        position = {"topic": "stream-monitor.observations", "partition": 1, "offset": 7}
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        for topic in ("stream-monitor.alerts", "stream-monitor.observations"):
            producer.list_topics(topic, 20)
        producer.produce("stream-monitor.alerts", orjson.dumps(event("abc1" * 8, position=position)))
        producer.flush(20)
        done = CliRunner().invoke(app, ["silence", "abc1", "--config", str(file), "--for", "2h", "--by", "ann"])
        again = CliRunner().invoke(app, ["acknowledge", "abc1", "--config", str(file), "--incident"])
        wrong = CliRunner().invoke(app, ["resolve", "zzz", "--config", str(file)])
        what = CliRunner().invoke(app, ["silence", "abc1", "--config", str(file), "--for", "soon"])
        written = [decision for decision in read_all(kafka, "stream-monitor.observations", 1) if decision is not None]
    assert done.exit_code == again.exit_code == 0, done.output + again.output
    assert "silence alert abc1abc1abc1 until " in done.output
    assert "written to stream-monitor.observations/1 at 0" in done.output
    assert isinstance(wrong.exception, StreamMonitorError)
    assert what.exit_code == 2
    [one, other] = written
    assert (one.action, one.alert, one.fingerprint, one.note["by"]) == ("silence", "abc1" * 8, "f", "ann")
    assert one.until is not None
    assert one.until - one.note["at"] == pytest.approx(7_200_000, abs=60_000)
    assert (other.action, other.incident, other.alert) == ("acknowledge", True, "abc1" * 8)


def read_all(kafka: EmbeddedKafka, topic: str, partition: int) -> list[Decision | None]:
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "enable.partition.eof": True}
    reader = Consumer(settings)
    found: list[Decision | None] = []
    try:
        reader.assign([TopicPartition(topic, partition, 0)])
        while (message := reader.poll(20)) is not None and message.error() is None:
            found.append(Decision.of(orjson.loads(message.value() or b"")))
    finally:
        reader.close()
    return found
