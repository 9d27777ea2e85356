"""Dead letters that Kafka does not accept at first: each is written once, and never after a hand-over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from flagpost_consumer.adapters.kafka import producer as kafka_producer
from flagpost_consumer.adapters.kafka import write_line
from flagpost_consumer.adapters.kafka.dead_letter_writer import OWN_BYTES, DeadLetterWriter
from flagpost_consumer.core.books.deliveries import Settlement
from mock_kafka import FATAL, INIT_PRODUCER_ID, PRODUCE, MockKafka
from running import eventually
from settlements import DeadEngine

SECONDS = 60.0
TOPIC = "dead-letters"


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({TOPIC: 1}) as kafka:
        yield kafka


def writer_on(kafka: MockKafka, written: list[Settlement]) -> DeadLetterWriter:
    config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "enable.idempotence": True,
        "reconnect.backoff.max.ms": 100,
        "retry.backoff.ms": 10,
    }
    return DeadLetterWriter(config, TOPIC, "events", written.append)


def sources(kafka: MockKafka) -> list[str]:
    """The sources of the dead letters in the topic."""
    found = [dict(message.headers() or [])["flagpost-source"] for message in kafka.read(TOPIC)]
    return [source.decode() if isinstance(source, bytes) else str(source) for source in found]


async def test_a_fatal_error_costs_no_dead_letter(kafka: MockKafka) -> None:
    """Before the fix, the task that reads delivery reports raised it again and again, and handled no more reports."""
    written: list[Settlement] = []
    writer = writer_on(kafka, written)
    kafka.answer(PRODUCE, 0, 0, FATAL)
    first = DeadEngine(1).settlements(20)
    for settlement in first:
        writer.write(settlement)
    await eventually(lambda: len(written) == 20, SECONDS)
    assert set(map(id, written)) == set(map(id, first))
    assert len(set(sources(kafka))) == 20
    assert writer.waiting == 0


async def test_a_consumer_without_any_right_writes_once_it_has_one(kafka: MockKafka) -> None:
    """librdkafka's error is fatal in this case. Before the fix, the dead producer was kept."""
    kafka.answer(INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    written: list[Settlement] = []
    writer = writer_on(kafka, written)
    for settlement in DeadEngine(1).settlements(3):
        writer.write(settlement)
    await eventually(lambda: len(written) == 3, SECONDS)
    assert len(sources(kafka)) == 3


async def test_dead_letters_of_a_partition_that_was_handed_over_are_not_written_any_more(
    kafka: MockKafka,
) -> None:
    """Before the fix, they were written once Kafka accepted dead letters again, beside those of the next member."""
    written: list[Settlement] = []
    writer = writer_on(kafka, written)
    engine = DeadEngine(2)
    writer.write(engine.settlements(1)[0])
    await eventually(lambda: len(written) == 1, SECONDS)
    kafka.set_leader(TOPIC, 0, there=False)
    for settlement in engine.settlements(50, 0) + engine.settlements(50, 1):
        writer.write(settlement)
    engine.hand_over(0)
    writer.forget([0])

    def only_what_stays() -> bool:
        writer.serve()
        return writer.waiting == 50 and all(letter.is_wanted for letter in writer._sent)

    await eventually(only_what_stays, SECONDS)
    kafka.set_leader(TOPIC, 0, there=True)
    await eventually(lambda: len(written) == 51, SECONDS)
    assert sorted(sources(kafka)) == sorted(["events/0/0", *(f"events/1/{offset}" for offset in range(50))])


class Refusing:
    """A librdkafka producer whose broker answers each record as a test says: with an error code, or None."""

    def __init__(self, answer: Callable[[int, bytes | None, dict[str, Any]], int | None]) -> None:
        self._answer = answer
        self._reports: list[Callable[[], None]] = []
        self.tried: list[tuple[bytes | None, bytes | None, dict[str, Any]]] = []

    def produce(self, _: str, value: Any, key: Any, partition: int, headers: Any, on_delivery: Any) -> None:
        assert partition == -1
        code = self._answer(len(self.tried), key, dict(headers))
        self.tried.append((value, key, dict(headers)))
        error = None if code is None else KafkaError(code)
        reported = type("Reported", (), {"offset": lambda _: 0, "partition": lambda _: 0})()
        self._reports.append(lambda: on_delivery(error, reported))

    def __len__(self) -> int:
        return len(self._reports)

    def purge(self, **_: bool) -> None:
        """Do nothing: each record has its answer already, which `poll` reports."""

    def poll(self, _: float) -> int:
        reports, self._reports = self._reports, []
        for report in reports:
            report()
        return len(reports)


def refusing_writer(
    monkeypatch: pytest.MonkeyPatch,
    written: list[Settlement],
    answer: Callable[[int, bytes | None, dict[str, Any]], int | None],
) -> tuple[DeadLetterWriter, Refusing]:
    refusing = Refusing(answer)
    monkeypatch.setattr(kafka_producer, "Producer", lambda *_, **__: refusing)
    monkeypatch.setattr(write_line, "FIRST_PAUSE_SECONDS", 0.02)
    return DeadLetterWriter({}, TOPIC, "events", written.append), refusing


async def test_of_thousands_that_kafka_refuses_one_at_a_time_is_retried_and_one_line_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the fix, 20,000 were retried 21,000 times a second, with 4 MB of log a second."""
    well: list[bool] = []
    refused = KafkaError.TOPIC_AUTHORIZATION_FAILED
    written: list[Settlement] = []
    writer, refusing = refusing_writer(monkeypatch, written, lambda *_: None if well else refused)
    with capture_logs() as lines:
        for settlement in DeadEngine(1).settlements(20_000):
            writer.write(settlement)
        at_first = len(refusing.tried)
        assert at_first * OWN_BYTES <= write_line.MAX_SENT_BYTES
        await eventually(lambda: len(refusing.tried) >= at_first + 4, SECONDS)
        one_at_a_time = len(refusing.tried) - at_first
        well.append(True)
        await eventually(lambda: len(written) == 20_000, SECONDS)
    assert one_at_a_time <= 5
    assert len(refusing.tried) <= at_first + one_at_a_time + 1 + 20_000
    assert len([line for line in lines if line["log_level"] == "warning"]) == 1
    assert writer.waiting == 0


async def test_a_record_that_is_refused_for_itself_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Settlement] = []
    writer, refusing = refusing_writer(
        monkeypatch, written, lambda _, key, __: KafkaError.INVALID_RECORD if key == b"key-3" else None
    )
    for settlement in DeadEngine(1).settlements(10):
        writer.write(settlement)
    await eventually(lambda: len(refusing.tried) >= 13, SECONDS)
    assert len(written) == 9
    assert writer.waiting == 1
    assert [key for _, key, _ in refusing.tried[10:]] == [b"key-3"] * len(refusing.tried[10:])


async def test_a_dead_letter_that_is_too_large_without_its_value_loses_its_headers_and_then_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the fix, it was retried for ever, and its partition could not be committed any further."""
    written: list[Settlement] = []
    writer, refusing = refusing_writer(
        monkeypatch, written, lambda tries, _, __: KafkaError.MSG_SIZE_TOO_LARGE if tries < 3 else None
    )
    (settlement,) = DeadEngine(1).settlements(1)
    record = settlement.delivery.record
    settlement.delivery.record = record._replace(headers=(("theirs", b"x"),))
    writer.write(settlement)
    await eventually(lambda: written, SECONDS)
    told = [(value, key, "theirs" in headers) for value, key, headers in refusing.tried]
    assert told == [
        (b"original", b"key-0", True),
        (None, b"key-0", True),
        (None, b"key-0", False),
        (None, None, False),
    ]
    assert all("flagpost-source" in headers for _, _, headers in refusing.tried)
    assert ["flagpost-truncated" in headers for _, _, headers in refusing.tried] == [False, True, True, True]


async def test_an_acknowledgement_after_a_hand_over_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Settlement] = []
    writer, refusing = refusing_writer(monkeypatch, written, lambda *_: None)
    engine = DeadEngine(1)
    writer.write(engine.settlements(1)[0])
    engine.hand_over(0)
    await eventually(lambda: not len(refusing) and not writer._sent, SECONDS)
    assert written == []


async def test_partitions_that_stand_still_are_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_line, "STALLED_SECONDS", 0.0)
    written: list[Settlement] = []
    denied = KafkaError.TOPIC_AUTHORIZATION_FAILED
    writer, _ = refusing_writer(monkeypatch, written, lambda _, key, __: denied if key == b"key-0" else None)
    engine = DeadEngine(3)
    engine.settlements(1, 1)  # so that the next has another key
    writer.write(engine.settlements(1, 2)[0])
    writer.write(engine.settlements(1, 1)[0])
    await eventually(lambda: written, SECONDS)
    assert writer.stalled == {2: f"{KafkaError(denied).str()}: this user needs Write on Topic dead-letters"}
    engine.hand_over(2)
    writer.forget([2])
    assert writer.stalled == {}
