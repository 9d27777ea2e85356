"""PROMETHEUS_MULTIPROC_DIR in the environment is meant for other services, and does not change our metrics.

Before the fix, the Prometheus client read it at import. If the directory did not exist, the programs ended at their
first metric; otherwise they kept counters in files, which the next process with the same id (1, in a container)
continued.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from gateway_running import RunningGateway
from running import RunningConsumer

VARIABLES = ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"]


@pytest.fixture(params=["there", "not there"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metrics"
    if request.param == "there":
        path.mkdir()
    for name in VARIABLES:
        monkeypatch.setenv(name, str(path))
    return path


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


async def test_the_gateways_numbers_are_its_own(directory: Path) -> None:
    with EmbeddedKafka({"flagpost.events": 1}) as kafka:
        async with RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers}) as gateway:
            await gateway.ready()
            event = {"type": "track", "visitor_id": "v", "event": "Clicked"}
            assert (await gateway.post("/v1/events", event))[0] == 202

            requests = await gateway.value(
                "flagpost_gateway_requests_total", route="/v1/events", status="202"
            )
            took = await gateway.value("flagpost_gateway_request_seconds_count", route="/v1/events")
            assert (requests, took) == (1, 1)
            assert await gateway.value("flagpost_gateway_kafka_up") == 1
    assert files_in(directory) == []


def test_the_consumers_numbers_are_its_own(directory: Path) -> None:
    settings = {
        "kafka.bootstrap_servers": "127.0.0.1:1",
        "pendo.track_secret": "s",
        "decisions.visitor_metadata": False,
    }
    with RunningConsumer(settings) as consumer:
        series = consumer.scrape()

    assert series["flagpost_event_age_seconds_count", ()] == 0
    assert series["flagpost_deliveries_pending", (("kind", "track"),)] == 0
    assert files_in(directory) == []
