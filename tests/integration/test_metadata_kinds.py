"""Metadata of visitors and accounts, groups custom and agent, upserts, and fields that are added to Pendo later."""

from __future__ import annotations

import asyncio
import time

import pytest

from engine_world import decision
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import (
    Endpoint,
    Group,
    Kind,
    MetadataField,
    PendoStandIn,
    StandInConfig,
    UnmappedFields,
)
from flagpost_consumer.service import chores
from flagpost_consumer.service.service import Service
from flagpost_schemas import AccountMetadata, DecisionEvent, MetadataGroup, MetadataValue, VisitorMetadata
from in_process import settings_for
from running import eventually, total
from scenes import Scene
from traffic import publish


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def visitor(number: int, group: MetadataGroup, **values: MetadataValue) -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"v{number}", occurred_at=now_ms(), visitor_id="id-1", group=group, values=values
    )


def account(number: int, group: MetadataGroup, **values: MetadataValue) -> AccountMetadata:
    return AccountMetadata(
        event_id=f"a{number}", occurred_at=now_ms(), account_id="id-1", group=group, values=values
    )


async def test_both_kinds_and_both_groups_in_one_window(scene: Scene) -> None:
    """Four requests, although all have the same id; a later value of a field replaces an earlier one."""
    custom, agent = MetadataGroup.CUSTOM, MetadataGroup.AGENT
    await asyncio.to_thread(
        scene.publish,
        [
            visitor(1, custom, plan="free", tags=["a", "b"], seats=3, trial=True),
            visitor(2, agent, role="admin"),
            visitor(3, custom, plan="pro", nothing=None),
            account(1, custom, tier=2),
            account(2, agent, region="eu"),
            account(3, custom, tier=3, share=0.5),
        ],
    )
    with scene.consume(metadata__linger_seconds=1) as consumer:
        await consumer.caught_up(scene.partitions)
        series = consumer.scrape()
        assert total(series, "flagpost_deliveries_total", outcome="delivered") == 6 - 1
        assert total(series, "flagpost_deliveries_total", reason="superseded", kind="account_metadata") == 1
        assert await consumer.stop() == 0
    stored = scene.pendo.metadata
    assert stored.values(Kind.VISITOR, "id-1") == {
        "plan": "pro", "tags": ["a", "b"], "seats": 3, "trial": True, "nothing": None
    }  # fmt: skip
    assert stored.values(Kind.VISITOR, "id-1", Group.AGENT) == {"role": "admin"}
    assert stored.values(Kind.ACCOUNT, "id-1") == {"tier": 3, "share": 0.5}
    assert stored.values(Kind.ACCOUNT, "id-1", Group.AGENT) == {"region": "eu"}
    paths = sorted(request.path for request in scene.pendo.received.of(Endpoint.METADATA))
    assert paths == [
        f"/api/v1/metadata/{kind}/{group}/value?create=true"
        for kind in ("account", "visitor")
        for group in ("agent", "custom")
    ]
    assert scene.pendo.received.violations == []


@pytest.mark.kafka_core
async def test_a_decisions_account_is_its_own_and_never_remembered(scene: Scene) -> None:
    await asyncio.to_thread(
        scene.publish,
        [
            decision("v1", "a", account_id="acme", occurred_at=now_ms()),
            decision("v1", "b", occurred_at=now_ms()),
        ],
    )
    received = scene.pendo.received
    with scene.consume() as consumer:
        await received.until(lambda: received.recorded() == 2, 30)
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    first, second = (request.parsed for request in received.of_visitor("v1"))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["accountId"] == "acme"
    assert "accountId" not in second
    assert [request.path for request in received.of(Endpoint.METADATA)] == [
        "/api/v1/metadata/visitor/custom/value?create=true"
    ]


async def test_one_missing_field_never_fails_the_rest_and_is_found_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chores, "FIELDS_SECONDS", 0.2)
    config = StandInConfig(
        fields=(MetadataField("optimizely_checkout", "[Optimizely] checkout"),),
        unmapped_fields=UnmappedFields.REFUSE_BATCH,
        visitor_interval_seconds=0,
    )
    topics = {"flagpost.events": 1, "flagpost.ledger": 1, "flagpost.dead-letters": 1}
    with EmbeddedKafka(topics) as kafka:
        async with PendoStandIn(config) as pendo:
            service = service_between(kafka, pendo)
            running = asyncio.ensure_future(service.run())
            publish(kafka.bootstrap_servers, "flagpost.events", decisions("checkout", "banner", "search"))
            await eventually(lambda: settled(service) == {"ok": 1, "field_missing": 2}, 60)
            pendo.metadata.declare([MetadataField("optimizely_banner", "[Optimizely] banner")])
            schemas = len(pendo.received.of(Endpoint.SCHEMA))
            # The fields of both kinds are requested in turn: after four requests, one complete round is new.
            await pendo.received.until(lambda: len(pendo.received.of(Endpoint.SCHEMA)) >= schemas + 4, 30)
            publish(kafka.bootstrap_servers, "flagpost.events", decisions("banner", "search"))
            await eventually(lambda: settled(service) == {"ok": 2, "field_missing": 3}, 60)
            service.stop()
            assert await running == 0
        assert pendo.metadata.values(Kind.VISITOR, "v") == {
            "optimizely_checkout": "treatment",
            "optimizely_banner": "treatment",
        }
        assert pendo.received.violations == []


async def test_fields_that_cannot_be_read_at_start_are_read_soon_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chores, "FIELDS_RETRY_SECONDS", 0.1)
    config = StandInConfig(fields=(MetadataField("optimizely_checkout", "[Optimizely] checkout"),))
    topics = {"flagpost.events": 1, "flagpost.ledger": 1, "flagpost.dead-letters": 1}
    with EmbeddedKafka(topics) as kafka:
        async with PendoStandIn(config) as pendo:
            pendo.faults.outage(503, Endpoint.SCHEMA)
            service = service_between(kafka, pendo)
            running = asyncio.ensure_future(service.run())
            await pendo.received.until(lambda: len(pendo.received.of(Endpoint.SCHEMA)) >= 4, 30)
            pendo.faults.restore()
            await eventually(lambda: ("visitor", "custom") in service.chores.fields)
            publish(kafka.bootstrap_servers, "flagpost.events", decisions("checkout"))
            await eventually(lambda: settled(service) == {"ok": 1}, 60)
            service.stop()
            assert await running == 0
        assert pendo.metadata.values(Kind.VISITOR, "v") == {"optimizely_checkout": "treatment"}


def service_between(kafka: EmbeddedKafka, pendo: PendoStandIn) -> Service:
    quick = {"DELIVERY__VISITOR_INTERVAL_SECONDS": "0", "METADATA__LINGER_SECONDS": "0.1"}
    return Service(settings_for(kafka, pendo, **quick), announce=False)


def decisions(*flags: str) -> list[DecisionEvent]:
    return [decision("v", flag, "treatment", occurred_at=now_ms()) for flag in flags]


def settled(service: Service) -> dict[str, int]:
    """The counts of visitor metadata deliveries by reason."""
    accounts = service.engine.accounts.settled
    return {
        reason.value: count
        for (kind, _, reason), count in accounts.items()
        if kind.value == "visitor_metadata" and count
    }
