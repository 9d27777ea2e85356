"""The state of each delivery, and the partition that it belongs to.

In: planned deliveries, assignments. Out: the state that the books, the lanes and the metadata batches share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from flagpost_consumer.core.books.dedupe import Dedupe
from flagpost_consumer.core.books.leader_epochs import LeaderEpochs
from flagpost_consumer.core.books.ledger_window import LedgerWindow
from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.books.offsets import Offsets
from flagpost_consumer.core.books.settled_before import SettledBefore
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.planning.plan import Planned
from flagpost_consumer.core.planning.visitor_names import name_of_lane
from flagpost_consumer.core.records import HeldRecord, Undecoded


class Stage(Enum):
    """The state of a delivery."""

    WAITING = "waiting"
    IN_FLIGHT = "in_flight"
    SETTLED = "settled"
    """Its ending is known, but Kafka has not acknowledged it yet."""
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"


@dataclass(slots=True, eq=False)
class Delivery:
    """One thing to tell Pendo, from planning to its end."""

    record: HeldRecord
    partition: Partition
    planned: Planned
    deadline_ms: float
    """The last moment, epoch ms, at which a track delivery may be sent; metadata does not expire."""
    turn: float
    """Among track deliveries that may start, the one with the lowest goes first."""
    stage: Stage = Stage.WAITING
    attempts: int = 0
    counted_attempts: int = 0
    """Attempts that count towards `delivery.max_attempts`."""
    failures: int = 0
    """Failed attempts that were of nothing else: its pauses grow with them."""
    unseen: int = 0
    """Attempts whose answer was never seen."""
    status: int | None = None
    """The last HTTP status."""
    successes_seen: int = 0
    """The endpoint's number of successes when the previous attempt was answered, or when the delivery began."""
    refused_at_ticket: int | None = None
    """How many requests had started when it first met a setup answer (docs/contract.md#outcomes); None: never."""
    item: Item[Delivery] | None = None
    who: str = field(init=False)
    """The visitor or account that it is about, empty if none; a long visitor id is replaced by its digest."""

    def __post_init__(self) -> None:
        """Computed once: it is needed several times."""
        planned = self.planned
        if planned.track is not None:
            self.who = name_of_lane(planned.track.visitor_id)
        else:
            self.who = "" if planned.metadata is None else planned.metadata.target_id

    @property
    def kind(self) -> Kind:
        """What it tells Pendo."""
        return self.planned.kind

    @property
    def size_bytes(self) -> int:
        """Bytes that its record takes in memory."""
        return self.record.size_bytes

    @property
    def is_held(self) -> bool:
        """Whether nothing of its partition may be sent."""
        return self.partition.held

    @property
    def is_tried_again(self) -> bool:
        """Whether it is retried after a failed attempt; otherwise it is handed back."""
        return not self.partition.closing

    @property
    def not_before(self) -> float:
        """A newly assigned partition sends nothing for one interval."""
        return self.partition.send_from


@dataclass(slots=True, eq=False)
class Partition:
    """One partition for as long as it is assigned here; a later assignment is another object."""

    number: int
    send_from: float
    dedupe: Dedupe
    restored: bool = False
    """Whether the ledger has been read; until then no record is taken in."""
    topic_id: str | None = None
    """Kafka's id of the topic that it belongs to, if known."""
    settled_before: SettledBefore = field(default_factory=SettledBefore)
    window: LedgerWindow = field(default_factory=LedgerWindow)
    epochs: LeaderEpochs = field(default_factory=LeaderEpochs)
    offsets: Offsets[list[Delivery] | Duplicates] = field(default_factory=Offsets)
    in_flight: int = 0
    """Deliveries of which a request is under way."""
    unwritten: int = 0
    """Deliveries and gaps that have ended, and that Kafka has not acknowledged."""
    held: bool = False
    """Nothing of it is sent, because Kafka does not take its settlements (`Unacknowledged`)."""
    closing: bool = False
    """No record is accepted, and what fails is handed back: the partition is being revoked, or the process stops."""
    leaving: bool = False
    """It is being handed over to another member."""


class Settlement(NamedTuple):
    """How a delivery ended; it counts once Kafka has acknowledged it."""

    delivery: Delivery
    ending: Ending
    settled_at_ms: int


REPEATED = Ending(Reason.DEDUPE)
"""How a duplicate ends when nobody needs to know what it is a duplicate of."""
UNCHANGED = Ending(Reason.UNCHANGED)


@dataclass(slots=True, eq=False)
class Duplicates:
    """Decisions of one partition that came together, each of which is a duplicate in everything it would send.

    They end at once, and no deliveries are made for them: the books have them as one entry, at the offset of the
    first.
    """

    partition: Partition
    records: list[Undecoded] = field(default_factory=list)
    """In the order of their offsets; each is a duplicate as a track event."""
    unchanged: list[Undecoded] = field(default_factory=list)
    """Those of them that also gave an unchanged value of visitor metadata."""
    entries: list[bytes] = field(default_factory=list)
    """What the ledger will say of them."""
    occurred_at: int = 0
    """When the first of them occurred, epoch ms."""
    size_bytes: int = 0
    """Bytes that they take in memory."""
    stage: Stage = Stage.SETTLED


class Settled(NamedTuple):
    """How a delivery ended, whatever its path."""

    record: HeldRecord | Undecoded
    kind: Kind
    ending: Ending
    attempts: int = 0
    """Requests that were made for it and have ended."""


def each_settled(settled: Settlement | Duplicates) -> Iterator[Settled]:
    """The ended deliveries, one by one; for duplicates, without the offsets of what they duplicate."""
    if isinstance(settled, Duplicates):
        yield from (Settled(record, Kind.TRACK, REPEATED) for record in settled.records)
        yield from (Settled(record, Kind.VISITOR_METADATA, UNCHANGED) for record in settled.unchanged)
    else:
        delivery = settled.delivery
        yield Settled(delivery.record, delivery.kind, settled.ending, delivery.attempts)


class Position(NamedTuple):
    """What is committed for a partition."""

    offset: int
    """Below it every record is settled."""
    ledger_offset: int | None
    """The ledger offset at which the partition's next member begins to read; None: at the ledger's beginning."""
    settles_from: int = 0
    """Ledger records below this offset settle nothing: the log has gone back since they were written."""
