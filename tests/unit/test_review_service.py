"""The parts of the service together: hand-overs during a stop or with a full memory, commits, failures."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from itertools import repeat
from math import inf
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from prometheus_client import generate_latest

from deadlines import stretched
from engine_steps import metadata
from engine_world import OK, START_MS, decision, positions, ready, record
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.http.answers import MAX_ANSWER_BYTES
from flagpost_consumer.adapters.kafka import intake as kafka_intake
from flagpost_consumer.adapters.kafka import producer as kafka_producer
from flagpost_consumer.adapters.kafka import write_line
from flagpost_consumer.adapters.kafka.dead_letter_writer import DeadLetterWriter
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading, Start
from flagpost_consumer.adapters.ledger.restore import Restored
from flagpost_consumer.adapters.pendo.address import PendoAddress
from flagpost_consumer.adapters.pendo.http import LATE_SECONDS, PendoHttp
from flagpost_consumer.core.books.deliveries import Position, Settlement
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.books.stalls import Stall, Stalled
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.schema_lookups import Found
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure, Gap
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_consumer.service import chores, kafka_calls
from flagpost_consumer.service.chores import again_and_again
from flagpost_consumer.service.probes import LIVE_SECONDS
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Needs, load_settings
from flagpost_schemas import DecisionEvent, encode_confluent, encode_single_object, schema_of
from registry_world import FakeMessage, messages
from running import eventually

SECONDS = 5.0
"""How long a test waits at most."""


class Requests:
    """Replaces the HTTP client: keeps the attempts, which the test answers."""

    oldest_attempt_seconds = 0.0

    def __init__(self) -> None:
        self.under_way: list[Attempt] = []

    def start(self, attempt: Attempt) -> None:
        self.under_way.append(attempt)


class Intake:
    """Replaces the Kafka thread."""

    def __init__(self) -> None:
        self.paused: bool | None = None
        self.paused_partitions: Collection[int] = ()
        self.began_anew = 0
        self.ids: tuple[str | None, str | None] = None, None
        self.committed: list[dict[int, Position]] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause(self, paused: bool, partitions: Collection[int] = ()) -> None:
        self.paused = paused
        self.paused_partitions = partitions

    def begin_anew(self) -> None:
        self.began_anew += 1

    def is_fresh(self, message: object) -> bool:
        del message
        return False

    def know_ids(self, topic_id: str | None, ledger_id: str | None) -> None:
        self.ids = topic_id, ledger_id

    def commit(self, positions: Mapping[int, Position]) -> None:
        self.committed.append(dict(positions))

    def stop(self) -> None:
        self.finished.set_result(None)


class Ledger:
    """Replaces the ledger: acknowledges each settlement a moment later, unless `slow`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.renewed = 0
        self.slow = False
        """Settlements wait in `waiting` until the test acknowledges them."""
        self.waiting: list[Settlement] = []

    def made_anew(self) -> None:
        self.renewed += 1

    def write(self, settlement: Settlement) -> None:
        if self.slow:
            self.waiting.append(settlement)
        else:
            asyncio.get_running_loop().call_soon(self._service.loop.writing.acknowledged, [settlement], 0)

    def take(self) -> None:
        """Acknowledge what waits."""
        self._service.loop.writing.acknowledged(self.waiting, 0)

    def forget(self, partitions: Collection[int]) -> None:
        pass


def take_over(service: Service, partitions: list[int]) -> None:
    """Assign and restore partitions, with nobody suppressed, and prove our membership."""
    service.calls.on_assigned(partitions, len(partitions), 1)
    for number in partitions:
        current = service.engine.current(number)
        assert current is not None
        service.engine.restore(current, Restoration(0, Policy().dedupe))
    service.releases.on_suppressions_known(Suppressions())
    service.engine.prove_membership(inf)


def offsets(committed: Mapping[int, Position]) -> dict[int, int]:
    return {number: position.offset for number, position in committed.items()}


