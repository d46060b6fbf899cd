"""Detectors that other packages bring: an entry point of the group `stream_monitor.detectors`, loaded when a configuration names it.

    [project.entry-points."stream_monitor.detectors"]
    cusum = "my_package:Cusum"

A package's code runs only where its detector is named. docs/detectors.md has a complete example.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from stream_monitor.core.detectors import names, register

GROUP = "stream_monitor.detectors"


def found() -> list[str]:
    """The names of those that are installed, loaded or not."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> None:
    """Makes the detector of this name known to the core, where it comes from a package. Raises ValueError that says what to do."""
    if name in names():
        return
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        others = f"; installed packages bring {', '.join(found())}" if found() else ""
        raise ValueError(
            f"there is no detector {name!r}; known are {', '.join(names())}{others}. One of your own is an entry point of the group"
            f" {GROUP}: install its package where stream-monitor runs"
        )
    if len({point.value for point in points}) > 1:
        raise ValueError(f"several packages bring a detector {name!r}: {', '.join(map(_origin, points))}; uninstall all but one")
    point = points[0]
    try:
        build = point.load()
    except Exception as error:  # whatever the package does where it is imported
        raise ValueError(
            f"the detector {name!r} of {_origin(point)} can not be loaded: {type(error).__name__}: {error}; install its package anew, or"
            f" take it off `detectors`"
        ) from error
    if not callable(build):
        raise ValueError(f"the detector {name!r} of {_origin(point)} is {build!r}; a class, or a function that makes one, is expected")
    register(name, build)


def _origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}, " if point.dist is not None else ""
    return f"{package}{point.value}"
