"""Any 2xx is success, whatever happens to the rest of the answer (docs/contract.md#requests-to-pendo).

Before the fix, the bytes after the status decided: each of these answers counted as a broken connection, so the event
was sent up to `delivery.max_attempts` times, counted by Pendo each time, and finally dead-lettered.
"""

from __future__ import annotations

import asyncio
import gzip
from itertools import chain

import pytest

from deadlines import stretched
from flagpost_consumer.adapters.http.answers import MAX_HEAD_BYTES, MAX_REMEMBERED, AnswerReader, Reply
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.core.pendo.verdict import Answer, Verdict, judge
from pendo_client import (
    Clock,
    answer_to,
    answering,
    client,
    hanging_after,
    read_request,
    sent,
    serving,
    status_known,
    track_attempt,
)
from running import eventually

EMPTY_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TAKEN = b"HTTP/1.1 200 OK\r\n"
PACKED = gzip.compress(b'{"updated":1}' * 100)

UNREADABLE = {
    "in br": TAKEN + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
    "in zstd": TAKEN + b"Content-Encoding: zstd\r\nContent-Length: 5\r\n\r\nhello",
    "falsely gzip": TAKEN + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "gzip cut short": TAKEN + b"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n" + PACKED[:20],
    "cut short": TAKEN + b"Content-Length: 10\r\n\r\nhalf",
    "no end of the head": TAKEN + b"Content-Le",
    "no end of the status line": b"HTTP/1.1 200 OK",
    "a header over every limit": TAKEN + b"X: " + b"y" * 200_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "more headers than anyone sends": TAKEN + b"x: y\r\n" * 5_000 + b"Content-Length: 0\r\n\r\n",
    "a header without a colon": TAKEN + b"no colon\r\nContent-Length: 0\r\n\r\n",
    "a length that is none": TAKEN + b"Content-Length: many\r\n\r\n",
    "two lengths": TAKEN + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}",
    "a chunk that is none": TAKEN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that is none, after a good one": TAKEN + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
    "a NUL in a header": TAKEN + b"X: \x00\r\nContent-Length: 0\r\n\r\n",
    "more after its end": TAKEN + b"Content-Length: 0\r\n\r\nand more, which is not HTTP",
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nno colon\r\n\r\n",
    "a reason over the limit": b"HTTP/1.1 200 " + b"O" * 100_000 + b"K\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_2xx_is_delivered_whatever_follows_it(raw: bytes) -> None:
    answer = await answer_to(answering(raw))
    assert answer.failure is None
    assert judge(answer) is Verdict.DELIVERED


async def test_the_answer_from_the_field_is_delivered_once() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello"
    assert await answer_to(answering(raw)) == Answer(200, body=b"hello")


@pytest.mark.parametrize("raw", [TAKEN, TAKEN + b"Content-Length: 10\r\n\r\nhalf"])
async def test_a_2xx_whose_rest_does_not_come_is_delivered_at_the_time_out(raw: bytes) -> None:
    held = asyncio.Event()
    clock = Clock()
    async with serving(hanging_after(raw, held)) as url, client(url, 10.0, now=clock) as (http, answers):
        http.start(track_attempt())
        await sent(http)
        await status_known(http)
        clock.seconds += 10.0
        answer = await asyncio.wait_for(answers.get(), stretched(30))
        held.set()
    assert (answer.status, answer.failure) == (200, None)


async def test_a_compressed_answer_is_left_as_it_is() -> None:
    """The request asks for no compression, and the unpacked body could have any size."""
    packed = gzip.compress(bytes(30_000_000))
    head = f"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    assert await answer_to(answering(head + packed)) == Answer(400, body=packed)


