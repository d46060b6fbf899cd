"""The faults of tests/soak that are short enough for every push: the same scripts, a little of each; and what the soak says of itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from tests.soak.__main__ import main
from tests.soak.groups import CONSUMER_PROTOCOL, EAGER, same_name_again, storm, twins
from tests.soak.launcher import POINTS
from tests.soak.operators import gap, gap_in_journal, gap_in_observations
from tests.soak.registry import FAULTS, Fault
from tests.soak.store import again_and_again, full
from tests.soak.trial import Trial
from tests.support.servers import KafkaServer


@pytest.fixture
def trial(kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[Trial]:
    trial = Trial(request.node.name, 1, print, lambda: kafka)
    yield trial
    print(trial.shown(), trial.last_words(), sep="\n")  # seen where the test failed
    trial.close()


def test_killed_at_each_point_of_the_work_nothing_is_lost_or_doubled(trial: Trial) -> None:
    setting = trial.setting()
    stages = dict.fromkeys(POINTS, "join") | {"before-commit": "route", "after-commit": "detect"}
    with trial.feed(setting) as feed:
        for point in POINTS:
            died = trial.start(setting, flaw=(point, stages[point], "2")).wait(60)
            assert died == -signal.SIGKILL, f"{point} was not reached: exit code {died}"
    trial.settle(setting, feed.sent)


def test_a_redis_that_forgets_everything_under_load_is_healed_from_the_journal(trial: Trial) -> None:
    again_and_again(trial, lambda client: client.flushall(), 2, 0.5)


def test_a_full_redis_is_waited_for_and_evicts_nothing(trial: Trial) -> None:
    full(trial, 1.0)


def test_of_two_processes_with_one_name_the_older_ends_with_one_clear_line_and_the_younger_goes_on(trial: Trial) -> None:
    twins(trial, "")


@pytest.mark.parametrize(("consumer", "assigns"), [(EAGER, "range"), (CONSUMER_PROTOCOL, "uniform")], ids=["eager", "consumer"])
def test_a_member_that_comes_and_goes_takes_and_gives_back_by_every_protocol_of_groups(trial: Trial, consumer: str, assigns: str) -> None:
    storm(trial, consumer, assigns, 1)


def test_killed_and_started_again_under_its_name_it_waits_for_its_session_in_a_group_of_the_new_protocol(trial: Trial) -> None:
    same_name_again(trial, 1)


def test_a_gap_in_the_log_stops_the_run_until_reset_accepts_it(trial: Trial) -> None:
    gap(trial, 6_000)


def test_a_gap_in_the_journal_stops_the_run_until_reset_accepts_it_and_the_bucket_begins_anew(trial: Trial) -> None:
    gap_in_journal(trial, 9_000)


def test_a_gap_in_the_observations_stops_the_run_until_reset_accepts_it_and_detect_goes_on_behind_it(trial: Trial) -> None:
    gap_in_observations(trial, 24_000)


def test_a_soak_whose_minutes_do_not_reach_every_fault_fails_and_names_those(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "other"):
        monkeypatch.setitem(FAULTS, name, Fault(name, "nothing", "nothing", lambda _: None))
    asked = ["--only", "one", "other", "--minutes"]
    assert main([*asked, "1e-9"]) == 1
    assert "not reached in 1e-09 minutes: other" in capsys.readouterr().out
    assert main([*asked, "0"]) == 0


def test_a_soak_on_three_brokers_gives_each_fault_topics_that_are_on_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def script(trial: Trial) -> None:
        setting = trial.setting()
        client = AdminClient({"bootstrap.servers": setting.kafka.bootstrap})
        made = set(setting.topics.values())
        while not made <= (topics := client.list_topics(timeout=30).topics).keys():
            time.sleep(0.1)  # not every broker knows of them at once
        replicas = {len(partition.replicas) for name in made for partition in topics[name].partitions.values()}
        seen.append((setting.kafka.brokers, replicas, trial.brokers))

    monkeypatch.delenv("STREAM_MONITOR_TEST_KAFKA", raising=False)  # it has as many brokers as it has
    monkeypatch.setitem(FAULTS, "one", Fault("one", "nothing", "nothing", script))
    assert main(["--only", "one", "--brokers", "3"]) == 0
    assert seen == [(3, {3}, 3)]
