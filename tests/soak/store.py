"""A Redis that forgets, fills up, falls silent, fails over or moves its slots."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.integration.command import Setting
from tests.integration.workload import Message
from tests.soak.crashes import ONCE
from tests.soak.inputs import feedback, now, prediction
from tests.soak.registry import fault
from tests.soak.trial import Committed, Trial, advances, until
from tests.support.process import Process as ServerProcess
from tests.support.process import free_port
from tests.support.proxy import Proxy
from tests.support.redis import Migration, redis_binary, start_cluster_replica
from tests.support.servers import RedisServer, start_redis_cluster

PREDICTIONS = 200_000  # of 4 KB
# At rest a process has 200 MiB. Each of three stages has fetched 64 MiB at most, and has given as much to its producer; two hold as much to
# align partitions, and what was fetched beyond; the join has three batches packed for Redis or unpacked: some 900, and what the
# allocator can not give back. With a producer's queue of 256 MiB, as it was, 1,037 were seen.
MOST_MIB = 1_000
HEALED = "healed from the journal without an operator; " + ONCE


def at(setting: Setting, url: str, more: str = "") -> None:
    """Makes the command reach Redis at another address. `more` are further lines of the [redis] table."""
    lines = setting.file.read_text().splitlines(keepends=True)
    setting.file.write_text("".join(f'url = "{url}"\n{more}' if line.startswith("url = ") else line for line in lines))


def again_and_again(trial: Trial, what: Callable[[Any], Any], times: int, every_s: float) -> None:
    """Does something to Redis under load, and notes how long after it join goes on."""
    server = trial.redis()
    setting = trial.setting(redis=server)
    with trial.under_load(setting), server.client() as client:
        for _ in range(times):
            time.sleep(every_s * trial.random.uniform(0.5, 1.5))
            what(client)
            trial.recoveries.append(advances(setting))
    trial.figures["times"] = times


@fault("flushall", "FLUSHALL ten times under load", HEALED)
def flushall(trial: Trial) -> None:
    again_and_again(trial, lambda client: client.flushall(), 10, 1.0)


@fault("script-flush", "SCRIPT FLUSH a hundred times under load", "the script is loaded again; " + ONCE)
def script_flush(trial: Trial) -> None:
    server = trial.redis()
    setting = trial.setting(redis=server)
    with trial.under_load(setting), server.client() as client:
        for _ in range(100):
            time.sleep(0.1)
            client.script_flush()
        trial.recoveries.append(advances(setting))
    trial.figures["times"] = 100


@fault(
    "redis-restarted-empty",
    "kill -9 of a Redis that keeps nothing, three times; it comes back empty after 2 s",
    "it waits and says so; " + HEALED,
)
def restarted_empty(trial: Trial) -> None:
    server = trial.redis()
    setting = trial.setting(redis=server)
    with trial.under_load(setting) as process:
        for _ in range(3):
            advances(setting)
            server.kill()
            time.sleep(2.0)
            server.restart()
            trial.recoveries.append(advances(setting))
        assert "join: Redis does not answer, waiting" in process.said()
    trial.figures["kills"] = 3


@fault(
    "redis-full",
    "maxmemory is reached under load, for 10 s",
    "it waits and says so, and goes on when it is given memory; nothing is evicted; " + ONCE,
)
def redis_full(trial: Trial) -> None:
    full(trial, 10.0)


def full(trial: Trial, seconds: float) -> None:
    server = trial.redis()
    setting = trial.setting(redis=server)
    with trial.under_load(setting) as process, server.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
        process.until_said("OutOfMemoryError")
        time.sleep(seconds)
        client.config_set("maxmemory", 0)
        trial.recoveries.append(advances(setting))
        assert client.info("stats")["evicted_keys"] == 0


@fault("redis-late-answer", "answers of Redis come after the time-out, again and again: executed, but nobody was told", ONCE)
def late_answer(trial: Trial) -> None:
    server = trial.redis()
    proxy = trial.own(Proxy(server.port))
    setting = trial.setting(redis=server)
    at(setting, f"redis://127.0.0.1:{proxy.port}/0", 'timeout = "300ms"\n')
    with trial.under_load(setting) as process:
        for _ in range(10):
            advances(setting)
            proxy.hold = 0.6
            time.sleep(trial.random.uniform(0.5, 1.5))
            proxy.hold = 0.0
        trial.recoveries.append(advances(setting))
        assert "TimeoutError" in process.said()
        trial.figures["unanswered"] = process.said().count("Redis does not answer")


@fault(
    "redis-cut-off",
    "join is cut off from Redis for 15 s (--full: 60 s), nothing is refused, nothing arrives",
    "it waits and says so; " + ONCE,
)
def redis_cut_off(trial: Trial) -> None:
    server = trial.redis()
    proxy = trial.own(Proxy(server.port))
    setting = trial.setting(redis=server)
    at(setting, f"redis://127.0.0.1:{proxy.port}/0", 'timeout = "1s"\n')
    with trial.under_load(setting) as process:
        proxy.cut()
        process.until_said("join: Redis does not answer")
        time.sleep(trial.seconds(15, 60))
        proxy.heal()
        trial.recoveries.append(advances(setting))


@fault(
    "slow-redis",
    "each answer of Redis, and each 64 KB of it, takes 100 ms, while 850 MB of messages are read",
    f"memory stays below {MOST_MIB} MiB, and it goes on as soon as Redis does; " + ONCE,
)
def slow_redis(trial: Trial) -> None:
    server = trial.redis()
    proxy = trial.own(Proxy(server.port))
    setting = trial.setting(redis=server, base="")
    at(setting, f"redis://127.0.0.1:{proxy.port}/0")
    messages: list[Message] = []
    for i in range(PREDICTIONS):
        messages += [prediction(f"r{i}", now(), note=trial.random.randbytes(2_000).hex()), feedback(f"r{i}", now())]
    setting.send(messages)
    proxy.hold = 0.1
    process = trial.start(setting)
    process.until_reading()
    began, most, read = time.monotonic(), 0, 0
    with contextlib.closing(Committed(setting, "detect")) as detect:

        def done() -> bool:
            nonlocal most, read
            most = max(most, process.resident())
            if proxy.hold and time.monotonic() - began > 30.0:
                read, proxy.hold = detect(), 0.0
            return not proxy.hold and detect() >= 2 * PREDICTIONS  # observations: each with its outcome

        until(done, 600, "the backlog to be read")
    process.stop()
    trial.figures |= {"read_while_it_was_slow": read, "resident_MiB": most}
    assert read < PREDICTIONS, "it was not slow enough to leave a backlog"
    assert 0 < most < MOST_MIB, f"{most} MiB"
    trial.settle(setting, messages)


@fault("redis-failover-behind", "the primary is killed; a replica that has missed its last second takes over; three times", HEALED)
def failover_behind(trial: Trial) -> None:
    primary = trial.redis()
    proxy = trial.own(Proxy(primary.port))
    setting = trial.setting(redis=primary)
    at(setting, f"redis://127.0.0.1:{proxy.port}/0")
    with trial.under_load(setting) as process:
        for _ in range(3):
            replica: RedisServer = trial.redis(replicaof=f"127.0.0.1 {primary.port}", repl_diskless_sync_delay="0")
            with primary.client() as old, replica.client() as new:
                until(lambda new=new: new.info("replication")["master_link_status"] == "up", 30, "the replica to be in step")  # type: ignore[misc]
                advances(setting)
                new.replicaof("NO", "ONE")  # here it stops following
                time.sleep(1.0)
                old.client_pause(1)
                primary.kill()
            primary, proxy.target = replica, replica.port
            proxy.drop()
            trial.recoveries.append(advances(setting))
        assert "the store knows bucket" in process.said(), "the replica was not behind"
        trial.figures["rewinds"] = process.said().count("the store knows bucket")


def takes_over(replica: RedisServer) -> float:
    """Waits until it is the primary, seconds; what was joined before is committed until then."""

    def is_primary() -> bool:
        with contextlib.suppress(redis.ConnectionError), replica.client() as client:  # who is promoted closes its connections
            return bool(client.info("replication")["role"] == "master")
        return False

    return until(is_primary, 60, "the replica to take over")


@fault("sentinel", "the primary that Sentinel watches is killed, with a replica that has missed its last 2 s", HEALED)
def sentinel(trial: Trial) -> None:
    primary, replica = trial.redis(), trial.redis()
    with replica.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))
        until(lambda: client.info("replication")["master_link_status"] == "up", 30, "the replica to be in step")
    watcher = Sentinel(primary.port)
    trial.own(watcher)
    until(lambda: watcher.replicas() == 1, 30, "Sentinel to find the replica")
    setting = trial.setting(redis=primary)
    at(setting, primary.url, f'mode = "sentinel"\nsentinels = ["127.0.0.1:{watcher.port}"]\ntimeout = "1s"\n')
    with trial.under_load(setting) as process:
        with replica.client() as follower, primary.client() as leader:
            follower.config_set("masterauth", "none")  # it is refused from now on; a link by way of a proxy Sentinel would mend
            leader.client_kill_filter(_type="replica")
        time.sleep(2.0)
        primary.kill()
        took = takes_over(replica)
        trial.recoveries.append(took + advances(setting))
        assert "the store knows bucket" in process.said(), "the replica was not behind"
        trial.figures["rewinds"] = process.said().count("the store knows bucket")


@fault(
    "cluster-failover",
    "a Cluster of three: the primary of a bucket is killed, its replica takes over",
    "it waits and says so; " + HEALED,
)
def cluster_failover(trial: Trial) -> None:
    servers = [trial.own(server) for server in start_redis_cluster(3)]
    setting = trial.setting(redis=servers[0])
    with servers[0].client() as client:
        slot = int(client.execute_command("CLUSTER", "KEYSLOT", f"{{{setting.namespace}:{setting.topics['journal']}:0}}"))
    primary = servers[slot * 3 // 16_384]
    replica = trial.own(start_cluster_replica(primary, 3))
    at(setting, next(server for server in servers if server is not primary).url, 'mode = "cluster"\ntimeout = "1s"\n')
    with trial.under_load(setting) as process:
        primary.kill()
        process.until_said("join: Redis does not answer")
        took = takes_over(replica)
        trial.recoveries.append(took + advances(setting))


class Sentinel:
    """One Sentinel that alone decides."""

    def __init__(self, primary: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stream-monitor-sentinel-", ignore_cleanup_errors=True)
        self.port = free_port()
        config = Path(self._folder.name) / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder.name}\nsentinel monitor mymaster 127.0.0.1 {primary} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        )
        self._process = ServerProcess([redis_binary(), str(config), "--sentinel"], Path(self._folder.name) / "log")
        self._process.start()

    def replicas(self) -> int:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            found = client.sentinel_masters()["mymaster"]
            return int(found["num-slaves"])
        return 0

    def close(self) -> None:
        self._process.close()
        self._folder.cleanup()


@fault(
    "slot-migration",
    "a Cluster of three under load, each bucket's slot is moved to the next node, twice",
    "it waits where it must and says so; " + ONCE,
)
def slot_migration(trial: Trial) -> None:
    servers = start_redis_cluster(3)
    for server in servers:
        trial.own(server)
    setting = trial.setting(redis=servers[0])
    at(setting, servers[0].url, 'mode = "cluster"\n')
    moved = 0
    with trial.under_load(setting) as process:
        for _ in range(2):
            for bucket in range(4):
                with Migration(servers, f"{{{setting.namespace}:{setting.topics['journal']}:{bucket}}}") as migration:
                    moved += migration.finish(slowly=0.01)
            trial.recoveries.append(advances(setting))
        trial.figures["keys_moved"] = moved
        trial.figures["waits"] = process.said().count("Redis does not answer")
