"""Who runs next: actors stand for threads, of which exactly one runs, and one seed decides which.

They are greenlets, each a stack of its own on one thread, because a paused actor must be able to go on before or after any other: that
is what a zombie does. Real threads that pass a baton do the same, and spend half of the time on passing it. `pause` is the hook that
every simulated call to the outside passes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from math import inf
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

MOST_STEPS = 60_000


class Crashed(BaseException):
    """The process is gone: no `except Exception` and no clean-up of production code sees it."""


class Stopped(BaseException):
    """The run is over."""


class Violation(AssertionError):  # noqa: N818
    """A promise was broken."""


class Process:
    """What the actors of a process share: they sleep and end together."""

    def __init__(self) -> None:
        self.asleep_until = 0
        self.ended = False


class Actor:
    """A thread of the simulated world, if it had any. Where a supervisor starts its process again, that is another `process`."""

    def __init__(self, name: str, body: Callable[[], None], process: Process) -> None:
        self.name = name
        self.body = body
        self.process = process
        self.stack: Any = None  # a greenlet, once it has been started
        self.waits_for: Callable[[], bool] | None = None  # not to be run before it says yes, or time has come to `waits_until`
        self.waits_until: float = inf


class Scheduler:
    """The baton. `tick` is called at every hook: time passes and the world outside the actors moves."""

    def __init__(self, random: Random, tick: Callable[[], None], traced: bool) -> None:
        self.random = random
        self._chance = random.random
        self.now = 0
        self.steps = 0
        self.sleep_rate = 0.0
        self.crash_rate = 0.0
        self.stay = random.choice((0.3, 0.6, 0.9))
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.failure: BaseException | None = None
        self.trace: list[str] | None = [] if traced else None
        self._tick = tick
        self._ground: Any = None  # the greenlet that called `run`, where all end

    def run(self) -> None:
        """Runs all actors to their end; raises what failed."""
        self._ground = getcurrent()
        for actor in self.actors:
            self._start(actor)
        while self._choose():
            self.current.stack.switch()  # type: ignore[union-attr]  # comes back when an actor has ended, this one or another
        if self.failure is not None:
            raise self.failure

    def beside(self, call: Callable[[], None]) -> Future[None]:
        """Makes a call on a second thread, so to speak, of the process that runs."""
        assert self.current is not None
        done = _Done(self)

        def body() -> None:
            try:
                call()
                done.set_result(None)
            except Violation:
                raise
            except Exception as failure:
                done.set_exception(failure)

        actor = Actor(f"{self.current.name}'", body, self.current.process)
        self.actors.append(actor)
        self._start(actor)
        return done

    def wait(self, until: Callable[[], bool], most: float = inf) -> None:
        """Lets the others run until something has come about, or so much time has passed."""
        me = self.current
        assert me is not None
        end = me.waits_until = self.now + most
        me.waits_for = lambda: until() or me.process.ended or self.now >= end
        self._let_run(me)
        me.waits_for = None
        if me.process.ended:
            raise Crashed

    def pause(self, point: str) -> None:
        """A hook: others may run, the caller may fall asleep, or crash."""
        if self.failure is not None:
            raise Stopped
        me = self.current
        assert me is not None
        if me.process.ended:
            raise Crashed
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Violation(f"the run did not end within {MOST_STEPS} steps")
        self._tick()
        random = self._chance
        if self.crash_rate and random() < self.crash_rate:
            self.note(f"crash at {point}")
            me.process.ended = True
            raise Crashed
        if self.sleep_rate and random() < self.sleep_rate:
            me.process.asleep_until = self.now + self.random.choice((30, 200, 400, 1500))
            self.note(f"asleep at {point} until {me.process.asleep_until}")
        elif random() < self.stay:
            return
        self._let_run(me)
        if me.process.ended:
            raise Crashed

    def note(self, what: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.steps:6} {self.now:6} {self.current.name if self.current else '':10} {what}")

    def _let_run(self, me: Actor) -> None:
        self._choose()
        if self.current is not me:
            self.current.stack.switch()  # type: ignore[union-attr]  # `me` at least is alive
        if self.failure is not None:
            raise Stopped

    def _choose(self) -> bool:
        """Makes one of the actors that can run the current one; False where all have ended."""
        if not self.actors:
            return False
        ready = self.actors if self.failure is not None else self._ready() or self._later()
        self.current = ready[int(self._chance() * len(ready))]
        return True

    def _ready(self) -> list[Actor]:
        """Those that are awake and wait for nothing."""
        now = self.now
        return [actor for actor in self.actors if actor.process.asleep_until <= now and (actor.waits_for is None or actor.waits_for())]

    def _later(self) -> list[Actor]:
        """Lets time pass until somebody is ready."""
        able = [actor for actor in self.actors if actor.waits_for is None or actor.waits_for()]
        if not able:
            self.now = int(min(actor.waits_until for actor in self.actors)) + 1
            able = [actor for actor in self.actors if actor.waits_for is None or actor.waits_for()]
        self.now = max(self.now, min(actor.process.asleep_until for actor in able))
        return [actor for actor in able if actor.process.asleep_until <= self.now]

    def _start(self, actor: Actor) -> None:
        actor.stack = greenlet(partial(self._live, actor), self._ground)

    def _live(self, actor: Actor) -> None:
        try:
            if self.failure is None:
                actor.body()
        except Stopped:
            pass
        except Crashed:  # of a second thread; the main one's body sees to its own
            actor.process.ended = True
        except BaseException as failure:
            if self.failure is None:
                self.failure = failure
                self.note("".join(traceback.format_exception(failure)))
        finally:
            self.actors.remove(actor)


class _Done(Future[None]):
    """Waits as the scheduler says."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def result(self, timeout: float | None = None) -> None:
        if not self.done():
            self._scheduler.wait(self.done, inf if timeout is None else 1000 * timeout)
        return super().result(0)
