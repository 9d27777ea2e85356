"""The troubles of the soak: what each does, which events it may hold up, and for how long after its end.

In: the soak, a random source. Out: a trouble that was made and ended. While a trouble is on, and during its grace
afterwards, the events that it holds up may wait; `watch` has the whole rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Final

from chaos.soak.events import MAX_EVENT_BYTES, Group, action, sized
from chaos.soak.members import FROZEN_SHORT
from chaos.soak.registry import REFUSED_IDS, UNKNOWN_IDS, Mood
from chaos.soak.traffic import LARGEST_BOMB_BYTES
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    Endpoint,
    Fault,
)
from flagpost_schemas import confluent_header, encode_body, encode_single_object

if TYPE_CHECKING:
    from chaos.soak.soak import Soak

SESSION_SECONDS: Final = 10.0
REQUEST_TIMEOUT_SECONDS: Final = 3.0
UNKNOWN_SECONDS: Final = 10.0
"""kafka.schema_registry.unknown_seconds in the soak."""

SENDING: Final = (Endpoint.TRACK, Endpoint.METADATA)
FLAPS: Final[tuple[Fault | int, ...]] = (500, 503, 429, 403, HANG)


class Holds(Enum):
    """What may stand still while a trouble is on."""

    ALL = "all"
    REGISTRY = "the registry's partition"
    NOTHING = "nothing"


class Lane(Enum):
    """Troubles of one lane come one after the other; those of several lanes overlap."""

    MEMBERS = "members"
    KAFKA = "kafka"
    PENDO = "pendo"
    REGISTRY = "registry"
    TRAFFIC = "traffic"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble."""

    name: str
    lane: Lane
    holds: Holds
    grace_seconds: float
    """How long after its end events may still wait."""
    run: Callable[[Soak, Random], Awaitable[None]]
    loses_answers: bool = False
    """Whether any member may afterwards send again what Kafka has not acknowledged."""


# Members


async def _kill_9(soak: Soak, random: Random) -> None:
    await soak.members.kill(soak.any_member(random))


async def _terminate(soak: Soak, random: Random) -> None:
    await soak.members.terminate(soak.any_member(random))


async def _freeze_short(soak: Soak, random: Random) -> None:
    """Freeze a member for at most 2 s longer than a request may take: too short for the group to notice."""
    seconds = random.uniform(0.5, REQUEST_TIMEOUT_SECONDS + 2)
    await soak.members.freeze(soak.any_member(random), seconds, FROZEN_SHORT)


async def _freeze_long(soak: Soak, random: Random) -> None:
    """Freeze a member until the group has given its partitions to another."""
    seconds = SESSION_SECONDS + random.uniform(2, 5)
    await soak.members.freeze(soak.any_member(random), seconds, "frozen for long")


# Kafka


async def _broker_restart(soak: Soak, random: Random) -> None:
    await asyncio.to_thread(soak.kafka.stop)
    await asyncio.sleep(random.uniform(0, 4))
    await asyncio.to_thread(soak.kafka.restart)


async def _broker_kill(soak: Soak, random: Random) -> None:
    await asyncio.to_thread(soak.kafka.kill)
    await asyncio.sleep(random.uniform(0, 6))
    await asyncio.to_thread(soak.kafka.restart)


async def _broker_freeze(soak: Soak, random: Random) -> None:
    soak.kafka.freeze()
    try:
        await asyncio.sleep(random.uniform(2, SESSION_SECONDS))
    finally:
        soak.kafka.thaw()


def _without_right(
    topic: str, operation: str, at_least: float, at_most: float
) -> Callable[..., Awaitable[None]]:
    async def run(soak: Soak, random: Random) -> None:
        name = soak.topics[topic]
        await asyncio.to_thread(soak.kafka.disallow, "topic", name, operation)
        try:
            await asyncio.sleep(random.uniform(at_least, at_most))
        finally:
            await asyncio.to_thread(soak.kafka.allow, "topic", name, operation)

    return run


async def _dead_letters_not_taken(soak: Soak, random: Random) -> None:
    """Cause dead letters while Kafka accepts none."""
    name = soak.topics["dead letters"]
    await asyncio.to_thread(soak.kafka.disallow, "topic", name, "write")
    try:
        soak.traffic.throw_in(_undecodable(soak, random, 5))
        await asyncio.sleep(random.uniform(8, 15))
    finally:
        await asyncio.to_thread(soak.kafka.allow, "topic", name, "write")


async def _topic_anew(soak: Soak, _: Random) -> None:
    await soak.make_topic_anew()


# Pendo


