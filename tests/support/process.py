"""Programs that tests start, stop, kill, pause and start again.

A `Node` is one server, whatever runs it. It never outlives the test process: an orderly exit closes it, and on Linux
the kernel kills it with the thread that started it (so start servers from the main thread).
"""

from __future__ import annotations

import atexit
import contextlib
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from stream_monitor.io.embedded import dies_with_parent

# Below the range that systems give to outgoing connections: a client cannot take the port of a broker that is down.
_PORTS = range(20_000, 32_000)
_given: set[int] = set()


class ServerError(RuntimeError):
    """A server for the tests is missing or did not do what it was told; the message says what to do."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that this process has not given away yet."""
    choose = random.SystemRandom()  # a seeded test run must not make two runs on one machine agree on the ports
    for _ in range(1000):
        port = choose.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise ServerError(f"no free port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1")


class Node(Protocol):
    """One server. `stop` ends it in order, `kill` at once; after either, `start` goes on from the same data."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...
    @property
    def running(self) -> bool: ...
    def log_tail(self) -> str: ...


class Process:
    """A node that is a child process; everything it prints goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._log = log
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def start(self) -> None:
        if self.running:
            return
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the tests; they decide what happens to their servers
                preexec_fn=dies_with_parent(),
            )

    def _end(self, how: signal.Signals, timeout: float) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(how)
        child.send_signal(signal.SIGCONT)  # a paused process hears nothing but SIGKILL
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def stop(self) -> None:
        self._end(signal.SIGTERM, timeout=30)

    def kill(self) -> None:
        self._end(signal.SIGKILL, timeout=30)

    def close(self) -> None:
        self.kill()
        atexit.unregister(self.close)

    def wait(self) -> None:
        """Until it ends by itself. Raises ServerError if it fails."""
        code = self._child.wait() if self._child is not None else 0
        if code:
            raise ServerError(f"{' '.join(self._command)} failed:\n{self.log_tail()}")

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, what: signal.Signals) -> None:
        if self._child is None:
            raise ServerError("this server is not running")
        self._child.send_signal(what)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def log_tail(self) -> str:
        """The last lines it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:]) if self._log.exists() else ""
