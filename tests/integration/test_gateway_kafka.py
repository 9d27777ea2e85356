"""The gateway and a real Kafka: each event answered with 202 is on the topic once, whatever happens to either."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import Decoder
from gateway_running import AUTHORIZED, WRITE_KEY, RunningGateway
from kafka_reading import read_topic
from real_kafka.broker import KafkaBroker, OwnBroker
from real_kafka.registry import SchemaRegistry
from running import eventually, total
from scenes import Scene
from traffic import tracks

PARTITIONS = 8


def gateway_on(kafka: KafkaBroker, topic: str, **settings: object) -> RunningGateway:
    own = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "kafka.topic": topic}
    return RunningGateway({**own, **{key.replace("__", "."): value for key, value in settings.items()}})


def clicked(number: int) -> dict[str, object]:
    return {"type": "track", "event_id": f"e{number}", "visitor_id": f"v{number}", "event": "Clicked"}


async def ids_on(kafka: KafkaBroker, topic: str) -> Counter[str]:
    """How often each event id is on the topic."""
    decoder = Decoder()
    found = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, topic)
    return Counter(decoder.decode(read.value or b"").event_id for read in found)


class Traffic:
    """Sends requests of two events each, several at a time, while `flow` is entered; counts the answers."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self.statuses: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.without_retry_after = 0
        self._next = 0
        self._going = True

    @asynccontextmanager
    async def flow(self, senders: int = 8) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(senders):
                tasks.create_task(self._send())
            yield
            self._going = False

    async def see(self, status: int) -> None:
        """Wait for twenty more answers with this status."""
        wanted = self.statuses[status] + 20
        await eventually(lambda: self.statuses[status] >= wanted, 60, what=f"answers {status}")

    async def _send(self) -> None:
        while self._going:
            pair = [clicked(self._next), clicked(self._next + 1)]
            self._next += 2
            try:
                status, _, headers = await self._gateway.post("/v1/events", pair)
            except (aiohttp.ClientError, ConnectionError):
                if not self._gateway.is_running:
                    return
                await asyncio.sleep(0.01)  # the gateway accepts no new connections, and ends soon
                continue
            self._note(status, headers, (str(event["event_id"]) for event in pair))
            if status == 503:
                await asyncio.sleep(0.01)  # a client that heeds Retry-After waits longer

    def _note(self, status: int, headers: Any, event_ids: Iterable[str]) -> None:
        self.statuses[status] += 1
        if status == 202:
            self.acknowledged |= set(event_ids)
        elif "retry-after" not in headers:
            self.without_retry_after += 1


async def test_all_four_records_reach_pendo(scene: Scene) -> None:
    now = int(time.time())
    events = [
        {
            "type": "decision",
            "visitor_id": "v1",
            "flag_key": "checkout",
            "enabled": True,
            "variation_key": "treatment",
            "decision_event_dispatched": True,
        },
        {
            "type": "track",
            "visitor_id": "v2",
            "account_id": "acme",
            "event": "Order Shipped",
            "occurred_at": datetime.fromtimestamp(now, UTC).isoformat(),
            "properties": {"total": 12.5, "ship": {"city": "Bern"}},
            "context": {"ip": "10.0.0.1"},
        },
        {"type": "visitor", "visitor_id": "v3", "values": {"plan": "pro", "tags": ["a", "b"]}},
        {"type": "account", "account_id": "acme", "values": {"seats": 5}},
    ]
    async with RunningGateway(scene.settings) as gateway:
        await gateway.ready()
        status, answer, _ = await gateway.post("/v1/events", events)
        assert (status, answer) == (202, {"accepted": 4})
        with scene.consume() as consumer:
            received = scene.pendo.received
            await received.until(lambda: received.recorded() == 2 and received.metadata_records == 3, 60)
            await eventually(
                lambda: total(consumer.scrape(), "flagpost_deliveries_total", outcome="delivered") == 5
            )
            assert await consumer.stop() == 0
        for name in ("decision", "track", "visitor", "account"):
            assert await gateway.value("flagpost_gateway_events_total", type=name, outcome="accepted") == 1
        assert await gateway.stop() == 0
    bodies = {request.visitor_id: orjson.loads(request.body) for request in tracks(received)}
    assert bodies["v1"]["event"] == "Experiment Viewed"
    assert bodies["v2"]["event"] == "Order Shipped"
    assert bodies["v2"]["timestamp"] == now * 1000
    assert bodies["v2"]["accountId"] == "acme"
    assert bodies["v2"]["properties"] == {"total": 12.5, "ship_city": "Bern"}


