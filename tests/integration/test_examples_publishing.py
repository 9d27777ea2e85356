"""examples/: the same decisions, published from several languages, are the same requests to Pendo.

Each program has a topic and a consumer of its own, and the same users. Its SDK's decisions are compared with those of
optimizely-sdk here, and the requests to Pendo with docs/contract.md#requests-to-pendo, written out by hand.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from optimizely.optimizely import Optimizely

from examples_running import EXAMPLE_OF, Shell, Visit
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn, StandInConfig
from flagpost_schemas import DecisionEvent, Decoder, schema_of, single_object_header
from gateway_running import WRITE_KEY, RunningGateway
from kafka_reading import Read, read_topic
from optimizely_fixtures import DATAFILE, EVERYONE, TARGETED, holdout, optimizely_client, user_of
from real_kafka.broker import KafkaBroker
from running import eventually, total
from scenes import Scene
from traffic import tracks

pytestmark = pytest.mark.thorough

CARRIED = ["plan", "seats", "score", "beta"]
"""The attributes that every example puts into its events."""

VISITS = [
    Visit("v"),  # the lengths cover each branch of murmur2's tail
    Visit("v2"),
    Visit("v-3"),
    Visit("größe-✓-訪問者-😀", {"plan": 'größer "als" ✓', "seats": 3, "score": 0.5, "beta": True}),
    Visit("user@example.com", {"plan": None, "seats": -(2**40), "beta": False, "card_number": "4242"}),
    Visit("odd", {"plan": ["a list"], "seats": {"n": 1}, "score": -0.25}),
    Visit("a-visitor-id-that-is-much-longer-than-most-" * 4),
]

FLAGS = {
    **DATAFILE,
    **TARGETED,
    "featureFlags": [each for each in TARGETED["featureFlags"] if each["key"] != "held"],
}
"""Without local holdouts, which not every SDK knows yet: a variation on and one off, a rollout on and one off, a
targeted delivery, and a flag without rules, whose variation is null."""

TYPES = {
    "checkout": "experiment",
    "banner": "delivery",
    "legacy": "delivery",
    "vip": "delivery",
    "bare": "none",
}
"""The type of the rule that decides each flag."""


Shown = dict[tuple[str, str], tuple[bool, str | None, str | None]]
"""By visitor and flag: enabled, variation and rule."""


@pytest.fixture
async def scene(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> AsyncIterator[Scene]:
    """A scene whose Pendo accepts a visitor's events at any pace, as these tests are not about the pace."""
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=0)) as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        yield Scene(kafka, pendo, fresh_name("example"))


@pytest.fixture
def datafile(tmp_path: Path) -> Path:
    path = tmp_path / "datafile.json"
    path.write_text(json.dumps(FLAGS))
    return path


def decided_here(client: Optimizely) -> Shown:
    return {
        (visit.visitor_id, flag): (decision.enabled, decision.variation_key, decision.rule_key)
        for visit in VISITS
        for flag, decision in user_of(client, visit.visitor_id, dict(visit.attributes)).decide_all().items()
    }


SHOWN = decided_here(optimizely_client(experiments=FLAGS["experiments"], featureFlags=FLAGS["featureFlags"]))


def carried(visitor: str) -> dict[str, object]:
    """The visitor's attributes that are in CARRIED and that the schema's type Scalar can hold."""
    (attributes,) = (visit.attributes for visit in VISITS if visit.visitor_id == visitor)
    return {
        name: attributes[name]
        for name in CARRIED
        if name in attributes and not isinstance(attributes[name], list | dict)
    }


def as_sent(key: tuple[str, str]) -> str | None:
    enabled, variation, _ = SHOWN[key]
    return variation if enabled else "off"


