"""One connection of aiohttp's server, with limits on what a stranger may cost.

In: bytes as they arrive. Out: whole requests for aiohttp, or the end of the connection: if headers are too long or
too slow, if the bytes are not HTTP, if requests are sent without waiting for answers, or if an answer is not read.
aiohttp alone buffers a megabyte of headers, waits for ever, and logs what it cannot parse.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
import structlog
from aiohttp import StreamReader, web

from flagpost_http.addresses import Proxies, party_of
from flagpost_http.crowd import Crowd, CrowdLimits
from flagpost_http.drops import Drop, Drops

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

log = structlog.get_logger(__name__)

HEADER_BYTES: Final = 32_768
"""Limit of all headers of one request."""
HEADER_SECONDS: Final = 10.0
"""How long the headers may take, from the first byte, or from the opening of the connection."""
ANSWER_SECONDS: Final = 10.0
"""How long an answer may stay unread."""
PIECE_BYTES: Final = 8_192
"""Bytes parsed at a time: headers may be this much too long before it is noticed."""
WAITING_REQUESTS: Final = 4
"""How many whole requests may wait for the one before them; usual clients send none before they have their answer."""
RECEIVE_BYTES: Final = 65_536
"""The kernel's receive buffer of a connection: all connections together must also fit in a pod."""
BODY_BUFFER_BYTES: Final = 16_384
"""aiohttp's buffer for an unread body: it stops reading at twice this."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the connections of one port share."""

    name: str
    """For `server` in answers."""
    crowd: Crowd[Connection]
    drops: Drops
    proxies: Proxies


def surroundings(name: str, limits: CrowdLimits, drops: Drops, proxies: Proxies) -> Surroundings:
    """The shared state of a port without open connections."""
    return Surroundings(name, Crowd(limits), drops, proxies)


class Connection(web.RequestHandler):
    """The protocol of one connection."""

    __slots__ = ("_around", "_body", "_header_bytes", "_header_timer", "_unfed", "_write_timer")

    def __init__(self, server: web.Server, around: Surroundings, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        """`options` are aiohttp's."""
        super().__init__(server, read_bufsize=BODY_BUFFER_BYTES, **options)
        self._around = around
        self._unfed = b""
        self._body: StreamReader | None = None
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def has_shown_a_key(self, name: str) -> None:
        """From now on it is dropped only for others with that key, or if that key has more than any other."""
        for each in self._around.crowd.known(self, name):
            each.drop(Drop.TOO_MANY)

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        super().connection_made(transport)
        link = cast("asyncio.Transport", transport)
        link.set_write_buffer_limits(high=0)  # so that we are told whenever an answer is not read
        with suppress(OSError, AttributeError):
            link.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._await_headers()
        address = _address_of(link)
        party = None if self._around.proxies.holds(address) else party_of(address)
        for each in self._around.crowd.opened(self, party):
            each.drop(Drop.TOO_MANY)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._around.crowd.closed(self)
        self._unfed = b""
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse piece by piece, as long as the requests are accepted."""
        self._unfed = self._unfed + data if self._unfed else data
        while True:
            piece, self._unfed = self._unfed[:PIECE_BYTES], self._unfed[PIECE_BYTES:]
            self._feed(piece)
            if not self._unfed or self._reading_paused:
                return

    def pause_writing(self) -> None:
        """An answer is not read, or not as fast as it is written."""
        super().pause_writing()
        self._write_timer = self._loop.call_later(ANSWER_SECONDS, self.drop, Drop.ANSWER_NOT_READ)

    def resume_writing(self) -> None:
        """The answer has been read."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    # Called by aiohttp

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to something that is not a request, or to a request whose handler has failed."""
        del message  # contains what was sent
        if request.writer.output_size > 0:
            raise ConnectionError("another answer has begun")
        if status == 400:
            self._around.drops.note(Drop.MALFORMED)
        else:
            log.error("a request has failed unexpectedly", error=type(exc).__name__)
        response = web.Response(
            status=status,
            body=_REFUSED if status == 400 else _FAILED,
            content_type="application/json",
            headers={"server": self._around.name},
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's
        """Log that something failed, and nothing of the request."""
        log.error("a connection has failed unexpectedly", error=type(kw.get("exc_info")).__name__)

    # Bounds

    def drop(self, why: Drop) -> None:
        """Close the connection at once."""
        self._around.drops.note(why)
        self._around.crowd.closed(self)
        self._end()

    def _feed(self, piece: bytes) -> None:
        if self._force_close or self.transport is None:
            self._unfed = b""
            return
        body = None if self._body is None or self._body.is_eof() else self._body
        read = 0 if body is None else body.total_bytes
        before = self._request_count
        try:
            super().data_received(piece)
        except Exception as error:  # noqa: BLE001 - the event loop would log it, with all that was sent
            self.log_exception(exc_info=error)
            self._end()
            return
        if self._request_count != before:
            self._headers_have_come()
        elif body is None and piece:
            self._more_headers(len(piece))
        elif body is not None and body.total_bytes == read and not self._reading_paused:
            self._count_header(
                len(piece)
            )  # after a chunked body: aiohttp keeps its trailers, and they may not end

    def _headers_have_come(self) -> None:
        self._header_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        if len(self._messages) > WAITING_REQUESTS or self._upgraded:
            self._refuse(Drop.MALFORMED)
            return
        self._body = self._messages[-1][1]

    def _more_headers(self, count: int) -> None:
        if self._header_timer is None:
            self._await_headers()
        self._count_header(count)

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > HEADER_BYTES:
            self._refuse(Drop.HEADERS_TOO_LONG)

    def _await_headers(self) -> None:
        self._header_timer = self._loop.call_later(HEADER_SECONDS, self._headers_are_late)

    def _headers_are_late(self) -> None:
        if self._header_bytes:
            self.drop(Drop.HEADERS_TOO_SLOW)
        else:
            self._end()  # a connection that was opened in advance, or to see whether somebody is there

    def _refuse(self, why: Drop) -> None:
        """Answer that it is not a request, unless another answer is being sent, and close the connection."""
        self._unfed = b""
        if self.transport is not None and not self._request_in_progress:
            self.transport.write(_refusal(self._around.name))
            self._around.drops.note(why)
            self.force_close()
            if self._task_handler is not None:
                self._task_handler.cancel()  # it may have been woken for what is refused
        else:
            self.drop(why)

    def _end(self) -> None:
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()


def _address_of(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


_REFUSED: Final = orjson.dumps(
    {
        "error": "this is not an HTTP request that is taken here",
        "index": None,
        "field": None,
        "fix": f"send HTTP/1.1, with at most {HEADER_BYTES // 1024} KB of headers in all and 8 KB in each",
    }
)
_FAILED: Final = orjson.dumps({"error": "the server has a defect", "index": None, "field": None})


def _refusal(name: str) -> bytes:
    return (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"server: %s\r\ncontent-length: %d\r\n\r\n%s" % (name.encode(), len(_REFUSED), _REFUSED)
    )
