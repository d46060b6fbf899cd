"""The contract of a detector as tests, for detectors of your own: `python -m stream_monitor.testing NAME [PARAMETER=VALUE ...]`.

Or with pytest, where `MyDetector` is whatever makes a fresh one:

    import pytest
    from stream_monitor.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_detector_keeps_the_contract(check):
        check(MyDetector)

Each check raises AssertionError with a sentence. They show what a stream needs: the same log gives the same alerts, through restarts.
That few of these alarms are false, they do not show; benchmarks/detection/ has scripts for that.
"""

from __future__ import annotations

import random
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import msgpack

from stream_monitor import plugins
from stream_monitor.core.detectors import create
from stream_monitor.core.detectors.base import Detector, Evidence, unmet
from stream_monitor.core.events import Level
from stream_monitor.core.settings import DetectorSettings

Factory = Callable[[], Detector]

RUN_LENGTH = 1e6  # what budgeted ones are told
SETTLED = 1_000  # values before a change
SOON = 500  # values within which a gross change is to be seen
LARGEST_STATE = 64 * 1024  # bytes; a snapshot holds one for each of thousands of streams
_HOSTILE = (1e300, -1e300, 5e-324, -5e-324, 2.2e-308, 0.0, -0.0, 1.7e308, -1.7e308, 8.3, -8.3, 1.0)


def has_every_part(make: Factory) -> None:
    """All that `stream_monitor.core.detectors.base.Detector` lists is there."""
    wrong = unmet(make())
    assert not wrong, "; ".join(wrong)


def decides_by_the_values_alone(make: Factory) -> None:
    """No clock, no generator without a seed, nothing that two detectors share."""
    values = _changing(make().reads)
    random.seed(1)
    one = make()
    expected = alarms(one, values)
    random.seed(2)
    other = make()
    assert alarms(other, values) == expected, "the same values gave other alarms: is something drawn at random, shared or asked of a clock?"
    assert other.state() == one.state(), "the same values left another state"


def goes_on_after_a_restart(make: Factory) -> None:
    """After `restore(state())` it is the same detector, wherever that was, though the state has been bytes in between."""
    values = _changing(make().reads)
    for cut in (0, 1, 7, 100, SETTLED, SETTLED + 5, len(values) - 300) if _is_quick(make) else (150, SETTLED + 5):
        one = _tuned(make)
        alarms(one, values[:cut])
        saved = _packed(one)
        other = make()
        other.restore(msgpack.unpackb(saved, strict_map_key=False))
        assert _packed(other) == saved, f"the state of a detector that was restored after {cut} values is not the one that was saved"
        assert alarms(other, values[cut:]) == alarms(one, values[cut:]), f"restored after {cut} values, it gave other alarms"
        assert _packed(other) == _packed(one), f"restored after {cut} values, it ended in another state"


def keeps_a_small_state(make: Factory) -> None:
    """Plain data of bounded size, however many values there were."""
    detector = _tuned(make)
    alarms(detector, _steady(detector.reads, 10_000 if _is_quick(make) else 2_000))
    size = len(_packed(detector))
    assert size <= LARGEST_STATE, f"its state has {size:,} bytes; {LARGEST_STATE:,} at most"


def forgets_when_it_is_reset(make: Factory) -> None:
    """After `reset` nothing of the values is left; thresholds stay."""
    used, fresh = _tuned(make), _tuned(make)
    alarms(used, _changing(used.reads))
    used.reset()
    fresh.reset()
    assert _packed(used) == _packed(fresh), "after reset() its state is not that of a new one"
    assert dict(used.parameters) == dict(fresh.parameters), "after reset() its parameters are others"


def is_quiet_while_nothing_changes(make: Factory) -> None:
    """On a constant if it is uncalibrated; on stationary chance, 5,000 values, if it claims more."""
    detector = _tuned(make)
    if detector.assurance == "uncalibrated":
        constants: Sequence[float] = (0, 1) if detector.reads == "bit" else (0.0,) if detector.reads == "score" else (0.0, 1.0)
        for constant in constants:
            found = alarms(_tuned(make), [constant] * 2_000)
            assert not found, f"it fires on a constant ({constant}), at value {found[0]}"
        return
    found = alarms(detector, _steady(detector.reads, 5_000))
    assert not found, f"it says {detector.assurance!r}, was told one false alarm in {RUN_LENGTH:,.0f} values, and fires at value {found[0]}"


def sees_a_gross_change(make: Factory) -> None:
    """A share of ones that goes from 5% to 95%, or a mean that moves by three standard deviations."""
    detector = _tuned(make)
    values = _changing(detector.reads)
    alarms(detector, values[:SETTLED])
    seen = any(detector.update(x) for x in values[SETTLED : SETTLED + SOON])
    assert seen, f"it did not see a gross change in {SOON} values"


def says_why_it_fired(make: Factory) -> None:
    """`evidence` gives finite numbers, and the statistic is not far below its threshold (some can only say about what it was)."""
    detector = _tuned(make)
    values = _changing(detector.reads)
    alarms(detector, values[:SETTLED])
    at = next((i for i in range(SETTLED, len(values)) if detector.update(values[i])), None)
    assert at is not None, "it did not see a gross change"
    old, new = values[:SETTLED], values[SETTLED : at + 1]
    evidence = detector.evidence(Level(sum(old) / len(old), len(old)), Level(sum(new) / len(new), len(new)))
    assert isinstance(evidence, Evidence), f"its evidence is {evidence!r}; an Evidence is expected"
    statistic, threshold = float(evidence.statistic), float(evidence.threshold)
    assert isfinite(statistic), f"its statistic is {statistic}"
    assert isfinite(threshold), f"its threshold is {threshold}"
    assert statistic >= threshold / 2, f"it fired at a statistic of {statistic}, below its threshold of {threshold}"


