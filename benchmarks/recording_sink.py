"""A server that answers 200 to everything, as cheaply as it can, and notes how old each event is when it comes.

Run: python benchmarks/recording_sink.py --latency-ms 5; prints its port. When its standard input closes it prints,
as JSON, how many events came and the percentiles of their ages in ms, for each kind of visitor, and ends.

The kind is what a visitor id has before its first "-"; kinds that begin with "unmeasured" are not told. The age is by
the property `sent_us`, which is when the event was produced: epoch microseconds by the same machine's clock.
Requests without either are answered alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from typing import cast

import uvloop

from side_by_side import percentile

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
VISITOR = re.compile(rb'"visitorId":"([^-"]+)')
SENT = re.compile(rb'"sent_us":(\d+)')
UNMEASURED = "unmeasured"

AgesMs = dict[bytes, list[float]]
"""By kind of visitor."""


class Connection(asyncio.Protocol):
    """One connection; a pipelined request is answered in its turn."""

    def __init__(self, latency_seconds: float, ages_ms: AgesMs) -> None:
        self._latency_seconds, self._ages_ms = latency_seconds, ages_ms
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._pending, 0, end)
            body_end = end + 4 + (int(length[1]) if length else 0)
            if len(self._pending) < body_end:
                return
            self._note(end, body_end)
            del self._pending[:body_end]
            if self._latency_seconds:
                asyncio.get_running_loop().call_later(self._latency_seconds, self._answer)
            else:
                self._answer()

    def _note(self, start: int, end: int) -> None:
        sent = SENT.search(self._pending, start, end)
        visitor = VISITOR.search(self._pending, start, end) if sent else None
        if sent and visitor:
            self._ages_ms[bytes(visitor[1])].append(time.time_ns() / 1e6 - int(sent[1]) / 1e3)

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)


def figures(ages_ms: list[float]) -> dict[str, float]:
    return {
        "requests": len(ages_ms),
        **{f"p{percent:g}_ms": percentile(ages_ms, percent) for percent in (50, 99, 99.9)},
    }


async def serve(latency_seconds: float) -> AgesMs:
    """Serve until standard input closes."""
    ages_ms: AgesMs = defaultdict(list)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(latency_seconds, ages_ms), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    return ages_ms


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0.0)
    ages_ms = uvloop.run(serve(parser.parse_args().latency_ms / 1000))
    kinds = {kind.decode(): ages for kind, ages in ages_ms.items()}
    told = {kind: figures(ages) for kind, ages in kinds.items() if not kind.startswith(UNMEASURED)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
