"""The gateway's way to Kafka: writes records, and returns once Kafka has acknowledged all of them.

In: batches of records, on the event loop. Out: nothing once every in-sync replica has them, or a Refusal: 503 if
Kafka does not take them, soon and with Retry-After. librdkafka keeps the records meanwhile; one thread polls it, and
passes reports to the loop many at a time. What may wait in memory is bounded in number and bytes. A client that fails
for good is replaced by `flagpost_kafka`, without effect on requests in flight.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagpost_kafka import errors, rights
from flagpost_kafka.batches import batch_bytes
from flagpost_kafka.lasting_producer import LastingProducer, Limits, ProducedRecord
from flagpost_publisher.gateway.chores import until_done
from flagpost_publisher.gateway.refusals import Refusal, try_again
from flagpost_publisher.producer import GUARANTEES, librdkafkas
from flagpost_settings.kafka import KafkaSettings
from flagpost_settings.logs import Lately, kafka_logger

log = structlog.get_logger(__name__)

ACKNOWLEDGE_SECONDS: Final = 8.0
"""How long a request may wait for Kafka; Segment's libraries give up after 10 to 15."""
WRITE_AGAIN_SECONDS: Final = ACKNOWLEDGE_SECONDS / 2
"""How long a record is written again when a client ends: its sender is still waiting then."""
MAX_QUEUED_RECORDS: Final = 50_000
MAX_QUEUED_BYTES: Final = 32 * 1024 * 1024
"""Each record takes about 500 bytes more: 57 MB in all, of the 256 MiB that the chart gives."""
MAX_RECORD_BYTES: Final = 1_000_000
"""Key and value of one record; by default Kafka's topics take 1,048,588 bytes including the batch around it."""
POLL_SECONDS: Final = 0.1
"""How long the thread waits for reports at a time; the first report wakes it."""
LOOK_SECONDS: Final = 0.5
LOOK_TIMEOUT_SECONDS: Final = 2.0
"""The pause between two checks whether Kafka is back, and how long one may take."""
BEAT_SECONDS: Final = 30.0
"""A thread that makes no progress for this long counts as dead."""
RETRY_WHEN_FULL_SECONDS: Final = 1
RETRY_WHEN_AWAY_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """One record to write."""

    topic: str
    key: str | bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size_bytes(self) -> int:
        """The approximate bytes in memory."""
        return len(self.value) + len(self.key or b"") + sum(len(n) + len(v) for n, v in self.headers)


@dataclass(frozen=True, slots=True)
class KafkaCounts:
    """The results of records so far, and how many wait."""

    acknowledged: int
    failed: int
    queued: int
    queued_bytes: int


class _Batch:
    """Records that are acknowledged together, or not at all."""

    __slots__ = ("error", "left", "settled")

    def __init__(self, count: int) -> None:
        self.left = count
        self.error: KafkaError | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle_one(self, error: KafkaError | None) -> None:
        """One of them was acknowledged, or has failed."""
        self.left -= 1
        self.error = self.error or error
        if self.left == 0 and not self.settled.done():
            self.settled.set_result(None)


