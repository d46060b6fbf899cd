"""Early notice: a warning on less evidence than an alert asks for, within a budget of its own.

The e-detector's evidence S = sum M_j (core/detectors/e_detector.py) alarms at 1. Where the operator allows r times as many false warnings
as false alerts (`warning_budget`), a stream warns when S comes to `warn`, and is over it when S has gone down to `fade`:

    0 ----- fade = warn/10 ---------- warn = 1/(.9 r) ------------------------ 1
            the evidence faded        warning                                  alarm: the same alert fires

Kept is the budget by the upcrossing inequality (J. L. Doob: Stochastic Processes, 1953, VII.3). While nothing changes, S plus what alarms
took of it, less the budget c that came in, is a martingale; so of the ways up from `fade` to `warn` there are on average no more than

    E[sum c] / (warn - fade) = r E[sum c]

whatever happens to S on its way down, and whoever begins it anew. So the distance that keeps a warning from flapping is also what pays for
the proof. r is the ratio of the two budgets times the number of detectors that share the stream's part of the alert budget, since only the
e-detector warns: no other one has evidence of which a lower threshold keeps a promise. The promise is as good as the detector's: proved
for scores, by simulation for bits.

A warning changes nothing: neither the reference, nor an incident, nor when the alert comes. While an alert fires there is none. One whose
change is below the subject's `minimum_effect`, or within its cool-down, is spent untold.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.core.alerting import Case, Event, from_plain, to_plain
from stream_monitor.core.settings import DetectSettings

FADE = 0.1  # of the evidence that warns: below it a warning is over


class Early:
    """Of one stream. `crossed`: it came to `warn`, and has not come down to `fade` since. `case`: the warning, if it was told of.

    >>> early = Early(20.0)
    >>> [event and event.value for event in map(early.take, (0.05, 0.06, 0.02, 0.2, 0.005, 0.05, 0.06))]
    [None, 'suspected', None, None, 'faded', None, 'suspected']
    """

    __slots__ = ("case", "crossed", "fade", "warn")

    def __init__(self, ratio: float) -> None:
        """`ratio`: warnings that are allowed for each alarm of the e-detector."""
        self.warn = 1 / ((1 - FADE) * ratio)
        self.fade = FADE * self.warn
        self.crossed = False
        self.case: Case | None = None

    @classmethod
    def of(cls, settings: DetectSettings, detectors: int) -> Early | None:
        """Of a stream that has so many budgeted detectors; None where nobody asks for warnings."""
        ratio = settings.warnings_per_alert
        return None if ratio is None else cls(ratio * detectors)

    @property
    def heed(self) -> float:
        """The evidence from which on the e-detector is to tell of itself."""
        return 0.0 if self.crossed else min(self.warn, 1.0)

    def take(self, evidence: float) -> Event | None:
        """What the evidence, below an alarm, means."""
        if self.crossed:
            if evidence < self.fade:
                self.crossed = False
                return Event.FADED
        elif evidence >= self.warn:
            self.crossed = True
            return Event.SUSPECTED
        return None

    def begin_again(self) -> None:
        """The evidence is nothing again, and the warning, if there was one, came to fire."""
        self.crossed, self.case = False, None

    def state(self) -> Any:
        """Plain data."""
        return [self.crossed, None if self.case is None else to_plain(self.case.alert)]

    def restore(self, state: Any) -> None:
        """Takes up what `state` gave."""
        self.crossed, alert = state
        self.case = None if alert is None else Case(from_plain(alert))
