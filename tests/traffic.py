"""Publishes events for the integration tests, and checks what Pendo received."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from confluent_kafka import Message, Producer

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Received, ReceivedLog
from flagpost_schemas import Event, encode_single_object, partition_key


@dataclass(frozen=True, slots=True)
class Published:
    """An event, and its partition and offset."""

    event: Event
    partition: int
    offset: int


def in_order(bootstrap_servers: str) -> dict[str, Any]:
    """The configuration of a producer that keeps the order, and chooses partitions as the publisher does.

    Not idempotent: librdkafka waits for half a second until it asks for a new producer's id.
    """
    return {
        "bootstrap.servers": bootstrap_servers,
        "partitioner": "murmur2_random",
        "max.in.flight.requests.per.connection": 1,
    }


def publish(bootstrap_servers: str, topic: str, events: Iterable[Event]) -> list[Published]:
    """Produce events in order, as the publisher would; returns each one's partition and offset."""
    producer = Producer({**in_order(bootstrap_servers), "linger.ms": 5})
    reported: list[tuple[int, int, int]] = []
    kept = list(events)

    def on_delivery(number: int, error: object, message: Message) -> None:
        assert error is None, error
        reported.append((number, message.partition() or 0, message.offset() or 0))

    for number, event in enumerate(kept):
        producer.produce(
            topic,
            encode_single_object(event),
            partition_key(event),
            on_delivery=lambda error, message, number=number: on_delivery(number, error, message),  # type: ignore[misc]
        )
        producer.poll(0)
    assert producer.flush(stretched(60)) == 0
    return [Published(kept[number], partition, offset) for number, partition, offset in sorted(reported)]


def produce(bootstrap_servers: str, topic: str, key: bytes, value: bytes, **options: Any) -> None:
    """Produce one record as it is."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(topic, value, key, **options)
    assert producer.flush(stretched(20)) == 0


def tracks(received: ReceivedLog) -> list[Received]:
    """Track requests in the order of their arrival."""
    return received.of(Endpoint.TRACK)


def check_spacing(received: ReceivedLog, interval_seconds: float) -> None:
    """Check that no two track requests of a visitor, retries included, arrived less than the interval apart."""
    by_visitor: dict[str | None, list[float]] = defaultdict(list)
    for request in tracks(received):
        by_visitor[request.visitor_id].append(request.at_seconds)
    for moments in by_visitor.values():
        for before, after in pairwise(moments):
            assert after - before >= interval_seconds
