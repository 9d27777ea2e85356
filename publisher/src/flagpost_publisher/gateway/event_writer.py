"""Writes events to the events topic, in the wire format of the settings.

In: what a front read. Out: nothing once Kafka has everything, or a Refusal; and counts by type and reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from flagpost_publisher.errors import RegistryTrouble
from flagpost_publisher.gateway.chores import until_done
from flagpost_publisher.gateway.fronts import Reading
from flagpost_publisher.gateway.kafka_writer import MAX_RECORD_BYTES, KafkaRecord, KafkaWriter
from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.metrics import GatewayMetrics
from flagpost_publisher.gateway.refusals import Refusal, try_again
from flagpost_publisher.registry import Registry, event_headers
from flagpost_schemas import Event, partition_key
from flagpost_settings.daemon_calls import in_a_daemon
from flagpost_settings.kafka import KafkaSettings
from flagpost_settings.problems import SettingsError

log = structlog.get_logger(__name__)

ASK_SECONDS: Final = 2
"""How long to wait before asking a registry again that did not answer."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one request, and what to count once Kafka has them."""

    records: list[KafkaRecord]
    counts: Counter[type[Event]]
    set_aside: Counter[StrEnum]
    not_believed: Counter[StrEnum]
    key: Key
    """The key with which they were sent."""


class EventWriter:
    """Writes to the events topic."""

    def __init__(
        self,
        kafka: KafkaWriter,
        settings: KafkaSettings,
        max_future_seconds: float,
        registry: Callable[[], Registry] | None,
        metrics: GatewayMetrics,
    ) -> None:
        """With a `registry`, events use Confluent's format, once `learn` has its ids.

        It is called for each attempt, in a thread: the password's file may have changed.
        """
        self._kafka = kafka
        self._topic = settings.topic
        self._max_event_bytes = min(settings.max_event_bytes, MAX_RECORD_BYTES)
        self._max_future_ms = max_future_seconds * 1000
        self._registry = registry
        self._headers = event_headers(None) if registry is None else {}
        self._metrics = metrics

    @property
    def trouble(self) -> str | None:
        """Why events cannot be encoded yet; None: they can."""
        return None if self._headers else "the schema registry has not returned the ids of the schemas yet"

    async def learn(self) -> None:
        """Ask the registry until it answers; without a registry there is nothing to do."""
        if self._registry is not None:
            await until_done("asking the schema registry", partial(self._ask, self._registry), ASK_SECONDS)

    async def _ask(self, registry: Callable[[], Registry]) -> bool:
        try:
            asked = in_a_daemon(lambda: registry().ids_for(self._topic), "flagpost-gateway-daemon")
            ids = await asyncio.wrap_future(asked)
        except (RegistryTrouble, SettingsError) as error:
            log.warning("waiting for the schema registry", reason=str(error))
            return False
        self._headers = event_headers(ids)
        return True

    def reading(self, received_at: int, key: Key) -> Reading:
        """An empty reading, for a front to fill. Raises Refusal while events cannot be encoded."""
        if self.trouble is not None:
            raise try_again(self.trouble, ASK_SECONDS, "send the request again after the time in Retry-After")
        header_bytes = max(map(len, self._headers.values()))
        return Reading(received_at, key, self._max_event_bytes, header_bytes, self._max_future_ms)

    def batch(self, reading: Reading) -> Batch:
        """The records to write."""
        records = list(map(self._record, reading.events, reading.bodies))
        counts = Counter(map(type, reading.events))
        return Batch(records, counts, reading.set_aside, reading.not_believed, reading.key)

    async def write(self, batch: Batch) -> None:
        """Publish all of a batch or (as far as Kafka allows) nothing. Raises Refusal."""
        try:
            await self._kafka.write(batch.records)
        except Refusal:
            self._metrics.refused(batch.key, batch.counts)
            raise
        self._metrics.accepted(batch.key, batch.counts, batch.set_aside, batch.not_believed)

    def _record(self, event: Event, body: bytes) -> KafkaRecord:
        return KafkaRecord(self._topic, partition_key(event), self._headers[type(event)] + body)