def service_with(**more: str) -> tuple[Service, Requests, Intake]:
    values = {
        "KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PENDO__TRACK_URL": "http://127.0.0.1:1/data/track",
        "PENDO__API_URL": "http://127.0.0.1:1",
        "PENDO__TRACK_SECRET": "secret",
        "DECISIONS__VISITOR_METADATA": "false",
        "DELIVERY__VISITOR_INTERVAL_SECONDS": "0",
        "PENDO__REQUEST_TIMEOUT_SECONDS": "2",
        **more,
    }
    environ = {f"FLAGPOST_{name}": value for name, value in values.items()}
    service = Service(load_settings(None, environ, Needs.KAFKA | Needs.PENDO))
    requests, intake = Requests(), Intake()
    service.loop.http, service.loop.intake = cast("Any", requests), cast("Any", intake)
    service.loop.writing.ledger = cast("Any", Ledger(service))
    return service, requests, intake


async def go_on() -> None:
    """Let everything run that is ready to run."""
    for _ in range(20):
        await asyncio.sleep(0)


def now_ms() -> int:
    return clock().wall_ms


async def test_a_hand_over_during_the_drain_waits_for_what_is_in_flight() -> None:
    """docs/architecture.md#a-hand-over: requests in flight of a revoked partition are awaited, also in a drain."""
    service, requests, _ = service_with()
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    service.stop()
    draining = asyncio.ensure_future(service.life.drain())
    revoking = asyncio.ensure_future(service.calls.on_revoked([0]))
    await go_on()
    assert not revoking.done()
    service.loop.answered(requests.under_way[0], OK, 0.1)
    assert offsets(await revoking) == {0: 1}
    assert await draining


async def test_a_hand_over_during_which_the_drain_begins_waits_too() -> None:
    service, requests, _ = service_with()
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    revoking = asyncio.ensure_future(service.calls.on_revoked([0]))
    await asyncio.sleep(0)
    service.stop()
    draining = asyncio.ensure_future(service.life.drain())
    await go_on()
    assert not revoking.done()
    service.loop.answered(requests.under_way[0], OK, 0.1)
    assert offsets(await revoking) == {0: 1}
    assert await draining


async def test_a_request_that_a_hand_over_abandons_during_the_drain_makes_the_stop_unclean() -> None:
    """docs/contract.md#exit-codes: exit code 1 when requests in flight had to be abandoned."""
    service, requests, _ = service_with(PENDO__REQUEST_TIMEOUT_SECONDS="0.05")
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    service.stop()
    draining = asyncio.ensure_future(service.life.drain())
    assert offsets(await service.calls.on_revoked([0])) == {0: 0}
    assert not await draining


async def test_a_hand_over_waits_for_settlements_longer_than_for_answers() -> None:
    """A settlement that the next owner does not find in the ledger is sent to Pendo again."""
    service, requests, _ = service_with(PENDO__REQUEST_TIMEOUT_SECONDS="0.01")
    ledger = cast("Ledger", service.loop.writing.ledger)
    ledger.slow = True
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    revoking = asyncio.ensure_future(service.calls.on_revoked([0]))
    await go_on()
    service.loop.answered(requests.under_way[0], OK, 0.1)
    await eventually(lambda: ledger.waiting)
    await asyncio.sleep(0.01 + 2 * LATE_SECONDS)
    ledger.take()
    assert offsets(await revoking) == {0: 1}


async def test_a_hand_over_does_not_wait_for_ever_for_settlements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_calls, "SETTLED_SECONDS", 0.01)
    service, requests, _ = service_with()
    cast("Ledger", service.loop.writing.ledger).slow = True
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    service.loop.answered(requests.under_way[0], OK, 0.1)
    assert offsets(await service.calls.on_revoked([0])) == {0: 0}


async def test_answers_that_come_after_the_run_has_ended_are_ignored() -> None:
    """Closing the HTTP client answers the attempts that are left: that must start and settle nothing."""
    service, requests, _ = service_with()
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    service.stopping.ended = True
    service.loop.answered(requests.under_way[0], OK, 0.1)
    await go_on()
    assert service.engine.track.in_flight == 1
    assert not service.engine.accounts.settled


async def test_one_answer_to_a_batch_is_processed_in_each_turn_of_the_loop() -> None:
    """Each may settle a thousand deliveries; before the fix, eight together blocked the loop for 0.25 s."""
    service, requests, _ = service_with(
        PENDO__INTEGRATION_KEY="key", METADATA__BATCH_SIZE="1", METADATA__LINGER_SECONDS="0"
    )
    take_over(service, [0])
    service.loop.receive([record(metadata(f"v{n}", now_ms() - START_MS, plan="a"), n) for n in range(3)])
    await eventually(lambda: len(requests.under_way) == 3)
    for attempt in requests.under_way:
        service.loop.answered(attempt, OK, 0.1)
    left = []
    for _ in range(4):
        await asyncio.sleep(0)
        left.append(service.engine.metadata.in_flight)
    assert left == [2, 1, 0, 0]


