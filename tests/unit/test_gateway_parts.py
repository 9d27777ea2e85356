"""The gateway's parts alone: reading bodies, limiting requests and bytes in progress, and writing to Kafka."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from random import Random
from typing import Any

import pytest
from confluent_kafka import KafkaError

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher.gateway import bodies, kafka_writer, program
from flagpost_publisher.gateway.admission import MAX_STRANGERS, Admission, Admissions
from flagpost_publisher.gateway.bodies import Pace, Undoing, read_body
from flagpost_publisher.gateway.kafka_writer import KafkaRecord, KafkaWriter, writer_config
from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_settings.kafka import KafkaSettings
from gateway_running import standing_still
from kafka_reading import read_topic
from mock_kafka import FATAL, INIT_PRODUCER_ID, PRODUCE, MockKafka
from running import eventually

TEXT = b'{"n": [' + b",".join(b"%d" % number for number in range(2000)) + b"]}"


# Bodies


def pieces(whole: bytes, seed: int) -> Iterator[bytes]:
    random = Random(seed)
    while whole:
        length = random.choice([1, 2, 10, 1000])
        yield whole[:length]
        whole = whole[length:]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("", bytes),
        ("deflate", zlib.compress),
        ("gzip", gzip.compress),
        ("gzip", lambda text: gzip.compress(text[:99]) + gzip.compress(b"") + gzip.compress(text[99:])),
    ],
)
def test_a_body_is_the_same_however_it_is_cut(
    coding: str, compress: Callable[[bytes], bytes], seed: int
) -> None:
    undoing = Undoing(coding, len(TEXT))
    assert b"".join(undoing.feed(piece) for piece in pieces(compress(TEXT), seed)) == TEXT
    undoing.finish()


@pytest.mark.parametrize("coding", ["", "deflate", "gzip"])
def test_no_more_is_decoded_than_allowed(coding: str) -> None:
    compress: dict[str, Callable[[bytes], bytes]] = {"deflate": zlib.compress, "gzip": gzip.compress}
    undoing = Undoing(coding, 1000)
    with pytest.raises(Refusal) as refused:
        undoing.feed(compress.get(coding, bytes)(b" " * 1001))
    assert refused.value.status == 413


def test_an_encoded_body_without_contents_is_limited_too() -> None:
    undoing = Undoing("gzip", 1000)
    empty = b"\0\0\0\xff\xff"  # an empty block of deflate
    undoing.feed(gzip.compress(b"")[:10])
    for _ in range((1000 + bodies.OVERHEAD_BYTES - 10) // len(empty)):
        assert undoing.feed(empty) == b""
    with pytest.raises(Refusal) as refused:
        undoing.feed(empty)
    assert refused.value.status == 413


async def test_a_slow_client_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.01)
    with pytest.raises(Refusal) as refused:
        await read_body({}, chunks(), 1000, lambda _: None)
    assert refused.value.status == 408
    assert refused.value.headers == {"connection": "close"}


def test_a_body_must_come_at_a_minimum_rate_and_within_its_time() -> None:
    pace = Pace(began=100.0, most_seconds=bodies.READ_SECONDS)
    grace, rate = bodies.GRACE_SECONDS, bodies.LEAST_BYTES_A_SECOND
    assert pace.until(0) == 100 + grace
    assert pace.until(1) == pytest.approx(100 + grace, abs=0.001)
    assert pace.until(3 * rate) == 100 + grace + 3
    assert pace.until(1_000 * rate) == 100 + bodies.READ_SECONDS
    assert bodies.STRANGERS_READ_SECONDS < program.STOP_SECONDS


async def test_a_body_that_keeps_the_pace_has_more_time_than_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chunk comes every hundredth of a second, for longer than `GRACE_SECONDS`."""
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.05)

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.01)
            yield b"x" * size

    assert len(await read_body({}, chunks(10_000), 1_000_000, lambda _: None)) == 200_000
    with pytest.raises(Refusal) as refused:
        await read_body({}, chunks(1), 1_000_000, lambda _: None)
    assert refused.value.status == 408


# Limits of the requests and bytes in progress


def test_requests_beyond_the_bound_are_503_with_retry_after() -> None:
    admission = Admission(max_requests=1)
    with admission.request("a"):
        with pytest.raises(Refusal) as refused, admission.request("b"):
            pytest.fail("let in")
        assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    with admission.request("b"):
        assert admission.requests == 1


