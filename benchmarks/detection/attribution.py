"""Whether alerts name what moved: `python -m benchmarks.detection.attribution [--seeds 10]`, about a minute.

Each case is a log of 7,000 predictions with their labels, in which from the 4,000th on something changes; nobody tells the monitor what.
Four countries (DE 40%, FR 30%, US 20%, BR 10%), eight segments, two devices, crosses of country and device; five features, one categorical.
Looked at is the first alert about the error since then, in any slice: what it says at the alarm, and what its last event says.

    named        the truth is what the alert is about, or among the first three things that explain it
    first        the truth is the first thing that explains it; where it says of none, what it is about
    wrong        a slice or a feature is named that has nothing to do with it

And at what heads the incident of that alert for whoever reads the topic (`stream-monitor alerts`): whether the truth comes first there, and
whether it names anything wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from stream_monitor.core.events import Alert, Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.publishing import publish
from stream_monitor.core.settings import DetectSettings, MonitorSettings
from stream_monitor.io.alerts import incidents

START, STEP = 1_709_640_000_000, 1_000
PREDICTIONS, CHANGE = 7_000, 4_000
COUNTRIES = {"DE": 4, "FR": 3, "US": 2, "BR": 1}
SETTINGS = DetectSettings(
    maturity_ms=0,
    monitors=(MonitorSettings(metrics=("error", "feature:*"), slices=("country", "segment", "device", "country x device")),),
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What changes: `error` of a row after the change, its features, its countries' weights; and what an alert may name."""

    name: str
    truth: frozenset[str]
    may: frozenset[str] = frozenset()
    error: Callable[[Row], float] | float = 0.1
    income: float = 0.0
    weights: Mapping[str, int] | None = None
    before: Callable[[Row], float] | float = 0.1


def _where(key: str, value: str, share: float) -> Callable[[Row], float]:
    return lambda row: share if row[key] == value else 0.1


CASES = (
    Case("country=DE .1 to .3", frozenset({"country=DE"}), error=_where("country", "DE", 0.3)),
    Case("country=US .1 to .4", frozenset({"country=US"}), error=_where("country", "US", 0.4)),
    Case("segment=C .1 to .5", frozenset({"segment=C"}), error=_where("segment", "C", 0.5)),
    Case(
        "country x device=DE x phone .1 to .4",
        frozenset({"country x device=DE x phone"}),
        frozenset({"country=DE", "device=phone"}),
        error=lambda row: 0.4 if row["country"] == "DE" and row["device"] == "phone" else 0.1,
    ),
    Case("feature income +0.7 sd, error .1 to .3", frozenset({"income"}), error=0.3, income=0.7),
    Case("country=DE .1 to .3 and income +0.5 sd", frozenset({"country=DE", "income"}), error=_where("country", "DE", 0.3), income=0.5),
    Case(
        "mix: BR (.5 wrong) 10% to 40% of traffic",
        frozenset({"mix of country"}),
        before=_where("country", "BR", 0.5),
        error=_where("country", "BR", 0.5),
        weights={"DE": 2, "FR": 2, "US": 2, "BR": 4},
    ),
    Case("everywhere .1 to .3", frozenset(), error=0.3),
)


def log(case: Case, seed: int) -> Iterator[bytes]:
    """Observation records: each prediction, and its outcome right behind it."""
    rng = random.Random(seed)
    for i in range(PREDICTIONS):
        changed = i >= CHANGE
        weights = (case.weights if changed else None) or COUNTRIES
        row: Row = {
            "country": rng.choices(list(weights), list(weights.values()))[0],
            "segment": rng.choice("ABCDEFGH"),
            "device": rng.choice(("phone", "desktop")),
        }
        features = {"income": rng.lognormvariate(case.income if changed else 0.0, 1.0), "town": rng.choice("KLMN")}
        features |= {name: rng.gauss(0, 1) for name in ("age", "debt", "score")}
        error = case.error if changed else case.before
        wrong = rng.random() < (error(row) if callable(error) else error)
        time = START + i * STEP
        prediction = {"request_id": f"{seed}-{i}", "model": "m", "model_version": "1", "timestamp": time, "prediction": "yes"}
        body = orjson.dumps(prediction | {"features": features, "slices": row})
        feedback = orjson.dumps({"request_id": f"{seed}-{i}", "label": "no" if wrong else "yes", "timestamp": time})
        yield b'{"record":"prediction","prediction":%b}' % body
        yield b'{"record":"outcome","label_delay_ms":0,"prediction":%b,"feedback":%b}' % (body, feedback)


def named(alert: Alert) -> list[str]:
    """What an event names, in its order; an alert about a slice names that slice to begin with."""
    about = [] if alert.slice is None else [f"{alert.slice.key}={alert.slice.value}"]
    return list(dict.fromkeys(about + explaining(alert.details)))


def explaining(details: Mapping[str, Any]) -> list[str]:
    """What explains it, in its order."""
    names = []
    for one in details.get("attribution", ()):
        part = one.get("slice")
        names.append(f"mix of {one['mix']}" if "mix" in one else one["feature"] if part is None else f"{part['key']}={part['value']}")
    return names


def leads(case: Case, names: list[str]) -> bool:
    """Whether the truth comes first; where nothing in particular moved, whether nothing is named."""
    return names[0] in case.truth if names else not case.truth


def heading(alerts: list[Alert], incident: str) -> list[str]:
    """What heads an incident for a reader of the topic."""
    told = next(one for one in incidents(orjson.loads(publish(alert)[1]) for alert in alerts) if one.id == incident)
    said = [explaining(one["details"]) for one in told.events if one["id"] == told.events[0]["id"] and "attribution" in one["details"]]
    return said[-1] if told.explanation else []


def events(case: Case, seed: int) -> tuple[list[Alert], list[str]]:
    """The events of the first alert about the error since the change, and what heads its incident."""
    monitor = Monitor(SETTINGS, "observations", 0)
    mine: list[Alert] = []
    told: list[Alert] = []
    for offset, value in enumerate(log(case, seed)):
        for alert in monitor.step(offset, value):
            told.append(alert)
            fresh = not mine and alert.status is Status.FIRING and alert.metric == "error" and offset >= 2 * CHANGE
            if (fresh or (mine and alert.id == mine[0].id)) and "attribution" in alert.details:
                mine.append(alert)
    return mine, heading(told, mine[0].incident) if mine else []


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=10)
    seeds = range(1, arguments.parse_args().seeds + 1)
    began = monotonic()
    print("| what changes | alerts | named, first, wrong at the alarm | named, first, wrong in the last event | heading first, wrong |")
    print("|---|---|---|---|---|")
    for case in CASES:
        tallies = [[0, 0, 0], [0, 0, 0], [0, 0]]
        found = 0
        for seed in seeds:
            mine, heads = events(case, seed)
            found += bool(mine)
            for tally, alert in zip(tallies, (mine[0], mine[-1]) if mine else (), strict=False):
                names = named(alert)
                tally[0] += case.truth <= set(names[:3]) if case.truth else not names
                tally[1] += leads(case, explaining(alert.details) or names)
                tally[2] += bool(set(names) - case.truth - case.may)
            if mine:
                tallies[2][0] += leads(case, heads)
                tallies[2][1] += bool(set(heads) - case.truth - case.may)
            print(f"\r{case.name}: seed {seed}, {monotonic() - began:.0f} s ", end="", file=sys.stderr, flush=True)
        print("", file=sys.stderr)
        columns = [", ".join(str(n) for n in tally) for tally in tallies]
        print(f"| {case.name} | {found} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