async def test_a_hand_over_waits_no_longer_once_the_drain_is_over() -> None:
    service, requests, _ = service_with(PENDO__REQUEST_TIMEOUT_SECONDS="20", DELIVERY__DRAIN_SECONDS="0.05")
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    revoking = asyncio.ensure_future(service.calls.on_revoked([0]))
    service.stop()
    assert not await service.life.drain()
    assert offsets(await asyncio.wait_for(revoking, stretched(SECONDS))) == {0: 0}


@pytest.mark.parametrize("lost", [True, False])
async def test_intake_resumes_when_the_partition_that_filled_the_memory_is_handed_over(lost: bool) -> None:
    service, requests, intake = service_with(DELIVERY__MAX_PENDING="2", PENDO__REQUEST_TIMEOUT_SECONDS="0.05")
    take_over(service, [0, 1])
    events = [decision("v", f"flag{n}", occurred_at=now_ms()) for n in range(2)]
    service.loop.receive([record(event, offset) for offset, event in enumerate(events)])
    await eventually(lambda: requests.under_way and intake.paused)
    if lost:
        service.calls.on_lost([0])
    else:
        await service.calls.on_revoked([0])
    await go_on()
    assert intake.paused is False


async def test_nothing_is_committed_once_the_engine_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    service, requests, intake = service_with()
    take_over(service, [0])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    service.loop.answered(requests.under_way[0], OK, 0.1)
    await eventually(lambda: service.engine.pending_records == 0)
    serving = asyncio.ensure_future(service.life.run(cast("KafkaIntake", intake)))
    await asyncio.sleep(0)
    monkeypatch.setattr(service.engine, "drain", lambda _: service.defects.fail(RuntimeError("in the drain")))
    service.stop()
    assert await asyncio.wait_for(serving, stretched(SECONDS)) == 1
    assert intake.committed == []


class ReluctantConsumer:
    """A consumer whose first commit fails."""

    def __init__(self) -> None:
        self.commits: list[list[int]] = []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.commits.append([partition.offset for partition in offsets])
        if len(self.commits) == 1:
            raise KafkaException(KafkaError(KafkaError._WAIT_COORD))


async def test_a_commit_that_failed_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "COMMIT_SECONDS", 0.01)
    service, _, _ = service_with()
    intake = KafkaIntake({"group.id": "flagpost"}, "events", service.calls, asyncio.get_running_loop())
    intake._partitions.readings[0] = PartitionReading(Start(0))
    service.loop.intake = intake
    take_over(service, [0])
    service.loop.receive([record(decision("", occurred_at=now_ms()))])
    await eventually(lambda: positions(service.engine) == {0: 1})
    consumer = ReluctantConsumer()
    pauses = repeat(chores.COMMIT_SECONDS)
    committing = asyncio.ensure_future(again_and_again(pauses, service.chores.commit_if_due))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while len(consumer.commits) < 2:
                intake._run_commands(cast("Consumer", consumer))
                await asyncio.sleep(0)
    committing.cancel()
    assert consumer.commits[:2] == [[1], [1]]


# Partitions that start again


async def test_the_newest_start_of_a_partition_counts() -> None:
    """A log that goes back and a topic that is created again are reported one after the other. Before the fix, if the
    second report came while the first waited for requests in flight, the partition was never released.
    """
    service, requests, _ = service_with()
    take_over(service, [0, 1])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    before = service.engine.current(0)
    tasks = [
        asyncio.ensure_future(service.calls.on_began_anew([0], 2, {0: Start(0)})),
        asyncio.ensure_future(service.calls.on_began_anew([0, 1], 3, {})),
    ]
    await go_on()
    assert service.engine.current(0) is before, "what is in flight is waited for"
    service.loop.answered(requests.under_way[0], OK, 0.1)
    await asyncio.wait_for(asyncio.gather(*tasks), stretched(SECONDS))
    for number in (0, 1):
        current = service.engine.current(number)
        assert current is not None
        assert not current.restored
        assert service.calls.assignment_of[current] == 3
    assert service.engine.accounts.returned.get(Kind.TRACK, 0) == 0


