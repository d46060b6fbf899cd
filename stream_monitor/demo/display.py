"""What a person sees: a picture that is renewed in place on a terminal, now and then a line everywhere else, and the summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream_monitor.core.alerting import safe
from stream_monitor.demo.feed import Noticed, Play
from stream_monitor.demo.scenario import TRAINING_ROWS, Drift

_PICTURE_EVERY_S = 0.15
_LINE_EVERY_S = 3.0
_ALERTS_SHOWN = 5

INTRODUCTION = (
    "Loans are decided by a model that was trained once. What became of a loan is known later, or never.",
    "Two drifts are injected on the way. The monitor does not know when, nor what. Everything runs inside this process.",
)
_STAGES = {
    "route": "checks each message; broken ones go to the dead letters",
    "join": "joins predictions with their late labels (Redis)",
    "detect": "watches each model, slice and metric; publishes alerts",
}


class Display:
    """Called with the play as often as one likes; a context manager that leaves the terminal as it was."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._next = 0.0
        self._alerts = 0
        self._made: set[str] = set()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        for line in INTRODUCTION:
            self.say(Text(line))
        self.say(Text(f"Training the model on the first {TRAINING_ROWS:,} loans."))
        self.say(Text())
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: Text) -> None:
        self._console.print(line, soft_wrap=self._live is None, highlight=False)

    def __call__(self, play: Play) -> None:
        now = self._clock()
        if self._live is None:
            self._lines(play, now)
        elif now >= self._next or play.note == "done":
            self._next = now + _PICTURE_EVERY_S
            self._live.update(picture(play), refresh=True)

    def _lines(self, play: Play, now: float) -> None:
        for drift in play.scenario.drifts:
            if play.number >= drift.at and drift.name not in self._made:
                self._made.add(drift.name)
                self.say(Text(f"INJECTED at prediction {drift.at:,}: {drift.name}: {drift.what}"))
        for noticed in play.noticed[self._alerts :]:
            self.say(alert_line(noticed))
        self._alerts = len(play.noticed)
        if now >= self._next:
            self._next = now + _LINE_EVERY_S
            self.say(
                Text(
                    f"{play.seconds:4.0f} s  {play.number:,} of {play.scenario.predictions:,} predictions, {play.joined:,} joined,"
                    f" {play.waiting:,} wait for a label, {play.dead:,} dead-lettered, {len(play.noticed):,} alerts ({play.note})"
                )
            )


def picture(play: Play) -> RenderableType:
    """The whole state."""
    total = play.scenario.predictions
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(f"{play.number:,} of {total:,} predictions"),
        ProgressBar(total, play.number, width=30),
        Text(f"{play.seconds:.0f} s, {play.note}"),
    )
    stages = Table(box=SIMPLE_HEAD, show_edge=False)
    for name, justify in (("stage", "left"), ("records", "right"), ("a second", "right"), ("what it does", "left")):
        stages.add_column(name, justify=justify)  # type: ignore[arg-type]
    for stage, task in _STAGES.items():
        done = play.stages[stage]
        stages.add_row(stage, f"{done:,}", f"{done / max(play.seconds, 0.1):,.0f}", task)
    counts = Text(f"{play.joined:,} joined   {play.waiting:,} wait for a label   {play.dead:,} dead-lettered")
    drifts = Table(box=SIMPLE_HEAD, show_edge=False)
    for title in ("injected", "when", "noticed"):
        drifts.add_column(title)
    for drift in play.scenario.drifts:
        made = play.number >= drift.at
        what = Text(f"{drift.name}: {drift.what}", style="" if made else "dim")
        when = f"prediction {drift.at:,}" if made else f"to come at {drift.at:,}"
        drifts.add_row(what, Text(when, style="" if made else "dim"), _noticed(play, drift, made))
    shown = [alert_line(noticed) for noticed in play.noticed[-_ALERTS_SHOWN:]]
    for line in shown:
        line.no_wrap, line.overflow = True, "ellipsis"
    heading = Text(f"Alerts read from the topic: {len(play.noticed):,}", style="bold")
    return Group(head, Text(), stages, counts, Text(), drifts, Text(), heading, *shown)


def _noticed(play: Play, drift: Drift, made: bool) -> Text:
    first = play.first(drift)
    if first is None:
        return Text("not yet" if made else "", style="yellow")
    return Text(after(play, drift, first), style="green")


def after(play: Play, drift: Drift, noticed: Noticed) -> str:
    """`after 1,200 predictions, 1 h 26 min of their time`."""
    minutes = (noticed.alert["detected_at"] - play.scenario.time_of(drift.at)) // 60_000
    hours = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"after {noticed.number - drift.at:,} predictions, {hours} of their time"


def alert_line(noticed: Noticed) -> Text:
    """The alert, beside the truth."""
    truth = f"true: {noticed.cause.name}" if noticed.cause else "FALSE ALERT"
    summary = "".join(c if c.isprintable() else "?" for c in str(noticed.alert["summary"]))
    severity = safe(str(noticed.alert["severity"])).upper()
    return Text(f"ALERT at {noticed.number:,} [{truth}] {severity} {summary}", style="" if noticed.cause else "red")


def incident_line(play: Play, incident: list[Noticed]) -> str:
    """`incident 1a2b3c4d: 4 alerts, about error, ...: what its first alert came to say`."""
    metrics = list(dict.fromkeys(safe(str(noticed.alert["metric"])) for noticed in incident))
    about = ", ".join(metrics[:4]) + (" ..." if len(metrics) > 4 else "")
    count = f"{len(incident)} alert{'s' * (len(incident) != 1)}"
    first = incident[0].alert
    says = "".join(c if c.isprintable() else "?" for c in str(play.latest.get(str(first.get("id")), first)["summary"]))
    return f"incident {safe(str(first.get('incident')))[:8]}, {count} about {about}: {says}"


def summarise(console: Console, play: Play) -> None:
    """What was injected, what was noticed, what was wrong, and what to do next."""
    lines = [
        Text(
            f"{play.number:,} predictions in {play.seconds:.0f} s: {play.joined:,} joined with their label, {play.waiting:,} never got"
            f" one, {play.dead:,} of {play.scenario.malformed:,} malformed messages in the dead-letter topic"
        ),
        Text(),
    ]
    for drift in play.scenario.drifts:
        first = play.first(drift)
        mark = Text("noticed  ", style="bold green") if first else Text("MISSED   ", style="bold red")
        lines.append(mark + Text(f"{drift.name}, at prediction {drift.at:,}: {drift.what}"))
        if first is not None:
            lines.append(Text(f"         {after(play, drift, first)}"))
            lines += [Text(f"         {incident_line(play, incident)}") for incident in play.incidents(drift)]
    false = play.false_alerts
    lines.append(Text("false alerts: none" if not false else f"false alerts: {len(false)}", style="red" if false else "green"))
    lines += [Text("         ") + alert_line(noticed) for noticed in false]
    lines += [
        Text(),
        Text("Next, on your own topics: stream-monitor run --config monitor.toml"),
        Text("README.md says how to write that file; monitor.example.toml has every key."),
    ]
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)
