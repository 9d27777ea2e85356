"""One POST: through Flagpost's HTTP adapter, against aiohttp's session as the book says, side by side in one run.

Both are processes of their own that send the same body to the same sink over the same number of connections; what
counts is CPU time of the process a POST. The rounds alternate, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from certificates import Authority
from delivery.receiving import IN_PYTHON, receiver
from flagpost_consumer.adapters.pendo.address import PendoAddress
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_settings.outbound import Outbound
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report

HERE = Path(__file__)
WARM_UP = 0.1
"""The part of the requests that is not measured: connections are made in it."""
QUICK_REQUESTS = 1_000
HEADER = "x-pendo-integration-key"
BODY = (
    b'{"type":"track","event":"Experiment Viewed","visitorId":"visitor-0000000000000000000000000001",'
    b'"timestamp":1800000000000,"properties":{"flag_key":"checkout_redesign","variation_key":"treatment",'
    b'"rule_key":"checkout_experiment","enabled":true},"context":{}}'
)


class Stopwatch:
    """Counts answers, and takes the CPU time between the end of the warm-up and the last one."""

    def __init__(self, requests: int) -> None:
        self._requests, self._first = requests, int(requests * WARM_UP)
        self._answers = 0
        self._began = 0.0
        self.microseconds = 0.0
        self.done = asyncio.Event()

    def answered(self) -> None:
        self._answers += 1
        if self._answers == self._first:
            self._began = time.process_time()
        elif self._answers == self._requests:
            measured = self._requests - self._first
            self.microseconds = 1e6 * (time.process_time() - self._began) / measured
            self.done.set()


async def session(url: str, requests: int, connections: int, ca_file: str | None) -> float:
    """What the book says: a session, a limit of connections, a worker for each of them."""
    watch, numbers = Stopwatch(requests), iter(range(requests))
    headers = {HEADER: "secret", "content-type": "application/json"}

    async def worker(client: aiohttp.ClientSession) -> None:
        for _ in numbers:
            async with client.post(url, data=BODY, headers=headers) as response:
                await response.read()
            watch.answered()

    connector = aiohttp.TCPConnector(limit=connections, ssl=ssl.create_default_context(cafile=ca_file))
    async with aiohttp.ClientSession(connector=connector) as client:
        await asyncio.gather(*(worker(client) for _ in range(connections)))
    return watch.microseconds


async def adapter(url: str, requests: int, connections: int, ca_file: str | None) -> float:
    """What the engine's attempts go through."""
    watch, numbers = Stopwatch(requests), iter(range(1, requests + 1))
    lane: Any = SimpleNamespace(visitor_id="v")

    def start() -> None:
        for number in numbers:
            http.start(TrackAttempt(EndpointName.TRACK, BODY, Ticket("v", number), lane))
            return

    def on_answer(_: Attempt, answer: Answer, __: float) -> None:
        assert answer.status == 200, answer  # noqa: S101 - a benchmark of failures measures nothing
        watch.answered()
        start()

    address = PendoAddress(url, "http://127.0.0.1:1", HEADER, False, 10.0, 60.0)
    http = PendoHttp(address, on_answer, Outbound("pendo", ca_file=ca_file))
    http.set_secret(EndpointName.TRACK, "secret")
    http.open()
    for _ in range(connections):
        start()
    await watch.done.wait()
    await http.close()
    return watch.microseconds


SIDES = {"session": session, "adapter": adapter}


@contextmanager
def trusted_receiver(tls: bool) -> Iterator[tuple[str, list[str]]]:
    """A sink; returns its URL, and the options that tell a side whom to trust."""
    if not tls:
        with receiver(IN_PYTHON, 0.0) as sink:
            yield sink.url, []
        return
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pair = authority.vouch_for("localhost")
        with receiver(IN_PYTHON, 0.0, certificate=(pair.certificate, pair.key)) as sink:
            yield sink.url, [f"--ca-file={authority.file}"]


def measure(requests: int, connections: int, rounds: int, tls: bool) -> Comparison:
    with trusted_receiver(tls) as (url, trust):
        common = [f"--requests={requests}", f"--connections={connections}", f"--url={url}", *trust]
        sides = [Side(name, in_a_process(HERE, f"--side={name}", *common)) for name in SIDES]
        way = "over TLS" if tls else "plain"
        return compare(f"a POST {way}, {requests} of them, {connections} connections", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--tls", action="store_true", help="both sides over TLS, with a CA of this run's own")
    parser.add_argument("--ca-file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        took = uvloop.run(SIDES[given.side](given.url, given.requests, given.connections, given.ca_file))
        print(json.dumps({"cpu_us_per_post": took}))
    else:
        requests, rounds = (QUICK_REQUESTS, 1) if given.quick else (given.requests, given.rounds)
        report([measure(requests, given.connections, rounds, given.tls)], given.json)


if __name__ == "__main__":
    main()