def test_bytes_beyond_the_bound_are_503_and_are_released_at_the_end() -> None:
    admission = Admission(max_bytes=100)
    with admission.request("a") as first, admission.request("b") as second:
        first.hold(50)
        second.hold(25)
        with pytest.raises(Refusal) as refused:
            second.hold(1)
        assert refused.value.status == 503
        assert admission.held_bytes == 75
    assert (admission.requests, admission.held_bytes) == (0, 0)
    with admission.request("c") as third:
        third.hold(50)


@pytest.mark.parametrize("greedy", [1, 3, 7])
def test_however_much_some_parties_use_the_next_one_finds_room(greedy: int) -> None:
    admission = Admission(max_requests=1_000, max_bytes=1_000_000)
    with ExitStack() as open_requests:
        for party in range(greedy):
            with suppress(Refusal):
                while True:
                    open_requests.enter_context(admission.request(str(party))).hold(1_000)
        with admission.request("modest") as work:
            work.hold(1_000)
        left = 1_000 - admission.requests
        assert left >= 1_000 // 2 ** (greedy + 1)


def test_strangers_have_a_small_share_and_each_a_part_of_it() -> None:
    admissions, taken = Admissions(), ExitStack()
    public = Key("web", origins=frozenset({"https://www.example.com"}))
    with taken:
        for _ in range(MAX_STRANGERS // 2):
            taken.enter_context(admissions.request(None, "2001:db8::/64"))
        with pytest.raises(Refusal) as refused:
            taken.enter_context(admissions.request(public, "2001:db8::/64"))
        assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
        for number in range(MAX_STRANGERS // 2):
            taken.enter_context(admissions.request(public, f"192.0.2.{number}"))
        with pytest.raises(Refusal):
            taken.enter_context(admissions.request(None, "198.51.100.1"))
        taken.enter_context(admissions.request(Key("checkout"), "2001:db8::/64")).hold(10)
        assert (admissions.requests, admissions.held_bytes) == (MAX_STRANGERS + 1, 10)
    assert (admissions.requests, admissions.held_bytes) == (0, 0)


async def test_until_idle_waits_for_the_requests() -> None:
    admission = Admission()
    await admission.until_idle()
    with admission.request("a"):
        waiting = asyncio.ensure_future(admission.until_idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_until_idle_waits_for_a_key_whose_request_came_while_a_strangers_was_read() -> None:
    """Before the fix, requests with a key were only waited for at first: such a request was cut off."""
    admissions = Admissions()
    with ExitStack() as stranger, ExitStack() as known:
        stranger.enter_context(admissions.request(None, "192.0.2.1"))
        waiting = asyncio.ensure_future(admissions.until_idle())
        await asyncio.sleep(0)
        known.enter_context(admissions.request(Key("checkout"), "192.0.2.2"))
        stranger.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        known.close()
        await waiting


# Writing to Kafka


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"events": 2}) as running:
        yield running


async def writer_on(kafka: EmbeddedKafka, topics: Sequence[str] = ("events",)) -> KafkaWriter:
    config = writer_config(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
    writer = KafkaWriter(config, topics, lambda: pytest.fail("the producer cannot go on"))
    writer.start()
    return writer


async def test_many_records_at_once_are_acknowledged_together(kafka: EmbeddedKafka) -> None:
    writer = await writer_on(kafka)
    await eventually(lambda: writer.trouble is None)
    records = [KafkaRecord("events", f"k{n}", b"%d" % n, (("h", b"1"),)) for n in range(1000)]
    await asyncio.gather(*(writer.write(records[start : start + 10]) for start in range(0, 1000, 10)))
    await writer.write([])
    counts = writer.counts()
    assert (counts.acknowledged, counts.failed, counts.queued, counts.queued_bytes) == (1000, 0, 0, 0)
    assert await writer.stop(10)
    found = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, "events")
    assert sorted(int(read.value or b"") for read in found) == list(range(1000))


@pytest.mark.parametrize(
    ("settings", "most_bytes"),
    [
        ({}, 65_536),
        ({"max_event_bytes": 5_000_000}, kafka_writer.MAX_RECORD_BYTES),
        ({"properties": {"batch.size": "500000"}}, 500_000),
    ],
)
def test_a_batch_is_no_larger_than_an_event_may_be_unless_the_properties_say_otherwise(
    settings: dict[str, Any], most_bytes: int
) -> None:
    config = writer_config(KafkaSettings(bootstrap_servers="127.0.0.1:1", **settings))
    assert int(config["batch.size"]) == most_bytes


async def test_nothing_is_accepted_before_kafka_is_reached() -> None:
    config = writer_config(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    writer = KafkaWriter(config, ["events"], lambda: pytest.fail("the producer cannot go on"))
    writer.start()
    with pytest.raises(Refusal) as refused:
        await writer.write([KafkaRecord("events", "k", b"v")])
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "5"})
    await eventually(lambda: "kafka.bootstrap_servers" in (writer.trouble or ""))
    assert writer.counts().queued == 0
    assert await writer.stop(10)


