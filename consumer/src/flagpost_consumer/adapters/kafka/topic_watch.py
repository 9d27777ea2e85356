"""Asks Kafka about topics through a second client: are they still the same, and where do partitions end?

In: the ids of topics, the partitions whose end the intake's client may not know. Out: the ends of these partitions.
Runs in its own thread with its own client, so that no late answer delays reading.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from flagpost_consumer.adapters.kafka.renewed_admin import RenewedAdmin
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds

log = structlog.get_logger(__name__)

ENDS_SECONDS = 2.0
"""How often to ask for the ends of partitions, in one request for all of them."""
IDS_SECONDS = 5.0
"""How often to ask for the ids of topics: a topic may be created anew with as many records, and then no offset shows
it. What is read of it until then is read once more.
"""
MOST_IDS_SECONDS = 60.0
"""A broker that does not tell ids is asked more and more rarely, but at least this often."""
CALL_SECONDS = 2.0
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Watched(Protocol):
    """The part of the intake that is watched."""

    @property
    def ends_wanted(self) -> Collection[int]:
        """Partitions that are ours and whose end the client may not know."""

    def know_ends(self, ends: Mapping[int, int]) -> None:
        """Note where partitions end."""


class TopicWatch:
    """One process's watch on its topics."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        ids: TopicIds,
        intake: Watched,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admin = RenewedAdmin(config)
        self._topic = topic
        self._ids = ids
        self._intake = intake
        self._monotonic = monotonic
        self._stopped = threading.Event()
        self._ids_due = monotonic() + IDS_SECONDS
        self._ids_pause = IDS_SECONDS
        self._thread = threading.Thread(target=self._run, name="flagpost-topics", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(ENDS_SECONDS):
            try:
                self.look()
            except Exception:
                log.exception("the topics could not be looked at; it is retried")

    def look(self) -> None:
        """Ask for what is due now."""
        if numbers := self._intake.ends_wanted:
            self._intake.know_ends(self._ends_of(numbers))
        if self._monotonic() >= self._ids_due:
            answered = self._ids.ask()
            self._ids_pause = IDS_SECONDS if answered else min(2 * self._ids_pause, MOST_IDS_SECONDS)
            self._ids_due = self._monotonic() + self._ids_pause

    def _ends_of(self, numbers: Collection[int]) -> dict[int, int]:
        """The ends of the partitions whose leader answers."""
        answers = self._admin.client().list_offsets(
            {TopicPartition(self._topic, number): LATEST for number in numbers},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=CALL_SECONDS,
        )
        ends = {}
        for partition, answer in answers.items():
            try:
                ends[partition.partition] = answer.result(2 * CALL_SECONDS).offset
            except (KafkaException, TimeoutError):
                continue
        if not ends:
            self._admin.renew()
        return ends
