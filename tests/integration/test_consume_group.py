"""Consumers that share the work: hand-overs, stops, and a broker that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    Fate,
    PendoStandIn,
    Received,
    StandInConfig,
)
from flagpost_schemas import TrackEvent, encode_single_object
from real_kafka.broker import KafkaBroker, OwnBroker
from running import RunningConsumer, eventually, total
from scenes import Scene
from traffic import produce, tracks

INTERVAL_SECONDS = 0.05
VISITORS = 2_000
ZIPF_EXPONENT = 0.7
"""Chosen so that the hottest visitor's strict order takes under a minute."""


def events_of(count: int, seed: int) -> list[TrackEvent]:
    """Numbered events of visitors that are drawn from a Zipf distribution."""
    random = Random(seed)
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, VISITORS + 1)]
    visitors = random.choices(range(VISITORS), weights, k=count)
    now_ms = time.time_ns() // 1_000_000
    return [
        TrackEvent(
            event_id=f"event-{number}",
            occurred_at=now_ms,
            visitor_id=f"visitor-{visitor}",
            event="Step",
            properties={"n": number},
        )
        for number, visitor in enumerate(visitors)
    ]


class Group(Scene):
    """A scene for several consumers; the query in a request's path names the consumer that sent it."""

    def __init__(self, kafka: KafkaBroker, pendo: PendoStandIn, name: str, partitions: int = 12) -> None:
        super().__init__(kafka, pendo, name, partitions)
        self.settings |= {
            # The Pendo stand-in runs in this process, which may stop for seconds on a busy machine. A request that
            # times out then would be sent again, correctly.
            "kafka.session_timeout_seconds": 60,
            "pendo.request_timeout_seconds": 25,
            "decisions.visitor_metadata": False,
            "delivery.visitor_interval_seconds": INTERVAL_SECONDS,
            "delivery.max_pending_per_visitor": 0,
        }

    def consumer(self, name: str, **settings: object) -> RunningConsumer:
        return self.consume(pendo__track_url=f"{self.pendo.track_url}?by={name}", **settings)

    async def everything_recorded(self, count: int, seconds: float) -> None:
        received = self.pendo.received
        await received.until(lambda: received.recorded() - received.repeats() == count, seconds)


def holds(consumer: RunningConsumer, partitions: int) -> bool:
    return consumer.value("flagpost_partitions_assigned") == partitions


def has_nothing_pending(consumer: RunningConsumer) -> bool:
    return total(consumer.scrape(), "flagpost_deliveries_pending") == 0


def is_ready(consumer: RunningConsumer) -> bool:
    return consumer.get("/readyz")[0] == 200


async def scrape_often(*consumers: RunningConsumer) -> None:
    """Scrape until cancelled; each scrape checks that the accounts balance."""
    while True:
        for consumer in consumers:
            if consumer.is_running:
                with contextlib.suppress(OSError):  # the consumer may just be ending
                    await asyncio.to_thread(consumer.scrape)
        await asyncio.sleep(0.2)


def number_of(request: Received) -> int:
    return request.parsed["properties"]["n"]  # type: ignore[index, no-any-return]


def sender_of(request: Received) -> str:
    return request.path.partition("?by=")[2]


def check_order(requests: list[Received]) -> None:
    """Check that each sender sent a visitor's events in the order of their numbers, and so of their offsets."""
    last: dict[tuple[str, str | None], int] = defaultdict(lambda: -1)
    for request in requests:
        key = sender_of(request), request.visitor_id
        assert number_of(request) >= last[key]
        last[key] = number_of(request)


def sent_again_though_answered(requests: list[Received]) -> int:
    """The number of events sent again although Pendo had answered 200; with the ledger it must be zero."""
    answered = Counter(number_of(request) for request in requests if request.status == 200)
    return sum(answered.values()) - len(answered)


