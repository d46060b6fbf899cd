"""Who runs next: actors are threads that pass one baton, so that exactly one runs and one seed decides which.

Threads instead of nested calls, because a paused actor must be able to go on before or after any other: that is what a zombie
does. `pause` is the hook that every simulated call to the outside passes.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from random import Random

MOST_STEPS = 60_000


class Crashed(BaseException):
    """The process is gone: no `except Exception` and no clean-up of production code sees it."""


class Stopped(BaseException):
    """The run is over."""


class Violation(AssertionError):  # noqa: N818
    """A promise was broken."""


class Actor:
    """A process of the simulated world."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.body = body
        self.gate = threading.Semaphore(0)
        self.asleep_until = 0
        self.finished = False


class Scheduler:
    """The baton. `tick` is called at every hook: time passes and the world outside the actors moves."""

    def __init__(self, random: Random, tick: Callable[[], None], traced: bool) -> None:
        self.random = random
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
        self._done = threading.Event()

    def run(self) -> None:
        """Runs all actors to their end; raises what failed."""
        threads = [threading.Thread(target=self._live, args=(actor,), daemon=True) for actor in self.actors]
        for thread in threads:
            thread.start()
        self._hand_over()
        self._done.wait()
        for thread in threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def pause(self, point: str) -> None:
        """A hook: others may run, the caller may fall asleep, or crash."""
        if self.failure is not None:
            raise Stopped
        me = self.current
        assert me is not None
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Violation(f"the run did not end within {MOST_STEPS} steps")
        self._tick()
        random = self.random.random
        if self.crash_rate and random() < self.crash_rate:
            self.note(f"crash at {point}")
            raise Crashed
        if self.sleep_rate and random() < self.sleep_rate:
            me.asleep_until = self.now + self.random.choice((30, 200, 400, 1500))
            self.note(f"asleep at {point} until {me.asleep_until}")
        elif random() < self.stay:
            return
        self._hand_over()
        if self.current is not me:
            me.gate.acquire()
            if self.failure is not None:
                raise Stopped
        else:
            me.gate.acquire()

    def note(self, what: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.steps:6} {self.now:6} {self.current.name if self.current else '':10} {what}")

    def _hand_over(self) -> None:
        alive = [actor for actor in self.actors if not actor.finished]
        if not alive:
            self._done.set()
            return
        awake = [actor for actor in alive if actor.asleep_until <= self.now]
        if self.failure is not None:
            awake = alive
        elif not awake:
            self.now = min(actor.asleep_until for actor in alive)
            awake = [actor for actor in alive if actor.asleep_until <= self.now]
        self.current = awake[int(self.random.random() * len(awake))]
        self.current.gate.release()

    def _live(self, actor: Actor) -> None:
        actor.gate.acquire()
        try:
            if self.failure is None:
                actor.body()
        except Stopped:
            pass
        except BaseException as failure:
            if self.failure is None:
                self.failure = failure
                self.note("".join(traceback.format_exception(failure)))
        finally:
            actor.finished = True
            self._hand_over()
