"""The Kafka thread commits nothing and hands over nothing of partitions that its process no longer owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from confluent_kafka import TopicPartition

from deadlines import stretched
from flagpost_consumer.adapters.kafka import client_replacement, lag_reports, reading_silence
from flagpost_consumer.adapters.kafka import intake as kafka_intake
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler, Lag
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.core.books.deliveries import Position
from running import eventually

TOPIC = "events"
PARTITIONS = 3
SECONDS = 30.0
"""How long a test waits for a condition that must become true."""

Rebalance = Callable[["ScriptedConsumer", list[TopicPartition]], None]


class Message:
    """A record as confluent-kafka returns it."""

    def __init__(self, partition: int, offset: int) -> None:
        self._partition, self._offset = partition, offset

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> None:
        return None

    def key(self) -> bytes:
        return b"v"

    def value(self) -> bytes:
        return b"value"

    def headers(self) -> None:
        return None

    def leader_epoch(self) -> None:
        return None


@dataclass(frozen=True)
class Step:
    """What one read of the Kafka thread returns, and what happens during it."""

    call: Callable[[], object] = lambda: None
    """Called inside poll(), as librdkafka calls its rebalance callbacks."""
    messages: tuple[Message, ...] = ()
    meanwhile: Callable[[], object] = lambda: None
    """Called between the first message and the others, inside consume()."""


class ScriptedConsumer:
    """Stand-in for confluent-kafka's Consumer: each poll takes the next step of a script, on the thread that polls.

    Every other method does nothing, and returns an empty list.
    """

    def __init__(self) -> None:
        self.steps: Queue[Step] = Queue()
        self.committed: list[dict[int, int]] = []
        self.on_assign: Rebalance
        self.on_revoke: Rebalance
        self.on_lost: Rebalance
        self.made = 0
        self.revoked_on_close: list[TopicPartition] = []
        self._step = Step()

    def __call__(self, *_: object, **__: object) -> ScriptedConsumer:
        self.made += 1
        return self

    def close(self) -> None:
        if self.revoked_on_close:
            self.on_revoke(self, self.revoked_on_close)
        self.revoked_on_close = []

    def __getattr__(self, name: str) -> Mock:
        if name.startswith("__"):
            raise AttributeError(name)
        return Mock(return_value=[])

    def list_topics(self, topic: str, **_: object) -> Any:
        found = SimpleNamespace(error=None, partitions=dict.fromkeys(range(PARTITIONS)))
        return SimpleNamespace(topics={topic: found})

    def subscribe(self, _: list[str], on_assign: Rebalance, on_revoke: Rebalance, on_lost: Rebalance) -> None:
        self.on_assign, self.on_revoke, self.on_lost = on_assign, on_revoke, on_lost

    def poll(self, seconds: float) -> Message | None:
        try:
            self._step = self.steps.get(timeout=stretched(seconds))
        except Empty:
            return None
        self._step.call()
        return self._step.messages[0] if self._step.messages else None

    def consume(self, *_: object) -> list[Message]:
        self._step.meanwhile()
        return list(self._step.messages[1:])

    def commit(self, offsets: list[TopicPartition], **_: object) -> None:
        self.committed.append({each.partition: each.offset for each in offsets})

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, 1_000


def partitions(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, number) for number in numbers]


class Running:
    """A Kafka thread with a scripted consumer, and what it reports to the loop."""

    def __init__(self, consumer: ScriptedConsumer) -> None:
        self.consumer = consumer
        self.handler = Mock(spec=IntakeHandler)
        self.handler.on_revoked.side_effect = self._revoked
        self.handler.on_messages.side_effect = self._take
        self.handed_over: list[tuple[int, int]] = []
        self.left_positions: dict[int, Position] = {}
        """The positions of revoked partitions that the loop wants to be committed."""
        self.intake = KafkaIntake({"group.id": "flagpost"}, TOPIC, self.handler, asyncio.get_running_loop())

    def is_joined(self) -> bool:
        return self.intake.joined

    async def _revoked(self, _: list[int]) -> dict[int, Position]:
        return self.left_positions

    def _take(self, messages: list[Message], done: Callable[[], None]) -> None:
        self.handed_over += [(message.partition(), message.offset()) for message in messages]
        done()

    async def assign(self, *numbers: int) -> None:
        """Assign partitions, and release them to be read from offset 0."""
        calls = len(self.handler.on_assigned.call_args_list)
        self.consumer.steps.put(Step(lambda: self.consumer.on_assign(self.consumer, partitions(*numbers))))
        await eventually(lambda: len(self.handler.on_assigned.call_args_list) > calls, SECONDS)
        await self.release(*numbers)

    async def release(self, *numbers: int) -> None:
        """Let partitions be read from offset 0, by the newest assignment."""
        assignment = self.handler.on_assigned.call_args.args[2]
        for number in numbers:
            self.intake.release(number, Start(0), assignment)
        await self.idle()

    async def lose(self, *numbers: int) -> None:
        self.consumer.steps.put(Step(lambda: self.consumer.on_lost(self.consumer, partitions(*numbers))))
        await eventually(lambda: self.handler.on_lost.called, SECONDS)

    async def revoke(self, *numbers: int) -> None:
        self.consumer.steps.put(Step(lambda: self.consumer.on_revoke(self.consumer, partitions(*numbers))))
        await self.idle()

    async def idle(self) -> None:
        """Wait until the thread has taken all its steps and carried out all requests of the loop."""
        reached = asyncio.Event()
        self.consumer.steps.put(Step(lambda: self.intake._loop.call_soon_threadsafe(reached.set)))
        await asyncio.wait_for(reached.wait(), stretched(SECONDS))
        await asyncio.sleep(0)

    async def commit(self, *numbers: int) -> None:
        """Ask for a commit of offset 10 + number of each of these partitions, and wait until it was carried out."""
        self.intake.commit({number: Position(10 + number, None) for number in numbers})
        await self.idle()
        await self.idle()


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    consumer = ScriptedConsumer()
    monkeypatch.setattr(kafka_intake, "Consumer", consumer)
    running = Running(consumer)
    running.intake.start()
    yield running
    running.intake.stop()
    await asyncio.wait_for(asyncio.wrap_future(running.intake.finished), stretched(SECONDS))


# Commits


async def test_partitions_that_are_ours_are_committed(running: Running) -> None:
    await running.assign(0, 1)
    await running.commit(0, 1)
    assert running.consumer.committed == [{0: 10, 1: 11}]


async def test_a_partition_that_was_lost_is_no_longer_committed(running: Running) -> None:
    """Another member owns it already: a commit would move that member's position back."""
    await running.assign(0, 1)
    await running.lose(1)
    await running.commit(0, 1)
    assert running.consumer.committed == [{0: 10}]


