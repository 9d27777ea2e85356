"""The properties of the service's own Kafka clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer

from flagpost_consumer.adapters.kafka.config import (
    FETCH_QUEUE_KBYTES,
    RECEIVE_BYTES,
    consumer_config,
    restore_config,
    stand_in_config,
    stretch_config,
)
from flagpost_consumer.commands.imports.producing import row_config
from flagpost_consumer.settings import KafkaSettings

CONFIGS = [consumer_config, restore_config, stand_in_config]


@pytest.mark.parametrize("config", [*CONFIGS, stretch_config])
@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"message.max.bytes": "10000000"},
        {"fetch.max.bytes": "20000000"},
        {"receive.message.max.bytes": "50000000"},
        {"queued.min.messages": "1"},
    ],
)
def test_librdkafka_accepts_them_whatever_the_user_sets(
    config: Callable[[KafkaSettings], dict[str, Any]], properties: dict[str, str]
) -> None:
    made = config(KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties))
    assert made.items() >= properties.items()
    Consumer({**made, "log_level": 0}).close()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_memory_of_a_consumer_is_bounded(config: Callable[[KafkaSettings], dict[str, Any]]) -> None:
    """Before the fix, 31 KB of zstd became 1.7 GB: a batch might become 100 MB, and each 7 bytes of it a message."""
    made = config(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    assert int(made["receive.message.max.bytes"]) == RECEIVE_BYTES
    assert int(made["queued.max.messages.kbytes"]) <= FETCH_QUEUE_KBYTES
    assert int(made["queued.min.messages"]) <= 5_000


def test_a_reader_of_long_stretches_fetches_little_ahead_and_reads_whatever_is_there() -> None:
    """By default, 100,000 messages of each partition wait in memory: 300 MB for 24 partitions."""
    made = stretch_config(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    assert int(made["queued.max.messages.kbytes"]) <= FETCH_QUEUE_KBYTES
    assert int(made["queued.min.messages"]) <= 2_000
    assert "receive.message.max.bytes" not in made


@pytest.mark.parametrize(
    ("settings", "most_bytes"),
    [
        ({}, 65_536),
        ({"max_event_bytes": 2_000_000}, 1_000_000),
        ({"properties": {"batch.size": "500000"}}, 500_000),
    ],
)
def test_a_batch_of_an_import_fits_a_topic_that_takes_the_largest_row(
    settings: dict[str, Any], most_bytes: int
) -> None:
    """Before the fix, a topic of less than a megabyte refused batches of small rows."""
    made = row_config(KafkaSettings(bootstrap_servers="127.0.0.1:1", **settings))
    assert int(made["batch.size"]) == most_bytes
