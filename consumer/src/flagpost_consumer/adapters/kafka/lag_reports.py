"""Reports how far each partition is behind, and notices a client that returns no records although there are some.

In: the ends of partitions that Kafka's client knows, and those that another client asked for (`topic_watch`). Out:
lag, to the event loop; the partitions whose ends should be asked for; a request to replace the client. Only the Kafka
thread calls it.
"""

from __future__ import annotations

import asyncio
import time
from math import inf

import structlog
from confluent_kafka import Consumer, TopicPartition

from flagpost_consumer.adapters.kafka.client_replacement import ClientReplacement
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler, Lag
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.reading_silence import ReadingSilence

log = structlog.get_logger(__name__)

LAG_SECONDS = 1.0
TOLD_SECONDS = 10.0
"""How long an end that another client asked for is used; while a partition is paused, until the next one."""


class LagReports:
    """The reports of one process."""

    def __init__(
        self,
        topic: str,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
        partitions: OwnedPartitions,
        replacement: ClientReplacement,
    ) -> None:
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._partitions = partitions
        self._replacement = replacement
        self._silence = ReadingSilence()
        self._due = 0.0
        self.ends_wanted: frozenset[int] = frozenset()
        """Partitions that are ours and whose end Kafka's client may not know: it does not read them now, or returns
        no records of them.
        """

    def report_if_due(self, consumer: Consumer) -> None:
        """Tell the lag of all partitions that are read, every `LAG_SECONDS`."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + LAG_SECONDS
        lag, unknown = {}, set()
        for number, reading in self._partitions.readings.items():
            _, cached = consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            if cached < 0 or not self._partitions.flows(number):  # the client learns of an end as it fetches
                unknown.add(number)
            end = max(cached, self._told_end(number, now))
            if end >= 0:
                lag[number] = Lag(end, reading.next_offset, reading.position)
        self._note_silence(now)
        self.ends_wanted = frozenset(unknown | self._silence.asked(now))
        self._loop.call_soon_threadsafe(self._handler.on_lag, lag)

    def forget_client(self) -> None:
        """Another client reads from now on."""
        self.ends_wanted = frozenset()

    def _told_end(self, number: int, now: float) -> int:
        """The end of a partition that another client asked for; -1: too long ago, or never."""
        end, told_at = self._partitions.told_ends.get(number, (-1, -inf))
        return end if now - told_at <= TOLD_SECONDS or not self._partitions.flows(number) else -1

    def _note_silence(self, now: float) -> None:
        """Have the client replaced if it does not return the records that Kafka says there are."""
        partitions = self._partitions
        searches = partitions.unreadable.searches
        reads = {
            n: each for n, each in partitions.readings.items() if partitions.flows(n) and n not in searches
        }
        ends = {n: end for n in reads if (end := self._told_end(n, now)) >= 0}
        self._silence.note({n: reading.position for n, reading in reads.items()}, ends, now)
        if not self._replacement.reason and (silent := self._silence.silent(now)):
            for n in sorted(silent):
                log.error(
                    "Kafka's client returns no records", partition=n, position=reads[n].position, end=ends[n]
                )
            self._silence.replaced(now)
            self._replacement.ask("it returns no records of some partitions that have some")
