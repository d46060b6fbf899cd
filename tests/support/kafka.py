"""A real Kafka (KRaft) for tests: in Docker if an engine answers, else the broker's jars by Maven, with Java 17.

    with start_kafka() as kafka: Producer({"bootstrap.servers": kafka.bootstrap})
    with start_kafka(brokers=3) as kafka:       # everything is replicated on all three
        kafka.kill(1)                           # SIGKILL of the second broker
        kafka.restart(1)                        # the same port, the same data

Topics are never created by asking for them. Nothing is deleted by age unless a topic asks for it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.process import Node, Process, ServerError, free_port

IMAGE = "apache/kafka:4.2.0"
_POM = Path(__file__).with_name("kafka-broker") / "pom.xml"
_START_SECONDS = 120.0
_QUIET_LOG = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
"""


class KafkaServer:
    """A cluster of brokers, counted from 0. `bootstrap` stays the same over `kill` and `restart`.

    Without `nodes`, a cluster that somebody else runs: it has a `bootstrap` and nothing else.
    """

    def __init__(self, bootstrap: str, nodes: Sequence[Node] = (), cleanup: contextlib.ExitStack | None = None) -> None:
        self.bootstrap = bootstrap
        self.client_port = 0  # of a broker behind a proxy
        self._nodes = nodes
        self._cleanup = cleanup or contextlib.ExitStack()

    def node(self, i: int = 0) -> Node:
        if not self._nodes:
            raise ServerError("this test stops its Kafka, so it needs one of its own: call start_kafka()")
        return self._nodes[i]

    @property
    def brokers(self) -> int:
        """How many there are; 0 where somebody else knows."""
        return len(self._nodes)

    def _chosen(self, which: Sequence[int]) -> list[Node]:
        """The nodes of these brokers; all of them where none is named."""
        return [self.node(i) for i in which or range(max(1, self.brokers))]

    def stop(self, *which: int) -> None:
        """End these brokers in order, or all of them."""
        for node in self._chosen(which):
            node.stop()

    def kill(self, *which: int) -> None:
        """End these brokers at once (SIGKILL), or all of them."""
        for node in self._chosen(which):
            node.kill()

    def pause(self, i: int = 0) -> None:
        """Hang one broker: its connections stay open and nobody answers (SIGSTOP)."""
        self.node(i).pause()

    def resume(self, i: int = 0) -> None:
        self.node(i).resume()

    def restart(self, *which: int) -> None:
        """Start these brokers again on the same data, or all of them; returns when clients can reach them."""
        chosen = self._chosen(which)
        for node in chosen:
            node.stop()
        for node in chosen:
            node.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every running broker is in the cluster's metadata. Raises ServerError with the log of a dead one."""
        running = [i for i, node in enumerate(self._nodes) if node.running]
        deadline = time.monotonic() + _START_SECONDS
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        expected = {i + 1 for i in running}
        while True:
            with contextlib.suppress(KafkaException):
                seen = set(client.list_topics(timeout=1).brokers)
                if seen and expected <= seen:
                    return
            dead = [i for i in running if not self._nodes[i].running]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(self._nodes[i].log_tail() for i in dead or running)
                what = "ended while starting" if dead else f"was not ready after {_START_SECONDS:.0f} s"
                raise ServerError(f"Kafka at {self.bootstrap} {what}; its log ends with:\n{logs}")
            time.sleep(0.1)

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_kafka(brokers: int = 1, behind: int = 0, long_lived: bool = False, **properties: str) -> KafkaServer:
    """A cluster of one's own, to be closed by whoever started it.

    `behind`: the port of a proxy (tests/support/proxy.py) by which its clients are to reach the one broker; `client_port` of the
    server is where the proxy has to lead. `bootstrap` stays the direct way, for the test's own clients.
    `long_lived`: more memory, and compiled well rather than soon, which pays after a minute of load.
    `properties` are lines of server.properties (`_` for `.`). Raises ServerError, naming every way to give a Kafka.
    """
    missing = []
    for way in (_in_docker, _from_jars):
        try:
            return way(brokers, behind, long_lived, {name.replace("_", "."): value for name, value in properties.items()})
        except _UnavailableError as reason:
            missing.append(str(reason))
    raise ServerError(
        "No Kafka for the tests: set STREAM_MONITOR_TEST_KAFKA to the host:port of one (4.0 or newer), "
        f"start Docker, or install Java 17 and Maven ({'; '.join(missing)})."
    )


