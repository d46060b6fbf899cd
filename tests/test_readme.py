"""What the README tells a new user to do works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import orjson
import yaml

from stream_monitor.config import load
from stream_monitor.core.codec import Accepted, Codec
from stream_monitor.core.settings import EventSettings
from tests.integration.command import COMMAND, Setting
from tests.support.servers import KafkaServer, RedisServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines()]


def test_the_first_two_commands_set_up_and_run_the_demo_and_the_tests() -> None:
    demo, tests = commands()[:2]
    assert demo.endswith("stream-monitor demo")
    assert tests.endswith("pytest -n 2")


def test_ci_calls_exactly_the_test_command() -> None:
    assert commands()[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_events_are_accepted() -> None:
    prediction, feedback = blocks("json")
    codec = Codec(EventSettings())
    now = 1_709_734_200_000
    one, other = codec.prediction(prediction.encode(), now), codec.feedback(feedback.encode(), now)
    assert isinstance(one, Accepted)
    assert isinstance(other, Accepted)
    assert one.key == other.key


def test_the_configuration_is_enough(tmp_path: Path) -> None:
    [text] = blocks("toml")
    file = tmp_path / "monitor.toml"
    file.write_text(text)
    assert load(file, {}).kafka.bootstrap_servers == "localhost:9092"


def test_the_commands_do_what_is_said_of_them(kafka: KafkaServer, redis_server: RedisServer, namespace: str, tmp_path: Path) -> None:
    setting = Setting(tmp_path, kafka, redis_server, namespace)
    create, check, run, alerts = (shlex.split(line) for line in commands()[2:])
    assert {words[0] for words in (create, check, run, alerts)} == {"stream-monitor"}
    for words, more in ((create, []), (check, []), (run, ["--until-end"]), (alerts[:-1], [])):
        at = words.index("--config")
        arguments = words[1:at] + words[at + 2 :] + more
        done = setting.run(*arguments)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert COMMAND[-1] == "stream_monitor"


def test_the_line_of_an_alert_is_one_that_the_program_writes() -> None:
    from stream_monitor.cli import _line

    [line] = [block for block in blocks("") if "critical" in block]
    when, look, summary, short = re.fullmatch(r"(\S+ \S+)  (\w+)  (.*)  \[(\w+)\]\n", line).groups()  # type: ignore[union-attr]
    assert when == "2024-03-05 14:31:22"
    alert = {"detected_at": 1_709_649_082_000, "status": "firing", "severity": look, "summary": summary, "id": short + "0" * 20}
    assert _line(alert) == line.rstrip("\n")


def test_the_heading_of_an_incident_is_one_that_the_program_writes() -> None:
    from stream_monitor.cli import _heading
    from stream_monitor.io.alerts import incidents

    [line] = [block for block in blocks("") if block.startswith("incident")]
    short, model, explanation, alerts, firing = re.fullmatch(  # type: ignore[union-attr]
        r"incident (\w+)  (\w+): (.*); (\d+) alerts, (\d+) of them not over\n", line
    ).groups()
    [incident] = incidents(
        {
            "id": f"{short}{i}",
            "incident": short + "0",
            "model": model,
            "status": "firing" if i < int(firing) else "resolved",
            "summary": "s",
        }
        | {"details": {"attribution": [{"slice": {"key": "country", "value": "DE"}, "metric": "error", "share": 0.92}]}}
        for i in range(int(alerts))
    )
    assert incident.explanation == explanation
    assert _heading(incident) == line.rstrip("\n")


def test_every_command_of_the_program_is_told_of() -> None:
    for command in ("demo", "run", "check", "topics create", "alerts", "status", "reset"):
        assert f"stream-monitor {command}" in README


def test_the_compose_file_starts_everything_with_the_example_configuration() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert {"kafka", "redis", "topics", "monitor"} <= services.keys()
    for name in ("topics", "monitor"):
        environment = services[name]["environment"]
        config = load(ROOT / "monitor.example.toml", environment)
        assert config.kafka.bootstrap_servers == "kafka:19092"
        assert config.redis.url == "redis://redis:6379/0"
    assert "noeviction" in services["redis"]["command"]
    assert services["topics"]["command"][:3] == ["topics", "create", "--inputs"]


def test_examples_of_events_are_json() -> None:
    for block in blocks("json"):
        assert isinstance(orjson.loads(block), dict)