def _struck(fault: Fault | int, at_least: float, at_most: float) -> Callable[..., Awaitable[None]]:
    async def run(soak: Soak, random: Random) -> None:
        soak.pendo.faults.outage(fault, *SENDING)
        try:
            await asyncio.sleep(random.uniform(at_least, at_most))
        finally:
            soak.pendo.faults.restore(*SENDING)

    return run


def _mixed(*shares: tuple[float, Fault | int]) -> Callable[..., Awaitable[None]]:
    async def run(soak: Soak, random: Random) -> None:
        soak.pendo.faults.mix(random.randrange(1_000_000), shares)
        try:
            await asyncio.sleep(random.uniform(10, 20))
        finally:
            soak.pendo.faults.mix(0, [])

    return run


async def _flapping(soak: Soak, random: Random) -> None:
    for _ in range(random.randrange(3, 10)):
        soak.pendo.faults.outage(random.choice(FLAPS), *SENDING)
        try:
            await asyncio.sleep(random.uniform(0.1, 2))
        finally:
            soak.pendo.faults.restore(*SENDING)
        await asyncio.sleep(random.uniform(0.1, 1))


async def _lull(soak: Soak, random: Random) -> None:
    """Publish nothing of healthy visitors while Pendo is down: only poisonous visitors are left to probe with."""
    with soak.traffic.only_the_sick():
        await asyncio.sleep(random.uniform(3, 6))
        soak.pendo.faults.outage(random.choice([500, 503, 403]), *SENDING)
        try:
            await asyncio.sleep(random.uniform(4, 8))
        finally:
            soak.pendo.faults.restore(*SENDING)
        await asyncio.sleep(random.uniform(10, 20))


# The registry


def _registry(mood: Mood) -> Callable[..., Awaitable[None]]:
    async def run(soak: Soak, random: Random) -> None:
        soak.registry.mood = mood
        try:
            await asyncio.sleep(random.uniform(8, 16))
        finally:
            soak.registry.mood = Mood.HONEST

    return run


async def _ids_not_to_be_had(soak: Soak, random: Random) -> None:
    """Publish records of an id that the registry does not have, or refuses: they wait, then become dead letters."""
    schema_id = random.choice([*UNKNOWN_IDS, *REFUSED_IDS])
    visitor = random.choice(soak.traffic.visitors(Group.ODD_REGISTRY))
    body = encode_body(action(visitor, 0))
    soak.traffic.throw_in([(visitor.encode(), confluent_header(schema_id) + body)] * 3)
    await asyncio.sleep(UNKNOWN_SECONDS)


# What is published


async def _hot_visitors(soak: Soak, random: Random) -> None:
    """Publish for each of dozens of visitors as many events as it may send in 10 to 17 s."""
    count = random.randrange(40, 70)
    visitors = soak.traffic.visitors(Group.HOT)
    events = [action(*soak.traffic.step(visitor)) for _ in range(count) for visitor in visitors]
    soak.traffic.throw_in(
        [((event.visitor_id or "").encode(), encode_single_object(event)) for event in events]
    )
    await asyncio.sleep(1)


async def _big_records(soak: Soak, random: Random) -> None:
    """Publish records just below the size limit, at the limit, and above it."""
    for _ in range(3):
        for size in (MAX_EVENT_BYTES - 1, MAX_EVENT_BYTES):
            visitor = random.choice(soak.traffic.visitors(Group.LARGE))
            soak.traffic.throw_in([sized(*soak.traffic.step(visitor), size)])
        odd = random.choice(soak.traffic.visitors(Group.ODD))
        soak.traffic.throw_in([sized(odd, 0, MAX_EVENT_BYTES + 1), sized(odd, 0, 10 * MAX_EVENT_BYTES)])
    await asyncio.sleep(1)


async def _bombs(soak: Soak, random: Random) -> None:
    """Publish records that are small in the log and large in memory."""
    key = random.choice(soak.traffic.visitors(Group.ODD)).encode()
    size = random.randrange(MAX_EVENT_BYTES, LARGEST_BOMB_BYTES)
    soak.traffic.throw_in([(key, b"\xc3\x01" + bytes(size))] * random.randrange(3, 9))
    await asyncio.sleep(1)


async def _odd_records(soak: Soak, random: Random) -> None:
    """Publish undecodable records, unknown fingerprints, and ids that no registry can have."""
    key = random.choice(soak.traffic.visitors(Group.ODD)).encode()
    unknown = [(key, b"\xc3\x01" + random.randbytes(20)), (key, b"\x00\xff\xff\xff\xff")]
    soak.traffic.throw_in([*_undecodable(soak, random, 3), *unknown])
    await asyncio.sleep(1)


def _undecodable(soak: Soak, random: Random, count: int) -> list[tuple[bytes, bytes]]:
    visitors = soak.traffic.visitors(Group.ODD)
    return [(random.choice(visitors).encode(), b"\x99" + random.randbytes(10)) for _ in range(count)]


