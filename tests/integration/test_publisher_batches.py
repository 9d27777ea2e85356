"""The Publisher's batches, on a real broker: a topic may limit them to little more than one event."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from deadlines import stretched
from flagpost_publisher import Publisher
from real_kafka.broker import KafkaBroker

pytestmark = [pytest.mark.kafka]

EVENTS = 1_000
HALF_FULL = 32_768
"""Bytes: two such events and their framing are more than the largest event."""


@pytest.mark.parametrize(("events", "size"), [(EVENTS, 300), (50, HALF_FULL), (20, 65_000)])
def test_events_reach_a_topic_that_takes_the_largest_of_them(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], events: int, size: int
) -> None:
    """librdkafka made batches of up to 1,000,000 bytes, and of those that the topic refused every event was lost."""
    topic = fresh_name("narrow")
    kafka.create_topics(topic, partitions=1, config={"max.message.bytes": "66000"})
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        for _ in range(events):  # random, so that they do not become small when they are compressed
            assert publisher.track("v", "page", {"text": os.urandom(size // 2).hex()[:size]})
        assert publisher.flush(stretched(60)) == 0
        assert publisher.stats().delivered == events
