"""Runs Flagpost's HTTP client for Pendo against servers that answer as a test says.

In: bytes to answer with, or a coroutine that serves a connection. Out: the server's URL; the client, and a queue of
the answers that it returned.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

from deadlines import stretched
from flagpost_consumer.adapters.clocks import steady_seconds
from flagpost_consumer.adapters.pendo.address import PendoAddress
from flagpost_consumer.adapters.pendo.http import DIRECT, PendoHttp
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_settings.outbound import Outbound
from running import eventually

Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b'{"type":"track"}'
GENEROUS_SECONDS = 60.0
"""How long anything may take on a slow machine before a test gives up."""


@asynccontextmanager
async def serving(serve: Serving) -> AsyncIterator[str]:
    """A server that handles each connection with `serve`; returns its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one whole request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ),
        0,
    )
    return head + await reader.readexactly(length)


def answering(raw: bytes) -> Serving:
    """Answers one request with these bytes, and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()

    return serve


def hanging_after(raw: bytes, held: asyncio.Event) -> Serving:
    """Answers one request with these bytes, and sends nothing more until `held` is set."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()
        await held.wait()

    return serve


def track_attempt(visitor: str = "v") -> Attempt:
    """A track request of a visitor."""
    return Attempt(EndpointName.TRACK, BODY, Ticket(visitor, 1))


@asynccontextmanager
async def client(
    url: str,
    timeout_seconds: float = GENEROUS_SECONDS,
    outbound: Outbound = DIRECT,
    now: Callable[[], float] = steady_seconds,
) -> AsyncIterator[tuple[PendoHttp, asyncio.Queue[Answer]]]:
    """A client of one server, and the queue of its answers."""
    answers: asyncio.Queue[Answer] = asyncio.Queue()
    address = PendoAddress(url + "/data/track", url, "x-track", True, timeout_seconds, timeout_seconds)
    http = PendoHttp(address, lambda _, answer, __: answers.put_nowait(answer), outbound, now)
    http.open()
    http.set_secret(EndpointName.TRACK, "track-secret")
    http.set_secret(EndpointName.METADATA, "api-key")
    try:
        yield http, answers
    finally:
        await http.close()


async def answer_to(serve: Serving, timeout_seconds: float = GENEROUS_SECONDS) -> Answer:
    """The client's reading of one server's answer to a track request."""
    async with serving(serve) as url, client(url, timeout_seconds) as (http, answers):
        http.start(track_attempt())
        return await asyncio.wait_for(answers.get(), stretched(GENEROUS_SECONDS))


class Clock:
    """A clock for the client; it stands still until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        """The time now."""
        return self.seconds


async def sent(http: PendoHttp) -> None:
    """Wait until every request that was started has been written."""
    await eventually(lambda: all(request.is_sent for request in _under_way(http)), GENEROUS_SECONDS)


async def status_known(http: PendoHttp) -> None:
    """Wait until the status of every answer has been received; their bodies may still be incomplete."""
    exchanges = [request.exchange for request in _under_way(http)]
    await eventually(
        lambda: all(exchange is not None and exchange.reply() for exchange in exchanges),
        GENEROUS_SECONDS,
    )


def _under_way(http: PendoHttp) -> list[Any]:
    return [request for requests in http._under_way.values() for request in requests]


class ServerInThread:
    """Accepts requests and, once released, answers them all: also while the client's own event loop is blocked."""

    def __init__(self, expected: int, raw: bytes) -> None:
        self._expected = expected
        self._raw = raw
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self.received = threading.Event()
        """Every expected request was received."""
        self.answered = threading.Event()
        """Every answer was written to its socket."""
        self.url = ""
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(stretched(GENEROUS_SECONDS))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(stretched(GENEROUS_SECONDS))
        self._loop.close()

    def release(self) -> None:
        """Answer the requests that were received."""
        self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        for writer in self._writers:
            writer.write(self._raw)
        self.answered.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await read_request(reader)
                self.count += 1
                self._writers.append(writer)
                if self.count >= self._expected:
                    self.received.set()
        writer.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.wait(
            asyncio.all_tasks() - {asyncio.current_task()} or {asyncio.create_task(asyncio.sleep(0))}
        )


@contextmanager
def server_in_thread(expected: int, raw: bytes) -> Iterator[ServerInThread]:
    """A server in its own thread."""
    with ServerInThread(expected, raw) as server:
        yield server


@asynccontextmanager
async def answering_server(
    context: ssl.SSLContext | None = None, body: bytes = b"{}"
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that accepts everything; returns its port and the heads of the requests that it received."""
    heads: list[bytes] = []
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            while True:
                heads.append(await read_request(reader))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            open_now.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        for writer in list(open_now):
            writer.close()
        await eventually(lambda: not open_now)
