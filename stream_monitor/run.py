"""`stream-monitor run`: puts stages, sources, sinks and the store together, one thread a stage, and runs them until told to stop.

The main thread only waits for signals. A stage that fails stops the others; each ends by committing what it has processed, or by
rolling back, within `shutdown_timeout`. `until_end` runs until all that the input topics held at the start has gone through every
stage: a stage's ends are read once its predecessor here has finished.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from stream_monitor.core.codec import Codec
from stream_monitor.core.detectors import try_all
from stream_monitor.core.monitor import Monitor
from stream_monitor.detect import Detect, Monitors
from stream_monitor.errors import FatalError, SetupError, StreamMonitorError
from stream_monitor.io.kafka import KafkaSink, KafkaSource
from stream_monitor.io.redis import RedisStore, UnansweredError, connect
from stream_monitor.lazily import put_off
from stream_monitor.live import Pace, Progress, Worker
from stream_monitor.stages import Join, Route, Stage

if TYPE_CHECKING:
    from stream_monitor.config import Config

STAGES = ("route", "join", "detect")
_DETECT_BATCH = 2_000  # records: of more, the first have left the processor's caches when the last are read

Log = Callable[[str], None]


@dataclass(slots=True)
class StageRun:
    """One stage's thread, as the outside sees it."""

    name: str
    worker: Worker | None = None
    failure: BaseException | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    cpu_s: float = 0.0  # of the stage's own thread
    buckets: dict[str, int] = field(default_factory=dict)  # join, after `until_end`: the store's accounting, all buckets together

    @property
    def progress(self) -> Progress:
        return self.worker.progress if self.worker else Progress()

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.worker.progress.counters) if self.worker else {}


class Run:
    """The stages of one process. `start`, then `wait`; `stop` may be called from any thread or signal handler."""

    def __init__(self, config: Config, stages: Sequence[str] = STAGES, until_end: bool = False, log: Log = print) -> None:
        self.stages = [StageRun(name) for name in STAGES if name in stages]
        self._config = config
        self._until_end = until_end
        self._log = log
        self._stop = threading.Event()
        self._instance = config.instance_id or uuid.uuid4().hex[:12]
        self._threads: list[threading.Thread] = []
        self._store: RedisStore | None = None  # the join's

    def start(self) -> None:
        if any(stage.name == "detect" for stage in self.stages):
            detect = self._config.detect_settings()
            put_off("scipy", "stats")  # comes with river, for KSWIN alone, and takes longer than all the rest of a start
            try_all((*detect.monitors, detect.default))  # what they import is loaded before it is frozen
        # Batches hold tens of thousands of objects without cycles; at the default threshold the collector walks them for a third of
        # the time. What is loaded by now lives for ever and need not be walked at all.
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        if len(self.stages) == 1:
            # A thread that comes back from the network waits so long for one that computes, some dozen times a batch of the join. Stages
            # that share the interpreter all compute, and would take it from each other for nothing.
            sys.setswitchinterval(0.0005)
        before: StageRun | None = None
        for stage in self.stages:
            thread = threading.Thread(target=self._work, args=(stage, before), name=stage.name, daemon=True)
            self._threads.append(thread)
            before = stage
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()

    def wait(self, tick: Callable[[], None] | None = None, every_s: float = 0.2) -> None:
        """Returns when every stage has ended; raises the first failure. `tick` is called meanwhile."""
        deadline: float | None = None
        while any(thread.is_alive() for thread in self._threads):
            if self._stop.is_set():
                deadline = deadline or time.monotonic() + self._config.run.shutdown_timeout / 1000
                if time.monotonic() > deadline:
                    self._raise_failure()  # why it was stopped says more than that it took long
                    late = ", ".join(stage.name for stage in self.stages if not stage.finished.is_set())
                    raise FatalError(
                        f"{late} did not end within {self._config.run.shutdown_timeout / 1000:.0f} s of the stop",
                        "their open transactions will be rolled back by the broker; raise run.shutdown_timeout if this recurs",
                    )
            self._threads[0].join(every_s) if self._threads[0].is_alive() else time.sleep(every_s)
            if tick is not None:
                tick()
        self._raise_failure()

    def _raise_failure(self) -> None:
        for stage in self.stages:
            if stage.failure is not None:
                raise stage.failure

    def _work(self, stage: StageRun, before: StageRun | None) -> None:
        started = time.thread_time()
        try:
            self._loop(stage, before)
        except UnansweredError:
            self._log(f"{stage.name}: stopped while Redis did not answer; nothing was lost, the transaction is rolled back")
        except StreamMonitorError as failure:
            stage.failure = failure
            self._stop.set()
        except BaseException as failure:  # a bug: it must end the process, not only this thread
            stage.failure = failure
            self._stop.set()
        finally:
            stage.cpu_s = time.thread_time() - started
            stage.finished.set()

    def _loop(self, stage: StageRun, before: StageRun | None) -> None:
        worker, source, close = self._assemble(stage.name)
        stage.worker = worker
        try:
            source.subscribe()
            ends: dict[tuple[str, int], int] | None = None
            while not self._stop.is_set():
                busy = worker.turn()
                if worker.pause:
                    self._stop.wait(worker.pause)
                if not self._until_end or (busy and ends is None):
                    continue
                if ends is None and (before is None or before.finished.is_set()):
                    ends = source.ends()
                if ends is not None and worker.reached(ends):
                    break
            worker.finish()
            if self._until_end and self._store is not None and stage.name == "join":
                stage.buckets = _add_up(self._store, (bucket for _, bucket in source.owned()))
        except BaseException:
            worker.abandon()
            raise
        finally:
            close()

    def _assemble(self, name: str) -> tuple[Worker, KafkaSource, Callable[[], None]]:
        config, log = self._config, self._log
        run = config.run
        closers: list[Callable[[], None]] = []

        def close() -> None:
            for closer in closers:
                try:
                    closer()
                except Exception as failure:  # what ended the stage says more
                    log(f"{name}: while it was closed: {failure}")

        consumer = dict(config.kafka_consumer())
        if config.instance_id:
            consumer["group.instance.id"] = f"{config.instance_id}-{name}"
        source = KafkaSource(consumer, f"{config.kafka.group}-{name}", log)
        closers.append(source.close)
        try:
            stage = self._stage(name, source, closers)
            sink = KafkaSink(config.kafka_producer(), f"{config.kafka.group}-{name}-{self._instance}", log)
            closers.append(sink.close)
            sink.start()
            batch = min(run.batch, _DETECT_BATCH) if name == "detect" else run.batch
            pace = Pace(batch, run.poll / 1000, run.transaction_interval / 1000, run.transaction_messages)
            worker = Worker(stage, source, sink, pace, time.monotonic, log)
            source.attach(stage.topics, worker, stage.time_of, stage.unpack)
        except BaseException:
            close()
            raise
        log(f"{name}: reading {', '.join(stage.topics)} as group {config.kafka.group}-{name}, instance {self._instance}")
        return worker, source, close

    def _stage(self, name: str, source: KafkaSource, closers: list[Callable[[], None]]) -> Stage:
        config = self._config
        topics = config.topics
        if name == "route":
            return Route(
                Codec(config.events.settings(), config.join.label_slices),
                topics.predictions,
                topics.feedback,
                topics.journal,
                source.partitions(topics.journal),
                topics.dead_letter,
                source.partitions(topics.dead_letter),
            )
        if name == "join":
            store = _store(config, self._stop.wait, lambda trouble: self._log(f"join: Redis does not answer, waiting: {trouble}"))
            closers.append(store.close)
            self._store = store
            return Join(
                store,
                config.join.settings(),
                topics.journal,
                topics.observations,
                source.partitions(topics.observations),
                lambda: uuid.uuid4().hex[:8],
                source.partitions(topics.journal),
            )
        if name == "detect":
            settings = replace(config.detect_settings(), partitions=source.partitions(topics.observations))
            return Detect(
                topics.observations,
                topics.alerts,
                source.partitions(topics.alerts),
                topics.state,
                Monitors(settings.digest(), partial(Monitor, settings), partial(Monitor.restore, settings)),
                config.detect.snapshot_interval / 1000,
                time.monotonic,
                self._log,
                source.partitions(topics.state),
            )
        raise SetupError(f"there is no stage {name}", f"the stages are {', '.join(STAGES)}")


