"""The producer that survives fatal errors, with errors that librdkafka itself raises and reports."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from deadlines import stretched
from flagpost_kafka import errors, lasting_producer, reach
from flagpost_kafka.lasting_producer import MAX_UNHEARD_SECONDS, LastingProducer, Limits, ProducedRecord
from mock_kafka import DOWN, FATAL, INIT_PRODUCER_ID, PRODUCE, WELL, MockKafka

PATIENCE_SECONDS = 60.0
"""How long a test waits for a condition that must become true."""

SILENT = logging.getLogger("test, librdkafka")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False

ROOMY = Limits(records=100_000, bytes=2**26)


class Heard:
    """Notes what a producer reports."""

    def __init__(self) -> None:
        self.offsets: list[tuple[bytes | None, int]] = []
        self.failed: list[tuple[bytes | None, int]] = []
        self.troubles: list[KafkaError] = []

    def report(self, error: KafkaError | None, record: ProducedRecord, offset: int) -> None:
        if error is None:
            self.offsets.append((record.value, offset))
        else:
            self.failed.append((record.value, error.code()))


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({"events": 2, "others": 1}) as kafka:
        yield kafka


def lasting(kafka: MockKafka, heard: Heard, **properties: object) -> LastingProducer:
    """A producer with these properties of librdkafka; the dots in their names are written as underscores."""
    config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "log_level": 0,
        "linger.ms": 0,
        **{name.replace("_", "."): value for name, value in properties.items()},
    }
    return LastingProducer(
        config, ROOMY, heard.troubles.append, topics=["events"], logger=SILENT, on_failed=heard.report
    )


def servers(*kafkas: MockKafka) -> str:
    return ",".join(kafka.bootstrap_servers for kafka in kafkas)


def poll_until(producer: LastingProducer, reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + stretched(PATIENCE_SECONDS)
    while not reached():
        assert time.monotonic() < deadline, f"not reached in {PATIENCE_SECONDS} s"
        producer.poll(0.05)


def values(kafka: MockKafka, topic: str, partition: int | None = None) -> list[bytes | None]:
    return [m.value() for m in kafka.read(topic) if partition is None or m.partition() == partition]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def first_seen(found: list[bytes | None]) -> list[bytes | None]:
    """The values without duplicates, in order."""
    return list(dict.fromkeys(found))


def test_after_a_fatal_error_unacknowledged_records_are_written_again_in_order(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard, batch_num_messages=10)
    kafka.answer(PRODUCE, 0, 0, 0, FATAL)
    for value in numbered(500):
        producer.produce("events", value, heard.report, key=b"k1", partition=0, headers=[("h", value)])
    poll_until(producer, lambda: len(heard.offsets) == 500)

    assert [value for value, _ in heard.offsets] == numbered(500)
    assert heard.failed == []
    assert [error.code() for error in heard.troubles if error.fatal()] == [FATAL]
    found = [message for message in kafka.read("events") if message.partition() == 0]
    assert first_seen([message.value() for message in found]) == numbered(500)
    assert all(message.headers() == [("h", message.value())] for message in found)
    assert {offset for _, offset in heard.offsets} <= {message.offset() for message in found}
    assert len(producer) == 0
    producer.close()


def test_records_that_were_handed_over_are_written_again_before_newer_ones(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard, batch_num_messages=10, delivery_report_only_error=True)
    kafka.answer(PRODUCE, 0, 0, FATAL)
    for value in numbered(2000):  # the error comes while these are being handed over, or after
        producer.hand_over("events", value, b"k%d" % (int(value) % 7))
        if int(value) % 100 == 0:
            producer.poll(0.005)
    poll_until(producer, lambda: len(producer) == 0)

    assert [error.code() for error in heard.troubles if error.fatal()] == [FATAL]
    assert heard.failed == []
    found = [first_seen(values(kafka, "events", partition)) for partition in range(2)]
    assert sorted(int(value or b"") for value in (*found[0], *found[1])) == list(range(2000))
    assert all(part == sorted(part, key=lambda value: int(value or b"")) for part in found)
    producer.close()


def test_a_producer_without_the_right_to_write_is_replaced_until_it_has_it(kafka: MockKafka) -> None:
    """A user without any right to write: librdkafka's error is fatal, and Kafka may grant the right later."""
    heard = Heard()
    kafka.answer(INIT_PRODUCER_ID, *[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 2)
    producer = lasting(kafka, heard)
    for value in numbered(5):
        producer.produce("events", value, heard.report, partition=1)
    poll_until(producer, lambda: len(heard.offsets) == 5)

    fatal = [error for error in heard.troubles if error.fatal()]
    assert {error.code() for error in fatal} == {KafkaError.CLUSTER_AUTHORIZATION_FAILED}
    assert values(kafka, "events", 1) == numbered(5)
    assert heard.failed == []
    producer.close()


def test_flush_goes_on_through_a_fatal_error(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard, linger_ms=100)
    kafka.answer(PRODUCE, FATAL)
    for value in numbered(3):
        producer.produce("events", value, heard.report, partition=0)

    assert producer.flush(stretched(PATIENCE_SECONDS)) == 0
    assert [value for value, _ in heard.offsets] == numbered(3)
    producer.close()


def test_the_owner_of_a_record_decides_what_its_refusal_means(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard)
    kafka.answer(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    producer.produce("events", b"refused", heard.report, partition=0)
    poll_until(producer, lambda: heard.failed)
    assert heard.failed == [(b"refused", KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    while not heard.offsets:  # until librdkafka has asked for the topic again
        before = len(heard.failed)
        producer.produce("events", b"taken", heard.report, partition=0)
        poll_until(producer, lambda before=before: heard.offsets or len(heard.failed) > before)  # type: ignore[misc]

    assert values(kafka, "events") == [b"taken"]
    producer.close()


def test_records_that_were_handed_over_wait_for_rights(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard, delivery_report_only_error=True)
    kafka.answer(PRODUCE, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 2)
    producer.hand_over("events", b"1", b"k")
    poll_until(producer, lambda: len(producer) == 0)
    producer.hand_over("events", b"2", b"k")
    poll_until(producer, lambda: len(producer) == 0)

    assert values(kafka, "events") == [b"1", b"2"]
    assert heard.failed == []
    producer.close()


class Dead:
    """A librdkafka producer that only ever raises a fatal error."""

    made = 0

    def __init__(self, *_: object, **__: object) -> None:
        type(self).made += 1

    def __len__(self) -> int:
        return 0

    def produce(self, *_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    def poll(self, _: float) -> int:
        return 0

    flush = poll

    def purge(self, **_: object) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lasting_of(kind: type, limits: Limits, heard: Heard) -> tuple[LastingProducer, Clock]:
    """A producer whose librdkafka producers are of this kind, and its clock."""
    clock = Clock()
    producer = LastingProducer(
        {},
        limits,
        heard.troubles.append,
        topics=["events"],
        logger=SILENT,
        on_failed=heard.report,
        make=cast("Any", kind),
        clock=clock,
    )
    return producer, clock


def dead_producer(limits: Limits, heard: Heard) -> tuple[LastingProducer, Clock]:
    Dead.made = 0
    return lasting_of(Dead, limits, heard)


class Written:
    """A record that was given to a `Backwards` producer; the latency that it reports is wrong."""

    def __init__(self, topic: str, value: bytes, key: bytes, _partition: int, report: Any) -> None:
        self.parts = (topic, value, key)
        self.report = report

    def topic(self) -> str:
        return self.parts[0]

    def value(self) -> bytes:
        return self.parts[1]

    def key(self) -> bytes:
        return self.parts[2]

    def latency(self) -> float:
        return 0.0

    def offset(self) -> None:
        return None


class Backwards:
    """A librdkafka producer that ends at its first poll(), and reports the newest record first."""

    made: ClassVar[list[Backwards]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.held: list[Written] = []
        self.written: list[bytes] = []
        type(self).made.append(self)

    def __len__(self) -> int:
        return len(self.held)

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int = -1, *rest: Any, **more: Any
    ) -> None:
        self.written.append(value)
        self.held.append(Written(topic, value, key, partition, rest[0] if rest else more["on_delivery"]))

    def poll(self, _: float) -> int:
        if type(self).made[0] is not self:
            self.held.clear()  # the successor's records go to Kafka
        while self.held:
            record = self.held.pop()
            record.report(KafkaError(KafkaError._PURGE_QUEUE), record)
        return 0

    flush = poll

    def purge(self, **_: object) -> None:
        pass


def test_records_are_written_again_in_their_order_whatever_the_order_of_the_reports() -> None:
    heard, clock = Heard(), Clock()
    Backwards.made = []
    producer = LastingProducer(
        {},
        ROOMY,
        heard.troubles.append,
        topics=["events"],
        logger=SILENT,
        make=cast("Any", Backwards),
        clock=clock,
    )
    for value in numbered(50):
        producer.hand_over("events", value, b"k")
    producer.produce("events", b"50", heard.report, key=b"k")
    producer.poll()  # all are reported as failed, the newest first
    producer.hand_over("events", b"51", b"k")
    clock.now = 100.0
    producer.poll()

    first, second = Backwards.made
    assert first.written == numbered(51)
    assert second.written == numbered(52)
    assert heard.failed == []


def test_records_that_wait_for_a_producer_are_bounded_in_number_and_bytes() -> None:
    heard = Heard()
    producer, _ = dead_producer(Limits(records=3, bytes=1000), heard)
    for value in numbered(3):
        producer.hand_over("events", value, b"k")
    with pytest.raises(BufferError):
        producer.hand_over("events", b"3", b"k")
    assert len(producer) == 3

    producer, _ = dead_producer(Limits(records=1000, bytes=1000), heard)
    producer.hand_over("events", bytes(900), b"k")
    with pytest.raises(BufferError):
        producer.hand_over("events", bytes(100), b"k")
    assert producer.held_bytes == 901


def test_records_that_are_too_old_are_given_up_even_without_a_producer() -> None:
    heard = Heard()
    producer, clock = dead_producer(Limits(records=10, bytes=1000, give_up_seconds=300), heard)
    producer.hand_over("events", b"old", b"k")
    clock.now = 200.0
    producer.hand_over("events", b"young", b"k")
    clock.now = 300.5
    producer.poll()
    assert heard.failed == [(b"old", KafkaError._MSG_TIMED_OUT)]
    clock.now = 600.0
    producer.poll()
    assert [value for value, _ in heard.failed] == [b"old", b"young"]
    assert len(producer) == 0
    assert producer.held_bytes == 0


def test_producers_that_die_at_once_are_replaced_less_and_less_often() -> None:
    heard = Heard()
    producer, clock = dead_producer(Limits(records=10, bytes=1000), heard)
    producer.hand_over("events", b"1", b"k")
    for _ in range(60_000):
        clock.now += 0.01
        producer.poll()
    # In 600 s: a few at first, and then one every 5 to 10 s.
    assert 60 <= Dead.made <= 140
    assert len(producer) == 1


def test_after_close_everything_has_been_reported() -> None:
    heard = Heard()
    producer, _ = dead_producer(Limits(records=10, bytes=1000), heard)
    producer.hand_over("events", b"1", b"k")
    producer.produce("events", b"2", heard.report)
    producer.close()
    assert sorted(value or b"" for value, _ in heard.failed) == [b"1", b"2"]
    assert {code for _, code in heard.failed} <= errors.PURGED
    with pytest.raises(BufferError):
        producer.hand_over("events", b"3", b"k")


def test_records_that_were_not_sent_can_be_recalled(kafka: MockKafka) -> None:
    heard = Heard()
    producer = lasting(kafka, heard)
    producer.produce("events", b"sent", heard.report, partition=0)
    poll_until(producer, lambda: heard.offsets)
    kafka.set_leader("events", 0, there=False)
    producer.produce("events", b"not sent", heard.report, partition=0)

    def recalled() -> bool:  # repeated: a record just sent to the former leader is queued again later
        producer.recall()
        return bool(heard.failed)

    poll_until(producer, recalled)
    assert heard.failed[0][1] in errors.PURGED
    kafka.set_leader("events", 0, there=True)
    producer.produce("events", b"later", heard.report, partition=0)
    poll_until(producer, lambda: len(heard.offsets) == 2)
    assert values(kafka, "events", 0) == [b"sent", b"later"]
    producer.close()


def test_records_that_wait_for_a_producer_can_be_recalled_too() -> None:
    heard = Heard()
    producer, clock = dead_producer(Limits(records=10, bytes=1000), heard)
    producer.produce("events", b"1", heard.report)
    producer.poll()
    producer.poll()
    producer.recall()
    producer.poll()
    assert [value for value, _ in heard.failed] == [b"1"]
    assert heard.failed[0][1] in errors.PURGED
    clock.now = 100.0
    producer.poll()
    assert len(producer) == 0


def test_a_producer_that_keeps_to_the_leaders_of_a_deleted_topic_can_be_replaced() -> None:
    """librdkafka ignores a leader whose epoch is below the one that it knows, and a new topic's epochs start again.

    Before the fix, it went on looking for the new topic at the old topic's leader.
    """
    heard = Heard()
    with MockKafka({"events": 1}) as later:
        later.hide()
        with MockKafka({"events": 1}) as earlier:
            for there in (True, False, True, False):
                earlier.set_leader("events", 0, there=there)
            producer = lasting(earlier, heard, bootstrap_servers=servers(earlier, later))
            poll_until(producer, lambda: leader_of_events(producer) == DOWN)
            producer.produce("events", b"1", heard.report, partition=0)
            later.show()
        poll_until(producer, lambda: leader_of_events(producer) == WELL)
        assert heard.offsets == []
        producer.renew()
        poll_until(producer, lambda: heard.offsets)
        assert (heard.offsets, heard.failed) == ([(b"1", 0)], [])
        producer.close()


def leader_of_events(producer: LastingProducer) -> int | None:
    """The leader that Kafka reports; None: Kafka does not answer."""
    try:
        return producer.list_topics("events", 1.0).topics["events"].partitions[0].leader
    except (KafkaException, KeyError):
        return None


class Reaching:
    """A librdkafka producer that Kafka answers or not, as `Reaching.answered` says of each by its number."""

    made: ClassVar[list[Reaching]] = []
    answered: ClassVar[Callable[[int], bool]]

    def __init__(self, *_: object, **__: object) -> None:
        self.number = len(self.made)
        self.made.append(self)
        self.inside: list[Written] = []
        self.purged = False

    def __len__(self) -> int:
        return len(self.inside)

    def list_topics(self, _: str, timeout: float) -> object:
        assert timeout > 0
        if not Reaching.answered(self.number):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(brokers={1: "a broker"})

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        partition: int = -1,
        report: Any = None,
        *,
        on_delivery: Any = None,
        **_: object,
    ) -> None:
        self.inside.append(Written(topic, value, key, partition, on_delivery if report is None else report))

    def poll(self, _: float) -> int:
        if self.purged:
            inside, self.inside = self.inside, []
            for each in inside:
                each.report(KafkaError(KafkaError._PURGE_QUEUE), each)
        return 0

    flush = poll

    def purge(self, **_: object) -> None:
        self.purged = True


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LastingProducer, Clock, Heard]]:
    """A producer that has one record, of which nothing is heard."""
    monkeypatch.setattr(Reaching, "made", [])
    monkeypatch.setattr(reach, "RECONNECT_SECONDS", 0.0)
    heard = Heard()
    producer, clock = lasting_of(Reaching, ROOMY, heard)
    producer.hand_over("events", b"1", b"k")
    yield producer, clock, heard
    producer.close()


def polled_for(producer: LastingProducer, clock: Clock, seconds: int) -> None:
    """Poll once a second; what is done in another thread has ended when this returns."""
    for _ in range(seconds):
        clock.now += 1.0
        producer.poll()
        for thread in threading.enumerate():
            if thread.name == "flagpost-compare":
                thread.join()


def test_a_producer_that_has_lost_its_brokers_is_replaced_if_kafka_answers_a_new_one(
    reaching: tuple[LastingProducer, Clock, Heard],
) -> None:
    producer, clock, heard = reaching
    Reaching.answered = lambda number: number > 0
    polled_for(producer, clock, 15)
    cut_off, compared, successor = Reaching.made
    assert cut_off.purged
    assert [error.fatal() for error in heard.troubles] == [True]
    assert "lost its brokers" in heard.troubles[0].str()
    assert (len(compared), [each.value() for each in successor.inside]) == (0, [b"1"])
    assert heard.failed == []


@pytest.mark.parametrize("answered", [True, False])
def test_a_producer_stays_if_kafka_answers_it_or_answers_nobody(
    reaching: tuple[LastingProducer, Clock, Heard], answered: bool
) -> None:
    producer, clock, heard = reaching
    Reaching.answered = lambda _: answered
    polled_for(producer, clock, 300)
    assert not Reaching.made[0].purged
    assert heard.troubles == []
    assert 300 / MAX_UNHEARD_SECONDS <= len(Reaching.made) - 1 <= 12, "compared less and less often"


def test_a_producer_that_finishes_records_is_compared_with_no_other(
    reaching: tuple[LastingProducer, Clock, Heard],
) -> None:
    """Kafka's acknowledgements of records that are handed over are not told: only that they are no longer inside."""
    producer, clock, _ = reaching
    for _ in range(60):
        producer.hand_over("events", b"more", b"k")
        polled_for(producer, clock, 1)
        Reaching.made[0].inside.pop(0)
    assert len(Reaching.made) == 1


def test_records_that_fail_are_no_sign_that_kafka_is_reached(
    reaching: tuple[LastingProducer, Clock, Heard],
) -> None:
    """With a short `message.timeout.ms`, as the gateway has it, records fail before the producer is looked at."""
    producer, clock, heard = reaching
    Reaching.answered = lambda number: number > 0
    for number in range(12):
        polled_for(producer, clock, 1)
        if number < 9:
            producer.produce("events", b"more", heard.report)
            (*_, last) = Reaching.made[0].inside
            Reaching.made[0].inside.remove(last)
            last.report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), last)
    assert Reaching.made[0].purged