async def test_a_partition_that_is_taken_away_meanwhile_does_not_start_again() -> None:
    service, requests, _ = service_with()
    take_over(service, [0, 1])
    service.loop.receive([record(decision("v", occurred_at=now_ms()))])
    await eventually(lambda: requests.under_way)
    beginning = asyncio.ensure_future(service.calls.on_began_anew([0, 1], 2, {}))
    await go_on()
    service.calls.on_lost([0])
    service.calls.on_assigned([0], 2, 3)
    await asyncio.wait_for(beginning, stretched(SECONDS))
    current = service.engine.current(0)
    assert current is not None
    assert service.calls.assignment_of[current] == 3


class Ids:
    """Replaces the ids of topics."""

    def get(self, topic: str) -> str:
        return f"new {topic}"


async def test_a_topic_that_turns_out_to_be_another_one_after_it_was_read_starts_again() -> None:
    """Before the fix, a topic whose id the broker did not return counted as the topic of the commit. So ledger
    entries about that one settled records of the new one (found by the simulation).
    """
    service, _, intake = service_with()
    service.topics.ids = cast("Any", Ids())
    take_over(service, [0, 1])
    for number in (0, 1):
        current = service.engine.current(number)
        assert current is not None
        current.topic_id = "then"
    for topic in ("flagpost.ledger", "flagpost.events", "flagpost.dead-letters"):
        service.topics.on_topic_id(topic, None)
    assert intake.began_anew == 1
    assert service.metrics.observed.topics_replaced == {"flagpost.events": 1}
    kept = [current.topic_id for number in (0, 1) if (current := service.engine.current(number)) is not None]
    assert kept == ["then", "then"], "what was read is still taken for the old topic's"


async def test_an_id_that_comes_while_the_ledger_is_read_is_compared_with_that_of_the_commit() -> None:
    service, _, intake = service_with()
    released = Mock()
    intake.release = released  # type: ignore[attr-defined]
    service.topics.ids = cast("Any", Ids())
    service.releases.on_suppressions_known(Suppressions())
    service.calls.on_assigned([0, 1, 2], 3, 1)
    for number, topic_id in ((0, None), (1, "then"), (2, "then")):
        current = service.engine.current(number)
        assert current is not None
        start = Start(3, None, topic_id)
        service.releases.on_restored(Restored(current, Restoration(0, Policy().dedupe), start, None, 0.1))
    starts = [call.args[1] for call in released.call_args_list]
    assert starts[0] == Start(3, None, "new flagpost.events", "new flagpost.ledger"), "nothing says otherwise"
    assert starts[1].topic_id == "then"
    assert intake.began_anew == 1, "once for all partitions"
    assert service.metrics.observed.topics_replaced == {"flagpost.events": 1}


