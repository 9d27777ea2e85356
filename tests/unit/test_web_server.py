"""The page's port: its answers, their headers, and the limit of live streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.commands.reconcile.counting import Published
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.settings import Settings, WebSettings
from flagpost_consumer.web import live as live_module
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_consumer.web.following import State
from flagpost_consumer.web.program import Program
from flagpost_schemas import LedgerEntry, Settlements

NOW_MS = 1_800_000_000_000
PATHS = (
    "/",
    "/flag?key=checkout",
    "/dead-letters",
    "/explain",
    "/static/style.css",
    "/static/live.js",
    "/static/icon.svg",
)
CSV = (
    "/csv/flags",
    "/csv/deliveries",
    "/csv/variations?flag=checkout",
    "/csv/reasons?flag=checkout",
    "/csv/steps?flag=checkout",
)
TOKEN = "0123456789abcdef-token"


def counted() -> State:
    aggregates = Aggregates(NOW_MS - 3_600_000, NOW_MS, Settings())
    for offset, visitor in enumerate(("ada-lovelace", "bob")):
        record = Published(
            0, offset, (Kind.TRACK,), ("checkout", "on"), None, decision(visitor, variation="on")
        )
        aggregates.publish(record, NOW_MS - 1)
    entry = LedgerEntry(
        0, "track", "delivered", "ok", visitor_id="ada-lovelace", flag_key="checkout", variation_key="on"
    )
    aggregates.settle(0, Settlements(group="g", member="m", settled_at=NOW_MS, entries=[entry], gaps=[]))
    return State(aggregates.view(NOW_MS), 1.0)


@dataclass
class Read:
    """Replaces the reader, with the state that it would have."""

    state: State
    still_seconds: float = 0.0


@asynccontextmanager
async def served(state: State, **web: object) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Start the page with this state."""
    settings = Settings(web=WebSettings.model_validate({"port": 0, **web}))
    program = Program(settings, Read(state))
    url = await program.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, url
    finally:
        await program.stop()


async def test_every_answer_allows_the_browser_only_to_show_it() -> None:
    async with served(counted()) as (session, url):
        for path in (*PATHS, *CSV, "/no-such-page", "/csv/no-such-table"):
            async with session.get(url + path) as answer:
                policy = answer.headers["content-security-policy"]
                body = await answer.text()
            assert answer.status == (404 if "no-such" in path else 200), path
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "set-cookie" not in answer.headers
            assert answer.headers["server"] == "flagpost"
            assert " style=" not in body
            assert "<script>" not in body


async def test_head_is_answered_as_get_without_a_body_and_other_methods_are_refused() -> None:
    async with served(counted()) as (session, url):
        for path in (*PATHS, *CSV, "/live"):
            async with session.head(url + path) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            async with session.post(url + path, data=b"x") as answer:
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_pages_have_the_numbers_and_ids_only_on_request() -> None:
    async with served(counted()) as (session, url):
        async with session.get(url + "/csv/flags") as answer:
            assert (await answer.text()).splitlines()[1] == "checkout,on,2,1,0,1,"
            assert answer.headers["content-disposition"] == 'attachment; filename="flagpost-flags.csv"'
        for path in ("/", "/flag?key=checkout"):
            async with session.get(url + path) as answer:
                assert "ada-lovelace" not in await answer.text()
    async with served(counted(), show_ids=True) as (session, url), session.get(url) as answer:
        assert "ada-lovelace" in await answer.text()


async def test_if_a_token_is_set_only_probes_are_answered_without_it() -> None:
    async with served(counted(), token=TOKEN) as (session, url):
        for path in (*PATHS, *CSV, "/live", "/no-such-page"):
            async with session.get(url + path) as answer:
                assert answer.status == 401, path
                assert "checkout" not in await answer.text()
        for path, told in (("/livez", "live\n"), ("/readyz", "ready\n")):
            async with session.get(url + path) as answer:
                assert (answer.status, await answer.text()) == (200, told)
        async with session.get(
            url, headers={"authorization": aiohttp.encode_basic_auth("me", TOKEN)}
        ) as answer:
            assert answer.status == 200


async def test_another_host_is_refused_and_another_origin_gets_no_stream() -> None:
    async with served(counted(), hosts=["flags.example"]) as (session, url):
        for host, status in (("evil.example", 421), ("flags.example", 200), ("localhost", 200)):
            async with session.get(url, headers={"host": host}) as answer:
                assert answer.status == status
        async with session.get(url + "/live", headers={"origin": "https://evil.example"}) as answer:
            assert answer.status == 403


async def test_until_all_is_read_there_are_no_numbers() -> None:
    async with served(State(read=0.25, wrong="broker down")) as (session, url):
        async with session.get(url) as answer:
            text = await answer.text()
        assert "25% so far" in text
        assert "broker down" in text
        async with session.get(url + "/csv/flags") as answer:
            assert answer.status == 503


async def test_live_streams_are_limited_and_a_closed_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_LIVE", 2)
    async with served(counted()) as (session, url):
        first, second = await session.get(url + "/live"), await session.get(url + "/live")
        for answer in (first, second):
            assert answer.headers["content-type"] == "text/event-stream"
            async with asyncio.timeout(stretched(30)):
                while b'"rows":[[' not in (line := await answer.content.readline()):
                    pass
            assert b"ada-lovelace" not in line
        async with session.get(url + "/live") as third:
            assert (third.status, third.headers["retry-after"]) == (503, "30")
        first.close()
        async with asyncio.timeout(stretched(30)):
            while (again := await session.get(url + "/live")).status != 200:
                again.release()
                await asyncio.sleep(0.05)
        again.close()
        second.close()


async def test_an_address_that_is_too_long_is_refused() -> None:
    async with (
        served(counted()) as (session, url),
        session.get(f"{url}/explain?visitor={'x' * 5_000}") as answer,
    ):
        assert answer.status == 414


async def test_an_invalid_place_is_refused() -> None:
    async with served(counted()) as (session, url), session.get(f"{url}/dead-letter?place=<x>") as answer:
        assert answer.status == 400
        assert "&lt;x&gt;" in await answer.text()
