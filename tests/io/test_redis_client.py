"""What the [redis] table makes of a client: whom it talks to, and that it is encrypted where the url says so; what is waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from stream_monitor.config import RedisConfig
from stream_monitor.core.joining import Call
from stream_monitor.core.settings import JoinSettings
from stream_monitor.errors import SetupError
from stream_monitor.io.redis import RedisStore, UnansweredError, connect
from tests.support.servers import RedisServer, free_port

SENTINEL = {"mode": "sentinel", "sentinels": ["127.0.0.1:26379"]}


class Away:
    """A server that answers with troubles first, and never runs a script."""

    def __init__(self, *troubles: redis.RedisError) -> None:
        self.troubles = list(troubles)

    def hmget(self, key: bytes, *fields: str) -> list[bytes | None]:
        if self.troubles:
            raise self.troubles.pop(0)
        return [b"0", b"0", b"e1"]

    def script_load(self, script: bytes) -> str:
        raise redis.ConnectionError("nobody is there")

    def close(self) -> None: ...


def test_what_waits_for_an_answer_ends_when_the_store_is_closed() -> None:
    asked = threading.Event()
    store = RedisStore(Away(), "p", JoinSettings(), lambda seconds: threading.Event().wait(0.01), lambda trouble: asked.set())
    answers = store.submit([Call(0, 0, 1, 0, [], "e1")])
    assert asked.wait(10)
    closing = threading.Thread(target=store.close, daemon=True)
    closing.start()
    with pytest.raises(UnansweredError):
        answers.result(10)
    closing.join(10)
    assert not closing.is_alive()


@pytest.mark.parametrize(
    "trouble",
    [
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "Command # 1 (EVALSHA ...) of pipeline caused error: BUSY Redis is busy running a script.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "Command # 1 (EVALSHA ...) of pipeline caused error: NOREPLICAS Not enough good replicas to write.",
    ],
)
def test_what_passes_is_waited_for(trouble: str) -> None:
    said: list[str] = []
    store = RedisStore(Away(redis.ResponseError(trouble)), "p", JoinSettings(), lambda seconds: False, said.append)
    assert store.status(0).at == 0
    assert said == [f"ResponseError: {trouble}"]
    store.close()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("mode", [{}, SENTINEL])
def test_rediss_in_the_url_encrypts_whatever_the_mode(mode: dict[str, Any], encrypted: bool, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    tables = {"url": "rediss://127.0.0.1" if encrypted else "redis://127.0.0.1", "password": "secret", **mode}
    client = connect(RedisConfig.model_validate(tables | ({"tls_ca_file": str(authority)} if encrypted else {})))
    pools = [client.connection_pool]
    pools += [one.connection_pool for one in getattr(pools[0], "sentinel_manager", client).__dict__.get("sentinels", ())]
    assert len(pools) == (2 if mode else 1)
    for pool in pools:
        assert issubclass(pool.connection_class, redis.SSLConnection) is encrypted
        assert pool.connection_kwargs["password"] == "secret"
        assert pool.connection_kwargs.get("ssl_ca_certs") == (str(authority) if encrypted else None)
    client.close()


def test_a_redis_that_is_no_cluster_and_one_that_is_not_there_are_said(redis_server: RedisServer) -> None:
    for url in (redis_server.url, f"redis://:secret@127.0.0.1:{free_port()}/0"):
        with pytest.raises(SetupError, match=r"no Redis Cluster answers at (redis://)?127\.0\.0\.1:\d+") as said:
            connect(RedisConfig(url=url, mode="cluster"))
        assert "check redis.mode" in said.value.hint
        assert "secret" not in str(said.value)
