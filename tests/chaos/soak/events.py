"""The soak's events: visitors grouped by their behaviour, and the identity by which an event is recognized later.

In: a group of visitors, a step. Out: events and records; of a record, its visitor and the deliveries that it plans.
Each visitor takes one step after the other, so the order of its events can be judged wherever they are seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import (
    DecisionEvent,
    Decoder,
    Event,
    TrackEvent,
    VisitorMetadata,
    encode_single_object,
    new_event_id,
    schema_of,
    single_object_header,
)

PARTITIONS: Final = 6
REGISTRY_PARTITION: Final = 5
"""Records in Confluent's format are published to this partition only: no other may wait for the registry."""
MAX_EVENT_BYTES: Final = 65_536
PLAN: Final = "plan"
"""A metadata field whose values count up, so that the newest one is known."""
CONFLUENT_HEADER_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class _Behaviour:
    prefix: str
    visitors: int
    healthy: bool = False
    partition: int | None = None


class Group(Enum):
    """Visitors by the way they behave; a visitor's id begins with its group's prefix."""

    STEADY = _Behaviour("steady", 150, healthy=True)
    """A few events a minute each, through an idempotent producer."""
    SERVICE = _Behaviour("service", 20, healthy=True)
    """Through `flagpost_publisher.Publisher`, as the Kafka user whose rights the troubles remove and restore."""
    TRANSACTION = _Behaviour("transaction", 10, healthy=True)
    """In transactions, some of which are aborted; each leaves holes in the offsets."""
    REGISTRY = _Behaviour("registry", 5, healthy=True, partition=REGISTRY_PARTITION)
    """In Confluent's format, with schema ids that a consumer must ask the registry for."""
    LARGE = _Behaviour("large", 3, healthy=True)
    """Events of nearly, or exactly, kafka.max_event_bytes."""
    HOT = _Behaviour("hot", 36)
    """Many events at once, several times."""
    POISON = _Behaviour("poison", 10)
    """Pendo fails, or hangs, for these for ever."""
    ODD = _Behaviour("odd", 10)
    """Records that cannot become events: undecodable, of an unknown schema, too large, bombs."""
    ODD_REGISTRY = _Behaviour("unregistered", 2, partition=REGISTRY_PARTITION)
    """Records of ids that the registry does not have, or refuses."""

    @property
    def prefix(self) -> str:
        """The beginning of the group's visitor ids."""
        return self.value.prefix

    @property
    def is_healthy(self) -> bool:
        """Whether only a trouble that holds up the whole partition may hold up its events."""
        return self.value.healthy

    def visitors(self) -> list[str]:
        """The ids of the group's visitors, on the partition of the group if it has one."""
        found: list[str] = []
        number = 0
        while len(found) < self.value.visitors:
            visitor = f"{self.prefix}-{number:04}"
            number += 1
            if self.value.partition in (None, partition_of(visitor.encode(), PARTITIONS)):
                found.append(visitor)
        return found


_BY_PREFIX: Final = {group.prefix: group for group in Group}


def group_of(visitor_id: str) -> Group:
    """The group of a visitor."""
    return _BY_PREFIX[visitor_id.partition("-")[0]]


Step = tuple[str, int]
"""A visitor, and the number of its step."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a record of the events topic is about."""

    visitor: str
    step: int | None
    """None: the record has no step and only has to be settled."""
    kinds: frozenset[Kind]
    """The deliveries that must be settled; empty: any one."""


def now_ms() -> int:
    """The present time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def decision(visitor: str, step: int) -> DecisionEvent:
    """The decision of a visitor's step: each step has a flag of its own."""
    return DecisionEvent(
        event_id=new_event_id(),
        occurred_at=now_ms(),
        visitor_id=visitor,
        flag_key=f"step-{step:06}",
        enabled=True,
        variation_key="treatment",
        rule_key="rule",
        decision_event_dispatched=True,
    )


def action(visitor: str, step: int) -> TrackEvent:
    """The track event of a visitor's step. Its id is made from the step, so a second one is a duplicate."""
    return TrackEvent(
        event_id=f"{visitor}/{step}",
        occurred_at=now_ms(),
        visitor_id=visitor,
        event="Soaked",
        properties={"step": step},
    )


def plan(visitor: str, value: int) -> VisitorMetadata:
    """Metadata with a visitor's newest plan."""
    return VisitorMetadata(
        event_id=new_event_id(), occurred_at=now_ms(), visitor_id=visitor, values={PLAN: f"{value:06}"}
    )


def sized(visitor: str, step: int, size_bytes: int) -> tuple[bytes, bytes]:
    """Key and value of an action whose record has exactly `size_bytes` bytes."""
    key, filling = visitor.encode(), size_bytes - 200

    def encoded(characters: int) -> bytes:
        event = action(visitor, step)
        return encode_single_object(
            TrackEvent(
                event_id=event.event_id,
                occurred_at=event.occurred_at,
                visitor_id=visitor,
                event=event.event,
                properties={"step": step, "filling": "x" * characters},
            )
        )

    missing = size_bytes - len(key) - len(encoded(filling))
    value = encoded(filling + missing)
    assert len(key) + len(value) == size_bytes
    return key, value


_decoder = Decoder()
_CONFLUENT_AS_SINGLE_OBJECT: Final = single_object_header(schema_of(TrackEvent).fingerprint)


def content_of(key: bytes, value: bytes) -> Content:
    """What a record is about."""
    visitor = key.decode()
    group = group_of(visitor)
    if group in (Group.ODD, Group.ODD_REGISTRY):
        return Content(visitor, None, frozenset())
    if group is Group.REGISTRY:
        value = _CONFLUENT_AS_SINGLE_OBJECT + value[CONFLUENT_HEADER_BYTES:]
    return _content_of(_decoder.decode(value))


def _content_of(event: Event) -> Content:
    match event:
        case DecisionEvent():
            kinds = frozenset({Kind.TRACK, Kind.VISITOR_METADATA})
            return Content(event.visitor_id, int(event.flag_key.removeprefix("step-")), kinds)
        case TrackEvent():
            assert event.visitor_id is not None
            step = event.properties["step"]
            assert isinstance(step, int)
            return Content(event.visitor_id, step, frozenset({Kind.TRACK}))
        case VisitorMetadata():
            return Content(event.visitor_id, None, frozenset({Kind.VISITOR_METADATA}))
        case _:
            raise AssertionError(f"the soak publishes no {type(event).__name__}")


def plan_in(key: bytes, value: bytes) -> int | None:
    """The plan in a metadata record; None for other records."""
    if group_of(key.decode()) is not Group.STEADY:
        return None
    event = _decoder.decode(value)
    return int(str(event.values[PLAN])) if isinstance(event, VisitorMetadata) else None


def step_of(body: Mapping[str, Any]) -> Step:
    """The step that a track request to Pendo is about."""
    properties = body["properties"]
    flag = properties.get("flag_key")
    step = properties["step"] if flag is None else int(flag.removeprefix("step-"))
    return body["visitorId"], step
