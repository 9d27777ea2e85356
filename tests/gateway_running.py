"""`flagpost-gateway` as a process of its own, for the integration tests.

In: settings as environment variables. Out: a running gateway that can be sent requests, scraped and stopped.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import psutil

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from plain_logs import require_plain
from running import Series, environment, eventually, read_series

GATEWAY = Path(sys.executable).with_name("flagpost-gateway")
WRITE_KEY = "wk-4711-4711"
AUTHORIZED = {"authorization": f"Bearer {WRITE_KEY}"}


@asynccontextmanager
async def standing_still(kafka: EmbeddedKafka) -> AsyncIterator[None]:
    """The embedded broker does nothing meanwhile, but its connections stay."""
    broker = psutil.Process(kafka.process_id)
    broker.suspend()
    try:
        await eventually(lambda: broker.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        broker.resume()


class RunningGateway:
    """One `flagpost-gateway`. An async context manager: entering it waits until it listens."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """`settings` by dotted key, over those of a gateway on free ports of loopback that knows WRITE_KEY."""
        quick = {
            "gateway.host": "127.0.0.1",
            "gateway.port": 0,
            "gateway.admin_port": 0,
            "log.format": "json",
        }
        keys = {} if "gateway.write_keys_file" in settings else {"gateway.write_keys": [WRITE_KEY]}
        self.settings = {**quick, **keys, **settings}
        self._process = subprocess.Popen(
            [str(GATEWAY)],
            env=environment(self.settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.admin_url = ""

    async def __aenter__(self) -> Self:
        try:
            await eventually(
                lambda: self._address("admin") or not self.is_running, 60, what="flagpost-gateway listens"
            )
            self.url, self.admin_url = self._address("gateway"), self._address("admin")
            assert self.admin_url, "flagpost-gateway did not start:\n" + "\n".join(self.lines)
        except BaseException:
            await self._end()
            raise
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()
        await self._end()
        if error is not None:
            sys.stderr.write("\n".join(["flagpost-gateway said:", *self.lines[-40:]]) + "\n")
        else:
            require_plain(self.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def post(
        self, path: str, document: object = None, *, headers: Mapping[str, str] = AUTHORIZED, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """POST a document as JSON (or `data=` bytes); gives status, the answer's document, and its headers."""
        body = options or {"json": document}
        async with self.session.post(self.url + path, headers=headers, **body) as answer:
            return answer.status, await answer.json(), answer.headers

    async def probe(self, path: str) -> int:
        """GET /livez or /readyz; gives the status."""
        async with self.session.get(self.admin_url + path) as answer:
            return answer.status

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until it takes events."""
        async with asyncio.timeout(seconds):
            while await self.probe("/readyz") != 200:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.02)

    async def scrape(self) -> Series:
        """All series of /metrics."""
        async with self.session.get(self.admin_url + "/metrics") as answer:
            return read_series(await answer.text())

    async def value(self, name: str, **labels: str) -> float:
        """One series."""
        return (await self.scrape())[name, tuple(sorted(labels.items()))]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end; gives the exit code."""
        code = await asyncio.to_thread(self._process.wait, seconds)
        await asyncio.to_thread(self._reader.join, 5)
        return code

    async def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and wait; gives the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(seconds)

    async def _end(self) -> None:
        if self.is_running:
            self._process.kill()
        await self.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _address(self, name: str) -> str:
        lines = [line for line in list(self.lines) if line.startswith(f"{name} http://")]
        return lines[0].removeprefix(f"{name} ") if lines else ""

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
