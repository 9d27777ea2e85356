"""Events to the events topic, in the wire format that the settings ask for.

In: what a front read. Out: nothing once Kafka has all of it, or a Refusal; and counts by type and reason.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from flagpost_publisher.errors import RegistryTrouble
from flagpost_publisher.event_bodies import event_body
from flagpost_publisher.gateway.fronts import Reading
from flagpost_publisher.gateway.kafka_writer import MAX_RECORD_BYTES, KafkaRecord, KafkaWriter
from flagpost_publisher.gateway.metrics import GatewayMetrics
from flagpost_publisher.gateway.refusals import Refusal, try_again
from flagpost_publisher.registry import Registry, event_headers
from flagpost_schemas import EncodeError, Event, partition_key

log = structlog.get_logger(__name__)

ASK_SECONDS: Final = 2
"""How long to wait before a registry that did not answer is asked again."""


class EventWriter:
    """The events topic."""

    def __init__(
        self, kafka: KafkaWriter, topic: str, registry: Registry | None, metrics: GatewayMetrics
    ) -> None:
        """With a `registry`, events go in Confluent's format, once `learn` has its ids."""
        self._kafka = kafka
        self._topic = topic
        self._registry = registry
        self._headers = event_headers(None) if registry is None else {}
        self._metrics = metrics

    @property
    def trouble(self) -> str | None:
        """Why events cannot be encoded yet; None: they can."""
        return None if self._headers else "the schema registry has not told the ids of the schemas yet"

    async def learn(self) -> None:
        """Ask the registry, until it answers; at once done without one."""
        while self._registry is not None and not self._headers:
            try:
                self._headers = event_headers(await asyncio.to_thread(self._registry.ids_for, self._topic))
            except RegistryTrouble as error:
                log.warning("waiting for the schema registry", reason=str(error))
                await asyncio.sleep(ASK_SECONDS)

    async def write(self, reading: Reading) -> None:
        """Publish what was read, all of it or (as far as Kafka lets us) none. Raises Refusal."""
        if self.trouble is not None:
            raise try_again(self.trouble, ASK_SECONDS, "send the request again after the time in Retry-After")
        records = [self._record(index, event) for index, event in enumerate(reading.events)]
        try:
            await self._kafka.write(records)
        except Refusal:
            self._metrics.refused(reading.events)
            raise
        self._metrics.accepted(reading)

    def _record(self, index: int, event: Event) -> KafkaRecord:
        try:
            body = event_body(event)
        except EncodeError as error:
            raise Refusal(400, f"{error.field}: {error.problem}", index=index, field=error.field) from None
        record = KafkaRecord(self._topic, partition_key(event), self._headers[type(event)] + body)
        if record.size_bytes > MAX_RECORD_BYTES:
            raise Refusal(
                413,
                f"the event has {record.size_bytes} bytes in Kafka, and the most is {MAX_RECORD_BYTES}",
                index=index,
                fix="send less with one event",
            )
        return record
