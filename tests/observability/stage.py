"""Runs everything that Prometheus would scrape: two consumers or more, a gateway, services with publishers.

In: a broker, a Pendo stand-in, a Prometheus. Out: parts that can be started, stopped and killed while traffic goes
on. Prometheus scrapes the parts that run at present.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from urllib.parse import urlsplit

from confluent_kafka import OFFSET_END, TopicPartition
from prometheus_client import CollectorRegistry, start_http_server

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_publisher import Publisher
from flagpost_publisher.metrics import PublisherCollector
from gateway_running import RunningGateway
from observability.load import SETTINGS, Raw, crowd_of_one, decision, misbehave, odd_records, round_of
from observability.prometheus_server import RunningPrometheus, Target
from real_kafka.broker import OwnBroker
from running import FLAGPOST, RunningConsumer, environment
from scenes import Scene
from traffic import produce

ROUND_SECONDS = 0.5
WEBHOOK_SECRET = "webhook-secret"
SLOW_KEY = "slow-key-4711"
"""A key that may send one event a second."""
LONGEST_SECONDS = 90.0
"""The longest wait for any query."""


class Service:
    """A service with a publisher, and its metrics on a port of its own."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        registry = CollectorRegistry()
        self.publisher = Publisher(
            bootstrap_servers=bootstrap_servers,
            topic=topic,
            properties={"message.timeout.ms": 2000},
        )
        registry.register(PublisherCollector(self.publisher))
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def work(self, number: int) -> None:
        """Publish a decision and its duplicate, a track event, and an event that cannot be encoded."""
        now_ms = time.time_ns() // 1_000_000
        for _ in range(2):
            self.publisher.publish(decision(f"shopper-{number}", "checkout", now_ms))
        self.publisher.track("shopper", "Page Viewed", {"url": "https://shop.example"})
        self.publisher.track("shopper", "Page Viewed", {"impossible": 2**70})

    def close(self) -> None:
        """Stop serving and publishing."""
        self.publisher.close(0)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Stage(Scene):
    """The running parts: `begin` starts them, and the traffic; `end` ends them, even if `begin` has failed."""

    def __init__(
        self, kafka: OwnBroker, pendo: PendoStandIn, prometheus: RunningPrometheus, name: str
    ) -> None:
        super().__init__(kafka, pendo, name)
        self.broker, self.prometheus = kafka, prometheus
        self.settings |= SETTINGS
        self._webhooks = f"{name}.webhooks"
        kafka.create_topics(self._webhooks, partitions=self.partitions)
        self._consumers: dict[str, RunningConsumer] = {}
        self._services: dict[str, Service] = {}
        self._stack = AsyncExitStack()
        self._began_at = int(time.time())

    async def begin(self) -> None:
        """Start two consumers, a gateway, two services, and the traffic."""
        misbehave(self.pendo.faults)
        gateway = {
            **self.settings,
            "gateway.webhook_secret": WEBHOOK_SECRET,
            "gateway.webhook_topic": self._webhooks,
            "gateway.max_body_bytes": 50_000,
            "gateway.keys": {"slow": {"key": SLOW_KEY, "events_per_second": 1}},
        }
        self._gateway = await self._stack.enter_async_context(RunningGateway(gateway))
        await self._gateway.ready()
        for name, servers in (("shop", self.kafka.bootstrap_servers), ("no-kafka", "127.0.0.1:1")):
            self._services[name] = Service(servers, self.topic)
        await self.start("consumer-0")
        await self.start("consumer-1")
        await self._stack.enter_async_context(self._traffic())

    async def end(self) -> None:
        """End the traffic and all parts."""
        await self._stack.aclose()
        for consumer in self._consumers.values():
            consumer.__exit__(None, None, None)
        for service in self._services.values():
            await asyncio.to_thread(service.close)

    # Consumers

    async def start(self, name: str) -> None:
        """Start a consumer, and wait until it has partitions."""
        self._consumers[name] = await asyncio.to_thread(self.consume)
        self._tell_prometheus()
        await self.until(f'flagpost_partitions_assigned{{pod="{name}"}} > 0')

    async def stop(self, name: str) -> None:
        """Stop a consumer with SIGTERM, and wait for its end."""
        await self._end(name, signal.SIGTERM)

    async def kill(self, name: str) -> None:
        """Kill a consumer with SIGKILL."""
        await self._end(name, signal.SIGKILL)

    async def _end(self, name: str, how: signal.Signals) -> None:
        consumer = self._consumers.pop(name)
        consumer.signal(how)
        await consumer.wait()
        consumer.__exit__(None, None, None)
        self._tell_prometheus()

    def _tell_prometheus(self) -> None:
        urls = {
            "gateway": self._gateway.admin_url,
            **{name: service.url for name, service in self._services.items()},
            **{name: consumer.admin_url for name, consumer in self._consumers.items()},
        }
        self.prometheus.scrape(Target(url, name) for name, url in urls.items())

    # What happens

    async def until(self, expr: str) -> None:
        """Wait until a query returns a series."""
        deadline = time.monotonic() + stretched(LONGEST_SECONDS)
        while not await self.prometheus.now(expr):
            assert time.monotonic() < deadline, f"not in {LONGEST_SECONDS} s: {expr}"
            await asyncio.sleep(0.2)

    async def odd_records(self) -> None:
        """Publish records that our publishers would not write, and too many events of one visitor."""
        now_ms = time.time_ns() // 1_000_000
        for raw in odd_records(self.partitions, now_ms):
            await self._produce(self.topic, raw)
        await asyncio.to_thread(self.publish, crowd_of_one(400, now_ms))

    async def damage_ledger(self) -> None:
        """Write a record that is no settlement to every partition of the ledger."""
        for partition in range(self.partitions):
            await self._produce(self.ledger, Raw(b"", b"no settlement", partition))

    async def _produce(self, topic: str, raw: Raw) -> None:
        servers = self.kafka.bootstrap_servers
        await asyncio.to_thread(produce, servers, topic, raw.key, raw.value, partition=raw.partition)

    async def replay(self, reason: str) -> int:
        """Replay dead letters with the command; returns how many."""
        command = [str(FLAGPOST), "dead-letters", "replay", "--reason", reason, "--json"]
        replaying = await asyncio.create_subprocess_exec(
            *command, env=environment(self.settings), stdout=PIPE, stderr=DEVNULL
        )
        said, _ = await replaying.communicate()
        assert replaying.returncode == 0, said
        replayed: int = json.loads(said)["replayed"]
        return replayed

    async def delete_unread(self) -> None:
        """Publish events, and have Kafka delete them before the group, which has no running member, can read them."""
        await asyncio.to_thread(self.publish, list(round_of(0, time.time_ns() // 1_000_000)))
        await asyncio.to_thread(self._delete_records)

    def _delete_records(self) -> None:
        admin = self.kafka.admin()
        ends = [TopicPartition(self.topic, number, OFFSET_END) for number in range(self.partitions)]
        for future in admin.delete_records(ends).values():
            future.result(stretched(30))

    # Traffic

    @asynccontextmanager
    async def _traffic(self) -> AsyncIterator[None]:
        going = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            going.cancel()
            with suppress(asyncio.CancelledError):
                await going

    async def _go_on(self) -> None:
        """Send a round of traffic every half second, whatever else happens."""
        for number in count():
            now_ms = time.time_ns() // 1_000_000
            await asyncio.to_thread(self.publish, list(round_of(number, now_ms)))
            for service in self._services.values():
                service.work(number)
            await self.call_gateway(number)
            await asyncio.sleep(ROUND_SECONDS)  # the pace of the load; nothing is waited for

    async def call_gateway(self, number: int) -> None:
        """Send the good and bad requests of clients."""
        post = self._gateway.post
        opened = {"type": "track", "visitor_id": f"mobile-{number}", "event": "Opened"}
        plan = {"type": "visitor", "visitor_id": f"mobile-{number}", "values": {"plan": "gold"}}
        await post("/v1/events", [opened, plan])
        await post("/v1/events", [{"type": "track"}])
        await post("/v1/events", opened, headers={})
        await post("/v1/events", {**opened, "properties": {"long": "x" * 60_000}})
        await post("/v1/identify", {"userId": f"mobile-{number}", "traits": {"plan": "gold"}})
        await post("/v1/alias", {"userId": f"mobile-{number}", "previousId": "x"})
        await post("/v1/nowhere", {})
        for _ in range(3):
            await post("/v1/events", opened, headers={"authorization": f"Bearer {SLOW_KEY}"})
        for url in (self._gateway.url, *(consumer.admin_url for consumer in self._consumers.values())):
            await _send_no_http(url)
        twice = {"event_type": "guideDisplayed", "timestamp": self._began_at, "data": {"n": number // 2}}
        await self._call_webhook(twice)

    async def _call_webhook(self, content: object) -> None:
        body = json.dumps(content).encode()
        signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-pendo-signature": f"sha256={signature}", "content-type": "application/json"}
        await self._gateway.post("/v1/webhooks/pendo", headers=headers, data=body)


async def _send_no_http(url: str) -> None:
    """Send what a scanner sends, and wait until the connection is closed; ignore a server that is gone."""
    address = urlsplit(url)
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(b"nonsense\r\n\r\n")
            await reader.read()
        finally:
            writer.close()
