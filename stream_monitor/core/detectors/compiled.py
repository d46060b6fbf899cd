"""The compiled parts of river's detectors, saved as text and taken up again.

Their state is bytes in river's own layout: numbers, no code. What can not be read makes them panic, which is no `Exception`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any


def save(part: Any) -> str:
    """The state of a compiled part."""
    return b64encode(part.__getstate__()).decode()


def load(text: Any) -> bytes:
    """The bytes of what `save` gave. Raises ValueError."""
    return b64decode(text, validate=True)


def take_up(part: Any, raw: bytes, name: str) -> None:
    """Makes `part` of detector `name` what it was. Raises ValueError for bytes that are none of its states."""
    try:
        part.__setstate__(raw)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(f"{name}: the saved state can not be read") from error
