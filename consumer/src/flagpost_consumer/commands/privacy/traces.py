"""How to recognise one visitor's data in the records of each topic.

In: messages of Flagpost's topics, by what each topic is for. Out: how many entries of a message are the visitor's.
The bytes are searched first: only if they contain the id are they decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson
from confluent_kafka import Message

from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.topics.rules import Role
from flagpost_consumer.core.planning.ledger_ids import LedgerIds
from flagpost_consumer.core.planning.visitor_names import both_names
from flagpost_schemas import AccountMetadata, DecodeError, Event, TrackEvent, decode_settlements

Traces = Callable[[Message], int]
"""Returns how many entries of a message are the visitor's."""


def traces_of(visitor_id: str, values: Values, ids: LedgerIds) -> Mapping[Role, Traces]:
    """The functions that recognise a visitor's traces in each topic.

    Each raises RegistryNotAnswering if a value needs the schema registry.
    """
    called = both_names(visitor_id)
    keys = frozenset(name.encode() for name in called)
    in_json = tuple(map(orjson.dumps, called))
    names = ids.names_of(visitor_id)

    def in_events(message: Message) -> int:
        return int(message.key() in keys or _is_about(called, message.value(), values))

    def in_ledger(message: Message) -> int:
        return _settlements_of(names, message.value())

    def in_webhooks(message: Message) -> int:
        # The body contains the id as a JSON text of its own, wherever it is.
        value = message.value() or b""
        return int(message.key() in keys or any(text in value for text in in_json))

    def by_key(message: Message) -> int:
        return int(message.key() in keys and message.value() is not None)

    return {
        Role.EVENTS: in_events,
        Role.LEDGER: in_ledger,
        Role.DEAD_LETTERS: in_events,
        Role.WEBHOOKS: in_webhooks,
        Role.SUPPRESSIONS: by_key,
    }


def _is_about(called: tuple[str, ...], value: bytes | None, values: Values) -> bool:
    """Whether a value with another key is an event of the visitor."""
    if value is None or not any(name.encode() in value for name in called):
        return False
    try:
        return not set(called).isdisjoint(_visitors_of(values.decode(value)))
    except DecodeError:
        return False


def _visitors_of(event: Event) -> tuple[str | None, ...]:
    if isinstance(event, AccountMetadata):
        return ()
    return (event.visitor_id, event.anonymous_id) if isinstance(event, TrackEvent) else (event.visitor_id,)


def _settlements_of(names: frozenset[str], value: bytes | None) -> int:
    if value is None or not any(name.encode() in value for name in names):
        return 0
    try:
        entries = decode_settlements(value).entries
    except DecodeError:
        return 0
    return sum(entry.visitor_id in names for entry in entries)
