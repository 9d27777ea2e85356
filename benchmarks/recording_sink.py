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
from collections.abc import Callable

import uvloop

from answering import Connection
from side_by_side import percentile

VISITOR = re.compile(rb'"visitorId":"([^-"]+)')
SENT = re.compile(rb'"sent_us":(\d+)')
UNMEASURED = "unmeasured"

AgesMs = dict[bytes, list[float]]
"""By kind of visitor."""


class Recording(Connection):
    """One connection."""

    def __init__(self, latency_seconds: float, ages_ms: AgesMs) -> None:
        super().__init__(latency_seconds)
        self._ages_ms = ages_ms

    def requested(self, body: bytes) -> Callable[[], None]:
        sent = SENT.search(body)
        visitor = VISITOR.search(body) if sent else None
        if sent and visitor:
            self._ages_ms[visitor[1]].append(time.time_ns() / 1e6 - int(sent[1]) / 1e3)
        return self.write_answer


def figures(ages_ms: list[float]) -> dict[str, float]:
    return {
        "requests": len(ages_ms),
        **{f"p{percent:g}_ms": percentile(ages_ms, percent) for percent in (50, 99, 99.9)},
    }


async def serve(latency_seconds: float) -> AgesMs:
    """Serve until standard input closes."""
    ages_ms: AgesMs = defaultdict(list)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Recording(latency_seconds, ages_ms), "127.0.0.1", 0)
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
