"""The Kafka thread's rules, against a consumer that notes what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer, TopicPartition

from flagpost_consumer.adapters.handed_over import BATCH_BYTES, BATCH_MESSAGES
from flagpost_consumer.adapters.kafka_intake import IntakeHandler, KafkaIntake, Lag
from flagpost_consumer.adapters.log_beginnings import ASK_SECONDS, LogBeginnings
from flagpost_consumer.adapters.partition_reading import PartitionReading, Start
from flagpost_consumer.core.records import Gap, Position


class NotingConsumer:
    """Notes which partitions are paused."""

    def __init__(self) -> None:
        self.paused: set[int] = set()
        self.calls = 0

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused |= {partition.partition for partition in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.calls += 1
        self.paused -= {partition.partition for partition in partitions}


async def test_partitions_that_are_named_are_paused_besides() -> None:
    handler = cast("IntakeHandler", SimpleNamespace())
    intake = KafkaIntake({}, "events", handler, asyncio.get_running_loop())
    intake._readings.update({number: PartitionReading(Start(0)) for number in range(3)})
    noting = NotingConsumer()
    consumer = cast("Consumer", cast("Any", noting))

    def paused_after(paused: bool, *partitions: int) -> set[int]:
        intake.pause(paused, partitions)
        intake._apply_pause(consumer, paused=intake._pause_wanted)
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
    """What the loop heard, in order."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gaps: list[Gap] = []
        self.began_anew: list[tuple[list[int], int, Mapping[int, Start]]] = []
        self.done: list[Callable[[], None]] = []

    def on_messages(self, messages: list[Any], done: Callable[[], None]) -> None:
        self.offsets += [message.offset() for message in messages]
        self.done.append(done)

    def on_gap(self, partition: int, gap: Gap) -> None:
        assert partition == 0
        self.gaps.append(gap)

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        self.began_anew.append((partitions, assignment, went_back))


class Log:
    """A consumer that knows where the log begins, and notes how it was asked."""

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


def message(offset: int, size: int = 10, partition: int = 0) -> Any:
    """A message of Kafka's client."""
    return SimpleNamespace(
        partition=lambda: partition,
        offset=lambda: offset,
        error=lambda: None,
        leader_epoch=lambda: 0,
        key=lambda: b"",
        value=lambda: bytes(size),
    )


def reading_intake(next_offset: int = 0) -> tuple[KafkaIntake, Heard]:
    """An intake that reads partition 0."""
    heard = Heard()
    intake = KafkaIntake({}, "events", cast("IntakeHandler", heard), asyncio.get_running_loop())
    intake._readings[0] = PartitionReading(Start(next_offset))
    intake._in_client.add(0)
    return intake, heard


async def go_on() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_holes_ask_the_client_once_a_batch_and_no_broker() -> None:
    """Each hole asked the broker, half a second each."""
    intake, heard = reading_intake()
    log = Log(cached=0, now=0)
    intake._hand_over(cast("Any", log), [message(offset) for offset in range(0, 100, 2)])
    await go_on()
    assert heard.offsets == list(range(0, 100, 2))
    assert heard.gaps == []
    assert log.asked == [True]


async def test_a_gap_ends_at_the_first_offset_that_is_there() -> None:
    """Retention goes on while records are in hand: it ended where the log begins now, beyond those."""
    intake, heard = reading_intake(10)
    intake._hand_over(cast("Any", Log(cached=400, now=400)), [message(50), message(51)])
    await go_on()
    assert heard.gaps == [Gap(10, 50)]
    assert heard.offsets == [50, 51]


async def test_what_follows_the_gap_and_is_a_hole_is_not_lost() -> None:
    intake, heard = reading_intake(10)
    intake._hand_over(cast("Any", Log(cached=30, now=30)), [message(50)])
    await go_on()
    assert heard.gaps == [Gap(10, 30)]


async def test_a_broker_that_does_not_tell_where_logs_begin_is_asked_rarely() -> None:
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
    """They were dropped in silence, and the old position was committed over and over."""
    intake, heard = reading_intake(200)
    log = Log(cached=0, now=0)
    consumer = cast("Consumer", cast("Any", log))
    intake._hand_over(consumer, [message(200), message(0), message(1)])
    await go_on()
    assert heard.offsets == [200]
    assert heard.began_anew == [([0], 1, {0: Start(0)})]
    assert log.paused == [0]
    assert intake._offsets_of({0: Position(201, 5)}) == [], "the position is of another log"
    intake._release(consumer, 0, Start(0, topic_id="new"), 1)
    assert log.places == [("seek", 0)]
    (committed,) = intake._offsets_of({0: Position(0, 5)})
    assert (committed.offset, committed.metadata) == (0, "v1:5;topic=new")
    intake._hand_over(consumer, [message(0), message(1)])
    await go_on()
    assert heard.offsets == [200, 0, 1]


async def test_large_messages_are_handed_over_in_small_numbers() -> None:
    """250 messages of 450 KB at a time made 541 MB."""
    intake, heard = reading_intake()
    assert intake._batch.messages == BATCH_MESSAGES
    intake._hand_over(cast("Any", Log(0, 0)), [message(offset, 450_000) for offset in range(4)])
    assert intake._batch.messages == BATCH_BYTES // 450_000
    for offset in range(4, 20, 4):
        intake._hand_over(cast("Any", Log(0, 0)), [message(n, 450_000) for n in range(offset, offset + 4)])
    assert not intake._room.wait(0), "more than the loop may have before it takes any in"
    await go_on()
    for done in heard.done:
        done()
    assert intake._room.wait(0)


async def test_the_end_of_a_paused_partition_is_told_from_beside() -> None:
    """The client learns of ends as it fetches: of 200 unread records 2 were told while intake was paused."""
    told: list[Mapping[int, Lag]] = []
    handler = SimpleNamespace(on_lag=told.append)
    intake = KafkaIntake({}, "events", cast("IntakeHandler", handler), asyncio.get_running_loop())
    intake._readings[0] = PartitionReading(Start(0))
    intake.know_ends({0: 1200})
    log = cast("Consumer", cast("Any", Log(0, 0)))
    intake._run_commands(log)
    intake._paused = True
    intake._report_lag(log)
    await go_on()
    assert told == [{0: Lag(1200, 0, 0)}]
    assert intake.paused_partitions == {0}
