"""Stable hashes: the same on every machine, in every process, for ever (never Python's seeded `hash`).

Changing any of these re-partitions a journal or renames every alert, so they are pinned by a golden test.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

import orjson


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, in [0, partitions), that owns `key`. Kafka's default partitioners differ between clients."""
    return partitions_of((key,), partitions)[0]


def partitions_of(keys: Iterable[bytes], partitions: int) -> list[int]:
    """`partition_of` each."""
    return [crc32(key) % partitions for key in keys]


def digest_of(*parts: str) -> str:
    """32 hex digits that identify a sequence of strings; lengths are hashed too, so ("ab", "c") is not ("a", "bc")."""
    h = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        h.update(len(raw).to_bytes(8, "big"))
        h.update(raw)
    return h.hexdigest()


def label_digest(label: str | int | float | bool) -> bytes:
    """8 bytes that tell two labels apart: 1 and 1.0 are the same label, 1, "1" and true are three."""
    if type(label) is float and label.is_integer():
        label = int(label)
    return blake2b(orjson.dumps(label) if type(label) is not int else b"%d" % label, digest_size=8).digest()


_eight_bytes = blake2b(digest_size=8).copy  # to set one up costs more than to hash an id


def unit_of(text: bytes) -> int:
    """A 64-bit integer for `text`, the seed of its randomised ranks."""
    h = _eight_bytes()
    h.update(text)
    return int.from_bytes(h.digest(), "big")


def scatter(n: int) -> int:
    """64 bits for a number, as if drawn by chance (the finaliser of SplitMix64; Steele, Lea, Flood, 2014)."""
    n = n * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    n = (n ^ n >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return n ^ n >> 31
