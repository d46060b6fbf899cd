"""Servers, topics and processes for the benchmarks: a real Kafka and a real Valkey, and each job in a process of its own.

with Setting() as setting:
    tables = setting.tables("one")                           # a configuration with topics, groups and Redis keys of its own
    [result] = setting.measure([Job(tables, ("route",))])    # runs to the end of the input topics
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import orjson
import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_monitor.config import Config, parse
from stream_monitor.core import streams
from stream_monitor.io import topics as topics_of
from stream_monitor.io.kafka import KafkaSink, KafkaSource, consumer_properties, producer_properties
from stream_monitor.live import Pace, Progress, Worker
from stream_monitor.ports import Chunk, Log, Out, Place
from stream_monitor.run import Run, StageRun
from tests.support.process import Process
from tests.support.servers import start_kafka, start_redis

PARTITIONS = 4
INPUTS = {"predictions": "predictions", "feedback": "feedback"}
OWN = ("journal", "observations", "alerts", "dead_letter", "state")

ONE_ADWIN: Mapping[str, Any] = {"metrics": ["error"], "slices": ["country"], "slice_metrics": ["error"], "detectors": ["adwin"]}
"""One ADWIN per model and country on the error. ([detect.default])"""

_COPY_BATCH = 500  # messages a call of the pass-through
_ENOUGH = 600.0  # seconds without progress after which a job is given up


def say(line: str) -> None:
    """Progress goes to stderr, the figures to stdout."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def core() -> str:
    """Which code detection runs (hatch_build.py)."""
    return "interpreted" if streams.__file__.endswith(".py") else "compiled"


@dataclass(frozen=True)
class Job:
    """One process: the stages it runs under a configuration, or "copy", the pass-through, or "looped copy", the same under a stage's loop.

    `follows`: begins with the process before it in the list, and ends after it. `nice`: how far it lets others go first.

    `made`: a kind of `Run` of its own, which may replace what it likes: the process is the job's.
    """

    tables: Mapping[str, Any]
    stages: tuple[str, ...]
    follows: bool = False
    nice: int = 0
    made: type[Run] = Run


@dataclass
class Result:
    """What a process did. `first`, `last`: when its first record was read and its last one committed (monotonic seconds)."""

    first: float
    last: float
    records: dict[str, int]  # read, by stage
    counters: dict[str, dict[str, int]]
    cpu_s: float  # of the whole process, from the first record to the last
    thread_s: dict[str, float]  # of each stage's own thread, from start to end
    server_s: list[float]  # of the broker and of Redis meanwhile
    machine_s: float  # of all processes of the machine meanwhile
    restarts: int
    samples: list[tuple[float, dict[str, int], int]] = field(default_factory=list)  # (time, committed by stage, RSS)


class Setting:
    """A broker and a Redis for one benchmark."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        say("starting Kafka and Valkey")
        with contextlib.ExitStack() as stack:
            kafka = stack.enter_context(start_kafka(long_lived=True))
            self._redis = stack.enter_context(start_redis())
            self.bootstrap = kafka.bootstrap
            nodes = (kafka.node(), self._redis.process)
            self._pids = [node.pid if isinstance(node, Process) else None for node in nodes]
            _wait_for_groups(kafka.bootstrap)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tables(self, name: str, default: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """A configuration with topics, groups and Redis keys of its own, but for the input topics."""
        return {
            "kafka": {"bootstrap_servers": self.bootstrap, "group": name},
            "topics": {**INPUTS, **{role: f"{name}.{role}" for role in OWN}, "partitions": PARTITIONS},
            "redis": {"url": self._redis.url, "key_prefix": name},
            **({"detect": {"default": dict(default)}} if default else {}),
            **more,
        }

    def create(self, tables: Mapping[str, Any]) -> None:
        """Creates the topics of a configuration that do not exist yet."""
        config = parse(tables)
        wanted = [topic if not topic.is_input else topic._replace(partitions=PARTITIONS) for topic in topics_of.wanted(config)]
        topics_of.create(topics_of.admin(config), wanted, PARTITIONS, 1)

    def create_copy(self, tables: Mapping[str, Any]) -> None:
        """Creates the topic that the pass-through writes."""
        config = parse(tables)
        topics_of.create(topics_of.admin(config), [topics_of.Topic("copy", f"{config.kafka.group}.copy", PARTITIONS, {})], PARTITIONS, 1)

    def drop(self, tables: Mapping[str, Any]) -> None:
        """Deletes the topics of a configuration, but for those of others that it reads, and all that is in Redis."""
        config = parse(tables)
        admin = topics_of.admin(config)
        own = [topic for topic in admin.list_topics(timeout=30).topics if topic.startswith(f"{config.kafka.group}.")]
        for done in admin.delete_topics(own).values():
            done.result(30)
        with self._redis.client() as client:
            client.flushall()

    def redis_info(self, section: str) -> dict[str, Any]:
        with self._redis.client() as client:
            return dict(client.info(section))

    def measure(self, jobs: Sequence[Job], every_s: float = 0.0, watch: Callable[[dict[str, int]], None] | None = None) -> list[Result]:
        """Runs the jobs side by side until all their input is done. `every_s`: how often the process' memory is sampled."""
        context = multiprocessing.get_context("spawn")
        children = []
        for job in jobs:
            ours, theirs = context.Pipe()
            stop = context.Event()
            process = context.Process(target=_child, args=(job, self._pids, theirs, stop, every_s), daemon=True)
            process.start()
            theirs.close()
            children.append((process, ours, stop))
        results: list[Result] = []
        for job, (process, ours, stop) in zip(jobs, children, strict=True):
            if job.follows:
                _reach_end(job, lambda process=process: process.is_alive())  # type: ignore[misc]
                stop.set()
            result: Result | None = None
            try:
                while not isinstance(found := ours.recv(), Result):
                    if watch is not None:
                        watch(found)
                result = found
            except EOFError:
                raise RuntimeError(f"{', '.join(job.stages)}: the process failed; see above") from None
            process.join()
            results.append(result)
        return results


