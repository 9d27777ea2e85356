"""The largest answer that a consumer accepts from a broker, and when this limit grows."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka.receive_limit import (
    LIBRDKAFKAS_BYTES,
    MOST_BYTES,
    PROPERTY,
    ReceiveLimit,
)


def refused(size_bytes: int) -> KafkaError:
    """Return librdkafka's error about an answer that is too large."""
    text = f"k:9092/1: Receive failed: Invalid response size {size_bytes} (0..4000000): increase {PROPERTY}"
    return KafkaError(KafkaError._BAD_MSG, text)


def limit_of(size_bytes: int | str) -> ReceiveLimit:
    return ReceiveLimit({PROPERTY: size_bytes})


@pytest.mark.parametrize(
    ("size_bytes", "limit"), [(4_000_001, 8_000_000), (8_000_000, 8_000_000), (60_000_000, 64_000_000)]
)
def test_it_doubles_until_the_refused_answer_fits(size_bytes: int, limit: int) -> None:
    receive_limit = limit_of("4000000")
    receive_limit.hear(refused(size_bytes))
    assert receive_limit.is_too_small
    assert receive_limit.grow() == receive_limit.grow() == limit
    assert receive_limit.within({"a": 1, PROPERTY: 5}) == {"a": 1, PROPERTY: limit}


def test_the_largest_refused_answer_counts() -> None:
    receive_limit = limit_of(4_000_000)
    receive_limit.hear(refused(20_000_000))
    receive_limit.hear(refused(5_000_000))
    assert receive_limit.needed_bytes == 20_000_000


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError._BAD_MSG, "a message is damaged"),
        KafkaError(KafkaError._TRANSPORT, "Invalid response size 6000000"),
        KafkaError(KafkaError._ALL_BROKERS_DOWN),
        refused(4_000_000),
    ],
)
def test_other_errors_change_nothing(error: KafkaError) -> None:
    receive_limit = limit_of(4_000_000)
    receive_limit.hear(error)
    assert not receive_limit.is_too_small
    assert receive_limit.grow() == 4_000_000


def test_it_grows_at_most_to_what_librdkafka_allows() -> None:
    receive_limit = limit_of(MOST_BYTES - 1)
    receive_limit.hear(refused(MOST_BYTES + 5))
    assert receive_limit.grow() == MOST_BYTES
    assert not receive_limit.is_too_small


def test_the_default_is_librdkafkas() -> None:
    assert ReceiveLimit({}).within({}) == {PROPERTY: LIBRDKAFKAS_BYTES}
