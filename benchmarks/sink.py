"""A server that answers 200 to every request, as cheaply as it can: what is measured is the client.

Run: python benchmarks/sink.py --latency-ms 0; prints its port, and ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink(asyncio.Protocol):
    latency_seconds = 0.0

    def __init__(self) -> None:
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._pending[:end]).lower()
            _, _, after = head.partition(b"content-length:")
            length = int(after.split(b"\r\n", 1)[0] or 0)
            if len(self._pending) < end + 4 + length:
                return
            del self._pending[: end + 4 + length]
            self._answer()

    def _answer(self) -> None:
        if self.latency_seconds:
            asyncio.get_running_loop().call_later(self.latency_seconds, self._write)
        else:
            self._write()

    def _write(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)


def tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """A server's context of two PEM files; None: no TLS."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def serve(latency_seconds: float, context: ssl.SSLContext | None) -> None:
    Sink.latency_seconds = latency_seconds
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--certificate", help="PEM; the sink then speaks TLS")
    parser.add_argument("--key")
    given = parser.parse_args()
    uvloop.run(serve(given.latency_ms / 1000, tls(given.certificate, given.key)))
