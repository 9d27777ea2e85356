"""Runs a release's pods as processes of this machine, with the chart's commands, mounts and probes.

Only the nodes are simulated: the containers' commands, environments and files are the chart's, Kafka is real, and
Pendo is the stand-in.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from helm.mounted import mounted
from helm.rendering import Object, Rendered, rendered
from real_kafka.broker import KafkaBroker
from real_kafka.processes import free_port

WRITE_KEY: Final = "wk-4711-4711"
DECISION: Final = {
    "type": "decision",
    "visitor_id": "v1",
    "flag_key": "checkout",
    "enabled": True,
    "variation_key": "treatment",
    "decision_event_dispatched": True,
}
START_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 0.1


@pytest.mark.kafka
async def test_a_release_carries_a_decision_to_pendo(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], tmp_path: Path
) -> None:
    async with PendoStandIn() as pendo, aiohttp.ClientSession() as session:
        release = rendered(_values(kafka, pendo, fresh_name("release")))
        node = Node(release, tmp_path, session)
        consumer, gateway = release.pod_spec("consumer"), release.pod_spec("gateway")
        topics = release.one("Job")["spec"]["template"]["spec"]
        await node.done(topics, topics["containers"][0])
        async with (
            node.running(consumer, release.container("consumer")),
            node.running(gateway, release.container("gateway")),
        ):
            sent = await node.post(release.container("gateway"), "/v1/events", DECISION)
            assert sent == 202
            await pendo.received.until(lambda: pendo.received.recorded(Endpoint.TRACK) == 1, START_SECONDS)
            check = release.one("Pod", "check")["spec"]
            await node.done(check, check["containers"][0])
            reconcile = release.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            await node.done(reconcile, reconcile["containers"][0])
        assert pendo.received.recorded(Endpoint.TRACK) == 1


@dataclass(frozen=True, slots=True)
class Node:
    """Runs containers of a release as processes, with files under `root`."""

    release: Rendered
    root: Path
    session: aiohttp.ClientSession

    async def done(self, pod: Object, container: Object) -> None:
        """Run a container to its end; it must end with exit code 0."""
        process = await self._start(pod, container)
        said, _ = await asyncio.wait_for(process.communicate(), stretched(START_SECONDS))
        assert process.returncode == 0, said.decode()

    @asynccontextmanager
    async def running(self, pod: Object, container: Object) -> AsyncIterator[None]:
        """Run a container, which is ready in the block; stopped afterwards, it must end within its grace period."""
        process = await self._start(pod, container)
        said = asyncio.create_task(process.communicate())
        try:
            await self._until_ready(process, container)
            yield
            process.terminate()
            await asyncio.wait_for(asyncio.shield(said), pod["terminationGracePeriodSeconds"])
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            sys.stderr.write((await said)[0].decode())
        assert process.returncode == 0

    async def post(self, container: Object, path: str, body: object) -> int:
        """Send a request with the write key to the container's port `http`."""
        url = f"http://127.0.0.1:{_port(container, 'http')}{path}"
        authorized = {"authorization": f"Bearer {WRITE_KEY}"}
        async with self.session.post(url, json=body, headers=authorized) as answer:
            return answer.status

    async def _start(self, pod: Object, container: Object) -> Process:
        found = mounted(self.release, pod, container, self.root / container["name"])
        program, *arguments = container["command"]
        path = Path(sys.executable).with_name(program)
        return await asyncio.create_subprocess_exec(
            path, *arguments, env=found.environ, stdout=PIPE, stderr=STDOUT
        )

    async def _until_ready(self, process: Process, container: Object) -> None:
        probes = [container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
        async with asyncio.timeout(stretched(START_SECONDS)):
            for probe in probes:
                url = f"http://127.0.0.1:{_port(container, probe['port'])}{probe['path']}"
                while not await self._answers(url):
                    assert process.returncode is None, "it ended before it was ready"
                    await asyncio.sleep(PROBE_SECONDS)

    async def _answers(self, url: str) -> bool:
        with suppress(aiohttp.ClientError):
            async with self.session.get(url) as answer:
                return answer.status == 200
        return False


def _values(kafka: KafkaBroker, pendo: PendoStandIn, name: str) -> dict[str, Any]:
    on_loopback = {"host": "127.0.0.1"}
    keys = {"track-secret": pendo.keys.track_secret, "integration-key": pendo.keys.integration_key}
    return {
        "config": {
            "kafka": {
                "bootstrap_servers": kafka.bootstrap_servers,
                "group_id": name,
                "topic": f"{name}.events",
                "ledger_topic": f"{name}.ledger",
                "dead_letter_topic": f"{name}.dead-letters",
            },
            "pendo": {"track_url": pendo.track_url, "api_url": pendo.api_url},
            "admin": {**on_loopback, "port": free_port()},
            "gateway": {
                **on_loopback,
                "port": free_port(),
                "admin_port": free_port(),
                "webhook_topic": f"{name}.webhooks",
            },
            "metadata": {"linger_seconds": 0.2},
        },
        "secrets": {"inline": {"consumer": keys, "gateway": {"write-keys": f"{WRITE_KEY}\n"}}},
        "topics": {"partitions": 2, "replication": 1},
        "gateway": {"enabled": True},
        "reconcile": {"schedule": "@hourly"},
    }


def _port(container: Object, name: str) -> int:
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == name)
    number: int = port
    return number