class _UnavailableError(Exception):
    """This way is not open on this machine."""


def _behind(port: int, bind: str, behind: int) -> dict[str, str]:
    """A second listener at `port`, which tells clients that the broker is at the proxy."""
    return {
        "listeners": f"CLIENTS://{bind}:{port}",
        "advertised.listeners": f"CLIENTS://127.0.0.1:{behind}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT",
    }


def _with(properties: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Both; lists are joined."""
    return properties | {name: f"{properties[name]},{value}" if name in properties else value for name, value in more.items()}


def _properties(i: int, ports: Sequence[tuple[int, int]], bind: str, data: str, more: dict[str, str]) -> dict[str, str]:
    """server.properties of broker `i`; `ports` has a client port and a controller port a broker."""
    brokers = len(ports)
    replicas = str(min(3, brokers))
    in_sync = "2" if brokers >= 3 else "1"
    return {
        "process.roles": "broker,controller",
        "node.id": str(i + 1),
        "controller.quorum.voters": ",".join(f"{n + 1}@127.0.0.1:{port}" for n, (_, port) in enumerate(ports)),
        "listeners": f"PLAINTEXT://{bind}:{ports[i][0]},CONTROLLER://{bind}:{ports[i][1]}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports[i][0]}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # tests of crashed members do not wait the usual six seconds
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "3000",  # with group.protocol = consumer (KIP-848) the broker says both, not the member
        "group.consumer.min.heartbeat.interval.ms": "100",
        "group.consumer.heartbeat.interval.ms": "500",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "4000",  # a killed broker comes back only once the cluster has given it up
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.retention.ms": "-1",  # events of tests carry old timestamps and must stay
        "log.cleaner.dedupe.buffer.size": "16777216",  # the default takes a quarter of the small heap
        "message.max.bytes": "12000000",
        "num.partitions": "4",
        **more,
    }


def _heap(long_lived: bool) -> str:
    return "-Xmx1g" if long_lived else "-Xmx512m"


def _cluster_id() -> str:
    # Its first byte is fixed: an id that began with "-" would be taken for an option.
    return base64.urlsafe_b64encode(b"k" + uuid.uuid4().bytes[1:]).decode().rstrip("=")


def _cluster(nodes: Sequence[Node], ports: Sequence[tuple[int, int]], cleanup: contextlib.ExitStack) -> KafkaServer:
    cluster = KafkaServer(",".join(f"127.0.0.1:{port}" for port, _ in ports), nodes, cleanup)
    try:
        for node in nodes:
            node.start()
        cluster.wait_ready()
    except BaseException:
        cluster.close()
        raise
    return cluster


# --- the broker's jars -----------------------------------------------------------------------------------------------


_SOON = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # half the CPU of a start is the second compiler


def _from_jars(brokers: int, behind: int, long_lived: bool, more: dict[str, str]) -> KafkaServer:
    program = java()
    classpath = f"{kafka_jars()}/*"
    cleanup = contextlib.ExitStack()
    holder = tempfile.TemporaryDirectory(prefix="stream-monitor-kafka-", ignore_cleanup_errors=True)
    folder = Path(cleanup.enter_context(holder))
    ports = [(free_port(), free_port()) for _ in range(brokers)]
    client_port = free_port() if behind else 0
    cluster_id = _cluster_id()
    logging = folder / "log4j2.properties"
    logging.write_text(_QUIET_LOG)
    common = [f"-Dlog4j2.configurationFile={logging}", "-cp", classpath]
    formats, nodes = [], []
    for i in range(brokers):
        home = folder / str(i)
        home.mkdir()
        lines = _properties(i, ports, "127.0.0.1", str(home / "data"), more)
        if behind:
            lines = _with(lines, _behind(client_port, "127.0.0.1", behind))
        config = home / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        log = home / "kafka.log"
        formatter = Process([program, *_SOON, *common, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)], log)
        formats.append(formatter)
        nodes.append(Process([program, *([] if long_lived else _SOON), _heap(long_lived), *common, "kafka.Kafka", str(config)], log))
    for formatter in formats:
        formatter.start()
    for formatter in formats:
        formatter.wait()
    cluster = _cluster(nodes, ports, cleanup)
    cluster.client_port = client_port
    return cluster


@functools.cache
def java() -> str:
    """The `java` to run, 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if found is None or not Path(found).exists():
        raise _UnavailableError("no java on the PATH")
    shown = subprocess.run([found, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    version = re.search(r'version "(\d+)', shown.stderr)
    if version is None or int(version[1]) < 17:
        raise _UnavailableError(f"{found} is older than 17")
    return found


@functools.cache
def kafka_jars() -> Path:
    """The folder with the broker's jars, fetched by Maven once for each content of the pom."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stream-monitor"
    jars = home / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise _UnavailableError("no mvn on the PATH")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as work:
        fetched = Path(work, "jars")
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(_POM), *goal],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode or not fetched.is_dir():
            raise ServerError(f"Maven could not fetch Kafka's jars:\n{(done.stdout + done.stderr)[-2000:]}")
        with contextlib.suppress(OSError):  # another test run was faster: its jars are the same
            fetched.rename(jars)
    return jars


# --- Docker ----------------------------------------------------------------------------------------------------------


class _Container:
    """A node that is a Docker container; killed and started again, it keeps its data."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._created = False

    def start(self) -> None:
        if not self._created:
            self._container.start()
            self._created = True
        elif not self.running:
            self._wrapped.start()

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    def stop(self) -> None:
        if self.running:
            self._wrapped.stop(timeout=30)

    def kill(self) -> None:
        if self.running:
            self._wrapped.kill()

    def pause(self) -> None:
        self._wrapped.pause()

    def resume(self) -> None:
        self._wrapped.unpause()

    def close(self) -> None:
        if self._created:
            self._container.stop()  # testcontainers' name for: remove, with its volumes

    @property
    def running(self) -> bool:
        if not self._created:
            return False
        self._wrapped.reload()
        return bool(self._wrapped.status in ("running", "paused"))

    def log_tail(self) -> str:
        return str(self._wrapped.logs(tail=30).decode(errors="replace")) if self._created else ""


def _in_docker(brokers: int, behind: int, long_lived: bool, more: dict[str, str]) -> KafkaServer:
    """All brokers share the network of one idle container, which publishes their ports: 127.0.0.1:port is the same
    broker from inside and from outside, so one advertised address serves both, whatever the host system."""
    import docker
    from testcontainers.core.container import DockerContainer

    try:
        docker.from_env(timeout=5).ping()
    except docker.errors.DockerException as error:
        raise _UnavailableError("no Docker engine answers") from error

    ports = [(free_port(), free_port()) for _ in range(brokers)]
    client_port = free_port() if behind else 0
    network = DockerContainer(IMAGE).with_kwargs(entrypoint=["sleep", "infinity"])
    for port in [port for port, _ in ports] + [client_port] * bool(behind):
        network.with_bind_ports(port, port)
    holder = _Container(network)
    cleanup = contextlib.ExitStack()
    cleanup.callback(holder.close)
    holder.start()
    cluster_id = _cluster_id()
    nodes = []
    for i in range(brokers):
        container = DockerContainer(IMAGE).with_kwargs(network_mode=f"container:{network.get_wrapped_container().id}")
        lines = _properties(i, ports, "0.0.0.0", "/tmp/kafka-data", more)
        if behind:
            lines = _with(lines, _behind(client_port, "0.0.0.0", behind))
        for name, value in lines.items():
            container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
        container.with_env("CLUSTER_ID", cluster_id).with_env("KAFKA_HEAP_OPTS", _heap(long_lived))
        nodes.append(_Container(container))
    cluster = _cluster(nodes, ports, cleanup)
    cluster.client_port = client_port
    return cluster
