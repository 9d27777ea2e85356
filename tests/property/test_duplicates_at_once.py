"""Duplicates that are recognised by their bytes end as decoded ones do: with the same ledger and the same accounts.

Two engines get the same records and the same answers; one of them gets the records undecoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_steps import attempts_at, instant
from engine_world import OK, START_MS, acknowledge, decision, positions, ready
from example_counts import examples
from flagpost_consumer.adapters.ledger.writer import entry_of
from flagpost_consumer.core.books.deliveries import Duplicates, Settlement
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.planning.plan import FieldCatalog
from flagpost_consumer.core.planning.suppressions import Suppression
from flagpost_consumer.core.policy import (
    ConsentSettings,
    DecisionsSettings,
    DedupeSettings,
    MetadataSettings,
    Policy,
    SelectSettings,
)
from flagpost_consumer.core.records import Record, Undecoded
from flagpost_schemas import (
    Context,
    DecisionEvent,
    Decoder,
    LedgerEntry,
    Settlements,
    Source,
    decode_settlements,
    encode_settlements,
    encode_single_object,
    glance,
)

PARTITIONS = (0, 1)
STEPS = 25
SECONDS_A_STEP = 3.0
POLICIES = (
    Policy(decisions=DecisionsSettings(visitor_metadata=False), dedupe=DedupeSettings(ttl_seconds=20.0)),
    Policy(metadata=MetadataSettings(linger_seconds=0.0), dedupe=DedupeSettings(ttl_seconds=20.0)),
    Policy(metadata=MetadataSettings(linger_seconds=0.0), decisions=DecisionsSettings(flags_deny=["f2"])),
    Policy(consent=ConsentSettings(required=True)),
    Policy(select=SelectSettings.model_validate({"services": {"deny": ["shop"]}})),
    Policy(decisions=DecisionsSettings(attribute_properties=["plan"])),
    Policy(dedupe=DedupeSettings(ttl_seconds=0.0)),
)

FIELDS: tuple[FieldCatalog, ...] = ({}, {("visitor", "custom"): {}})
"""The catalog of Pendo's fields: not known, or known to be empty."""


class Reader:
    """Reads messages, each of which is a record that is already decoded."""

    def decode(self, message: Any) -> Record:
        assert isinstance(message, Record)
        return message

    def timestamp_ms(self, message: Any) -> int:
        return self.decode(message).timestamp_ms

    def is_fresh(self, message: Any) -> bool:
        return self.decode(message).fresh


class Side:
    """One engine, and the ledger entries that it made in this step."""

    def __init__(self, policy: Policy, *, decoded: bool) -> None:
        self.decoded = decoded
        self.policy = policy
        self.engine = Engine(policy, Random(1).random)
        self.entries: list[LedgerEntry] = []
        self.at_once = 0
        self._written: list[Settlement] = []
        self._duplicates: list[Duplicates] = []
        ready(self.engine, PARTITIONS, len(PARTITIONS), instant(0.0), policy)

    def receive(self, records: Sequence[Record], seconds: float) -> None:
        reader = Reader()
        given = [
            record
            if self.decoded
            else Undecoded(record.partition, record.offset, record.key, record.value or b"", record, reader)
            for record in records
        ]
        self.engine.receive(given, instant(seconds))

    def go_on(self, seconds: float, *, has_answers: bool) -> None:
        actions = self.engine.poll(instant(seconds))
        self._written += actions.settlements
        self._duplicates += actions.duplicates
        self.entries += read(actions.settlements, actions.duplicates)
        self.at_once += sum(len(each.entries) for each in actions.duplicates)
        for attempt in actions.attempts:
            self.engine.answered(attempt, OK, instant(seconds))
        while has_answers and (attempts := attempts_at(self.engine, seconds)):
            for attempt in attempts:
                self.engine.answered(attempt, OK, instant(seconds))

    def acknowledge(self) -> None:
        for duplicates in self._duplicates:
            self.engine.acknowledged([duplicates], 7)
        acknowledge(self.engine, self._written, 7)
        self._written, self._duplicates = [], []

    def lose(self, number: int, seconds: float) -> None:
        self.engine.forget([number], instant(seconds))
        ready(self.engine, [number], len(PARTITIONS), instant(seconds), self.policy)

    def books(self) -> tuple[object, ...]:
        engine = self.engine
        counts = engine.accounts
        return (
            +counts.planned,
            +counts.settled,
            +counts.returned,
            +counts.pending,
            counts.records,
            counts.redeliveries,
            engine.pending_records,
            engine.oldest_pending_ms(),
            engine.dedupe_counts.entries,
            engine.dedupe_counts.late,
            engine.is_quiet(),
            positions(engine),
        )


def read(settlements: Sequence[Settlement], duplicates: Sequence[Duplicates]) -> list[LedgerEntry]:
    """The entries that a reader of the ledger decodes."""
    record = Settlements(
        group="g", member="m", settled_at=1, entries=[entry_of(each) for each in settlements], gaps=[]
    )
    encoded = [entry for each in duplicates for entry in each.entries]
    return decode_settlements(encode_settlements(record, encoded)).entries


