"""What the service writes to Kafka for people: dead letters.

In: settlements whose outcome is dead_lettered. Out: a record on the dead-letter topic for each, and word of its
acknowledgement. What Kafka does not take is tried again without end; until then its delivery stays pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka_producer import KafkaProducer
from flagpost_consumer.core.records import Headers, Settlement

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
MAX_DETAIL_CHARACTERS = 300
HEADER_PREFIX = "flagpost-"


class DeadLetters:
    """The dead-letter topic."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        source_topic: str,
        on_written: Callable[[Settlement], None],
    ) -> None:
        # A batch that is too large fails as a whole: alone, a record answers for its own size only.
        self._producer = KafkaProducer({**config, "batch.num.messages": 1})
        self._topic = topic
        self._source_topic = source_topic
        self._on_written = on_written

    def serve(self) -> None:
        """Take in what the client has to say."""
        self._producer.serve()

    def write(self, settlement: Settlement) -> None:
        """Write a dead letter; `on_written` is called on the loop once Kafka has it."""
        self._produce(settlement, truncated=settlement.delivery.record.truncated)

    def _produce(self, settlement: Settlement, *, truncated: bool) -> None:
        record = settlement.delivery.record
        headers = dead_letter_headers(settlement, self._source_topic)
        if truncated:
            headers.append(("flagpost-truncated", b"true"))
        self._producer.produce(
            self._topic,
            None if truncated else record.value,
            lambda error, _: self._reported(settlement, error, truncated=truncated),
            key=record.key,
            headers=headers,
        )

    def _reported(self, settlement: Settlement, error: KafkaError | None, *, truncated: bool) -> None:
        if error is None:
            self._on_written(settlement)
            return
        too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        log.warning(
            "dead letter not taken; it is tried again",
            reason=error.str(),
            partition=settlement.delivery.record.partition,
            offset=settlement.delivery.record.offset,
        )
        asyncio.get_running_loop().call_later(
            RETRY_SECONDS, lambda: self._produce(settlement, truncated=truncated or too_large)
        )


def dead_letter_headers(settlement: Settlement, source_topic: str) -> list[tuple[str, str | bytes | None]]:
    """The original's headers, without ours of an earlier death, and those of CONTRACT section 8."""
    delivery, ending = settlement.delivery, settlement.ending
    record = delivery.record
    ours = {
        "reason": ending.reason.value,
        "detail": ending.detail[:MAX_DETAIL_CHARACTERS],
        "kind": delivery.kind.value,
        "source": f"{source_topic}/{record.partition}/{record.offset}",
        "attempts": str(delivery.attempts),
        "at": str(settlement.settled_at_ms),
    }
    if delivery.status is not None:
        ours["status"] = str(delivery.status)
    original: Headers = tuple(h for h in record.headers if not h[0].startswith(HEADER_PREFIX))
    return [*original, *((HEADER_PREFIX + name, text.encode()) for name, text in ours.items())]
