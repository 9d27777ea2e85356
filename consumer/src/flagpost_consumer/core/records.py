"""What goes into the engine and what comes out of it.

In: nothing. Out: records, deliveries, attempts and settlements: the nouns that the engine and the shells around
it share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from flagpost_consumer.core.dedupe import Dedupe
from flagpost_consumer.core.endpoint import Ticket
from flagpost_consumer.core.lanes import Lane
from flagpost_consumer.core.ledger_window import LedgerWindow
from flagpost_consumer.core.metadata_batches import Batch, Item
from flagpost_consumer.core.offsets import Offsets
from flagpost_consumer.core.outcomes import Ending, Kind
from flagpost_consumer.core.plan import DecodeFailure, Planned
from flagpost_consumer.core.settled_before import SettledBefore
from flagpost_schemas import Event

Headers = tuple[tuple[str, bytes | None], ...]


class Record(NamedTuple):
    """One record of the events topic, decoded as far as it could be."""

    partition: int
    offset: int
    timestamp_ms: int
    """When it was produced, epoch ms."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    event: Event | DecodeFailure

    @property
    def occurred_at(self) -> int | None:
        """When the event occurred, epoch ms, where the record could be decoded."""
        return None if isinstance(self.event, DecodeFailure) else self.event.occurred_at


class EndpointName(StrEnum):
    """Pendo's endpoints, as metrics name them."""

    TRACK = "track"
    METADATA = "metadata"


class Stage(Enum):
    """Where a delivery is."""

    WAITING = "waiting"
    IN_FLIGHT = "in_flight"
    SETTLED = "settled"
    """Its ending is known; Kafka has not acknowledged it yet."""
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"


@dataclass(slots=True, eq=False)
class Delivery:
    """One thing to tell Pendo, from planning to its end."""

    record: Record
    partition: Partition
    planned: Planned
    deadline_ms: float
    """The last moment, epoch ms, at which a track delivery may be sent; metadata does not expire."""
    stage: Stage = Stage.WAITING
    attempts: int = 0
    counted_attempts: int = 0
    """Those that count towards `delivery.max_attempts`."""
    failures: int = 0
    unseen: int = 0
    """Attempts whose answer was never seen."""
    status: int | None = None
    """The last HTTP status."""
    successes_seen: int = 0
    """The endpoint's successes when the attempt before was answered, or when the delivery began."""
    item: Item[Delivery] | None = None

    @property
    def kind(self) -> Kind:
        """What it tells Pendo."""
        return self.planned.kind

    @property
    def is_tried_again(self) -> bool:
        """Whether it waits for another try after a failed one, or is handed back."""
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
    settled_before: SettledBefore = field(default_factory=SettledBefore)
    window: LedgerWindow = field(default_factory=LedgerWindow)
    offsets: Offsets[list[Delivery]] = field(default_factory=Offsets)
    busy: int = 0
    """Deliveries in flight, or settled and not acknowledged."""
    closing: bool = False
    """No record is taken in, and what fails is handed back: it is being revoked, or the process stops."""
    leaving: bool = False
    """It is to be another member's."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One request that is to be made now; its answer comes back with it."""

    endpoint: EndpointName
    body: bytes
    ticket: Ticket
    lane: Lane[Delivery] | None = None
    """For a track request: the lane whose first delivery it carries."""
    batch: Batch | None = None
    """For a metadata request: its ids."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a delivery ended; it counts once Kafka has acknowledged it."""

    delivery: Delivery
    ending: Ending
    settled_at_ms: int


class Position(NamedTuple):
    """What is committed for a partition."""

    offset: int
    """Below it every record is settled."""
    ledger_offset: int | None
    """Where in the ledger whoever has the partition next begins to read; None: at its beginning."""


class Gap(NamedTuple):
    """Offsets that Kafka no longer had when they were to be read."""

    from_offset: int
    to_offset: int
    """The first that was there again."""


@dataclass(frozen=True, slots=True)
class Actions:
    """What the shell is to do after a call of the engine."""

    attempts: list[Attempt]
    settlements: list[Settlement]
    wake_at: float | None
    """The monotonic second at which to poll again, if nothing happens before."""
    intake_paused: bool
