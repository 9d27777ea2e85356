"""Looks at Kafka's topics from beside the intake: are they still the same, and where do partitions end?

In: the ids of topics, the partitions of which Kafka's client may not know the end. Out: the ends of these partitions.
Runs in a thread of its own with a client of its own, so that no answer that is late holds up reading.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from flagpost_consumer.adapters.topic_ids import TopicIds
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

ENDS_SECONDS = 2.0
"""How often the ends of partitions are asked for, in one request for all of them."""
IDS_SECONDS = 5.0
"""How often topics are asked for their ids: a topic may be made anew with as many records, and then no offset
surprises. What is read of it until then is read once more."""
MOST_IDS_SECONDS = 60.0
"""A broker that does not tell ids is asked less and less often, at least this often."""
CALL_SECONDS = 2.0
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Watched(Protocol):
    """The intake, as far as it is watched."""

    @property
    def ends_wanted(self) -> Collection[int]:
        """Partitions that are ours and of which the client may not know the end."""

    def know_ends(self, ends: Mapping[int, int]) -> None:
        """Where partitions end."""


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
        self._config = dict(config)
        self._topic = topic
        self._ids = ids
        self._intake = intake
        self._monotonic = monotonic
        self._stopped = threading.Event()
        self._admin: AdminClient | None = None
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
                log.exception("the topics could not be looked at; it is tried again")

    def look(self) -> None:
        """Ask for what is due now."""
        if numbers := self._intake.ends_wanted:
            self._intake.know_ends(self._ends_of(numbers))
        if self._monotonic() >= self._ids_due:
            answered = self._ids.ask()
            self._ids_pause = IDS_SECONDS if answered else min(2 * self._ids_pause, MOST_IDS_SECONDS)
            self._ids_due = self._monotonic() + self._ids_pause

    def _ends_of(self, numbers: Collection[int]) -> dict[int, int]:
        """The ends of those partitions whose leader answers."""
        if self._admin is None:
            self._admin = AdminClient(self._config, logger=kafka_logger())
        answers = self._admin.list_offsets(
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
        return ends
