"""Commands retry requests to Kafka while there is no leader or coordinator: brokers restart, topics are new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, TopicPartition

from flagpost_consumer.commands.sources import topic_reading
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Committed, Span, TopicReader
from flagpost_consumer.settings import KafkaSettings, Needs, load_settings
from flagpost_kafka.errors import PASSING
from mock_kafka import LIST_OFFSETS, MockKafka
from traffic import produce

KAFKA = load_settings(None, {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"}, Needs.KAFKA).kafka


OFFSETS = {OFFSET_BEGINNING: 3, OFFSET_END: 9}
"""What the client answers to these special times; to another time it answers 7."""


class Partition:
    error = None


class Topic:
    """Kafka's metadata of a topic."""

    partitions: Mapping[int, Partition] = {0: Partition()}

    def __init__(self, error: KafkaError | None = None) -> None:
        self.error = error


class Answering:
    """A client whose calls of each kind fail so many times, and then succeed."""

    def __init__(self, code: int, times: int) -> None:
        self.error = KafkaError(code)
        self.left = dict.fromkeys(("topics", "times", "commits"), times)
        self.asked = 0

    def _fails(self, what: str) -> bool:
        self.asked += 1
        self.left[what] -= 1
        return self.left[what] >= 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        del timeout
        found = Topic(self.error if self._fails("topics") else None)
        return type("Cluster", (), {"topics": {topic: found}})

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return self._each("times", asked, timeout)

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return self._each("commits", asked, timeout)

    def _each(self, what: str, asked: list[TopicPartition], _: float) -> list[Any]:
        error = self.error if self._fails(what) else None
        return [
            SimpleNamespace(
                partition=each.partition, offset=OFFSETS.get(each.offset, 7), metadata="m", error=error
            )
            for each in asked
        ]

    def poll(self, _: float) -> None:
        """Return no message."""

    def assignment(self) -> list[TopicPartition]:
        return []


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answering], TopicReader]:
    """Return a function that makes a reader with a client; the reader retries without a pause."""

    def made(client: Answering) -> TopicReader:
        monkeypatch.setattr(topic_reading, "silent_client", lambda *_: client)
        monkeypatch.setattr(topic_reading, "AGAIN_SECONDS", 0.0)
        return TopicReader(KAFKA)

    return made


@pytest.mark.parametrize("code", sorted(PASSING))
def test_requests_are_retried_while_there_is_no_leader(
    reader: Callable[[Answering], TopicReader], code: int
) -> None:
    """Before the fix, reconcile gave up with "Not coordinator" if the group's coordinator had just moved."""
    asking = reader(Answering(code, times=2))
    assert asking.spans("events") == {0: Span(3, 9)}
    assert asking.first_at("events", 1_000, {0: Span(3, 9)}) == {0: 7}
    assert asking.committed("events", {0: None}) == {0: Committed(7, "m")}


def test_requests_that_never_find_a_leader_fail_with_the_reason(
    reader: Callable[[Answering], TopicReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_reading, "CALL_SECONDS", 0.05)
    client = Answering(KafkaError.NOT_COORDINATOR, times=1_000_000_000)
    with pytest.raises(KafkaUnavailable, match="Not coordinator"):
        reader(client).committed("events", {0: None})
    assert client.asked > 1


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_REQUEST])
def test_requests_with_a_lasting_error_are_not_retried(
    reader: Callable[[Answering], TopicReader], code: int
) -> None:
    client = Answering(code, times=1)
    with pytest.raises(KafkaUnavailable):
        reader(client).spans("events")
    assert client.asked == 1


def test_a_topic_that_shows_no_partitions_yet_is_empty(
    reader: Callable[[Answering], TopicReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka refuses to be asked for the offsets of no partitions."""
    client = Answering(KafkaError.LEADER_NOT_AVAILABLE, times=0)
    monkeypatch.setattr(Topic, "partitions", {})
    asking = reader(client)
    assert asking.spans("events") == asking.within("events", {}, 1_000, 2_000) == {}
    assert client.asked == 1, "only the topic was asked for"


def test_the_ends_of_all_partitions_take_two_requests() -> None:
    """Before, each partition took two, one after the other: over a second where Kafka is far away."""
    with MockKafka({"events": 24}) as kafka:
        for number in range(5):
            produce(kafka.bootstrap_servers, "events", b"k", b"v", partition=number)
        produce(kafka.bootstrap_servers, "events", b"k", b"v", partition=0)
        with TopicReader(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)) as reader:
            kafka.count_requests()
            spans = reader.spans("events")
            assert kafka.requests(LIST_OFFSETS) == 2
    written = {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
    assert spans == {number: Span(0, written.get(number, 0)) for number in range(24)}
