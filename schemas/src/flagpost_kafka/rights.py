"""Names the rights of Kafka's users: Kafka says that one is missing, but not which.

In: an error of Kafka's, and the rights that the call needs. Out: the same error, whose text names the missing right
like Kafka's own tools: `Write on Topic flagpost.ledger`.
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
    """What the right is for."""

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
    # The error of a producer that may write to no topic at all.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Resource.TOPIC,
}
"""The errors about a missing right, and the kind of resource."""


def reads(topic: str) -> Right:
    """The right to read a topic."""
    return Right(Operation.READ, Resource.TOPIC, topic)


def writes(topic: str) -> Right:
    """The right to write to a topic."""
    return Right(Operation.WRITE, Resource.TOPIC, topic)


def joins(group: str) -> Right:
    """The right to join a group, and to commit for it."""
    return Right(Operation.READ, Resource.GROUP, group)


def is_missing(error: KafkaError) -> bool:
    """Whether an error says that a right is missing."""
    return error.code() in MISSING


def is_of_group(error: KafkaError | None) -> bool:
    """Whether an error is only about the group: reading by assign() needs no right to it."""
    return error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def named(error: KafkaError, *needed: Right) -> KafkaError:
    """The error; if it is about a missing right, its text names the possible ones of `needed`."""
    meant = [str(right) for right in needed if right.resource is MISSING.get(error.code())]
    if not meant:
        return error
    text = f"{error.str().rstrip('.')}: this user needs {' and '.join(meant)}"
    return KafkaError(error.code(), text, error.fatal(), error.retriable(), error.txn_requires_abort())