def _wait_for_groups(bootstrap: str) -> None:
    """Until the broker answers for groups: a fresh one makes their topic at the first question, and refuses meanwhile."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "first-question"})
    try:
        for _ in range(100):
            with contextlib.suppress(KafkaException):
                reader.committed([TopicPartition("none", 0)], 10)
                return
            time.sleep(0.1)
        raise RuntimeError("the broker does not answer for groups")
    finally:
        reader.close()


def _reach_end(job: Job, alive: Callable[[], bool]) -> None:
    """Waits until the group of a job has committed its input topics' ends, which stand still by now."""
    config = parse(job.tables)
    [stage] = job.stages
    topic = {"join": config.topics.journal, "detect": config.topics.observations}[stage]
    properties = {**config.kafka_consumer(), "group.id": f"{config.kafka.group}-{stage}", "isolation.level": "read_committed"}
    reader = Consumer(properties)
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        ends = [reader.get_watermark_offsets(tp, 30)[1] for tp in partitions]
        deadline = time.monotonic() + _ENOUGH
        while alive() and time.monotonic() < deadline:
            if all(tp.offset >= end or end == 0 for tp, end in zip(reader.committed(partitions, 30), ends, strict=True)):
                return
            time.sleep(0.2)
        raise RuntimeError(f"{stage} did not reach the end of {topic}")
    finally:
        reader.close()


# --- the process ------------------------------------------------------------------------------------------------------


def _child(job: Job, servers: Sequence[int | None], parent: Any, stop: Any, every_s: float) -> None:
    """Runs a job in this process and sends its Result to the parent, and before it what is committed by now, twice a second."""
    config = parse(job.tables)
    os.nice(job.nice)
    me = psutil.Process()
    others = [None if pid is None else psutil.Process(pid) for pid in servers]
    lines: list[str] = []
    if job.stages == ("copy",):
        run: Run = CopyRun(config, lines.append)
    elif job.stages == ("looped copy",):
        run = LoopedCopyRun(config, lines.append)
    else:
        run = job.made(config, job.stages, until_end=not job.follows, log=lines.append)
    begin: tuple[float, list[float], float] | None = None
    samples: list[tuple[float, dict[str, int], int]] = []
    told = 0.0
    run.start()

    def tick() -> None:
        nonlocal begin, told
        now = time.monotonic()
        if begin is None and any(stage.progress.first is not None for stage in run.stages):
            begin = _cpu(me), [_cpu(one) for one in others], _machine()
        if stop.is_set():
            run.stop()
        committed = {stage.name: stage.progress.committed for stage in run.stages}
        if every_s and (not samples or now - samples[-1][0] >= every_s):
            samples.append((now, committed, me.memory_info().rss))
        if now - told >= 0.5:
            told = now
            parent.send(committed)

    try:
        run.wait(tick, 0.05)  # a tick takes the interpreter lock from the stage; the command itself ticks every 0.2 s
    except BaseException:
        print("\n".join(lines[-20:]), file=sys.stderr)
        raise
    ended = _cpu(me), [_cpu(one) for one in others], _machine()
    began = begin or ended
    stages = run.stages
    parent.send(
        Result(
            first=min(stage.progress.first or time.monotonic() for stage in stages),
            last=max(stage.progress.last or 0.0 for stage in stages),
            records={stage.name: stage.progress.records for stage in stages},
            counters={stage.name: stage.counters for stage in stages},
            cpu_s=ended[0] - began[0],
            thread_s={stage.name: stage.cpu_s for stage in stages},
            server_s=[end - start for end, start in zip(ended[1], began[1], strict=True)],
            machine_s=ended[2] - began[2],
            restarts=sum(stage.progress.restarts for stage in stages),
            samples=samples,
        )
    )
    parent.close()