async def test_each_topic_that_is_created_again_is_counted_once_and_only_the_events_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writers to such a topic get a new client: librdkafka may keep the leaders of the old topic."""
    service, _, intake = service_with()
    ledger, renewed = Ledger(service), Mock()
    service.loop.writing.ledger = cast("Any", ledger)
    monkeypatch.setattr(kafka_producer.KafkaProducer, "renew", renewed)
    service.topics.ids = cast("Any", Ids())
    take_over(service, [0])
    current = service.engine.current(0)
    assert current is not None
    current.window.note(500, 1, now_ms(), 3)
    service.topics.on_topic_id("flagpost.events", None)
    assert current.topic_id == "new flagpost.events", "where the id was not told at once"
    renewed.assert_not_called()
    service.topics.on_topic_id("flagpost.dead-letters", "old")
    renewed.assert_called_once_with()
    assert intake.began_anew == 0
    assert service.engine.committable()[0].ledger_offset == 500
    assert ledger.renewed == 0
    reader = Mock()
    service.topics.suppressions = reader
    service.topics.on_topic_id("flagpost.suppressions", "old")
    reader.made_anew.assert_called_once_with()
    renewed.assert_called_once_with()
    service.topics.on_topic_id("flagpost.ledger", "old")
    assert ledger.renewed == 1
    assert intake.began_anew == 0
    assert service.engine.committable()[0].ledger_offset == 0
    service.topics.on_topic_id("flagpost.events", "old")
    service.releases.on_other_topic("flagpost.events", "new flagpost.events")
    assert intake.began_anew == 1
    counted = service.metrics.observed.topics_replaced
    assert counted == {
        "flagpost.dead-letters": 1,
        "flagpost.suppressions": 1,
        "flagpost.ledger": 1,
        "flagpost.events": 1,
    }
    assert intake.ids == ("new flagpost.events", "new flagpost.ledger")


# Suppressed visitors


async def test_no_record_is_read_before_the_suppressions_are_known() -> None:
    service, requests, intake = service_with()
    released = Mock()
    intake.release = released  # type: ignore[attr-defined]
    service.calls.on_assigned([0, 1], 2, 1)
    service.engine.prove_membership(inf)
    for number in (0, 1):
        current = service.engine.current(number)
        assert current is not None
        restoration = Restoration(0, Policy().dedupe)
        service.releases.on_restored(Restored(current, restoration, Start(0), None, 0.1))
    released.assert_not_called()
    assert {each.reason for each in service.stalls.of_now().values()} == {Stall.SUPPRESSIONS}
    service.engine.forget([1], clock())  # taken away meanwhile
    known = Suppressions()
    known.take([Suppression("gone", is_suppressed=True)])
    service.releases.on_suppressions_known(known)
    assert [call.args[0] for call in released.call_args_list] == [0]
    assert service.stalls.of_now() == {}
    events = [decision("gone", occurred_at=now_ms()), decision("stays", occurred_at=now_ms())]
    service.loop.receive([record(event, n) for n, event in enumerate(events)])
    await eventually(lambda: requests.under_way, SECONDS)
    assert {each.lane.visitor_id for each in requests.under_way if isinstance(each, TrackAttempt)} == {
        "stays"
    }


async def test_one_suppression_too_many_stops_all_sending_and_the_topic_is_read_again() -> None:
    service, _, _ = service_with()
    reader = Mock()
    service.releases.suppressions = reader
    take_over(service, [0])
    service.engine._suppressions._max_bytes = 500
    service.releases.on_suppressions([Suppression(f"v{n}", is_suppressed=True) for n in range(100)])
    reader.read_over.assert_called_once_with()
    stalled = service.stalls.of_now()[0]
    assert stalled.reason is Stall.SUPPRESSIONS
    assert "visitors are suppressed" in stalled.detail
    service.releases.on_suppressions_known(Suppressions())
    assert service.engine.knows_suppressions


async def test_a_topic_that_cannot_be_followed_stops_sending_until_it_can() -> None:
    service, _, _ = service_with()
    take_over(service, [0])
    service.releases.on_suppressions_followed("no leader")
    assert service.stalls.of_now()[0] == Stalled(Stall.SUPPRESSIONS, "no leader")
    service.releases.on_suppressions_followed("")
    assert service.stalls.of_now() == {}


# The Kafka thread


class BrokenAssignment:
    """A consumer whose poll brings an assignment, and whose incremental_assign() raises."""

    def __init__(self, *_: object, **__: object) -> None:
        self.on_assign: Callable[[Any, list[TopicPartition]], None] | None = None

    def list_topics(self, topic: str, timeout: float) -> Any:
        del timeout

        class Found:
            error = None
            partitions: Mapping[int, object] = {0: None}

        return type("Listed", (), {"topics": {topic: Found}})

    def subscribe(self, _: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        del on_revoke, on_lost
        self.on_assign = on_assign

    def poll(self, _: float) -> None:
        if self.on_assign is not None:
            self.on_assign(self, [TopicPartition("events", 0)])

    def incremental_assign(self, _: object) -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    def position(self, _: object) -> list[TopicPartition]:
        return []

    def close(self) -> None:
        pass


async def test_a_rebalance_callback_that_fails_ends_the_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_intake, "Consumer", BrokenAssignment)
    service, _, _ = service_with()
    intake = KafkaIntake({"group.id": "flagpost"}, "events", service.calls, asyncio.get_running_loop())
    intake.start()
    with pytest.raises(KafkaException):
        await asyncio.wait_for(asyncio.wrap_future(intake.finished), stretched(SECONDS))
    await asyncio.to_thread(intake._thread.join, stretched(SECONDS))
    assert not intake._thread.is_alive()


# Answers


async def test_a_compressed_answer_is_limited_like_any_other() -> None:
    packed = gzip.compress(bytes(30_000_000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        writer.write(head.encode() + packed)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    answers: asyncio.Queue[Answer] = asyncio.Queue()
    address = PendoAddress(url, url, "x-track", True, SECONDS, SECONDS)
    http = PendoHttp(address, lambda _, answer, __: answers.put_nowait(answer))
    http.open()
    http.set_secret(EndpointName.TRACK, "secret")
    http.start(Attempt(EndpointName.TRACK, b"{}", Ticket("v", 1)))
    answer = await asyncio.wait_for(answers.get(), stretched(SECONDS))
    await http.close()
    server.close()
    assert len(answer.body) <= 2 * MAX_ANSWER_BYTES


# Dead letters


class Producing:
    """A producer whose broker returns the given errors in turn; None is success."""

    def __init__(self, errors: list[int | None]) -> None:
        self.errors = errors
        self.produced: list[tuple[bytes | None, dict[str, Any]]] = []
        self.reports: list[Callable[[], None]] = []

    def produce(
        self,
        _: str,
        value: bytes | None,
        __: bytes | None,
        partition: int,
        headers: list[tuple[str, Any]],
        on_delivery: Any,
    ) -> None:
        assert partition == -1, "a dead letter goes where its key does"
        self.produced.append((value, dict(headers)))
        code = self.errors.pop(0)
        error = None if code is None else KafkaError(code)
        reported = type("Reported", (), {"offset": lambda _: len(self.produced), "partition": lambda _: 0})()
        self.reports.append(lambda: on_delivery(error, reported))

    def __len__(self) -> int:
        return len(self.reports)

    def poll(self, _: float) -> int:
        reports, self.reports = self.reports, []
        for report in reports:
            report()
        return len(reports)


def dead_settlement(*, truncated: bool = False) -> Settlement:
    engine = Engine(Policy(), lambda: 0.5)
    ready(engine, [0], 1, clock(), Policy())
    dead = record(DecodeFailure(Reason.UNDECODABLE, "cut short"))
    engine.receive([dead._replace(value=None, truncated=True) if truncated else dead], clock())
    (settlement,) = engine.poll(clock()).settlements
    return settlement


async def test_a_dead_letter_that_lost_its_value_does_not_get_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_line, "FIRST_PAUSE_SECONDS", 0.0)
    producing = Producing([KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._MSG_TIMED_OUT, None])
    monkeypatch.setattr(kafka_producer, "Producer", lambda *_, **__: producing)
    written: list[Settlement] = []
    letters = DeadLetterWriter({}, "dead", "events", written.append)
    letters.write(dead_settlement())
    await eventually(lambda: written)
    assert [value for value, _ in producing.produced] == [b"original", None, None]
    assert producing.produced[-1][1]["flagpost-truncated"] == b"true"


async def test_the_dead_letter_of_a_record_whose_value_was_not_kept_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producing = Producing([None])
    monkeypatch.setattr(kafka_producer, "Producer", lambda *_, **__: producing)
    written: list[Settlement] = []
    DeadLetterWriter({}, "dead", "events", written.append).write(dead_settlement(truncated=True))
    await eventually(lambda: written)
    [(value, headers)] = producing.produced
    assert value is None
    assert headers["flagpost-truncated"] == b"true"
    assert headers["flagpost-source"] == b"events/0/0"


async def test_each_dead_letter_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    producing = Producing([None, KafkaError._TRANSPORT, None, None])
    monkeypatch.setattr(kafka_producer, "Producer", lambda *_, **__: producing)
    monkeypatch.setattr(write_line, "FIRST_PAUSE_SECONDS", 0.0)
    written: list[Settlement] = []
    letters = DeadLetterWriter({}, "dead", "events", written.append)
    settlements = [dead_settlement() for _ in range(3)]
    for settlement in settlements:
        letters.write(settlement)
    await eventually(lambda: len(written) >= 3 and not producing.reports)
    assert len(producing.produced) == 4
    assert len(written) == 3
    assert all(any(settlement is one for one in written) for settlement in settlements)


def held(service: Service, count: int, partition: int = 0) -> None:
    """Hand over messages that need a schema which the registry does not return."""
    done: list[bool] = []
    service.calls.on_messages(
        messages(*[encode_confluent(decision("v"), 7)] * count, partition=partition),
        lambda: done.append(True),
    )
    assert done, "a partition that waits takes up no place in the hand-over"


async def test_a_partition_that_waits_for_the_registry_is_reported_and_only_it_is_paused() -> None:
    service, _, intake = service_with(KAFKA__SCHEMA_REGISTRY__URL="http://127.0.0.1:1")
    take_over(service, [0, 1])
    held(service, 1)
    await eventually(
        lambda: service.loop.status.document(False)["registry_waits"][0]["last_answer"] != "not asked yet"
    )
    [wait] = service.loop.status.document(False)["registry_waits"]
    assert (wait["partition"], wait["schema_id"]) == (0, 7)
    assert datetime.fromisoformat(wait["since"]).timestamp() * 1000 <= now_ms()
    assert "127.0.0.1:1" in wait["last_answer"]
    assert b"flagpost_registry_waiting 1.0" in generate_latest(service.metrics.registry)
    assert intake.paused_partitions == frozenset()

    held(service, 1_000)
    await eventually(lambda: intake.paused_partitions == {0})
    assert intake.paused is False, "the others go on"
    service.calls.on_messages(messages(encode_single_object(decision("w")), partition=1), lambda: None)
    assert service.engine.accounts.records == 1

    service.calls.on_lost([0])
    await eventually(lambda: intake.paused_partitions == frozenset())
    assert service.loop.status.document(False)["registry_waits"] == []
    service.loop.decoding.stop()


async def test_a_gap_behind_waiting_records_is_reported_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported at once, it would be committed although the records before it are not decoded."""
    service, _, _ = service_with(KAFKA__SCHEMA_REGISTRY__URL="http://127.0.0.1:1")
    take_over(service, [0, 1])
    lost: list[int] = []
    monkeypatch.setattr(service.loop.writing, "lose", lambda partition, _gap: lost.append(partition.number))
    held(service, 1)
    service.calls.on_gap(0, Gap(5, 9))
    service.calls.on_gap(1, Gap(5, 9))
    assert lost == [1]
    service.loop.decoding._answered(7, Found(schema_of(DecisionEvent).text))
    assert lost == [1, 0]
    service.loop.decoding.stop()


