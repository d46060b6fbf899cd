"""The detectors by name, one algorithm a file behind the contract of `base`.

A new one is a class with that contract and a line in `_CLASSES`, or comes from outside by `register` (stream_monitor/plugins.py);
`create` is the only way in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature
from typing import Any

from stream_monitor.core.detectors.adwin import Adwin
from stream_monitor.core.detectors.base import Assurance, Detector, Evidence
from stream_monitor.core.detectors.bits import Ddm, Eddm, HddmA, HddmW
from stream_monitor.core.detectors.e_detector import EDetector
from stream_monitor.core.detectors.kswin import Kswin
from stream_monitor.core.detectors.page_hinkley import PageHinkley
from stream_monitor.core.settings import DetectorSettings, MonitorSettings

__all__ = ["Assurance", "Detector", "EDetector", "Evidence", "create", "names", "try_all"]

_CLASSES: dict[str, Callable[..., Detector]] = {
    "adwin": Adwin,
    "ddm": Ddm,
    "e_detector": EDetector,
    "eddm": Eddm,
    "hddm_a": HddmA,
    "hddm_w": HddmW,
    "kswin": Kswin,
    "page_hinkley": PageHinkley,
}


def register(name: str, build: Callable[..., Detector]) -> None:
    """Makes a detector known under a name. Raises ValueError where another one has it."""
    if _CLASSES.setdefault(name, build) is not build:
        raise ValueError(f"there is a detector {name!r} already: give yours another name")


def names() -> list[str]:
    """The names that `create` knows."""
    return sorted(_CLASSES)


def create(settings: DetectorSettings) -> Detector:
    """A fresh detector. Raises ValueError, with a sentence, for a name or a parameter that does not exist."""
    build = _CLASSES.get(settings.name)
    if build is None:
        raise ValueError(f"there is no detector {settings.name!r}; known are {', '.join(names())}")
    known = _parameters(settings.name)
    for name in settings.parameters:
        if name not in known:
            raise ValueError(f"{settings.name} has no parameter {name!r}; it has {', '.join(known)}")
    parameters: dict[str, Any] = dict(settings.parameters)
    return build(**parameters)


def try_all(monitors: Iterable[MonitorSettings]) -> None:
    """Makes one of each detector that is asked for: a wrong name or parameter fails here, not with the first value, and what they import
    is loaded."""
    for monitor in monitors:
        for detector in monitor.detectors:
            create(detector)


@cache
def _parameters(name: str) -> tuple[str, ...]:
    """Looked up once: a snapshot of thousands of streams makes as many detectors."""
    return tuple(signature(_CLASSES[name]).parameters)
