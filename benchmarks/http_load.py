"""Sends one request again and again over some connections, as cheaply as it can: what is measured is the server.

Run: python benchmarks/http_load.py URL REQUESTS CONNECTIONS < BODY. It ends when all were answered with a 2xx, and
fails at another answer. Each connection sends its next request when the answer to the one before has come.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from typing import cast

import uvloop
from yarl import URL

AUTHORIZATION = "Bearer wk-4711-4711"


def request(url: URL, body: bytes) -> bytes:
    head = [
        f"POST {url.raw_path_qs} HTTP/1.1",
        f"Host: {url.host}:{url.port}",
        f"Authorization: {AUTHORIZATION}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, turns: Iterator[int], done: asyncio.Future[None]) -> None:
        self._request, self._turns, self._done = request, turns, done
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._pending[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(self._pending) < end + 4 + length:
            return
        if head.split(b" ", 2)[1][:1] == b"2":
            self._pending.clear()
            self._next()
        elif not self._done.done():
            self._done.set_exception(RuntimeError(bytes(self._pending).decode()))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or RuntimeError("the server closed a connection"))

    def _next(self) -> None:
        assert self._transport is not None  # noqa: S101 - narrows the type
        if next(self._turns, None) is not None:
            self._transport.write(self._request)
        elif not self._done.done():
            self._done.set_result(None)


async def load(url: URL, body: bytes, requests: int, connections: int) -> None:
    """Send them all."""
    loop, turns, ready = asyncio.get_running_loop(), iter(range(requests)), request(url, body)
    dones: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for done in dones:
        make = partial(Client, ready, turns, done)
        await loop.create_connection(make, url.host or "127.0.0.1", url.port or 80)
    await asyncio.gather(*dones)


if __name__ == "__main__":
    given_url, given_requests, given_connections = sys.argv[1:]
    uvloop.run(load(URL(given_url), sys.stdin.buffer.read(), int(given_requests), int(given_connections)))
