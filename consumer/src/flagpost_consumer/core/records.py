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
from flagpost_consumer.core.metadata_items import Item
from flagpost_consumer.core.metadata_retries import Batch
from flagpost_consumer.core.offsets import Offsets
from flagpost_consumer.core.outcomes import Ending, Kind
from flagpost_consumer.core.plan import DecodeFailure, Planned
from flagpost_consumer.core.record_weights import event_weight, headers_weight
from flagpost_consumer.core.settled_before import SettledBefore
from flagpost_consumer.core.visitor_names import name_of_lane
from flagpost_schemas import AccountMetadata, DecisionEvent, Event, variation_as_sent

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
    fresh: bool = False
    """Whether it was appended while we waited at the end of its partition: its timestamp is about the time now."""
    truncated: bool = False
    """Whether the value was left out because the event is too large: only its place in Kafka is known."""

    def held(self) -> HeldRecord:
        """What is kept of it while its deliveries are pending."""
        size = len(self.key or b"") + len(self.value or b"")
        event = self.event
        if not isinstance(event, DecodeFailure):
            size += event_weight(event, size)
        if self.headers:
            size += headers_weight(self.headers)
        if isinstance(event, DecodeFailure):
            return HeldRecord(*self[:6], size, None, EventFacts(), self.truncated)
        flag_key = variation_key = None
        if isinstance(event, DecisionEvent):
            flag_key, variation_key = event.flag_key, variation_as_sent(event)
        visitor_id = None if isinstance(event, AccountMetadata) else event.visitor_id
        facts = EventFacts(event.event_id, visitor_id, event.account_id, flag_key, variation_key)
        return HeldRecord(*self[:6], size, event.occurred_at, facts)


class EventFacts(NamedTuple):
    """What the ledger and the metrics tell of an event besides its delivery; nothing where it was not decoded."""

    event_id: str | None = None
    visitor_id: str | None = None
    account_id: str | None = None
    flag_key: str | None = None
    """Of a decision."""
    variation_key: str | None = None
    """Of a decision, as sent."""


class HeldRecord(NamedTuple):
    """A record without its decoded event, which planning alone needs. The bytes are for a dead letter."""

    partition: int
    offset: int
    timestamp_ms: int
    """When it was produced, epoch ms."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    size_bytes: int
    """What it holds in memory: key, value, headers, and what is kept of the event (`record_weights`)."""
    occurred_at: int | None
    """When the event occurred, epoch ms; None where the record could not be decoded."""
    facts: EventFacts
    truncated: bool = False
    """As the record's."""


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

    record: HeldRecord
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
    refused_at_ticket: int | None = None
    """How many requests had started when it first met an answer that says that something is set up wrongly."""
    item: Item[Delivery] | None = None
    who: str = field(init=False)
    """The visitor or account that it tells something of; a long id of a visitor by its digest."""

    def __post_init__(self) -> None:
        """It is asked for several times."""
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
        """What its record holds in memory."""
        return self.record.size_bytes

    @property
    def is_held(self) -> bool:
        """Whether nothing of its partition may be sent."""
        return self.partition.held

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
    topic_id: str | None = None
    """Kafka's id of the topic that it is a partition of, where it is known."""
    settled_before: SettledBefore = field(default_factory=SettledBefore)
    window: LedgerWindow = field(default_factory=LedgerWindow)
    offsets: Offsets[list[Delivery]] = field(default_factory=Offsets)
    busy: int = 0
    """Deliveries in flight, or settled and not acknowledged."""
    unwritten: int = 0
    """Deliveries that are settled and not acknowledged."""
    held: bool = False
    """Nothing of it is sent: Kafka does not take its settlements (`Unacknowledged`)."""
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


class Settlement(NamedTuple):
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
    settles_from: int = 0
    """Ledger records below this offset settle nothing: the log has gone back since they were written."""


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
    """Nothing is to be read."""
    partitions_paused: frozenset[int] = frozenset()
    """Of these nothing is to be read, although of others it may be."""
