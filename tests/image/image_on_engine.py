"""The image, built on a local base, runs every program without a shell, root, privileges or a writable directory.

`make image-test` runs this: it starts a Docker engine of its own (`image.engine`) and takes a few minutes the first
time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from gateway_running import AUTHORIZED, WRITE_KEY
from image.containers import HARDENED, Container, run_once
from image.engine import NEEDS_ENGINE, Engine, Network, engine
from image.local_images import ROOT, build_options, flagpost_image
from real_kafka.broker import KafkaBroker
from real_kafka.processes import free_port
from release.identity import identity_of
from running import eventually

pytestmark = [NEEDS_ENGINE, pytest.mark.timeout(1800)]

PATIENCE_SECONDS = 120
VERSION = "1.2.3-test"
EVENTS = 40


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    with engine(Network.HOST) as started:
        yield started


@pytest.fixture(scope="module")
def image(docker: Engine) -> str:
    return flagpost_image(docker, "flagpost-tests/flagpost", f"--build-arg=VERSION={VERSION}")


@pytest.fixture
def settings(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> dict[str, object]:
    return {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": fresh_name("group"),
        "kafka.topic": fresh_name("events"),
        "kafka.ledger_topic": fresh_name("ledger"),
        "kafka.dead_letter_topic": fresh_name("dead-letters"),
        "gateway.webhook_topic": fresh_name("webhooks"),
        "gateway.host": "127.0.0.1",
        "gateway.port": free_port(),
        "gateway.admin_port": free_port(),
        "gateway.write_keys": [WRITE_KEY],
        "admin.host": "127.0.0.1",
        "admin.port": free_port(),
    }


def inspected(docker: Engine, image: str) -> dict[str, Any]:
    (found,) = json.loads(docker.docker("image", "inspect", image))
    return dict(found)


def test_the_image_has_labels_and_does_not_run_as_root(docker: Engine, image: str) -> None:
    config = inspected(docker, image)["Config"]
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["flagpost"], ["consume"])
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert config["Labels"]["org.opencontainers.image.title"] == "Flagpost"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_both_programs_start(docker: Engine, image: str) -> None:
    assert run_once(docker, image, {}, "--version").startswith("flagpost, version ")
    gateway = docker.docker("run", "--rm", *HARDENED, "--entrypoint=flagpost-gateway", image, "--version")
    assert gateway.startswith("flagpost-gateway ")


LOOK_INSIDE = """
import importlib.metadata, json, pathlib, re, sys

def plain(names):
    return sorted(re.sub("[-_.]+", "-", name).lower() for name in names)

root = pathlib.Path(sys.prefix)
code = list(root.glob("lib/*/site-packages/flagpost_*/**/*.py"))
print(json.dumps({
    "installed": plain(one.name for one in importlib.metadata.distributions()),
    "listed": plain(one["name"] for one in json.loads((root / "sbom.cdx.json").read_text())["components"]),
    "code": len(code),
    "not_compiled": [str(path) for path in code if not any((path.parent / "__pycache__").glob(path.stem + ".*.pyc"))],
    "licences": plain(path.name for path in root.glob("lib/*/site-packages/flagpost_*.dist-info/licenses/*")),
    "tools": [str(path) for name in ("uv", "pip", "gcc") for path in (root / "bin").glob(name)],
}))
"""


def test_the_sbom_is_complete_the_code_compiled_and_no_build_tool_is_left(docker: Engine, image: str) -> None:
    options = (*HARDENED, "--entrypoint=python3")
    inside = json.loads(docker.docker("run", "--rm", *options, image, "-c", LOOK_INSIDE))
    assert inside["installed"] == inside["listed"]
    assert {"flagpost-consumer", "flagpost-publisher", "flagpost-schemas"} <= set(inside["installed"])
    assert "optimizely-sdk" not in inside["installed"]
    assert inside["code"] > 100
    assert inside["not_compiled"] == []
    assert inside["licences"] == ["license"] * 3 + ["notice"] * 3
    assert inside["tools"] == []


RELEASE_IMAGE = """
import pathlib, sys
from release.identity import identity_of
from release.image import build_image
from release.source import take_out

place, *options = sys.argv[1:]
source = take_out(pathlib.Path(place) / "source")
build_image(source, identity_of(source.place), pathlib.Path(place), options)
"""


def test_a_release_has_an_image_that_can_be_loaded_and_run(docker: Engine, tmp_path: Path) -> None:
    version, home = identity_of(ROOT)
    docker.run([sys.executable, "-c", RELEASE_IMAGE, str(tmp_path), *build_options(docker)])
    docker.docker("rmi", f"flagpost:{version}")
    docker.docker("load", f"--input={tmp_path}/flagpost-{version}.tar")
    assert run_once(docker, f"flagpost:{version}", {}, "--version") == f"flagpost, version {version}\n"
    labels = inspected(docker, f"flagpost:{version}")["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.source"] == home
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


async def test_from_topics_to_pendo(docker: Engine, image: str, settings: dict[str, object]) -> None:
    """Topics, check, gateway, consumer, stop, reconcile: each a container, with a real Kafka on loopback."""
    async with PendoStandIn() as pendo:
        settings |= {
            "pendo.track_url": pendo.track_url,
            "pendo.api_url": pendo.api_url,
            "pendo.track_secret": pendo.keys.track_secret,
            "pendo.integration_key": pendo.keys.integration_key,
        }
        await asyncio.to_thread(
            run_once, docker, image, settings, "topics", "create", "--replication=1", "--partitions=4"
        )
        checked = await asyncio.to_thread(run_once, docker, image, settings, "check", "--json")
        assert json.loads(checked)["ok"], checked

        await send_through_gateway(docker, image, settings)
        await consume(docker, image, settings, pendo)
        counted = await asyncio.to_thread(run_once, docker, image, settings, "reconcile", "--json")
    totals = json.loads(counted)["totals"]
    assert (totals["delivered"], totals["pending"], totals["unexplained"]) == (EVENTS, 0, 0)


async def send_through_gateway(docker: Engine, image: str, settings: dict[str, object]) -> None:
    events = [
        {"type": "track", "visitor_id": f"v{number}", "event": "Seen", "properties": {"n": number}}
        for number in range(EVENTS)
    ]
    gateway = await asyncio.to_thread(Container, docker, image, settings, "--entrypoint=flagpost-gateway")
    with gateway:
        await eventually_ready(f"http://127.0.0.1:{settings['gateway.admin_port']}/readyz")
        url = f"http://127.0.0.1:{settings['gateway.port']}/v1/events"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=events, headers=AUTHORIZED) as answer,
        ):
            assert answer.status == 202, await answer.text()
        assert await asyncio.to_thread(gateway.stop) == 0, gateway.logs()


async def consume(docker: Engine, image: str, settings: dict[str, object], pendo: PendoStandIn) -> None:
    consumer = await asyncio.to_thread(Container, docker, image, settings)
    with consumer:
        await eventually_ready(f"http://127.0.0.1:{settings['admin.port']}/readyz")
        await eventually(lambda: pendo.received.recorded() == EVENTS, PATIENCE_SECONDS, what="delivered")
        assert await asyncio.to_thread(consumer.stop) == 0, consumer.logs()


async def eventually_ready(url: str) -> None:
    """Wait until the readiness probe succeeds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    async with aiohttp.ClientSession() as session:
        while not await is_ready(session, url):
            assert asyncio.get_running_loop().time() < deadline, f"{url} is not ready"
            await asyncio.sleep(0.1)


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
