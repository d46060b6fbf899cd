"""Brokers that die, go away or cannot be reached."""

from __future__ import annotations

import time

from confluent_kafka.admin import AdminClient

from tests.integration.command import Setting
from tests.soak.crashes import ONCE
from tests.soak.launcher import COMMIT_BEGINS, COMMIT_CAME_BACK
from tests.soak.registry import fault
from tests.soak.trial import RATE, Trial, advances
from tests.support.proxy import Proxy
from tests.support.servers import KafkaServer, start_kafka


@fault(
    "broker-killed",
    "kill -9 of the only broker, five times; it comes back after 2 s (--brokers 3: of one after the other; back once the others go on)",
    ONCE,
)
def broker_killed(trial: Trial) -> None:
    kafka: KafkaServer = trial.own(start_kafka(trial.brokers))
    setting = trial.setting(kafka=kafka)
    others_go_on = kafka.brokers > 2  # two replicas of each record are left, and most of the controllers
    with trial.under_supervision(setting, rate=RATE / kafka.brokers):  # so slow that the messages last
        for i in range(5):
            time.sleep(trial.random.uniform(1.0, 3.0))
            killed = i % kafka.brokers
            kafka.kill(killed)
            if not others_go_on:
                time.sleep(2.0)
                kafka.restart(killed)
            trial.recoveries.append(advances(setting))
            if others_go_on:
                kafka.restart(killed)
    trial.figures["kills"] = 5


def coordinator(kafka: KafkaServer, transactional_id: str) -> int:
    """The broker (counted from 0) that coordinates a transactional id: the leader of its partition of the transactions' topic."""
    digest = 0
    for character in transactional_id:
        digest = (31 * digest + ord(character)) & 0xFFFFFFFF
    partitions = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0}).list_topics("__transaction_state", 30).topics
    found = partitions["__transaction_state"].partitions
    return int(found[(digest & 0x7FFFFFFF) % len(found)].leader) - 1


@fault(
    "coordinator-killed",
    "three brokers; the coordinator of a stage's transactions is killed while a commit is on its way to it, for each stage",
    ONCE,
)
def coordinator_killed(trial: Trial) -> None:
    kafka: KafkaServer = trial.own(start_kafka(max(3, trial.brokers)))
    setting = trial.setting(kafka=kafka)
    codes: list[int] = []
    tries = 0
    with trial.feed(setting, rate=300) as feed:  # so slow that the messages last
        for stage in ("route", "join", "detect"):
            unanswered = False
            while not unanswered:  # the answer may have been faster than the kill
                assert tries < 10, f"no commit of {stage} was met"
                tries += 1
                supervised = trial.supervise(setting, flaw=("commit-announced", stage, str(trial.random.randint(30, 60))))
                process = supervised.process
                process.until_reading()
                killed = coordinator(kafka, f"{setting.namespace}-{stage}-a")
                process.until_said(COMMIT_BEGINS, every_s=0.001)
                kafka.kill(killed)
                unanswered = COMMIT_CAME_BACK not in process.said()
                trial.recoveries.append(advances(setting, stage))
                kafka.restart(killed)
                supervised.end()
                codes += supervised.codes
    trial.figures |= {"kills": tries, "of_these_before_the_answer": 3, "exit_codes": str(codes)}
    trial.settle(setting, feed.sent)


def behind(trial: Trial) -> tuple[Setting, Proxy]:
    """A broker that the command reaches through a proxy, and the feed directly; always one, since a proxy leads to one."""
    proxy: Proxy = trial.own(Proxy())
    kafka: KafkaServer = trial.own(start_kafka(behind=proxy.port))
    proxy.target = kafka.client_port
    setting = trial.setting(kafka=kafka)
    text = setting.file.read_text()
    setting.file.write_text(text.replace(kafka.bootstrap, f"127.0.0.1:{proxy.port}"))
    return setting, proxy


@fault("cut-off", "the client is cut off from all brokers for 20 s (--full: 60 s), nothing is refused, nothing arrives", ONCE)
def cut_off(trial: Trial) -> None:
    setting, proxy = behind(trial)
    with trial.under_supervision(setting):
        trial.recoveries.append(advances(setting))
        proxy.cut()
        time.sleep(trial.seconds(20, 60))
        proxy.heal()
        trial.recoveries.append(advances(setting))


@fault("brokers-away", "all brokers away for 25 s (--full: 3 minutes)", "it waits, or ends and is started again; " + ONCE)
def brokers_away(trial: Trial) -> None:
    kafka: KafkaServer = trial.own(start_kafka(trial.brokers))
    setting = trial.setting(kafka=kafka)
    with trial.under_supervision(setting, rate=RATE / kafka.brokers) as process:
        trial.recoveries.append(advances(setting))
        kafka.kill()  # at once: the last of several could not end in order, for want of a controller
        time.sleep(trial.seconds(25, 180))
        kafka.restart()
        trial.recoveries.append(advances(setting))
    codes = sorted(set(process.codes))
    assert set(codes) <= {3, 70}, f"exit codes {codes}"
