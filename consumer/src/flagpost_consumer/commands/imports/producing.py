"""Writes records to the events topic, and tracks which rows Kafka has.

In: records with their row's line. Out: how many Kafka has acknowledged, and a call for each one that it refuses. If
there is no room it waits: the queue is bounded, and nothing is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, Producer

from flagpost_consumer.adapters.kafka.config import producer_config
from flagpost_consumer.commands.imports.row_events import Produced
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable, unavailable
from flagpost_consumer.commands.sources.kafka_clients import silent_client
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import errors
from flagpost_kafka.batches import batch_bytes
from flagpost_kafka.lasting_producer import LastingProducer, Limits, ProducedRecord
from flagpost_kafka.rights import Operation
from flagpost_settings.logs import kafka_logger

POLL_SECONDS = 0.1
SERVED_EVERY = 128
"""Records between two polls; reports wait in librdkafka meanwhile."""

TUNING = {
    "linger.ms": 20,
    "queue.buffering.max.messages": 50_000,
    "queue.buffering.max.kbytes": 65_536,
    "message.timeout.ms": 60_000,
}
"""Full batches, and constant memory. The user's properties win."""

MAX_BATCH_BYTES = 1_000_000
"""librdkafka's default: `kafka.max_event_bytes` may be more than the topic takes."""

LIMITS = Limits(records=50_000, bytes=64 * 1024 * 1024, give_up_seconds=60.0)
"""For records that wait while a failed client is replaced."""

STALLED_SECONDS = 120.0
"""How long Kafka may report nothing about waiting records; the user may have set message.timeout.ms to for ever."""

OnRefused = Callable[[int, str], None]
"""Called with the row's line, and why Kafka refuses its record."""
OnTaken = Callable[[int, int, int], None]
"""Called with the row's line, and the partition and offset of its record."""


def row_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the producer, without callbacks."""
    most = batch_bytes(min(kafka.max_event_bytes, MAX_BATCH_BYTES))
    return {**TUNING, "batch.size": most, **producer_config(kafka)}


class RowProducer:
    """The producer of one import. Not thread-safe."""

    def __init__(self, kafka: KafkaSettings, on_refused: OnRefused, on_taken: OnTaken | None = None) -> None:
        """Connects, and checks that the topic exists.

        Raises:
            SettingsError: librdkafka refuses a property.
            KafkaUnavailable: Kafka does not answer, or has no such topic.
        """
        self._servers = kafka.bootstrap_servers or ""
        self._topic = kafka.topic
        self._on_refused = on_refused
        self._on_taken = on_taken
        self._refused: list[tuple[int, str]] = []
        self._failure: KafkaUnavailable | None = None
        self._offered = 0
        self._waiting = 0
        self._heard_at = time.monotonic()
        self.acknowledged = 0
        """Records that Kafka has."""
        self._producer = LastingProducer(
            row_config(kafka),
            LIMITS,
            self._trouble,
            topics=[kafka.topic],
            logger=kafka_logger(),
            make=lambda config, **_: silent_client(Producer, config),
        )
        if KafkaAdmin(kafka).partitions(self._topic, Operation.WRITE) is None:
            raise KafkaUnavailable(f"there is no topic {self._topic}; create it: flagpost topics create")

    def offer(self, line: int, record: Produced) -> bool:
        """Hand a record over; False if there was no room for it, after a while: offer it again.

        Raises:
            KafkaUnavailable: Kafka accepts no more; some of the records handed over may be missing.
        """
        try:
            self._producer.produce(self._topic, record.value, partial(self._reported, line), key=record.key)
        except BufferError:
            self._serve(POLL_SECONDS)
            return False
        self._waiting += 1
        self._offered += 1
        if self._offered % SERVED_EVERY == 0:
            self._serve(0)
        return True

    def finish(self) -> None:
        """Wait until Kafka has reported on every record.

        Raises:
            KafkaUnavailable: as for `offer`.
        """
        self._serve(0)
        while self._waiting:
            self._serve(POLL_SECONDS)

    def _serve(self, seconds: float) -> None:
        self._producer.poll(seconds)
        refused, self._refused = self._refused, []
        for line, problem in refused:
            self._on_refused(line, problem)
        if self._failure is None and time.monotonic() - self._heard_at > STALLED_SECONDS and self._waiting:
            silent = f"Kafka has not answered for {self._waiting:,} records within {STALLED_SECONDS:g} s"
            self._failure = KafkaUnavailable(f"{self._servers}: {silent}")
        if self._failure is not None:
            raise self._failure

    def _reported(self, line: int, error: KafkaError | None, record: ProducedRecord, offset: int) -> None:
        self._heard_at = time.monotonic()
        self._waiting -= 1
        if error is None:
            self.acknowledged += 1
            if self._on_taken is not None:
                self._on_taken(line, record.partition, offset)
        else:
            self._note(line, error)

    def _note(self, line: int, error: KafkaError) -> None:
        if error.code() in errors.RECORDS:
            problem = f"Kafka refuses the row: {error.str()}; see max.message.bytes of {self._topic}"
            self._refused.append((line, problem))
        elif self._failure is None:
            self._failure = unavailable(self._servers, error, f"the row of line {line}")

    def _trouble(self, error: KafkaError) -> None:
        """A failed client is replaced; a command does not wait for a missing right."""
        if errors.is_fatal(error) and error.code() in errors.RIGHTS_AND_TOPICS and self._failure is None:
            self._failure = unavailable(self._servers, error)


class DryRun:
    """Replaces the producer if nothing is to be produced."""

    acknowledged = 0

    def offer(self, line: int, record: Produced) -> bool:
        """Count what would be produced."""
        del line, record
        self.acknowledged += 1
        return True

    def finish(self) -> None:
        """There is nothing to wait for."""
