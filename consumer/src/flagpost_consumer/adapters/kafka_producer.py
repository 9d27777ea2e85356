"""A Kafka producer for the event loop: what becomes of each message is told on the loop.

In: messages. Out: for each a call with its offset, or with the error. Until it comes, the message is on its way;
librdkafka tries again by itself as long as its configuration lets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from flagpost_settings.logs import kafka_logger

SERVE_SECONDS = 0.002
"""How often delivery reports are asked for while some are expected: sending waits for them (invariant 6)."""

OnReport = Callable[[KafkaError | None, int], None]
"""Takes the error, or None and the offset under which Kafka has the message."""


class KafkaProducer:
    """One librdkafka producer. Use it on the event loop only."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._producer = Producer(dict(config), logger=kafka_logger())
        self._expected = 0
        self._serving = False

    def serve(self) -> None:
        """Take in what the client has to say, also while nothing is written: it would pile up."""
        self._producer.poll(0)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        on_report: OnReport,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Sequence[tuple[str, str | bytes | None]] = (),
    ) -> None:
        """Write a message; `on_report` is called on the loop, at once where the client does not even take it.

        `partition` -1: by the key.
        """

        def report(error: KafkaError | None, message: Message) -> None:
            self._expected -= 1
            on_report(error, -1 if error is not None else message.offset() or 0)

        try:
            self._producer.produce(
                topic, value, key, partition=partition, headers=list(headers), on_delivery=report
            )
        except (BufferError, KafkaException) as error:
            full = KafkaError(KafkaError._QUEUE_FULL)  # noqa: SLF001 - librdkafka's public name
            on_report(error.args[0] if isinstance(error, KafkaException) else full, -1)
            return
        self._expected += 1
        if not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        """Take in delivery reports: their callbacks run here, on the loop."""
        self._producer.poll(0)
        self._serving = self._expected > 0
        if self._serving:
            asyncio.get_running_loop().call_later(SERVE_SECONDS, self._ask)
