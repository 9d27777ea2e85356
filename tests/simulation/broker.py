"""Kafka's brokers: topics with their logs, and one consumer group.

In: the clients' requests. Out: the brokers' answers, or none. The delays are made in the clients (`clients`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple, Protocol

from simulation.loop import Process, SimulatedLoop

START_MS = 1_800_000_000_000
"""The wall clock at the loop's time 0."""
GROUP_SECONDS = 0.25
"""How often the group checks its members."""


class Entry(NamedTuple):
    """One record in a log."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    epoch: int


@dataclass(slots=True, eq=False)
class Log:
    """One partition."""

    topic: str
    number: int
    low: int = 0
    end: int = 0
    epoch: int = 0
    entries: list[Entry] = field(default_factory=list)
    turns: list[tuple[int, int]] = field(default_factory=list)
    """For each change of leader: the epoch that ended, and the offset at which it ended."""
    leaderless_until: float = 0.0
    refuses_until: float = 0.0
    """Until this time writers get an authorization error."""

    def append(
        self, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, Any]], timestamp_ms: int
    ) -> int:
        """Append a record; returns its offset."""
        kept = tuple(headers)
        self.entries.append(Entry(self.end, key, value, kept, timestamp_ms, self.epoch))
        self.end += 1
        return self.end - 1

    def leave_hole(self, offsets: int) -> None:
        """Leave offsets without a record, as transactions do: their markers, and what was aborted."""
        self.end += offsets

    def delete_before(self, offset: int) -> None:
        """Delete the records before an offset, as retention does."""
        self.low = max(self.low, min(offset, self.end))
        self.entries = [each for each in self.entries if each.offset >= self.low]

    def go_back(self, offset: int) -> list[Entry]:
        """Another leader takes over that does not have the newest records; returns the lost ones."""
        lost = [each for each in self.entries if each.offset >= offset]
        self.turns.append((self.epoch, offset))
        self.entries = [each for each in self.entries if each.offset < offset]
        self.end = offset
        self.epoch += 1
        return lost

    def changes_leader(self) -> None:
        """Another leader takes over that has everything."""
        self.turns.append((self.epoch, self.end))
        self.epoch += 1

    def diverged_at(self, epoch: int, offset: int) -> int | None:
        """The offset from which a reader that has read up to `offset` in an epoch has other records than this log;
        None: it has the same.
        """
        ends = [end for ended, end in self.turns if ended >= epoch]
        return min(ends) if ends and min(ends) < offset else None

    def read(self, offset: int, count: int) -> list[Entry]:
        """Records from an offset on."""
        first = bisect_left(self.entries, offset, key=attrgetter("offset"))
        return self.entries[first : first + count]

    def first_at(self, offset: int) -> Entry | None:
        """The record at an offset, if there is one."""
        found = self.read(offset, 1)
        return found[0] if found and found[0].offset == offset else None


class Topic:
    """One topic."""

    def __init__(self, name: str, partitions: int, incarnation: int) -> None:
        self.name = name
        self.id = f"{name}#{incarnation}"
        self.incarnation = incarnation
        self.logs = [Log(name, number) for number in range(partitions)]


class Commit(NamedTuple):
    """One partition's committed position, as the group stores it."""

    offset: int
    metadata: str | None
    epoch: int | None


class GroupClient(Protocol):
    """What the group needs of a member's client."""

    process: Process

    @property
    def beats(self) -> bool:
        """Whether its heartbeats reach the group's coordinator."""

    def tell(self, kind: str, numbers: set[int], member: Member) -> None:
        """Tell the client that partitions are assigned, revoked or lost."""


class Member:
    """One member of the group."""

    def __init__(self, client: GroupClient, number: int, now: float) -> None:
        self.client = client
        self.number = number
        self.heard_at = now
        self.owned: set[int] = set()
        """The partitions that it has, or that are being assigned to it."""
        self.revoking: set[int] = set()
        self.is_expelled = False
        self.has_assignment = False
        """Whether it was sent an assignment, even an empty one."""


