"""The demo as a person meets it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stream_monitor import demo as package
from stream_monitor.demo.display import Display, alert_line, picture, summarise
from stream_monitor.demo.feed import Noticed, Play
from stream_monitor.demo.scenario import Scenario
from stream_monitor.errors import FatalError
from stream_monitor.stages import Join


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(seed=7, predictions=5_000, end_ms=1_800_000_000_000)


def noticed(scenario: Scenario, summary: str = "loans v1: error rose", **fields: Any) -> Noticed:
    alert: dict[str, Any] = {
        "id": "a" * 32,
        "incident": "a" * 32,
        "kind": "concept_drift",
        "metric": "error",
        "slice": {"key": "country", "value": "DE"},
        "severity": "critical",
        "summary": summary,
        "detected_at": scenario.time_of(scenario.concept.at + 900),
    } | fields
    return Noticed(alert, scenario.cause(alert), scenario.number_at(alert["detected_at"]))


def test_a_short_demo_notices_both_drifts_and_leaves_nothing_behind() -> None:
    before = threading.active_count()
    console = Console(file=io.StringIO(), width=120)
    played = package.perform(console, seed=1, predictions=16_000, rate=4_000)
    assert played.success
    assert len(played.false_alerts) <= 1
    assert played.number == 16_000
    assert played.dead == played.scenario.malformed > 0
    assert played.joined + played.waiting == 16_000
    assert threading.active_count() == before
    summarise(console, played)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert text.count("noticed  ") == 2
    assert "stream-monitor run --config monitor.toml" in text


def test_the_summary_tells_incidents_each_in_the_words_of_its_first_alerts_newest_event(scenario: Scenario) -> None:
    first = noticed(scenario)
    second = noticed(scenario, id="b" * 32, metric="precision=repaid", kind="performance", slice=None)
    other = noticed(scenario, id="c" * 32, incident="c" * 32, summary="loans v1: again")
    newest = {**first.alert, "status": "updated", "summary": "loans v1: error rose; country=DE explains 92% of it"}
    play = Play(scenario, number=5_000, noticed=[first, second, other], latest={"a" * 32: newest})
    console = Console(file=io.StringIO(), width=200)
    summarise(console, play)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "incident aaaaaaaa, 2 alerts about error, precision=repaid: loans v1: error rose; country=DE explains 92% of it\n" in text
    assert "incident cccccccc, 1 alert about error: loans v1: again\n" in text


def test_a_drift_that_was_missed_is_said_and_fails(scenario: Scenario) -> None:
    play = Play(scenario, number=5_000, noticed=[noticed(scenario)])
    console = Console(file=io.StringIO(), width=120)
    summarise(console, play)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert not play.success
    assert "noticed  concept drift" in text
    assert "MISSED   data drift" in text


def test_false_alerts_are_shown(scenario: Scenario) -> None:
    play = Play(scenario, noticed=[noticed(scenario, slice={"key": "country", "value": "FR"})])
    console = Console(file=io.StringIO(), width=120)
    summarise(console, play)
    assert "false alerts: 1" in console.file.getvalue()  # type: ignore[attr-defined]


def test_hostile_text_is_not_printed_raw(scenario: Scenario) -> None:
    line = alert_line(noticed(scenario, summary="[red]\x1b[31m\r\n"))
    assert line.plain.isprintable()
    assert "[red]" in line.plain


def test_the_picture_fits_a_terminal_of_24_lines(scenario: Scenario) -> None:
    play = Play(scenario, number=4_500, noticed=[noticed(scenario)] * 10)
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True)
    assert len(console.render_lines(picture(play))) <= 24
    with Display(console) as display:
        display(play)
    assert "DE" in console.file.getvalue()  # type: ignore[attr-defined]


def hear_ctrl_c() -> None:
    """In the child: a script's `pytest &` has SIGINT ignored, children inherit that, and Python leaves it so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "stream_monitor", "demo"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=hear_ctrl_c
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("(feeding)" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        rest, complaints = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert rest.endswith("interrupted\n")
    assert complaints == ""
    assert list(tmp_path.iterdir()) == []


def test_a_failing_stage_ends_the_demo_with_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise FatalError("no more")

    monkeypatch.setattr(Join, "begin", broken)
    with pytest.raises(FatalError, match="no more"):
        package.perform(Console(file=io.StringIO()), seed=1, predictions=5_000, rate=5_000)