MEMBER_GRACE: Final = 30.0
"""Enough for a session time-out, a hand-over, and the restore of the ledger."""
KAFKA_GRACE: Final = 30.0
PENDO_GRACE: Final = 45.0
"""After an outage of Pendo the next probe comes within 30 s, and the number of requests in flight grows from 1."""
REGISTRY_GRACE: Final = 30.0

TROUBLES: Final = (
    Trouble("kill -9", Lane.MEMBERS, Holds.ALL, MEMBER_GRACE, _kill_9),
    Trouble("SIGTERM", Lane.MEMBERS, Holds.ALL, MEMBER_GRACE, _terminate),
    Trouble("short freeze", Lane.MEMBERS, Holds.ALL, MEMBER_GRACE, _freeze_short),
    Trouble("long freeze", Lane.MEMBERS, Holds.ALL, MEMBER_GRACE, _freeze_long),
    Trouble("broker restart", Lane.KAFKA, Holds.ALL, KAFKA_GRACE, _broker_restart, loses_answers=True),
    Trouble("broker kill -9", Lane.KAFKA, Holds.ALL, KAFKA_GRACE, _broker_kill, loses_answers=True),
    Trouble("broker freeze", Lane.KAFKA, Holds.ALL, KAFKA_GRACE, _broker_freeze, loses_answers=True),
    Trouble(
        "ledger not writable",
        Lane.KAFKA,
        Holds.ALL,
        KAFKA_GRACE,
        _without_right("ledger", "write", 3, 12),
        loses_answers=True,
    ),
    Trouble(
        "events not readable", Lane.KAFKA, Holds.ALL, KAFKA_GRACE, _without_right("events", "read", 3, 12)
    ),
    Trouble("dead letters not writable", Lane.KAFKA, Holds.NOTHING, 0, _dead_letters_not_taken),
    Trouble("events not writable", Lane.KAFKA, Holds.NOTHING, 0, _without_right("events", "write", 3, 12)),
    Trouble("topic made anew", Lane.KAFKA, Holds.ALL, KAFKA_GRACE, _topic_anew, loses_answers=True),
    Trouble("Pendo flapping", Lane.PENDO, Holds.ALL, PENDO_GRACE, _flapping),
    Trouble("Pendo 503", Lane.PENDO, Holds.ALL, PENDO_GRACE, _struck(503, 5, 20)),
    Trouble("Pendo 403", Lane.PENDO, Holds.ALL, PENDO_GRACE, _struck(403, 5, 15)),
    Trouble("Pendo silent", Lane.PENDO, Holds.ALL, PENDO_GRACE, _struck(HANG, 5, 15)),
    Trouble("Pendo slow", Lane.PENDO, Holds.ALL, PENDO_GRACE, _struck(Fault(delay_seconds=0.7), 5, 15)),
    Trouble("Pendo 429 by share", Lane.PENDO, Holds.NOTHING, 0, _mixed((0.02, 429))),
    Trouble("Pendo 404 by share", Lane.PENDO, Holds.NOTHING, 0, _mixed((0.01, 404))),
    Trouble(
        "Pendo fails by share",
        Lane.PENDO,
        Holds.NOTHING,
        0,
        _mixed((0.02, 500), (0.005, HANG), (0.01, CLOSE_BEFORE_RECORDING), (0.01, CLOSE_AFTER_RECORDING)),
    ),
    Trouble("a lull, and Pendo away", Lane.PENDO, Holds.ALL, PENDO_GRACE, _lull),
    Trouble("registry behind", Lane.REGISTRY, Holds.REGISTRY, REGISTRY_GRACE, _registry(Mood.BEHIND)),
    Trouble("registry 503", Lane.REGISTRY, Holds.REGISTRY, REGISTRY_GRACE, _registry(Mood.FAILING)),
    Trouble("registry silent", Lane.REGISTRY, Holds.REGISTRY, REGISTRY_GRACE, _registry(Mood.SILENT)),
    Trouble("schema ids not to be had", Lane.REGISTRY, Holds.REGISTRY, REGISTRY_GRACE, _ids_not_to_be_had),
    Trouble("hot visitors", Lane.TRAFFIC, Holds.NOTHING, 0, _hot_visitors),
    Trouble("big records", Lane.TRAFFIC, Holds.NOTHING, 0, _big_records),
    Trouble("bombs", Lane.TRAFFIC, Holds.NOTHING, 0, _bombs),
    Trouble("odd records", Lane.TRAFFIC, Holds.NOTHING, 0, _odd_records),
)
BY_NAME: Final = {trouble.name: trouble for trouble in TROUBLES}
