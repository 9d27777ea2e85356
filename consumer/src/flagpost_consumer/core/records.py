"""Records of the events topic, as far as the core needs them.

In: nothing. Out: a record as it is read, the part that is kept while its deliveries are pending, and gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.record_weights import event_weight, headers_weight
from flagpost_schemas import AccountMetadata, DecisionEvent, Event, variation_as_sent

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """Takes the place of the event of a record that could not be decoded."""

    reason: Reason
    detail: str


class Record(NamedTuple):
    """One record of the events topic, decoded as far as possible."""

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
        """What is kept of the record while its deliveries are pending."""
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


class Reads(Protocol):
    """Reads the messages of Kafka's client: `adapters.kafka.message_records`."""

    def decode(self, message: Any) -> Record:  # noqa: ANN401 - of Kafka's client, which the core does not know
        """Decode the record in a message, as far as possible."""

    def timestamp_ms(self, message: Any) -> int:  # noqa: ANN401
        """When the record was produced, epoch ms."""

    def is_fresh(self, message: Any) -> bool:  # noqa: ANN401
        """Whether the message was read as it was written."""


class Undecoded(NamedTuple):
    """A record that is decoded only if necessary: a decision in our own schema, without headers."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    message: Any
    reader: Reads

    @property
    def headers(self) -> Headers:
        """Always empty."""
        return ()

    @property
    def timestamp_ms(self) -> int:
        """When it was produced, epoch ms."""
        return self.reader.timestamp_ms(self.message)

    @property
    def fresh(self) -> bool:
        """See `Record.fresh`."""
        return self.reader.is_fresh(self.message)

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in memory."""
        return len(self.key or b"") + len(self.value)

    def decode(self) -> Record:
        """Decode the whole record."""
        return self.reader.decode(self.message)


class EventFacts(NamedTuple):
    """What the ledger and the metrics say of an event besides its delivery; empty if it was not decoded."""

    event_id: str | None = None
    visitor_id: str | None = None
    account_id: str | None = None
    flag_key: str | None = None
    """Of a decision."""
    variation_key: str | None = None
    """Of a decision, as sent."""


class HeldRecord(NamedTuple):
    """A record without its decoded event, which only planning needs. The bytes are kept for a dead letter."""

    partition: int
    offset: int
    timestamp_ms: int
    """When it was produced, epoch ms."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    size_bytes: int
    """Bytes in memory: key, value, headers, and what is kept of the event (`record_weights`)."""
    occurred_at: int | None
    """When the event occurred, epoch ms; None where the record could not be decoded."""
    facts: EventFacts
    truncated: bool = False
    """See `Record.truncated`."""


class Gap(NamedTuple):
    """Offsets that Kafka no longer had when they were to be read."""

    from_offset: int
    to_offset: int
    """The first offset that was there again."""
