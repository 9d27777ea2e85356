"""Which of the ledger's settlements count: those that one group wrote about one events topic.

In: the id of the topic, if Kafka tells it; settlements. Out: whether they count. The ledger may have settlements of
several topics of the same name, because a topic that was created again has another id (decision 0026).
"""

from __future__ import annotations

from flagpost_consumer.adapters.kafka.topic_ids import read_topic_id
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements


class TopicUnknown(KafkaUnavailable):
    """Kafka does not tell the id of a topic, and the ledger has settlements of several topics of its name."""


def present_topic_id(kafka: KafkaSettings) -> str | None:
    """Ask Kafka for the id of the events topic; blocks for a few seconds at most. None: it does not tell it."""
    # librdkafka's own lines would go to stderr unchanged.
    return read_topic_id({**kafka.client_properties(), "log_level": 0}, kafka.topic)


class OwnSettlements:
    """Tells them from those of other groups and other topics.

    Until Kafka tells the id, the topic is taken to be the first that a record of the ledger names.
    """

    def __init__(self, kafka: KafkaSettings, topic_id: str | None) -> None:
        """`topic_id`: as Kafka tells it; None: it does not."""
        self._kafka = kafka
        self._topic_id = topic_id
        self._is_told = topic_id is not None

    @classmethod
    def asking(cls, kafka: KafkaSettings) -> OwnSettlements:
        """Ask Kafka for the topic's id; blocks for a few seconds at most."""
        return cls(kafka, present_topic_id(kafka))

    def include(self, settlements: Settlements) -> bool:
        """Whether these settlements count. Records of older releases name no topic; they count.

        Raises:
            TopicUnknown: they are about another topic than earlier ones, and Kafka does not tell which it is.
        """
        if settlements.group != self._kafka.group_id:
            return False
        if settlements.topic_id is None:
            return True
        if self._topic_id is None:
            self._topic_id = settlements.topic_id
        if settlements.topic_id == self._topic_id:
            return True
        if self._is_told:
            return False
        raise TopicUnknown(
            f"the ledger {self._kafka.ledger_topic} has settlements of several topics that were named "
            f"{self._kafka.topic}, and Kafka does not tell the id of the present one; try again when it does"
        )

    def agree(self, topic_id: str | None) -> bool:
        """Take the id that Kafka tells now (None: it tells none); returns whether earlier results of `include` are
        right.
        """
        if topic_id is None:
            return True
        if self._topic_id not in (None, topic_id):
            return False
        self._topic_id, self._is_told = topic_id, True
        return True
