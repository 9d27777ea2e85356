"""The records of the dead-letter topic: dead letters, and the markers that say which of them were replayed.

In: messages of the topic. Out: a `DeadLetter`, a `Marker`, or None for anything else. A marker is a record without a
value, in the dead letter's partition, whose header `flagpost-replayed` holds the dead letter's `partition/offset`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.dead_letter_writer import HEADER_PREFIX
from flagpost_consumer.adapters.kafka.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.core.records import Headers

REPLAYED_HEADER = f"{HEADER_PREFIX}replayed"
REPLAY_OF_HEADER = f"{HEADER_PREFIX}replay-of"

_NUMBER = re.compile(r"\d{1,14}", re.ASCII)
"""As an epoch ms, up to the year 5138."""
_PLACE = re.compile(r"(\d{1,10})/(\d{1,18})", re.ASCII)


class Place(NamedTuple):
    """A record's partition and offset on the dead-letter topic; as a text, `partition/offset`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a place. Raises ValueError."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a dead letter's position: give PARTITION/OFFSET, like 3/17")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """The headers of docs/contract.md#dead-letters: a delivery that ended undelivered."""

    place: Place
    key: bytes | None
    at: int
    """When the delivery ended, epoch ms."""
    reason: str
    detail: str
    kind: str
    source: str
    """`topic/partition/offset` of the original."""
    attempts: int
    status: int | None
    """The last HTTP status."""
    truncated: bool
    """Its value was too large for the topic, and is lost."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Says that a dead letter was replayed."""

    of: Place


def read_message(message: Message) -> DeadLetter | Marker | None:
    """Parse a message of the dead-letter topic; None: it is neither a dead letter nor a marker."""
    try:
        ours = _ours(headers_of(message))
        if "replayed" in ours:
            return Marker(Place.parse(ours["replayed"]))
        return _dead_letter(message, ours)
    except (KeyError, ValueError, UnreadableHeaders):
        return None


def place_of(message: Message) -> Place:
    """The place of a consumed message."""
    return Place(cast("int", message.partition()), cast("int", message.offset()))


def _ours(headers: Headers) -> dict[str, str]:
    return {
        name.removeprefix(HEADER_PREFIX): (value or b"").decode("utf-8", "backslashreplace")
        for name, value in headers
        if name.startswith(HEADER_PREFIX)
    }


def _dead_letter(message: Message, ours: dict[str, str]) -> DeadLetter:
    return DeadLetter(
        place=place_of(message),
        key=message.key(),
        at=_number(ours["at"]),
        reason=ours["reason"],
        detail=ours["detail"],
        kind=ours["kind"],
        source=ours["source"],
        attempts=_number(ours["attempts"]),
        status=_number(ours["status"]) if "status" in ours else None,
        truncated=ours.get("truncated") == "true",
    )


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return int(text)
