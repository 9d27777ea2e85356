"""The rules of the Kafka thread, with a consumer that notes the calls of its methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from flagpost_consumer.adapters.kafka.handed_over import BATCH_BYTES, BATCH_MESSAGES, READ_AT_ONCE
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler, Lag
from flagpost_consumer.adapters.kafka.log_beginnings import ASK_SECONDS, LogBeginnings
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading, Start
from flagpost_consumer.adapters.kafka.poll_pace import POLL_SECONDS, QUIET_AFTER_POLLS, QUIET_POLL_SECONDS
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.records import Gap


class NotingConsumer:
    """A consumer that notes which partitions are paused."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.calls = 0

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused |= {partition.partition for partition in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused -= {partition.partition for partition in partitions}


async def test_named_partitions_are_paused_in_addition() -> None:
    handler = cast("IntakeHandler", SimpleNamespace())
    intake = KafkaIntake({"group.id": "flagpost"}, "events", handler, asyncio.get_running_loop())
    intake._partitions.readings.update({number: PartitionReading(Start(0)) for number in range(3)})
    noting = NotingConsumer()
    consumer = cast("Consumer", cast("Any", noting))

    def paused_after(paused: bool, *partitions: int) -> set[int]:
        intake.pause(paused, partitions)
        intake._partitions.apply_pause(consumer, has_room=True)
        return noting.paused

    assert paused_after(False, 1) == {1}
    assert paused_after(True, 1) == {0, 1, 2}
    assert paused_after(False, 1, 7) == {1}
    assert paused_after(False, 2) == {2}
    calls = noting.calls
    assert paused_after(False, 2) == {2}
    assert noting.calls == calls, "each call makes librdkafka fetch anew"
    assert paused_after(False) == set()


class Heard:
    """Notes what is reported to the loop, in order."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gaps: list[Gap] = []
        self.began_anew: list[tuple[list[int], int, Mapping[int, Start]]] = []
        self.done: list[Callable[[], None]] = []
        self.epochs: list[tuple[int, int]] = []

    def on_messages(self, messages: list[Any], done: Callable[[], None]) -> None:
        self.offsets += [message.offset() for message in messages]
        self.done.append(done)

    def on_epoch(self, partition: int, offset: int, epoch: int) -> None:
        assert partition == 0
        self.epochs.append((offset, epoch))

    def on_gap(self, partition: int, gap: Gap) -> None:
        assert partition == 0
        self.gaps.append(gap)

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        self.began_anew.append((partitions, assignment, went_back))


class Log:
    """A consumer that knows where the log begins, and notes the calls of its methods."""

    def __init__(self, cached: int, now: int) -> None:
        self.cached, self.now = cached, now
        self.asked: list[bool] = []
        self.paused: list[int] = []
        self.places: list[tuple[str, int]] = []

    def get_watermark_offsets(self, _: object, timeout: float = 0, cached: bool = False) -> tuple[int, int]:
        del timeout
        self.asked.append(cached)
        return (self.cached if cached else self.now), 1000

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused += [each.partition for each in partitions]

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused = [n for n in self.paused if n not in {each.partition for each in partitions}]

    def seek(self, place: TopicPartition) -> None:
        self.places.append(("seek", place.offset))

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.places += [("assign", place.offset) for place in places]


def message(offset: int, size: int = 10, partition: int = 0, epoch: int = 0) -> Any:
    """A message of Kafka's client."""
    return SimpleNamespace(
        partition=lambda: partition,
        offset=lambda: offset,
        error=lambda: None,
        leader_epoch=lambda: epoch,
        key=lambda: b"",
        value=lambda: bytes(size),
    )


def reading_intake(next_offset: int = 0) -> tuple[KafkaIntake, Heard]:
    """An intake that reads partition 0."""
    heard = Heard()
    intake = KafkaIntake(
        {"group.id": "flagpost"}, "events", cast("IntakeHandler", heard), asyncio.get_running_loop()
    )
    intake._partitions.readings[0] = PartitionReading(Start(next_offset))
    intake._partitions._in_client.add(0)
    return intake, heard


async def go_on() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_holes_ask_the_client_once_a_batch_and_no_broker() -> None:
    """Before the fix, the broker was asked for each hole, which took half a second each time."""
    intake, heard = reading_intake()
    log = Log(cached=0, now=0)
    intake._reader._hand_over(cast("Any", log), [message(offset) for offset in range(0, 100, 2)])
    await go_on()
    assert heard.offsets == list(range(0, 100, 2))
    assert heard.gaps == []
    assert log.asked == [True]


async def test_a_gap_ends_at_the_first_offset_that_is_there() -> None:
    """Retention may delete records just read. Before the fix, the gap ended where the log begins now, after them."""
    intake, heard = reading_intake(10)
    intake._reader._hand_over(cast("Any", Log(cached=400, now=400)), [message(50), message(51)])
    await go_on()
    assert heard.gaps == [Gap(10, 50)]
    assert heard.offsets == [50, 51]


async def test_a_hole_after_the_gap_does_not_count_as_lost() -> None:
    intake, heard = reading_intake(10)
    intake._reader._hand_over(cast("Any", Log(cached=30, now=30)), [message(50)])
    await go_on()
    assert heard.gaps == [Gap(10, 30)]


async def test_a_broker_is_rarely_asked_where_a_log_begins_that_the_client_does_not_know() -> None:
    now = [0.0]
    lows = LogBeginnings("events", lambda: now[0])
    log = Log(cached=-1001, now=7)
    consumer = cast("Consumer", cast("Any", log))
    for _ in range(100):
        lows.forget_cached()
        assert lows.of(consumer, 0) == 7
    assert log.asked.count(False) == 1
    now[0] += ASK_SECONDS
    lows.of(consumer, 0)
    assert log.asked.count(False) == 2


async def test_offsets_below_the_position_begin_the_partition_anew() -> None:
    """Before the fix, they were dropped silently, and the old position was committed again and again."""
    intake, heard = reading_intake(200)
    log = Log(cached=0, now=0)
    consumer = cast("Consumer", cast("Any", log))
    intake._reader._hand_over(consumer, [message(200), message(0), message(1)])
    await go_on()
    assert heard.offsets == [200]
    assert heard.began_anew == [([0], 1, {0: Start(0, 0)})]
    assert log.paused == [0]
    assert intake._commits._offsets_of({0: Position(201, 5)}) == [], "the position is of another log"
    intake._release(consumer, 0, Start(0, topic_id="new"), 1)
    assert log.places == [("seek", 0)]
    (committed,) = intake._commits._offsets_of({0: Position(0, 5)})
    assert (committed.offset, committed.metadata) == (0, "v1:5;topic=new")
    intake._reader._hand_over(consumer, [message(0), message(1)])
    await go_on()
    assert heard.offsets == [200, 0, 1]


async def test_large_messages_are_handed_over_in_small_numbers() -> None:
    """Before the fix, 250 messages of 450 KB at a time took 541 MB."""
    intake, heard = reading_intake()
    assert intake._reader._batch.messages == BATCH_MESSAGES
    intake._reader._hand_over(cast("Any", Log(0, 0)), [message(offset, 450_000) for offset in range(4)])
    assert intake._reader._batch.messages == BATCH_BYTES // 450_000
    for offset in range(4, 20, 4):
        intake._reader._hand_over(
            cast("Any", Log(0, 0)), [message(n, 450_000) for n in range(offset, offset + 4)]
        )
    assert not intake._reader._room.wait(0), "more than the loop may have before it takes any in"
    await go_on()
    for done in heard.done:
        done()
    assert intake._reader._room.wait(0)


async def test_headers_count_and_are_weighed_a_few_messages_at_a_time() -> None:
    """Kafka's client unpacks headers when a message is read from it.

    Before the fix, 250 messages with 20,000 headers each took 400 MB before their size was looked at, and the size
    did not include headers.
    """

    class Flood(Log):
        read_to = 0

        def poll(self, _: float) -> Any:
            return self.heavy(0)

        def consume(self, count: int, _: float) -> list[Any]:
            self.read_to += count
            return [self.heavy(self.read_to + number) for number in range(count)]

        def heavy(self, offset: int) -> Any:
            heavy = message(offset)
            heavy.headers = lambda: [("h", b"")] * 1_000
            return heavy

    intake, _ = reading_intake()
    flood = Flood(0, 0)
    read = intake._reader._read(cast("Any", flood))
    assert len(read) == 1 + READ_AT_ONCE
    intake._reader._hand_over(cast("Any", flood), read)
    assert intake._reader._batch.messages < READ_AT_ONCE
    for _ in range(2):
        intake._reader._untold = intake._reader._read(cast("Any", flood))
        intake._reader._tell()
    assert not intake._reader._room.wait(0)


async def test_the_end_of_a_paused_partition_is_found_by_another_client() -> None:
    """The client learns an end when it fetches. Before the fix, 2 of 200 unread records were reported in a pause."""
    told: list[Mapping[int, Lag]] = []
    handler = SimpleNamespace(on_lag=told.append)
    intake = KafkaIntake(
        {"group.id": "flagpost"}, "events", cast("IntakeHandler", handler), asyncio.get_running_loop()
    )
    intake._partitions.readings[0] = PartitionReading(Start(0))
    intake.know_ends({0: 1200})
    log = cast("Consumer", cast("Any", Log(0, 0)))
    intake._run_commands(log)
    intake._partitions._paused = True
    intake._lag.report_if_due(log)
    await go_on()
    assert told == [{0: Lag(1200, 0, 0)}]
    assert intake.ends_wanted == {0}


async def test_records_that_a_stand_in_reads_of_a_partition_that_begins_anew_are_not_handed_over() -> None:
    """The partition may be released before the hand-over has ended: offsets not read would be taken for a hole."""
    intake, heard = reading_intake(130)
    member, stand_in = Log(cached=0, now=0), Log(cached=0, now=0)
    intake._partitions.handing_over, intake._partitions.displaced = True, {0}
    intake._reader._hand_over(cast("Any", stand_in), [message(130)])
    intake._partitions.set_aside(cast("Any", member), {0})
    intake._release(cast("Any", member), 0, Start(40), 1)
    end = SimpleNamespace(
        partition=lambda: 0, offset=lambda: 133, error=lambda: KafkaError(KafkaError._PARTITION_EOF)
    )
    intake._reader._hand_over(cast("Any", stand_in), [message(131), message(132), cast("Any", end)])
    await go_on()
    assert heard.offsets == [130]
    assert intake._partitions.readings[0].end == -1
    intake._partitions.handing_over = False
    intake._reader._hand_over(cast("Any", member), [message(40)])
    await go_on()
    assert heard.offsets == [130, 40]


async def test_records_that_the_member_had_read_when_a_stand_in_took_over_are_dropped() -> None:
    intake, heard = reading_intake(10)

    class Member(Log):
        def poll(self, _: float) -> Any:
            return message(5)  # read again by the stand-in, whose position is 10

        def consume(self, count: int, _: float) -> list[Any]:
            assert count == READ_AT_ONCE
            return [message(6), message(0, partition=1)]

    member = Member(cached=0, now=0)
    intake._partitions.readings[1] = PartitionReading(Start(0))
    intake._partitions.displaced = {0}
    intake._reader._hand_over(cast("Any", member), intake._reader._read(cast("Any", member)))
    await go_on()
    assert heard.offsets == [0], "of the other partition"
    assert member.places == [("seek", 10)]
    assert intake._partitions.displaced == set()


class Unreadable(Log):
    """A consumer whose log has a batch that cannot be read, from offset 100 to 163."""

    def __init__(self) -> None:
        super().__init__(cached=0, now=0)
        self.at = 90

    def seek(self, place: TopicPartition) -> None:
        super().seek(place)
        self.at = place.offset

    def read(self) -> list[Any]:
        if self.at < 100:
            return [message(offset) for offset in range(self.at, 100)] + [failing(100)]
        return [failing(100)] if self.at < 164 else [message(self.at), message(self.at + 1)]


def failing(offset: int) -> Any:
    """The client's error for a batch that becomes too large when it is decompressed."""
    error = KafkaError(KafkaError._BAD_COMPRESSION)
    return SimpleNamespace(partition=lambda: 0, offset=lambda: offset, error=lambda: error)


class OneRecordAtTheEnd(Log):
    """A log whose last batch, at 7, has one record."""

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, 8


async def test_a_gap_is_told_after_the_messages_that_were_read_before_it() -> None:
    """Before, the gap of an unreadable batch of one record at the log's end came first, and the messages were taken
    for ones that had been seen: their events were lost.
    """
    intake, heard = reading_intake(5)
    told: list[object] = []
    pass_on = heard.on_messages

    def on_messages(messages: list[Message], done: Callable[[], None]) -> None:
        told.append([message.offset() for message in messages])
        pass_on(messages, done)

    def on_gap(partition: int, gap: Gap) -> None:
        told.append((partition, gap))

    heard.on_messages, heard.on_gap = on_messages, on_gap  # type: ignore[method-assign]
    log = cast("Any", OneRecordAtTheEnd(0, 0))
    intake._reader._hand_over(log, [message(5), message(6), failing(7)])
    await go_on()
    assert told == [[5, 6], (0, Gap(7, 8))]


async def test_exactly_the_batch_that_cannot_be_read_is_skipped() -> None:
    """The client returns the same error for the batch again and again, and reads no further."""
    intake, heard = reading_intake(90)
    log = Unreadable()
    consumer = cast("Any", log)
    for _ in range(40):
        intake._reader._hand_over(consumer, log.read())
        if len(heard.offsets) > 10:
            break
        await go_on()
    await go_on()
    assert heard.gaps == [Gap(100, 164)]
    assert heard.offsets == [*range(90, 100), 164, 165]


async def test_a_pause_during_the_search_begins_it_anew() -> None:
    """After a pause, the client goes on after the last message that it returned, not at the offset that was tried."""
    intake, heard = reading_intake(90)
    log = Unreadable()
    consumer = cast("Any", log)
    intake._reader._hand_over(consumer, log.read())
    for paused in (True, False):
        intake.pause(paused)
        intake._partitions.apply_pause(consumer, has_room=True)
    assert log.at == 100
    assert intake._partitions.unreadable.searches == {}
    for _ in range(40):
        intake._reader._hand_over(consumer, log.read())
    await go_on()
    assert heard.gaps == [Gap(100, 164)]


class Polled:
    """A consumer that notes how long it is to wait for a message."""

    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)
        self.waits: list[float] = []

    def poll(self, seconds: float) -> Any:
        self.waits.append(seconds)
        return self.messages.pop(0) if self.messages else None

    def consume(self, _: int, __: float) -> list[Any]:
        return []


