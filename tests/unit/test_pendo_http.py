"""The HTTP client: each request has exactly one answer, whatever the server does."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from contextlib import suppress

import orjson
import pytest
import uvloop

from deadlines import stretched
from flagpost_consumer.core.metadata.retries import Batch
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from pendo_client import (
    BODY,
    GENEROUS_SECONDS,
    Clock,
    answer_to,
    answering,
    client,
    read_request,
    sent,
    serving,
    track_attempt,
)


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
    assert names == {b"host", b"accept-encoding", b"x-track", b"content-type", b"content-length"}
    assert b"accept-encoding: identity" in lines
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
        http.start(MetadataAttempt(EndpointName.METADATA, b"[]", Ticket("a", 1), batch))
        assert await asyncio.wait_for(answers.get(), stretched(10)) == Answer(200, body=b'{"updated":1}')
    assert seen[0].startswith(b"POST /api/v1/metadata/account/agent/value?create=true HTTP/1.1\r\n")
    assert b"x-pendo-integration-key: api-key\r\n" in seen[0]


async def test_an_error_page_that_echoes_the_secret_is_cleaned() -> None:
    raw = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nkey: track-secret"
    assert await answer_to(answering(raw)) == Answer(403, body=b"key: ***")


async def test_a_secret_with_quotes_and_backslashes_is_hidden_where_json_echoes_it() -> None:
    secret = 'tr"ack\\secret'
    body = orjson.dumps({"error": f"no such key: {secret}"})
    raw = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with serving(answering(raw)) as url, client(url) as (http, answers):
        http.set_secret(EndpointName.TRACK, secret)
        http.start(track_attempt())
        answer = await asyncio.wait_for(answers.get(), stretched(10))
    assert orjson.loads(answer.body) == {"error": "no such key: ***"}


async def test_a_server_that_is_not_there_has_seen_nothing() -> None:
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        answer = await asyncio.wait_for(answers.get(), stretched(10))
    assert answer == Answer(failure=Failure.UNREACHABLE)
    assert not answer.unseen


async def test_a_server_that_hangs_is_a_time_out_and_leaves_nothing_behind() -> None:
    held = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await held.wait()

    clock = Clock()
    async with serving(serve) as url, client(url, 10.0, now=clock) as (http, answers):
        for _ in range(5):
            http.start(track_attempt())
        await sent(http)
        clock.seconds += 10.0
        for _ in range(5):
            assert await asyncio.wait_for(answers.get(), stretched(10)) == Answer(failure=Failure.TIMEOUT)
        assert not any(http._under_way.values())
        held.set()


def attempts_in_memory() -> int:
    return sum(isinstance(each, Attempt) for each in gc.get_objects())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_is_left_of_a_request_that_was_given_up_is_not_sent(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Before, all 4 MB of it arrived when the server read on, an older metadata value after the newer one; and until
    then the body stayed in memory.
    """

    async def read_late() -> int:
        running = asyncio.get_running_loop()
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            async with client(f"http://127.0.0.1:{listening.getsockname()[1]}", 1.0) as (http, answers):
                http.start(Attempt(EndpointName.TRACK, bytes(4_000_000), Ticket("v", 1)))
                connection, _ = await running.run_in_executor(None, listening.accept)
                answer = await asyncio.wait_for(answers.get(), stretched(GENEROUS_SECONDS))
                assert answer.failure is Failure.TIMEOUT
        connection.setblocking(False)
        read = 0
        with connection, suppress(ConnectionError):
            while piece := await asyncio.wait_for(
                running.sock_recv(connection, 1 << 20), stretched(GENEROUS_SECONDS)
            ):
                read += len(piece)
        return read

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(read_late()) < 4_000_000


async def test_an_answered_attempt_is_freed_without_the_garbage_collector() -> None:
    """If each request left a reference cycle, the collector would often have to examine all young objects."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(serve) as url, client(url) as (http, answers):
        gc.collect()
        others = attempts_in_memory()
        gc.disable()
        try:
            for _ in range(10):
                http.start(track_attempt())
                await asyncio.wait_for(answers.get(), stretched(10))
            left = attempts_in_memory()
        finally:
            gc.enable()
    assert left == others


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
        await asyncio.wait_for(answers.get(), stretched(10))
        assert not http.set_secret(EndpointName.TRACK, "track-secret")
        assert http.set_secret(EndpointName.TRACK, "newer")
        http.start(track_attempt())
        await asyncio.wait_for(answers.get(), stretched(10))
    assert [b"x-track: newer" in request for request in seen] == [False, True]


@pytest.mark.parametrize(("status", "expected"), [(200, b"{}"), (404, None)])
async def test_documents_of_the_api(status: int, expected: bytes | None) -> None:
    raw = b"HTTP/1.1 %d Word\r\nContent-Length: 2\r\n\r\n{}" % status
    async with serving(answering(raw)) as url, client(url) as (http, _):
        assert await http.get_json("/api/v1/metadata/schema/visitor") == expected
