"""`flagpost consume` between a real Kafka and the Pendo stand-in."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import engine_world
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    Endpoint,
    Fault,
    MetadataField,
    PendoStandIn,
    RetryAfterForm,
    StandInConfig,
    UnmappedFields,
)
from flagpost_schemas import AccountMetadata, Context, DecisionEvent, TrackEvent, VisitorMetadata
from real_kafka.broker import KafkaBroker
from running import eventually, total
from scenes import Scene
from traffic import check_spacing, produce, tracks


def decision(visitor: str, flag: str = "checkout", **fields: object) -> DecisionEvent:
    """A decision that occurs now, unless `fields` says otherwise."""
    return engine_world.decision(visitor, flag, "treatment", **{"occurred_at": wall_ms(), **fields})


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_decision_arrives_byte_for_byte(scene: Scene) -> None:
    event = decision(
        "v1", occurred_at=wall_ms(), account_id="acme", context=Context(ip="203.0.113.9", url="https://shop/")
    )
    scene.publish([event])
    with scene.consume() as consumer:
        received = scene.pendo.received
        await received.until(
            lambda: received.recorded() == 1 and received.recorded(Endpoint.METADATA) == 1, 30
        )
        assert [request.body for request in tracks(scene.pendo.received)] == [
            b'{"type":"track","event":"Experiment Viewed","visitorId":"v1","accountId":"acme","timestamp":%d,'
            b'"properties":{"flag_key":"checkout","variation_key":"treatment","rule_key":"rule","enabled":true},'
            b'"context":{"ip":"203.0.113.9","url":"https://shop/"}}' % event.occurred_at
        ]
        metadata = scene.pendo.received.of(Endpoint.METADATA)
        assert [request.body for request in metadata] == [
            b'[{"visitorId":"v1","values":{"[Optimizely] checkout":"treatment"}}]'
        ]
        assert metadata[0].path == "/api/v1/metadata/visitor/custom/value?create=true"
        await eventually(
            lambda: total(consumer.scrape(), "flagpost_deliveries_total", outcome="delivered") == 2
        )
        assert consumer.get("/livez")[0] == consumer.get("/readyz")[0] == 200
        assert await consumer.stop() == 0
    assert scene.pendo.received.violations == []


@pytest.mark.kafka_core
async def test_all_four_records_are_sent(scene: Scene) -> None:
    now = wall_ms()
    scene.publish(
        [
            decision("v1"),
            TrackEvent(
                event_id="t",
                occurred_at=now,
                visitor_id="v2",
                event="page",
                context=Context(url="https://x/"),
            ),
            VisitorMetadata(
                event_id="m", occurred_at=now, visitor_id="v3", values={"plan": "pro", "tags": ["a", "b"]}
            ),
            AccountMetadata(event_id="a", occurred_at=now, account_id="acme", values={"tier": 2}),
        ]
    )
    with scene.consume() as consumer:
        received = scene.pendo.received
        await received.until(
            lambda: received.recorded() == 2 and received.recorded(Endpoint.METADATA) == 2, 30
        )
        assert await consumer.stop() == 0
    bodies = {request.body for request in received.of(Endpoint.METADATA)}
    assert b'[{"accountId":"acme","values":{"tier":2}}]' in bodies
    assert any(b'{"visitorId":"v3","values":{"plan":"pro","tags":["a","b"]}}' in body for body in bodies)
    page = next(request.body for request in tracks(received) if request.visitor_id == "v2")
    assert b'"event":"page_view"' in page
    assert b'"properties":{"url":"https://x/"}' in page
    assert received.violations == []


async def test_order_and_pace_hold_through_errors_time_outs_and_throttling(scene: Scene) -> None:
    faults: dict[str, list[Fault | int]] = {
        "v0": [500, 503],
        "v1": [HANG],
        "v2": [Fault(status=429, retry_after_seconds=2)],
        "v3": [Fault(status=429, retry_after_seconds=2, retry_after_form=RetryAfterForm.DATE)],
        "v4": [CLOSE_BEFORE_RECORDING, 408],
        "v5": [CLOSE_AFTER_RECORDING],
    }
    for visitor, steps in faults.items():
        scene.pendo.faults.visitor(visitor, *steps)
    now = wall_ms()
    events = [
        TrackEvent(
            event_id=f"{visitor}-{number}", occurred_at=now, visitor_id=visitor, event="Step",
            properties={"n": number},
        )
        for number in range(3)
        for visitor in [*faults, "calm"]
    ]  # fmt: skip
    scene.publish(events)
    with scene.consume(pendo__request_timeout_seconds=1.5) as consumer:
        received = scene.pendo.received
        lost_answers = 1
        await received.until(lambda: received.recorded() == len(events) + lost_answers, 60)
        await consumer.caught_up(scene.partitions)
        assert total(consumer.scrape(), "flagpost_deliveries_total", outcome="delivered") == len(events)
        assert await consumer.stop() == 0
    check_spacing(received, 1.0)
    for visitor in [*faults, "calm"]:
        numbers = [request.parsed["properties"]["n"] for request in received.of_visitor(visitor)]  # type: ignore[index]
        assert numbers == sorted(numbers)
        assert set(numbers) == {0, 1, 2}
    assert received.repeats() == lost_answers
    assert received.violations == []


async def test_a_wrong_key_pauses_and_a_corrected_file_fixes_it_without_a_restart(
    scene: Scene, tmp_path: Path
) -> None:
    secret = tmp_path / "track-secret"
    secret.write_text("wrong\n")
    right = scene.settings.pop("pendo.track_secret")
    # More events than are sent at once: intake pauses only while deliveries that never failed are left for probes.
    scene.publish(decision(f"v{number}") for number in range(150))
    with scene.consume(pendo__track_secret_file=str(secret)) as consumer:

        def unauthorized() -> bool:
            return consumer.value("flagpost_pendo_state", endpoint="track", state="unauthorized") == 1

        await eventually(unauthorized)
        await eventually(lambda: consumer.status()["intake_paused"])
        series = consumer.scrape()
        assert total(series, "flagpost_deliveries_total", outcome="dead_lettered") == 0
        assert total(series, "flagpost_deliveries_total", kind="track") == 0
        futile = scene.pendo.received.outcomes[Endpoint.TRACK, "403"]
        assert 2 <= futile <= 64 + 36
        secret.write_text(f"{right}\n")
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 150, 60)
        await eventually(lambda: consumer.value("flagpost_pendo_state", endpoint="track", state="ok") == 1)
        await eventually(lambda: not consumer.status()["intake_paused"])
        assert await consumer.stop() == 0
        assert str(right) not in "\n".join(consumer.lines)
    assert await asyncio.to_thread(scene.read_dead_letters, 0) == []


@pytest.mark.kafka_core
async def test_what_cannot_be_delivered_is_a_dead_letter_with_its_reason(scene: Scene) -> None:
    scene.pendo.faults.visitor("refused", Fault(status=422, body=b"no such thing"))
    broken = b"\xc3\x01 not ours at all"
    headers = {"trace": b"abc", "flagpost-reason": b"old"}
    produce(scene.kafka.bootstrap_servers, scene.topic, b"someone", broken, headers=headers)
    scene.publish(
        [
            TrackEvent(event_id="r", occurred_at=wall_ms(), visitor_id="refused", event="Clicked"),
            TrackEvent(
                event_id="o", occurred_at=wall_ms() - 8 * 86_400_000, visitor_id="old", event="Clicked"
            ),
        ]
    )
    with scene.consume() as consumer:
        letters = await asyncio.to_thread(scene.read_dead_letters, 3)
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    by_reason = {letter["headers"]["flagpost-reason"]: letter for letter in letters}
    assert set(by_reason) == {"unknown_schema", "rejected", "expired"}
    unknown = by_reason["unknown_schema"]
    assert (unknown["key"], unknown["value"]) == (b"someone", broken)
    assert unknown["headers"]["trace"] == "abc"
    assert unknown["headers"]["flagpost-kind"] == "unknown"
    assert unknown["headers"]["flagpost-attempts"] == "0"
    assert "flagpost-status" not in unknown["headers"]
    refused = by_reason["rejected"]["headers"]
    assert refused["flagpost-status"] == "422"
    assert refused["flagpost-attempts"] == "1"
    assert refused["flagpost-detail"] == "Pendo answered 422: no such thing"
    assert refused["flagpost-source"].startswith(f"{scene.topic}/")
    assert abs(int(refused["flagpost-at"]) - wall_ms()) < 60_000


async def test_metadata_fields_are_sent_under_their_api_name_or_reported_missing(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    fields = (MetadataField("optimizely_checkout", "[Optimizely] checkout"),)
    config = StandInConfig(fields=fields, unmapped_fields=UnmappedFields.REFUSE_BATCH)
    async with PendoStandIn(config) as pendo:
        scene = Scene(kafka, pendo, fresh_name("fields"))
        scene.publish([decision("v1", "checkout"), decision("v1", "search")])
        with scene.consume() as consumer:
            await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_total") == 4)
            series = consumer.scrape()
            assert total(series, "flagpost_deliveries_total", reason="field_missing") == 1
            assert await consumer.stop() == 0
        (request,) = pendo.received.of(Endpoint.METADATA)
        assert request.body == b'[{"visitorId":"v1","values":{"optimizely_checkout":"treatment"}}]'


async def test_a_stop_returns_what_waits_and_the_next_start_continues(scene: Scene) -> None:
    events = [replace(decision("hot"), flag_key=f"flag{number}") for number in range(6)]
    scene.publish(events)
    received = scene.pendo.received
    with scene.consume() as consumer:
        await received.until(lambda: received.recorded() >= 2, 30)
        assert await consumer.stop() == 0
    with scene.consume() as consumer:
        await received.until(lambda: received.recorded() >= 6, 60)
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    assert received.recorded() == 6
    assert received.repeats() == 0
    check_spacing(received, 1.0)
    flags = [request.parsed["properties"]["flag_key"] for request in tracks(received)]  # type: ignore[index]
    assert flags == [f"flag{number}" for number in range(6)]


async def test_a_second_signal_ends_at_once(scene: Scene) -> None:
    scene.pendo.faults.outage(HANG, Endpoint.TRACK)
    scene.publish([decision("v")])
    with scene.consume(pendo__request_timeout_seconds=20) as consumer:
        await eventually(lambda: consumer.value("flagpost_pendo_in_flight", endpoint="track") == 1)
        consumer.signal(signal.SIGTERM)
        await eventually(lambda: any("draining" in line for line in consumer.lines))
        consumer.signal(signal.SIGTERM)
        assert await consumer.wait(10) == 1


async def test_requests_that_outlast_the_drain_are_abandoned_and_reported(scene: Scene) -> None:
    scene.pendo.faults.outage(HANG, Endpoint.TRACK)
    scene.publish([decision("v")])
    with scene.consume(pendo__request_timeout_seconds=20, delivery__drain_seconds=0.5) as consumer:
        await eventually(lambda: consumer.value("flagpost_pendo_in_flight", endpoint="track") == 1)
        assert await consumer.stop(15) == 1