async def test_polls_are_rare_while_nothing_comes() -> None:
    """Each poll costs CPU time; but requests of the loop wait until the present poll ends."""
    intake, _ = reading_intake()
    polled = Polled()
    consumer = cast("Consumer", cast("Any", polled))

    def next_wait() -> float:
        intake._reader._read(consumer)
        return polled.waits[-1]

    assert {next_wait() for _ in range(QUIET_AFTER_POLLS)} == {POLL_SECONDS}
    assert {next_wait() for _ in range(3)} == {QUIET_POLL_SECONDS}

    polled.messages.append(message(0))
    next_wait()
    assert next_wait() == POLL_SECONDS, "a message has come"

    for _ in range(QUIET_AFTER_POLLS):
        next_wait()
    intake._partitions.held[1] = 1
    assert next_wait() == POLL_SECONDS, "a partition is about to be released"


async def test_the_first_offset_of_each_leader_is_reported_before_its_records() -> None:
    intake, heard = reading_intake()
    messages = [message(0, epoch=3), message(1, epoch=3), message(2, epoch=5)]
    intake._reader._hand_over(cast("Consumer", cast("Any", Log(0, 0))), messages)
    await go_on()
    assert heard.epochs == [(0, 3), (2, 5)]
    assert heard.offsets == [0, 1, 2]