async def test_a_commit_without_any_partition_of_ours_is_not_made_and_is_no_success(running: Running) -> None:
    await running.assign(0, 1)
    await running.lose(0, 1)
    await running.commit(0, 1)
    await eventually(lambda: running.handler.on_commit_ended.called, SECONDS)
    assert running.consumer.committed == []
    running.handler.on_commit_ended.assert_called_once_with(None)


async def test_a_partition_that_was_never_ours_is_not_committed(running: Running) -> None:
    await running.assign(0)
    await running.commit(0, 2)
    assert running.consumer.committed == [{0: 10}]


async def test_a_partition_that_is_revoked_is_committed_once_more_and_then_never(running: Running) -> None:
    await running.assign(0, 1)
    running.left_positions = {1: Position(41, None), 2: Position(42, None)}
    await running.revoke(1)
    assert running.consumer.committed == [{1: 41}], "the last of what was ours, and of nothing else"
    await running.commit(0, 1)
    assert running.consumer.committed == [{1: 41}, {0: 10}]


async def test_a_partition_that_comes_back_is_committed_again(running: Running) -> None:
    await running.assign(0, 1)
    await running.lose(1)
    await running.assign(1)
    await running.commit(1)
    assert running.consumer.committed == [{1: 11}]


# Messages


@pytest.mark.parametrize("how", ["lost", "revoked"])
async def test_messages_of_a_partition_that_is_taken_away_while_they_are_read_are_left_out(
    running: Running, how: str
) -> None:
    """The loop has given the partition up by then, and the next member delivers these messages."""
    await running.assign(0, 1)
    consumer = running.consumer

    def take_away() -> None:
        (consumer.on_lost if how == "lost" else consumer.on_revoke)(consumer, partitions(1))

    messages = (Message(1, 0), Message(0, 0), Message(1, 1), Message(0, 1))
    consumer.steps.put(Step(messages=messages, meanwhile=take_away))
    await running.idle()
    await eventually(lambda: running.handed_over, SECONDS)
    assert running.handed_over == [(0, 0), (0, 1)]


async def test_messages_of_a_partition_that_is_taken_away_and_given_back_in_one_read_are_left_out(
    running: Running,
) -> None:
    """The partition that came back is read from its committed offset, once its ledger has been read."""
    await running.assign(0, 1)
    consumer = running.consumer

    def take_away_and_give_back() -> None:
        consumer.on_lost(consumer, partitions(1))
        consumer.on_assign(consumer, partitions(1))

    messages = (Message(0, 0), Message(1, 0), Message(0, 1))
    consumer.steps.put(Step(messages=messages, meanwhile=take_away_and_give_back))
    await running.idle()
    await eventually(lambda: running.handed_over, SECONDS)
    assert running.handed_over == [(0, 0), (0, 1)]
    await eventually(lambda: running.handler.on_assigned.call_count == 2, SECONDS)
    await running.release(1)
    assert running.handed_over == [(0, 0), (0, 1)]
    consumer.steps.put(Step(messages=(Message(1, 0),)))
    await eventually(lambda: (1, 0) in running.handed_over, SECONDS)


