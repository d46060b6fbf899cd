"""The table of faults: a name, one line of what is done, one of what is promised, and the function that does it.

@fault("flushall", "FLUSHALL every second under load", "healed from the journal; the plain join, each once")
def _(trial: Trial) -> None: ...        # raises AssertionError where the promise is broken
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.soak.trial import Trial

Script = Callable[[Trial], None]


class Fault(NamedTuple):
    """One line of the table."""

    name: str
    done: str
    promised: str
    script: Script


FAULTS: dict[str, Fault] = {}


def fault(name: str, done: str, promised: str) -> Callable[[Script], Script]:
    """Enters a function into the table."""

    def enter(script: Script) -> Script:
        assert name not in FAULTS, f"two faults are named {name}"
        FAULTS[name] = Fault(name, done, promised, script)
        return script

    return enter