async def test_a_log_that_went_back_while_nobody_read_it_is_read_from_there() -> None:
    """The ledger settles 10 to 14, beyond the commit; the log's record 12 is of a later leader than the ledger's."""
    intake, heard = reading_intake()
    intake._partitions.readings[0] = PartitionReading(Start(10, 3, "t", "l", {2: 9, 3: 14}))
    messages = [message(10, epoch=3), message(11, epoch=3), message(12, epoch=4), message(13, epoch=4)]
    intake._reader._hand_over(cast("Consumer", cast("Any", Log(0, 0))), messages)
    await go_on()
    assert heard.offsets == [10, 11]
    assert heard.began_anew == [([0], 1, {0: Start(12, 4, "t", "l")})]


async def test_late_settlements_of_a_log_that_is_gone_settle_nothing() -> None:
    """A member was frozen while the log went back, and another member committed offset 1 of the new log.

    The frozen member's late settlements are of offsets 1 and 2 of the old log. The epoch of the commit is that of the
    new record.
    """
    intake, heard = reading_intake()
    intake._partitions.readings[0] = PartitionReading(Start(1, 2, "t", "l", {0: 2}))
    intake._reader._hand_over(cast("Consumer", cast("Any", Log(0, 0))), [message(1, epoch=2)])
    await go_on()
    assert heard.offsets == []
    assert heard.began_anew == [([0], 1, {0: Start(1, 2, "t", "l")})]


async def test_a_new_leader_that_has_every_record_is_no_log_that_went_back() -> None:
    intake, heard = reading_intake()
    intake._partitions.readings[0] = PartitionReading(Start(10, 3, "t", "l", {3: 11, 4: 14}))
    messages = [message(10, epoch=3), message(11, epoch=3), message(12, epoch=4), message(15, epoch=6)]
    intake._reader._hand_over(cast("Consumer", cast("Any", Log(0, 0))), messages)
    await go_on()
    assert heard.offsets == [10, 11, 12, 15]
    assert heard.began_anew == []
