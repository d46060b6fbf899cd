"""The real command talks to its Redis by TLS and with a password, and to none whose certificate it has no reason to trust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.command import Setting
from tests.integration.comparison import assert_is_the_plain_join
from tests.integration.workload import make
from tests.support.servers import KafkaServer, start_redis
from tests.support.tls import TlsFront

PASSWORD = "a secret"


@pytest.fixture
def front() -> Iterator[TlsFront]:
    with start_redis() as server, TlsFront(server.port) as front:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        yield front


def environment(front: TlsFront, **more: str | None) -> dict[str, str]:
    known = {"URL": "rediss://localhost:{port}/0", "PASSWORD": PASSWORD, "TLS_CA_FILE": str(front.authority)}
    said = {name: value.format(port=front.port) for name, value in (known | more).items() if value is not None}
    return {f"STREAM_MONITOR__REDIS__{name}": value for name, value in said.items()}


def test_a_redis_behind_tls_and_a_password_is_joined_in(kafka: KafkaServer, front: TlsFront, namespace: str, tmp_path: Path) -> None:
    with start_redis() as unused:
        setting = Setting(tmp_path, kafka, unused, namespace)
    setting.create_topics()
    workload = make(3_000, seed=5, large=False)
    setting.send(workload.messages)
    setting.until_end(**environment(front))
    assert_is_the_plain_join(setting, workload)
    assert front.connections > 0
    checked = setting.run("check", env=environment(front))
    assert "noeviction" in checked.stdout
    assert str(PASSWORD) not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TLS_CA_FILE": None}, "certificate"),
        ({"PASSWORD": "another"}, "password"),
        ({"URL": "redis://localhost:{port}/0", "TLS_CA_FILE": None}, "closed"),
    ],
)
def test_check_says_what_keeps_it_from_its_redis(
    kafka: KafkaServer, front: TlsFront, namespace: str, tmp_path: Path, wrong: dict[str, str | None], said: str
) -> None:
    with start_redis() as unused:
        setting = Setting(tmp_path, kafka, unused, namespace)
    checked = setting.run("check", env=environment(front, **wrong))
    print(checked.stdout, checked.stderr)
    assert checked.returncode == 1
    [problem] = [line for line in checked.stdout.splitlines() if "problem" in line and "Redis" in line]
    assert said in problem.lower(), problem
