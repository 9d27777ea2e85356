"""Which records are about a visitor, and which part of a partition can be deleted."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Message

from engine_world import START_MS, decision
from flagpost_consumer.commands.privacy.holdings import _OlderEnd
from flagpost_consumer.commands.privacy.traces import traces_of
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.commands.topics.rules import Role, TopicSpec
from flagpost_consumer.core.planning.ledger_ids import PLAIN, LedgerIds
from flagpost_consumer.settings import SchemaRegistrySettings
from flagpost_schemas import (
    AccountMetadata,
    LedgerEntry,
    Settlements,
    TrackEvent,
    encode_settlements,
    encode_single_object,
)

VALUES = Values(SchemaRegistrySettings())


class Put:
    """A message, with the parts that are read."""

    def __init__(self, key: bytes | None, value: bytes | None, partition: int = 0, offset: int = 0) -> None:
        self._parts = key, value, partition, offset

    def key(self) -> bytes | None:
        return self._parts[0]

    def value(self) -> bytes | None:
        return self._parts[1]

    def partition(self) -> int:
        return self._parts[2]

    def offset(self) -> int:
        return self._parts[3]


def count(role: Role, key: bytes | None, value: bytes | None, ids: LedgerIds = PLAIN, who: str = "v1") -> int:
    return traces_of(who, VALUES, ids)[role](cast("Message", Put(key, value)))


TRACK = TrackEvent(event_id="1", occurred_at=START_MS, visitor_id="v1", anonymous_id="anon", event="e")


@pytest.mark.parametrize(
    ("who", "key", "value", "found"),
    [
        ("v1", b"v1", encode_single_object(decision("v1")), 1),
        ("v1", None, encode_single_object(decision("v1")), 1),
        ("v1", b"v1", b"damaged", 1),
        ("v1", b"v1", None, 1),
        ("v1", b"other", b"v1 damaged", 0),
        ("v1", b"v10", encode_single_object(decision("v10")), 0),
        ("anon", b"v1", encode_single_object(TRACK), 1),
        ("_PENDO_T_anon", b"v1", encode_single_object(TRACK), 1),
        ("_PENDO_T_anon", b"anon", b"damaged", 1),
        (
            "v1",
            b"v1x",
            encode_single_object(
                AccountMetadata(event_id="2", occurred_at=START_MS, account_id="v1", values={"a": "b"})
            ),
            0,
        ),
    ],
)
def test_an_event_belongs_to_the_visitor_of_its_key_or_of_its_contents(
    who: str, key: bytes | None, value: bytes | None, found: int
) -> None:
    assert count(Role.EVENTS, key, value, who=who) == found
    assert count(Role.DEAD_LETTERS, key, value, who=who) == found


def test_settlements_with_plain_and_keyed_ids_are_counted_one_by_one() -> None:
    ids = LedgerIds(b"k" * 32)
    names = ["v1", "v2", ids.of("v1"), "v1"]
    entries = [
        LedgerEntry(offset=n, kind="track", outcome="delivered", reason="ok", visitor_id=name)
        for n, name in enumerate(names)
    ]
    value = encode_settlements(
        Settlements(group="g", member="m", settled_at=START_MS, entries=entries, gaps=[])
    )
    assert count(Role.LEDGER, None, value, ids) == 3
    assert count(Role.LEDGER, None, value) == 2
    assert count(Role.LEDGER, None, value, who="v3") == 0
    assert count(Role.LEDGER, None, b"v1") == 0


def test_a_settlement_belongs_to_an_anonymous_visitor_by_either_name() -> None:
    ids = LedgerIds(b"k" * 32)
    names = ["anon", "_PENDO_T_anon", ids.of("_PENDO_T_anon"), "_PENDO_T_other"]
    entries = [
        LedgerEntry(offset=n, kind="track", outcome="delivered", reason="ok", visitor_id=name)
        for n, name in enumerate(names)
    ]
    value = encode_settlements(
        Settlements(group="g", member="m", settled_at=START_MS, entries=entries, gaps=[])
    )
    assert count(Role.LEDGER, None, value, ids, who="anon") == 3
    assert count(Role.LEDGER, None, value, ids, who="_PENDO_T_anon") == 3
    assert count(Role.SUPPRESSIONS, b"anon", b"{}", who="_PENDO_T_anon") == 1


@pytest.mark.parametrize(
    ("key", "body", "found"),
    [
        (b"v1", b"{}", 1),
        (None, b'{"data":{"visitorId":"v1"}}', 1),
        (None, b'{"data":{"visitorId":"v11"}}', 0),
        (None, None, 0),
    ],
)
def test_a_webhook_belongs_to_the_visitor_of_its_key_or_of_its_body(
    key: bytes | None, body: bytes | None, found: int
) -> None:
    assert count(Role.WEBHOOKS, key, body) == found


def older_end(role: Role, committed: dict[int, int] | None = None) -> _OlderEnd:
    return _OlderEnd(TopicSpec(role, "t", 1), {0: Span(0, 100), 1: Span(0, 100)}, committed or {})


def take(end: _OlderEnd, *theirs: bool, partition: int = 0) -> int:
    return sum(
        end.take(cast("Message", Put(None, None, partition, 2 * n)), is_theirs=each)
        for n, each in enumerate(theirs)
    )


def test_only_records_before_the_first_of_another_visitor_can_be_deleted() -> None:
    end = older_end(Role.DEAD_LETTERS)
    assert take(end, True, True, False, True) == 2
    assert take(end, False, True, partition=1) == 0
    assert end.below == {0: 3}, "offsets may have holes"


def test_events_that_are_not_settled_stay() -> None:
    end = older_end(Role.EVENTS, {0: 3})
    assert take(end, True, True, True) == 2
    assert take(end, True, partition=1) == 0
    assert end.below == {0: 3}


@pytest.mark.parametrize("role", [Role.LEDGER, Role.SUPPRESSIONS])
def test_the_ledger_and_the_suppressions_are_never_deleted(role: Role) -> None:
    end = older_end(role, {0: 100})
    assert take(end, True, True) == 0
    assert end.below == {}
