"""Which dead-lettered deliveries were put back on the events topic.

In: the dead-letter topic. Out: for each partition of the events topic the deliveries whose dead letter was
replayed. `dead-letters replay` leaves a marker for each: a record without a value in the same partition, whose
header `flagpost-replayed` is the `partition/offset` of the dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from confluent_kafka import Message

from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.operator.reconciliation.planning import header
from flagpost_consumer.operator.reconciliation.settled import Delivered

REPLAYED_HEADER = "flagpost-replayed"
SOURCE_HEADER = "flagpost-source"
KIND_HEADER = "flagpost-kind"

_SOURCE = re.compile(r"(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<offset>\d+)", re.ASCII)
_KINDS = {kind.value: kind for kind in Kind}

Place = tuple[int, Delivered]
"""A partition of the events topic, and a delivery in it."""


def replayed_deliveries(messages: Iterable[Message], events_topic: str) -> dict[int, set[Delivered]]:
    """Read a stretch of the dead-letter topic, each partition's messages in order."""
    dead: dict[str, Place] = {}
    replayed: dict[int, set[Delivered]] = {}
    for message in messages:
        marked = header(message, REPLAYED_HEADER)
        if marked is None:
            source = _source(message, events_topic)
            if source is not None:
                dead[f"{message.partition()}/{message.offset()}"] = source
        elif marked in dead:
            partition, delivery = dead.pop(marked)
            replayed.setdefault(partition, set()).add(delivery)
    return replayed


def _source(message: Message, events_topic: str) -> Place | None:
    """The delivery that a dead letter stands for; None where its headers name none of this topic."""
    kind = _KINDS.get(header(message, KIND_HEADER) or "")
    place = _SOURCE.fullmatch(header(message, SOURCE_HEADER) or "")
    if kind is None or place is None or place["topic"] != events_topic:
        return None
    return int(place["partition"]), (int(place["offset"]), kind)
