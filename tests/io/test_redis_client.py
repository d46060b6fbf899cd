"""What the [redis] table makes of a client: whom it talks to, and that it is encrypted where the url says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from stream_monitor.config import RedisConfig
from stream_monitor.io.redis import connect

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
