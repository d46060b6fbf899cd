"""The join's state in Redis: one script call a batch and bucket (`join.lua`), made on threads of its own.

`submit` hands a batch of calls to them and returns at once, so that the next batch is read and the last one produced while Redis
works; the GIL is free while a thread waits. A bucket's calls are made one after the other, on one thread; those of other buckets
beside them, so that Redis has work while the answers to the last call are read. Calls are idempotent (core.joining), so one whose
answer was lost is simply made again. What Redis must be: >= 7 (Valkey >= 8), `noeviction`; `io/checks.py` looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from itertools import chain
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack
import redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from stream_monitor.core.joining import Applied, Behind, Call, Cohort, merge, split
from stream_monitor.core.records import SPAN, frames
from stream_monitor.core.settings import JoinSettings
from stream_monitor.errors import SetupError
from stream_monitor.ports import Status

if TYPE_CHECKING:
    from stream_monitor.config import RedisConfig

T = TypeVar("T")

SCRIPT = files("stream_monitor.io").joinpath("join.lua").read_bytes()

_UNANSWERED = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    ClusterDownError,  # a failover is under way; it passes
    MasterDownError,
    SlotNotCoveredError,
    TryAgainError,
)
_PASSING = (  # in errors that the client has no types for
    "non local key",  # a script met a slot of which its node has only a part: it passes with the migration
    "BUSY ",  # a script, ours on the other lane or another's, takes long, or the server stood still in it
    "MISCONF ",  # nothing is written while the server can not save
    "NOREPLICAS ",
)
_TIME = Struct(">Q")  # the log time before the journal value in an entry
_LANES = 2  # threads, each with a connection; buckets are dealt out to them
_PIECE = 500  # records a script call, about: larger ones do not fit the server's caches and cost up to twice as much a record
_Packed = tuple[bytes, bytes]  # a script call: the bucket's key and the argument
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds between two tries


def connect(config: RedisConfig) -> Any:
    """A client for one server, a Sentinel-watched primary or a Cluster, from the [redis] table. Only that of a Cluster asks it something
    at once: raises SetupError if there is none."""
    options = config.client_options()
    if config.mode == "cluster":
        try:
            return redis.RedisCluster.from_url(config.url, **options)
        except (RedisError, RedisClusterException) as error:  # the second is none of the first
            raise SetupError(
                f"no Redis Cluster answers at {config.where}: {error}", "check redis.mode, redis.url, the password, TLS and the network"
            ) from error
    if config.mode == "sentinel":
        options["ssl"] = config.url.startswith("rediss://")  # of the url, this is all that is read here
        hosts = [tuple(s.rsplit(":", 1)) for s in config.sentinels]
        sentinel = redis.Sentinel(hosts, sentinel_kwargs=options, **options)  # type: ignore[no-untyped-call]
        return sentinel.master_for(config.sentinel_service)  # type: ignore[no-untyped-call]
    return redis.Redis.from_url(config.url, **options)


class UnansweredError(Exception):
    """The caller asked to stop, or closed the store, while Redis did not answer."""


def _together(parts: Sequence[tuple[Sequence[int], Future[list[T]]]]) -> Future[list[T]]:
    """One future of several, each with the places of its results in the whole; the first failure is the whole's."""
    whole: Future[list[T]] = Future()
    results: dict[int, T] = {}
    lock, left = Lock(), len(parts)

    def add(places: Sequence[int], part: Future[list[T]]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if whole.done():
                return
            if part.cancelled():
                whole.cancel()
            elif (failure := part.exception()) is not None:
                whole.set_exception(failure)
            else:
                results.update(zip(places, part.result(), strict=True))
                if left == 0:
                    whole.set_result([results[i] for i in range(len(results))])

    for places, part in parts:
        part.add_done_callback(partial(add, places))
    if not parts:
        whole.set_result([])
    return whole


class RedisStore:
    """The buckets of one journal. `client` is any redis-py client; `pause(seconds)` sleeps and returns True to give up."""

    def __init__(
        self,
        client: Any,
        prefix: str,
        settings: JoinSettings,
        pause: Callable[[float], bool],
        troubled: Callable[[str], None],
        lanes: Sequence[Executor] = (),
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._settings = settings
        self._pause = pause
        self._troubled = troubled
        self._closing = False
        self._sha = ""
        self._epochs: dict[bytes, bytes] = {}  # bucket's key -> its epoch when last heard of; the script sees to it where that is wrong
        self._lanes = lanes or [ThreadPoolExecutor(1, f"redis-{i}") for i in range(_LANES)]

    def submit(self, calls: Sequence[Call]) -> Future[list[Applied | Behind]]:
        """Makes the calls, each bucket's in order; the future gives the answers in the order of the calls."""
        dealt: dict[int, list[int]] = {}
        for i, call in enumerate(calls):
            dealt.setdefault(call.bucket % len(self._lanes), []).append(i)
        # Packed here, so that a lane has little to do between one answer and the next call, time in which Redis has nothing to do.
        packed = [self._packed(call) for call in calls]
        return _together([(part, self._lanes[lane].submit(self._make, [packed[i] for i in part])) for lane, part in dealt.items()])

    def status(self, bucket: int) -> Status:
        """How far a bucket is."""
        at, trim, epoch = self._retry(lambda: self._client.hmget(self._key(bucket), "applied", "trim", "epoch"))
        return Status(None if at is None else int(at) // SPAN, int(trim or 0) // SPAN, (epoch or b"").decode())

    def counters(self, bucket: int) -> dict[str, int]:
        """The join's accounting of one bucket since its origin (the journal's position that its epoch began at)."""
        found = self._retry(lambda: self._client.hgetall(self._key(bucket)))
        slots = self._retry(lambda: self._client.hgetall(self._key(bucket) + b":slots"))
        counters = {name.decode(): int(value) for name, value in found.items() if name != b"epoch"}
        for side, name in ((b"P", "waiting_predictions"), (b"F", "waiting_feedback")):
            counters[name] = sum(int(n) for slot, n in slots.items() if slot[:1] == side)
        return counters

    def forget(self, bucket: int) -> None:
        """Drops a bucket's state, so that it is rebuilt under a new epoch; its old entries die by TTL."""
        self._retry(lambda: self._client.delete(self._key(bucket)))

    def close(self) -> None:
        """Lets go. Calls that wait for an answer are given up."""
        self._closing = True
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _packed(self, call: Call) -> list[_Packed]:
        key = self._key(call.bucket)
        return [(key, self._argument(key, part)) for part in split(call, _PIECE)]

    def _make(self, calls: Sequence[Sequence[_Packed]]) -> list[Applied | Behind]:
        return self._retry(lambda: self._send(calls))

    def _send(self, calls: Sequence[Sequence[_Packed]]) -> list[Applied | Behind]:
        sha = self._sha = self._sha or self._client.script_load(SCRIPT)  # lanes may load it at the same time; it is the same
        try:
            replies = iter(self._evaluate(sha, list(chain.from_iterable(calls))))
            return [merge([self._answer(key, next(replies)) for key, _ in packed]) for packed in calls]
        except NoScriptError:  # SCRIPT FLUSH, a restart, a new node: load it again and repeat
            self._sha = ""
            return self._send(calls)

    def _evaluate(self, sha: str, packed: Sequence[_Packed]) -> list[Any]:
        """The script's replies. In one round trip, but on a Cluster, where redis-py pipelines no scripts: there in one each."""
        pipeline = None if isinstance(self._client, redis.RedisCluster) else self._client.pipeline(transaction=False)
        client = self._client if pipeline is None else pipeline
        replies = [client.evalsha(sha, 1, key, argument) for key, argument in packed]
        return replies if pipeline is None else list(pipeline.execute())

    def _argument(self, key: bytes, call: Call) -> bytes:
        s = self._settings
        prefix = b"%b:%b:" % (key, self._epochs.get(key, b""))
        keys = [prefix + r.key for r in call.records]
        values: list[bytes] = []
        told: list[int] = []
        for frame in frames(call.records):
            first = frame[0]
            time = _TIME.pack(first.time)
            values += [time + r.value for r in frame]
            told += (first.position, first.time, len(frame))
        return msgpack.packb(  # type: ignore[no-any-return]
            (
                call.start * SPAN,
                call.end * SPAN,
                call.committed * SPAN,
                call.epoch,
                s.window_ms,
                s.window_ms + s.slack_ms,
                s.slot_ms,
                str(s.ttl_ms),  # a string: Redis formats Lua numbers slowly
                prefix,
                len(set(keys)) < len(keys),
                told,
                keys,
                values,
            ),
            use_bin_type=False,  # the library in Redis knows one kind of string
        )

    def _answer(self, key: bytes, reply: list[Any]) -> Applied | Behind:
        if reply[0] != b"OK":
            return Behind(None if reply[1] < 0 else reply[1] // SPAN)
        self._epochs[key] = reply[4]
        answers: dict[int, tuple[int, bytes]] = {}
        for blob in reply[3]:
            flat = msgpack.unpackb(blob, raw=True)
            others = [entry[_TIME.size :] for entry in flat[2::3]]
            answers.update(zip(flat[::3], zip(flat[1::3], others, strict=True), strict=True))
        cohorts: dict[int, list[Cohort]] = {}
        for blob in reply[5]:
            flat = msgpack.unpackb(blob, raw=True)
            for position, *cohort in sorted(zip(*(flat[i::5] for i in range(5)), strict=True)):
                cohorts.setdefault(position, []).append(Cohort(*cohort))
        return Applied(reply[1] // SPAN, reply[2] // SPAN, answers, reply[4].decode(), cohorts)

    def _key(self, bucket: int) -> bytes:
        return f"{{{self._prefix}:{bucket}}}".encode()

    def _retry(self, attempt: Callable[[], T]) -> T:
        pause = _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except RedisError as error:
                if not isinstance(error, _UNANSWERED) and not any(passing in str(error) for passing in _PASSING):
                    raise
                self._troubled(f"{type(error).__name__}: {error}")
                if self._pause(pause) or self._closing:
                    raise UnansweredError from error
                pause = min(2 * pause, _LONGEST_PAUSE)