async def test_a_quarantined_record_is_counted() -> None:
    service, _, _ = service_with()
    take_over(service, [0])
    bad = FakeMessage(b"", 0)
    bad.raises["value"] = [KeyError() for _ in ("at a glance", "decoded", "decoded once more")]
    service.calls.on_messages(cast("list[Message]", [bad]), lambda: None)
    assert b"flagpost_quarantined_total 1.0" in generate_latest(service.metrics.registry)


async def test_a_defect_in_an_answer_of_the_registry_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event loop would only log an error of a callback, and the partition would wait for ever."""
    service, _, _ = service_with(KAFKA__SCHEMA_REGISTRY__URL="http://127.0.0.1:1")
    take_over(service, [0])

    def defective(*_: object) -> None:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(service.loop.decoding, "_answered", defective)
    held(service, 1)
    await eventually(service.life._has_failed)
    service.loop.decoding.stop()


# Probes: a process that could make progress and does not is not live


async def test_a_request_that_is_due_and_does_not_start_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _, intake = service_with()
    monkeypatch.setattr(intake, "beat_at", float("inf"), raising=False)
    assert service.probes.live().ok
    now = clock().monotonic
    service.loop.note_overdue(now - 1.0, now)
    assert service.probes.live().ok, "it has only just been seen"
    service.loop.overdue_since = now - LIVE_SECONDS - 1.0
    service.loop.note_overdue(now - 1.0, now)
    assert "has been due for" in service.probes.live().detail
    assert not service.probes.live().ok
    service.loop.note_overdue(now + 60.0, now)
    assert service.probes.live().ok


async def test_a_request_without_an_answer_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    service, requests, intake = service_with()
    monkeypatch.setattr(intake, "beat_at", float("inf"), raising=False)
    longest = service._settings.pendo.metadata_timeout_seconds + 2 * LIVE_SECONDS
    requests.oldest_attempt_seconds = longest - 1.0
    assert service.probes.live().ok
    requests.oldest_attempt_seconds = longest + 1.0
    assert not service.probes.live().ok
    assert "without an answer" in service.probes.live().detail
