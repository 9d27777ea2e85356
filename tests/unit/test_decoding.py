"""From messages to records: order, failures with their reasons, and a registry that is waited for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from confluent_kafka import Message

from flagpost_consumer.adapters import schema_source
from flagpost_consumer.adapters.decoding import Decoding, no_registry
from flagpost_consumer.adapters.schema_registry import (
    RegistryNotAnswering,
    SchemaDoesNotExist,
    SchemaRegistry,
)
from flagpost_consumer.adapters.schema_source import RegistrySchemas
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.plan import DecodeFailure
from flagpost_consumer.core.records import Record
from flagpost_schemas import DecisionEvent, Decoder, encode_confluent, encode_single_object, schema_of
from simulation import decision


class Fake:
    """A message as the consumer gives it."""

    def __init__(self, value: bytes | None, offset: int, partition: int = 0) -> None:
        self._value, self._offset, self._partition = value, offset, partition

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return self._partition

    def key(self) -> bytes:
        return b"v"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("trace", b"x")]

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_800_000_000_000


def messages(*values: bytes | None, partition: int = 0) -> list[Message]:
    return cast("list[Message]", [Fake(value, offset, partition) for offset, value in enumerate(values)])


EVENT = decision("v")


class Registry:
    """Answers for id 7 after some time; knows no other."""

    def __init__(self, silent_for: int) -> None:
        self.silent_for = silent_for
        self.asked: list[int] = []

    async def fetch(self, schema_id: int) -> str:
        self.asked.append(schema_id)
        if len(self.asked) <= self.silent_for:
            raise RegistryNotAnswering("no answer")
        if schema_id != 7:
            raise SchemaDoesNotExist("there is no such id")
        return schema_of(DecisionEvent).text


def test_what_cannot_be_decoded_keeps_its_place_and_says_why() -> None:
    taken: list[Record] = []
    done: list[bool] = []
    decoding = Decoding(no_registry, taken.extend)
    good = encode_single_object(EVENT)
    decoding.take(
        messages(good, None, good[:-1], b"", b"\xc3\x01" + b"?" * 8, good), lambda: done.append(True)
    )
    assert [record.offset for record in taken] == [0, 1, 2, 3, 4, 5]
    assert taken[0].event == taken[5].event == EVENT
    failures = [record.event for record in taken[1:5]]
    assert all(isinstance(failure, DecodeFailure) for failure in failures)
    assert [cast("DecodeFailure", failure).reason for failure in failures] == [
        Reason.UNDECODABLE,
        Reason.UNDECODABLE,
        Reason.UNDECODABLE,
        Reason.UNKNOWN_SCHEMA,
    ]
    assert all(
        "look for what writes to this topic" in detail or "upgrade Flagpost" in detail
        for detail in (cast("DecodeFailure", failure).detail for failure in failures)
    )
    assert done == [True]


async def test_without_a_registry_confluents_format_is_an_unknown_schema() -> None:
    taken: list[Record] = []
    decoding = Decoding(no_registry, taken.extend)
    ended = asyncio.Event()
    decoding.take(messages(encode_confluent(EVENT, 7)), ended.set)
    await asyncio.wait_for(ended.wait(), 5)
    failure = cast("DecodeFailure", taken[0].event)
    assert failure.reason is Reason.UNKNOWN_SCHEMA
    assert "kafka.schema_registry.url" in failure.detail


async def test_a_registry_that_is_down_is_waited_for_and_asked_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(schema_source, "FIRST_WAIT_SECONDS", 0.01)
    registry, taken = Registry(silent_for=3), list[Record]()
    decoding = Decoding(RegistrySchemas(cast("SchemaRegistry", registry)), taken.extend)
    first, second = asyncio.Event(), asyncio.Event()
    known, unknown = encode_confluent(EVENT, 7), encode_confluent(EVENT, 8)
    decoding.take(messages(encode_single_object(EVENT), known, unknown, known), first.set)
    decoding.take(messages(known, partition=1), second.set)
    assert len(taken) == 1, "what comes before goes on"
    await asyncio.wait_for(first.wait(), 5)
    await asyncio.wait_for(second.wait(), 5)
    assert [(record.partition, record.offset) for record in taken] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert cast("DecodeFailure", taken[2].event).reason is Reason.UNKNOWN_SCHEMA
    assert [record.event for record in taken if record.offset != 2] == [EVENT] * 4
    assert registry.asked == [7, 7, 7, 7, 8]


async def test_what_waits_of_a_partition_that_is_taken_away_is_forgotten() -> None:
    go = asyncio.Event()

    async def source(decoder: Decoder, schema_id: int) -> None:
        await go.wait()
        decoder.add_schema(schema_id, schema_of(DecisionEvent).text)

    taken: list[Record] = []
    decoding = Decoding(source, taken.extend)
    ended = asyncio.Event()
    known = encode_confluent(EVENT, 7)
    decoding.take(messages(known, known), lambda: None)
    decoding.take(messages(known, partition=1), ended.set)
    decoding.discard([0])
    go.set()
    await asyncio.wait_for(ended.wait(), 5)
    assert [(record.partition, record.offset) for record in taken] == [(1, 0)]


class WithUnreadableHeaders(Fake):
    """As confluent-kafka gives a record whose header's name is not UTF-8."""

    def headers(self) -> list[tuple[str, bytes]]:
        return [(b"\xff".decode(), b"x")]


def test_a_headers_name_that_is_not_utf8_stops_neither_its_record_nor_those_behind_it() -> None:
    taken: list[Record] = []
    done: list[bool] = []
    decoding = Decoding(no_registry, taken.extend)
    first = cast("Message", WithUnreadableHeaders(encode_single_object(EVENT), 0))

    decoding.take([first, *messages(encode_single_object(EVENT))], lambda: done.append(True))

    assert [(record.event, record.headers) for record in taken] == [(EVENT, ()), (EVENT, (("trace", b"x"),))]
    assert done == [True]
