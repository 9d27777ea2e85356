"""The HTTP client for Pendo.

In: attempts that the engine starts. Out: for each attempt exactly one answer: a status, or why there is none.
It follows no redirect and retries nothing; what an answer means is the engine's business.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import aiohttp
import structlog
from yarl import URL

from flagpost_consumer.core.records import Attempt, EndpointName
from flagpost_consumer.core.verdict import Answer, Failure
from flagpost_consumer.settings import Settings

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 1_048_576
"""More of an answer is not read: the errors of 1,000 metadata records take a fraction of it."""
KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers and load balancers keep idle connections: a request on one that the server just closed
would fail for nothing."""

SWEEP_SECONDS = 0.05
"""How late a time-out may be."""

OnAnswer = Callable[[Attempt, Answer, float], None]
"""Called with the attempt, its answer, and the seconds that it took."""


INTEGRATION_KEY_HEADER = "x-pendo-integration-key"


@dataclass(frozen=True, slots=True)
class PendoAddress:
    """Where requests go and how they are made, but for the secrets."""

    track_url: str
    api_url: str
    track_secret_header: str
    create_missing: bool
    request_timeout_seconds: float
    metadata_timeout_seconds: float

    def metadata_url(self, target: str, group: str) -> str:
        """Where the metadata of `visitor` or `account` goes (Pendo's metadata API documentation)."""
        query = "?create=true" if self.create_missing else ""
        return f"{self.api_url}/api/v1/metadata/{target}/{group}/value{query}"

    def headers(self, endpoint: EndpointName, secret: str) -> dict[str, str]:
        """The headers of a request that we set; the HTTP client adds host and length."""
        track = endpoint is EndpointName.TRACK
        name = self.track_secret_header if track else INTEGRATION_KEY_HEADER
        return {name: secret, "content-type": "application/json"}


def pendo_address(settings: Settings) -> PendoAddress:
    """Where the settings say that requests go."""
    pendo = settings.pendo
    return PendoAddress(
        track_url=pendo.urls.track,
        api_url=pendo.urls.api,
        track_secret_header=pendo.track_secret_header,
        create_missing=settings.metadata.create_missing,
        request_timeout_seconds=pendo.request_timeout_seconds,
        metadata_timeout_seconds=pendo.metadata_timeout_seconds,
    )


class PendoHttp:
    """Makes requests; the engine says how many at once."""

    def __init__(self, address: PendoAddress, on_answer: OnAnswer) -> None:
        self._address = address
        self._on_answer = on_answer
        self._track_url = URL(address.track_url)
        self._headers: dict[EndpointName, Mapping[str, str]] = {}
        self._secrets: dict[EndpointName, str] = {}
        self._timeouts = {
            EndpointName.TRACK: address.request_timeout_seconds,
            EndpointName.METADATA: address.metadata_timeout_seconds,
        }
        # Under way, by endpoint, the oldest first: its time-out is the next one of that endpoint.
        self._under_way: dict[EndpointName, OrderedDict[asyncio.Task[None], float]] = {
            name: OrderedDict() for name in EndpointName
        }
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False
        self._session: aiohttp.ClientSession | None = None

    def set_secret(self, endpoint: EndpointName, secret: str) -> bool:
        """Use a credential from the next request on; whether it is another one than before."""
        if self._secrets.get(endpoint) == secret:
            return False
        self._secrets[endpoint] = secret
        self._headers[endpoint] = self._address.headers(endpoint, secret)
        return True

    def has_secret(self, endpoint: EndpointName) -> bool:
        """Whether requests can be made to an endpoint."""
        return endpoint in self._secrets

    def open(self) -> None:
        """Make the session; it needs the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    def start(self, attempt: Attempt) -> None:
        """Make a request; its answer is given to `on_answer` later."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(attempt))
        self._under_way[attempt.endpoint][task] = loop.time() + self._timeouts[attempt.endpoint]
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_SECONDS, self._end_overdue)

    async def close(self) -> None:
        """Abandon what is in flight, and close the connections."""
        tasks = [task for tasks in self._under_way.values() for task in tasks]
        self._closing = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._session is not None:
            await self._session.close()

    def _end_overdue(self) -> None:
        """End requests whose time is over. One sweep for all of them: a timer each would cost more."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for tasks in self._under_way.values():
            while tasks and next(iter(tasks.values())) <= now:
                task, _ = tasks.popitem(last=False)
                task.cancel()
        waiting = any(self._under_way.values())
        self._sweep = loop.call_later(SWEEP_SECONDS, self._end_overdue) if waiting else None

    async def get_json(self, path: str) -> bytes | None:
        """Read a document of Pendo's API; None when the answer is no 2xx, or none comes in time."""
        url = URL(self._address.api_url + path)
        try:
            async with asyncio.timeout(self._timeouts[EndpointName.METADATA]):
                answer = await self._request("GET", url, EndpointName.METADATA, None)
        except TimeoutError:
            return None
        return answer.body if answer.status is not None and 200 <= answer.status < 300 else None

    async def _run(self, attempt: Attempt) -> None:
        started = perf_counter()
        try:
            answer = await self._request("POST", self._url(attempt), attempt.endpoint, attempt.body)
        except asyncio.CancelledError:
            if self._closing:
                raise
            answer = Answer(failure=Failure.TIMEOUT)
        if (task := asyncio.current_task()) is not None:
            self._under_way[attempt.endpoint].pop(task, None)
        self._on_answer(attempt, answer, perf_counter() - started)

    def _url(self, attempt: Attempt) -> URL:
        batch = attempt.batch
        if batch is None:
            return self._track_url
        return URL(self._address.metadata_url(batch.target, batch.group))

    async def _request(self, method: str, url: URL, endpoint: EndpointName, body: bytes | None) -> Answer:
        if self._session is None:
            raise RuntimeError("PendoHttp.open() was not called")
        try:
            async with self._session.request(
                method, url, data=body, headers=self._headers[endpoint], allow_redirects=False
            ) as response:
                content = await read_answer(response)
                status = response.status
                retry_after = response.headers.get("Retry-After") if status == 429 else None
                return Answer(status, retry_after, self._without_secret(content, endpoint))
        except aiohttp.ClientConnectorError:
            return Answer(failure=Failure.UNREACHABLE)
        except (aiohttp.ClientError, OSError, ValueError):
            # ValueError: aiohttp's parser lets some of what is no HTTP through to its own int() and URL().
            return Answer(failure=Failure.BROKEN)
        except Exception:
            # Nobody thought of this one; but an attempt without an answer would hold its visitor for ever.
            log.exception("a request failed in an unknown way", endpoint=endpoint.value)
            return Answer(failure=Failure.BROKEN)

    def _without_secret(self, content: bytes, endpoint: EndpointName) -> bytes:
        """An answer may echo the request's headers; its text may go into dead letters."""
        return content.replace(self._secrets[endpoint].encode(), b"***")


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """Read the whole answer, so that the connection can be used again; of an endless one, the beginning."""
    length = response.content_length
    is_plain = "Content-Encoding" not in response.headers
    if length is not None and length <= MAX_ANSWER_BYTES and is_plain:
        return await response.read()
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) >= MAX_ANSWER_BYTES:
            response.close()
            break
    return bytes(content[:MAX_ANSWER_BYTES])
