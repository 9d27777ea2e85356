"""`flagpost-gateway` as a process of its own, for the integration tests.

In: settings as environment variables. Out: a running gateway that can be sent requests, scraped and stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import psutil

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from running import RunningProgram, Series, eventually, read_series

GATEWAY = Path(sys.executable).with_name("flagpost-gateway")
WRITE_KEY = "wk-4711-4711"
AUTHORIZED = {"authorization": f"Bearer {WRITE_KEY}"}


@asynccontextmanager
async def standing_still(kafka: EmbeddedKafka) -> AsyncIterator[None]:
    """The embedded broker is stopped during the block; its connections stay open."""
    broker = psutil.Process(kafka.process_id)
    broker.suspend()
    try:
        await eventually(lambda: broker.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        broker.resume()


def on_free_ports(settings: Mapping[str, object]) -> dict[str, object]:
    """`settings` by dotted key replace those of a gateway on free ports of loopback that accepts WRITE_KEY."""
    quick = {"gateway.host": "127.0.0.1", "gateway.port": 0, "gateway.admin_port": 0}
    keys = {} if "gateway.write_keys_file" in settings else {"gateway.write_keys": [WRITE_KEY]}
    return {**quick, **keys, **settings}


class RunningGateway(RunningProgram):
    """One `flagpost-gateway`. An async context manager: entering it waits until it listens."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """`settings` as for `on_free_ports`."""
        self.settings = on_free_ports(settings)
        super().__init__([str(GATEWAY)], self.settings)
        self.url = self.admin_url = ""

    async def __aenter__(self) -> Self:
        try:
            await eventually(
                lambda: self.address("admin") or not self.is_running, 60, what="flagpost-gateway listens"
            )
            self.url, self.admin_url = self.address("gateway"), self.address("admin")
            assert self.admin_url, "flagpost-gateway did not start:\n" + "\n".join(self.lines)
        except BaseException as error:
            self.end(error)
            raise
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()
        await asyncio.to_thread(self.end, error)

    async def post(
        self, path: str, document: object = None, *, headers: Mapping[str, str] = AUTHORIZED, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """POST a document as JSON (or `data=` bytes); returns status, the answer's document, and its headers."""
        body = options or {"json": document}
        async with self.session.post(self.url + path, headers=headers, **body) as answer:
            return answer.status, await answer.json(), answer.headers

    async def probe(self, path: str) -> int:
        """GET /livez or /readyz; returns the status."""
        async with self.session.get(self.admin_url + path) as answer:
            return answer.status

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until it accepts events."""
        async with asyncio.timeout(stretched(seconds)):
            while await self.probe("/readyz") != 200:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.02)

    async def scrape(self) -> Series:
        """All series of /metrics."""
        async with self.session.get(self.admin_url + "/metrics") as answer:
            return read_series(await answer.text())

    async def value(self, name: str, **labels: str) -> float:
        """The value of one series of /metrics."""
        return (await self.scrape())[name, tuple(sorted(labels.items()))]
