"""A Pendo that accepts everything after a fixed time, as cheaply as possible, because the consumer is measured.

Run as a separate program; it prints its port, and ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import mean
from typing import cast

from flagpost_consumer.commands.plan.pod import Pendo

ANSWERS = {
    b"POST": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"GET": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",  # it has no metadata schema
}
PROBE_PAUSE_SECONDS = 0.01
PROBE = b"POST /data/track HTTP/1.1\r\nHost: sink\r\nContent-Length: 2\r\n\r\n{}"


class _Connection(asyncio.Protocol):
    latency_seconds = 0.0

    def __init__(self) -> None:
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            _, _, length = head.lower().partition(b"content-length:")
            whole = end + 4 + int(length.split(b"\r\n", 1)[0] or 0)
            if len(self._received) < whole:
                return
            del self._received[:whole]
            answer = ANSWERS[head.split(b" ", 1)[0]]
            asyncio.get_running_loop().call_later(self.latency_seconds, self._write, answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


@contextmanager
def running_sink(latency_ms: float) -> Iterator[int]:
    """Run a sink in its own process; returns its port."""
    command = [sys.executable, "-m", __name__, str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - this module
        assert process.stdin is not None  # noqa: S101 - narrows the type
        assert process.stdout is not None  # noqa: S101
        yield int(process.stdout.readline())
        process.stdin.close()


class Probes:
    """How long the sink takes to answer one more client: latency, timers, the network, its work for the consumer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._took: list[tuple[float, float]] = []
        """When each answer came, and after how many seconds."""
        self._over = threading.Event()

    def ask(self) -> None:
        """Ask again and again, with a pause in between, until it is over; at least once."""
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            while True:
                began = time.monotonic()
                connection.sendall(PROBE)
                connection.recv(1024)
                answered = time.monotonic()
                self._took.append((answered, answered - began))
                if self._over.wait(PROBE_PAUSE_SECONDS):
                    return

    def stop(self) -> None:
        """End after the answer to the present probe."""
        self._over.set()

    def during(self, began: float, seconds: float) -> Pendo:
        """The response times in this time (time.monotonic(), seconds); of all the time if nothing was asked in it."""
        took = [each for at, each in self._took if began <= at <= began + seconds]
        took = took or [each for _, each in self._took]
        return Pendo(min(took), mean(took) - min(took))


@contextmanager
def probing(port: int) -> Iterator[Probes]:
    """Probe the sink meanwhile."""
    probes = Probes(port)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(probes.ask)
        try:
            yield probes
        finally:
            probes.stop()
        asking.result()


async def _serve(latency_seconds: float) -> None:
    _Connection.latency_seconds = latency_seconds
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("latency_ms", type=float)
    import uvloop

    uvloop.run(_serve(parser.parse_args().latency_ms / 1000))