def test_a_producer_without_records_is_compared_if_its_questions_get_no_answer(
    reaching: tuple[LastingProducer, Clock, Heard],
) -> None:
    """The gateway accepts no events before Kafka has answered its producer."""
    producer, clock, _ = reaching
    Reaching.made[0].inside.clear()
    Reaching.answered = lambda number: number > 0
    polled_for(producer, clock, 100)
    assert len(Reaching.made) == 1
    with pytest.raises(KafkaException):
        producer.list_topics("events", 1.0)
    polled_for(producer, clock, 15)
    assert Reaching.made[0].purged
    producer.list_topics("events", 1.0)
    polled_for(producer, clock, 100)
    assert len(Reaching.made) == 3


def test_a_comparison_for_which_there_is_no_thread_is_made_later(
    reaching: tuple[LastingProducer, Clock, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, whoever polled got a RuntimeError (an accepted event was told to be refused), and it was never made."""
    producer, clock, heard = reaching
    Reaching.answered = lambda number: number > 0

    def no_thread(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(lasting_producer, "Thread", no_thread)
        polled_for(producer, clock, 15)
    assert len(Reaching.made) == 1
    polled_for(producer, clock, 30)
    assert Reaching.made[0].purged
    assert heard.failed == []


def test_a_forked_child_forgets_the_compared_producer_too(
    reaching: tuple[LastingProducer, Clock, Heard],
) -> None:
    producer, clock, _ = reaching
    references: list[int] = []

    def asked(number: int) -> bool:
        if number == 1:  # in the thread that compares
            before = sys.getrefcount(Reaching.made[1])
            producer.abandon()
            references.append(sys.getrefcount(Reaching.made[1]) - before)
        return number > 0

    Reaching.answered = asked
    polled_for(producer, clock, 12)
    assert references == [1]
