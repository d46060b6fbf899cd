"""Labelled drift of others, through the whole pipeline: `python -m benchmarks.detection.datasets [--data DIR] [--only TEXT] [--kswin]`.

A model learns from the first 3,000 rows of a data set and is frozen (nearest neighbours, numpy); each further row is a prediction, one
every 10 seconds of event time, and its class comes as feedback up to 200 rows later, out of order. Both go through the production code:
codec and routing, the join's fold in memory, the monitor with its default settings (all signals, a budget of 1 false alert a week). An
operator resolves an alert that still fires 3,000 rows later, after which the level that is then is normal.

River's streams are made here: four concepts of 8,000 rows, a sudden change between each two. With `--data` also the CSV files of `FILES`
that the folder has (last column the class): those of the Harvard Concept Drift data set, and Electricity (NSW), as it is and shuffled.

    noticed   drifts with an alert of a label signal within 5,000 rows after they began; the delay is that of the first
    false     alerts in no such time, of whatever signal

Alerts of other signals within that time are listed, and count for nothing: in some of these streams the features move with the concept.

The delay of the monitor is in rows from the drift to the moment of the alert, so it includes the wait for labels (some 190 rows). Rivals
are river's detectors at their defaults on the bare errors in their order, without any wait; of repeated alarms within the 5,000 rows the
first counts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from river import drift
from river.datasets import synth
from river.drift import binary

from stream_monitor.core.codec import Codec
from stream_monitor.core.events import Alert, Status
from stream_monitor.core.joining import Applied, Call, Fold, emit
from stream_monitor.core.judging import METRICS
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.records import Record
from stream_monitor.core.routing import route
from stream_monitor.core.settings import DetectSettings, EventSettings, JoinSettings

TRAINED = 3_000
NEIGHBOURS = 15
STEP_MS = 10_000
LABEL_ROWS = 200  # the longest label delay, in rows
WINDOW = 5_000
RESOLVED_AFTER = 3_000
START = 1_700_000_000_000
CONCEPT = 8_000
JUDGED = METRICS - {"label_delay"}
Array = NDArray[np.float64]

FILES: dict[str, tuple[int, ...]] = {
    "sea_0123_abrupto_noise_0.2.csv": (10_000, 20_000, 30_000),
    "sea_0123_gradual_noise_0.2.csv": (9_000, 19_000, 29_000),
    "mixed_0101_abrupto.csv": (10_000, 20_000, 30_000),
    "sine_0123_gradual.csv": (9_000, 19_000, 29_000),
    "rt_2563789698568873_abrupto.csv": (10_000, 20_000, 30_000),
    "elec.csv": (),
}
_river: Any = synth  # its parameters have no types
SYNTHETIC: dict[str, Callable[[int], Any]] = {
    "SEA": lambda i: _river.SEA(variant=i, noise=0.1, seed=i),
    "Sine": lambda i: _river.Sine(classification_function=i, seed=i),
    "Mixed": lambda i: _river.Mixed(classification_function=i % 2, seed=i),
    "Agrawal": lambda i: _river.Agrawal(classification_function=(0, 2, 4, 6)[i], seed=i),
    "STAGGER": lambda i: _river.STAGGER(classification_function=i % 3, seed=i),
    "RandomTree": lambda i: _river.RandomTree(seed_tree=10 + i, seed_sample=i, n_num_features=3, n_cat_features=0),
}
RIVALS: dict[str, Callable[[], Any]] = {
    "ADWIN": drift.ADWIN,
    "PageHinkley": drift.PageHinkley,
    "DDM": binary.DDM,
    "EDDM": binary.EDDM,
    "HDDM_A": binary.HDDMA,
    "HDDM_W": binary.HDDMW,
}


@dataclass(frozen=True)
class Data:
    """Rows with their classes, and where drift begins; `known` is false where nobody knows that."""

    name: str
    rows: Array
    classes: NDArray[np.int64]
    drifts: tuple[int, ...]
    known: bool = True


class Result(NamedTuple):
    """Of one detector on one data set: the delay of each drift, None for one that was missed, and what was told without a drift; as METRIC
    @ROW, as what other signals than those of labels told about one."""

    delays: list[int | None]
    false: list[str]
    other: list[str]


def from_csv(path: Path, drifts: tuple[int, ...], known: bool = True) -> Data:
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return Data(path.stem, table[:, :-1], table[:, -1].astype(int), drifts, known)


def from_river(name: str) -> Data:
    rows, classes = [], []
    for i in range(4):
        for x, y in islice(SYNTHETIC[name](i), CONCEPT):
            rows.append([float(value) for value in x.values()])
            classes.append(int(y))
    return Data(f"river {name}", np.array(rows), np.array(classes), tuple(CONCEPT * i for i in (1, 2, 3)))


def shuffled(data: Data, seed: int) -> Data:
    order = np.random.default_rng(seed).permutation(len(data.rows))
    return Data(f"{data.name}, shuffled", data.rows[order], data.classes[order], (), True)


def scores(data: Data) -> Array:
    """What the frozen model gives for class 1 of each row behind those that it learnt from: the share of it among the nearest of these."""
    mean, deviation = data.rows[:TRAINED].mean(0), data.rows[:TRAINED].std(0)
    rows = (data.rows - mean) / np.where(deviation > 0, deviation, 1)
    known, classes = rows[:TRAINED], data.classes[:TRAINED]
    lengths = (known**2).sum(1)
    found = []
    for at in range(TRAINED, len(rows), 500):
        distances = lengths - 2 * rows[at : at + 500] @ known.T
        nearest = np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        found.append(classes[nearest].mean(1))
    return np.concatenate(found)


def time_of(row: int) -> int:
    return START + row * STEP_MS


def journal(data: Data, given: Array) -> list[Record]:
    """Every event, routed, in the order of its arrival."""
    rng = np.random.default_rng(3)
    predictions, feedback = [], []
    for i, score in enumerate(given.tolist()):
        row, name = TRAINED + i, f"r{i}"
        features = {f"x{j}": x for j, x in enumerate(data.rows[row].tolist())}
        event = {"request_id": name, "model": "m", "model_version": "1", "timestamp": time_of(row), "prediction": str(int(score > 0.5))}
        predictions.append(Record(i, time_of(row), b"", orjson.dumps({**event, "score": score, "features": features})))
        labelled = time_of(row) + int(rng.integers(STEP_MS, LABEL_ROWS * STEP_MS))
        label = {"request_id": name, "label": str(data.classes[row]), "timestamp": labelled}
        feedback.append(Record(i, labelled, b"", orjson.dumps(label)))
    codec = Codec(EventSettings())
    arrived = []
    for source, records in (("predictions", predictions), ("feedback", feedback)):
        routed, dead = route(codec, source, source, 0, records)  # type: ignore[arg-type]
        assert not dead
        arrived += [(record.time, *event) for record, event in zip(records, routed, strict=True)]
    arrived.sort()
    return [Record(offset, *one) for offset, one in enumerate(arrived)]


def observations(records: list[Record]) -> Iterator[bytes]:
    """The same, joined."""
    fold = Fold(JoinSettings())
    for at in range(0, len(records), 5_000):
        piece = records[at : at + 5_000]
        applied = fold.apply(Call(0, at, at + len(piece), 0, piece, "" if at else "epoch"))
        assert isinstance(applied, Applied)
        for _, _, value in emit(piece, applied, 0):
            yield value


def monitored(data: Data, given: Array) -> list[Alert]:
    """Every alert that fires, under the default settings, with an operator who resolves what fires for long."""
    monitor = Monitor(DetectSettings(), "observations", 0)
    fired: list[Alert] = []
    firing: dict[str, int] = {}

    def step(value: bytes) -> None:
        for alert in monitor.step(monitor.at, value):
            if alert.status is Status.FIRING:
                fired.append(alert)
                firing[alert.id] = alert.detected_at
            elif alert.status is Status.RESOLVED:
                firing.pop(alert.id, None)

    for i, value in enumerate(observations(journal(data, given))):
        step(value)
        if i % 100 == 0 and firing:
            now = max(version["heard"] for version in monitor.versions())
            for name, since in list(firing.items()):
                if now - since > RESOLVED_AFTER * STEP_MS:
                    control = {"record": "control", "action": "resolve", "model": "m", "alert": name, "timestamp": now}
                    step(orjson.dumps(control))
    return fired


def judged(data: Data, alarms: Sequence[tuple[int, str]]) -> Result:
    """Alarms, as (row, what), against the truth."""
    delays: list[int | None] = [None] * len(data.drifts)
    false, other = [], []
    for row, what in alarms:
        cause = next((i for i, at in enumerate(data.drifts) if at <= row < at + WINDOW), None)
        if cause is None:
            false.append(f"{what}@{row}")
        elif what.partition("=")[0] not in JUDGED:
            other.append(f"{what}@{row}")
        elif delays[cause] is None:
            delays[cause] = row - data.drifts[cause]
    return Result(delays, false, other)


def rival(make: Callable[[], Any], errors: list[int]) -> list[tuple[int, str]]:
    detector, found = make(), []
    for i, x in enumerate(errors):
        detector.update(x)
        if detector.drift_detected:
            found.append((TRAINED + i, "error"))
    return found


def said(result: Result, known: bool) -> str:
    """noticed of all, median delay, false."""
    if not known:
        return f"{len(result.false)} alarms"
    delays = [delay for delay in result.delays if delay is not None]
    seen = f"{len(delays)}/{len(result.delays)}" + (f", {median(delays):,.0f}" if delays else "") + "; " if result.delays else ""
    return f"{seen}{len(result.false)}"


def evaluate(data: Data, rivals: dict[str, Callable[[], Any]]) -> tuple[str, dict[str, Result]]:
    """A line about the data, and what each detector made of it."""
    given = scores(data)
    errors = ((given > 0.5).astype(int) != data.classes[TRAINED:]).astype(int)
    bounds = [TRAINED, *data.drifts, len(data.rows)]
    levels = ", ".join(f"{errors[a - TRAINED : b - TRAINED].mean():.2f}" for a, b in pairwise(bounds))
    alerts = monitored(data, given)
    ours = judged(data, [((alert.detected_at - START) // STEP_MS, alert.metric) for alert in alerts])
    return levels, {"monitor": ours} | {name: judged(data, rival(make, errors.tolist())) for name, make in rivals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the files of FILES")
    parser.add_argument("--only", default="", help="data sets whose name contains this")
    parser.add_argument("--seed", type=int, default=1, help="of the shuffling")
    parser.add_argument("--kswin", action="store_true", help="also KSWIN, some ten seconds a data set")
    options = parser.parse_args()
    rivals = RIVALS | ({"KSWIN": lambda: drift.KSWIN(seed=1)} if options.kswin else {})
    makers: list[tuple[str, Callable[[], Data]]] = [(f"river {name}", lambda name=name: from_river(name)) for name in SYNTHETIC]  # type: ignore[misc]
    for file, drifts in FILES.items() if options.data else ():
        path = options.data / file
        if not path.exists():
            print(f"{file} is not there")
            continue
        makers.append((path.stem, lambda path=path, drifts=drifts: from_csv(path, drifts, bool(drifts))))  # type: ignore[misc]
        if not drifts:
            makers.append((f"{path.stem}, shuffled", lambda path=path: shuffled(from_csv(path, ()), options.seed)))  # type: ignore[misc]
    started = monotonic()
    total: dict[str, list[int]] = {}
    print(f"| data | error of each concept | monitor | {' | '.join(rivals)} |\n|{'---|' * (len(rivals) + 3)}")
    notes = []
    for name, make in makers:
        if options.only not in name:
            continue
        data = make()
        levels, results = evaluate(data, rivals)
        print(f"| {name} | {levels} | {' | '.join(said(result, data.known) for result in results.values())} |", flush=True)
        ours = results["monitor"]
        false = ", ".join(ours.false) if data.known else dict(Counter(what.partition("@")[0] for what in ours.false))
        notes.append(f"{name}: delays {ours.delays}; false {false or 'none'}; other {', '.join(ours.other) or 'none'}")
        for who, result in results.items():
            if data.known:
                sums = total.setdefault(who, [0, 0, 0])
                sums[0] += sum(delay is not None for delay in result.delays)
                sums[1] += len(result.delays)
                sums[2] += len(result.false)
    print(f"| **all that is known** | | {' | '.join(f'{a}/{b}; {c}' for a, b, c in total.values())} |\n")
    print("\n".join(notes))
    print(f"\n{monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
