"""Makes one record of one Kafka message, whatever the message holds.

In: a message, the writer schemas that the decoder knows. Out: a record. A message that cannot be decoded, is too
large, or makes our own code raise is a record that says so. Only a schema that has to be asked for is raised
(SchemaNeeded).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from flagpost_consumer.adapters.kafka.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.quarantine import defect_detail, fingerprint
from flagpost_consumer.core.records import DecodeFailure, Headers, Record, Undecoded
from flagpost_schemas import DECISION_HEADER, DecodeError, Decoder, Event, SchemaNeeded, UnknownSchema

log = structlog.get_logger(__name__)

STRANGER = "look for what writes to this topic besides Flagpost's publisher and gateway"
"""What to do about bytes that are not an event: our own programs write none."""
MAX_KEY_BYTES_KEPT = 1_024
"""Of a record that is too large: a longer key is left out with the value."""
MAX_DETAIL_CHARACTERS = 300

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A message that waits for a schema, or behind one that does. Its headers can be read only once, so they are kept
    here.
    """

    message: Message
    headers: Headers | DecodeFailure
    size_bytes: int
    schema_id: int | None
    """The unknown schema that it needs."""


_Body: TypeAlias = tuple[bytes | None, bytes | None, int, Event | DecodeFailure, bool]
"""A record without its headers: key, value, timestamp, event, whether it is truncated. A plain tuple, because one is
made for every record.
"""


