"""The HTTP client of all that is asked or told over HTTP: Pendo, and the schema registry.

In: requests. Out: for each, a reply as far as it could be read, or none. aiohttp's connector makes the connections
(names, TLS, proxies); each stays here for one request after the other, so that a request on an idle one needs no task
and no wait. `http_answers` reads what comes back. No redirect is followed, nothing is tried again, and nothing is
timed: that is the caller's.

Of aiohttp's inner parts, which a minor version may change, this uses `ConnectionKey`, `ClientRequest` (with its
`headers`, `url`, `is_ssl`, `connection_key` and `update_proxy`), the last two arguments of `TCPConnector.connect`,
`Connection.protocol`, and `ResponseHandler.set_parser`. tests/contract holds it to what aiohttp's session does.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Self

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from flagpost_consumer.adapters.clocks import steady_seconds
from flagpost_consumer.adapters.http_answers import MAX_ANSWER_BYTES, AnswerReader, Reply
from flagpost_settings.outbound import Outbound
from flagpost_settings.tls_failures import tls_failure

KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers and load balancers keep idle connections: a request on one that the server just closed
would fail for nothing."""
NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)

IDENTITY = {"accept-encoding": "identity"}
"""Sent with every request: answers are not unpacked."""

NOT_SENT = (aiohttp.ClientError, OSError, ValueError)
"""What `HttpClient.connect` raises. ValueError: what a proxy said let aiohttp's parser reach its own int()."""


class NoReply(Exception):  # noqa: N818 (a fact, told by an exception)
    """A request had no answer with a status; the text says why."""


class NoAnswerInTime(NoReply):
    """None came within the time that was allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests of one kind go, prepared once."""

    request: aiohttp.ClientRequest
    """What aiohttp's connector wants to know of a request; it is not sent."""
    idle: deque[_Line]
    """The connections that wait for such a request, the one that was used last at the end."""
    head: bytes
    """The first lines of each request."""
    is_forwarded: bool
    """Whether a proxy reads the requests, and may answer them itself; in a tunnel it cannot."""


class _Line:
    """A connection that is kept for one request after the other."""

    def __init__(
        self,
        connection: Connection,
        idle: deque[_Line],
        on_idle: Callable[[_Line], None],
        remembered: dict[bytes, Reply],
    ) -> None:
        """`idle`: where it waits for the next request; `on_idle` is called when it can; `remembered`: the reader's.

        Raises:
            ClientConnectionError: the connection has ended.
        """
        self.idle = idle
        self.idle_since = 0.0
        self._connection = connection
        self._on_idle = on_idle
        self._exchange: Exchange | None = None
        self._reader = AnswerReader(self._answer_ended, remembered)
        if connection.protocol is None:
            raise aiohttp.ClientConnectionError("the connection has ended")
        connection.protocol.set_parser(self._reader, None)

    @property
    def can_be_used(self) -> bool:
        """Whether it is open, and as quiet as it should be before a request."""
        return self._reader.is_untouched and not self._connection.closed

    def begin(self, exchange: Exchange, max_body_bytes: int) -> None:
        """Belong to an exchange, until `part`."""
        self._exchange = exchange
        self._reader.begin(max_body_bytes)

    @property
    def transport(self) -> asyncio.Transport:
        """Where requests are written. Raises ClientConnectionError: the connection has ended."""
        transport = self._connection.transport
        if transport is None:
            raise aiohttp.ClientConnectionError("the connection has ended")
        return transport

    @property
    def has_sent_all(self) -> bool:
        """Whether nothing of the request waits to be sent; the server may have answered before it read it all."""
        transport = self._connection.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    def reply(self) -> Reply | None:
        """What is known of the answer by now."""
        return self._reader.reply()

    def part(self, *, usable: bool) -> None:
        """The exchange is over: wait for the next, or end."""
        self._exchange = None
        if usable:
            self._reader.rest()
            self._on_idle(self)
        else:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer_ended(self, whole: bool) -> None:
        if self._exchange is not None:
            self._exchange.ended(whole)


