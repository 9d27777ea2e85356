"""A Publisher whose Kafka client fails for good, or may not write: no event is lost, and on_error is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event as Flag
from typing import Any

import pytest
from confluent_kafka import KafkaError

from deadlines import await_until, stretched
from flagpost_publisher import KafkaTrouble, Publisher, PublisherError, kafka_output
from flagpost_schemas import DecisionEvent, Decoder, TrackEvent
from mock_kafka import FATAL, INIT_PRODUCER_ID, PRODUCE, MockKafka

PATIENCE_SECONDS = 60.0
TOPIC = "flagpost.events"

DECISION = DecisionEvent(
    event_id="1",
    occurred_at=0,
    visitor_id="v",
    flag_key="f",
    enabled=True,
    variation_key="a",
    decision_event_dispatched=True,
)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({TOPIC: 2}) as kafka:
        yield kafka


@pytest.fixture
def told() -> list[PublisherError]:
    return []


@pytest.fixture
def publisher(kafka: MockKafka, told: list[PublisherError]) -> Iterator[Publisher]:
    on_error: Any = told.append
    publisher = Publisher(bootstrap_servers=kafka.bootstrap_servers, on_error=on_error)
    yield publisher
    publisher.close(0)


def eventually(reached: Callable[[], object]) -> None:
    await_until(reached, PATIENCE_SECONDS)


def steps(kafka: MockKafka) -> list[str]:
    """Return the names of the track events on the topic, each once, in order."""
    decoder = Decoder()
    found = [decoder.decode(message.value() or b"") for message in kafka.read(TOPIC)]
    assert all(isinstance(event, TrackEvent) for event in found)
    return list(dict.fromkeys(event.event for event in found if isinstance(event, TrackEvent)))


def test_a_fatal_error_loses_no_event_and_is_reported(
    kafka: MockKafka, publisher: Publisher, told: list[PublisherError]
) -> None:
    """Before the fix, it ended the thread: nothing was delivered or reported, and later events were refused."""
    assert publisher.track("v", "first")
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    kafka.answer(PRODUCE, FATAL)
    names = [f"step {number}" for number in range(200)]
    for name in names:
        assert publisher.track("v", name)
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    assert publisher.track("v", "last")
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0

    assert steps(kafka) == ["first", *names, "last"]
    stats = publisher.stats()
    assert (stats.accepted, stats.delivered, stats.failed, stats.refused) == (202, 202, 0, 0)
    eventually(lambda: any(isinstance(error, KafkaTrouble) for error in told))


def test_a_fatal_error_while_nobody_publishes_is_reported_and_fixed(
    kafka: MockKafka, publisher: Publisher, told: list[PublisherError]
) -> None:
    kafka.answer(PRODUCE, FATAL)
    assert publisher.track("v", "one")
    eventually(lambda: any(isinstance(error, KafkaTrouble) for error in told))
    eventually(lambda: publisher.stats().delivered == 1)
    assert steps(kafka) == ["one"]


def test_a_service_that_may_not_write_yet_publishes_once_it_may(
    kafka: MockKafka, publisher: Publisher, told: list[PublisherError]
) -> None:
    """Without any right to write, librdkafka's error is fatal. Before the fix, a right that was granted later changed
    nothing.
    """
    kafka.answer(INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    assert publisher.track("v", "before")
    eventually(lambda: any(isinstance(error, KafkaTrouble) for error in told))
    assert publisher.track("v", "after")
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    assert steps(kafka) == ["before", "after"]


def test_events_wait_for_the_right_to_write_to_their_topic(
    kafka: MockKafka, publisher: Publisher, told: list[PublisherError]
) -> None:
    """Before the fix, they were given up at once, and the next events were refused."""
    assert publisher.track("v", "zero")
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    kafka.answer(PRODUCE, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 2)
    for name in ("one", "two", "three"):
        assert publisher.track("v", name)
        assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    assert steps(kafka) == ["zero", "one", "two", "three"]
    assert publisher.stats().failed == publisher.stats().refused == 0
    # A connection error that comes meanwhile does not replace it.
    eventually(lambda: any(error.kind == "rights" and "authorization" in str(error) for error in told))


def test_an_error_in_the_thread_is_reported_and_does_not_end_it(
    kafka: MockKafka, publisher: Publisher, told: list[PublisherError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, the thread ended silently."""
    assert publisher.track("v", "first")
    assert publisher.flush(stretched(PATIENCE_SECONDS)) == 0
    raised = Flag()
    look = kafka_output.KafkaOutput._look_after

    def raise_once(self: kafka_output.KafkaOutput) -> None:
        if not raised.is_set():
            raised.set()
            raise MemoryError
        look(self)

    monkeypatch.setattr(kafka_output.KafkaOutput, "_look_after", raise_once)
    eventually(raised.is_set)
    eventually(lambda: [error for error in told if error.kind == "thread"])
    assert "MemoryError" in str(next(error for error in told if error.kind == "thread"))
    assert publisher.track("v", "second")
    eventually(lambda: publisher.stats().delivered == 2)
    assert steps(kafka) == ["first", "second"]


def test_undelivered_events_are_remembered_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the fix, `_undelivered` had no bound. Beyond it, all decisions are forgotten, and published again."""
    monkeypatch.setattr(kafka_output, "MAX_UNDELIVERED_BYTES", 500)
    publisher = Publisher(bootstrap_servers="127.0.0.1:1")
    output = publisher._here().output
    with output._lock:  # the thread does nothing meanwhile
        events = [replace(DECISION, visitor_id=f"v{number}") for number in range(100)]
        assert all(publisher.publish(event) for event in events)
        for event in events:
            output._remember_undelivered(b"x" * len(event.visitor_id) * 20, "msg_timed_out")
        assert output._undelivered_bytes <= 500
        assert len(output._undelivered) <= 500 // 40 + 1
        assert output._undelivered[-1] == (None, "msg_timed_out")
    eventually(lambda: not output._undelivered)
    assert output._undelivered_bytes == 0
    assert publisher.publish(events[50])
    assert publisher.stats().accepted == 101
    publisher.close(0)
