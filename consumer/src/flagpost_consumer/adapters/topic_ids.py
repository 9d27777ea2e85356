"""Kafka's ids of topics: a topic that was deleted and made anew has another one.

In: a client's properties, a topic. Out: its id as text, or None where the broker does not tell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from flagpost_settings.logs import kafka_logger

CALL_SECONDS = 2.0


def read_topic_id(config: Mapping[str, Any], topic: str) -> str | None:
    """Ask for the id of `topic`; blocks for a few seconds at most. Brokers before 3.1 do not tell it."""
    admin = AdminClient(dict(config), logger=kafka_logger())
    try:
        (answer,) = admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_SECONDS).values()
        topic_id = answer.result(2 * CALL_SECONDS).topic_id
    except (KafkaException, TimeoutError):
        return None
    return None if topic_id is None else str(topic_id)
