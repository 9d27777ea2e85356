"""A forward proxy like those of companies: CONNECT for https, whole URLs for http, a password if the test sets one.

In: host names and their real ports. Out: its URL, and the request lines that it received.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

END_OF_HEAD = b"\r\n\r\n"


class HttpProxy:
    """One proxy."""

    def __init__(self, places: Mapping[str, int], credentials: str | None) -> None:
        """`places`: host name to the port on this machine; `credentials`: `user:password`."""
        self._places = places
        self._expected = credentials and f"Basic {b64encode(credentials.encode()).decode()}"
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.asked: list[str] = []
        """The request lines, in order."""
        self.port = 0

    @property
    def url(self) -> str:
        """The proxy's URL."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        if task is not None:
            self._connections[task] = writer
            task.add_done_callback(self._connections.pop)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(END_OF_HEAD)
            line, *headers = head.decode().split("\r\n")
            self.asked.append(line)
            if self._expected is not None and not self._is_known(headers):
                writer.write(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\n\r\n")
            elif line.startswith("CONNECT "):
                await self._tunnel(line.split()[1].rpartition(":")[0], reader, writer)
            else:
                await self._forward(head, reader, writer)
        writer.close()

    async def end(self) -> None:
        """Close all connections."""
        for writer in self._connections.values():
            writer.close()
        if self._connections:
            await asyncio.wait(list(self._connections))

    def _is_known(self, headers: list[str]) -> bool:
        given = dict(header.split(": ", 1) for header in headers if header)
        return {name.lower(): value for name, value in given.items()}.get(
            "proxy-authorization"
        ) == self._expected

    async def _tunnel(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host not in self._places:
            writer.write(b"HTTP/1.1 502 No Such Host\r\nContent-Length: 0\r\n\r\n")
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._places[host])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, url, version = head.split(b"\r\n", 1)[0].decode().split()
        parts = urlsplit(url)
        there, back = await asyncio.open_connection("127.0.0.1", self._places[parts.hostname or ""])
        back.write(f"{method} {parts.path} {version}".encode() + head[head.index(b"\r\n") :])
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def http_proxy(places: Mapping[str, int], credentials: str | None = None) -> AsyncIterator[HttpProxy]:
    """A proxy that runs during the block."""
    proxy = HttpProxy(places, credentials)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
