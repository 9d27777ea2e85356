"""Decodes Kafka messages to records that the engine accepts.

In: messages, each partition's in order. Out: records, each partition's in the same order; a message that cannot be
decoded is a record that says why. A partition whose next record needs an unknown writer schema waits for the
registry, and its later messages are held; other partitions go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf
from typing import NamedTuple, Protocol, cast

import structlog
from confluent_kafka import Message

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.held_records import Held, HeldRecords
from flagpost_consumer.adapters.kafka.message_records import HeldMessage, MessageReader
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.quarantine import defect_detail
from flagpost_consumer.core.planning.schema_lookups import (
    Found,
    NoAnswer,
    Refused,
    RegistryWait,
    SchemaAnswer,
    SchemaLookups,
    Unknown,
)
from flagpost_consumer.core.records import Record, Undecoded
from flagpost_schemas import Decoder, SchemaNeeded
from flagpost_schemas.edge_rules import DEFAULT_MAX_EVENT_BYTES

log = structlog.get_logger(__name__)

RELEASED_AT_ONCE = 250
"""Held records of a partition that are handed on before the loop does other work."""
LOG_SECONDS = 1.0
"""The least time between two log lines about the registry."""
MAX_REASON_CHARACTERS = 200
PART_BYTES = 131_072
"""Messages are decoded in parts of about this many bytes, each only while there is room for the result: one byte may
become a hundred.
"""
PART_RECORDS = 64
"""The most records of a part: about a millisecond, for which arriving answers have to wait."""
FULL_SECONDS = 0.1
"""How often to check again whether there is room for what is held."""
HEADER_BYTES = 64
"""The bytes that each header counts besides its contents."""


class SchemaRequests(Protocol):
    """Asks the registry, and calls back later: `schema_source.RegistryRequests`."""

    def ask(self, schema_id: int, on_answer: Callable[[int, SchemaAnswer], None]) -> None:
        """Ask for a schema; `on_answer` is called once, later."""

    def wake_after(self, seconds: float | None, action: Callable[[], None]) -> None:
        """Call `action` after this many seconds instead of what was to be called before; None: call nothing."""

    def stop(self) -> None:
        """Give up the requests in flight."""


class _TakenIn(NamedTuple):
    """Marks that all messages of an earlier hand-over have been taken in: their room is free."""

    done: Callable[[], None]


class _InTurn(NamedTuple):
    """What to do once the messages of a partition before it are handed on."""

    partition: int
    action: Callable[[], None]


class Decoding:
    """Decodes the intake's messages and hands them on."""

    def __init__(  # noqa: PLR0913 - limits and listeners, each by its name
        self,
        requests: SchemaRequests | None,
        on_records: Callable[[list[Record | Undecoded]], None],
        *,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        unknown_seconds: float = 60.0,
        on_change: Callable[[], None] = lambda: None,
        on_quarantined: Callable[[], None] = lambda: None,
        is_full: Callable[[], bool] = lambda: False,
        is_wanted: Callable[[Instant], bool] = lambda _: True,
        is_fresh: Callable[[Message], bool] = lambda _: False,
        is_settled: Callable[[int, int], bool] = lambda _, __: False,
        now: Callable[[], Instant] = clock,
        puts_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """Build it.

        Args:
            requests: asks the registry; None: there is no registry.
            on_records: takes records.
            max_event_bytes: limit of key and value together, and of the headers; larger ones are dead-lettered.
            unknown_seconds: how long to ask again for an id that the registry refuses.
            on_change: called when partitions begin or cease to wait, or hold too much, and when more can be decoded
            at once: then call `go_on`.
            on_quarantined: called for each record for which our code raised twice.
            is_full: whether there is no room for more records: messages are kept as they are until `go_on`.
            is_wanted: whether records are wanted now; else they wait until `go_on`, which the caller must call.
            is_fresh: whether a message was read as it was written.
            is_settled: whether the ledger settles the record at a partition's offset as undecodable. Its schema is
            not waited for again: otherwise each hand-over would stop its partition again.
            now: the time.
            puts_off: asked before each part: whether decisions that may be duplicates are handed on undecoded.
        """
        self._requests = requests
        self._on_records = on_records
        self._on_change = on_change
        self._is_full = is_full
        self._is_wanted = is_wanted
        self._puts_off = puts_off
        self._is_settled = is_settled
        self._now = now
        self._unread: deque[Message | _InTurn | _TakenIn] = deque()
        """Messages whose turn has not come, or for which there was no room, and what to do between them."""
        self._untold = 0
        """Hand-overs among them whose `done` has not been called yet."""
        self._decoder = Decoder()
        self._reader = MessageReader(self._decoder, max_event_bytes, on_quarantined, is_fresh)
        self._lookups = SchemaLookups(unknown_seconds)
        self._held = HeldRecords()
        self._releasable: dict[int, None] = {}
        """Partitions whose first held record may be decoded now."""
        self._logged_at = -inf

    def take(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Decode messages, or hold those of waiting partitions; what exceeds a part waits for `go_on`.

        `done` is called once they are taken in, or if there is no room for them: then nothing more should be read.
        """
        for schema_id in self._lookups.forgotten(self._now()):
            self._decoder.forget_schema(schema_id)
        self._unread.extend(messages)
        self._unread.append(_TakenIn(done))
        self._untold += 1
        self.go_on()

    def go_on(self) -> None:
        """Decode a part of what waits, if it is wanted and there is room for it."""
        takes = bool(self._unread) and not self._is_full() and self._is_wanted(self._now())
        if takes and self._take_part():
            self._step()
        if not self._unread:
            return
        if self._is_full():
            self.wait()
        elif takes:
            self._on_change()

    def wait(self) -> None:
        """Decode nothing for now, but do not make the reader wait for it."""
        if not self._untold:
            return
        self._untold = 0
        for each in self._unread:
            if isinstance(each, _TakenIn):
                each.done()
        self._unread = deque(each for each in self._unread if not isinstance(each, _TakenIn))

    @property
    def is_behind(self) -> bool:
        """Whether messages wait to be decoded."""
        return bool(self._unread)

    def in_turn(self, partition: int, action: Callable[[], None]) -> None:
        """Do something once everything that came of a partition is handed on; never, if the partition is taken away
        before.
        """
        if self._unread:
            self._unread.append(_InTurn(partition, action))
        else:
            self._do_in_turn(partition, action)

    def _do_in_turn(self, partition: int, action: Callable[[], None]) -> None:
        if partition in self._held.partitions:
            self._held.append(partition, action)
        else:
            action()

    def discard(self, partitions: Collection[int]) -> None:
        """Drop what is held of partitions that belong to another member: it could be taken for a later
        assignment's.
        """
        if self._unread:
            gone = frozenset(partitions)
            self._unread = deque(each for each in self._unread if _partition_of(each) not in gone)
        for partition in partitions:
            self._releasable.pop(partition, None)
            self._lookups.go_on(partition)
            for held in self._held.drop(partition):
                self._let_go(held)
        self._step()

    def stop(self) -> None:
        """Ask the registry for nothing more."""
        if self._requests is not None:
            self._requests.stop()

    @property
    def waiting_partitions(self) -> frozenset[int]:
        """The partitions that wait for the registry."""
        return self._lookups.waiting_partitions

    @property
    def full_partitions(self) -> frozenset[int]:
        """Partitions that hold so much that their intake must pause (`held_records`)."""
        return self._held.full_partitions

    def waits(self) -> list[RegistryWait]:
        """Who waits, for what, since when, and what the registry said last."""
        return self._lookups.waits()

    # Holding

    def _take_part(self) -> bool:
        """Decode some of what waits and hand it on; returns whether a message was held."""
        ready: list[Record | Undecoded] = []
        any_held, size, count = False, 0, 0
        self._reader.puts_off = self._puts_off()
        while self._unread and size < PART_BYTES and count < PART_RECORDS:
            each = self._unread.popleft()
            if isinstance(each, _TakenIn | _InTurn):
                self._on_records(ready)
                ready = []
                self._do(each)
            elif (record := self._record(each)) is not None:
                ready.append(record)
                count += 1
                size += len(record.key or b"") + len(record.value or b"") + HEADER_BYTES * len(record.headers)
            else:
                any_held = True
        self._on_records(ready)
        return any_held

    def _do(self, each: _TakenIn | _InTurn) -> None:
        if isinstance(each, _TakenIn):
            self._untold -= 1
            each.done()
        else:
            self._do_in_turn(each.partition, each.action)

    def _record(self, message: Message) -> Record | Undecoded | None:
        """The record in a message; None: it is held."""
        partition = cast("int", message.partition())
        if partition in self._held.partitions:
            self._hold(partition, message)
            return None
        try:
            return self._reader.record(message)
        except SchemaNeeded as needed:
            if self._is_settled(partition, cast("int", message.offset())):
                return self._reader.settled_record(message)
            if self._requests is None:
                self._decoder.refuse_schema(
                    needed.schema_id, "the record needs a schema registry: set kafka.schema_registry.url"
                )
                return self._reader.decode(message)
        self._hold(partition, message)
        self._releasable[partition] = None
        return None

    def _hold(self, partition: int, message: Message) -> None:
        held = self._reader.hold(message)
        self._held.append(partition, held)
        if isinstance(held, HeldMessage) and held.schema_id is not None:
            self._lookups.hold(held.schema_id)

    def _let_go(self, held: Held) -> None:
        if isinstance(held, HeldMessage) and held.schema_id is not None:
            self._lookups.let_go(held.schema_id)

    def _release(self, partition: int) -> None:
        """Hand on what a partition holds, up to a limit, or to the first record whose schema is unknown."""
        records: list[Record | Undecoded] = []
        for _ in range(RELEASED_AT_ONCE):
            held = self._held.first(partition)
            if held is None:
                break
            if not isinstance(held, HeldMessage | Record):
                self._on_records(records)
                records = []
                self._held.pop(partition)
                held()
                continue
            try:
                records.append(held if isinstance(held, Record) else self._reader.held_record(held))
            except SchemaNeeded as needed:
                message = cast("HeldMessage", held).message
                if not self._is_settled(partition, cast("int", message.offset())):
                    self._wait(partition, held, needed.schema_id)
                    break
                records.append(self._reader.settled_record(message))
            self._held.pop(partition)
            self._let_go(held)
        if partition not in self._held.partitions:
            self._releasable.pop(partition, None)
        elif partition in self._releasable:  # other partitions have their turn first
            self._releasable[partition] = self._releasable.pop(partition)
        self._on_records(records)

    def _wait(self, partition: int, held: Held, schema_id: int) -> None:
        if isinstance(held, HeldMessage) and held.schema_id is None:  # its schema was known when it arrived
            self._lookups.hold(schema_id)
            self._held.replace_first(partition, replace(held, schema_id=schema_id))
        self._lookups.wait(partition, schema_id, self._now())
        self._releasable.pop(partition)

    # The registry

    def _step(self) -> None:
        """Do all that can be done now, and set the time of the next call."""
        if self._releasable and not self._is_full():
            self._release(next(iter(self._releasable)))
        now = self._now()
        if self._requests is None:
            return
        while (schema_id := self._lookups.next(now)) is not None:
            self._requests.ask(schema_id, self._answered)
        wake_at = self._lookups.wake_at()
        if self._releasable:
            wake_at = now.monotonic + (FULL_SECONDS if self._is_full() else 0.0)
        seconds = None if wake_at is None else max(0.0, wake_at - now.monotonic)
        self._requests.wake_after(seconds, self._step)
        self._on_change()

    def _answered(self, schema_id: int, answer: SchemaAnswer) -> None:
        now = self._now()
        outcome = self._lookups.answered(schema_id, answer, now)
        self._tell(schema_id, answer, outcome, now)
        if isinstance(outcome, Found):
            self._learn(schema_id, outcome.text, now)
        elif isinstance(outcome, Unknown):
            self._decoder.refuse_schema(schema_id, outcome.why)
        if outcome is not None:
            for partition in self._lookups.waiting_for(schema_id):
                self._lookups.go_on(partition)
                self._releasable[partition] = None
        self._step()

    def _learn(self, schema_id: int, text: str, now: Instant) -> None:
        try:
            is_readable = self._decoder.add_schema(schema_id, text)
        except Exception as error:  # noqa: BLE001 - whatever a schema makes of us, its partition goes on
            self._decoder.refuse_schema(schema_id, defect_detail(error))
            is_readable = False
        if not is_readable:
            self._lookups.refuse(schema_id, now)

    def _tell(
        self, schema_id: int, answer: SchemaAnswer, outcome: Found | Unknown | None, now: Instant
    ) -> None:
        """Log what is waited for, at a limited rate: hostile records can name many ids."""
        if isinstance(answer, Found) or now.monotonic < self._logged_at + LOG_SECONDS:
            return
        self._logged_at = now.monotonic
        reason = legible(answer.why, MAX_REASON_CHARACTERS)
        waiting = sorted(self.waiting_partitions)
        if isinstance(outcome, Unknown):
            log.warning(
                "a schema is unknown; its records become dead letters", schema_id=schema_id, reason=reason
            )
        elif isinstance(answer, Refused):
            log.warning(
                "the schema registry refuses a schema; it is asked again", schema_id=schema_id, reason=reason
            )
        elif isinstance(answer, NoAnswer):
            log.warning(
                "waiting for the schema registry", schema_id=schema_id, reason=reason, partitions=waiting
            )


def _partition_of(each: Message | _InTurn | _TakenIn) -> int | None:
    if isinstance(each, _TakenIn):
        return None
    return each.partition if isinstance(each, _InTurn) else each.partition()