async def test_a_frozen_or_killed_broker_is_answered_503_and_nothing_acknowledged_is_lost(
    kafka_broker: OwnBroker,
) -> None:
    kafka_broker.create_topics("events")
    async with gateway_on(kafka_broker, "events") as gateway:
        await gateway.ready()
        traffic = Traffic(gateway)
        async with traffic.flow():
            await traffic.see(202)
            kafka_broker.freeze()
            await traffic.see(503)
            assert await gateway.probe("/readyz") == 503
            assert await gateway.probe("/livez") == 200
            kafka_broker.thaw()
            await traffic.see(202)
            await asyncio.to_thread(kafka_broker.kill)
            await traffic.see(503)
            await asyncio.to_thread(kafka_broker.restart)
            await traffic.see(202)
        found = await ids_on(kafka_broker, "events")
        assert traffic.statuses.keys() == {202, 503}
        assert traffic.without_retry_after == 0
        assert {found[event_id] for event_id in traffic.acknowledged} == {1}
        assert await gateway.value("flagpost_gateway_events_total", type="track", outcome="refused") > 0
        assert await gateway.stop() == 0


async def test_a_gateway_without_kafka_waits_live_and_not_ready(kafka_broker: OwnBroker) -> None:
    await asyncio.to_thread(kafka_broker.kill)
    async with gateway_on(kafka_broker, "events") as gateway:
        assert await gateway.probe("/livez") == 200
        assert await gateway.probe("/readyz") == 503
        status, answer, headers = await gateway.post("/v1/events", clicked(1))
        assert (status, headers["retry-after"]) == (503, "5")
        assert "Kafka" in answer["error"]
        await asyncio.to_thread(kafka_broker.restart)
        await eventually(lambda: any("flagpost topics create" in line for line in gateway.lines), 60)
        assert await gateway.probe("/readyz") == 503
        kafka_broker.create_topics("events")
        await gateway.ready()
        assert (await gateway.post("/v1/events", clicked(1)))[0] == 202
        assert await gateway.stop() == 0


async def test_a_stop_in_the_middle_of_traffic_loses_nothing_acknowledged(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("stop")
    kafka.create_topics(topic)
    async with gateway_on(kafka, topic) as gateway:
        await gateway.ready()
        traffic = Traffic(gateway)
        async with traffic.flow():
            await traffic.see(202)
            gateway.signal(signal.SIGTERM)
            assert await gateway.wait() == 0
    assert traffic.statuses.keys() == {202}
    found = await ids_on(kafka, topic)
    assert {found[event_id] for event_id in traffic.acknowledged} == {1}


async def test_small_events_reach_a_topic_that_takes_the_largest_of_them(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    """Before the fix, they were answered 413: the Kafka client made a batch of them that the topic refused."""
    topic = fresh_name("narrow")
    kafka.create_topics(topic, partitions=1, config={"max.message.bytes": "70000"})

    def some() -> list[dict[str, object]]:  # random, so that compression does not make them small
        return [{**clicked(0), "properties": {"x": os.urandom(300).hex()}} for _ in range(20)]

    async with gateway_on(kafka, topic) as gateway:
        await gateway.ready()
        answers = await asyncio.gather(*(gateway.post("/v1/events", some()) for _ in range(30)))
        largest = {**clicked(1), "properties": {"x": os.urandom(32_000).hex()}}
        answers.append(await gateway.post("/v1/events", largest))
        assert Counter(status for status, _, _ in answers) == {202: 31}


async def test_confluents_format_with_a_registry(scene: Scene, schema_registry: SchemaRegistry) -> None:
    async with RunningGateway(
        {**scene.settings, "kafka.schema_registry.url": schema_registry.url}
    ) as gateway:
        await gateway.ready()
        assert (await gateway.post("/v1/events", clicked(1)))[0] == 202
        assert await gateway.stop() == 0
    (read,) = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    assert (read.value or b"")[:1] == b"\x00"
    with scene.consume(kafka__schema_registry__url=schema_registry.url) as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 1, 60)
        assert await consumer.stop() == 0


async def test_while_the_registry_is_absent_the_gateway_waits_and_answers_503(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("registry")
    kafka.create_topics(topic)
    async with gateway_on(kafka, topic, kafka__schema_registry__url="http://127.0.0.1:1") as gateway:
        await eventually(lambda: any("Kafka accepts events" in line for line in gateway.lines))
        status, answer, headers = await gateway.post("/v1/events", clicked(1))
        assert (status, headers["retry-after"]) == (503, "2")
        assert "schema registry" in answer["error"]
        assert await gateway.probe("/readyz") == 503
        assert await gateway.stop() == 0


async def test_records_have_the_keys_that_every_client_uses(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("keys")
    kafka.create_topics(topic, partitions=PARTITIONS)
    events = [
        {**clicked(1), "visitor_id": "v", "anonymous_id": "a"},
        {"type": "track", "anonymous_id": "a", "event": "Clicked"},
        {"type": "account", "account_id": "acme", "values": {"x": 1}},
    ]
    async with gateway_on(kafka, topic) as gateway:
        await gateway.ready()
        assert (await gateway.post("/v1/events", events, headers=AUTHORIZED))[0] == 202
        assert await gateway.stop() == 0
    read = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, topic)
    assert {each.key: each.partition for each in read} == {
        key: partition_of(key, PARTITIONS) for key in (b"v", b"a", b"acme")
    }
    assert WRITE_KEY not in "\n".join(gateway.lines)
