"""Kafka's ids of topics: a topic that was deleted and created anew has another one.

In: a client's properties, the topics. Out: their ids as text, or None if the broker does not tell them; and each
topic whose id has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from flagpost_consumer.adapters.kafka.renewed_admin import RenewedAdmin
from flagpost_settings.logs import kafka_logger

CALL_SECONDS = 2.0


def read_topic_id(config: Mapping[str, Any], topic: str) -> str | None:
    """Ask for the id of `topic`; blocks for a few seconds at most. Brokers before 3.1 do not tell it."""
    return _describe(AdminClient(dict(config), logger=kafka_logger()), [topic]).get(topic)


class TopicIds:
    """The last known ids of some topics. Any thread may use it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        on_told: Callable[[str, str, str | None], object],
    ) -> None:
        """`on_told` is called with (topic, its id, its id before) whenever a topic's id has changed; in the thread
        that asked, before `ask` returns.
        """
        self._admin = RenewedAdmin(config)
        self._topics = list(topics)
        self._on_told = on_told
        self._lock = threading.Lock()
        self._ids: dict[str, str] = {}

    def get(self, topic: str) -> str | None:
        """The last known id of a topic."""
        return self._ids.get(topic)

    def ask(self) -> Collection[str]:
        """Ask Kafka; returns the topics whose id it told. Blocks for a few seconds at most."""
        with self._lock:
            told = _describe(self._admin.client(), self._topics)
            if not told:
                self._admin.renew()
            for topic, topic_id in told.items():
                before = self._ids.get(topic)
                if topic_id != before:
                    self._ids[topic] = topic_id
                    self._on_told(topic, topic_id, before)
        return told.keys()


def _describe(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """The ids of those topics for which the broker tells one."""
    told = {}
    for topic, answer in admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=CALL_SECONDS
    ).items():
        try:
            topic_id = answer.result(2 * CALL_SECONDS).topic_id
        except (KafkaException, TimeoutError):
            continue
        if topic_id is not None:
            told[topic] = str(topic_id)
    return told
