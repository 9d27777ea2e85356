"""The librdkafka properties of the service's own clients.

In: the `kafka` section. Out: properties for the consumer and the producer: the user's, and over them those on
which the guarantees rest (the settings refuse the user's word on these).
"""

from __future__ import annotations

from typing import Any

from flagpost_consumer.settings import KafkaSettings
from flagpost_settings.kafka import GroupProtocol

MAX_POLL_INTERVAL_MS = 300_000
FETCH_QUEUE_KBYTES = 16_384
"""What librdkafka fetches ahead; its default of 64 MiB alone is half the memory that we promise."""
MAX_MESSAGE_BYTES = 100_000_000
"""As much as librdkafka allows: how large a dead letter may be is the topic's to say."""


def consumer_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the group's member."""
    session_ms = int(kafka.session_timeout_seconds * 1000)
    classic = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        # poll() may wait for requests in flight during a hand-over; it must outlast the session all the same.
        "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, session_ms),
    }
    # With KIP-848 the broker decides how partitions are assigned and how long a session is.
    by_broker = {"group.protocol": "consumer", "max.poll.interval.ms": MAX_POLL_INTERVAL_MS}
    return {
        "client.id": "flagpost",
        "queued.max.messages.kbytes": FETCH_QUEUE_KBYTES,
        **kafka.client_properties(),
        **(classic if kafka.group_protocol is GroupProtocol.CLASSIC else by_broker),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }


RESTORE_QUEUE_KBYTES = 4_096
RESTORE_FETCH_BYTES = 4_000_000
"""A restore reads no faster with more, and what it holds at once stays with the process."""


def restore_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the consumer that reads the ledger when partitions are assigned."""
    return {
        **reader_config(kafka),
        "queued.max.messages.kbytes": RESTORE_QUEUE_KBYTES,
        "fetch.max.bytes": RESTORE_FETCH_BYTES,
        "fetch.message.max.bytes": RESTORE_FETCH_BYTES // 8,
        "fetch.queue.backoff.ms": 5,  # by default fetching pauses for a second when the queue is full
    }


def reader_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of a consumer that reads by assign() and knows the group's commits; it joins nothing."""
    return {
        "client.id": "flagpost",
        "queued.max.messages.kbytes": FETCH_QUEUE_KBYTES,
        **kafka.client_properties(),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }


def producer_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of every producer of ours."""
    return {
        "client.id": "flagpost",
        "compression.type": "lz4",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        **kafka.client_properties(),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
    }
