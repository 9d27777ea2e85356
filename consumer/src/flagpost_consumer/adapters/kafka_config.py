"""The librdkafka properties of the service's own clients.

In: the `kafka` section. Out: properties for the consumer and the producer: the user's, and over them those on
which the guarantees rest (the settings refuse the user's word on these).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagpost_consumer.settings import KafkaSettings
from flagpost_settings.kafka import GroupProtocol

MAX_POLL_INTERVAL_MS = 300_000
FETCH_QUEUE_KBYTES = 16_384
"""What librdkafka fetches ahead; its default of 64 MiB alone is half the memory that we promise."""
FETCH_QUEUE_MESSAGES = 5_000
"""The same in messages of one partition; each costs some 330 bytes besides what is in it, and the default is
100,000."""
FETCH_QUEUE_BACKOFF_MS = 10
"""After which time a queue that was full is looked at again; the default of a second would starve its reader."""
FETCH_WAIT_MS = 100
"""How long a broker may hold a fetch that has nothing to bring. It answers one request of a connection after the
other: what a partition that has just been assigned asks for waits behind it, by default for half a second."""
FETCH_BYTES = 2_000_000
"""What one fetch brings of one broker, compressed as it is in the log."""
FETCH_PARTITION_BYTES = 256_000
"""The same of one partition."""
RECEIVE_BYTES = 4_000_000
"""The largest answer of a broker, and what a batch of zstd may become: librdkafka makes a message of every seven
bytes of it, if it has to. It guesses at the size in steps of three, so what becomes a third of this is read in any
case. A batch of zstd that becomes more is passed over as a gap; at one that has more in the log it is raised
(`receive_limit`). A producer with its default settings makes none beyond 1 MB."""
PROTOCOL_BYTES = 512
"""By how much an answer may be larger than what it brings, as librdkafka reckons."""
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
    properties = kafka.client_properties()
    return {
        "client.id": "flagpost",
        **_fetch_bounds(properties),
        **properties,
        **(classic if kafka.group_protocol is GroupProtocol.CLASSIC else by_broker),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }


def _fetch_bounds(properties: Mapping[str, str]) -> dict[str, Any]:
    """What bounds the memory of the service's consumers and their waits, where `properties` do not say otherwise.

    librdkafka wants them in order: message.max.bytes, fetch.max.bytes, receive.message.max.bytes.
    """
    fetch_bytes = max(FETCH_BYTES, *_numbers(properties, "message.max.bytes", "fetch.max.bytes"))
    return {
        "queued.max.messages.kbytes": FETCH_QUEUE_KBYTES,
        "queued.min.messages": FETCH_QUEUE_MESSAGES,
        "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "message.max.bytes": FETCH_BYTES,
        "fetch.max.bytes": fetch_bytes,
        "fetch.message.max.bytes": FETCH_PARTITION_BYTES,
        "receive.message.max.bytes": max(RECEIVE_BYTES, fetch_bytes + PROTOCOL_BYTES),
    }


def largest_batch_bytes(kafka: KafkaSettings) -> int:
    """What a batch of the events topic may have, and become, before the consumer needs more memory for it."""
    return int(consumer_config(kafka)["receive.message.max.bytes"])


def _numbers(properties: Mapping[str, str], *names: str) -> list[int]:
    """The values of some properties, where they are numbers; librdkafka says what is wrong with others."""
    return [int(value) for name in names if (value := properties.get(name, "0")).isdecimal()]


def stand_in_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the consumer that reads the partitions that stay during a hand-over."""
    return {**_fetch_bounds(kafka.client_properties()), **reader_config(kafka)}


IDLE_FETCH_WAIT_MS = 500
"""A record ends the wait; the more often a fetch that brings nothing comes back, the more it costs."""
RESTORE_QUEUE_KBYTES = 4_096
RESTORE_FETCH_BYTES = 500_000
"""A restore reads no faster with more, and what it holds at once stays with the process."""


def restore_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the consumer that reads the ledger when partitions are assigned."""
    return {
        **_fetch_bounds(kafka.client_properties()),
        **reader_config(kafka),
        "queued.max.messages.kbytes": RESTORE_QUEUE_KBYTES,
        "fetch.message.max.bytes": RESTORE_FETCH_BYTES,
        "fetch.queue.backoff.ms": 5,
    }


def idle_topic_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of a consumer that follows a topic to which hardly anything comes."""
    return {
        **_fetch_bounds(kafka.client_properties()),
        **reader_config(kafka),
        "queued.max.messages.kbytes": RESTORE_QUEUE_KBYTES,
        "fetch.wait.max.ms": IDLE_FETCH_WAIT_MS,
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