@pytest.mark.timeout(400)
async def test_twenty_thousand_events_two_consumers_faults_and_one_stopped_halfway(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    count = 20_000
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as pendo:
        group = Group(kafka, pendo, fresh_name("group"))
        pendo.faults.mix(11, [(0.02, 500), (0.005, CLOSE_BEFORE_RECORDING), (0.005, CLOSE_AFTER_RECORDING)])
        with group.consumer("a") as first, group.consumer("b") as second:
            for consumer in (first, second):
                await eventually(partial(holds, consumer, 6))
            await asyncio.to_thread(group.publish, list(events_of(count, seed=11)))
            scraping = asyncio.ensure_future(scrape_often(first, second))
            await pendo.received.until(lambda: pendo.received.recorded() >= count // 2, 120)
            assert await first.stop() == 0
            await group.everything_recorded(count, 240)
            await eventually(partial(has_nothing_pending, second))
            assert not scraping.done(), "the books did not balance at some scrape"
            scraping.cancel()
            assert await second.stop() == 0
        requests = tracks(pendo.received)
        assert pendo.received.violations == []
        check_order(requests)
        assert {number_of(r) for r in requests if r.fate is Fate.RECORDED} == set(range(count))
        lost_answers = sum(r.fate is Fate.RECORDED and r.status != 200 for r in requests)
        with capsys.disabled():
            sys.stdout.write(f"\n{pendo.received.repeats()} sent again; {lost_answers} answers were lost\n")
        assert sent_again_though_answered(requests) == 0
        assert pendo.received.repeats() <= lost_answers


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_newcomer_takes_over_partitions_without_loss(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], protocol: str
) -> None:
    count = 3_000
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as pendo:
        group = Group(kafka, pendo, fresh_name("newcomer"), partitions=4)
        with group.consumer("a", kafka__group_protocol=protocol) as first:
            await eventually(lambda: first.value("flagpost_partitions_assigned") == 4)
            events = events_of(count, seed=5)
            published = await asyncio.to_thread(group.publish, events[: count // 2])
            await pendo.received.until(lambda: pendo.received.recorded() >= 300, 60)
            with group.consumer("b", kafka__group_protocol=protocol) as second:
                await eventually(lambda: second.value("flagpost_partitions_assigned") == 2, 60)
                published += await asyncio.to_thread(group.publish, events[count // 2 :])
                await group.everything_recorded(count, 120)
                for consumer in (first, second):
                    await eventually(partial(has_nothing_pending, consumer))
                    assert consumer.value("flagpost_rebalances_total", kind="lost") == 0
                assert first.value("flagpost_rebalances_total", kind="revoked") >= 1
                assert await second.stop() == 0
            assert await first.stop() == 0
        requests = tracks(pendo.received)
        assert pendo.received.violations == []
        check_order(requests)
        assert {sender_of(request) for request in requests} == {"a", "b"}
        assert pendo.received.repeats() == 0


HANG_SECONDS = 14.0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_partitions_that_stay_are_read_during_a_hand_over(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], protocol: str
) -> None:
    """A hanging request delays the hand-over of its partition; before, it also stopped reading all others."""
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as pendo:
        group = Group(kafka, pendo, fresh_name("stay"), partitions=4)
        group.settings |= {
            "kafka.group_protocol": protocol,
            "kafka.session_timeout_seconds": 40,
            "pendo.request_timeout_seconds": HANG_SECONDS,
        }
        sent_at: dict[int, tuple[float, int]] = {}

        def publish_some() -> None:
            begin = len(sent_at)
            now_ms = time.time_ns() // 1_000_000
            events = [
                TrackEvent(
                    event_id=f"flow-{n}",
                    occurred_at=now_ms,
                    visitor_id=f"flow-{n}",
                    event="Step",
                    properties={"n": n},
                )
                for n in range(begin, begin + 8)
            ]
            at = time.monotonic()
            published = group.publish(events)
            sent_at.update({begin + place: (at, each.partition) for place, each in enumerate(published)})

        with group.consumer("a") as first:
            await eventually(partial(holds, first, 4))
            for number in range(40):
                pendo.faults.visitor(f"hanging-{number}", HANG)
            hanging = [replace(event, visitor_id=f"hanging-{n}") for n, event in enumerate(events_of(40, 2))]
            assert {each.partition for each in group.publish(hanging)} == set(range(4))
            await eventually(lambda: first.value("flagpost_pendo_in_flight", endpoint="track") == 40)
            with group.consumer("b") as second:
                while not any('"event":"revoked"' in line for line in first.lines):
                    await asyncio.to_thread(publish_some)
                    await asyncio.sleep(0.1)
                leaving = {number for number in range(4) if not is_still_held(first, number)}
                assert leaving
                flowed = {n: at for n, (at, partition) in sent_at.items() if partition not in leaving}
                arrivals = partial(arrivals_of, pendo)
                await eventually(lambda: flowed.keys() <= arrivals().keys())
                # The hand-over took as long as a request hangs, and the partitions that stayed did not wait for it.
                took = max(sent_at[n][0] for n in sent_at) - min(sent_at[n][0] for n in sent_at)
                slowest = max(arrivals()[n] - at for n, at in flowed.items())
                assert slowest < took / 2, f"one waited {slowest:.1f} s of {took:.1f} s"
                await eventually(lambda: sent_at.keys() <= arrivals().keys())
                for consumer in (first, second):
                    await eventually(partial(has_nothing_pending, consumer))
                assert await second.stop() == 0
            assert await first.stop() == 0
        requests = [each for each in tracks(pendo.received) if (each.visitor_id or "").startswith("flow-")]
        assert len(requests) == len(sent_at), "nothing is read twice"
        check_order(requests)


def is_still_held(consumer: RunningConsumer, partition: int) -> bool:
    return any(each["partition"] == partition for each in consumer.status()["assignment"])


def arrivals_of(pendo: PendoStandIn) -> dict[int, float]:
    """When each of the flowing events first arrived at Pendo."""
    return {
        number_of(each): each.at_seconds
        for each in reversed(tracks(pendo.received))
        if (each.visitor_id or "").startswith("flow-")
    }


async def test_a_broker_that_is_killed_and_comes_back(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    count = 2_000
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as pendo:
        group = Group(kafka_broker, pendo, fresh_name("broker"), partitions=4)
        with group.consumer("a") as consumer:
            published = await asyncio.to_thread(group.publish, events_of(count // 2, seed=3))
            await pendo.received.until(lambda: pendo.received.recorded() >= 300, 60)
            await asyncio.to_thread(kafka_broker.kill)
            assert consumer.get("/livez")[0] == 200
            await asyncio.to_thread(kafka_broker.restart)
            later = events_of(count, seed=3)[count // 2 :]
            published += await asyncio.to_thread(group.publish, later)
            await group.everything_recorded(count, 120)
            await consumer.caught_up(group.partitions)
            assert await consumer.stop() == 0
        assert pendo.received.violations == []
        assert pendo.received.repeats() == 0


async def test_kafka_or_the_topic_may_come_later(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as pendo:
        group = Group(kafka_broker, pendo, fresh_name("later"), partitions=2)
        group.settings["kafka.topic"] = group.topic = fresh_name("appears") + ".events"
        await asyncio.to_thread(kafka_broker.stop)
        with group.consumer("a") as consumer:
            await eventually(lambda: any("Kafka does not answer" in line for line in consumer.lines))
            assert consumer.get("/livez")[0] == 200
            assert consumer.get("/readyz")[0] == 503
            await asyncio.to_thread(kafka_broker.restart)
            await eventually(lambda: any("flagpost topics create" in line for line in consumer.lines), 60)
            await asyncio.to_thread(kafka_broker.create_topics, group.topic, partitions=2)
            await asyncio.to_thread(group.publish, events_of(20, seed=1))
            await group.everything_recorded(20, 60)
            assert consumer.get("/readyz")[0] == 200
            assert await consumer.stop() == 0


async def test_consumers_without_partitions_are_ready(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        group = Group(kafka, pendo, fresh_name("many"), partitions=1)
        with group.consumer("a") as first, group.consumer("b") as second:
            for consumer in (first, second):
                await eventually(partial(is_ready, consumer))
            held = [c.value("flagpost_partitions_assigned") for c in (first, second)]
            assert sorted(held) == [0, 1]
            assert await first.stop() == 0
            await eventually(lambda: second.value("flagpost_partitions_assigned") == 1)
            assert await second.stop() == 0


async def test_records_of_another_partitioner_are_counted(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        group = Group(kafka, pendo, fresh_name("misplaced"), partitions=4)
        (event,) = events_of(1, seed=1)
        (right,) = group.publish([event])
        other = events_of(2, seed=1)[1]
        elsewhere = (right.partition + 1) % 4
        value = encode_single_object(other)
        produce(kafka.bootstrap_servers, group.topic, b"some other key", value, partition=elsewhere)
        with group.consumer("a") as consumer:
            await group.everything_recorded(2, 30)
            assert consumer.value("flagpost_mispartitioned_total") == 1
            assert await consumer.stop() == 0
