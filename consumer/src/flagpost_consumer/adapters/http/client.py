"""The HTTP client, for Pendo and the schema registry.

In: requests. Out: for each, a reply as far as it could be read, or none. aiohttp's connector makes the connections
(names, TLS, proxies); each stays here for one request after the other, so that a request on an idle connection needs
no task and no wait. `answers` reads the replies. No redirect is followed, nothing is retried, and there are no
time-outs: the caller decides these.

Of aiohttp's inner parts, which a minor version may change, this uses `ConnectionKey`, `ClientRequest` (with its
`headers`, `url`, `is_ssl`, `connection_key` and `update_proxy`), the last two arguments of `TCPConnector.connect`,
`Connection.protocol`, and `ResponseHandler.set_parser`. tests/contract compares it with aiohttp's session.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
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
from flagpost_consumer.adapters.http.answers import MAX_ANSWER_BYTES, AnswerReader, Reply
from flagpost_consumer.adapters.http.headers import IDENTITY
from flagpost_settings.outbound import Outbound
from flagpost_settings.tls_failures import tls_failure

KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers and load balancers keep idle connections: a request on one that the server has just closed
would fail for no reason.
"""
NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
DROP_UNSENT = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing the socket drops what the system has not sent yet."""
NOT_SENT = (aiohttp.ClientError, OSError, ValueError)
"""What `HttpClient.connect` raises. ValueError: a proxy's answer may make int() fail in aiohttp's parser."""


class NoReply(Exception):  # noqa: N818 (a fact, told by an exception)
    """A request got no answer with a status; the text says why."""


class NoAnswerInTime(NoReply):
    """No answer arrived within the allowed time."""


@dataclass(frozen=True, slots=True)
class Target:
    """The destination of requests of one kind, prepared once."""

    request: aiohttp.ClientRequest
    """What aiohttp's connector needs to know of a request; it is not sent."""
    idle: deque[_Line]
    """The idle connections for such requests, the one that was used last at the end."""
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
        """`idle`: where it waits for the next request; `on_idle` is called when it can; `remembered`: see
        `AnswerReader`.

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
        """Whether it is open, and has received nothing unexpected."""
        return self._reader.is_untouched and not self._connection.closed

    def begin(self, exchange: Exchange, max_body_bytes: int) -> None:
        """Serve an exchange, until `part`."""
        self._exchange = exchange
        self._reader.begin(max_body_bytes)

    @property
    def transport(self) -> asyncio.Transport:
        """The transport that requests are written to. Raises ClientConnectionError: the connection has ended."""
        transport = self._connection.transport
        if transport is None:
            raise aiohttp.ClientConnectionError("the connection has ended")
        return transport

    @property
    def has_sent_all(self) -> bool:
        """Whether the request was sent completely; the server may have answered before it read all of it."""
        transport = self._connection.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    def reply(self) -> Reply | None:
        """What is known of the answer so far."""
        return self._reader.reply()

    def part(self, *, usable: bool) -> None:
        """The exchange is over: wait for the next if `usable`, else close."""
        self._exchange = None
        if usable:
            self._reader.rest()
            self._on_idle(self)
        else:
            self.close()

    def close(self) -> None:
        """Close the connection. What has not been sent of a request is not sent any more, and takes no memory."""
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DROP_UNSENT)
            transport.abort()
        self._connection.close()

    def _answer_ended(self, whole: bool) -> None:
        if self._exchange is not None:
            self._exchange.ended(whole)


class Exchange:
    """One request and its answer, on a connection that serves nothing else meanwhile."""

    __slots__ = ("_line", "_on_end", "is_sent")

    def __init__(self, line: _Line, on_end: Callable[[Reply | None], None], max_body_bytes: int) -> None:
        """`on_end` is called with the reply when the answer ends; None: there was not even a status."""
        self._line: _Line | None = line
        self._on_end = on_end
        self.is_sent = False
        """Whether the request has been written; until then the server cannot have seen it."""
        line.begin(self, max_body_bytes)

    def send(self, request: bytes) -> None:
        """Write the request; afterwards either `on_end` is called, or the caller must call `give_up`."""
        if self._line is None:
            raise aiohttp.ClientConnectionError("the connection has ended")
        transport = self._line.transport
        self.is_sent = True
        transport.write(request)

    def reply(self) -> Reply | None:
        """What is known of the answer so far, until it has ended."""
        return None if self._line is None else self._line.reply()

    def give_up(self) -> Reply | None:
        """Wait no longer: close the connection, and return what is known of the answer."""
        reply = self.reply()
        self._part(usable=False)
        return reply

    def hand_back(self) -> None:
        """Nothing was sent: the connection can be used again."""
        self._part(usable=self._line is not None and self._line.can_be_used)

    def ended(self, whole: bool) -> None:
        """The answer has ended; `whole`: it was complete, and the connection can be used again."""
        if self._line is None:
            return
        if not self.is_sent:  # the server sent something before it was asked
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
        """`environ`: the environment variables with proxies; by default, the process's."""
        self._outbound = outbound
        self._environ = os.environ if environ is None else environ
        self._connector: aiohttp.TCPConnector | None = None
        self._idle: dict[ConnectionKey, deque[_Line]] = {}
        """The idle connections, by what a request must have in common with them."""
        self._clearing: asyncio.TimerHandle | None = None
        self._remembered: dict[bytes, Reply] = {}

    def open(self) -> None:
        """Read the certificates, and get ready; needs the running loop.

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
        """Raises SettingsError if the environment's proxy for a URL cannot be used."""
        self._outbound.proxy_to(url, self._environ)

    def target(self, method: str, url: str) -> Target:
        """Prepare requests to a URL; needs the running loop.

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
            # The connector adds the host to these headers, which are part of the key of idle connections: it is there
            # from the start, or the second request would not find the first one's connection.
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
        """Take an idle connection at once; None: there is none, and `connect` makes one."""
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
        """Take an idle connection or make a new one. Raises NOT_SENT: nothing can have been sent."""
        exchange = self.reuse(target, on_end, max_body_bytes)
        if exchange is not None:
            return exchange
        if self._connector is None:
            raise RuntimeError("HttpClient.open() was not called")
        connection = await self._connector.connect(target.request, [], NO_TIMEOUT)
        line = _Line(connection, target.idle, self._keep, self._remembered)
        if not line.can_be_used:
            line.close()
            raise aiohttp.ClientConnectionError("the server sent data before any request")
        return Exchange(line, on_end, max_body_bytes)

    def _keep(self, line: _Line) -> None:
        """Keep a connection for the next request."""
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
        """Close connections that have been idle for too long."""
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
            NoReply: no status arrived in time.
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
            raise NoReply("the answer is not HTTP, or the connection ended before it came")
        return reply


def why_not_sent(error: Exception) -> str:
    """The error that `HttpClient.connect` raised, in words."""
    return tls_failure(error) or _no_connection(error) or str(error) or type(error).__name__


def _no_connection(error: Exception) -> str:
    """A connection error without aiohttp's text, which contains addresses as repr()."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return ""
    why = error.os_error
    reason = os.strerror(why.errno) if why.errno and why.errno > 0 else why.strerror or type(why).__name__
    return f"no connection to {error.host}:{error.port}: {reason}"


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def request_bytes(target: Target, headers: bytes, body: bytes) -> bytes:
    """One request as it is sent; a request without a body, such as GET, has no length."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"".join((target.head, headers, length, b"\r\n", body))
