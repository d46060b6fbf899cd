"""An outcome while it waits for its maturity. Tens of thousands wait, so it is a struct that the garbage collector need not walk."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from stream_monitor.core.judging import Losses


class Outcome(Struct, order=True, gc=False):
    """What a label signal needs of an outcome. Sorts by prediction time (ms), then offset, of which there are no two alike."""

    time: int
    offset: int
    prediction: Any
    label: Any
    request_id: str
    slices: Any
    delay: int = 0  # ms from the prediction to its label
    weight: float | None = None
    losses: Losses | None = None
