"""Which dead-lettered deliveries were replayed.

In: the dead-letter topic. Out: for each partition of the events topic the deliveries whose dead letter has a marker.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import Message

from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker, Place, read_message
from flagpost_consumer.commands.reconcile.settled import Delivered
from flagpost_consumer.core.outcomes import Kind

_KINDS = {kind.value: kind for kind in Kind}
_SOURCE = re.compile(r"(?P<topic>[^/]+)/(?P<partition>\d{1,10})/(?P<offset>\d{1,18})", re.ASCII)

Dead = tuple[int, Delivered]
"""A partition of the events topic, and a delivery of it."""

Replayed = Mapping[int, Collection[Delivered]]
"""By partition of the events topic."""


def replayed_deliveries(messages: Iterable[Message], events_topic: str) -> Replayed:
    """Read a stretch of the dead-letter topic, each partition's messages in order."""
    dead: dict[Place, Dead] = {}
    replayed: dict[int, set[Delivered]] = {}
    for message in messages:
        found = read_message(message)
        if isinstance(found, Marker) and found.of in dead:
            partition, delivery = dead.pop(found.of)
            replayed.setdefault(partition, set()).add(delivery)
        elif isinstance(found, DeadLetter) and (source := source_of(found, events_topic)) is not None:
            dead[found.place] = source
    return replayed


def source_of(letter: DeadLetter, events_topic: str) -> Dead | None:
    """The delivery of a dead letter; None if it is not from this topic."""
    place, kind = _SOURCE.fullmatch(letter.source), _KINDS.get(letter.kind)
    if place is None or kind is None or place["topic"] != events_topic:
        return None
    return int(place["partition"]), (int(place["offset"]), kind)
