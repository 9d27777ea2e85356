"""The two clients of the contract: Flagpost's HTTP adapter, and aiohttp's session, used as its documentation says.

In: a URL and a request's body, the same for both. Out: what each client returns, as the adapter's `Answer`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

from flagpost_consumer.adapters.http.answers import MAX_HEADER_BYTES, MAX_HEADERS
from flagpost_consumer.adapters.http.headers import IDENTITY
from flagpost_consumer.adapters.pendo.http import DIRECT, RETRY_AFTER_STATUSES, PendoHttp
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_settings.outbound import Outbound
from pendo_client import GENEROUS_SECONDS, Clock, client
from running import eventually

HEADERS = {**IDENTITY, "x-track": "track-secret", "content-type": "application/json"}
"""The headers that Flagpost sets on a track request; aiohttp adds the others."""
NOT_SAID = ("Accept", "User-Agent")
"""Headers that the session would add by itself, and the adapter does not: Pendo does not read them."""


class Client(ABC):
    """One of the two clients."""

    @abstractmethod
    async def post(self, body: bytes) -> Answer:
        """Make a track request, and wait for its answer."""

    @abstractmethod
    async def time_is_over(self, known: Answer) -> None:
        """End the request as a time-out would, once the adapter has received `known`."""


MakeClient = Callable[[str, Outbound], AbstractAsyncContextManager[Client]]


class _Adapter(Client):
    def __init__(self, http: PendoHttp, answers: asyncio.Queue[Answer], clock: Clock) -> None:
        self._http = http
        self._answers = answers
        self._clock = clock

    async def post(self, body: bytes) -> Answer:
        self._http.start(Attempt(EndpointName.TRACK, body, Ticket("v", 1)))
        return await self._answers.get()

    async def time_is_over(self, known: Answer) -> None:
        await eventually(lambda: self._has_received(known), GENEROUS_SECONDS)
        self._clock.seconds += GENEROUS_SECONDS

    def _has_received(self, known: Answer) -> bool:
        """Whether this much of the answer has arrived, or the request has ended by itself."""
        for request in self._http._under_way[EndpointName.TRACK]:
            reply = None if request.exchange is None else request.exchange.reply()
            return (reply and (reply.status, reply.body)) == (known.status and (known.status, known.body))
        return True


@asynccontextmanager
async def adapter(url: str, outbound: Outbound = DIRECT) -> AsyncIterator[Client]:
    """Flagpost's adapter; at the end of the block each attempt must have had exactly one answer."""
    clock = Clock()
    async with client(url, GENEROUS_SECONDS, outbound, clock) as (http, answers):
        yield _Adapter(http, answers, clock)
        assert not any(http._under_way.values())
    assert answers.empty()


class _Session(Client):
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._deadline = asyncio.timeout(None)

    async def post(self, body: bytes) -> Answer:
        request = SimpleNamespace(is_sent=False)
        self._deadline = asyncio.timeout(None)
        try:
            async with self._deadline:
                return await self._post(body, request)
        except TimeoutError:
            return Answer(failure=Failure.TIMEOUT)
        except (aiohttp.ClientError, OSError, ValueError):
            return Answer(failure=Failure.BROKEN if request.is_sent else Failure.UNREACHABLE)

    async def _post(self, body: bytes, request: SimpleNamespace) -> Answer:
        async with self._session.post(
            self._url, data=body, allow_redirects=False, trace_request_ctx=request
        ) as response:
            content = await response.read()
        waits = response.status in RETRY_AFTER_STATUSES
        return Answer(response.status, response.headers.get("Retry-After") if waits else None, content)

    async def time_is_over(self, known: Answer) -> None:
        del known
        self._deadline.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def session(url: str, outbound: Outbound = DIRECT) -> AsyncIterator[Client]:
    """aiohttp's session with the adapter's headers, limits and certificates, and nothing else."""
    traces = aiohttp.TraceConfig()
    traces.on_request_headers_sent.append(_note_that_it_is_sent)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=outbound.tls()),
        headers=HEADERS,
        skip_auto_headers=NOT_SAID,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=True,
        trace_configs=[traces],
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    ) as made:
        yield _Session(made, f"{url}/data/track")


async def _note_that_it_is_sent(_: aiohttp.ClientSession, context: Any, __: object) -> None:
    context.trace_request_ctx.is_sent = True