def writer_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Configuration of librdkafka, without callbacks; the user's properties override the defaults.

    Raises:
        SettingsError: a file of `kafka.properties_files` cannot be read.
    """
    return {
        "client.id": "flagpost-gateway",
        "compression.type": "lz4",
        "batch.size": batch_bytes(min(kafka.max_event_bytes, MAX_RECORD_BYTES)),
        "reconnect.backoff.max.ms": 1000,  # with the default a broker that is back may be left alone for 10 s
        **librdkafkas(kafka.client_properties()),
        **GUARANTEES,
        # The sender waits for an answer: what Kafka does not take in time should not reach it much later.
        "message.timeout.ms": int(ACKNOWLEDGE_SECONDS * 1000),
        "message.max.bytes": MAX_RECORD_BYTES + 1000,  # with the headers and the framing of a record
        # Our limits decide; librdkafka's also count reports that were not handled yet.
        "queue.buffering.max.messages": 2 * MAX_QUEUED_RECORDS,
        "queue.buffering.max.kbytes": 2 * MAX_QUEUED_BYTES // 1024,
        "delivery.report.only.error": False,
    }


class KafkaWriter:
    """One producer. Use it on the event loop; call `start` first, and `stop` at the end."""

    def __init__(
        self, config: Mapping[str, Any], topics: Sequence[str], on_fatal: Callable[[], None]
    ) -> None:
        """Makes no connection.

        Args:
            config: see `writer_config`.
            topics: those that must exist before anything is accepted.
            on_fatal: called on the loop when the thread that polls Kafka's client has failed; the process should end.
        """
        self._config = config
        self._topics = topics
        self._on_fatal = on_fatal
        self._loop: asyncio.AbstractEventLoop
        self._producer: LastingProducer
        self._last_fatal = ""
        self._thread = Thread(target=self._listen, name="flagpost-gateway-kafka", daemon=True)
        self._stopping = Flag()
        self._beat = 0.0
        self._reports: deque[tuple[_Batch, int, KafkaError | None]] = deque()
        self._handing_over = False
        self._lately = Lately()
        self._looking: asyncio.Task[None] | None = None
        self.trouble: str | None = "Kafka has not been reached yet"
        """Why Kafka takes no events; None: it does."""
        self._acknowledged = 0
        self._failed = 0
        self._queued = 0
        self._queued_bytes = 0
        self._drained = asyncio.Event()
        self._drained.set()

    def start(self) -> None:
        """Start connecting."""
        self._loop = asyncio.get_running_loop()
        limits = Limits(
            records=MAX_QUEUED_RECORDS, bytes=MAX_QUEUED_BYTES, give_up_seconds=WRITE_AGAIN_SECONDS
        )
        self._producer = LastingProducer(
            self._config, limits, self._error, topics=self._topics, logger=kafka_logger()
        )
        self._beat = time.monotonic()
        self._thread.start()
        self._looking = self._loop.create_task(self._look_until_well())

    async def stop(self, limit_seconds: float) -> bool:
        """Wait for the outstanding acknowledgements; returns whether all came in time."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._drained.wait()
        except TimeoutError:
            log.warning("not acknowledged in time by Kafka", records=self._queued)
        if self._looking is not None:
            self._looking.cancel()
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        return self._queued == 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread makes progress."""
        return time.monotonic() - self._beat < BEAT_SECONDS

    def counts(self) -> KafkaCounts:
        """The results of the records so far."""
        return KafkaCounts(self._acknowledged, self._failed, self._queued, self._queued_bytes)

    async def write(self, records: Sequence[KafkaRecord]) -> None:
        """Write all records to Kafka. Raises Refusal: then some may be there and some not; all may be sent again."""
        if not records:
            return
        self._admit(records)
        batch = _Batch(len(records))
        for record in records:
            self._produce(record, batch)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await batch.settled
        except TimeoutError:
            self._in_trouble(f"Kafka acknowledged nothing for {ACKNOWLEDGE_SECONDS:g} s")
            raise self._away() from None
        if batch.error is not None:
            raise self._refused(batch.error)

    def _admit(self, records: Sequence[KafkaRecord]) -> None:
        if self.trouble is not None:
            raise self._away()
        size = sum(record.size_bytes for record in records)
        if self._queued + len(records) > MAX_QUEUED_RECORDS or self._queued_bytes + size > MAX_QUEUED_BYTES:
            raise try_again(
                "Kafka accepts events more slowly than they arrive, and no more may wait",
                RETRY_WHEN_FULL_SECONDS,
                "send the request again after the time in Retry-After",
            )

    def _refused(self, error: KafkaError) -> Refusal:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:  # it says nothing about other requests
            return Refusal(
                413,
                "a record is larger than its topic allows",
                fix="send smaller events, or raise the topic's max.message.bytes",
            )
        self._in_trouble(f"Kafka did not accept a record: {error.str()}")
        return self._away()

    def _away(self) -> Refusal:
        return try_again(
            "Kafka does not accept events at the moment",
            RETRY_WHEN_AWAY_SECONDS,
            "send the request again after the time in Retry-After, with the same event ids",
        )

    def _produce(self, record: KafkaRecord, batch: _Batch) -> None:
        size = record.size_bytes
        self._queued += 1
        self._queued_bytes += size
        self._drained.clear()
        try:
            self._producer.produce(
                record.topic,
                record.value,
                partial(self._reported, batch, size),
                key=record.key,
                headers=record.headers,
            )
        except BufferError:
            self._settle(batch, size, KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001 - librdkafka's public name

    def _settle(self, batch: _Batch, size: int, error: KafkaError | None) -> None:
        self._queued -= 1
        self._queued_bytes -= size
        if error is None:
            self._acknowledged += 1
        else:
            self._failed += 1
        batch.settle_one(error)
        if self._queued == 0:
            self._drained.set()

    def _take_reports(self) -> None:
        self._handing_over = False  # before the last check: a report that comes now calls again
        while self._reports:
            self._settle(*self._reports.popleft())

    # Whether Kafka takes events

    def _in_trouble(self, why: str) -> None:
        if self.trouble is None:
            log.warning("Kafka does not accept events; requests are answered 503", reason=why)
            self._looking = self._loop.create_task(self._look_until_well(LOOK_SECONDS))
        self.trouble = why

    async def _look_until_well(self, pause_seconds: float = 0.0) -> None:
        """Check until nothing is wrong, first after `pause_seconds`."""
        await asyncio.sleep(pause_seconds)
        await until_done("looking whether Kafka is back", self._is_well, LOOK_SECONDS)

    async def _is_well(self) -> bool:
        trouble = await asyncio.to_thread(self._look)
        if trouble is None:
            log.info("Kafka accepts events")
        elif trouble != self.trouble:
            log.warning("waiting for Kafka", reason=trouble)
        self.trouble = trouble
        return trouble is None

    def _look(self) -> str | None:
        """Why Kafka takes no events, according to the client and its metadata; takes a while."""
        if not self._producer.is_well:
            return f"no Kafka client could be created: {self._last_fatal}"
        for topic in self._topics:
            try:
                found = self._producer.list_topics(topic, LOOK_TIMEOUT_SECONDS).topics[topic].error
            except KafkaException as error:
                return f"Kafka does not answer: {error.args[0].str()}; check kafka.bootstrap_servers"
            if found is not None:
                return errors.of_topic(found, rights.writes(topic))
        return None

    # In the thread, which also runs librdkafka's callbacks

    def _listen(self) -> None:
        try:
            while not self._stopping.is_set():
                self._producer.poll(POLL_SECONDS)
                self._beat = time.monotonic()
        except Exception:
            log.exception("the thread that listens to Kafka has failed; the process ends")
            self._beat = -math.inf
            self._loop.call_soon_threadsafe(self._on_fatal)

    def _reported(
        self, batch: _Batch, size: int, error: KafkaError | None, _: ProducedRecord, __: int
    ) -> None:
        self._reports.append((batch, size, error))
        if not self._handing_over:
            self._handing_over = True
            self._loop.call_soon_threadsafe(self._take_reports)

    def _error(self, error: KafkaError) -> None:
        if errors.is_fatal(error):
            if self._lately.is_news(error.str()):
                log.error(
                    "the Kafka client failed for good and is replaced; waiting records are written again",
                    reason=error.str(),
                )
            self._last_fatal = error.str()
            if (
                error.code() in errors.RIGHTS_AND_TOPICS
            ):  # otherwise the next client would have the same error
                self._loop.call_soon_threadsafe(
                    self._in_trouble, f"no Kafka client could be created: {error.str()}"
                )
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name
            self._loop.call_soon_threadsafe(self._in_trouble, "no broker can be reached")
