"""A process that ends without a word, at random and at the worst points, and one that is asked to end."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

from tests.integration.command import Setting
from tests.integration.comparison import join_of_the_journal
from tests.integration.workload import Message
from tests.soak.registry import fault
from tests.soak.trial import RATE, Process, Trial, advances, workload

ONCE = "the plain join, each pair and each alert once"
FROM_SNAPSHOT = "state from the snapshot of offset"


@fault("kill-random", "kill -9, 30 times, 0.1 to 1 s after it began to read", ONCE)
def kill_random(trial: Trial) -> None:
    setting = trial.setting()
    sent = killed_at_random(trial, setting, 30)
    trial.settle(setting, sent)


@fault(
    "kill-in-window",
    "the same 15 times, with a window of 2 s, a slack of 18 s and half the labels up to 40 s later, so that much expires meanwhile",
    "the plain join by the journal's append times: joined, late, expired and orphans, each once; each alert once",
)
def kill_in_window(trial: Trial) -> None:
    setting = trial.setting('[join]\nwindow = "2s"\nslack = "18s"\n')
    sent = killed_at_random(trial, setting, 15, held_back(workload(trial.seed), trial.random, 40.0))
    summary = setting.until_end(STREAM_MONITOR__INSTANCE_ID="a")
    expected = join_of_the_journal(setting, sent)
    trial.compare(setting, expected, summary)
    told = ("joined", "late", "expired", "orphan", "conflicting", "duplicate_predictions", "duplicate_feedback")
    trial.figures |= {name: expected.counts.get(name, 0) for name in told}
    assert all(trial.figures[name] for name in told), "something of what was to meet the kills did not happen"


def held_back(messages: Sequence[Message], rng: random.Random, seconds: float) -> list[Message]:
    """The same messages, half of the feedback at random up to so many seconds later.

    While a process is down and starts, what comes is appended to the journal all at once after it. Only delays spread over
    more than the longest such gap are some of them late and some not, however slow the machine.
    """
    most = round(seconds * RATE)
    places = [i + (rng.randrange(most) if message.topic == "feedback" and rng.random() < 0.5 else 0) for i, message in enumerate(messages)]
    return [messages[i] for i in sorted(range(len(messages)), key=places.__getitem__)]


def killed_at_random(trial: Trial, setting: Setting, kills: int, messages: Sequence[Message] | None = None) -> Sequence[Message]:
    """Kills a process under load again and again; what was sent."""
    with trial.feed(setting, messages) as feed:
        process = trial.start(setting)
        for i in range(kills):
            process.until_reading()
            time.sleep(trial.random.uniform(0.1, 1.0))
            process.kill()
            process = trial.start(setting)
            if i % 10 == 9:
                with trial.recovery(setting):
                    pass
        process.until_reading()  # before, it may not even listen to signals
        process.stop()
    trial.figures |= {"kills": kills, "starts_from_snapshots": trial.said(FROM_SNAPSHOT)}
    return feed.sent


def at_the_point(trial: Trial, point: str, stages: tuple[str, ...], kills: int) -> None:
    """Processes that end themselves at a point, one after the other, and then one that does not."""
    setting = trial.setting()
    with trial.feed(setting) as feed:
        for stage in stages:
            for _ in range(kills):
                flaw = (point, stage, str(trial.random.randint(1, 8)))
                died = trial.start(setting, flaw=flaw).wait(120)
                assert died == -signal.SIGKILL, f"{' '.join(flaw)} was not reached: exit code {died}"
        with trial.recovery(setting):
            process = trial.start(setting)
        process.stop()
    trial.figures |= {"kills": kills * len(stages), "starts_from_snapshots": trial.said(FROM_SNAPSHOT)}
    trial.settle(setting, feed.sent)


ALL = ("route", "join", "detect")


@fault("kill-before-redis", "kill -9 before the Redis write", ONCE)
def kill_before_redis(trial: Trial) -> None:
    at_the_point(trial, "before-redis", ("join",), 5)


@fault("kill-after-redis", "kill -9 after the Redis write, before anything of it is produced", ONCE)
def kill_after_redis(trial: Trial) -> None:
    at_the_point(trial, "after-redis", ("join",), 5)


@fault("kill-before-commit", "kill -9 after produce, before the commit; each stage", ONCE)
def kill_before_commit(trial: Trial) -> None:
    at_the_point(trial, "before-commit", ALL, 2)


@fault("kill-offsets-sent", "kill -9 between the offsets' going into the transaction and its commit; each stage", ONCE)
def kill_offsets_sent(trial: Trial) -> None:
    at_the_point(trial, "offsets-sent", ALL, 2)


@fault("kill-during-commit", "kill -9 while the commit is on its way, within 8 ms; each stage", ONCE)
def kill_during_commit(trial: Trial) -> None:
    at_the_point(trial, "during-commit", ALL, 3)


@fault("kill-after-commit", "kill -9 right after the commit; each stage", ONCE)
def kill_after_commit(trial: Trial) -> None:
    at_the_point(trial, "after-commit", ALL, 2)


@fault("kill-new-name", "kill -9 five times, each successor with a new instance id", ONCE + "; waits for the broker to roll back")
def kill_new_name(trial: Trial) -> None:
    setting = trial.setting()
    with trial.feed(setting) as feed:
        for _ in range(5):
            process = trial.start(setting, instance="")
            process.until_reading()
            with trial.recovery(setting):
                pass
            process.kill()
    trial.figures["kills"] = 5
    trial.settle(setting, feed.sent, instance="")


@fault("sigterm", "SIGTERM mid-batch, ten times", "exit code 0, what was processed is committed, nothing is read twice; " + ONCE)
def sigterm(trial: Trial) -> None:
    setting = trial.setting()
    slowest = 0.0
    with trial.feed(setting) as feed:
        for _ in range(10):
            process = trial.start(setting)
            process.until_reading()
            time.sleep(trial.random.uniform(0.1, 1.5))
            began = time.monotonic()
            process.stop(30)
            slowest = max(slowest, time.monotonic() - began)
            assert "rolled back" not in process.said(), process.said()[-2000:]
    trial.figures["slowest_end_s"] = round(slowest, 1)
    trial.settle(setting, feed.sent)


def workers(trial: Trial, number: int, kills: int) -> None:
    setting = trial.setting(partitions=(4, 4))
    names = [f"w{i}" for i in range(number)]
    with trial.feed(setting) as feed:
        running: dict[str, Process] = {name: trial.start(setting, instance=name) for name in names}
        for process in running.values():
            process.until_reading()
        for _ in range(kills):
            time.sleep(trial.random.uniform(0.5, 3.0))
            name = trial.random.choice(names)
            running[name].kill()
            if trial.random.random() < 0.5:
                time.sleep(4.0)  # long enough for the group to give its partitions to the others
            running[name] = trial.start(setting, instance=name)
        trial.recoveries.append(advances(setting))
        for process in running.values():
            process.until_reading()  # the one that was started last may not even listen to signals yet
            process.stop()
    trial.figures |= {"kills": kills, "starts_from_snapshots": trial.said(FROM_SNAPSHOT)}
    trial.settle(setting, feed.sent, instance=names[0])


@fault("two-workers", "two workers a stage, eight kills of one or the other", ONCE)
def two_workers(trial: Trial) -> None:
    workers(trial, 2, 8)


@fault(
    "clock-shifted",
    "the clock of one of two workers is a day ahead, then a day behind, then a day ahead of a TTL of hours; messages are stamped right",
    "that clock decides nothing but whether a bucket is rebuilt, and a day is enough for that only in the last case; " + ONCE,
)
def clock_shifted(trial: Trial) -> None:
    day = 86_400
    figures: Counter[str] = Counter()
    rebuilds = []
    for tables, shift in (("", day), ("", -day), ('[join]\nwindow = "1h"\nslack = "1h"\nttl = "4h"\n', day)):
        setting = trial.setting(tables, partitions=(4, 4))
        with trial.feed(setting) as feed:
            right = trial.start(setting, instance="right")
            right.until_reading()
            advances(setting)  # the buckets are begun, and by a right clock: who begins one knows how young it is
            shifted = trial.start(setting, instance="shifted", flaw=("clock-shifted", "-", str(shift)))
            shifted.until_reading()
            time.sleep(6.0)
            advances(setting)
            for process in (shifted, right):
                process.stop()
        rebuilds.append(shifted.said().count("it is rebuilt"))
        assert "it is rebuilt" not in right.said(), right.said()[-3000:]
        expected = trial.settle(setting, feed.sent, instance="right")
        figures += Counter(messages=expected.messages, pairs=expected.outcomes.total(), alerts=trial.figures["alerts"])
    assert rebuilds[:2] == [0, 0], rebuilds
    assert rebuilds[2] > 0, rebuilds
    trial.figures |= {**figures, "rebuilds": str(rebuilds)}


@fault("four-workers", "four workers a stage, eight kills", ONCE)
def four_workers(trial: Trial) -> None:
    workers(trial, 4, 8)
