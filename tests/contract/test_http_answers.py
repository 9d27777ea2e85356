"""Whatever a server answers, cuts short or closes, the adapter returns what aiohttp's session returns, on every loop.

Where it differs, the case says why. Each case makes two requests, to see also whether the connection is used again.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from contract.exchanges import Case, Seen, differs, hold_to, same
from contract.scripted_server import Peer, Script
from flagpost_consumer.adapters.http.answers import MAX_ANSWER_BYTES, MAX_HEADER_BYTES, MAX_HEADERS
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from pendo_client import BODY

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
TWO = b"Content-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
PACKED = gzip.compress(b'{"updated":1}' * 10)
LARGE = b"x" * 8_000_000
"""A request body that no socket accepts at once."""

TAKEN = Answer(200, body=b"{}")
TOO_LARGE = Answer(413, body=b"{}")
BROKEN = Answer(failure=Failure.BROKEN)
TIMEOUT = Answer(failure=Failure.TIMEOUT)

STATUS = "the status is the answer, whatever becomes of the rest (decision 19)"
BOUNDED = "what an answer may take of the memory is bounded"
UNASKED = "what nobody asked for is not an answer to the next request"


def answers(*pieces: bytes) -> Script:
    """Answers each request with these bytes, and keeps the connection."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*pieces)

    return script


def closes(*pieces: bytes) -> Script:
    """Answers one request with these bytes, and ends the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*pieces)
        await peer.finish()

    return script


def resets(*pieces: bytes) -> Script:
    """Answers one request with these bytes, and resets the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*pieces)
        await peer.reset()

    return script


def holds(*pieces: bytes) -> Script:
    """Answers one request with these bytes, and sends nothing more."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*pieces)
        await peer.hold()

    return script


def floods(beginning: bytes, piece: bytes) -> Script:
    """Answers with `beginning`, and then sends `piece` without end."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(beginning)
        await peer.flood(piece)

    return script


def one_by_one(raw: bytes) -> list[bytes]:
    """Bytes, split into pieces of one byte."""
    return [raw[i : i + 1] for i in range(len(raw))]


def status_alone(script: Script, answer: Answer, session: Answer = BROKEN) -> Case:
    """A case in which the session fails, and the adapter returns the status; neither uses the connection again."""
    return differs(script, answer, session, STATUS, connections=(2, 2))


def length(content: bytes) -> bytes:
    """The end of a head, with the length of the body, and the body."""
    return b"Content-Length: %d\r\n\r\n%s" % (len(content), content)


async def stale_when_closed(peer: Peer) -> None:
    await peer.request()
    await peer.say(OK + TWO)
    await peer.request()
    await peer.finish()


async def stale_when_reset(peer: Peer) -> None:
    await peer.request()
    await peer.say(OK + TWO)
    await peer.request()
    await peer.reset()


