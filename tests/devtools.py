"""A real browser that tests control: Chromium, by its DevTools protocol.

In: an address, a window's width, scripts. Out: what a page contains, what it looks like, what its console says. The
protocol is JSON over a WebSocket, which aiohttp speaks. A test is skipped if there is no Chromium; with CI set it
fails.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from browsers import CHROMIUM
from deadlines import stretched

SECONDS = 60.0
LOOK_SECONDS = 5.0
"""If a page has not answered after this long, another page has replaced it."""
MAX_MESSAGE_BYTES = 64_000_000
"""A picture is one message."""


class PageGoneError(Exception):
    """The browser has left the page while it was to run a script."""


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """The console's messages: errors, warnings, violations of the content security policy."""
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def start(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command; returns its answer."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(self._answers[number], stretched(SECONDS))

    async def open(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self._loaded.clear()
        answer = await self.send("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        await asyncio.wait_for(self._loaded.wait(), stretched(SECONDS))

    async def look(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "errorText" in answer:
            raise PageGoneError(answer["errorText"])
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true in the page, or in a page that replaces it meanwhile."""
        async with asyncio.timeout(stretched(SECONDS)):
            while not await self._glance(script):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.05)

    async def _glance(self, script: str) -> Any:
        """Like `look`, but None if the page is left meanwhile: Chromium then refuses the request or never answers."""
        try:
            async with asyncio.timeout(stretched(LOOK_SECONDS)):
                return await self.look(script)
        except (PageGoneError, TimeoutError):
            return None

    async def click(self, element: str) -> None:
        """Click the element that an expression finds; waits for nothing, because the click may leave the page."""
        await self.look(f"void setTimeout(() => {element}.click())")

    async def sized(self, width: int, height: int = 900) -> None:
        """Set the window's size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def coloured(self, scheme: str) -> None:
        """Set the colour scheme: `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def scripts(self, *, on: bool) -> None:
        """Whether pages may run their scripts from now on; the scripts of `look` run in any case."""
        await self.send("Emulation.setScriptExecutionDisabled", value=not on)

    async def press(self, key: str) -> None:
        """Press a key: Tab, Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        answer = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if not answer.done():  # otherwise it came too late: nobody waits for it any more
                    answer.set_result(told.get("result", {"errorText": told.get("error")}))
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] != "verbose":
                self.complaints.append(told["params"]["entry"]["text"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"]))


@asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """A browser for one test, with one open page."""
    found = [path for path in map(shutil.which, CHROMIUM) if path is not None]
    if not found:
        (pytest.fail if "CI" in os.environ else pytest.skip)("no Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [
                found[0], "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--disable-background-networking", "--remote-debugging-port=0", "--hide-scrollbars", "--no-first-run",
                f"--user-data-dir={profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    (page,) = [each for each in await answer.json() if each["type"] == "page"]
                async with session.ws_connect(
                    page["webSocketDebuggerUrl"], max_msg_size=MAX_MESSAGE_BYTES
                ) as socket:
                    opened = Tab(socket)
                    try:
                        await opened.start()
                        yield opened
                    finally:
                        await opened.close()
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, stretched(30))


async def _port(file: Path) -> int:
    """The port on which the browser listens; the file exists once it does."""
    async with asyncio.timeout(stretched(SECONDS)):
        while not (lines := await asyncio.to_thread(_lines, file)):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    return int(lines[0])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
