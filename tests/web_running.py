"""`flagpost web` as a process of its own, for the tests.

In: settings. Out: a running page that can be asked, and stopped.
"""

from __future__ import annotations

import asyncio
import csv
import io
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlencode

from running import FLAGPOST, START_SECONDS, environment


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class RunningWeb:
    """One `flagpost web`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        quick = {"web.port": 0, "log.format": "json"}
        self._process = subprocess.Popen(
            [str(FLAGPOST), "web"],
            env=environment({**quick, **settings}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._await_url()
        self.process_id = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        if self._process.stderr is not None:
            self._process.stderr.close()
        if error is not None:
            sys.stderr.write("\n".join(["flagpost web said:", *self.lines[-40:]]) + "\n")

    async def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and wait; gives the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, seconds)

    @property
    def peak_bytes(self) -> int:
        """The most memory that the process has had resident."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path; a header's dashes are written as underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, headers=named, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                return Answer(answer.status, _lowered(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lowered(error.headers), error.read())

    def table(self, name: str, **query: str) -> list[dict[str, str]]:
        """A table's CSV, a dictionary a row."""
        answer = self.get(f"/csv/{name}?{urlencode(query)}")
        assert answer.status == 200, answer
        return list(csv.DictReader(io.StringIO(answer.text)))

    async def until_read(self, seconds: float = 60.0) -> None:
        """Wait until there are numbers."""
        async with asyncio.timeout(seconds):
            while (await asyncio.to_thread(self.get, "/csv/flags")).status != 200:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.05)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())

    def _await_url(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if line.startswith("web http://"):
                    return line.removeprefix("web ")
            if self._process.poll() is not None:
                break
            self._reader.join(0.02)
        self._process.kill()
        raise AssertionError("flagpost web did not start:\n" + "\n".join(self.lines))


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
