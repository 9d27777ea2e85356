"""/metrics answers 200 whatever the Accept header says, on both programs' admin ports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, Counter

from example_counts import examples
from flagpost_consumer.adapters.admin import AdminHttp, AdminSources, Health
from flagpost_publisher.gateway.admin import AdminServer
from flagpost_publisher.gateway.metrics import GatewayMetrics

ACCEPTS = (
    "",
    "*/*",
    "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    "text/plain;version=0.0.4",
    "text/plain;version=x.y",
    "text/plain; version=1.0.0; escaping=nothing",
    "application/openmetrics-text;version=abc",
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=",
    "application/openmetrics-text; version=1..0",
    "application/openmetrics-text; version=\u0661.\u0660",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ";;=,,;q=",
)


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("flagpost_tests", "Something to show.", registry=found).inc()
    return found


@pytest.fixture(params=["consumer", "gateway"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "gateway":
        metrics = GatewayMetrics((), ())
        Counter("flagpost_tests", "Something to show.", registry=metrics.registry).inc()
        server = AdminServer(lambda: None, lambda: None, metrics)
        yield await server.start("127.0.0.1", 0) + "/metrics"
        await server.close()
        return
    well = Health(ok=True, detail="ok")
    admin = AdminHttp("127.0.0.1", 0, AdminSources(lambda: well, lambda: well, dict, registry()))
    yield await admin.start() + "/metrics"
    await admin.stop()


async def answer(url: str, *accepts: str) -> tuple[int, str]:
    headers = CIMultiDict(("accept", each) for each in accepts)
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_any_accept_header_is_answered_with_the_metrics(url: str, accept: str) -> None:
    status, text = await answer(url, accept)
    assert status == 200
    assert "flagpost_tests_total 1.0" in text


async def test_several_accept_headers_are_answered_with_the_metrics_too(url: str) -> None:
    status, text = await answer(url, *filter(None, ACCEPTS))
    assert (status, "flagpost_tests_total 1.0" in text) == (200, True)


VERSIONS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=",;\x7f"), max_size=12
)


@settings(deadline=None, max_examples=examples(50))
@given(version=VERSIONS)
async def test_any_version_in_the_accept_header_is_answered_with_200(url: str, version: str) -> None:
    status, _ = await answer(url, f"application/openmetrics-text;version={version}")
    assert status == 200
