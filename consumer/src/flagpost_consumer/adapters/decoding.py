"""From Kafka messages to records the engine takes.

In: messages in order. Out: records in the same order; what cannot be decoded is a record that says why. A writer
schema that only the registry knows is fetched once; while the registry does not answer, it and what comes after
it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol, cast

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from flagpost_consumer.adapters.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.plan import DecodeFailure
from flagpost_consumer.core.records import Headers, Record
from flagpost_schemas import DecodeError, Decoder, Event, SchemaNeeded, UnknownSchema

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
STRANGER = "look for what writes to this topic besides Flagpost's publisher and gateway"
"""What to do about bytes that are no event: our own writers write none."""


class SchemaSource(Protocol):
    """Tells the decoder about a schema that it does not know."""

    async def __call__(self, decoder: Decoder, schema_id: int) -> None:
        """Add the schema, or refuse it; returns when one of the two is done."""


async def no_registry(decoder: Decoder, schema_id: int) -> None:
    """The source where no registry is set."""
    decoder.refuse_schema(schema_id, "the record needs a schema registry: set kafka.schema_registry.url")


class Decoding:
    """Decodes what the intake brings and hands it on."""

    def __init__(self, source: SchemaSource, on_records: Callable[[list[Record]], None]) -> None:
        self._decoder = Decoder()
        self._source = source
        self._on_records = on_records
        self._waiting: deque[tuple[list[Message], Callable[[], None]]] = deque()
        self._fetch: asyncio.Task[None] | None = None

    def take(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Decode messages after those that wait; `done` is called once all are handed on."""
        self._waiting.append((messages, done))
        if self._fetch is None:
            self._decode_waiting()

    def discard(self, partitions: Collection[int]) -> None:
        """Forget what waits of partitions that are another member's: it would pass for a later assignment's."""
        self._waiting = deque(
            ([message for message in messages if message.partition() not in partitions], done)
            for messages, done in self._waiting
        )

    def stop(self) -> None:
        """Give up what waits for the registry."""
        if self._fetch is not None:
            self._fetch.cancel()

    def _decode_waiting(self) -> None:
        while self._waiting:
            messages, done = self._waiting[0]
            records: list[Record] = []
            needed = self._decode_some(messages, records)
            self._on_records(records)
            if needed is not None:
                self._waiting[0] = (messages[len(records) :], done)
                self._fetch = asyncio.get_running_loop().create_task(self._learn(needed))
                return
            self._waiting.popleft()
            done()

    def _decode_some(self, messages: list[Message], records: list[Record]) -> int | None:
        """Decode up to the first message whose schema must be fetched; gives that schema's id."""
        for message in messages:
            try:
                records.append(self._decode(message))
            except SchemaNeeded as needed:
                return needed.schema_id
        return None

    def _decode(self, message: Message) -> Record:
        value = message.value()
        try:
            event: Event | DecodeFailure = self._decoder.decode(value)
        except SchemaNeeded:
            raise
        except UnknownSchema as error:
            event = DecodeFailure(Reason.UNKNOWN_SCHEMA, str(error))
        except DecodeError as error:
            event = DecodeFailure(Reason.UNDECODABLE, f"{error}; {STRANGER}")
        kind, timestamp = message.timestamp()
        # What was consumed has a partition and an offset; the types allow for more.
        return Record(
            cast("int", message.partition()),
            cast("int", message.offset()),
            0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
            message.key(),
            value,
            _headers(message),
            event,
        )

    async def _learn(self, schema_id: int) -> None:
        try:
            await self._source(self._decoder, schema_id)
        except Exception:
            log.exception("a schema could not be had; it is asked for again", schema_id=schema_id)
            await asyncio.sleep(RETRY_SECONDS)
        # What is still unknown is asked for again when its record comes to be decoded.
        self._fetch = None
        self._decode_waiting()


def _headers(message: Message) -> Headers:
    """The headers; none where they cannot be read, for what is in them is not what the event says."""
    try:
        return headers_of(message)
    except UnreadableHeaders:
        log.warning(
            "a record has a header whose name is not UTF-8; it goes on without headers",
            partition=message.partition(),
            offset=message.offset(),
        )
        return ()
