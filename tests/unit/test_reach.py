"""Which clients reach Kafka: a client that has lost its brokers is told by what Kafka answers a new one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from deadlines import stretched
from flagpost_consumer.adapters.kafka import intake as kafka_intake
from flagpost_consumer.adapters.kafka import renewed_admin
from flagpost_consumer.adapters.kafka.group_silence import GroupSilence
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.kafka.topic_watch import TopicWatch
from flagpost_consumer.adapters.ledger import restore
from flagpost_consumer.adapters.ledger.restore import LedgerRestore, RestoreHandler
from flagpost_consumer.commands.sources import topic_reading
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_consumer.settings import Needs, load_settings
from flagpost_kafka import reach
from mock_kafka import MockKafka
from running import eventually

KAFKA = load_settings(None, {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"}, Needs.KAFKA).kafka
SECONDS = 30.0


class Client:
    """A client that gets these answers, one after the other: the brokers, or None for no answer."""

    def __init__(self, *answers: dict[int, object] | None) -> None:
        self.answers = list(answers)
        self.seconds: list[float] = []

    def list_topics(self, _: str, timeout: float) -> Any:
        self.seconds.append(timeout)
        brokers = self.answers.pop(0)
        if brokers is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(brokers=brokers)


SOME: dict[int, object] = {1: "a broker"}
NONE: dict[int, object] = {}


@pytest.mark.parametrize(
    ("old", "new", "is_cut_off"),
    [
        ([SOME], [], False),
        ([None], [None], False),
        ([None], [NONE], False),
        ([None, SOME], [SOME], False),
        ([None, None, NONE, SOME], [SOME], False),
        ([None] * 5, [SOME], True),
        ([NONE] * 5, [SOME], True),
    ],
)
def test_a_client_is_cut_off_if_only_a_new_one_reaches_kafka_and_it_does_not_follow(
    monkeypatch: pytest.MonkeyPatch,
    old: list[dict[int, object] | None],
    new: list[dict[int, object] | None],
    is_cut_off: bool,
) -> None:
    """A question of a client that connects may fail at once, and is asked again."""
    moments = iter([100.0, 100.0, 101.0, 101.5, 105.0, 105.5, 114.0, 114.5, 115.0])
    monkeypatch.setattr(reach, "time", SimpleNamespace(monotonic=lambda: next(moments), sleep=lambda _: None))
    client, another = Client(*old), Client(*new)
    assert reach.is_cut_off(cast("Any", client), cast("Any", another), "events") is is_cut_off
    assert (client.answers, another.answers) == ([], [])
    assert client.seconds[0] == reach.ANSWER_SECONDS
    assert client.seconds[1:] == [15.0, 13.5, 9.5, 0.5][: len(client.seconds) - 1]


def test_real_clients_reach_a_broker_that_is_there() -> None:
    with MockKafka({"events": 1}) as kafka:
        there = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        away = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
        assert reach.answers(there, "events", SECONDS)
        assert not reach.answers(away, "events", 0.2)


def test_a_client_for_whose_end_there_is_no_thread_ends_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before, whoever let the client go got a RuntimeError."""
    ended: list[str] = []

    def no_thread(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(reach, "Thread", no_thread)
        reach.let_go(lambda: ended.append("first"))
    assert ended == []
    reach.let_go(lambda: ended.append("second"))
    deadline = time.monotonic() + stretched(SECONDS)
    while len(ended) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(ended) == ["first", "second"]


class Silent:
    """A Kafka client that nobody answers."""

    made = 0

    def __init__(self, *_: object, **__: object) -> None:
        type(self).made += 1

    def list_topics(self, topic: str, **_: object) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, f"of {topic}"))

    def describe_topics(self, topics: Any, **_: object) -> dict[str, Any]:
        return dict.fromkeys(topics.topic_names, self)

    def list_offsets(self, wanted: dict[TopicPartition, object], **_: object) -> dict[TopicPartition, Any]:
        return dict.fromkeys(wanted, self)

    def result(self, *_: object) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def assign(self, _: object) -> None:
        pass

    def consume(self, *_: object) -> list[Any]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def silent() -> Iterator[type[Silent]]:
    Silent.made = 0
    yield Silent
    Silent.made = 0


