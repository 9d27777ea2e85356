"""What a Kafka error is about: a topic, a right, the connection.

In: librdkafka's error codes. Out: sets of them.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from flagpost_kafka.rights import Right, named

PRODUCERS: Final = frozenset(
    {
        KafkaError._FATAL,  # noqa: SLF001 - librdkafka's public name, as are those below
        KafkaError._FENCED,  # noqa: SLF001
        KafkaError._GAPLESS_GUARANTEE,  # noqa: SLF001
        KafkaError._INCONSISTENT,  # noqa: SLF001
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
"""The producer is at fault, not the record: it has to be replaced."""

RECORDS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION}
)
"""Kafka refuses this record while it takes others."""

NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001
"""There is no topic of this name."""

RIGHTS_AND_TOPICS: Final = NO_TOPIC | {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""Somebody has to grant a right or create a topic; then Kafka takes the record."""

PASSING: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._DESTROY_BROKER,  # noqa: SLF001
    }
)
"""A partition or a group has no leader yet, or another one, or its broker is starting: the same request succeeds a
moment later. A broker that is not admitted to its cluster yet names no brokers, and librdkafka gives up those that it
knew (`_DESTROY_BROKER`).
"""

NO_ANSWER: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001
"""No answer has come."""

PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001
"""Taken back before Kafka answered."""


def of_topic(error: KafkaError, needed: Right) -> str:
    """What is wrong with a topic, and what to do: a topic that may not be seen is not the same as a missing one."""
    if error.code() in NO_TOPIC:
        return f"there is no topic {needed.name}; create it: flagpost topics create"
    return named(error, needed).str()


def is_fatal(error: KafkaError) -> bool:
    """Whether a librdkafka client cannot do anything more."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL  # noqa: SLF001
