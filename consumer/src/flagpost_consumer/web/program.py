"""`flagpost web` as a program: builds the parts, joins them, and runs until it is stopped.

In: settings. Out: an exit code. Nothing else knows all the parts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

import structlog

from flagpost_consumer.settings import SecretSource, Settings, SettingsError
from flagpost_consumer.web.asking import Asking
from flagpost_consumer.web.consumers import Consumers
from flagpost_consumer.web.following import Following
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

LIMITS: Final = CrowdLimits(connections=256, strangers_at_once=256, strangers=256, strangers_a_party=256)
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

    def __init__(self, settings: Settings) -> None:
        web, source = settings.web, settings.web.token_source
        self._web = web
        self._stop = asyncio.Event()
        self._following = Following(settings)
        ids = Ids(web.show_ids)
        self._consumers = Consumers(web.consumers)
        self._live = Live(lambda: self._following.state, ids)
        reports = Reports(self._consumers, ids)
        server = WebServer(
            Guard(web.hosts, None if source is None else Token(source).current),
            lambda: self._following.state,
            Pages(reports, self._live),
            reports,
            self._live,
            Asking(settings),
        )
        self._http = HttpServer("flagpost", server.answer, LIMITS, Drops("web", lambda _: None))

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            url = await self._http.start(self._web.host, self._web.port)
        except OSError as error:
            log.error(  # noqa: TRY400 - what is wrong is in the line
                "the address cannot be had", host=self._web.host, port=self._web.port, error=error.strerror
            )
            return 1
        sys.stderr.write(f"web {url}\n")
        sys.stderr.flush()
        if self._web.token_source is None and not _is_loopback(self._web.host):
            log.warning(
                "whoever reaches the port sees the page: let a login stand before it, or set web.token"
            )
        self._following.start()
        chores = [asyncio.create_task(self._live.run()), asyncio.create_task(self._consumers.run())]
        await self._stop.wait()
        for chore in chores:
            chore.cancel()
        await self._http.close()
        await asyncio.to_thread(self._following.stop)
        return 0


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(settings: Settings) -> int:
    """Run it."""
    return await Program(settings).run()
