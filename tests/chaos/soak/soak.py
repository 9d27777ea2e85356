"""A soak: consumers work while troubles that occur in production are drawn from one seed.

In: a broker, a Pendo stand-in, a lying registry, a seed. Out: what was published, what Pendo received, what the
ledger says, what was done and when: for the watch, which measures meanwhile, and for the oracle at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Self

from chaos.soak.events import MAX_EVENT_BYTES, PARTITIONS, Group
from chaos.soak.members import Member, Members
from chaos.soak.registry import LyingRegistry
from chaos.soak.topics import Ledger, Published
from chaos.soak.traffic import Traffic
from chaos.soak.troubles import (
    BY_NAME,
    REQUEST_TIMEOUT_SECONDS,
    SESSION_SECONDS,
    TROUBLES,
    UNKNOWN_SECONDS,
    Holds,
    Lane,
    Trouble,
)
from flagpost_consumer.adapters.kafka.topic_ids import read_topic_id
from flagpost_consumer.demo.pendo_stand_in import HANG, Endpoint, Fault, PendoStandIn
from real_kafka.broker import OwnBroker

INTERVAL_SECONDS: Final = 0.25
MAX_CONNECTIONS: Final = 16
MAX_PENDING: Final = 1500
MEMBERS: Final = 3
POISONS: Final[tuple[Fault | int, ...]] = (500, 404, 403, 302, HANG)
CALL_SECONDS: Final = 20.0
BROKER: Final = {
    "group.consumer.session.timeout.ms": str(int(SESSION_SECONDS * 1000)),
    "group.consumer.heartbeat.interval.ms": "2000",
}
"""The settings in which the soak's broker differs from the tests' broker."""


@dataclass(slots=True)
class Episode:
    """One trouble that was made."""

    trouble: Trouble
    began: float
    ended: float | None = None
    """None while it is on. Both times are monotonic."""


class Soak(AbstractAsyncContextManager["Soak"]):
    """All parts of one soak."""

    def __init__(
        self,
        kafka: OwnBroker,
        pendo: PendoStandIn,
        registry: LyingRegistry,
        name: str,
        seed: int,
        directory: Path,
    ) -> None:
        self.kafka, self.pendo, self.registry = kafka, pendo, registry
        self.seed = seed
        self.random = Random(seed)
        self.topics = {
            "events": f"{name}.events",
            "ledger": f"{name}.ledger",
            "dead letters": f"{name}.dead-letters",
            "suppressions": f"{name}.suppressions",
        }
        self.protocol = self.random.choice(["classic", "consumer"])
        self.settings = self._settings(name)
        kafka.create_topics(*self.topics.values(), partitions=PARTITIONS)
        self._give_rights(name)
        self.members = Members(self._as_user(), pendo.track_url, directory)
        self.traffic = Traffic(kafka, self.topics["events"], self.random)
        self.lives = [self._new_life()]
        """What the events topic held in each of its lives; the last is the present one."""
        self.ledger = Ledger(kafka.bootstrap_servers, self.topics["ledger"])
        self.episodes: list[Episode] = []
        self.began = time.monotonic()

    @property
    def published(self) -> Published:
        """The present life of the events topic."""
        return self.lives[-1]

    async def __aenter__(self) -> Self:
        self._poison()
        # Without a schema, fields are sent under their configured names.
        self.pendo.faults.outage(503, Endpoint.SCHEMA)
        await asyncio.gather(*(self.members.start() for _ in range(MEMBERS)))
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.members.close()
        await asyncio.to_thread(self.traffic.service.close)
        await asyncio.to_thread(self.published.tail.close)
        await asyncio.to_thread(self.ledger.tail.close)

    # Troubles

    def any_member(self, random: Random) -> Member:
        """A random member to which nothing is being done."""
        return random.choice([m for m in self.members.running.values() if m.answers and not m.is_leaving])

    def _poison(self) -> None:
        """Make Pendo fail for some visitors from now on, each in one way; for two of them also with metadata."""
        visitors, faults = self.traffic.visitors(Group.POISON), self.pendo.faults
        for number, visitor in enumerate(visitors):
            faults.visitor(visitor, afterwards=POISONS[number % len(POISONS)])
        faults.failing_ids[visitors[0]] = "no such visitor"
        faults.poisoned_ids.add(visitors[1])

    def heal(self) -> None:
        """End Pendo's failures for these visitors."""
        for visitor in self.traffic.visitors(Group.POISON):
            self.pendo.faults.visitor(visitor)
        self.pendo.faults.failing_ids.clear()
        self.pendo.faults.poisoned_ids.clear()

    async def suffer(self, troubles: Iterable[Trouble]) -> None:
        """Make troubles: those of one lane one after the other, the lanes in parallel."""
        lanes: dict[Lane, list[Trouble]] = defaultdict(list)
        for trouble in troubles:
            lanes[trouble.lane].append(trouble)
        seeds = [Random(self.random.random()) for _ in lanes]
        async with asyncio.TaskGroup() as group:
            for random, lane in zip(seeds, lanes.values(), strict=True):
                group.create_task(self._suffer_lane(lane, random))

    async def _suffer_lane(self, lane: Sequence[Trouble], random: Random) -> None:
        for trouble in lane:
            await asyncio.sleep(random.uniform(0, 5))
            episode = Episode(trouble, time.monotonic())
            self.episodes.append(episode)
            try:
                await trouble.run(self, random)
            finally:
                episode.ended = time.monotonic()

    async def make_topic_anew(self) -> None:
        """Delete the events topic and create it again; events in it that were not delivered are lost, as intended."""
        await asyncio.to_thread(self.traffic.stop)
        await asyncio.to_thread(self._make_topic_anew)
        self.traffic.start()

    def _make_topic_anew(self) -> None:
        self.published.tail.catch_up()
        self.published.tail.close()
        topic, admin = self.topics["events"], self.kafka.admin()
        for future in admin.delete_topics([topic]).values():
            future.result(CALL_SECONDS)
        deadline = time.monotonic() + CALL_SECONDS
        while topic in admin.list_topics(timeout=CALL_SECONDS).topics:
            assert time.monotonic() < deadline, f"{topic} is still there"
            admin.poll(0.1)
        self.kafka.create_topics(topic, partitions=PARTITIONS)
        self.lives.append(self._new_life())

    def _new_life(self) -> Published:
        topic, servers = self.topics["events"], self.kafka.bootstrap_servers
        deadline = time.monotonic() + CALL_SECONDS
        while (topic_id := read_topic_id({"bootstrap.servers": servers}, topic)) is None:
            assert time.monotonic() < deadline, f"the broker does not tell the id of {topic}"
        return Published(servers, topic, topic_id)

    # Settings

    def _settings(self, name: str) -> dict[str, object]:
        return {
            "kafka.bootstrap_servers": self.kafka.bootstrap_servers,
            "kafka.group_id": name,
            "kafka.topic": self.topics["events"],
            "kafka.ledger_topic": self.topics["ledger"],
            "kafka.dead_letter_topic": self.topics["dead letters"],
            "kafka.suppressions_topic": self.topics["suppressions"],
            "kafka.group_protocol": self.protocol,
            "kafka.session_timeout_seconds": SESSION_SECONDS,
            "kafka.max_event_bytes": MAX_EVENT_BYTES,
            "kafka.schema_registry.url": self.registry.url,
            "kafka.schema_registry.unknown_seconds": UNKNOWN_SECONDS,
            "pendo.track_url": self.pendo.track_url,
            "pendo.api_url": self.pendo.api_url,
            "pendo.track_secret": self.pendo.keys.track_secret,
            "pendo.integration_key": self.pendo.keys.integration_key,
            "pendo.request_timeout_seconds": REQUEST_TIMEOUT_SECONDS,
            "pendo.metadata_timeout_seconds": 2 * REQUEST_TIMEOUT_SECONDS,
            "pendo.max_connections": MAX_CONNECTIONS,
            "pendo.metadata_requests_per_minute": 6000,
            "delivery.visitor_interval_seconds": INTERVAL_SECONDS,
            "delivery.max_pending": MAX_PENDING,
            "metadata.linger_seconds": 0.5,
        }

    def _as_user(self) -> dict[str, object]:
        return {
            **self.settings,
            "kafka.bootstrap_servers": self.kafka.users_bootstrap_servers,
            "kafka.properties": self.kafka.user_properties,
        }

    def _give_rights(self, group: str) -> None:
        self.kafka.allow("group", group, "read")
        for topic in self.topics.values():
            self.kafka.allow("topic", topic, "describe", "read", "write")


def deck(random: Random) -> list[Trouble]:
    """All troubles, in an order drawn at random."""
    return random.sample(TROUBLES, len(TROUBLES))


def named(*names: str) -> list[Trouble]:
    """Troubles by their names."""
    return [BY_NAME[name] for name in names]


def holds(trouble: Trouble, partition: int, registry_partition: int) -> bool:
    """Whether events of a partition may wait for the end of a trouble."""
    return trouble.holds is Holds.ALL or (trouble.holds is Holds.REGISTRY and partition == registry_partition)
