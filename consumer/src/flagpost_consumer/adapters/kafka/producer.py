"""A Kafka producer for the event loop: the result of each record is reported on the loop.

In: records. Out: for each a call with its offset, or with the error. Until then the record is in flight: librdkafka
retries by itself as long as its configuration allows, and after a fatal error another producer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, Producer

from flagpost_kafka import errors
from flagpost_kafka.lasting_producer import LastingProducer, Limits
from flagpost_settings.logs import Lately, kafka_logger

log = structlog.get_logger(__name__)

SERVE_SECONDS = 0.002
"""How often to ask for delivery reports while some are expected: sending waits for them
(docs/guarantees.md#sent-twice).
"""
SILENT_SERVE_SECONDS = 0.02
"""The same while Kafka has reported nothing for a while."""
MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""The most bytes that may wait inside librdkafka, or for its successor; callers stay well below it."""
MAX_QUEUED_RECORDS = 100_000

OnReport = Callable[[KafkaError | None, int], None]
"""Called with the error, or with None and the offset of the record."""


class KafkaProducer:
    """One producer. Use it on the event loop only."""

    def __init__(self, config: Mapping[str, Any], topic: str, purpose: str) -> None:
        """`topic`: the only topic that it writes to; `purpose` says in the log what it writes."""
        self._topic = topic
        self._purpose = purpose
        self._lately = Lately()
        self._producer = LastingProducer(
            {"queue.buffering.max.kbytes": MAX_QUEUED_BYTES // 1024, **config},
            Limits(records=MAX_QUEUED_RECORDS, bytes=MAX_QUEUED_BYTES),
            self._trouble,
            topics=[topic],
            logger=kafka_logger(),
            make=Producer,
        )
        self._expected = 0
        self._serving = False
        self._pause_seconds = SERVE_SECONDS

    def serve(self) -> None:
        """Handle the client's reports, also while nothing is written: they would pile up."""
        self._producer.poll()

    def recall(self) -> None:
        """Have everything that was not sent yet reported as purged."""
        self._producer.recall()

    def renew(self) -> None:
        """Go on with another client: a topic was created anew, and this one may look for it in the wrong place."""
        log.info("a Kafka client is replaced: its topic was created anew", writes=self._purpose)
        self._producer.renew()

    def produce(
        self,
        value: bytes | None,
        on_report: OnReport,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Sequence[tuple[str, str | bytes | None]] = (),
    ) -> None:
        """Write a record; `on_report` is called on the loop, at once if there is no room for the record.

        `partition` -1: by the key.
        """
        try:
            self._producer.produce(
                self._topic,
                value,
                lambda error, _, offset: self._report(error, offset, on_report),
                key=key,
                partition=partition,
                headers=headers,
            )
        except BufferError:
            on_report(KafkaError(KafkaError._QUEUE_FULL), -1)  # noqa: SLF001 - librdkafka's public name
            return
        self._expected += 1
        self._pause_seconds = SERVE_SECONDS
        if not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _report(self, error: KafkaError | None, offset: int, on_report: OnReport) -> None:
        self._expected -= 1
        on_report(error, offset)

    def _ask(self) -> None:
        """Ask for delivery reports: their callbacks run here, on the loop."""
        before = self._expected
        try:
            self._producer.poll()
        finally:
            silent = self._expected == before
            self._pause_seconds = (
                min(2 * self._pause_seconds, SILENT_SERVE_SECONDS) if silent else SERVE_SECONDS
            )
            self._serving = self._expected > 0
            if self._serving:
                asyncio.get_running_loop().call_later(self._pause_seconds, self._ask)

    def _trouble(self, error: KafkaError) -> None:
        if not self._lately.is_news((error.code(), error.str())):
            return
        if errors.is_fatal(error):
            log.error(
                "a Kafka client failed for good and is replaced; unacknowledged records are written again",
                writes=self._purpose,
                reason=error.str(),
            )
        else:
            log.info("a Kafka client reports an error", writes=self._purpose, reason=error.str())
