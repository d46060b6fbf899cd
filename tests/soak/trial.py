"""What a fault's script works with: a setting, a feed, processes that can be ended, and the comparison at the end.

    setting = trial.setting()                       # topics of its own on the shared Kafka, a Redis of its own
    with trial.feed(setting) as feed:               # messages at a steady rate
        process = trial.start(setting)
        ...                                         # the fault
    trial.settle(setting, feed.sent)                # all is read to the end; raises AssertionError unless it is the plain join

    with trial.under_load(setting) as process:      # the same, around a process that outlives the fault
        ...

What a script notes in `trial.figures` is printed on its line.
"""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.integration.command import Setting, read_environment
from tests.integration.comparison import Expected, assert_adds_up, assert_alerts_are_the_fold, assert_is_the_plain_join, plain_join
from tests.integration.workload import Message, make
from tests.support.servers import KafkaServer, RedisServer, start_redis

ROOT = Path(__file__).parents[2]

# Small transactions, so that much can go wrong between them, members that are missed soon, and snapshots that short lives leave behind.
MISSED_SOON = """\
"session.timeout.ms" = 3000
"heartbeat.interval.ms" = 500
"""
TABLES = f"""\
[kafka.consumer]
{MISSED_SOON}[kafka.producer]
"transaction.timeout.ms" = 10000
[run]
batch = 400
transaction_messages = 800
transaction_interval = "60ms"
[detect]
snapshot_interval = "500ms"
"""
RATE = 1_200  # messages a second


@cache
def workload(seed: int, predictions: int = 60_000) -> list[Message]:
    return make(predictions, seed, large=False, drift=0.12).messages


class Feed:
    """Sends messages at a steady rate until told to stop; `sent` are those that were."""

    def __init__(self, setting: Setting, messages: Sequence[Message], rate: float) -> None:
        self.sent: Sequence[Message] = ()
        self._setting = setting
        self._messages = messages
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._failure: BaseException | None = None

    def _send(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._setting.kafka.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,  # while the brokers are away for minutes
                "log_level": 0,
            }
        )
        began, n = time.monotonic(), 0
        try:
            while not self._stop.wait(0.02):
                due = min(len(self._messages), int((time.monotonic() - began) * self._rate))
                for topic, key, value in self._messages[n:due]:
                    producer.produce(self._setting.topics[topic], value, key)
                n = due
                producer.poll(0)
            assert producer.flush(120) == 0, "the feed could not be sent"
        except BaseException as failure:
            self._failure = failure
        self.sent = self._messages[:n]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


class Process:
    """One `stream-monitor run`. Its output is in `log`."""

    def __init__(self, setting: Setting, arguments: Sequence[str], environment: dict[str, str], folder: Path, flaw: Sequence[str]) -> None:
        self.log = folder / f"{uuid.uuid4().hex[:8]}.log"
        program = ["-m", "tests.soak.launcher", *flaw] if flaw else ["-m", "stream_monitor"]
        with self.log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, *program, "run", *arguments, "--config", str(setting.file)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=read_environment(environment), cwd=ROOT,
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def resident(self) -> int:
        """MiB of memory, 0 where the system does not tell."""
        status = Path(f"/proc/{self.child.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), 0)

    def until_said(self, text: str, seconds: float = 60, every_s: float = 0.05) -> None:
        """Waits until it has written `text`."""
        what = f"the process to say {text!r}:\n{self.said()[-2000:]}"
        until(lambda: text in self.said() or self.child.poll() is not None, seconds, what, every_s)
        assert text in self.said(), f"it ended with {self.child.returncode} and did not say {text!r}:\n{self.said()[-3000:]}"

    def until_reading(self) -> None:
        for stage in ("route", "join", "detect"):
            self.until_said(f"{stage}: reading")

    def send(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Its exit code."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process did not end within {seconds:.0f} s:\n{self.said()[-3000:]}") from None

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, seconds: float = 60) -> None:
        """Ends it in order, which must work."""
        self.send(signal.SIGTERM)
        assert self.wait(seconds) == 0, self.said()[-3000:]


