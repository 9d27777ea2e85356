"""Pages in a real browser, with Segment's library as it comes from npm, through the gateway to Kafka."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from browsers import opened, pages
from deadlines import stretched
from examples_running import EXAMPLES, browser_example
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import Decoder, TrackEvent
from gateway_running import RunningGateway
from kafka_reading import read_topic

pytestmark = pytest.mark.thorough

PUBLIC_KEY = "a-public-write-key"
ALL_CALLS = """<!doctype html><html><head><meta charset="utf-8">
<script src="node_modules/@segment/analytics-next/dist/umd/index.js"></script>
<script type="module">
const { gateway, writeKey } = await (await fetch('settings.json')).json();
const integrations = { 'Segment.io': { apiHost: new URL(gateway).host + '/v1', protocol: 'http' } };
const [analytics] = await window.AnalyticsNext.AnalyticsBrowser.load(
  { writeKey, cdnSettings: { integrations: { 'Segment.io': { apiKey: writeKey } } } }, { integrations });
analytics.identify('b-1', { plan: 'gold' });
analytics.group('acme', { seats: 5 });
analytics.screen('Settings');
analytics.alias('b-2');
analytics.page('Start');
await analytics.track('Clicked', { where: 'here' });
const left = { writeKey, userId: 'b-1', event: 'Left', messageId: 'beacon-1' };
navigator.sendBeacon(gateway + '/v1/t', JSON.stringify(left));
</script></head></html>"""


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"flagpost.events": 2}) as running:
        yield running


@pytest.fixture
async def shop(tmp_path: Path) -> Path:
    """A copy of the example's folder, with the libraries from npm, and the datafile beside the page."""
    built = await asyncio.to_thread(browser_example)
    shutil.copytree(built, tmp_path / "shop", symlinks=True)
    shutil.copy(EXAMPLES / "datafile.json", tmp_path / "shop")
    (tmp_path / "shop" / "all-calls.html").write_text(ALL_CALLS)
    return tmp_path / "shop"


def gateway_for(kafka: EmbeddedKafka, *origins: str) -> RunningGateway:
    keys = {"web": {"key": PUBLIC_KEY, "origins": origins}}
    return RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers, "gateway.keys": keys})


def write_settings(shop: Path, gateway: RunningGateway) -> None:
    (shop / "settings.json").write_text(json.dumps({"gateway": gateway.url, "writeKey": PUBLIC_KEY}))


async def until(gateway: RunningGateway, at_least: float, name: str, **labels: str) -> None:
    """Wait until a series has reached a value."""
    async with asyncio.timeout(stretched(90)):
        while await gateway.value(name, **labels) < at_least:  # noqa: ASYNC110 - other processes are waited for
            await asyncio.sleep(0.05)


async def tracks_of(kafka: EmbeddedKafka, gateway: RunningGateway, number: int) -> list[TrackEvent]:
    """The topic's events, sorted by name, once the gateway accepted `number`; checks that all are track events."""
    await until(gateway, number, "flagpost_gateway_key_events_total", key="web", outcome="accepted")
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, "flagpost.events")
    events = [Decoder().decode(record.value or b"") for record in records]
    tracks = [event for event in events if isinstance(event, TrackEvent)]
    assert len(tracks) == len(events)
    return sorted(tracks, key=lambda event: event.event)


async def test_the_page_of_the_example_sends_its_view_and_its_decision(
    kafka: EmbeddedKafka, shop: Path
) -> None:
    with pages(shop) as port:
        async with gateway_for(kafka, f"http://127.0.0.1:{port}") as gateway:
            await gateway.ready()
            write_settings(shop, gateway)
            with opened(f"http://127.0.0.1:{port}/?visitor=v1"):
                tracks = await tracks_of(kafka, gateway, 2)
    assert [(event.event, event.visitor_id) for event in tracks] == [
        ("Experiment Viewed", "v1"),
        ("page", "v1"),
    ]
    decision, page = tracks
    assert decision.properties["flag_key"] == "checkout_redesign"
    assert isinstance(decision.properties["variation_key"], str)
    assert decision.properties["enabled"] in {True, False}
    assert page.context is not None
    assert page.context.url == f"http://127.0.0.1:{port}/?visitor=v1"
    assert decision.source is not None
    assert decision.source.sdk is not None


async def test_every_call_of_segments_library_is_answered_and_a_page_sends_track_and_page_only(
    kafka: EmbeddedKafka, shop: Path
) -> None:
    with pages(shop) as port:
        async with gateway_for(kafka, f"http://127.0.0.1:{port}") as gateway:
            await gateway.ready()
            write_settings(shop, gateway)
            with opened(f"http://127.0.0.1:{port}/all-calls.html"):
                tracks = await tracks_of(kafka, gateway, 3)
                await until(gateway, 4, "flagpost_gateway_set_aside_total", reason="not_allowed")
            requests = await gateway.scrape()
    assert [event.event for event in tracks] == ["Clicked", "Left", "page"]
    refused = {
        labels: count
        for (name, labels), count in requests.items()
        if name == "flagpost_gateway_requests_total" and dict(labels)["status"] != "200" and count
    }
    assert refused == {}


async def test_a_page_of_another_origin_sends_nothing(kafka: EmbeddedKafka, shop: Path) -> None:
    with pages(shop) as port:
        async with gateway_for(kafka, f"http://127.0.0.1:{port}") as gateway:
            await gateway.ready()
            write_settings(shop, gateway)
            with opened(f"http://localhost:{port}/all-calls.html"):
                # The browser sends the beacon without a preflight, and the gateway refuses its origin. All other
                # calls need a preflight, which fails, so the browser does not send them.
                await until(gateway, 1, "flagpost_gateway_requests_total", route="/v1/t", status="403")
            for path in ("/v1/t", "/v1/p", "/v1/i"):
                assert await gateway.value("flagpost_gateway_requests_total", route=path, status="200") == 0
            assert (
                await gateway.value("flagpost_gateway_key_events_total", key="web", outcome="accepted") == 0
            )
