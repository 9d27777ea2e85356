"""What happens inside poll() and close() when the group assigns, revokes or takes away partitions.

In: librdkafka's rebalance callbacks. Out: calls on the event loop, last commits, partitions held or given up. Only
the Kafka thread runs them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeAlias

import structlog
from confluent_kafka import Consumer, TopicPartition

from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.kafka.offset_commits import OffsetCommits
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.stand_in import StandIn
from flagpost_consumer.adapters.kafka.topic_lookup import TopicLookup
from flagpost_consumer.core.books.deliveries import Position

log = structlog.get_logger(__name__)

STAND_IN_SECONDS = 0.3
"""After waiting this long for a hand-over, another consumer reads the partitions that stay."""

Callback: TypeAlias = Callable[[Consumer, list[TopicPartition]], None]


class RebalanceCallbacks:
    """The callbacks of the group's member."""

    def __init__(
        self,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
        partitions: OwnedPartitions,
        commits: OffsetCommits,
        lookup: TopicLookup,
        stand_in: StandIn | None,
        stop: threading.Event,
    ) -> None:
        """Without a `stand_in`, the partitions that stay wait for a hand-over. `stop` ends the Kafka thread."""
        self._handler = handler
        self._loop = loop
        self._partitions = partitions
        self._commits = commits
        self._lookup = lookup
        self._stand_in = stand_in
        self._stop = stop
        self.joined = False
        """Whether the group has given this client an assignment, even an empty one."""
        self.leaving = False
        """Whether the client is leaving the group: what stays is not read any more."""
        self.failure: BaseException | None = None
        """The first exception that a callback raised."""

    def subscribe(self, consumer: Consumer, topic: str, unless_gone: Callable[[Callback], Callback]) -> None:
        """Join the group; `unless_gone` makes a callback that does nothing once the client was let go."""
        consumer.subscribe(
            [topic],
            on_assign=unless_gone(self._guarded(self._on_assign)),
            on_revoke=unless_gone(self._guarded(self._on_revoke)),
            on_lost=unless_gone(self._guarded(self._on_lost)),
        )

    def forget_client(self) -> None:
        """Another client is to join the group."""
        self.joined = self.leaving = False

    def _guarded(self, callback: Callback) -> Callback:
        """A callback that raises inside poll() loses messages: end the thread instead."""

        def run(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                callback(consumer, partitions)
            except BaseException as error:
                log.exception("rebalance callback failed")
                self._stop.set()
                self.failure = self.failure or error

        return run

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        count = self._lookup.count_with(numbers)
        assignment = self._partitions.assigned(numbers)
        self._loop.call_soon_threadsafe(self._handler.on_assigned, numbers, count, assignment)
        # Partitions are given to the client once it is known where to begin.
        consumer.incremental_assign([])
        self.joined = True

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        handing_over = asyncio.run_coroutine_threadsafe(self._handler.on_revoked(sorted(numbers)), self._loop)
        self._serve_others(consumer, numbers, handing_over)
        self._commits.commit_last(consumer, handing_over.result())
        self._partitions.give_up(consumer, numbers)

    def _serve_others(
        self, consumer: Consumer, leaving: set[int], handing_over: Future[dict[int, Position]]
    ) -> None:
        """Have the partitions that stay read while those that leave are handed over, if that takes long."""
        wait([handing_over], STAND_IN_SECONDS)
        staying = self._partitions.readings.keys() - leaving
        if handing_over.done() or self._stop.is_set() or self.leaving or not staying:
            return
        if self._stand_in is None:
            return
        log.info(
            "the hand-over takes long: a second consumer reads the partitions that stay",
            leaving=sorted(leaving),
            staying=sorted(staying),
        )
        self._stand_in.read(consumer, staying, lambda: handing_over.done() or self._stop.is_set())

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        self._loop.call_soon_threadsafe(self._handler.on_lost, sorted(numbers))
        self._partitions.give_up(consumer, numbers)
