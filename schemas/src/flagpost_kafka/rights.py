"""Rights of Kafka's users by name: Kafka says that one is missing, and not which.

In: an error of Kafka's, and the rights that the call needs. Out: the same error, whose text names the right that is
missing as Kafka's own tools do: `Write on Topic flagpost.ledger`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from confluent_kafka import KafkaError


class Operation(StrEnum):
    """What a user may do. Read and Write imply Describe."""

    CREATE = "Create"
    DELETE = "Delete"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    READ = "Read"
    WRITE = "Write"


class Resource(StrEnum):
    """What a user may do it on."""

    TOPIC = "Topic"
    GROUP = "Group"
    TRANSACTIONAL_ID = "TransactionalId"


class Right(NamedTuple):
    """An operation on a resource."""

    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


MISSING: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Resource.TOPIC,
    KafkaError.GROUP_AUTHORIZATION_FAILED: Resource.GROUP,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Resource.TRANSACTIONAL_ID,
    # What a producer is told that may write to no topic at all.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Resource.TOPIC,
}
"""The errors that speak of a missing right, and on what kind of resource."""


def reads(topic: str) -> Right:
    """What reading a topic needs."""
    return Right(Operation.READ, Resource.TOPIC, topic)


def writes(topic: str) -> Right:
    """What writing to a topic needs."""
    return Right(Operation.WRITE, Resource.TOPIC, topic)


def joins(group: str) -> Right:
    """What joining a group, and committing for it, needs."""
    return Right(Operation.READ, Resource.GROUP, group)


def is_missing(error: KafkaError) -> bool:
    """Whether an error says that a right is missing."""
    return error.code() in MISSING


def is_of_group(error: KafkaError | None) -> bool:
    """Whether an error speaks of the group alone: who reads by assign() needs no right on it."""
    return error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def named(error: KafkaError, *needed: Right) -> KafkaError:
    """The error; where it says that a right is missing, with those of `needed` that it may mean in its text."""
    meant = [str(right) for right in needed if right.resource is MISSING.get(error.code())]
    if not meant:
        return error
    text = f"{error.str().rstrip('.')}: this user needs {' and '.join(meant)}"
    return KafkaError(error.code(), text, error.fatal(), error.retriable(), error.txn_requires_abort())