async def test_a_407_without_a_proxy_is_an_answer_like_others() -> None:
    assert await answer_to(answering(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")) == Answer(407)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_of_a_429_or_503_is_kept(status: int) -> None:
    raw = b"HTTP/1.1 %d Wait\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n" % status
    assert await answer_to(answering(raw)) == Answer(status, retry_after="7")


@pytest.mark.parametrize("status", [200, 302, 500, 502])
async def test_retry_after_of_other_answers_is_ignored(status: int) -> None:
    raw = b"HTTP/1.1 %d Word\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n" % status
    assert (await answer_to(answering(raw))).retry_after is None


class Talkative:
    """A server that answers each request; once `say_more` is set, it sends one more 200 on each open connection."""

    def __init__(self) -> None:
        self.requests = 0
        self.say_more = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_request(reader)
            self.requests += 1
            writer.write(EMPTY_OK)
            if not self.say_more.is_set():
                await self.say_more.wait()
                writer.write(EMPTY_OK)
            await read_request(reader)
            self.requests += 1
            writer.write(EMPTY_OK)
        except asyncio.IncompleteReadError:
            return


async def idle_connections_have_heard(http: PendoHttp) -> None:
    """Wait until every idle connection has received bytes that no request asked for."""
    idle = list(chain.from_iterable(http._client._idle.values()))
    assert idle
    await eventually(lambda: not any(line.can_be_used for line in idle))


async def test_unrequested_bytes_are_no_answer_to_the_next_request() -> None:
    """Before the fix, one more 200 on an idle connection settled the next event as delivered, although unsent."""
    server = Talkative()
    async with serving(server) as url, client(url) as (http, answers):
        http.start(track_attempt())
        assert await asyncio.wait_for(answers.get(), stretched(30)) == Answer(200)
        server.say_more.set()
        await idle_connections_have_heard(http)
        http.start(track_attempt())
        assert await asyncio.wait_for(answers.get(), stretched(30)) == Answer(200)
    assert server.requests == 2


async def test_connections_with_unrequested_bytes_are_given_up_and_a_new_one_is_used() -> None:
    server = Talkative()
    count = 5
    async with serving(server) as url, client(url) as (http, answers):
        for number in range(count):
            http.start(track_attempt(f"v{number}"))
        for _ in range(count):
            assert await asyncio.wait_for(answers.get(), stretched(30)) == Answer(200)
        server.say_more.set()
        await idle_connections_have_heard(http)
        http.start(track_attempt())
        assert await asyncio.wait_for(answers.get(), stretched(30)) == Answer(200)
        assert sum(map(len, http._client._idle.values())) == 1


async def test_the_head_that_is_kept_for_its_status_is_bounded() -> None:
    ended: list[bool] = []
    reader = AnswerReader(ended.append, {})
    reader.begin(1_000)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    fed = 0
    while not ended:
        reader.feed_data(interim)
        fed += len(interim)
    assert MAX_HEAD_BYTES < fed <= MAX_HEAD_BYTES + len(interim)
    assert ended == [False]
    reader.feed_data(interim)
    reader.feed_eof()
    assert ended == [False], "the end is told once"


ANSWER = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 22:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"


def read(pieces: list[bytes], remembered: dict[bytes, Reply], max_body_bytes: int = 1_000) -> Reply | None:
    reader = AnswerReader(lambda _: None, remembered)
    reader.begin(max_body_bytes)
    for piece in pieces:
        reader.feed_data(piece)
    return reader.reply()


async def test_the_same_bytes_are_the_same_answer() -> None:
    remembered: dict[bytes, Reply] = {}
    first = read([ANSWER], remembered)
    assert list(remembered) == [ANSWER]
    assert read([ANSWER], remembered) is first
    assert first is not None
    assert (first.status, first.body, first.headers["date"]) == (200, b"ok", "Sat, 28 Nov 2026 22:00:00 GMT")


@pytest.mark.parametrize(
    "pieces",
    [
        [ANSWER[:-1], ANSWER[-1:]],
        [ANSWER[:-1]],
        [ANSWER.replace(b"Date", b"Connection: close\r\nDate")],
        [b"HTTP/1.1 200 OK\r\n\r\nok"],
        [ANSWER + ANSWER],
        [b"no HTTP"],
        [ANSWER.replace(b": 2\r\n\r\n", b": 1002\r\n\r\n" + b"x" * 1_000)],
    ],
    ids=["two pieces", "cut short", "the last", "until the end", "two answers", "none", "long"],
)
async def test_only_whole_short_answers_in_one_piece_are_remembered(pieces: list[bytes]) -> None:
    remembered: dict[bytes, Reply] = {}
    read(pieces, remembered)
    assert not remembered


async def test_the_body_limit_applies_to_remembered_answers_too() -> None:
    remembered: dict[bytes, Reply] = {}
    body = b"x" * 600
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n" + body
    assert read([answer], remembered) == read([answer], remembered)
    limited = read([answer], remembered, max_body_bytes=10)
    assert limited is not None
    assert limited.body == body[:10]


async def test_answers_are_remembered_within_a_bound() -> None:
    remembered: dict[bytes, Reply] = {}
    for number in range(3 * MAX_REMEMBERED):
        read([ANSWER.replace(b"ok", b"%02d" % (number % 100)).replace(b"2026", b"%04d" % number)], remembered)
        assert len(remembered) <= MAX_REMEMBERED
    assert remembered
