"""The commands. Together with run.py and demo/ the only place where concrete parts are put together.

Results go to standard output, everything else to standard error. A `StreamMonitorError` becomes one clear message and its exit code.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import stream_monitor
from stream_monitor import config as configuration
from stream_monitor import status as overview
from stream_monitor.config import Config
from stream_monitor.core.alerting import safe
from stream_monitor.core.control import Action, decide
from stream_monitor.errors import SetupError, StreamMonitorError
from stream_monitor.io import alerts as alert_topic
from stream_monitor.io import checks, control
from stream_monitor.io import reset as offsets
from stream_monitor.io import status as status_topics
from stream_monitor.io import topics as topic_setup
from stream_monitor.run import STAGES, Run, forget_join, join_accounting, summary
from stream_monitor.units import milliseconds

app = typer.Typer(
    name="stream-monitor",
    help="Joins delayed labels on a Kafka stream, detects drift online and publishes alerts, each exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="The topics that stream monitor needs.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file (TOML).", show_default=False)]

_INTERRUPTED = 130
_WIDE = 160  # columns of a table that goes to a file
_STATUS_EVERY = 10.0  # seconds between two lines of progress
_log = logging.getLogger("stream_monitor")


def main() -> None:
    """The entry point: runs a command and turns a failure into its message and exit code."""
    try:
        app()
    except StreamMonitorError as failure:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"stream-monitor: {failure}", style="bold red")
        sys.exit(failure.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stream-monitor {stream_monitor.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None: ...


@app.command()
def demo(seed: Annotated[int, typer.Option(help="Another seed, another stream.")] = 1) -> None:
    """Shows the whole thing on embedded servers: nothing to install or start, no network, under a minute."""
    from stream_monitor.demo import demo as show  # its generators take a second to load

    code = show(Console(), seed=seed)
    if code == _INTERRUPTED:
        # Everything is closed. CPython may end a process that has handled a Ctrl-C by SIGINT all the same (seen with 3.11), and
        # whoever waits for it would be told another story.
        sys.stdout.flush()
        os._exit(code)
    raise typer.Exit(code)


@app.command()
def run(
    config: ConfigOption,
    stage: Annotated[str, typer.Option(help=f"{', '.join(STAGES)} or all.")] = "all",
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when all that the input topics held at the start has gone through.")
    ] = False,
) -> None:
    """Runs the stages until SIGTERM or SIGINT."""
    if stage not in (*STAGES, "all"):
        raise typer.BadParameter(f"{stage!r} is none of {', '.join(STAGES)}, all", param_hint="--stage")
    settings = _load(config)
    _start_logging()
    _prepare(settings)
    running = Run(settings, STAGES if stage == "all" else [stage], until_end, _log.info)

    def end(number: int, _: object) -> None:
        running.stop()  # before it is said: the log may be held by a thread whose line nobody reads
        _log.info("%s: ending", signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    running.start()
    running.wait(_Status(running))
    _log.info("ended")
    if until_end:
        print(json.dumps(summary(running), indent=2))


@app.command()
def check(config: ConfigOption) -> None:
    """Checks the configuration, brokers, topics and Redis; lists every problem with what to do. Exit code 0 or 1."""
    try:
        settings = _load(config)
    except StreamMonitorError as failure:
        for line in str(failure).splitlines():
            print(f"  problem  {line}" if not line.startswith("  ") else f"           {line.strip()}")
        raise typer.Exit(1) from None
    print(f"  ok       {config}")
    problems = checks.everything(settings, lambda line: print(f"  ok       {line}"))
    for problem in problems:
        print(f"  problem  {problem.what}\n           {problem.hint}")
    if problems:
        raise typer.Exit(1)


@topics_app.command("create")
def topics_create(
    config: ConfigOption,
    inputs: Annotated[bool, typer.Option("--inputs", help="Also the predictions and feedback topics.")] = False,
) -> None:
    """Creates the topics that do not exist yet, as the guarantees need them."""
    settings = _load(config)
    made = _create_topics(settings, inputs)
    for name in made:
        print(f"created {name}")
    if not made:
        print("every topic exists already; `stream-monitor check` says whether they are as needed")


@app.command()
def alerts(
    config: ConfigOption,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The records as they are, one a line.")] = False,
) -> None:
    """Reads the alert topic: the alerts of each incident together, what explains it first; with --follow and --json as they lie there."""
    settings = _load(config)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    read = alert_topic.read(settings.kafka_consumer(), settings.topics.alerts, follow)
    held: list[Mapping[str, Any]] = []
    try:
        for published in read:
            if published is None:
                continue
            if as_json:
                sys.stdout.buffer.write(published.raw + b"\n")
                sys.stdout.buffer.flush()
            elif published.alert is None:
                console.print("(a record that is no alert)", style="dim")
            elif follow:
                console.print(_line(published.alert), style=_style(published.alert))
            else:
                held.append(published.alert)
        for incident in alert_topic.incidents(held):
            if incident.alerts > 1:
                console.print(_heading(incident), style="bold")
            for alert in incident.events:
                console.print(("  " if incident.alerts > 1 else "") + _line(alert), style=_style(alert))
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(0) from None


AlertArgument = Annotated[str, typer.Argument(metavar="ALERT_ID", help="Its id, or as much of it as is unique.", show_default=False)]
IncidentOption = Annotated[bool, typer.Option("--incident", help="All alerts of its incident, for as long as that lasts.")]
ByOption = Annotated[str, typer.Option("--by", help="Who decides it; by default the name you are logged in under.", show_default=False)]
CommentOption = Annotated[str, typer.Option("--comment", help="Why.", show_default=False)]


@app.command()
def acknowledge(
    alert: AlertArgument, config: ConfigOption, incident: IncidentOption = False, by: ByOption = "", comment: CommentOption = ""
) -> None:
    """Says that somebody has taken an alert on; every later event about it says so too."""
    _decide("acknowledge", alert, config, incident, by, comment)


@app.command()
def silence(
    alert: AlertArgument,
    config: ConfigOption,
    duration: Annotated[
        str, typer.Option("--for", help='For how long, such as "2h"; for good without it, "0s" ends a silence.', show_default=False)
    ] = "",
    incident: IncidentOption = False,
    by: ByOption = "",
    comment: CommentOption = "",
) -> None:
    """Publishes nothing about what the alert is about (model, version, slice, metric), later alerts included, but for its end."""
    try:
        lasting = milliseconds(duration) if duration else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    # 0 has passed whatever the event time is: the wall clock may be ahead of it.
    until = None if lasting is None else _now() + lasting if lasting else 0
    _decide("silence", alert, config, incident, by, comment, until)


@app.command()
def resolve(
    alert: AlertArgument, config: ConfigOption, incident: IncidentOption = False, by: ByOption = "", comment: CommentOption = ""
) -> None:
    """Ends an alert; the level that is there now is the reference from then on."""
    _decide("resolve", alert, config, incident, by, comment)


def _decide(action: Action, prefix: str, file: Path, incident: bool, by: str, comment: str, until: int | None = None) -> None:
    """Writes an operator's decision into the log of the alert's model."""
    settings = _load(file)
    read = alert_topic.read(settings.kafka_consumer(), settings.topics.alerts, False)
    alert = control.find((one.alert for one in read if one is not None and one.alert is not None), prefix)
    if alert["status"] == "resolved" and (action != "silence" or incident):
        raise StreamMonitorError(f"alert {safe(alert['id'])[:12]} is resolved", "there is nothing left to decide")
    value = decide(action, alert, _now(), incident=incident, until=until, by=by or _login(), comment=comment or None)
    place = control.send(settings.kafka_producer(), settings.topics.observations, alert, value)
    what = f"incident {safe(alert_topic.incident_of(alert))[:12]}" if incident else f"alert {safe(alert['id'])[:12]}"
    when = "" if not until else f" until {datetime.fromtimestamp(until / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC (event time)"
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"{action} {what}{when}: {alert['summary']!s}\n"
        f"written to {place.topic}/{place.partition} at {place.offset}; detect answers on {settings.topics.alerts} once it has read it"
    )


def _load(file: Path) -> Config:
    """The configuration, with properties that the Kafka client takes. Raises ConfigurationError with what is wrong."""
    settings = configuration.load(file)
    checks.properties(settings)
    return settings


def _now() -> int:
    return int(time.time() * 1000)


def _login() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return None


@app.command()
def status(
    config: ConfigOption,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="As metrics, in Prometheus' text format.")] = False,
) -> None:
    """Shows the alert budget, what is watched, what fires, how far each stage has read and what became of what was joined."""
    if as_json and prometheus:
        raise typer.BadParameter("--json and --prometheus are two forms of one answer; ask for one of them")
    settings = _load(config)
    t, properties = settings.topics, settings.kafka_consumer()
    reaches = status_topics.reaches(properties, settings.kafka.group, _read_by_stage(settings))
    kept = status_topics.kept(properties, t.state, t.observations)
    partitions = sum(reach.topic == t.observations for reach in reaches)
    detect = replace(settings.detect_settings(), partitions=partitions)
    accounting = _accounting(settings, [reach.partition for reach in reaches if reach.topic == t.journal])
    now = int(time.time() * 1000)
    data = overview.report(detect, t.observations, settings.detect.snapshot_interval, kept, reaches, now, accounting)
    if as_json:
        print(json.dumps(data, indent=2))
    elif prometheus:
        print(overview.prometheus(data), end="")
    else:
        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            console.width = _WIDE
        for part in overview.tables(data):
            console.print(part)


def _accounting(settings: Config, buckets: Sequence[int]) -> dict[str, int] | None:
    """The join's; None, and a line about it, where Redis does not give it: all else is in the topics."""
    try:
        return join_accounting(settings, buckets)
    except SetupError as trouble:
        typer.echo(f"the join's accounting is left out: {trouble}", err=True)
        return None


