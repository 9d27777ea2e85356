"""Clients that misbehave: any bytes on a socket, and very many sockets at once.

In: a URL, bytes. Out: the answer; or open connections that keep a server busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


def head(method: str, path: str, **headers: str) -> bytes:
    """A request line and headers, with the empty line at the end."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def answer_to(url: str, sent: bytes) -> bytes:
    """Send bytes and read to the end of the connection, or to the end of the first answer."""
    reader, writer = await asyncio.open_connection(*address(url))
    try:
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return await _answer(reader, has_body=not sent.startswith(b"HEAD"))
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, *, has_body: bool) -> bytes:
    """One answer with its body; only its beginning if the connection ended before."""
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        return answer + await reader.readexactly(length if has_body else 0)
    except asyncio.IncompleteReadError as cut:
        return cut.partial
    except ConnectionError:
        return b""


def let_open(count: int) -> None:
    """Raise the number of files that this process may open to `count`, or as far as is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(hard, count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@asynccontextmanager
async def holding(url: str, sent: bytes, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """`count` connections, on each of which these bytes were sent, and nothing more."""
    writers, readers = [], []
    let_open(2 * count + 500)
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(*address(url))
            writer.write(sent)
            writers.append(writer)
            readers.append(reader)
        yield readers
    finally:
        for writer in writers:
            writer.transport.abort()
