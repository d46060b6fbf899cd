"""What the [redis] table makes of a client: whom it talks to, and that it is encrypted where the url says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from stream_monitor.config import RedisConfig
from stream_monitor.errors import SetupError
from stream_monitor.io.redis import connect
from tests.support.servers import RedisServer, free_port

SENTINEL = {"mode": "sentinel", "sentinels": ["127.0.0.1:26379"]}


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
