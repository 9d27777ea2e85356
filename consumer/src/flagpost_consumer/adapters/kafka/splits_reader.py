"""Reads the traffic allocations that publishers report in the topic of impressions.

In: the topic, beginning with its last hour. Out, on the event loop: each report's splits. Runs in its own thread with
its own consumer, by assign(): every process needs all reports, and each publisher sends one a minute at most.

Nothing waits for it. If it cannot read, it retries; until then the known splits are expected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.kafka.config import idle_topic_config
from flagpost_consumer.adapters.kafka.topic_thread import TopicThread
from flagpost_consumer.core.splits.experiments import Experiment, splits_of
from flagpost_consumer.core.splits.sample_ratio import Shares
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import reach, rights
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

Told = Callable[[Experiment, Shares, int], None]
"""An experiment, its split, and when it was reported, epoch ms."""

CALL_SECONDS = 5.0
POLL_SECONDS = 0.5
RETRY_SECONDS = 30.0
LOOK_SECONDS = 600.0
"""After this time it begins again with a new client: the topic may have more partitions, or be a new one."""
BACK_SECONDS = 3600.0
"""Publishers report once a minute while there is anything to report."""


class SplitsReader(TopicThread):
    """One process's reader of the topic of impressions."""

    def __init__(self, kafka: KafkaSettings, topic: str, loop: asyncio.AbstractEventLoop, told: Told) -> None:
        """`told` is called on `loop`."""
        super().__init__("flagpost-splits", loop)
        self._kafka = kafka
        self._topic = topic
        self._told = told
        self._trouble = ""

    # The thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._serve()
            except KafkaException as error:
                self._lack(rights.named(error.args[0], rights.reads(self._topic)).str())
            except Exception as error:
                log.exception("the topic of impressions could not be read; it is retried")
                self._lack(type(error).__name__)
            else:
                continue
            self._stopped.wait(RETRY_SECONDS)

    def _serve(self) -> None:
        """Read for a while. Raises KafkaException."""
        consumer = Consumer(idle_topic_config(self._kafka), logger=kafka_logger())
        try:
            consumer.assign(self._hour(consumer))
            ends_at = time.monotonic() + LOOK_SECONDS
            while not self._stopped.is_set() and time.monotonic() < ends_at:
                for message in self._came(consumer, POLL_SECONDS):
                    self._take(message)
        finally:
            reach.close(consumer, waits=self._stopped.is_set())

    def _hour(self, consumer: Consumer) -> list[TopicPartition]:
        """Where the last hour of each partition begins."""
        found = consumer.list_topics(self._topic, timeout=CALL_SECONDS).topics[self._topic]
        if found.error is not None:
            raise KafkaException(found.error)
        since_ms = int((time.time() - BACK_SECONDS) * 1000)
        wanted = [TopicPartition(self._topic, number, since_ms) for number in found.partitions]
        return consumer.offsets_for_times(wanted, timeout=CALL_SECONDS)

    def _take(self, message: Message) -> None:
        """Pass on the splits of a report."""
        if message.error() is not None:  # the end of a partition
            self._lack("")
            return
        at_ms, splits = splits_of(message.value())
        for experiment, shares in splits:
            self._tell(self._told, experiment, shares, at_ms)

    def _lack(self, trouble: str) -> None:
        """Log what is wrong, if it has changed; empty: nothing is."""
        if trouble and trouble != self._trouble:
            log.warning(
                "the traffic allocation that publishers report cannot be read; it is retried",
                topic=self._topic,
                reason=trouble,
            )
        self._trouble = trouble
