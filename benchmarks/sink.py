"""A server that answers 200 to every POST after a latency, as cheaply as it can, and records what came.

It prints its port, "first" at the first request and "done" once --expect requests are answered; when its standard
input closes it prints what it recorded as JSON, and ends. delivery/receiver is the same in Go, and cheaper.

    .venv/bin/python benchmarks/sink.py --latency-ms 5 --expect 20000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop

from answering import Connection

VISITOR = re.compile(rb'"visitorId":"([^"]*)"')
SEQUENCE = re.compile(rb'"sequence":(\d+)')


@dataclass(slots=True)
class Visitor:
    """What is known of one: its requests must come one at a time, in order."""

    received: int = 0
    last_sequence: int = -1
    open: int = 0
    first: float = 0.0
    last: float = 0.0
    delayed_seconds: float = 0.0


@dataclass(slots=True)
class Record:
    """What came, of all connections."""

    expect: int = 0
    received: int = 0
    answered: int = 0
    violations: int = 0
    delayed_seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    cpu_at_first: float = 0.0
    cpu_at_done: float = 0.0
    visitors: defaultdict[bytes, Visitor] = field(default_factory=lambda: defaultdict(Visitor))

    def request(self, body: bytes) -> tuple[Visitor, float]:
        now = time.monotonic()
        if self.received == 0:
            self.first, self.cpu_at_first = now, time.process_time()
            print("first", flush=True)
        self.received += 1
        found, sequence = VISITOR.search(body), SEQUENCE.search(body)
        visitor = self.visitors[found[1] if found else b""]
        number = int(sequence[1]) if sequence else 0
        self.violations += visitor.open > 0 or number <= visitor.last_sequence
        visitor.first, visitor.last = visitor.first or now, now
        visitor.received += 1
        visitor.open += 1
        visitor.last_sequence = max(visitor.last_sequence, number)
        return visitor, now

    def answering(self, visitor: Visitor, received: float) -> None:
        visitor.open -= 1
        self.answered += 1
        self.last = time.monotonic()
        self.delayed_seconds += self.last - received
        visitor.delayed_seconds += self.last - received

    def done(self) -> None:
        """Told after the answer is written."""
        if self.answered == self.expect:
            self.cpu_at_done = time.process_time()
            print("done", flush=True)

    def as_json(self) -> str:
        hottest = max(self.visitors.values(), key=lambda visitor: visitor.received, default=Visitor())
        return json.dumps(
            {
                "received": self.received,
                "seconds": self.last - self.first,
                "order_violations": self.violations,
                "hottest": hottest.received,
                "hottest_seconds": hottest.delayed_seconds,
                "cycle_ms": 1e3 * (hottest.last - hottest.first) / max(hottest.received - 1, 1),
                "latency_ms": 1e3 * self.delayed_seconds / max(self.answered, 1),
                "cpu_seconds": self.cpu_at_done - self.cpu_at_first,
            }
        )


class Sink(Connection):
    """One connection."""

    def __init__(self, latency_seconds: float, record: Record) -> None:
        super().__init__(latency_seconds)
        self._record = record

    def requested(self, body: bytes) -> Callable[[], None]:
        return partial(self._answer, *self._record.request(body))

    def _answer(self, visitor: Visitor, received: float) -> None:
        self._record.answering(visitor, received)
        self.write_answer()
        self._record.done()


async def serve(given: argparse.Namespace) -> None:
    record, context = Record(expect=given.expect), None
    if given.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(given.certificate, given.key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Sink(given.latency_ms / 1000, record), "127.0.0.1", 0, ssl=context
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(record.as_json(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--expect", type=int, default=0, help="how many requests are to come")
    parser.add_argument("--certificate", type=Path, help="PEM file; TLS is spoken with it")
    parser.add_argument("--key", type=Path)
    uvloop.run(serve(parser.parse_args()))