async def test_messages_of_partitions_that_stay_are_handed_over_in_order(running: Running) -> None:
    await running.assign(0, 1)
    running.consumer.steps.put(Step(messages=(Message(0, 0), Message(1, 0), Message(0, 1))))
    await eventually(lambda: len(running.handed_over) == 3, SECONDS)
    assert running.handed_over == [(0, 0), (1, 0), (0, 1)]


# A client that is replaced


async def test_a_new_topic_is_read_by_a_new_client_and_nothing_of_the_old_one_is_committed(
    running: Running,
) -> None:
    """The old client ignores leaders with lower epochs, and the records that it has read are of another log."""
    await running.assign(0, 1)
    assert running.is_joined()
    running.left_positions = {0: Position(70, None), 1: Position(71, None)}
    running.consumer.revoked_on_close = partitions(0, 1)
    running.intake.begin_anew()
    await eventually(lambda: running.consumer.made == 2, SECONDS)
    running.handler.on_revoked.assert_called_once_with([0, 1])
    await running.commit(0, 1)
    assert running.consumer.committed == []
    assert not running.is_joined(), "the group has not given the new client anything yet"
    running.handler.on_lost.assert_not_called()
    await running.assign(0)
    assert running.is_joined()
    running.consumer.steps.put(Step(messages=(Message(0, 0), Message(1, 0))))
    await eventually(lambda: running.handed_over, SECONDS)
    assert running.handed_over == [(0, 0)]
    await running.commit(0, 1)
    assert running.consumer.committed == [{0: 10}]


async def test_a_release_of_the_old_topic_does_not_count_for_the_new_one(running: Running) -> None:
    await running.assign(0)
    old = running.handler.on_assigned.call_args.args[2]
    running.consumer.revoked_on_close = partitions(0)
    running.intake.begin_anew()
    await eventually(lambda: running.consumer.made == 2, SECONDS)
    running.consumer.steps.put(Step(lambda: running.consumer.on_assign(running.consumer, partitions(0))))
    running.intake.release(0, Start(70), old)
    await running.idle()
    await running.commit(0)
    assert running.consumer.committed == []


async def test_partitions_that_were_not_revoked_when_the_old_client_closed_are_lost(running: Running) -> None:
    """An unfinished commit of the old client is reported as failed, since nothing else will report its end."""
    await running.assign(0, 1)
    await running.commit(0)
    running.intake.begin_anew()
    await eventually(lambda: running.handler.on_lost.called, SECONDS)
    running.handler.on_lost.assert_called_once_with([0, 1])
    await eventually(lambda: running.handler.on_commit_ended.called, SECONDS)
    running.handler.on_commit_ended.assert_called_once_with(None)


async def test_a_topic_that_is_recreated_again_and_again_does_not_replace_the_client_each_time(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_replacement, "APART_SECONDS", 1_000.0)
    await running.assign(0)
    for _ in range(5):
        running.intake.begin_anew()
        await running.idle()
        await running.idle()
    assert running.consumer.made == 2


async def test_a_client_that_returns_none_of_the_records_is_replaced(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, nothing was read or reported while the topic's leaders had lower epochs than before."""
    monkeypatch.setattr(lag_reports, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(reading_silence, "SILENT_SECONDS", 0.0)
    await running.assign(0, 1)
    await running.idle()
    assert running.consumer.made == 1, "nothing is known of an end"
    running.left_positions = {0: Position(7, None), 1: Position(8, None)}
    running.consumer.revoked_on_close = partitions(0, 1)
    running.intake.know_ends({1: 5})
    await eventually(lambda: running.consumer.made == 2, SECONDS)
    assert running.consumer.committed == [{0: 7, 1: 8}], "what was settled is of this log"
    running.handler.on_lost.assert_not_called()


async def test_a_paused_partition_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_reports, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(reading_silence, "SILENT_SECONDS", 0.0)
    await running.assign(0, 1)
    running.intake.pause(False, [1])
    await running.idle()
    running.intake.know_ends({1: 5})
    for _ in range(5):
        await running.idle()
    assert running.consumer.made == 1
    lag = running.handler.on_lag.call_args.args[0]
    assert lag[1].end == 1000, "the client knows better"


async def test_an_end_that_the_client_does_not_know_comes_from_another_client(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, the lag was unknown, so neither the lag nor a stalled partition was reported."""
    monkeypatch.setattr(lag_reports, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(ScriptedConsumer, "get_watermark_offsets", lambda *_, **__: (-1001, -1001))
    await running.assign(0)
    await eventually(lambda: running.intake.ends_wanted == {0}, SECONDS)
    running.intake.know_ends({0: 12})
    await eventually(lambda: running.handler.on_lag.call_args.args[0] == {0: Lag(12, 0, 0)}, SECONDS)
