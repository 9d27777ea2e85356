"""Flagpost's HTTP server, with malformed, slow and hostile clients."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from deadlines import stretched
from flagpost_http import connection
from flagpost_http.crowd import CrowdLimits
from flagpost_http.drops import Drop, Drops
from flagpost_http.pages import pages
from flagpost_http.server import ADMIN_LIMITS, HttpServer
from hostile_clients import address, answer_to, head, holding
from running import eventually

SECRET = "key-4711"


class Port:
    """A running server. It answers with the length of the body, on `/large` with 20 MB, and raises on `/defect`."""

    def __init__(self, limits: CrowdLimits = ADMIN_LIMITS) -> None:
        self.dropped = Counter[Drop]()
        self.served = 0
        self.server = HttpServer("ours", self._answer, limits, Drops("test", self._count))
        self.url = ""

    def _count(self, drop: Drop) -> None:
        self.dropped[drop] += 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.served += 1
        if request.path == "/large":
            return web.Response(body=bytes(20_000_000))
        if request.path == "/defect":
            raise ValueError(SECRET)
        length = sum([len(chunk) async for chunk in request.content.iter_any()])
        return web.json_response({"length": length})


@asynccontextmanager
async def serving(limits: CrowdLimits = ADMIN_LIMITS) -> AsyncIterator[Port]:
    port = Port(limits)
    port.url = await port.server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await port.server.close()


def fields(count: int, length: int) -> bytes:
    """This many header lines of this many bytes each."""
    lines = (f"x{number:04}: " for number in range(count))
    return b"".join(line.encode() + b"v" * (length - len(line) - 2) + b"\r\n" for line in lines)


MALFORMED = [
    b"NONSENSE " + SECRET.encode() + b"\r\n\r\n",
    b"GET /?key=" + SECRET.encode() + b" HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nauthorization: Bearer " + SECRET.encode() + b"\r\nbad header\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + SECRET.encode() + b"\0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"GET /" + SECRET.encode() * 2_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nx: " + SECRET.encode() * 2_000 + b"\r\n\r\n",
    head("GET", "http://[" + SECRET),
    head("GET", "/", connection="upgrade", upgrade="websocket", authorization=SECRET),
]


@pytest.mark.parametrize("sent", MALFORMED)
async def test_malformed_requests_get_one_fixed_answer_and_are_not_logged(sent: bytes) -> None:
    """Before the fix, aiohttp wrote the whole request, with the key, to the log, and back to its sender."""
    with capture_logs() as lines:
        async with serving() as port:
            answer = await answer_to(port.url, sent)

    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"server: ours" in start.lower()
    assert b"aiohttp" not in start
    assert {"error", "index", "field", "fix"} == set(json.loads(body))
    assert SECRET.encode() not in answer
    assert port.served == 0
    assert port.dropped == {Drop.MALFORMED: 1}
    assert SECRET not in repr(lines)
    assert len(lines) == 1


async def test_a_defect_is_reported_only_by_the_type_of_its_error() -> None:
    with capture_logs() as lines:
        async with serving() as port:
            answer = await answer_to(port.url, head("GET", "/defect"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert [line["error"] for line in lines] == ["ValueError"]
    assert SECRET not in repr(lines)
    assert SECRET.encode() not in answer


# Headers


async def test_headers_up_to_the_limit_are_accepted_and_longer_ones_are_not() -> None:
    async with serving() as port:
        start = b"GET / HTTP/1.1\r\nhost: a\r\n"
        assert (await answer_to(port.url, start + fields(7, 4_000) + b"\r\n")).startswith(b"HTTP/1.1 200 ")
        assert port.dropped == {}
        refused = await answer_to(port.url, start + fields(12, 4_000))  # too long, and without an end
        assert not refused or refused.startswith(
            b"HTTP/1.1 400 "
        )  # or the connection ended before its answer was read
        assert port.dropped == {Drop.HEADERS_TOO_LONG: 1}


async def test_the_headers_of_each_request_of_a_connection_are_bounded() -> None:
    body = b"x" * 50_000
    async with serving() as port:
        first = head("POST", "/", content_length=str(len(body))) + body
        await answer_to(port.url, first + b"GET / HTTP/1.1\r\nhost: a\r\n" + fields(60, 1_000))
        await eventually(lambda: port.dropped[Drop.HEADERS_TOO_LONG] == 1)


async def test_trailers_are_headers_as_well() -> None:
    """They follow a chunked body, whether it is read or not; without a bound each connection held a megabyte."""
    async with serving() as port:
        start = head("POST", "/", transfer_encoding="chunked") + b"3\r\nabc\r\n0\r\n"
        few = await answer_to(port.url, start + fields(4, 4_000) + b"\r\n")
        assert few.endswith(b'{"length": 3}')
        assert port.dropped == {}
        await answer_to(port.url, start + fields(60, 1_000))
        await eventually(lambda: port.dropped[Drop.HEADERS_TOO_LONG] == 1)
        await eventually(lambda: port.server.connections == 0)


async def test_a_connection_whose_headers_do_not_come_in_time_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    async with serving() as port:
        assert await answer_to(port.url, b"GET / HTTP/1.1\r\nhost") == b""
        assert port.dropped == {Drop.HEADERS_TOO_SLOW: 1}
        assert (
            await answer_to(port.url, b"") == b""
        )  # a connection opened in advance: closed, and not counted
        assert port.dropped == {Drop.HEADERS_TOO_SLOW: 1}
        assert port.server.connections == 0


async def test_an_idle_connection_may_be_used_again_and_its_next_headers_have_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    async with serving() as port:
        reader, writer = await asyncio.open_connection(*address(port.url))
        for path in ("/", "/again"):
            writer.write(head("GET", path))
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HT")
        assert await reader.read() == b""
        writer.close()
        assert port.dropped == {Drop.HEADERS_TOO_SLOW: 1}


# Many requests on one connection, and answers that nobody reads


async def test_requests_on_one_connection_are_not_piled_up() -> None:
    async with serving() as port:
        waiting = head("POST", "/", content_length="1")  # its body does not come
        async with holding(port.url, waiting + b"", 1):
            await eventually(lambda: port.served == 1)
        async with holding(port.url, head("GET", "/large") * 100, 1):
            await eventually(lambda: port.dropped[Drop.MALFORMED] == 1)
        assert port.served < 10


async def test_a_few_requests_at_once_are_answered_in_their_order() -> None:
    async with serving() as port:
        sent = b"".join(head("POST", "/", content_length=str(n)) + b"x" * n for n in (3, 1, 2))
        async with holding(port.url, sent, 1) as (reader,):
            for length in (3, 1, 2):
                answer = await reader.readuntil(b"}")
                assert answer.endswith(b'{"length": %d}' % length)


async def test_a_long_body_is_read_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"x" * 3_000_000
    async with serving() as port:
        for piece in (8_192, 1_000_000):
            monkeypatch.setattr(connection, "PIECE_BYTES", piece)
            sent = head("POST", "/", content_length=str(len(body))) + body
            assert (await answer_to(port.url, sent)).endswith(b'{"length": 3000000}')
            chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            sent = head("POST", "/", transfer_encoding="chunked") + chunked
            assert (await answer_to(port.url, sent)).endswith(b'{"length": 3000000}')


async def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.05)
    async with serving() as port, holding(port.url, head("GET", "/large"), 1):
        await eventually(lambda: port.dropped[Drop.ANSWER_NOT_READ] == 1)
        await eventually(lambda: port.server.connections == 0)


async def test_a_slow_reader_gets_the_whole_answer() -> None:
    async with serving() as port, holding(port.url, head("GET", "/large"), 1) as (reader,):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 20000000" in answer.lower()
        assert await reader.readexactly(20_000_000) == bytes(20_000_000)
        assert port.dropped == {}


# Connections


async def test_too_many_strangers_are_dropped_and_newcomers_are_served() -> None:
    limits = CrowdLimits(connections=20, known=0, strangers_at_once=10, strangers=5, strangers_a_party=5)
    async with serving(limits) as port, holding(port.url, b"GET / HT", 30):
        await eventually(lambda: port.dropped[Drop.TOO_MANY] == 20)
        assert (await answer_to(port.url, head("GET", "/"))).startswith(b"HTTP/1.1 200 ")
        assert port.server.connections <= 11


async def test_closing_does_not_wait_for_strangers() -> None:
    async with serving() as port, holding(port.url, b"GET / HT", 5):
        await eventually(lambda: port.server.connections == 5)
        await asyncio.wait_for(port.server.close(), stretched(20))
        await eventually(lambda: port.server.connections == 0)


# Pages


async def test_only_existing_pages_are_served() -> None:
    async def fine(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="fine")

    async def fails(_: web.BaseRequest) -> web.StreamResponse:
        raise ValueError("why")

    server = HttpServer(
        "ours", pages({"/fine": fine, "/fails": fails}), ADMIN_LIMITS, Drops("test", lambda _: None)
    )
    url = await server.start("127.0.0.1", 0)
    statuses = [("GET", "/fine", 200), ("HEAD", "/fine", 200), ("POST", "/fine", 405), ("GET", "/no", 404)]
    with capture_logs() as lines:
        for method, path, status in [*statuses, ("GET", "/fails", 500)]:
            assert (await answer_to(url, head(method, path)))[9:12] == b"%d" % status
    await server.close()
    assert [line["path"] for line in lines] == ["/fails"]
