"""What the page shows of each consumer: the status that it reports, or why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from flagpost_consumer.commands.sources import consumer_state
from flagpost_consumer.commands.sources.consumer_state import ask_consumers
from flagpost_consumer.web.consumers import Consumer, Consumers
from running import eventually
from served import served

ENDPOINT = {"state": "ok", "successes": 3}
STATUS: dict[str, Any] = {
    "group": "g",
    "endpoints": {"track": {"state": "throttled"}, "metadata": ENDPOINT},
    "pending": {"track": 3, "visitor_metadata": 4},
    "assignment": [
        {"partition": 0, "restored": True},
        {"partition": 1, "stalled": {"reason": "ledger", "detail": "topic x: refused"}},
        {"partition": 2, "stalled": {"reason": "ledger", "detail": "topic y"}},
    ],
}


@asynccontextmanager
async def answering(body: bytes, status: int = 200, wait: asyncio.Event | None = None) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        if wait is not None:
            await wait.wait()
        return web.Response(body=body, status=status)

    app = web.Application()
    app.router.add_get("/status", answer)
    async with served(app) as url:
        try:
            yield url
        finally:
            if wait is not None:
                wait.set()


async def told(url: str) -> Consumer:
    consumers = Consumers([url])
    asking = asyncio.create_task(consumers.run())
    try:
        await eventually(lambda: consumers.told, what="an answer, or why there is none")
    finally:
        asking.cancel()
    (found,) = consumers.told
    return found


async def test_a_consumer_is_shown_as_it_describes_itself() -> None:
    async with answering(orjson.dumps(STATUS)) as url:
        assert await told(url) == Consumer(
            url.removeprefix("http://"), {"track": "throttled", "metadata": "ok"}, 7, 3, ("ledger",)
        )
        (state,) = await ask_consumers([url], "g")
        assert (state.group, state.pending) == ("g", 7)
        unheard: list[tuple[str, str]] = []
        tell = lambda *told: unheard.append(told)  # noqa: E731
        assert await ask_consumers([url], "another", unheard=tell) == []
        assert unheard == [(url, "it is a consumer of the group g, not another")]


@pytest.mark.parametrize(
    ("body", "status", "wrong"),
    [
        (b"no", 503, "it answers with status 503"),
        (b"no", 200, "the program that answers there is not a Flagpost consumer"),
        (b"[]", 200, "the program that answers there is not a Flagpost consumer"),
        (b'{"group": "g"}', 200, "the program that answers there is not a Flagpost consumer"),
    ],
)
async def test_a_program_that_is_not_a_consumer_is_reported(body: bytes, status: int, wrong: str) -> None:
    async with answering(body, status) as url:
        assert (await told(url)).wrong == wrong
        unheard: list[tuple[str, str]] = []
        assert await ask_consumers([url], "g", unheard=lambda *told: unheard.append(told)) == []
        assert unheard == [(url, wrong)]


async def test_a_consumer_that_is_missing_or_does_not_answer_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (await told("http://127.0.0.1:1")).wrong == "it cannot be reached"
    monkeypatch.setattr(consumer_state.ask_state, "__defaults__", (0.2,))
    async with answering(b"", wait=asyncio.Event()) as url:
        assert (await told(url)).wrong == "no answer within 0.2 s"
