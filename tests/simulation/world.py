"""One seed: how many workers, how fast, which faults and how often; then the run itself."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Any
from unittest.mock import patch

from stream_monitor.core.codec import Codec
from stream_monitor.core.joining import Call, Fold
from stream_monitor.core.settings import EventSettings, JoinSettings
from stream_monitor.core.snapshots import StateRecord, assemble
from stream_monitor.detect import Detect, Monitors
from stream_monitor.errors import FatalError, LogGapError
from stream_monitor.io.kafka import KafkaSink, KafkaSource
from stream_monitor.live import Pace, Progress, Worker
from stream_monitor.ports import Place
from stream_monitor.stages import Join, Route, Stage
from tests.simulation.broker import Broker
from tests.simulation.clients import Consumer, Producer
from tests.simulation.group import Group
from tests.simulation.inputs import inputs
from tests.simulation.monitor import CountingMonitor, OtherMonitor
from tests.simulation.redis import Redis, SimulatedStore, cut
from tests.simulation.scheduler import Actor, Crashed, Process, Scheduler, Violation

WINDOW, SLACK = 400, 150
SETTINGS = JoinSettings(window_ms=WINDOW, slack_ms=SLACK, slot_ms=50, ttl_ms=10**9)
SHORT_LIVED = replace(SETTINGS, ttl_ms=WINDOW + SLACK + 2_000)  # shorter, and a rebuild that takes turns with others may outlast it
FAULTS_END = 2_500  # the step from which on everything may drain
CHUNK_BYTES = 60  # of a snapshot: most have several, and not always as many
QUIET_CHECK = 25  # steps between two looks whether it has


@dataclass(frozen=True)
class Program:
    """The pieces of production code that a mutant may replace."""

    worker: type[Worker] = Worker
    fold: Callable[[JoinSettings], Fold] = Fold
    join: type[Join] = Join
    detect: type[Detect] = Detect
    cut: Callable[[Call], list[Call]] = cut
    patch: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(slots=True)
class Life:
    """A process that was: what it did, what it says that it did, and whether it ended in order."""

    name: str
    producer: Producer
    progress: Progress
    in_order: bool = False


class World:
    """Everything one seed decides. `run` drives it to its end; `check.check` then judges the logs."""

    def __init__(self, seed: int, program: Program, traced: bool = False) -> None:
        self.program = program
        self.random = random = Random(seed)
        self.scheduler = Scheduler(random, self._tick, traced)
        self.broker = Broker(self.scheduler, timeout=random.choice((250, 600)))
        self.settings = SHORT_LIVED if random.random() < 0.25 else SETTINGS
        self.redis = Redis(self.scheduler, lambda: program.fold(self.settings), self._trouble, self.settings.ttl_ms)
        self.partitions = {
            "predictions": random.randint(1, 2),
            "feedback": random.randint(1, 2),
            "journal": random.randint(1, 3),
            "dead-letter": 1,
            "observations": random.randint(1, 2),
            "alerts": 1,
        }
        self.partitions["state"] = self.partitions["observations"]
        for topic, partitions in self.partitions.items():
            self.broker.create(topic, partitions)
        self.stopping = False
        self.groups = {
            name: Group(name, self._places(*topics), self.scheduler, random.random() < 0.5)
            for name, topics in {"route": ("predictions", "feedback"), "join": ("journal",), "detect": ("observations",)}.items()
        }
        workers = {"route": random.randint(1, 2), "join": random.randint(1, 3), "detect": random.randint(1, 2)}
        self._stable_ids = random.random() < 0.5
        self._static = self._stable_ids and random.random() < 0.5
        self._names = count()
        for name, number in workers.items():
            for i in range(number):
                actor = Actor(f"{name}-{i}", lambda: None, Process())
                actor.body = lambda name=name, actor=actor: self._supervise(name, actor)  # type: ignore[misc]
                self.scheduler.actors.append(actor)
        self._inputs = inputs(random, min(self.partitions["predictions"], self.partitions["feedback"]), 900, random.randint(10, 30))
        self._inputs.reverse()
        self.pace = Pace(
            batch=random.choice((2, 5, 20)),
            poll_s=0.0,
            transaction_s=random.choice((0.0, 0.03, 0.1)),
            transaction_records=random.choice((3, 20)),
        )
        self.snapshot_s = random.choice((0.0, 0.05, 0.3))
        self.changes_settings = random.choice(("", "", "", "name", "decisions"))
        self.gaps: dict[str, LogGapError] = {}  # of groups that have stopped for an operator
        self._living = Counter[str]()  # processes, by group
        self.lives: list[Life] = []
        self.skipped: set[tuple[Place, int]] = set()  # what retention took unread, and the operator accepted
        # Each seed has some of the faults only, some of them often: faults hide each other.
        self._rates = {
            name: 0.0 if random.random() < 0.4 else most * random.random()
            for name, most in {
                "loss": 0.006, "lost": 0.2, "delay": 0.2, "abort": 0.05, "unknown": 0.3, "rebalance": 0.01, "leave": 0.03,
                "sleep": 0.02, "crash": 0.006, "jump": 0.004, "trim": 0.05, "gap": 0.005, "hang": 0.02,
            }.items()
        }  # fmt: skip
        self._faulty(True)

    def run(self) -> None:
        """Raises what failed."""
        with (
            patch("stream_monitor.io.kafka.time", _Time(self.scheduler)),
            patch("stream_monitor.io.kafka._MARGIN", 0.05),
            patch("stream_monitor.live._PARTING", 0.05),
            patch("stream_monitor.core.snapshots.CHUNK_BYTES", CHUNK_BYTES),
        ):
            self.scheduler.run()

    # -- faults ---------------------------------------------------------------------------------------------------------

    def _faulty(self, on: bool) -> None:
        self._faults = on
        self._likely = self._rates if on else dict.fromkeys(self._rates, 0.0)
        self.scheduler.sleep_rate = self._rates["sleep"] if on else 0.0
        self.scheduler.crash_rate = self._rates["crash"] if on else 0.0

    def _trouble(self, name: str) -> bool:
        rate = self._likely[name]
        return rate > 0 and self.random.random() < rate

    def _tick(self) -> None:
        scheduler = self.scheduler
        scheduler.now += 1
        sent = self._inputs
        while sent and (sent[-1].when <= scheduler.now or not self._faults):
            message = sent.pop()
            self.broker.append((message.topic, message.partition), None, message.value)
        self.redis.tick()
        if scheduler.steps % 8 == 0:
            self.broker.tick()
            for group in self.groups.values():
                group.tick()
            if self._trouble("rebalance"):
                self.random.choice(list(self.groups.values())).prepare()
            if self._trouble("jump"):
                self.broker.log_skew += self.random.choice((-30, 50, 300, 600))
            if self._trouble("trim"):
                self._trim()
            if self._trouble("gap"):
                self._trim_unread()
        if self._faults and scheduler.steps > FAULTS_END:
            scheduler.note("faults end here")
            self._faulty(False)
        if not self._faults and not self.stopping and scheduler.steps % QUIET_CHECK == 0 and self._quiet():
            scheduler.note("all is read and committed")
            self.stopping = True

    def _quiet(self) -> bool:
        if self._inputs or self.broker.open() or self.redis.under_way or self.broker.delayed:
            return False
        return all(
            self.broker.committed.get((name, place), 0) == len(self.broker.partition(place).entries)
            for name, group in self.groups.items()
            for place in group.places
        )

    # -- retention ------------------------------------------------------------------------------------------------------

    def _trim(self) -> None:
        """Retention takes what nobody needs any more, or a part of it."""
        group, place = self.random.choice([(name, place) for name, group in self.groups.items() for place in group.places])
        committed = self.broker.committed.get((group, place), 0)
        most = {"route": lambda _: committed, "join": self._needed_of_journal, "detect": self._needed_of_observations}[group](place)
        self._take(place, min(most, committed))

    def _needed_of_journal(self, place: Place) -> int:
        """What a rebuild reads before what is committed, and as much more as the clocks of the logs go back."""
        entries = self.broker.partition(place).entries
        committed = self.broker.committed.get(("join", place), 0)
        first = max((offset for offset, e in enumerate(entries[:committed]) if e.visible), default=committed)  # the record before
        horizon = min((e.time for e in entries[first:]), default=self.broker.log_time()) - 3 * (WINDOW + SLACK) - 50 - 200
        return next((offset for offset, e in enumerate(entries) if e.time >= horizon), 0)

    def _needed_of_observations(self, place: Place) -> int:
        """What lies behind the newest snapshot, and the outcomes that it left waiting; everything that is committed, where the alerts
        need not be those of an undisturbed run."""
        if self.changes_settings == "decisions":
            return len(self.broker.partition(place).entries)
        if self.changes_settings:
            return 0
        entries = self.broker.topics["state"][place[1]].visible()
        snapshot = assemble(place, (StateRecord(e.key or b"", e.value, e.headers or []) for _, e in entries))
        if snapshot is None:
            return 0
        refill = snapshot.state["refill_from"]
        return snapshot.offset if refill is None else int(refill)

    def _trim_unread(self) -> None:
        """Retention takes of an input topic what was not read yet."""
        place = self.random.choice(self.groups["route"].places)
        if ("route", place) in self.broker.committed:
            self._take(place, self.broker.partition(place).stable())

    def _take(self, place: Place, most: int) -> None:
        partition = self.broker.partition(place)
        if most > partition.low:
            partition.low = self.random.randint(partition.low, most)
            self.scheduler.note(f"retention: {place} begins at {partition.low}")

    def _reset(self, group: str) -> None:
        """The operator's `reset`: waits until every process of the group has ended and its offsets are settled, then accepts the gaps."""
        places = self.groups[group].places
        if self._living[group] or any(self.broker.pending(group, place) for place in places):
            self.scheduler.pause("wait for the group to end")
            return
        why, found = self.gaps.pop(group), False
        for place in places:
            low, committed = self.broker.partition(place).low, self.broker.committed.get((group, place))
            if committed is not None and committed < low:
                self.scheduler.note(f"reset: {place} goes on at {low}")
                self.skipped |= {(place, offset) for offset in range(committed, low)}
                self.broker.committed[group, place] = low
                found = True
        if not found:
            raise Violation(f"a gap was told where there is none: {why}")

    def _places(self, *topics: str) -> list[tuple[str, int]]:
        return [(topic, p) for topic in topics for p in range(self.partitions[topic])]

    # -- processes ------------------------------------------------------------------------------------------------------

    def _supervise(self, name: str, actor: Actor) -> None:
        """A supervisor that starts its process again, whatever it died of; a failure that asks for a person ends the run."""
        while not self.stopping:
            actor.process = Process()
            if name in self.gaps:
                with suppress(Crashed):  # nobody is there to crash
                    self._reset(name)
                continue
            process = _Process(self, name, actor)
            self._living[name] += 1
            try:
                process.live()
            except Crashed:
                process.die()
            except FatalError as why:
                self.scheduler.note(f"ends: {why}")
                process.die()
            except LogGapError as why:
                self.scheduler.note(f"ends: {why}")
                process.die()
                self.gaps[name] = why
            finally:
                self._living[name] -= 1


