"""Suppressions are read from their topic: first all of it, then new records, whatever happens to the topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from deadlines import stretched
from flagpost_consumer.adapters.kafka import suppressions_reader
from flagpost_consumer.adapters.kafka.suppression_records import (
    NoVisitor,
    read_suppression,
    suppressed_at,
    suppression_value,
)
from flagpost_consumer.adapters.kafka.suppressions_reader import SuppressionsReader
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions
from flagpost_consumer.settings import KafkaSettings
from mock_kafka import MockKafka
from running import eventually

TOPIC = "flagpost.suppressions"
"""Kafka's numbers of these requests."""


class Heard:
    """Keeps what the reader reports to the event loop."""

    def __init__(self) -> None:
        self.known: list[Suppressions] = []
        self.later: list[Suppression] = []
        self.troubles: list[str] = []

    def on_suppressions_known(self, known: Suppressions) -> None:
        self.known.append(known)

    def on_suppressions(self, suppressions: list[Suppression]) -> None:
        self.later += suppressions

    def on_suppressions_followed(self, trouble: str) -> None:
        self.troubles.append(trouble)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_SECONDS", "LOOK_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(suppressions_reader, name, 0.05)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({TOPIC: 2}) as mock:
        yield mock


def say(kafka: MockKafka, *words: tuple[str | bytes | None, bytes | None], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for key, value in words:
        producer.produce(TOPIC, value, key, partition)
    assert producer.flush(stretched(20)) == 0


Reading = Callable[..., tuple[SuppressionsReader, Heard]]


@pytest.fixture
async def read() -> Any:
    """Return a function that starts a reader; the reader is stopped after the test."""
    readers: list[SuppressionsReader] = []

    def start(kafka: MockKafka, **more: Any) -> tuple[SuppressionsReader, Heard]:
        heard = Heard()
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
        reader = SuppressionsReader(settings, heard, asyncio.get_running_loop(), **more)
        readers.append(reader)
        reader.start()
        return reader, heard

    yield start
    for reader in readers:
        reader.stop()
        await asyncio.to_thread(reader._thread.join, stretched(20))


ON = b'{"at":1}'


async def test_the_whole_topic_is_read_before_anything_is_reported_and_later_records_follow(
    kafka: MockKafka, read: Reading
) -> None:
    say(kafka, ("a", ON), ("b", ON), ("a", None))
    say(kafka, ("c", ON), partition=1)
    _, heard = read(kafka)
    await eventually(lambda: heard.known)
    (known,) = heard.known
    assert [known.hold(each) for each in "abc"] == [False, True, True]
    assert heard.later == []
    say(kafka, ("d", ON), ("b", None))
    await eventually(lambda: len(heard.later) == 2)
    assert heard.later == [Suppression("d", is_suppressed=True), Suppression("b", is_suppressed=False)]


async def test_an_empty_topic_suppresses_nobody(kafka: MockKafka, read: Reading) -> None:
    _, heard = read(kafka)
    await eventually(lambda: heard.known)
    assert len(heard.known[0]) == 0
    assert heard.troubles == []


@pytest.mark.parametrize(
    "value", [b"", b"null", b"{", b"[]", b'{"at":"now"}', b'{"at":1.5}', b"\xff\xfe", b"x" * 100_000]
)
def test_a_value_that_cannot_be_read_suppresses_too(value: bytes) -> None:
    """An undo has no value at all, so a damaged value is no undo."""
    assert read_suppression(b"v", value) == Suppression("v", is_suppressed=True)
    assert suppressed_at(value) is None


def test_the_value_that_suppress_writes_has_the_time() -> None:
    assert suppression_value(12) == b'{"at":12}'
    assert suppressed_at(suppression_value(12)) == 12
    assert read_suppression(b"v", None) == Suppression("v", is_suppressed=False)


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_record_whose_key_is_not_an_id_is_refused(key: bytes | None) -> None:
    with pytest.raises(NoVisitor):
        read_suppression(key, ON)


async def test_records_that_name_nobody_are_skipped(kafka: MockKafka, read: Reading) -> None:
    say(kafka, (None, ON), (b"\xff", ON), ("", ON), ("a", ON))
    _, heard = read(kafka)
    await eventually(lambda: heard.known)
    assert (len(heard.known[0]), heard.known[0].hold("a")) == (1, True)


async def test_the_reader_waits_for_the_right_to_read_and_names_it(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = SuppressionsReader._ends
    allowed = False

    def maybe(reader: SuppressionsReader, consumer: Any) -> dict[int, int] | None:
        if not allowed:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        return ends(reader, consumer)

    monkeypatch.setattr(SuppressionsReader, "_ends", maybe)
    say(kafka, ("a", ON))
    _, heard = read(kafka)
    await eventually(lambda: heard.troubles)
    assert heard.known == []
    assert f"Read on Topic {TOPIC}" in heard.troubles[0]
    allowed = True
    await eventually(lambda: heard.known and heard.troubles[-1] == "")
    assert heard.known[0].hold("a")


async def test_a_topic_that_does_not_exist_suppresses_nobody_until_it_does(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = SuppressionsReader._ends
    exists = False
    monkeypatch.setattr(
        SuppressionsReader,
        "_ends",
        lambda reader, consumer: ends(reader, consumer) if exists else None,
    )
    say(kafka, ("a", ON))
    _, heard = read(kafka)
    await eventually(lambda: heard.known)
    assert len(heard.known[0]) == 0
    exists = True
    await eventually(lambda: heard.later)
    assert heard.later == [Suppression("a", is_suppressed=True)]


async def test_a_topic_that_is_deleted_and_comes_back_takes_no_suppression_back(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = SuppressionsReader._ends
    exists = True
    monkeypatch.setattr(
        SuppressionsReader,
        "_ends",
        lambda reader, consumer: ends(reader, consumer) if exists else None,
    )
    say(kafka, ("a", ON))
    reader, heard = read(kafka)
    await eventually(lambda: heard.known)
    exists = False
    await eventually(lambda: reader._is_missing)
    exists = True
    await eventually(lambda: heard.later)
    assert heard.later == [Suppression("a", is_suppressed=True)], "read anew, from its beginning"
    assert (len(heard.known), heard.troubles) == (1, [])


async def test_a_topic_that_is_created_again_is_read_from_its_beginning(
    kafka: MockKafka, read: Reading
) -> None:
    say(kafka, ("a", ON))
    reader, heard = read(kafka)
    await eventually(lambda: heard.known)
    reader.made_anew()
    await eventually(lambda: heard.later)
    assert heard.later == [Suppression("a", is_suppressed=True)]


async def test_an_unreachable_topic_is_reported_after_a_while_and_so_is_its_return(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that only waits for a broker must not stop all sending at once."""
    monkeypatch.setattr(suppressions_reader, "CALL_SECONDS", 0.5)
    now = 0.0
    _, heard = read(kafka, monotonic=lambda: now)
    await eventually(lambda: heard.known)
    kafka.hide()
    now = 59.0
    await asyncio.sleep(0)
    assert heard.troubles == []
    now = 61.0
    await eventually(lambda: heard.troubles, 60)
    kafka.show()
    await eventually(lambda: heard.troubles[-1] == "", 60)
    say(kafka, ("a", ON))
    await eventually(lambda: heard.later)


async def test_too_many_suppressions_are_reported_and_read_again_until_they_fit(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_reader, "FULL_SECONDS", 0.05)
    small = cast("Any", lambda: Suppressions(max_bytes=500))
    monkeypatch.setattr(suppressions_reader, "Suppressions", small)
    say(kafka, *((f"v{n}", ON) for n in range(100)))
    _, heard = read(kafka)
    await eventually(lambda: heard.troubles)
    assert "visitors are suppressed" in heard.troubles[0]
    assert heard.known == []
    monkeypatch.setattr(suppressions_reader, "Suppressions", Suppressions)
    await eventually(lambda: heard.known and heard.troubles[-1] == "")
    assert len(heard.known[0]) == 100


async def test_a_topic_that_did_not_fit_is_read_again(kafka: MockKafka, read: Reading) -> None:
    reader, heard = read(kafka)
    await eventually(lambda: heard.known)
    say(kafka, ("a", ON))
    await eventually(lambda: heard.later)
    reader.read_over()
    await eventually(lambda: len(heard.known) == 2)
    assert heard.known[1].hold("a")


async def test_a_record_before_an_error_is_not_skipped(
    kafka: MockKafka, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a batch has a record and then an error, the record counts: reading continues behind it."""
    reads = SuppressionsReader._read
    failed: list[bool] = []

    def failing(reader: SuppressionsReader, message: Any) -> Suppression | None:
        if message.key() == b"b" and not failed:
            failed.append(True)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return reads(reader, message)

    _, heard = read(kafka)
    await eventually(lambda: heard.known)
    monkeypatch.setattr(SuppressionsReader, "_read", failing)
    say(kafka, ("a", ON), ("b", ON))
    await eventually(lambda: len(heard.later) == 2)
    assert failed
    assert [each.visitor_id for each in heard.later] == ["a", "b"]