def some_decision(draw: Random, now_ms: int) -> DecisionEvent:
    """A decision out of few, so that many are duplicates; some are unusual."""
    rare = draw.random() < 0.08
    return decision(
        draw.choice(("v", "w", "x", "", "é", "long" * 40)) if rare else draw.choice("vwx"),
        draw.choice(("f", "f", "f2", "")) if rare else draw.choice(("f", "f", "f2")),
        draw.choice(("a", "a", "a", "a", "a", "b", None)),
        event_id="é" * draw.choice((1, 200)) if rare else f"e{draw.randrange(1000)}",
        enabled=draw.random() < 0.9,
        occurred_at=now_ms + draw.choice((0, -1, -5_000, -30_000))
        if not rare
        else draw.choice((-1, 0, now_ms + 10**7, now_ms - 10**9, now_ms)),
        attributes={"plan": "gold"} if rare and draw.random() < 0.3 else {},
        context=Context(ip="1.2.3.4") if rare and draw.random() < 0.3 else None,
        consent={"analytics": draw.random() < 0.5} if rare and draw.random() < 0.3 else None,
        account_id=draw.choice((None, None, "acme", "")),
        source=draw.choice((None, Source(service="shop", environment="live", sdk="python", sdk_version="5"))),
    )


def some_records(draw: Random, seconds: float, offsets: dict[int, int]) -> list[Record]:
    records = []
    for _ in range(draw.choice((1, 3, 20))):
        partition = draw.choice(PARTITIONS)
        event = some_decision(draw, START_MS + int(seconds * 1000))
        offset = offsets[partition] = offsets[partition] + draw.choice((1, 1, 1, 2))
        key = event.visitor_id.encode()
        value = encode_single_object(event)
        records.append(Record(partition, offset, event.occurred_at, key, value, (), event))
    if draw.random() < 0.1:
        records += records[-2:]  # Kafka's client may return the same records again
    return records


def run(seed: int) -> Side:
    draw = Random(seed)
    policy = draw.choice(POLICIES) if draw.random() < 0.5 else POLICIES[draw.randrange(2)]
    quick, thorough = Side(policy, decoded=False), Side(policy, decoded=True)
    offsets = dict.fromkeys(PARTITIONS, 0)
    for step in range(STEPS):
        seconds = 2.0 + step * SECONDS_A_STEP
        records = some_records(draw, seconds, offsets)
        answers, written, lost = (draw.random() < chance for chance in (0.8, 0.7, 0.05))
        suppression = Suppression("w", is_suppressed=draw.random() < 0.3) if draw.random() < 0.05 else None
        fields = draw.choice(FIELDS) if draw.random() < 0.02 else None
        for side in (quick, thorough):
            side.entries.clear()
            if suppression is not None:
                side.engine.suppress([suppression])
            if fields is not None:
                side.engine.know_fields(fields)
            side.receive(records, seconds)
            side.go_on(seconds, has_answers=answers)
            side.go_on(seconds, has_answers=answers)
            if written:
                side.acknowledge()
            if lost:
                side.lose(step % 2, seconds)
        assert sorted(quick.entries, key=repr) == sorted(thorough.entries, key=repr)
        assert quick.books() == thorough.books()
    return quick


@given(seed=st.integers(min_value=0, max_value=2**32))
@settings(max_examples=examples(60))
def test_duplicates_end_the_same_either_way(seed: int) -> None:
    run(seed)


def test_many_of_these_duplicates_are_recognised_by_their_bytes() -> None:
    assert sum(run(seed).at_once for seed in range(10)) > 300


@given(seed=st.integers(min_value=0, max_value=2**32))
def test_the_fields_that_the_quick_reading_finds_are_those_of_the_event(seed: int) -> None:
    draw = Random(seed)
    event = some_decision(draw, START_MS)
    seen = glance(encode_single_object(event))
    if seen is None:
        return
    assert seen.visitor_id[1:].decode() == event.visitor_id
    assert seen.event_id[1:].decode() == event.event_id
    assert seen.occurred_at == event.occurred_at
    assert event.context is None
    assert event.consent is None


@given(seed=st.integers(min_value=0, max_value=2**32))
def test_damaged_bytes_are_not_recognised_or_can_be_decoded(seed: int) -> None:
    """The rest of a value is sound if an equal one was decoded before; the bytes before it must be checked."""
    draw = Random(seed)
    value = bytearray(encode_single_object(some_decision(draw, START_MS)))
    sound = glance(bytes(value))
    if sound is None:
        return
    for _ in range(draw.randrange(1, 3)):
        value[draw.randrange(len(value) - len(sound.rest))] = draw.randrange(256)
    damaged = glance(bytes(value))
    if damaged is not None and damaged.rest == sound.rest:
        event = Decoder().decode(bytes(value))
        assert isinstance(event, DecisionEvent)
        assert damaged.visitor_id[1:].decode() == event.visitor_id
