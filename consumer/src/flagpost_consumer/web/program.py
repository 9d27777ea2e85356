"""`flagpost web` as a program: builds the parts, joins them, and runs until it is stopped.

In: settings. Out: an exit code. Nothing else knows all the parts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

import structlog

from flagpost_consumer.settings import SecretSource, Settings, SettingsError
from flagpost_consumer.web.asking import Asking
from flagpost_consumer.web.consumers import Consumers
from flagpost_consumer.web.following import Following, State
from flagpost_consumer.web.guard import Guard
from flagpost_consumer.web.ids import Ids
from flagpost_consumer.web.live import Live
from flagpost_consumer.web.pages import Pages
from flagpost_consumer.web.reports import Reports
from flagpost_consumer.web.server import WebServer
from flagpost_http.crowd import CrowdLimits
from flagpost_http.drops import Drops
from flagpost_http.server import HttpServer

log = structlog.get_logger(__name__)

LIMITS: Final = CrowdLimits(
    connections=256, known=192, strangers_at_once=256, strangers=256, strangers_a_party=256
)
"""Of the port. All come from one address where a login stands before it."""
TOKEN_SECONDS: Final = 1.0
"""How often the token's file is looked at."""


class Token:
    """The token as it is now; what its file held before, where it cannot be read."""

    def __init__(self, source: SecretSource) -> None:
        """Raises SettingsError."""
        self._source = source
        self._text = source.current()
        self._read_at = time.monotonic()

    def current(self) -> str:
        """The token."""
        if time.monotonic() - self._read_at > TOKEN_SECONDS:
            self._read_at = time.monotonic()
            with suppress(SettingsError):
                self._text = self._source.current()
        return self._text


class Program:
    """One process. To be made on the event loop."""

    def __init__(self, settings: Settings, state: Callable[[], State]) -> None:
        """`state` tells what has been read."""
        web, source = settings.web, settings.web.token_source
        self._web = web
        ids = Ids(web.show_ids)
        self._consumers = Consumers(web.consumers)
        self._live = Live(state, ids)
        reports = Reports(self._consumers, ids)
        guard = Guard(web.hosts, None if source is None else Token(source).current)
        pages = Pages(reports, self._live)
        server = WebServer(guard, state, pages, reports, self._live, Asking(settings))
        self._http = HttpServer("flagpost", server.answer, LIMITS, Drops("web", lambda _: None))
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Serve; gives the URL. Raises OSError where the address cannot be had."""
        url = await self._http.start(self._web.host, self._web.port)
        self._chores = [asyncio.create_task(self._live.run()), asyncio.create_task(self._consumers.run())]
        return url

    async def stop(self) -> None:
        """Serve no more."""
        for chore in self._chores:
            chore.cancel()
        await self._http.close()


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code."""
    stop, loop, web = asyncio.Event(), asyncio.get_running_loop(), settings.web
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    following = Following(settings)
    program = Program(settings, lambda: following.state)
    try:
        url = await program.start()
    except OSError as error:
        log.error("the address cannot be had", host=web.host, port=web.port, error=error.strerror)  # noqa: TRY400
        return 1
    sys.stderr.write(f"web {url}\n")
    sys.stderr.flush()
    if web.token_source is None and not _is_loopback(web.host):
        log.warning("whoever reaches the port sees the page: let a login stand before it, or set web.token")
    following.start()
    await stop.wait()
    await program.stop()
    await asyncio.to_thread(following.stop)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
