"""One POST: through Flagpost's HTTP adapter, against aiohttp's session as the book says, side by side in one run.

Both are processes of their own that send the same body to the same sink over the same number of connections; what
counts is CPU time of the process a POST. The rounds alternate, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import uvloop

from deliver import measure, sink
from flagpost_consumer.adapters.pendo_http import PendoAddress, PendoHttp
from flagpost_consumer.core.endpoint import Ticket
from flagpost_consumer.core.records import Attempt, EndpointName
from flagpost_consumer.core.verdict import Answer
from flagpost_settings.outbound import Outbound

HERE = Path(__file__)
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from certificates import Authority  # noqa: E402 - the tests' CA

WARM_UP = 0.1
"""The part of the requests that is not measured: connections are made in it."""
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
            http.start(Attempt(EndpointName.TRACK, BODY, Ticket("v", number), lane=lane))
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
def receiver(tls: bool) -> Iterator[tuple[str, list[str]]]:
    """A sink; gives its URL, and the options that tell a side whom to trust."""
    if not tls:
        with sink(0.0) as url:
            yield url, []
        return
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pair = authority.vouch_for("localhost")
        with sink(0.0, "--certificate", str(pair.certificate), "--key", str(pair.key)) as url:
            yield url, ["--ca-file", str(authority.file)]


def compare(requests: int, connections: int, rounds: int, tls: bool) -> None:
    figures: dict[str, list[float]] = {name: [] for name in SIDES}
    common = ["--requests", str(requests), "--connections", str(connections)]
    with receiver(tls) as (url, trust):
        for _ in range(rounds):
            for name, values in figures.items():
                side = ["--side", name, "--url", url, *trust, *common]
                values.append(measure(side, HERE)["microseconds"])
    medians = {name: statistics.median(values) for name, values in figures.items()}
    way = "over TLS" if tls else "plain"
    print(f"a POST {way}, {requests} of them, {connections} connections: CPU us (lowest and highest)")
    for name, values in figures.items():
        print(f"  {name:8} {medians[name]:6.1f}   ({min(values):.1f} to {max(values):.1f})")
    print(f"  ratio    {medians['adapter'] / medians['session']:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--url")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true", help="both sides over TLS, with a CA of this run's own")
    parser.add_argument("--ca-file")
    given = parser.parse_args()
    if given.side is None:
        compare(given.requests, given.connections, given.rounds, given.tls)
    else:
        run = SIDES[given.side]
        took = uvloop.run(run(cast("str", given.url), given.requests, given.connections, given.ca_file))
        print(json.dumps({"microseconds": took}))


if __name__ == "__main__":
    main()
