"""A member's errors: librdkafka recovers from most; a fatal one, however it is told, ends the client."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagpost_consumer.adapters.kafka.group_errors import GroupErrors


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError._FATAL, "Fatal error: Broker: Group authorization failed"),
        KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True),
    ],
    ids=["by its code", "by its flag"],
)
def test_a_fatal_error_is_raised(error: KafkaError) -> None:
    """Before, one that came as a message, with the code alone, was only logged."""
    with pytest.raises(KafkaException) as raised:
        GroupErrors("events", "flagpost").report(error)
    assert raised.value.args[0].code() == error.code()


def test_any_other_error_is_logged() -> None:
    GroupErrors("events", "flagpost").report(KafkaError(KafkaError._TRANSPORT))
