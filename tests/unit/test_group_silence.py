"""A client whose group no longer answers although Kafka does is replaced, and similar cases cause no replacement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagpost_consumer.adapters.kafka import client_health, group_silence, offset_commits
from flagpost_consumer.adapters.kafka.group_silence import GroupSilence
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading, Start
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.clock import Instant
from mock_kafka import MockKafka
from running import eventually

SESSION_SECONDS = 10.0
REAL_SESSION_SECONDS = 2.0
PATIENCE_SECONDS = 120.0


class Member:
    """A member that checks its group once a second, and asks Kafka when `GroupSilence` says so."""

    def __init__(self) -> None:
        self.silence = GroupSilence(SESSION_SECONDS)
        self.now = 100.0
        self.asked: list[float] = []
        self.asked_group: list[float] = []

    def live(
        self,
        seconds: int,
        *,
        commits: bool = False,
        answers: bool = True,
        owns: bool = True,
        group: bool = False,
        question_seconds: float = 0.0,
    ) -> None:
        for _ in range(seconds):
            self.now += 1.0
            if commits:
                self.silence.heard(self.now)
            self.silence.note(self.now, owns=owns)
            if self.silence.asks_group(self.now):
                self.asked_group.append(self.now)
                if group:
                    self.silence.heard(self.now)
            if self.silence.asks(self.now):
                self.asked.append(self.now)
                self.now += question_seconds
                self.silence.asked(self.now, answered=answers)


def test_a_group_that_takes_no_commit_for_three_sessions_is_silent() -> None:
    member = Member()
    member.live(100, commits=True)
    assert member.asked == [], "while commits get through nothing is asked"
    member.live(29, commits=False)
    assert not member.silence.is_silent(member.now)
    assert len(member.asked) == 2
    member.live(1, commits=False)
    assert member.silence.is_silent(member.now)


def test_a_commit_that_gets_through_ends_the_silence() -> None:
    member = Member()
    member.live(29, commits=False)
    member.live(1, commits=True)
    member.live(19, commits=False)
    assert not member.silence.is_silent(member.now)


def test_neither_an_outage_of_kafka_nor_its_end_is_a_silence_of_the_group() -> None:
    member = Member()
    member.live(1000, commits=False, answers=False)
    assert not member.silence.is_silent(member.now)
    member.live(9, commits=False)
    assert not member.silence.is_silent(member.now), "the client has a session to find its coordinator"
    member.live(15, commits=False)
    assert member.silence.is_silent(member.now)


def test_a_member_without_partitions_asks_its_group_once_a_session() -> None:
    member = Member()
    member.live(1000, owns=False, group=True)
    assert member.asked == []
    assert len(member.asked_group) == 1000 // SESSION_SECONDS - 1
    member.live(19)
    assert member.asked == [], "what is owned since a moment ago has had no commit yet"


def test_a_group_that_does_not_answer_a_member_without_partitions_is_silent_too() -> None:
    """A member without partitions makes no commit, so before the fix nothing showed that it had lost its group."""
    member = Member()
    member.live(30, owns=False)
    assert not member.silence.is_silent(member.now)
    member.live(1, owns=False)
    assert member.silence.is_silent(member.now)


def test_a_member_without_partitions_whose_group_is_silent_joins_again() -> None:
    member = Member()
    member.live(50, commits=True)
    member.live(31, owns=False)
    assert member.silence.is_silent(member.now)


def test_a_new_client_has_three_sessions_of_its_own() -> None:
    member = Member()
    member.live(31, owns=False)
    member.silence.begin()
    member.live(30, owns=False)
    assert not member.silence.is_silent(member.now)


def test_a_thread_that_stood_still_starts_to_count_again() -> None:
    """During a hand-over, or while the process is frozen, nothing is checked and nothing is committed."""
    member = Member()
    member.live(5, commits=True)
    member.now += 1000.0
    member.live(19, commits=False)
    assert member.asked == []


def test_questions_that_take_long_are_no_standstill() -> None:
    """A client that has lost its brokers asks Kafka in vain for seconds; then a new client is asked."""
    member = Member()
    member.live(31, owns=False, question_seconds=7.0)
    assert member.silence.is_silent(member.now)


class Client:
    """A Kafka client whose commits fail because there is no coordinator; its brokers answer if `answers` is true."""

    def __init__(self) -> None:
        self.answers = True

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert offsets
        assert asynchronous
        raise KafkaException(KafkaError(KafkaError._WAIT_COORD))

    def list_topics(self, topic: str, timeout: float) -> Any:
        del timeout
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, _: object, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, 0

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("answers", "answers_new"), [(True, False), (False, True), (False, False)])
async def test_a_client_whose_commits_never_get_through_is_replaced(
    monkeypatch: pytest.MonkeyPatch, answers: bool, answers_new: bool
) -> None:
    """Before the fix, it logged "Local: Waiting for coordinator" every 46 s for ever, and was ready and live.

    One that had lost its brokers (`flagpost_kafka.reach`) was never replaced, because it was itself asked for Kafka.
    """

    def new(config: dict[str, Any], **_: object) -> Client:
        assert config["group.id"] == "flagpost"
        made = Client()
        made.answers = answers_new
        return made

    monkeypatch.setattr(client_health, "Consumer", new)
    now = 0.0
    for module in (client_health, offset_commits):
        monkeypatch.setattr(module, "clock", lambda: Instant(now, 0))
    heard: list[float | None] = []
    handler = cast("Any", SimpleNamespace(on_commit_ended=heard.append, on_lag=lambda _: None))
    intake = KafkaIntake(
        {"group.id": "flagpost"},
        "events",
        handler,
        asyncio.get_running_loop(),
        session_seconds=SESSION_SECONDS,
    )
    intake._partitions.readings[0] = PartitionReading(Start(0))
    client = Client()
    client.answers = answers
    consumer = cast("Consumer", cast("Any", client))
    while now < 29.0:
        intake._commits.begin(consumer, {})
        intake._health.look(consumer, owns=True)
        assert not intake._health.replacement.reason
        now += 1.0
    for _ in range(10):
        intake._health.look(consumer, owns=True)
        now += 1.0
    assert bool(intake._health.replacement.reason) is (answers or answers_new)


class Heard:
    """Notes what a real client reports to the loop, and releases each partition when it is assigned."""

    def __init__(self) -> None:
        self.assignments = 0
        self.lost: list[int] = []
        self.commits: list[float | None] = []
        self.release: Callable[[int, Start, int], None] = lambda *_: None

    def on_assigned(self, partitions: list[int], _: int, assignment: int) -> None:
        self.assignments += bool(partitions)
        for number in partitions:
            self.release(number, Start(0), assignment)

    async def on_revoked(self, _: list[int]) -> dict[int, Position]:
        return {}

    def on_lost(self, partitions: list[int]) -> None:
        self.lost += partitions

    def on_commit_ended(self, began_at: float | None) -> None:
        self.commits.append(began_at)

    def on_partition_count(self, _: int) -> None:
        pass

    def on_epoch(self, *_: int) -> None:
        pass

    def on_lag(self, _: object) -> None:
        pass


def config_of(servers: str, protocol: str = "consumer") -> dict[str, Any]:
    return {
        "bootstrap.servers": servers,
        "group.id": "g",
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }


def member_of(config: dict[str, Any], heard: Heard) -> KafkaIntake:
    loop = asyncio.get_running_loop()
    intake = KafkaIntake(config, "events", cast("Any", heard), loop, session_seconds=REAL_SESSION_SECONDS)
    heard.release = intake.release
    return intake


@pytest.mark.thorough
async def test_a_real_client_that_owns_nothing_and_loses_its_coordinator_joins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a client makes no commit that could fail: once the other members leave, nobody would read anything."""
    monkeypatch.setattr(group_silence, "ASK_SECONDS", 0.5)
    with MockKafka({"events": 1}) as kafka:
        kafka.set_group_coordinator("g", there=True)
        owner, idle = Heard(), Heard()
        owning, waiting = (member_of(config_of(kafka.bootstrap_servers), each) for each in (owner, idle))
        owning.start()
        committing = asyncio.create_task(commit_again_and_again(owning))
        try:
            await eventually(lambda: owning._partitions.readings, PATIENCE_SECONDS)
            asked = Mock(wraps=waiting._health.replacement.ask)
            monkeypatch.setattr(waiting._health.replacement, "ask", asked)
            waiting.start()
            await asyncio.sleep(5 * REAL_SESSION_SECONDS)
            asked.assert_not_called()
            kafka.set_group_coordinator("g", there=False)
            await eventually(lambda: asked.called, PATIENCE_SECONDS)
            kafka.set_group_coordinator("g", there=True)
            owning.stop()
            await eventually(lambda: waiting._partitions.readings, PATIENCE_SECONDS)
        finally:
            committing.cancel()
            for intake in (owning, waiting):
                intake.stop()
            await asyncio.gather(*(asyncio.wrap_future(each.finished) for each in (owning, waiting)))


