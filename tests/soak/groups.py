"""Members that come and go, that sleep and wake up, and two that are taken for one."""

from __future__ import annotations

import signal
import time

from confluent_kafka.admin import AdminClient

from tests.integration.command import Setting
from tests.soak.crashes import ONCE
from tests.soak.registry import fault
from tests.soak.trial import MISSED_SOON, RATE, TABLES, Trial, advances
from tests.support.servers import KafkaServer, start_kafka

FENCED = 70


def storm(trial: Trial, consumer: str, assigns: str, rounds: int) -> None:
    """Members come and go; `consumer` are lines of [kafka.consumer], `assigns` is the assignor that the group must then have."""
    setting = trial.setting(partitions=(4, 4), base=TABLES.replace(MISSED_SOON, consumer))
    with trial.feed(setting, rate=RATE / 4 if trial.full else RATE) as feed:  # so slow that the messages last
        stays = trial.start(setting, instance="")
        stays.until_reading()
        for _ in range(rounds):
            comes = trial.start(setting, instance="")
            comes.until_reading()
            time.sleep(5.0)
            assert assignor(setting) == assigns
            comes.stop()
            time.sleep(2.5)
        trial.recoveries.append(advances(setting))
        stays.stop()
    trial.figures["rebalances"] = 2 * rounds
    trial.settle(setting, feed.sent)


def assignor(setting: Setting) -> str:
    """What the members of join's group have agreed upon."""
    group = f"{setting.namespace}-join"
    client = AdminClient({"bootstrap.servers": setting.kafka.bootstrap, "log_level": 0})
    return str(client.describe_consumer_groups([group])[group].result(30).partition_assignor)


COMES_AND_GOES = "a second process joins, and leaves 5 s later, again and again (5 times; --full: 24)"


@fault("rebalance-storm", COMES_AND_GOES, ONCE)
def rebalance_storm(trial: Trial) -> None:
    storm(trial, MISSED_SOON, "cooperative-sticky", round(trial.seconds(5, 24)))


EAGER = MISSED_SOON + '"partition.assignment.strategy" = "range"\n'


@fault("rebalance-storm-eager", "the same in an eager group: each time, all give back everything", ONCE)
def rebalance_storm_eager(trial: Trial) -> None:
    storm(trial, EAGER, "range", round(trial.seconds(5, 24)))


CONSUMER_PROTOCOL = '"group.protocol" = "consumer"\n'  # how soon a member is missed, the broker says


@fault("rebalance-storm-consumer-protocol", "the same with group.protocol = consumer (KIP-848): the broker assigns", ONCE)
def rebalance_storm_consumer_protocol(trial: Trial) -> None:
    storm(trial, CONSUMER_PROTOCOL, "uniform", round(trial.seconds(5, 24)))


def same_name_again(trial: Trial, kills: int) -> None:
    """A process is killed, and starts again long before the broker gives up the session of the one that was killed."""
    kafka: KafkaServer = trial.own(start_kafka(trial.brokers, group_consumer_session_timeout_ms="10000"))
    setting = trial.setting(kafka=kafka, base=TABLES.replace(MISSED_SOON, CONSUMER_PROTOCOL))
    with trial.feed(setting) as feed:
        process = trial.start(setting)
        process.until_reading()
        for _ in range(kills):
            advances(setting)
            process.kill()
            process = trial.start(setting)
            process.until_reading()
            trial.recoveries.append(advances(setting, seconds=60))
        process.stop()
    trial.figures["kills"] = kills
    trial.settle(setting, feed.sent)


@fault(
    "kill-consumer-protocol",
    "kill -9, three times, with group.protocol = consumer and a session of 10 s; each successor has the same instance_id",
    "it waits until the session is over, and does not end; " + ONCE,
)
def kill_consumer_protocol(trial: Trial) -> None:
    same_name_again(trial, 3)


@fault(
    "sigstop",
    "SIGSTOP past session and poll interval while another takes over, then SIGCONT; three times",
    "what the sleeper held is refused; " + ONCE,
)
def sigstop(trial: Trial) -> None:
    setting = trial.setting(partitions=(4, 4))
    interval = {"STREAM_MONITOR__KAFKA__CONSUMER__MAX_POLL_INTERVAL_MS": "5000"}
    with trial.feed(setting) as feed:
        sleeper = trial.supervise(setting, instance="sleeper", **interval)
        sleeper.process.until_reading()
        other = trial.start(setting, instance="other", **interval)
        other.until_reading()
        for _ in range(3):
            time.sleep(1 + trial.random.random())
            process = sleeper.process
            process.send(signal.SIGSTOP)
            time.sleep(8.0)
            trial.recoveries.append(advances(setting))
            process.send(signal.SIGCONT)
            time.sleep(3.0)
        sleeper.end()
        other.stop()
    trial.figures["codes_of_the_sleeper"] = str(sleeper.codes)
    assert set(sleeper.codes) <= {FENCED}, f"exit codes {sleeper.codes}"
    trial.settle(setting, feed.sent, instance="sleeper")


def twins(trial: Trial, flaw: str) -> None:
    """Two processes of one name: the older one is fenced and says so, the younger goes on."""
    setting = trial.setting()
    with trial.feed(setting) as feed:
        flaws = (flaw, "-", "0") if flaw else ()
        older = trial.start(setting, flaw=flaws)
        older.until_reading()
        time.sleep(2.0)
        younger = trial.start(setting, flaw=flaws)
        code = older.wait(60)
        said = older.said()
        assert code == FENCED, f"exit code {code}:\n{said[-3000:]}"
        last = [line for line in said.splitlines() if line.startswith("stream-monitor: ")]
        assert len(last) == 1, said[-3000:]
        assert "Traceback" not in said
        assert "enced" in last[0] or "nother" in last[0], last
        trial.recoveries.append(advances(setting))
        younger.stop()
    trial.figures["said"] = last[0]
    trial.settle(setting, feed.sent)


ONE_GOES = f"the older ends with {FENCED} and one line, the younger goes on; " + ONCE


@fault("twin-instance", "two processes with one instance_id", ONE_GOES)
def twin_instance(trial: Trial) -> None:
    twins(trial, "")


@fault("twin-transactional-id", "two processes with one transactional id, and nothing else in common", ONE_GOES)
def twin_transactional_id(trial: Trial) -> None:
    twins(trial, "shared-transactional-id")


@fault("twin-group-instance", "two processes with one group instance id, and transactional ids of their own", ONE_GOES)
def twin_group_instance(trial: Trial) -> None:
    twins(trial, "shared-group-instance")
