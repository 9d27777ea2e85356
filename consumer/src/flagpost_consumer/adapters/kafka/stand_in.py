"""A second consumer, which reads the partitions that stay while others are handed over.

In: the partitions that stay, and when the hand-over has ended. Out: their messages, read like the member's. The
group's member reads nothing before its callback has ended. The stand-in belongs to no group. Only the Kafka thread
runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException

from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.receive_limit import ReceiveLimit
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)


class StandIn:
    """Makes a stand-in for each hand-over that takes long."""

    def __init__(
        self,
        config: Mapping[str, Any],
        receive_limit: ReceiveLimit,
        partitions: OwnedPartitions,
        go_round: Callable[[Consumer, Consumer], None],
    ) -> None:
        """`go_round` does what the loop asks of the member (the first argument), and reads once with the other."""
        self._config = config
        self._receive_limit = receive_limit
        self._partitions = partitions
        self._go_round = go_round

    def read(self, member: Consumer, staying: Collection[int], is_over: Callable[[], bool]) -> None:
        """Read the partitions that stay until `is_over`; on an error of Kafka's they wait."""
        self._partitions.unreadable.searches.clear()
        try:
            self._read(member, staying, is_over)
        except KafkaException as error:
            log.warning("partitions that stay are not read during the hand-over", reason=error.args[0].str())

    def _read(self, member: Consumer, staying: Collection[int], is_over: Callable[[], bool]) -> None:
        config = self._receive_limit.within(self._config)
        client = Consumer({**config, "error_cb": self._receive_limit.hear}, logger=kafka_logger())
        try:
            self._partitions.hand_to_stand_in(client, staying)
            while not is_over():
                self._go_round(member, client)
        finally:
            self._partitions.handing_over = False
            client.close()
