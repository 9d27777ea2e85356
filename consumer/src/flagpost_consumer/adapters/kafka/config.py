"""The librdkafka properties of the service's own clients.

In: the `kafka` section. Out: properties for the consumer and the producer: the user's, overridden by those on which
the guarantees depend (the settings refuse these from users).
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
"""The same in messages of one partition; each costs about 330 bytes besides its contents, and the default is
100,000.
"""
FETCH_QUEUE_BACKOFF_MS = 10
"""When a queue that was full is looked at again; with the default of a second its reader would starve."""
FETCH_WAIT_MS = 200
"""How long a broker may hold a fetch without results. It answers the requests of a connection one after the other:
the fetch for a newly assigned partition waits behind it, by default for half a second. New records end the wait at
once.
"""
FETCH_BYTES = 2_000_000
"""How much one fetch returns from one broker, compressed as in the log."""
FETCH_PARTITION_BYTES = 256_000
"""The same for one partition."""
RECEIVE_BYTES = 4_000_000
"""The largest answer of a broker, and the largest size of a decompressed zstd batch: in the worst case librdkafka
makes a message of every seven bytes of it. It guesses the size in steps of three, so a batch that decompresses to a
third of this is always read. A zstd batch that decompresses to more is passed over as a gap; for a batch that is
larger in the log the limit is raised (`receive_limit`). A producer with default settings makes none over 1 MB.
"""
PROTOCOL_BYTES = 512
"""How much larger an answer may be than its contents, according to librdkafka."""
MAX_MESSAGE_BYTES = 100_000_000
"""As large as librdkafka allows: the topic decides how large a dead letter may be."""


def consumer_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the group's member."""
    session_ms = int(kafka.session_timeout_seconds * 1000)
    classic = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        # poll() may wait for requests in flight during a hand-over; its limit must still be longer than the session.
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
    """The limits of the memory and the waits of the service's consumers, unless `properties` say otherwise.

    librdkafka needs them in this order: message.max.bytes, fetch.max.bytes, receive.message.max.bytes.
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
    """How large a batch of the events topic may be, also decompressed, before the consumer needs more memory
    for it.
    """
    return int(consumer_config(kafka)["receive.message.max.bytes"])


def _numbers(properties: Mapping[str, str], *names: str) -> list[int]:
    """The properties that are numbers; librdkafka reports the others."""
    return [int(value) for name in names if (value := properties.get(name, "0")).isdecimal()]


def stand_in_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of the consumer that reads the partitions that stay during a hand-over."""
    return {**_fetch_bounds(kafka.client_properties()), **reader_config(kafka)}


IDLE_FETCH_WAIT_MS = 500
"""A record ends the wait; each fetch that returns nothing costs CPU."""
STRETCH_QUEUE_MESSAGES = 2_000
"""For each partition; whoever reads stretches often reads all partitions at once."""
STRETCH_WAIT_MS = 50
"""A partition's end is known from an answer without messages, for which a person waits."""
RESTORE_QUEUE_KBYTES = 4_096
RESTORE_FETCH_BYTES = 500_000
"""A restore reads no faster with more, and the memory that it uses at once is not returned by the process."""


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
    """Properties of a consumer that follows a topic with few records."""
    return {
        **_fetch_bounds(kafka.client_properties()),
        **reader_config(kafka),
        "queued.max.messages.kbytes": RESTORE_QUEUE_KBYTES,
        "fetch.wait.max.ms": IDLE_FETCH_WAIT_MS,
    }


def reader_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of a consumer that reads by assign() and knows the group's commits, but is not a member."""
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


def stretch_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of a reader of long stretches: what it fetches ahead is bounded, but not what it can read.

    Without the bound in messages librdkafka holds 100,000 of each partition, which is 300 MB for 24 of them.
    """
    bounds = _fetch_bounds(kafka.client_properties())
    del bounds["receive.message.max.bytes"]
    return {
        **bounds,
        "queued.min.messages": STRETCH_QUEUE_MESSAGES,
        "fetch.wait.max.ms": STRETCH_WAIT_MS,
        **reader_config(kafka),
    }


def producer_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Properties of all our producers."""
    return {
        "client.id": "flagpost",
        "compression.type": "lz4",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        **kafka.client_properties(),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
    }
