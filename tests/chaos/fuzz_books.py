"""The fuzz's own accounts, separate from the consumer's, and the comparison of both.

In: what was published, each settlement, the dead-letter topic, the ledger. Out: what is wrong, one line each.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import cast

from confluent_kafka import Consumer, Message, TopicPartition

from chaos.fuzz_world import EVENTS, PARTITIONS, SCHEMA_IDS
from chaos.mutations import Headers, Mutant
from chaos.understood import complaints
from deadlines import stretched
from flagpost_consumer.adapters.kafka.message_headers import headers_of
from flagpost_consumer.adapters.kafka.message_records import MAX_KEY_BYTES_KEPT
from flagpost_consumer.core.books.deliveries import Settled
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.records import DecodeFailure
from flagpost_consumer.demo.pendo_stand_in import Violation
from flagpost_consumer.service.service import Service
from flagpost_schemas import DecodeError, Decoder, Event, schema_of
from flagpost_schemas.ledger import decode_settlements
from flagpost_settings.kafka import KafkaSettings

READ_SECONDS = 60.0
PREFIX = "flagpost-"

Place = tuple[int, int]
"""Partition and offset."""
Digest = bytes


def digest(key: bytes | None, value: bytes | None, headers: Headers) -> Digest:
    """Identifies a record by its content; records with the same content count as the same."""
    return hashlib.blake2b(repr((key, value, headers)).encode(), digest_size=16).digest()


def as_read(headers: Headers) -> Headers:
    """The headers that the consumer sees: confluent-kafka returns none if the name of one is not UTF-8."""
    return () if any(isinstance(name, bytes) for name, _ in headers) else headers


def as_held(mutant: Mutant) -> tuple[bytes | None, bytes | None]:
    """The key and value that the consumer keeps: of a record that is too large no value, and no large key."""
    key, value = mutant.key, mutant.value
    if len(key or b"") + len(value or b"") <= KafkaSettings().max_event_bytes:
        return key, value
    return (None if len(key or b"") > MAX_KEY_BYTES_KEPT else key), None


def as_kept(headers: Headers) -> Headers:
    """The headers of a record that its dead letter keeps."""
    return tuple(header for header in headers if not str(header[0]).startswith(PREFIX))


def personal_texts(decoded: Event | DecodeFailure) -> list[str]:
    """The ids and values of a record. Flag keys, event names and property names are not personal."""
    if isinstance(decoded, DecodeFailure):
        return []
    event = {each.name: getattr(decoded, each.name) for each in fields(decoded)}
    members = {**event.get("attributes", {}), **event.get("properties", {}), **event.get("values", {})}
    values = [*event.values(), *members.values()]
    named = {event.get("flag_key"), event.get("event"), *members}
    return [value for value in values if isinstance(value, str) and value not in named]


def decoder_of_the_registry() -> Decoder:
    """A decoder that knows the good schemas of the fuzz's registry."""
    decoder = Decoder()
    for event_type, number in SCHEMA_IDS.items():
        decoder.add_schema(number, schema_of(event_type).text)
    return decoder


@dataclass(frozen=True, slots=True)
class Ended:
    """How a delivery ended."""

    kind: Kind
    outcome: Outcome
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter."""

    source: str
    kind: str
    reason: str
    detail: str
    content: Digest
    """The digest of its record's key, value and headers."""


@dataclass(slots=True)
class Seen:
    """Everything that was noted during the run."""

    published: Counter[Digest] = field(default_factory=Counter)
    mutation: dict[Digest, str] = field(default_factory=dict)
    record: dict[Place, Digest] = field(default_factory=dict)
    ended: dict[Place, list[Ended]] = field(default_factory=lambda: defaultdict(list))
    wanted: Counter[Letter] = field(default_factory=Counter)
    """The dead letters that there should be."""
    letters: Counter[Letter] = field(default_factory=Counter)
    """The dead letters on the topic."""
    ledger: Counter[tuple[Place, str, str, str]] = field(default_factory=Counter)
    """The ledger's entries: place, kind, outcome and reason."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Errors, and how often each occurred."""
    decoder: Decoder = field(default_factory=decoder_of_the_registry)

    def settle(self, settled: Settled) -> None:
        """Note a delivery whose settlement Kafka has acknowledged."""
        record, kind, ending, _ = settled
        place = (record.partition, record.offset)
        self.record[place] = digest(record.key, record.value, record.headers)
        self.ended[place].append(Ended(kind, ending.outcome, ending.reason, ending.detail))
        if ending.outcome is Outcome.DEAD_LETTERED:
            self.wanted[_letter_for(settled)] += 1
            self.wrong.update(
                complaints(ending.reason, ending.detail, personal_texts(self._decoded(record.value)))
            )

    def _decoded(self, value: bytes | None) -> Event | DecodeFailure:
        try:
            return self.decoder.decode(value)
        except DecodeError as error:
            return DecodeFailure(Reason.UNDECODABLE, str(error))

    def take_letter(self, message: Message) -> None:
        """Note a record of the dead-letter topic."""
        headers = headers_of(message)
        ours = {name: (value or b"").decode() for name, value in headers if name.startswith(PREFIX)}
        content = digest(message.key(), message.value(), as_kept(headers))
        source, kind, reason, detail = (
            ours[PREFIX + name] for name in ("source", "kind", "reason", "detail")
        )
        self.letters[Letter(source, kind, reason, detail, content)] += 1

    def take_ledger(self, message: Message) -> None:
        """Note a record of the ledger."""
        partition = cast("int", message.partition())
        for entry in decode_settlements(message.value()).entries:
            self.ledger[(partition, entry.offset), entry.kind, entry.outcome, entry.reason] += 1

    def publish(self, mutant: Mutant) -> None:
        """Note a record that is about to be published."""
        identity = digest(*as_held(mutant), as_read(mutant.headers))
        self.published[identity] += 1
        self.mutation.setdefault(identity, mutant.mutation)


