"""librdkafka's producer, configured for Flagpost, for the library and for the gateway.

In: the publisher's options, or a program's properties. Out: a configuration, or ValueError if librdkafka refuses the
user's properties.
"""

from __future__ import annotations

import logging
import re
from math import inf
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from flagpost_kafka.batches import batch_bytes
from flagpost_publisher.complaints import log
from flagpost_publisher.registry import REGISTRY_PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flagpost_publisher.arguments import Options

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Limit of the waiting bytes in memory, besides `queue_max_messages`; a property can set librdkafka's part."""

LINGER_MS: Final = 20
"""How long librdkafka waits for more events for a batch. Each batch wakes its threads, which costs the application's
cores: for a busy service 33 us an event at librdkafka's default of 5 ms, and 20 us at this.
"""

GUARANTEES: Final = {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"}
"""Set in every producer of ours (docs/contract.md#topics)."""

client_log = logging.getLogger(f"{log.name}.kafka")
"""Gets librdkafka's log lines when a property asks for them: they never go to stderr by themselves."""


def librdkafkas(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The user's properties for librdkafka, without those for the schema registry."""
    return {name: value for name, value in properties.items() if name not in REGISTRY_PROPERTIES}


def producer_config(options: Options) -> dict[str, Any]:
    """Configuration of librdkafka, without callbacks; the user's properties override the defaults."""
    return {
        "client.id": "flagpost-publisher",
        "log_level": 0,  # `error_cb` reports what matters
        "compression.type": "lz4",
        "linger.ms": LINGER_MS,
        "batch.size": batch_bytes(options.max_event_bytes),
        "queue.buffering.max.kbytes": MAX_QUEUED_BYTES // 1024,
        **librdkafkas(options.properties),
        "bootstrap.servers": options.bootstrap_servers,
        **GUARANTEES,
        "queue.buffering.max.messages": options.queue_max_messages,
        "delivery.report.only.error": True,
    }


def message_timeout_seconds(properties: Mapping[str, Any]) -> float:
    """How long librdkafka tries to write an event before it counts as failed; its default is 300 s, 0 is for ever."""
    given = properties.get("message.timeout.ms", properties.get("delivery.timeout.ms", 300_000))
    return int(given) / 1000 or inf


def require_usable(config: Mapping[str, Any]) -> None:
    """Raise ValueError if librdkafka refuses `config`; the text shows no value, because it may be a secret.

    A producer without brokers is created and dropped: it makes no connection, and no thread is left when this
    returns, so that a fork may follow.
    """
    try:
        Producer({**config, "bootstrap.servers": ""}, logger=client_log)
    except (KafkaException, TypeError, ValueError) as error:
        detail = error.args[0] if error.args else error
        text = detail.str() if isinstance(detail, KafkaError) else str(detail)
        shown = _VALUE.sub("the value", text)
        raise ValueError(f"properties: {shown}; see librdkafka's CONFIGURATION.md") from None


_VALUE: Final = re.compile('value "[^"]*"')
