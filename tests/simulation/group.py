"""A consumer group's coordinator: generations, rebalances, members that are declared dead.

A rebalance waits until every member has joined, or drops those that do not within a time-out, then raises the generation and
hands out the partitions anew. Eager members have given theirs up before they join; cooperative ones keep them, give up
what was taken, and join once more. A member with an instance id does not leave; who comes with the same id takes its place without a
rebalance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_monitor.ports import Place
from tests.simulation.scheduler import Scheduler

if TYPE_CHECKING:
    from tests.simulation.clients import Consumer

SESSION = 150  # ms without a sign of life, then a member is declared dead
POLL = 1_500  # ms without a poll, the same
JOIN = 300  # ms that a rebalance waits for a member


@dataclass(eq=False, slots=True)
class Member:
    consumer: Consumer
    joined: bool = True
    owned: frozenset[Place] = frozenset()  # what it claimed when it joined
    target: frozenset[Place] | None = None  # handed out, the client's callbacks have not run yet
    instance: str = ""
    assigned: frozenset[Place] = frozenset()  # handed out last


@dataclass
class Group:
    """`tick` is the coordinator's own clockwork; the rest is called by the members."""

    name: str
    places: list[Place]
    scheduler: Scheduler
    cooperative: bool
    generation: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    preparing_since: int | None = None
    born: int = 0

    def enter(self, consumer: Consumer, instance: str = "") -> str:
        """A new member, and a rebalance begins; or one that takes the place of its predecessor, without one where there is none already."""
        self.born += 1
        name = f"{self.name}-{self.born}"
        older = next((name for name, member in self.members.items() if instance and member.instance == instance), None)
        before = self.members.pop(older) if older is not None else None
        self.members[name] = Member(consumer, instance=instance)
        if older is not None:
            self.scheduler.note(f"{name} takes the place of {older}")
        # A member that died after it had given partitions up, and before it joined again, leaves them to nobody; so its successor joins.
        owned = {place for member in self.members.values() for place in member.assigned} | (before.assigned if before else frozenset())
        if before is None or self.preparing_since is not None or consumer.generation >= 0 or owned != set(self.places):
            self.prepare()
        else:
            consumer.generation = self.generation
            self.members[name].target = self.members[name].assigned = before.assigned
        return name

    def prepare(self) -> None:
        """Begins a rebalance; who has joined already stays joined only if it is new."""
        if self.preparing_since is None:
            for member in self.members.values():
                member.joined = member.target is None and member.consumer.generation < 0
        self.preparing_since = self.scheduler.now

    def join(self, name: str, owned: frozenset[Place]) -> None:
        member = self.members[name]
        member.joined, member.owned, member.target = True, owned, None

    def leave(self, name: str, why: str) -> None:
        if name in self.members:
            self.scheduler.note(f"{name} leaves the group: {why}")
            del self.members[name]
            self.prepare()

    def knows(self, name: str) -> bool:
        return name in self.members

    def tick(self) -> None:
        now = self.scheduler.now
        for name, member in list(self.members.items()):
            consumer = member.consumer
            if consumer.beating():
                consumer.beat = now
            if now - consumer.beat > SESSION or now - consumer.polled > POLL:
                self.leave(name, "declared dead")
        if self.preparing_since is None or not self.members:
            return
        if self.cooperative:  # the client joins in the background, the application does not notice
            for name, member in self.members.items():
                free = not member.joined and member.target is None and not member.consumer.calling
                if free and member.consumer.beating() and self.scheduler.random.random() < 0.2:
                    self.join(name, frozenset(member.consumer.positions))
        if now - self.preparing_since > JOIN:
            for name in [name for name, member in self.members.items() if not member.joined]:
                self.leave(name, "did not join in time")
        if self.members and all(member.joined for member in self.members.values()):
            self._complete()

    def _complete(self) -> None:
        self.preparing_since = None
        self.generation += 1
        members = list(self.members.values())
        self.scheduler.random.shuffle(members)
        taken = {place for member in members for place in member.owned}
        for i, member in enumerate(members):
            wanted = {place for j, place in enumerate(self.places) if j % len(members) == i}
            member.target = member.assigned = frozenset(wanted & (member.owned | (set(self.places) - taken)))
            member.consumer.generation = self.generation
        self.scheduler.note(f"generation {self.generation} of {self.name}: {[sorted(m.target or ()) for m in members]}")