def _store(config: Config, pause: Callable[[float], bool], troubled: Callable[[str], None]) -> RedisStore:
    prefix = f"{config.redis.key_prefix}:{config.topics.journal}"
    return RedisStore(connect(config.redis), prefix, config.join.settings(), pause, troubled)


@contextmanager
def _impatient(config: Config) -> Iterator[RedisStore]:
    """The join's store for a command. Raises SetupError where Redis does not answer."""

    def give_up(trouble: str) -> None:
        raise SetupError(f"Redis does not answer: {trouble}", "see stream-monitor check")

    store = _store(config, lambda _seconds: True, give_up)
    try:
        yield store
    except RedisError as refused:
        raise SetupError(f"Redis refuses: {refused}", "see stream-monitor check") from refused
    finally:
        store.close()


def forget_join(config: Config) -> None:
    """Drops the join's state, bucket by bucket; the next start rebuilds it from the journal."""
    with _impatient(config) as store:
        for bucket in range(config.topics.partitions):
            store.forget(bucket)


def join_accounting(config: Config, buckets: Iterable[int]) -> dict[str, int]:
    """The join's counters of these buckets together (`_add_up`). Raises SetupError where Redis does not answer."""
    with _impatient(config) as store:
        return _add_up(store, buckets)


def _add_up(store: RedisStore, buckets: Iterable[int]) -> dict[str, int]:
    """The accounting of some buckets, each since its origin (0, until Redis forgets): exact for what is committed, as long as nobody
    writes. predictions = joined + late + duplicate_predictions + expired + waiting_predictions;
    feedback = joined + late + duplicate_feedback + conflicting + orphan + waiting_feedback."""
    total: dict[str, int] = {}
    for bucket in buckets:
        for name, n in store.counters(bucket).items():
            if name not in ("applied", "trim", "clock", "origin"):
                total[name] = total.get(name, 0) + n
    return total


def summary(run: Run) -> dict[str, Any]:
    """What each stage did, for `--until-end` and the benchmarks. Seconds and counts; stages.py says what adds up to what."""
    report: dict[str, Any] = {}
    for stage in run.stages:
        p = stage.progress
        report[stage.name] = {
            "records": p.records,
            "committed": p.committed,
            "transactions": p.transactions,
            "restarts": p.restarts,
            "healed": p.healed,
            "seconds": round(p.last - p.first, 3) if p.first is not None and p.last is not None else 0.0,
            "cpu_seconds": round(stage.cpu_s, 3),
            "counters": stage.counters,
        }
        if stage.buckets:
            report[stage.name]["buckets"] = stage.buckets
    return report
