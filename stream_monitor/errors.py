"""The few kinds of failure that end a command, each with its exit code and what to do next.

Everything else is a value: a message that cannot be decoded is a `Rejection` (core.codec), a store that
forgot is a `BEHIND` (core.joining). An exception here means a person or a supervisor has to act.
"""

from __future__ import annotations

AGAIN = "the process ends so that a supervisor starts a fresh one"
"""The hint where nobody has to do anything."""


class StreamMonitorError(Exception):
    """A failure with a sentence for the operator. `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  hint: {self.hint}" if self.hint else message


class ConfigurationError(StreamMonitorError):
    """The configuration is not usable; `problems` lists every one of them."""

    exit_code = 2

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class SetupError(StreamMonitorError):
    """A broker, topic or Redis is missing or set up so that the guarantees cannot hold."""

    exit_code = 3


class FatalError(StreamMonitorError):
    """This process can not go on, but a fresh one can: fenced, or a fatal client error. A supervisor restarts it."""

    exit_code = 70


class LogGapError(StreamMonitorError):
    """A committed offset lies outside what the topic still holds. An operator decides (`stream-monitor reset`)."""

    exit_code = 4