def early(ends: Callable[[Peer], Awaitable[None]]) -> Script:
    """Answers as soon as the request's head is here; its body is left unread."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 413 Too Large\r\n" + TWO)
        await ends(peer)

    return script


STATUS_LINES: dict[str, Case] = {
    "200": same(answers(OK + TWO), TAKEN),
    "200 without a body": same(answers(OK + EMPTY), Answer(200)),
    "204": same(answers(b"HTTP/1.1 204 No Content\r\n\r\n"), Answer(204)),
    "204 with a body": status_alone(closes(b"HTTP/1.1 204 No Content\r\n" + TWO), Answer(204)),
    "205": same(answers(b"HTTP/1.1 205 Reset Content\r\n" + EMPTY), Answer(205)),
    "302": same(answers(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n" + EMPTY), Answer(302)),
    "307": same(answers(b"HTTP/1.1 307 Temporary\r\nLocation: /elsewhere\r\n" + EMPTY), Answer(307)),
    "304": same(answers(b"HTTP/1.1 304 Not Modified\r\n" + EMPTY), Answer(304)),
    "400": same(answers(b"HTTP/1.1 400 Bad\r\n" + TWO), Answer(400, body=b"{}")),
    "500": same(answers(b"HTTP/1.1 500 Oops\r\n" + TWO), Answer(500, body=b"{}")),
    "999": same(answers(b"HTTP/1.1 999 What\r\n" + TWO), Answer(999, body=b"{}")),
    "099": same(answers(b"HTTP/1.1 099 What\r\n" + TWO), Answer(99, body=b"{}")),
    "a status of two digits": same(closes(b"HTTP/1.1 20 OK\r\n" + TWO), BROKEN, 2),
    "a status of four digits": same(closes(b"HTTP/1.1 2000 OK\r\n" + TWO), BROKEN, 2),
    "no reason": same(answers(b"HTTP/1.1 200 \r\n" + TWO), TAKEN),
    "no reason and no space": same(answers(b"HTTP/1.1 200\r\n" + TWO), TAKEN),
    "a reason in no encoding": same(answers(b"HTTP/1.1 200 \xe4\xff\r\n" + TWO), TAKEN),
    "a reason over the limit": status_alone(
        closes(b"HTTP/1.1 200 " + b"O" * (MAX_HEADER_BYTES + 1) + b"\r\n" + TWO), Answer(200)
    ),
    "lines that end with LF": same(answers(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), TAKEN),
    "empty lines first": same(answers(b"\r\n\r\n" + OK + TWO), TAKEN),
    "a space first": same(closes(b" " + OK + TWO), BROKEN, 2),
    "HTTP/1.0": same(answers(b"HTTP/1.0 200 OK\r\n" + TWO), TAKEN, 2),
    "HTTP/1.0 that stays": same(answers(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO), TAKEN),
    "HTTP/1.0 in chunks": same(
        answers(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), TAKEN, 2
    ),
    "HTTP/1.2": status_alone(closes(b"HTTP/1.2 200 OK\r\n" + TWO), Answer(200)),
    "HTTP/3.7": same(closes(b"HTTP/3.7 200 OK\r\n" + TWO), BROKEN, 2),
    "in small letters": same(closes(b"http/1.1 200 OK\r\n" + TWO), BROKEN, 2),
    "ICY": same(closes(b"ICY 200 OK\r\n" + TWO), BROKEN, 2),
    "TLS": same(closes(b"\x16\x03\x01\x02"), BROKEN, 2),
    "NULs": same(closes(b"\x00" * 100), BROKEN, 2),
}

INTERIM_ANSWERS: dict[str, Case] = {
    "100": same(answers(INTERIM + OK + TWO), TAKEN),
    "100, and the answer later": same(answers(INTERIM, OK + TWO), TAKEN),
    "100 byte by byte": same(answers(*one_by_one(INTERIM + OK + TWO)), TAKEN),
    "102 and 103": same(
        answers(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n", OK + TWO), TAKEN
    ),
    "100 with a length of none": same(answers(b"HTTP/1.1 100 Continue\r\n" + EMPTY + OK + TWO), TAKEN),
    "100 with a body": same(closes(b"HTTP/1.1 100 Continue\r\n" + TWO + OK + TWO), BROKEN, 2),
    "100 and no more": same(closes(INTERIM), BROKEN, 2),
    "100, and an answer that is cut": status_alone(
        closes(INTERIM + b"HTTP/1.1 202 Accepted\r\nno colon\r\n\r\n"), Answer(202)
    ),
    "101": same(
        closes(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx"), Answer(101), 2
    ),
    "101 to nothing": same(closes(b"HTTP/1.1 101 Switching\r\n\r\n"), Answer(101), 2),
    "426": same(
        answers(b"HTTP/1.1 426 Upgrade\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + TWO),
        Answer(426, body=b"{}"),
    ),
    "100 without end": differs(
        floods(b"", b"HTTP/1.1 100 Continue\r\nX: %s\r\n\r\n" % (b"y" * 4_000)),
        BROKEN,
        TIMEOUT,
        BOUNDED,
        connections=(2, 2),
    ),
}

CHUNKS: dict[str, Case] = {
    "chunks": same(answers(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), TAKEN),
    "byte by byte, with a trailer": same(
        answers(*one_by_one(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n")), TAKEN
    ),
    "extensions": same(answers(CHUNKED + b'2;a=b;c="d"\r\n{}\r\n0;x\r\n\r\n'), TAKEN),
    "trailers": same(answers(CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\nZ: w\r\n\r\n"), TAKEN),
    "a trailer that would be a header": same(
        answers(b"HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 5\r\n\r\n"),
        Answer(429),
    ),
    "noughts and spaces": same(answers(CHUNKED + b"0002 \r\n{}\r\n0\r\n\r\n"), TAKEN),
    "capitals": same(answers(CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n"), Answer(200, body=b"0123456789")),
    "gzip, then chunked": same(
        answers(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), TAKEN
    ),
    "chunked, then gzip": same(
        closes(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}"), Answer(200, body=b"2\r\n{}"), 2
    ),
    "LF alone": status_alone(closes(CHUNKED + b"2\n{}\n0\n\n"), Answer(200)),
    "no last chunk": status_alone(closes(CHUNKED + b"2\r\n{}\r\n"), TAKEN),
    "no end of the last chunk": status_alone(closes(CHUNKED + b"2\r\n{}\r\n0\r\n"), TAKEN),
    "no end of the trailers": status_alone(closes(CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n"), TAKEN),
    "a size that is none": status_alone(closes(CHUNKED + b"zz\r\n"), Answer(200)),
    "a size that is none, later": status_alone(holds(CHUNKED + b"2\r\n{}\r\n", b"zz\r\n"), TAKEN, TIMEOUT),
    "a size below 0": status_alone(closes(CHUNKED + b"-2\r\n{}"), Answer(200)),
    "a size of 68 bits": status_alone(closes(CHUNKED + b"f" * 17 + b"\r\n{}"), Answer(200)),
    "more than its size": status_alone(closes(CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"), Answer(200)),
    "a length as well": status_alone(
        closes(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        Answer(200),
    ),
    "an extension without end": status_alone(floods(CHUNKED + b"2;", b"y" * 4_000), Answer(200), TIMEOUT),
    "noughts without end": status_alone(floods(CHUNKED, b"0" * 4_000), Answer(200), TIMEOUT),
    "trailers without end": status_alone(floods(CHUNKED + b"0\r\n", b"X: y\r\n" * 100), Answer(200)),
}

BODIES: dict[str, Case] = {
    "until the end of the connection": same(closes(OK + b"\r\n{}"), TAKEN, 2),
    "in pieces until the end of the connection": same(closes(OK + b"\r\n", b"{", b"}"), TAKEN, 2),
    "none until the end of the connection": same(closes(OK + b"\r\n"), Answer(200), 2),
    "until the connection is reset": same(resets(OK + b"\r\n{}"), TAKEN, 2),
    "Transfer-Encoding: identity": same(closes(OK + b"Transfer-Encoding: identity\r\n\r\n{}"), TAKEN, 2),
    "Connection: close": same(answers(OK + b"Connection: close\r\n" + TWO), TAKEN, 2),
    "cut short": status_alone(closes(OK + b"Content-Length: 10\r\n\r\nhalf"), Answer(200, body=b"half")),
    "500 cut short": status_alone(
        closes(b"HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhalf"), Answer(500, body=b"half")
    ),
    "packed": same(answers(OK + b"Content-Encoding: gzip\r\n" + length(PACKED)), Answer(200, body=PACKED)),
    "falsely packed": same(answers(OK + b"Content-Encoding: br\r\n" + TWO), TAKEN),
    "the most that is read": same(
        answers(OK + length(bytes(MAX_ANSWER_BYTES - 1))), Answer(200, body=bytes(MAX_ANSWER_BYTES - 1))
    ),
    "more than is read": differs(
        answers(OK + length(bytes(2 * MAX_ANSWER_BYTES))),
        Answer(200, body=bytes(MAX_ANSWER_BYTES)),
        Answer(200, body=bytes(2 * MAX_ANSWER_BYTES)),
        BOUNDED,
        connections=(2, 1),
    ),
    "without end": differs(
        floods(OK + b"\r\n", bytes(4_000)),
        Answer(200, body=bytes(MAX_ANSWER_BYTES)),
        TIMEOUT,
        BOUNDED,
        connections=(2, 2),
    ),
    "in chunks without end": differs(
        floods(CHUNKED, b"100\r\n" + bytes(256) + b"\r\n"),
        Answer(200, body=bytes(MAX_ANSWER_BYTES)),
        TIMEOUT,
        BOUNDED,
        connections=(2, 2),
    ),
}

HEADERS: dict[str, Case] = {
    "the longest header": same(answers(OK + b"X: " + b"y" * (MAX_HEADER_BYTES - 1) + b"\r\n" + TWO), TAKEN),
    "a header over the limit": status_alone(
        closes(OK + b"X: " + b"y" * MAX_HEADER_BYTES + b"\r\n" + TWO), Answer(200)
    ),
    "503 with a header over the limit": status_alone(
        closes(b"HTTP/1.1 503 Busy\r\nX: " + b"y" * MAX_HEADER_BYTES + b"\r\n" + TWO), Answer(503)
    ),
    "the most headers": same(answers(OK + b"X: y\r\n" * (MAX_HEADERS - 1) + TWO), TAKEN),
    "more headers": status_alone(closes(OK + b"X: y\r\n" * MAX_HEADERS + TWO), Answer(200)),
    "headers without end": status_alone(floods(OK, b"X: y\r\n" * 100), Answer(200)),
    "a header without end": status_alone(floods(OK + b"X: ", b"y" * 4_000), Answer(200)),
    "a reason without end": status_alone(floods(b"HTTP/1.1 200 ", b"y" * 4_000), Answer(200)),
    "empty lines without end": differs(
        floods(b"", b"\r\n" * 4_000), BROKEN, TIMEOUT, BOUNDED, connections=(2, 2)
    ),
    "no colon": status_alone(closes(OK + b"no colon\r\n" + TWO), Answer(200)),
    "400 without a colon": status_alone(closes(b"HTTP/1.1 400 Bad\r\nno colon\r\n" + TWO), Answer(400)),
    "no name": status_alone(closes(OK + b": x\r\n" + TWO), Answer(200)),
    "a space in its name": status_alone(closes(OK + b"X : y\r\n" + TWO), Answer(200)),
    "a NUL": status_alone(closes(OK + b"X: \x00\r\n" + TWO), Answer(200)),
    "two lines": same(answers(OK + b"X: a\r\n b\r\n" + TWO), TAKEN),
    "no value": same(answers(OK + b"X:\r\n" + TWO), TAKEN),
    "in no encoding": same(answers(OK + b"X: \xff\xfe\r\n" + TWO), TAKEN),
    "cookies": same(answers(OK + b"Set-Cookie: a=b\r\nSet-Cookie: \x01=1\r\n" + TWO), TAKEN),
    "a length of no number": status_alone(closes(OK + b"Content-Length: many\r\n\r\n{}"), Answer(200)),
    "a length below 0": status_alone(closes(OK + b"Content-Length: -2\r\n\r\n{}"), Answer(200)),
    "a length of 67 bits": status_alone(
        closes(OK + b"Content-Length: 99999999999999999999\r\n\r\n{}"), Answer(200)
    ),
    "no length after its name": status_alone(closes(OK + b"Content-Length:\r\n\r\n{}"), Answer(200)),
    "two lengths": status_alone(
        closes(OK + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}"), Answer(200)
    ),
    "the same length twice": status_alone(
        closes(OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"), Answer(200)
    ),
    "Retry-After": same(answers(b"HTTP/1.1 429 Slow\r\nRetry-After: 7 \r\n" + TWO), Answer(429, "7", b"{}")),
    "Retry-After twice": same(
        answers(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\nRETRY-AFTER: 9\r\n" + TWO), Answer(503, "7", b"{}")
    ),
    "Retry-After in no encoding": same(
        answers(b"HTTP/1.1 503 Busy\r\nRetry-After: \xff\r\n" + TWO), Answer(503, "\udcff", b"{}")
    ),
}

CUT: dict[str, Case] = {
    "no answer": same(closes(), BROKEN, 2),
    "in the status": same(closes(b"HTTP/1.1 20"), BROKEN, 2),
    "after the status": same(closes(b"HTTP/1.1 200"), BROKEN, 2),
    "in the reason": status_alone(closes(b"HTTP/1.1 200 O"), Answer(200)),
    "in a header": status_alone(closes(OK + b"Content-Le"), Answer(200)),
    "reset without an answer": same(resets(), BROKEN, 2),
    "reset in the status": same(resets(b"HTTP/1.1 2"), BROKEN, 2),
    "reset in the head": status_alone(resets(OK + b"X: y\r\n"), Answer(200)),
    "reset in the body": status_alone(
        resets(OK + b"Content-Length: 10\r\n\r\nhalf"), Answer(200, body=b"half")
    ),
    "reset in a chunk": status_alone(resets(CHUNKED + b"2\r\n{}\r\n"), TAKEN),
    "silent": same(holds(), TIMEOUT, 2),
    "silent after 100": same(holds(INTERIM), TIMEOUT, 2),
    "silent in the status": same(holds(b"HTTP/1.1 20"), TIMEOUT, 2),
    "silent in the head": status_alone(holds(OK), Answer(200), TIMEOUT),
    "silent before the body": status_alone(holds(OK + b"Content-Length: 10\r\n\r\n"), Answer(200), TIMEOUT),
    "silent in the body": status_alone(
        holds(OK + b"Content-Length: 10\r\n\r\nhalf"), Answer(200, body=b"half"), TIMEOUT
    ),
    "silent between chunks": status_alone(holds(CHUNKED + b"2\r\n{}\r\n"), TAKEN, TIMEOUT),
    "silent in the trailers": status_alone(holds(CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n"), TAKEN, TIMEOUT),
    "silent before the end of the connection": status_alone(holds(OK + b"\r\n{}"), TAKEN, TIMEOUT),
}

CONNECTIONS: dict[str, Case] = {
    "closed while it was idle": same(closes(OK + TWO), TAKEN, 2),
    "reset while it was idle": same(resets(OK + TWO), TAKEN, 2),
    "closed instead of a second answer": same(stale_when_closed, TAKEN, second=BROKEN),
    "reset instead of a second answer": same(stale_when_reset, TAKEN, second=BROKEN),
    "answered early, and kept": same(early(Peer.hung_up), TOO_LARGE, 2, body=LARGE),
    "answered early, and closed": same(early(Peer.finish), TOO_LARGE, 2, body=LARGE),
    "answered early, and reset": same(early(Peer.reset), TOO_LARGE, 2, body=LARGE),
    "an empty line after the answer": same(answers(OK + TWO + b"\r\n"), TAKEN),
    "junk after the answer": status_alone(answers(OK + TWO + b"junk"), Answer(200)),
    "junk later": same(answers(OK + TWO, b"junk"), TAKEN, 2),
    "two answers": same(answers(OK + TWO + OK + EMPTY), TAKEN, 2),
    "an interim answer after the answer": same(answers(OK + TWO + INTERIM), TAKEN, 2),
    "a second answer later": Case(
        answers(OK + TWO, OK + EMPTY), Seen(TAKEN, TAKEN, 2), Seen(TAKEN, Answer(200), 1), UNASKED, BODY
    ),
    "half an answer after the answer": differs(
        answers(OK + TWO + b"HTTP/1.1 20"), TAKEN, TAKEN, UNASKED, connections=(2, 1)
    ),
    "half an answer later": differs(
        answers(OK + TWO, b"HTTP/1.1 20"), TAKEN, TAKEN, UNASKED, connections=(2, 1)
    ),
    "an interim answer later": differs(answers(OK + TWO, INTERIM), TAKEN, TAKEN, UNASKED, connections=(2, 1)),
}

CASES = {
    f"{of}: {name}": case
    for of, cases in {
        "status line": STATUS_LINES,
        "interim": INTERIM_ANSWERS,
        "chunks": CHUNKS,
        "body": BODIES,
        "header": HEADERS,
        "cut": CUT,
        "connection": CONNECTIONS,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.filterwarnings("ignore:Sending a large body")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_client_returns_what_the_case_says(case: Case, run: Callable[[Any], None]) -> None:
    run(hold_to(case))
