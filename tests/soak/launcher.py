"""Runs stream monitor's own command with one flaw put into it from outside: `python -m tests.soak.launcher FLAW STAGE NTH COMMAND...`

A flaw is a point at which the process ends itself (SIGKILL) when STAGE comes there for the NTH time, or says that it is there; a shared
identity; or a clock of its own:

    before-redis, after-redis       around the script call
    before-commit                   the outputs are in the log, their transaction is open
    offsets-sent                    the offsets are in the transaction too
    during-commit                   the commit is on its way
    after-commit
    commit-announced                says COMMIT_BEGINS and COMMIT_CAME_BACK around the commit, and goes on
    shared-transactional-id         the group instance id is left out, so that only the transactional id is shared with a twin
    shared-group-instance           the transactional id is the process's own, so that only the group instance id is shared
    clock-shifted                   the clock on the wall is NTH seconds ahead; what the client library stamps on messages is right

Nothing of this is in the production code.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from stream_monitor import cli, run
from stream_monitor.io.kafka import KafkaSink, KafkaSource
from stream_monitor.io.redis import RedisStore

POINTS = ("before-redis", "after-redis", "before-commit", "offsets-sent", "during-commit", "after-commit")
COMMIT_BEGINS = "the commit begins"
COMMIT_CAME_BACK = "the commit came back"


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def around(call: Callable[..., Any], nth: int, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None) -> Any:
    """`call`, with something done before and after the nth time."""
    times = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        times += 1
        now = times == nth  # looked at once: other threads may come here meanwhile
        if now:
            before()
        result = call(*args, **kwargs)
        if now:
            after()
        return result

    return wrapped


class _Producer:
    """A producer whose methods can be replaced; the client's own cannot."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _soon() -> None:
    """Ends the process within the next milliseconds, while it goes on."""

    def wait() -> None:
        time.sleep(random.uniform(0, 0.008))
        die()

    threading.Thread(target=wait, daemon=True).start()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def flaw(point: str, stage: str, nth: int) -> None:
    """Puts a flaw into this process."""
    if point in ("before-redis", "after-redis"):
        send: Any = RedisStore._send
        hook = {"before": die} if point == "before-redis" else {"after": die}
        RedisStore._send = around(send, nth, **hook)  # type: ignore[method-assign]
        return
    if point == "shared-transactional-id":
        _without_group_instance()
        return
    if point == "shared-group-instance":
        _with_own_transactional_id()
        return
    if point == "clock-shifted":
        _with_own_clock(nth)
        return
    assemble = run.Run._assemble

    def assembled(self: run.Run, name: str) -> Any:
        worker, source, close = assemble(self, name)
        if name == stage:
            sink: Any = worker._sink
            if point in ("before-commit", "after-commit"):
                kill = {"before": lambda: (sink._producer.flush(), die())} if point == "before-commit" else {"after": die}
                sink._commit = around(sink._commit, nth, **kill)
            else:
                there: dict[str, dict[str, Callable[[], None]]] = {
                    "offsets-sent": {"before": die},
                    "during-commit": {"before": _soon},
                    "commit-announced": {"before": partial(_say, COMMIT_BEGINS), "after": partial(_say, COMMIT_CAME_BACK)},
                }
                producer: Any = _Producer(sink._producer)
                producer.commit_transaction = around(sink._producer.commit_transaction, nth, **there[point])
                sink._producer = producer
        return worker, source, close

    run.Run._assemble = assembled  # type: ignore[method-assign]


def _without_group_instance() -> None:
    source: Any = KafkaSource.__init__

    def init(self: Any, properties: Any, *args: Any, **kwargs: Any) -> None:
        source(self, {name: value for name, value in properties.items() if name != "group.instance.id"}, *args, **kwargs)

    KafkaSource.__init__ = init  # type: ignore[method-assign]


def _with_own_transactional_id() -> None:
    sink: Any = KafkaSink.__init__

    def init(self: Any, properties: Any, transactional_id: str, *args: Any, **kwargs: Any) -> None:
        sink(self, properties, f"{transactional_id}-{os.getpid()}", *args, **kwargs)

    KafkaSink.__init__ = init  # type: ignore[method-assign]


def _with_own_clock(seconds: int) -> None:
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + seconds * 10**9


if __name__ == "__main__":
    _, point, stage, nth, *command = sys.argv
    flaw(point, stage, int(nth))
    sys.argv = ["stream-monitor", *command]
    cli.main()
