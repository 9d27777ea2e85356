"""A member's errors: librdkafka recovers from most; another client takes its place after one that is fatal."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagpost_consumer.adapters.kafka.client_replacement import ClientReplacement
from flagpost_consumer.adapters.kafka.group_errors import GroupErrors


@pytest.mark.parametrize(
    ("error", "is_due"),
    [
        (KafkaError(KafkaError._FATAL, "Fatal error: Broker: Group authorization failed"), True),
        (KafkaError(KafkaError._TRANSPORT), False),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), False),
    ],
    ids=["fatal", "of the connection", "of a right"],
)
def test_a_client_that_can_do_nothing_more_is_replaced(error: KafkaError, is_due: bool) -> None:
    """Before, it was only logged. With the protocol of KIP-848, a right to the group that was missing for a moment
    left a client that did nothing until records had waited for a minute.
    """
    replacement = ClientReplacement()
    GroupErrors("events", "flagpost", replacement).report(error)
    assert replacement.is_due() is is_due


def test_a_fatal_error_that_is_marked_as_one_is_raised() -> None:
    with pytest.raises(KafkaException):
        GroupErrors("events", "flagpost", ClientReplacement()).report(
            KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True)
        )
