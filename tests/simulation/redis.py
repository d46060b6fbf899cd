"""A Redis that forgets: masters with lagging replicas, lost answers, calls that arrive after their sender was declared dead.

A bucket is a `core.joining.Fold` whose entries die of age, by the server's clock. A fail-over replaces the current master by what its
replica knew of one bucket or of all; clients may go on talking to the old master for a while, and what it then accepts is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from stream_monitor.core.joining import Applied, Behind, Call, Fold, merge, split
from stream_monitor.ports import Status
from tests.simulation.scheduler import Scheduler

PIECE = 4

Answered = list[Applied | Behind]


def copy(fold: Fold) -> Fold:
    """An independent copy; the values inside are never changed in place."""
    twin = object.__new__(type(fold))
    for name, value in vars(fold).items():
        setattr(twin, name, value.copy() if isinstance(value, dict | list) else value)
    return twin


class Master:
    """One server's memory."""

    def __init__(self, new: Callable[[], Fold]) -> None:
        self._new = new
        self.buckets: dict[int, Fold] = {}

    def bucket(self, bucket: int) -> Fold:
        fold = self.buckets.get(bucket)
        if fold is None:
            fold = self.buckets[bucket] = self._new()
        return fold


def cut(call: Call) -> list[Call]:
    """A call in pieces, as the edge sends it."""
    return split(call, PIECE)


class Redis:
    """The current master, its replica, and what is still under way to any of them."""

    def __init__(self, scheduler: Scheduler, new: Callable[[], Fold], trouble: Callable[[str], bool], ttl: int) -> None:
        self.scheduler, self.trouble, self.ttl = scheduler, trouble, ttl
        self._new = new
        self._random = scheduler.random
        self.master = Master(new)
        self.replica: dict[int, Fold] = {}
        self.under_way: list[tuple[Master, Call]] = []
        self.stores: list[SimulatedStore] = []
        self.losses = 0

    def apply(self, master: Master, call: Call) -> Applied | Behind:
        fold = master.bucket(call.bucket)
        now, written = self.scheduler.now, fold.__dict__.setdefault("written", {})
        for key in [key for key in fold.entries if now - written.get(key, now) >= self.ttl]:
            del fold.entries[key]
        before = {record.key: fold.entries.get(record.key) for record in call.records}
        answer = fold.apply(call)
        written.update((key, now) for key, entry in before.items() if fold.entries.get(key) is not entry)
        if master is self.master and self.scheduler.random.random() < 0.4:
            self.replica[call.bucket] = copy(fold)
        if self.scheduler.trace is not None:
            said = f"at {answer.at}, trim {answer.trim}" if isinstance(answer, Applied) else f"behind, at {answer.at}"
            self.scheduler.note(
                f"redis: bucket {call.bucket} [{call.start}, {call.end}) c={call.committed} {call.epoch and 'init'} -> {said}"
                f"{'' if master is self.master else ' (old master)'}"
            )
        return answer

    def tick(self) -> None:
        random = self._random
        if self.stores and random.random() < 0.15:
            random.choice(self.stores).work()
        if self.under_way and random.random() < 0.05:
            master, call = self.under_way.pop(random.randrange(len(self.under_way)))
            self.scheduler.note("a call that was given up arrives")
            self.apply(master, call)
        if self.trouble("loss"):
            self._lose()

    def _lose(self) -> None:
        random = self.scheduler.random
        self.losses += 1
        old = self.master
        kind = random.choice(("bucket", "all", "everything", "key"))
        self.scheduler.note(f"redis loses: {kind}")
        if kind == "key" and old.buckets:  # the hash is gone, entries of its epoch remain
            forget(random.choice(list(old.buckets.values())))
            return
        self.master = Master(self._new)
        if kind != "everything":
            self.master.buckets = {bucket: copy(fold) for bucket, fold in self.replica.items()}
        else:
            self.replica = {}
        if kind == "bucket" and old.buckets:
            lost = random.choice(list(old.buckets))
            self.master.buckets |= {bucket: copy(fold) for bucket, fold in old.buckets.items() if bucket != lost}
        for store in self.stores:
            if random.random() < 0.6:
                store.master = self.master


def forget(fold: Fold) -> None:
    """What deleting the bucket's hash does; entries die by TTL, later."""
    fold.at, fold.trim = None, 0


class SimulatedStore:
    """One worker's connection: calls in order, one thread's worth; without an answer a batch is sent again."""

    def __init__(self, redis: Redis, cut: Callable[[Call], list[Call]] = cut) -> None:
        self.redis = redis
        self._cut = cut
        self.master = redis.master
        self.queue: list[_Batch] = []
        redis.stores.append(self)

    def submit(self, calls: Sequence[Call]) -> Future[Answered]:
        batch = _Batch(self, [self._cut(call) for call in calls])
        self.queue.append(batch)
        self.redis.scheduler.pause("submitted")
        return batch

    def status(self, bucket: int) -> Status:
        self.redis.scheduler.pause("ask for a bucket's status")
        self._reconnect()
        fold = self.master.bucket(bucket)
        status = Status(fold.at, fold.trim if fold.at is not None else 0, fold.epoch)
        self.redis.scheduler.note(f"redis: status of {bucket}: {status}{'' if self.master is self.redis.master else ' (old master)'}")
        self.redis.scheduler.pause("heard of a bucket's status")
        return status

    def forget(self, bucket: int) -> None:
        self.redis.scheduler.pause("forget a bucket")
        forget(self.master.bucket(bucket))

    def work(self) -> None:
        """One call reaches a server, or one answer is lost on the way back."""
        if not self.queue:
            return
        self._reconnect()
        batch, redis = self.queue[0], self.redis
        if len(batch.answers) < len(batch.calls):
            call = batch.calls[len(batch.answers)]
            if redis.trouble("delay"):
                redis.under_way.append((self.master, call))
                batch.answers.clear()
            else:
                batch.answers.append(redis.apply(self.master, call))
        elif redis.trouble("lost"):
            redis.scheduler.note("redis: an answer is lost")
            batch.answers.clear()
        else:
            self.queue.pop(0)
            batch.answered = True

    def die(self) -> None:
        """The process is gone; what it sent may still arrive."""
        self.redis.stores.remove(self)
        for batch in self.queue:
            self.redis.under_way += [(self.master, call) for call in batch.calls if self.redis.scheduler.random.random() < 0.7]

    def _reconnect(self) -> None:
        if self.master is not self.redis.master and self.redis.scheduler.random.random() < 0.1:
            self.master = self.redis.master


class _Batch(Future[Answered]):
    def __init__(self, store: SimulatedStore, pieces: list[list[Call]]) -> None:
        super().__init__()
        self.store, self.pieces = store, pieces
        self.calls = [call for group in pieces for call in group]
        self.answers: Answered = []
        self.answered = False

    def exception(self, timeout: float | None = None) -> None:
        """Waits; now and then for too long."""
        while not self.answered:
            if timeout is not None and self.store.redis.scheduler.random.random() < 0.2:
                raise TimeoutError
            self.store.work()
            self.store.redis.scheduler.pause("wait for redis")

    def result(self, timeout: float | None = None) -> Answered:
        while not self.answered:
            self.store.work()
            self.store.redis.scheduler.pause("wait for redis")
        answers = iter(self.answers)
        return [merge([next(answers) for _ in group]) for group in self.pieces]