def _cpu(process: psutil.Process | None) -> float:
    if process is None:
        return float("nan")
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine() -> float:
    """Busy seconds of all cores, those taken by the host included."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - idle)  # the guests' times, which come after, are in the users'


# --- the pass-through -------------------------------------------------------------------------------------------------


class Copy:
    """predictions, feedback -> one topic: reads, decodes and writes each message, in transactions, and nothing else."""

    name = "copy"
    depth = 1
    time_of = unpack = None

    def __init__(self, topics: Sequence[str], to: str) -> None:
        self.topics = topics
        self.counters: dict[str, int] = {}
        self._to = to

    def begin(self, chunks: Sequence[Chunk], committed: Mapping[Place, int]) -> Sequence[Chunk]:  # noqa: ARG002
        return chunks

    def ready(self, ticket: Sequence[Chunk], seconds: float) -> bool:  # noqa: ARG002
        return True

    def finish(self, ticket: Sequence[Chunk]) -> list[Out]:
        out: list[Any] = []
        to, loads = self._to, orjson.loads
        for chunk in ticket:
            partition = chunk.place[1]
            for record in chunk.records:
                loads(record.value)
                out.append((to, partition, record.key, record.value, None))
        return out

    def resume(self, place: Place, committed: int | None, log: Log) -> tuple[int, int]:
        start = log.bounds(place)[0] if committed is None else committed
        return start, start

    def seal(self, reached: Mapping[Place, int], last: bool) -> list[Out]:  # noqa: ARG002
        return []

    def trim(self, place: Place, committed: int) -> None: ...
    def revoked(self, place: Place) -> None: ...


class CopyRun(Run):
    """The pass-through as a program of its own: the client's calls one after the other, and nothing that is ours."""

    def __init__(self, config: Config, log: Callable[[str], None]) -> None:
        super().__init__(config, ("route",), until_end=True, log=log)
        self.stages[0].name = "copy"

    def _loop(self, stage: StageRun, before: StageRun | None) -> None:  # noqa: ARG002
        config, progress = self._config, Progress()
        stage.worker = SimpleNamespace(progress=progress)  # type: ignore[assignment]  # what is looked at from outside
        run, name = config.run, f"{config.kafka.group}-copy"
        consumer = Consumer({**consumer_properties(config.kafka_consumer()), "group.id": name, "auto.offset.reset": "earliest"})
        producer = Producer({**producer_properties(config.kafka_producer()), "transactional.id": f"{name}-{os.getpid()}"})
        topics = [config.topics.predictions, config.topics.feedback]
        to, loads, produce = f"{config.kafka.group}.copy", orjson.loads, producer.produce
        ended: set[Place] = set()
        offsets: dict[Place, int] = {}
        open_since: float | None = None
        held = 0
        producer.init_transactions(30)
        consumer.subscribe(topics)
        while len(ended) < PARTITIONS * len(topics):
            for message in consumer.consume(_COPY_BATCH, run.poll / 1000):
                place: Place = message.topic(), message.partition()  # type: ignore[assignment]  # what was consumed has both
                if (error := message.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    ended.add(place)  # the topics are filled
                    continue
                if open_since is None:
                    producer.begin_transaction()
                    open_since = time.monotonic()
                    progress.first = progress.first or open_since
                value = message.value()
                loads(value or b"")
                produce(to, value, message.key(), place[1])
                offsets[place] = message.offset() + 1  # type: ignore[operator]
                held += 1
            producer.poll(0)
            last = len(ended) == PARTITIONS * len(topics)
            if open_since is not None and (
                last or held >= run.transaction_messages or time.monotonic() - open_since >= run.transaction_interval / 1000
            ):
                positions = [TopicPartition(*place, offset) for place, offset in offsets.items()]
                producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 30)
                producer.commit_transaction(30)
                progress.records += held
                progress.committed += held
                progress.transactions += 1
                progress.last = time.monotonic()
                open_since, held = None, 0
        consumer.close()


class LoopedCopyRun(Run):
    """The pass-through under the same loop, source, sink and pace as a stage."""

    def __init__(self, config: Config, log: Callable[[str], None]) -> None:
        super().__init__(config, ("route",), until_end=True, log=log)
        self.stages[0].name = "copy"

    def _assemble(self, name: str) -> tuple[Worker, KafkaSource, Callable[[], None]]:
        config = self._config
        run = config.run
        source = KafkaSource(config.kafka_consumer(), f"{config.kafka.group}-{name}", self._log)
        sink = KafkaSink(config.kafka_producer(), f"{config.kafka.group}-{name}-{os.getpid()}", self._log)
        sink.start()
        stage = Copy((config.topics.predictions, config.topics.feedback), f"{config.kafka.group}.copy")
        pace = Pace(run.batch, run.poll / 1000, run.transaction_interval / 1000, run.transaction_messages)
        worker = Worker(stage, source, sink, pace, time.monotonic, self._log)
        source.attach(stage.topics, worker, stage.time_of, stage.unpack)

        def close() -> None:
            source.close()
            sink.close()

        return worker, source, close


def total(results: Sequence[Result], stage: str) -> int:
    """Records that a stage has read, in whichever process it ran."""
    return sum(result.records.get(stage, 0) for result in results)
