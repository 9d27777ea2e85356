"""A metadata delivery, field by field.

In: what a delivery sets, and how each of its fields ended. Out: how the delivery ends as a whole, and what each value
takes in the body of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

import orjson

from flagpost_consumer.core.mapping import Metadata, metadata_body
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.sent_values import LONG_NAME_CHARACTERS, json_digest
from flagpost_schemas import MetadataValue

_PRECEDENCE = (
    Reason.REJECTED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.SUPPRESSED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
)
"""Which reason stands for a delivery none of whose fields was accepted."""


Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Item(Generic[Owner]):
    """One metadata delivery."""

    owner: Owner
    """Whose delivery it is; of no interest here."""
    metadata: Metadata
    partition: int
    offset: int
    occurred_at: int
    missing: bool
    """Whether some of its fields do not exist in Pendo."""
    open_fields: int = 0
    flying: int = 0
    """How many of its fields are in flight."""
    accepted: bool = False
    endings: list[Ending] = field(default_factory=list)
    removed: bool = False
    """Handed back unsettled; what is in flight of it is of no interest any more."""
    given_up: bool = False
    """Dead-lettered before its turn, because it held too much; what follows it waits for it all the same."""
    written: bool = False
    """Kafka has the dead letter of a delivery that was given up."""
    blockers: int = 0
    """How many fields of it are set by an earlier delivery, too, that is not settled yet."""
    followers: list[Item[Owner]] = field(default_factory=list)
    """The deliveries that wait for this one to be settled, once for each field."""
    follows_returned: bool = False
    """An earlier delivery that sets one of its fields was handed back: this one is not settled, but follows it."""

    def ending(self) -> Ending:
        """How the delivery ends once no field is open."""
        if self.accepted:
            return DELIVERED
        found = {ending.reason: ending for ending in self.endings}
        if self.missing:
            found.setdefault(Reason.FIELD_MISSING, Ending(Reason.FIELD_MISSING))
        return next(found[reason] for reason in _PRECEDENCE if reason in found)


Age = tuple[int, int]
"""What decides which of two values is newer: occurred_at, then the offset."""


@dataclass(slots=True, eq=False)
class Value(Generic[Owner]):
    """A value that waits for a field, or is on its way."""

    value: MetadataValue
    digest: bytes
    size: int
    """Bytes in the body of a request, with its name and the comma after it."""
    item: Item[Owner]
    age: Age
    """Its own; or that of the newest value that was found to be the same, for which it then stands too."""


def values_of(item: Item[Owner]) -> Iterator[tuple[str, Value[Owner]]]:
    """The values of a delivery by the names of their fields."""
    age = (item.occurred_at, item.offset)
    for name, content in item.metadata.values.items():
        encoded = orjson.dumps(content)
        size = name_bytes(name) + len(encoded)
        yield name, Value(content, json_digest(encoded), size, item, age)


def name_bytes(name: str) -> int:
    """What the name of a field takes, with its colon and the comma after its value."""
    return (_short_name_bytes if len(name) <= LONG_NAME_CHARACTERS else _name_bytes)(name)


def _name_bytes(name: str) -> int:
    return len(orjson.dumps(name)) + len(":,")


_short_name_bytes = lru_cache(maxsize=4096)(_name_bytes)


BRACKETS_BYTES = len("[]")


def record_bytes(target: str, target_id: str) -> int:
    """What the record of one id takes in the body of a request, without its values, with the comma after it."""
    return _record_bytes_without_id(target) + len(orjson.dumps(target_id))


@lru_cache
def _record_bytes_without_id(target: str) -> int:
    return len(metadata_body(target, [("", {})])) - BRACKETS_BYTES + len(",") - len('""')
