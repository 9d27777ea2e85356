"""The number of metadata requests: for many visitors, and for a batch of a thousand with one bad record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from flagpost_consumer.demo.pendo_stand_in import Endpoint, Kind, PendoStandIn, StandInConfig
from flagpost_schemas import Event, VisitorMetadata
from real_kafka.broker import KafkaBroker
from running import RunningConsumer, total
from scenes import Scene

VISITORS, FLAGS, MOST_REQUESTS = 10_000, 5, 60
BATCH = 1_000
LINGER_SECONDS = 30
"""So long that a thousand records are one batch however slowly they arrive; a full batch does not wait for it."""


def value(visitor: str, field: str, content: str = "treatment") -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"{visitor}-{field}",
        occurred_at=time.time_ns() // 1_000_000,
        visitor_id=visitor,
        values={field: content},
    )


def flag_after_flag() -> Iterator[Event]:
    """The hardest order: a visitor's five values arrive as far apart as possible."""
    for flag in range(FLAGS):
        for number in range(VISITORS):
            yield value(f"v{number}", f"[Optimizely] flag{flag}")


async def test_ten_thousand_visitors_with_five_flags_take_at_most_sixty_requests(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka, pendo, fresh_name("many"))
        await asyncio.to_thread(scene.publish, flag_after_flag())
        with scene.consume(metadata__linger_seconds=2) as consumer:
            await consumer.caught_up(scene.partitions, 120)
            series = consumer.scrape()
            assert await consumer.stop() == 0
        sent = pendo.received.of(Endpoint.METADATA)
        assert total(series, "flagpost_pendo_requests_total", endpoint="metadata") == len(sent)
        assert 10 <= len(sent) <= MOST_REQUESTS, "at most a thousand visitors go in one request"
        assert total(series, "flagpost_deliveries_total", reason="ok") == VISITORS * FLAGS
        expected = {f"[Optimizely] flag{flag}": "treatment" for flag in range(FLAGS)}
        for number in range(VISITORS):
            assert pendo.metadata.values(Kind.VISITOR, f"v{number}") == expected
        assert pendo.received.violations == []


# One bad record in a thousand


def a_batch() -> list[VisitorMetadata]:
    return [value(f"v{number}", "plan", "pro") for number in range(BATCH)]


def requests(consumer: RunningConsumer) -> float:
    return total(consumer.scrape(), "flagpost_pendo_requests_total", endpoint="metadata")


async def delivered_but_one(scene: Scene, consumer: RunningConsumer) -> dict[str, str]:
    """Wait until all are settled; checks that all but one were stored, and returns the dead letter's headers."""
    await consumer.caught_up(scene.partitions)
    series = consumer.scrape()
    assert total(series, "flagpost_deliveries_total", outcome="delivered") == BATCH - 1
    assert total(series, "flagpost_deliveries_total", outcome="dead_lettered", reason="rejected") == 1
    stored = Counter(
        scene.pendo.metadata.values(Kind.VISITOR, f"v{number}") == {"plan": "pro"} for number in range(BATCH)
    )
    assert stored == {True: BATCH - 1, False: 1}
    (letter,) = await asyncio.to_thread(scene.read_dead_letters, 1)
    assert letter["key"] == b"v500"
    headers: dict[str, str] = letter["headers"]
    assert headers["flagpost-kind"] == "visitor_metadata"
    assert headers["flagpost-reason"] == "rejected"
    return headers


@pytest.mark.parametrize("names", [("index",), ("visitorId",)])
async def test_only_the_record_that_a_200_names_is_refused(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], names: tuple[str, ...]
) -> None:
    async with PendoStandIn(StandInConfig(error_members=names)) as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        pendo.faults.failing_ids["v500"] = "value of plan is not one of the list"
        scene = Scene(kafka, pendo, fresh_name("named"))
        scene.publish(a_batch())
        with scene.consume(metadata__linger_seconds=LINGER_SECONDS) as consumer:
            headers = await delivered_but_one(scene, consumer)
            assert requests(consumer) == 1
            assert await consumer.stop() == 0
    assert headers["flagpost-detail"] == "Pendo: value of plan is not one of the list"
    assert headers["flagpost-status"] == "200"


async def test_a_bad_record_that_a_400_does_not_name_is_found_by_halving(scene: Scene) -> None:
    scene.pendo.faults.poisoned_ids.add("v500")
    scene.publish(a_batch())
    with scene.consume(metadata__linger_seconds=LINGER_SECONDS) as consumer:
        headers = await delivered_but_one(scene, consumer)
        # 1,000 are halved ten times, and each time both halves are sent.
        assert requests(consumer) <= 1 + 2 * 10
        assert await consumer.stop() == 0
    assert headers["flagpost-detail"] == 'Pendo answered 400: {"error":"malformed request"}'
    assert headers["flagpost-status"] == "400"


async def test_an_id_unknown_to_pendo_is_reported_if_none_are_created(scene: Scene) -> None:
    scene.pendo.metadata.add(Kind.VISITOR, *(f"v{number}" for number in range(BATCH) if number != 500))
    scene.publish(a_batch())
    with scene.consume(metadata__linger_seconds=LINGER_SECONDS, metadata__create_missing=False) as consumer:
        headers = await delivered_but_one(scene, consumer)
        assert requests(consumer) == 1
        assert await consumer.stop() == 0
    assert headers["flagpost-detail"] == "Pendo does not know this id, and metadata.create_missing is off"
    (request,) = scene.pendo.received.of(Endpoint.METADATA)
    assert request.path == "/api/v1/metadata/visitor/custom/value"
