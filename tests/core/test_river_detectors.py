"""river's detectors of bits, and KSWIN, behind the protocol: they alarm where river's own do, and survive being saved."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import orjson
import pytest
from river.drift import binary

from stream_monitor.core.alerting import Subject
from stream_monitor.core.detectors import create
from stream_monitor.core.events import Kind, Level
from stream_monitor.core.hashing import unit_of
from stream_monitor.core.monitor import Monitor
from stream_monitor.core.settings import DetectorSettings, DetectSettings, MonitorSettings
from stream_monitor.core.streams import BinaryStream, NumericStream
from stream_monitor.testing import alarms
from tests.support.observations import desk, judged, run

RIVERS: dict[str, Callable[[], Any]] = {"ddm": binary.DDM, "eddm": binary.EDDM, "hddm_a": binary.HDDMA, "hddm_w": binary.HDDMW}
BITS = tuple(RIVERS)
ALL = (*BITS, "kswin")


def bits(seed: int, *parts: tuple[int, float]) -> list[float]:
    """So many bits with such a share of ones, one part after the other."""
    rng = random.Random(seed)
    return [int(rng.random() < p) for count, p in parts for _ in range(count)]


def values(name: str) -> list[float]:
    """Bits, or normal scores for KSWIN, with two changes."""
    if name != "kswin":
        return bits(3, (1_500, 0.1), (1_000, 0.4), (500, 0.1), (1_000, 0.5))
    rng = random.Random(3)
    return [rng.gauss(mean, 1) for mean in (0, 2, -1) for _ in range(150)]


@pytest.mark.parametrize("name", BITS)
def test_it_alarms_exactly_where_river_s_own_does(name: str) -> None:
    rivers = RIVERS[name]()
    expected = []
    for i, x in enumerate(values(name)):
        rivers.update(x)
        if rivers.drift_detected:
            expected.append(i)
    assert alarms(create(DetectorSettings(name)), values(name)) == expected != []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cut", [0, 1, 31, 160, 290])
@pytest.mark.parametrize("form", [lambda s: orjson.loads(orjson.dumps(s)), lambda s: msgpack.unpackb(msgpack.packb(s))])
def test_a_restored_detector_goes_on_as_the_saved_one(name: str, cut: int, form: Callable[[Any], Any]) -> None:
    one = create(DetectorSettings(name))
    alarms(one, values(name)[:cut])
    other = create(DetectorSettings(name))
    other.restore(form(one.state()))
    assert other.state() == one.state()
    assert alarms(other, values(name)[cut:]) == alarms(one, values(name)[cut:]) != []
    assert other.state() == one.state()


@pytest.mark.parametrize("name", ALL)
def test_one_saved_right_after_an_alarm_still_knows_of_it(name: str) -> None:
    one, other = create(DetectorSettings(name)), create(DetectorSettings(name))
    at = next(i for i, x in enumerate(values(name)) if one.update(x))
    other.restore(orjson.loads(orjson.dumps(one.state())))
    rest = values(name)[at + 1 :]
    assert [other.update(x) for x in rest] == [one.update(x) for x in rest]


@pytest.mark.parametrize("name", ALL)
def test_two_of_the_same_values_are_the_same_and_a_reset_one_is_a_new_one(name: str) -> None:
    one, other, fresh = (create(DetectorSettings(name)) for _ in range(3))
    assert alarms(one, values(name)) == alarms(other, values(name))
    one.reset()
    assert one.state() == fresh.state()


@pytest.mark.parametrize("name", ALL)
def test_the_evidence_passes_its_threshold_where_it_fires_and_parameters_are_all_told(name: str) -> None:
    detector = create(DetectorSettings(name))
    assert any(detector.update(x) for x in values(name))
    evidence = detector.evidence(Level(0.1, 1), Level(0.2, 1))
    assert evidence.statistic > evidence.threshold > 0
    again = create(DetectorSettings(name, dict(detector.parameters)))
    assert again.parameters == detector.parameters != {}


@pytest.mark.parametrize("name", ["hddm_a", "hddm_w"])
def test_fewer_errors_are_an_alarm_only_where_that_is_asked_for(name: str) -> None:
    better = bits(1, (2_000, 0.5), (500, 0.1))
    assert alarms(create(DetectorSettings(name, {"drift_confidence": 1e-6})), better) == []
    both = create(DetectorSettings(name, {"drift_confidence": 1e-6, "two_sided_test": True}))
    assert any(both.update(x) for x in better)
    evidence = both.evidence(Level(0.5, 1), Level(0.1, 1))
    assert evidence.statistic > evidence.threshold


@pytest.mark.parametrize("name", ALL)
def test_none_is_calibrated_and_says_so(name: str) -> None:
    detector = create(DetectorSettings(name))
    assert (detector.assurance, detector.budgeted) == ("uncalibrated", False)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", ["AAAA", [1, 2], {"no": "state"}, None])
def test_a_state_that_is_none_is_refused(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=name):
        create(DetectorSettings(name)).restore(bad)


@pytest.mark.parametrize("name", BITS)
def test_a_state_with_a_strange_part_is_refused(name: str) -> None:
    for i in range(len(create(DetectorSettings(name)).state())):
        state = create(DetectorSettings(name)).state()
        state[i] = "AA=="
        with pytest.raises(ValueError, match="can not be read"):
            create(DetectorSettings(name)).restore(state)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("ddm", "drift_threshold", 0),
        ("ddm", "warm_start", 2.5),
        ("eddm", "beta", 1.5),
        ("eddm", "beta", True),
        ("hddm_a", "drift_confidence", 0),
        ("hddm_w", "lambda_val", "x"),
        ("kswin", "alpha", -1),
        ("kswin", "window_size", 20),
        ("kswin", "stat_size", float("nan")),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_by_name(name: str, parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: {parameter} is"):
        create(DetectorSettings(name, {parameter: value}))


def stream(kind: type[BinaryStream] | type[NumericStream], *names: str) -> Any:
    subject = Subject.of("credit", "v3", None, "error", Kind.CONCEPT_DRIFT, 0.1, 0.5)
    return kind(subject, tuple(DetectorSettings(name) for name in names), DetectSettings(warmup=200), desk())


def fed(one: Any, given: list[float]) -> int | None:
    """At which value the first alert fires."""
    for i, x in enumerate(given):
        one.push(x, unit_of(b"%d" % i), i, i)
        if one.episode is not None:
            return i
    return None


def noting(read: list[float]) -> Callable[[float], bool]:
    """An update that only says what it was given."""

    def update(x: float) -> bool:
        read.append(x)
        return False

    return update


@pytest.mark.parametrize("name", BITS)
def test_of_a_numeric_stream_it_reads_whether_a_value_is_above_the_median_so_far(name: str) -> None:
    rng = random.Random(5)
    rising = [rng.lognormvariate(2.0 if i > 2_000 else 0, 1) for i in range(3_000)]
    at = fed(stream(NumericStream, name), rising)
    assert at is not None
    read: list[float] = []
    probe = stream(NumericStream, name)
    probe.detectors[0].update = noting(read)
    probe._bind()
    fed(probe, rising)
    assert set(read) == {0, 1}
    assert sum(read[:2_000]) / 2_000 == pytest.approx(0.5, abs=0.04)
    assert sum(read[2_500:]) / len(read[2_500:]) > 0.8


@pytest.mark.parametrize("name", BITS)
def test_of_a_binary_stream_it_reads_the_bits_even_where_they_depend_on_each_other(name: str) -> None:
    rng = random.Random(2)
    chain = 0
    given: list[float] = []
    for _ in range(600):
        chain = chain if rng.random() < 0.6 else int(rng.random() < 0.3)
        given.append(chain)
    one = stream(BinaryStream, name)
    read: list[float] = []
    one.detectors[0].update = noting(read)
    one._bind()
    fed(one, given)
    assert one.past is not None, "it was seen to depend"
    assert read == given


def test_the_whole_monitor_runs_with_them_and_goes_on_from_a_snapshot_as_if_nothing_were() -> None:
    all_of_them = tuple(DetectorSettings(name) for name in BITS)
    settings = DetectSettings(
        maturity_ms=0, warmup=200, default=replace(MonitorSettings(), metrics=("error",), slices=(), detectors=all_of_them)
    )
    records = list(judged(4_000, lambda i, _: 0.5 if i > 2_500 else 0.1))
    whole, expected = run(settings, records)
    monitor, alerts = run(settings, records[:2_600])
    data = msgpack.unpackb(msgpack.packb(monitor.snapshot()), strict_map_key=False)
    again, rest = run(settings, records[2_600:], Monitor.restore(settings, "observations", 0, data))
    assert alerts + rest == expected != []
    assert again.snapshot() == whole.snapshot()
    assert {alert.assurance for alert in expected} == {"uncalibrated"}
    assert whole.budget()["weight"] == 0
