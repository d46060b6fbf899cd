"""Plays a scenario through the real stages on the embedded servers, in step with them, and reads the alerts back.

The embedded Kafka forgets all but some 5 MB a partition, so no more is produced than the slowest stage can still reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from stream_monitor import config
from stream_monitor.demo.scenario import Drift, Event, Scenario
from stream_monitor.errors import FatalError
from stream_monitor.run import Run

_BATCH = 200  # messages between two looks at the stages
_IN_FLIGHT = 3_000  # records that a stage may be behind
_STUCK_S = 2.0  # without any progress for so long, more is fed all the same
_SETTLED_S = 0.7  # all is read and nothing moves: the end
_PATIENCE_S = 20.0  # nothing moves and not all was read: a failure


@dataclass(slots=True)
class Noticed:
    """A firing alert, and the injected drift that explains it."""

    alert: Mapping[str, Any]
    cause: Drift | None
    number: int  # predictions made by the time it fired


@dataclass(slots=True)
class Play:
    """What has happened so far, for the display."""

    scenario: Scenario
    stages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("route", "join", "detect"), 0))
    sent: int = 0  # messages
    number: int = 0  # predictions
    joined: int = 0
    waiting: int = 0
    dead: int = 0
    noticed: list[Noticed] = field(default_factory=list)
    latest: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # the newest event about each alert, by its id
    resolved: int = 0
    seconds: float = 0.0
    note: str = "starting"

    def first(self, drift: Drift) -> Noticed | None:
        """The first alert that names what a drift moved."""
        return next((n for n in self.noticed if n.cause is drift and drift.shown_by(n.alert)), None)

    def incidents(self, drift: Drift) -> list[list[Noticed]]:
        """The alerts that a drift explains, by incident."""
        groups: dict[str, list[Noticed]] = {}
        for noticed in self.noticed:
            if noticed.cause is drift:
                groups.setdefault(str(noticed.alert.get("incident")), []).append(noticed)
        return list(groups.values())

    @property
    def false_alerts(self) -> list[Noticed]:
        return [n for n in self.noticed if n.cause is None]

    @property
    def success(self) -> bool:
        return all(self.first(drift) is not None for drift in self.scenario.drifts)


def settings(bootstrap: str, redis_url: str) -> config.Config:
    """The configuration of `run`: the defaults, and where the servers are."""
    return config.parse(
        {
            "kafka": {"bootstrap_servers": bootstrap, "properties": {"log_level": 0}},
            "redis": {"url": redis_url},
            "run": {"batch": 2_000, "shutdown_timeout": "10s"},
        }
    )


def play(scenario: Scenario, conf: config.Config, rate: float, show: Callable[[Play], None]) -> Play:
    """Feeds the whole scenario, at most `rate` predictions a second, and waits until all of it was read. `show` is called often."""
    return _Player(scenario, conf, rate, show).run()


class _Player:
    def __init__(self, scenario: Scenario, conf: config.Config, rate: float, show: Callable[[Play], None]) -> None:
        self._play = Play(scenario)
        self._rate = rate
        self._show = show
        self._conf = conf
        self._began = time.monotonic()
        self._moved = self._began  # when a stage last made progress
        self._seen: tuple[int, ...] = ()
        self._lags = (0, 0, 0)

    def run(self) -> Play:
        conf, play = self._conf, self._play
        client = conf.kafka_client()
        producer = Producer(client | {"linger.ms": 5})
        for topic in conf.topics.names().values():
            producer.list_topics(topic, 20)  # the embedded Kafka makes a topic that is asked for
        alerts = Consumer(client | {"group.id": "demo-reader", "isolation.level": "read_committed", "enable.auto.commit": False})
        run = Run(conf, log=lambda _: None)
        try:
            partitions = alerts.list_topics(conf.topics.alerts, 20).topics[conf.topics.alerts].partitions
            alerts.assign([TopicPartition(conf.topics.alerts, p, OFFSET_BEGINNING) for p in partitions])
            run.start()
            try:
                self._feed(run, producer, alerts)
            finally:
                run.stop()
                run.wait(every_s=0.05)
            play.note = "done"
            self._look(run, alerts)
            return play
        finally:
            alerts.close()

    def _feed(self, run: Run, producer: Producer, alerts: Consumer) -> None:
        play, topics = self._play, self._conf.topics.names()
        self._wait_for_stages(run, alerts)
        began = time.monotonic()
        play.note = "feeding"
        batch: list[Event] = []
        for event in play.scenario.events():
            batch.append(event)
            if len(batch) < _BATCH:
                continue
            self._send(producer, topics, batch)
            batch = []
            while (going := self._look(run, alerts)) and (self._behind() or play.number > (time.monotonic() - began) * self._rate):
                time.sleep(0.01)
            if not going:
                return  # a stage failed: waiting for it says why
        self._send(producer, topics, batch)
        producer.flush(20)
        play.note = "all is fed, waiting for the stages"
        while self._look(run, alerts):
            quiet = time.monotonic() - self._moved
            if quiet > _SETTLED_S and max(self._lags) <= 0:
                return
            if quiet > _PATIENCE_S:
                raise FatalError(
                    f"the stages stand still and are {self._lags} records behind", "run the demo again on a less loaded machine"
                )
            time.sleep(0.02)

    def _wait_for_stages(self, run: Run, alerts: Consumer) -> None:
        self._play.note = "the stages are starting"
        deadline = time.monotonic() + 20
        while self._look(run, alerts) and time.monotonic() < deadline:
            if all(stage.worker is not None and stage.worker.source.owned() for stage in run.stages):
                return
            time.sleep(0.02)

    def _send(self, producer: Producer, topics: Mapping[str, str], batch: list[Event]) -> None:
        for event in batch:
            producer.produce(topics[event.topic], event.value, event.key)
        producer.poll(0)
        self._play.sent += len(batch)
        if batch:
            self._play.number = batch[-1].number

    def _behind(self) -> bool:
        return max(self._lags) > _IN_FLIGHT and time.monotonic() - self._moved < _STUCK_S

    def _look(self, run: Run, alerts: Consumer) -> bool:
        """Takes stock and shows it. False where a stage ended."""
        play = self._play
        route, join, _ = run.stages
        done = tuple(stage.progress.committed for stage in run.stages)
        play.stages = dict(zip(("route", "join", "detect"), done, strict=True))
        routed, joined = route.counters, join.counters
        play.dead = sum(n for name, n in routed.items() if name.startswith("dead_letter"))
        play.joined = joined.get("outcome", 0)
        play.waiting = joined.get("prediction", 0) - play.joined
        journal = routed.get("predictions", 0) + routed.get("feedback", 0) - play.dead
        observed = sum(joined.get(name, 0) for name in ("prediction", "outcome", "feedback_issue", "feedback_cohort"))
        self._lags = (play.sent - done[0], journal - done[1], observed - done[2])
        self._read(alerts)
        seen = (*done, len(play.noticed), play.resolved)
        if seen != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        play.seconds = time.monotonic() - self._began
        self._show(play)
        return not any(stage.finished.is_set() for stage in run.stages)

    def _read(self, alerts: Consumer) -> None:
        """Alerts, as any downstream system reads them."""
        play = self._play
        for message in alerts.consume(100, 0):
            if message.error() is not None:
                continue
            alert = orjson.loads(message.value() or b"{}")
            if alert.get("status") in ("firing", "updated"):
                play.latest[str(alert.get("id"))] = alert
            if alert.get("status") == "firing":
                play.noticed.append(Noticed(alert, play.scenario.cause(alert), play.scenario.number_at(alert["detected_at"])))
            elif alert.get("status") == "resolved":
                play.resolved += 1