async def commit_again_and_again(intake: KafkaIntake) -> None:
    while True:
        intake.commit({0: Position(0, 0, 0)})
        await asyncio.sleep(REAL_SESSION_SECONDS / 3)


@pytest.mark.thorough
async def test_a_real_client_that_has_lost_its_coordinator_joins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """librdkafka's own KIP-848 client waits for the coordinator for ever, and reports neither a loss nor an error."""
    monkeypatch.setattr(group_silence, "ASK_SECONDS", 0.5)
    with MockKafka({"events": 1}) as kafka:
        kafka.set_group_coordinator("g", there=True)
        heard = Heard()
        intake = member_of(config_of(kafka.bootstrap_servers), heard)
        intake.start()
        try:
            await eventually(lambda: intake._partitions.readings, PATIENCE_SECONDS)
            await committed(intake, heard)
            kafka.set_group_coordinator("g", there=False)
            await eventually(lambda: not intake.joined, PATIENCE_SECONDS)
            assert heard.assignments == 1
            kafka.set_group_coordinator("g", there=True)
            await eventually(lambda: heard.assignments == 2 and intake._partitions.readings, PATIENCE_SECONDS)
            await committed(intake, heard)
        finally:
            intake.stop()
            await asyncio.wrap_future(intake.finished)


async def committed(intake: KafkaIntake, heard: Heard) -> None:
    """Make a commit, and wait until one has succeeded."""
    before = len(heard.commits)
    intake.commit({0: Position(0, 0, 0)})
    await eventually(lambda: len(heard.commits) > before and heard.commits[-1] is not None, PATIENCE_SECONDS)