class Exchange:
    """One request and its answer, on a connection that is its own meanwhile."""

    __slots__ = ("_line", "_on_end", "is_sent")

    def __init__(self, line: _Line, on_end: Callable[[Reply | None], None], max_body_bytes: int) -> None:
        """`on_end` is told the reply when the answer ends; None: there was not even a status."""
        self._line: _Line | None = line
        self._on_end = on_end
        self.is_sent = False
        """Whether the request has been written; until then the server cannot have seen it."""
        line.begin(self, max_body_bytes)

    def send(self, request: bytes) -> None:
        """Write the request; from now on `on_end` will be called, or `give_up` must be."""
        if self._line is None:
            raise aiohttp.ClientConnectionError("the connection has ended")
        transport = self._line.transport
        self.is_sent = True
        transport.write(request)

    def reply(self) -> Reply | None:
        """What is known of the answer by now, until it has ended."""
        return None if self._line is None else self._line.reply()

    def give_up(self) -> Reply | None:
        """Wait no longer: close the connection, and give what is known of the answer."""
        reply = self.reply()
        self._part(usable=False)
        return reply

    def hand_back(self) -> None:
        """Nothing was sent: the connection is as good as before."""
        self._part(usable=self._line is not None and self._line.can_be_used)

    def ended(self, whole: bool) -> None:
        """The answer has ended: `whole`, so that the connection can be used again, or not."""
        if self._line is None:
            return
        if not self.is_sent:  # it speaks before it is asked
            self._part(usable=False)
            return
        reply = self._line.reply()
        self._part(usable=whole and self._line.has_sent_all)
        self._on_end(reply)

    def _part(self, *, usable: bool) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.part(usable=usable)


