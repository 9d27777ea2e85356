"""The HTTP client: each request gives exactly one answer, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from flagpost_consumer.adapters import pendo_http
from flagpost_consumer.adapters.pendo_http import PendoAddress, PendoHttp
from flagpost_consumer.core.endpoint import Ticket
from flagpost_consumer.core.metadata_batches import Batch
from flagpost_consumer.core.records import Attempt, EndpointName
from flagpost_consumer.core.verdict import Answer, Failure

Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b'{"type":"track"}'


@asynccontextmanager
async def serving(serve: Serving) -> AsyncIterator[str]:
    """A server that speaks whatever it is told to; gives its URL."""

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
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()

    return serve


def track_attempt() -> Attempt:
    return Attempt(EndpointName.TRACK, BODY, Ticket("v", 1))


@asynccontextmanager
async def client(
    url: str, timeout_seconds: float = 5.0
) -> AsyncIterator[tuple[PendoHttp, asyncio.Queue[Answer]]]:
    answers: asyncio.Queue[Answer] = asyncio.Queue()
    address = PendoAddress(url + "/data/track", url, "x-track", True, timeout_seconds, timeout_seconds)
    http = PendoHttp(address, lambda _, answer, __: answers.put_nowait(answer))
    http.open()
    http.set_secret(EndpointName.TRACK, "track-secret")
    http.set_secret(EndpointName.METADATA, "api-key")
    try:
        yield http, answers
    finally:
        await http.close()


async def answer_to(serve: Serving, timeout_seconds: float = 5.0) -> Answer:
    async with serving(serve) as url, client(url, timeout_seconds) as (http, answers):
        http.start(track_attempt())
        return await asyncio.wait_for(answers.get(), 10)


async def test_a_track_request_is_as_the_contract_says() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    assert await answer_to(serve) == Answer(200)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /data/track HTTP/1.1"
    names = {line.split(b":")[0].lower() for line in lines[1:]}
    assert names == {b"host", b"x-track", b"content-type", b"content-length"}
    assert b"x-track: track-secret" in lines
    assert b"content-type: application/json" in lines
    assert body == BODY


async def test_metadata_goes_to_its_group_with_the_integration_key() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"updated":1}')

    async with serving(serve) as url, client(url) as (http, answers):
        batch = Batch("account", "agent", ["a"])
        http.start(Attempt(EndpointName.METADATA, b"[]", Ticket("a", 1), batch=batch))
        assert await asyncio.wait_for(answers.get(), 10) == Answer(200, body=b'{"updated":1}')
    assert seen[0].startswith(b"POST /api/v1/metadata/account/agent/value?create=true HTTP/1.1\r\n")
    assert b"x-pendo-integration-key: api-key\r\n" in seen[0]


async def test_a_redirect_is_not_followed() -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    assert await answer_to(answering(raw)) == Answer(302)


async def test_retry_after_comes_with_a_429() -> None:
    raw = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    assert await answer_to(answering(raw)) == Answer(429, retry_after="7")


async def test_an_error_page_that_echoes_the_secret_is_cleaned() -> None:
    raw = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nkey: track-secret"
    assert await answer_to(answering(raw)) == Answer(403, body=b"key: ***")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 20",
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 9999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x00" * 100,
    ],
)
async def test_what_is_no_whole_answer_is_a_broken_connection(raw: bytes) -> None:
    answer = await answer_to(answering(raw))
    assert (answer.status, answer.failure) == (None, Failure.BROKEN)
    assert answer.unseen


async def test_a_server_that_is_not_there_has_seen_nothing() -> None:
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        answer = await asyncio.wait_for(answers.get(), 10)
    assert answer == Answer(failure=Failure.UNREACHABLE)
    assert not answer.unseen


async def test_a_server_that_hangs_is_a_time_out_and_leaves_nothing_behind() -> None:
    held = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await held.wait()

    async with serving(serve) as url, client(url, timeout_seconds=0.2) as (http, answers):
        for _ in range(5):
            http.start(track_attempt())
        for _ in range(5):
            assert await asyncio.wait_for(answers.get(), 10) == Answer(failure=Failure.TIMEOUT)
        assert not any(http._under_way.values())
        held.set()


async def test_of_an_endless_answer_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pendo_http, "MAX_ANSWER_BYTES", 10_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 4096)
            await writer.drain()

    answer = await answer_to(serve)
    assert answer.status == 200
    assert len(answer.body) == 10_000


async def test_connections_are_used_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while not reader.at_eof():
            try:
                await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")

    async with serving(serve) as url, client(url) as (http, answers):
        for _ in range(5):
            http.start(track_attempt())
            assert (await asyncio.wait_for(answers.get(), 10)).status == 500
    assert connections == 1


async def test_closing_abandons_what_is_under_way_without_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with serving(serve) as url, client(url) as (http, answers):
        http.start(track_attempt())
        await asyncio.sleep(0)
        await http.close()
        assert answers.empty()


async def test_a_secret_is_used_from_the_next_request_on() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                seen.append(await read_request(reader))
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(serve) as url, client(url) as (http, answers):
        http.start(track_attempt())
        await asyncio.wait_for(answers.get(), 10)
        assert not http.set_secret(EndpointName.TRACK, "track-secret")
        assert http.set_secret(EndpointName.TRACK, "newer")
        http.start(track_attempt())
        await asyncio.wait_for(answers.get(), 10)
    assert [b"x-track: newer" in request for request in seen] == [False, True]


@pytest.mark.parametrize(("status", "expected"), [(200, b"{}"), (404, None)])
async def test_documents_of_the_api(status: int, expected: bytes | None) -> None:
    raw = b"HTTP/1.1 %d Word\r\nContent-Length: 2\r\n\r\n{}" % status
    async with serving(answering(raw)) as url, client(url) as (http, _):
        assert await http.get_json("/api/v1/metadata/schema/visitor") == expected