def survives_hostile_values(make: Factory) -> None:
    """Nothing is raised by numbers of any size, the state can be saved, and a reset mends it."""
    detector = _tuned(make)
    hostile = [0, 1, 1.0, 0.0] * 50 if detector.reads == "bit" else [x for x in _HOSTILE for _ in range(40)] + list(_HOSTILE) * 20
    for x in hostile:
        if detector.update(x):
            detector.reset()
    saved = _packed(detector)
    again = make()
    again.restore(msgpack.unpackb(saved, strict_map_key=False))
    assert _packed(again) == saved, "a state that hostile values left behind is not restored"
    detector.reset()
    fresh = _tuned(make)
    fresh.reset()
    values = _changing(detector.reads)
    assert alarms(detector, values) == alarms(fresh, values), "after hostile values and reset() it is not what it was"


def takes_any_run_length(make: Factory) -> None:
    """`retune` takes every run length and share of ones, keeps the past, and thresholds survive a restart. Budgeted ones only."""
    if not make().budgeted:
        return
    values = _steady(make().reads, 300)
    for run_length in (1.0, 30.0, 1e6, 1e15):
        for share in (None, 0.0, 1e-6, 0.3, 1.0):
            detector = make()
            alarms(detector, values)
            detector.retune(run_length, share)
            wrong = unmet(detector)
            assert not wrong, "; ".join(wrong)
            again = make()
            again.restore(msgpack.unpackb(_packed(detector), strict_map_key=False))
            assert dict(again.parameters) == dict(detector.parameters), "a threshold that retune() set is not restored"


def refuses_what_is_no_state(make: Factory) -> None:
    """`restore` raises ValueError or TypeError for what `state` never gave: snapshots come from a topic."""
    foreign: Any
    for foreign in ("nonsense", [1, "2"], {"no": "state"}, [[[]]] * 3):
        try:
            make().restore(foreign)
        except (ValueError, TypeError):
            continue
        except Exception as error:
            raise AssertionError(f"restore({foreign!r}) raised {type(error).__name__}; ValueError is expected") from error
        raise AssertionError(f"restore({foreign!r}) was accepted; ValueError is expected")


CHECKS: tuple[Callable[[Factory], None], ...] = (
    has_every_part,
    decides_by_the_values_alone,
    goes_on_after_a_restart,
    keeps_a_small_state,
    forgets_when_it_is_reset,
    is_quiet_while_nothing_changes,
    sees_a_gross_change,
    says_why_it_fired,
    survives_hostile_values,
    takes_any_run_length,
    refuses_what_is_no_state,
)


def failures(make: Factory) -> dict[str, str]:
    """Every check that is not passed, by name, with its sentence."""
    found = {}
    for check in CHECKS:
        try:
            check(make)
        except Exception as error:
            found[check.__name__] = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return found


def _tuned(make: Factory) -> Detector:
    detector = make()
    if detector.budgeted:
        detector.retune(RUN_LENGTH, None if detector.reads == "score" else 0.05)
    return detector


def alarms(detector: Detector, values: Sequence[float]) -> list[int]:
    """At which of the values the detector fires; after each it begins anew, as it does in a stream."""
    found = []
    for i, x in enumerate(values):
        if detector.update(x):
            found.append(i)
            detector.reset()
    return found


def _packed(detector: Detector) -> bytes:
    state = detector.state()
    try:
        packed: bytes = msgpack.packb(state)
    except (TypeError, ValueError, OverflowError) as error:
        raise AssertionError(f"its state is not plain data: {error}") from error
    return packed


def _steady(reads: str, count: int, seed: int = 5) -> list[float]:
    """Values as a stream gives them while nothing changes."""
    rng = random.Random(seed)
    return [rng.gauss(0, 1) if reads == "score" else int(rng.random() < 0.05) for _ in range(count)]


def _changing(reads: str) -> list[float]:
    """The same, then a gross change, then the old level."""
    rng = random.Random(6)
    changed = [rng.gauss(3, 1) if reads == "score" else int(rng.random() < 0.95) for _ in range(SOON)]
    return _steady(reads, SETTLED) + changed + _steady(reads, SOON, 7)


def _is_quick(make: Factory) -> bool:
    return _cost(make) < 50e-6


def _cost(make: Factory) -> float:
    """CPU seconds a value."""
    detector = _tuned(make)
    values = _steady(detector.reads, 1_000)
    began = time.process_time()
    alarms(detector, values)
    return (time.process_time() - began) / len(values)


def main(arguments: Sequence[str]) -> int:
    """Runs every check on a detector by its name and parameters; 0 where all are passed."""
    if not arguments or "=" in arguments[0]:
        print(f"usage: python -m stream_monitor.testing NAME [PARAMETER=VALUE ...]\ninstalled: {', '.join(plugins.found()) or 'none'}")
        return 2
    name, *given = arguments
    try:
        settings = DetectorSettings(name, {key: _value(text) for key, _, text in (one.partition("=") for one in given)})
        plugins.load(name)
        create(settings)
    except Exception as error:
        print(f"{name}: {error}")
        return 2
    found = failures(lambda: create(settings))
    for check in CHECKS:
        print(f"  {'problem' if check.__name__ in found else 'ok     '}  {check.__name__}")
        if check.__name__ in found:
            print(f"           {found[check.__name__]}")
    if not found:
        print(f"{name} keeps the contract; {1e6 * _cost(lambda: create(settings)):.1f} us a value")
    return 1 if found else 0


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