class Supervised(threading.Thread):
    """A process that is started again whenever it ends, as an orchestrator does it; `ended` are those that did."""

    def __init__(self, start: Callable[[], Process]) -> None:
        super().__init__(daemon=True)
        self.ended: list[Process] = []
        self.process = start()
        self._start_one = start
        self._stopping = threading.Event()
        self.start()

    @property
    def codes(self) -> list[int]:
        """The exit codes of those that ended."""
        return [process.child.returncode for process in self.ended]

    def run(self) -> None:
        while not self._stopping.wait(0.1):
            if self.process.child.poll() is not None:
                self.ended.append(self.process)
                self.process = self._start_one()

    def leave(self) -> None:
        """Starts no other one."""
        self._stopping.set()
        self.join()

    def end(self, seconds: float = 60) -> None:
        self.leave()
        self.process.send(signal.SIGTERM)
        self.process.wait(seconds)


class Trial:
    """One run of one fault."""

    def __init__(
        self, name: str, seed: int, say: Callable[[str], None], kafka: Callable[[], KafkaServer], full: bool = False, brokers: int = 1
    ) -> None:
        self.random = random.Random(f"{name} {seed}")
        self.seed = seed
        self.figures: dict[str, Any] = {}
        self.recoveries: list[float] = []
        self.full = full
        self.brokers = brokers  # for a Kafka of its own; the shared one has as many
        self.say = say
        self.name = name
        self._kafka = kafka
        self._closing = contextlib.ExitStack()
        self.folder = Path(
            self._closing.enter_context(tempfile.TemporaryDirectory(prefix="stream-monitor-soak-", ignore_cleanup_errors=True))
        )
        self._processes: list[Process] = []
        self._supervised: list[Supervised] = []

    def close(self) -> None:
        for supervised in self._supervised:
            supervised.leave()
        for process in self._processes:
            if process.child.poll() is None:
                process.child.kill()
                process.child.wait()
        self._closing.close()

    def seconds(self, short: float, long: float) -> float:
        """How long something lasts: `--full` takes the long time."""
        return long if self.full else short

    # -- servers and settings -------------------------------------------------------------------------------------------

    @property
    def kafka(self) -> KafkaServer:
        return self._kafka()

    def own(self, server: Any) -> Any:
        """Closes a server with the trial."""
        self._closing.callback(server.close)
        return server

    def redis(self, **options: str) -> RedisServer:
        return self.own(start_redis(**options))  # type: ignore[no-any-return]

    def setting(
        self,
        tables: str = "",
        kafka: KafkaServer | None = None,
        redis: RedisServer | None = None,
        partitions: tuple[int, int] = (3, 2),
        base: str = TABLES,
    ) -> Setting:
        """Topics of its own, created, with as many replicas as the brokers give them."""
        setting = Setting(self.folder, kafka or self.kafka, redis or self.redis(), f"soak-{uuid.uuid4().hex[:8]}", tables + base)
        setting.create_topics(partitions)
        if setting.kafka.brokers > 1:
            self.figures["brokers"] = setting.kafka.brokers
        return setting

    # -- work -----------------------------------------------------------------------------------------------------------

    def feed(self, setting: Setting, messages: Sequence[Message] | None = None, rate: float = RATE) -> Feed:
        return Feed(setting, workload(self.seed) if messages is None else messages, rate)

    def start(self, setting: Setting, *arguments: str, instance: str = "a", flaw: Sequence[str] = (), **environment: str) -> Process:
        """`stream-monitor run`. `instance` "" is a random one."""
        environment = {"STREAM_MONITOR__INSTANCE_ID": instance} | environment
        process = Process(setting, arguments, environment, self.folder, flaw)
        self._processes.append(process)
        return process

    def supervise(self, setting: Setting, *arguments: str, instance: str = "a", flaw: Sequence[str] = (), **environment: str) -> Supervised:
        supervised = Supervised(lambda: self.start(setting, *arguments, instance=instance, flaw=flaw, **environment))
        self._supervised.append(supervised)
        return supervised

    @contextlib.contextmanager
    def under_load(self, setting: Setting) -> Iterator[Process]:
        """What is done in here is done to a process that is at work, which must end in order after it; then all is compared."""
        with self.feed(setting) as feed:
            process = self.start(setting)
            process.until_reading()
            advances(setting)
            yield process
            process.stop()
        self.settle(setting, feed.sent)

    @contextlib.contextmanager
    def under_supervision(self, setting: Setting, rate: float = RATE) -> Iterator[Supervised]:
        """As `under_load`, of a process that may end and is started again; tells its exit codes."""
        with self.feed(setting, rate=rate) as feed:
            supervised = self.supervise(setting)
            supervised.process.until_reading()
            yield supervised
            supervised.end()
        self.figures["exit_codes"] = str(supervised.codes)
        self.settle(setting, feed.sent)

    @contextlib.contextmanager
    def recovery(self, setting: Setting, stage: str = "join") -> Iterator[None]:
        """What is done in here is a fault; notes how long after it the stage commits something new."""
        yield
        self.recoveries.append(advances(setting, stage))

    def settle(
        self, setting: Setting, sent: Sequence[Message], alerts: bool = True, accounts: bool = True, instance: str = "a"
    ) -> Expected:
        """Reads all to the end and compares."""
        summary = setting.until_end(STREAM_MONITOR__INSTANCE_ID=instance)
        return self.compare(setting, sent, summary if accounts else None, alerts)

    def compare(
        self, setting: Setting, sent: Sequence[Message] | Expected, summary: dict[str, Any] | None, alerts: bool = True
    ) -> Expected:
        expected = sent if isinstance(sent, Expected) else plain_join(sent)
        assert_is_the_plain_join(setting, expected)
        if alerts:
            self.figures["alerts"] = assert_alerts_are_the_fold(setting)
        if summary is not None:
            assert_adds_up(summary, expected)
        self.figures = {"messages": expected.messages, "pairs": expected.outcomes.total()} | self.figures
        return expected

    def said(self, text: str) -> int:
        """How often the processes said something."""
        return sum(process.said().count(text) for process in self._processes)

    def last_words(self) -> str:
        """The last lines of the processes that were started last, and of those that are at work or have failed."""
        telling = [one for one in self._processes[:-2] if (code := one.child.poll()) is None or code > 0]
        return "\n".join(
            f"    [{one.child.poll()}] {line[:300]}" for one in [*telling, *self._processes[-2:]] for line in one.said().splitlines()[-12:]
        )

    def shown(self) -> str:
        """The figures as one line."""
        figures = dict(self.figures)
        if self.recoveries:
            figures["recovery_s"] = f"{statistics.median(self.recoveries):.1f} (worst {max(self.recoveries):.1f})"
        return ", ".join(
            f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value}"
            for name, value in figures.items()
        )