def _letter_for(settled: Settled) -> Letter:
    record, kind, ending, _ = settled
    source = f"{EVENTS}/{record.partition}/{record.offset}"
    content = digest(record.key, record.value, as_kept(record.headers))
    return Letter(source, kind.value, ending.reason.value, ending.detail, content)


class TopicReader:
    """Reads a topic while the consumer runs, because the mock cluster keeps only the newest records."""

    def __init__(self, bootstrap_servers: str, topic: str, take: Callable[[Message], None]) -> None:
        self._take = take
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": "reader", "fetch.wait.max.ms": 20}
        )
        self._partitions = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        self._consumer.assign(self._partitions)

    def read(self) -> None:
        """Read to the end of the topic as it is now."""
        ends = {
            p.partition: self._consumer.get_watermark_offsets(p, timeout=stretched(10))[1]
            for p in self._partitions
        }
        deadline = time.monotonic() + stretched(READ_SECONDS)
        while any(p.offset < ends[p.partition] for p in self._positions()):
            assert time.monotonic() < deadline, f"{self._partitions[0].topic} cannot be read to its end"
            for message in self._consumer.consume(500, 0.1):
                assert message.error() is None, message.error()
                self._take(message)

    def close(self) -> None:
        """Close the Kafka client."""
        self._consumer.close()

    def _positions(self) -> list[TopicPartition]:
        return [
            TopicPartition(p.topic, p.partition, max(0, p.offset))
            for p in self._consumer.position(self._partitions)
        ]


def judge(seen: Seen, service: Service, violations: Iterable[Violation], code: int) -> list[str]:
    """Compare the accounts; returns what is wrong, one line each."""
    found = [f"{count} x {text}" for text, count in seen.wrong.items()]
    if code != 0:
        found.append(f"the service ended with exit code {code}")
    settled = Counter(seen.record.values())
    if settled != seen.published:
        lost, strange = (seen.published - settled).total(), (settled - seen.published).total()
        found.append(f"{lost} records were never settled, {strange} were settled that nobody published")
    found += _wrong_with_books(seen, service)
    if seen.wanted != seen.letters:
        lost, strange = (seen.wanted - seen.letters).total(), (seen.letters - seen.wanted).total()
        found.append(f"{lost} dead letters are missing or differ from their record, {strange} are not wanted")
    entries = Counter(
        (place, ended.kind.value, ended.outcome.value, ended.reason.value)
        for place, endings in seen.ended.items()
        for ended in endings
    )
    if entries != seen.ledger:
        lost, strange = (entries - seen.ledger).total(), (seen.ledger - entries).total()
        found.append(f"{lost} settlements are missing in the ledger, {strange} in it are of no delivery")
    found += [f"Pendo's rule {v.rule.value} broken: {v.detail}" for v in violations]
    return found


def _wrong_with_books(seen: Seen, service: Service) -> Iterator[str]:
    accounts = service.engine.accounts
    settled = Counter(ended.kind for endings in seen.ended.values() for ended in endings)
    for kind in Kind:
        if accounts.planned[kind] != settled[kind] + accounts.returned[kind] + accounts.pending[kind]:
            yield f"the books of {kind.value}: {accounts.planned[kind]} planned, {settled[kind]} settled"
        if accounts.pending[kind] or accounts.returned[kind]:
            yield f"of {kind.value}, {accounts.pending[kind]} are pending and {accounts.returned[kind]} returned"
    for place, endings in seen.ended.items():
        if len({ended.kind for ended in endings}) != len(endings):
            yield f"a delivery of {place} was settled twice"
