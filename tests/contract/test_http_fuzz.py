"""For any bytes, split anywhere, the adapter returns what aiohttp's session returns, or only the status.

Each stream is a server's answer to one request; a second request shows whether the connection is used again.
"""

from __future__ import annotations

import re

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.exchanges import post
from contract.scripted_server import Peer, Script, ScriptedServer, scripted
from contract.two_clients import MakeClient, adapter, session
from example_counts import examples
from flagpost_consumer.adapters.pendo.http import DIRECT
from flagpost_consumer.core.pendo.verdict import Answer
from pendo_client import BODY

HEADS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Slow", b"HTTP/1.0 503", b"HTTP/1.1 204 None", b"HTTP/1.1 304 Same"]
)
INTERIMS = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"])
HEADERS = st.lists(
    st.sampled_from(
        [b"Retry-After: 7", b"X: y", b"Connection: keep-alive", b"Content-Encoding: gzip", b"Set-Cookie: a=b"]
    ),
    max_size=3,
    unique=True,
)
BODIES = st.binary(max_size=40)
ENDINGS = st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"00;z=1\r\n\r\n"])


def with_length(content: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(content), content)


def in_chunks(contents: list[bytes], ending: bytes) -> bytes:
    chunks = (b"%x\r\n%s\r\n" % (len(content), content) for content in contents if content)
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + ending


FRAMED = BODIES.map(with_length) | st.builds(in_chunks, st.lists(BODIES, max_size=3), ENDINGS)
UNFRAMED = BODIES.map(lambda content: b"\r\n" + content)


def answer(interim: bytes, head: bytes, headers: list[bytes], rest: bytes) -> bytes:
    return interim + b"\r\n".join((head, *headers, rest))


WHOLE = st.builds(answer, INTERIMS, st.just(b"HTTP/1.1 200 OK"), HEADERS, FRAMED)
"""Answers after which the connection can be used again."""
ANSWERS = st.builds(answer, INTERIMS, HEADS, HEADERS, FRAMED | UNFRAMED)
TOKENS = st.sampled_from(
    [b"\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"0\r\n\r\n", b":", b"\x00", b"\xff", b" ", b"100",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"ffffffffffffffff"]
)  # fmt: skip
JUNK = (TOKENS | st.binary(min_size=1, max_size=20)).filter(lambda junk: junk.strip(b"\r\n"))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer in which some bytes were removed, replaced or doubled."""
    raw = draw(ANSWERS)
    for _ in range(draw(st.integers(0, 3))):
        begin, end = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        put_in = draw(st.just(b"") | TOKENS | st.binary(max_size=5) | st.just(raw[begin:end] * 2))
        raw = raw[:begin] + put_in + raw[end:]
    return raw


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream, split into pieces."""
    raw = draw(streams)
    places = draw(st.lists(st.integers(0, len(raw)), max_size=6).map(sorted))
    return [
        raw[begin:end] for begin, end in zip([0, *places], [*places, len(raw)], strict=True) if begin < end
    ]


def says_once(pieces: list[bytes]) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*pieces)
        await peer.finish()

    return script


def says_always(pieces: list[bytes]) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*pieces)

    return script


NOTHING = Answer()
"""Nothing is expected at a time-out: where the session would wait for ever, the adapter has already ended."""


async def two_answers(make: MakeClient, server: ScriptedServer) -> tuple[list[Answer], list[list[bytes]]]:
    """What a client returned for two requests, and what it sent, by connection."""
    server.connections = []
    async with make(server.url, DIRECT) as client:
        seen = [await post(client, server, BODY, NOTHING) for _ in range(2)]
    return seen, server.connections


@given(cut(damaged()))
@settings(deadline=None, max_examples=examples(200))
def test_both_clients_return_the_same_or_the_adapter_returns_only_the_status(pieces: list[bytes]) -> None:
    async def history() -> None:
        async with scripted(says_once(pieces)) as server:
            ours, sent = await two_answers(adapter, server)
            theirs, sent_by_session = await two_answers(session, server)
        assert ours[0] == ours[1]
        if theirs[0].failure is None or ours[0].failure is not None:
            assert ours == theirs
        else:
            assert b"%d" % (ours[0].status or 0) in re.findall(rb"HTTP/1\.\d (\d{3})", b"".join(pieces))
        assert sent == sent_by_session
        assert len(sent) == 2, "a connection that has ended is not used again"

    uvloop.run(history())


@given(cut(WHOLE))
@settings(deadline=None, max_examples=examples(100))
def test_a_whole_answer_leaves_its_connection_to_the_next_request(pieces: list[bytes]) -> None:
    async def history() -> None:
        async with scripted(says_always(pieces)) as server:
            assert await two_answers(adapter, server) == await two_answers(session, server)
            assert len(server.connections) == 1

    uvloop.run(history())


@given(WHOLE, JUNK, st.data())
@settings(deadline=None, max_examples=examples(150))
def test_a_connection_that_said_more_than_its_answer_is_not_used_again(
    whole: bytes, junk: bytes, data: st.DataObject
) -> None:
    pieces = data.draw(cut(st.just(whole + junk)))

    async def history() -> None:
        async with scripted(says_always(pieces)) as server:
            answers, sent = await two_answers(adapter, server)
        assert [answer.status for answer in answers] == [200, 200]
        assert len(sent) == 2

    uvloop.run(history())