async def test_the_records_that_may_wait_are_bounded(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_writer, "MAX_QUEUED_RECORDS", 3)
    monkeypatch.setattr(kafka_writer, "MAX_QUEUED_BYTES", 1000)
    writer = await writer_on(kafka)
    await eventually(lambda: writer.trouble is None)
    async with standing_still(kafka):
        waiting = asyncio.ensure_future(writer.write([KafkaRecord("events", "k", b"v")] * 2))
        await asyncio.sleep(0)
        for records in ([KafkaRecord("events", "k", b"v")] * 2, [KafkaRecord("events", "k", b"v" * 1000)]):
            with pytest.raises(Refusal) as refused:
                await writer.write(records)
            assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    await waiting
    assert await writer.stop(10)


async def test_a_record_not_acknowledged_in_time_is_503_and_the_next_is_503_at_once(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_writer, "ACKNOWLEDGE_SECONDS", 1.0)
    writer = await writer_on(kafka)
    await eventually(lambda: writer.trouble is None)
    async with standing_still(kafka):
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await writer.write([KafkaRecord("events", "k", b"v")])
            assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "5"})
        assert writer.trouble is not None
        assert writer.counts().queued == 1
    await eventually(lambda: writer.trouble is None)
    await writer.write([KafkaRecord("events", "k", b"v")])
    assert await writer.stop(10)


async def test_a_record_that_its_topic_refuses_does_not_stop_other_requests(kafka: EmbeddedKafka) -> None:
    writer = await writer_on(kafka)
    await eventually(lambda: writer.trouble is None)
    with pytest.raises(Refusal) as refused:
        await writer.write([KafkaRecord("events", "k", b"v" * 1_100_000)])
    assert refused.value.status == 413
    assert writer.trouble is None
    assert await writer.stop(10)


async def test_a_fatal_error_of_the_kafka_client_costs_no_request_in_flight() -> None:
    """Before the fix, the thread died of the error, which error_cb does not get, and livez failed after 30 s."""
    with MockKafka({"events": 1}) as kafka:
        config = writer_config(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
        writer = KafkaWriter(config, ["events"], lambda: pytest.fail("the process need not end"))
        writer.start()
        await eventually(lambda: writer.trouble is None)
        kafka.answer(PRODUCE, FATAL)
        records = [KafkaRecord("events", f"k{n}", b"%d" % n, (("h", b"%d" % n),)) for n in range(10)]
        await asyncio.gather(*(writer.write([each]) for each in records))
        assert [(m.value(), m.headers()) for m in await asyncio.to_thread(kafka.read, "events")] == [
            (b"%d" % n, [("h", b"%d" % n)]) for n in range(10)
        ]
        await eventually(lambda: writer.trouble is None)
        await writer.write(records[:1])
        assert writer.counts().failed == 0
        assert writer.is_alive
        assert await writer.stop(10)


async def test_without_any_right_in_kafka_the_gateway_says_so_until_it_has_one() -> None:
    with MockKafka({"events": 1}) as kafka:
        kafka.answer(INIT_PRODUCER_ID, *[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 3)
        config = writer_config(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
        writer = KafkaWriter(config, ["events"], lambda: pytest.fail("the process need not end"))
        writer.start()
        await eventually(lambda: "authorization" in (writer.trouble or ""))
        with pytest.raises(Refusal) as refused:
            await writer.write([KafkaRecord("events", "k", b"v")])
        assert refused.value.status == 503
        await eventually(lambda: writer.trouble is None)
        await writer.write([KafkaRecord("events", "k", b"v")])
        assert await writer.stop(10)


async def test_a_thread_that_fails_is_no_longer_alive_and_ends_the_process(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, nothing reported this for half a minute."""
    ended = asyncio.Event()
    config = writer_config(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
    writer = KafkaWriter(config, ["events"], ended.set)
    writer.start()
    await eventually(lambda: writer.trouble is None)

    def fail(_: float) -> None:
        raise MemoryError

    monkeypatch.setattr(writer._producer, "poll", fail)
    await asyncio.wait_for(ended.wait(), stretched(10))
    assert not writer.is_alive
    assert await writer.stop(10)
