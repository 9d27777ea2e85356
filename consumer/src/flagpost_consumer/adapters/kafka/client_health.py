"""Whether the group's client still does its work, or another one has to take its place.

In: the client's errors, and what it answers when it is asked for the group and the topic. Out: when to replace it.
librdkafka may lose its coordinator or all its brokers (`flagpost_kafka.reach`), or know a leader wrongly, for as long
as it lives. Only the Kafka thread uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.client_replacement import ClientReplacement
from flagpost_consumer.adapters.kafka.contact import KafkaContact
from flagpost_consumer.adapters.kafka.group_silence import GroupSilence
from flagpost_consumer.adapters.kafka.receive_limit import ReceiveLimit
from flagpost_consumer.adapters.kafka.topic_lookup import TopicLookup
from flagpost_kafka import reach
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

GROUP_SECONDS = 2.0
"""How long a member that owns nothing waits for an answer of its group."""


class ClientHealth:
    """The health of one process's client, and of those that replace it."""

    def __init__(
        self, config: Mapping[str, Any], topic: str, session_seconds: float, lookup: TopicLookup
    ) -> None:
        self._config = dict(config)
        self._topic = topic
        self._lookup = lookup
        self.receive_limit = ReceiveLimit(config)
        self.group = GroupSilence(session_seconds)
        self._contact = KafkaContact(topic)
        self.replacement = ClientReplacement()

    @property
    def group_is_silent(self) -> bool:
        """Whether the group answers the present client no more."""
        return self.group.is_silent(clock().monotonic)

    def hear(self, error: KafkaError) -> None:
        """Note an error of the client, whatever it is about: librdkafka's `error_cb`."""
        self.receive_limit.hear(error)
        self._contact.hear(error)

    def finds_topic(self, consumer: Consumer) -> bool:
        """Ask for the topic, and log what is missing."""
        missing = self._lookup.missing(consumer)
        self._contact.found(missing)
        return not missing

    def look(self, consumer: Consumer, *, owns: bool) -> None:
        """Ask the group and Kafka what is due to be asked. `owns`: whether there are positions to commit."""
        self._listen_for_group(consumer, owns=owns)
        if self._contact.asks():
            self.finds_topic(consumer)

    def is_replacement_due(self) -> bool:
        """Whether another client is to take this one's place now."""
        if self.receive_limit.is_too_small:
            log.error(
                "a batch is larger than the consumer accepts: it joins the group again with a higher limit",
                bytes=self.receive_limit.needed_bytes,
                limit=self.receive_limit.grow(),
            )
            return True
        return self.replacement.is_due()

    def forget_client(self) -> None:
        """Another client has taken its place: nothing is known of that one."""
        self.group.begin()
        self.replacement.happened()

    def _listen_for_group(self, consumer: Consumer, *, owns: bool) -> None:
        """Have the client replaced if the group does not answer it although Kafka does."""
        now = clock().monotonic
        self.group.note(now, owns=owns)
        if self.group.asks_group(now) and self._group_answers(consumer):
            self.group.heard(now)
        if self.group.asks(now):
            answered = not self._lookup.missing(consumer) or not self._missing_for_a_new_client()
            now = clock().monotonic
            self.group.asked(now, answered=answered)
        if self.group.is_silent(now):
            self.replacement.ask("the group takes no commit, or does not answer, although Kafka does")

    def _missing_for_a_new_client(self) -> str:
        """What a new client misses: this one may have lost its brokers (`flagpost_kafka.reach`)."""
        new = Consumer({**self._config, "log_level": 0}, logger=kafka_logger())
        try:
            return self._lookup.missing(new)
        finally:
            reach.let_go(new.close)

    def _group_answers(self, consumer: Consumer) -> bool:
        """Ask for a committed position, which only the group's coordinator knows."""
        try:
            consumer.committed([TopicPartition(self._topic, 0)], timeout=GROUP_SECONDS)
        except KafkaException:
            return False
        return True