def until(true: Callable[[], bool], seconds: float, what: str, every_s: float = 0.05) -> float:
    """Waits until something is so; answers how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"waited {seconds:.0f} s for {what}"
        time.sleep(every_s)
    return time.monotonic() - began


class Committed:
    """The committed offsets of a stage's group, as an onlooker sees them."""

    def __init__(self, setting: Setting, stage: str = "join") -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": setting.kafka.bootstrap,
                "group.id": f"{setting.namespace}-{stage}",
                "isolation.level": "read_uncommitted",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        roles = {"route": ("predictions", "feedback"), "join": ("journal",), "detect": ("observations",)}[stage]
        self._places = [
            TopicPartition(setting.topics[role], p)
            for role in roles
            for p in self._consumer.list_topics(setting.topics[role], 30).topics[setting.topics[role]].partitions
        ]

    def __call__(self) -> int:
        """All of them together: more is further."""
        return sum(offset for _, offset in self.offsets())

    def offsets(self) -> list[tuple[tuple[str, int], int]]:
        """Place and offset; 0 where nothing is committed."""
        while True:
            with contextlib.suppress(KafkaException):  # the brokers may be the ones that are at fault
                found = self._consumer.committed(self._places, 30)
                if all(place.error is None for place in found):
                    return [((place.topic, place.partition), max(0, place.offset)) for place in found]
            time.sleep(0.1)

    def ends(self) -> list[tuple[tuple[str, int], int]]:
        """Place and end of the topic's partition."""
        return [((place.topic, place.partition), self._consumer.get_watermark_offsets(place, 30)[1]) for place in self._places]

    def close(self) -> None:
        self._consumer.close()


def advances(setting: Setting, stage: str = "join", seconds: float = 120) -> float:
    """Waits until a stage commits something that was not committed when asked first; answers the seconds."""
    with contextlib.closing(Committed(setting, stage)) as committed:
        before = committed()
        return until(lambda: committed() > before, seconds, f"{stage} to commit something new")