async def test_another_client_looks_for_the_topic_after_a_while(
    monkeypatch: pytest.MonkeyPatch, silent: type[Silent]
) -> None:
    monkeypatch.setattr(kafka_intake, "Consumer", silent)
    monkeypatch.setattr(kafka_intake, "TOPIC_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(kafka_intake, "TOPIC_CLIENT_SECONDS", 0.05)
    handler = Mock(spec=IntakeHandler)
    intake = KafkaIntake({"group.id": "g"}, "events", handler, asyncio.get_running_loop())
    intake.start()
    await eventually(lambda: silent.made > 2, SECONDS)
    intake.stop()
    await asyncio.wrap_future(intake.finished)


class Stuck(Silent):
    """A member of the group whose end never comes."""

    ended = threading.Event()

    def list_topics(self, topic: str, **_: object) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def subscribe(self, *_: object, **__: object) -> None:
        pass

    def committed(self, *_: object, **__: object) -> list[Any]:
        return []

    def poll(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    def close(self) -> None:
        self.ended.wait(SECONDS)


async def test_a_client_whose_group_is_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen in a storm: close() of a client that has lost its brokers waits for its last commit for minutes."""
    monkeypatch.setattr(Stuck, "made", 0)
    monkeypatch.setattr(Stuck, "ended", threading.Event())
    monkeypatch.setattr(kafka_intake, "Consumer", Stuck)
    monkeypatch.setattr(GroupSilence, "is_silent", lambda *_: Stuck.made == 1)
    handler = Mock(spec=IntakeHandler)
    intake = KafkaIntake({"group.id": "g"}, "events", handler, asyncio.get_running_loop())
    intake.start()
    try:
        await eventually(lambda: Stuck.made == 2, SECONDS / 2)
    finally:
        intake.stop()
        Stuck.ended.set()
        await asyncio.wrap_future(intake.finished)


def test_ids_of_topics_are_asked_for_with_a_new_client_after_no_answer(
    monkeypatch: pytest.MonkeyPatch, silent: type[Silent]
) -> None:
    monkeypatch.setattr(renewed_admin, "AdminClient", silent)
    ids = TopicIds({}, ["events"], lambda *_: None)
    assert not ids.ask()
    assert not ids.ask()
    assert silent.made == 2


def test_ends_of_partitions_are_asked_for_with_a_new_client_after_no_answer(
    monkeypatch: pytest.MonkeyPatch, silent: type[Silent]
) -> None:
    monkeypatch.setattr(renewed_admin, "AdminClient", silent)
    told: list[object] = []
    watched = SimpleNamespace(ends_wanted={0, 1}, know_ends=told.append)
    watch = TopicWatch({}, "events", TopicIds({}, ["events"], lambda *_: None), watched)
    watch.look()
    watch.look()
    assert (silent.made, told) == (2, [{}, {}])


def test_a_restore_begins_again_with_a_new_client_when_nothing_comes(
    monkeypatch: pytest.MonkeyPatch, silent: type[Silent]
) -> None:
    now = 0.0

    def moment() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(restore, "time", SimpleNamespace(monotonic=moment))
    ids = TopicIds({}, ["events"], lambda *_: None)
    restoring = LedgerRestore(KAFKA, DedupeSettings(), Mock(spec=RestoreHandler), Mock(), ids)
    partition = Partition(0, 0.0, Dedupe(1.0, 1, DedupeCounts()))
    restoring._left[0] = restore._Wanted(partition, 0.0, None)
    reading = Mock(spec=restore._Reading, partition=partition, first=3, end=9)
    with pytest.raises(KafkaException, match="no records arrive from the ledger"):
        restoring._read(cast("Any", silent()), {0: reading}, restore._Known())
    assert now > restore.SILENT_SECONDS


class Message:
    """A message at this offset of partition 0 of topic "events"."""

    def __init__(self, offset: int) -> None:
        self.at = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "events"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at


@pytest.mark.parametrize("answered", [True, False])
def test_who_follows_a_topic_reads_on_with_a_new_client_if_kafka_does_not_answer_the_old_one(
    monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    made: list[Mock] = []

    def client(*_: object) -> Mock:
        made.append(Mock())
        # Each client has one message, and then is silent.
        made[-1].consume.side_effect = [[Message(6 + len(made))], *[[]] * 1000]
        made[-1].list_topics.return_value = SimpleNamespace(brokers=SOME if answered else NONE)
        return made[-1]

    now = 0.0
    monkeypatch.setattr(topic_reading, "silent_client", client)
    monkeypatch.setattr(topic_reading, "time", SimpleNamespace(monotonic=lambda: now))
    reader = TopicReader(KAFKA)
    following = reader.follow({"events": {0: 7, 1: 3}})
    came = []
    for _ in range(100):
        now += 1.0
        came.append(next(following))
    offsets = [message.offset() for message in came if message is not None]
    assigned = [
        [(each.partition, each.offset) for each in client.assign.call_args.args[0]] for client in made
    ]
    if answered:
        assert (offsets, assigned) == ([7], [[(0, 7), (1, 3)]])
    else:
        assert offsets == [7, 8, 9, 10]
        assert assigned == [[(0, 7), (1, 3)], [(0, 8), (1, 3)], [(0, 9), (1, 3)], [(0, 10), (1, 3)]]
        # Those before the last are closed in threads of their own.
        while not all(client.close.called for client in made[:-1]):
            time.sleep(0.01)
        assert not made[-1].close.called