def expected_body(key: tuple[str, str], occurred_at: int) -> bytes:
    visitor, flag = key
    enabled, _, rule = SHOWN[key]
    properties = {
        "flag_key": flag,
        "variation_key": as_sent(key),
        **({} if rule is None else {"rule_key": rule}),
        "enabled": enabled,
        "rule_type": TYPES[flag],
        **{name: value for name, value in carried(visitor).items() if value is not None},
    }
    body = {
        "type": "track",
        "event": "Experiment Viewed",
        "visitorId": visitor,
        "timestamp": occurred_at,
        "properties": properties,
        "context": {},
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_the_decisions_here_are_of_every_kind() -> None:
    kinds = {(enabled, variation is None, rule is None) for enabled, variation, rule in SHOWN.values()}
    assert kinds == {(True, False, False), (False, False, False), (False, True, True)}
    assert {flag for _, flag in SHOWN} == TYPES.keys()
    assert len(SHOWN) == len(TYPES) * len(VISITS)
    assert {as_sent((visit.visitor_id, "checkout")) for visit in VISITS} == {"treatment", "off"}


@pytest.mark.parametrize("language", EXAMPLE_OF)
@pytest.mark.kafka
async def test_the_same_decisions_are_the_same_requests_and_visitors_have_the_same_partitions(
    language: str, scene: Scene, datafile: Path
) -> None:
    example = await asyncio.to_thread(EXAMPLE_OF[language])
    began = now_ms()
    ran = await example.run(VISITS, scene.settings, DATAFILE=str(datafile), OCCURRED_AT=str(began - 60_000))
    assert ran.code == 0, ran.errors
    assert sorted(ran.said) == sorted(
        f"{visitor} {flag} {as_sent((visitor, flag))}" for visitor, flag in SHOWN
    )
    # The Python listener reads the clock itself; the others take the time from OCCURRED_AT.
    span = range(began, now_ms() + 1) if language == "python" else range(began - 60_000, began - 59_999)
    records = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    moments = check_records(records, scene.partitions, f"example-{language}")
    assert all(moment in span for moment in moments.values())
    await check_requests(scene, moments)


def check_records(records: list[Read], partitions: int, service: str | None) -> dict[tuple[str, str], int]:
    """Check the schema header, key, partition, source and attributes of each record; returns each decision's time."""
    header = single_object_header(schema_of(DecisionEvent).fingerprint)
    decoder = Decoder()
    moments: dict[tuple[str, str], int] = {}
    event_ids = set()
    for record in records:
        assert record.value is not None
        assert record.value.startswith(header)
        event = decoder.decode(record.value)
        assert isinstance(event, DecisionEvent)
        assert record.key == event.visitor_id.encode()
        assert record.partition == partition_of(record.key, partitions)
        assert (None if event.source is None else event.source.service) == service
        assert event.attributes == carried(event.visitor_id)
        event_ids.add(event.event_id)
        moments[event.visitor_id, event.flag_key] = event.occurred_at
    assert len(event_ids) == len(records) == len(SHOWN) == len(moments)
    assert len({record.partition for record in records}) > 1
    return moments


@pytest.mark.parametrize("language", ["python", "node"])
@pytest.mark.kafka
async def test_held_out_visitors_are_distinguished_from_others_if_the_sdk_knows_holdouts(
    language: str, scene: Scene, tmp_path: Path
) -> None:
    example = await asyncio.to_thread(EXAMPLE_OF[language])
    half = holdout("h9", "half", EVERYONE // 2)
    datafile = tmp_path / "datafile.json"
    datafile.write_text(json.dumps({**DATAFILE, **TARGETED, "holdouts": [half]}))
    ran = await example.run(VISITS, scene.settings, DATAFILE=str(datafile))
    assert ran.code == 0, ran.errors
    told = {}
    for record in await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic):
        event = Decoder().decode(record.value)
        assert isinstance(event, DecisionEvent)
        told[event.visitor_id, event.flag_key] = event.rule_type
    client = optimizely_client(**TARGETED, holdouts=[half])
    expected = {
        (visit.visitor_id, key): "holdout" if decision.rule_key in ("half", "held_holdout") else TYPES[key]
        for visit in VISITS
        for key, decision in user_of(client, visit.visitor_id, dict(visit.attributes)).decide_all().items()
    }
    assert told == expected
    assert {kind for (_, key), kind in told.items() if key == "checkout"} == {"holdout", "experiment"}


async def check_requests(scene: Scene, moments: dict[tuple[str, str], int]) -> None:
    """Consume the topic and check what Pendo received: track requests byte for byte, and all visitors' metadata."""
    received = scene.pendo.received
    with scene.consume(
        delivery__visitor_interval_seconds=0,
        decisions__attribute_properties=CARRIED,
        decisions__rule_type_property=True,
    ) as consumer:
        await received.until(lambda: received.recorded() == len(SHOWN), 60)
        await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_pending") == 0)
        assert consumer.value("flagpost_mispartitioned_total") == 0
        assert await consumer.stop() == 0
    expected = [expected_body(key, moments[key]) for key in SHOWN]
    assert sorted(request.body for request in tracks(received)) == sorted(expected)
    stored: dict[str, dict[str, str]] = defaultdict(dict)
    for request in received.of(Endpoint.METADATA):
        for entry in json.loads(request.body):
            stored[entry["visitorId"]] |= entry["values"]
    assert stored == {
        visit.visitor_id: {
            f"[Optimizely] {flag}": as_sent((visitor, flag))
            for visitor, flag in SHOWN
            if visitor == visit.visitor_id
        }
        for visit in VISITS
    }
    assert received.violations == []


@pytest.mark.kafka
async def test_the_shell_s_decisions_are_the_same_requests_too(scene: Scene) -> None:
    occurred_at = now_ms() - 60_000
    async with RunningGateway(scene.settings) as gateway:
        await gateway.ready()
        shell = Shell(gateway.url, WRITE_KEY, OCCURRED_AT=str(occurred_at))
        for (visitor, flag), (_, _, rule) in SHOWN.items():
            attributes = json.dumps(carried(visitor))
            await shell.run(
                *("decision.sh", visitor, flag, str(as_sent((visitor, flag))), rule or ""),
                *(attributes, TYPES[flag]),
            )
        assert await gateway.stop() == 0
    records = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    moments = check_records(records, scene.partitions, service=None)
    assert set(moments.values()) == {occurred_at}
    await check_requests(scene, moments)


@pytest.mark.kafka
async def test_the_shell_s_other_events_arrive(scene: Scene) -> None:
    async with RunningGateway(scene.settings) as gateway:
        await gateway.ready()
        shell = Shell(gateway.url, WRITE_KEY)
        await shell.run("track.sh", "v-1", 'Called "support"', '{"minutes": 12}')
        await shell.run("visitor.sh", "v-1", '{"plan": "größer"}')
        await shell.run("account.sh", "acme", '{"seats": 5, "tags": ["a", "b"]}')
        assert await gateway.stop() == 0
    received = scene.pendo.received
    with scene.consume() as consumer:
        await received.until(
            lambda: received.recorded() == 1 and received.recorded(Endpoint.METADATA) == 2, 60
        )
        assert await consumer.stop() == 0
    (track,) = tracks(received)
    assert b'"event":"Called \\"support\\"","visitorId":"v-1"' in track.body
    assert b'"properties":{"minutes":12}' in track.body
    assert {
        (request.path.split("/")[4], request.body.decode()) for request in received.of(Endpoint.METADATA)
    } == {
        ("visitor", '[{"visitorId":"v-1","values":{"plan":"größer"}}]'),
        ("account", '[{"accountId":"acme","values":{"seats":5,"tags":["a","b"]}}]'),
    }


@pytest.mark.kafka
async def test_the_shell_says_when_the_gateway_refuses(scene: Scene) -> None:
    async with RunningGateway(scene.settings) as gateway:
        await gateway.ready()
        code, said, errors = await Shell(gateway.url, "wrong").ended("track.sh", "v", "Event")
        assert code == 22  # curl's code for an HTTP error
        assert '"error"' in said
        assert "401" in errors


@pytest.mark.parametrize("language", EXAMPLE_OF)
async def test_without_kafka_everything_is_decided_and_the_loss_is_reported(
    language: str, datafile: Path
) -> None:
    example = await asyncio.to_thread(EXAMPLE_OF[language])
    nobody = {"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.topic": "nowhere"}
    ran = await example.run(VISITS, nobody, DATAFILE=str(datafile), FLUSH_SECONDS="0.5")
    assert len(ran.said) == len(SHOWN)
    assert f"0 decisions published, {len(SHOWN)} failed" in ran.errors
    assert ran.code == 1