class MessageReader:
    """Makes records of messages."""

    def __init__(
        self,
        decoder: Decoder,
        max_event_bytes: int,
        on_quarantined: Callable[[], None],
        is_fresh: Callable[[Message], bool] = lambda _: False,
    ) -> None:
        """`is_fresh` returns whether a message that was not held was read as it was written."""
        self.puts_off = False
        """Whether decisions that may be duplicates are returned undecoded."""
        self._decoder = decoder
        self._max_event_bytes = max_event_bytes
        self._on_quarantined = on_quarantined
        self._is_fresh = is_fresh

    def record(self, message: Message) -> Record | Undecoded:
        """The record in a message.

        Raises SchemaNeeded, before it reads the headers, which can be read only once.
        """
        undecoded = self._undecoded(message) if self.puts_off else None
        return self.decode(message) if undecoded is None else undecoded

    def _undecoded(self, message: Message) -> Undecoded | None:
        """A decision in our own schema, without headers; None if anything is unusual."""
        try:
            key, value = message.key(), message.value()
            if value is None or not value.startswith(DECISION_HEADER) or headers_of(message):
                return None
            if self._is_too_large(_size(key) + len(value)):
                return None
        except Exception:  # noqa: BLE001 - whatever it is, `decode` tells
            return None
        # A message that was consumed has a partition and an offset; the types also allow None.
        partition, offset = cast("tuple[int, int]", (message.partition(), message.offset()))
        return Undecoded(partition, offset, key, value, message, self)

    def timestamp_ms(self, message: Message) -> int:
        """When it was produced, epoch ms."""
        return _timestamp_ms(message)

    def is_fresh(self, message: Message) -> bool:
        """Whether it was read as it was written."""
        return self._is_fresh(message)

    def decode(self, message: Message) -> Record:
        """The same, decoded. Raises SchemaNeeded."""
        body = self._body(message)
        return self._join(message, body, self._headers(message), fresh=self._is_fresh(message))

    def held_record(self, held: HeldMessage) -> Record:
        """The record in a held message. Raises SchemaNeeded."""
        return self._join(held.message, self._body(held.message), held.headers, fresh=False)

    def settled_record(self, message: Message) -> Record:
        """The record in a message that the ledger settles as undecodable: nothing is decoded."""
        settled = DecodeFailure(Reason.UNKNOWN_SCHEMA, "settled before")
        return self._join(message, (None, None, 0, settled, False), (), fresh=False)

    def hold(self, message: Message) -> HeldMessage | Record:
        """What to keep of a message that cannot be decoded yet, or must wait for another; for a large one, no
        bytes.
        """
        try:
            key, value = message.key(), message.value()
            size_bytes = _size(key) + _size(value)
            schema_id = None if self._is_too_large(size_bytes) else self._decoder.schema_needed(value)
        except Exception:  # noqa: BLE001 - whatever it is, `record` tells
            return self._record_or_hold(message)
        if self._is_too_large(size_bytes):
            return self.decode(message)
        headers = self._headers(message)
        if not isinstance(headers, DecodeFailure):
            size_bytes += _headers_size(headers)
        return HeldMessage(message, headers, size_bytes, schema_id)

    def _record_or_hold(self, message: Message) -> HeldMessage | Record:
        try:
            return self.decode(message)
        except SchemaNeeded as needed:
            return HeldMessage(message, self._headers(message), 0, needed.schema_id)

    def _join(
        self, message: Message, body: _Body, headers: Headers | DecodeFailure, *, fresh: bool
    ) -> Record:
        key, value, timestamp_ms, event, truncated = body
        if isinstance(headers, DecodeFailure):
            event, headers = headers, ()
        # A message that was consumed has a partition and an offset; the types also allow None.
        partition, offset = cast("tuple[int, int]", (message.partition(), message.offset()))
        return Record(partition, offset, timestamp_ms, key, value, headers, event, fresh, truncated)

    def _body(self, message: Message) -> _Body:
        """Decode a message; one that makes our code raise twice is quarantined."""
        try:
            return self._decoded(message)
        except SchemaNeeded:
            raise
        except Exception:  # noqa: BLE001 - the second time tells
            log.warning(
                "a record made Flagpost raise; it is decoded once more",
                partition=message.partition(),
                offset=message.offset(),
            )
        try:
            return self._decoded(message)
        except SchemaNeeded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the other records go on
            failure = self._quarantine(message, error)
        # Each part is read separately: one of them raises.
        key, value = _part(message.key), _part(message.value)
        timestamp_ms = _part(lambda: _timestamp_ms(message)) or 0
        if self._is_too_large(_size(key) + _size(value)):
            return _kept(key), None, timestamp_ms, failure, True
        return key, value, timestamp_ms, failure, False

    def _decoded(self, message: Message) -> _Body:
        key, value, timestamp_ms = message.key(), message.value(), _timestamp_ms(message)
        size_bytes = len(key or b"") + len(value or b"")
        if size_bytes > self._max_event_bytes:
            return _kept(key), None, timestamp_ms, self._too_large(size_bytes), True
        return key, value, timestamp_ms, self._event(value), False

    def _event(self, value: bytes | None) -> Event | DecodeFailure:
        try:
            return self._decoder.decode(value)
        except SchemaNeeded:
            raise
        except UnknownSchema as error:
            return DecodeFailure(Reason.UNKNOWN_SCHEMA, legible(str(error), MAX_DETAIL_CHARACTERS))
        except DecodeError as error:
            return DecodeFailure(Reason.UNDECODABLE, legible(f"{error}; {STRANGER}", MAX_DETAIL_CHARACTERS))

    def _headers(self, message: Message) -> Headers | DecodeFailure:
        """The headers, or why the record is not an event. Empty if a name is not UTF-8: no event depends on headers.

        Anything else that raises here is quarantined at once: headers cannot be read twice (`message_headers`).
        """
        try:
            headers = headers_of(message)
        except UnreadableHeaders:
            log.warning(
                "a record has a header whose name is not UTF-8; it goes on without headers",
                partition=message.partition(),
                offset=message.offset(),
            )
            return ()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other records go on
            return self._quarantine(message, error)
        if headers and (size_bytes := _headers_size(headers)) > self._max_event_bytes:
            return DecodeFailure(
                Reason.INVALID,
                f"the headers have {size_bytes} bytes, and kafka.max_event_bytes allows {self._max_event_bytes}; "
                "they are left out here: read them at flagpost-source, and look for what writes them",
            )
        return headers

    def _is_too_large(self, size_bytes: int) -> bool:
        return size_bytes > self._max_event_bytes

    def _too_large(self, size_bytes: int) -> DecodeFailure:
        return DecodeFailure(
            Reason.INVALID,
            f"the event has {size_bytes} bytes (key and value), and kafka.max_event_bytes allows "
            f"{self._max_event_bytes}; its value is left out here: read it at flagpost-source, and publish less",
        )

    def _quarantine(self, message: Message, error: Exception) -> DecodeFailure:
        self._on_quarantined()
        log.error(
            "a record makes Flagpost raise: a defect; it becomes a dead letter",
            partition=message.partition(),
            offset=message.offset(),
            fingerprint=fingerprint(error),
        )
        return DecodeFailure(Reason.INVALID, defect_detail(error))


def _timestamp_ms(message: Message) -> int:
    kind, timestamp = message.timestamp()
    return 0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp


def _size(part: bytes | None) -> int:
    return 0 if part is None else len(part)


def _kept(key: bytes | None) -> bytes | None:
    """The part of a too large record's key that is kept."""
    return key if _size(key) <= MAX_KEY_BYTES_KEPT else None


def _headers_size(headers: Headers) -> int:
    return sum(len(name) + _size(value) for name, value in headers)


def _part(read: Callable[[], Part]) -> Part | None:
    """A part of a quarantined message, if it can be read."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - this part may be what makes our code raise
        return None
