"""The stand-in fails as scripted: each fault, as a client on a real connection sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import aiohttp
import orjson
import pytest

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    NOT_HTTP,
    OK,
    Ending,
    Endpoint,
    Fate,
    Fault,
    Faults,
    Kind,
    PendoStandIn,
    RetryAfterForm,
    StandInConfig,
)
from flagpost_consumer.demo.pendo_stand_in.pendo import Pendo
from flagpost_consumer.demo.pendo_stand_in.traffic import Arrival, Route


@pytest.fixture
async def pendo() -> AsyncIterator[PendoStandIn]:
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=0)) as running:
        yield running


def body_of(visitor_id: str) -> bytes:
    return orjson.dumps(
        {
            "type": "track",
            "event": "Experiment Viewed",
            "visitorId": visitor_id,
            "timestamp": 4_000_000_000_000,
            "properties": {"flag_key": "f", "variation_key": "a"},
            "context": {},
        }
    )


async def post(pendo: PendoStandIn, visitor_id: str = "v1") -> tuple[aiohttp.ClientResponse, bytes]:
    """Send one track request on its own connection; returns the answer and its body."""
    headers = {"x-pendo-integration-key": pendo.keys.track_secret, "content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            pendo.track_url, data=body_of(visitor_id), headers=headers, allow_redirects=False
        ) as answer,
    ):
        return answer, await answer.read()


async def statuses(pendo: PendoStandIn, count: int, visitor_id: str = "v1") -> list[int]:
    return [(await post(pendo, visitor_id))[0].status for _ in range(count)]


async def test_a_visitors_script_is_played_once_and_for_that_visitor_only(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", 500, 429, OK)
    assert await statuses(pendo, 2, "v2") == [200, 200]
    assert await statuses(pendo, 4, "v1") == [500, 429, 200, 200]
    assert [one.fate for one in pendo.received.of_visitor("v1")] == [Fate.NOT_RECORDED] * 2 + [
        Fate.RECORDED
    ] * 2


async def test_a_script_can_have_a_fault_for_all_later_requests(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("poison", 503, afterwards=400)
    assert await statuses(pendo, 4, "poison") == [503, 400, 400, 400]


async def test_an_endpoints_next_faults_are_for_any_visitor(pendo: PendoStandIn) -> None:
    pendo.faults.next(Endpoint.TRACK, 502, 504)
    assert [(await post(pendo, visitor))[0].status for visitor in ("v1", "v2", "v3")] == [502, 504, 200]


async def test_another_2xx_is_pendos_own_answer_with_that_status(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", 204)
    assert await statuses(pendo, 1) == [204]
    assert pendo.received.recorded() == 1


async def test_an_error_can_come_after_the_event_was_recorded(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", Fault(status=500, recorded=True))
    assert await statuses(pendo, 1) == [500]
    assert pendo.received.recorded() == 1


async def test_retry_after_in_seconds(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", Fault(status=429, retry_after_seconds=7))
    assert (await post(pendo))[0].headers["Retry-After"] == "7"


async def test_retry_after_as_a_date(pendo: PendoStandIn) -> None:
    fault = Fault(status=429, retry_after_seconds=90, retry_after_form=RetryAfterForm.DATE)
    pendo.faults.visitor("v1", fault)
    header = (await post(pendo))[0].headers["Retry-After"]
    assert header.endswith(" GMT")
    ahead = parsedate_to_datetime(header).timestamp() - pendo.received[-1].wall_ms / 1000
    assert 89 <= ahead <= 90


async def test_any_header_and_body_can_be_given(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", Fault(status=302, headers={"Location": "/login"}, body=b"<html>"))
    answer, body = await post(pendo)
    assert (answer.status, answer.headers["Location"], body) == (302, "/login", b"<html>")


async def test_a_delay_is_of_the_answer_and_not_of_the_recording(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", Fault(delay_seconds=60.0))
    request = asyncio.create_task(post(pendo))
    await pendo.received.until(lambda: pendo.received.recorded() == 1)
    assert not request.done()
    request.cancel()
    await asyncio.wait([request])


def test_delays_add_to_the_latency_of_every_answer() -> None:
    pendo = Pendo(StandInConfig(latency_seconds=0.05))
    pendo.faults.visitor("v1", Fault(delay_seconds=0.5))
    arrivals = [
        Arrival(Route(Endpoint.TRACK), "/data/track", "", "application/json", body_of("v1"), at_seconds, 0)
        for at_seconds in (1.0, 2.0)
    ]
    assert [pendo.answer(arrival).delay_seconds for arrival in arrivals] == [0.55, 0.05]


async def test_a_hang_never_answers_and_does_not_keep_the_stand_in_running(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", HANG)
    request = asyncio.create_task(post(pendo))
    await pendo.received.until(lambda: pendo.received.total == 1)
    assert pendo.received[-1].ending is Ending.HANG
    assert not request.done()
    await pendo.__aexit__(None, None, None)
    with pytest.raises(aiohttp.ClientConnectionError):
        await request


@pytest.mark.parametrize(("fault", "recorded"), [(CLOSE_BEFORE_RECORDING, 0), (CLOSE_AFTER_RECORDING, 1)])
async def test_a_connection_closed_before_or_after_recording(
    pendo: PendoStandIn, fault: Fault, recorded: int
) -> None:
    pendo.faults.visitor("v1", fault)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await post(pendo)
    assert pendo.received.recorded() == recorded
    assert (pendo.received[-1].ending, pendo.received[-1].status) == (Ending.CLOSE, 0)


async def test_an_answer_that_is_not_http(pendo: PendoStandIn) -> None:
    pendo.faults.visitor("v1", NOT_HTTP)
    with pytest.raises(aiohttp.ClientResponseError, match="Bad status line"):
        await post(pendo)


async def test_an_answer_on_the_wire_that_is_not_http(pendo: PendoStandIn) -> None:
    pendo.faults.outage(NOT_HTTP)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(pendo.url.rpartition(":")[2]))
    writer.write(b"POST /data/track HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    answer = await asyncio.wait_for(reader.read(), stretched(10))
    assert answer
    assert not answer.startswith(b"HTTP/")
    writer.close()
    await writer.wait_closed()


async def test_an_outage_of_one_endpoint_and_its_end(pendo: PendoStandIn) -> None:
    headers = {"x-pendo-integration-key": pendo.keys.integration_key}
    pendo.faults.visitor("v1", 400)
    pendo.faults.outage(503, Endpoint.TRACK)
    assert await statuses(pendo, 3) == [503] * 3
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{pendo.api_url}/api/v1/token/verify", headers=headers) as answer,
    ):
        assert answer.status == 200
    pendo.faults.restore(Endpoint.TRACK)
    assert await statuses(pendo, 2) == [400, 200]


@pytest.mark.parametrize("path", ["token/verify", "metadata/schema/visitor", "metadata/schema/account"])
async def test_an_outage_of_everything_and_its_end(pendo: PendoStandIn, path: str) -> None:
    headers = {"x-pendo-integration-key": pendo.keys.integration_key}
    async with aiohttp.ClientSession() as session:
        pendo.faults.outage(500)
        assert await statuses(pendo, 1) == [500]
        async with session.get(f"{pendo.api_url}/api/v1/{path}", headers=headers) as answer:
            assert answer.status == 500
        pendo.faults.outage(CLOSE_BEFORE_RECORDING)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(f"{pendo.api_url}/api/v1/{path}", headers=headers)
        pendo.faults.restore()
        async with session.get(f"{pendo.api_url}/api/v1/{path}", headers=headers) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("fault", "status", "stored"),
    [(Fault(status=408), 408, {}), (Fault(status=408, recorded=True), 408, {"field": "on"})],
)
async def test_metadata_is_stored_only_if_the_fault_records_it(
    pendo: PendoStandIn, fault: Fault, status: int, stored: dict[str, object]
) -> None:
    pendo.faults.next(Endpoint.METADATA, fault)
    headers = {"x-pendo-integration-key": pendo.keys.integration_key, "content-type": "application/json"}
    url = f"{pendo.api_url}/api/v1/metadata/visitor/custom/value?create=true"
    body = orjson.dumps([{"visitorId": "v1", "values": {"field": "on"}}])
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        assert (answer.status, await answer.read()) == (status, b"")
    assert pendo.metadata.values(Kind.VISITOR, "v1") == stored


def drawn(seed: int, count: int) -> list[Fault]:
    faults = Faults()
    faults.mix(seed, [(0.02, 500), (0.01, CLOSE_BEFORE_RECORDING)])
    return [faults.strike(Endpoint.TRACK, None) for _ in range(count)]


def test_the_faults_of_a_mix_have_its_probabilities() -> None:
    struck = drawn(1, 20_000)
    assert 300 <= struck.count(Fault(status=500)) <= 500
    assert 130 <= struck.count(CLOSE_BEFORE_RECORDING) <= 270
    assert struck.count(OK) == 20_000 - struck.count(Fault(status=500)) - struck.count(CLOSE_BEFORE_RECORDING)


def test_a_mix_is_the_same_for_the_same_seed() -> None:
    assert drawn(7, 1_000) == drawn(7, 1_000)
    assert drawn(7, 1_000) != drawn(8, 1_000)


@pytest.mark.parametrize("chances", [[(-0.1, 500)], [(0.6, 500), (0.5, 429)]])
def test_impossible_probabilities_are_refused(chances: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="probabilities must be 0 or more, and their sum 1 at most"):
        Faults().mix(1, chances)


async def test_a_mix_reaches_the_client(pendo: PendoStandIn) -> None:
    pendo.faults.mix(1, [(1.0, 500)])
    assert await statuses(pendo, 2) == [500, 500]
    pendo.faults.clear()
    assert await statuses(pendo, 1) == [200]
