"""The values of metadata deliveries, waiting or in flight.

In: a delivery's fields. Out: each value with its age, and the bytes that it takes in the body of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import orjson

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.sent_values import LONG_NAME_CHARACTERS, json_digest
from flagpost_consumer.core.planning.mapping import metadata_body
from flagpost_schemas import MetadataValue

Owner = TypeVar("Owner")

Age = tuple[int, int]
"""Decides which of two values is newer: by occurred_at, then by offset."""


@dataclass(slots=True, eq=False)
class Value(Generic[Owner]):
    """A value for a field, waiting or in flight."""

    value: MetadataValue
    digest: bytes
    size: int
    """Bytes in the body of a request, with its name and the comma after it."""
    item: Item[Owner]
    age: Age
    """Its own age, or that of a newer value that was found to be equal: this value then counts for both."""


def values_of(item: Item[Owner]) -> Iterator[tuple[str, Value[Owner]]]:
    """The values of a delivery by the names of their fields."""
    age = (item.occurred_at, item.offset)
    for name, content in item.metadata.values.items():
        encoded = orjson.dumps(content)
        size = name_bytes(name) + len(encoded)
        yield name, Value(content, json_digest(encoded), size, item, age)


def name_bytes(name: str) -> int:
    """Bytes of a field's name, with its colon and the comma after its value."""
    return (_short_name_bytes if len(name) <= LONG_NAME_CHARACTERS else _name_bytes)(name)


def _name_bytes(name: str) -> int:
    return len(orjson.dumps(name)) + len(":,")


_short_name_bytes = lru_cache(maxsize=4096)(_name_bytes)


BRACKETS_BYTES = len("[]")


def record_bytes(target: str, target_id: str) -> int:
    """Bytes of one id's record in the body of a request, without its values, with the comma after it."""
    return _record_bytes_without_id(target) + len(orjson.dumps(target_id))


@lru_cache
def _record_bytes_without_id(target: str) -> int:
    return len(metadata_body(target, [("", {})])) - BRACKETS_BYTES + len(",") - len('""')