@app.command()
def reset(
    config: ConfigOption,
    join: Annotated[bool, typer.Option("--join", help="Also drop the join's state in Redis; it is rebuilt from the journal.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Accepts gaps in the logs: shows what it will do, asks, moves offsets, drops snapshots beyond them. Stop every process first."""
    settings = _load(config)
    t, group = settings.topics, settings.kafka.group
    gaps = offsets.find(settings.kafka_consumer(), {f"{group}-{name}": topics for name, topics in _read_by_stage(settings).items()})
    stale = offsets.beyond(settings.kafka_consumer(), t.state, [gap for gap in gaps if gap.topic == t.observations])
    for line in (*gaps, *stale):
        print(line)
    if join:
        print(f"the join's state in Redis is dropped; it is rebuilt from what {t.journal} holds")
    if not gaps and not join:
        print("every committed offset lies in what its topic holds; nothing to do")
        return
    if not yes:
        typer.confirm("Go on?", abort=True)
    occupied = {gap.group for gap in gaps} | ({f"{group}-join"} if join else set())
    offsets.until_empty(settings.kafka_consumer(), sorted(occupied), typer.echo)
    offsets.drop(settings.kafka_producer(), stale)
    offsets.accept(settings.kafka_consumer(), gaps, typer.echo)
    if join:
        forget_join(settings)
    print("done")


_STYLES = {"critical": "bold red", "warning": "yellow"}
_EARLY = {"warning": "early"}  # a status, told apart from the severity of an alert that fires


def _style(alert: Mapping[str, Any]) -> str:
    quiet = {"resolved": "green", "acknowledged": "dim", "silenced": "dim", "warning": "cyan"}
    return quiet.get(str(alert["status"])) or _STYLES.get(str(alert.get("severity")), "")


def _heading(incident: alert_topic.Incident) -> str:
    """What explains it, if anything does, how many alerts it has and whether it is over."""
    state = f"{incident.firing} of them not over" if incident.firing else "over"
    explained = f"{incident.explanation}; " if incident.explanation else ""
    return f"incident {safe(incident.id)[:12]}  {safe(incident.model)}: {explained}{incident.alerts} alerts, {state}"


def _line(alert: Mapping[str, Any]) -> str:
    """When it was decided, how grave it is or what happened to it, what it says, its id, and the incident that another alert began."""
    when = datetime.fromtimestamp(min(max(int(alert.get("detected_at", 0)), 0), 253_402_300_799_999) / 1000, UTC)
    status, id_, incident = safe(str(alert["status"])), safe(str(alert.get("id", "?"))), safe(alert_topic.incident_of(alert))
    look = safe(str(alert.get("severity", ""))) if status == "firing" else _EARLY.get(status, status)
    part = "" if incident == id_ else f"  part of incident {incident[:12]}"
    return f"{when:%Y-%m-%d %H:%M:%S}  {look:<8}  {alert['summary']!s}  [{id_[:12]}]{part}"


def _read_by_stage(settings: Config) -> dict[str, tuple[str, ...]]:
    """Stage -> the topics it reads."""
    t = settings.topics
    return {"route": (t.predictions, t.feedback), "join": (t.journal,), "detect": (t.observations,)}


def _create_topics(settings: Config, inputs: bool) -> list[str]:
    wanted = [topic for topic in topic_setup.wanted(settings) if inputs or not topic.is_input]
    return topic_setup.create(topic_setup.admin(settings), wanted, settings.topics.partitions, settings.topics.replication_factor)


def _prepare(settings: Config) -> None:
    """What must hold before the first record is read. Raises SetupError with every problem."""
    if settings.topics.create:
        for name in _create_topics(settings, inputs=False):
            _log.info("created topic %s", name)
    problems = checks.everything(settings)
    if problems:
        raise SetupError("\n".join(f"{problem.what}\n    {problem.hint}" for problem in problems), "stream-monitor check lists them too")


def _start_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


class _Status:
    """Writes a line of progress now and then, if anything happened."""

    def __init__(self, running: Run) -> None:
        self._running = running
        self._next = time.monotonic() + _STATUS_EVERY
        self._seen: dict[str, int] = {}

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next += _STATUS_EVERY
        committed = {stage.name: stage.progress.committed for stage in self._running.stages}
        if committed != self._seen:
            rates = (f"{name} {n} ({(n - self._seen.get(name, 0)) / _STATUS_EVERY:,.0f}/s)" for name, n in committed.items())
            _log.info("committed: %s", ", ".join(rates))
        self._seen = committed
