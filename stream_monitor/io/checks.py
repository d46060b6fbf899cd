"""Whether everything outside is as the guarantees need it: brokers, topics, Redis. Every problem in one listing, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from redis.exceptions import RedisError

from stream_monitor.config import Config
from stream_monitor.errors import ConfigurationError, SetupError
from stream_monitor.io import topics
from stream_monitor.io.kafka import producer_properties, reader_properties
from stream_monitor.io.redis import connect
from stream_monitor.io.topics import Problem


def _silent(_line: str) -> None:
    pass


def properties(config: Config) -> None:
    """Raises ConfigurationError where the client does not take its properties: it alone knows which there are, and what they may be."""
    tables: tuple[tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any]], ...] = (
        ("properties", Producer, config.kafka_client()),
        ("consumer", Consumer, reader_properties(config.kafka_consumer(), "check")),
        ("producer", Producer, producer_properties(config.kafka_producer()) | {"transactional.id": "check"}),
    )
    for table, client, given in tables:
        try:
            client(given | {"bootstrap.servers": "", "log_level": 0})  # it is to connect to nothing
        except KafkaException as error:
            raise ConfigurationError(
                [f"kafka.{table}: {error.args[0].str()}"], "they are librdkafka's: its CONFIGURATION.md has every one with its values"
            ) from error


def everything(config: Config, passed: Callable[[str], None] = _silent) -> list[Problem]:
    """All problems; `passed` is told what is well."""
    return kafka(config, passed) + redis(config, passed)


def kafka(config: Config, passed: Callable[[str], None] = _silent) -> list[Problem]:
    """Problems with the brokers and topics."""
    wanted = topics.wanted(config)
    try:
        found = topics.problems(topics.admin(config), wanted, config.rebuild_ms)
    except SetupError as error:
        return [Problem(error.args[0], error.hint)]
    passed(f"Kafka at {config.kafka.bootstrap_servers} answers")
    for topic in wanted:
        if not any(problem.what.startswith(f"topic {topic.name} ") for problem in found):
            passed(f"topic {topic.name} ({topic.role})")
    return found


def redis(config: Config, passed: Callable[[str], None] = _silent) -> list[Problem]:
    """Problems with Redis: unreachable, too old, evicting, of another mode than configured."""
    where = config.redis.where
    try:
        client = connect(config.redis)
        try:
            nodes = _info(client, config.redis.mode == "cluster")
        finally:
            client.close()
    except SetupError as error:
        return [Problem(error.args[0], error.hint)]
    except (RedisError, OSError) as error:
        return [Problem(f"Redis at {where} does not answer: {error}", "check redis.url, the password, TLS and the network")]
    found = [problem for name, info in nodes.items() for problem in _judge(name or where, info, config.redis.mode)]
    if not found:
        passed(f"Redis at {where}: {_version(next(iter(nodes.values())))}, noeviction")
    return found


def _info(client: Any, cluster: bool) -> dict[str, Mapping[str, Any]]:
    """INFO of every primary, by its name."""
    if not cluster:
        return {"": client.info()}
    return {node.name: client.info(target_nodes=node) for node in client.get_primaries()}


def _judge(name: str, info: Mapping[str, Any], mode: str) -> list[Problem]:
    found = []
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        found.append(
            Problem(
                f"Redis at {name} has maxmemory-policy {policy}: it would drop waiting predictions when it is full",
                "redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)",
            )
        )
    valkey = "valkey_version" in info
    oldest = 8 if valkey else 7
    if int(str(info["valkey_version" if valkey else "redis_version"]).split(".")[0]) < oldest:
        found.append(Problem(f"Redis at {name} is {_version(info)}", "Redis 7 or Valkey 8 is needed, or newer"))
    clustered = info.get("redis_mode") == "cluster" or info.get("cluster_enabled") == 1
    if clustered != (mode == "cluster"):
        right = "cluster" if clustered else "single"
        found.append(Problem(f"Redis at {name} is {'' if clustered else 'not '}a Cluster", f'set redis.mode = "{right}"'))
    return found


def _version(info: Mapping[str, Any]) -> str:
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
