"""Runs `flagpost web` as a process, for the tests.

In: settings. Out: a running page that can be requested and stopped.
"""

from __future__ import annotations

import asyncio
import csv
import io
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import NamedTuple
from urllib.parse import urlencode

from deadlines import stretched
from running import FLAGPOST, RunningProgram

READ_ANEW = "the window is read again"
"""The page's log line when it reads its window again."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class RunningWeb(RunningProgram):
    """One `flagpost web`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        super().__init__([str(FLAGPOST), "web"], {"web.port": 0, **settings})
        self.url = self.await_address("web")

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Request a path; a header's dashes are written as underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, headers=named, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=stretched(60)) as answer:  # noqa: S310 - loopback
                return Answer(answer.status, _lowered(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lowered(error.headers), error.read())

    def table(self, name: str, **query: str) -> list[dict[str, str]]:
        """A table's CSV, one dictionary for each row."""
        answer = self.get(f"/csv/{name}?{urlencode(query)}")
        assert answer.status == 200, answer
        return list(csv.DictReader(io.StringIO(answer.text)))

    async def until_read(self, seconds: float = 60.0) -> None:
        """Wait until the page shows numbers."""
        async with asyncio.timeout(stretched(seconds)):
            while (await asyncio.to_thread(self.get, "/csv/flags")).status != 200:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.05)


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
