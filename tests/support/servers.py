"""The servers that tests talk to. Always real ones; a missing server is an error with one sentence, never a skip.

`shared_kafka` and `shared_redis` (fixtures `kafka` and `redis_server`) take what the environment names, if it does:

    STREAM_MONITOR_TEST_KAFKA=host:port      STREAM_MONITOR_TEST_REDIS=redis://host:port/0

Otherwise, and always for tests that stop, kill or pause a server, one is started for the run: `start_kafka`,
`start_redis`, `start_redis_cluster`. STREAM_MONITOR_TEST_REDIS_SERVER=/usr/bin/redis-server names the program of these.
"""

from __future__ import annotations

import os

from tests.support.kafka import KafkaServer, start_kafka
from tests.support.process import ServerError, free_port
from tests.support.redis import RedisServer, start_redis, start_redis_cluster

__all__ = [
    "KafkaServer",
    "RedisServer",
    "ServerError",
    "free_port",
    "shared_kafka",
    "shared_redis",
    "start_kafka",
    "start_redis",
    "start_redis_cluster",
]


def shared_kafka(brokers: int = 1) -> KafkaServer:
    """The Kafka of the whole test run: STREAM_MONITOR_TEST_KAFKA, or as many brokers of our own."""
    given = os.environ.get("STREAM_MONITOR_TEST_KAFKA")
    if not given:
        return start_kafka(brokers)
    kafka = KafkaServer(given)
    kafka.wait_ready()
    return kafka


def shared_redis() -> RedisServer:
    """The Redis of the whole test run: STREAM_MONITOR_TEST_REDIS, or one of our own."""
    return RedisServer(given=os.environ.get("STREAM_MONITOR_TEST_REDIS", ""))