class _Time:
    """The `time` module, as far as the edges use it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic(self) -> float:
        return self._scheduler.now / 1000

    def sleep(self, seconds: float) -> None:
        self._scheduler.pause("try again")


class _Process:
    """One life of a worker, put together and run as run.py does."""

    def __init__(self, world: World, name: str, actor: Actor) -> None:
        self.world, self.name, self.actor = world, name, actor
        self.consumers: list[Consumer] = []
        self.store: SimulatedStore | None = None

    def live(self) -> None:
        world = self.world
        scheduler = world.scheduler
        strategy = "cooperative-sticky" if world.groups[self.name].cooperative else "range"
        source = KafkaSource({"partition.assignment.strategy": strategy}, f"g-{self.name}", scheduler.note, self._consumer)
        name = self.actor.name if world._stable_ids else f"{self.actor.name}-{next(world._names)}"
        producer = Producer(world.broker, name, world._trouble)
        sink = KafkaSink(
            {"transaction.timeout.ms": world.broker.timeout},
            name,
            scheduler.note,
            lambda _: producer,
            scheduler.beside,
        )
        try:
            sink.start()
            stage = self._stage()
            worker = world.program.worker(stage, source, sink, world.pace, lambda: scheduler.now / 1000, scheduler.note)
            life = Life(name, producer, worker.progress)
            world.lives.append(life)
            source.attach(stage.topics, worker, stage.time_of, stage.unpack)
            try:
                source.subscribe()
                while not world.stopping and self.name not in world.gaps and not world._trouble("leave"):
                    worker.turn()
                worker.finish()
                life.in_order = True
            except Exception:
                worker.abandon()
                raise
        finally:
            if not scheduler.failure:
                self._close(source, sink)

    def die(self) -> None:
        self.actor.process.ended = True
        for consumer in self.consumers:
            consumer.dead = True
        if self.store is not None:
            self.store.die()
            self.store = None

    def _close(self, source: KafkaSource, sink: KafkaSink) -> None:
        """A process that ends says good-bye, one that crashed does not."""
        if isinstance(sys.exc_info()[1], Crashed):
            return
        source.close()
        sink.close()
        if self.store is not None:
            self.store.die()
            self.store = None

    def _consumer(self, properties: dict[str, Any]) -> Consumer:
        instance = self.actor.name if self.world._static else ""
        consumer = Consumer(self.world.broker, self.world.groups[self.name], self.actor, properties, instance)
        self.consumers.append(consumer)
        return consumer

    def _stage(self) -> Stage:
        world = self.world
        partitions = world.partitions
        if self.name == "route":
            return Route(
                Codec(EventSettings()),
                "predictions",
                "feedback",
                "journal",
                partitions["journal"],
                "dead-letter",
                partitions["dead-letter"],
            )
        if self.name == "join":
            self.store = SimulatedStore(world.redis, world.program.cut)
            return world.program.join(
                self.store,
                world.settings,
                "journal",
                "observations",
                partitions["observations"],
                lambda: f"e{next(world._names)}",
                partitions["journal"],
                world.broker.log_time,
            )
        # Settings that decide the same by another name must give the same alerts, those that decide otherwise may not.
        digest = world.random.choice(("these", "those")) if world.changes_settings else "these"
        monitor = OtherMonitor if (world.changes_settings, digest) == ("decisions", "those") else CountingMonitor
        return world.program.detect(
            "observations",
            "alerts",
            partitions["alerts"],
            "state",
            Monitors(digest, monitor, monitor.restore),
            world.snapshot_s,
            lambda: world.scheduler.now / 1000,
            world.scheduler.note,
        )