class HttpClient:
    """Connections to one destination."""

    def __init__(self, outbound: Outbound, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: where the proxies of the environment are; by default, that of the process."""
        self._outbound = outbound
        self._environ = os.environ if environ is None else environ
        self._connector: aiohttp.TCPConnector | None = None
        self._idle: dict[ConnectionKey, deque[_Line]] = {}
        """The connections that wait for a request, by what they must have in common with it."""
        self._clearing: asyncio.TimerHandle | None = None
        self._remembered: dict[bytes, Reply] = {}

    def open(self) -> None:
        """Read the certificates, and get ready; it needs the running loop.

        Raises:
            SettingsError: a file of certificates cannot be used.
        """
        self._connector = aiohttp.TCPConnector(limit=0, ssl=self._outbound.tls())

    async def close(self) -> None:
        """Close the connections."""
        if self._clearing is not None:
            self._clearing.cancel()
            self._clearing = None
        self._close_idle(before=inf)
        if self._connector is not None:
            await self._connector.close()

    async def __aenter__(self) -> Self:
        """Open."""
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    def check_proxy(self, url: str) -> None:
        """Raises SettingsError where the environment's proxy for a URL cannot be used."""
        self._outbound.proxy_to(url, self._environ)

    def target(self, method: str, url: str) -> Target:
        """Prepare requests to a URL; it needs the running loop.

        Raises:
            SettingsError: the environment's proxy for it cannot be used.
        """
        proxy = self._outbound.proxy_to(url, self._environ)
        request = aiohttp.ClientRequest(method, URL(url), loop=asyncio.get_running_loop())
        headers = {"Host": request.headers["Host"]}
        where = request.url.raw_path_qs
        is_forwarded = proxy is not None and not request.is_ssl()
        if proxy is not None:
            login = proxy.headers
            # The connector adds the host to these, and idle connections are told apart by them: it is in from
            # the start, or the second request would not find the first one's connection.
            request.update_proxy(URL(proxy.url), None, {**headers, **login})
            if is_forwarded:
                where = str(request.url)
                headers |= login
        lines = header_lines({**headers, **IDENTITY})
        idle = self._idle.setdefault(request.connection_key, deque())
        return Target(request, idle, f"{method} {where} HTTP/1.1\r\n".encode() + lines, is_forwarded)

    def reuse(
        self,
        target: Target,
        on_end: Callable[[Reply | None], None],
        max_body_bytes: int = MAX_ANSWER_BYTES,
    ) -> Exchange | None:
        """Get an idle connection at once; None: there is none, and `connect` makes one."""
        earliest = steady_seconds() - KEEP_ALIVE_SECONDS
        while target.idle:
            line = target.idle.pop()
            if line.idle_since >= earliest and line.can_be_used:
                return Exchange(line, on_end, max_body_bytes)
            line.close()
        return None

    async def connect(
        self,
        target: Target,
        on_end: Callable[[Reply | None], None],
        max_body_bytes: int = MAX_ANSWER_BYTES,
    ) -> Exchange:
        """Get a connection, an idle one or a new one. Raises NOT_SENT: nothing can have been sent."""
        exchange = self.reuse(target, on_end, max_body_bytes)
        if exchange is not None:
            return exchange
        if self._connector is None:
            raise RuntimeError("HttpClient.open() was not called")
        connection = await self._connector.connect(target.request, [], NO_TIMEOUT)
        line = _Line(connection, target.idle, self._keep, self._remembered)
        if not line.can_be_used:
            line.close()
            raise aiohttp.ClientConnectionError("the server speaks before it is asked")
        return Exchange(line, on_end, max_body_bytes)

    def _keep(self, line: _Line) -> None:
        """A connection waits for the next request."""
        if self._connector is None or self._connector.closed:
            line.close()
            return
        line.idle_since = steady_seconds()
        line.idle.append(line)
        self._clear_later()

    def _clear_later(self) -> None:
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._clear)

    def _clear(self) -> None:
        """Close what has been idle for too long."""
        self._clearing = None
        self._close_idle(before=steady_seconds() - KEEP_ALIVE_SECONDS)
        if any(self._idle.values()):
            self._clear_later()

    def _close_idle(self, before: float) -> None:
        for idle in self._idle.values():
            while idle and idle[0].idle_since < before:
                idle.popleft().close()

    async def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_seconds: float,
        body: bytes = b"",
        max_body_bytes: int = MAX_ANSWER_BYTES,
    ) -> Reply:
        """Make one request, and wait for its answer.

        Raises:
            NoReply: no status came in time.
            SettingsError: the environment's proxy for the URL cannot be used.
        """
        target = self.target(method, url)
        ended: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        exchange: Exchange | None = None

        def end(reply: Reply | None) -> None:
            if not ended.done():
                ended.set_result(reply)

        try:
            async with asyncio.timeout(timeout_seconds):
                exchange = await self.connect(target, end, max_body_bytes)
                exchange.send(request_bytes(target, header_lines(headers), body))
                reply = await ended
        except TimeoutError:
            reply = None if exchange is None else exchange.give_up()
            if reply is None:
                raise NoAnswerInTime(f"no answer within {timeout_seconds:g} s") from None
        except NOT_SENT as error:
            raise NoReply(why_not_sent(error)) from None
        finally:
            if exchange is not None:
                exchange.give_up()
        if reply is None:
            raise NoReply("the answer is no HTTP, or the connection ended before it came")
        return reply


def why_not_sent(error: Exception) -> str:
    """What `HttpClient.connect` raised, in words."""
    return tls_failure(error) or _no_connection(error) or str(error) or type(error).__name__


def _no_connection(error: Exception) -> str:
    """What aiohttp says of it has addresses by repr()."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return ""
    why = error.os_error
    reason = os.strerror(why.errno) if why.errno and why.errno > 0 else why.strerror or type(why).__name__
    return f"no connection to {error.host}:{error.port}: {reason}"


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def request_bytes(target: Target, headers: bytes, body: bytes) -> bytes:
    """One request as it is sent; one without a body, such as GET, has no length."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"".join((target.head, headers, length, b"\r\n", body))
