"""The events that all senders deliver: 5,000 visitors, drawn by a seed, so that each run has the same.

A visitor's events are numbered in the order of the topic (property `sequence`), which is what the receiver checks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from random import Random

from confluent_kafka import Producer

from flagpost_schemas import TrackEvent, encode_single_object

VISITORS = 5_000
ZIPF_EXPONENT = 1.1
SEED = 11
FLUSH_SECONDS = 120


class Skew(Enum):
    """How unequal the visitors are."""

    ZIPF = "zipf"
    UNIFORM = "uniform"

    @property
    def weights(self) -> list[float]:
        """Of each visitor, the hottest first."""
        if self is Skew.UNIFORM:
            return [1.0] * VISITORS
        return [rank**-ZIPF_EXPONENT for rank in range(1, VISITORS + 1)]

    @property
    def hottest_share(self) -> float:
        """The part of all events that the hottest visitor is expected to have."""
        weights = self.weights
        return weights[0] / sum(weights)


def draw(skew: Skew, events: int) -> list[int]:
    """The visitors of so many events, in turn; fewer events are the beginning of more."""
    return Random(SEED).choices(range(VISITORS), skew.weights, k=events)


def track_events(skew: Skew, events: int) -> Iterator[TrackEvent]:
    sequences: Counter[int] = Counter()
    for number, visitor in enumerate(draw(skew, events)):
        sequences[visitor] += 1
        yield TrackEvent(
            event_id=f"0192f5a0-0000-7000-8000-{number:012d}",
            occurred_at=time.time_ns() // 1_000_000,
            visitor_id=f"visitor-{visitor:028d}",
            event="product_added",
            properties={
                "sku": f"sku-{number % 1000:04d}",
                "price": 19.99,
                "currency": "EUR",
                "gift": False,
                "sequence": sequences[visitor],
            },
        )


def fill(bootstrap_servers: str, topic: str, skew: Skew, events: int) -> None:
    """Put the events into a topic, by the partitioner that all producers use; what is retried stays in order."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "log_level": 3,
        }
    )
    for event in track_events(skew, events):
        assert event.visitor_id is not None  # noqa: S101 - narrows the type
        producer.produce(topic, encode_single_object(event), event.visitor_id.encode())
        producer.poll(0)
    if producer.flush(FLUSH_SECONDS):
        raise SystemExit("Kafka did not take the events")
