"""What every test may ask for.

Under `-n 2` each worker starts servers of its own, once; `namespace` keeps tests out of each other's way where both are given the same.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hatch_build import CORE, MODULES
from tests.support.servers import KafkaServer, RedisServer, shared_kafka, shared_redis


def pytest_configure() -> None:
    """What was compiled in place hides its source, so it must not be older."""
    for source in (Path(__file__).parents[1] / CORE / f"{name}.py" for name in MODULES):
        if any(built.stat().st_mtime < source.stat().st_mtime for built in source.parent.glob(f"{source.stem}.*.so")):
            pytest.exit(f"{source} has changed since it was compiled: python hatch_build.py, or git clean -fX stream_monitor", 4)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A real Kafka; clients need its `.bootstrap`. Topics have to be created; name them after `namespace`."""
    with shared_kafka() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis with noeviction; clients need its `.url`. Keys begin with `namespace`."""
    with shared_redis() as server:
        yield server


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A prefix for topics, groups, transactional ids and keys that no other test or run has."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    return f"{readable}-{uuid.uuid4().hex[:8]}"