class Group:
    """The consumer group."""

    def __init__(self, broker: Broker, session_seconds: float, *, eager: bool) -> None:
        """`eager`: each rebalance takes all partitions from all members first."""
        self._broker = broker
        self._session_seconds = session_seconds
        self._eager = eager
        self.members: list[Member] = []
        self.commits: dict[tuple[str, int], Commit] = {}
        self._joined = 0

    def join(self, client: GroupClient) -> Member:
        """Make a client a member, and rebalance."""
        member = Member(client, self._joined, self._broker.loop.now)
        self._joined += 1
        self.members.append(member)
        self._broker.note(f"the group has {client.process.name} as member {member.number}")
        self.rebalance()
        return member

    def leave(self, member: Member) -> None:
        """Remove a member that leaves, and rebalance."""
        if member in self.members:
            self.members.remove(member)
            member.is_expelled = True
            self._broker.note(f"member {member.number} has left the group")
            self.rebalance()

    def look_after(self) -> None:
        """Note heartbeats; remove a member that has sent none for a session."""
        now = self._broker.loop.now
        for member in list(self.members):
            client = member.client
            if client.beats:
                member.heard_at = now
            elif now - member.heard_at > self._session_seconds:
                self.members.remove(member)
                member.is_expelled = True
                self._broker.note(
                    f"the group gives up member {member.number} ({client.process.name}) with {sorted(member.owned)}"
                )
                self.rebalance()

    def rebalance(self) -> None:
        """Distribute the partitions anew."""
        targets = self._targets()
        for member in self.members:
            leaving = set(member.owned) if self._eager else member.owned - targets[member]
            leaving -= member.revoking
            if leaving:
                member.revoking |= leaving
                member.client.tell("revoke", leaving, member)
        self._offer()

    def _targets(self) -> dict[Member, set[int]]:
        """The partitions that each member is to have: fair shares, with as few moves as possible."""
        numbers = list(range(self._broker.partitions))
        targets: dict[Member, set[int]] = {member: set() for member in self.members}
        if not targets:
            return targets
        fair, more = divmod(len(numbers), len(targets))
        by_size = sorted(self.members, key=lambda member: (-len(member.owned), member.number))
        left = set(numbers)
        for place, member in enumerate(by_size):
            share = fair + (place < more)
            targets[member] = set(sorted(member.owned & left)[:share])
            left -= targets[member]
        for place, member in enumerate(by_size):
            share = fair + (place < more)
            while len(targets[member]) < share:
                targets[member].add(left_over := min(left))
                left.discard(left_over)
        return targets

    def _offer(self) -> None:
        """Assign free partitions to the members that are to have them."""
        if self._eager and any(member.revoking for member in self.members):
            return
        taken = {number for member in self.members for number in member.owned}
        for member, target in self._targets().items():
            free = target - taken
            if free or not member.has_assignment:
                taken |= free
                member.owned |= free
                member.has_assignment = True
                member.client.tell("assign", free, member)

    def revoked(self, member: Member, numbers: set[int]) -> None:
        """A member has given partitions back."""
        member.revoking -= numbers
        member.owned -= numbers
        if member in self.members:
            self._offer()

    def takes_commits_of(self, member: Member) -> bool:
        """Whether it is a member; a member may commit any partition, as in Kafka."""
        return member in self.members


class Broker:
    """All brokers, as clients see them."""

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        note: Callable[[str], None],
        partitions: int,
        session_seconds: float,
        *,
        eager: bool,
    ) -> None:
        self.loop = loop
        self.random = random
        self.note = note
        self.partitions = partitions
        self.topics: dict[str, Topic] = {}
        self.is_down_until = 0.0
        self.hides_ids_until = 0.0
        """Until this time topics have no ids, as of brokers before Kafka 3.1."""
        self.is_slow_until = 0.0
        """Until this time answers may be late."""
        self.forgets_answers_until = 0.0
        """Until this time answers to commits may be lost."""
        self.group = Group(self, session_seconds, eager=eager)
        self.on_append: Callable[[Log, Entry], None] = lambda _, __: None
        self.on_commit: Callable[[Process, int, Commit], None] = lambda _, __, ___: None
        self.on_given_up: Callable[[Process, set[int]], None] = lambda _, __: None
        """Called with partitions that a process no longer has."""
        self.readers: list[Callable[[], None]] = []
        """Called after each written record."""
        self.producers: list[object] = []
        self.clients: list[Any] = []

    def create(self, name: str, partitions: int) -> Topic:
        """Create a topic, or create it again."""
        before = self.topics.get(name)
        topic = self.topics[name] = Topic(name, partitions, 0 if before is None else before.incarnation + 1)
        return topic

    def wall_ms(self) -> int:
        """The time of day."""
        return START_MS + int(self.loop.now * 1000)

    def log(self, topic: str, number: int) -> Log:
        """The present log of a partition."""
        return self.topics[topic].logs[number]

    def hears(self, process: Process) -> bool:
        """Whether the brokers can receive requests of a process at present."""
        return process.reaches_kafka and self.loop.now >= self.is_down_until

    def latency(self) -> float:
        """How long a request or an answer is under way, in seconds."""
        if self.loop.now < self.is_slow_until and self.random.random() < 0.2:
            return self.random.uniform(0.1, 1.5)
        return self.random.uniform(0.0005, 0.01)

    def append(
        self,
        log: Log,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, Any]],
        timestamp_ms: int,
    ) -> int:
        """Write a record, and notify readers."""
        offset = log.append(key, value, headers, timestamp_ms)
        self.on_append(log, log.entries[-1])
        for reader in self.readers:
            reader()
        return offset
