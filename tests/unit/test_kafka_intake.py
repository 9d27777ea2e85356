"""The Kafka thread's rules, against a consumer that notes what is asked of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer, TopicPartition

from flagpost_consumer.adapters.kafka_intake import IntakeHandler, KafkaIntake


class NotingConsumer:
    """Notes which partitions are paused."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.calls = 0

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused |= {partition.partition for partition in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused -= {partition.partition for partition in partitions}


async def test_partitions_that_are_named_are_paused_besides() -> None:
    handler = cast("IntakeHandler", SimpleNamespace())
    intake = KafkaIntake({}, "events", handler, asyncio.get_running_loop())
    intake._owned.update({0, 1, 2})
    noting = NotingConsumer()
    consumer = cast("Consumer", cast("Any", noting))

    def paused_after(paused: bool, *partitions: int) -> set[int]:
        intake.pause(paused, partitions)
        intake._apply_pause(consumer, paused=intake._pause_wanted)
        return noting.paused

    assert paused_after(False, 1) == {1}
    assert paused_after(True, 1) == {0, 1, 2}
    assert paused_after(False, 1, 7) == {1}
    assert paused_after(False, 2) == {2}
    calls = noting.calls
    assert paused_after(False, 2) == {2}
    assert noting.calls == calls, "each call makes librdkafka fetch anew"
    assert paused_after(False) == set()
