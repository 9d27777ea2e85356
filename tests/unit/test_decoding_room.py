"""Messages for which there is no room wait undecoded and in order, so they take only the memory of their bytes.

Before the fix, a batch was decoded whole, and so were the batches behind it that had already been handed over: 8 MiB
of records with many fields became 500 MB before intake paused.
"""

from __future__ import annotations

import pytest

from engine_steps import decoded_into, engine_with, instant
from engine_world import START_MS, decision
from flagpost_consumer.adapters.kafka.decoding import FULL_SECONDS, HEADER_BYTES, PART_BYTES, PART_RECORDS
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.planning.schema_lookups import Found
from flagpost_consumer.core.policy import DeliverySettings, Policy
from flagpost_consumer.core.record_weights import MAX_METADATA_FIELDS
from flagpost_consumer.core.records import Record, Undecoded
from flagpost_schemas import (
    DecisionEvent,
    MetadataValue,
    VisitorMetadata,
    encode_confluent,
    encode_single_object,
    schema_of,
)
from registry_world import FakeMessage, RegistryWorld, messages

GOOD = encode_single_object(decision("v"))
LARGE = encode_single_object(decision("v" * 25_000))
PART = -(-PART_BYTES // (len(LARGE) + 1))
"""How many messages of `LARGE` make a part."""


class Room:
    """The number of records for which there is room."""

    def __init__(self, records: float) -> None:
        self.records = records


def world_with(room: Room, answer: Found | None = None) -> RegistryWorld:
    world: RegistryWorld = RegistryWorld(
        lambda _id, _now: answer, is_full=lambda: len(world.taken) >= room.records
    )
    return world


def test_messages_wait_while_there_is_no_room() -> None:
    room = Room(0)
    world = world_with(room)
    world.take(*messages(GOOD, GOOD))
    world.take(*messages(GOOD, first=2))
    assert world.decoding.is_behind
    assert world.offsets(0) == []
    world.decoding.go_on()
    assert world.offsets(0) == [], "there is no room yet"
    room.records = 1
    world.decoding.go_on()
    assert world.offsets(0) == [0, 1, 2]
    assert not world.decoding.is_behind


def test_no_more_than_a_part_is_decoded_at_once() -> None:
    room = Room(1)
    world = world_with(room)
    world.take(*messages(*[LARGE] * 4 * PART))
    assert world.offsets(0) == list(range(PART))
    room.records = PART + 1
    world.decoding.go_on()
    assert world.offsets(0) == list(range(2 * PART))
    room.records = 1_000
    world.decoding.go_on()
    assert world.offsets(0) == list(range(3 * PART))
    world.decoding.go_on()
    assert world.offsets(0) == list(range(4 * PART))


def test_a_part_has_no_more_records_than_answers_may_wait_for() -> None:
    world = RegistryWorld()
    done: list[int] = []
    world.decoding.take(messages(*[GOOD] * (PART_RECORDS + 2)), lambda: done.append(len(world.taken)))
    assert len(world.taken) == PART_RECORDS
    assert world.changes == 1, "it says that there is more"
    assert done == []
    world.decoding.go_on()
    assert done == [PART_RECORDS + 2]
    assert world.changes == 1, "there is nothing more"


def test_the_reader_is_not_kept_waiting_for_room_or_during_a_pause() -> None:
    room = Room(0)
    world = world_with(room)
    done: list[str] = []
    world.decoding.take(messages(GOOD), lambda: done.append("full"))
    assert done == ["full"]
    room.records = 1_000
    world.decoding.take(messages(*[GOOD] * 3 * PART_RECORDS, first=1), lambda: done.append("paused"))
    assert done == ["full"]
    world.decoding.wait()
    assert done == ["full", "paused"]
    while world.decoding.is_behind:
        world.decoding.go_on()
    assert done == ["full", "paused"], "each is told once"
    assert world.offsets(0) == list(range(3 * PART_RECORDS + 1))


def test_messages_wait_until_they_are_wanted() -> None:
    wanted: list[bool] = []
    world = RegistryWorld(is_wanted=lambda _: bool(wanted))
    done: list[int] = []
    world.decoding.take(messages(GOOD, GOOD), lambda: done.append(len(world.taken)))
    world.decoding.go_on()
    assert (world.offsets(0), done) == ([], [])
    assert world.decoding.is_behind
    assert world.changes == 0, "nobody is to come again at once"
    wanted.append(True)
    world.decoding.go_on()
    assert (world.offsets(0), done) == ([0, 1], [2])


def test_headers_count_by_their_number() -> None:
    """A small header takes `HEADER_BYTES` of memory, many times its own length."""
    world = world_with(Room(1))
    headers = [("h", b"")] * (PART_BYTES // HEADER_BYTES)
    with_headers = [FakeMessage(GOOD, offset).with_headers(headers) for offset in range(3)]
    world.take(*with_headers)  # type: ignore[arg-type]
    assert world.offsets(0) == [0]


def test_a_call_in_turn_waits_for_the_messages_before_it() -> None:
    room = Room(0)
    world = world_with(room)
    world.take(*messages(GOOD, GOOD))
    done: list[int] = []
    world.decoding.in_turn(0, lambda: done.append(len(world.taken)))
    world.take(*messages(GOOD, first=2))
    assert done == []
    room.records = 9
    world.decoding.go_on()
    assert done == [2]
    assert world.offsets(0) == [0, 1, 2]


def test_messages_of_a_partition_that_is_taken_away_are_forgotten() -> None:
    room = Room(0)
    world = world_with(room)
    world.take(*messages(GOOD), *messages(GOOD, partition=1))
    done: list[str] = []
    world.decoding.in_turn(0, lambda: done.append("of the one taken away"))
    world.decoding.in_turn(1, lambda: done.append("of the one that stays"))
    world.decoding.discard([0])
    room.records = 9
    world.decoding.go_on()
    assert world.offsets(0) == []
    assert world.offsets(1) == [0]
    assert done == ["of the one that stays"]


@pytest.mark.parametrize("behind", [1, 3])
def test_messages_that_waited_for_the_registry_wait_for_room_too(behind: int) -> None:
    room = Room(9)
    world = world_with(room, Found(schema_of(DecisionEvent).text))
    world.take(*messages(encode_confluent(decision("v"), 7), *[GOOD] * behind))
    room.records = 0
    world.run(5.0)
    assert world.offsets(0) == []
    room.records = 9
    world.run(5.0 + 2 * FULL_SECONDS)
    assert world.offsets(0) == list(range(behind + 1))


def test_an_engine_takes_in_no_more_than_a_part_beyond_its_limit() -> None:
    """Before the fix, 2 MiB of records with a thousand fields of six bytes each took 150 MB, whatever the limit."""
    most = 1_000_000
    engine = engine_with(Policy(delivery=DeliverySettings(max_pending_bytes=most)))
    fields: dict[str, MetadataValue] = {f"{number:x}": True for number in range(MAX_METADATA_FIELDS)}
    event = VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values=fields)
    value = encode_single_object(event)
    world = RegistryWorld(is_full=lambda: engine.is_full)
    given = _give_to(engine, world)
    for batch in range(8):
        world.take(*messages(*[value] * 40, first=40 * batch))
    assert engine.is_full
    of_a_part = -(-PART_BYTES // len(value)) * engine.pending_bytes // len(given)
    assert engine.pending_bytes <= most + of_a_part
    assert len(given) < 40, "not even the first batch is decoded whole"


def _give_to(engine: Engine, world: RegistryWorld) -> list[Record]:
    given: list[Record] = []

    def give(records: list[Record | Undecoded]) -> None:
        decoded_into(given)(records)
        engine.receive(records, instant(1.0))

    world.decoding._on_records = give
    return given
